//! Lanes against a provider in memory, on paused time. Here is the provider; the tests are by what they test.

mod answering;
mod caching;
mod power;
mod probing;
mod resuming;
mod stalling;
mod watching;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::auto::Wanted;
use super::costs::KnownCosts;
use super::lane::{Lane, LaneError};
use super::provider::InBatches;
use super::shared::{Settings, lock};
use crate::journal::batches::{Ledger, Stage};
use crate::journal::place::Format;
use crate::journal::record::{Reuse, now};
use crate::journal::{Durability, Options};
use crate::providers::call::{Batchable, Call, Calling, Place};
use crate::providers::plan::{Head, Readable};
use crate::providers::prompt::Prompt;
use crate::providers::provider::Attempt;
use crate::providers::reply::{Output, TokenUsage};
use crate::providers::transport::Received;
use crate::providers::{Ask, Provider, ProviderError, Reply, status};

/// What goes wrong with the next request that makes a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// It is made, and the reply is lost.
    Lost,
    /// It is made, and the reply is a 500.
    Made500,
    /// It is not made, and the reply is a 500.
    NotMade500,
    /// It is made, and fails, for the queue is full.
    QueueFull,
    /// It is made, and half of it expires.
    Expires,
    /// It is made, and fails without a reason.
    Fails,
    /// It is made, and fails for its second line.
    BadLine,
    /// The key is wrong.
    Forbidden,
    /// It is made; the first results that are fetched are cut in the middle of the second line.
    Cut,
    /// It is made, and its results come twice, with a stranger's, in reverse.
    Odd,
}

#[derive(Default)]
struct World {
    files: Vec<String>,
    batches: Vec<Batch>,
    faults: VecDeque<Fault>,
    creates: usize,
    lists: usize,
    looks: usize,
    /// The statuses of requests that are sent by themselves, and those that were answered.
    live: VecDeque<u16>,
    sent: Vec<String>,
    /// How long batches take; none: until they are looked at twice.
    lasts: Option<Duration>,
    /// When lists and batches were looked at, and what of.
    looked: Vec<(tokio::time::Instant, String)>,
    /// The batches that no list shows.
    unlisted: Vec<usize>,
    /// So many batches have results that are gone.
    gone: usize,
    /// What the provider calls the state of a batch that runs, if that is unknown to everybody.
    word: Option<&'static str>,
    /// Whether lists cannot be had.
    is_listless: bool,
    /// How often each question was answered and paid for.
    paid: Vec<String>,
    /// What questions that are sent by themselves begin with alike, tokens, and how many of these are read from a cache.
    head: Option<(u32, u64)>,
    /// Before the request of this number the power is cut: what is on the disk is kept here, and nothing goes on.
    cut: Option<Cut>,
    requests: usize,
}

/// A power cut.
struct Cut {
    before: usize,
    ledger: PathBuf,
    kept: PathBuf,
    has_happened: bool,
}

impl World {
    /// Whether a request has an effect, and whether its reply arrives.
    fn is_requested(&mut self) -> (bool, bool) {
        self.requests += 1;
        let Some(cut) = &mut self.cut else { return (true, true) };
        if cut.has_happened {
            return (false, false);
        }
        cut.has_happened = self.requests >= cut.before;
        if cut.has_happened {
            power::keep(cut, self.requests);
        }
        (true, !cut.has_happened)
    }
}

struct Batch {
    file: usize,
    label: String,
    fault: Option<Fault>,
    looks: usize,
    fetches: usize,
    ends: Option<tokio::time::Instant>,
    is_cancelled: bool,
}

impl Batch {
    fn has_ended(&self) -> bool {
        self.is_cancelled || self.ends.map_or(self.looks >= 2, |ends| ends <= tokio::time::Instant::now())
    }

