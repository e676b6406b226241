//! The limits of one quota scope: what is counted, what is left, and when the next attempt may pass.
//!
//! An attempt takes an estimate from all limits at once or from none; when its real usage is known, the difference
//! is given back or owed. What replies say about limits steers the same meters.

use std::time::Duration;

use tokio::time::Instant;

use super::adaptive::Known;
use super::bucket::{Bucket, Window};
use super::{Usage, seconds};

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Requests.
    Requests,
    /// Tokens of prompt and answer.
    Tokens,
    /// Tokens of the prompt.
    InputTokens,
    /// Tokens of the answer.
    OutputTokens,
}

impl Measure {
    /// The name in statistics and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
        }
    }
}

/// One limit as a user gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// What is counted.
    pub measure: Measure,
    /// So much (positive, fractions allowed) ...
    pub amount: f64,
    /// ... in this time.
    pub per: Duration,
}

/// One limit as a reply tells it. What a provider does not say is `None`, never zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Told {
    /// What is counted.
    pub measure: Measure,
    /// The quota of one window.
    pub limit: Option<f64>,
    /// What is left of it.
    pub remaining: Option<f64>,
    /// Seconds until it is whole again.
    pub reset: Option<f64>,
    /// The seconds that the quota is for, where that is known.
    pub per: Option<f64>,
}

/// What an attempt is expected to use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Requests: 1, or the share of an item that is packed into one with others.
    pub requests: f64,
    /// Tokens of the prompt.
    pub input: f64,
    /// Tokens of the answer.
    pub output: f64,
}

impl Default for Estimate {
    fn default() -> Self {
        Self { requests: 1.0, input: 0.0, output: 0.0 }
    }
}

impl Estimate {
    fn amounts(self) -> Amounts {
        Amounts([self.requests, self.input + self.output, self.input, self.output])
    }
}

/// An amount of each measure, in the order of [`Measure`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Amounts([f64; 4]);

impl Amounts {
    fn of(&self, measure: Measure) -> f64 {
        self.0[measure as usize]
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    fn minus(&self, other: &Self) -> Self {
        let mut difference = *self;
        for (mine, theirs) in difference.0.iter_mut().zip(other.0) {
            *mine -= theirs;
        }
        difference
    }
}

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
    /// The provider refused it: a request, but no tokens.
    Refused,
    /// The provider's count.
    Known(Usage),
    /// Nobody knows: the estimate stands.
    Unknown,
}

/// Which limit holds an attempt back, and until when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Short {
    /// What is used up.
    pub measure: Measure,
    /// When there will be enough.
    pub until: Instant,
}

/// A single attempt needs more than a limit allows in its whole time.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("needs about {needed:.0} {}, and {limit:.0} is the limit of {:.0} s", .measure.name(), .per.as_secs_f64())]
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

/// Windows longer than this may be used up at once: nobody spreads a day's quota over the day.
const LONGEST_BUCKET: Duration = Duration::from_secs(60);

/// How long a request may be on its way, seconds: others overtake it, and are counted by the provider in another
/// order than they were sent.
const DISORDER: f64 = 0.1;

#[derive(Debug, Clone)]
enum Meter {
    Bucket(Bucket),
    Window(Window),
}

#[derive(Debug, Clone)]
struct Row {
    limit: Limit,
    /// Told by the provider, not by a user.
    learned: bool,
    meter: Meter,
    /// When the request was sent whose reply steered this last.
    heard: Option<Instant>,
}

impl Row {
    fn new(limit: Limit, learned: bool, burst: f64, now: Instant) -> Self {
        let per = limit.per.as_secs_f64();
        let meter = if limit.per > LONGEST_BUCKET {
            Meter::Window(Window::new(limit.amount, limit.per))
        } else {
            Meter::Bucket(Bucket::new(limit.amount, per, Self::burst_of(per, learned, burst), now))
        };
        Self { limit, learned, meter, heard: None }
    }

    /// Seconds' worth that may pass at once. A provider's quota of a second is used up by a second's worth.
    fn burst_of(per: f64, learned: bool, burst: f64) -> f64 {
        if learned { burst.min(per) } else { burst }
    }

    fn ready(&mut self, amount: f64, now: Instant) -> Result<(), Instant> {
        match &mut self.meter {
            Meter::Bucket(bucket) => bucket.ready(amount, now),
            Meter::Window(window) => window.ready(amount, now),
        }
    }

    fn change(&mut self, amounts: &Amounts, now: Instant) {
        let amount = amounts.of(self.limit.measure);
        if amount == 0.0 {
            return;
        }
        match &mut self.meter {
            Meter::Bucket(bucket) => bucket.take(amount),
            Meter::Window(window) => window.take(amount, now),
        }
    }

