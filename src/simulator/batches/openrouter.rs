//! OpenRouter's batches: requests come with the creation, results with the batch.

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::batch::Batch;
use super::call::{Call, Reply};
use super::lines::{Checked, Raw, Rules};
use super::openai::rejected;
use super::order::Order;
use super::provider::Provider;
use super::state::State;
use super::timing::Phase;

const ENDPOINTS: [&str; 3] = ["/v1/chat/completions", "/v1/responses", "/v1/embeddings"];
const PAGE: (usize, usize) = (20, 100);

#[derive(Deserialize)]
struct CreateBody<'a> {
    #[serde(borrow)]
    endpoint: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    requests: Option<&'a RawValue>,
}

/// Answers a request. `path`: its parts after the version.
pub fn answer(state: &mut State, call: &Call, path: &[&str], now: f64) -> Reply {
    match (&call.method, path) {
        (&Method::POST, ["batches"]) => create(state, call, now),
        (&Method::GET, ["batches"]) => list(state, call, now),
        (&Method::GET, ["batches", id]) => match state.poll(id, call.provider, call.account, now) {
            Some(place) => {
                let batch = &state.batches[place];
                let mut told = tell(batch, state.epoch, now);
                let is_there = batch.end.is_some() && now < batch.forgotten;
                let results = if is_there { batch.output.lines(0..batch.output.len()).collect() } else { Vec::new() };
                told["results"] = Value::Array(results);
                Reply::ok(told)
            }
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
        (&Method::DELETE, ["batches", id]) => {
            state.advance(now);
            state.ledger.open().called("delete");
            let Some(place) = state.find(id, call.provider, call.account, now) else {
                return call.missing("batch", id);
            };
            state.delete(place, now);
            Reply::ok(json!({"id": id, "deleted": true}))
        }
        _ => call.unknown(),
    }
}

fn create(state: &mut State, call: &Call, now: f64) -> Reply {
    let Ok(requested) = serde_json::from_slice::<CreateBody<'_>>(&call.body) else {
        return call.error(400, "the body is not JSON with endpoint, model and requests");
    };
    let (Some(endpoint), Some(model), Some(requests)) = (requested.endpoint, requested.model, requested.requests)
    else {
        return call.error(400, "endpoint, model and requests are required");
    };
    // The body is read as a stream there.
    let begin = |value: &RawValue| value.get().as_ptr() as usize;
    if begin(requests) < begin(endpoint).max(begin(model)) {
        return call.error(400, "endpoint and model must come before requests");
    }
    let text = |value: &RawValue| serde_json::from_str::<String>(value.get()).unwrap_or_default();
    let (endpoint, model) = (text(endpoint), text(model));
    let endpoint = if endpoint.starts_with("/v1/") { endpoint } else { format!("/v1{endpoint}") };
    if !ENDPOINTS.contains(&endpoint.as_str()) || model.is_empty() {
        return call.error(400, &format!("model is required, and endpoint must be one of {}", ENDPOINTS.join(", ")));
    }
    let Ok(requests) = serde_json::from_str::<Vec<Raw<'_>>>(requests.get()) else {
        return call.error(400, "requests must be a list of {custom_id, body}");
    };
    let rules = Rules { most_lines: state.settings.most_lines(Provider::OpenRouter), ..Rules::default() };
    let checked = Checked::list(&call.body, &requests, &rules);
    if let Some(problem) = checked.problems.first() {
        if problem.code == "too_many_tasks" {
            state.ledger.open().violated(now, "size", problem.message.clone());
        }
        return call.error(400, &problem.message);
    }
    let order = Order {
        provider: Provider::OpenRouter,
        account: call.account,
        endpoint,
        model: Some(model),
        label: None,
        file: None,
        window: None,
        expires_after: Provider::OpenRouter.expires_after(),
        lines: checked.lines,
        problems: Vec::new(),
        tokens: 0,
    };
    match state.create(order, &checked.banned, now) {
        Ok(place) => Reply::Json(202, tell(&state.batches[place], state.epoch, now)),
        Err(trouble) => rejected(call, trouble),
    }
}

fn list(state: &mut State, call: &Call, now: f64) -> Reply {
    let places = state.list(call.provider, call.account, now);
    let limit = match call.number("limit", PAGE.0, PAGE.1) {
        Ok(limit) => limit,
        Err(reply) => return reply,
    };
    let from = match call.param("after") {
        None => 0,
        Some(after) => match places.iter().position(|place| state.batches[*place].id == after) {
            Some(place) => place + 1,
            None => return call.missing("batch", after),
        },
    };
    let page = &places[from..(from + limit).min(places.len())];
    let data: Vec<Value> = page.iter().map(|place| tell(&state.batches[*place], state.epoch, now)).collect();
    Reply::ok(json!({"data": data, "has_more": from + page.len() < places.len()}))
}

#[allow(clippy::cast_possible_truncation)]
fn tell(batch: &Batch, epoch: f64, now: f64) -> Value {
    let (order, phase, counts) = (&batch.order, batch.phase(now), batch.counts);
    let at = |at: f64| Value::from((epoch + at) as i64);
    let mut told = json!({
        "id": batch.id, "object": "batch", "model": order.model, "provider": "simulated", "endpoint": order.endpoint,
        "status": order.provider.state(phase), "created_at": at(batch.timing.created),
        "request_counts": {"total": batch.total, "completed": counts.succeeded, "failed": counts.failed},
        "expires_at": at(batch.timing.expires), "finalized_at": batch.end.map(|(ended, _)| at(ended)), "error": null,
    });
    if phase == Phase::Failed {
        told["error"] = order.problems.first().map_or(Value::Null, |problem| problem.message.clone().into());
    }
    if phase.is_end() {
        let (input, output) = batch.usage;
        told["usage"] = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output});
    }
    told
}
