//! Requests with the same head against a simulated prompt cache, in simulated time.

use std::sync::Arc;

use proptest::prelude::*;

use super::bound::Bound;
use super::guard::{Caps, Stop};
use super::heads::Readable;
use super::measure::{Limit, Measure};
use super::scope::Scope;
use super::stats::Usage;
use super::testing::{SECOND, settings};
use super::warming::CacheCounts;
use super::warming_testing::*;
use super::*;

#[test]
fn five_heads_are_written_once_each_and_little_time_is_lost() {
    for readable in [Readable::AtFirstByte, Readable::AtEnd] {
        for head in [|item| Some(item / 400), |item| Some(item % 5)] {
            let mut world = World::new(settings(100), readable, head);
            world.fate = Box::new(|item, _| Fate { takes: SECOND * 2 + SECOND * (item * 7 % 11) as u32 / 5, ..GOOD });
            world.accept(0, 0, 2_000);
            world.finish();
            assert_eq!((world.hits, world.misses), (1_995, 5));
            assert_eq!(world.scheduler.cache_counts(), CacheCounts { hits: 1_995, first: 5, ..CacheCounts::default() });
            let cached = world.elapsed();
            let mut plain = World::new(settings(100), readable, |_| None);
            plain.fate = Box::new(|item, _| Fate { takes: SECOND * 2 + SECOND * (item * 7 % 11) as u32 / 5, ..GOOD });
            plain.accept(0, 0, 2_000);
            plain.finish();
            assert!(cached <= plain.elapsed() * 1.05, "{readable:?}: {cached} {}", plain.elapsed());
        }
    }
}

#[test]
fn the_first_goes_alone_until_its_entry_can_be_read() {
    let mut world = World::new(settings(10), Readable::AtFirstByte, one);
    world.fate = Box::new(|_, _| Fate { takes: SECOND * 4, ..GOOD });
    world.accept(0, 0, 5);
    world.play(0.5);
    assert_eq!(world.starts, [(0.0, 0, 1)]);
    assert_eq!(world.scheduler.gauges(world.now).queued, 4);
    world.finish();
    assert_eq!(world.starts[1..], [1, 2, 3, 4].map(|item| (1.0, item, 1)));
    assert_eq!(world.bound(Bound::PromptCache), 1.0);
    let mut world = World::new(settings(10), Readable::AtEnd, one);
    world.fate = Box::new(|_, _| Fate { takes: SECOND * 4, ..GOOD });
    world.accept(0, 0, 5);
    world.finish();
    assert_eq!(world.starts[1..], [1, 2, 3, 4].map(|item| (4.0, item, 1)));
}

#[test]
fn others_pass_over_those_that_wait_and_their_order_is_kept() {
    let mut world = World::new(settings(4), Readable::AtFirstByte, |item| (item % 2 == 0).then_some(7));
    world.accept(0, 0, 12);
    world.finish();
    // Even items have the head; 1, 3, 5 go while 0 writes it, then those that waited go first.
    assert_eq!(world.order(), [0, 1, 3, 5, 2, 4, 6, 7, 8, 9, 10, 11]);
    assert_eq!(world.misses, 1);
}

