//! Tests of the pool: seats are given, claimed and given back; members are compared and left out.

use super::health::Fault;
use super::*;
use crate::engine::measure::{Limit, Measure};
use crate::engine::scope::Scope;

const SECOND: Duration = Duration::from_secs(1);

fn pool(members: usize) -> (Arc<Pool>, Vec<Arc<Scope>>) {
    let scopes: Vec<Arc<Scope>> = (0..members).map(|_| Arc::default()).collect();
    let reasons = Reasons::default();
    let part = |scope: &Arc<Scope>| Part {
        scope: Arc::clone(scope),
        weight: 1.0,
        tier: 0,
        reasons,
        endpoint: 1,
        is_own_server: true,
    };
    (Arc::new(Pool::new(scopes.iter().map(part).collect(), When::Tail, 1)), scopes)
}

fn joined(pool: &Arc<Pool>, now: Instant) -> (Scope, Joined) {
    let scope = Scope::of_seats(Arc::<Pool>::clone(pool));
    let run = scope.join(Arc::new(|| ()), &[], None, Control::PaceAndConcurrency, now);
    (scope, run)
}

fn end(pool: &Pool, place: &Place, ending: Ending, now: Instant) -> Option<News> {
    pool.ended(place, &Report { used: Used::Rejected, ..Report::of(ending) }, now)
}

fn failed() -> Ending {
    Ending::Failed { fault: Fault::Server, overloaded: false }
}

/// A hundred requests fail, whoever is asked.
fn fail_often(pool: &Pool, scope: &Scope, run: Joined, now: Instant) -> Vec<News> {
    let mut ejected = Vec::new();
    for _ in 0..100 {
        let ticket = scope.admit(run, Estimate::default(), now).unwrap();
        let place = pool.claim(None, now).unwrap();
        ejected.extend(end(pool, &place, failed(), now));
        scope.reconcile(&ticket, Used::Unknown, Signal::None, now);
    }
    ejected
}

#[test]
fn a_scope_admits_as_many_as_members_have_room_for() {
    let now = Instant::now();
    let (pool, _) = pool(2);
    let (scope, run) = joined(&pool, now);
    let tickets: Vec<_> = (0..16).map(|_| scope.admit(run, Estimate::default(), now).unwrap()).collect();
    assert_eq!(scope.admit(run, Estimate::default(), now).unwrap_err().cause, Cause::Concurrency);
    let places: Vec<_> = (0..16).map(|_| pool.claim(None, now).unwrap()).collect();
    assert!(pool.claim(None, now).is_none());
    assert_eq!(places.iter().filter(|place| place.member == 0).count(), 8);
    end(&pool, &places[0], Ending::Answered, now + SECOND);
    scope.reconcile(&tickets[0], Used::Unknown, Signal::Succeeded, now + SECOND);
    assert!(scope.admit(run, Estimate::default(), now + SECOND).is_ok());
}

#[test]
fn a_seat_that_nobody_claims_is_given_back() {
    let now = Instant::now();
    let (pool, _) = pool(1);
    let (scope, run) = joined(&pool, now);
    for _ in 0..100 {
        let ticket = scope.admit(run, Estimate::default(), now).unwrap();
        scope.reconcile(&ticket, Used::NotSent, Signal::None, now);
    }
    assert!(pool.claim(None, now).is_none());
    assert_eq!(pool.state().members[0].load(), 0.0);
}

#[test]
fn a_request_that_moves_on_is_not_held_by_the_concurrency_that_was_found() {
    let now = Instant::now();
    let (pool, scopes) = pool(2);
    let (scope, run) = joined(&pool, now);
    while scope.admit(run, Estimate::default(), now).is_ok() {}
    let place = pool.claim(None, now).unwrap();
    end(&pool, &place, failed(), now);
    let mut tried = Set::default();
    tried.add(place.member);
    let next = pool.take(tried, 0, Estimate::default(), true, now).unwrap().unwrap();
    assert_ne!(next.member, place.member);
    end(&pool, &next, failed(), now);
    tried.add(next.member);
    assert!(pool.take(tried, 0, Estimate::default(), true, now).unwrap().is_none(), "nobody is left");
    // But by limits.
    let limit = Limit { measure: Measure::Requests, amount: 1.0, per: 60 * SECOND };
    scopes[next.member].join(Arc::new(|| ()), &[limit], Some(1.0), Control::Fixed, now);
    let mut tried = Set::default();
    tried.add(place.member);
    while let Ok(Some(_)) = pool.take(tried, 0, Estimate::default(), false, now) {}
    let blocked = pool.take(tried, 0, Estimate::default(), false, now).unwrap_err();
    assert!(blocked.cause == Cause::Quota(Measure::Requests) && blocked.until.is_some());
}

#[test]
fn a_member_without_its_key_is_dropped_but_not_the_last() {
    let now = Instant::now();
    let (pool, _) = pool(2);
    let (scope, run) = joined(&pool, now);
    let mut dropped = Vec::new();
    for _ in 0..20 {
        let ticket = scope.admit(run, Estimate::default(), now).unwrap();
        let place = pool.claim(None, now).unwrap();
        dropped.extend(end(&pool, &place, Ending::Dead, now));
        scope.reconcile(&ticket, Used::Unknown, Signal::None, now);
    }
    assert_eq!((dropped.len(), pool.dropped().len()), (1, 1), "{dropped:?}");
}

#[test]
fn at_most_half_of_the_members_are_left_out() {
    let now = Instant::now();
    let (pool, _) = pool(4);
    let (scope, run) = joined(&pool, now);
    let ejected = fail_often(&pool, &scope, run, now);
    assert_eq!(ejected.len(), 2, "{ejected:?}");
    assert!(matches!(ejected[0], News::Ejected(_)));
}

