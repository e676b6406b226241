//! What goes into batches and what is sent by itself, where both may be. Pure: time is an argument.
//!
//! A batch costs no more than sending its requests by themselves, for what it does not answer is not paid. Its only
//! enemy is a deadline. So as much goes into batches as could still be sent otherwise in time, should they fail; as they
//! end, more does. What has no room in batches waits for it, as long as enough others are being sent meanwhile. And what
//! is in a batch at the last moment for sending it otherwise is taken back: no more than necessary, for the other batches
//! may end while that is sent.
//!
//! `make soak` measures what this costs, and that no deadline is missed (`plan/simulation.rs`).

#[cfg(test)]
mod simulation;

/// How much faster than needed the rest could be sent: rates are guesses.
const RESERVE: f64 = 1.25;
/// The share of the time to the deadline that is planned with: looks and requests take time, too.
pub const PLANNED: f64 = 0.98;
/// How many seconds' worth of requests are on their way by themselves, while others wait for room in batches.
const AHEAD: f64 = 10.0;
const FAR_AHEAD: f64 = 120.0;
/// How many requests a belief about the rate is worth.
const RATE_WEIGHT: f64 = 20.0;
/// Of the rate, this many seconds are remembered.
const RATE_MEMORY: f64 = 600.0;
/// Quantiles of the time from a batch's creation to its end, by public figures: the median, and nine of ten, seconds.
/// (OpenRouter's blog on 230,000 batches: median 7 minutes, 90 % within the hour.)
const MEDIAN: f64 = 600.0;
const NINE_OF_TEN: f64 = 3600.0;
/// The share of batches that take a day or longer.
const STUCK: f64 = 0.05;
/// How many observed batches the figures above are worth.
const WEIGHT: f64 = 20.0;
/// A batch is late when this share has ended of those that end within a day at all.
const NEARLY_ALL: f64 = 0.95;
const DAY: f64 = 86_400.0;
/// The last quantile of the standard normal distribution that is needed: of 0.9.
const NINETY: f64 = 1.281_551_565_544_6;

/// How long batches take, as far as that is known.
#[derive(Debug, Clone)]
pub struct Lengths {
    /// Of earlier ones, seconds, in order.
    seen: Vec<f64>,
    median: f64,
}

impl Default for Lengths {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Lengths {
    /// With what was seen of earlier batches.
    pub fn new(mut seen: Vec<f64>) -> Self {
        seen.retain(|length| length.is_finite());
        seen.sort_by(f64::total_cmp);
        let mut lengths = Self { seen, median: 0.0 };
        lengths.median = lengths.quantile(0.5);
        lengths
    }

    /// After how many seconds this share of batches has ended; a day, if not even by then.
    fn quantile(&self, share: f64) -> f64 {
        let (mut low, mut high) = (0.0, DAY);
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            if self.ended_by(middle) < share { low = middle } else { high = middle }
        }
        high
    }

    /// The share of batches that have ended after so many seconds.
    #[allow(clippy::cast_precision_loss)]
    pub fn ended_by(&self, seconds: f64) -> f64 {
        let seen = self.seen.partition_point(|length| *length <= seconds) as f64;
        (WEIGHT * believed(seconds) + seen) / (WEIGHT + self.seen.len() as f64)
    }

    /// After how many seconds half of the batches have ended.
    pub fn median(&self) -> f64 {
        self.median
    }

    /// After how many seconds nearly all batches have ended that end within a day.
    pub fn late(&self) -> f64 {
        self.quantile(NEARLY_ALL * self.ended_by(DAY))
    }
}

/// The same without any observation: lognormal, but for those that are stuck.
fn believed(seconds: f64) -> f64 {
    if seconds <= 0.0 {
        return 0.0;
    }
    let deviation = (NINE_OF_TEN / MEDIAN).ln() / NINETY;
    (1.0 - STUCK) * normal((seconds / MEDIAN).ln() / deviation)
}