#[test]
fn fewer_than_three_do_not_wait() {
    let mut world = World::new(settings(10), Readable::AtEnd, |item| Some(item / 2));
    world.accept(0, 0, 8);
    world.play(0.0);
    assert_eq!(world.starts.len(), 8);
    let mut world = World::new(settings(10), Readable::AtEnd, one);
    world.accept(0, 0, 3);
    world.play(0.0);
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn after_an_entry_has_expired_one_goes_first_again() {
    let mut world = World::new(settings(10), Readable::AtFirstByte, one);
    world.scheduler.keep_open(true);
    world.accept(0, 0, 10);
    world.play(100.0);
    assert_eq!((world.misses, world.starts.len()), (1, 10));
    // Used 250 s ago: still there.
    world.now = world.start + SECOND * 250;
    world.accept(0, 0, 10);
    world.play(251.0);
    assert_eq!((world.misses, world.starts.len()), (1, 20));
    world.now = world.start + SECOND * 600;
    world.accept(0, 0, 10);
    world.play(600.0);
    assert_eq!(world.starts.len(), 21);
    world.scheduler.keep_open(false);
    world.finish();
    assert_eq!((world.misses, world.hits), (2, 28));
    assert_eq!(
        world.scheduler.cache_counts(),
        CacheCounts { hits: 28, first: 1, expired: 1, ..CacheCounts::default() }
    );
}

#[test]
fn a_leader_that_fails_hands_over() {
    for failure in [RETRY, Failure::Permanent, Failure::Interrupted] {
        let mut world = World::new(settings(10), Readable::AtEnd, one);
        world.fate = Box::new(move |item, attempt| match (item, attempt) {
            (0, 1) => Fate { outcome: Err(failure), reads: false, ..GOOD },
            _ => GOOD,
        });
        world.accept(0, 0, 10);
        world.play(1.5);
        assert_eq!(world.starts, [(0.0, 0, 1), (1.0, 1, 1)], "{failure:?}");
        world.finish();
        assert_eq!(world.misses, 1);
    }
}

#[test]
fn a_refusal_whose_prompt_was_read_has_written_the_entry() {
    let mut world = World::new(settings(10), Readable::AtEnd, one);
    world.fate = Box::new(|item, _| match item {
        0 => Fate { outcome: Err(Failure::Permanent), ..GOOD },
        _ => GOOD,
    });
    world.accept(0, 0, 10);
    world.play(1.0);
    assert_eq!(world.starts.len(), 10);
    world.finish();
    assert_eq!((world.misses, world.hits), (1, 9));
}

#[test]
fn a_group_that_is_rejected_one_and_all_does_not_go_one_by_one() {
    let mut world = World::new(settings(100), Readable::AtEnd, one);
    world.fate = Box::new(|_, _| Fate { outcome: Err(Failure::Permanent), reads: false, ..GOOD });
    world.accept(0, 0, 400);
    world.finish();
    assert!(world.elapsed() <= 3.0 + 4.0, "three go first, the rest in four waves: {}", world.elapsed());
}

#[test]
fn a_leader_that_takes_too_long_is_not_waited_for() {
    let mut world = World::new(settings(10), Readable::AtEnd, one);
    world.fate = Box::new(|item, _| Fate { takes: if item == 0 { SECOND * 90 } else { SECOND }, ..GOOD });
    world.accept(0, 0, 10);
    world.play(29.0);
    assert_eq!(world.starts.len(), 1);
    world.play(30.0);
    assert_eq!(world.starts.len(), 10);
    world.finish();
}

#[test]
fn a_leader_that_times_out_or_is_cancelled_hands_over() {
    let settings_ = Settings { attempt_timeout: Some(SECOND * 10), ..settings(10) };
    let mut world = World::new(settings_, Readable::AtEnd, one);
    world.fate = Box::new(|item, attempt| match (item, attempt) {
        (0, 1) => Fate { takes: SECOND * 1_000, ..GOOD },
        _ => GOOD,
    });
    world.accept(0, 0, 10);
    world.play(10.5);
    assert_eq!(world.starts, [(0.0, 0, 1), (10.0, 1, 1)]);
    world.finish();
    let mut world = World::new(settings(10), Readable::AtEnd, one);
    world.fate = Box::new(|_, _| Fate { takes: SECOND * 20, ..GOOD });
    world.accept(0, 0, 10);
    world.play(1.0);
    world.now = world.start + SECOND;
    world.scheduler.cancel(0, world.now);
    world.scheduler.cancel(5, world.now);
    world.play(2.0);
    assert_eq!(world.order(), [0, 1], "the next one leads, and those that wait can be cancelled");
    assert_eq!(world.ended[&5], 1);
    world.finish();
}

#[test]
fn those_that_wait_end_with_the_run() {
    for stop in [Stop::Interrupted, Stop::Budget, Stop::Deadline] {
        let mut world = World::new(settings(10), Readable::AtEnd, |item| Some(item % 3));
        world.fate = Box::new(|_, _| Fate { takes: SECOND * 5, ..GOOD });
        world.accept(0, 0, 100);
        world.accept(0, 5, 10);
        world.play(1.0);
        assert_eq!(world.starts.len(), 3);
        world.scheduler.stop(stop, false, world.now);
        world.finish();
        assert_eq!(world.starts.len(), 3);
        assert_eq!(world.scheduler.gauges(world.now).queued, 0);
    }
}

#[test]
fn nothing_starts_while_the_run_is_paused() {
    let mut world = World::new(settings(10), Readable::AtEnd, one);
    world.accept(0, 0, 10);
    world.play(0.0);
    world.scheduler.pause(true);
    world.play(60.0);
    assert_eq!(world.starts.len(), 1);
    world.scheduler.pause(false);
    world.finish();
    assert_eq!(world.misses, 1);
}

#[test]
fn budgets_and_quotas_hold_for_those_that_waited() {
    let caps = Caps { tokens: Some(1_050.0), ..Caps::default() };
    let mut world = World::new(Settings { caps, ..settings(100) }, Readable::AtEnd, one);
    world.scheduler.add_kind(0.0, None);
    world.accept(0, 0, 100);
    world.finish();
    assert_eq!((world.starts.len(), world.misses), (10, 1));
    let limit = Limit { measure: Measure::Requests, amount: 60.0, per: SECOND * 60 };
    let limits = vec![limit];
    let mut world = World::new(Settings { limits, burst: Some(1.0), ..settings(100) }, Readable::AtEnd, one);
    world.accept(0, 0, 100);
    world.finish();
    assert!(world.elapsed() >= 99.0);
    assert_eq!(world.misses, 1);
}

#[test]
fn higher_priorities_go_first_among_those_that_waited() {
    let mut world = World::new(settings(2), Readable::AtEnd, one);
    world.scheduler.keep_open(true);
    world.accept(0, 0, 4);
    world.play(0.5);
    world.accept(0, 5, 2);
    world.accept(0, -5, 2);
    world.play(0.6);
    world.scheduler.keep_open(false);
    world.finish();
    assert_eq!(world.order(), [0, 4, 5, 1, 2, 3, 6, 7]);
    assert_eq!(world.misses, 1);
}

#[test]
fn retried_items_wait_too_and_keep_their_place() {
    let mut world = World::new(settings(20), Readable::AtEnd, one);
    world.scheduler.keep_open(true);
    world.accept(0, 0, 20);
    world.play(50.0);
    // Much later all are rate limited at once, and come back after a pause.
    world.now = world.start + SECOND * 1_000;
    world.fate = Box::new(|item, attempt| match (item >= 20, attempt) {
        (true, 1) => Fate { outcome: Err(LIMITED), reads: false, ..GOOD },
        _ => GOOD,
    });
    world.cache.clear();
    world.accept(0, 0, 20);
    world.scheduler.keep_open(false);
    world.finish();
    assert!(world.misses <= 3, "not one for each of twenty retries: {}", world.misses);
    let again: Vec<ItemIndex> =
        world.starts.iter().filter(|(_, _, attempt)| *attempt == 2).map(|(_, item, _)| *item).collect();
    assert!(again.is_sorted(), "{again:?}");
}

#[test]
fn with_few_workers_items_of_a_head_go_together() {
    // Forty heads in turn, of which each would be used every 400 s.
    let mut world = World::new(settings(1), Readable::AtEnd, |item| Some(item % 40));
    world.fate = Box::new(|_, _| Fate { takes: SECOND * 10, ..GOOD });
    world.accept(0, 0, 400);
    world.finish();
    assert!(world.misses <= 80, "{}", world.misses);
    // Where no entry expires, the order is that of submission.
    let mut world = World::new(settings(1), Readable::AtEnd, |item| Some(item % 10));
    world.fate = Box::new(|_, _| Fate { takes: SECOND * 10, ..GOOD });
    world.accept(0, 0, 100);
    world.finish();
    assert!(world.misses == 10 && world.order().is_sorted());
    let mut world = World::new(settings(4), Readable::AtFirstByte, |item| Some(item % 200));
    world.fate = Box::new(|_, _| Fate { takes: SECOND * 10, ..GOOD });
    world.accept(0, 0, 2_000);
    world.finish();
    assert!(world.misses <= 400, "{}", world.misses);
    assert!(world.elapsed() <= 5_010.0, "and hardly any worker is idle: {}", world.elapsed());
}

#[test]
fn an_item_of_which_nobody_has_told_waits_until_somebody_has() {
    let mut world = World::new(settings(10), Readable::AtEnd, one);
    world.tell_heads(0, 5);
    world.scheduler.accept(0, 0, 10, world.now);
    world.play(0.5);
    assert_eq!(world.starts.len(), 1);
    world.tell_heads(5, 5);
    world.play(0.6);
    assert_eq!(world.starts.len(), 1);
    world.finish();
    assert_eq!(world.misses, 1);
    // But not for ever.
    let mut world = World::new(settings(10), Readable::AtEnd, one);
    world.tell_heads(0, 5);
    world.scheduler.accept(0, 0, 10, world.now);
    world.finish();
}

#[test]
fn two_runs_of_a_scope_wait_for_one_leader() {
    let scope = Arc::new(Scope::default());
    let mut worlds = [(); 2].map(|()| {
        let mut world = World::new(settings(10), Readable::AtEnd, one);
        assert_eq!(world.scheduler.add_queue(Arc::clone(&scope), world.now), 1);
        world
    });
    let start = worlds[0].start;
    for world in &mut worlds {
        (world.start, world.now) = (start, start);
        world.accept(1, 0, 10);
        world.play(0.5);
    }
    let [first, second] = &mut worlds;
    assert_eq!((first.starts.len(), second.starts.len()), (1, 0));
    first.play(1.0);
    second.now = start + SECOND;
    second.play(1.0);
    assert_eq!((first.starts.len(), second.starts.len()), (10, 10));
    // A run that is closed leaves no leader behind.
    let mut third = World::new(settings(10), Readable::AtEnd, |_| Some(8));
    let mut fourth = World::new(settings(10), Readable::AtEnd, |_| Some(8));
    for world in [&mut third, &mut fourth] {
        world.scheduler.add_queue(Arc::clone(&scope), world.now);
        world.accept(1, 0, 10);
        world.play(0.0);
    }
    assert_eq!((third.starts.len(), fourth.starts.len()), (1, 0));
    third.scheduler.close(third.now);
    fourth.play(0.5);
    assert_eq!(fourth.starts.len(), 1);
}

#[test]
fn conversations_read_the_head_of_their_first_round() {
    let mut world = World::new(settings(10), Readable::AtEnd, one);
    world.accept(0, 0, 4);
    world.play(0.5);
    world.in_flight.clear();
    world.scheduler.end_round(0, Some(Usage { input: 1, ..Usage::default() }), world.now);
    world.play(0.6);
    assert_eq!(world.order(), [0, 1, 2, 3], "the round's reply has ended");
    assert_eq!(world.scheduler.next_round(0, None, world.now), Ok(()));
    world.play(0.7);
    assert_eq!(world.starts.last().map(|(_, item, attempt)| (*item, *attempt)), Some((0, 2)));
}

#[test]
fn requests_that_no_longer_begin_as_told_are_counted_apart() {
    let mut world = World::new(settings(4), Readable::AtEnd, one);
    world.changed = vec![0, 5];
    world.accept(0, 0, 20);
    assert_eq!(world.scheduler.reported_head(5), Some(7));
    world.finish();
    let counts = world.scheduler.cache_counts();
    assert_eq!(counts.changed, 2);
    assert_eq!(counts.by_name().iter().map(|(_, count)| count).sum::<u64>(), 20);
    assert_eq!((counts.hits, counts.first), (world.hits, 0), "the leader was one of them");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever heads items have and however attempts end, each starts one attempt at a time and ends once.
    #[test]
    fn no_item_is_lost_or_started_twice(
        table in prop::collection::vec((0u8..8, 1u32..80, 0u64..6), 1..200),
        workers in 1usize..12, at_end in any::<bool>(), told in 0u64..200, cancels in prop::collection::vec(0u64..200, 0..5),
        rate in prop::option::of(30.0f64..6000.0), stops in prop::option::of(0.0f64..60.0),
    ) {
        let items = table.len() as u64;
        let limits = rate.map(|amount| Limit { measure: Measure::Requests, amount, per: SECOND * 60 }).into_iter().collect();
        let settings = Settings {
            limits, max_rate_limit_retries: 5, attempt_timeout: Some(SECOND * 5), ..settings(workers)
        };
        let readable = if at_end { Readable::AtEnd } else { Readable::AtFirstByte };
        let heads = table.clone();
        let mut world = World::new(settings, readable, move |item| {
            Some(heads[item as usize % heads.len()].2).filter(|head| *head > 0)
        });
        world.fate = Box::new(move |item, attempt| {
            let (roll, tenths, _) = table[(item as usize * 31 + attempt as usize * 17) % table.len()];
            let (outcome, reads) = match roll {
                0 => (Err(LIMITED), false),
                1 => (Err(RETRY), false),
                2 => (Err(RETRY), true),
                3 => (Err(Failure::Permanent), item % 2 == 0),
                _ => (Ok(()), true),
            };
            Fate { takes: SECOND * tenths / 10, outcome, reads }
        });
        world.tell_heads(0, told.min(items));
        world.scheduler.keep_open(true);
        world.scheduler.accept(0, 0, items / 2, world.now);
        world.scheduler.accept(0, 3, items / 4, world.now);
        world.play(1.0);
        let left = items - items / 2 - items / 4;
        world.tell_heads(0, items);
        world.scheduler.accept(0, -1, left, world.now);
        for item in cancels {
            world.scheduler.cancel(item % items, world.now);
        }
        world.scheduler.keep_open(false);
        if let Some(seconds) = stops {
            world.play(seconds);
            world.scheduler.stop(Stop::Interrupted, false, world.now);
        }
        world.finish();
        prop_assert!(world.peak <= workers);
        prop_assert_eq!(world.scheduler.stats().processed, items);
        prop_assert!(world.scheduler.queues.iter().all(|queue| queue.fresh.is_empty() && queue.unread.is_empty()));
    }
}
