//! One limit of a quota: how much of it is left, and what replies report about it. Only the quota uses it.

use std::time::Duration;

use tokio::time::Instant;

use super::bucket::{Bucket, Window};
use super::measure::{Amounts, Limit, ReportedLimit};
use super::units::seconds;

/// Seconds' worth of a short window's quota that may pass at once, unless a user says otherwise. A full minute's
/// would let twice the quota through in the first minute.
pub const DEFAULT_BURST: f64 = 10.0;

/// So many requests or tokens may pass at once where it is not known what time a quota is for.
const FEW: f64 = 10.0;

/// Seconds' worth of a limit that a process that shares it begins with.
const MOMENT: f64 = 0.1;

/// Windows longer than this may be used up at once: nobody spreads a day's quota over the day.
pub const LONGEST_BUCKET: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub enum Meter {
    Bucket(Bucket),
    Window(Window),
}

#[derive(Debug, Clone)]
pub struct Row {
    pub limit: Limit,
    /// Reported by the provider, not given by a user.
    pub learned: bool,
    /// The provider did not report what time it is for, but it is a minute or less.
    pub is_guess: bool,
    pub meter: Meter,
    /// When the request was sent whose reply steered this last.
    pub heard: Option<Instant>,
    /// When it is whole again, as the provider reported last.
    pub whole_at: Option<Instant>,
    /// More was used of a supposed minute's quota than comes back by the time when it is whole again, so that all comes
    /// back at once: how much, and that time.
    pub at_once: Option<(f64, Instant)>,
}

impl Row {
    pub fn new(limit: Limit, learned: bool, burst: f64, now: Instant) -> Self {
        Self::known(limit, learned, false, burst, now)
    }

    pub fn known(limit: Limit, learned: bool, is_guess: bool, burst: f64, now: Instant) -> Self {
        let per = limit.per.as_secs_f64();
        // A guess of less than a minute is of a quota that comes back at once, not bit by bit.
        let meter = if limit.per > LONGEST_BUCKET || (is_guess && limit.per < LONGEST_BUCKET) {
            Meter::Window(Window::new(limit.amount, limit.per))
        } else {
            let burst = Self::burst_of(&limit, learned, is_guess, burst);
            Meter::Bucket(Bucket::new(limit.amount, per, burst, now))
        };
        Self { limit, learned, is_guess, meter, heard: None, whole_at: None, at_once: None }
    }

    /// Seconds' worth that may pass at once. A provider's quota of a second is used up by a second's worth.
    fn burst_of(limit: &Limit, learned: bool, is_guess: bool, burst: f64) -> f64 {
        let per = limit.per.as_secs_f64();
        // Unless a few may pass at once, a second's quota of a few never shows that it is one.
        let few = if is_guess && burst >= DEFAULT_BURST { FEW * per / limit.amount } else { 0.0 };
        if learned { burst.max(few).min(per) } else { burst }
    }

    /// Leaves a moment's worth of what may pass at once.
    pub fn empty(&mut self, now: Instant) {
        if let Meter::Bucket(bucket) = &mut self.meter {
            let moment = (bucket.per_second() * MOMENT).max(1.0);
            let level = bucket.level(now).min(moment);
            bucket.set_level(level, now);
        }
    }

    pub fn ready(&mut self, amount: f64, now: Instant) -> Result<(), Instant> {
        self.fill(now);
        let ready = match &mut self.meter {
            Meter::Bucket(bucket) => bucket.ready(amount, now),
            Meter::Window(window) => window.ready(amount, now),
        };
        ready.map_err(|until| self.whole_at.map_or(until, |whole| until.min(whole)))
    }

    /// Fills it when the provider's time for that has come. No more may pass at once than ever, so that a quota of a
    /// minute is not spent in its first second.
    pub fn fill(&mut self, now: Instant) {
        if self.whole_at.is_none_or(|whole| whole > now) {
            return;
        }
        self.whole_at = None;
        match &mut self.meter {
            Meter::Bucket(bucket) => bucket.set_level(bucket.capacity(), now),
            Meter::Window(window) => window.clear(),
        }
    }

    /// Takes note of when it is whole again.
    pub fn will_be_whole(&mut self, reported: &ReportedLimit, news: bool, now: Instant) {
        let (Some(limit), Some(remaining), Some(reset)) = (reported.limit, reported.remaining, reported.reset) else {
            return;
        };
        if remaining >= limit {
            if news {
                self.whole_at = None;
            }
            return;
        }
        let whole = now + seconds(reset);
        self.whole_at = if news { Some(whole) } else { self.whole_at.max(Some(whole)) };
        let used = limit - remaining;
        // One more for what is rounded, and a second at least because of that too.
        let is_at_once = used > 1.0 + 2.0 * limit * reset.max(1.0) / LONGEST_BUCKET.as_secs_f64();
        if self.is_guess && self.limit.per == LONGEST_BUCKET && is_at_once {
            self.at_once = Some((used, whole));
        }
    }

    pub fn change(&mut self, amounts: &Amounts, now: Instant) {
        let amount = amounts.of(self.limit.measure);
        if amount == 0.0 {
            return;
        }
        match &mut self.meter {
            Meter::Bucket(bucket) => bucket.take(amount),
            Meter::Window(window) => window.take(amount, now),
        }
    }

    pub fn set_amount(&mut self, amount: f64, burst: f64, now: Instant) {
        self.limit.amount = amount;
        match &mut self.meter {
            Meter::Bucket(bucket) => {
                let per = self.limit.per.as_secs_f64();
                let burst = Self::burst_of(&self.limit, self.learned, self.is_guess, burst);
                bucket.set_rate(amount, per, burst, now);
            }
            Meter::Window(window) => window.set_amount(amount),
        }
    }

    /// Brings the level to what the provider reports. A user's limit only ever gets tighter by that, and so does one
    /// that has been steered just before.
    pub fn steer(&mut self, level: f64, news: bool, now: Instant) {
        let freely = self.learned && news;
        let wanted = |present: f64| if freely { level } else { level.min(present) };
        match &mut self.meter {
            Meter::Bucket(bucket) => {
                let level = wanted(bucket.level(now));
                bucket.set_level(level, now);
            }
            Meter::Window(window) => {
                let level = wanted(window.level(now));
                window.set_level(level, now);
            }
        }
    }
}
