//! What a run counts.

use std::collections::BTreeMap;

/// Tokens of one item or one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// What the provider calls the total.
    pub total: u64,
    /// Tokens of the prompt that came from the provider's cache.
    pub cached: u64,
    /// Tokens of the prompt that went into the provider's cache.
    pub cache_write: u64,
    /// Of these, tokens that are to stay there for an hour.
    pub cache_write_hour: u64,
    /// Tokens that caches of ours hold at the provider, times hours.
    pub cache_held: u64,
}

impl Usage {
    fn add(&mut self, other: Usage) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.total = self.total.saturating_add(other.total);
        self.cached = self.cached.saturating_add(other.cached);
        self.cache_write = self.cache_write.saturating_add(other.cache_write);
        self.cache_held = self.cache_held.saturating_add(other.cache_held);
        self.cache_write_hour = self.cache_write_hour.saturating_add(other.cache_write_hour);
    }

    /// What is more in this than in `other`.
    pub fn minus(&self, other: &Usage) -> Usage {
        Usage {
            input: self.input.saturating_sub(other.input),
            output: self.output.saturating_sub(other.output),
            total: self.total.saturating_sub(other.total),
            cached: self.cached.saturating_sub(other.cached),
            cache_write: self.cache_write.saturating_sub(other.cache_write),
            cache_held: self.cache_held.saturating_sub(other.cache_held),
            cache_write_hour: self.cache_write_hour.saturating_sub(other.cache_write_hour),
        }
    }
}

/// How an item ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemReport {
    /// Whether it succeeded.
    pub success: bool,
    /// For a failed item the name under which it is counted: a class name, or a whole message.
    pub error: Option<String>,
    /// Tokens over all attempts.
    pub usage: Usage,
    /// Whether the strategy reported any: zero is not the same as unknown.
    pub reported: bool,
}

/// Counters of one run. `processed == succeeded + failed` holds whenever they can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items accepted so far.
    pub total: u64,
    /// Items with a result.
    pub processed: u64,
    /// Items with a successful result.
    pub succeeded: u64,
    /// Items with a failed result.
    pub failed: u64,
    /// Items whose result was there already.
    pub reused: u64,
    /// Attempts that met a rate limit.
    pub rate_limits: u64,
    /// Tokens over all results.
    pub usage: Usage,
    /// Failed items by error name.
    pub errors: BTreeMap<String, u64>,
}

impl Stats {
    /// Counts the end of one item.
    pub fn record(&mut self, report: ItemReport) {
        self.processed += 1;
        if report.success {
            self.succeeded += 1;
        } else {
            self.failed += 1;
            if let Some(error) = report.error {
                *self.errors.entry(error).or_default() += 1;
            }
        }
        self.usage.add(report.usage);
    }

    /// Counts items whose results were there already: nothing was spent on them.
    pub fn record_reused(&mut self, succeeded: u64, failed: u64) {
        self.processed += succeeded + failed;
        self.succeeded += succeeded;
        self.failed += failed;
        self.reused += succeeded + failed;
    }

    /// Counts items that failed without having been tried.
    pub fn record_rejected(&mut self, count: u64, error: &str) {
        self.processed += count;
        self.failed += count;
        *self.errors.entry(error.to_owned()).or_default() += count;
    }
}
