//! Quotas: limits given and learned, in buckets and windows.

use super::*;
use crate::engine::bucket::Bucket;

const MINUTE: Duration = Duration::from_secs(60);

fn limit(measure: Measure, amount: f64) -> Limit {
    Limit { measure, amount, per: MINUTE }
}

fn quota(limits: &[Limit], now: Instant) -> Quota {
    let mut quota = Quota::default();
    quota.configure(limits, DEFAULT_BURST, now);
    quota
}

fn level(quota: &mut Quota, measure: Measure, now: Instant) -> f64 {
    quota.levels(now).iter().find(|(limit, ..)| limit.measure == measure).map(|(.., level)| *level).unwrap()
}

const SMALL: Estimate = Estimate { requests: 1.0, input: 100.0, output: 100.0 };

#[test]
fn all_limits_or_none() {
    let now = Instant::now();
    let mut quota = quota(&[limit(Measure::Requests, 600.0), limit(Measure::Tokens, 1200.0)], now);
    assert!(quota.ready(SMALL, now).is_ok());
    quota.take(SMALL, now);
    let short = quota.ready(SMALL, now).unwrap_err();
    assert_eq!(short.measure, Measure::Tokens);
    assert!((short.until - now).as_secs_f64() - 10.0 < 1e-6);
    assert!((level(&mut quota, Measure::Requests, now) - 99.0).abs() < 1e-9, "nothing was taken in vain");
}

#[test]
fn real_usage_takes_the_place_of_the_estimate() {
    let now = Instant::now();
    let mut quota = quota(&[limit(Measure::Requests, 600.0), limit(Measure::Tokens, 60_000.0)], now);
    let left = |quota: &mut Quota| level(quota, Measure::Tokens, now);
    let ticket = quota.take(SMALL, now);
    assert!((left(&mut quota) - 9800.0).abs() < 1e-9);
    quota.reconcile(&ticket, Used::Reported(Usage { input: 40, output: 10, total: 50, ..Usage::default() }), now);
    assert!((left(&mut quota) - 9950.0).abs() < 1e-9, "refund");
    let ticket = quota.take(SMALL, now);
    quota.reconcile(&ticket, Used::Reported(Usage { input: 100, output: 900, total: 1000, ..Usage::default() }), now);
    assert!((left(&mut quota) - 8950.0).abs() < 1e-9, "debt");
    let ticket = quota.take(SMALL, now);
    quota.reconcile(&ticket, Used::Unknown, now);
    assert!((left(&mut quota) - 8750.0).abs() < 1e-9, "the estimate stands");
    let ticket = quota.take(SMALL, now);
    quota.reconcile(&ticket, Used::Rejected, now);
    assert!((left(&mut quota) - 8750.0).abs() < 1e-9, "no tokens");
    assert!((level(&mut quota, Measure::Requests, now) - 96.0).abs() < 1e-9, "but a request");
    let ticket = quota.take(SMALL, now);
    quota.reconcile(&ticket, Used::NotSent, now);
    assert!((level(&mut quota, Measure::Requests, now) - 96.0).abs() < 1e-9);
}

#[test]
fn input_and_output_are_counted_apart() {
    let now = Instant::now();
    let limits = [limit(Measure::InputTokens, 6000.0), limit(Measure::OutputTokens, 600.0)];
    let mut quota = quota(&limits, now);
    quota.take(Estimate { input: 900.0, output: 10.0, ..Estimate::default() }, now);
    assert!((level(&mut quota, Measure::InputTokens, now) - 100.0).abs() < 1e-9);
    assert!((level(&mut quota, Measure::OutputTokens, now) - 90.0).abs() < 1e-9);
    assert!(quota.counts_tokens());
}

#[test]
fn an_item_larger_than_a_limit_is_told_so_at_once() {
    let quota = quota(&[limit(Measure::Tokens, 1000.0)], Instant::now());
    let error = quota.fits(Estimate { input: 1500.0, ..Estimate::default() }).unwrap_err();
    assert_eq!(error.to_string(), "needs about 1500 tokens, but the limit is 1000 per 60 s");
    assert!(quota.fits(Estimate { input: 500.0, output: 500.0, ..Estimate::default() }).is_ok());
}

