//! What the simulated provider has seen.

use std::collections::BTreeMap;

/// A request that met a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// Seconds since the server's start.
    pub at: f64,
    /// The limit: `requests` or `tokens`.
    pub limit: &'static str,
    /// How much too early, seconds.
    pub early_by: f64,
}

/// A request that was hit by a scheduled fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultHit {
    /// Its number, from 1 in the order of arrival.
    pub request: u64,
    /// The fault, by its name.
    pub kind: String,
    /// What was asked; empty if questions are not counted, or it was not read.
    pub question: String,
}

/// Counts of everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Requests received.
    pub requests: u64,
    /// Requests in work at the same time, at most.
    pub peak_concurrency: u64,
    /// Replies by HTTP status; 0 = none was sent.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests received in each second since the start.
    pub per_second: Vec<u64>,
    /// Requests that came too early.
    pub violations: Vec<Violation>,
    /// Tokens of all answered prompts.
    pub input_tokens: u64,
    /// Tokens of all answers.
    pub output_tokens: u64,
    /// Requests by path.
    pub paths: BTreeMap<String, u64>,
    /// How often each question came that was let in, if that is counted.
    pub questions: BTreeMap<String, u64>,
    /// Requests that faults have hit.
    pub faults: Vec<FaultHit>,
}

/// No more than this are listed one by one.
const MOST_LISTED: usize = 10_000;
/// Paths come from outside: not any number of them is listed.
const MOST_PATHS: usize = 100;
/// An hour's worth.
const MOST_SECONDS: usize = 3_600;

impl Counts {
    /// A request has come.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn arrived(&mut self, at: f64, open: u64, path: &str) {
        self.requests += 1;
        self.peak_concurrency = self.peak_concurrency.max(open);
        let second = at as usize;
        if second < MOST_SECONDS {
            if self.per_second.len() <= second {
                self.per_second.resize(second + 1, 0);
            }
            self.per_second[second] += 1;
        }
        let known = self.paths.len();
        if let Some(count) = self.paths.get_mut(path) {
            *count += 1;
        } else if known < MOST_PATHS {
            self.paths.insert(path.to_owned(), 1);
        }
    }

    /// A question was let in; its answer is on the way.
    pub fn requested(&mut self, question: &str) {
        match self.questions.get_mut(question) {
            Some(count) => *count += 1,
            None => drop(self.questions.insert(question.to_owned(), 1)),
        }
    }

    /// A reply has been sent.
    pub fn answered(&mut self, status: u16) {
        *self.statuses.entry(status).or_default() += 1;
    }

    /// An answer has been paid for.
    pub fn paid(&mut self, input: usize, output: usize) {
        self.input_tokens += input as u64;
        self.output_tokens += output as u64;
    }

    /// A fault has hit a request.
    pub fn faulted(&mut self, hit: FaultHit) {
        if self.faults.len() < MOST_LISTED {
            self.faults.push(hit);
        }
    }

    /// A request came too early.
    pub fn violated(&mut self, violation: Violation) {
        if self.violations.len() < MOST_LISTED {
            self.violations.push(violation);
        }
    }
}
