//! Finds out how much a provider takes: how many attempts may be in flight, and how fast they may follow each other.
//!
//! Two controls, one curve. The *window* bounds attempts in flight and is reduced when the provider is overloaded or
//! gets slow; the *pace* bounds attempts per second and exists once a rate limit was met. After a reduction from a top
//! T both follow the cubic of TCP CUBIC (RFC 9438, section 4.2),
//!
//! ```text
//! T * (1 + (1 - beta) * ((t - K) / K)^3)
//! ```
//!
//! which returns to the old top within K seconds, stays near it, and then looks for more, faster and faster. Here K is
//! chosen rather than its constant C, and t only counts while the control really delays something. (AWS' SDKs use
//! the same curve for send rates, in their "adaptive" retry mode.) What rises with latency is TCP Vegas' idea
//! (Brakmo and Peterson, 1995): a provider whose latency has doubled is queueing.
//!
//! A burst of rate limits is one reduction: attempts that were sent before the last one do not cause another. And one
//! 429 among hundreds of successes is none: some providers send one now and then whatever the pace, and to slow down
//! for each would end far below what they take. A limit that is really met is met again at once.

use std::time::Duration;

use tokio::time::Instant;

use super::pace::{Cubic, Pace, RETURN};
use super::quota::KnownLimits;
use super::share::Share;

/// Attempts in flight at the beginning.
const FIRST_WINDOW: f64 = 8.0;
/// Growth of the window per success before the first reduction: it doubles in about three times the latency.
const FIRST_GROWTH: f64 = 0.25;
/// What a reduction leaves of the window (RFC 9438, section 4.6).
const WINDOW_BETA: f64 = 0.7;
/// After so many successes in a row a rate limit may be chance: only the next one, if it comes before as many, reduces
/// the pace.
const STRAY: u32 = 200;
/// What is sent within this time after an outage says nothing about latency.
const RECONNECTING: Duration = Duration::from_secs(1);
/// Latencies below say nothing, seconds.
const NOISE: f64 = 0.005;
/// Successes whose mean latency is one observation, at least.
const ROUND: u32 = 32;
/// Latency at which the window stops growing, and at which it is reduced, in terms of the lowest.
const SLOW: f64 = 1.5;
const TOO_SLOW: f64 = 2.0;
/// Rate limits that others met within this time of a reduction are of the burst that led to it: two renewals, and some.
const SAME_BURST: Duration = Duration::from_millis(1500);
/// A reduction that leaves so much of the latency was no remedy.
const UNMOVED: f64 = 0.85;

/// Latencies of one round of successes.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    sum: f64,
    count: u32,
}

/// What others who share the limits have to do with it.
#[derive(Debug, Clone, Copy)]
struct Group {
    /// Whether there are any.
    is_shared: bool,
    /// Rate limits that they have not been told of.
    refused: u32,
    /// Attempts since they were last told how much is used.
    started: u32,
    asked: Instant,
}

/// The state of both controls of one scope.
#[derive(Debug, Clone)]
pub struct Adaptive {
    in_flight: u32,
    window: f64,
    curve: Option<Cubic>,
    window_reduced: Option<Instant>,
    pace: Option<Pace>,
    /// Successes and their time before the first rate limit.
    first: Option<Instant>,
    successes: u32,
    /// Successes since the last rate limit.
    in_a_row: u32,
    round: Round,
    lowest: Option<f64>,
    /// The mean latency that led to the last reduction; if it does not fall, that was wrong.
    suspected: Option<f64>,
    slow: bool,
    looked: Instant,
    group: Group,
    /// Whether the window, or the pace, delayed something since then.
    limited_by_window: bool,
    limited_by_pace: bool,
}

/// What the end of an attempt says about the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Nothing.
    None,
    /// It answers.
    Alive,
    /// It copes.
    Succeeded,
    /// Too many requests or tokens.
    RateLimited,
    /// It has too much to do.
    Overloaded,
}

/// What an attempt is blocked on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AtLimit {
    /// The window is full; one attempt must end.
    Window,
    /// The pace, until then.
    Pace(Instant),
}

