//! Several providers as one: each attempt goes to the member that `engine::pool` names; if it fails because of the member,
//! it goes to another at once. Fallbacks answer what members do not.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::error::{Category, ProviderError};
use super::prompt::{Ask, Correction};
use super::provider::{Attempt, Provider};
use super::reply::{Extra, JsonText, Reply, TokenUsage};
use crate::engine::measure::ReportedLimit;
use crate::engine::pool::queue::Depth;
use crate::engine::pool::{Ending, News, Next, Place, Pool, Reason, Report, Trial};

pub mod prefix;
pub mod queues;
mod reasons;

pub use reasons::ReportedFailure;
use reasons::{ending_of, reason_of, used_of};

/// How often it is looked whether a second request may be sent, at least.
const LOOK: Duration = Duration::from_millis(5);
/// How long a server may take to tell how much it has to do.
const LONGEST_READING: Duration = Duration::from_secs(2);

/// One of the providers.
pub struct Member {
    /// Answers.
    pub provider: Arc<dyn Provider>,
    /// What results call it.
    pub label: String,
}

/// Hears what becomes of members: what, which, and why. Must be quick.
pub type Hear = Box<dyn Fn(News, &str, &str) + Send + Sync>;

/// Says whether an answer is doubtful, so that a fallback is to be asked. Must be quick.
pub type Doubt = Box<dyn Fn(&Reply) -> bool + Send + Sync>;

/// How requests are placed, beyond the members.
pub struct Ways {
    /// Hears what becomes of members.
    pub hear: Hear,
    /// Sends doubtful answers to a fallback.
    pub doubt: Option<Doubt>,
}

/// Several providers as one.
pub struct Pooled(Arc<Inner>);

struct Inner {
    members: Vec<Member>,
    pool: Arc<Pool>,
    ways: Ways,
}

/// A place that is left whatever happens.
struct Permit<'a> {
    inner: &'a Inner,
    place: Option<Place>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.inner.pool.ended(&place, &Report::of(Ending::Cancelled), Instant::now());
        }
    }
}

/// What came of a request, and of the second one beside it if there was one.
struct Tried {
    /// Whose answer or error it is.
    member: usize,
    outcome: Result<Reply, ProviderError>,
    ending: Ending,
    /// Whether there were two.
    is_hedged: bool,
}

type Trying<'a> = std::pin::Pin<Box<dyn Future<Output = Tried> + Send + 'a>>;

impl Pooled {
    /// `pool` has a member for each of `members`, in this order.
    pub fn new(members: Vec<Member>, pool: Arc<Pool>, ways: Ways) -> Self {
        Self(Arc::new(Inner { members, pool, ways }))
    }
}

impl Provider for Pooled {
    fn attempt(&self, ask: Ask) -> Attempt {
        Box::pin(Arc::clone(&self.0).ask(ask))
    }

    fn stream_timeout(&self, is_followed: bool) -> Option<f64> {
        let limits = self.0.members.iter().map(|member| member.provider.stream_timeout(is_followed));
        limits.flatten().max_by(f64::total_cmp)
    }

    fn hold(&self) {
        self.0.members.iter().for_each(|member| member.provider.hold());
    }

    fn release(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let released: Vec<_> = self.0.members.iter().map(|member| member.provider.release()).collect();
        Box::pin(async move {
            for release in released {
                release.await;
            }
        })
    }
}

