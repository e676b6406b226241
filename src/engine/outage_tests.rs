//! Tests of what the scope makes of failures.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn of(item: ItemIndex) -> Evidence {
    let (who, at_least) = ((0, item), Duration::ZERO);
    Evidence { who, counts: true, available: 1000, least: LEAST_ITEMS, together: 1, at_least }
}

/// A scope whose provider has answered once.
fn alive(now: Instant) -> Outages {
    let mut outages = Outages::default();
    let number = outages.started(now);
    assert!(!outages.answered(number));
    outages
}

fn fail_all(outages: &mut Outages, items: u64, now: Instant) -> Standing {
    let numbers: Vec<u64> = (0..items).map(|_| outages.started(now)).collect();
    let mut standing = None;
    for (item, number) in (0..).zip(numbers) {
        standing = Some(outages.failed(number, &of(item), now).0);
    }
    standing.unwrap()
}

#[test]
fn a_few_that_hang_do_not_hide_an_outage() {
    let mut now = Instant::now();
    let mut outages = alive(now);
    // Of the first twenty three were answered and two hang; all else fails at once.
    let numbers: Vec<u64> = (0..20).map(|_| outages.started(now)).collect();
    let failed = |outages: &mut Outages, number: u64, item, now| outages.failed(number, &of(item), now).1;
    assert!(!failed(&mut outages, numbers[0], 0, now));
    for number in &numbers[1..15] {
        assert!(!failed(&mut outages, *number, *number, now));
    }
    for number in &numbers[15..18] {
        assert!(!outages.answered(*number));
    }
    let mut declared = None;
    for item in 20..100 {
        now += Duration::from_millis(10);
        let number = outages.started(now);
        if failed(&mut outages, number, item, now) {
            declared = Some(item);
            break;
        }
    }
    assert!(declared.is_some_and(|item| item < 60), "{declared:?}");
}

#[test]
fn when_all_fail_it_is_an_outage_with_one_probe_at_a_time() {
    let now = Instant::now();
    let mut outages = alive(now);
    let Standing::Away(epoch) = fail_all(&mut outages, 30, now) else { panic!("it is an outage") };
    assert_eq!(outages.fate(epoch), Fate::Outage);
    assert_eq!(outages.ready(now), Err(now + FIRST_PROBE));
    let mut at = now;
    let mut probes = 0;
    while at < now + SECOND * 60 {
        if let Err(until) = outages.ready(at) {
            at = until;
            continue;
        }
        let probe = outages.started(at);
        probes += 1;
        assert!(outages.ready(at + PROBE_EVERY).is_err(), "one at a time");
        at += Duration::from_millis(3);
        outages.failed(probe, &of(probes), at);
    }
    assert!((40..=50).contains(&probes), "{probes}");
    at = outages.ready(at).err().unwrap_or(at);
    let probe = outages.started(at);
    assert!(outages.answered(probe) && outages.view().is_none() && outages.ready(at).is_ok());
    assert_eq!(outages.fate(epoch), Fate::Outage, "it is remembered as one");
}

#[test]
fn one_bad_item_among_good_ones_is_none() {
    let now = Instant::now();
    let mut outages = alive(now);
    for _ in 0..100 {
        let (bad, good) = (outages.started(now), outages.started(now));
        let (standing, _) = outages.failed(bad, &of(7), now);
        let Standing::Suspected(epoch) = standing else { panic!("{standing:?}") };
        assert_eq!(outages.fate(epoch), Fate::Open);
        assert!(outages.answered(good));
        assert_eq!(outages.fate(epoch), Fate::Counts);
    }
    // Nor is it when it is tried alone.
    for _ in 0..100 {
        let bad = outages.started(now);
        assert!(matches!(outages.failed(bad, &of(7), now).0, Standing::Suspected(_)));
    }
}

#[test]
fn failures_that_come_at_once_do_not_weigh_more_than_answers_that_take_their_time() {
    // A hundred at once; whoever fails does so at once and is replaced, answers take a second.
    for dead in [5, 3] {
        let mut random = fastrand::Rng::with_seed(9);
        let mut now = Instant::now();
        let mut outages = alive(now);
        let mut on: VecDeque<(Instant, u64)> = VecDeque::new();
        let mut item = 0;
        for _ in 0..20_000 {
            while on.len() < 100 {
                let number = outages.started(now);
                item += 1;
                if random.u32(0..dead) == 0 {
                    let (standing, _) = outages.failed(number, &of(item), now);
                    assert!(matches!(standing, Standing::Suspected(_)), "one of {dead} is dead");
                } else {
                    on.push_back((now + SECOND, number));
                }
                now += Duration::from_millis(1);
            }
            let (ends, number) = on.pop_front().unwrap();
            now = now.max(ends);
            outages.answered(number);
        }
    }
}

