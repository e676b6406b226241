//! The clock of batches: a monotonic one that can be put forward, so that a day passes in a moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The last time that a header can tell: the end of the year 9999.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// A clock that begins at zero, and knows what the calendar said then.
#[derive(Debug)]
pub struct Clock {
    began: Instant,
    /// Seconds since 1970 when it began.
    epoch: f64,
    /// How many seconds pass in a second.
    scale: f64,
    /// Microseconds by which it was put forward.
    forward: AtomicU64,
}

impl Clock {
    /// Begins now.
    pub fn new(scale: f64) -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self { began: Instant::now(), epoch, scale, forward: AtomicU64::new(0) }
    }

    /// Seconds since the beginning.
    pub fn now(&self) -> f64 {
        let forward = Duration::from_micros(self.forward.load(Ordering::Relaxed));
        self.began.elapsed().as_secs_f64() * self.scale + forward.as_secs_f64()
    }

    /// Puts it forward.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        let forward = |now: u64| Some(now.saturating_add(micros));
        let _ = self.forward.fetch_update(Ordering::Relaxed, Ordering::Relaxed, forward);
    }

    /// What it says, as HTTP's headers tell times.
    pub fn date(&self) -> String {
        let since = Duration::try_from_secs_f64(self.epoch + self.now()).unwrap_or_default();
        // Later years than HTTP can tell are the last of them.
        httpdate::fmt_http_date(UNIX_EPOCH + since.min(LAST_DATE))
    }

    /// Seconds since 1970 when it began.
    pub fn epoch(&self) -> f64 {
        self.epoch
    }
}

/// Seconds since 1970 as an instant of RFC 3339.
pub fn rfc3339(unix: f64) -> String {
    let micros = jiff::SignedDuration::try_from_secs_f64(unix).map(|all| all.as_micros()).unwrap_or_default();
    let at = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    at.unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_put_forward_but_not_too_far() {
        let clock = Clock::new(1.0);
        clock.advance(Duration::from_secs(3600));
        assert!(clock.now() >= 3600.0 && clock.now() < 3700.0);
        clock.advance(Duration::MAX);
        assert!(clock.now() > 1e12);
        assert!(!rfc3339(clock.epoch() + clock.now()).is_empty());
        assert_eq!(clock.date(), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn instants_are_told_with_a_zone() {
        assert_eq!(rfc3339(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1.5), "1970-01-01T00:00:01.5Z");
    }
}