fn reported(limit: f64, remaining: f64, reset: f64) -> ReportedLimit {
    ReportedLimit {
        measure: Measure::Requests,
        limit: Some(limit),
        remaining: Some(remaining),
        reset: Some(reset),
        per: None,
    }
}

#[test]
fn a_limit_is_learned_from_a_reply() {
    let now = Instant::now();
    let mut quota = Quota::default();
    let ticket = quota.take(SMALL, now);
    // Two more were sent before the reply came.
    quota.take(SMALL, now);
    quota.take(SMALL, now);
    quota.observe(&reported(600.0, 50.0, 0.1), &ticket, now);
    // Less a little for those that overtake each other.
    assert!((level(&mut quota, Measure::Requests, now) - 46.0).abs() < 1e-9);
    // A later reply to an earlier request says nothing new.
    let early = Ticket { at: now - MINUTE, ..ticket };
    quota.observe(&reported(600.0, 3.0, 0.1), &early, now);
    assert!((level(&mut quota, Measure::Requests, now) - 46.0).abs() < 1e-9);
    // The provider cuts the limit: the bucket shrinks with it.
    let ticket = quota.take(SMALL, now);
    quota.observe(&reported(60.0, 30.0, 30.0), &ticket, now);
    assert!((level(&mut quota, Measure::Requests, now) - 10.0).abs() < 1e-9);
}

#[test]
fn a_users_limit_only_gets_tighter() {
    let now = Instant::now();
    let mut quota = quota(&[limit(Measure::Requests, 600.0)], now);
    let ticket = quota.take(SMALL, now);
    let without_limit = |remaining| ReportedLimit { limit: None, ..reported(0.0, remaining, 1.0) };
    quota.observe(&without_limit(5000.0), &ticket, now);
    assert!((level(&mut quota, Measure::Requests, now) - 99.0).abs() < 1e-9);
    quota.observe(&without_limit(5.0), &ticket, now);
    assert!((level(&mut quota, Measure::Requests, now) - 3.0).abs() < 1e-9);
}

#[test]
fn a_limit_for_a_known_time_is_one_for_that_time() {
    let now = Instant::now();
    let mut quota = Quota::default();
    let ticket = quota.take(SMALL, now);
    quota.observe(&ReportedLimit { per: Some(1.0), ..reported(10.0, 10.0, 1.0) }, &ticket, now);
    assert_eq!(quota.known(), KnownLimits::PerSecond(10.0));
    // No more than a second's worth is ever saved.
    let later = now + MINUTE;
    assert!((level(&mut quota, Measure::Requests, later) - 10.0).abs() < 1e-9);
    quota.observe(&ReportedLimit { per: Some(86_400.0), ..reported(1000.0, 999.0, 86.4) }, &ticket, now);
    let windows: Vec<u64> = quota.levels(now).iter().map(|(limit, ..)| limit.per.as_secs()).collect();
    assert_eq!(windows, [1, 86_400]);
}

/// A provider that gives a quota for each window of time, and tells how much is left and for how long: what passes
/// and what is refused in a minute of asking as fast as it may.
fn fixed_windows(quota: &mut Quota, amount: f64, per: f64, whole_seconds: bool) -> (u32, u32) {
    let start = Instant::now();
    let (mut now, mut window, mut left) = (start, 0, amount);
    let (mut passed, mut refused) = (0, 0);
    let way = Duration::from_millis(5);
    while now < start + MINUTE {
        if let Err(short) = quota.ready(SMALL, now) {
            assert!(short.until > now);
            now = short.until;
            continue;
        }
        let ticket = quota.take(SMALL, now);
        now += way;
        let at = (now - start).as_secs_f64();
        let present = (at / per) as u64;
        if present != window {
            (window, left) = (present, amount);
        }
        let used = if left >= 1.0 {
            left -= 1.0;
            passed += 1;
            Used::Unknown
        } else {
            refused += 1;
            Used::Rejected
        };
        let reset = (present + 1) as f64 * per - at;
        let reset = if whole_seconds { reset.ceil() } else { reset };
        now += way;
        quota.observe(&reported(amount, left, reset), &ticket, now);
        quota.reconcile(&ticket, used, now);
    }
    (passed, refused)
}