#[test]
fn while_some_are_left_out_the_limits_of_the_others_are_waited_for() {
    let now = Instant::now();
    let (pool, _) = pool(4);
    let (scope, run) = joined(&pool, now);
    fail_often(&pool, &scope, run, now);
    let blocked = (0..100).find_map(|_| scope.admit(run, Estimate::default(), now).err()).unwrap();
    assert_eq!(blocked.cause, Cause::Concurrency);
    assert!(blocked.until.is_some(), "the probe is due then");
}

#[test]
fn requests_that_begin_alike_go_to_one_member_until_that_has_more_to_do() {
    let now = Instant::now();
    let (pool, _) = pool(4);
    let (scope, run) = joined(&pool, now);
    let mut count = [0; 4];
    for _ in 0..400 {
        let ticket = scope.admit(run, Estimate::default(), now).unwrap();
        let place = pool.claim(Some(17), now).unwrap();
        count[place.member] += 1;
        end(&pool, &place, Ending::Answered, now);
        scope.reconcile(&ticket, Used::Unknown, Signal::Succeeded, now);
    }
    assert_eq!(count.iter().max(), Some(&400), "{count:?}");
    let mut places = Vec::new();
    while scope.admit(run, Estimate::default(), now).is_ok() {
        places.push(pool.claim(Some(17), now).unwrap());
    }
    for member in 0..4 {
        assert!(places.iter().any(|place| place.member == member), "it overflows");
    }
}

/// How many of 10,000 requests go to each member, by which of 100 documents they begin with. The oldest of those in flight
/// ends first.
fn by_document(pool: &Arc<Pool>, in_flight: usize) -> Vec<[u32; 8]> {
    let mut now = Instant::now();
    let scope = Scope::of_seats(Arc::<Pool>::clone(pool));
    let run = scope.join(Arc::new(|| ()), &[], None, Control::Fixed, now);
    let mut random = choice::Random::new(3);
    let mut open = std::collections::VecDeque::new();
    let mut counts = vec![[0; 8]; 100];
    for _ in 0..10_000 {
        if open.len() == in_flight {
            let (place, ticket) = open.pop_front().unwrap();
            now += SECOND / 100;
            end(pool, &place, Ending::Answered, now);
            scope.reconcile(&ticket, Used::Unknown, Signal::Succeeded, now);
        }
        let document = random.below(100);
        let ticket = scope.admit(run, Estimate::default(), now).unwrap();
        let place = pool.claim(Some((document as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)), now).unwrap();
        counts[document][place.member] += 1;
        open.push_back((place, ticket));
    }
    counts
}

#[test]
fn requests_that_begin_alike_stay_together_however_many_are_in_flight() {
    let found = [(2, 2), (2, 8), (2, 60), (4, 4), (4, 16), (4, 64), (8, 64)].map(|(members, in_flight)| {
        let counts = by_document(&pool(members).0, in_flight);
        (members, in_flight, counts.iter().map(|counts| counts.iter().max().unwrap()).sum::<u32>())
    });
    assert!(found.iter().all(|(_, _, together)| *together > 9_000), "{found:?}");
}

#[test]
fn requests_that_begin_alike_stay_among_members_with_prompt_caches() {
    let part = |is_own_server| Part {
        scope: Arc::default(),
        weight: 1.0,
        tier: 0,
        reasons: Reasons::default(),
        endpoint: 1,
        is_own_server,
    };
    let pool = Arc::new(Pool::new([false, true, true].map(part).to_vec(), When::Never, 1));
    assert!(pool.keeps_prefixes());
    let counts = by_document(&pool, 30);
    let first: u32 = counts.iter().map(|counts| counts[0]).sum();
    assert!((2_500..4_200).contains(&first), "as many as without prefixes: {first}");
    let apart: u32 = counts.iter().map(|counts| counts[1].min(counts[2])).sum();
    assert!(apart < 300, "{apart}");
    assert!(!Pool::new([false, true].map(part).to_vec(), When::Never, 1).keeps_prefixes(), "there is no choice");
}

#[test]
fn a_slow_member_is_asked_only_where_no_other_can_be_and_now_and_then() {
    let mut now = Instant::now();
    let (pool, _) = pool(2);
    let (scope, run) = joined(&pool, now);
    let mut requested = [0; 2];
    for _ in 0..400 {
        let ticket = scope.admit(run, Estimate::default(), now).unwrap();
        let place = pool.claim(None, now).unwrap();
        requested[place.member] += 1;
        now += if place.member == 1 { SECOND } else { SECOND / 10 };
        end(&pool, &place, Ending::Answered, now);
        scope.reconcile(&ticket, Used::Unknown, Signal::Succeeded, now);
    }
    assert!((5..60).contains(&requested[1]), "{requested:?}");
}

#[test]
fn keys_of_one_account_share_its_limits_and_others_do_not() {
    let now = Instant::now();
    let (pool, scopes) = pool(3);
    let (scope, run) = joined(&pool, now);
    for _ in 0..60 {
        let ticket = scope.admit(run, Estimate::default(), now).unwrap();
        let place = pool.claim(None, now).unwrap();
        let account = Some(if place.member == 2 { 8 } else { 7 });
        pool.ended(&place, &Report { account, ..Report::of(Ending::Answered) }, now + SECOND);
        scope.reconcile(&ticket, Used::Unknown, Signal::Succeeded, now);
    }
    let state = pool.state();
    // Those of the first, whoever answered first: so in all processes.
    assert!(state.members[..2].iter().all(|member| Arc::ptr_eq(&member.scope, &scopes[0])));
    assert!(Arc::ptr_eq(&state.members[2].scope, &scopes[2]));
    drop(state);
    assert!(scope.admit(run, Estimate::default(), now).is_ok());
    scope.leave(run, now);
}
