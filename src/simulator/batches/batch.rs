//! One batch: what it asks, how far it is, and the results so far.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::answers::{BatchAnswer, Model};
use super::super::faults::FaultKind as LiveFault;
use super::super::model::hash;
use super::faults::{FaultKind, Faults};
use super::ledger::{Books, Lane};
use super::lines::Lines;
use super::order::Order;
use super::provider::Provider;
use super::timing::{Cancel, Phase, Timing};
use super::{live, results};

/// What lines say whose account is empty.
const NO_CREDIT: &str = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to \
                         upgrade or purchase credits.";

/// Results as text, a line each.
#[derive(Debug, Default)]
pub struct Output {
    /// The lines, while there are more to come.
    text: Vec<u8>,
    /// All lines, once there are no more.
    whole: Bytes,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Output {
    /// Adds a line.
    pub fn push(&mut self, line: &impl Serialize) {
        if serde_json::to_writer(&mut self.text, line).is_ok() {
            self.text.push(b'\n');
            self.ends.push(self.text.len());
        }
    }

    /// There are no more lines.
    pub fn close(&mut self) {
        self.whole = std::mem::take(&mut self.text).into();
    }

    /// All lines, once there are no more. Without a copy.
    pub fn bytes(&self) -> &Bytes {
        &self.whole
    }

    /// How many lines.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Lines by their places.
    pub fn lines(&self, places: Range<usize>) -> impl Iterator<Item = Value> {
        let text: &[u8] = if self.whole.is_empty() { &self.text } else { &self.whole };
        places.filter_map(move |place| {
            let from = place.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
            serde_json::from_slice(text.get(from..*self.ends.get(place)?)?).ok()
        })
    }
}

/// How lines have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered.
    pub succeeded: usize,
    /// With an error.
    pub failed: usize,
    /// Too late.
    pub expired: usize,
    /// Cancelled.
    pub cancelled: usize,
}

/// How one line has ended.
#[derive(Debug)]
pub enum Outcome {
    /// With an answer.
    Answered(Box<BatchAnswer>),
    /// With a status and an error; 0 = no status.
    Refused(u16, Value),
    /// Too late.
    Expired,
    /// Cancelled.
    Cancelled,
}

/// When what happens to a batch with these faults that takes so long.
pub fn plan(created: f64, takes: f64, expires: f64, order: &Order, faults: &Faults) -> Timing {
    let mut timing = Timing::new(created, takes, expires);
    timing.fails = !order.problems.is_empty();
    // More may be added to one that was made empty.
    if order.provider == Provider::Xai && order.file.is_none() {
        timing.ended = f64::INFINITY;
    }
    let stuck = |kind| if let FaultKind::Stuck(phase) = kind { Some(phase) } else { None };
    if let Some(phase) = faults.find(stuck) {
        timing.stick(phase);
    }
    let stops = |kind| if let FaultKind::ExpireAfter(part) = kind { Some(part) } else { None };
    if let Some(part) = faults.find(stops) {
        timing.stop_after(part);
    }
    let cancelled = |kind| if let FaultKind::CancelAfter(part) = kind { Some(part) } else { None };
    if let Some(at) = faults.find(cancelled).map(|part| timing.when(part)) {
        timing.cancel = Some(Cancel { requested: at, effect: at });
    }
    timing
}

/// A batch.
#[derive(Debug)]
pub struct Batch {
    /// Its number, from 1 on.
    pub number: u64,
    /// Its id.
    pub id: String,
    /// What was asked.
    pub order: Order,
    /// What tells it from all others.
    pub nonce: Option<String>,
    /// When what happens.
    pub timing: Timing,
    /// What goes wrong with it.
    pub faults: Faults,
    /// When its results are forgotten.
    pub forgotten: f64,
    /// How many bytes its lines came in.
    pub bytes: usize,
    /// How many lines it has; the lines themselves are forgotten at the end.
    pub total: usize,
    /// The ids of lines that were added. (xAI)
    pub ids: HashSet<String>,
    /// Lines answered before the last that were added.
    pub base: usize,
    /// In which order lines are answered.
    sequence: Vec<u32>,
    /// How many are.
    pub done: usize,
    /// Results.
    pub output: Output,
    /// Errors, where they are apart.
    pub errors: Output,
    /// How lines have ended.
    pub counts: Counts,
    /// Tokens of prompts and answers.
    pub usage: (u64, u64),
    /// Files of results and of errors.
    pub files: (Option<String>, Option<String>),
    /// How it has ended, once that is known.
    pub end: Option<(f64, Phase)>,
    /// How often it was looked at, and when last.
    pub polls: u64,
    /// When it was last looked at.
    pub polled: Option<f64>,
    /// Whether it was deleted.
    pub is_deleted: bool,
    /// Whether its results were read once.
    pub is_read: bool,
}

