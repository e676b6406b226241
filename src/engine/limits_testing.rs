//! A provider that enforces limits, and a run against it, in simulated time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;
use super::commands::Limit as Whose;
use super::guard::{Price, Stop};
use super::measure::{Limit, Measure, ReportedLimit};
use super::outage::Sign;
use super::queue::Expected;
use super::scheduler::Scheduler;
use super::testing::SECOND;
use super::*;

pub const MINUTE: Duration = Duration::from_secs(60);
/// From us to the provider.
pub const WAY: Duration = Duration::from_millis(15);

/// What a provider allows, and how it behaves.
pub struct Provider {
    pub requests: Option<Bucket>,
    pub tokens: Option<Bucket>,
    pub per_minute: (f64, f64),
    /// Requests in work at the same time; beyond it is overloaded.
    pub capacity: Option<u32>,
    /// Requests in work at the same time; beyond it they queue.
    pub servers: Option<u32>,
    pub in_work: u32,
    pub latency: f64,
    pub headers: bool,
    pub retry_after: bool,
    pub random: fastrand::Rng,
    pub charged: f64,
}

impl Provider {
    pub fn new() -> Self {
        Self {
            requests: None,
            tokens: None,
            per_minute: (f64::INFINITY, f64::INFINITY),
            capacity: None,
            servers: None,
            in_work: 0,
            latency: 0.5,
            headers: false,
            retry_after: false,
            random: fastrand::Rng::with_seed(7),
            charged: 0.0,
        }
    }

    pub fn limited(requests: f64, tokens: f64, burst: f64, now: Instant) -> Self {
        Self {
            requests: Some(Bucket::new(requests, 60.0, burst, now)),
            tokens: Some(Bucket::new(tokens, 60.0, burst, now)),
            per_minute: (requests, tokens),
            ..Self::new()
        }
    }

    /// Changes what is allowed.
    pub fn set_requests(&mut self, requests: f64, burst: f64, now: Instant) {
        self.per_minute.0 = requests;
        self.requests.as_mut().unwrap().set_rate(requests, 60.0, burst, now);
    }

    /// Takes a request, or refuses it.
    pub fn arrive(&mut self, tokens: f64, now: Instant) -> Result<f64, Failure> {
        if let (Some(requests), Some(all)) = (&mut self.requests, &mut self.tokens) {
            if let Err(until) = requests.ready(1.0, now).and(all.ready(tokens, now)) {
                let has_retry_after = self.retry_after;
                let at_least = if has_retry_after { until - now } else { Duration::ZERO };
                return Err(Failure::RateLimit { at_least, has_retry_after });
            }
            requests.take(1.0);
            all.take(tokens);
        }
        if self.capacity.is_some_and(|capacity| self.in_work >= capacity) {
            return Err(Failure::Retryable { backoff: true, at_least: Duration::ZERO, overload: true });
        }
        self.in_work += 1;
        // Mostly near the mean, sometimes three times as long.
        let spread = 0.6 - 0.4 * self.random.f64().max(1e-3).ln();
        let queued = self.servers.map_or(1.0, |servers| (f64::from(self.in_work) / f64::from(servers)).max(1.0));
        Ok(self.latency * spread * queued)
    }

    pub fn reported(&mut self, now: Instant) -> Vec<ReportedLimit> {
        let (Some(requests), Some(tokens), true) = (&mut self.requests, &mut self.tokens, self.headers) else {
            return Vec::new();
        };
        [(Measure::Requests, requests, self.per_minute.0), (Measure::Tokens, tokens, self.per_minute.1)]
            .into_iter()
            .map(|(measure, bucket, limit)| ReportedLimit {
                measure,
                limit: Some(limit),
                // Counted from the limit, as providers do, though only a part of it may pass at once.
                remaining: Some(bucket.level(now).max(0.0).floor()),
                reset: Some((bucket.capacity() - bucket.level(now)) / bucket.per_second()),
                per: None,
            })
            .collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Arrive {
        item: ItemIndex,
    },
    Reply {
        item: ItemIndex,
        outcome: Result<(), Failure>,
    },
    /// The result is on disk.
    Written {
        item: ItemIndex,
    },
}

/// What was seen, in seconds since the start.
#[derive(Default)]
pub struct Log {
    pub starts: Vec<(f64, ItemIndex)>,
    pub passed: Vec<f64>,
    pub rejected: Vec<f64>,
    /// Tokens that the provider charged.
    pub tokens: Vec<(f64, f64)>,
    pub refusals: Vec<Rejection>,
    pub stopped: Option<(f64, Stop)>,
}

impl Log {
    pub fn count(times: &[f64], from: f64, to: f64) -> f64 {
        times.iter().filter(|at| **at >= from && **at < to).count() as f64
    }