#[test]
fn a_quota_of_a_second_is_told_from_a_minutes() {
    for whole_seconds in [false, true] {
        for amount in [1.0, 2.0, 5.0, 10.0, 40.0] {
            let (passed, refused) = fixed_windows(&mut Quota::default(), amount, 1.0, whole_seconds);
            // Of two a second the margin for disorder leaves one; times in whole seconds are late by half of one.
            let least = if amount > 2.0 && !whole_seconds { 0.9 } else { 0.45 };
            assert!(f64::from(passed) >= least * 60.0 * amount, "{amount}/s: {passed}");
            let most = if whole_seconds { 0.15 * f64::from(passed) } else { 0.0 };
            assert!(f64::from(refused) <= most, "{amount}/s: {refused}");
        }
    }
    for amount in [2.0, 10.0, 60.0, 600.0] {
        let mut quota = Quota::default();
        let (passed, _) = fixed_windows(&mut quota, amount, 60.0, false);
        assert!(f64::from(passed) <= amount);
        assert_eq!(quota.rows[0].limit.per, MINUTE, "{amount}");
    }
}

#[test]
fn what_is_said_to_be_whole_again_soon_is_waited_for_no_longer() {
    let now = Instant::now();
    let mut quota = Quota::default();
    let ticket = quota.take(SMALL, now);
    quota.observe(&reported(1.0, 0.0, 0.5), &ticket, now);
    quota.reconcile(&ticket, Used::Rejected, now);
    let short = quota.ready(SMALL, now).unwrap_err();
    assert_eq!(short.until, now + Duration::from_millis(500));
    assert!(quota.ready(SMALL, short.until).is_ok());
    // A quota of five that comes back within a second is none of five a minute.
    let mut quota = Quota::default();
    let ticket = quota.take(SMALL, now);
    quota.observe(&reported(5.0, 0.0, 1.0), &ticket, now);
    assert_eq!(quota.known(), KnownLimits::Something);
    // The same with the rest of a day.
    let ticket = quota.take(SMALL, now);
    quota.observe(&ReportedLimit { per: Some(86_400.0), ..reported(100.0, 0.0, 1800.0) }, &ticket, now);
    let short = quota.ready(SMALL, now).unwrap_err();
    assert_eq!(short.until, now + MINUTE * 30);
    assert!(quota.ready(SMALL, short.until).is_ok());
}

#[test]
fn a_bucket_of_a_minute_is_not_taken_for_less() {
    // It comes back bit by bit, and levels and times are rounded.
    for amount in [3.0, 60.0, 600.0] {
        for round in [|reset: f64| reset, |reset: f64| reset.ceil(), |reset: f64| reset.floor()] {
            let mut quota = Quota::default();
            let start = Instant::now();
            let mut bucket = Bucket::new(amount, 60.0, 60.0, start);
            let mut random = fastrand::Rng::with_seed(3);
            let mut now = start;
            while now < start + MINUTE * 5 {
                now += seconds(random.f64() * 60.0 / amount);
                let ticket = quota.take(SMALL, now);
                if bucket.ready(1.0, now).is_ok() {
                    bucket.take(1.0);
                }
                let level = bucket.level(now);
                let reset = round((amount - level) * 60.0 / amount);
                quota.observe(&reported(amount, level.floor(), reset), &ticket, now);
                assert_eq!(quota.rows[0].limit.per, MINUTE, "{amount} a minute");
            }
        }
    }
}

#[test]
fn a_days_limit_is_told_from_a_minutes() {
    let quota = Quota::default();
    let window = |reported: ReportedLimit| quota.window_of(&reported).unwrap().as_secs();
    assert_eq!(window(reported(500.0, 499.0, 0.12)), 60);
    assert_eq!(window(reported(14_400.0, 14_370.0, 179.56)), 86_400);
    assert_eq!(window(reported(4000.0, 3999.0, 1.0)), 60);
    assert_eq!(window(reported(1000.0, 500.0, 1800.0)), 3600);
    assert_eq!(window(reported(60.0, 60.0, 3600.0)), 60);
}
