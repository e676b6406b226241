//! What batches, and the live endpoints beside them, have been paid for; and what no good client does.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxBuildHasher, FxHasher};

use super::super::model::Question;

/// More than this are counted, but not listed one by one.
const MOST_VIOLATIONS: usize = 10_000;
/// Questions that are told apart. Later ones are paid for, but not looked for twice.
const MOST_QUESTIONS: usize = 4_000_000;
/// Models and nonces come from outside: not any number of them is kept.
const MOST_MODELS: usize = 1_000;
const MOST_NONCES: usize = 200_000;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// As a request of its own.
    Live,
    /// As a line of a batch.
    Batch,
}

/// What was paid for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Answers.
    pub answers: u64,
    /// Tokens of their prompts.
    pub input: u64,
    /// Their tokens.
    pub output: u64,
}

/// Something that no good client does.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// When, in seconds of the clock.
    pub at: f64,
    /// Which rule: `poll`, `open`, `size`, `banned`, `create_without_list`, `queue`.
    pub rule: &'static str,
    /// What happened.
    pub detail: String,
}

/// What is known of a nonce.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Nonce {
    /// Batches made.
    batches: u64,
    /// Whether nobody has looked since the last create.
    is_open: bool,
}

/// All counts.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// By lane and model.
    pub lanes: BTreeMap<(Lane, String), Sums>,
    /// How often each question was paid for, live and in batches.
    questions: HashMap<u64, (u16, u16), FxBuildHasher>,
    /// Whether they are counted by text too.
    pub counts_texts: bool,
    /// The same by text.
    pub texts: BTreeMap<String, (u64, u64)>,
    /// How often a question was paid for that had been paid for.
    pub paid_twice: u64,
    /// What no good client does.
    pub violations: Vec<Violation>,
    nonces: HashMap<String, Nonce, FxBuildHasher>,
    /// Requests by what they did: `upload`, `create`, `poll`, `list`, `cancel`, `download`, `delete`.
    pub calls: BTreeMap<&'static str, u64>,
    /// Most batches that were open at a time.
    pub peak_open: usize,
    /// Most tokens of an account and model that were queued at a time, where the queue has a limit.
    pub peak_queued: u64,
}

/// The ledger as live requests and batches share it: it is never held for longer than an entry takes.
#[derive(Debug, Clone, Default)]
pub struct Books(Arc<Mutex<Ledger>>);

impl Books {
    /// Empty ones. `counts_texts`: whether questions are kept as texts too.
    pub fn new(counts_texts: bool) -> Self {
        Self(Arc::new(Mutex::new(Ledger { counts_texts, ..Ledger::default() })))
    }

    /// The ledger, for an entry.
    pub fn open(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// An answer was paid for.
    pub fn paid(&mut self, lane: Lane, question: &Question, output: usize) {
        let input = question.input_tokens() as u64;
        if let Some(sums) = self.sums(lane, &question.model) {
            sums.answers += 1;
            sums.input += input;
            sums.output += output as u64;
        }
        let live = lane == Lane::Live;
        identities(question, |identity| {
            if self.questions.len() < MOST_QUESTIONS || self.questions.contains_key(&identity) {
                let seen = self.questions.entry(identity).or_default();
                self.paid_twice += u64::from(seen.0 > 0 || seen.1 > 0);
                let count = if live { &mut seen.0 } else { &mut seen.1 };
                *count = count.saturating_add(1);
            }
        });
        if self.counts_texts {
            let whole = question.words.last().into_iter().filter(|_| question.texts.is_empty());
            for text in question.texts.iter().chain(whole) {
                let seen = self.texts.entry(text.clone()).or_default();
                *if live { &mut seen.0 } else { &mut seen.1 } += 1;
            }
        }
    }

    fn sums(&mut self, lane: Lane, model: &str) -> Option<&mut Sums> {
        let key = (lane, model.to_owned());
        if self.lanes.len() >= MOST_MODELS && !self.lanes.contains_key(&key) {
            return None;
        }
        Some(self.lanes.entry(key).or_default())
    }

    /// A request of a kind has come.
    pub fn called(&mut self, what: &'static str) {
        *self.calls.entry(what).or_default() += 1;
    }

    /// Something that no good client does.
    pub fn violated(&mut self, at: f64, rule: &'static str, detail: String) {
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(Violation { at, rule, detail });
        }
    }