    pub fn passed(&self, from: f64, to: f64) -> f64 {
        Self::count(&self.passed, from, to)
    }

    pub fn rejected(&self, from: f64, to: f64) -> f64 {
        Self::count(&self.rejected, from, to)
    }
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub scheduler: Scheduler,
    pub provider: Provider,
    pub events: BinaryHeap<Reverse<(Instant, u64)>>,
    pub what: Vec<Event>,
    pub reported: rustc_hash::FxHashMap<ItemIndex, Vec<ReportedLimit>>,
    pub log: Log,
    pub drained: bool,
    /// Input tokens as estimated and as they are, and output tokens, of an item.
    pub sizes: fn(ItemIndex) -> (f64, f64, f64),
    pub price: Option<Price>,
    pub most_output: Option<f64>,
    pub kind: Option<u32>,
    /// How long a result is written, seconds.
    pub writing: f64,
}

impl World {
    pub fn new(settings: Settings, provider: impl FnOnce(Instant) -> Provider) -> Self {
        let now = Instant::now();
        let mut random = fastrand::Rng::with_seed(42);
        let scheduler = Scheduler::new(settings, Box::new(move || random.f64()), Arc::new(|| ()), now);
        Self {
            start: now,
            now,
            scheduler,
            provider: provider(now),
            events: BinaryHeap::new(),
            what: Vec::new(),
            reported: rustc_hash::FxHashMap::default(),
            log: Log::default(),
            drained: false,
            sizes: |_| (100.0, 100.0, 100.0),
            price: None,
            most_output: None,
            kind: None,
            writing: 0.0,
        }
    }