    fn shown(&self, number: usize) -> Value {
        let mut shown = json!({
            "id": format!("batch_{number}"), "status": "in_progress", "input_file_id": format!("file_{}", self.file),
            "metadata": {"bllm_nonce": self.label}, "created_at": now().floor(),
        });
        if self.is_cancelled {
            shown["status"] = json!("cancelled");
        } else if self.has_ended() {
            shown["status"] = json!("completed");
            shown["output_file_id"] = json!(format!("out_{number}"));
            let failure = |code: &str, message: &str, line: Value| json!({"data": [{"code": code, "message": message, "line": line}]});
            match self.fault {
                Some(Fault::Expires) => shown["status"] = json!("expired"),
                Some(Fault::QueueFull) => {
                    shown["errors"] = failure("token_limit_exceeded", "Enqueued token limit reached", Value::Null);
                }
                Some(Fault::Fails) => shown["errors"] = failure("server_error", "sorry", Value::Null),
                Some(Fault::BadLine) => shown["errors"] = failure("invalid_request", "no such parameter", json!(1)),
                _ => {}
            }
            if shown.get("errors").is_some() {
                (shown["status"], shown["output_file_id"]) = (json!("failed"), Value::Null);
            }
        }
        shown
    }
}

struct Fake {
    world: Arc<Mutex<World>>,
    key: &'static str,
}

fn received(value: &Value) -> Received {
    let body = Bytes::from(value.to_string());
    Received { headers: HeaderMap::new(), body, first_token: None, is_stopped: false }
}

fn error(status: u16) -> ProviderError {
    status::read(status, &HeaderMap::new(), b"{\"error\":{\"message\":\"no\"}}")
}

impl Batchable for Fake {
    fn line(&self, ask: &mut Ask) -> Result<Bytes, ProviderError> {
        let Prompt::Text(text) = &ask.prompt else { return Err(error(400)) };
        Ok(json!({"model": "m", "q": &**text}).to_string().into())
    }

    fn read(&self, status: u16, body: Bytes) -> Result<Reply, ProviderError> {
        if status != 200 {
            return Err(status::read(status, &HeaderMap::new(), &body));
        }
        Ok(Reply {
            output: Output::Vector(body.iter().map(|byte| f32::from(*byte)).collect()),
            many: false,
            usage: TokenUsage::default(),
            model: None,
            request_id: None,
            extras: Vec::new(),
            raw: None,
            processing_ms: None,
            first_token: None,
            limits: Vec::new(),
            account: None,
        })
    }

