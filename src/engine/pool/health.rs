//! Whether a member of a pool is to be asked.
//!
//! A member that fails where others answer is *ejected*: it is asked nothing for a while, then one request (a probe), and
//! is back if that is answered. How long is doubled with each ejection that follows soon. Rate limits, and what is wrong
//! with requests themselves, are no failures of a member.

use std::time::Duration;

use tokio::time::Instant;

/// Failures to reach it in a row that eject.
const AWAY: u32 = 3;
/// Failures of any kind in a row that eject.
const IN_A_ROW: u32 = 5;
/// Of the last so many requests it is remembered whether they failed.
const REMEMBERED: u32 = 32;
/// Fewer say nothing about the share of failures.
const ENOUGH: u32 = 10;
/// A share of failures that ejects, if the others fail a third as often at most.
const SHARE: f64 = 0.2;
/// The first ejection.
const FIRST: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

/// How a member has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It could not be reached.
    Away,
    /// It answered with an error of its own, or not in time.
    Server,
}

/// Whether a member may be asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Standing {
    /// Yes.
    Well,
    /// Yes, where no other can be: it should be ejected, but too many are.
    Weak,
    /// One request, which finds out whether it is well again.
    ToProbe,
    /// Not before then, or (`None`) before its probe is answered.
    Out(Option<Instant>),
    /// Never again.
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Well,
    Weak,
    Ejected { until: Instant },
    Probed,
    Dropped,
}

/// The health of one member.
#[derive(Debug, Clone)]
pub struct Health {
    state: State,
    away: u32,
    failures: u32,
    /// One bit for each of the last requests, the newest lowest: whether it failed.
    history: u32,
    known: u32,
    ejections: u32,
    /// What was sent before says nothing new.
    ejected_at: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        let (away, failures, history, known, ejections) = (0, 0, 0, 0, 0);
        Self { state: State::Well, away, failures, history, known, ejections, ejected_at: None }
    }
}

