//! When everything is blocked on the provider: reported once, with its end.

use std::time::Duration;

use tokio::time::Instant;

use super::bound::Bound;

/// A standstill of this length is reported.
pub const NEWS_AFTER: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standstill {
    since: Option<Instant>,
    /// Whether it has been looked at, and what it is blocked on if that was reported.
    reported: Option<Option<(Bound, Option<Instant>)>>,
}

impl Standstill {
    /// When it is to be looked at.
    pub fn due(&self) -> Option<Instant> {
        self.since.filter(|_| self.reported.is_none()).map(|since| since + NEWS_AFTER)
    }

    /// What it is blocked on, if that was reported, and until when.
    pub fn news(&self) -> Option<(Bound, Option<Instant>)> {
        self.reported.flatten()
    }

    /// Nothing starts. Whether it has lasted for so long that it is to be looked at: once.
    pub fn lasts(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        self.due().is_some_and(|due| due <= now)
    }

    /// It was looked at: what it is blocked on and until when, if that is to be reported.
    pub fn report(&mut self, news: Option<(Bound, Option<Instant>)>) {
        self.reported = Some(news);
    }
}
