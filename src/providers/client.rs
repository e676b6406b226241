//! One strategy's client: a question in, an answer out, in the dialect and over the connections it was given.

mod batchable;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::address::endpoint;
use super::caching::Caching;
use super::call::Batchable;
use super::dialect::{Answer, Body, Dialect, Streaming};
use super::error::{Category, Cut, ProviderError, Unusable};
use super::heads::{self, Heads};
use super::keys::{KeyHeader, Keys};
use super::limits::Periods;
use super::listener::{Listener, Part};
use super::options::{Options, Stream};
use super::plan::{Head, Marks, Plan};
use super::prompt::Ask;
use super::provider::{Attempt, Provider};
use super::redact::Secrets;
use super::reply::{Choice, Finish, Output, Reply};
use super::schema::{Check, find_json};
use super::shared::Payload;
use super::shown::Quoted;
use super::streams::{self, Clocks, Fold};
use super::transport::{Reading, Received, Transport, TransportOptions};
use super::{json, limits, numbers, state, status};

/// What a client is made of.
pub struct Parts {
    /// The language it speaks.
    pub dialect: Box<dyn Dialect>,
    /// Where the provider is, up to the dialect's path; a query is kept.
    pub base_url: String,
    /// The keys.
    pub keys: Keys,
    /// What limits are for, where the provider's headers do not say it.
    pub periods: Periods,
    /// What every request asks for.
    pub options: Options,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// How to connect.
    pub transport: TransportOptions,
    /// What the provider caches.
    pub caching: Caching,
    /// Whether replies carry their whole body.
    pub raw: bool,
}

/// How often a model that pauses in its turn is asked to go on within one attempt.
const MOST_PAUSES: usize = 10;

/// A client for one model at one provider.
pub struct Client(Arc<Inner>);

struct Inner {
    base_url: String,
    dialect: Box<dyn Dialect>,
    keys: Keys,
    periods: Periods,
    options: Options,
    /// The fields of every request, written once.
    head: Fixed,
    /// What requests have in common, for the provider's cache.
    heads: Heads,
    /// Where replies come as streams.
    streams: Option<Streams>,
    check: Option<Check>,
    /// For answers with several values in them, where somebody above checks.
    chooser: OnceLock<Option<Check>>,
    transport: Transport,
    secrets: Secrets,
    raw: bool,
}

/// A request's body, and the header with its key if that is not the usual one.
type Question = Result<(Payload, Option<Box<KeyHeader>>), String>;

/// The key that this request alone has.
fn key_of(question: &Question) -> Option<&HeaderValue> {
    question.as_ref().ok()?.1.as_deref().map(|(_, value)| value)
}

/// The fields of every request, written once.
struct Fixed {
    plain: Bytes,
    /// The same where a request marks what it has in common with others, if that is written in there.
    marked: Option<Bytes>,
}

impl Fixed {
    fn new(fields: &Map<String, Value>, marked: Option<&Map<String, Value>>) -> Result<Self, String> {
        Ok(Self { plain: written(fields)?, marked: marked.map(written).transpose()? })
    }

    fn of(&self, ask: &Ask) -> &Bytes {
        let is_marked = ask.marks().is_some_and(|marks| marks.fixed);
        self.marked.as_ref().filter(|_| is_marked).unwrap_or(&self.plain)
    }
}

/// How replies come as streams.
struct Streams {
    url: Url,
    /// The fields of every request for a stream, written once.
    head: Fixed,
    fold: fn() -> Box<dyn Fold>,
    clocks: Clocks,
    /// Whether replies come so though nobody follows them.
    is_wanted: bool,
    /// Whether a plain reply will do.
    is_optional: bool,
    /// Whether the server has refused.
    refused: AtomicBool,
}