#[test]
fn answers_to_what_was_sent_before_prove_nothing() {
    let now = Instant::now();
    let mut outages = alive(now);
    let before: Vec<u64> = (0..50).map(|_| outages.started(now)).collect();
    assert!(matches!(fail_all(&mut outages, 5, now), Standing::Suspected(_)));
    assert!(before.iter().all(|number| !outages.answered(*number)));
    assert!(matches!(fail_all(&mut outages, 30, now), Standing::Away(_)));
    assert!(before.iter().all(|number| !outages.answered(*number)));
    assert!(outages.view().is_some());
}

#[test]
fn a_streak_that_can_decide_neither_way_looks_at_what_is_sent_next() {
    let now = Instant::now();
    // What was sent after the failure that opens it had been answered before, and so is not heard of again.
    let mut outages = alive(now);
    let bad = outages.started(now);
    for _ in 0..10 {
        let number = outages.started(now);
        outages.answered(number);
    }
    assert!(matches!(outages.failed(bad, &of(100), now).0, Standing::Suspected(_)));
    assert!(matches!(fail_all(&mut outages, 20, now), Standing::Away(_)));
    // More than a fifth of the first are answered, but late: others have failed meanwhile.
    let mut outages = alive(now);
    let first = outages.started(now);
    let Standing::Suspected(epoch) = outages.failed(first, &of(100), now).0 else { panic!("one is none") };
    let late: Vec<u64> = (0..5).map(|_| outages.started(now)).collect();
    for item in 0..30 {
        let number = outages.started(now);
        assert_eq!(outages.failed(number, &of(item), now).0, Standing::Suspected(epoch));
    }
    assert!(late.iter().all(|number| !outages.answered(*number)));
    assert_eq!(fail_all(&mut outages, 19, now), Standing::Suspected(epoch));
    let number = outages.started(now);
    assert_eq!(outages.failed(number, &of(19), now), (Standing::Away(epoch), true), "the same streak");
}

#[test]
fn items_that_failed_before_among_others_tell_of_themselves() {
    let now = Instant::now();
    let mut outages = alive(now);
    for item in 0..1000 {
        let number = outages.started(now);
        let evidence = Evidence { counts: false, ..of(item) };
        assert!(matches!(outages.failed(number, &evidence, now).0, Standing::Suspected(_)));
    }
}

#[test]
fn where_few_items_are_left_few_are_enough() {
    let now = Instant::now();
    for (available, least, enough) in [(5, 3, 5), (2, 3, 3), (1, 1, 1)] {
        let mut outages = alive(now);
        for item in 1..=enough {
            let number = outages.started(now);
            let (standing, _) = outages.failed(number, &Evidence { available, least, ..of(item) }, now);
            assert_eq!(matches!(standing, Standing::Away(_)), item == enough, "{item} of {available}");
        }
    }
    // Where nothing has ever answered, a small run ends as it would.
    let mut outages = Outages::default();
    assert!(matches!(fail_all(&mut outages, 19, now), Standing::Suspected(_)));
    assert!(matches!(fail_all(&mut outages, 20, now), Standing::Away(_)));
    assert!(!outages.view().unwrap().lived);
}

#[test]
fn items_that_share_a_request_count_as_one() {
    let now = Instant::now();
    let mut outages = alive(now);
    for pack in 0..20 {
        let numbers: Vec<u64> = (0..100).map(|_| outages.started(now)).collect();
        for (item, number) in (pack * 100..).zip(numbers) {
            let (standing, _) = outages.failed(number, &Evidence { available: 10_000, together: 100, ..of(item) }, now);
            assert_eq!(matches!(standing, Standing::Away(_)), item == 1999, "{item}");
        }
    }
}

#[test]
fn the_servers_word_puts_the_probe_off_and_a_probe_that_hangs_does_not_block() {
    let now = Instant::now();
    let mut outages = alive(now);
    let first = outages.started(now);
    outages.failed(first, &Evidence { at_least: SECOND * 20, ..of(100) }, now);
    fail_all(&mut outages, 30, now);
    assert_eq!(outages.ready(now), Err(now + SECOND * 20));
    let at = now + SECOND * 20;
    let hangs = outages.started(at);
    assert_eq!(outages.ready(at), Err(at + LONG_PROBE));
    let second = outages.started(at + LONG_PROBE);
    outages.ended(second, false, at + LONG_PROBE);
    assert!(outages.ready(at + LONG_PROBE).is_ok(), "one that was not sent is none");
    assert!(outages.answered(hangs));
}
