//! One strategy's client: a question in, an answer out, in the dialect and over the connections it was given.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, header};

mod answers;
mod batchable;
mod caches;
mod fields;
mod pauses;
mod streamed;

use super::account::Account;
use super::address::{endpoint, metrics_page};
use super::auth::Signer;
use super::caching::Caching;
use super::call::{Batchable, Call};
use super::counting::Count;
use super::dialect::{Answer, Body, Dialect};
use super::error::ProviderError;
use super::headers::extra_headers;
use super::heads::{self, Heads};
use super::keys::{KeyHeader, Keys};
use super::limits::Periods;
use super::listener::{Listener, Part};
use super::options::{Options, Stream};
use super::plan::{Head, Marks, Plan};
use super::pooled::queues;
use super::prompt::Ask;
use super::provider::{Attempt, Provider};
use super::redact::Secrets;
use super::reply::{Finish, Reply};
use super::shared::Payload;
use super::state;
use super::transport::{Reading, Received, Transport, TransportOptions};
use crate::engine::pool::queue::Depth;
use answers::Answers;
use caches::{Caches, is_gone};
use fields::{Fixed, Streams, refuses_streams};

/// What a client is made of.
pub struct Parts {
    /// The language it speaks.
    pub dialect: Box<dyn Dialect>,
    /// Where the provider is, up to the dialect's path; a query is kept.
    pub base_url: String,
    /// The keys.
    pub keys: Keys,
    /// What signs requests in place of keys.
    pub signer: Option<Arc<Signer>>,
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
    /// Caches that were made for it; none: the provider has no such.
    caches: Option<Caches>,
    /// Where replies come as streams.
    streams: Option<Streams>,
    answers: Answers,
    transport: Transport,
    secrets: Secrets,
}

/// What is sent, or why nothing can be.
type Question = Result<Box<Request>, String>;

/// A request, and what is needed of it when the reply is there.
struct Request {
    body: Payload,
    /// The header with its key, if that is not the usual one. In a box, for most requests have none, and hold the room
    /// for it while they are open.
    key: Option<Box<KeyHeader>>,
    /// The number of the conversation, where the model's thoughts belong to it; see [`state`].
    after: Option<u64>,
}

/// The key that this request alone has.
fn key_of(question: &Question) -> Option<&HeaderValue> {
    question.as_ref().ok()?.key.as_deref().map(|key| &key.value)
}

