//! Runs against a simulated provider that enforces limits, in simulated time: minutes of traffic in milliseconds.
//!
//! The scheduler is a function of the time, so nothing here waits: events are played in order.

// The figures are what these tests are run by hand for.
#![allow(clippy::print_stdout)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;
use super::commands::Limit as Whose;
use super::guard::{Caps, Price, Stop};
use super::measure::{Limit, Measure, ReportedLimit};
use super::outage::Sign;
use super::queue::Expected;
use super::scheduler::Scheduler;
use super::scope::{Control, Scope};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// From us to the provider.
const WAY: Duration = Duration::from_millis(15);

/// What a provider allows, and how it behaves.
struct Provider {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    per_minute: (f64, f64),
    /// Requests in work at the same time; beyond it is overloaded.
    capacity: Option<u32>,
    /// Requests in work at the same time; beyond it they queue.
    servers: Option<u32>,
    in_work: u32,
    latency: f64,
    headers: bool,
    retry_after: bool,
    random: fastrand::Rng,
    charged: f64,
}

impl Provider {
    fn new() -> Self {
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

    fn limited(requests: f64, tokens: f64, burst: f64, now: Instant) -> Self {
        Self {
            requests: Some(Bucket::new(requests, 60.0, burst, now)),
            tokens: Some(Bucket::new(tokens, 60.0, burst, now)),
            per_minute: (requests, tokens),
            ..Self::new()
        }
    }

    /// Changes what is allowed.
    fn set_requests(&mut self, requests: f64, burst: f64, now: Instant) {
        self.per_minute.0 = requests;
        self.requests.as_mut().unwrap().set_rate(requests, 60.0, burst, now);
    }

    /// Takes a request, or refuses it.
    fn arrive(&mut self, tokens: f64, now: Instant) -> Result<f64, Failure> {
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

    fn told(&mut self, now: Instant) -> Vec<ReportedLimit> {
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
enum Event {
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
struct Log {
    starts: Vec<(f64, ItemIndex)>,
    passed: Vec<f64>,
    refused: Vec<f64>,
    /// Tokens that the provider charged.
    tokens: Vec<(f64, f64)>,
    refusals: Vec<Rejection>,
    stopped: Option<(f64, Stop)>,
}

impl Log {
    fn count(times: &[f64], from: f64, to: f64) -> f64 {
        times.iter().filter(|at| **at >= from && **at < to).count() as f64
    }

    fn passed(&self, from: f64, to: f64) -> f64 {
        Self::count(&self.passed, from, to)
    }

    fn refused(&self, from: f64, to: f64) -> f64 {
        Self::count(&self.refused, from, to)
    }
}

struct World {
    start: Instant,
    now: Instant,
    scheduler: Scheduler,
    provider: Provider,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    what: Vec<Event>,
    told: rustc_hash::FxHashMap<ItemIndex, Vec<ReportedLimit>>,
    log: Log,
    drained: bool,
    /// Input tokens as estimated and as they are, and output tokens, of an item.
    sizes: fn(ItemIndex) -> (f64, f64, f64),
    price: Option<Price>,
    most_output: Option<f64>,
    kind: Option<u32>,
    /// How long a result is written, seconds.
    writing: f64,
}

impl World {
    fn new(settings: Settings, provider: impl FnOnce(Instant) -> Provider) -> Self {
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
            told: rustc_hash::FxHashMap::default(),
            log: Log::default(),
            drained: false,
            sizes: |_| (100.0, 100.0, 100.0),
            price: None,
            most_output: None,
            kind: None,
            writing: 0.0,
        }
    }

    fn elapsed(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.what.push(event);
        self.events.push(Reverse((self.now + after, self.what.len() as u64 - 1)));
    }

    /// Plays until then, or until the run is done.
    fn play_until(&mut self, seconds: f64) {
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

    fn carry_out(&mut self, command: Command) {
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

    fn report(&self, item: ItemIndex) -> ItemReport {
        let (_, input, output) = (self.sizes)(item);
        let (input, output) = (input as u64, output as u64);
        let usage = Usage { input, output, total: input + output, ..Usage::default() };
        ItemReport { success: true, error: None, usage, reported: true }
    }

    fn end(&mut self, item: ItemIndex, report: ItemReport) {
        self.scheduler.record(item, report, self.now);
        self.scheduler.release(item, self.now);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { item } => {
                let (_, input, output) = (self.sizes)(item);
                let outcome = self.provider.arrive(input + output, self.now);
                let told = self.provider.told(self.now);
                self.told.insert(item, told);
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
                let told = self.told.remove(&item).unwrap_or_default();
                self.scheduler.observe(item, &told, self.now);
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
                        self.log.refused.push(self.elapsed());
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

fn workers(count: usize) -> Settings {
    let max_rate_limit_retries = 1000;
    Settings { max_workers: NonZeroUsize::new(count).unwrap(), max_rate_limit_retries, ..Settings::default() }
}

fn per_minute(measure: Measure, amount: f64) -> Limit {
    Limit { measure, amount, per: MINUTE }
}

/// Answers from 20 to 1,000 tokens, prompts of 100 to 700, and estimates that are off by a quarter.
fn mixed(item: ItemIndex) -> (f64, f64, f64) {
    let mut random = fastrand::Rng::with_seed(item);
    let input = 100.0 + 600.0 * random.f64();
    (input.round(), (input * (0.75 + 0.5 * random.f64())).round(), (20.0 + 980.0 * random.f64().powi(3)).round())
}

#[test]
fn configured_limits_are_used_to_the_last_and_never_exceeded() {
    for (requests, tokens, name) in [(600.0, 1e9, "requests"), (1e6, 300_000.0, "tokens"), (600.0, 390_000.0, "both")] {
        let limits = vec![per_minute(Measure::Requests, requests), per_minute(Measure::Tokens, tokens)];
        let settings = Settings { limits, ..workers(200) };
        let mut world = World::new(settings, |now| Provider::limited(requests, tokens, 30.0, now));
        world.sizes = mixed;
        world.scheduler.accept(0, 0, 100_000, Instant::now());
        world.play_until(630.0);
        let log = &world.log;
        let used = log.passed(30.0, 630.0) / (10.0 * requests);
        let of_tokens: f64 =
            log.tokens.iter().filter(|(at, _)| (30.0..630.0).contains(at)).map(|(_, tokens)| tokens).sum();
        let share = used.max(of_tokens / (10.0 * tokens));
        println!("{name}: {:.1}% used, {} refused", 100.0 * share, log.refused.len());
        assert_eq!(log.refused.len(), 0, "{name}");
        assert!(share >= 0.97, "{name}: {share}");
    }
}

#[test]
fn limits_are_found_from_headers() {
    let settings = Settings { control: Control::PaceAndConcurrency, ..workers(2000) };
    let mut world = World::new(settings, |now| Provider {
        headers: true,
        retry_after: true,
        ..Provider::limited(3000.0, 1_500_000.0, 60.0, now)
    });
    world.sizes = mixed;
    world.scheduler.accept(0, 0, 100_000, Instant::now());
    world.play_until(660.0);
    let log = &world.log;
    let of_tokens: f64 = log.tokens.iter().filter(|(at, _)| (60.0..660.0).contains(at)).map(|(_, t)| t).sum();
    let share = (log.passed(60.0, 660.0) / 30_000.0).max(of_tokens / 15_000_000.0);
    let refused = log.refused.len() as f64 / log.starts.len() as f64;
    println!("headers: {:.1}% used after a minute, {:.3}% refused", 100.0 * share, 100.0 * refused);
    assert!(share >= 0.9 && refused < 0.01, "{share} {refused}");
}

#[test]
fn limits_are_found_by_adapting() {
    for (requests, burst, retry_after) in
        [(3000.0, 60.0, false), (3000.0, 5.0, false), (3000.0, 5.0, true), (600.0, 60.0, false), (60_000.0, 5.0, true)]
    {
        let settings = Settings { control: Control::PaceAndConcurrency, ..workers(2000) };
        let mut world =
            World::new(settings, |now| Provider { retry_after, ..Provider::limited(requests, 1e12, burst, now) });
        world.scheduler.accept(0, 0, 1_000_000, Instant::now());
        world.play_until(660.0);
        let log = &world.log;
        let share = log.passed(60.0, 660.0) / (10.0 * requests);
        let after = log.refused(60.0, 660.0) / log.passed(60.0, 660.0);
        let whole = log.refused.len() as f64 / log.starts.len() as f64;
        let scope = world.scheduler.scopes().next().unwrap();
        println!(
            "adapting to {requests} rpm, burst {burst} s, retry-after {retry_after}: {:.1}% used after a minute, \
             {:.3}% refused after it, {:.3}% overall; bounds {:?}",
            100.0 * share,
            100.0 * after,
            100.0 * whole,
            scope.bounds()
        );
        assert!(share >= 0.9, "{requests} {burst} {retry_after}: {share}");
        assert!(after < 0.01, "{requests} {burst} {retry_after}: {after}");
    }
}

#[test]
fn the_time_in_which_results_are_written_is_none_of_the_providers() {
    let passed = |writing: f64| {
        let settings = Settings { control: Control::PaceAndConcurrency, ..workers(2000) };
        let provider = |_| Provider { latency: 0.005, servers: Some(300), ..Provider::new() };
        let mut world = World { writing, ..World::new(settings, provider) };
        world.scheduler.accept(0, 0, 1_000_000, Instant::now());
        world.play_until(5.0);
        println!("written in {writing} s each: {:?}", world.scheduler.scopes().next().unwrap().bounds());
        world.log.passed(0.0, 5.0)
    };
    let (without, with) = (passed(0.0), passed(0.02));
    println!("{without} without a store, {with} with one");
    assert!(with > 0.8 * without, "{with} of {without}");
}

#[test]
fn twenty_who_are_told_to_wait_come_back_late_and_apart() {
    for control in [Control::Fixed, Control::Pace, Control::PaceAndConcurrency] {
        let mut world = World::new(Settings { control, ..workers(20) }, |now| {
            let mut provider = Provider { retry_after: true, ..Provider::limited(2400.0, 1e9, 60.0, now) };
            // Empty, and nothing comes for 30 s.
            provider.requests.as_mut().unwrap().set_level(-1199.0, now);
            provider
        });
        world.scheduler.accept(0, 0, 20, Instant::now());
        world.play_until(200.0);
        let first = world.log.refused.iter().copied().fold(f64::INFINITY, f64::min);
        let mut again: Vec<f64> = world.log.starts.iter().map(|(at, _)| *at).filter(|at| *at > 1.0).collect();
        again.sort_by(f64::total_cmp);
        assert!(again.len() >= 20 && again[0] >= first + 29.9, "{again:?}");
        assert!(again.windows(2).all(|pair| pair[1] > pair[0]), "{again:?}");
        assert_eq!(world.log.passed.len(), 20);
    }
}

/// When ten seconds from this on average at least this share of a level.
fn reached(log: &Log, from: f64, level: f64, share: f64) -> f64 {
    (0..600)
        .map(|step| from + f64::from(step) * 0.5)
        .find(|at| log.passed(*at, at + 5.0) / 5.0 >= share * level)
        .map_or(f64::INFINITY, |at| at - from)
}

#[test]
fn a_rate_that_is_halved_and_doubled_is_followed() {
    let settings = Settings { control: Control::PaceAndConcurrency, ..workers(2000) };
    let mut world = World::new(settings, |now| Provider::limited(6000.0, 1e12, 2.0, now));
    world.scheduler.accept(0, 0, 1_000_000, Instant::now());
    world.play_until(120.0);
    let now = world.now;
    world.provider.set_requests(3000.0, 2.0, now);
    world.play_until(240.0);
    let now = world.now;
    world.provider.set_requests(6000.0, 2.0, now);
    world.play_until(360.0);
    let log = &world.log;
    let storm = log.refused(120.0, 140.0) / (log.passed(120.0, 140.0) + log.refused(120.0, 140.0));
    let later = log.refused(140.0, 240.0) / log.passed(140.0, 240.0);
    let down = log.passed(140.0, 240.0) / 100.0 / 50.0;
    let up = reached(log, 240.0, 100.0, 0.9);
    println!(
        "halved: {:.1}% refused in 20 s, then {:.2}% at {:.1}% of the rate; doubled: reached in {up} s",
        100.0 * storm,
        100.0 * later,
        100.0 * down
    );
    assert!(storm < 0.08 && later < 0.01 && down > 0.9 && up <= 20.0);
}

#[test]
fn a_capacity_that_is_halved_and_doubled_is_followed() {
    let settings = Settings { control: Control::PaceAndConcurrency, max_attempts: 100, ..workers(2000) };
    let mut world = World::new(settings, |_| Provider { capacity: Some(200), ..Provider::new() });
    world.scheduler.accept(0, 0, 1_000_000, Instant::now());
    world.play_until(120.0);
    // 200 in work at a mean of half a second.
    let rate = world.log.passed(60.0, 120.0) / 60.0;
    world.provider.capacity = Some(100);
    world.play_until(240.0);
    world.provider.capacity = Some(200);
    world.play_until(360.0);
    let log = &world.log;
    let before = log.refused(60.0, 120.0) / log.passed(60.0, 120.0);
    let storm = log.refused(120.0, 140.0) / (log.passed(120.0, 140.0) + log.refused(120.0, 140.0));
    let later = log.refused(140.0, 240.0) / log.passed(140.0, 240.0);
    let down = log.passed(140.0, 240.0) / 100.0;
    let up = reached(log, 240.0, rate, 0.9);
    println!(
        "capacity 200: {rate:.0}/s, {:.2}% refused; halved: {:.1}% refused in 20 s, then {:.2}% at {down:.0}/s; \
         doubled: reached in {up} s",
        100.0 * before,
        100.0 * storm,
        100.0 * later
    );
    assert!(before < 0.01 && storm < 0.08 && later < 0.01 && down > 0.45 * rate && up <= 20.0);
}

#[test]
fn a_queueing_provider_is_filled_but_not_flooded() {
    let settings = Settings { control: Control::PaceAndConcurrency, ..workers(5000) };
    let mut world = World::new(settings, |_| Provider { servers: Some(50), ..Provider::new() });
    world.scheduler.accept(0, 0, 1_000_000, Instant::now());
    world.play_until(300.0);
    let rate = world.log.passed(60.0, 300.0) / 240.0;
    let window = world.scheduler.scopes().next().unwrap().bounds().unwrap().0;
    println!("50 servers: {rate:.0}/s of 100/s, window {window:.0}");
    assert!(rate > 90.0 && window < 150.0);
}

#[test]
fn answers_that_get_longer_are_no_queue() {
    let settings = Settings { control: Control::PaceAndConcurrency, ..workers(100) };
    let mut world = World::new(settings, |_| Provider::new());
    world.scheduler.accept(0, 0, 1_000_000, Instant::now());
    world.play_until(60.0);
    world.provider.latency = 2.5;
    world.play_until(300.0);
    let rate = world.log.passed(150.0, 300.0) / 150.0;
    println!("five times the latency: {rate:.0}/s of 40/s");
    assert!(rate > 34.0);
}

#[test]
fn a_cost_cap_holds_with_thousands_in_flight() {
    let price = Price { input: 1e-6, cached: 1e-6, cache_write: 1e-6, cache_write_hour: 1e-6, output: 4e-6 };
    let caps = Caps { cost: Some(1.0), ..Caps::default() };
    let mut world = World::new(Settings { caps, ..workers(5000) }, |_| Provider::new());
    world.sizes = mixed;
    world.price = Some(price);
    world.most_output = Some(1000.0);
    world.scheduler.accept(0, 0, 20_000, Instant::now());
    world.play_until(600.0);
    assert!(world.drained);
    assert_eq!(world.log.stopped.map(|(_, stop)| stop), Some(Stop::Budget));
    println!("cap 1.00: {:.4} charged", world.provider.charged);
    assert!(world.provider.charged <= 1.0 && world.provider.charged > 0.99);
    assert_eq!(world.log.passed.len() + world.log.refusals.len(), 20_000, "every item has its end");
}

#[test]
fn a_deadline_of_the_run_ends_everything() {
    for cancel in [false, true] {
        let settings = Settings { run_timeout: Some(SECOND * 10), cancel_on_stop: cancel, ..workers(50) };
        let mut world = World::new(settings, |_| Provider { latency: 3.0, ..Provider::new() });
        world.scheduler.accept(0, 0, 10_000, Instant::now());
        world.play_until(100.0);
        assert!(world.drained);
        let (at, stop) = world.log.stopped.unwrap();
        assert!((at - 10.0).abs() < 1e-6 && stop == Stop::Deadline);
        let last = world.log.starts.last().unwrap().0;
        assert!(last <= 10.0);
        let ended = world.elapsed();
        assert!(if cancel { ended < 10.1 } else { ended > 10.1 }, "{ended}");
        let stats = world.scheduler.stats();
        assert_eq!(stats.processed, 10_000);
    }
}

#[test]
fn a_deadline_of_an_item_counts_its_waits() {
    // QueueFull again and again: 30 s are over in the middle of the waits.
    let settings = Settings { item_timeout: Some(SECOND * 30), max_attempts: 100, ..workers(4) };
    let mut world = World::new(settings, |_| Provider { capacity: Some(0), ..Provider::new() });
    world.scheduler.accept(0, 0, 8, Instant::now());
    world.play_until(1000.0);
    assert!(world.drained);
    assert_eq!(world.log.refusals, vec![Rejection::ItemDeadline; 8]);
    assert!(world.elapsed() < 61.0);
    // In the middle of an attempt.
    let settings = Settings { item_timeout: Some(SECOND * 30), attempt_timeout: None, ..workers(4) };
    let mut world = World::new(settings, |_| Provider { latency: 1000.0, ..Provider::new() });
    world.scheduler.accept(0, 0, 4, Instant::now());
    world.play_until(1000.0);
    assert_eq!(world.log.refusals, vec![Rejection::ItemDeadline; 4]);
    assert!((world.elapsed() - 30.0).abs() < 1e-6);
}

#[test]
fn an_abort_refuses_what_waits_and_lets_the_rest_end() {
    let mut world = World::new(workers(10), |_| Provider::new());
    world.scheduler.accept(0, 0, 100, Instant::now());
    world.play_until(0.1);
    world.scheduler.stop(Stop::Aborted, false, world.now);
    world.play_until(100.0);
    assert!(world.drained);
    assert_eq!(world.log.refusals, vec![Rejection::Stopped(Stop::Aborted); 90]);
    assert_eq!(world.log.passed.len(), 10);
    // Whoever comes too late is refused too.
    world.drained = false;
    world.scheduler.accept(0, 0, 3, Instant::now());
    world.play_until(101.0);
    assert_eq!(world.log.refusals.len(), 93);
}

#[test]
fn a_queue_that_waits_does_not_hold_others_back() {
    let limits = vec![per_minute(Measure::Tokens, 6000.0)];
    let mut world = World::new(workers(10), |_| Provider::new());
    let now = world.now;
    let slow: Arc<Scope> = Arc::default();
    slow.join(Arc::new(|| ()), &limits, None, Control::Fixed, now);
    let queue = world.scheduler.add_queue(slow, now);
    world.scheduler.accept(queue, 0, 100, Instant::now());
    world.scheduler.accept(0, 0, 100, Instant::now());
    world.play_until(20.0);
    let free = world.log.starts.iter().filter(|(_, item)| *item >= 100).count();
    assert_eq!(free, 100);
    assert!((5..=20).contains(&(world.log.starts.len() - free)), "{}", world.log.starts.len() - free);
}

#[test]
fn a_run_that_waits_for_something_else_does_not_hold_up_others_of_its_scope() {
    let settings = Settings { limits: vec![per_minute(Measure::Tokens, 6000.0)], ..workers(10) };
    let mut world = World::new(settings, |_| Provider::new());
    let now = world.now;
    let shared: Arc<Scope> = Arc::default();
    let queue = world.scheduler.add_queue(Arc::clone(&shared), now);
    let other = shared.join(Arc::new(|| ()), &[], None, Control::Fixed, now);
    // It takes what there is, and stands in line for more.
    world.scheduler.accept(queue, 0, 50, Instant::now());
    world.play_until(0.0);
    assert_eq!(shared.admit(other, measure::Estimate::default(), now).unwrap_err().cause, scope::Cause::Turn);
    // Now somebody goes first whose estimate is not known yet.
    world.scheduler.accept(queue, 9, 1, Instant::now());
    world.scheduler.advance(now + SECOND);
    assert!(shared.admit(other, measure::Estimate::default(), now + MINUTE).is_ok());
}

#[test]
fn an_item_too_large_for_its_limit_fails_alone() {
    let limits = vec![per_minute(Measure::InputTokens, 1000.0)];
    let mut world = World::new(Settings { limits, ..workers(10) }, |_| Provider::new());
    world.sizes = |item| if item == 1 { (5000.0, 5000.0, 1.0) } else { (10.0, 10.0, 1.0) };
    world.scheduler.accept(0, 0, 5, Instant::now());
    world.play_until(100.0);
    assert_eq!(world.log.passed.len(), 4);
    assert!(matches!(world.log.refusals[..], [Rejection::TooLarge(_)]));
}

#[test]
fn a_ramp_lets_more_and_more_at_once() {
    let ramp = Some(Ramp { initial: 2, step: 3, every: SECOND });
    let mut world = World::new(Settings { ramp, ..workers(9) }, |_| Provider { latency: 1000.0, ..Provider::new() });
    world.scheduler.accept(0, 0, 100, Instant::now());
    world.play_until(50.0);
    let starts: Vec<f64> = world.log.starts.iter().map(|(at, _)| *at).collect();
    assert_eq!(starts, [0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0]);
}

#[test]
fn higher_priority_goes_first() {
    let mut world = World::new(workers(1), |_| Provider::new());
    world.scheduler.accept(0, 0, 3, Instant::now());
    world.scheduler.accept(0, 7, 2, Instant::now());
    world.play_until(100.0);
    let order: Vec<_> = world.log.starts.iter().map(|(_, item)| *item).collect();
    assert_eq!(order, [3, 4, 0, 1, 2]);
}
