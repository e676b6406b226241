//! Several endpoints as one: which of them gets an attempt, and what their answers say about them.
//!
//! Each member has a scope of its own, with its limits, its pace and its concurrency. A scope of a run that is made with
//! [`Scope::of_seats`](super::scope::Scope::of_seats) asks the pool before each attempt for a seat: so attempts wait in
//! the run's queue, not in flight. The provider in `crate::providers::pool` claims the seat, and tells how it went.
//!
//! [`Trial`] is an attempt; [`choice`] says who is first, [`health`] who is asked at all, [`latency`] how long answers take, [`queue`] who has to wait for others, [`hedging`] which
//! requests are sent twice. All are functions of their arguments, `now` among them.

mod attempt;
pub mod choice;
pub mod health;
pub mod hedging;
mod latency;
mod member;
pub mod queue;
mod reasons;
mod state;
#[cfg(test)]
mod tests;
mod trial;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::Signal;
use super::measure::Estimate;
use super::quota::{TooLarge, Used};
use super::scope::{Blocked, Cause, Control, Member as Joined, Seats, Wake};
pub use attempt::{Ending, News, Place, Report};
use choice::Set;
use hedging::When;
pub use member::Part;
use queue::Depth;
pub use reasons::{Reason, Reasons};
use state::State;
pub use trial::{Next, Trial};

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

/// See the module.
pub struct Pool {
    runs: Arc<Runs>,
    state: Mutex<State>,
    /// Whether members have limits of tokens, as of the last review: it is asked for each item.
    counts_tokens: AtomicBool,
    /// Whether any member tells of its queue.
    watches_queues: bool,
    /// Whether there is a choice between prompt caches.
    keeps_prefixes: bool,
}

impl Pool {
    /// A pool of at most [`MOST`](choice::MOST) members. `seed`: of its random choices.
    pub fn new(parts: Vec<Part>, when: When, seed: u64) -> Self {
        let state = State::new(parts, when, seed);
        // One alone is asked however much it has to do.
        let watches_queues = state.members.len() > 1 && state.members.iter().any(|member| member.queue.is_watched());
        let keeps_prefixes = state.members.iter().filter(|member| member.tier == 0 && member.is_own_server).count() > 1;
        let counts_tokens = AtomicBool::new(false);
        Self { runs: Arc::default(), state: Mutex::new(state), counts_tokens, watches_queues, keeps_prefixes }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it matters what requests begin with: see [`claim`](Self::claim).
    pub fn keeps_prefixes(&self) -> bool {
        self.keeps_prefixes
    }

    /// Claims the seat of an attempt that a scope has admitted; `None`: there is none. `prefix`: what the request begins
    /// with. Of the requests for members with prompt caches, those that begin alike go to one of these, as long as it has
    /// not much more to do than the others.
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
        // Nobody was tried yet if only those are left out that are no spare.
        let is_first = tier == 0 && tried == state.not_spare;
        let mut place = match state.choose(tried, tier, estimate, is_first, now) {
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
        if state.hedging.is_enabled() { state.percentile.get() } else { None }
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

    fn look_at_limits(&self, state: &State) {
        let counts = state.members.iter().any(|member| member.scope.counts_tokens());
        self.counts_tokens.store(counts, Ordering::Relaxed);
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

    /// A member whose server is to be asked now how much it has to do; tell [`told`](Self::reported) what it answers.
    pub fn queue_to_read(&self, now: Instant) -> Option<usize> {
        if !self.watches_queues {
            return None;
        }
        let members = &mut self.state().members;
        members.iter_mut().position(|member| !member.health.is_dropped() && member.queue.is_due(now))
    }

    /// What a member's server has told of its queue, to a question of `asked`.
    pub fn reported(&self, member: usize, reported: Depth, requested: Instant, now: Instant) {
        if let Some(member) = self.state().members.get_mut(member) {
            member.queue.reported(reported, member.load(), requested, now);
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
        self.look_at_limits(&state);
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
        let found = state.choose(not_spare, 0, estimate, true, now);
        if state.reviewed == Some(now) {
            self.look_at_limits(&state);
        }
        match found {
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

    fn attempt_ended(&self, now: Instant) {
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
        self.counts_tokens.load(Ordering::Relaxed)
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