/// The distribution function of the standard normal distribution (Abramowitz and Stegun, 7.1.26: error below 1.5e-7).
fn normal(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / 0.327_591_1_f64.mul_add(z, 1.0);
    let sum = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let erf = 1.0 - sum.iter().fold(0.0, |sum, part| t.mul_add(sum, *part)) * t * (-z * z).exp();
    if x < 0.0 { 0.5 * (1.0 - erf) } else { 0.5 * (1.0 + erf) }
}

/// How many requests per second can be sent by themselves: as believed beforehand, and the more as seen.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    believed: f64,
    done: f64,
    busy: f64,
}

impl Pace {
    /// As far as is known beforehand.
    pub fn new(believed: f64) -> Self {
        Self { believed, done: 0.0, busy: 0.0 }
    }

    /// So many requests were done in so many seconds, in all of which others waited.
    pub fn see(&mut self, done: f64, busy: f64) {
        self.done += done;
        self.busy += busy;
        if self.busy > RATE_MEMORY {
            (self.done, self.busy) = (self.done / 2.0, self.busy / 2.0);
        }
    }

    /// Requests per second.
    pub fn rate(&self) -> f64 {
        (RATE_WEIGHT + self.done) / (RATE_WEIGHT / self.believed + self.busy)
    }
}

/// Why a request is sent by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// A batch would cost as much.
    Price,
    /// A batch would cost more: the provider's prompt cache has what the request begins with.
    Cache,
    /// The deadline is near: batches would hardly end before it.
    Deadline,
    /// No more could be sent otherwise in time, should batches fail.
    Reserve,
    /// Its batch was cancelled, or has ended without an answer, too late for another one.
    Late,
    /// It is too long for a batch, or has what no batch takes.
    Unfit,
}

impl Why {
    /// In one word, for metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Price => "price",
            Self::Cache => "cache",
            Self::Deadline => "deadline",
            Self::Reserve => "fallback",
            Self::Late => "late",
            Self::Unfit => "unfit",
        }
    }
}

/// What is known when a request is to be placed, or batches are looked at.
#[derive(Debug, Clone)]
pub struct Situation {
    /// Seconds to the deadline; none: there is none.
    pub left: Option<f64>,
    /// Requests per second that can be sent by themselves.
    pub rate: f64,
    /// How long a cancelled batch takes to end and to be fetched, seconds.
    pub settle: f64,
    /// Whether a batch costs less.
    pub is_cheaper: bool,
    /// Requests in batches, or on their way there; without those of batches that are being cancelled.
    pub in_batches: usize,
    /// Requests of batches that are being cancelled.
    pub settling: usize,
    /// Requests that are being sent by themselves, or wait for that; and those that are not placed yet.
    pub others: usize,
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
impl Situation {
    /// Whether the next request goes into a batch.
    ///
    /// # Errors
    /// Why it does not.
    pub fn place(&self, lengths: &Lengths) -> Result<(), Why> {
        if !self.is_cheaper {
            return Err(Why::Price);
        }
        let Some(left) = self.left else { return Ok(()) };
        // Half of the batches end before they would have to be cancelled, or it is not worth beginning.
        let median = lengths.median();
        if left < median + self.settle {
            return Err(Why::Deadline);
        }
        let (in_batches, others) = (self.in_batches as f64 + 1.0, (self.others as f64 - 1.0).max(0.0));
        // Meanwhile others are sent.
        let others_then = (others - self.rate * median).max(0.0);
        let is_safe = self.missing(in_batches, others, left) <= 0.0
            && self.missing(in_batches, others_then, left - median) <= 0.0;
        if is_safe { Ok(()) } else { Err(Why::Reserve) }
    }

    /// How many requests must be taken out of batches now, so that all can be sent before the deadline: from the last
    /// moment on, as many as the live lane needs to be busy. The others may still be answered in their batches.
    pub fn excess(&self) -> usize {
        let is_in_time = |left| self.missing(self.in_batches as f64, self.others as f64, left) <= 0.0;
        if self.left.is_none_or(is_in_time) {
            return 0;
        }
        // What is taken out now is back when half of this is sent.
        let wanted = (2.0 * self.rate * self.settle).ceil().max(1.0) as usize;
        wanted.saturating_sub(self.others + self.settling).min(self.in_batches)
    }

