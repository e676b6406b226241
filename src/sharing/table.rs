//! Who holds which share of limits. Pure: the time is an argument.
//!
//! Each process that is at work holds a lease and renews it; a lease that is not renewed ends, so that a dead process
//! gives back its share. The shares are max-min fair (Bertsekas and Gallager, *Data Networks*, 6.5): whoever needs less
//! than an equal part gets what it needs, the others share the rest. Those who want all that they can get are kept even
//! over time: who has had more than the others, because it came first for instance, gets less for a while. All parts
//! together are never more than the whole: nobody takes what another has not given back.

use serde::{Deserialize, Serialize};

use super::jobs::Jobs;
use super::{Demand, Share};
use crate::engine::share::NOTHING;

/// How long a lease holds without being renewed, milliseconds.
const LEASE_MS: u64 = 3000;
/// A process that was not held back may need so much more in the next moment.
const GROWTH: f64 = 1.5;
/// And never gets less than this part of an equal share.
const LEAST: f64 = 0.1;
/// Whoever comes so soon after the first, seconds, has begun together with it.
const TOGETHER: f64 = 3.0;
/// What somebody has had more than others is made up for within about so many seconds ...
const EVEN_WITHIN: f64 = 3.0;
/// ... but whoever wants something gets this part of its share at least.
const WHILE_OTHERS_CATCH_UP: f64 = 0.1;
/// Slowest pace of all together, attempts per second.
const SLOWEST: f64 = 1.0 / 60.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lease {
    scope: String,
    holder: String,
    /// When it ends, milliseconds.
    until: u64,
    /// The part of the limits that it can use; `None`: as much as there is.
    demand: Option<f64>,
    /// The part that it has.
    #[serde(default)]
    part: f64,
    /// What it has had before its last renewal, in seconds of the whole limits; only differences mean something.
    #[serde(default)]
    had: f64,
    /// When that was, milliseconds.
    #[serde(default)]
    at: u64,
    /// Its part of the group's pace, as it was told, or what it has found by itself.
    #[serde(default)]
    pace: Option<f64>,
    /// Rate limits of others that it has not been told of.
    #[serde(default)]
    unheard: u32,
}

impl Lease {
    fn new(scope: &str, holder: &str, demand: &Demand, now: u64) -> Self {
        let (scope, holder, until) = (scope.to_owned(), holder.to_owned(), now + LEASE_MS);
        let demand = demand.part;
        Self { scope, holder, until, demand, part: 0.0, had: 0.0, at: now, pace: None, unheard: 0 }
    }

    fn is_of(&self, scope: &str, holder: &str) -> bool {
        self.holder == holder && self.scope == scope
    }

    /// What it has had until now.
    #[allow(clippy::cast_precision_loss)]
    fn had_by(&self, now: u64) -> f64 {
        self.had + self.part * now.saturating_sub(self.at).min(LEASE_MS) as f64 / 1000.0
    }
}

/// What those who share a scope have found out together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Group {
    scope: String,
    /// Attempts per second that all together may start, once everybody has found a pace.
    #[serde(default)]
    pace: Option<f64>,
    /// Until then everybody keeps what it had before this table was lost, milliseconds.
    #[serde(default)]
    restored_until: u64,
}

/// The leases of all scopes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Table {
    leases: Vec<Lease>,
    #[serde(default)]
    groups: Vec<Group>,
    /// What those who share may also have together.
    #[serde(default, skip_serializing_if = "Jobs::is_empty")]
    pub jobs: Jobs,
}

impl Table {
    /// Renews a lease, or takes it. `now`: milliseconds, of whatever clock, but always of the same.
    pub fn renew(&mut self, scope: &str, holder: &str, demand: &Demand, now: u64) -> Share {
        let demand = &sane(demand);
        self.forget_the_dead(now);
        let mut group = self.take_group(scope, demand, now);
        let before = self.leases.iter().position(|lease| lease.is_of(scope, holder));
        let before = before.map(|place| self.leases.swap_remove(place));
        let others: Vec<&Lease> = self.leases.iter().filter(|lease| lease.scope == scope).collect();
        let mut mine = Lease::new(scope, holder, demand, now);
        mine.had = had(before.as_ref(), &mine, &others, now);
        let taken: f64 = others.iter().map(|lease| lease.part).sum();
        let is_restored = before.is_none() && demand.held > 0.0 && now < group.restored_until;
        let wanted = match &before {
            _ if now >= group.restored_until => fair(others.iter().copied().chain([&mine]), now),
            Some(lease) => lease.part,
            None => demand.held,
        };
        mine.part = wanted.min(1.0 - taken).max(0.0);
        mine.pace = demand.pace.or(before.as_ref().and_then(|lease| lease.pace));
        let told = group.pace_of(&mine, before.as_ref(), &others, now);
        mine.pace = told.or(mine.pace);
        let share = Share {
            part: mine.part,
            is_shared: !others.is_empty(),
            is_new: before.is_none() && !is_restored,
            pace: told,
            refused: before.map_or(0, |lease| lease.unheard),
        };
        for other in self.leases.iter_mut().filter(|lease| lease.scope == scope) {
            other.unheard = other.unheard.saturating_add(demand.refused);
        }
        self.leases.push(mine);
        self.groups.push(group);
        share
    }

