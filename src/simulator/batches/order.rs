//! What is asked of a batch.

use serde_json::Value;

use super::lines::{Lines, Problem};
use super::provider::Provider;

/// What a client gave a batch to know it again.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// A name.
    Name(String),
    /// Pairs.
    Pairs(Value),
}

impl Label {
    /// As JSON.
    pub fn value(&self) -> Value {
        match self {
            Self::Name(name) => name.clone().into(),
            Self::Pairs(pairs) => pairs.clone(),
        }
    }

    /// What tells this batch from all others: the name, or the value whose name says so, or else the first.
    fn nonce(&self) -> Option<String> {
        match self {
            Self::Name(name) => Some(name.clone()),
            Self::Pairs(pairs) => {
                let pairs = pairs.as_object()?;
                let said = pairs.iter().find(|(name, _)| name.contains("nonce")).or_else(|| pairs.iter().next());
                said.and_then(|(_, value)| value.as_str()).map(str::to_owned)
            }
        }
    }
}

/// What is asked of a batch.
#[derive(Debug, Clone)]
pub struct Order {
    /// By whom it is made.
    pub provider: Provider,
    /// For whom.
    pub account: u64,
    /// The path of the live endpoint that would answer.
    pub endpoint: String,
    /// The model, where it is said once.
    pub model: Option<String>,
    /// What it is to be known by.
    pub label: Option<Label>,
    /// Id and name of the file with its lines.
    pub file: Option<(String, String)>,
    /// How long it may take, as it was said.
    pub window: Option<String>,
    /// The same in seconds.
    pub expires_after: f64,
    /// Its lines.
    pub lines: Lines,
    /// What is wrong with them.
    pub problems: Vec<Problem>,
    /// Tokens of its prompts, where the queue has a limit.
    pub tokens: u64,
}

impl Order {
    /// What tells it from all others.
    pub fn nonce(&self) -> Option<String> {
        let labelled = self.label.as_ref().and_then(Label::nonce);
        let prefix = || self.lines.id(0).split_once('-').map(|(nonce, _)| nonce.to_owned());
        labelled.or_else(prefix).or_else(|| self.file.as_ref().map(|(_, name)| name.clone()))
    }
}