impl Inner {
    async fn ask(self: Arc<Self>, ask: Ask) -> Result<Reply, ProviderError> {
        let prefix = if self.pool.keeps_prefixes() { prefix::of(&ask.prompt) } else { None };
        let (mut trial, mut next) = Trial::begin(&self.pool, prefix, Instant::now());
        let mut paid = TokenUsage::default();
        // What is left if nobody has a better answer: an error, or a doubtful answer.
        let mut kept: Option<Result<Reply, (usize, ProviderError)>> = None;
        loop {
            let place = match next {
                Next::At(place) => place,
                Next::Wait(until) => {
                    sleep_until(until).await;
                    next = trial.retry(&self.pool, Instant::now());
                    continue;
                }
                Next::Later | Next::Nowhere => {
                    return match kept {
                        Some(Ok(reply)) => Ok(with_usage(reply, &paid)),
                        Some(Err((member, error))) if matches!(next, Next::Later) => {
                            Err(busy(&self.members[member].label, &error).with_usage(paid))
                        }
                        Some(Err((_, error))) => Err(error.without_usage().with_usage(paid)),
                        None => Err(ProviderError::Request("a pool has lost an answer".to_owned())),
                    };
                }
            };
            let Tried { member, outcome, ending, is_hedged } = self.ask_one(place, &ask, &mut trial).await;
            next = match outcome {
                Ok(reply) => {
                    let reply = self.marked(reply, member, trial.reason(), is_hedged);
                    if matches!(kept, Some(Ok(_)))
                        || ask.listener.is_some()
                        || !self.is_doubtful(&trial, member, &reply)
                    {
                        return Ok(with_usage(reply, &paid));
                    }
                    paid = paid.plus(&reply.usage);
                    kept = Some(Ok(Reply { usage: TokenUsage::default(), ..reply }));
                    trial.doubtful(&self.pool, member, Instant::now())
                }
                Err(error) => {
                    // Whoever follows an answer has heard its beginning.
                    let is_heard = ask.listener.as_ref().is_some_and(|listener| listener.take_heard());
                    let found = reason_of(&error, ask.correction.is_some());
                    paid = error.usage().map_or(paid, |usage| paid.plus(usage));
                    if !matches!(kept, Some(Ok(_))) {
                        kept = Some(Err((member, error)));
                    }
                    if is_heard {
                        Next::Nowhere
                    } else {
                        trial.failed(&self.pool, member, ending, found, Instant::now())
                    }
                }
            };
        }
    }

    /// Whether an answer is to be made better by a fallback.
    fn is_doubtful(&self, trial: &Trial, member: usize, reply: &Reply) -> bool {
        let Some(doubt) = &self.ways.doubt else { return false };
        trial.may_escalate(&self.pool, member) && doubt(reply)
    }

    /// Asks a member; and another one beside it, if that takes much longer than usual, and may be done.
    async fn ask_one(&self, place: Place, ask: &Ask, trial: &mut Trial) -> Tried {
        let after = if trial.is_of_run() && ask.listener.is_none() { self.pool.hedges_after() } else { None };
        let beside = place.member;
        let first: Trying<'_> = Box::pin(self.ask_member(place, ask));
        match after {
            None => first.await,
            // In a box, for few requests take so long.
            Some(after) => Box::pin(self.ask_two(first, beside, ask, after, trial)).await,
        }
    }

