//! xAI's batches: made empty and filled in portions, or made of a file. They have no status; counts tell all.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::batch::Batch;
use super::call::{Call, Reply};
use super::clock::rfc3339;
use super::faults::FaultKind;
use super::lines::{Checked, Lines, Raw, Rules};
use super::openai::rejected;
use super::order::{Label, Order};
use super::provider::Provider;
use super::state::State;
use super::uploads;

/// Most bytes of a request that adds.
const MOST_ADDED: usize = 25 << 20;
/// Entries of a page, and most of them.
const PAGE: (usize, usize) = (100, 1000);
/// Models that are refused in batches.
const REFUSED: [&str; 4] = ["grok-4.5", "grok-4.6", "grok-4.7", "grok-build-0.1"];
/// Ten-billionths of a dollar for a token of a prompt and of an answer: half of 1 and of 5 dollars for a million.
const TICKS: (u64, u64) = (5_000, 25_000);

#[derive(Deserialize)]
struct Added<'a> {
    #[serde(borrow)]
    batch_requests: Vec<Raw<'a>>,
}

/// Answers a request. `path`: its parts after the version.
pub fn answer(state: &mut State, call: &Call, path: &[&str], now: f64) -> Reply {
    match (&call.method, path) {
        (_, ["files", rest @ ..]) => uploads::answer(state, call, rest, now),
        (&Method::POST, ["batches"]) => create(state, call, now),
        (&Method::GET, ["batches"]) => list(state, call, now),
        (&Method::GET, ["batches", id]) => match state.poll(id, call.provider, call.account, now) {
            Some(place) => Reply::ok(tell(&state.batches[place], state.epoch, now)),
            None => call.missing("batch", id),
        },
        (&Method::POST, ["batches", rest]) => match rest.strip_suffix(":cancel") {
            Some(id) => {
                state.advance(now);
                let Some(place) = state.find(id, call.provider, call.account, now) else {
                    return call.missing("batch", id);
                };
                state.cancel(place, now);
                Reply::ok(tell(&state.batches[place], state.epoch, now))
            }
            None => call.unknown(),
        },
        (&Method::POST, ["batches", id, "requests"]) => add(state, call, id, now),
        (&Method::GET, ["batches", id, "requests"]) => {
            let Some(place) = state.poll(id, call.provider, call.account, now) else {
                return call.missing("batch", id);
            };
            let all = state.batches[place].lines();
            let line = |place: usize| {
                let (id, model, is_done) = all.get(place).cloned().unwrap_or_default();
                let state = if is_done { "STATE_COMPLETED" } else { "STATE_PENDING" };
                json!({"batch_request_id": id, "model": model, "state": state, "endpoint": "/v1/chat/completions"})
            };
            page(call, "batch_request_metadata", all.len(), line)
        }
        (&Method::GET, ["batches", id, "results"]) => {
            let Some(place) = state.poll(id, call.provider, call.account, now) else {
                return call.missing("batch", id);
            };
            let batch = &state.batches[place];
            if now >= batch.forgotten {
                return call.error(404, "the results have expired");
            }
            state.ledger.open().called("download");
            page(call, "results", batch.output.len(), |at| batch.output.lines(at..at + 1).next().unwrap_or_default())
        }
        _ => call.unknown(),
    }
}

/// A page of entries. The token is the place of the next.
fn page(call: &Call, name: &str, all: usize, entry: impl Fn(usize) -> Value) -> Reply {
    let limit = match call.number("limit", PAGE.0, PAGE.1) {
        Ok(limit) => limit,
        Err(reply) => return reply,
    };
    let from = match call.param("pagination_token").filter(|token| !token.is_empty()).map(str::parse::<usize>) {
        None => 0,
        Some(Ok(from)) => from.min(all),
        Some(Err(_)) => return call.error(400, "pagination_token is not valid"),
    };
    let to = (from + limit).min(all);
    let mut told = json!({name: (from..to).map(entry).collect::<Vec<_>>()});
    told["pagination_token"] = if to < all { to.to_string().into() } else { Value::Null };
    Reply::ok(told)
}

