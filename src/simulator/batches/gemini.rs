//! Batches of Gemini's API: operations. ([`gemini_files`] has its files.)

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::batch::Batch;
use super::call::{Call, Reply};
use super::clock::rfc3339;
use super::faults::FaultKind;
use super::gemini_files;
use super::lines::{Checked, Raw, Rules};
use super::openai::rejected;
use super::order::{Label, Order};
use super::provider::Provider;
use super::state::State;
use super::timing::Phase;

/// Most bytes of requests that come with the creation.
const MOST_INLINE: usize = 20_000_000;
/// Operations of a page, and most of them.
const PAGE: (usize, usize) = (50, 1000);

/// What is asked for; both spellings, as protobuf's JSON takes them.
#[derive(Deserialize)]
struct CreateBody<'a> {
    #[serde(borrow)]
    batch: Option<CreateBatch<'a>>,
}

#[derive(Deserialize)]
struct CreateBatch<'a> {
    #[serde(alias = "display_name", rename = "displayName")]
    display_name: Option<String>,
    #[serde(borrow, alias = "input_config", rename = "inputConfig")]
    input_config: Option<InputConfig<'a>>,
}

#[derive(Deserialize)]
struct InputConfig<'a> {
    #[serde(alias = "file_name", rename = "fileName")]
    file_name: Option<String>,
    #[serde(borrow)]
    requests: Option<Inline<'a>>,
}

#[derive(Deserialize)]
struct Inline<'a> {
    #[serde(borrow)]
    requests: Vec<Raw<'a>>,
}

/// Answers a request. `path`: its parts after the version, or after `upload` or `download`.
pub fn answer(state: &mut State, call: &Call, path: &[&str], now: f64) -> Reply {
    match (&call.method, path) {
        (_, ["files" | "upload" | "download", ..]) => gemini_files::answer(state, call, path, now),
        (&Method::POST, ["models", rest]) => match rest.rsplit_once(':') {
            Some((model, verb)) => create(state, call, model, verb, now),
            None => call.unknown(),
        },
        (&Method::GET, ["batches"]) => list(state, call, now),
        (&Method::GET, ["batches", id]) => match state.poll(&name(id), call.provider, call.account, now) {
            Some(place) => Reply::ok(tell(&state.batches[place], state.epoch, now)),
            None => missing(call, id),
        },
        (&Method::POST, ["batches", rest]) => match rest.strip_suffix(":cancel") {
            Some(id) => {
                state.advance(now);
                let Some(place) = state.find(&name(id), call.provider, call.account, now) else {
                    return missing(call, id);
                };
                state.cancel(place, now);
                Reply::ok(json!({}))
            }
            None => call.unknown(),
        },
        (&Method::DELETE, ["batches", id]) => {
            state.advance(now);
            state.ledger.open().called("delete");
            let Some(place) = state.find(&name(id), call.provider, call.account, now) else {
                return missing(call, id);
            };
            state.delete(place, now);
            Reply::ok(json!({}))
        }
        _ => call.unknown(),
    }
}

fn name(id: &str) -> String {
    format!("batches/{id}")
}

fn missing(call: &Call, id: &str) -> Reply {
    call.error(404, &format!("Requested entity was not found: batches/{id}"))
}

fn create(state: &mut State, call: &Call, model: &str, verb: &str, now: f64) -> Reply {
    let batch = match serde_json::from_slice::<CreateBody<'_>>(&call.body) {
        Ok(CreateBody { batch: Some(batch) }) => batch,
        Ok(_) => return call.error(400, "batch is required"),
        Err(error) => return call.error(400, &format!("Invalid JSON payload received: {error}")),
    };
    let Some(label) = batch.display_name.filter(|name| !name.is_empty()) else {
        return call.error(400, "batch.display_name is required");
    };
    let rules = Rules { most_lines: state.settings.most_lines(Provider::Gemini), ..Rules::default() };
    let (file, checked) = match batch.input_config {
        Some(InputConfig { file_name: Some(id), .. }) => {
            let Some(file) = state.files.get(&id, call.account, now) else {
                return call
                    .error(403, &format!("You do not have permission to access the File {id} or it may not exist."));
            };
            let bytes: Bytes = file.bytes.clone();
            (Some((id, file.name.clone())), Checked::file(&bytes, &rules))
        }
        Some(InputConfig { requests: Some(inline), .. }) => {
            if call.body.len() > MOST_INLINE {
                let message = format!("The request has {} bytes; the most is {MOST_INLINE}.", call.body.len());
                state.ledger.open().violated(now, "size", message.clone());
                return call.error(400, &message);
            }
            (None, Checked::list(&call.body, &inline.requests, &Rules { has_metadata: true, ..rules }))
        }
        _ => return call.error(400, "batch.input_config needs file_name or requests"),
    };
    let live = if verb == "asyncBatchEmbedContent" { "batchEmbedContents" } else { "generateContent" };
    let order = Order {
        provider: Provider::Gemini,
        account: call.account,
        endpoint: format!("/v1beta/models/{model}:{live}"),
        model: Some(model.to_owned()),
        label: Some(Label::Name(label)),
        file,
        window: None,
        expires_after: Provider::Gemini.expires_after(),
        lines: checked.lines,
        problems: checked.problems,
        tokens: 0,
    };
    match state.create(order, &checked.banned, now) {
        Ok(place) => Reply::ok(tell(&state.batches[place], state.epoch, now)),
        Err(trouble) => rejected(call, trouble),
    }
}

