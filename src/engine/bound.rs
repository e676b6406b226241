//! What bounds a run: why no further attempt starts, and for how long.

use std::time::Duration;

use tokio::time::Instant;

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
}

impl BoundBy {
    /// Nothing is waiting yet.
    pub fn new(now: Instant) -> Self {
        Self { present: Some(Bound::Source), since: now, total: [Duration::ZERO; ALL.len()] }
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
        if let Some(present) = self.present {
            self.total[present.number()] += now.saturating_duration_since(self.since);
        }
        self.since = now;
    }

    /// The reasons, with their times.
    pub fn totals(&self, now: Instant) -> Vec<(Bound, Duration)> {
        let mut copy = self.clone();
        copy.count(now);
        ALL.into_iter().zip(copy.total).filter(|(_, time)| !time.is_zero()).collect()
    }
}

#[cfg(test)]
mod tests {
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
}
