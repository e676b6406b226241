//! One attempt of an item with a pool: who is asked first, and who is next after a failure or a doubtful answer.
//!
//! Whoever makes the attempt asks the members and waits; nothing is decided there. A member that has failed is asked no
//! more in this attempt.

use std::time::Duration;

use tokio::time::Instant;

use super::Pool;
use super::attempt::{Ending, Place};
use super::choice::Set;
use super::member::Member;
use super::reasons::Reason;
use crate::engine::measure::Estimate;

/// How long to wait for a member when nobody knows how long.
const WAIT: Duration = Duration::from_millis(100);
/// And at least so long.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Ask this member.
    At(Place),
    /// Call [`Trial::retry`] then.
    Wait(Instant),
    /// Fail as after a rate limit: the other members are at their limits, so the item waits in its run's queue.
    Later,
    /// Fail: nobody is left.
    Nowhere,
}

/// See the module.
#[derive(Debug)]
pub struct Trial {
    tried: Set,
    estimate: Estimate,
    is_of_run: bool,
    reason: Option<Reason>,
    wanted: Wanted,
}

/// Who is waited for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Not these.
    but: Set,
    tier: u8,
    reason: Option<Reason>,
    /// Whether somebody is to be found in the end.
    is_first: bool,
}

impl Trial {
    /// Begins with the seat of an attempt that a scope has admitted; outside of a run, with any member. `prefix`: what the
    /// request begins with, see [`Pool::claim`].
    pub fn begin(pool: &Pool, prefix: Option<u64>, now: Instant) -> (Self, Next) {
        let wanted = Wanted { but: pool.not_spare(), tier: 0, reason: None, is_first: true };
        let (tried, estimate) = (Set::default(), Estimate::default());
        let mut trial = Self { tried, estimate, is_of_run: false, reason: None, wanted };
        match pool.claim(prefix, now) {
            Some(place) => {
                (trial.is_of_run, trial.estimate) = (true, place.estimate);
                let next = trial.at(pool, place);
                (trial, next)
            }
            None => {
                let next = trial.retry(pool, now);
                (trial, next)
            }
        }
    }

    /// Why the one who is asked is not a member.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Whether this is an attempt of a run.
    pub fn is_of_run(&self) -> bool {
        self.is_of_run
    }

    /// Looks again, after a wait.
    pub fn retry(&mut self, pool: &Pool, now: Instant) -> Next {
        let Wanted { but, tier, reason, is_first } = self.wanted;
        match pool.take(but, tier, self.estimate, self.is_of_run, now) {
            Ok(Some(place)) => {
                self.reason = reason.or(self.reason);
                self.at(pool, place)
            }
            Ok(None) if is_first => Next::Wait(now + WAIT),
            Ok(None) => Next::Nowhere,
            Err(blocked) => {
                let until = blocked.until.unwrap_or(now + WAIT);
                Next::Wait(until.clamp(now + SHORTEST_WAIT, now + 10 * WAIT))
            }
        }
    }

    /// The request has failed with this member: it goes to another one if that was the member's fault, or else to a
    /// fallback if there is one for it. `found`: what a fallback could be asked for.
    pub fn failed(&mut self, pool: &Pool, member: usize, ending: Ending, found: Option<Reason>, now: Instant) -> Next {
        let tier = pool.tier(member);
        if ending.is_of_member() {
            let others = self.but(pool, |other| other.tier == tier);
            match pool.take(others, tier, self.estimate, self.is_of_run, now) {
                Ok(Some(place)) => return self.at(pool, place),
                Ok(None) => {}
                // It is worth to wait for a member; what may not be is not that one's fault.
                Err(_) => return Next::Later,
            }
        }
        let Some(reason) = found else { return Next::Nowhere };
        self.turn_to_fallback(pool, tier, reason, now)
    }

    /// Whether a doubtful answer of this member can be made better.
    pub fn may_escalate(&self, pool: &Pool, member: usize) -> bool {
        let tier = pool.tier(member);
        self.reason != Some(Reason::Escalated)
            && pool.any(|other| other.tier > tier && other.reasons.have(Reason::Escalated))
    }

    /// The member's answer is doubtful.
    pub fn doubtful(&mut self, pool: &Pool, member: usize, now: Instant) -> Next {
        self.turn_to_fallback(pool, pool.tier(member), Reason::Escalated, now)
    }

    /// A place for a second request beside one that takes long, if there may be one: see [`Pool::hedge`].
    pub fn hedge(&mut self, pool: &Pool, beside: usize, now: Instant) -> Option<Place> {
        let place = pool.hedge(beside, self.estimate, now)?;
        self.tried.add(place.member);
        Some(place)
    }

    /// What has been paid for is not asked again: the request waits for the fallback here.
    fn turn_to_fallback(&mut self, pool: &Pool, tier: u8, reason: Reason, now: Instant) -> Next {
        let but = self.but(pool, |other| other.tier > tier && other.reasons.have(reason));
        self.wanted = Wanted { but, tier: tier.saturating_add(1), reason: Some(reason), is_first: false };
        self.retry(pool, now)
    }

    fn at(&mut self, pool: &Pool, place: Place) -> Next {
        self.tried.add(place.member);
        if self.reason.is_none() && pool.tier(place.member) > 0 {
            self.reason = Some(Reason::Overload);
        }
        Next::At(place)
    }

    /// Those that were tried, and all that are not `wanted`.
    fn but(&self, pool: &Pool, wanted: impl Fn(&Member) -> bool) -> Set {
        let mut but = pool.without(wanted);
        but.add_all(self.tried);
        but
    }
}

impl Pool {
    fn tier(&self, member: usize) -> u8 {
        self.state().members.get(member).map_or(0, |member| member.tier)
    }

    fn not_spare(&self) -> Set {
        self.state().not_spare
    }

    fn any(&self, wanted: impl Fn(&Member) -> bool) -> bool {
        self.state().members.iter().any(wanted)
    }

    fn without(&self, wanted: impl Fn(&Member) -> bool) -> Set {
        let mut others = Set::default();
        let state = self.state();
        state.members.iter().enumerate().filter(|(_, other)| !wanted(other)).for_each(|(number, _)| others.add(number));
        others
    }
}
