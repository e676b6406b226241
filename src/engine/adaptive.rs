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

use super::bucket::Bucket;
use super::quota::KnownLimits;

/// Attempts in flight at the beginning.
const FIRST_WINDOW: f64 = 8.0;
/// Growth of the window per success before the first reduction: it doubles in about three times the latency.
const FIRST_GROWTH: f64 = 0.25;
/// What a reduction leaves of the window (RFC 9438, section 4.6).
const WINDOW_BETA: f64 = 0.7;
/// What a reduction leaves of the pace: gentler, for a rate limit is a number, not a queue that has to drain.
const PACE_BETA: f64 = 0.85;
/// Shortest time from a reduction back to the old top, seconds.
const RETURN: f64 = 5.0;
/// A return takes at least so many attempts: each look beyond the top costs a rate limit or two.
const RETURN_ATTEMPTS: f64 = 150.0;
/// And at most so long, seconds.
const LONGEST_RETURN: f64 = 60.0;
/// After so many successes in a row a rate limit may be chance: only the next one, if it comes before as many, reduces
/// the pace.
const STRAY: u32 = 200;
/// Seconds' worth of the pace that may start at once.
const PACE_BURST: f64 = 0.5;
/// Slowest pace, attempts per second.
const SLOWEST: f64 = 1.0 / 60.0;
/// What is sent within this time after an outage says nothing about latency.
const RECONNECTING: Duration = Duration::from_secs(1);
/// Latencies below say nothing, seconds.
const NOISE: f64 = 0.005;
/// Successes whose mean latency is one observation, at least.
const ROUND: u32 = 32;
/// Latency at which the window stops growing, and at which it is reduced, in terms of the lowest.
const SLOW: f64 = 1.5;
const TOO_SLOW: f64 = 2.0;
/// A reduction that leaves so much of the latency was no remedy.
const UNMOVED: f64 = 0.85;

/// The curve after a reduction.
#[derive(Debug, Clone, Copy)]
struct Cubic {
    top: f64,
    beta: f64,
    /// Seconds until the old top is reached again.
    back: f64,
    /// Seconds during which the control delayed something.
    age: f64,
}

impl Cubic {
    fn new(top: f64, beta: f64, back: f64) -> Self {
        Self { top, beta, back, age: 0.0 }
    }

    fn value(&self) -> f64 {
        let relative = (self.age - self.back) / self.back;
        self.top * (1.0 + (1.0 - self.beta) * relative.powi(3))
    }
}

/// The bound of attempts per second.
#[derive(Debug, Clone)]
struct Pace {
    curve: Cubic,
    bucket: Bucket,
    /// Successes of attempts sent since the reduction.
    delivered: u32,
    reduced: Instant,
}

impl Pace {
    fn new(top: f64, now: Instant) -> Self {
        let back = (RETURN_ATTEMPTS / top).clamp(RETURN, LONGEST_RETURN);
        let curve = Cubic::new(top, PACE_BETA, back);
        let mut bucket = Bucket::new(curve.value(), 1.0, PACE_BURST, now);
        // What was sent before the reduction counts: nothing is saved up.
        bucket.set_level(0.0, now);
        Self { curve, bucket, delivered: 0, reduced: now }
    }
}

/// Latencies of one round of successes.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    sum: f64,
    count: u32,
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
        if let Some(pace) = &mut self.pace {
            pace.bucket.set_rate(pace.curve.value().max(SLOWEST), 1.0, PACE_BURST, now);
            if let Err(until) = pace.bucket.ready(1.0, now) {
                self.limited_by_pace = true;
                return Err(AtLimit::Pace(until));
            }
        }
        Ok(())
    }

    /// A pause is over: what the pace has saved up in it is not spent at once.
    pub fn resumed(&mut self, now: Instant) {
        if let Some(pace) = &mut self.pace {
            let level = pace.bucket.level(now).min(1.0);
            pace.bucket.set_level(level, now);
        }
    }

    /// Goes back to what was known then: what has happened since says nothing about how much the provider takes.
    pub fn restore(&mut self, before: Self, now: Instant) {
        let in_flight = self.in_flight;
        *self = Self { in_flight, looked: now, limited_by_window: false, limited_by_pace: false, ..before };
    }

    /// An outage is over: everybody connects anew at once, so that the first latencies say nothing.
    pub fn reconnects(&mut self, now: Instant) {
        self.window_reduced = self.window_reduced.max(Some(now + RECONNECTING));
        self.round = Round::default();
    }

    /// An attempt starts.
    pub fn started(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.in_flight += 1;
        if let Some(pace) = &mut self.pace {
            pace.bucket.take(1.0);
        }
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
        (self.window, self.pace.as_ref().map(|pace| pace.curve.value()))
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
            curve.age += passed;
            self.window = curve.value();
        }
        if std::mem::take(&mut self.limited_by_pace)
            && let Some(pace) = &mut self.pace
        {
            pace.curve.age += passed;
        }
    }

    fn succeeded(&mut self, at: Instant, now: Instant) {
        self.successes += 1;
        self.in_a_row = self.in_a_row.saturating_add(1);
        if let Some(pace) = &mut self.pace
            && at >= pace.reduced
        {
            pace.delivered += 1;
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
                curve.age = curve.back;
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
            Some(pace) if at < pace.reduced => return,
            Some(pace) => {
                // What got through since the last reduction, but no more than a halving where few did.
                let passed = (now - pace.reduced).as_secs_f64().max(1e-3);
                let present = pace.curve.value();
                (f64::from(pace.delivered) / passed).clamp(present / 2.0, present)
            }
            // Limits that are known were missed by little: there is no need to look for them far below.
            None if known != KnownLimits::Nothing => {
                let latency = match (self.round.count, self.lowest) {
                    (0, lowest) => lowest.unwrap_or(1.0),
                    (count, _) => self.round.sum / f64::from(count),
                };
                let present = (f64::from(self.in_flight) + 1.0) / latency.max(1e-3);
                if let KnownLimits::PerSecond(rate) = known { rate.min(present) } else { present }
            }
            None => {
                let passed = self.first.map_or(1.0, |first| (now - first).as_secs_f64()).max(0.1);
                f64::from(self.successes.max(1)) / passed
            }
        };
        self.pace = Some(Pace::new(top.max(SLOWEST), now));
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