    fn forget_the_dead(&mut self, now: u64) {
        self.leases.retain(|lease| lease.until > now);
        let leases = &self.leases;
        self.groups.retain(|group| leases.iter().any(|lease| lease.scope == group.scope));
    }

    /// The group of a scope. Where nobody is known, but somebody has a share already, a table was lost: until the others
    /// have come back too, everybody keeps what it had, so that all together have no more than the whole.
    fn take_group(&mut self, scope: &str, demand: &Demand, now: u64) -> Group {
        if let Some(place) = self.groups.iter().position(|group| group.scope == scope) {
            return self.groups.swap_remove(place);
        }
        let restored_until = if demand.held > 0.0 { now + LEASE_MS } else { 0 };
        Group { scope: scope.to_owned(), pace: None, restored_until }
    }

    /// Gives back a share, or what is left of an allowance.
    pub fn leave(&mut self, scope: &str, holder: &str) {
        self.jobs.leave(scope, holder);
        self.leases.retain(|lease| !lease.is_of(scope, holder));
    }

    /// No lease ends later than one that is made now: it is of a clock that was wrong, and would never end.
    pub fn forget_the_future(&mut self, now: u64) {
        let latest = now.saturating_add(2 * LEASE_MS);
        self.leases.retain(|lease| lease.until <= latest);
    }
}

impl Group {
    /// This one's part of what all may start. What it has changed since it was told changes the whole by as much: it
    /// grew for a while, or met a rate limit.
    fn pace_of(&mut self, mine: &Lease, before: Option<&Lease>, others: &[&Lease], now: u64) -> Option<f64> {
        match (&mut self.pace, mine.pace, before.and_then(|lease| lease.pace)) {
            (Some(whole), Some(found), Some(told)) => *whole = (*whole + found - told).max(SLOWEST),
            (Some(_), ..) => {}
            (whole @ None, ..) if now >= self.restored_until => {
                *whole = others.iter().copied().chain([mine]).map(|lease| lease.pace).sum();
            }
            (None, ..) => {}
        }
        self.pace.filter(|_| mine.part >= NOTHING).map(|whole| whole * mine.part)
    }
}

/// What is said by whoever, within what has a meaning.
fn sane(demand: &Demand) -> Demand {
    let positive = |value: &f64| value.is_finite() && *value > 0.0;
    Demand {
        part: demand.part.map(|part| if positive(&part) { part } else { 0.0 }),
        held: if positive(&demand.held) { demand.held.min(1.0) } else { 0.0 },
        pace: demand.pace.filter(positive),
        refused: demand.refused,
    }
}

/// What somebody has had when it renews its lease.
fn had(before: Option<&Lease>, mine: &Lease, others: &[&Lease], now: u64) -> f64 {
    match before {
        Some(lease) if mine.demand.is_none() => lease.had_by(now),
        None if others.iter().map(|lease| lease.had_by(now)).sum::<f64>() <= TOGETHER => 0.0,
        // Who comes later, or does not want all that there is, has saved nothing up.
        _ => had_on_average(others, now).unwrap_or(0.0),
    }
}

/// What those have had who want all that they can get, or else everybody, on average.
#[allow(clippy::cast_precision_loss)]
fn had_on_average(leases: &[&Lease], now: u64) -> Option<f64> {
    let average = |had: Vec<f64>| (!had.is_empty()).then(|| had.iter().sum::<f64>() / had.len() as f64);
    let wanting = leases.iter().filter(|lease| lease.demand.is_none()).map(|lease| lease.had_by(now)).collect();
    average(wanting).or_else(|| average(leases.iter().map(|lease| lease.had_by(now)).collect()))
}

/// The part of the last of those who share.
fn fair<'a>(leases: impl Iterator<Item = &'a Lease>, now: u64) -> f64 {
    biased(&leases.collect::<Vec<_>>(), now).pop().unwrap_or(1.0)
}

