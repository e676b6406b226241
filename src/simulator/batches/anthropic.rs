//! Anthropic's Message Batches.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::batch::Batch;
use super::call::{Call, Reply};
use super::clock::rfc3339;
use super::lines::{Checked, Raw, Rules};
use super::openai::rejected;
use super::order::Order;
use super::provider::Provider;
use super::state::State;

/// Longest `custom_id`.
const LONGEST_ID: usize = 64;

#[derive(Deserialize)]
struct CreateBody<'a> {
    #[serde(borrow)]
    requests: Option<Vec<Raw<'a>>>,
}

/// Answers a request. `rest`: the parts of its path after `messages/batches`.
pub fn answer(state: &mut State, call: &Call, rest: &[&str], now: f64) -> Reply {
    match (&call.method, rest) {
        (&Method::POST, []) => create(state, call, now),
        (&Method::GET, []) => list(state, call, now),
        (&Method::GET, [id]) => match state.poll(id, call.provider, call.account, now) {
            Some(place) => Reply::ok(tell(&state.batches[place], call, state.epoch, now)),
            None => missing(call, id),
        },
        (&Method::GET, [id, "results"]) => results(state, call, id, now),
        (&Method::POST, [id, "cancel"]) => {
            state.advance(now);
            match state.find(id, call.provider, call.account, now) {
                Some(place) => {
                    state.cancel(place, now);
                    Reply::ok(tell(&state.batches[place], call, state.epoch, now))
                }
                None => missing(call, id),
            }
        }
        (&Method::DELETE, [id]) => delete(state, call, id, now),
        _ => call.unknown(),
    }
}

fn missing(call: &Call, id: &str) -> Reply {
    call.error(404, &format!("Batch with ID '{id}' not found."))
}

fn create(state: &mut State, call: &Call, now: f64) -> Reply {
    let requested = match serde_json::from_slice::<CreateBody<'_>>(&call.body) {
        Ok(CreateBody { requests: Some(requests) }) if !requests.is_empty() => requests,
        Ok(_) => return call.error(400, "requests: Field required, with at least 1 item"),
        Err(error) => return call.error(400, &format!("the body is not as expected: {error}")),
    };
    let most = state.settings.most_bytes(Provider::Anthropic);
    if call.body.len() > most {
        let message = format!("The request has {} bytes; the most is {most}.", call.body.len());
        state.ledger.open().violated(now, "size", message.clone());
        return call.error(413, &message);
    }
    let rules =
        Rules { most_lines: state.settings.most_lines(Provider::Anthropic), is_anthropic: true, ..Rules::default() };
    let checked = Checked::list(&call.body, &requested, &rules);
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let fits = |id: &str| !id.is_empty() && id.len() <= LONGEST_ID && id.chars().all(is_letter);
    if let Some(line) = (0..checked.lines.len()).find(|line| !fits(&checked.lines.id(*line))) {
        let rule = "should match pattern '^[a-zA-Z0-9_-]{1,64}$'";
        return call.error(400, &format!("requests.{line}.custom_id: String {rule}"));
    }
    if let Some(problem) = checked.problems.first() {
        if problem.code == "too_many_tasks" {
            state.ledger.open().violated(now, "size", problem.message.clone());
        }
        return call.error(400, &format!("requests: {}", problem.message));
    }
    let order = Order {
        provider: Provider::Anthropic,
        account: call.account,
        endpoint: "/v1/messages".to_owned(),
        // Models may mix; the queue is one for all.
        model: None,
        label: None,
        file: None,
        window: None,
        expires_after: Provider::Anthropic.expires_after(),
        lines: checked.lines,
        problems: Vec::new(),
        tokens: 0,
    };
    match state.create(order, &checked.banned, now) {
        Ok(place) => Reply::ok(tell(&state.batches[place], call, state.epoch, now)),
        Err(trouble) => rejected(call, trouble),
    }
}

fn list(state: &mut State, call: &Call, now: f64) -> Reply {
    let places = state.list(call.provider, call.account, now);
    let limit = match call.number("limit", 20, 1000) {
        Ok(limit) => limit,
        Err(reply) => return reply,
    };
    let place_of = |id: &str| places.iter().position(|place| state.batches[*place].id == id);
    let (from, to) = match (call.param("after_id"), call.param("before_id")) {
        (Some(_), Some(_)) => return call.error(400, "only one of after_id and before_id can be given"),
        (Some(after), None) => match place_of(after) {
            Some(place) => (place + 1, (place + 1 + limit).min(places.len())),
            None => return missing(call, after),
        },
        (None, Some(before)) => match place_of(before) {
            Some(place) => (place.saturating_sub(limit), place),
            None => return missing(call, before),
        },
        (None, None) => (0, limit.min(places.len())),
    };
    let has_more = if call.param("before_id").is_some() { from > 0 } else { to < places.len() };
    let page = &places[from..to];
    let id = |place: Option<&usize>| place.map(|place| state.batches[*place].id.clone());
    let data: Vec<Value> = page.iter().map(|place| tell(&state.batches[*place], call, state.epoch, now)).collect();
    Reply::ok(json!({"data": data, "has_more": has_more, "first_id": id(page.first()), "last_id": id(page.last())}))
}

fn results(state: &mut State, call: &Call, id: &str, now: f64) -> Reply {
    state.advance(now);
    let Some(place) = state.find(id, call.provider, call.account, now) else { return missing(call, id) };
    let batch = &state.batches[place];
    if batch.end.is_none() {
        return call.error(404, &format!("Batch '{id}' has no available results: it has not ended."));
    }
    if now >= batch.forgotten {
        return call.error(404, &format!("The results of batch '{id}' have expired."));
    }
    let mut download = state.results(place);
    if !download.kind.is_empty() {
        download.kind = "application/x-jsonl";
    }
    Reply::Download(download)
}

fn delete(state: &mut State, call: &Call, id: &str, now: f64) -> Reply {
    state.advance(now);
    state.ledger.open().called("delete");
    let Some(place) = state.find(id, call.provider, call.account, now) else { return missing(call, id) };
    if state.batches[place].end.is_none() {
        return call.error(400, &format!("Batch '{id}' cannot be deleted: it has not ended."));
    }
    state.delete(place, now);
    Reply::ok(json!({"id": id, "type": "message_batch_deleted"}))
}

/// A batch as it is told.
fn tell(batch: &Batch, call: &Call, epoch: f64, now: f64) -> Value {
    let (timing, phase) = (&batch.timing, batch.phase(now));
    let at = |at: f64| rfc3339(epoch + at);
    let is_archived = phase.is_end() && now >= batch.forgotten;
    let counts = batch.counts;
    // Nothing is told until all have ended; what nobody has counted was dropped.
    let processing = if phase.is_end() { 0 } else { batch.total };
    let told = |count: usize| if phase.is_end() { count } else { 0 };
    let results =
        (phase.is_end() && !is_archived).then(|| format!("{}/v1/messages/batches/{}/results", call.origin, batch.id));
    json!({
        "id": batch.id, "type": "message_batch", "processing_status": Provider::Anthropic.state(phase),
        "request_counts": {"processing": processing, "succeeded": told(counts.succeeded), "errored": told(counts.failed),
            "canceled": told(counts.cancelled), "expired": told(counts.expired)},
        "created_at": at(timing.created), "expires_at": at(timing.expires),
        "ended_at": batch.end.map(|(ended, _)| at(ended)),
        "cancel_initiated_at": timing.cancel.filter(|cancel| cancel.requested <= now).map(|cancel| at(cancel.requested)),
        "archived_at": is_archived.then(|| at(batch.forgotten)),
        "results_url": results,
    })
}
