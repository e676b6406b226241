//! Steering a run from outside, command by command.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::commands::Limit;
use super::guard::Stop;
use super::outage::Sign;
use super::scheduler::Scheduler;
use super::testing::{SECOND, Scripted, settings};
use super::waits::Waits;
use super::*;

#[test]
fn an_open_run_is_drained_when_it_is_closed_to_further_items() {
    let mut run = Scripted::new(settings(2), 0);
    run.scheduler.keep_open(true);
    assert_eq!(run.commands(0), []);
    run.scheduler.accept(0, 0, 1, run.at(1));
    assert_eq!(run.starts(1), [0]);
    run.done(0, 0, 2);
    assert_eq!(run.commands(2), []);
    assert!(!run.scheduler.is_drained());
    run.scheduler.keep_open(false);
    assert_eq!(run.commands(3), [Command::Drained]);
    assert!(run.scheduler.is_drained());
}

#[test]
fn a_freed_worker_starts_the_next_item_before_the_result_of_its_last_is_written() {
    let mut run = Scripted::new(settings(1), 3);
    assert_eq!(run.starts(0), [0]);
    let report = ItemReport { success: true, ..ItemReport::default() };
    run.scheduler.answered(0, &report, run.at(1));
    assert!(run.starts(1).is_empty(), "its worker waits");
    run.scheduler.free_worker(0);
    assert_eq!(run.starts(1), [1]);
    run.scheduler.cancel(0, run.at(2));
    run.scheduler.stop(Stop::Budget, true, run.at(2));
    let of_first =
        |command: &Command| matches!(command, Command::Reject { item: 0, .. } | Command::TimedOut { item: 0, .. });
    assert!(!run.commands(2).iter().any(of_first), "it has its result");
    run.done(0, 0, 3);
    assert!(run.starts(3).is_empty());
    run.done(1, 0, 3);
    assert_eq!(run.scheduler.stats().succeeded, 2);
}

#[test]
fn an_open_run_that_has_nothing_to_do_ends_at_its_deadline() {
    let settings = Settings { run_timeout: Some(SECOND * 5), ..Settings::default() };
    let start = Instant::now();
    let mut scheduler = Scheduler::new(settings, Box::new(|| 0.5), Arc::new(|| ()), start);
    scheduler.keep_open(true);
    scheduler.advance(start + SECOND);
    assert_eq!(scheduler.wakes_at(), Some(start + SECOND * 5));
    scheduler.advance(start + SECOND * 5);
    assert_eq!(scheduler.next_command(), Some(Command::Stopped { stop: Stop::Deadline }));
}

#[test]
fn a_paused_run_starts_nothing() {
    let mut run = Scripted::new(settings(1), 2);
    assert_eq!(run.starts(0), [0]);
    run.scheduler.pause(true);
    run.done(0, 0, 1);
    assert!(run.starts(1).is_empty());
    run.scheduler.pause(false);
    assert_eq!(run.starts(2), [1]);
}

#[test]
fn a_run_whose_items_all_wait_for_another_attempt_says_so() {
    let mut run = Scripted::new(settings(2), 2);
    assert_eq!(run.starts(0), [0, 1]);
    let failure = Failure::Retryable { backoff: true, at_least: Duration::ZERO, overload: false };
    run.scheduler.failed(0, failure, Sign::Nothing, 1, None, run.at(1));
    assert!(run.starts(1).is_empty(), "one is on");
    run.scheduler.failed(1, failure, Sign::Nothing, 1, None, run.at(2));
    assert_eq!(run.starts(2), [0]);
    run.scheduler.failed(0, failure, Sign::Nothing, 1, None, run.at(2));
    assert!(run.starts(2).is_empty(), "both wait, until 3 and 4");
    assert_eq!(run.starts(3), [1]);
    let bound = run.scheduler.bound().totals(run.at(3));
    let seconds = |wanted| bound.iter().find(|(bound, _)| *bound == wanted).map_or(0, |(_, time)| time.as_secs());
    assert_eq!((seconds(bound::Bound::LastItems), seconds(bound::Bound::Backoff)), (2, 1), "{bound:?}");
}

