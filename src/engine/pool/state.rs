//! What a pool knows, and how it decides: who gets an attempt, and what the end of one says about its member.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{Ending, News, Place};
use super::choice::{Candidates, MOST, Random, Set, home};
use super::health::Standing;
use super::hedging::{Hedging, When};
use super::latency::Percentile;
use super::member::{Member, Part, review};
use super::reasons::Reason;
use crate::engine::adaptive::Signal;
use crate::engine::measure::Estimate;
use crate::engine::quota::Used;
use crate::engine::scope::{Blocked, Cause, Control};

/// How often members are compared with each other.
const REVIEW: Duration = Duration::from_millis(20);
/// A prefix stays with its member until that has so many times the mean load ...
const OVERFLOW: f64 = 1.25;
/// ... or so many requests more: a server works on several at once, and few in flight are never spread evenly.
const FEW: f64 = 4.0;

pub(super) struct State {
    pub members: Vec<Member>,
    /// Fallbacks that are not asked where no member can be.
    pub not_spare: Set,
    /// Seats that are reserved and not claimed.
    pub seats: VecDeque<Place>,
    /// Attempts that scopes have admitted.
    pub admitted: usize,
    /// Of these, those that have claimed a seat and have not left it.
    pub seated: usize,
    pub random: Random,
    pub hedging: Hedging,
    pub percentile: Percentile,
    pub reviewed: Option<Instant>,
    /// Whether somebody waits.
    pub is_short: bool,
    /// What is to be found out about members' limits.
    pub control: Control,
}

impl State {
    pub fn new(parts: Vec<Part>, when: When, seed: u64) -> Self {
        let mut not_spare = Set::default();
        let later = parts.iter().enumerate().filter(|(_, part)| part.tier > 0 && !part.reasons.have(Reason::Overload));
        later.for_each(|(number, _)| not_spare.add(number));
        Self {
            members: parts.into_iter().take(MOST).map(Member::new).collect(),
            not_spare,
            seats: VecDeque::new(),
            admitted: 0,
            seated: 0,
            random: Random::new(seed),
            hedging: Hedging::new(when),
            percentile: Percentile::default(),
            reviewed: None,
            is_short: false,
            control: Control::Pace,
        }
    }

    /// A place with the best member from `tier` on that can be asked. Of members of different tiers, those of the lower
    /// are asked, even if they are to be waited for. `in_window`: only within the concurrency that was found.
    pub fn choose(
        &mut self,
        tried: Set,
        tier: u8,
        estimate: Estimate,
        in_window: bool,
        now: Instant,
    ) -> Result<Place, Option<Blocked>> {
        self.review(now);
        let mut next = Some(tier);
        let mut soonest = None;
        while let Some(tier) = next {
            let mut candidates = Candidates::default();
            let mut probe = None;
            next = None;
            for (number, member) in self.members.iter().enumerate() {
                if tried.has(number) || member.tier < tier {
                    continue;
                }
                if member.tier > tier {
                    let standing = member.health.standing(now);
                    if !matches!(standing, Standing::Dropped) {
                        next = Some(next.map_or(member.tier, |known: u8| known.min(member.tier)));
                    }
                    continue;
                }
                match member.health.standing(now) {
                    Standing::Well if member.is_due(now) => probe = Some(number),
                    Standing::Well => candidates.add(number, member.cost(now), member.is_slow),
                    Standing::Weak => candidates.add(number, member.cost(now), true),
                    Standing::ToProbe => probe = Some(number),
                    Standing::Out(until) => soonest = earlier(soonest, until, Cause::Away),
                    Standing::Dropped => {}
                }
            }
            if let Some(probe) = probe
                && let Ok(place) = self.enter(probe, estimate, in_window, now)
            {
                return Ok(place);
            }
            let Some(first) = candidates.first(&mut self.random) else { continue };
            match self.enter(first, estimate, in_window, now) {
                Ok(place) => return Ok(place),
                Err(blocked) => soonest = earlier(soonest, blocked.until, blocked.cause),
            }
            for other in candidates.rest() {
                match self.enter(other, estimate, in_window, now) {
                    Ok(place) => return Ok(place),
                    Err(blocked) => soonest = earlier(soonest, blocked.until, blocked.cause),
                }
            }
            break;
        }
        Err(soonest)
    }

