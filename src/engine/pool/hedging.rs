//! How many requests may be sent a second time: a share of all, and none where that would make things worse.

/// Requests sent a second time, of all.
const SHARE: f64 = 0.015;

/// When a second request may be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum When {
    /// Never.
    Never,
    /// When a run has nothing left to start: its last requests decide when it ends.
    #[default]
    Tail,
    /// Always.
    Always,
}

/// What was sent a second time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hedging {
    when: When,
    requests: u64,
    second: u64,
}

impl Hedging {
    /// None so far.
    pub fn new(when: When) -> Self {
        Self { when, ..Self::default() }
    }

    /// Whether there ever is one.
    pub fn is_enabled(&self) -> bool {
        self.when != When::Never
    }

    /// A request is sent for the first time.
    pub fn sent(&mut self) {
        self.requests += 1;
    }

    /// Whether one more may be sent. `is_idle`: nothing is left to start.
    #[allow(clippy::cast_precision_loss)]
    pub fn may(&self, is_idle: bool) -> bool {
        let is_time = match self.when {
            When::Never => false,
            When::Tail => is_idle,
            When::Always => true,
        };
        is_time && (self.second + 1) as f64 <= SHARE * self.requests as f64
    }

    /// One more was sent.
    pub fn hedged(&mut self) {
        self.second += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_two_hundred_and_only_when_it_is_time() {
        let mut hedging = Hedging::new(When::Tail);
        (0..49).for_each(|_| hedging.sent());
        assert!(!hedging.may(true));
        (0..151).for_each(|_| hedging.sent());
        assert!(hedging.may(true) && !hedging.may(false));
        (0..3).for_each(|_| hedging.hedged());
        assert!(!hedging.may(true));
        assert!(!Hedging::new(When::Never).is_enabled());
    }
}
