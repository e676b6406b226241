//! A quota scope: what everybody who asks the same provider with the same key for the same model shares.
//!
//! Runs join a scope and ask it before each attempt. Those that wait stand in one line, one attempt each at a time,
//! so that several runs of one process get equal shares; a run that waits is woken when its turn comes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::adaptive::{Adaptive, AtLimit, Signal};
use super::heads::Entries;
use super::measure::{Estimate, Limit, Measure, ReportedLimit};
use super::meter::DEFAULT_BURST;
use super::outage::{Epoch, Evidence, Fate, Outages, Standing, View};
use super::quota::{Quota, Ticket, TooLarge, Used};

/// Wakes a run; must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A run's membership of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member(u64);

/// Why an attempt has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The concurrency limit that was found is reached.
    Concurrency,
    /// Attempts follow each other as fast as the provider is known to take.
    Paced,
    /// A limit is used up.
    Quota(Measure),
    /// Another run that shares the scope met a rate limit.
    Paused,
    /// The provider is away, and it is not the time for a probe.
    Away,
    /// Another run that shares the scope is next.
    Turn,
}

/// An attempt has to wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blocked {
    /// Until then, if it is known; the run is woken in any case where it is not.
    pub until: Option<Instant>,
    /// Why.
    pub cause: Cause,
}

/// Seats for attempts. A scope reserves one for each attempt that it admits; whoever makes the attempt claims it.
pub trait Seats: Send + Sync {
    /// A run joins. `wake` must not block; it is called whenever there may be a seat again.
    fn join(&self, run: Member, wake: Wake, control: Control, now: Instant);

    /// A run leaves.
    fn leave(&self, run: Member, now: Instant);

    /// Reserves a seat.
    ///
    /// # Errors
    /// Why there is none, and until when.
    fn reserve(&self, estimate: Estimate, now: Instant) -> Result<(), Blocked>;

    /// An attempt that was admitted has ended; if it has not claimed its seat, that is given back.
    fn attempt_ended(&self, now: Instant);

    /// Nobody wants a seat at the moment: others need not wait.
    fn rest(&self);

    /// Whether a run has free workers and nothing left to start, and could pay for more.
    fn idles(&self, run: Member, is_idle: bool);

    /// Whether estimates are needed.
    fn counts_tokens(&self) -> bool;

    /// Whether an attempt can ever pass.
    ///
    /// # Errors
    /// Names the limit that it exceeds by itself.
    fn fits(&self, estimate: Estimate) -> Result<(), TooLarge>;
}

pub(super) struct Joined {
    member: Member,
    wake: Wake,
    limits: Vec<Limit>,
    burst: f64,
    control: Control,
    /// Attempts in flight, at most, where its run does not bound them by workers.
    most: Option<u32>,
    /// Whether it has a part in outages.
    heeds_outages: bool,
}

/// What a member wants to have found out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Control {
    /// Nothing: it has its own ways with rate limits.
    #[default]
    Fixed,
    /// How fast attempts may follow each other; how many may be in flight is given.
    Pace,
    /// That, and how many may be in flight.
    PaceAndConcurrency,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) quota: Quota,
    /// Only while a member wants it.
    pub(super) adaptive: Option<Adaptive>,
    pub(super) paused_until: Option<Instant>,
    pub(super) members: Vec<Joined>,
    /// This process' share of the limits.
    pub(super) share: Option<f64>,
    /// Whether anybody was blocked on a limit since the last look.
    pub(super) was_short: bool,
    /// Whether the first in line is blocked on a limit.
    pub(super) is_short: bool,
    /// Who waits, in turn.
    pub(super) line: VecDeque<Member>,
    next_member: u64,
    outages: Outages,
    /// What was found out before the present streak of failures.
    before: Option<Adaptive>,
}

/// See the module.
#[derive(Default)]
pub struct Scope {
    state: Mutex<State>,
    /// Grows whenever there is news of an outage: whoever waits for that needs not take the lock.
    news: AtomicU64,
    /// What is in the provider's prompt caches.
    caches: Mutex<Entries>,
    /// Grows whenever one has been written, or its writer has failed.
    news_of_caches: AtomicU64,
    /// Whoever has its attempts, if those go to several endpoints with limits of their own.
    pub(super) seats: Option<Arc<dyn Seats>>,
}

