//! Several providers as one: each attempt goes to the member that `engine::pool` names; if it fails because of the member,
//! it goes to another at once. Fallbacks answer what members do not.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep, sleep_until};

use super::error::{Category, ProviderError};
use super::prompt::{Ask, Correction};
use super::provider::{Attempt, Provider};
use super::reply::{Extra, JsonText, Reply, TokenUsage};
use crate::engine::measure::{Estimate, ReportedLimit};
use crate::engine::pool::choice::Set;
use crate::engine::pool::{Ending, News, Place, Pool, Report};

mod prefix;
mod reasons;

pub use reasons::{Reason, Reasons};
use reasons::{ending_of, used_of};

/// How often it is looked whether a second request may be sent, at least.
const LOOK: Duration = Duration::from_millis(5);
/// How long an attempt outside of a run waits for a member when nobody knows how long.
const WAIT: Duration = Duration::from_millis(100);
/// And at least so long.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// One of the providers.
pub struct Member {
    /// Answers.
    pub provider: Arc<dyn Provider>,
    /// What results call it.
    pub label: String,
    /// Zero: a member; others are fallbacks, in this order.
    pub tier: u8,
    /// What a fallback is asked for.
    pub reasons: Reasons,
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
    /// Whether requests that begin alike go to one member, for its prompt cache.
    pub keeps_prefixes: bool,
}

/// Several providers as one.
pub struct Pooled(Arc<Inner>);

struct Inner {
    members: Vec<Member>,
    pool: Arc<Pool>,
    ways: Ways,
}

/// A place that is left whatever happens.
struct Held<'a> {
    inner: &'a Inner,
    place: Option<Place>,
}

