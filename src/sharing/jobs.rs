//! A job that several processes work on: what all of them have counted, a cap on its cost, and whether it has to stop.
//! Pure: the time is an argument.
//!
//! The cap is leased out in pieces: each process may spend up to its allowance, and all allowances together are never
//! more than the cap. What a process has not spent when it leaves goes back; that of one that died counts as spent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// What it has spent, and reserved for what is in flight.
    pub spent: f64,
    /// What it could spend beyond that until its next report.
    pub wanted: f64,
    /// The most that the whole job may cost. Of several the least holds.
    pub max_cost: Option<f64>,
    /// Why the job has to stop: a category.
    pub stop: Option<String>,
}

/// What it is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What it may have spent; `None`: there is no cap.
    pub allowance: Option<f64>,
    /// Whether that will never be more: the cap is used up, and nobody has anything to give back.
    pub is_final: bool,
    /// Why the job has to stop; the first reason that anybody gave.
    pub stop: Option<String>,
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
    /// What it may give back.
    fn left(&self, now: u64) -> f64 {
        if self.at + LEASE_MS > now { self.allowance - self.spent } else { 0.0 }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Job {
    parts: BTreeMap<String, Part>,
    max_cost: Option<f64>,
    stop: Option<String>,
}

/// All jobs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Jobs(BTreeMap<String, Job>);

impl Jobs {
    /// Takes the report of one who works on a job.
    pub fn report(&mut self, job: &str, holder: &str, report: Report, now: u64) -> Verdict {
        self.0.retain(|_, job| job.parts.values().any(|part| part.at + FORGOTTEN_MS > now));
        self.0.entry(job.to_owned()).or_default().report(holder, report, now)
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

impl Job {
    fn report(&mut self, holder: &str, report: Report, now: u64) -> Verdict {
        let positive = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        if let Some(cap) = report.max_cost {
            let cap = positive(cap);
            self.max_cost = Some(self.max_cost.map_or(cap, |before| before.min(cap)));
        }
        self.stop = self.stop.take().or(report.stop);
        let mine = self.parts.entry(holder.to_owned()).or_default();
        mine.counters = report.counters;
        mine.spent = positive(report.spent);
        mine.allowance = mine.allowance.max(mine.spent);
        mine.at = now;
        let wanted = mine.spent + positive(report.wanted);
        let (mut allowance, mut is_final) = (None, false);
        if let Some(cap) = self.max_cost {
            let taken: f64 = self.parts.values().map(|part| part.allowance).sum();
            let free = (cap - taken).max(0.0);
            let others = self.parts.iter().filter(|(name, _)| *name != holder);
            let comes_back = others.map(|(_, part)| part.left(now)).sum::<f64>() > cap * ROUNDING;
            if let Some(mine) = self.parts.get_mut(holder) {
                let more = (wanted - mine.allowance).clamp(0.0, free);
                mine.allowance += more;
                allowance = Some(mine.allowance);
                is_final = !comes_back && free - more <= cap * ROUNDING;
            }
        }
        Verdict { allowance, is_final, stop: self.stop.clone(), totals: self.totals() }
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

    #[test]
    fn a_cap_is_leased_out_and_what_is_left_goes_back() {
        let mut jobs = Jobs::default();
        let mut ask = |holder, spent, wanted, now| {
            let verdict = jobs.report("job", holder, report(spent, wanted), now);
            (verdict.allowance.unwrap(), verdict.is_final)
        };
        assert_eq!(ask("one", 0.0, 4.0, 0), (4.0, false));
        assert_eq!(ask("two", 0.0, 8.0, 0), (6.0, false));
        // One has something left, which may come back.
        assert_eq!(ask("two", 6.0, 3.0, 100), (6.0, false));
        // What was given is not taken away, but there is no more.
        assert_eq!(ask("one", 1.0, 0.0, 200), (4.0, true));
        jobs.leave("job", "one");
        let verdict = jobs.report("job", "two", report(6.0, 8.0), 300);
        assert_eq!((verdict.allowance, verdict.is_final), (Some(9.0), true));
    }

    #[test]
    fn what_a_dead_one_had_counts_as_spent() {
        let mut jobs = Jobs::default();
        jobs.report("job", "dead", report(1.0, 3.0), 0);
        let verdict = jobs.report("job", "one", report(0.0, 20.0), LEASE_MS - 1);
        assert_eq!((verdict.allowance, verdict.is_final), (Some(6.0), false));
        let verdict = jobs.report("job", "one", report(6.0, 20.0), LEASE_MS);
        assert_eq!((verdict.allowance, verdict.is_final), (Some(6.0), true));
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

    proptest! {
        /// Whoever asks for what, spends what, dies or leaves: never more than the cap.
        #[test]
        fn the_cap_holds(steps in prop::collection::vec((0usize..5, 0.0f64..4.0, 0.0f64..1.0, 0u8..8, 0u64..4000), 1..200)) {
            let mut jobs = Jobs::default();
            let (mut spent, mut may) = ([0.0; 5], [0.0f64; 5]);
            let mut now = 0;
            for (who, wanted, share, kind, later) in steps {
                now += later;
                spent[who] += (may[who] - spent[who]) * share;
                if kind == 0 {
                    jobs.report("job", &who.to_string(), report(spent[who], 0.0), now);
                    jobs.leave("job", &who.to_string());
                    may[who] = spent[who];
                } else if kind > 1 {
                    may[who] = jobs.report("job", &who.to_string(), report(spent[who], wanted), now).allowance.unwrap();
                }
                prop_assert!(may.iter().sum::<f64>() <= 10.0 + 1e-9);
            }
        }
    }
}
