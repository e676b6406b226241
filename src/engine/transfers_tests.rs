//! Items that change their queue.

use std::sync::Arc;
use std::time::Duration;

use super::guard::Stop;
use super::measure::{Limit, Measure};
use super::scope::Control;
use super::testing::{Scripted, settings};
use super::*;

/// A run of a million workers, with nothing in its own queue; the queue that nothing bounds.
fn run(settings: Settings) -> (Scripted, u32) {
    let mut run = Scripted::new(Settings { max_workers: 1_000_000.try_into().unwrap(), ..settings }, 0);
    let now = run.at(0);
    let queue = run.scheduler.add_unbounded_queue(now);
    (run, queue)
}

#[test]
fn nothing_bounds_what_waits_for_hours_and_limits_hold_for_what_leaves_it() {
    let limit = Limit { measure: Measure::Requests, amount: 60.0, per: Duration::from_secs(60) };
    let settings = Settings {
        limits: vec![limit],
        burst: Some(1.0),
        attempt_timeout: Some(Duration::from_secs(5)),
        ..settings(1)
    };
    let (mut run, queue) = run(settings);
    let now = run.at(0);
    run.scheduler.accept(queue, 0, 1000, now);
    assert_eq!(run.starts(0).len(), 1000);
    assert!(run.commands(7200).is_empty(), "no attempt is over its time");
    let now = run.at(7200);
    let live = run.scheduler.add_queue(Arc::default(), now);
    for item in 0..10 {
        assert_eq!(run.scheduler.transfer(item, live, None, now), Ok(()));
    }
    assert_eq!(run.attempts(7200), [(0, 2)], "one a second");
    assert_eq!(run.attempts(7201), [(1, 2)]);
    assert!(run.commands(7206).iter().any(|command| matches!(command, Command::TimedOut { item: 0, .. })));
}

#[test]
fn attempts_that_leave_are_bounded_in_number() {
    let (mut run, queue) = run(Settings { control: Control::Pace, most_in_flight: Some(3), ..settings(1) });
    let now = run.at(0);
    run.scheduler.accept(queue, 0, 10, now);
    assert_eq!(run.starts(0).len(), 10);
    let now = run.at(1);
    let live = run.scheduler.add_queue(Arc::default(), now);
    for item in 0..10 {
        assert_eq!(run.scheduler.transfer(item, live, None, now), Ok(()));
    }
    assert_eq!(run.attempts(1), [(0, 2), (1, 2), (2, 2)]);
    run.done(1, 5, 2);
    assert_eq!(run.attempts(2), [(3, 2)]);
}

#[test]
fn what_has_ended_goes_nowhere() {
    let (mut run, queue) = run(settings(1));
    let now = run.at(0);
    run.scheduler.accept(queue, 0, 2, now);
    assert_eq!(run.starts(0).len(), 2);
    run.done(0, 5, 1);
    let now = run.at(1);
    let live = run.scheduler.add_queue(Arc::default(), now);
    assert_eq!(run.scheduler.transfer(0, live, None, now), Err(None));
    run.scheduler.stop(Stop::Interrupted, false, now);
    assert_eq!(run.scheduler.transfer(1, live, None, now), Err(Some(Rejection::Stopped(Stop::Interrupted))));
}