impl Client {
    /// Prepares the client; nothing is sent.
    ///
    /// # Errors
    /// A message that says which argument is wrong. It never holds the key.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let Parts { dialect, base_url, keys, periods, options, headers, transport, caching, raw } = parts;
        let url = endpoint(&base_url, &dialect.path(&options.model))?;
        let fields = dialect.fields(&options)?;
        let heads = Heads::new(caching, &options);
        let marked = heads.marks().then(|| {
            let mut marked = fields.clone();
            dialect.mark(&options, &mut marked);
            marked
        });
        let marked = marked.filter(|marked| *marked != fields);
        let streams = match dialect.streaming(&options.model).filter(|_| options.stream != Stream::Never) {
            Some(streaming) => Some(Streams::new(streaming, &base_url, &options, &fields, marked.as_ref())?),
            None => None,
        };
        let head = Fixed::new(&fields, marked.as_ref())?;
        let check = match &options.schema {
            Some(wanted) if wanted.check => Some(Check::new(&wanted.schema)?),
            _ => None,
        };
        let mut fixed = HeaderMap::new();
        fixed.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in dialect.headers() {
            fixed.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let extra = extra_headers(&headers)?;
        let mut secrets = Secrets::new(keys.values(), &[&base_url, transport.proxy.as_deref().unwrap_or("")], &extra);
        secrets.add_fields(&options.extra_body);
        fixed.extend(extra);
        fixed.extend(keys.usual_header());
        let transport = Transport::new(transport, url, fixed)?;
        let chooser = OnceLock::new();
        let inner = Inner {
            base_url,
            dialect,
            keys,
            periods,
            options,
            head,
            heads,
            streams,
            check,
            chooser,
            transport,
            secrets,
            raw,
        };
        Ok(Self(Arc::new(inner)))
    }
}

impl Provider for Client {
    fn attempt(&self, mut ask: Ask) -> Attempt {
        let client = Arc::clone(&self.0);
        Box::pin(async move {
            client.split(&mut ask);
            if ask.listener.is_some() || client.streams.as_ref().is_some_and(|streams| streams.is_wanted) {
                // In a box, for it takes more, and most clients do not stream.
                return Box::pin(client.attempt_marked(ask)).await;
            }
            if client.heads.are_untried() && ask.marks().is_some_and(Marks::say_something) {
                return Box::pin(client.attempt_marked(ask)).await;
            }
            let question = client.question(&ask, None);
            drop(ask);
            client.complete(client.ask(&question, None, None).await, &question)
        })
    }

    fn stream_timeout(&self, is_followed: bool) -> Option<f64> {
        let streams = self.0.streams.as_ref().filter(|streams| streams.is_wanted || is_followed);
        streams.map(|streams| streams.clocks.whole)
    }

    fn has_heads(&self) -> bool {
        self.0.heads.are_cached()
    }

    fn notice(&self, asks: &[&Ask]) {
        self.0.heads.notice(asks, Instant::now());
    }

    fn head(&self, ask: &Ask) -> Option<Head> {
        self.0.plan(ask)?.head
    }

    fn batchable(&self) -> Option<Arc<dyn Batchable>> {
        Some(Arc::new(Self(Arc::clone(&self.0))))
    }
}

impl Inner {
    /// Completes what came of a request.
    fn complete(&self, mut outcome: Result<Reply, ProviderError>, question: &Question) -> Result<Reply, ProviderError> {
        self.keys.for_all(&mut outcome);
        self.periods.complete(&mut outcome);
        if let Err(error) = &mut outcome {
            self.secrets.remove(error, key_of(question));
        }
        outcome
    }

    /// Asks, and once more without marks if the server rejects those.
    async fn attempt_marked(&self, mut ask: Ask) -> Result<Reply, ProviderError> {
        let outcome = self.attempt_any(&ask).await;
        if !ask.marks().is_some_and(Marks::say_something) {
            return outcome;
        }
        match &outcome {
            Ok(_) => self.heads.accept(),
            Err(error) if refuses_marks(error) => {
                self.heads.refuse();
                ask.plan = OnceLock::new();
                return self.attempt_any(&ask).await;
            }
            Err(_) => {}
        }
        outcome
    }

