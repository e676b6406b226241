//! How batches behave.

use super::super::latency::Distribution;
use super::faults::Fault;
use super::provider::Provider;

/// How batches behave. Times are seconds of the clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// From the creation to the end.
    pub delay: f64,
    /// How the delay is spread; `None` = not at all.
    pub distribution: Option<Distribution>,
    /// Scheduled faults.
    pub faults: Vec<Fault>,
    /// Most tokens of prompts that an account may have queued for a model.
    pub queue_tokens: Option<u64>,
    /// Whether Azure refuses at once what does not fit the queue.
    pub azure_at_once: bool,
    /// Most batches that an account may have open.
    pub max_open: Option<usize>,
    /// Batches are missing from lists for so long.
    pub list_lag: f64,
    /// How many seconds pass in a second.
    pub time_scale: f64,
    /// Looks at the same batch may not come faster.
    pub poll_interval: Option<f64>,
    /// In place of the provider's own limits.
    pub max_lines: Option<usize>,
    /// In place of the provider's own limits.
    pub max_bytes: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            delay: 0.2,
            distribution: None,
            faults: Vec::new(),
            queue_tokens: None,
            azure_at_once: false,
            max_open: None,
            list_lag: 0.0,
            time_scale: 1.0,
            poll_interval: None,
            max_lines: None,
            max_bytes: None,
        }
    }
}

impl Settings {
    /// Most lines of a batch.
    pub fn most_lines(&self, provider: Provider) -> usize {
        self.max_lines.unwrap_or(provider.most_lines())
    }

    /// Most bytes of a batch.
    pub fn most_bytes(&self, provider: Provider) -> usize {
        self.max_bytes.unwrap_or(provider.most_bytes())
    }
}
