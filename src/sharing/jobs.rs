//! A job that several processes work on: what all of them have counted, a cap on its cost, its time, and whether it has
//! to stop. Pure: the time is an argument.
//!
//! The cap is leased out in pieces: each process may spend up to its allowance, and all allowances together are never
//! more than the cap. A report asks for what may be spent until the next one, and gives back the rest; that of a process
//! that died counts as spent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::guard::Stop;

/// Whoever has not reported for so long is gone, milliseconds.
const LEASE_MS: u64 = 10_000;
/// A job of which nothing was heard for so long is forgotten, milliseconds.
const FORGOTTEN_MS: u64 = 24 * 3_600_000;
/// Sums of prices are not exact.
const ROUNDING: f64 = 1e-9;

/// What a process says of its part of a job. All numbers are of all its time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Whatever is counted, by name.
    pub counters: BTreeMap<String, f64>,
    /// What it has spent.
    pub spent: f64,
    /// What it has reserved for requests in flight.
    pub reserved: f64,
    /// What it could spend beyond both until its next report. Until the reply it spends no more than that.
    pub wanted: f64,
    /// What it needs of that to go on at all; 0: anything helps.
    pub least: f64,
    /// The most that the whole job may cost. Of several the least holds.
    pub max_cost: Option<f64>,
    /// How long the whole job may take, seconds from its first report. Of several the least holds.
    pub timeout: Option<f64>,
    /// Why the job has to stop: a category.
    pub stop: Option<String>,
}

/// What it is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What it may have spent and reserved; `None`: there is no cap.
    pub allowance: Option<f64>,
    /// Whether that will never be more: nobody has enough to give back.
    pub is_final: bool,
    /// Why the job has to stop; the first reason that anybody gave.
    pub stop: Option<String>,
    /// How much longer the job may take, seconds; `None`: any time.
    pub left: Option<f64>,
    /// The counters of all, summed.
    pub totals: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Part {
    counters: BTreeMap<String, f64>,
    spent: f64,
    allowance: f64,
    /// When it reported last, milliseconds.
    at: u64,
}