    fn set_amount(&mut self, amount: f64, burst: f64, now: Instant) {
        self.limit.amount = amount;
        match &mut self.meter {
            Meter::Bucket(bucket) => {
                let per = self.limit.per.as_secs_f64();
                bucket.set_rate(amount, per, Self::burst_of(per, self.learned, burst), now);
            }
            Meter::Window(window) => window.set_amount(amount),
        }
    }

    /// Brings the level to what the provider says it is. A user's limit only ever gets tighter by that, and so does one
    /// that has been steered just before.
    fn steer(&mut self, level: f64, news: bool, now: Instant) {
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

/// All limits of one scope.
#[derive(Debug, Clone)]
pub struct Quota {
    rows: Vec<Row>,
    burst: f64,
    spent: Amounts,
    /// The part of what the provider tells that is ours.
    part: f64,
    /// What was spent at the last look at the use.
    looked: Option<(Instant, Amounts)>,
}

/// Seconds' worth of a short window's quota that may pass at once, unless a user says otherwise. A full minute's
/// would let twice the quota through in the first minute.
pub const DEFAULT_BURST: f64 = 10.0;

impl Default for Quota {
    fn default() -> Self {
        Self { rows: Vec::new(), burst: DEFAULT_BURST, spent: Amounts::default(), part: 1.0, looked: None }
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
                None => self.rows.push(Row::new(*limit, false, burst, now)),
            }
        }
    }

    /// From now on only this part of what the provider tells is ours.
    pub fn set_part(&mut self, part: f64, now: Instant) {
        for row in self.rows.iter_mut().filter(|row| row.learned) {
            row.set_amount(row.limit.amount * part / self.part, self.burst, now);
        }
        self.part = part;
    }

    /// The part of the limits that was taken since the last look, of the one that was used most.
    pub fn used(&mut self, now: Instant) -> f64 {
        let (since, before) = self.looked.replace((now, self.spent)).unwrap_or((now, self.spent));
        let (spent, elapsed) = (self.spent.minus(&before), (now - since).as_secs_f64());
        let share = |row: &Row| {
            let allowed = row.limit.amount * elapsed / row.limit.per.as_secs_f64();
            if allowed > 0.0 { spent.of(row.limit.measure) / allowed } else { 0.0 }
        };
        self.rows.iter().map(share).fold(0.0, f64::max)
    }

    /// Whether anything counts tokens, so that estimates are needed.
    pub fn counts_tokens(&self) -> bool {
        self.rows.iter().any(|row| row.limit.measure != Measure::Requests)
    }

