//! The limits of one quota scope: what is counted, what is left, and when the next attempt may pass.
//!
//! An attempt takes an estimate from all limits at once or from none; when its real usage is known, the difference
//! is given back or owed. What replies report about limits steers the same meters.

use std::time::Duration;

use tokio::time::Instant;

use super::measure::{Amounts, Estimate, Limit, Measure, ReportedLimit};
use super::meter::{DEFAULT_BURST, LONGEST_BUCKET, Meter, Row};
use super::stats::Usage;
use super::units::seconds;

/// What an attempt took, for the time when it ends.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    taken: Amounts,
    /// All estimates that had been taken when this was.
    spent: Amounts,
    /// When.
    pub at: Instant,
    /// Its number within its scope, which gives it.
    pub number: u64,
}

/// How much an attempt has used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Used {
    /// It was never sent.
    NotSent,
    /// The provider rejected it: a request, but no tokens.
    Rejected,
    /// The provider's count.
    Reported(Usage),
    /// Nobody knows: the estimate stands.
    Unknown,
}

/// Which limit an attempt is blocked on, and until when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Short {
    /// What is used up.
    pub measure: Measure,
    /// When there will be enough.
    pub until: Instant,
}

/// What is known of a scope's limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KnownLimits {
    /// Nothing: neither a user has given any nor the provider reported one.
    Nothing,
    /// Limits that are not of requests.
    Something,
    /// Requests per second.
    PerSecond(f64),
}

/// A single attempt needs more than a limit allows in its whole time.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("needs about {needed:.0} {}, but the limit is {limit:.0} per {:.0} s", .measure.name().replace('_', " "), .per.as_secs_f64())]
pub struct TooLarge {
    /// Which limit.
    pub measure: Measure,
    /// The estimate.
    pub needed: f64,
    /// The limit.
    pub limit: f64,
    /// Its time.
    pub per: Duration,
}

/// Times shorter than a minute for which providers give quotas, seconds.
const SHORT: [f64; 6] = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// How long a request may be on its way, seconds: others overtake it, and are counted by the provider in another
/// order than they were sent.
const DISORDER: f64 = 0.1;

/// All limits of one scope.
#[derive(Debug, Clone)]
pub struct Quota {
    rows: Vec<Row>,
    burst: f64,
    spent: Amounts,
    /// The share of what the provider reports that is ours.
    share: f64,
    /// Whether others have theirs: then nothing is there from the beginning, or each would bring its own.
    pub is_shared: bool,
    /// What was spent at the last look at the use.
    looked: Option<(Instant, Amounts)>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            burst: DEFAULT_BURST,
            spent: Amounts::default(),
            share: 1.0,
            is_shared: false,
            looked: None,
        }
    }
}

impl Quota {
    /// Sets the limits that users give: those that are new start full, those that are gone are forgotten, those that
    /// change keep what is left. Learned ones stay.
    pub fn configure(&mut self, limits: &[Limit], burst: f64, now: Instant) {
        self.burst = burst;
        self.rows.retain(|row| row.learned || limits.iter().any(|limit| same(limit, &row.limit)));
        for limit in limits {
            match self.rows.iter_mut().find(|row| !row.learned && same(&row.limit, limit)) {
                Some(row) => row.set_amount(limit.amount, burst, now),
                None => self.add(Row::new(*limit, false, burst, now), now),
            }
        }
    }

    /// From now on only this share of what the provider reports is ours.
    pub fn set_share(&mut self, share: f64, now: Instant) {
        for row in self.rows.iter_mut().filter(|row| row.learned) {
            row.set_amount(row.limit.amount * share / self.share, self.burst, now);
        }
        self.share = share;
    }

    /// The share of the limits that was taken since the last look, of the one that was used most.
    pub fn used(&mut self, now: Instant) -> f64 {
        let (since, before) = self.looked.replace((now, self.spent)).unwrap_or((now, self.spent));
        let (spent, elapsed) = (self.spent.minus(&before), (now - since).as_secs_f64());
        let share = |row: &Row| {
            let allowed = row.limit.amount * elapsed / row.limit.per.as_secs_f64();
            if allowed > 0.0 { spent.of(row.limit.measure) / allowed } else { 0.0 }
        };
        self.rows.iter().map(share).fold(0.0, f64::max)
    }

    fn add(&mut self, mut row: Row, now: Instant) {
        if self.is_shared {
            row.empty(now);
        }
        self.rows.push(row);
    }

    /// Takes away what may pass at once, but for a moment's worth: where others share the limits, that is saved first.
    pub fn begin_empty(&mut self, now: Instant) {
        self.rows.iter_mut().for_each(|row| row.empty(now));
    }

