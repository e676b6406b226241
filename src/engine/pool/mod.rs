//! Several endpoints as one: which of them gets an attempt, and what their answers say about them.
//!
//! Each member has a scope of its own, with its limits, its pace and its concurrency. A scope of a run that is made with
//! [`Scope::of_seats`](super::scope::Scope::of_seats) asks the pool before each attempt for a seat: so attempts wait in
//! the run's queue, not in flight. The provider in `crate::providers::pool` claims the seat, and tells how it went.
//!
//! [`choice`] says who is first, [`health`] who is asked at all, [`latency`] how long answers take, [`hedging`] which
//! requests are sent twice. All are functions of their arguments, `now` among them.

pub mod choice;
pub mod health;
pub mod hedging;
mod latency;
mod member;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::Signal;
use super::measure::{Estimate, ReportedLimit};
use super::quota::{Ticket, TooLarge, Used};
use super::scope::{Blocked, Cause, Control, Member as Joined, Scope, Seats, Wake};
use choice::{Candidates, MOST, Random, Set, home};
use health::{Fault, Standing};
use hedging::{Hedging, When};
use latency::Percentile;
use member::{Member, review};

/// How often members are compared with each other.
const REVIEW: Duration = Duration::from_millis(20);
/// A prefix stays with its member until that has so many times the mean load.
const OVERFLOW: f64 = 1.25;

/// What a pool is made of.
#[derive(Clone)]
pub struct Part {
    /// The member's limits.
    pub scope: Arc<Scope>,
    /// How much of the load it gets, in terms of the others.
    pub weight: f64,
    /// Zero: a member. Others are fallbacks, in this order.
    pub tier: u8,
    /// Whether this fallback is asked where no member can be.
    pub is_spare: bool,
    /// A number for its address and model: where those are the same, keys of one account share limits.
    pub endpoint: u64,
}

/// An attempt with a member.
pub struct Place {
    /// The member.
    pub member: usize,
    /// The limits that it is reserved from.
    scope: Arc<Scope>,
    ticket: Ticket,
    began: Instant,
    /// What it is expected to use.
    pub estimate: Estimate,
    /// Whether it is in the place of an attempt of a run.
    is_of_run: bool,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Place({})", self.member)
    }
}

/// How an attempt ended, for its member.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    /// With an answer.
    Answered,
    /// With an error that says nothing bad about the member.
    Alive,
    /// The member failed. `overloaded`: it has too much to do.
    Failed {
        /// How.
        fault: Fault,
        /// Whether it said so.
        overloaded: bool,
    },
    /// Too many requests or tokens; come back after that, if it said so.
    RateLimited(Duration),
    /// It will never answer: its key is wrong, or it has not got the model.
    Dead,
    /// It was cancelled.
    Cancelled,
}

impl Ending {
    /// Whether another member might have answered.
    pub fn is_of_member(self) -> bool {
        matches!(self, Self::Failed { .. } | Self::RateLimited(_) | Self::Dead)
    }
}

/// What is known of an attempt that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// How it ended.
    pub ending: Ending,
    /// What it used.
    pub used: Used,
    /// What its reply says about limits.
    pub limits: &'a [ReportedLimit],
    /// The account that its reply names.
    pub account: Option<u64>,
}

impl Report<'_> {
    /// Of an attempt that ended so, of which nothing else is known.
    pub fn of(ending: Ending) -> Self {
        Self { ending, used: Used::Unknown, limits: &[], account: None }
    }
}

/// What became of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is asked nothing for a while.
    Ejected(usize),
    /// It is asked again.
    Back(usize),
    /// It is never asked again.
    Dropped(usize),
}

struct Run {
    run: Joined,
    wake: Wake,
    is_idle: bool,
}

/// Those who wait for seats. Members wake them, with locks held: nothing is locked while this is.
#[derive(Default)]
struct Runs(Mutex<Vec<Run>>);

impl Runs {
    fn get(&self) -> MutexGuard<'_, Vec<Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.get().iter().for_each(|run| (run.wake)());
    }
}

struct State {
    members: Vec<Member>,
    /// Fallbacks that are not asked where no member can be.
    not_spare: Set,
    /// Seats that are reserved and not claimed.
    seats: VecDeque<Place>,
    /// Attempts that scopes have admitted.
    admitted: usize,
    /// Of these, those that have claimed a seat and have not left it.
    seated: usize,
    random: Random,
    hedging: Hedging,
    percentile: Percentile,
    reviewed: Option<Instant>,
    /// Whether somebody waits.
    is_short: bool,
    /// What is to be found out about members' limits.
    control: Control,
}