impl Client {
    /// Prepares the client; nothing is sent.
    ///
    /// # Errors
    /// A message that says which argument is wrong. It never holds the key.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let Parts { dialect, base_url, keys, signer, periods, options, headers, transport, caching, raw } = parts;
        let url = endpoint(&base_url, &dialect.path(&options.model))?;
        let fields = dialect.fields(&options)?;
        let heads = Heads::new(caching, &options);
        let marked = (heads.marks() || caching.is_explicit()).then(|| {
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
        let answers = Answers::new(&options, raw)?;
        let mut fixed = HeaderMap::new();
        fixed.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in dialect.headers() {
            fixed.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let extra = extra_headers(&headers)?;
        let mut secrets = Secrets::new(keys.values(), &[&base_url, transport.proxy.as_deref().unwrap_or("")], &extra);
        secrets.add_fields(&options.extra_body);
        let secrets = secrets.and_of(signer.clone());
        fixed.extend(extra);
        keys.usual_header().iter().for_each(|key| key.put_on(&mut fixed));
        let transport = Transport::new(transport, url, fixed)?.signed_by(signer);
        // They belong to an account, which several keys may not share.
        let caches = (caching.is_explicit() && keys.values().len() == 1).then(Caches::default);
        let inner = Inner {
            base_url,
            dialect,
            keys,
            periods,
            options,
            head,
            heads,
            caches,
            streams,
            answers,
            transport,
            secrets,
        };
        Ok(Self(Arc::new(inner)))
    }
}

impl Provider for Client {
    fn attempt(&self, mut ask: Ask) -> Attempt {
        let client = Arc::clone(&self.0);
        Box::pin(async move {
            client.split(&mut ask);
            if client.caches.as_ref().is_some_and(Caches::are_held)
                && ask.key.is_none()
                && ask.plan.get().is_some_and(Option::is_some)
            {
                return Box::pin(client.attempt_cached(ask)).await;
            }
            if ask.listener.is_some() || client.streams.as_ref().is_some_and(|streams| streams.is_wanted) {
                // In a box, for it takes more, and most clients do not stream.
                return Box::pin(client.attempt_marked(ask)).await;
            }
            if client.heads.are_untried() && ask.marks().is_some_and(Marks::say_something) {
                return Box::pin(client.attempt_marked(ask)).await;
            }
            if ask.has_state() {
                // It may have to be sent once more without what the server does not take.
                return Box::pin(client.attempt_marked(ask)).await;
            }
            let question = client.question(&ask, None);
            drop(ask);
            client.complete(client.ask(&question, None, None).await, &question)
        })
    }

    fn count(&self, ask: Ask) -> Option<Count> {
        let client = Arc::clone(&self.0);
        let counting = client.dialect.count(&client.options, &ask).transpose()?;
        Some(Box::pin(async move {
            let counting = counting.map_err(ProviderError::Request)?;
            let key = client.keys.header(ask.key.as_ref()).map_err(ProviderError::Request)?;
            let call = Call::post("").json(counting.body.clone()).at(counting.place.clone());
            let received = client.account().call_with(call, key.as_ref()).await?;
            counting.read(client.dialect.protocol(), &received.body)
        }))
    }

    fn stream_timeout(&self, is_followed: bool) -> Option<f64> {
        let streams = self.0.streams.as_ref().filter(|streams| streams.is_wanted || is_followed);
        streams.map(|streams| streams.clocks.whole)
    }

    fn has_heads(&self) -> bool {
        self.0.heads.are_cached()
    }

    fn is_too_short(&self) -> bool {
        self.0.heads.are_too_short()
    }

    fn notice(&self, asks: &[&Ask]) {
        self.0.heads.notice(asks, Instant::now());
    }

    fn head(&self, ask: &Ask) -> Option<Head> {
        self.0.plan(ask)?.head
    }

    fn begins_with(&self, ask: &Ask, base: u64) -> bool {
        self.0.plan(ask).is_some_and(|plan| plan.base == base) || self.0.heads.begin(ask, base)
    }

    fn queue(&self) -> Option<Pin<Box<dyn Future<Output = Depth> + Send>>> {
        let client = Arc::clone(&self.0);
        let url = metrics_page(&client.base_url)?;
        Some(Box::pin(async move {
            match client.transport.page(url, queues::LONGEST).await {
                Ok(page) => queues::read(&page),
                // Whoever has no such page says so.
                Err(ProviderError::Status { status: 300..=499, .. }) => Depth::Never,
                Err(_) => Depth::Unknown,
            }
        }))
    }

    fn hold(&self) {
        if let Some(caches) = &self.0.caches {
            caches.hold();
        }
    }

    fn release(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let client = Arc::clone(&self.0);
        Box::pin(async move {
            if let Some(caches) = &client.caches {
                caches.release(client.account()).await;
            }
        })
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

    /// Its address, key and connections.
    fn account(&self) -> Account<'_> {
        Account { base_url: &self.base_url, keys: &self.keys, transport: &self.transport, secrets: &self.secrets }
    }

    /// Asks with a cache of what the question begins with, where one is wanted and can be had.
    async fn attempt_cached(&self, mut ask: Ask) -> Result<Reply, ProviderError> {
        let cut = self.plan(&ask).and_then(|plan| self.heads.cut(&ask, plan, Instant::now()));
        let found = match (&self.caches, &cut) {
            (Some(caches), Some(cut)) => caches.name(self, cut).await,
            _ => None,
        };
        let (Some(caches), Some(cut), Some(name)) = (&self.caches, cut, found) else {
            let outcome = self.attempt_any(&ask).await;
            if let (Some(plan), Ok(reply)) = (self.plan(&ask), &outcome) {
                self.heads.answered(plan, &reply.usage, Instant::now());
            }
            return outcome;
        };
        let whole = std::mem::replace(&mut ask.prompt, cut.after);
        ask.use_cache(Some(name.clone()));
        let mut outcome = self.attempt_any(&ask).await;
        if outcome.as_ref().is_err_and(is_gone) {
            caches.forget(cut.key, &name).await;
            ask.prompt = whole;
            ask.use_cache(None);
            outcome = self.attempt_any(&ask).await;
        }
        if let Ok(reply) = &mut outcome {
            reply.usage = reply.usage.plus(&caches.take_unpaid());
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
            Err(error) if heads::refuses_marks(error) => {
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
        let (mut question, listener) = (self.question(ask, streams), ask.listener.as_ref());
        let mut outcome = self.ask(&question, streams, listener).await;
        if let (Err(error), Ok(request)) = (&outcome, &mut question)
            && let Some(body) = self.dialect.without_thoughts(&request.body, error)
        {
            request.body = body.into();
            outcome = self.ask(&question, streams, listener).await;
        }
        let mut outcome = self.complete(outcome, &question);
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
        let key = self.keys.header(ask.key.as_ref())?.map(Box::new);
        let mut body = Body::new(streams.map_or(&self.head, |streams| &streams.head).of(ask), ask.own_bytes());
        self.dialect.conversation(&self.options, ask, &mut body)?;
        let may_go_on = !self.options.tools.is_empty() || self.options.keeps_turns;
        let after = (may_go_on && self.dialect.binds_thoughts(&self.options))
            .then(|| state::number_of(&self.options, &ask.turns()));
        Ok(Box::new(Request { body: body.finish(), key, after }))
    }

    /// Sends a request, and reads what comes of it.
    async fn send(
        &self,
        body: &Payload,
        key: Option<&KeyHeader>,
        streams: Option<&Streams>,
        listener: Option<&Arc<Listener>>,
    ) -> Result<Received, ProviderError> {
        match streams {
            None => {
                let received = self.transport.post(body, key).await?;
                streamed::fold_unrequested(&*self.dialect, &self.options.model, received)
            }
            // In a box, for it takes more, and most requests are none of these.
            Some(streams) => Box::pin(self.streamed(body, key, streams, listener)).await,
        }
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
        streamed::with_beginning(&*self.dialect, outcome, &so_far)
    }

    async fn ask(
        &self,
        question: &Question,
        streams: Option<&Streams>,
        listener: Option<&Arc<Listener>>,
    ) -> Result<Reply, ProviderError> {
        let request = question.as_ref().map_err(|problem| ProviderError::Request(problem.clone()))?;
        // What is not needed later is not held while the request is open.
        let mut received = match streams {
            None => self.transport.post(&request.body, request.key.as_deref()).await?,
            // In a box, for it takes more, and most requests are none of these.
            Some(streams) => Box::pin(self.streamed(&request.body, request.key.as_deref(), streams, listener)).await?,
        };
        if streams.is_none() {
            received = streamed::fold_unrequested(&*self.dialect, &self.options.model, received)?;
        }
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
            None => self.finish(answer, received, request.after),
            Some(_) => Box::pin(self.go_on(request, answer, streams, listener, received.first_token)).await,
        }
    }

    /// Sees to it that an answer is of use.
    fn finish(&self, answer: Answer, received: Received, after: Option<u64>) -> Result<Reply, ProviderError> {
        self.answers.finish(&*self.dialect, &self.options, answer, received, after)
    }
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
mod tests;