    /// Whether anything counts tokens, so that estimates are needed.
    pub fn counts_tokens(&self) -> bool {
        self.rows.iter().any(|row| row.limit.measure != Measure::Requests)
    }

    /// What is known of the pace that these limits allow.
    pub fn known(&self) -> KnownLimits {
        // What seems to be for less than a minute tells of no pace, until it is known for how long.
        let is_certain = |row: &&Row| row.limit.measure == Measure::Requests && row.at_once.is_none();
        let rates = self.rows.iter().filter(is_certain);
        let slowest = rates.map(|row| row.limit.amount / row.limit.per.as_secs_f64()).min_by(f64::total_cmp);
        match slowest {
            Some(rate) => KnownLimits::PerSecond(rate),
            None if self.rows.is_empty() => KnownLimits::Nothing,
            None => KnownLimits::Something,
        }
    }

    /// Whether an attempt can ever pass.
    ///
    /// # Errors
    /// Names the limit that a user gave and that it exceeds by itself.
    pub fn fits(&self, estimate: Estimate) -> Result<(), TooLarge> {
        let amounts = estimate.amounts();
        for Row { limit, learned, .. } in &self.rows {
            let needed = amounts.of(limit.measure);
            if !learned && limit.measure != Measure::Requests && needed > limit.amount {
                return Err(TooLarge { measure: limit.measure, needed, limit: limit.amount, per: limit.per });
            }
        }
        Ok(())
    }

    /// Whether an attempt may pass now. All limits are checked, so that the answer names the last of them.
    ///
    /// # Errors
    /// Which limit blocks it longest.
    pub fn ready(&mut self, estimate: Estimate, now: Instant) -> Result<(), Short> {
        let amounts = estimate.amounts();
        let mut short: Option<Short> = None;
        for row in &mut self.rows {
            let measure = row.limit.measure;
            if let Err(until) = row.ready(amounts.of(measure), now)
                && short.is_none_or(|known| known.until < until)
            {
                short = Some(Short { measure, until });
            }
        }
        short.map_or(Ok(()), Err)
    }

    /// Takes what an attempt is expected to use.
    pub fn take(&mut self, estimate: Estimate, now: Instant) -> Ticket {
        let taken = estimate.amounts();
        self.spent.add(&taken);
        for row in &mut self.rows {
            row.change(&taken, now);
        }
        Ticket { taken, spent: self.spent, at: now, number: 0 }
    }

    /// Puts real usage in the place of the estimate.
    pub fn reconcile(&mut self, ticket: &Ticket, used: Used, now: Instant) {
        #[allow(clippy::cast_precision_loss)]
        let real = match used {
            Used::Unknown => return,
            Used::NotSent => Amounts::default(),
            Used::Rejected => Amounts([ticket.taken.0[0], 0.0, 0.0, 0.0]),
            Used::Reported(usage) => {
                let (input, output) = (usage.input as f64, usage.output as f64);
                Amounts([ticket.taken.0[0], (input + output).max(usage.total as f64), input, output])
            }
        };
        let difference = real.minus(&ticket.taken);
        for row in &mut self.rows {
            // What the provider has reported since then has this attempt in it, as it really was.
            if row.heard.is_none_or(|heard| heard < ticket.at) {
                row.change(&difference, now);
            }
        }
    }

    /// Takes note of what the reply to a request says. It counts what had reached the provider when it was written,
    /// about everything sent up to that request: what was sent later is still to be subtracted.
    pub fn observe(&mut self, reported: &ReportedLimit, ticket: &Ticket, now: Instant) {
        self.correct(reported, ticket, now);
        let Some(per) = self.window_of(reported) else { return };
        let reported = &ReportedLimit {
            limit: reported.limit.map(|limit| limit * self.share),
            remaining: reported.remaining.map(|remaining| remaining * self.share),
            ..*reported
        };
        let limit = reported.limit.map(|amount| Limit { measure: reported.measure, amount, per });
        let known =
            self.rows.iter().any(|row| row.learned && row.limit.measure == reported.measure && row.limit.per == per);
        if let Some(limit) = limit
            && !known
            && limit.amount > 0.0
        {
            let is_guess = reported.per.is_none() && per <= LONGEST_BUCKET;
            self.add(Row::known(limit, true, is_guess, self.burst, now), now);
        }
        let later = self.spent.minus(&ticket.spent).of(reported.measure);
        for row in self.rows.iter_mut().filter(|row| row.limit.measure == reported.measure && row.limit.per == per) {
            // Replies come in any order; the one to the latest request knows most. Of requests that may have overtaken
            // each other, the most careful reply is believed.
            if row.heard.is_some_and(|heard| heard > ticket.at) {
                continue;
            }
            let news = row.heard.is_none_or(|heard| ticket.at - heard > seconds(DISORDER));
            if news {
                row.heard = Some(ticket.at);
            }
            if row.learned {
                row.fill(now);
                row.will_be_whole(reported, news, now);
            }
            if let Some(limit) = limit
                && row.learned
                && limit.amount > 0.0
                && (row.limit.amount - limit.amount).abs() > 1e-9
            {
                row.set_amount(limit.amount, self.burst, now);
            }
            if let Some(remaining) = reported.remaining {
                let (refilled, margin) = match &row.meter {
                    Meter::Bucket(bucket) => {
                        let rate = bucket.per_second();
                        (rate * (now - ticket.at).as_secs_f64(), (1.0 + rate * DISORDER).min(remaining / 2.0))
                    }
                    Meter::Window(_) => (0.0, 0.0),
                };
                row.steer(remaining + refilled - later - margin, news, now);
            }
        }
    }