/// See the module.
pub struct Pool {
    runs: Arc<Runs>,
    state: Mutex<State>,
}

impl Pool {
    /// A pool of at most [`MOST`] members. `seed`: of its random choices.
    pub fn new(parts: Vec<Part>, when: When, seed: u64) -> Self {
        let mut not_spare = Set::default();
        let later = parts.iter().enumerate().filter(|(_, part)| part.tier > 0 && !part.is_spare);
        later.for_each(|(number, _)| not_spare.add(number));
        let members = parts.into_iter().take(MOST).map(Member::new).collect();
        let state = State {
            members,
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
        };
        Self { runs: Arc::default(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the seat of an attempt that a scope has admitted; `None`: there is none. `prefix`: what the request begins
    /// with; those that begin alike go to one member, as long as it has not much more to do than the others.
    pub fn claim(&self, prefix: Option<u64>, now: Instant) -> Option<Place> {
        let mut state = self.state();
        let mut place = state.seats.pop_front()?;
        state.seated += 1;
        place.began = now;
        if let Some(better) = prefix.and_then(|prefix| state.move_home(prefix, &place, now)) {
            state.leave(&place, Used::NotSent, Signal::None, now);
            place = better;
        }
        place.is_of_run = true;
        state.hedging.sent();
        Some(place)
    }

    /// Takes a place with a member that has not been `tried`, if one can be asked now. `tier`: from there on. For a request
    /// that was tried before, the concurrency that was found is no limit: it leaves another place.
    ///
    /// # Errors
    /// Until when none can, if that is known; or `Ok(None)`: there is none.
    pub fn take(
        &self,
        tried: Set,
        tier: u8,
        estimate: Estimate,
        is_of_run: bool,
        now: Instant,
    ) -> Result<Option<Place>, Blocked> {
        let mut state = self.state();
        let control = state.control;
        self.join_members(&mut state, control, now);
        let mut place = match state.choose(tried, tier, estimate, tried == Set::default(), now) {
            Ok(place) => place,
            Err(None) => return Ok(None),
            Err(Some(blocked)) => return Err(blocked),
        };
        place.is_of_run = is_of_run;
        if is_of_run {
            state.seated += 1;
        }
        Ok(Some(place))
    }

    /// After how long an attempt may get a second one beside it; `None`: never, or not enough is known.
    pub fn hedges_after(&self) -> Option<Duration> {
        let mut state = self.state();
        if state.hedging.is_on() { state.percentile.get() } else { None }
    }

    /// A place for a second attempt beside one that has taken longer than nearly all others: with another member, or the
    /// same.
    pub fn hedge(&self, beside: usize, estimate: Estimate, now: Instant) -> Option<Place> {
        let mut state = self.state();
        let is_idle = {
            let runs = self.runs.get();
            !runs.is_empty() && runs.iter().all(|run| run.is_idle)
        };
        if !state.hedging.may(is_idle) || state.is_short || state.is_suffering() {
            return None;
        }
        let mut tried = Set::default();
        tried.add(beside);
        let tier = state.members.get(beside)?.tier;
        let others = state.members.iter().enumerate().filter(|(_, other)| other.tier != tier);
        others.for_each(|(number, _)| tried.add(number));
        let place = match state.choose(tried, tier, estimate, true, now) {
            Ok(place) => place,
            // At a limit there is none; where there is no other, the same one may be quicker this time.
            Err(Some(_)) => return None,
            Err(None) => state.enter(beside, estimate, true, now).ok()?,
        };
        state.hedging.hedged();
        Some(place)
    }

    /// An attempt has ended.
    pub fn ended(&self, place: &Place, report: &Report<'_>, now: Instant) -> Option<News> {
        let Report { ending, used, limits, account } = *report;
        let mut state = self.state();
        if place.is_of_run {
            state.seated = state.seated.saturating_sub(1);
        }
        if let Some(account) = account
            && state.shares_account(place.member, account, now)
        {
            let control = state.control;
            self.join_members(&mut state, control, now);
        }
        let scope = &place.scope;
        scope.observe(limits, &place.ticket, now);
        let signal = match ending {
            Ending::Answered => Signal::Succeeded,
            Ending::Alive | Ending::Dead => Signal::Alive,
            Ending::Failed { overloaded: true, .. } => Signal::Overloaded,
            Ending::RateLimited(_) => Signal::RateLimited,
            Ending::Failed { .. } | Ending::Cancelled => Signal::None,
        };
        let news = state.judge(place, ending, now);
        if let Ending::RateLimited(after) = ending
            && !after.is_zero()
        {
            scope.pause_until(now + after);
        }
        state.leave(place, used, signal, now);
        if std::mem::take(&mut state.is_short) || news.is_some() {
            drop(state);
            self.runs.wake();
        }
        news
    }

    /// Joins the scopes of those that are not joined yet.
    fn join_members(&self, state: &mut State, control: Control, now: Instant) {
        for member in state.members.iter_mut().filter(|member| member.joined.is_none()) {
            let runs = Arc::clone(&self.runs);
            let joined = member.scope.join(Arc::new(move || runs.wake()), &[], None, control, now);
            // Whether it is away is found out here.
            member.scope.ignore_outages(joined);
            member.joined = Some(joined);
        }
    }

    /// The members that are never asked again.
    pub fn dropped(&self) -> Vec<usize> {
        let state = self.state();
        let dropped = state.members.iter().enumerate().filter(|(_, member)| member.health.is_dropped());
        dropped.map(|(number, _)| number).collect()
    }
}

impl Seats for Pool {
    fn join(&self, run: Joined, wake: Wake, control: Control, now: Instant) {
        let mut state = self.state();
        state.control = if control == Control::Fixed { Control::Pace } else { control };
        let control = state.control;
        self.join_members(&mut state, control, now);
        drop(state);
        self.runs.get().push(Run { run, wake, is_idle: false });
    }

    fn leave(&self, run: Joined, now: Instant) {
        let mut runs = self.runs.get();
        runs.retain(|other| other.run != run);
        let is_last = runs.is_empty();
        drop(runs);
        if is_last {
            let mut state = self.state();
            for member in &mut state.members {
                if let Some(joined) = member.joined.take() {
                    member.scope.leave(joined, now);
                    member.is_in_line = false;
                }
            }
        }
    }

    fn reserve(&self, estimate: Estimate, now: Instant) -> Result<(), Blocked> {
        let mut state = self.state();
        let not_spare = state.not_spare;
        match state.choose(not_spare, 0, estimate, true, now) {
            Ok(place) => {
                state.seats.push_back(place);
                state.admitted += 1;
                Ok(())
            }
            Err(blocked) => {
                state.is_short = true;
                Err(blocked.unwrap_or(Blocked { until: None, cause: Cause::Away }))
            }
        }
    }

    fn settle(&self, now: Instant) {
        let mut state = self.state();
        state.admitted = state.admitted.saturating_sub(1);
        while state.seats.len() + state.seated > state.admitted
            && let Some(place) = state.seats.pop_back()
        {
            state.leave(&place, Used::NotSent, Signal::None, now);
        }
    }

    fn rest(&self) {
        self.state().step_aside();
    }

    fn idles(&self, run: Joined, is_idle: bool) {
        if let Some(known) = self.runs.get().iter_mut().find(|known| known.run == run) {
            known.is_idle = is_idle;
        }
    }

    fn counts_tokens(&self) -> bool {
        self.state().members.iter().any(|member| member.scope.counts_tokens())
    }

    fn fits(&self, estimate: Estimate) -> Result<(), TooLarge> {
        let state = self.state();
        let mut problem = None;
        for member in state.members.iter().filter(|member| !member.health.is_dropped()) {
            match member.scope.fits(estimate) {
                Ok(()) => return Ok(()),
                Err(too_large) => problem = Some(too_large),
            }
        }
        problem.map_or(Ok(()), Err)
    }
}

impl State {
    /// A place with the best member from `tier` on that can be asked. Of members of different tiers, those of the lower
    /// are asked, even if they are to be waited for. `in_window`: only within the concurrency that was found.
    fn choose(
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
                    Standing::Well => candidates.add(number, member.cost(), member.is_slow),
                    Standing::Weak => candidates.add(number, member.cost(), true),
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
    fn enter(&mut self, number: usize, estimate: Estimate, in_window: bool, now: Instant) -> Result<Place, Blocked> {
        let member = &mut self.members[number];
        let Some(joined) = member.joined else { return Err(Blocked { until: None, cause: Cause::Turn }) };
        match member.scope.admit_if(joined, estimate, in_window, now) {
            Ok(ticket) => {
                member.is_in_line = false;
                member.asked(now);
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
    fn step_aside(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.is_in_line) {
            member.is_in_line = false;
            if let Some(joined) = member.joined {
                member.scope.step_aside(joined);
            }
        }
    }

    /// The attempt at a place is over.
    fn leave(&mut self, place: &Place, used: Used, signal: Signal, now: Instant) {
        let member = &mut self.members[place.member];
        member.left(place.began);
        if used == Used::NotSent {
            member.health.gave_up(now);
        }
        place.scope.reconcile(&place.ticket, used, signal, now);
    }

    /// A place where requests with this prefix usually go, if that is another one.
    fn move_home(&mut self, prefix: u64, place: &Place, now: Instant) -> Option<Place> {
        self.review(now);
        let tier = self.members[place.member].tier;
        let is_usual =
            |member: &Member| member.tier == tier && member.health.standing(now) == Standing::Well && !member.is_slow;
        let usual = self.members.iter().enumerate().filter(|(_, member)| is_usual(member));
        let (loads, weights) = usual
            .clone()
            .fold((0.0, 0.0), |(loads, weights), (_, member)| (loads + member.load(), weights + member.weight));
        let number = home(prefix, usual.map(|(number, member)| (number, member.weight)))?;
        let member = &self.members[number];
        let most = OVERFLOW * (loads * member.weight / weights).max(1.0);
        if number == place.member || member.load() + 1.0 > most {
            return None;
        }
        self.enter(number, place.estimate, true, now).ok()
    }

    /// A member's replies name this account: those of the same have its limits from now on. Whether that is news.
    fn shares_account(&mut self, number: usize, account: u64, now: Instant) -> bool {
        if self.members[number].account.replace(account) == Some(account) {
            return false;
        }
        let endpoint = self.members[number].endpoint;
        let mut same = self.members.iter().enumerate().filter(|(other, member)| {
            *other != number && member.account == Some(account) && member.endpoint == endpoint
        });
        let Some(scope) = same.next().map(|(_, other)| Arc::clone(&other.scope)) else { return false };
        let member = &mut self.members[number];
        if Arc::ptr_eq(&member.scope, &scope) {
            return false;
        }
        let before = std::mem::replace(&mut member.scope, scope);
        member.is_in_line = false;
        if let Some(joined) = member.joined.take() {
            before.leave(joined, now);
        }
        true
    }

    fn review(&mut self, now: Instant) {
        if self.reviewed.is_none_or(|at| now >= at + REVIEW) {
            self.reviewed = Some(now);
            review(&mut self.members, now);
        }
    }

    /// Whether half of the members or more are not to be asked.
    fn is_suffering(&self) -> bool {
        let usual = self.members.iter().filter(|member| member.tier == 0 && !member.health.is_dropped());
        let out = usual.clone().filter(|member| member.health.is_out()).count();
        2 * out >= usual.count().max(1)
    }

    /// What the end of an attempt says about its member.
    fn judge(&mut self, place: &Place, ending: Ending, now: Instant) -> Option<News> {
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
    fn others_fail(&self, number: usize) -> f64 {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != number);
        let known = others.filter(|(_, member)| !member.health.is_out());
        let (sum, count) = known
            .filter_map(|(_, member)| member.health.failing())
            .fold((0.0, 0), |(sum, count), share| (sum + share, count + 1));
        if count == 0 { 0.0 } else { sum / f64::from(count) }
    }

    /// Whether a member may be ejected: no more than half of its tier, and never the last that there is.
    fn may_eject(&self, number: usize) -> bool {
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

fn earlier(known: Option<Blocked>, until: Option<Instant>, cause: Cause) -> Option<Blocked> {
    Some(match known {
        None => Blocked { until, cause },
        Some(Blocked { until: before, cause: of_before }) => match (before, until) {
            (Some(before), Some(until)) if until < before => Blocked { until: Some(until), cause },
            (None, Some(until)) => Blocked { until: Some(until), cause },
            _ => Blocked { until: before, cause: of_before },
        },
    })
}