impl Adaptive {
    /// Knows nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            in_flight: 0,
            window: FIRST_WINDOW,
            curve: None,
            window_reduced: None,
            pace: None,
            first: None,
            successes: 0,
            in_a_row: 0,
            round: Round::default(),
            lowest: None,
            suspected: None,
            slow: false,
            looked: now,
            group: Group { is_shared: false, refused: 0, started: 0, asked: now },
            limited_by_window: false,
            limited_by_pace: false,
        }
    }

    /// Whether an attempt may start now. `windowed`: the run has no fixed number of attempts.
    pub fn ready(&mut self, windowed: bool, now: Instant) -> Result<(), AtLimit> {
        self.grow_old(now);
        if windowed && f64::from(self.in_flight) + 1.0 > self.window.max(1.0) {
            self.limited_by_window = true;
            return Err(AtLimit::Window);
        }
        if let Some(pace) = &mut self.pace
            && let Err(until) = pace.ready(now)
        {
            self.limited_by_pace = true;
            return Err(AtLimit::Pace(until));
        }
        Ok(())
    }

    /// A pause is over: what the pace has saved up in it is not spent at once.
    pub fn resumed(&mut self, now: Instant) {
        if let Some(pace) = &mut self.pace {
            pace.resumed(now);
        }
    }

    /// Goes back to what was known then: what has happened since says nothing about how much the provider takes.
    /// What others share has gone on meanwhile.
    pub fn restore(&mut self, before: Self, now: Instant) {
        let (in_flight, group) = (self.in_flight, self.group);
        let pace = if group.is_shared { self.pace.take() } else { before.pace.clone() };
        *self =
            Self { in_flight, group, pace, looked: now, limited_by_window: false, limited_by_pace: false, ..before };
    }

    /// An outage is over: everybody connects anew at once, so that the first latencies say nothing.
    pub fn reconnects(&mut self, now: Instant) {
        self.window_reduced = self.window_reduced.max(Some(now + RECONNECTING));
        self.round = Round::default();
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// An attempt starts.
    pub fn started(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.in_flight += 1;
        if let Some(pace) = &mut self.pace {
            pace.take();
        }
        self.group.started += 1;
    }

    /// An attempt that started at `at` has ended. `known`: what is known of the provider's limits.
    pub fn ended(&mut self, at: Instant, signal: Signal, known: KnownLimits, now: Instant) {
        self.grow_old(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        match signal {
            Signal::None | Signal::Alive => {}
            Signal::Succeeded => self.succeeded(at, now),
            Signal::RateLimited => {
                if std::mem::take(&mut self.in_a_row) < STRAY {
                    self.group.refused = self.group.refused.saturating_add(1);
                    self.reduce_pace(at, known, now);
                }
            }
            Signal::Overloaded => {
                self.reduce_window(at, now);
            }
        }
    }

    /// Attempts that may be in flight, and attempts per second that may start, if there is such a bound.
    pub fn bounds(&self) -> (f64, Option<f64>) {
        (self.window, self.pace.as_ref().map(Pace::value))
    }

    /// Counts time for the controls that were needed since the last look.
    fn grow_old(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.looked).as_secs_f64();
        if passed == 0.0 {
            return;
        }
        self.looked = now;
        if std::mem::take(&mut self.limited_by_window)
            && !self.slow
            && let Some(curve) = &mut self.curve
        {
            curve.grow_old(passed);
            self.window = curve.value();
        }
        if std::mem::take(&mut self.limited_by_pace)
            && let Some(pace) = &mut self.pace
        {
            pace.curve.grow_old(passed);
        }
    }

    fn succeeded(&mut self, at: Instant, now: Instant) {
        self.successes += 1;
        self.in_a_row = self.in_a_row.saturating_add(1);
        if let Some(pace) = &mut self.pace {
            pace.succeeded(at);
        }
        // Before the first reduction, the window grows with what is delivered while it is needed.
        let needed = f64::from(self.in_flight) + 1.0 >= 0.75 * self.window;
        if self.curve.is_none() && self.pace.is_none() && needed && !self.slow {
            self.window += FIRST_GROWTH;
        }
        // What was sent before a reduction says nothing about the time after it.
        if self.window_reduced.is_none_or(|reduced| at >= reduced) {
            self.round.sum += (now - at).as_secs_f64();
            self.round.count += 1;
        }
        if f64::from(self.round.count) >= f64::from(ROUND).max(self.window) {
            let Round { sum, count } = std::mem::take(&mut self.round);
            self.judge_latency(sum / f64::from(count), at, now);
        }
    }

    fn judge_latency(&mut self, mean: f64, at: Instant, now: Instant) {
        if let Some(suspected) = self.suspected.take()
            && mean > UNMOVED * suspected
        {
            // Fewer attempts were no faster: it is the answers that got longer, not the queue.
            self.lowest = Some(mean);
            if let Some(curve) = &mut self.curve {
                curve.return_now();
                self.window = curve.value();
            }
        }
        let lowest = self.lowest.map_or(mean, |lowest| lowest.min(mean));
        self.lowest = Some(lowest);
        // Where answers take no time, what is measured is our own: the write into a store, a turn of the loop.
        self.slow = mean > SLOW * lowest && mean > NOISE;
        if mean > TOO_SLOW * lowest && mean > NOISE && self.window > 1.0 && self.reduce_window(at, now) {
            self.suspected = Some(mean);
        }
    }

    /// Whether the window was reduced.
    fn reduce_window(&mut self, at: Instant, now: Instant) -> bool {
        if self.window_reduced.is_some_and(|reduced| at < reduced) {
            return false;
        }
        let top = self.window.min(f64::from(self.in_flight) + 1.0).max(1.0);
        let curve = Cubic::new(top, WINDOW_BETA, RETURN);
        self.window = curve.value().max(1.0);
        self.curve = Some(curve);
        self.window_reduced = Some(now);
        self.round = Round::default();
        true
    }

    fn reduce_pace(&mut self, at: Instant, known: KnownLimits, now: Instant) {
        let top = match &self.pace {
            Some(pace) if at < pace.reduced() => return,
            Some(pace) => pace.throughput(now),
            // Limits that are known were missed by little: there is no need to look for them far below.
            None if known != KnownLimits::Nothing => {
                let latency = match (self.round.count, self.lowest) {
                    (0, lowest) => lowest.unwrap_or(1.0),
                    (count, _) => self.round.sum / f64::from(count),
                };
                let present = (f64::from(self.in_flight) + 1.0) / latency.max(1e-3);
                if let KnownLimits::PerSecond(rate) = known { rate.min(present) } else { present }
            }
            None => self.first_throughput(now),
        };
        self.pace = Some(Pace::new(top, self.group.is_shared, now));
    }

    /// What to tell the others: the pace that was found, and how many rate limits counted since the last time.
    pub fn found(&mut self) -> (Option<f64>, u32) {
        (self.pace.as_ref().map(Pace::value), std::mem::take(&mut self.group.refused))
    }

    /// The part of what could be started that was, since the last time; while nothing is known: all, if anything was.
    pub fn used(&mut self, now: Instant) -> f64 {
        let started = f64::from(std::mem::take(&mut self.group.started));
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.group.asked, now)).as_secs_f64();
        match &self.pace {
            Some(pace) => started / (pace.value() * passed).max(1.0),
            None => started.min(1.0),
        }
    }

    /// Takes part in what the others have found. `said`: the pace that they were told, which may have been reduced since.
    pub fn join(&mut self, share: &Share, said: Option<f64>, now: Instant) {
        self.group.is_shared = share.is_shared;
        match (&mut self.pace, share.pace) {
            (Some(pace), Some(reported)) => {
                let times = reported / said.unwrap_or_else(|| pace.value());
                pace.scale(times);
            }
            (pace @ None, Some(reported)) => *pace = Some(Pace::reported(reported, now)),
            (_, None) => {}
        }
        // A burst of rate limits is one, whoever met them.
        let is_news = |pace: &Pace| now.saturating_duration_since(pace.reduced()) >= SAME_BURST;
        if share.refused > 0 && self.pace.as_ref().is_none_or(is_news) {
            let top = self.pace.as_ref().map_or_else(|| self.first_throughput(now), Pace::value);
            self.pace = Some(Pace::new(top, self.group.is_shared, now));
        }
    }

    /// What got through before the first rate limit.
    fn first_throughput(&self, now: Instant) -> f64 {
        let passed = self.first.map_or(1.0, |first| (now - first).as_secs_f64()).max(0.1);
        f64::from(self.successes.max(1)) / passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn succeed(adaptive: &mut Adaptive, count: u32, now: &mut Instant) {
        for _ in 0..count {
            adaptive.started(*now);
            let at = *now;
            *now += Duration::from_millis(10);
            adaptive.ended(at, Signal::Succeeded, KnownLimits::Nothing, *now);
        }
    }

    fn refuse(adaptive: &mut Adaptive, now: &mut Instant) -> Option<f64> {
        adaptive.started(*now);
        let at = *now;
        *now += Duration::from_millis(10);
        adaptive.ended(at, Signal::RateLimited, KnownLimits::Nothing, *now);
        adaptive.bounds().1
    }

    #[test]
    fn one_refusal_among_hundreds_is_chance_two_are_a_limit() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(now);
        for _ in 0..20 {
            succeed(&mut adaptive, STRAY, &mut now);
            assert_eq!(refuse(&mut adaptive, &mut now), None);
        }
        succeed(&mut adaptive, STRAY - 1, &mut now);
        assert!(refuse(&mut adaptive, &mut now).is_some());
    }

    #[test]
    fn a_refusal_at_the_beginning_is_a_limit() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(now);
        succeed(&mut adaptive, 10, &mut now);
        assert!(refuse(&mut adaptive, &mut now).is_some());
    }
}