fn list(state: &mut State, call: &Call, now: f64) -> Reply {
    let places = state.list(call.provider, call.account, now);
    let size = match call.number("pageSize", PAGE.0, PAGE.1) {
        Ok(size) => size,
        Err(reply) => return reply,
    };
    // The token is the id of the last that was told.
    let from = match call.param("pageToken").filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => match places.iter().position(|place| state.batches[*place].id.ends_with(token)) {
            Some(place) => place + 1,
            None => return call.error(400, "the page token is not valid"),
        },
    };
    let page = &places[from..(from + size).min(places.len())];
    let operations: Vec<Value> = page.iter().map(|place| tell(&state.batches[*place], state.epoch, now)).collect();
    let mut told = json!({});
    // What is nothing is not told.
    if !operations.is_empty() {
        told["operations"] = operations.into();
    }
    if let Some(last) = page.last().filter(|_| from + page.len() < places.len()) {
        told["nextPageToken"] = state.batches[*last].id.trim_start_matches("batches/").into();
    }
    Reply::ok(told)
}

/// An operation.
fn tell(batch: &Batch, epoch: f64, now: f64) -> Value {
    let (order, phase) = (&batch.order, batch.phase(now));
    let at = |at: f64| Value::from(rfc3339(epoch + at));
    let kind = |name: &str| format!("type.googleapis.com/google.ai.generativelanguage.v1main.{name}");
    let mut stats = json!({});
    let pending = if phase.is_end() { 0 } else { batch.total };
    for (name, count) in [
        ("requestCount", batch.total),
        ("pendingRequestCount", pending),
        ("successfulRequestCount", batch.counts.succeeded),
        ("failedRequestCount", batch.counts.failed),
    ] {
        if count > 0 {
            stats[name] = count.to_string().into();
        }
    }
    let updated = batch.end.map_or(batch.timing.created, |(ended, _)| ended);
    let mut metadata = json!({
        "@type": kind("GenerateContentBatch"), "model": format!("models/{}", order.model.as_deref().unwrap_or_default()),
        "createTime": at(batch.timing.created), "updateTime": at(updated), "batchStats": stats,
        "state": order.provider.state(phase), "name": batch.id,
    });
    if let Some(label) = order.label.as_ref().filter(|_| !batch.faults.has(FaultKind::LabelDropped)) {
        metadata["displayName"] = label.value();
    }
    if let Some((id, _)) = &order.file {
        metadata["inputConfig"] = json!({"fileName": id});
    }
    let mut told = json!({"name": batch.id});
    if let Some((ended, _)) = batch.end {
        metadata["endTime"] = at(ended);
        told["done"] = true.into();
        let problem = order.problems.first().map_or("", |problem| problem.message.as_str());
        match phase {
            Phase::Failed => told["error"] = json!({"code": 3, "message": problem}),
            Phase::Expired => told["error"] = json!({"code": 4, "message": "The batch has expired."}),
            Phase::Cancelled => told["error"] = json!({"code": 13, "message": "The batch was cancelled."}),
            _ => {
                if let Some(output) = output(batch, now) {
                    metadata["output"] = output.clone();
                    told["response"] = output;
                    told["response"]["@type"] = kind("GenerateContentBatchOutput").into();
                }
            }
        }
    }
    told["metadata"] = metadata;
    told
}

/// Where the results are, or the results.
fn output(batch: &Batch, now: f64) -> Option<Value> {
    if batch.order.file.is_some() {
        return batch.files.0.as_ref().map(|file| json!({"responsesFile": file}));
    }
    if now >= batch.forgotten {
        return None;
    }
    let all: Vec<Value> = batch.output.lines(0..batch.output.len()).collect();
    Some(json!({"inlinedResponses": {"inlinedResponses": all}}))
}