fn create(state: &mut State, call: &Call, now: f64) -> Reply {
    let requested = match call.json() {
        Ok(requested) => requested,
        Err(reply) => return reply,
    };
    let text = |name: &str| requested.get(name).and_then(Value::as_str);
    let Some(label) = text("name") else { return call.error(400, "name is required") };
    let (mut lines, mut file) = (Lines::default(), None);
    let mut banned = Vec::new();
    if let Some(id) = text("input_file_id") {
        let Some(found) = state.files.get(id, call.account, now) else { return call.missing("file", id) };
        let (bytes, name) = (found.bytes.clone(), found.name.clone());
        let rules = Rules { most_lines: state.settings.most_lines(Provider::Xai), ..Rules::default() };
        let checked = Checked::file(&bytes, &rules);
        if let Some(problem) = checked.problems.first() {
            return call.error(400, &problem.message);
        }
        (lines, file, banned) = (checked.lines, Some((id.to_owned(), name)), checked.banned);
    }
    let order = Order {
        provider: Provider::Xai,
        account: call.account,
        endpoint: "/v1/chat/completions".to_owned(),
        model: None,
        label: Some(Label::Name(label.to_owned())),
        file,
        window: None,
        expires_after: Provider::Xai.expires_after(),
        lines,
        problems: Vec::new(),
        tokens: 0,
    };
    match state.create(order, &banned, now) {
        Ok(place) => Reply::ok(tell(&state.batches[place], state.epoch, now)),
        Err(trouble) => rejected(call, trouble),
    }
}

fn add(state: &mut State, call: &Call, id: &str, now: f64) -> Reply {
    state.advance(now);
    let Some(place) = state.find(id, call.provider, call.account, now) else { return call.missing("batch", id) };
    let batch = &state.batches[place];
    if batch.order.file.is_some() || batch.end.is_some() || batch.timing.cancel.is_some() {
        return call.error(400, "nothing can be added to this batch");
    }
    if call.body.len() > MOST_ADDED {
        state.ledger.open().violated(
            now,
            "size",
            format!("{} bytes added at once; the most is {MOST_ADDED}", call.body.len()),
        );
        return call.error(413, &format!("a request may have at most {MOST_ADDED} bytes"));
    }
    let requested = match serde_json::from_slice::<Added<'_>>(&call.body) {
        Ok(requested) => requested.batch_requests,
        Err(error) => return call.error(400, &format!("the body is not as expected: {error}")),
    };
    let room = state.settings.most_lines(Provider::Xai).saturating_sub(batch.total);
    let checked = Checked::list(&call.body, &requested, &Rules { most_lines: room, ..Rules::default() });
    if let Some(problem) = checked.problems.first() {
        return call.error(400, &problem.message);
    }
    let models = (0..checked.lines.len()).map(|line| checked.lines.model(line));
    if let Some(model) = models.flatten().find(|model| REFUSED.contains(&model.as_str())) {
        return call.error(400, &format!("The model {model} cannot be used in batches."));
    }
    for what in &checked.banned {
        state.ledger.open().violated(now, "banned", what.clone());
    }
    match state.add(place, checked.lines, now) {
        Ok(()) => Reply::ok(json!({})),
        Err(problem) => call.error(400, &problem),
    }
}

fn list(state: &mut State, call: &Call, now: f64) -> Reply {
    let places = state.list(call.provider, call.account, now);
    page(call, "batches", places.len(), |at| tell(&state.batches[places[at]], state.epoch, now))
}

fn tell(batch: &Batch, epoch: f64, now: f64) -> Value {
    let at = |at: f64| rfc3339(epoch + at);
    let counts = batch.counts;
    let cancelled = counts.cancelled + counts.expired;
    // A line whose result is missing is not pending when the batch has ended.
    let done = if batch.end.is_some() { batch.total } else { counts.succeeded + counts.failed + cancelled };
    let pending = batch.total - done.min(batch.total);
    let label = batch.order.label.as_ref().filter(|_| !batch.faults.has(FaultKind::LabelDropped));
    let (input, output) = batch.usage;
    let cancel = batch.timing.cancel.filter(|cancel| cancel.requested <= now);
    let mut told = json!({
        "batch_id": batch.id, "name": label.map_or("".into(), Label::value), "create_time": at(batch.timing.created),
        "expire_time": at(batch.timing.expires), "create_api_key_id": format!("{:016x}", batch.order.account),
        "state": {"num_requests": batch.total, "num_pending": pending, "num_success": counts.succeeded,
            "num_error": counts.failed, "num_cancelled": cancelled},
        "cost_breakdown": {"total_cost_usd_ticks": input * TICKS.0 + output * TICKS.1},
    });
    if let Some(cancel) = cancel {
        told["cancel_time"] = at(cancel.requested).into();
    }
    if let Some((id, _)) = &batch.order.file {
        told["input_file_id"] = id.clone().into();
    }
    told
}