    async fn ask_two<'a>(
        &'a self,
        mut first: Trying<'a>,
        beside: usize,
        ask: &'a Ask,
        after: Duration,
        trial: &mut Trial,
    ) -> Tried {
        let mut pause = after;
        let place = loop {
            match select(first, Box::pin(sleep(pause))).await {
                Either::Left((tried, _)) => return tried,
                Either::Right(((), waiting)) => first = waiting,
            }
            match trial.hedge(&self.pool, beside, Instant::now()) {
                Some(place) => break place,
                None => pause = (after / 8).max(LOOK),
            }
        };
        let second: Trying<'a> = Box::pin(self.ask_member(place, ask));
        let (mut winner, other) = match select(first, second).await {
            Either::Left((tried, other)) | Either::Right((tried, other)) => (tried, other),
        };
        if winner.outcome.is_err() {
            winner = other.await;
        } else if let Ok(reply) = &mut winner.outcome {
            // Nobody tells what the other one cost, which is cancelled now: as much, at most.
            reply.usage = reply.usage.plus(&reply.usage);
        }
        winner.is_hedged = true;
        winner
    }

    /// Asks one member.
    async fn ask_member(&self, place: Place, ask: &Ask) -> Tried {
        let number = place.member;
        let member = &self.members[number];
        read_queues(&self.pool, |number| self.members[number].provider.queue(), Handle::try_current().ok().as_ref());
        let mut held = Permit { inner: self, place: Some(place) };
        let mut outcome = member.provider.attempt(same(ask)).await;
        let (limits, account) = reported(&mut outcome);
        let ending = ending_of(&outcome);
        let report = Report { ending, used: used_of(&outcome), limits: &limits, account };
        if let Some(place) = held.place.take()
            && let Some(news) = self.pool.ended(&place, &report, Instant::now())
        {
            let why = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
            (self.ways.hear)(news, &member.label, &why);
        }
        Tried { member: number, outcome, ending, is_hedged: false }
    }

    /// A reply that says who answered, and why it was not a member.
    fn marked(&self, mut reply: Reply, member: usize, reason: Option<Reason>, is_hedged: bool) -> Reply {
        reply.extras.push(("member", Extra::Text(self.members[member].label.clone())));
        reply.extras.extend(reason.map(|reason| ("member_reason", Extra::Text(reason.name().to_owned()))));
        if is_hedged {
            reply.extras.push(("hedged", Extra::Json(JsonText("true".into()))));
        }
        reply
    }
}

/// What will tell how much a member has to do; `None`: it never does.
pub type Reading = std::pin::Pin<Box<dyn Future<Output = Depth> + Send>>;

/// Asks servers how much they have to do, where it is time. Nobody waits for that, and no failure matters.
pub fn read_queues(pool: &Arc<Pool>, queue_of: impl Fn(usize) -> Option<Reading>, runtime: Option<&Handle>) {
    let asked = Instant::now();
    while let Some(number) = pool.queue_to_read(asked) {
        let (Some(reading), Some(runtime)) = (queue_of(number), runtime) else {
            pool.reported(number, Depth::Never, asked, asked);
            continue;
        };
        let pool = Arc::clone(pool);
        runtime.spawn(async move {
            let reported = timeout(LONGEST_READING, reading).await.unwrap_or(Depth::Unknown);
            pool.reported(number, reported, asked, Instant::now());
        });
    }
}

/// A member has failed, and the others are at their limits: the request waits for them, and has used up no attempt.
fn busy(label: &str, error: &ProviderError) -> ProviderError {
    ProviderError::Status {
        status: 429,
        message: format!("{label} failed ({error}), and the other members are at their limits"),
        code: None,
        category: Category::RateLimit,
        retryable: true,
        retry_after: None,
        request_id: None,
        limits: Vec::new(),
        beginning: None,
    }
}

/// The reply, with what was paid before it came.
fn with_usage(mut reply: Reply, paid: &TokenUsage) -> Reply {
    reply.usage = reply.usage.plus(paid);
    reply
}

/// The same question, for another member.
fn same(ask: &Ask) -> Ask {
    let correction = ask.correction.as_deref();
    Ask {
        correction: correction.map(|Correction { answer, problem }| {
            Box::new(Correction { answer: answer.clone(), problem: problem.clone() })
        }),
        key: ask.key.clone(),
        listener: ask.listener.clone(),
        ..Ask::new(ask.prompt.clone())
    }
}

/// What a member says about its limits, which is not said about those of all; and its account.
pub fn reported(outcome: &mut Result<Reply, ProviderError>) -> (Vec<ReportedLimit>, Option<u64>) {
    match outcome {
        Ok(reply) => (std::mem::take(&mut reply.limits), reply.account),
        Err(ProviderError::Status { limits, .. }) => (std::mem::take(limits), None),
        Err(_) => (Vec::new(), None),
    }
}

#[cfg(test)]
mod tests;