impl Drop for Held<'_> {
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
    /// Everybody who was asked.
    asked: Set,
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
        let prefix = if self.ways.keeps_prefixes { prefix::of(&ask.prompt) } else { None };
        let (mut place, is_of_run) = match self.pool.claim(prefix, Instant::now()) {
            Some(place) => (place, true),
            None => (self.wait().await, false),
        };
        let estimate = place.estimate;
        let mut reason = (self.members[place.member].tier > 0).then_some(Reason::Overload);
        let (mut tried, mut paid) = (Set::default(), TokenUsage::default());
        // A doubtful answer, which is better than none.
        let mut doubtful: Option<Reply> = None;
        loop {
            let last = self.ask_one(place, &ask, is_of_run).await;
            tried.add_all(last.asked);
            let tier = self.members[last.member].tier;
            let next = match last.outcome {
                Ok(reply) => {
                    let reply = self.marked(reply, last.member, reason, last.is_hedged);
                    if doubtful.is_some() || ask.listener.is_some() || !self.is_doubtful(&reply, tier) {
                        return Ok(with_usage(reply, &paid));
                    }
                    let next = self.escalate(tried, tier, estimate, is_of_run).await;
                    paid = paid.plus(&reply.usage);
                    doubtful = Some(Reply { usage: TokenUsage::default(), ..reply });
                    next.map(|place| (place, Some(Reason::Escalated))).ok_or(None)
                }
                Err(error) => {
                    // Whoever follows an answer has heard its beginning.
                    let is_heard = ask.listener.as_ref().is_some_and(|listener| listener.take_heard());
                    let found = Reason::of(&error, ask.correction.is_some());
                    let failed = Failed { member: last.member, ending: last.ending, found, estimate, is_of_run };
                    let next = if is_heard { Next::Nowhere } else { self.next(tried, &failed).await };
                    paid = error.usage().map_or(paid, |usage| paid.plus(usage));
                    match next {
                        Next::At(next, why) => Ok((next, why)),
                        Next::Later => Err(Some(self.busy(last.member, &error))),
                        Next::Nowhere => Err(Some(error.without_usage())),
                    }
                }
            };
            match (next, doubtful.take()) {
                (Ok((next, why)), kept) => {
                    (place, reason, doubtful) = (next, why.or(reason), kept);
                }
                (Err(_), Some(reply)) => return Ok(with_usage(reply, &paid)),
                (Err(Some(error)), None) => return Err(error.with_usage(paid)),
                (Err(None), None) => return Err(ProviderError::Request("a pool has lost an answer".to_owned())),
            }
        }
    }

    /// Whether an answer of this tier is to be made better by a fallback.
    fn is_doubtful(&self, reply: &Reply, tier: u8) -> bool {
        let Some(doubt) = &self.ways.doubt else { return false };
        let is_later = |member: &Member| member.tier > tier && member.reasons.have(Reason::Escalated);
        self.members.iter().any(is_later) && doubt(reply)
    }

    /// A place with a fallback for doubtful answers.
    async fn escalate(&self, tried: Set, tier: u8, estimate: Estimate, is_of_run: bool) -> Option<Place> {
        let others = self.but(tried, |other| other.tier > tier && other.reasons.have(Reason::Escalated));
        self.wait_for(others, tier.saturating_add(1), estimate, is_of_run).await
    }

    /// Where a request goes that has failed: to another member if it was the member's fault, to a fallback if there is one
    /// for it.
    async fn next(&self, tried: Set, failed: &Failed) -> Next {
        let Failed { member, ending, found, estimate, is_of_run } = *failed;
        let tier = self.members[member].tier;
        if ending.is_of_member() {
            let others = self.but(tried, |other| other.tier == tier);
            match self.pool.take(others, tier, estimate, is_of_run, Instant::now()) {
                Ok(Some(place)) => return Next::At(place, None),
                Ok(None) => {}
                // It is worth to wait for a member; what may not be is not that one's fault.
                Err(_) => return Next::Later,
            }
        }
        let Some(reason) = found else { return Next::Nowhere };
        let others = self.but(tried, |other| other.tier > tier && other.reasons.have(reason));
        // What has been paid for is not asked again: the request waits for the fallback here.
        let found = self.wait_for(others, tier.saturating_add(1), estimate, is_of_run).await;
        found.map_or(Next::Nowhere, |place| Next::At(place, Some(reason)))
    }

    /// Those that were tried, and all that are not `wanted`.
    fn but(&self, tried: Set, wanted: impl Fn(&Member) -> bool) -> Set {
        let mut but = tried;
        self.members.iter().enumerate().filter(|(_, other)| !wanted(other)).for_each(|(number, _)| but.add(number));
        but
    }

    /// A place for an attempt outside of a run.
    async fn wait(&self) -> Place {
        loop {
            if let Some(place) = self.wait_for(Set::default(), 0, Estimate::default(), false).await {
                return place;
            }
            sleep(WAIT).await;
        }
    }

    /// A place with a member that has not been tried, when there is one. `None`: there will be none.
    async fn wait_for(&self, tried: Set, tier: u8, estimate: Estimate, is_of_run: bool) -> Option<Place> {
        loop {
            let now = Instant::now();
            match self.pool.take(tried, tier, estimate, is_of_run, now) {
                Ok(place) => return place,
                Err(blocked) => {
                    let until = blocked.until.unwrap_or(now + WAIT);
                    sleep_until(until.clamp(now + SHORTEST_WAIT, now + 10 * WAIT)).await;
                }
            }
        }
    }

    /// Asks a member; and another one beside it, if that takes much longer than usual, and may be done.
    async fn ask_one(&self, place: Place, ask: &Ask, is_of_run: bool) -> Tried {
        let after = if is_of_run && ask.listener.is_none() { self.pool.hedges_after() } else { None };
        let beside = (place.member, place.estimate);
        let first: Trying<'_> = Box::pin(self.ask_member(place, ask));
        match after {
            None => first.await,
            // In a box, for few requests take so long.
            Some(after) => Box::pin(self.ask_two(first, beside, ask, after)).await,
        }
    }

    async fn ask_two<'a>(
        &'a self,
        mut first: Trying<'a>,
        beside: (usize, Estimate),
        ask: &'a Ask,
        after: Duration,
    ) -> Tried {
        let mut pause = after;
        let place = loop {
            match select(first, Box::pin(sleep(pause))).await {
                Either::Left((tried, _)) => return tried,
                Either::Right(((), waiting)) => first = waiting,
            }
            match self.pool.hedge(beside.0, beside.1, Instant::now()) {
                Some(place) => break place,
                None => pause = (after / 8).max(LOOK),
            }
        };
        let second: Trying<'a> = Box::pin(self.ask_member(place, ask));
        let (mut winner, other) = match select(first, second).await {
            Either::Left((tried, other)) | Either::Right((tried, other)) => (tried, other),
        };
        if winner.outcome.is_err() {
            let asked = winner.asked;
            winner = other.await;
            winner.asked.add_all(asked);
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
        let mut held = Held { inner: self, place: Some(place) };
        let mut outcome = member.provider.attempt(same(ask)).await;
        let limits = take_limits(&mut outcome);
        let ending = ending_of(&outcome);
        let account = outcome.as_ref().ok().and_then(|reply| reply.account);
        let report = Report { ending, used: used_of(&outcome), limits: &limits, account };
        if let Some(place) = held.place.take()
            && let Some(news) = self.pool.ended(&place, &report, Instant::now())
        {
            let why = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
            (self.ways.hear)(news, &member.label, &why);
        }
        let mut asked = Set::default();
        asked.add(number);
        Tried { member: number, outcome, ending, asked, is_hedged: false }
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

    /// A member has failed, and the others are at their limits: the request waits for them, and has used up no attempt.
    fn busy(&self, member: usize, error: &ProviderError) -> ProviderError {
        let label = &self.members[member].label;
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
}

/// The reply, with what was paid before it came.
fn with_usage(mut reply: Reply, paid: &TokenUsage) -> Reply {
    reply.usage = reply.usage.plus(paid);
    reply
}

/// A request that has failed.
struct Failed {
    member: usize,
    ending: Ending,
    found: Option<Reason>,
    estimate: Estimate,
    is_of_run: bool,
}

/// Where it goes.
enum Next {
    /// There, and why it is not a member.
    At(Place, Option<Reason>),
    /// To those that are at their limits now.
    Later,
    /// Nobody is left.
    Nowhere,
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

/// What a member says about its limits is not said about those of all.
fn take_limits(outcome: &mut Result<Reply, ProviderError>) -> Vec<ReportedLimit> {
    match outcome {
        Ok(reply) => std::mem::take(&mut reply.limits),
        Err(ProviderError::Status { limits, .. }) => std::mem::take(limits),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