#[test]
fn nothing_new_starts_while_results_are_not_taken() {
    let mut run = Scripted::new(settings(1), 3);
    assert_eq!(run.starts(0), [0]);
    run.scheduler.set_full(true);
    let failure = Failure::Retryable { backoff: true, at_least: Duration::ZERO, overload: false };
    assert_eq!(run.scheduler.failed(0, failure, Sign::Nothing, 1, None, run.at(1)), Verdict::Retry);
    assert_eq!(run.starts(3), [0]);
    run.done(0, 0, 4);
    assert!(run.starts(4).is_empty());
    let bound = run.scheduler.bound().totals(run.at(10));
    assert!(bound.contains(&(bound::Bound::Consumer, SECOND * 7)), "{bound:?}");
    run.scheduler.set_full(false);
    assert_eq!(run.starts(10), [1]);
}

#[test]
fn workers_can_be_added_and_taken_away_while_all_are_busy() {
    let mut run = Scripted::new(settings(3), 100);
    assert_eq!(run.starts(0), [0, 1, 2]);
    run.scheduler.set_workers(1.try_into().expect("one"));
    run.done(0, 0, 1);
    run.done(1, 0, 1);
    assert!(run.starts(1).is_empty());
    run.done(2, 0, 2);
    assert_eq!(run.starts(2), [3]);
    run.scheduler.set_workers(4.try_into().expect("four"));
    assert_eq!(run.starts(3), [4, 5, 6]);
    run.scheduler.set_workers(2.try_into().expect("two"));
    run.scheduler.set_workers(5.try_into().expect("five"));
    assert_eq!(run.starts(4), [7]);
    assert_eq!(run.scheduler.gauges(run.at(4)).in_flight, 5);
}

#[test]
fn an_item_is_cancelled_wherever_it_is() {
    let mut run = Scripted::new(settings(1), 3);
    assert_eq!(run.starts(0), [0]);
    // In line.
    run.scheduler.cancel(1, run.at(1));
    let refused = Command::RejectFresh { items: 1..2, rejection: Rejection::Cancelled };
    assert_eq!(run.commands(1), [refused]);
    run.scheduler.record_rejected(1, "cancelled");
    // On.
    run.scheduler.cancel(0, run.at(1));
    assert_eq!(run.commands(1), [Command::TimedOut { item: 0, attempt: 1, limit: Limit::Cancelled }]);
    run.done(0, 0, 2);
    assert_eq!(run.starts(2), [2]);
    // Waiting for its next attempt.
    let failure = Failure::Retryable { backoff: true, at_least: SECOND, overload: false };
    assert_eq!(run.scheduler.failed(2, failure, Sign::Nothing, 1, None, run.at(3)), Verdict::Retry);
    run.scheduler.cancel(2, run.at(3));
    run.scheduler.cancel(2, run.at(3));
    assert_eq!(run.commands(3), [Command::Reject { item: 2, rejection: Rejection::Cancelled }]);
    run.done(2, 0, 3);
    assert_eq!(run.commands(60), [Command::Drained]);
    // At its end.
    run.scheduler.cancel(2, run.at(61));
    assert_eq!(run.commands(61), []);
}

#[test]
fn a_run_that_was_stopped_gently_can_be_stopped_at_once_afterwards() {
    let mut run = Scripted::new(settings(1), 2);
    assert_eq!(run.starts(0), [0]);
    run.scheduler.stop(Stop::Interrupted, false, run.at(1));
    let rejection = Rejection::Stopped(Stop::Interrupted);
    let stopped = [Command::Stopped { stop: Stop::Interrupted }, Command::RejectFresh { items: 1..2, rejection }];
    assert_eq!(run.commands(1), stopped);
    let cancelled = [Command::TimedOut { item: 0, attempt: 1, limit: Limit::Run(Stop::Interrupted) }];
    run.scheduler.stop(Stop::Interrupted, true, run.at(2));
    assert_eq!(run.commands(2), cancelled);
    run.scheduler.stop(Stop::Interrupted, true, run.at(3));
    assert_eq!(run.commands(3), []);
}

