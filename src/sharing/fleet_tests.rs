//! Several processes that share the limits of one provider, in simulated time.

// The figures are what these tests are run by hand for.
#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lease::{BEAT, SOON};
use super::table::Table;
use super::{Demand, Share};
use crate::engine::measure::{Estimate, Limit, Measure};
use crate::engine::outage::Sign;
use crate::engine::scheduler::Scheduler;
use crate::engine::scope::{Control, Scope};
use crate::engine::{Command, Failure, ItemIndex, ItemReport, Settings, Verdict};

const SECOND: Duration = Duration::from_secs(1);
/// What the provider allows, per second, and how many seconds' worth at once.
const RATE: f64 = 200.0;
const BURST: f64 = 2.0;
/// How long an answer and a rate limit take.
const LATENCY: Duration = Duration::from_millis(200);
/// By then the first of all rate limits are over, seconds: one worker alone takes nine until it sends enough.
const FOUND: f64 = 11.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Answer { worker: usize, item: ItemIndex, passed: bool },
    Renew { worker: usize },
}

struct Worker {
    scheduler: Scheduler,
    scope: Arc<Scope>,
    is_drained: bool,
}

/// Workers, their board and their provider.
struct Fleet {
    start: Instant,
    now: Instant,
    workers: Vec<Worker>,
    table: Table,
    /// When the board is away, in seconds; it comes back without its table.
    away: Option<(f64, f64)>,
    events: BinaryHeap<Reverse<(Instant, Event)>>,
    level: f64,
    filled: Instant,
    passed: Vec<f64>,
    rejected: Vec<f64>,
}

impl Fleet {
    /// So many items for each worker.
    fn new(items: &[u64], limits: &[Limit]) -> Self {
        let now = Instant::now();
        let workers = items.iter().enumerate().map(|(number, items)| {
            let mut random = fastrand::Rng::with_seed(number as u64);
            let settings = Settings {
                max_workers: NonZeroUsize::new(2000).unwrap(),
                max_rate_limit_retries: 1000,
                control: Control::PaceAndConcurrency,
                limits: limits.to_vec(),
                ..Settings::default()
            };
            let mut scheduler = Scheduler::new(settings, Box::new(move || random.f64()), Arc::new(|| ()), now);
            scheduler.accept(0, 0, *items, now);
            let scope = Arc::clone(scheduler.scopes().next().unwrap());
            Worker { scheduler, scope, is_drained: *items == 0 }
        });
        let mut fleet = Self {
            start: now,
            now,
            workers: workers.collect(),
            table: Table::default(),
            away: None,
            events: BinaryHeap::new(),
            level: RATE * BURST,
            filled: now,
            passed: Vec::new(),
            rejected: Vec::new(),
        };
        for worker in 0..items.len() {
            fleet.renew(worker, &Demand::default());
        }
        fleet
    }