    /// A batch with this nonce is asked for: nobody may do so twice without having looked in between.
    pub fn creating(&mut self, at: f64, nonce: &str) {
        if self.nonces.len() >= MOST_NONCES && !self.nonces.contains_key(nonce) {
            return;
        }
        let known = self.nonces.entry(nonce.to_owned()).or_default();
        let again = std::mem::replace(&mut known.is_open, true);
        if again {
            self.violated(
                at,
                "create_without_list",
                format!("a second batch for {nonce:?} without a look at the first"),
            );
        }
    }

    /// A batch with this nonce was made.
    pub fn made(&mut self, nonce: &str) {
        if let Some(known) = self.nonces.get_mut(nonce) {
            known.batches += 1;
        }
    }

    /// Somebody has looked at the batch with this nonce, or knows that there is none.
    pub fn looked(&mut self, nonce: &str) {
        if let Some(known) = self.nonces.get_mut(nonce) {
            known.is_open = false;
        }
    }

    /// Somebody has looked at the list.
    pub fn listed(&mut self) {
        self.nonces.values_mut().for_each(|known| known.is_open = false);
    }

    /// Batches made by nonce.
    pub fn per_nonce(&self) -> impl Iterator<Item = (&str, u64)> {
        self.nonces.iter().filter(|(_, known)| known.batches > 0).map(|(nonce, known)| (nonce.as_str(), known.batches))
    }
}

/// Numbers of what a question asks: one for each text that is embedded, else one for all. The same live and in a batch.
fn identities(question: &Question, mut each: impl FnMut(u64)) {
    let begin = |kind: u8| {
        let mut hasher = FxHasher::default();
        (kind, question.model.trim_start_matches("models/"), question.dimensions).hash(&mut hasher);
        hasher
    };
    for text in &question.texts {
        let mut hasher = begin(0);
        text.hash(&mut hasher);
        each(hasher.finish());
    }
    if question.texts.is_empty() {
        let mut hasher = begin(1);
        (&question.words, question.max_tokens, question.samples, &question.forced_tool).hash(&mut hasher);
        question.tools.iter().for_each(|(name, _)| name.hash(&mut hasher));
        if let Some(schema) = &question.schema {
            schema.to_string().hash(&mut hasher);
        }
        each(hasher.finish());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(text: &str) -> Question {
        Question { model: "m".to_owned(), words: vec![text.to_owned()], ..Question::default() }
    }

    #[test]
    fn what_is_paid_for_twice_is_seen_over_both_lanes() {
        let mut ledger = Ledger { counts_texts: true, ..Ledger::default() };
        ledger.paid(Lane::Live, &question("a"), 2);
        ledger.paid(Lane::Batch, &question("b"), 2);
        assert_eq!(ledger.paid_twice, 0);
        ledger.paid(Lane::Batch, &question("a"), 2);
        ledger.paid(Lane::Batch, &question("a"), 2);
        assert_eq!((ledger.paid_twice, ledger.texts["a"]), (2, (1, 2)));
        let both = [Lane::Live, Lane::Batch].map(|lane| ledger.lanes[&(lane, "m".to_owned())]);
        assert_eq!(both.map(|sums| (sums.answers, sums.input, sums.output)), [(1, 1, 2), (3, 3, 6)]);
    }

    #[test]
    fn texts_that_are_embedded_are_questions_of_their_own() {
        let embed = |texts: &[&str]| Question {
            model: "m".to_owned(),
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
            ..Question::default()
        };
        let mut ledger = Ledger { counts_texts: true, ..Ledger::default() };
        ledger.paid(Lane::Live, &embed(&["a", "b"]), 0);
        ledger.paid(Lane::Batch, &embed(&["c", "b"]), 0);
        assert_eq!((ledger.paid_twice, ledger.texts["b"], ledger.texts["c"]), (1, (1, 1), (0, 1)));
    }

    #[test]
    fn a_second_create_needs_a_look_in_between() {
        let mut ledger = Ledger { counts_texts: true, ..Ledger::default() };
        for _ in 0..2 {
            ledger.creating(1.0, "n");
            ledger.made("n");
            ledger.looked("n");
            ledger.creating(1.0, "n");
            ledger.made("n");
            ledger.listed();
        }
        assert!(ledger.violations.is_empty());
        ledger.creating(1.0, "n");
        ledger.creating(2.0, "n");
        assert_eq!(ledger.violations.iter().map(|one| one.rule).collect::<Vec<_>>(), ["create_without_list"]);
        assert_eq!(ledger.per_nonce().collect::<Vec<_>>(), [("n", 4)]);
    }
}
