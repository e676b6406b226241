//! Batches of OpenAI, Azure OpenAI and Groq.

use http::Method;
use serde_json::{Value, json};

use super::batch::Batch;
use super::call::{Call, Reply};
use super::clock::rfc3339;
use super::create::Trouble;
use super::faults::FaultKind;
use super::lines::{Checked, Problem, Rules};
use super::order::{Label, Order};
use super::provider::Provider;
use super::state::State;
use super::timing::Phase;
use super::{parts, uploads};

/// The endpoints that lines may be for, as they are served here.
const ENDPOINTS: [&str; 3] = ["/v1/chat/completions", "/v1/responses", "/v1/embeddings"];
const EMBEDDINGS: &str = "/v1/embeddings";
/// Most texts of embeddings in a batch.
const MOST_INPUTS: usize = 50_000;
/// Most pairs of metadata, and most letters of a name and a value.
const METADATA: (usize, usize, usize) = (16, 64, 512);
const DAY: f64 = 86_400.0;

/// Answers a request. `path`: its parts after the version.
pub fn answer(state: &mut State, call: &Call, path: &[&str], now: f64) -> Reply {
    match (&call.method, path) {
        (_, ["files", rest @ ..]) => uploads::answer(state, call, rest, now),
        (_, ["uploads", rest @ ..]) => parts::answer(state, call, rest, now),
        (&Method::POST, ["batches"]) => create(state, call, now),
        (&Method::GET, ["batches"]) => list(state, call, now),
        (&Method::GET, ["batches", id]) => match state.poll(id, call.provider, call.account, now) {
            Some(place) => Reply::ok(tell(&state.batches[place], state.epoch, now)),
            None => call.missing("Batch object", id),
        },
        (&Method::POST, ["batches", id, "cancel"]) => cancel(state, call, id, now),
        _ => call.unknown(),
    }
}

fn create(state: &mut State, call: &Call, now: f64) -> Reply {
    let requested = match call.json() {
        Ok(requested) => requested,
        Err(reply) => return reply,
    };
    let text = |name: &str| requested.get(name).and_then(Value::as_str);
    let (Some(file), Some(endpoint)) = (text("input_file_id"), text("endpoint")) else {
        return call.error(400, "input_file_id and endpoint are required");
    };
    // Azure's documents leave the version out.
    let endpoint = if endpoint.starts_with("/v1/") { endpoint.to_owned() } else { format!("/v1{endpoint}") };
    let is_served =
        ENDPOINTS.contains(&endpoint.as_str()) && (call.provider != Provider::Azure || endpoint != EMBEDDINGS);
    if !is_served {
        return call.error(400, &format!("endpoint must be one of {}, not '{endpoint}'", ENDPOINTS.join(", ")));
    }
    let Some(window) = text("completion_window").and_then(|window| days(call.provider, window)) else {
        return call.error(400, "completion_window must be '24h'");
    };
    let label = match metadata(requested.get("metadata")) {
        Ok(label) => label,
        Err(problem) => return call.error(400, &problem),
    };
    let Some(found) = state.files.get(file, call.account, now) else {
        return call.missing("File object", file);
    };
    if found.purpose != "batch" {
        return call.error(400, "the input file's purpose must be 'batch'");
    }
    if now < found.ready {
        return call.error(400, &format!("File '{file}' is not ready; wait until its status is 'processed'"));
    }
    let (bytes, name) = (found.bytes.clone(), found.name.clone());
    let rules = Rules {
        url: Some(&endpoint),
        one_model: true,
        most_lines: state.settings.most_lines(call.provider),
        most_inputs: if endpoint == EMBEDDINGS { MOST_INPUTS } else { 0 },
        ..Rules::default()
    };
    let mut checked = Checked::file(&bytes, &rules);
    let most = state.settings.most_bytes(call.provider);
    if bytes.len() > most {
        let message = format!("The input file has {} bytes; the most is {most}.", bytes.len());
        checked.problems = vec![Problem::new("file_too_large", message)];
    }
    let expires_after = if call.provider == Provider::Azure { f64::INFINITY } else { window };
    let order = Order {
        provider: call.provider,
        account: call.account,
        endpoint,
        model: checked.model,
        label,
        file: Some((file.to_owned(), name)),
        window: text("completion_window").map(str::to_owned),
        expires_after,
        lines: checked.lines,
        problems: checked.problems,
        tokens: 0,
    };
    match state.create(order, &checked.banned, now) {
        Ok(place) => Reply::ok(tell(&state.batches[place], state.epoch, now)),
        Err(trouble) => rejected(call, trouble),
    }
}

/// What is told in place of a new batch.
pub fn rejected(call: &Call, trouble: Trouble) -> Reply {
    match trouble {
        Trouble::Reset => Reply::Reset,
        Trouble::Status(status) => call.error_with(status, Some("server_error"), "The server had an error."),
        Trouble::QueueFull(message) => {
            let status = if call.provider == Provider::Azure { 400 } else { 429 };
            call.error_with(status, Some("token_limit_exceeded"), &message)
        }
        Trouble::NoCredit => {
            call.error_with(400, Some("billing_hard_limit_reached"), "Billing hard limit has been reached.")
        }
        Trouble::TooMany(message) => call.error_with(429, Some("rate_limit_exceeded"), &message),
        Trouble::NoRoom(message) => call.error(413, &message),
    }
}

/// A completion window in seconds, where it is allowed.
fn days(provider: Provider, window: &str) -> Option<f64> {
    match window {
        "24h" => Some(DAY),
        other if provider == Provider::Groq => {
            let days = other.strip_suffix('d').and_then(|days| days.parse::<f64>().ok());
            let hours = other.strip_suffix('h').and_then(|hours| hours.parse::<f64>().ok());
            let seconds = days.map(|days| days * DAY).or(hours.map(|hours| hours * 3600.0));
            seconds.filter(|seconds| (DAY..=7.0 * DAY).contains(seconds))
        }
        _ => None,
    }
}