    /// Asks by a stream where that is wanted, unless the server has refused to.
    async fn attempt_any(&self, ask: &Ask) -> Result<Reply, ProviderError> {
        let is_wanted = |streams: &&Streams| streams.is_wanted || ask.listener.is_some();
        let streams = self.streams.as_ref().filter(is_wanted);
        let streams = streams.filter(|streams| !streams.refused.load(Ordering::Relaxed));
        let (question, listener) = (self.question(ask, streams), ask.listener.as_ref());
        let mut outcome = self.complete(self.ask(&question, streams, listener).await, &question);
        if streams.is_some_and(|streams| !streams.is_wanted)
            && listener.is_some_and(|listener| listener.is_of_beginning())
            && let Ok(reply) = &mut outcome
        {
            // Nobody wanted a stream but the scheduler: it is as if there had been none.
            reply.first_token = None;
        }
        let Some(streams) = streams.filter(|streams| streams.is_optional) else { return outcome };
        if !outcome.as_ref().is_err_and(refuses_streams) {
            return outcome;
        }
        streams.refused.store(true, Ordering::Relaxed);
        let question = self.question(ask, None);
        self.complete(self.ask(&question, None, listener).await, &question)
    }

    /// What is to be cached of a question. It is decided once: what the scheduler was told is what is sent.
    fn plan<'a>(&self, ask: &'a Ask) -> Option<&'a Plan> {
        ask.plan.get_or_init(|| self.heads.plan(ask, Instant::now()).map(Box::new)).as_deref()
    }

    /// Splits the question where what it has in common with others ends in the middle of a text.
    fn split(&self, ask: &mut Ask) {
        if self.heads.are_refused() {
            // What was decided before that is not sent.
            ask.plan = OnceLock::new();
        }
        self.plan(ask);
        if let Some(Some(plan)) = ask.plan.get() {
            heads::split(plan, &mut ask.prompt);
        }
    }

    fn question(&self, ask: &Ask, streams: Option<&Streams>) -> Question {
        if let Some(plan) = self.plan(ask) {
            self.heads.sent(plan, Instant::now());
        }
        // In a box, for most requests have none, and hold the room for it while they are open.
        let key = self.keys.header(ask.key.as_ref())?.map(Box::new);
        let mut body = Body::new(streams.map_or(&self.head, |streams| &streams.head).of(ask), ask.own_bytes());
        self.dialect.conversation(&self.options, ask, &mut body)?;
        Ok((body.finish(), key))
    }

    async fn streamed(
        &self,
        body: &Payload,
        key: Option<&KeyHeader>,
        streams: &Streams,
        listener: Option<&Arc<Listener>>,
    ) -> Result<Received, ProviderError> {
        let Streams { url, fold, clocks, .. } = streams;
        let mut reading = Reading { url, fold: *fold, clocks: *clocks, listener: listener.cloned(), so_far: None };
        let outcome = self.transport.stream(body, key, &mut reading).await;
        let Some(so_far) = reading.so_far else { return outcome };
        let answer = self.dialect.read(so_far.as_bytes(), &HeaderMap::new()).unwrap_or_default();
        let text = answer.choices.into_iter().next().map(|choice| choice.text).unwrap_or_default();
        match outcome.map(|received| (self.dialect.read(&received.body, &received.headers), received)) {
            // The error that ended the stream.
            Ok((Err(error), _)) => Err(error.with_usage(answer.usage).with_beginning(text)),
            Ok((_, received)) => Ok(received),
            Err(error) => {
                let (category, message) = (error.category(), error.to_string());
                Err(ProviderError::Cut(Box::new(Cut { category, message, text, usage: answer.usage })))
            }
        }
    }

    async fn ask(
        &self,
        question: &Question,
        streams: Option<&Streams>,
        listener: Option<&Arc<Listener>>,
    ) -> Result<Reply, ProviderError> {
        // What is not needed later is not held while the request is open.
        let mut received = match (question, streams) {
            (Err(problem), _) => return Err(ProviderError::Request(problem.clone())),
            (Ok((body, key)), None) => self.transport.post(body, key.as_deref()).await?,
            // In a box, for it takes more, and most requests are none of these.
            (Ok((body, key)), Some(streams)) => {
                Box::pin(self.streamed(body, key.as_deref(), streams, listener)).await?
            }
        };
        self.secrets.mask(&mut received, key_of(question));
        let mut answer =
            self.dialect.read(&received.body, &received.headers).map_err(|error| with_type(error, &received))?;
        if received.is_stopped {
            answer.unfinished = None;
            answer.choices.iter_mut().for_each(|choice| choice.finish = Finish::Stopped);
        } else if let Some(listener) = listener.filter(|listener| !listener.take_heard())
            && let Some(choice) = answer.choices.first()
        {
            // It came in one piece.
            listener.hear(Part::Reasoning, choice.reasoning.as_deref().unwrap_or_default());
            listener.hear(Part::Text, &choice.text);
        }
        match &answer.unfinished {
            None => self.finish(answer, received),
            Some(_) => Box::pin(self.go_on(question, answer, streams, listener, received.first_token)).await,
        }
    }

    /// Lets the model go on that paused in the middle of its turn. Its turns are one answer.
    async fn go_on(
        &self,
        question: &Question,
        first: Answer,
        streams: Option<&Streams>,
        listener: Option<&Arc<Listener>>,
        first_token: Option<Duration>,
    ) -> Result<Reply, ProviderError> {
        let (body, key) = question.as_ref().map_err(|problem| ProviderError::Request(problem.clone()))?;
        let (mut whole, mut body, key) = (first, body.clone(), key.as_deref());
        let mut turn = Vec::new();
        for _ in 0..MOST_PAUSES {
            let Some(paused) = whole.unfinished.take() else { break };
            let Some(next) = self.dialect.go_on(&body.joined(), &paused) else { break };
            turn.push(paused);
            body = next.into();
            let paid = whole.usage;
            let received = match streams {
                None => self.transport.post(&body, key).await,
                Some(streams) => self.streamed(&body, key, streams, listener).await,
            };
            let mut received = received.map_err(|error| error.with_usage(paid))?;
            received.first_token = first_token;
            self.secrets.mask(&mut received, key.map(|(_, value)| value));
            let mut answer = self
                .dialect
                .read(&received.body, &received.headers)
                .map_err(|error| with_type(error, &received).with_usage(paid))?;
            answer.usage = paid.plus(&answer.usage);
            if let (Some(now), Some(before)) = (answer.choices.first_mut(), whole.choices.first()) {
                now.text.insert_str(0, &before.text);
                if let Some(thoughts) = &before.reasoning {
                    now.reasoning.get_or_insert_default().insert_str(0, thoughts);
                }
            }
            if answer.unfinished.is_none() {
                turn.extend(self.dialect.turn(&received.body));
                if let Some(choice) = answer.choices.first_mut() {
                    choice.turn = (!choice.tool_calls.is_empty()).then(|| joined(&turn)).flatten();
                }
                return self.finish(answer, received);
            }
            whole = answer;
        }
        let text = whole.choices.into_iter().next().unwrap_or_default().text;
        Err(ProviderError::Unusable(Box::new(Unusable {
            category: Category::Truncated,
            retryable: false,
            finish_reason: Finish::Interrupted { overloaded: false }.name(),
            native_finish: Some("pause_turn".to_owned()),
            text,
            usage: whole.usage,
            request_id: None,
        })))
    }

    /// Sees to it that an answer is of use.
    fn finish(&self, answer: Answer, received: Received) -> Result<Reply, ProviderError> {
        let request_id = status::request_id(&received.headers);
        let limits = limits::read(&received.headers, SystemTime::now());
        let processing_ms = status::processing_ms(&received.headers);
        let Answer { mut choices, usage, model, extras, .. } = answer;
        let verdicts: Vec<Option<(Category, bool)>> = choices.iter().map(|choice| self.unusable(choice)).collect();
        if let Some(Some((category, retryable))) = verdicts.first()
            && verdicts.iter().all(Option::is_some)
        {
            let first = choices.swap_remove(0);
            return Err(ProviderError::Unusable(Box::new(Unusable {
                category: *category,
                retryable: *retryable,
                finish_reason: first.finish.name(),
                native_finish: first.native_finish,
                text: first
                    .refusal
                    .or(Some(first.text).filter(|text| !text.is_empty()))
                    .or(first.reasoning)
                    .unwrap_or_default(),
                usage,
                request_id,
            })));
        }
        // Of several samples, those that are of no use are left out.
        let mut verdicts = verdicts.into_iter();
        choices.retain(|_| verdicts.next().flatten().is_none());
        if self.options.schema.is_some() {
            let mut problem = None;
            choices.retain_mut(|choice| match self.structure(choice) {
                // Words beside a call need not fit.
                Err(wrong) if choice.tool_calls.is_empty() => {
                    problem.get_or_insert((wrong, std::mem::take(&mut choice.text)));
                    false
                }
                _ => true,
            });
            // Of several samples, those that do not fit are left out.
            if choices.is_empty()
                && let Some((problem, text)) = problem
            {
                return Err(ProviderError::Validation { problem, text, usage: usage.into(), request_id });
            }
        }
        for choice in &mut choices {
            for call in &mut choice.tool_calls {
                // Halves of surrogate pairs, NaN: what nobody could store or send back.
                if serde_json::from_str::<serde_json::Value>(&call.arguments).is_err() {
                    call.arguments = json::proper(&call.arguments);
                }
            }
            let keep = |turn| state::keep(self.dialect.protocol(), &self.options.model, turn);
            match (choice.turn.take(), choice.tool_calls.first_mut()) {
                (Some(turn), Some(call)) => call.state = keep(turn),
                (None, None) if self.options.keeps_turns => {
                    choice.state = self.dialect.turn(&received.body).and_then(|turn| keep(turn.into()));
                }
                _ => {}
            }
        }
        let raw = self.raw.then_some(received.body);
        let by_hand = || self.options.extra_body.get("n").and_then(serde_json::Value::as_u64).is_some_and(|n| n > 1);
        let many = self.options.n.is_some_and(|n| n > 1) || by_hand();
        let first_token = received.first_token;
        Ok(Reply {
            output: Output::Chat(choices),
            many,
            usage,
            model,
            request_id,
            extras,
            raw,
            processing_ms,
            first_token,
            limits,
        })
    }

    /// Why an answer is of no use, if it is not, and whether another attempt may help.
    fn unusable(&self, choice: &Choice) -> Option<(Category, bool)> {
        let says_nothing = choice.text.trim().is_empty() && choice.tool_calls.is_empty();
        let category = match choice.finish {
            Finish::Refusal => Category::Refusal,
            Finish::ContentFilter => Category::ContentFilter,
            Finish::Interrupted { overloaded: true } => Category::Overload,
            Finish::Interrupted { overloaded: false } => Category::Server,
            Finish::Malformed => Category::Validation,
            Finish::Stopped => return None,
            // A call that is truncated is none, even if what there is of it can be read.
            Finish::Length if says_nothing || self.options.schema.is_some() || !choice.tool_calls.is_empty() => {
                Category::Truncated
            }
            _ if says_nothing => return Some((Category::Empty, choice.retry_empty)),
            _ => return None,
        };
        Some((category, category.is_retryable()))
    }

    /// Reduces an answer to its JSON, and checks it if that is done here.
    fn structure(&self, choice: &mut Choice) -> Result<(), String> {
        let found = match (find_json(&choice.text), &self.check) {
            (Ok(found), _) => found,
            // Whoever checks above says what is wrong with it in words of their own.
            (Err(_), None) => return Ok(()),
            (Err(problem), Some(_)) => return Err(problem),
        };
        let json = match (&self.check, found.as_slice()) {
            (Some(check), found) => first_that_fits(check, found)?,
            (None, [json]) => json,
            (None, found) => {
                let schema = self.options.schema.as_ref();
                let chooser = self.chooser.get_or_init(|| Check::new(&schema?.schema).ok());
                let chosen = chooser.as_ref().and_then(|check| first_that_fits(check, found).ok());
                chosen.or_else(|| found.iter().find(|json| json.starts_with('{')).copied()).unwrap_or(found[0])
            }
        };
        choice.checked = self.check.is_some();
        if json.len() != choice.text.len() {
            choice.text = json.to_owned();
        }
        Ok(())
    }
}