    fn model(&self) -> &'static str {
        "m"
    }

    fn path(&self) -> String {
        "chat/completions".to_owned()
    }

    fn base_url(&self) -> String {
        "http://fake/v1".to_owned()
    }

    fn key(&self) -> Vec<u8> {
        self.key.as_bytes().to_vec()
    }

    fn call(&self, call: Call) -> Calling<'_, Received> {
        Box::pin(async move {
            let (has_effect, is_answered) = lock(&self.world).is_requested();
            let answer = if has_effect { self.answer(call) } else { Err(error(503)) };
            if !is_answered {
                std::future::pending::<()>().await;
            }
            answer
        })
    }

    fn call_lines<'a>(&'a self, call: Call, each: &'a mut (dyn FnMut(&[u8]) + Send)) -> Calling<'a, HeaderMap> {
        Box::pin(async move {
            let (has_effect, is_answered) = lock(&self.world).is_requested();
            let answer = if has_effect { self.lines(&call, each) } else { Err(error(503)) };
            if !is_answered {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

impl Fake {
    #[allow(clippy::needless_pass_by_value)]
    fn answer(&self, call: Call) -> Result<Received, ProviderError> {
        let mut world = lock(&self.world);
        let Place::Base(path) = &call.place else { return Err(error(404)) };
        let body = call.content.map(|(_, body)| body.whole().unwrap()).unwrap_or_default();
        match (&call.method, path.split('/').collect::<Vec<_>>().as_slice()) {
            (&Method::POST, ["files"]) => {
                world.files.push(String::from_utf8_lossy(&body).into_owned());
                Ok(received(&json!({"id": format!("file_{}", world.files.len() - 1)})))
            }
            (&Method::DELETE, ["files", _]) => Ok(received(&json!({}))),
            (&Method::POST, ["batches"]) => {
                world.creates += 1;
                let fault = world.faults.pop_front();
                match fault {
                    Some(Fault::NotMade500) => return Err(error(500)),
                    Some(Fault::Forbidden) => return Err(error(401)),
                    _ => {}
                }
                let given: Value = serde_json::from_slice(&body).unwrap();
                let file = given["input_file_id"].as_str().unwrap()["file_".len()..].parse().unwrap();
                let label = given["metadata"]["bllm_nonce"].as_str().unwrap().to_owned();
                let ends = world.lasts.map(|lasts| tokio::time::Instant::now() + lasts);
                world.batches.push(Batch { file, label, fault, looks: 0, fetches: 0, ends, is_cancelled: false });
                let number = world.batches.len() - 1;
                match fault {
                    Some(Fault::Lost) => Err(error(504)),
                    Some(Fault::Made500) => Err(error(500)),
                    _ => Ok(received(&world.batches[number].shown(number))),
                }
            }
            (&Method::GET, ["batches"]) => {
                world.lists += 1;
                world.looked.push((tokio::time::Instant::now(), "list".to_owned()));
                if world.is_listless {
                    return Err(error(503));
                }
                let batches = world.batches.iter().enumerate().rev();
                let shown = batches.filter(|(number, _)| !world.unlisted.contains(number));
                let list: Vec<Value> = shown.map(|(number, batch)| batch.shown(number)).collect();
                Ok(received(&json!({"data": list, "has_more": false})))
            }
            (&Method::POST, ["batches", id, "cancel"]) => {
                let number: usize = id["batch_".len()..].parse().unwrap();
                let batch = &mut world.batches[number];
                batch.is_cancelled = !batch.has_ended();
                Ok(received(&batch.shown(number)))
            }
            (&Method::GET, ["batches", id]) => {
                world.looks += 1;
                world.looked.push((tokio::time::Instant::now(), (*id).to_owned()));
                let number: usize = id["batch_".len()..].parse().unwrap();
                let word = world.word;
                let Some(batch) = world.batches.get_mut(number) else { return Err(error(404)) };
                batch.looks += 1;
                let mut shown = batch.shown(number);
                if let Some(word) = word.filter(|_| !batch.has_ended()) {
                    (shown["status"], shown["mood"]) = (json!(word), json!({"is": ["new"]}));
                }
                Ok(received(&shown))
            }
            _ => Err(error(404)),
        }
    }

    fn lines(&self, call: &Call, each: &mut (dyn FnMut(&[u8]) + Send)) -> Result<HeaderMap, ProviderError> {
        let mut world = lock(&self.world);
        let Place::Base(path) = &call.place else { return Err(error(404)) };
        let number: usize = path.split('/').nth(1).unwrap()["out_".len()..].parse().unwrap();
        if number < world.gone {
            return Err(error(404));
        }
        let batch = &mut world.batches[number];
        batch.fetches += 1;
        let (fault, fetches) = (batch.fault, batch.fetches);
        let file = batch.file;
        let requested: Vec<Value> =
            world.files[file].lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let done = if fault == Some(Fault::Expires) { requested.len() / 2 } else { requested.len() };
        let mut lines: Vec<String> = requested
            .iter()
            .enumerate()
            .map(|(at, requested)| {
                let id = &requested["custom_id"];
                if at < done {
                    let answer = json!({"a": requested["body"]["q"]});
                    json!({"custom_id": id, "response": {"status_code": 200, "body": answer}, "error": null})
                        .to_string()
                } else {
                    json!({"custom_id": id, "response": null, "error": {"code": "batch_expired"}}).to_string()
                }
            })
            .collect();
        if fetches == 1 {
            let paid = requested.iter().take(done).map(|requested| requested["body"]["q"].to_string());
            world.paid.extend(paid);
        }
        match fault {
            Some(Fault::Cut) if fetches == 1 => {
                each(lines[0].as_bytes());
                return Err(error(502));
            }
            Some(Fault::Odd) => {
                lines.reverse();
                lines.extend(lines.clone());
                lines.push("{\"custom_id\":\"another-one\",\"response\":{\"status_code\":200,\"body\":{}}}".to_owned());
                lines.push("no line at all".to_owned());
            }
            _ => {}
        }
        lines.iter().for_each(|line| each(line.as_bytes()));
        Ok(HeaderMap::new())
    }
}

struct OfFake(Arc<Mutex<World>>, &'static str);

impl Provider for OfFake {
    fn attempt(&self, ask: Ask) -> Attempt {
        let world = Arc::clone(&self.0);
        Box::pin(async move {
            let Prompt::Text(text) = &ask.prompt else { return Err(error(400)) };
            let status = lock(&world).live.pop_front().unwrap_or(500);
            tokio::time::sleep(Duration::from_secs(1)).await;
            if status != 200 {
                return Err(error(status));
            }
            let read = {
                let mut world = lock(&world);
                world.sent.push(text.to_string());
                world.head.map_or(0, |(_, read)| read)
            };
            let answer = Bytes::from(json!({"a": &**text}).to_string());
            let reply = Fake { world, key: "k" }.read(200, answer)?;
            Ok(Reply { usage: TokenUsage { input: 5000, output: 10, cache_read: read, ..reply.usage }, ..reply })
        })
    }

    fn head(&self, _: &Ask) -> Option<Head> {
        let (tokens, _) = lock(&self.0).head?;
        let life = Duration::from_secs(300);
        Some(Head { key: 1, base: 1, tokens, life, readable: Readable::AtEnd, marked: true })
    }

    fn batchable(&self) -> Option<Arc<dyn Batchable>> {
        Some(Arc::new(Fake { world: Arc::clone(&self.0), key: self.1 }))
    }
}

fn options() -> Options {
    Options {
        durability: Durability::Flush,
        busy_timeout: Duration::from_secs(5),
        reuse: Reuse::Success,
        package_version: "0".to_owned(),
        user_metadata: None,
    }
}

struct Scene {
    world: Arc<Mutex<World>>,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(faults: &[Fault]) -> Self {
        let world = World { faults: faults.iter().copied().collect(), ..World::default() };
        Self { world: Arc::new(Mutex::new(world)), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("run.db")
    }

    fn lane(&self, size: usize) -> Lane {
        self.lane_with(Settings { size, probe: false, ..Settings::default() }, None)
    }

    fn lane_with(&self, settings: Settings, auto: Option<Wanted>) -> Lane {
        let ledger = Ledger::open(&self.path(), Format::Sqlite, &options()).unwrap();
        Lane::new(ledger, settings, auto, Handle::current())
    }

    fn provider(&self, lane: &Lane, key: &'static str) -> Result<InBatches, LaneError> {
        let client: Arc<dyn Provider> = Arc::new(OfFake(Arc::clone(&self.world), key));
        lane.provider("openai", &client, KnownCosts::default())
    }

    /// Asks these questions; returns the answers.
    async fn ask(&self, provider: &InBatches, questions: &[&str]) -> Vec<Result<String, u16>> {
        let attempts = questions.iter().map(|text| provider.attempt(ask(text)));
        futures_util::future::join_all(attempts).await.into_iter().map(outcome_of).collect()
    }

    fn stages(&self) -> Vec<Stage> {
        stages(&self.path())
    }
}

fn stages(path: &Path) -> Vec<Stage> {
    let ledger = Ledger::view(path, Format::Sqlite).unwrap().unwrap();
    ledger.chunks(true).unwrap().iter().map(|chunk| chunk.stage).collect()
}

fn ask(text: &str) -> Ask {
    Ask::new(Prompt::Text(text.to_owned().into()))
}

fn outcome_of(outcome: Result<Reply, ProviderError>) -> Result<String, u16> {
    match outcome {
        Ok(Reply { output: Output::Vector(bytes), .. }) => {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let text: Vec<u8> = bytes.iter().map(|byte| *byte as u8).collect();
            let value: Value = serde_json::from_slice(&text).unwrap();
            Ok(value["a"].as_str().unwrap().to_owned())
        }
        Ok(_) => Err(0),
        Err(ProviderError::Status { status, .. }) => Err(status),
        Err(_) => Err(1),
    }
}

fn all(texts: &[&str]) -> Vec<Result<String, u16>> {
    texts.iter().map(|text| Ok((*text).to_owned())).collect()
}

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];