/// Pairs of strings, if there are any.
pub fn metadata(given: Option<&Value>) -> Result<Option<Label>, String> {
    let (most, name_length, value_length) = METADATA;
    let Some(given) = given.filter(|given| !given.is_null()) else { return Ok(None) };
    let pairs = given.as_object().ok_or("metadata must be an object")?;
    let fits = |(name, value): (&String, &Value)| {
        name.chars().count() <= name_length && value.as_str().is_some_and(|text| text.chars().count() <= value_length)
    };
    if pairs.len() > most || !pairs.iter().all(fits) {
        return Err(format!(
            "metadata may have {most} pairs of strings, with names of {name_length} characters and values of {value_length}"
        ));
    }
    Ok(Some(Label::Pairs(given.clone())))
}

fn list(state: &mut State, call: &Call, now: f64) -> Reply {
    let places = state.list(call.provider, call.account, now);
    let told = |places: &[usize]| -> Vec<Value> {
        places.iter().map(|place| tell(&state.batches[*place], state.epoch, now)).collect()
    };
    if call.provider == Provider::Groq {
        return Reply::ok(json!({"object": "list", "data": told(&places)}));
    }
    let limit = match call.number("limit", 20, 100) {
        Ok(limit) => limit,
        Err(reply) => return reply,
    };
    let from = match call.param("after") {
        None => 0,
        Some(after) => match places.iter().position(|place| state.batches[*place].id == after) {
            Some(place) => place + 1,
            None => return call.missing("Batch object", after),
        },
    };
    let page = &places[from..(from + limit).min(places.len())];
    let id = |place: Option<&usize>| place.map(|place| state.batches[*place].id.clone());
    Reply::ok(json!({
        "object": "list", "data": told(page), "first_id": id(page.first()), "last_id": id(page.last()),
        "has_more": from + page.len() < places.len(),
    }))
}

fn cancel(state: &mut State, call: &Call, id: &str, now: f64) -> Reply {
    state.advance(now);
    let Some(place) = state.find(id, call.provider, call.account, now) else {
        return call.missing("Batch object", id);
    };
    let phase = state.batches[place].phase(now);
    if phase.is_end() {
        let message = format!("Cannot cancel a batch with status '{}'.", call.provider.state(phase));
        return call.error(409, &message);
    }
    state.cancel(place, now);
    Reply::ok(tell(&state.batches[place], state.epoch, now))
}

/// A batch as it is told.
#[allow(clippy::cast_possible_truncation)]
fn tell(batch: &Batch, epoch: f64, now: f64) -> Value {
    let (order, timing, phase) = (&batch.order, &batch.timing, batch.phase(now));
    let at = |at: f64| Value::from((epoch + at) as i64);
    let since = |is_so: bool, when: f64| if is_so && when.is_finite() && now >= when { at(when) } else { Value::Null };
    let end = |how: Phase| batch.end.filter(|(_, phase)| *phase == how).map_or(Value::Null, |(when, _)| at(when));
    let runs = !timing.fails;
    let is_azure = order.provider == Provider::Azure;
    let is_checked = !matches!(phase, Phase::Waiting | Phase::Failed);
    let counts = match (is_azure, is_checked) {
        // It counts when it is through.
        (true, _) if !phase.is_end() => json!({"total": null, "completed": null, "failed": null}),
        (_, false) => json!({"total": 0, "completed": 0, "failed": 0}),
        _ => json!({"total": batch.total, "completed": batch.counts.succeeded, "failed": batch.counts.failed}),
    };
    let problems: Vec<Value> = order.problems.iter().map(problem).collect();
    let errors = (phase == Phase::Failed).then(|| json!({"object": "list", "data": problems}));
    let started = timing.started;
    let label = if batch.faults.has(FaultKind::LabelDropped) { None } else { order.label.as_ref() };
    let mut told = json!({
        "id": batch.id, "object": "batch", "endpoint": order.endpoint, "model": order.model, "errors": errors,
        "input_file_id": order.file.as_ref().map(|(id, _)| id), "completion_window": order.window,
        "status": order.provider.state(phase), "output_file_id": batch.files.0, "error_file_id": batch.files.1,
        "created_at": at(timing.created), "in_progress_at": since(runs, started),
        "expires_at": if timing.expires.is_finite() { at(timing.expires) } else { Value::Null },
        "finalizing_at": since(runs && timing.cancel.is_none(), timing.computed), "completed_at": end(Phase::Completed),
        "failed_at": end(Phase::Failed), "expired_at": end(Phase::Expired),
        "cancelling_at": timing.cancel.map_or(Value::Null, |cancel| since(true, cancel.requested)),
        "cancelled_at": end(Phase::Cancelled), "request_counts": counts, "metadata": label.map(Label::value),
    });
    if is_azure && !phase.is_end() {
        told["error_file_id"] = "".into();
    }
    if batch.faults.has(FaultKind::CapitalStates) {
        let state = order.provider.state(phase);
        told["status"] = format!("{}{}", state[..1].to_ascii_uppercase(), &state[1..]).into();
        told["created_at"] = rfc3339(epoch + timing.created).into();
    }
    if order.provider == Provider::Groq {
        told.as_object_mut().map(|fields| fields.shift_remove("model"));
    } else if phase.is_end() && phase != Phase::Failed {
        let (input, output) = batch.usage;
        told["usage"] = json!({
            "input_tokens": input, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + output,
        });
    }
    told
}

fn problem(problem: &Problem) -> Value {
    json!({"code": problem.code, "message": problem.message, "param": null, "line": problem.line})
}