#[test]
fn an_item_is_told_what_it_waited_for() {
    let mut run = Scripted::new(settings(1), 2);
    let waits = |commands: Vec<Command>| {
        commands
            .into_iter()
            .find_map(|c| if let Command::Start { waits, at, .. } = c { Some((waits, at)) } else { None })
    };
    assert_eq!(waits(run.commands(0)), Some((Waits::default(), 0.0)));
    let failure = Failure::Retryable { backoff: true, at_least: Duration::ZERO, overload: false };
    assert_eq!(run.scheduler.failed(0, failure, Sign::Nothing, 1, None, run.at(2)), Verdict::Retry);
    assert_eq!(run.commands(2), []);
    let second = waits(run.commands(5));
    // A second of backoff after the failure at 2; the two that are missing to 5 nobody was there to see.
    assert_eq!(second, Some((Waits { backoff: 1.0, queue: 2.0, ..Waits::default() }, 5.0)));
    run.done(0, 0, 6);
    assert_eq!(waits(run.commands(6)), Some((Waits { queue: 6.0, ..Waits::default() }, 6.0)));
}

#[test]
fn limits_can_be_changed_while_items_wait_for_them() {
    let per_minute = |amount| vec![measure::Limit { measure: measure::Measure::Requests, amount, per: SECOND * 60 }];
    let settings = Settings { limits: per_minute(1.0), burst: Some(1.0), ..settings(10) };
    let mut run = Scripted::new(settings, 20);
    assert_eq!(run.starts(0), [0]);
    assert!(run.starts(10).is_empty());
    run.scheduler.set_limits(per_minute(60_000.0), run.at(10));
    let started = (11..20).map(|time| run.starts(time).len()).sum::<usize>();
    assert_eq!(started, 9, "as many as there are workers");
}

#[test]
fn a_budget_can_be_taken_away_and_given() {
    let mut budget = guard::Budget::new(guard::Caps { tokens: None, cost: Some(1.0) });
    let most = guard::Spending { tokens: 1.0, cost: 0.8 };
    assert_eq!(budget.reserve(most), guard::Affordable::Yes);
    assert_eq!(budget.reserve(most), guard::Affordable::Later);
    budget.set_cost_cap(Some(2.0));
    assert_eq!(budget.reserve(most), guard::Affordable::Yes);
    budget.set_cost_cap(None);
    assert!(!budget.has_caps());
}

#[test]
fn a_deadline_can_be_set_put_off_and_taken_away() {
    let mut run = Scripted::new(Settings { run_timeout: Some(SECOND * 5), ..settings(1) }, 2);
    assert_eq!(run.starts(0), [0]);
    run.scheduler.set_time_left(Some(SECOND * 10), run.at(4));
    assert_eq!(run.scheduler.steering(run.at(4)).time_left, Some(SECOND * 10));
    assert!(run.commands(6).is_empty());
    run.scheduler.set_time_left(None, run.at(6));
    assert!(run.commands(60).iter().all(|command| !matches!(command, Command::Stopped { .. })));
    run.scheduler.set_time_left(Some(SECOND), run.at(60));
    assert!(run.commands(61).contains(&Command::Stopped { stop: Stop::Deadline }));
    assert!(run.scheduler.steering(run.at(61)).is_stopped);
}

#[test]
fn a_run_whose_workers_wait_for_the_store_says_so() {
    let mut run = Scripted::new(settings(2), 6);
    assert_eq!(run.starts(0), [0, 1]);
    let report = ItemReport { success: true, ..ItemReport::default() };
    for (item, at) in [(0, 1), (1, 2)] {
        run.scheduler.answered(item, &report, run.at(at));
        run.scheduler.await_store(item);
        assert!(run.starts(at).is_empty(), "its result is not written");
    }
    for item in [0, 1] {
        run.scheduler.record(item, report.clone(), run.at(5));
        run.scheduler.release(item, run.at(5));
    }
    assert_eq!(run.starts(5), [2, 3]);
    let bound = run.scheduler.bound().totals(run.at(6));
    let seconds = |wanted| bound.iter().find(|(bound, _)| *bound == wanted).map_or(0, |(_, time)| time.as_secs());
    assert_eq!((seconds(bound::Bound::Workers), seconds(bound::Bound::Store)), (3, 3), "{bound:?}");
    assert_eq!(run.scheduler.samples().stored().len(), 2);
    assert_eq!(run.scheduler.samples().stored()[1].took, Duration::from_secs(5));
    assert_eq!(run.scheduler.served(run.at(6)), [(4, Duration::from_secs(5))]);
}
