//! The pause that all workers share after a rate limit, in generations.
//!
//! A generation is the time between two cooldowns. A rate limit starts a new cooldown only when its request was
//! sent in the present generation: the other 199 rate limits of one burst, and a late one from before, join the
//! current pause or are already answered by the last one. A success counts likewise.

use std::time::Duration;

use tokio::time::Instant;

/// Which cooldown came last when a request was sent.
pub type Generation = u64;

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Attempts may start.
    Open,
    /// Attempts wait; the rate-limit strategy is deciding for how long, and nobody may be back before `floor`.
    Deciding { since: Instant, floor: Instant },
    /// Attempts wait until then.
    Cooling { since: Instant, until: Instant },
}

/// State of the cooldown of one run.
#[derive(Debug)]
pub struct Cooldown {
    phase: Phase,
    generation: Generation,
    consecutive: u32,
}

impl Default for Cooldown {
    fn default() -> Self {
        Self { phase: Phase::Open, generation: 0, consecutive: 0 }
    }
}

impl Cooldown {
    /// Whether attempts may start.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// The generation that a request sent now belongs to.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many cooldowns there were since the last success.
    pub fn consecutive(&self) -> u32 {
        self.consecutive
    }

    /// A request of generation `sent` met a rate limit, and `Retry-After` was `wait`.
    /// Returns whether this starts a cooldown (then [`decide`](Self::decide) must follow).
    pub fn rate_limited(&mut self, sent: Generation, wait: Duration, now: Instant) -> bool {
        let back = now + wait;
        match &mut self.phase {
            Phase::Deciding { floor, .. } => *floor = (*floor).max(back),
            Phase::Cooling { until, .. } => *until = (*until).max(back),
            Phase::Open if sent == self.generation => {
                self.phase = Phase::Deciding { since: now, floor: back };
                self.generation += 1;
                self.consecutive = self.consecutive.saturating_add(1);
                return true;
            }
            Phase::Open => {}
        }
        false
    }

    /// The strategy's answer: pause for `pause` from now. Returns the planned end, `None` when none was requested.
    pub fn decide(&mut self, pause: Duration, now: Instant) -> Option<Instant> {
        let Phase::Deciding { since, floor } = self.phase else { return None };
        let until = floor.max(now + pause);
        self.phase = Phase::Cooling { since, until };
        Some(until)
    }

    /// A request of generation `sent` succeeded.
    pub fn succeeded(&mut self, sent: Generation) {
        if sent == self.generation {
            self.consecutive = 0;
        }
    }

    /// When the pause ends, if it is known.
    pub fn ends_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Cooling { until, .. } => Some(until),
            Phase::Open | Phase::Deciding { .. } => None,
        }
    }

    /// Ends a pause whose time is over and returns how long it was, from the rejection on.
    pub fn poll(&mut self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Cooling { since, until } if until <= now => {
                self.phase = Phase::Open;
                Some(now - since)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_of_refusals_is_one_cooldown() {
        let now = Instant::now();
        let mut cooldown = Cooldown::default();
        let sent = cooldown.generation();
        let leaders = (0..200).filter(|_| cooldown.rate_limited(sent, Duration::ZERO, now)).count();
        assert_eq!((leaders, cooldown.consecutive()), (1, 1));
        cooldown.decide(SECOND, now);
        assert!(cooldown.poll(now).is_none() && !cooldown.is_open());
        assert_eq!(cooldown.poll(now + SECOND), Some(SECOND));
        // Late news from before the pause starts no second one, and an old success does not end the escalation.
        assert!(!cooldown.rate_limited(sent, Duration::ZERO, now + SECOND));
        cooldown.succeeded(sent);
        assert_eq!(cooldown.consecutive(), 1);
        assert!(cooldown.rate_limited(cooldown.generation(), Duration::ZERO, now + SECOND));
        assert_eq!(cooldown.consecutive(), 2);
    }

    #[test]
    fn the_servers_word_is_a_floor() {
        let now = Instant::now();
        let mut cooldown = Cooldown::default();
        assert!(cooldown.rate_limited(0, SECOND * 5, now));
        assert_eq!(cooldown.decide(SECOND, now), Some(now + SECOND * 5));
        // A longer `Retry-After` that arrives during the pause prolongs it.
        assert!(!cooldown.rate_limited(0, SECOND * 9, now));
        assert_eq!(cooldown.ends_at(), Some(now + SECOND * 9));
    }

    #[test]
    fn a_success_of_the_present_generation_ends_the_escalation() {
        let mut cooldown = Cooldown::default();
        cooldown.rate_limited(0, Duration::ZERO, Instant::now());
        cooldown.succeeded(cooldown.generation());
        assert_eq!(cooldown.consecutive(), 0);
    }

    proptest! {
        /// Whatever comes in whatever order: generations grow by one per cooldown, a pause is never shorter than
        /// any floor it was told, and nothing ever stays shut once it has been decided.
        #[test]
        fn generations_never_run_backwards(
            events in prop::collection::vec((0u8..4, 0u64..5, 0u64..40), 1..200),
        ) {
            let mut now = Instant::now();
            let mut cooldown = Cooldown::default();
            let (mut cooldowns, mut floor) = (0, now);
            for (kind, back, wait) in events {
                now += Duration::from_millis(wait * 100);
                let sent = cooldown.generation().saturating_sub(back);
                match kind {
                    0 => {
                        let was_open = cooldown.is_open();
                        let leads = cooldown.rate_limited(sent, Duration::from_secs(wait), now);
                        prop_assert_eq!(leads, was_open && back.min(cooldowns) == 0);
                        cooldowns += u64::from(leads);
                        if !cooldown.is_open() {
                            floor = floor.max(now + Duration::from_secs(wait));
                        }
                    }
                    1 => { cooldown.decide(Duration::from_secs(wait), now); }
                    2 => cooldown.succeeded(sent),
                    _ => if cooldown.poll(now).is_some() { prop_assert!(now >= floor); }
                }
                prop_assert_eq!(cooldown.generation(), cooldowns);
                prop_assert!(u64::from(cooldown.consecutive()) <= cooldowns);
            }
            cooldown.decide(Duration::ZERO, now);
            cooldown.poll(now + Duration::from_secs(100));
            prop_assert!(cooldown.is_open());
        }
    }
}