impl Streams {
    fn new(
        streaming: Streaming,
        base_url: &str,
        options: &Options,
        fields: &Map<String, Value>,
        marked: Option<&Map<String, Value>>,
    ) -> Result<Self, String> {
        let (path, query) = streaming.path;
        let mut url = endpoint(base_url, &path)?;
        if let Some((name, value)) = query {
            url.query_pairs_mut().append_pair(name, value);
        }
        // The user's own fields stay.
        let asked = |fields: &Map<String, Value>| {
            let mut asked = streaming.fields.clone();
            for (name, value) in fields {
                match (asked.get_mut(name), value) {
                    (Some(Value::Object(known)), Value::Object(more)) => known.extend(more.clone()),
                    _ => drop(asked.insert(name.clone(), value.clone())),
                }
            }
            asked
        };
        Ok(Self {
            url,
            head: Fixed::new(&asked(fields), marked.map(asked).as_ref())?,
            fold: streaming.fold,
            clocks: if streams::thinks(options) { streaming.clocks.thinking() } else { streaming.clocks },
            is_wanted: streams::is_wanted(options),
            is_optional: options.stream == Stream::Auto,
            refused: AtomicBool::new(false),
        })
    }
}

/// Whether a server, or the account there, does not stream: OpenAI streams some models only for verified organizations.
fn refuses_streams(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Status { status: 400 | 403 | 404 | 405 | 422 | 501, message, code, .. }
        if message.to_ascii_lowercase().contains("stream") || code.as_deref().is_some_and(|code| code.contains("stream")))
}

