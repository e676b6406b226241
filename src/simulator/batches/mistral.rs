//! Mistral's batch jobs.

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::batch::Batch;
use super::call::{Call, Reply};
use super::faults::FaultKind;
use super::lines::{Checked, Lines, Problem, Raw, Rules};
use super::openai::{metadata, rejected};
use super::order::Order;
use super::provider::Provider;
use super::state::State;
use super::timing::Phase;
use super::uploads;

const ENDPOINTS: [&str; 2] = ["/v1/chat/completions", "/v1/embeddings"];
/// Most requests that come with the creation.
const MOST_INLINE: usize = 10_000;
const PAGE: (usize, usize) = (100, 1000);
const HOUR: f64 = 3600.0;
/// Hours that a job may take, unless it says.
const USUAL_HOURS: f64 = 24.0;
const MOST_HOURS: f64 = 168.0;

#[derive(Deserialize)]
struct CreateBody<'a> {
    endpoint: Option<String>,
    model: Option<String>,
    input_files: Option<Vec<String>>,
    #[serde(borrow)]
    requests: Option<Vec<Raw<'a>>>,
    metadata: Option<Value>,
    timeout_hours: Option<f64>,
}

/// Answers a request. `path`: its parts after the version.
pub fn answer(state: &mut State, call: &Call, path: &[&str], now: f64) -> Reply {
    match (&call.method, path) {
        (_, ["files", rest @ ..]) => uploads::answer(state, call, rest, now),
        (&Method::POST, ["batch", "jobs"]) => create(state, call, now),
        (&Method::GET, ["batch", "jobs"]) => list(state, call, now),
        (&Method::GET, ["batch", "jobs", id]) => match state.poll(id, call.provider, call.account, now) {
            Some(place) => {
                let batch = &state.batches[place];
                let mut told = tell(batch, state.epoch, now);
                if call.param("inline") == Some("true") && batch.end.is_some() {
                    told["outputs"] = outputs(state, place, now);
                }
                Reply::ok(told)
            }
            None => call.missing("batch job", id),
        },
        (&Method::POST, ["batch", "jobs", id, "cancel"]) => {
            state.advance(now);
            let Some(place) = state.find(id, call.provider, call.account, now) else {
                return call.missing("batch job", id);
            };
            state.cancel(place, now);
            Reply::ok(tell(&state.batches[place], state.epoch, now))
        }
        (&Method::DELETE, ["batch", "jobs", id]) => {
            state.advance(now);
            state.ledger.open().called("delete");
            let Some(place) = state.find(id, call.provider, call.account, now) else {
                return call.missing("batch job", id);
            };
            state.delete(place, now);
            Reply::ok(json!({"id": id, "object": "batch", "deleted": true}))
        }
        _ => call.unknown(),
    }
}

fn create(state: &mut State, call: &Call, now: f64) -> Reply {
    let requested = match serde_json::from_slice::<CreateBody<'_>>(&call.body) {
        Ok(requested) => requested,
        Err(error) => return call.error(422, &format!("the body is not as expected: {error}")),
    };
    let Some(endpoint) = requested.endpoint.filter(|endpoint| ENDPOINTS.contains(&endpoint.as_str())) else {
        return call.error(422, &format!("endpoint must be one of {}", ENDPOINTS.join(", ")));
    };
    let Some(model) = requested.model else { return call.error(422, "model is required") };
    let label = match metadata(requested.metadata.as_ref()) {
        Ok(label) => label,
        Err(problem) => return call.error(422, &problem),
    };
    let hours = requested.timeout_hours.unwrap_or(USUAL_HOURS);
    if !(1.0..=MOST_HOURS).contains(&hours) {
        return call.error(422, &format!("timeout_hours must be from 1 to {MOST_HOURS}"));
    }
    let rules = Rules { most_lines: state.settings.most_lines(Provider::Mistral), ..Rules::default() };
    let mut file = None;
    let (mut lines, mut problems, mut banned) = (Lines::default(), Vec::new(), Vec::new());
    let mut take = |checked: Checked| {
        lines.extend(checked.lines);
        problems.extend(checked.problems);
        banned.extend(checked.banned);
    };
    match (requested.input_files.as_deref(), &requested.requests) {
        (None | Some([]), Some(requests)) => {
            let most = MOST_INLINE.min(rules.most_lines);
            take(Checked::list(&call.body, requests, &Rules { most_lines: most, ..rules }));
        }
        (Some(ids @ [_, ..]), None) => {
            for id in ids {
                let Some(found) = state.files.get(id, call.account, now) else { return call.missing("file", id) };
                file = file.or_else(|| Some((id.clone(), found.name.clone())));
                take(Checked::file(&found.bytes.clone(), &rules));
            }
        }
        _ => return call.error(422, "one of input_files and requests is required"),
    }
    let expires_after = hours * HOUR;
    let order = Order {
        provider: Provider::Mistral,
        account: call.account,
        endpoint,
        model: Some(model),
        label,
        file,
        window: None,
        expires_after,
        lines,
        problems,
        tokens: 0,
    };
    match state.create(order, &banned, now) {
        Ok(place) => Reply::ok(tell(&state.batches[place], state.epoch, now)),
        Err(trouble) => rejected(call, trouble),
    }
}