    pub fn elapsed(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    pub fn push(&mut self, after: Duration, event: Event) {
        self.what.push(event);
        self.events.push(Reverse((self.now + after, self.what.len() as u64 - 1)));
    }

    /// Plays until then, or until the run is done.
    pub fn play_until(&mut self, seconds: f64) {
        let end = self.start + super::seconds(seconds);
        loop {
            self.scheduler.advance(self.now);
            let mut quiet = true;
            while let Some(command) = self.scheduler.next_command() {
                quiet = false;
                self.carry_out(command);
            }
            if !quiet {
                continue;
            }
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let Some(next) = [event, self.scheduler.wakes_at()].into_iter().flatten().min() else { return };
            if self.drained || next > end {
                self.now = if self.drained { self.now } else { end };
                return;
            }
            self.now = self.now.max(next);
            if event == Some(next) {
                let Some(Reverse((_, number))) = self.events.pop() else { return };
                self.happen(self.what[number as usize]);
            }
        }
    }

    pub fn carry_out(&mut self, command: Command) {
        match command {
            Command::Start { item, .. } => {
                self.log.starts.push((self.elapsed(), item));
                self.push(WAY, Event::Arrive { item });
            }
            Command::Estimate { items } => {
                let kind = match self.kind {
                    Some(kind) => kind,
                    None => *self.kind.insert(self.scheduler.add_kind(256.0, self.price)),
                };
                for item in items {
                    let (input, real, _) = (self.sizes)(item);
                    let expected = Expected::Estimate {
                        requests: 1.0,
                        input,
                        output: None,
                        most_input: Some(real.max(input)),
                        most_output: self.most_output,
                        kind,
                    };
                    self.scheduler.expect(item, expected);
                }
            }
            Command::AskCooldown { queue, has_retry_after, .. } => {
                let pause = if has_retry_after { Duration::ZERO } else { SECOND * 5 };
                self.scheduler.decide_cooldown(queue, pause, [], false, self.now);
            }
            Command::RejectFresh { items, rejection } => {
                self.log.refusals.extend(items.clone().map(|_| rejection));
                self.scheduler.record_rejected(items.end - items.start, "refused");
            }
            Command::Reject { item, rejection } => {
                self.log.refusals.push(rejection);
                self.end(item, ItemReport::default());
            }
            Command::TimedOut { item, limit, .. } => {
                if let Whose::Run(stop) = limit {
                    self.log.refusals.push(Rejection::Stopped(stop));
                } else {
                    self.log.refusals.push(Rejection::ItemDeadline);
                }
                self.end(item, ItemReport::default());
            }
            Command::Stopped { stop } => self.log.stopped = Some((self.elapsed(), stop)),
            Command::Drained => self.drained = true,
            _ => {}
        }
    }

    pub fn report(&self, item: ItemIndex) -> ItemReport {
        let (_, input, output) = (self.sizes)(item);
        let (input, output) = (input as u64, output as u64);
        let usage = Usage { input, output, total: input + output, ..Usage::default() };
        ItemReport { success: true, error: None, usage, reported: true }
    }

    pub fn end(&mut self, item: ItemIndex, report: ItemReport) {
        self.scheduler.record(item, report, self.now);
        self.scheduler.release(item, self.now);
    }

    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { item } => {
                let (_, input, output) = (self.sizes)(item);
                let outcome = self.provider.arrive(input + output, self.now);
                let reported = self.provider.reported(self.now);
                self.reported.insert(item, reported);
                match outcome {
                    Ok(latency) => {
                        self.log.tokens.push((self.elapsed(), input + output));
                        self.provider.charged += self.price.map_or(0.0, |p| input * p.input + output * p.output);
                        self.push(seconds(latency) + WAY, Event::Reply { item, outcome: Ok(()) });
                    }
                    Err(failure) => self.push(WAY, Event::Reply { item, outcome: Err(failure) }),
                }
            }
            Event::Written { item } => self.end(item, self.report(item)),
            Event::Reply { item, outcome } => {
                let reported = self.reported.remove(&item).unwrap_or_default();
                self.scheduler.observe(item, &reported, self.now);
                match outcome {
                    Ok(()) => {
                        self.provider.in_work -= 1;
                        self.log.passed.push(self.elapsed());
                        if self.writing > 0.0 {
                            self.scheduler.answered(item, &self.report(item), self.now);
                            self.push(seconds(self.writing), Event::Written { item });
                        } else {
                            self.end(item, self.report(item));
                        }
                    }
                    Err(failure) => {
                        self.log.rejected.push(self.elapsed());
                        let verdict = self.scheduler.failed(item, failure, Sign::Nothing, 1, None, self.now);
                        match verdict {
                            Verdict::Retry => {}
                            Verdict::Rejected(rejection) => {
                                self.log.refusals.push(rejection);
                                self.end(item, ItemReport::default());
                            }
                            _ => self.end(item, ItemReport::default()),
                        }
                    }
                }
            }
        }
    }
}

pub fn workers(count: usize) -> Settings {
    let max_rate_limit_retries = 1000;
    Settings { max_workers: NonZeroUsize::new(count).unwrap(), max_rate_limit_retries, ..Settings::default() }
}

pub fn per_minute(measure: Measure, amount: f64) -> Limit {
    Limit { measure, amount, per: MINUTE }
}

/// Answers from 20 to 1,000 tokens, prompts of 100 to 700, and estimates that are off by a quarter.
pub fn mixed(item: ItemIndex) -> (f64, f64, f64) {
    let mut random = fastrand::Rng::with_seed(item);
    let input = 100.0 + 600.0 * random.f64();
    (input.round(), (input * (0.75 + 0.5 * random.f64())).round(), (20.0 + 980.0 * random.f64().powi(3)).round())
}