/// Whether a server does not know the fields that speak of its cache: one that imitates another, or an older model.
fn refuses_marks(error: &ProviderError) -> bool {
    let names = ["cache_control", "prompt_cache"];
    matches!(error, ProviderError::Status { status: 400 | 422, message, .. }
        if names.iter().any(|name| message.contains(name)))
}

/// Fields as JSON.
fn written(fields: &Map<String, Value>) -> Result<Bytes, String> {
    let text = serde_json::to_vec(fields).map(|text| numbers::with_digits(text).into());
    text.map_err(|error| format!("the request cannot be written as JSON: {error}"))
}

/// Lists as one list.
fn joined(lists: &[Box<RawValue>]) -> Option<Box<str>> {
    let lists: Result<Vec<Vec<Box<RawValue>>>, _> = lists.iter().map(|list| serde_json::from_str(list.get())).collect();
    serde_json::to_string(&lists.ok()?.concat()).ok().map(Into::into)
}

/// The first of several JSON values that fits, else what is wrong with the first.
fn first_that_fits<'a>(check: &Check, found: &[&'a str]) -> Result<&'a str, String> {
    let mut problem = None;
    for json in found {
        match check.apply_to(json) {
            Ok(()) => return Ok(json),
            Err(wrong) => drop(problem.get_or_insert(wrong)),
        }
    }
    Err(problem.unwrap_or_else(|| "it contains no JSON".to_owned()))
}

