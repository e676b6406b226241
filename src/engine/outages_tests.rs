//! Outages in simulated time: providers that go away and come back, and those that only seem to.

// The figures are what these tests are run by hand for.
#![allow(clippy::print_stdout)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::guard::Stop;
use super::outage::Sign;
use super::scheduler::Scheduler;
use super::scope::{Control, Scope};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: f64 = 0.2;

/// How a request ends: after so many seconds, with an answer or with a failure of this kind.
type Reply = (f64, Outcome);
type Outcome = Option<(Failure, Sign)>;
/// What a server does with a request: run, item, when it comes (seconds), a random number.
type Server = Box<dyn FnMut(usize, ItemIndex, f64, f64) -> Reply>;

const FAILED: Failure = Failure::Retryable { backoff: true, at_least: Duration::ZERO, overload: false };
const OVERLOADED: Failure = Failure::Retryable { backoff: true, at_least: Duration::ZERO, overload: true };

fn ok() -> Reply {
    (LATENCY, None)
}

fn away() -> Reply {
    (0.001, Some((FAILED, Sign::Away)))
}

/// A server that is away between two instants; what is on when it goes is lost.
fn between(from: f64, to: f64, failure: Failure, sign: Sign) -> Server {
    Box::new(move |_, _, at, _| match at {
        at if at < from && at + LATENCY > from => (from - at, Some((failure, sign))),
        at if at >= from && at < to => (0.001, Some((failure, sign))),
        _ => ok(),
    })
}

#[derive(Default)]
struct Seen {
    starts: Vec<(f64, ItemIndex)>,
    passed: Vec<(f64, ItemIndex)>,
    failed: Vec<(f64, ItemIndex)>,
    refused: Vec<Rejection>,
    outages: Vec<(f64, f64)>,
    ended: Vec<f64>,
    standstills: Vec<(f64, f64)>,
    stopped: Option<(f64, Stop)>,
    drained: bool,
}

struct World {
    start: Instant,
    now: Instant,
    runs: Vec<(Scheduler, Seen)>,
    server: Server,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    what: Vec<(usize, ItemIndex, Outcome)>,
    random: fastrand::Rng,
}

impl World {
    /// Runs that share a scope.
    fn new(runs: Vec<(Settings, u64)>, server: Server) -> Self {
        let now = Instant::now();
        let scope: Arc<Scope> = Arc::default();
        let runs = runs.into_iter().map(|(settings, items)| {
            let mut random = fastrand::Rng::with_seed(42);
            let mut scheduler = Scheduler::new(settings, Box::new(move || random.f64()), Arc::new(|| ()), now);
            let queue = scheduler.add_queue(Arc::clone(&scope), now);
            scheduler.accept(queue, 0, items, now);
            (scheduler, Seen::default())
        });
        let runs = runs.collect();
        let random = fastrand::Rng::with_seed(5);
        Self { start: now, now, runs, server, events: BinaryHeap::new(), what: Vec::new(), random }
    }

    fn one(settings: Settings, items: u64, server: Server) -> Self {
        Self::new(vec![(settings, items)], server)
    }

