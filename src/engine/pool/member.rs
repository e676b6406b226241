//! What a pool knows of one member, and how members are compared.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::health::{Health, Standing};
use super::latency::Latency;
use super::queue::Queue;
use super::reasons::Reasons;
use crate::engine::scope::{Member as Joined, Scope};

/// A member is slow that takes so many times as long as the others do.
const SLOW: f64 = 3.0;
/// One that has not answered for so many times as long is slow, whatever it took before.
const SILENT: f64 = 10.0;
/// Fewer answers say nothing about it.
const ENOUGH: u32 = 10;
/// That so many requests have had no answer yet is no chance.
const MANY: u32 = 8;
/// What a member is believed to take before anything is known of any, seconds.
const UNKNOWN: f64 = 1.0;
/// How long a slow member is left alone first; then one request finds out whether it still is.
const FIRST: Duration = Duration::from_secs(5);
/// At most.
const LONGEST: Duration = Duration::from_secs(60);

/// What a pool is made of.
#[derive(Clone)]
pub struct Part {
    /// The member's limits.
    pub scope: Arc<Scope>,
    /// How much of the load it gets, in terms of the others.
    pub weight: f64,
    /// Zero: a member. Others are fallbacks, in this order.
    pub tier: u8,
    /// What a fallback is asked for; `overload`: where no member can be asked.
    pub reasons: Reasons,
    /// A number for its address and model: where those are the same, keys of one account share limits.
    pub endpoint: u64,
    /// Whether its server is one that has a queue and a prompt cache of its own, and may tell how many requests wait.
    pub is_own_server: bool,
}

/// One member.
pub struct Member {
    pub scope: Arc<Scope>,
    pub joined: Option<Joined>,
    /// Whether it was asked for a place, and had none.
    pub is_in_line: bool,
    pub weight: f64,
    pub tier: u8,
    pub reasons: Reasons,
    /// Where it is, and its model.
    pub endpoint: u64,
    /// The account that its replies name.
    pub account: Option<u64>,
    /// Whether requests that begin alike are to go there together.
    pub is_own_server: bool,
    pub health: Health,
    pub queue: Queue,
    /// Whether it takes much longer than the others.
    pub is_slow: bool,
    latency: Latency,
    in_flight: u32,
    /// The sum of when they were sent, seconds since [`born`](Self::born).
    sent: f64,
    born: Option<Instant>,
    /// The mean of the fastest, seconds.
    fastest: Option<f64>,
    /// When it last answered, or was first asked after a while.
    heard: Option<Instant>,
    /// When to find out whether it is still slow, and how long after that again.
    due: Option<(Instant, Duration)>,
}

impl Member {
    pub fn new(part: Part) -> Self {
        let Part { scope, weight, tier, reasons, endpoint, is_own_server } = part;
        Self {
            scope,
            joined: None,
            is_in_line: false,
            weight: if weight.is_finite() && weight > 0.0 { weight } else { 1.0 },
            tier,
            reasons,
            endpoint,
            account: None,
            is_own_server,
            health: Health::default(),
            queue: Queue::new(is_own_server),
            is_slow: false,
            latency: Latency::default(),
            in_flight: 0,
            sent: 0.0,
            born: None,
            fastest: None,
            heard: None,
            due: None,
        }
    }

    /// How long a request is expected to take that is sent now, in terms of the others.
    pub fn cost(&self, now: Instant) -> f64 {
        self.latency.mean().unwrap_or(UNKNOWN) * (self.load_with_others(now) + 1.0) / self.weight
    }

    /// Requests that it has to do with.
    pub fn load(&self) -> f64 {
        f64::from(self.in_flight)
    }

    /// The same, and those of others that wait there.
    pub fn load_with_others(&self, now: Instant) -> f64 {
        self.load() + self.queue.ahead(now)
    }

    fn place_in_time(&mut self, at: Instant) -> f64 {
        at.saturating_duration_since(*self.born.get_or_insert(at)).as_secs_f64()
    }

    /// A request is about to be sent.
    pub fn requested(&mut self, now: Instant) {
        self.health.requested(now);
        if self.is_due(now) {
            self.due = self.due.map(|(_, length)| (now + length, (2 * length).min(LONGEST)));
        }
        if self.in_flight == 0 {
            self.heard = Some(now);
        }
        self.in_flight += 1;
        self.sent += self.place_in_time(now);
    }

    /// A request that was sent `began` has ended.
    pub fn left(&mut self, began: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.sent -= self.place_in_time(began);
        if self.in_flight == 0 {
            self.sent = 0.0;
        }
    }

    /// It has answered.
    pub fn answered(&mut self, latency: Duration, now: Instant) {
        self.heard = Some(now);
        if self.is_slow && self.fastest.is_some_and(|fastest| latency.as_secs_f64() < SLOW * fastest) {
            // What it took before is over.
            self.latency = Latency::default();
            self.is_slow = false;
            self.due = None;
        }
        self.latency.learn(latency);
    }

    /// A request was cancelled after so long: its answer would have taken longer yet.
    pub fn cancelled(&mut self, after: Duration) {
        if self.latency.mean().is_some_and(|mean| after.as_secs_f64() > mean) {
            self.latency.learn(after);
        }
    }

    /// Whether it is time to find out how long it takes: it is slow, or has not been asked for a while.
    pub fn is_due(&self, now: Instant) -> bool {
        match self.due {
            Some((due, _)) => due <= now,
            None => self.in_flight == 0 && self.heard.is_some_and(|at| now > at + FIRST),
        }
    }

    /// Finds out whether it is slow, in comparison with the fastest.
    fn compare(&mut self, fastest: &Latency, now: Instant) {
        let Some(mean) = fastest.mean() else { return };
        self.fastest = Some(mean);
        let in_flight = self.in_flight.max(1);
        let age = if self.in_flight == 0 { 0.0 } else { self.place_in_time(now) - self.sent / f64::from(in_flight) };
        let silent = self.heard.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let is_slow = age.min(silent) > SILENT * mean
            || match self.latency.count() {
                // Others have answered, and it has not, of many requests: no more until it does.
                0 => self.in_flight >= MANY,
                count => count >= ENOUGH && self.latency.is_longer(fastest, SLOW) || self.is_slow,
            };
        if is_slow && !self.is_slow {
            self.due = Some((now + FIRST, 2 * FIRST));
        } else if !is_slow {
            self.due = None;
        }
        self.is_slow = is_slow;
    }
}

/// Compares the members: which of them take much longer than the others do.
pub fn review(members: &mut [Member], now: Instant) {
    for tier in 0..=members.iter().map(|member| member.tier).max().unwrap_or_default() {
        let usual = |member: &&Member| {
            member.tier == tier
                && member.latency.count() >= ENOUGH
                && matches!(member.health.standing(now), Standing::Well | Standing::Weak)
        };
        // The fastest is what the others are compared with: of two, one is the slow one.
        let fastest = members.iter().filter(usual).map(|member| member.latency).min_by(Latency::order);
        let Some(fastest) = fastest else { continue };
        members.iter_mut().filter(|member| member.tier == tier).for_each(|member| member.compare(&fastest, now));
    }
}