/// Headers that say where a message goes and how it is cut out of a connection (RFC 9110, section 7.6.1): who sets them
/// can smuggle in a request of his own.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Longest name of a header that is shown, bytes; what is longer is likely to be something else.
const LONGEST_NAME: usize = 36;

/// The name of a header as an error shows it: without what is no name, such as a value that was put there.
fn shown_name(name: &str) -> String {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    let end = name.find(|letter| !is_part(letter)).unwrap_or(name.len());
    let (kept, is_whole) = if end > LONGEST_NAME { (8, false) } else { (end, end == name.len()) };
    Quoted(&format!("{}{}", name.get(..kept).unwrap_or_default(), if is_whole { "" } else { "..." })).to_string()
}

/// Headers that the user adds. Their values may be secret.
pub fn extra_headers(headers: &[(String, String)]) -> Result<HeaderMap, String> {
    headers
        .iter()
        .map(|(name, value)| {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("extra_headers: {} is not a valid header name", shown_name(name)))?;
            if FRAMING.contains(&header.as_str()) || header.as_str().starts_with("proxy-") {
                return Err(format!(
                    "extra_headers cannot set {}, which the HTTP client sets itself; leave it out{}",
                    shown_name(name),
                    if header == header::HOST { ", and set the host in base_url" } else { "" }
                ));
            }
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                format!(
                    "extra_headers: the value of {} has characters that are not allowed in a header; remove them",
                    shown_name(name)
                )
            })?;
            value.set_sensitive(true);
            Ok((header, value))
        })
        .collect()
}