/// The parts of one whole, with a bias for those who have had less than others; they add up to one.
fn biased(leases: &[&Lease], now: u64) -> Vec<f64> {
    let demands: Vec<Option<f64>> = leases.iter().map(|lease| lease.demand).collect();
    let mut parts = parts(&demands);
    let Some(usual) = had_on_average(leases, now) else { return parts };
    let is_wanting = |place: &usize| demands[*place].is_none();
    let wanting: Vec<usize> = (0..parts.len()).filter(is_wanting).collect();
    let whole: f64 = wanting.iter().map(|place| parts[*place]).sum();
    for place in &wanting {
        let part = parts[*place];
        let bias = (usual - leases[*place].had_by(now)) / EVEN_WITHIN;
        parts[*place] = (part + bias).clamp(part * WHILE_OTHERS_CATCH_UP, whole.max(part));
    }
    let sum: f64 = wanting.iter().map(|place| parts[*place]).sum();
    if sum > 0.0 {
        wanting.iter().for_each(|place| parts[*place] *= whole / sum);
    }
    parts
}

/// The parts of one whole by demand, max-min fair; they add up to one.
#[allow(clippy::cast_precision_loss)]
fn parts(demands: &[Option<f64>]) -> Vec<f64> {
    let count = demands.len().max(1) as f64;
    let wanted: Vec<f64> = demands
        .iter()
        .map(|demand| demand.map_or(f64::INFINITY, |demand| (demand * GROWTH).max(LEAST / count)))
        .collect();
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|one, other| wanted[*one].total_cmp(&wanted[*other]));
    let mut parts = vec![0.0; wanted.len()];
    let (mut left, mut others) = (1.0, wanted.len() as f64);
    for index in order {
        parts[index] = wanted[index].min(left / others);
        left -= parts[index];
        others -= 1.0;
    }
    // What nobody wants at the moment is there for whoever wants it next.
    parts.iter_mut().for_each(|part| *part += left / count);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(table: &mut Table, holder: &str, now: u64) -> f64 {
        table.renew("s", holder, &Demand::default(), now).part
    }

    #[test]
    fn equal_shares_and_what_the_dead_give_back() {
        let mut table = Table::default();
        let share = table.renew("s", "one", &Demand::default(), 1000);
        assert_eq!(share, Share { part: 1.0, is_shared: false, is_new: true, pace: None, refused: 0 });
        // Nothing is there before the other has given it back.
        assert!(part(&mut table, "two", 1100) < 1e-9);
        // Who has had all gets less for a while.
        assert!(part(&mut table, "one", 1500) < 0.5);
        assert!(part(&mut table, "two", 1600) > 0.5);
        // Two is not heard of any more.
        assert!(part(&mut table, "one", 4500) < 0.5);
        assert!((part(&mut table, "one", 4601) - 1.0).abs() < 1e-9);
        part(&mut table, "two", 4700);
        table.leave("s", "two");
        assert!((part(&mut table, "one", 4701) - 1.0).abs() < 1e-9);
        // Another scope in the same table has nothing to do with it.
        assert!((table.renew("t", "two", &Demand::default(), 4800).part - 1.0).abs() < 1e-9);
    }

    /// Processes that want all that they can get and use all that they have, each with beats of its own. Returns what
    /// each has used from its start on, in seconds' worth of the whole, and the most that all had at one time.
    fn simulated(starts: &[u64], until: u64) -> (Vec<f64>, f64) {
        let mut table = Table::default();
        let count = starts.len();
        let (mut used, mut parts, mut most) = (vec![0.0; count], vec![0.0; count], 0.0f64);
        let mut next = starts.to_vec();
        for now in 0..until {
            for number in 0..count {
                if now == next[number] {
                    parts[number] = part(&mut table, &number.to_string(), 1_000_000 + now);
                    next[number] += if parts[number] < 1e-3 { 100 } else { 500 };
                }
                used[number] += parts[number] / 1000.0;
            }
            most = most.max(parts.iter().sum());
        }
        (used, most)
    }

    #[test]
    fn whoever_comes_first_has_no_more_than_others_in_the_end() {
        for starts in [[0, 130, 170, 480], [0, 600, 1400, 2300]] {
            let (used, most) = simulated(&starts, 20_000);
            let equal = used.iter().sum::<f64>() / 4.0;
            assert!(used.iter().all(|one| (one - equal).abs() < 0.05 * equal), "{used:?}");
            assert!(equal > 4.8, "all of it is used: {used:?}");
            assert!(most < 1.0 + 1e-9, "never more than the whole");
        }
    }

    #[test]
    fn a_latecomer_gets_its_part_and_is_owed_nothing() {
        let (used, most) = simulated(&[0, 10_000], 20_000);
        assert!(used[1] > 4.0 && used[1] < 5.1, "{used:?}");
        assert!(most < 1.0 + 1e-9);
    }

    fn demand(held: f64, pace: Option<f64>, refused: u32) -> Demand {
        Demand { part: None, held, pace, refused }
    }

    #[test]
    fn a_table_that_was_lost_gives_everybody_what_it_had() {
        let mut table = Table::default();
        // A newcomer and the second to come back find what the first has left.
        let first = table.renew("s", "one", &demand(0.25, None, 0), 0);
        assert_eq!((first.part, first.is_new), (0.25, false));
        assert_eq!((table.renew("s", "new", &demand(0.0, None, 0), 10)).part, 0.0);
        assert_eq!(table.renew("s", "two", &demand(0.75, None, 0), 20).part, 0.75);
        assert_eq!(table.renew("s", "one", &demand(0.25, None, 0), 500).part, 0.25);
        for now in [1000, 2000, 2900] {
            table.renew("s", "two", &demand(0.75, None, 0), now);
            table.renew("s", "new", &demand(0.0, None, 0), now);
        }
        // Then they share as ever. Who comes back only now is new.
        assert!(table.renew("s", "two", &demand(0.75, None, 0), 3001).part < 0.7);
        assert!(table.renew("s", "one", &demand(0.25, None, 0), 4000).is_new);
    }

    #[test]
    fn rate_limits_are_heard_of_by_the_others_once() {
        let mut table = Table::default();
        let mut renew = |holder, refused, now| table.renew("s", holder, &demand(0.0, None, refused), now).refused;
        assert_eq!([renew("one", 0, 0), renew("two", 0, 10), renew("three", 0, 20)], [0; 3]);
        assert_eq!(renew("one", 3, 500), 0);
        assert_eq!(renew("two", 2, 510), 3);
        assert_eq!([renew("three", 0, 520), renew("one", 0, 1000), renew("one", 0, 1500)], [5, 2, 0]);
    }

    #[test]
    fn the_pace_of_all_is_parted_as_the_limits_are() {
        let mut table = Table::default();
        let mut now = 0;
        let mut turn = |one: (Option<f64>, Option<f64>), two: (Option<f64>, Option<f64>)| {
            now += 500;
            let mut renew = |holder, (part, pace)| {
                let share = table.renew("s", holder, &Demand { part, pace, ..Demand::default() }, now);
                share.pace.map(|pace| (pace, share.part))
            };
            (renew("one", one), renew("two", two))
        };
        // Nothing is known before everybody has found a pace.
        turn((None, None), (None, None));
        assert_eq!(turn((None, Some(30.0)), (None, None)), (None, None));
        let (_, two) = turn((None, Some(30.0)), (None, Some(70.0)));
        assert!((two.unwrap().0 - 100.0 * two.unwrap().1).abs() < 1e-6);
        // One has little to do.
        let mut told = (30.0, two.unwrap().0);
        for _ in 0..40 {
            let (one, two) = turn((Some(0.05), Some(told.0)), (None, Some(told.1)));
            told = (one.unwrap().0, two.unwrap().0);
        }
        assert!((told.0 + told.1 - 100.0).abs() < 1e-6 && told.1 > 90.0, "{told:?}");
        // The other grows, and everybody's part does.
        turn((Some(0.05), Some(told.0)), (None, Some(told.1 + 10.0)));
        let (one, _) = turn((Some(0.05), Some(told.0)), (None, None));
        assert!((one.unwrap().0 / told.0 - 1.1).abs() < 0.01, "{one:?} {told:?}");
    }

    #[test]
    fn whoever_needs_little_leaves_the_rest() {
        let shares = parts(&[Some(0.1), None, None]);
        assert!((shares[0] - 0.15).abs() < 1e-9 && (shares[1] - 0.425).abs() < 1e-9);
        let idle = parts(&[Some(0.0), Some(0.0)]);
        assert!((idle[0] - 0.5).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn parts_add_up_to_one(demands in prop::collection::vec(prop::option::of(0.0f64..2.0), 1..20)) {
            let parts = parts(&demands);
            prop_assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(parts.iter().all(|part| *part > 0.0));
        }

        #[test]
        fn biased_ones_do_too(all in prop::collection::vec((prop::option::of(0.0f64..2.0), 0.0f64..100.0), 1..20)) {
            let lease = |(demand, had): &(Option<f64>, f64)| Lease {
                scope: String::new(), holder: String::new(), until: 0, demand: *demand, part: 0.0, had: *had, at: 0, pace: None, unheard: 0,
            };
            let leases: Vec<Lease> = all.iter().map(lease).collect();
            let parts = biased(&leases.iter().collect::<Vec<_>>(), 0);
            prop_assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(parts.iter().all(|part| *part > 0.0));
        }
    }
}
