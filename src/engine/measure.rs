//! What limits count, and how much: of a limit, a reply's report, an attempt. Quotas use it, and whoever sets or reads
//! limits.

use std::time::Duration;

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

/// One limit as a reply reports it. What is not reported is `None`, never zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReportedLimit {
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
    /// What it comes to in each measure.
    pub fn amounts(self) -> Amounts {
        Amounts([self.requests, self.input + self.output, self.input, self.output])
    }
}

/// An amount of each measure, in the order of [`Measure`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Amounts(pub [f64; 4]);

impl Amounts {
    /// The amount of one.
    pub fn of(&self, measure: Measure) -> f64 {
        self.0[measure as usize]
    }

    /// Adds each.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The difference of each.
    pub fn minus(&self, other: &Self) -> Self {
        let mut difference = *self;
        for (mine, theirs) in difference.0.iter_mut().zip(other.0) {
            *mine -= theirs;
        }
        difference
    }
}