/// An attempt that failed because the provider is away.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    /// Whose.
    pub member: Member,
    /// What it says.
    pub evidence: Evidence,
}

impl Scope {
    /// One whose attempts need seats: nothing is found out about limits but there.
    pub fn of_seats(seats: Arc<dyn Seats>) -> Self {
        Self { seats: Some(seats), ..Self::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins with the limits that the user of this run gave. Of several members' limits the tightest hold.
    pub fn join(&self, wake: Wake, limits: &[Limit], burst: Option<f64>, control: Control, now: Instant) -> Member {
        let mut state = self.state();
        let member = Member(state.next_member);
        state.next_member += 1;
        let burst = burst.unwrap_or(DEFAULT_BURST);
        let mut control = control;
        if let Some(seats) = &self.seats {
            seats.join(member, Arc::clone(&wake), control, now);
            control = Control::Fixed;
        }
        state.members.push(Joined {
            member,
            wake,
            limits: limits.to_vec(),
            burst,
            control,
            most: None,
            heeds_outages: true,
        });
        state.configure(now);
        member
    }

    /// Changes the limits that the user of this run gave. Those that stay keep what is left of them.
    pub fn set_limits(&self, member: Member, limits: &[Limit], now: Instant) {
        let mut state = self.state();
        if let Some(joined) = state.members.iter_mut().find(|joined| joined.member == member) {
            joined.limits = limits.to_vec();
        }
        state.configure(now);
        // Whoever waited for a limit that is another one now.
        for joined in &state.members {
            (joined.wake)();
        }
    }

    /// Leaves. Its limits go with it, unless it was the last: then they stay, or the next run would get a full bucket.
    pub fn leave(&self, member: Member, now: Instant) {
        let mut state = self.state();
        if state.members.len() > 1 {
            state.members.retain(|joined| joined.member != member);
            state.configure(now);
        } else {
            state.members.clear();
            state.outages.deserted();
        }
        state.step_aside(member);
        drop(state);
        if let Some(seats) = &self.seats {
            seats.leave(member, now);
        }
    }

    /// Asks for an attempt.
    ///
    /// # Errors
    /// Why it has to wait, and until when; the member stands in line then.
    pub fn admit(&self, member: Member, estimate: Estimate, now: Instant) -> Result<Ticket, Blocked> {
        self.admit_if(member, estimate, true, now)
    }

    /// Asks for an attempt, with `in_window: false` also beyond the concurrency that was found: for one that takes the
    /// place of another, elsewhere.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn admit_if(
        &self,
        member: Member,
        estimate: Estimate,
        in_window: bool,
        now: Instant,
    ) -> Result<Ticket, Blocked> {
        let mut state = self.state();
        if state.line.front().is_some_and(|first| *first != member) {
            state.stand_in_line(member);
            return Err(Blocked { until: None, cause: Cause::Turn });
        }
        let seated = |()| self.seats.as_ref().map_or(Ok(()), |seats| seats.reserve(estimate, now));
        if let Err(held) = state.ready(member, estimate, in_window, now).and_then(seated) {
            state.stand_in_line(member);
            return Err(held);
        }
        state.is_short = false;
        state.step_aside(member);
        if let Some(adaptive) = &mut state.adaptive {
            adaptive.started(now);
        }
        let number = state.outages.started(now);
        let mut ticket = state.quota.take(estimate, now);
        ticket.number = number;
        Ok(ticket)
    }

    /// Does not want anything at the moment: others need not wait for this member.
    pub fn step_aside(&self, member: Member) {
        let mut state = self.state();
        state.step_aside(member);
        if state.line.is_empty()
            && let Some(seats) = &self.seats
        {
            seats.rest();
        }
    }

    /// An attempt ended, or was not made.
    pub fn reconcile(&self, ticket: &Ticket, used: Used, signal: Signal, now: Instant) {
        self.attempt_ended(now);
        let mut state = self.state();
        state.quota.reconcile(ticket, used, now);
        match signal {
            Signal::Succeeded | Signal::Alive | Signal::RateLimited => {
                let was_away = state.outages.is_away();
                if state.outages.answered(ticket.number) {
                    if let Some(adaptive) = state.adaptive.as_mut().filter(|_| was_away) {
                        adaptive.reconnects(now);
                    }
                    self.outage_news(&mut state);
                }
            }
            Signal::None | Signal::Overloaded => {
                state.outages.ended(ticket.number, !matches!(used, Used::NotSent), now);
            }
        }
        state.reconcile(ticket, signal, now);
    }

    /// An attempt failed because the provider is away. `signal`: what else that says.
    pub fn lose(&self, ticket: &Ticket, used: Used, signal: Signal, lost: &Lost, now: Instant) -> Standing {
        self.attempt_ended(now);
        let mut state = self.state();
        state.quota.reconcile(ticket, used, now);
        let was_quiet = !state.outages.is_suspected() && !state.outages.is_away();
        if was_quiet {
            state.before = state.adaptive.clone();
        }
        let (standing, begins) = state.outages.failed(ticket.number, &lost.evidence, now);
        if begins {
            if let Some(before) = state.before.take()
                && let Some(adaptive) = &mut state.adaptive
            {
                adaptive.restore(before, now);
            }
            self.outage_news(&mut state);
        }
        let is_away = matches!(standing, Standing::Away(_));
        state.reconcile(ticket, if is_away { Signal::None } else { signal }, now);
        if is_away {
            // Its end may have been what the next probe waited for.
            state.wake_first();
        }
        standing
    }

    fn attempt_ended(&self, now: Instant) {
        if let Some(seats) = &self.seats {
            seats.attempt_ended(now);
        }
    }

    fn outage_news(&self, state: &mut State) {
        self.news.fetch_add(1, Ordering::Release);
        state.before = None;
        for joined in &state.members {
            (joined.wake)();
        }
    }

    /// Changes whenever a streak of failures is over, or an outage begins or ends.
    pub fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    /// What is in the provider's prompt caches.
    pub(super) fn caches(&self) -> MutexGuard<'_, Entries> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others may wait for what has become of a prompt cache.
    pub(super) fn caches_changed(&self, member: Member) {
        self.news_of_caches.fetch_add(1, Ordering::Release);
        for joined in self.state().members.iter().filter(|joined| joined.member != member) {
            (joined.wake)();
        }
    }

    /// Changes with each call of [`caches_changed`](Self::caches_changed).
    pub(super) fn news_of_caches(&self) -> u64 {
        self.news_of_caches.load(Ordering::Acquire)
    }

    /// The current outage.
    pub fn outage(&self) -> Option<View> {
        self.state().outages.view()
    }

    /// Whether a probe may be sent now, if there is an outage.
    pub fn may_probe(&self, now: Instant) -> bool {
        self.state().outages.ready(now).is_ok()
    }

    /// What became of a streak of failures.
    pub fn fate(&self, epoch: Epoch) -> Fate {
        self.state().outages.fate(epoch)
    }

    /// This member has no part in outages: none blocks it.
    pub fn ignore_outages(&self, member: Member) {
        if let Some(joined) = self.state().members.iter_mut().find(|joined| joined.member == member) {
            joined.heeds_outages = false;
        }
    }

    /// So many attempts are in flight at most for as long as this member is there.
    pub fn bound_in_flight(&self, member: Member, most: u32) {
        if let Some(joined) = self.state().members.iter_mut().find(|joined| joined.member == member) {
            joined.most = Some(most);
        }
    }

    /// With adaptive members: how many attempts may be in flight, and how many may start per second.
    pub fn bounds(&self) -> Option<(f64, Option<f64>)> {
        self.state().adaptive.as_ref().map(Adaptive::bounds)
    }

    /// What a reply reports about limits.
    pub fn observe(&self, reported: &[ReportedLimit], ticket: &Ticket, now: Instant) {
        let mut state = self.state();
        for reported in reported {
            state.quota.observe(reported, ticket, now);
        }
    }

    /// The end of the pause, if there is one.
    pub fn paused_until(&self) -> Option<Instant> {
        self.state().paused_until
    }

    /// Nobody starts before this instant.
    pub fn pause_until(&self, until: Instant) {
        let mut state = self.state();
        state.paused_until = state.paused_until.max(Some(until));
    }

    /// Whether estimates are needed.
    pub fn counts_tokens(&self) -> bool {
        self.state().quota.counts_tokens() || self.seats.as_ref().is_some_and(|seats| seats.counts_tokens())
    }

    /// Whether an attempt can ever pass.
    ///
    /// # Errors
    /// Names the limit that it exceeds by itself.
    pub fn fits(&self, estimate: Estimate) -> Result<(), TooLarge> {
        self.state().quota.fits(estimate)?;
        self.seats.as_ref().map_or(Ok(()), |seats| seats.fits(estimate))
    }

    /// The limits in force: the limit, whether it was learned from the provider, and what is left of it.
    pub fn levels(&self, now: Instant) -> Vec<(Limit, bool, f64)> {
        self.state().quota.levels(now)
    }
}

impl Member {
    /// Its number within the scope.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl State {
    /// Tells what finds limits out of the end of an attempt.
    fn reconcile(&mut self, ticket: &Ticket, signal: Signal, now: Instant) {
        let known = self.quota.known();
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.ended(ticket.at, signal, known, now);
            // The run whose attempt it was looks for work anyway.
            if self.members.len() > 1 {
                self.wake_first();
            }
        }
    }

