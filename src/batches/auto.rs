//! The choice between a batch and a request by itself, for runs that leave it to us: what [`plan`](super::plan) is told,
//! and what became of it. Lanes have one; [`provider`](super::provider) asks it for each request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::costs::{Size, Usual};
use super::plan::{PLANNED, Pace, Situation, Why};
use super::shared::{BatchLoad, lock};
use super::terms::Terms;
use crate::providers::TokenUsage;
use crate::providers::plan::Head;

/// Requests that show how fast the provider is.
const PROBES: usize = 8;
/// How long the others wait for that, at most.
const PROBING: Duration = Duration::from_secs(120);
/// Requests per second, if nothing is known.
const SLOW: f64 = 1.0;
/// Whether a request goes into a batch is asked again after so long.
const AGAIN: Duration = Duration::from_secs(1);
/// Where no request has come back for so long, those that are waited for do not count: they may have failed.
const SILENCE: Duration = Duration::from_secs(60);

/// What the user wants, and what is known beforehand.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Wanted {
    /// When all is to be answered, from now on.
    pub deadline: Option<Duration>,
    /// Requests per second that can be sent by themselves, if that is known.
    pub rate: Option<f64>,
    /// Requests at the same time, for the rate that latencies make.
    pub concurrency: f64,
    /// How long a cancelled batch takes, if not as long as with its provider.
    pub settle: Option<Duration>,
}

/// See the module.
pub struct Auto {
    wanted: Wanted,
    deadline: Option<Instant>,
    probes: AtomicUsize,
    latencies: Mutex<Vec<f64>>,
    pace: watch::Sender<Option<Pace>>,
    watched: Mutex<Watched>,
    /// Requests that go by themselves and have not ended, and how many have.
    live: AtomicUsize,
    ended: AtomicUsize,
    /// One of them has ended.
    moved: Notify,
    /// How many requests there will be, as far as is known; how many were here, and how many of them have no place yet.
    expected: AtomicUsize,
    arrived: AtomicUsize,
    undecided: AtomicUsize,
    /// Requests find their places one after the other, in the order in which they came.
    turn: tokio::sync::Mutex<()>,
    is_late: AtomicBool,
    reasons: Mutex<BTreeMap<&'static str, u64>>,
    /// What requests by themselves use, by model.
    usual: Mutex<FxHashMap<String, Usual>>,
}

/// What a request and others begin with, where that may be cheap.
#[derive(Debug, Clone, Copy)]
pub struct Begins {
    /// It.
    pub head: Head,
    /// All of the request, tokens; none: as much as usual.
    pub input: Option<f64>,
}

/// What was seen when the rate was last looked at.
struct Watched {
    at: Instant,
    ended: usize,
    was_busy: bool,
}

/// Counts a request as undecided.
struct Undecided<'a>(&'a Auto);

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        self.0.undecided.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into a batch.
    Batch,
    /// By itself, to see how fast that is.
    Probe,
    /// By itself.
    Live(Why),
}

impl Auto {
    /// From now on.
    pub fn new(wanted: Wanted) -> Self {
        let now = Instant::now();
        let deadline = wanted.deadline.map(|after| now + after.mul_f64(PLANNED));
        // Without a deadline the rate does not matter.
        let rate = wanted.rate.or_else(|| deadline.is_none().then_some(SLOW));
        Self {
            wanted,
            deadline,
            probes: AtomicUsize::new(0),
            latencies: Mutex::default(),
            pace: watch::Sender::new(rate.map(Pace::new)),
            watched: Mutex::new(Watched { at: now, ended: 0, was_busy: false }),
            live: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            moved: Notify::new(),
            expected: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            undecided: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::default(),
            is_late: AtomicBool::new(false),
            reasons: Mutex::default(),
            usual: Mutex::default(),
        }
    }

    /// Whether there is a deadline.
    pub fn has_deadline(&self) -> bool {
        self.deadline.is_some()
    }

    /// So many requests there will be.
    pub fn expect(&self, requests: usize) {
        self.expected.fetch_max(requests, Ordering::Relaxed);
    }