    /// What is known of the pace that these limits allow.
    pub fn known(&self) -> Known {
        let rates = self.rows.iter().filter(|row| row.limit.measure == Measure::Requests);
        let slowest = rates.map(|row| row.limit.amount / row.limit.per.as_secs_f64()).min_by(f64::total_cmp);
        match slowest {
            Some(rate) => Known::PerSecond(rate),
            None if self.rows.is_empty() => Known::Nothing,
            None => Known::Something,
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

    /// Whether an attempt may pass now. All limits are asked, so that the answer names the last of them.
    ///
    /// # Errors
    /// Which limit holds it back longest.
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
    pub fn settle(&mut self, ticket: &Ticket, used: Used, now: Instant) {
        #[allow(clippy::cast_precision_loss)]
        let real = match used {
            Used::Unknown => return,
            Used::NotSent => Amounts::default(),
            Used::Refused => Amounts([ticket.taken.0[0], 0.0, 0.0, 0.0]),
            Used::Known(usage) => {
                let (input, output) = (usage.input as f64, usage.output as f64);
                Amounts([ticket.taken.0[0], (input + output).max(usage.total as f64), input, output])
            }
        };
        let difference = real.minus(&ticket.taken);
        for row in &mut self.rows {
            // What the provider has said since then has this attempt in it, as it really was.
            if row.heard.is_none_or(|heard| heard < ticket.at) {
                row.change(&difference, now);
            }
        }
    }

    /// Takes note of what the reply to a request says. It counts what had reached the provider when it was written,
    /// about everything sent up to that request: what was sent later is still to be subtracted.
    pub fn observe(&mut self, told: &Told, ticket: &Ticket, now: Instant) {
        let Some(per) = self.window_of(told) else { return };
        let told = &Told {
            limit: told.limit.map(|limit| limit * self.part),
            remaining: told.remaining.map(|remaining| remaining * self.part),
            ..*told
        };
        let limit = told.limit.map(|amount| Limit { measure: told.measure, amount, per });
        let known =
            self.rows.iter().any(|row| row.learned && row.limit.measure == told.measure && row.limit.per == per);
        if let Some(limit) = limit
            && !known
            && limit.amount > 0.0
        {
            self.rows.push(Row::new(limit, true, self.burst, now));
        }
        let later = self.spent.minus(&ticket.spent).of(told.measure);
        for row in self.rows.iter_mut().filter(|row| row.limit.measure == told.measure && row.limit.per == per) {
            // Replies come in any order; the one to the latest request knows most. Of requests that may have overtaken
            // each other, the most careful reply is believed.
            if row.heard.is_some_and(|heard| heard > ticket.at) {
                continue;
            }
            let news = row.heard.is_none_or(|heard| ticket.at - heard > seconds(DISORDER));
            if news {
                row.heard = Some(ticket.at);
            }
            if let Some(limit) = limit
                && row.learned
                && limit.amount > 0.0
                && (row.limit.amount - limit.amount).abs() > 1e-9
            {
                row.set_amount(limit.amount, self.burst, now);
            }
            if let Some(remaining) = told.remaining {
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

    /// The time that a told limit is for. Most providers do not say it: a minute, unless it takes longer than that until
    /// it is whole again; then an hour or a day, whichever fits the pace of its refill better.
    fn window_of(&self, told: &Told) -> Option<Duration> {
        const MINUTE: f64 = 60.0;
        if let Some(per) = told.per {
            return Some(seconds(per)).filter(|per| !per.is_zero());
        }
        let (Some(limit), Some(remaining), Some(reset)) = (told.limit, told.remaining, told.reset) else {
            let known = self.rows.iter().find(|row| row.limit.measure == told.measure).map(|row| row.limit.per);
            return known.or_else(|| told.limit.map(|_| LONGEST_BUCKET));
        };
        if reset <= MINUTE * 1.1 || limit <= remaining {
            return Some(LONGEST_BUCKET);
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

fn same(one: &Limit, other: &Limit) -> bool {
    one.measure == other.measure && one.per == other.per
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limit(measure: Measure, amount: f64) -> Limit {
        Limit { measure, amount, per: MINUTE }
    }

    fn quota(limits: &[Limit], now: Instant) -> Quota {
        let mut quota = Quota::default();
        quota.configure(limits, DEFAULT_BURST, now);
        quota
    }

    fn level(quota: &mut Quota, measure: Measure, now: Instant) -> f64 {
        quota.levels(now).iter().find(|(limit, ..)| limit.measure == measure).map(|(.., level)| *level).unwrap()
    }

    const SMALL: Estimate = Estimate { requests: 1.0, input: 100.0, output: 100.0 };

    #[test]
    fn all_limits_or_none() {
        let now = Instant::now();
        let mut quota = quota(&[limit(Measure::Requests, 600.0), limit(Measure::Tokens, 1200.0)], now);
        assert!(quota.ready(SMALL, now).is_ok());
        quota.take(SMALL, now);
        let short = quota.ready(SMALL, now).unwrap_err();
        assert_eq!(short.measure, Measure::Tokens);
        assert!((short.until - now).as_secs_f64() - 10.0 < 1e-6);
        assert!((level(&mut quota, Measure::Requests, now) - 99.0).abs() < 1e-9, "nothing was taken in vain");
    }

    #[test]
    fn real_usage_takes_the_place_of_the_estimate() {
        let now = Instant::now();
        let mut quota = quota(&[limit(Measure::Requests, 600.0), limit(Measure::Tokens, 60_000.0)], now);
        let left = |quota: &mut Quota| level(quota, Measure::Tokens, now);
        let ticket = quota.take(SMALL, now);
        assert!((left(&mut quota) - 9800.0).abs() < 1e-9);
        quota.settle(&ticket, Used::Known(Usage { input: 40, output: 10, total: 50, ..Usage::default() }), now);
        assert!((left(&mut quota) - 9950.0).abs() < 1e-9, "refund");
        let ticket = quota.take(SMALL, now);
        quota.settle(&ticket, Used::Known(Usage { input: 100, output: 900, total: 1000, ..Usage::default() }), now);
        assert!((left(&mut quota) - 8950.0).abs() < 1e-9, "debt");
        let ticket = quota.take(SMALL, now);
        quota.settle(&ticket, Used::Unknown, now);
        assert!((left(&mut quota) - 8750.0).abs() < 1e-9, "the estimate stands");
        let ticket = quota.take(SMALL, now);
        quota.settle(&ticket, Used::Refused, now);
        assert!((left(&mut quota) - 8750.0).abs() < 1e-9, "no tokens");
        assert!((level(&mut quota, Measure::Requests, now) - 96.0).abs() < 1e-9, "but a request");
        let ticket = quota.take(SMALL, now);
        quota.settle(&ticket, Used::NotSent, now);
        assert!((level(&mut quota, Measure::Requests, now) - 96.0).abs() < 1e-9);
    }

    #[test]
    fn input_and_output_are_counted_apart() {
        let now = Instant::now();
        let limits = [limit(Measure::InputTokens, 6000.0), limit(Measure::OutputTokens, 600.0)];
        let mut quota = quota(&limits, now);
        quota.take(Estimate { input: 900.0, output: 10.0, ..Estimate::default() }, now);
        assert!((level(&mut quota, Measure::InputTokens, now) - 100.0).abs() < 1e-9);
        assert!((level(&mut quota, Measure::OutputTokens, now) - 90.0).abs() < 1e-9);
        assert!(quota.counts_tokens());
    }

    #[test]
    fn an_item_larger_than_a_limit_is_told_so_at_once() {
        let quota = quota(&[limit(Measure::Tokens, 1000.0)], Instant::now());
        let error = quota.fits(Estimate { input: 1500.0, ..Estimate::default() }).unwrap_err();
        assert_eq!(error.to_string(), "needs about 1500 tokens, and 1000 is the limit of 60 s");
        assert!(quota.fits(Estimate { input: 500.0, output: 500.0, ..Estimate::default() }).is_ok());
    }

    fn told(limit: f64, remaining: f64, reset: f64) -> Told {
        Told {
            measure: Measure::Requests,
            limit: Some(limit),
            remaining: Some(remaining),
            reset: Some(reset),
            per: None,
        }
    }

    #[test]
    fn a_limit_is_learned_from_a_reply() {
        let now = Instant::now();
        let mut quota = Quota::default();
        let ticket = quota.take(SMALL, now);
        // Two more were sent before the reply came.
        quota.take(SMALL, now);
        quota.take(SMALL, now);
        quota.observe(&told(600.0, 50.0, 0.1), &ticket, now);
        // Less a little for those that overtake each other.
        assert!((level(&mut quota, Measure::Requests, now) - 46.0).abs() < 1e-9);
        // A later reply to an earlier request says nothing new.
        let early = Ticket { at: now - MINUTE, ..ticket };
        quota.observe(&told(600.0, 3.0, 0.1), &early, now);
        assert!((level(&mut quota, Measure::Requests, now) - 46.0).abs() < 1e-9);
        // The provider cuts the limit: the bucket shrinks with it.
        let ticket = quota.take(SMALL, now);
        quota.observe(&told(60.0, 30.0, 30.0), &ticket, now);
        assert!((level(&mut quota, Measure::Requests, now) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_users_limit_only_gets_tighter() {
        let now = Instant::now();
        let mut quota = quota(&[limit(Measure::Requests, 600.0)], now);
        let ticket = quota.take(SMALL, now);
        let without_limit = |remaining| Told { limit: None, ..told(0.0, remaining, 1.0) };
        quota.observe(&without_limit(5000.0), &ticket, now);
        assert!((level(&mut quota, Measure::Requests, now) - 99.0).abs() < 1e-9);
        quota.observe(&without_limit(5.0), &ticket, now);
        assert!((level(&mut quota, Measure::Requests, now) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_limit_for_a_known_time_is_one_for_that_time() {
        let now = Instant::now();
        let mut quota = Quota::default();
        let ticket = quota.take(SMALL, now);
        quota.observe(&Told { per: Some(1.0), ..told(10.0, 10.0, 1.0) }, &ticket, now);
        assert_eq!(quota.known(), Known::PerSecond(10.0));
        // No more than a second's worth is ever saved.
        let later = now + MINUTE;
        assert!((level(&mut quota, Measure::Requests, later) - 10.0).abs() < 1e-9);
        quota.observe(&Told { per: Some(86_400.0), ..told(1000.0, 999.0, 86.4) }, &ticket, now);
        let windows: Vec<u64> = quota.levels(now).iter().map(|(limit, ..)| limit.per.as_secs()).collect();
        assert_eq!(windows, [1, 86_400]);
    }

    #[test]
    fn a_days_limit_is_told_from_a_minutes() {
        let quota = Quota::default();
        let window = |told: Told| quota.window_of(&told).unwrap().as_secs();
        assert_eq!(window(told(500.0, 499.0, 0.12)), 60);
        assert_eq!(window(told(14_400.0, 14_370.0, 179.56)), 86_400);
        assert_eq!(window(told(4000.0, 3999.0, 1.0)), 60);
        assert_eq!(window(told(1000.0, 500.0, 1800.0)), 3600);
        assert_eq!(window(told(60.0, 60.0, 3600.0)), 60);
    }
}