impl Part {
    /// What it may give back: requests in flight may turn out cheaper than reserved.
    fn left(&self, now: u64) -> f64 {
        if self.at + LEASE_MS > now { self.allowance - self.spent } else { 0.0 }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Job {
    parts: BTreeMap<String, Part>,
    max_cost: Option<f64>,
    /// When it has to be over, milliseconds.
    #[serde(default)]
    until: Option<u64>,
    /// When it began, milliseconds.
    #[serde(default)]
    began: u64,
    stop: Option<String>,
}

/// All jobs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Jobs(BTreeMap<String, Job>);

impl Jobs {
    /// Takes the report of one who works on a job.
    pub fn report(&mut self, job: &str, holder: &str, report: Report, now: u64) -> Verdict {
        self.0.retain(|_, job| job.parts.values().any(|part| part.at + FORGOTTEN_MS > now));
        let fresh = || Job { began: now, ..Job::default() };
        self.0.entry(job.to_owned()).or_insert_with(fresh).report(holder, report, now)
    }

    /// Gives back what one who worked on a job has not spent. Its counters stay.
    pub fn leave(&mut self, job: &str, holder: &str) {
        if let Some(part) = self.0.get_mut(job).and_then(|job| job.parts.get_mut(holder)) {
            part.allowance = part.spent;
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn positive(value: f64) -> f64 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}

impl Job {
    fn report(&mut self, holder: &str, report: Report, now: u64) -> Verdict {
        if let Some(cap) = report.max_cost.map(positive) {
            self.max_cost = Some(self.max_cost.map_or(cap, |before| before.min(cap)));
        }
        self.stop = self.stop.take().or(report.stop);
        let left = self.left(report.timeout, now);
        if left.is_some_and(|left| left <= 0.0) && self.stop.is_none() {
            self.stop = Some(Stop::Deadline.name().to_owned());
        }
        let spent = positive(report.spent);
        let claimed = spent + positive(report.reserved);
        let mut mine = Part { counters: report.counters, spent, allowance: claimed, at: now };
        let (mut allowance, mut is_final) = (None, false);
        if let Some(cap) = self.max_cost {
            let others = || self.parts.iter().filter(|(name, _)| *name != holder).map(|(_, part)| part);
            let taken: f64 = others().map(|part| part.allowance).sum();
            let free = (cap - taken - claimed).max(0.0);
            let enough = cap * ROUNDING;
            let least = positive(report.least);
            let more = if least > free + enough { 0.0 } else { positive(report.wanted).min(free) };
            let comes_back: f64 = others().map(|part| part.left(now)).sum();
            mine.allowance += more;
            allowance = Some(mine.allowance);
            is_final = comes_back + free - more < least.max(enough) && more < least.max(enough);
        }
        self.parts.insert(holder.to_owned(), mine);
        Verdict { allowance, is_final, stop: self.stop.clone(), left, totals: self.totals() }
    }

    /// How much longer it may take, seconds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    fn left(&mut self, timeout: Option<f64>, now: u64) -> Option<f64> {
        if let Some(timeout) = timeout.map(positive) {
            let until = self.began.saturating_add((timeout * 1000.0) as u64);
            self.until = Some(self.until.map_or(until, |before| before.min(until)));
        }
        self.until.map(|until| until.saturating_sub(now) as f64 / 1000.0)
    }

    fn totals(&self) -> BTreeMap<String, f64> {
        let mut totals = BTreeMap::new();
        for (name, count) in self.parts.values().flat_map(|part| &part.counters) {
            *totals.entry(name.clone()).or_default() += count;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(spent: f64, wanted: f64) -> Report {
        Report { spent, wanted, max_cost: Some(10.0), ..Report::default() }
    }

    fn ask(jobs: &mut Jobs, holder: &str, report: Report, now: u64) -> (f64, bool) {
        let verdict = jobs.report("job", holder, report, now);
        (verdict.allowance.unwrap(), verdict.is_final)
    }

    #[test]
    fn a_cap_is_leased_out_and_what_nobody_wants_goes_back() {
        let mut jobs = Jobs::default();
        assert_eq!(ask(&mut jobs, "one", report(0.0, 4.0), 0), (4.0, false));
        assert_eq!(ask(&mut jobs, "two", report(0.0, 8.0), 0), (6.0, false));
        // One has something left, which may come back.
        assert_eq!(ask(&mut jobs, "two", report(6.0, 3.0), 100), (6.0, false));
        assert_eq!(ask(&mut jobs, "one", report(1.0, 0.5), 200), (1.5, false));
        assert_eq!(ask(&mut jobs, "two", report(6.0, 8.0), 300), (8.5, false));
        jobs.leave("job", "one");
        assert_eq!(ask(&mut jobs, "two", report(8.5, 8.0), 400), (9.0, false));
        assert_eq!(ask(&mut jobs, "two", report(9.0, 8.0), 500), (9.0, true));
    }

    #[test]
    fn what_is_reserved_may_turn_out_cheaper() {
        let mut jobs = Jobs::default();
        let in_flight = Report { reserved: 10.0, ..report(0.0, 0.0) };
        assert_eq!(ask(&mut jobs, "one", in_flight, 0), (10.0, true));
        assert_eq!(ask(&mut jobs, "two", report(0.0, 1.0), 0), (0.0, false));
        ask(&mut jobs, "one", report(9.5, 0.0), 100);
        assert_eq!(ask(&mut jobs, "two", report(0.0, 1.0), 200), (0.5, false));
    }

    #[test]
    fn those_who_wait_for_more_than_is_left_do_not_wait_for_each_other() {
        let mut jobs = Jobs::default();
        let mut waits = |holder, spent, now| ask(&mut jobs, holder, Report { least: 1.0, ..report(spent, 4.0) }, now);
        assert_eq!(waits("one", 0.0, 0), (4.0, false));
        assert_eq!(waits("two", 0.0, 0), (4.0, false));
        // Each gets what it needs, or leaves it to the other.
        assert_eq!(waits("two", 3.7, 100), (6.0, false));
        assert_eq!(waits("one", 3.5, 200), (3.5, false));
        assert_eq!(waits("two", 5.8, 300), (5.8, true));
        assert_eq!(waits("one", 3.5, 400), (3.5, true));
        assert_eq!(ask(&mut jobs, "one", Report { least: 0.5, ..report(3.5, 0.6) }, 500), (4.1, false));
    }

    #[test]
    fn what_a_dead_one_had_counts_as_spent() {
        let mut jobs = Jobs::default();
        jobs.report("job", "dead", report(1.0, 3.0), 0);
        assert_eq!(ask(&mut jobs, "one", report(0.0, 20.0), LEASE_MS - 1), (6.0, false));
        assert_eq!(ask(&mut jobs, "one", report(6.0, 20.0), LEASE_MS), (6.0, true));
    }

    #[test]
    fn counters_are_summed_and_the_first_reason_to_stop_stays() {
        let mut jobs = Jobs::default();
        let mut say = |holder, count, stop: Option<&str>| {
            let counters = BTreeMap::from([("failed".to_owned(), count)]);
            let report = Report { counters, stop: stop.map(str::to_owned), ..Report::default() };
            let verdict = jobs.report("job", holder, report, 0);
            (verdict.totals["failed"], verdict.stop, verdict.allowance)
        };
        assert_eq!(say("one", 1.0, None), (1.0, None, None));
        assert_eq!(say("two", 2.0, Some("authentication")), (3.0, Some("authentication".to_owned()), None));
        assert_eq!(say("one", 5.0, Some("batch_aborted")), (7.0, Some("authentication".to_owned()), None));
        assert_eq!(jobs.report("other", "one", Report::default(), FORGOTTEN_MS).totals, BTreeMap::new());
        assert_eq!(jobs.0.len(), 1, "the first was forgotten");
    }

    #[test]
    fn a_job_ends_so_long_after_its_first_report() {
        let mut jobs = Jobs::default();
        let mut say = |holder, timeout, now| {
            let verdict = jobs.report("job", holder, Report { timeout, ..Report::default() }, now);
            (verdict.left, verdict.stop)
        };
        assert_eq!(say("one", None, 1000), (None, None));
        assert_eq!(say("two", Some(10.0), 2000), (Some(9.0), None));
        assert_eq!(say("one", Some(20.0), 3000), (Some(8.0), None));
        assert_eq!(say("one", None, 11_000), (Some(0.0), Some("batch_deadline_exceeded".to_owned())));
    }

    proptest! {
        /// Whoever asks for what, spends what, dies or leaves: never more than the cap.
        #[test]
        fn the_cap_holds(
            steps in prop::collection::vec(
                (0usize..5, 0.0f64..4.0, 0.0f64..4.0, 0.0f64..1.0, 0u8..8, 0u64..4000), 1..200
            )
        ) {
            let mut jobs = Jobs::default();
            let (mut spent, mut may) = ([0.0; 5], [0.0f64; 5]);
            let mut now = 0;
            for (who, wanted, least, share, kind, later) in steps {
                now += later;
                spent[who] += (may[who] - spent[who]) * share;
                if kind == 0 {
                    jobs.report("job", &who.to_string(), report(spent[who], 0.0), now);
                    jobs.leave("job", &who.to_string());
                    may[who] = spent[who];
                } else if kind > 1 {
                    let report = Report { least, reserved: wanted.min(may[who] - spent[who]), ..report(spent[who], wanted) };
                    may[who] = jobs.report("job", &who.to_string(), report, now).allowance.unwrap();
                }
                prop_assert!(may.iter().sum::<f64>() <= 10.0 + 1e-9);
            }
        }
    }
}