    fn at(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    fn seen(&self) -> &Seen {
        &self.runs[0].1
    }

    /// Plays until all runs are done, or until then.
    fn play(&mut self, until: f64) {
        let end = self.start + seconds(until);
        loop {
            let mut quiet = true;
            for run in 0..self.runs.len() {
                self.runs[run].0.advance(self.now);
                while let Some(command) = self.runs[run].0.next_command() {
                    quiet = false;
                    self.carry_out(run, command);
                }
            }
            if !quiet {
                continue;
            }
            let event = self.events.peek().map(|Reverse((at, _))| *at);
            let due = self.runs.iter().filter_map(|(scheduler, _)| scheduler.wakes_at()).min();
            let Some(next) = [event, due].into_iter().flatten().min() else {
                self.now = if self.runs.iter().all(|(_, seen)| seen.drained) { self.now } else { end };
                return;
            };
            if next > end || self.runs.iter().all(|(_, seen)| seen.drained) {
                self.now = self.now.max(end.min(next));
                return;
            }
            assert!(next > self.now || event == Some(next), "it wants to be asked again at once, for ever");
            self.now = self.now.max(next);
            if event == Some(next) {
                let Some(Reverse((_, number))) = self.events.pop() else { return };
                let (run, item, outcome) = self.what[number as usize];
                self.end(run, item, outcome);
            }
        }
    }

    fn carry_out(&mut self, run: usize, command: Command) {
        let at = self.at();
        let (scheduler, seen) = &mut self.runs[run];
        match command {
            Command::Start { item, .. } => {
                seen.starts.push((at, item));
                let (takes, outcome) = (self.server)(run, item, at, self.random.f64());
                self.what.push((run, item, outcome));
                self.events.push(Reverse((self.now + seconds(takes), self.what.len() as u64 - 1)));
            }
            Command::RejectFresh { items, rejection } => {
                seen.refused.extend(items.clone().map(|_| rejection));
                scheduler.record_rejected(items.end - items.start, "refused");
            }
            Command::Reject { item, rejection } => {
                seen.refused.push(rejection);
                finish(scheduler, item, false, self.now);
            }
            Command::GiveUp { item } => {
                seen.failed.push((at, item));
                finish(scheduler, item, false, self.now);
            }
            Command::OutageBegan { since, .. } => seen.outages.push((at - since.as_secs_f64(), at)),
            Command::OutageEnded { .. } => seen.ended.push(at),
            Command::Standstill { left, .. } => {
                seen.standstills.push((at, left.unwrap_or_default().as_secs_f64()));
            }
            Command::Stopped { stop } => seen.stopped = Some((at, stop)),
            Command::AskCooldown { queue, .. } => {
                scheduler.decide_cooldown(queue, SECOND, [], false, self.now);
            }
            Command::Drained => seen.drained = true,
            _ => {}
        }
    }

    fn end(&mut self, run: usize, item: ItemIndex, outcome: Outcome) {
        let at = self.at();
        let (scheduler, seen) = &mut self.runs[run];
        match outcome {
            None => {
                seen.passed.push((at, item));
                finish(scheduler, item, true, self.now);
            }
            Some((failure, sign)) => match scheduler.failed(item, failure, sign, 1, None, self.now) {
                Verdict::Retry => {}
                Verdict::GiveUp => {
                    seen.failed.push((at, item));
                    finish(scheduler, item, false, self.now);
                }
                Verdict::Rejected(rejection) => {
                    seen.refused.push(rejection);
                    finish(scheduler, item, false, self.now);
                }
            },
        }
    }
}

fn finish(scheduler: &mut Scheduler, item: ItemIndex, success: bool, now: Instant) {
    scheduler.record(item, ItemReport { success, ..ItemReport::default() }, now);
    scheduler.release(item, now);
}

fn workers(count: usize, control: Control) -> Settings {
    Settings { max_workers: NonZeroUsize::new(count).unwrap(), control, ..Settings::default() }
}

fn count(times: &[(f64, ItemIndex)], from: f64, to: f64) -> f64 {
    times.iter().filter(|(at, _)| *at >= from && *at < to).count() as f64
}

#[test]
fn an_outage_costs_no_item_and_ends_at_full_rate() {
    for (control, concurrency) in [(Control::PaceAndConcurrency, 2000), (Control::Fixed, 100), (Control::Fixed, 3)] {
        for (failure, sign) in [(FAILED, Sign::Unreachable), (FAILED, Sign::Away), (OVERLOADED, Sign::Away)] {
            for lasts in [2.0, 5.0, 60.0] {
                let (from, to) = (5.0, 5.0 + lasts);
                let server = between(from, to, failure, sign);
                let mut world = World::one(workers(concurrency, control), 1_000_000, server);
                world.play(to + 10.0);
                let seen = world.seen();
                let before = count(&seen.passed, from - 1.0, from);
                // Of what started afterwards: the very first are the last probe, and those after it.
                let after = count(&seen.passed, to + 2.0, to + 3.0);
                let probes = count(&seen.starts, from + 0.1, to);
                println!("{control:?} {concurrency} {sign:?} {lasts} s: {before}/s, then {after}/s; {probes} probes");
                assert!(seen.failed.is_empty() && seen.refused.is_empty());
                assert_eq!((seen.outages.len(), seen.ended.len()), (1, 1), "one event");
                assert!(after >= 0.95 * before, "{after} of {before}");
                assert!(probes <= (lasts / 60.0 * 50.0).max(1.0).ceil(), "{probes}");
            }
        }
    }
}

#[test]
fn an_only_attempt_is_not_lost_either() {
    let settings = Settings { max_attempts: 1, ..workers(100, Control::Fixed) };
    let mut world = World::one(settings, 5000, between(2.0, 6.0, FAILED, Sign::Away));
    world.play(100.0);
    assert!(world.seen().drained && world.seen().passed.len() == 5000);
}

#[test]
fn one_bad_item_fails_after_its_attempts() {
    for concurrency in [1, 2, 50] {
        let mut world = World::one(
            workers(concurrency, Control::Fixed),
            500,
            Box::new(|_, item, _, _| if item == 20 { away() } else { ok() }),
        );
        world.play(1000.0);
        let seen = world.seen();
        assert!(seen.drained && seen.outages.is_empty());
        assert_eq!((seen.passed.len(), seen.failed.len()), (499, 1), "{concurrency} at once");
        assert_eq!(seen.starts.iter().filter(|(_, item)| *item == 20).count(), 3, "max_attempts");
    }
}

#[test]
fn bad_items_at_the_end_fail_after_their_attempts() {
    // Those that failed among others before tell only of themselves.
    let server: Server = Box::new(|_, item, _, _| if item % 10 == 9 { away() } else { ok() });
    let mut world = World::one(workers(10, Control::Fixed), 100, server);
    world.play(1000.0);
    let seen = world.seen();
    assert!(seen.drained && seen.outages.is_empty());
    assert_eq!((seen.passed.len(), seen.failed.len()), (90, 10));
}

#[test]
fn one_dead_endpoint_of_several_is_no_outage() {
    for concurrency in [1, 4, 100] {
        for part in [0.33, 0.5] {
            let server: Server = Box::new(move |_, _, _, random| if random < part { away() } else { ok() });
            let settings = Settings { max_attempts: 12, ..workers(concurrency, Control::Fixed) };
            let mut world = World::one(settings, 5000, server);
            world.play(5000.0);
            let seen = world.seen();
            println!("{concurrency} at once, {part} dead: {} outages in {:.0} s", seen.outages.len(), world.at());
            // Half of the requests may fail twenty times in a row by chance; a pause of half a second is all.
            assert!(seen.drained && seen.outages.len() <= if part < 0.4 { 0 } else { 10 }, "{}", seen.outages.len());
            assert!(seen.passed.len() >= 4990);
        }
    }
}

#[test]
fn a_single_item_or_a_small_run_against_nothing_ends_as_quickly_as_ever() {
    for items in [1, 2, 3, 10] {
        for sign in [Sign::Away, Sign::Unreachable] {
            let server: Server = Box::new(move |_, _, _, _| (0.001, Some((FAILED, sign))));
            let mut world = World::one(workers(5, Control::Fixed), items, server);
            world.play(100.0);
            let seen = world.seen();
            assert!(seen.drained && seen.outages.is_empty());
            assert_eq!((seen.failed.len() as u64, seen.starts.len() as u64), (items, 3 * items));
            assert!(world.at() < 10.0, "{}", world.at());
        }
    }
}

#[test]
fn a_large_run_against_nothing_ends_within_a_minute() {
    for concurrency in [1, 100] {
        let server: Server = Box::new(|_, _, _, _| (0.001, Some((FAILED, Sign::Unreachable))));
        let mut world = World::one(workers(concurrency, Control::Fixed), 20_000, server);
        world.play(1000.0);
        let seen = world.seen();
        let (at, stop) = seen.stopped.unwrap();
        assert!(seen.drained && stop == Stop::Outage && (at - 60.0).abs() < 0.1, "{at}");
        assert!(seen.outages[0].1 < 1.0, "it is said soon");
        assert_eq!((seen.failed.len(), seen.refused.len()), (0, 20_000));
        assert!(seen.starts.len() < 200, "{}", seen.starts.len());
    }
}

#[test]
fn patience_ends_and_what_waits_is_refused() {
    let outage_patience = Some(SECOND * 30);
    for (server, sends) in
        [(between(2.0, 1e9, FAILED, Sign::Unreachable), 200), (between(2.0, 1e9, OVERLOADED, Sign::Away), 200)]
    {
        let settings = Settings { outage_patience, ..workers(50, Control::Fixed) };
        let mut world = World::one(settings, 2000, server);
        world.play(1000.0);
        let seen = world.seen();
        let (at, stop) = seen.stopped.unwrap();
        assert!(seen.drained && stop == Stop::Outage && (at - 32.0).abs() < 0.1, "{at}");
        assert!(seen.failed.is_empty());
        assert_eq!(seen.refused.len() + seen.passed.len(), 2000);
        assert!(seen.refused.iter().all(|rejection| *rejection == Rejection::Stopped(Stop::Outage)));
        assert!(count(&seen.starts, 2.1, 1e9) < 30.0 && seen.starts.len() < seen.passed.len() + sends);
    }
}

#[test]
fn without_detection_failures_count() {
    let settings = Settings { outage_patience: Some(Duration::ZERO), ..workers(50, Control::Fixed) };
    let mut world = World::one(settings, 500, Box::new(|_, _, _, _| away()));
    world.play(1000.0);
    let seen = world.seen();
    assert!(seen.drained && seen.outages.is_empty());
    assert_eq!((seen.failed.len(), seen.starts.len()), (500, 1500));
}

#[test]
fn the_last_items_wait_for_a_server_that_was_there() {
    // Nothing else is left that could tell, but nobody listens where somebody did.
    let server: Server = Box::new(|_, item, at, _| match at {
        at if item < 9 || at > 12.0 => ok(),
        _ => (0.001, Some((FAILED, Sign::Unreachable))),
    });
    let mut world = World::one(workers(1, Control::Fixed), 10, server);
    world.play(1000.0);
    assert_eq!((world.seen().passed.len(), world.seen().outages.len()), (10, 1));
}

#[test]
fn an_outage_is_one_for_all_runs_of_the_scope() {
    let runs = vec![(workers(20, Control::Fixed), 3000), (workers(7, Control::Fixed), 2000)];
    let mut world = World::new(runs, between(3.0, 33.0, FAILED, Sign::Away));
    world.play(300.0);
    let starts: Vec<_> = world.runs.iter().flat_map(|(_, seen)| seen.starts.clone()).collect();
    assert!(count(&starts, 3.1, 33.0) <= 25.0, "{}", count(&starts, 3.1, 33.0));
    for ((_, seen), items) in world.runs.iter().zip([3000, 2000]) {
        assert!(seen.drained && seen.failed.is_empty() && seen.passed.len() == items);
        assert_eq!((seen.outages.len(), seen.ended.len()), (1, 1));
    }
}

#[test]
fn other_scopes_go_on_and_only_who_waits_for_the_dead_one_is_refused() {
    let settings = Settings { outage_patience: Some(SECOND * 20), ..workers(10, Control::Fixed) };
    let server: Server = Box::new(|_, item, _, _| if item < 2000 { away() } else { ok() });
    let mut world = World::one(settings, 2000, server);
    let now = world.now;
    let other = world.runs[0].0.add_queue(Arc::default(), now);
    world.runs[0].0.accept(other, 0, 2000, now);
    world.play(30.0);
    let seen = world.seen();
    // Nobody waited for the dead one.
    assert!(seen.passed.len() > 1400 && seen.refused.len() == 2000 && seen.stopped.is_none());
    world.play(100.0);
    let seen = world.seen();
    assert!(seen.drained && seen.passed.len() == 2000);
}

#[test]
fn whoever_comes_after_patience_was_lost_is_refused_or_finds_out_that_the_provider_is_back() {
    let settings =
        Settings { outage_patience: Some(SECOND * 5), outage_ends_run: false, ..workers(10, Control::Fixed) };
    let mut world = World::one(settings, 200, between(1.0, 20.0, FAILED, Sign::Away));
    world.runs[0].0.keep_open(true);
    world.play(10.0);
    let (passed, refused) = (world.seen().passed.len(), world.seen().refused.len());
    assert!(passed + refused == 200 && refused > 100, "{passed} {refused}");
    world.runs[0].0.accept(1, 0, 100, world.now);
    world.play(11.0);
    assert_eq!((world.seen().passed.len(), world.seen().refused.len()), (passed, refused + 100));
    assert_eq!(count(&world.seen().starts, 9.0, 11.0), 1.0, "one of them is a probe");
    world.play(30.0);
    world.runs[0].0.accept(1, 0, 1, world.now);
    world.play(31.0);
    world.runs[0].0.accept(1, 0, 99, world.now);
    world.play(60.0);
    assert_eq!(world.seen().passed.len(), passed + 100);
}

#[test]
fn a_second_run_begins_with_patience_of_its_own() {
    let now = Instant::now();
    let scope: Arc<Scope> = Arc::default();
    for _ in 0..2 {
        let server: Server = Box::new(|_, _, _, _| away());
        let mut world = World::one(Settings::default(), 0, server);
        let queue = world.runs[0].0.add_queue(Arc::clone(&scope), now);
        world.runs[0].0.accept(queue, 0, 100, now);
        world.play(1000.0);
        let (at, stop) = world.seen().stopped.unwrap();
        assert!(stop == Stop::Outage && (at - 60.0).abs() < 0.1, "{at}");
    }
    // And a single item as if nothing had been.
    let mut world = World::one(Settings::default(), 0, Box::new(|_, _, _, _| away()));
    let queue = world.runs[0].0.add_queue(scope, now);
    world.runs[0].0.accept(queue, 0, 1, now);
    world.play(100.0);
    assert!(world.seen().failed.len() == 1 && world.at() < 10.0);
}

#[test]
fn times_and_stops_hold_during_an_outage() {
    let dead = || between(1.0, 1e9, FAILED, Sign::Away);
    // Of an item.
    let settings = Settings { item_timeout: Some(SECOND * 5), ..workers(10, Control::Fixed) };
    let mut world = World::one(settings, 1000, dead());
    world.play(20.0);
    let refused = world.seen().refused.len();
    assert!(
        refused >= 20 && world.seen().refused.iter().all(|rejection| *rejection == Rejection::ItemDeadline),
        "{refused}"
    );
    // Of the run; and a stop.
    let settings = Settings { run_timeout: Some(SECOND * 5), ..workers(10, Control::Fixed) };
    let mut world = World::one(settings, 1000, dead());
    world.play(20.0);
    assert!(world.seen().drained && world.at() < 5.1);
    let mut world = World::one(workers(10, Control::Fixed), 1000, dead());
    world.play(5.0);
    world.runs[0].0.stop(Stop::Interrupted, true, world.now);
    world.play(20.0);
    assert!(world.seen().drained && world.at() < 5.1, "{}", world.at());
    // A pause, in which not even probes are sent; and a cancelled item.
    let mut world = World::one(workers(10, Control::Fixed), 1000, dead());
    world.play(5.0);
    world.runs[0].0.pause(true);
    world.play(20.0);
    assert_eq!(count(&world.seen().starts, 5.0, 20.0), 0.0);
    world.runs[0].0.pause(false);
    world.play(25.0);
    assert!(count(&world.seen().starts, 20.0, 25.0) >= 3.0);
    let index = world.seen().starts[world.seen().starts.len() - 2].1;
    world.runs[0].0.cancel(index, world.now);
    world.play(25.1);
    assert_eq!(world.seen().refused, [Rejection::Cancelled]);
}

#[test]
fn the_servers_word_is_honoured() {
    let failure = Failure::Retryable { backoff: true, at_least: SECOND * 15, overload: true };
    let server = between(2.0, 12.0, failure, Sign::Away);
    let mut world = World::one(workers(50, Control::Fixed), 5000, server);
    world.play(300.0);
    let seen = world.seen();
    assert_eq!((count(&seen.starts, 2.1, 16.9), seen.passed.len()), (0.0, 5000));
}

#[test]
fn a_rate_limit_is_a_sign_of_life() {
    let limited = Failure::RateLimit { at_least: Duration::ZERO, has_retry_after: false };
    let server: Server = Box::new(move |_, _, at, _| match at {
        at if (2.0..10.0).contains(&at) => away(),
        at if (10.0..12.0).contains(&at) => (0.001, Some((limited, Sign::Alive))),
        _ => ok(),
    });
    let mut world = World::one(workers(50, Control::Fixed), 5000, server);
    world.play(300.0);
    let seen = world.seen();
    assert_eq!((seen.passed.len(), seen.outages.len()), (5000, 1));
    assert!((10.0..11.5).contains(&seen.ended[0]), "{:?}", seen.ended);
}

#[test]
fn a_standstill_that_the_server_wants_is_said_once_with_its_end() {
    // A pause of a minute for all, with a server that says so; and one of five seconds, which is no news.
    for (control, wait, says) in [(Control::Pace, 60, true), (Control::Fixed, 60, true), (Control::Pace, 5, false)] {
        let limited = Failure::RateLimit { at_least: SECOND * wait, has_retry_after: true };
        let server: Server = Box::new(move |_, _, at, _| match at {
            at if at < 1.0 => (0.01, Some((limited, Sign::Alive))),
            _ => ok(),
        });
        let mut world = World::one(workers(5, control), 50, server);
        world.play(9.0);
        assert!(world.seen().standstills.is_empty());
        world.play(30.0);
        let gauges = world.runs[0].0.gauges(world.now);
        assert_eq!(gauges.standstill.is_some(), says);
        world.play(300.0);
        let seen = world.seen();
        assert!(seen.drained && seen.passed.len() == 50);
        assert_eq!(seen.standstills.len(), usize::from(says), "{control:?} {wait}");
        for (at, left) in &seen.standstills {
            assert!((at - 10.0).abs() < 0.1 && (at + left - 60.0).abs() < 1.5, "{at} {left}");
        }
        assert!(world.runs[0].0.gauges(world.now).standstill.is_none());
    }
    // A limit of the user's own is no news.
    let limits = vec![measure::Limit { measure: measure::Measure::Requests, amount: 2.0, per: SECOND * 60 }];
    let mut world =
        World::one(Settings { limits, burst: Some(1.0), ..workers(5, Control::Fixed) }, 5, Box::new(|_, _, _, _| ok()));
    world.play(1000.0);
    assert!(world.seen().drained && world.at() > 60.0 && world.seen().standstills.is_empty());
}

#[test]
fn an_outage_is_noticed_whatever_came_just_before() {
    // One of ten items always fails, and so may open a streak just before the others do; answers come later than
    // failures, and what fails is soon tried again.
    let mut wrong = Vec::new();
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let from = 0.05 + 0.3 * random.f64();
        let server: Server = Box::new(move |_, item, at, _| {
            let way = 0.001 + 0.004 * random.f64();
            match at {
                _ if item % 10 == 3 => (way, Some((FAILED, Sign::Away))),
                at if (from..from + 1.2).contains(&at) => (way, Some((OVERLOADED, Sign::Away))),
                _ => (0.02 + way, None),
            }
        });
        let backoff = Backoff { initial: 0.02, max: 0.05, ..Backoff::default() };
        let settings = Settings { backoff, ..workers(10, Control::Fixed) };
        let mut world = World::one(settings, 200, server);
        world.play(60.0);
        let seen = world.seen();
        assert!(seen.drained);
        if seen.failed.len() != 20 || seen.passed.len() != 180 {
            wrong.push((seed, seen.failed.len(), seen.outages.len()));
        }
    }
    assert!(wrong.is_empty(), "{} of 300: {wrong:?}", wrong.len());
}

#[test]
fn bad_items_in_a_row_do_not_hold_up_the_others() {
    for (concurrency, bad) in [(4, 20), (5, 20), (10, 20), (5, 60), (10, 60)] {
        let server: Server = Box::new(move |_, item, _, _| match item {
            item if (50..50 + bad).contains(&item) => away(),
            _ => ok(),
        });
        let mut world = World::one(workers(concurrency, Control::Fixed), 400, server);
        world.play(1000.0);
        let seen = world.seen();
        println!("{concurrency} at once, {bad} bad: {} outages, {:.0} s", seen.outages.len(), world.at());
        assert!(seen.drained && seen.stopped.is_none() && seen.refused.is_empty(), "{concurrency} {bad}");
        assert_eq!((seen.passed.len() as u64, seen.failed.len() as u64), (400 - bad, bad));
        assert!(world.at() < if bad > 20 { 180.0 } else { 60.0 }, "{}", world.at());
    }
}