    /// Finds out that what was taken for a minute's quota is one of a shorter time: when it was to be whole again it
    /// was, and soon will be again. And that it was not that short after all.
    fn correct(&mut self, reported: &ReportedLimit, ticket: &Ticket, now: Instant) {
        let (Some(limit), Some(remaining), Some(reset), None) =
            (reported.limit, reported.remaining, reported.reset, reported.per)
        else {
            return;
        };
        let used = limit - remaining;
        let is_guess = |row: &&mut Row| row.learned && row.limit.measure == reported.measure && row.is_guess;
        let Some(row) = self.rows.iter_mut().find(is_guess) else { return };
        let per = row.limit.per.as_secs_f64();
        let right = if per < LONGEST_BUCKET.as_secs_f64() {
            // Some report times in whole seconds.
            if used <= 0.0 || reset <= 1.1 * per || reset > LONGEST_BUCKET.as_secs_f64() * 1.1 {
                return;
            }
            short(reset).unwrap_or(LONGEST_BUCKET)
        } else {
            let Some((before, whole)) = row.at_once.filter(|(_, whole)| ticket.at >= *whole) else { return };
            row.at_once = None;
            let next = (now + seconds(reset)).saturating_duration_since(whole);
            if used <= 0.0 || used * self.share > before / 2.0 || next > LONGEST_BUCKET / 2 {
                return;
            }
            let Some(right) = short(reset) else { return };
            right
        };
        let limit = Limit { per: right, ..row.limit };
        *row = Row { heard: row.heard, ..Row::known(limit, true, true, self.burst, now) };
    }

    /// The time that a reported limit is for. Most providers do not report it: a minute, unless it takes longer than
    /// that until it is whole again; then an hour or a day, whichever fits the pace of its refill better.
    fn window_of(&self, reported: &ReportedLimit) -> Option<Duration> {
        const MINUTE: f64 = 60.0;
        if let Some(per) = reported.per {
            return Some(seconds(per)).filter(|per| !per.is_zero());
        }
        let (Some(limit), Some(remaining), Some(reset)) = (reported.limit, reported.remaining, reported.reset) else {
            let known = self.rows.iter().find(|row| row.limit.measure == reported.measure).map(|row| row.limit.per);
            return known.or_else(|| reported.limit.map(|_| LONGEST_BUCKET));
        };
        if reset <= MINUTE * 1.1 || limit <= remaining {
            let guess =
                self.rows.iter().find(|row| row.learned && row.limit.measure == reported.measure && row.is_guess);
            return Some(guess.map_or(LONGEST_BUCKET, |row| row.limit.per));
        }
        let inferred = limit * reset / (limit - remaining);
        let distance = |window: f64| (inferred / window).ln().abs();
        let (hour, day) = (3600.0, 86_400.0);
        Some(Duration::from_secs_f64(if distance(hour) < distance(day) { hour } else { day }))
    }

    /// The limits in force, and what is left of each.
    pub fn levels(&mut self, now: Instant) -> Vec<(Limit, bool, f64)> {
        let level = |row: &mut Row| match &mut row.meter {
            Meter::Bucket(bucket) => bucket.level(now),
            Meter::Window(window) => window.level(now),
        };
        self.rows.iter_mut().map(|row| (row.limit, row.learned, level(row))).collect()
    }
}

/// The time for which a quota is that is whole again after so many seconds, if that is less than a minute.
fn short(reset: f64) -> Option<Duration> {
    SHORT.into_iter().find(|per| reset <= 1.05 * per).map(seconds)
}

fn same(one: &Limit, other: &Limit) -> bool {
    one.measure == other.measure && one.per == other.per
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