impl Batch {
    /// A new one.
    pub fn new(number: u64, id: String, order: Order, timing: Timing, faults: Faults) -> Self {
        let (total, bytes, nonce) = (order.lines.len(), order.lines.bytes(), order.nonce());
        Self {
            number,
            id,
            nonce,
            timing,
            faults,
            forgotten: f64::INFINITY,
            bytes,
            total,
            ids: HashSet::new(),
            base: 0,
            sequence: Vec::new(),
            done: 0,
            output: Output::default(),
            errors: Output::default(),
            counts: Counts::default(),
            usage: (0, 0),
            files: (None, None),
            end: None,
            polls: 0,
            polled: None,
            is_deleted: false,
            is_read: false,
            order,
        }
    }

    /// Whether it has nothing to do, though more may be added. (xAI)
    pub fn is_idle(&self) -> bool {
        self.order.provider == Provider::Xai && self.total > 0 && self.done == self.total
    }

    /// Where it is.
    pub fn phase(&self, now: f64) -> Phase {
        self.end.map_or_else(|| self.timing.phase(now), |(_, phase)| phase)
    }

    /// Whether it works for this account.
    pub fn is_seen_by(&self, provider: Provider, account: u64, now: f64) -> bool {
        let hidden = self.faults.find(|kind| match kind {
            FaultKind::NotFoundFor(seconds) => Some(seconds),
            _ => None,
        });
        self.order.provider == provider
            && self.order.account == account
            && !self.is_deleted
            && now >= self.timing.created + hidden.unwrap_or_default()
    }

    /// Forgets everything but that it was.
    pub fn delete(&mut self) {
        self.is_deleted = true;
        (self.output, self.errors) = (Output::default(), Output::default());
        self.order.lines = Lines::default();
    }

    /// Adds lines, and begins anew with what is open. (xAI)
    pub fn extend(&mut self, lines: Lines, takes: f64, now: f64) {
        self.order.lines.extend(lines);
        (self.total, self.bytes) = (self.order.lines.len(), self.order.lines.bytes());
        self.base = self.done;
        let begun = plan(now, takes, self.timing.expires, &self.order, &self.faults);
        self.timing = Timing { created: self.timing.created, ..begun };
    }

    /// Id and model of each line, and whether it has been answered. (xAI)
    pub fn lines(&self) -> Vec<(String, String, bool)> {
        let mut is_done = vec![false; self.total];
        for line in self.sequence.iter().take(self.done) {
            if let Some(is_done) = is_done.get_mut(*line as usize) {
                *is_done = true;
            }
        }
        let lines = &self.order.lines;
        let each = is_done.into_iter().enumerate();
        each.map(|(line, is_done)| (lines.id(line), lines.model(line).unwrap_or_default(), is_done)).collect()
    }

