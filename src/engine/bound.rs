//! What bounds a run: why no further attempt starts, and for how long.

use std::time::Duration;

use tokio::time::Instant;

use super::bound_over_time::OverTime;
use super::measure::Measure;

/// Why no further attempt starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Nothing is waiting: whoever adds items is slower than the run.
    Source,
    /// All items that have started wait until they are tried again, and no other is there.
    Backoff,
    /// Nothing new starts, because results are not taken.
    Consumer,
    /// The user has paused the run.
    Paused,
    /// All workers have something to do: the provider's latency, times their number.
    Workers,
    /// The adaptive limit of concurrency, which the provider's answers set.
    Concurrency,
    /// The adaptive limit of attempts per second, which rate limits set.
    Pace,
    /// A limit of requests or tokens is used up.
    Quota(Measure),
    /// The pause after a rate limit.
    Cooldown,
    /// The provider is away: one probe at a time is sent.
    Outage,
    /// The slow start after a pause.
    SlowStart,
    /// Another run that shares the scope is next.
    OtherRuns,
    /// Estimates of tokens are awaited.
    Estimates,
    /// What is left of the budget is reserved for attempts in flight.
    Budget,
    /// The tools of conversations are working.
    Tools,
    /// All that could start wait for a prompt cache to be written.
    PromptCache,
    /// Workers wait until results are written.
    Store,
    /// All items have started, and no more will come: the last ones are in flight.
    LastItems,
}

const ALL: [Bound; 21] = [
    Bound::Source,
    Bound::Backoff,
    Bound::Consumer,
    Bound::Paused,
    Bound::Workers,
    Bound::Concurrency,
    Bound::Pace,
    Bound::Quota(Measure::Requests),
    Bound::Quota(Measure::Tokens),
    Bound::Quota(Measure::InputTokens),
    Bound::Quota(Measure::OutputTokens),
    Bound::Cooldown,
    Bound::Outage,
    Bound::SlowStart,
    Bound::OtherRuns,
    Bound::Estimates,
    Bound::Budget,
    Bound::Tools,
    Bound::PromptCache,
    Bound::Store,
    Bound::LastItems,
];

impl Bound {
    /// The name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Backoff => "backoff",
            Self::Consumer => "consumer",
            Self::Paused => "paused",
            Self::Workers => "workers",
            Self::Concurrency => "concurrency",
            Self::Pace => "pace",
            Self::Quota(Measure::Requests) => "quota:requests",
            Self::Quota(Measure::Tokens) => "quota:tokens",
            Self::Quota(Measure::InputTokens) => "quota:input_tokens",
            Self::Quota(Measure::OutputTokens) => "quota:output_tokens",
            Self::Cooldown => "cooldown",
            Self::Outage => "outage",
            Self::SlowStart => "slow_start",
            Self::OtherRuns => "other_runs",
            Self::Estimates => "estimates",
            Self::Budget => "budget",
            Self::Tools => "tools",
            Self::PromptCache => "prompt_cache",
            Self::Store => "store",
            Self::LastItems => "last_items",
        }
    }

    /// Whether it is what runs stand in line for.
    pub fn is_of_scope(self) -> bool {
        matches!(self, Self::Concurrency | Self::Pace | Self::Quota(_) | Self::OtherRuns | Self::Outage)
    }

    fn number(self) -> usize {
        ALL.iter().position(|other| *other == self).unwrap_or(0)
    }
}

/// How long each was the reason.
#[derive(Debug, Clone)]
pub struct BoundBy {
    /// Nothing while the run has nothing to do and awaits no more.
    present: Option<Bound>,
    since: Instant,
    total: [Duration; ALL.len()],
    over_time: OverTime<{ ALL.len() }>,
}

/// How long each was the reason in each interval of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundOverTime {
    /// The length of an interval.
    pub interval: Duration,
    /// The length of the run: the last interval is still open.
    pub end: Duration,
    /// The reasons that there were, with their seconds in each interval.
    pub seconds: Vec<(Bound, Vec<f32>)>,
}

impl BoundBy {
    /// Nothing is waiting yet.
    pub fn new(now: Instant) -> Self {
        let (present, total) = (Some(Bound::Source), [Duration::ZERO; ALL.len()]);
        Self { present, since: now, total, over_time: OverTime::new(now) }
    }

    /// From now on this is the reason.
    pub fn set(&mut self, bound: Bound, now: Instant) {
        self.change(Some(bound), now);
    }

    /// Everything is done: until the next `set`, no time counts.
    pub fn end(&mut self, now: Instant) {
        self.change(None, now);
    }

    fn change(&mut self, next: Option<Bound>, now: Instant) {
        if next != self.present {
            self.count(now);
            self.present = next;
        }
    }

    fn count(&mut self, now: Instant) {
        // At most once a second; a present that lasted for long is in all intervals that it was.
        while now >= self.over_time.end() {
            self.count_until(self.over_time.end());
            self.over_time.close(&self.total);
        }
        self.count_until(now);
    }

    fn count_until(&mut self, at: Instant) {
        if let Some(present) = self.present {
            self.total[present.number()] += at.saturating_duration_since(self.since);
        }
        self.since = at;
    }

