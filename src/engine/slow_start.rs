//! Slow start: after a cooldown, fresh items start with a minimum spacing until the strategy says it is over.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The spacing of fresh starts after a cooldown. The delays come from the rate-limit strategy in portions, computed
/// outside of the engine's lock: the n-th start keeps its delay from the one before it (the first from the resume).
#[derive(Debug, Default)]
pub struct SlowStart {
    delays: VecDeque<Duration>,
    /// Whether the strategy has more delays after those in hand.
    more: bool,
    asked: bool,
    /// Number of delays used or in hand: the next one to ask for.
    known: u64,
    previous: Option<Instant>,
}

/// Whether a fresh item may start.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Now,
    /// Not before this instant.
    At(Instant),
    /// Unknown until the strategy has returned the delays from this one on.
    Ask(u64),
    /// Unknown, and the question is on its way.
    Requested,
}

impl SlowStart {
    /// A pause that is longer than planned ended at `now`: the first delay counts from here.
    pub fn resume(&mut self, now: Instant) {
        self.previous = self.previous.map(|_| now);
    }

    /// Begins anew after a cooldown that ends at `now`.
    pub fn begin(&mut self, now: Instant, delays: impl IntoIterator<Item = Duration>, more: bool) {
        *self = Self { previous: Some(now), ..Self::default() };
        self.extend(delays, more);
    }

    /// Adds the next portion of delays.
    pub fn extend(&mut self, delays: impl IntoIterator<Item = Duration>, more: bool) {
        let before = self.delays.len();
        self.delays.extend(delays);
        self.known += (self.delays.len() - before) as u64;
        self.asked = false;
        // A strategy that promises more but gives nothing would be called for ever.
        self.more = more && self.delays.len() > before;
    }

    /// Whether a fresh item may start at `now`; call [`started`](Self::started) when it does.
    pub fn admit(&mut self, now: Instant) -> Admission {
        let Some(previous) = self.previous else { return Admission::Now };
        match self.delays.front() {
            Some(delay) if previous + *delay <= now => Admission::Now,
            Some(delay) => Admission::At(previous + *delay),
            None if !self.more => {
                self.previous = None;
                Admission::Now
            }
            None if self.asked => Admission::Requested,
            None => {
                self.asked = true;
                Admission::Ask(self.known)
            }
        }
    }

    /// Records the start of a fresh item.
    pub fn started(&mut self, now: Instant) {
        if self.previous.is_some() {
            self.previous = Some(now);
            self.delays.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_delayed_before_a_cooldown() {
        assert_eq!(SlowStart::default().admit(Instant::now()), Admission::Now);
    }

    #[test]
    fn delays_space_the_starts_and_end() {
        let start = Instant::now();
        let mut slow = SlowStart::default();
        slow.begin(start, [SECOND * 2, SECOND], false);
        assert_eq!(slow.admit(start), Admission::At(start + SECOND * 2));
        slow.started(start + SECOND * 2);
        assert_eq!(slow.admit(start + SECOND * 2), Admission::At(start + SECOND * 3));
        slow.started(start + SECOND * 3);
        assert_eq!(slow.admit(start + SECOND * 3), Admission::Now);
    }

    #[test]
    fn asks_once_for_the_next_portion() {
        let start = Instant::now();
        let mut slow = SlowStart::default();
        slow.begin(start, [Duration::ZERO], true);
        slow.started(start);
        assert_eq!(slow.admit(start), Admission::Ask(1));
        assert_eq!(slow.admit(start), Admission::Requested);
        slow.extend([SECOND], true);
        assert_eq!(slow.admit(start), Admission::At(start + SECOND));
        slow.started(start + SECOND);
        assert_eq!(slow.admit(start + SECOND), Admission::Ask(2));
        slow.extend([], true);
        assert_eq!(slow.admit(start + SECOND), Admission::Now);
    }
}