    /// Answers what has been answered by now; true if it has ended with this.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn advance(&mut self, now: f64, model: &Model, ledger: &Books) -> bool {
        if self.end.is_some() {
            return false;
        }
        // Gemini gives all or nothing, and is paid for what it gives.
        let is_whole = self.order.provider == Provider::Gemini;
        let is_kept = !is_whole || self.timing.phase(now) == Phase::Completed;
        let share = if is_kept { self.timing.share(now) } else { 0.0 };
        let open = (self.total - self.base) as f64;
        // A tenth of a line is rounding.
        let done = self.base + (share * open + 1e-6).floor() as usize;
        self.mix(model.seed);
        while self.done < done.min(self.total) {
            let line = self.sequence.get(self.done).map_or(self.done, |line| *line as usize);
            self.done += 1;
            self.answer_line(line, model, ledger);
        }
        let phase = self.timing.phase(now);
        if !phase.is_end() {
            return false;
        }
        self.end = Some((self.timing.end().0, phase));
        if phase == Phase::Failed {
            self.counts = Counts::default();
        }
        for place in if is_whole { 0..0 } else { self.done..self.total } {
            let line = self.sequence.get(place).map_or(place, |line| *line as usize);
            let outcome = match phase {
                Phase::Expired => Outcome::Expired,
                Phase::Cancelled => Outcome::Cancelled,
                _ => continue,
            };
            self.write(line, &outcome);
        }
        self.output.close();
        self.errors.close();
        // Those of xAI can be listed.
        if self.order.provider != Provider::Xai {
            self.order.lines = Lines::default();
            self.sequence = Vec::new();
        }
        true
    }

    /// Puts the lines that have no place yet into some order. Inline answers of Gemini keep the order that is promised.
    fn mix(&mut self, seed: u64) {
        let from = self.sequence.len();
        if from == self.total {
            return;
        }
        let is_ordered = self.order.provider == Provider::Gemini && self.order.file.is_none();
        self.sequence.extend((from..self.total).map(|line| u32::try_from(line).unwrap_or(u32::MAX)));
        if !is_ordered || self.faults.has(FaultKind::Shuffle) {
            let mut random = fastrand::Rng::with_seed(hash(seed, &self.number.to_le_bytes()));
            random.shuffle(&mut self.sequence[from..]);
        }
    }

    /// Answers a line.
    fn answer_line(&mut self, line: usize, model: &Model, ledger: &Books) {
        if self.faults.hits_line(line, FaultKind::DropLines) || self.faults.has(FaultKind::NoOutputFile) {
            return;
        }
        let outcome = self.outcome(line, model);
        if let Outcome::Answered(said) = &outcome {
            ledger.open().paid(Lane::Batch, &said.question, said.output);
            self.usage.0 += said.question.input_tokens() as u64;
            self.usage.1 += said.output as u64;
        }
        self.write(line, &outcome);
        if self.faults.hits_line(line, FaultKind::RepeatLines) {
            let counts = self.counts;
            self.write(line, &outcome);
            self.counts = counts;
        }
        if self.faults.hits_line(line, FaultKind::ForeignLines) {
            let foreign = results::foreign(self, line);
            self.output.push(&foreign);
        }
    }

    fn outcome(&self, line: usize, model: &Model) -> Outcome {
        let dialect = live::dialect(&self.order.endpoint).map(|(dialect, _)| dialect);
        if self.faults.has(FaultKind::AllFailed) {
            return Outcome::Refused(
                400,
                dialect.map_or(json!({}), |dialect| dialect.error(LiveFault::Status(400), None).1),
            );
        }
        if self.faults.has(FaultKind::NoCredit) {
            return Outcome::Refused(400, self.order.provider.error(400, None, NO_CREDIT));
        }
        let status = self.faults.at(line, |kind| match kind {
            FaultKind::LineStatus(status) => Some(status),
            _ => None,
        });
        match (status, dialect) {
            (Some(0), _) => Outcome::Refused(0, json!({})),
            (Some(status), Some(dialect)) => {
                let (status, error) = dialect.error(LiveFault::Status(status), None);
                Outcome::Refused(status, error)
            }
            _ => match live::answer(&self.order, line, model) {
                Ok(said) => Outcome::Answered(Box::new(said)),
                Err((status, error)) => Outcome::Refused(status, error),
            },
        }
    }

    fn write(&mut self, line: usize, outcome: &Outcome) {
        match outcome {
            Outcome::Answered(_) => self.counts.succeeded += 1,
            Outcome::Refused(..) => self.counts.failed += 1,
            Outcome::Expired => self.counts.expired += 1,
            Outcome::Cancelled => self.counts.cancelled += 1,
        }
        results::write(self, line, outcome);
    }
}
