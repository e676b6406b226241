//! Runs against a simulated provider that enforces limits, in simulated time: minutes of traffic in milliseconds.
//!
//! The scheduler is a function of the time, so nothing here waits: events are played in order.

// The figures are what these tests are run by hand for.
#![allow(clippy::print_stdout)]

use std::sync::Arc;

use tokio::time::Instant;

use super::guard::{Caps, Price, Stop};
use super::limits_testing::*;
use super::measure::Measure;
use super::scope::{Control, Scope};
use super::testing::SECOND;
use super::*;

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
        println!("{name}: {:.1}% used, {} refused", 100.0 * share, log.rejected.len());
        assert_eq!(log.rejected.len(), 0, "{name}");
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
    let rejected = log.rejected.len() as f64 / log.starts.len() as f64;
    println!("headers: {:.1}% used after a minute, {:.3}% refused", 100.0 * share, 100.0 * rejected);
    assert!(share >= 0.9 && rejected < 0.01, "{share} {rejected}");
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
        let after = log.rejected(60.0, 660.0) / log.passed(60.0, 660.0);
        let whole = log.rejected.len() as f64 / log.starts.len() as f64;
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
        let first = world.log.rejected.iter().copied().fold(f64::INFINITY, f64::min);
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
    let storm = log.rejected(120.0, 140.0) / (log.passed(120.0, 140.0) + log.rejected(120.0, 140.0));
    let later = log.rejected(140.0, 240.0) / log.passed(140.0, 240.0);
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
    let before = log.rejected(60.0, 120.0) / log.passed(60.0, 120.0);
    let storm = log.rejected(120.0, 140.0) / (log.passed(120.0, 140.0) + log.rejected(120.0, 140.0));
    let later = log.rejected(140.0, 240.0) / log.passed(140.0, 240.0);
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
    let price = Price { input: 1e-6, cached: 1e-6, cache_write: 1e-6, cache_write_hour: 1e-6, output: 4e-6, held: 0.0 };
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
