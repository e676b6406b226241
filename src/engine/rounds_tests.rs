//! Conversations of several rounds: slots, retries, deadlines and ends between them.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::bound::Bound;
use super::commands::Limit;
use super::guard::{Caps, Stop};
use super::measure::{Limit as Quota, Measure};
use super::outage::Sign;
use super::queue::Expected;
use super::testing::{SECOND, Scripted, settings};
use super::*;

#[test]
fn a_worker_is_free_while_tools_work_and_rounds_go_before_items_that_have_not_started() {
    let mut run = Scripted::new(settings(1), 3);
    assert_eq!(run.attempts(0), [(0, 1)]);
    run.end_round(0, 10, 1);
    assert_eq!(run.attempts(1), [(1, 1)], "the worker is free");
    assert_eq!(run.next_round(0, 2), Ok(()));
    assert!(run.attempts(2).is_empty(), "the worker is busy again");
    run.done(1, 10, 3);
    assert_eq!(run.attempts(3), [(0, 2)], "before item 2, which has not started");
    run.done(0, 25, 4);
    assert_eq!(run.attempts(4), [(2, 1)]);
    run.done(2, 5, 5);
    assert_eq!(run.commands(5), [Command::Drained]);
    let stats = run.scheduler.stats();
    assert_eq!((stats.succeeded, stats.usage.total), (3, 40));
}

#[test]
fn a_single_worker_that_waits_to_retry_does_not_block_those_that_are_ready() {
    let mut run = Scripted::new(settings(1), 2);
    assert_eq!(run.attempts(0), [(0, 1)]);
    run.end_round(0, 10, 0);
    assert_eq!(run.attempts(0), [(1, 1)]);
    assert_eq!(run.next_round(0, 0), Ok(()));
    let retry = Failure::Retryable { backoff: false, at_least: Duration::ZERO, overload: false };
    let now = run.at(1);
    assert_eq!(run.scheduler.failed(1, retry, Sign::Nothing, 1, None, now), Verdict::Retry);
    assert_eq!(run.attempts(1), [(1, 2)], "it has kept the only worker");
    run.done(1, 10, 2);
    assert_eq!(run.attempts(2), [(0, 2)]);
}

#[test]
fn each_round_has_its_own_retries() {
    let settings = Settings { max_attempts: 2, ..settings(2) };
    let mut run = Scripted::new(settings, 1);
    let retry = Failure::Retryable { backoff: false, at_least: Duration::ZERO, overload: false };
    assert_eq!(run.attempts(0), [(0, 1)]);
    for round in 0..4 {
        let now = run.at(round);
        assert_eq!(run.scheduler.failed(0, retry, Sign::Nothing, 1, None, now), Verdict::Retry, "round {round}");
        assert_eq!(run.attempts(round).len(), 1);
        run.end_round(0, 10, round);
        assert_eq!(run.next_round(0, round), Ok(()));
        assert_eq!(run.attempts(round).len(), 1);
    }
    let now = run.at(9);
    assert_eq!(run.scheduler.failed(0, retry, Sign::Nothing, 1, None, now), Verdict::Retry);
    assert_eq!(run.attempts(9).len(), 1);
    assert_eq!(run.scheduler.failed(0, retry, Sign::Nothing, 1, None, now), Verdict::GiveUp);
}

#[test]
fn limits_and_budgets_see_each_request_with_its_own_estimate() {
    let limits = vec![Quota { measure: Measure::Tokens, amount: 1000.0, per: SECOND * 60 }];
    let caps = Caps { tokens: Some(700.0), cost: None };
    let mut run = Scripted::new(Settings { limits, caps, ..settings(4) }, 1);
    let estimate = |input| Expected::Estimate {
        requests: 1.0,
        input,
        output: Some(0.0),
        most_input: Some(input),
        most_output: Some(0.0),
        kind: 0,
    };
    run.scheduler.add_kind(0.0, None);
    assert_eq!(run.commands(0), [Command::Estimate { items: vec![0] }]);
    run.scheduler.expect(0, estimate(100.0));
    assert_eq!(run.attempts(0), [(0, 1)]);
    run.end_round(0, 100, 1);
    let now = run.at(1);
    assert_eq!(run.scheduler.next_round(0, Some(estimate(500.0)), now), Ok(()));
    assert!(run.attempts(1).is_empty(), "more than the limit gives in a second");
    assert_eq!(run.attempts(60), [(0, 2)]);
    run.end_round(0, 600, 61);
    assert_eq!(run.scheduler.budget().spent().tokens, 600.0, "no token is counted twice");
    let too_large = run.scheduler.next_round(0, Some(estimate(2000.0)), now);
    assert!(matches!(too_large, Err(Some(Rejection::TooLarge(_)))));
    let unknown = run.scheduler.next_round(0, Some(Expected::Unknown), now);
    assert_eq!(unknown, Err(Some(Rejection::NoEstimate)));
    assert_eq!(run.scheduler.next_round(0, Some(estimate(200.0)), now), Ok(()));
    let commands = run.commands(120);
    assert!(commands.contains(&Command::Stopped { stop: Stop::Budget }), "{commands:?}");
    assert!(commands.iter().any(|command| matches!(command, Command::Reject { item: 0, .. })));
}

#[test]
fn a_reply_that_was_known_takes_nothing() {
    let mut run = Scripted::new(settings(1), 1);
    assert_eq!(run.attempts(0), [(0, 1)]);
    let now = run.at(0);
    run.scheduler.not_sent(0, now);
    run.scheduler.end_round(0, None, now);
    assert_eq!(run.scheduler.budget().unknown(), 0);
    assert_eq!(run.next_round(0, 1), Ok(()));
    assert_eq!(run.attempts(1), [(0, 2)]);
}