impl Health {
    /// Whether it may be asked.
    pub fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::Well => Standing::Well,
            State::Weak => Standing::Weak,
            State::Ejected { until } if until <= now => Standing::ToProbe,
            State::Ejected { until } => Standing::Out(Some(until)),
            State::Probed => Standing::Out(None),
            State::Dropped => Standing::Dropped,
        }
    }

    /// Whether it is ejected.
    pub fn is_out(&self) -> bool {
        matches!(self.state, State::Ejected { .. } | State::Probed)
    }

    /// Whether it is never asked again.
    pub fn is_dropped(&self) -> bool {
        self.state == State::Dropped
    }

    /// It is never asked again.
    pub fn drop_it(&mut self) {
        self.state = State::Dropped;
    }

    /// A request is sent to it.
    pub fn requested(&mut self, now: Instant) {
        if self.standing(now) == Standing::ToProbe {
            self.state = State::Probed;
        }
    }

    /// The share of recent requests that failed; `None`: too few are known.
    pub fn failing(&self) -> Option<f64> {
        (self.known >= ENOUGH).then(|| f64::from(self.history.count_ones()) / f64::from(self.known))
    }

    /// It has answered a request that was sent `sent`. `true`: it is back.
    pub fn answered(&mut self, sent: Instant) -> bool {
        if self.is_old(sent) {
            return false;
        }
        self.note(false);
        (self.away, self.failures) = (0, 0);
        let was_out = self.state == State::Probed;
        if matches!(self.state, State::Probed | State::Weak) {
            self.state = State::Well;
        }
        was_out
    }

    /// A request to it was not answered, for no fault of its own that is known. A probe is sent again.
    pub fn gave_up(&mut self, now: Instant) {
        if self.state == State::Probed {
            self.state = State::Ejected { until: now };
        }
    }

    /// A request that was sent `sent` failed. `others`: the share of the others' requests that fail. `may_eject`: whether
    /// it is not one too many. `true`: it is ejected by this.
    pub fn failed(&mut self, fault: Fault, sent: Instant, others: f64, may_eject: bool, now: Instant) -> bool {
        if self.is_dropped() || self.is_old(sent) {
            return false;
        }
        self.note(true);
        self.failures += 1;
        self.away = if fault == Fault::Away { self.away + 1 } else { 0 };
        let share = self.failing().is_some_and(|share| share >= SHARE && share >= 3.0 * others);
        let is_sick = self.away >= AWAY || self.failures >= IN_A_ROW || share;
        if self.state != State::Probed && !is_sick {
            return false;
        }
        if self.state != State::Probed && !may_eject {
            self.state = State::Weak;
            return false;
        }
        self.eject(now);
        true
    }

    /// It is asked nothing for a while.
    fn eject(&mut self, now: Instant) {
        if self.ejected_at.is_some_and(|at| now > at + 4 * LONGEST) {
            self.ejections = 0;
        }
        let length = FIRST.saturating_mul(1 << self.ejections.min(8)).min(LONGEST);
        self.ejections += 1;
        self.ejected_at = Some(now);
        (self.away, self.failures) = (0, 0);
        self.state = State::Ejected { until: now + length };
    }

    fn note(&mut self, failed: bool) {
        self.history = self.history << 1 | u32::from(failed);
        self.known = (self.known + 1).min(REMEMBERED);
    }

    /// Whether what becomes of a request that was sent `sent` says nothing new: it was sent before the ejection.
    fn is_old(&self, sent: Instant) -> bool {
        matches!(self.state, State::Ejected { .. }) || self.ejected_at.is_some_and(|at| sent < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(health: &mut Health, fault: Fault, now: Instant) -> bool {
        health.failed(fault, now, 0.0, true, now)
    }

    #[test]
    fn three_failures_to_reach_it_eject_and_a_probe_brings_it_back() {
        let now = Instant::now();
        let mut health = Health::default();
        assert!(!fail(&mut health, Fault::Away, now) && !fail(&mut health, Fault::Away, now));
        assert!(fail(&mut health, Fault::Away, now));
        assert_eq!(health.standing(now + 4 * SECOND), Standing::Out(Some(now + FIRST)));
        assert_eq!(health.standing(now + FIRST), Standing::ToProbe);
        health.requested(now + FIRST);
        assert_eq!(health.standing(now + FIRST), Standing::Out(None));
        assert!(health.answered(now + FIRST));
        assert_eq!(health.standing(now + FIRST), Standing::Well);
    }

    #[test]
    fn a_failed_probe_doubles_the_time_up_to_a_minute() {
        let mut now = Instant::now();
        let mut health = Health::default();
        (0..3).for_each(|_| {
            fail(&mut health, Fault::Away, now);
        });
        for length in [5, 10, 20, 40, 60, 60] {
            assert_eq!(health.standing(now), Standing::Out(Some(now + length * SECOND)));
            now += length * SECOND;
            health.requested(now);
            assert!(fail(&mut health, Fault::Server, now));
        }
    }

    #[test]
    fn what_was_sent_before_an_ejection_says_nothing_new() {
        let now = Instant::now();
        let mut health = Health::default();
        (0..3).for_each(|_| {
            fail(&mut health, Fault::Away, now + SECOND);
        });
        assert!(!health.answered(now) && health.is_out());
        assert!(!health.failed(Fault::Away, now, 0.0, true, now + 2 * SECOND));
        assert_eq!(health.standing(now + 2 * SECOND), Standing::Out(Some(now + SECOND + FIRST)));
    }

    #[test]
    fn a_share_of_failures_ejects_unless_the_others_fail_too() {
        let now = Instant::now();
        let ejected = |others: f64| {
            let mut health = Health::default();
            (0..30).any(|number| {
                let fails = number % 3 == 2;
                if fails { health.failed(Fault::Server, now, others, true, now) } else { health.answered(now) }
            })
        };
        assert!(ejected(0.0) && !ejected(0.3));
    }

    #[test]
    fn one_too_many_stays_and_is_weak_until_it_answers() {
        let now = Instant::now();
        let mut health = Health::default();
        (0..5).for_each(|_| {
            health.failed(Fault::Server, now, 0.0, false, now);
        });
        assert_eq!(health.standing(now), Standing::Weak);
        health.answered(now);
        assert_eq!(health.standing(now), Standing::Well);
    }

    #[test]
    fn a_probe_that_is_given_up_is_sent_again() {
        let now = Instant::now();
        let mut health = Health::default();
        (0..3).for_each(|_| {
            fail(&mut health, Fault::Away, now);
        });
        health.requested(now + FIRST);
        health.gave_up(now + FIRST);
        assert_eq!(health.standing(now + FIRST), Standing::ToProbe);
    }
}