    /// One of them is here.
    pub fn arrives(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    /// Where a request goes; this may take until there is room for it.
    pub async fn place(&self, terms: &Terms, begins: Option<Begins>, held: impl Fn() -> BatchLoad) -> Place {
        if !terms.is_cheaper {
            return Place::Live(Why::Price);
        }
        if self.deadline.is_none() && !self.is_cheaper_live(terms, begins) {
            return Place::Batch;
        }
        self.undecided.fetch_add(1, Ordering::Relaxed);
        let _undecided = Undecided(self);
        if self.pace.borrow().is_none() {
            if self.probes.fetch_add(1, Ordering::Relaxed) < PROBES {
                return Place::Probe;
            }
            let mut pace = self.pace.subscribe();
            let known = pace.wait_for(Option::is_some);
            let _ = timeout(PROBING, known).await;
        }
        let _turn = self.turn.lock().await;
        let mut since = (Instant::now(), self.ended.load(Ordering::Relaxed));
        loop {
            let situation = self.situation(terms.settling, held());
            let is_cheaper_live = self.is_cheaper_live(terms, begins);
            match if is_cheaper_live { Err(Why::Cache) } else { situation.place(&terms.lengths) } {
                Ok(()) => return Place::Batch,
                // Not all at once: replies tell how much is read from the cache.
                Err(Why::Reserve | Why::Cache) if self.live.load(Ordering::Relaxed) >= self.window(&situation) => {}
                Err(why) => return Place::Live(why),
            }
            let _ = timeout(AGAIN, self.moved.notified()).await;
            let ended = self.ended.load(Ordering::Relaxed);
            if ended != since.1 {
                since = (Instant::now(), ended);
            } else if since.0.elapsed() >= SILENCE {
                self.live.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Whether a request costs less by itself than in a batch, although batches are cheaper.
    fn is_cheaper_live(&self, terms: &Terms, begins: Option<Begins>) -> bool {
        let (Some(prices), Some(begins)) = (terms.prices, begins) else { return false };
        let usual = lock(&self.usual).get(&terms.model).copied().unwrap_or_default();
        let Some((input, output)) = usual.sizes() else { return false };
        let head = f64::from(begins.head.tokens);
        let input = begins.input.unwrap_or(input).max(head);
        prices.favour_live(&Size { input, head, output, is_marked: begins.head.marked }, usual.hits(), terms.reads)
    }

    /// Whether it is known what requests to a model use.
    pub fn knows_usual(&self, model: &str) -> bool {
        lock(&self.usual).contains_key(model)
    }

    /// A request that went by itself was answered, and used so much.
    pub fn used(&self, model: &str, usage: &TokenUsage, head: Option<Head>) {
        let mut usual = lock(&self.usual);
        if !usual.contains_key(model) {
            usual.insert(model.to_owned(), Usual::default());
        }
        if let Some(usual) = usual.get_mut(model) {
            usual.see(usage.input, usage.output, head.map(|head| (head.tokens, usage.cache_read)));
        }
    }

    fn window(&self, situation: &Situation) -> usize {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let at_once = (2.0 * self.wanted.concurrency) as usize;
        situation.window().max(at_once).max(1)
    }

    fn situation(&self, settle: Duration, held: BatchLoad) -> Situation {
        let BatchLoad { in_batches, settling } = held;
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        Situation {
            left: self.left(),
            rate: self.pace.borrow().as_ref().map_or(SLOW, Pace::rate),
            settle: self.wanted.settle.unwrap_or(settle).as_secs_f64(),
            is_cheaper: true,
            in_batches,
            settling,
            others: count(&self.live)
                + count(&self.undecided)
                + count(&self.expected).saturating_sub(count(&self.arrived)),
        }
    }

    fn left(&self) -> Option<f64> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64())
    }

    /// How long such a request took.
    pub fn probed(&self, latency: Duration) {
        let mut latencies = lock(&self.latencies);
        latencies.push(latency.as_secs_f64());
        if latencies.len() >= PROBES.div_ceil(2) && self.pace.borrow().is_none() {
            let mut sorted = latencies.clone();
            sorted.sort_by(f64::total_cmp);
            let median = sorted[sorted.len() / 2].max(1e-3);
            self.pace.send_replace(Some(Pace::new(self.wanted.concurrency.max(1.0) / median)));
        }
    }

    /// Looks at how fast requests go by themselves: whoever has a lane calls this again and again.
    pub fn watch(&self) {
        let (now, ended) = (Instant::now(), self.ended.load(Ordering::Relaxed));
        #[allow(clippy::cast_precision_loss)]
        let is_busy = self.live.load(Ordering::Relaxed) as f64 >= self.wanted.concurrency.max(1.0);
        let mut watched = lock(&self.watched);
        if is_busy && watched.was_busy {
            let (done, seconds) = (ended.saturating_sub(watched.ended), (now - watched.at).as_secs_f64());
            #[allow(clippy::cast_precision_loss)]
            self.pace.send_if_modified(|pace| {
                pace.iter_mut().for_each(|pace| pace.see(done as f64, seconds));
                false
            });
        }
        *watched = Watched { at: now, ended, was_busy: is_busy };
    }

    /// A request goes by itself; [`ended`](Self::ended) follows.
    pub fn goes_live(&self, why: Why) {
        self.live.fetch_add(1, Ordering::Relaxed);
        *lock(&self.reasons).entry(why.name()).or_default() += 1;
    }

    /// A request that went by itself has ended.
    pub fn ended(&self) {
        let _ = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| live.checked_sub(1));
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.moved.notify_one();
    }

    /// How many requests must be taken out of batches now.
    pub fn excess(&self, settle: Duration, held: BatchLoad) -> usize {
        if held.in_batches == 0 { 0 } else { self.situation(settle, held).excess() }
    }

    /// Whether this is the first time that requests are taken out of batches.
    pub fn is_first_time(&self) -> bool {
        !self.is_late.swap(true, Ordering::Relaxed)
    }

    /// How many requests went by themselves, by reason.
    pub fn reasons(&self) -> Vec<(&'static str, u64)> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().map(|(why, count)| (*why, *count)).collect()
    }
}