/// Adds what the content type tells to an error about a body that is none.
fn with_type(error: ProviderError, received: &Received) -> ProviderError {
    let kind = received.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match error {
        ProviderError::Protocol { protocol, problem, excerpt } if kind.starts_with("text/html") => {
            let problem = format!("it is an HTML page, perhaps from a proxy ({problem})");
            ProviderError::Protocol { protocol, problem, excerpt }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::keys::Auth;
    use crate::providers::{table, testing};
    use serde_json::json;

    fn client(options: serde_json::Value) -> Client {
        Client::new(Parts {
            dialect: table::row("openai").unwrap().dialect(false),
            base_url: "http://localhost/v1".to_owned(),
            keys: Keys::new(Auth::Bearer, &[]).unwrap(),
            periods: Periods::default(),
            options: testing::options(options),
            headers: vec![],
            transport: TransportOptions::default(),
            caching: Caching::None,
            raw: false,
        })
        .unwrap()
    }

    fn finish(client: &Client, choices: serde_json::Value) -> Result<Reply, ProviderError> {
        let body = json!({"choices": choices, "usage": {"prompt_tokens": 3}}).to_string();
        let received =
            Received { headers: HeaderMap::new(), body: Bytes::from(body), first_token: None, is_stopped: false };
        let answer = client.0.dialect.read(&received.body, &received.headers)?;
        client.0.finish(answer, received)
    }

    fn category(result: Result<Reply, ProviderError>) -> Option<&'static str> {
        result.err().map(|error| error.category().name())
    }

    #[test]
    fn answers_of_no_use_are_told_apart_and_counted() {
        let (text, structured) =
            (client(json!({})), client(json!({"schema": {"name": "S", "schema": {"type": "object"}, "check": true}})));
        let said = |content: &str, finish: &str| json!([{"message": {"content": content}, "finish_reason": finish}]);
        let refusal = json!([{"message": {"content": null, "refusal": "I can't"}}]);
        assert_eq!(category(finish(&text, refusal.clone())), Some("refusal"));
        assert!(finish(&text, refusal).unwrap_err().to_string().contains("I can't"));
        assert_eq!(category(finish(&text, said("", "content_filter"))), Some("content_filter"));
        assert_eq!(category(finish(&text, said("", "stop"))), Some("empty_response"));
        assert_eq!(category(finish(&text, said("", "length"))), Some("truncated"));
        // A text that is cut off is a text; an object that is cut off is none.
        assert_eq!(category(finish(&text, said("Once upon", "length"))), None);
        let cut = finish(&structured, said("{\"a\":", "length")).unwrap_err();
        assert_eq!((cut.category().name(), cut.usage().unwrap().input), ("truncated", 3));
        let calls = json!([{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]);
        assert_eq!(category(finish(&structured, calls)), None);
    }

    #[test]
    fn checked_answers_are_values() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let client = client(json!({"schema": {"name": "S", "schema": schema, "check": true}}));
        let said = |content: &str| json!([{"message": {"content": content}, "finish_reason": "stop"}]);
        let reply = finish(&client, said("```json\n{\"n\": 1}\n```")).unwrap();
        assert!(reply.choices()[0].checked);
        assert_eq!(reply.choices()[0].text, "{\"n\": 1}");
        let error = finish(&client, said("{\"n\": \"x\"}")).unwrap_err();
        assert!(matches!(&error, ProviderError::Validation { text, .. } if text == "{\"n\": \"x\"}"), "{error}");
        assert!(finish(&client, said("no")).unwrap_err().to_string().contains("no JSON"));
    }

    #[test]
    fn samples_of_no_use_are_left_out() {
        let samples =
            json!([{"message": {"content": "a"}}, {"message": {"content": ""}}, {"message": {"content": "c"}}]);
        let reply = finish(&client(json!({"n": 3})), samples).unwrap();
        let texts: Vec<&str> = reply.choices().iter().map(|choice| choice.text.as_str()).collect();
        assert_eq!(texts, ["a", "c"]);
    }

    #[test]
    fn html_is_called_by_its_name() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        let received = Received { headers, body: Bytes::from_static(b"<html>"), first_token: None, is_stopped: false };
        let error = client(json!({})).0.dialect.read(&received.body, &received.headers).unwrap_err();
        assert!(with_type(error, &received).to_string().contains("HTML page"));
    }

    #[test]
    fn an_open_request_takes_little() {
        let attempt = client(json!({})).attempt(Ask::new(crate::providers::prompt::Prompt::Text(String::new().into())));
        // What is longer, malloc's caches for small blocks (glibc: up to 1,032 bytes) do not serve.
        assert!(size_of_val(&*attempt) <= 1024, "{} bytes", size_of_val(&*attempt));
    }
}