    /// How many requests are on their way by themselves while others wait: enough for the live lane to be busy. Where the
    /// time is short, enough to see whether it can do more than is believed.
    pub fn window(&self) -> usize {
        let all = (self.in_batches + self.settling + self.others) as f64;
        let is_short = self.left.is_some_and(|left| all > self.rate * left);
        (self.rate * if is_short { FAR_AHEAD } else { AHEAD }).ceil() as usize
    }

    /// How many requests more than what can be sent before the deadline there would be, if all batches were cancelled so
    /// long before it. While these end, others are sent.
    fn missing(&self, in_batches: f64, others: f64, left: f64) -> f64 {
        let in_batches = in_batches + self.settling as f64;
        RESERVE.mul_add(in_batches, others.max(self.rate * self.settle)) - self.rate * left
    }
}

/// How many of so many requests would go into batches, all placed at once, and why the rest would not.
pub fn split(requests: usize, situation: &Situation, lengths: &Lengths) -> (usize, Option<Why>) {
    let at = |placed: usize| Situation {
        in_batches: situation.in_batches + placed,
        others: situation.others + requests - placed,
        ..situation.clone()
    };
    // As many as have a place: fewer always have one.
    let (mut low, mut high) = (0, requests);
    while low < high {
        let middle = low + (high - low) / 2;
        if at(middle).place(lengths).is_ok() { low = middle + 1 } else { high = middle }
    }
    (low, if low < requests { at(low).place(lengths).err() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn situation(left: f64) -> Situation {
        Situation {
            left: Some(left),
            rate: 10.0,
            settle: 300.0,
            is_cheaper: true,
            in_batches: 0,
            settling: 0,
            others: 0,
        }
    }

    #[test]
    fn beliefs_are_those_of_public_figures() {
        let lengths = Lengths::default();
        assert!((lengths.ended_by(MEDIAN) - 0.475).abs() < 1e-3);
        assert!((lengths.ended_by(NINE_OF_TEN) - 0.855).abs() < 1e-3);
        assert!(lengths.median() > MEDIAN && lengths.median() < 1.2 * MEDIAN, "{}", lengths.median());
    }

    #[test]
    fn what_was_seen_changes_them() {
        let slow = Lengths::new(vec![20_000.0; 50]);
        assert!((19_000.0..20_001.0).contains(&slow.median()), "{}", slow.median());
        let fast = Lengths::new(vec![60.0; 50]);
        assert!(fast.median() <= 60.1, "{}", fast.median());
    }

    #[test]
    fn a_batch_is_late_when_nearly_all_have_ended_that_end_at_all() {
        // Of those that are not stuck: 600 s times (3600 / 600) to the power of 1.645 / 1.282.
        let usual = Lengths::default().late();
        assert!((usual / 5990.0 - 1.0).abs() < 0.02, "{usual}");
        let seen = |length: f64| Lengths::new(vec![length; 50]).late();
        assert!(seen(60.0) < usual && seen(20_000.0) > usual, "{} {}", seen(60.0), seen(20_000.0));
    }

    #[test]
    fn without_a_deadline_everything_goes_into_batches_that_are_cheaper() {
        let situation = Situation { left: None, ..situation(0.0) };
        assert_eq!(situation.place(&Lengths::default()), Ok(()));
        assert!(situation.excess() == 0);
        let dear = Situation { is_cheaper: false, ..situation };
        assert_eq!(dear.place(&Lengths::default()), Err(Why::Price));
    }

    #[test]
    fn requests_are_split_as_they_would_be_placed() {
        let lengths = Lengths::default();
        let (placed, why) = split(100_000, &Situation { left: None, ..situation(0.0) }, &lengths);
        assert_eq!((placed, why), (100_000, None));
        assert_eq!(split(1000, &situation(60.0), &lengths), (0, Some(Why::Deadline)));
        let (placed, why) = split(28_000, &situation(3600.0), &lengths);
        assert_eq!(why, Some(Why::Reserve));
        let mut one_by_one = 0;
        while (Situation { in_batches: one_by_one, others: 28_000 - one_by_one, ..situation(3600.0) })
            .place(&lengths)
            .is_ok()
        {
            one_by_one += 1;
        }
        assert!(placed == one_by_one && placed > 0, "{placed} {one_by_one}");
    }

    #[test]
    fn a_near_deadline_sends_everything() {
        assert_eq!(situation(120.0).place(&Lengths::default()), Err(Why::Deadline));
        assert_eq!(situation(8.0 * 3600.0).place(&Lengths::default()), Ok(()));
    }

    #[test]
    fn no_more_is_in_batches_than_could_be_sent_otherwise() {
        // Ten a second for an hour, less the five minutes of a cancellation, and a quarter more than that.
        let full = Situation { in_batches: 26_400, ..situation(3600.0) };
        assert_eq!(full.excess(), 0);
        // While a cancelled batch ends, others are sent.
        assert_eq!(Situation { others: 3000, ..full.clone() }.excess(), 0);
        assert_eq!(Situation { left: Some(3599.0), ..full.clone() }.excess(), 6000);
        // Fewer are put there, for a batch needs its time.
        assert_eq!(full.place(&Lengths::default()), Err(Why::Reserve));
        assert_eq!(Situation { in_batches: 20_000, ..full.clone() }.place(&Lengths::default()), Ok(()));
        // Nor while so many others are to be sent that nothing could be sent otherwise later.
        let busy = Situation { in_batches: 0, others: 36_001, ..full };
        assert_eq!(busy.place(&Lengths::default()), Err(Why::Reserve));
        assert_eq!(Situation { others: 35_900, ..busy }.place(&Lengths::default()), Ok(()));
    }

    #[test]
    fn as_much_is_taken_out_of_batches_as_can_be_sent_until_more_is_back() {
        let late = Situation { left: Some(3500.0), in_batches: 26_000, ..situation(0.0) };
        assert_eq!(late.excess(), 6000);
        let taken = Situation { in_batches: 20_000, settling: 6000, ..late.clone() };
        assert_eq!(taken.excess(), 0);
        // Five minutes later they are being sent.
        let later = Situation { left: Some(2900.0), in_batches: 20_000, others: 5000, ..late.clone() };
        assert_eq!((later.excess(), Situation { others: 6000, ..later.clone() }.excess()), (1000, 0));
        // Those that have ended meanwhile leave time for the others.
        assert_eq!(Situation { in_batches: 15_000, ..later.clone() }.excess(), 0);
        assert_eq!(Situation { in_batches: 700, left: Some(10.0), ..late }.excess(), 700);
    }

    #[test]
    fn the_rate_is_believed_until_it_is_seen() {
        let mut pace = Pace::new(10.0);
        assert!((pace.rate() - 10.0).abs() < 1e-9);
        pace.see(10.0, 10.0);
        assert!((1.0..10.0).contains(&pace.rate()), "{}", pace.rate());
        (0..100).for_each(|_| pace.see(100.0, 100.0));
        assert!((pace.rate() - 1.0).abs() < 0.05, "{}", pace.rate());
        // What is long ago counts less.
        (0..20).for_each(|_| pace.see(5000.0, 100.0));
        assert!(pace.rate() > 45.0, "{}", pace.rate());
    }

    proptest! {
        #[test]
        fn what_was_just_placed_is_not_at_its_last_moment(
            left in 0.0..200_000.0_f64, rate in 0.01..1000.0_f64, in_batches in 0..1_000_000_usize, settle in 0.0..900.0_f64,
            others in 0..1_000_000_usize,
        ) {
            let before = Situation { left: Some(left), rate, settle, is_cheaper: true, in_batches, settling: 0, others };
            if before.place(&Lengths::default()).is_ok() {
                let placed = Situation { in_batches: in_batches + 1, others: others.saturating_sub(1), ..before };
                prop_assert!(placed.excess() == 0);
                // Nor when half of the batches have ended, and others were sent meanwhile.
                let median = Lengths::default().median();
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let sent = (rate * median) as usize;
                let later = Situation { left: Some(left - median), others: placed.others.saturating_sub(sent), ..placed };
                prop_assert!(later.others > 0 || later.excess() == 0);
            }
        }
    }
}
