//! The model: the same question always gets the same answer.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::invalid::Invalid;
use super::prompt_caches::charge::Charge;
use super::sample;
use super::streams::event::Form;

/// A request, whatever dialect it came in.
#[derive(Debug, Default, Clone)]
pub struct Question {
    /// The model.
    pub model: String,
    /// All words of the conversation.
    pub words: Vec<String>,
    /// The JSON Schema that the answer must fit.
    pub schema: Option<Value>,
    /// Tools: name and schema of the arguments.
    pub tools: Vec<(String, Value)>,
    /// The tool that must be called; empty: any.
    pub forced_tool: Option<String>,
    /// Whether one tool at a time may be called, and no more.
    pub one_call: bool,
    /// Whether the model thinks before it answers, and shows it.
    pub thinks: bool,
    /// Whether thoughts are wanted in a form that only the model can read.
    pub encrypted: bool,
    /// Longest answer, tokens.
    pub max_tokens: Option<usize>,
    /// Samples wanted.
    pub samples: usize,
    /// How the answer is to be sent.
    pub form: Form,
    /// Whether log-probabilities are wanted.
    pub logprobs: bool,
    /// The context cache that comes before the words, and its tokens.
    pub cache: Option<String>,
    /// Tokens of that cache.
    pub cached_tokens: usize,
    /// Tokens of the prompt, where caches count more of it than the words.
    pub prompt_tokens: Option<usize>,
    /// What it read from prompt caches, and wrote.
    pub charge: Charge,
    /// Texts to embed, and the length of their vectors.
    pub texts: Vec<String>,
    /// Length of the vectors wanted.
    pub dimensions: Option<usize>,
    /// Whether vectors are wanted as base64.
    pub base64: bool,
}

/// One sample of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// Whether it was truncated at its longest length.
    pub truncated: bool,
    /// The tools that are called, with their arguments.
    pub calls: Vec<(String, Value)>,
}

/// Most samples of one answer.
const MOST_SAMPLES: usize = 128;
/// Longest vector.
const MOST_DIMENSIONS: usize = 8192;
/// Length of vectors where no other is wanted.
const USUAL_DIMENSIONS: usize = 256;
/// Most numbers in the vectors of one answer: 2,048 vectors of 4,096.
const MOST_NUMBERS: usize = 1 << 23;

/// A token is four bytes.
pub fn tokens(text: &str) -> usize {
    text.len().div_ceil(4)
}

impl Question {
    /// What it requests more of than the real servers give.
    pub fn excess(&self) -> Option<Invalid> {
        if self.samples > MOST_SAMPLES {
            return Some(Invalid::new(format!("n must be at most {MOST_SAMPLES}, not {}", self.samples)));
        }
        match self.dimensions {
            Some(length) if length == 0 || length > MOST_DIMENSIONS => {
                Some(Invalid::new(format!("dimensions must be 1 to {MOST_DIMENSIONS}, not {length}")))
            }
            length if self.texts.len().saturating_mul(length.unwrap_or(USUAL_DIMENSIONS)) > MOST_NUMBERS => {
                Some(Invalid::new(format!("a request may return at most {MOST_NUMBERS} numbers; embed fewer texts")))
            }
            _ => None,
        }
    }

    /// Tokens of the prompt.
    pub fn input_tokens(&self) -> usize {
        let words = || self.words.iter().chain(&self.texts).map(|text| tokens(text)).sum();
        self.cached_tokens + self.prompt_tokens.unwrap_or_else(words)
    }

    /// A number that depends on the seed and on the question only.
    pub fn digest(&self, seed: u64) -> u64 {
        let last = self.words.last().map_or("", String::as_str);
        hash(seed, last.as_bytes())
    }

    /// The samples of the answer.
    pub fn answer(&self, seed: u64, templates: &[String]) -> Vec<Completion> {
        (0..self.samples.max(1)).map(|number| self.sample(seed.wrapping_add(number as u64), templates)).collect()
    }

