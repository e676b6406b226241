//! Items that wait elsewhere.

use super::guard::{Caps, Price, Stop};
use super::queue::Expected;
use super::testing::{Scripted, settings};
use super::*;

/// A run of a few workers, with so many items in the queue that nothing bounds, all of which have started and are deferred.
fn deferred(settings: Settings, items: u64) -> Scripted {
    let mut run = Scripted::new(settings, 0);
    let now = run.at(0);
    let queue = run.scheduler.add_unbounded_queue(now);
    run.scheduler.accept(queue, 0, items, now);
    let mut started = 0;
    while started < items {
        let starts = run.starts(0);
        assert!(!starts.is_empty(), "their workers are free");
        for item in starts {
            assert!(run.scheduler.defer(item, now));
            started += 1;
        }
    }
    run
}

#[test]
fn nothing_is_kept_of_items_that_wait_elsewhere() {
    let mut run = deferred(settings(10), 5_000);
    let gauges = run.scheduler.gauges(run.at(0));
    assert_eq!((gauges.in_flight, gauges.queued, gauges.retrying), (5_000, 0, 0));
    assert!(run.scheduler.items.is_empty() && !run.scheduler.is_drained());
    for item in (0..5_000).rev() {
        let now = run.at(3600);
        run.scheduler.recall(item, now);
        run.done(item, 7, 3600);
    }
    assert!(run.commands(3600).contains(&Command::Drained) && run.scheduler.is_drained());
    let stats = run.scheduler.stats();
    assert_eq!((stats.succeeded, stats.usage.total), (5_000, 35_000));
}

#[test]
fn an_item_that_comes_back_unanswered_starts_anew_and_has_used_no_attempt() {
    let mut run = deferred(settings(10), 3);
    let now = run.at(60);
    run.scheduler.requeue(1, 0, now);
    assert_eq!(run.attempts(60), [(1, 1)]);
    assert!(run.scheduler.defer(1, now));
    assert_eq!(run.scheduler.gauges(now).in_flight, 3);
}

#[test]
fn room_is_told_of_when_results_are_taken() {
    let mut run = deferred(settings(10), 2_000);
    let now = run.at(1);
    let mut recalled = 0;
    while run.scheduler.takes_back() {
        run.scheduler.recall(recalled, now);
        recalled += 1;
    }
    assert_eq!(recalled, 1024);
    for item in 0..500 {
        run.done(item, 1, 1);
    }
    assert!(!run.commands(1).contains(&Command::TakesBack), "not for every single one");
    for item in 500..600 {
        run.done(item, 1, 1);
    }
    assert!(run.commands(1).contains(&Command::TakesBack));
    run.scheduler.set_full(true);
    assert!(!run.scheduler.takes_back());
    assert!(!run.commands(1).contains(&Command::TakesBack));
    run.scheduler.set_full(false);
    assert!(run.commands(1).contains(&Command::TakesBack));
}

#[test]
fn an_item_that_fails_after_it_came_back_makes_room_for_others() {
    let mut run = deferred(settings(10), 2_000);
    let now = run.at(1);
    for item in 0..1024 {
        run.scheduler.recall(item, now);
    }
    assert!(!run.scheduler.takes_back());
    let failure = Failure::Retryable { backoff: true, at_least: std::time::Duration::ZERO, overload: false };
    for item in 0..1024 {
        assert_eq!(run.scheduler.failed(item, failure, outage::Sign::Alive, 1, None, now), Verdict::Retry);
    }
    assert!(run.scheduler.takes_back());
    assert!(!run.scheduler.defer(0, now), "its second attempt is remembered");
}

#[test]
fn a_run_that_is_cancelled_wants_all_back() {
    let mut run = deferred(settings(10), 3);
    let now = run.at(1);
    run.scheduler.stop(Stop::Interrupted, true, now);
    assert!(run.commands(1).contains(&Command::Recall));
    run.scheduler.recall(2, now);
    let is_over = |command: &Command| matches!(command, Command::TimedOut { item: 2, attempt: 1, .. });
    assert!(run.commands(1).iter().any(is_over));
}

#[test]
fn what_is_reserved_for_an_item_stays_reserved() {
    let caps = Caps { tokens: Some(100.0), cost: None };
    let mut run = Scripted::new(Settings { caps, ..settings(10) }, 0);
    let now = run.at(0);
    let queue = run.scheduler.add_unbounded_queue(now);
    let kind = run.scheduler.add_kind(10.0, Some(Price::default()));
    run.scheduler.accept(queue, 0, 3, now);
    let Some(Command::Estimate { items }) = run.commands(0).into_iter().next() else { panic!("what do they use?") };
    let (requests, output) = (1.0, None);
    for item in items {
        let (most_input, most_output) = (Some(10.0), Some(30.0));
        run.scheduler.expect(item, Expected::Estimate { requests, input: 10.0, output, most_input, most_output, kind });
    }
    assert_eq!(run.starts(0), [0, 1], "two may use 80 tokens");
    assert!(run.scheduler.defer(0, now) && run.scheduler.defer(1, now));
    assert!(run.starts(0).is_empty());
    run.scheduler.recall(0, now);
    run.done(0, 5, 1);
    assert_eq!(run.starts(1), [2]);
    run.scheduler.requeue(1, 0, now);
    run.done(2, 90, 1);
    assert!(run.starts(1).is_empty(), "95 are used");
}