    pub(super) fn configure(&mut self, now: Instant) {
        let mut limits: Vec<Limit> = Vec::new();
        for given in self.members.iter().flat_map(|joined| &joined.limits) {
            match limits.iter_mut().find(|known| known.measure == given.measure && known.per == given.per) {
                Some(known) => known.amount = known.amount.min(given.amount),
                None => limits.push(*given),
            }
        }
        let share = self.share.unwrap_or(1.0);
        limits.iter_mut().for_each(|limit| limit.amount *= share);
        self.quota.set_share(share, now);
        self.quota.is_shared = self.share.is_some();
        let burst = self.members.iter().map(|joined| joined.burst).fold(f64::INFINITY, f64::min);
        self.quota.configure(&limits, burst, now);
        // A member with a fixed number keeps to it by itself; what was found out stays for the next one.
        if self.adaptive.is_none() && self.members.iter().any(|joined| joined.control != Control::Fixed) {
            self.adaptive = Some(Adaptive::new(now));
        }
    }

    fn ready(&mut self, member: Member, estimate: Estimate, in_window: bool, now: Instant) -> Result<(), Blocked> {
        if let Err(until) = self.outages.ready(now)
            && self.members.iter().any(|joined| joined.member == member && joined.heeds_outages)
        {
            return Err(Blocked { until: Some(until), cause: Cause::Away });
        }
        if let Some(until) = self.paused_until {
            if until > now {
                return Err(Blocked { until: Some(until), cause: Cause::Paused });
            }
            self.paused_until = None;
            if let Some(adaptive) = &mut self.adaptive {
                adaptive.resumed(now);
            }
        }
        if let Err(short) = self.quota.ready(estimate, now) {
            (self.was_short, self.is_short) = (true, true);
            return Err(Blocked { until: Some(short.until), cause: Cause::Quota(short.measure) });
        }
        let Some(adaptive) = &mut self.adaptive else { return Ok(()) };
        let joined = self.members.iter().find(|joined| joined.member == member);
        let control = joined.map(|joined| joined.control).unwrap_or_default();
        if control == Control::Fixed {
            return Ok(());
        }
        if joined.and_then(|joined| joined.most).is_some_and(|most| adaptive.in_flight() >= most) {
            return Err(Blocked { until: None, cause: Cause::Concurrency });
        }
        match adaptive.ready(in_window && control == Control::PaceAndConcurrency, now) {
            Ok(()) => Ok(()),
            Err(AtLimit::Window) => Err(Blocked { until: None, cause: Cause::Concurrency }),
            Err(AtLimit::Pace(until)) => {
                (self.was_short, self.is_short) = (true, true);
                Err(Blocked { until: Some(until), cause: Cause::Paced })
            }
        }
    }

    fn stand_in_line(&mut self, member: Member) {
        if !self.line.contains(&member) {
            self.line.push_back(member);
        }
    }

    fn step_aside(&mut self, member: Member) {
        let was_first = self.line.front() == Some(&member);
        if was_first {
            self.line.pop_front();
            self.wake_first();
        } else if !self.line.is_empty() {
            self.line.retain(|other| *other != member);
        }
    }

    pub(super) fn wake_first(&self) {
        if let Some(first) = self.line.front()
            && let Some(joined) = self.members.iter().find(|joined| joined.member == *first)
        {
            (joined.wake)();
        }
    }
}