    fn sample(&self, seed: u64, templates: &[String]) -> Completion {
        let digest = self.digest(seed);
        let called = self.called_tools();
        if !called.is_empty() {
            let calls = called.into_iter().map(|(name, schema)| {
                // Arguments are an object, whatever the schema leaves open.
                let arguments = Some(sample::instance(schema, digest)).filter(Value::is_object);
                (name.clone(), arguments.unwrap_or_else(|| json!({})))
            });
            return Completion { text: String::new(), truncated: false, calls: calls.collect() };
        }
        let template = templates.get(usize::try_from(digest % templates.len().max(1) as u64).unwrap_or(0));
        let mut text = match (template, &self.schema) {
            (Some(template), _) => fill(template, digest, self.words.last()),
            (None, Some(schema)) => sample::instance(schema, digest).to_string(),
            (None, None) => fill("Simulated reply {digest}: {excerpt}", digest, self.words.last()),
        };
        let longest = self.max_tokens.map(|most| most.saturating_mul(4)).filter(|longest| *longest < text.len());
        if let Some(longest) = longest {
            let end = (0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
        }
        Completion { text, truncated: longest.is_some(), calls: Vec::new() }
    }

    /// The tools that are called: the one that must be, or all that the prompt names.
    fn called_tools(&self) -> Vec<&(String, Value)> {
        match &self.forced_tool {
            Some(name) if name.is_empty() => self.tools.first().into_iter().collect(),
            Some(name) => self.tools.iter().find(|tool| tool.0 == *name).into_iter().collect(),
            None => {
                let last = self.words.last().map_or("", String::as_str);
                let most = if self.one_call { 1 } else { usize::MAX };
                self.tools.iter().filter(|tool| last.contains(&tool.0)).take(most).collect()
            }
        }
    }

    /// A vector per text, of length one, near for texts that begin alike.
    pub fn vectors(&self, seed: u64) -> Vec<Vec<f32>> {
        let length = self.dimensions.unwrap_or(USUAL_DIMENSIONS).max(1);
        self.texts.iter().map(|text| vector(hash(seed, text.as_bytes()), length)).collect()
    }
}

fn vector(digest: u64, length: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(digest);
    let numbers: Vec<f32> = (0..length).map(|_| random.f32() - 0.5).collect();
    let norm = numbers.iter().map(|number| number * number).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    numbers.into_iter().map(|number| number / norm).collect()
}

/// A reply template, filled in.
fn fill(template: &str, digest: u64, prompt: Option<&String>) -> String {
    let mut text = String::with_capacity(template.len() + 128);
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{digest}") {
            let _ = write!(text, "{digest:016x}");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{excerpt}") {
            text.extend(excerpt(prompt.map_or("", String::as_str)));
            rest = after;
        } else {
            text.push('{');
            rest = &rest[1..];
        }
    }
    text.push_str(rest);
    text
}

/// The beginning of the prompt's last line, safe to stand inside a JSON string.
fn excerpt(prompt: &str) -> impl Iterator<Item = char> {
    const LONGEST: usize = 100;
    let line = prompt.trim_end().lines().next_back().unwrap_or_default().trim();
    line.chars().take(LONGEST).filter(|letter| !matches!(letter, '"' | '\\') && !letter.is_control())
}

/// FNV-1a, 64 bits: stable over runs, machines and versions, unlike the standard library's hasher.
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(prompt: &str) -> Question {
        Question { words: vec![prompt.to_owned()], samples: 1, ..Question::default() }
    }

    #[test]
    fn the_same_question_gets_the_same_answer_and_another_seed_another() {
        let requested = question("Say \"hello\"\nto me");
        let first = requested.answer(0, &[]);
        assert_eq!(first, requested.answer(0, &[]));
        assert_ne!(first, requested.answer(1, &[]));
        assert!(first[0].text.starts_with("Simulated reply ") && first[0].text.ends_with(": to me"));
        let templates = [r#"{"said": "{excerpt}"}"#.to_owned()];
        assert_eq!(requested.answer(0, &templates)[0].text, r#"{"said": "to me"}"#);
    }

    #[test]
    fn samples_lengths_and_tools_are_obeyed() {
        let mut requested = Question { samples: 3, ..question("x") };
        assert_eq!(requested.answer(0, &[]).len(), 3);
        requested.max_tokens = Some(2);
        assert_eq!((requested.answer(0, &[])[0].text.len(), requested.answer(0, &[])[0].truncated), (8, true));
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        requested.tools = vec![("weather".to_owned(), schema)];
        assert_eq!(requested.answer(0, &[])[0].calls, []);
        requested.forced_tool = Some(String::new());
        let (name, arguments) = requested.answer(0, &[])[0].calls[0].clone();
        assert!(name == "weather" && arguments["city"].is_string());
        requested.forced_tool = None;
        requested.tools.push(("clock".to_owned(), json!({"type": "object"})));
        requested.words = vec!["weather and clock".to_owned()];
        assert_eq!(requested.answer(0, &[])[0].calls.len(), 2);
        requested.one_call = true;
        assert_eq!(requested.answer(0, &[])[0].calls.len(), 1);
    }

    #[test]
    fn vectors_are_of_length_one() {
        let requested =
            Question { texts: vec!["a".to_owned(), "b".to_owned()], dimensions: Some(8), ..Question::default() };
        let vectors = requested.vectors(0);
        assert_eq!(vectors.len(), 2);
        assert!((vectors[0].iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_ne!(vectors[0], vectors[1]);
    }
}
