//! The choice between a batch and a request by itself, for runs that leave it to us: what [`plan`](super::plan) is told,
//! and what became of it. Lanes have one; [`provider`](super::provider) asks it for each request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::plan::{Lengths, Situation, Why};
use super::shared::lock;

/// Requests that show how fast the provider is.
const PROBES: usize = 8;
/// How long the others wait for that, at most.
const PROBING: Duration = Duration::from_secs(120);
/// Requests per second, if nothing is known.
const SLOW: f64 = 1.0;

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
    rate: watch::Sender<Option<f64>>,
    live: AtomicUsize,
    /// How many requests there will be, as far as is known; and how many have a place.
    expected: AtomicUsize,
    placed: AtomicUsize,
    is_late: AtomicBool,
    reasons: Mutex<BTreeMap<&'static str, u64>>,
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
        let deadline = wanted.deadline.map(|after| Instant::now() + after);
        // Without a deadline the rate does not matter.
        let rate = wanted.rate.or_else(|| deadline.is_none().then_some(SLOW));
        Self {
            wanted,
            deadline,
            probes: AtomicUsize::new(0),
            latencies: Mutex::default(),
            rate: watch::Sender::new(rate),
            live: AtomicUsize::new(0),
            expected: AtomicUsize::new(0),
            placed: AtomicUsize::new(0),
            is_late: AtomicBool::new(false),
            reasons: Mutex::default(),
        }
    }

    /// So many requests there will be.
    pub fn expect(&self, requests: usize) {
        self.expected.fetch_max(requests, Ordering::Relaxed);
    }

    /// Where the next request goes. `settle`: how long a cancelled batch takes; `in_batches`: requests in batches.
    pub async fn place(
        &self,
        lengths: &Lengths,
        settle: Duration,
        is_cheaper: bool,
        in_batches: impl Fn() -> usize,
    ) -> Place {
        if !is_cheaper {
            return Place::Live(Why::Price);
        }
        if self.is_late() {
            return Place::Live(Why::Late);
        }
        if self.rate.borrow().is_none() {
            if self.probes.fetch_add(1, Ordering::Relaxed) < PROBES {
                self.placed.fetch_add(1, Ordering::Relaxed);
                return Place::Probe;
            }
            let mut rate = self.rate.subscribe();
            let known = rate.wait_for(Option::is_some);
            let _ = tokio::time::timeout(PROBING, known).await;
        }
        let place = self.situation(settle, in_batches()).place(lengths);
        self.placed.fetch_add(1, Ordering::Relaxed);
        match place {
            Ok(()) => Place::Batch,
            Err(why) => Place::Live(why),
        }
    }

    fn situation(&self, settle: Duration, in_batches: usize) -> Situation {
        Situation {
            left: self.left(),
            rate: self.rate.borrow().unwrap_or(SLOW),
            settle: self.wanted.settle.unwrap_or(settle).as_secs_f64(),
            is_cheaper: true,
            in_batches,
            others: self.live.load(Ordering::Relaxed)
                + self.expected.load(Ordering::Relaxed).saturating_sub(self.placed.load(Ordering::Relaxed)),
        }
    }

    fn left(&self) -> Option<f64> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64())
    }

    /// How long such a request took.
    pub fn probed(&self, latency: Duration) {
        let mut latencies = lock(&self.latencies);
        latencies.push(latency.as_secs_f64());
        if latencies.len() >= PROBES.div_ceil(2) && self.rate.borrow().is_none() {
            let mut sorted = latencies.clone();
            sorted.sort_by(f64::total_cmp);
            let median = sorted[sorted.len() / 2].max(1e-3);
            self.rate.send_replace(Some(self.wanted.concurrency.max(1.0) / median));
        }
    }

    /// A request goes by itself; [`ended`](Self::ended) follows.
    pub fn goes_live(&self, why: Why) {
        self.live.fetch_add(1, Ordering::Relaxed);
        *lock(&self.reasons).entry(why.name()).or_default() += 1;
    }

    /// A request that went by itself has ended.
    pub fn ended(&self) {
        let _ = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| live.checked_sub(1));
    }

    /// Whether batches must be cancelled now. From then on all requests go by themselves.
    pub fn is_last_moment(&self, settle: Duration, in_batches: usize) -> bool {
        let is_late = in_batches > 0 && self.situation(settle, in_batches).is_last_moment();
        if is_late {
            self.is_late.store(true, Ordering::Relaxed);
        }
        is_late
    }

    /// Whether it is too late for batches.
    pub fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Relaxed)
    }

    /// How many requests went by themselves, by reason.
    pub fn reasons(&self) -> Vec<(&'static str, u64)> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().map(|(why, count)| (*why, *count)).collect()
    }
}