    /// Takes a place with a member, if its limits let it.
    pub fn enter(
        &mut self,
        number: usize,
        estimate: Estimate,
        in_window: bool,
        now: Instant,
    ) -> Result<Place, Blocked> {
        let member = &mut self.members[number];
        let Some(joined) = member.joined else { return Err(Blocked { until: None, cause: Cause::Turn }) };
        match member.scope.admit_if(joined, estimate, in_window, now) {
            Ok(ticket) => {
                member.is_in_line = false;
                member.requested(now);
                let scope = Arc::clone(&member.scope);
                self.step_aside();
                Ok(Place { member: number, scope, ticket, began: now, estimate, is_of_run: false })
            }
            Err(blocked) => {
                member.is_in_line = true;
                Err(blocked)
            }
        }
    }

    /// Gives up the place in line at members that were asked and had none.
    pub fn step_aside(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.is_in_line) {
            member.is_in_line = false;
            if let Some(joined) = member.joined {
                member.scope.step_aside(joined);
            }
        }
    }

    /// The attempt at a place is over.
    pub fn leave(&mut self, place: &Place, used: Used, signal: Signal, now: Instant) {
        let member = &mut self.members[place.member];
        member.left(place.began);
        if used == Used::NotSent {
            member.health.gave_up(now);
        }
        place.scope.reconcile(&place.ticket, used, signal, now);
    }

    /// A place where requests with this prefix usually go, if that is another one. Only members with prompt caches of
    /// their own exchange requests: the others have as many as without prefixes.
    pub fn move_home(&mut self, prefix: u64, place: &Place, now: Instant) -> Option<Place> {
        self.review(now);
        let tier = self.members[place.member].tier;
        let is_usual = |member: &Member| {
            let is_alike = member.is_own_server && member.tier == tier;
            is_alike && member.health.standing(now) == Standing::Well && !member.is_slow
        };
        // One that is asked to find out how it does is asked.
        if !is_usual(&self.members[place.member]) {
            return None;
        }
        let usual = self.members.iter().enumerate().filter(|(_, member)| is_usual(member));
        let (loads, weights) = usual.clone().fold((0.0, 0.0), |(loads, weights), (_, member)| {
            (loads + member.load_with_others(now), weights + member.weight)
        });
        let has_room = |(number, member): &(usize, &Member)| {
            let load = member.load_with_others(now) + f64::from(u8::from(*number != place.member));
            let mean = loads * member.weight / weights;
            load <= (OVERFLOW * mean).max(mean + FEW)
        };
        // Where one has no room, all go to the same other one.
        let number = home(prefix, usual.filter(has_room).map(|(number, member)| (number, member.weight)))?;
        if number == place.member {
            return None;
        }
        self.enter(number, place.estimate, true, now).ok()
    }

    /// A member's replies name this account: all of the same have the limits of the first of them from now on, in every
    /// process that has the same members. Whether that is news.
    pub fn shares_account(&mut self, number: usize, account: u64, now: Instant) -> bool {
        if self.members[number].account.replace(account) == Some(account) {
            return false;
        }
        let endpoint = self.members[number].endpoint;
        let is_same = |member: &Member| member.account == Some(account) && member.endpoint == endpoint;
        let Some(scope) = self.members.iter().find(|member| is_same(member)).map(|first| Arc::clone(&first.scope))
        else {
            return false;
        };
        let mut is_news = false;
        for member in self.members.iter_mut().filter(|member| is_same(member)) {
            if Arc::ptr_eq(&member.scope, &scope) {
                continue;
            }
            is_news = true;
            member.is_in_line = false;
            let before = std::mem::replace(&mut member.scope, Arc::clone(&scope));
            if let Some(joined) = member.joined.take() {
                before.leave(joined, now);
            }
        }
        is_news
    }

    pub fn review(&mut self, now: Instant) {
        if self.reviewed.is_none_or(|at| now >= at + REVIEW) {
            self.reviewed = Some(now);
            review(&mut self.members, now);
        }
    }

    /// Whether half of the members or more are not to be asked.
    pub fn is_suffering(&self) -> bool {
        let usual = self.members.iter().filter(|member| member.tier == 0 && !member.health.is_dropped());
        let out = usual.clone().filter(|member| member.health.is_out()).count();
        2 * out >= usual.count().max(1)
    }

    /// What the end of an attempt says about its member.
    pub fn judge(&mut self, place: &Place, ending: Ending, now: Instant) -> Option<News> {
        let number = place.member;
        match ending {
            Ending::Answered => {
                let latency = now.saturating_duration_since(place.began);
                self.percentile.learn(latency);
                let member = &mut self.members[number];
                member.answered(latency, now);
                member.health.answered(place.began).then_some(News::Back(number))
            }
            Ending::Alive | Ending::RateLimited(_) => {
                self.members[number].health.answered(place.began).then_some(News::Back(number))
            }
            Ending::Failed { fault, .. } => {
                let others = self.others_fail(number);
                let may_eject = self.may_eject(number);
                let health = &mut self.members[number].health;
                health.failed(fault, place.began, others, may_eject, now).then_some(News::Ejected(number))
            }
            Ending::Dead => {
                let is_last = !self
                    .members
                    .iter()
                    .enumerate()
                    .any(|(other, member)| other != number && !member.health.is_dropped());
                let health = &mut self.members[number].health;
                if is_last || health.is_dropped() {
                    return None;
                }
                health.drop_it();
                Some(News::Dropped(number))
            }
            Ending::Cancelled => {
                let member = &mut self.members[number];
                member.cancelled(now.saturating_duration_since(place.began));
                member.health.gave_up(now);
                None
            }
        }
    }

    /// The share of requests to the others that fail.
    pub fn others_fail(&self, number: usize) -> f64 {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != number);
        let known = others.filter(|(_, member)| !member.health.is_out());
        let (sum, count) = known
            .filter_map(|(_, member)| member.health.failing())
            .fold((0.0, 0), |(sum, count), share| (sum + share, count + 1));
        if count == 0 { 0.0 } else { sum / f64::from(count) }
    }

    /// Whether a member may be ejected: no more than half of its tier, and never the last that there is.
    pub fn may_eject(&self, number: usize) -> bool {
        let tier = self.members[number].tier;
        let alive = self.members.iter().filter(|member| member.tier == tier && !member.health.is_dropped());
        let out = alive.clone().filter(|member| member.health.is_out()).count();
        let has_later = self.members.iter().enumerate().any(|(number, member)| {
            let is_out = member.health.is_dropped() || member.health.is_out();
            member.tier > tier && !is_out && !self.not_spare.has(number)
        });
        has_later || 2 * (out + 1) <= alive.count()
    }
}

/// Until the earlier of two, and why: where only some members are away, the limits of the others are what attempts wait for.
fn earlier(known: Option<Blocked>, until: Option<Instant>, cause: Cause) -> Option<Blocked> {
    Some(match known {
        None => Blocked { until, cause },
        Some(Blocked { until: before, cause: of_before }) if (cause == Cause::Away) != (of_before == Cause::Away) => {
            let until = before.into_iter().chain(until).min();
            Blocked { until, cause: if cause == Cause::Away { of_before } else { cause } }
        }
        Some(Blocked { until: before, cause: of_before }) => match (before, until) {
            (Some(before), Some(until)) if until < before => Blocked { until: Some(until), cause },
            (None, Some(until)) => Blocked { until: Some(until), cause },
            _ => Blocked { until: before, cause: of_before },
        },
    })
}
