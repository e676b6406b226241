//! Tests of [`scope`](super::scope): who waits for whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::measure::{Estimate, Limit, Measure};
use super::scope::*;

const MINUTE: Duration = Duration::from_secs(60);

fn requests(amount: f64) -> Vec<Limit> {
    vec![Limit { measure: Measure::Requests, amount, per: MINUTE }]
}

fn member(scope: &Scope, limit: f64, now: Instant) -> (Member, Arc<AtomicU32>) {
    let pokes = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&pokes);
    let wake: Wake = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    (scope.join(wake, &requests(limit), Some(1.0), Control::Fixed, now), pokes)
}

fn anything() -> Estimate {
    Estimate::default()
}

#[test]
fn those_who_wait_take_turns() {
    let mut now = Instant::now();
    let scope = Scope::default();
    let (one, _) = member(&scope, 60.0, now);
    let (two, pokes) = member(&scope, 60.0, now);
    assert!(scope.admit(one, anything(), now).is_ok());
    let mut passed = [0, 0];
    for _ in 0..100 {
        for (number, member) in [(0, one), (1, two), (0, one), (0, one)] {
            passed[number] += u32::from(scope.admit(member, anything(), now).is_ok());
        }
        now += Duration::from_millis(500);
    }
    assert!((24..=26).contains(&passed[0]) && (24..=26).contains(&passed[1]), "{passed:?}");
    assert!(pokes.load(Ordering::SeqCst) >= 24, "whoever is next is reported");
}

#[test]
fn whoever_wants_nothing_is_not_waited_for() {
    let now = Instant::now();
    let scope = Scope::default();
    let (one, _) = member(&scope, 60.0, now);
    let (two, pokes) = member(&scope, 60.0, now);
    assert!(scope.admit(one, anything(), now).is_ok());
    assert!(scope.admit(one, anything(), now).is_err());
    assert_eq!(scope.admit(two, anything(), now).unwrap_err().cause, Cause::Turn);
    scope.step_aside(one);
    assert_eq!(pokes.load(Ordering::SeqCst), 1);
    assert!(scope.admit(two, anything(), now + Duration::from_secs(1)).is_ok());
}

#[test]
fn the_tightest_limit_of_all_members_holds() {
    let now = Instant::now();
    let scope = Scope::default();
    let (_one, _) = member(&scope, 600.0, now);
    let (two, _) = member(&scope, 60.0, now);
    assert!((scope.levels(now)[0].0.amount - 60.0).abs() < 1e-9);
    scope.leave(two, now);
    assert!((scope.levels(now)[0].0.amount - 600.0).abs() < 1e-9);
}

#[test]
fn a_pause_of_one_holds_the_others() {
    let now = Instant::now();
    let scope = Scope::default();
    let (one, _) = member(&scope, 600.0, now);
    scope.pause_until(now + MINUTE);
    let held = scope.admit(one, anything(), now).unwrap_err();
    assert_eq!(held, Blocked { until: Some(now + MINUTE), cause: Cause::Paused });
    assert!(scope.admit(one, anything(), now + MINUTE).is_ok());
}