    /// The reasons, with their times.
    pub fn totals(&self, now: Instant) -> Vec<(Bound, Duration)> {
        let mut total = self.total;
        if let Some(present) = self.present {
            total[present.number()] += now.saturating_duration_since(self.since);
        }
        ALL.into_iter().zip(total).filter(|(_, time)| !time.is_zero()).collect()
    }

    /// The same over time.
    pub fn over_time(&self, now: Instant) -> BoundOverTime {
        let mut copy = self.clone();
        copy.count(now);
        let (interval, row) = copy.over_time.rows(&copy.total);
        let seconds = ALL.iter().enumerate().filter_map(|(number, bound)| Some((*bound, row(number)?))).collect();
        BoundOverTime { interval, end: copy.over_time.lasted(now), seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bound_over_time::MOST;
    use super::*;

    #[test]
    fn times_add_up_to_the_whole() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut bound = BoundBy::new(start);
        bound.set(Bound::Workers, at(1));
        bound.set(Bound::Workers, at(2));
        bound.set(Bound::Quota(Measure::Tokens), at(5));
        bound.set(Bound::Workers, at(6));
        let totals = bound.totals(at(10));
        let seconds = |bound: Bound| totals.iter().find(|(b, _)| *b == bound).map(|(_, time)| time.as_secs());
        assert_eq!(seconds(Bound::Source), Some(1));
        assert_eq!(seconds(Bound::Workers), Some(8));
        assert_eq!(seconds(Bound::Quota(Measure::Tokens)), Some(1));
        assert_eq!(totals.len(), 3);
        bound.end(at(11));
        bound.end(at(12));
        assert_eq!(bound.totals(at(20)).iter().map(|(_, time)| time.as_secs()).sum::<u64>(), 11);
        bound.set(Bound::Workers, at(21));
        assert_eq!(bound.totals(at(22)).iter().map(|(_, time)| time.as_secs()).sum::<u64>(), 12);
        assert!(ALL.iter().enumerate().all(|(number, bound)| bound.number() == number));
    }

    #[test]
    fn each_interval_has_what_bounded_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs_f64(seconds);
        let mut bound = BoundBy::new(start);
        bound.set(Bound::Cooldown, at(0.25));
        bound.set(Bound::Workers, at(2.5));
        bound.end(at(3.25));
        let found = bound.over_time(at(4.5));
        assert_eq!((found.interval, found.end), (Duration::from_secs(1), Duration::from_secs_f64(4.5)));
        let expected = vec![
            (Bound::Source, vec![0.25, 0.0, 0.0, 0.0, 0.0]),
            (Bound::Workers, vec![0.0, 0.0, 0.5, 0.25, 0.0]),
            (Bound::Cooldown, vec![0.75, 1.0, 0.5, 0.0, 0.0]),
        ];
        assert_eq!(found.seconds, expected);
        assert_eq!(bound.over_time(at(4.5)), found, "a look changes nothing");
    }

    #[test]
    fn a_run_of_any_length_has_a_bounded_number_of_intervals() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut bound = BoundBy::new(start);
        for second in 0..100_000 {
            bound.set(if second < 50_000 { Bound::Cooldown } else { Bound::Workers }, at(second));
            bound.set(Bound::Backoff, at(second) + Duration::from_millis(750));
        }
        bound.end(at(100_000));
        let found = bound.over_time(at(100_000));
        let length = usize::try_from(100_000 / found.interval.as_secs() + 1).unwrap();
        assert!(found.interval <= Duration::from_secs(1024), "{:?}", found.interval);
        assert!(found.seconds.iter().all(|(_, seconds)| seconds.len() == length && length <= MOST));
        let totals = bound.totals(at(100_000));
        for (reason, seconds) in &found.seconds {
            let total = totals.iter().find(|(other, _)| other == reason).map(|(_, time)| time.as_secs_f32()).unwrap();
            let sum: f32 = seconds.iter().sum();
            assert!((sum - total).abs() < 0.001 * total, "{reason:?}: {sum} of {total}");
        }
        let of = |bound: Bound| found.seconds.iter().find(|(other, _)| *other == bound).map(|(_, seconds)| seconds);
        let is_first = |seconds: &Vec<f32>| seconds[0] > 0.0 && seconds[length - 2] == 0.0;
        assert!(of(Bound::Cooldown).is_some_and(is_first) && !of(Bound::Workers).is_some_and(is_first));
    }

    #[test]
    fn what_lasts_for_days_is_in_all_intervals() {
        let start = Instant::now();
        let day = Duration::from_secs(86_400);
        let mut bound = BoundBy::new(start);
        bound.set(Bound::Paused, start);
        let found = bound.over_time(start + 30 * day);
        assert_eq!(found.seconds.len(), 1);
        let (_, seconds) = &found.seconds[0];
        assert!(seconds.len() <= MOST);
        let (last, whole) = seconds.split_last().unwrap();
        assert!(whole.iter().all(|time| (time - found.interval.as_secs_f32()).abs() < 0.01 * time));
        assert!(*last <= found.interval.as_secs_f32());
    }
}