#[test]
fn a_stopped_run_lets_tools_end_and_sends_nothing_more() {
    let mut run = Scripted::new(settings(2), 3);
    assert_eq!(run.attempts(0).len(), 2);
    run.end_round(0, 1, 1);
    run.end_round(1, 1, 1);
    let now = run.at(2);
    run.scheduler.stop(Stop::Interrupted, false, now);
    let commands = run.commands(2);
    assert!(!commands.iter().any(|command| matches!(command, Command::Reject { .. })), "{commands:?}");
    assert_eq!(run.next_round(0, 3), Err(Some(Rejection::Stopped(Stop::Interrupted))));
    // At the second interrupt nobody waits for tools.
    run.scheduler.stop(Stop::Interrupted, true, now);
    let rejected: Vec<_> = run.commands(3).into_iter().filter(|c| matches!(c, Command::Reject { .. })).collect();
    assert_eq!(rejected.len(), 2);
    assert_eq!(run.next_round(1, 4), Err(None), "a command has said so");
}

#[test]
fn an_item_between_rounds_can_be_cancelled_and_times_out() {
    let mut run = Scripted::new(Settings { item_timeout: Some(SECOND * 10), ..settings(4) }, 2);
    assert_eq!(run.attempts(0).len(), 2);
    run.end_round(0, 1, 1);
    run.end_round(1, 1, 1);
    let now = run.at(2);
    run.scheduler.cancel(0, now);
    assert_eq!(run.commands(2), [Command::Reject { item: 0, rejection: Rejection::Cancelled }]);
    run.done(0, 1, 2);
    assert_eq!(run.commands(11), [Command::Reject { item: 1, rejection: Rejection::ItemDeadline }]);
    run.done(1, 1, 11);
    assert_eq!(run.commands(12), [Command::Drained]);
    // The time of an attempt runs only while there is one.
    let mut run = Scripted::new(Settings { attempt_timeout: Some(SECOND * 10), ..settings(4) }, 1);
    assert_eq!(run.attempts(0).len(), 1);
    run.end_round(0, 1, 9);
    assert_eq!(run.commands(100), []);
    assert_eq!(run.next_round(0, 100), Ok(()));
    assert_eq!(run.attempts(100), [(0, 2)]);
    let late = Command::TimedOut { item: 0, attempt: 2, limit: Limit::Attempt };
    assert_eq!(run.commands(110), [late]);
}

#[test]
fn so_many_conversations_are_open_and_no_more() {
    let mut run = Scripted::new(settings(10), 1000);
    let mut open = 0;
    loop {
        let starts = run.attempts(0);
        if starts.is_empty() {
            break;
        }
        open += starts.len();
        for (item, _) in starts {
            run.end_round(item, 1, 0);
        }
    }
    assert!((64..=74).contains(&open), "{open}");
    let totals = run.scheduler.bound().totals(run.at(5));
    assert_eq!(totals.last().map(|(bound, _)| *bound), Some(Bound::Tools));
    run.done(0, 1, 5);
    assert_eq!(run.attempts(5).len(), 0, "still as many as there may be");
    assert_eq!(run.next_round(1, 6), Ok(()));
    assert_eq!(run.attempts(6)[0], (1, 2), "those that are open go on");
}

proptest! {
    /// Whatever happens, every conversation ends once, has all its rounds in order, and no worker is lost.
    #[test]
    fn nothing_is_lost_between_rounds(
        rounds in prop::collection::vec(1_u32..5, 1..60),
        workers in 1_usize..8,
        choices in prop::collection::vec(0_u8..10, 400),
    ) {
        let mut run = Scripted::new(settings(workers), rounds.len() as u64);
        let (mut on, mut between): (Vec<ItemIndex>, Vec<ItemIndex>) = (Vec::new(), Vec::new());
        let mut replies: HashMap<ItemIndex, u32> = HashMap::new();
        let (mut ended, mut now) = (0_usize, 0);
        for choice in choices.iter().cycle().take(20_000) {
            for command in run.commands(now) {
                match command {
                    Command::Start { item, .. } => on.push(item),
                    Command::Reject { .. } | Command::RejectFresh { .. } => prop_assert!(false, "nothing is rejected"),
                    _ => {}
                }
            }
            prop_assert!(on.len() <= workers);
            let retry = Failure::Retryable { backoff: false, at_least: Duration::ZERO, overload: false };
            match (choice, on.pop()) {
                (0, Some(item)) if replies.get(&item).copied().unwrap_or(0) < 9 => {
                    let at = run.at(now);
                    if run.scheduler.failed(item, retry, Sign::Nothing, 1, None, at) != Verdict::Retry {
                        run.done(item, 0, now);
                        ended += 1;
                        replies.insert(item, u32::MAX);
                    }
                }
                (1..=7, Some(item)) => {
                    let seen = replies.entry(item).or_default();
                    *seen += 1;
                    if *seen == rounds[usize::try_from(item).unwrap()] {
                        run.done(item, 0, now);
                        ended += 1;
                    } else {
                        run.end_round(item, 0, now);
                        between.push(item);
                    }
                }
                (_, item) => {
                    on.extend(item);
                    if !between.is_empty() {
                        let item = between.remove(*choice as usize % between.len());
                        prop_assert_eq!(run.next_round(item, now), Ok(()));
                    }
                }
            }
            now += 1;
            if ended == rounds.len() {
                break;
            }
        }
        prop_assert_eq!(ended, rounds.len());
        prop_assert!(run.commands(now).contains(&Command::Drained));
        prop_assert_eq!(run.scheduler.gauges(run.at(now)).retrying, 0);
    }
}