    fn elapsed(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    fn renew(&mut self, worker: usize, demand: &Demand) {
        let now = u64::try_from((self.now - self.start).as_millis()).unwrap();
        let scope = &self.workers[worker].scope;
        let elapsed = self.elapsed();
        let mut next = BEAT;
        match self.away {
            Some((from, to)) if (from..to).contains(&elapsed) => self.table = Table::default(),
            _ => {
                let share: Share = self.table.renew("s", &worker.to_string(), demand, now);
                scope.take(share, demand, SOON, self.now);
                next = if share.is_nothing() { SOON } else { BEAT };
            }
        }
        // No two beat as one.
        let next = next + Duration::from_millis(7 * worker as u64);
        self.events.push(Reverse((self.now + next, Event::Renew { worker })));
    }

    /// Whether the provider takes a request.
    fn takes(&mut self) -> bool {
        let passed = (self.now - std::mem::replace(&mut self.filled, self.now)).as_secs_f64();
        self.level = (self.level + passed * RATE).min(RATE * BURST);
        let takes = self.level >= 1.0;
        if takes {
            self.level -= 1.0;
        }
        takes
    }

    fn act(&mut self, worker: usize) {
        let now = self.now;
        self.workers[worker].scheduler.advance(now);
        while let Some(command) = self.workers[worker].scheduler.next_command() {
            match command {
                Command::Start { item, .. } => {
                    let passed = self.takes();
                    let at = self.elapsed();
                    if passed {
                        self.passed.push(at)
                    } else {
                        self.rejected.push(at)
                    }
                    self.events.push(Reverse((now + LATENCY, Event::Answer { worker, item, passed })));
                }
                Command::Drained => self.workers[worker].is_drained = true,
                _ => {}
            }
        }
    }

    /// Plays until all is done, or so many seconds are over.
    fn play(&mut self, longest: f64) {
        while self.elapsed() < longest && self.workers.iter().any(|worker| !worker.is_drained) {
            for worker in 0..self.workers.len() {
                self.act(worker);
            }
            let wakes = self.workers.iter().filter_map(|worker| worker.scheduler.wakes_at()).min();
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let Some(next) = [wakes, event].into_iter().flatten().min() else { return };
            self.now = self.now.max(next);
            while let Some(Reverse((at, event))) = self.events.peek().copied()
                && at <= self.now
            {
                self.events.pop();
                self.happen(event);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Renew { worker } => {
                let demand = self.workers[worker].scope.demand(now);
                self.renew(worker, &demand);
            }
            Event::Answer { worker, item, passed } => {
                let scheduler = &mut self.workers[worker].scheduler;
                let is_over = passed || {
                    let failure = Failure::RateLimit { at_least: Duration::ZERO, has_retry_after: false };
                    scheduler.failed(item, failure, Sign::Alive, 1, None, now) != Verdict::Retry
                };
                if is_over {
                    scheduler.record(item, ItemReport { success: passed, ..ItemReport::default() }, now);
                    scheduler.release(item, now);
                }
            }
        }
    }

    /// The share of requests that were refused from then on.
    fn rejected_after(&self, from: f64) -> f64 {
        let count = |times: &[f64]| times.iter().filter(|at| **at >= from).count() as f64;
        count(&self.rejected) / (count(&self.passed) + count(&self.rejected)).max(1.0)
    }

    /// The most that was let through or refused in any second.
    fn most_in_a_second(&self, from: f64) -> usize {
        let mut times: Vec<f64> = self.passed.iter().chain(&self.rejected).copied().filter(|at| *at >= from).collect();
        times.sort_by(f64::total_cmp);
        let last = |first: usize| times.partition_point(|at| *at < times[first] + 1.0);
        (0..times.len()).map(|first| last(first) - first).max().unwrap_or_default()
    }
}

#[test]
fn a_limit_that_nobody_knows_is_found_together() {
    for (items, name) in [([3000; 4], "even"), ([12_000, 0, 0, 0], "all at one"), ([6000, 5000, 900, 100], "uneven")] {
        let mut fleet = Fleet::new(&items, &[]);
        fleet.play(300.0);
        let ideal = (12_000.0 - RATE * BURST) / RATE;
        let (took, after) = (fleet.elapsed(), fleet.rejected_after(FOUND));
        println!("{name}: {took:.1} s of {ideal:.1} s, {} refused, {:.2} % later", fleet.rejected.len(), 100.0 * after);
        assert!(fleet.workers.iter().all(|worker| worker.is_drained), "{name}");
        assert!(after <= 0.005, "{name}: {after}");
        assert!(took <= 1.2 * ideal, "{name}: {took}");
    }
}

#[test]
fn a_board_that_is_away_costs_nothing() {
    for limits in [vec![], vec![Limit { measure: Measure::Requests, amount: RATE, per: SECOND }]] {
        let mut fleet = Fleet::new(&[3000; 4], &limits);
        fleet.away = Some((15.0, 25.0));
        fleet.play(300.0);
        let (took, after) = (fleet.elapsed(), fleet.rejected_after(FOUND));
        let most = fleet.most_in_a_second(14.0);
        println!("known {}: {took:.1} s, {:.2} % refused, {most} in a second", !limits.is_empty(), 100.0 * after);
        assert!(fleet.workers.iter().all(|worker| worker.is_drained));
        assert!(after <= 0.005 && took <= 1.2 * 58.0, "{after} {took}");
        assert!(most as f64 <= 1.25 * RATE, "{most}");
    }
}

#[test]
fn who_joins_does_not_bring_a_burst_of_its_own() {
    const BURST_OF_OURS: f64 = 0.5;
    fastrand::seed(11);
    for _ in 0..20 {
        let start = Instant::now();
        let mut table = Table::default();
        let count = fastrand::usize(2..8);
        let limit = Limit { measure: Measure::Requests, amount: RATE, per: SECOND };
        let joins: Vec<u64> = (0..count).map(|_| fastrand::u64(0..15_000)).collect();
        let mut members: Vec<Option<_>> = (0..count).map(|_| None).collect();
        let mut renewals = joins.clone();
        let mut sent: Vec<u64> = Vec::new();
        for at in 0..20_000u64 {
            let now = start + Duration::from_millis(at);
            for worker in 0..count {
                if at == renewals[worker] {
                    let is_first = members[worker].is_none();
                    let (scope, _) = members[worker].get_or_insert_with(|| {
                        let scope = Scope::default();
                        let wake = Arc::new(|| ());
                        let member = scope.join(wake, &[limit], Some(BURST_OF_OURS), Control::Fixed, now);
                        (scope, member)
                    });
                    let demand = if is_first { Demand::default() } else { scope.demand(now) };
                    let share = table.renew("s", &worker.to_string(), &demand, at);
                    scope.take(share, &demand, SOON, now);
                    renewals[worker] = at + if share.is_nothing() { 100 } else { 500 };
                }
                if let Some((scope, member)) = &members[worker] {
                    while scope.admit(*member, Estimate::default(), now).is_ok() {
                        sent.push(at);
                    }
                }
            }
        }
        // What all may start at once together, and what each of them begins with.
        let allowed = |passed: f64| RATE * passed + RATE * BURST_OF_OURS + count as f64 * (1.0 + RATE * 0.1);
        for window in [50, 500, 2000, 10_000] {
            for from in (0..20_000 - window).step_by(50) {
                let inside = sent.partition_point(|at| *at < from + window) - sent.partition_point(|at| *at < from);
                let most = allowed(window as f64 / 1000.0);
                assert!(inside as f64 <= most, "{inside} of {most} in {window} ms from {from} on, joined at {joins:?}");
            }
        }
        let used = sent.iter().filter(|at| **at >= 16_000).count() as f64 / (4.0 * RATE);
        assert!(used > 0.95, "{used}");
    }
}
