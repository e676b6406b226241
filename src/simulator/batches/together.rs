//! Together's batches: wrapped when they are made, bare afterwards, and without anything that a client could mark.

use http::Method;
use serde_json::{Value, json};

use super::batch::Batch;
use super::call::{Call, Reply};
use super::clock::rfc3339;
use super::lines::{Checked, Rules};
use super::openai::rejected;
use super::order::Order;
use super::provider::Provider;
use super::state::State;
use super::timing::Phase;
use super::uploads;

const ENDPOINT: &str = "/v1/chat/completions";

/// Answers a request. `path`: its parts after the version.
pub fn answer(state: &mut State, call: &Call, path: &[&str], now: f64) -> Reply {
    match (&call.method, path) {
        (_, ["files", rest @ ..]) => uploads::answer(state, call, rest, now),
        (&Method::POST, ["batches"]) => create(state, call, now),
        (&Method::GET, ["batches"]) => {
            let places = state.list(call.provider, call.account, now);
            let all: Vec<Value> = places.iter().map(|place| tell(&state.batches[*place], state.epoch, now)).collect();
            Reply::ok(all.into())
        }
        (&Method::GET, ["batches", id]) => match state.poll(id, call.provider, call.account, now) {
            Some(place) => Reply::ok(tell(&state.batches[place], state.epoch, now)),
            None => call.missing("batch", id),
        },
        (&Method::POST, ["batches", id, "cancel"]) => {
            state.advance(now);
            let Some(place) = state.find(id, call.provider, call.account, now) else {
                return call.missing("batch", id);
            };
            state.cancel(place, now);
            Reply::ok(tell(&state.batches[place], state.epoch, now))
        }
        _ => call.unknown(),
    }
}

fn create(state: &mut State, call: &Call, now: f64) -> Reply {
    let requested = match call.json() {
        Ok(requested) => requested,
        Err(reply) => return reply,
    };
    let text = |name: &str| requested.get(name).and_then(Value::as_str);
    if text("endpoint") != Some(ENDPOINT) {
        return call.error(400, &format!("endpoint must be {ENDPOINT}"));
    }
    let Some(id) = text("input_file_id") else { return call.error(400, "input_file_id is required") };
    let Some(file) = state.files.get(id, call.account, now) else { return call.missing("file", id) };
    let (bytes, name) = (file.bytes.clone(), file.name.clone());
    let most = state.settings.most_bytes(Provider::Together);
    if bytes.len() > most {
        let message = format!("The file has {} bytes; the most is {most}.", bytes.len());
        state.ledger.open().violated(now, "size", message.clone());
        return call.error(400, &message);
    }
    let rules =
        Rules { one_model: true, most_lines: state.settings.most_lines(Provider::Together), ..Rules::default() };
    let checked = Checked::file(&bytes, &rules);
    let order = Order {
        provider: Provider::Together,
        account: call.account,
        endpoint: ENDPOINT.to_owned(),
        model: text("model_id").map(str::to_owned).or(checked.model),
        label: None,
        file: Some((id.to_owned(), name)),
        window: None,
        expires_after: Provider::Together.expires_after(),
        lines: checked.lines,
        problems: checked.problems,
        tokens: 0,
    };
    match state.create(order, &checked.banned, now) {
        Ok(place) => Reply::Json(201, json!({"job": tell(&state.batches[place], state.epoch, now)})),
        Err(trouble) => rejected(call, trouble),
    }
}

#[allow(clippy::cast_precision_loss)]
fn tell(batch: &Batch, epoch: f64, now: f64) -> Value {
    let (order, timing, phase) = (&batch.order, &batch.timing, batch.phase(now));
    let at = |at: f64| rfc3339(epoch + at);
    let done = batch.counts.succeeded + batch.counts.failed;
    let error = order.problems.first().filter(|_| phase == Phase::Failed);
    let mut told = json!({
        "id": batch.id, "user_id": format!("{:016x}", order.account), "endpoint": order.endpoint,
        "input_file_id": order.file.as_ref().map(|(id, _)| id), "file_size_bytes": batch.bytes,
        "status": order.provider.state(phase), "progress": 100.0 * done as f64 / batch.total.max(1) as f64,
        "model_id": order.model, "job_deadline": at(timing.expires), "created_at": at(timing.created),
    });
    for (name, file) in [("output_file_id", &batch.files.0), ("error_file_id", &batch.files.1)] {
        if let Some(file) = file {
            told[name] = file.clone().into();
        }
    }
    if let Some(problem) = error {
        told["error"] = problem.message.clone().into();
    }
    if let Some((ended, _)) = batch.end {
        told["completed_at"] = at(ended).into();
    }
    told
}