fn list(state: &mut State, call: &Call, now: f64) -> Reply {
    let mut places = state.list(call.provider, call.account, now);
    let page: usize = call.param("page").and_then(|page| page.parse().ok()).unwrap_or_default();
    let size = match call.number("page_size", PAGE.0, PAGE.1) {
        Ok(size) => size,
        Err(reply) => return reply,
    };
    let model = call.param("model");
    let states: Vec<&str> =
        call.query.iter().filter(|(name, _)| name == "status").flat_map(|(_, states)| states.split(',')).collect();
    let after = match call.param("created_after").map(str::parse::<Timestamp>) {
        None => None,
        Some(Ok(after)) => Some(after.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()),
        Some(Err(error)) => return call.error(422, &format!("created_after: {error}")),
    };
    // How the filter is written is not documented; JSON is understood.
    let pairs = call.param("metadata").and_then(|pairs| serde_json::from_str::<Value>(pairs).ok());
    places.retain(|place| {
        let batch = &state.batches[*place];
        let label = batch.order.label.as_ref().map(super::order::Label::value).unwrap_or_default();
        let mut wanted = pairs.iter().filter_map(Value::as_object).flatten();
        model.is_none_or(|model| batch.order.model.as_deref() == Some(model))
            && (states.is_empty() || states.contains(&Provider::Mistral.state(batch.phase(now))))
            && after.is_none_or(|after| state.epoch + batch.timing.created > after)
            && wanted.all(|(name, value)| label.get(name) == Some(value))
    });
    if call.param("order_by") == Some("created") {
        places.reverse();
    }
    let from = page.saturating_mul(size).min(places.len());
    let page = &places[from..(from + size).min(places.len())];
    let data: Vec<Value> = page.iter().map(|place| tell(&state.batches[*place], state.epoch, now)).collect();
    Reply::ok(json!({"data": data, "object": "list", "total": places.len()}))
}

/// Results as a list, of answers and errors.
fn outputs(state: &mut State, place: usize, now: f64) -> Value {
    let (account, files) = (state.batches[place].order.account, state.batches[place].files.clone());
    let mut all: Vec<Value> = Vec::new();
    for id in [files.0, files.1].into_iter().flatten() {
        let text = state.files.get(&id, account, now).map(|file| file.bytes.clone()).unwrap_or_default();
        all.extend(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
    }
    let batch = &state.batches[place];
    if now < batch.forgotten {
        all.extend(batch.output.lines(0..batch.output.len()));
        all.extend(batch.errors.lines(0..batch.errors.len()));
    }
    all.into()
}

#[allow(clippy::cast_possible_truncation)]
fn tell(batch: &Batch, epoch: f64, now: f64) -> Value {
    let (order, phase, counts) = (&batch.order, batch.phase(now), batch.counts);
    let at = |at: f64| Value::from((epoch + at) as i64);
    let has_started = now >= batch.timing.started && phase != Phase::Failed;
    let label = if batch.faults.has(FaultKind::LabelDropped) { None } else { order.label.as_ref() };
    let failures = if phase == Phase::Failed { order.problems.as_slice() } else { &[] };
    let errors: Vec<Value> =
        failures.iter().map(|Problem { message, .. }| json!({"message": message, "count": 1})).collect();
    json!({
        "id": batch.id, "object": "batch", "input_files": order.file.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        "endpoint": order.endpoint, "model": order.model, "agent_id": null,
        "metadata": label.map(super::order::Label::value),
        "status": order.provider.state(phase), "output_file": batch.files.0, "error_file": batch.files.1,
        "errors": errors, "outputs": null, "created_at": at(batch.timing.created),
        "started_at": if has_started { at(batch.timing.started) } else { Value::Null },
        "completed_at": batch.end.map(|(ended, _)| at(ended)), "total_requests": batch.total,
        "completed_requests": counts.succeeded + counts.failed, "succeeded_requests": counts.succeeded,
        "failed_requests": counts.failed,
    })
}
