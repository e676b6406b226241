//! A record: what became of one item, or what a failed attempt of it has cost.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The fingerprint of a request: equal ones ask the same of the same model in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// Its first half, which an index goes by.
    pub fn prefix(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Of 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32 && text.is_ascii()).then_some(())?;
        u128::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a key has 32 hexadecimal digits"))
    }
}

/// What a record is good for in later runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Nothing but the account: the item was not tried to its end, or its output was not stored.
    Never = 0,
    /// A failure that would be one again, for who wants those too.
    Failure = 1,
    /// An answer.
    Success = 2,
}

impl Reuse {
    /// By its number.
    pub fn of(number: i64) -> Self {
        match number {
            2 => Self::Success,
            1 => Self::Failure,
            _ => Self::Never,
        }
    }
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The end of an item.
    Item,
    /// A failed attempt that has cost something.
    Attempt,
    /// A step of a conversation that goes on: a reply of the model, the result of a tool. Its key is made of the keys of
    /// the steps before, so that a conversation that begins alike finds it.
    Step,
}

/// What was paid for and is in no earlier record: the sum over all records is the account.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Tokens of prompts.
    pub input_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// Those of the prompts' that came from the provider's cache.
    pub cached_input_tokens: u64,
    /// What that cost; `None`: the price is not known.
    pub cost: Option<f64>,
}

/// A record without its body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// What it is about.
    #[serde(rename = "record_type")]
    pub kind: Kind,
    /// The run that made it, from 1.
    pub run: u64,
    /// The request.
    pub key: Key,
    /// The number of the identity that is part of the key.
    pub identity: i64,
    /// The item's id.
    pub item_id: String,
    /// Its place in the order of submission of its run.
    pub submission_index: u64,
    /// Seconds since 1970.
    pub recorded_at: f64,
    /// Whether it succeeded.
    pub success: bool,
    /// If it did not, what that means.
    pub error_category: Option<String>,
    /// What it is good for.
    pub reuse: Reuse,
    /// What it has cost.
    pub spent: Spent,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// All but the result.
    pub head: Head,
    /// JSON of the result.
    pub body: String,
}

/// What is written.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A record; its `run` is filled in by who writes it.
    Record(Box<Stored>),
    /// An identity, before the first record that has it.
    Identity(i64, String),
    /// What was done to the run: see [`events`](super::events).
    Event(String),
    /// What bounded the run over time, in place of what was written before: see
    /// [`bound_over_time`](super::bound_over_time).
    BoundOverTime(String),
}

impl Kind {
    /// Whether it has a body, which may be used again.
    pub fn has_body(self) -> bool {
        self != Self::Attempt
    }

    /// By its number in files and on the bridge.
    pub fn of(number: i64) -> Self {
        match number {
            0 => Self::Attempt,
            2 => Self::Step,
            _ => Self::Item,
        }
    }

    /// Its number.
    pub fn number(self) -> i64 {
        match self {
            Self::Attempt => 0,
            Self::Item => 1,
            Self::Step => 2,
        }
    }
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
