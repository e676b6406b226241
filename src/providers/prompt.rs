//! What is asked of a model, in words that every dialect can translate.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use secrecy::SecretString;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::deferral::Deferral;
use super::listener::Listener;
use super::media::Media;
use super::plan::{Marks, Plan};
use super::reply::ToolCall;
use super::shared::Text;

/// A prompt: one text, or a conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// The user says this.
    Text(Text),
    /// A conversation that ends where the model is to go on. In an `Arc`, for its next request has the same messages and
    /// a few more.
    Messages(Arc<Vec<Message>>),
}

impl From<Vec<Message>> for Prompt {
    fn from(messages: Vec<Message>) -> Self {
        Self::Messages(Arc::new(messages))
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Instructions; `system` and `developer` alike.
    System,
    /// The user.
    #[default]
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

/// Further fields of a message or a part, as the user wrote them. Dialects send them or name them in an error.
#[derive(Debug, Clone, Default)]
pub struct Fields(pub Vec<(String, Box<RawValue>)>);

impl Fields {
    /// Whether there are none but these.
    ///
    /// # Errors
    /// Names the first that is not `known`, for users of `protocol`.
    pub fn only(&self, known: &[&str], what: &str, protocol: &str) -> Result<(), String> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(format!("{protocol} does not support the field {name:?} in a {what}: leave it out")),
            None => Ok(()),
        }
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        let text =
            |fields: &Self| fields.0.iter().map(|(name, raw)| (name.clone(), raw.get().to_owned())).collect::<Vec<_>>();
        text(self) == text(other)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Fields;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub parts: Vec<Part>,
    /// Tools the model called, in a message of its own.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a message of role [`Role::Tool`] answers.
    pub tool_call_id: Option<String>,
    /// The speaker's name; of a tool, the function's.
    pub name: Option<String>,
    /// What the provider wants back with a turn of the model that called no tool; see [`state`](super::state).
    pub state: Option<Arc<str>>,
    /// What else is in it.
    pub more: Fields,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Words.
    Text(Text),
    /// Anything else, shared between items.
    Media(Arc<Media>),
    /// One of these with further fields.
    With(Box<(Part, Fields)>),
}

impl Part {
    /// The words in it, if it is words.
    pub fn text(&self) -> Option<&str> {
        self.words().map(|text| &**text)
    }

    /// Its further fields, if it has any.
    pub fn more(&self) -> Option<&Fields> {
        match self {
            Self::With(inner) => Some(&inner.1),
            Self::Text(_) | Self::Media(_) => None,
        }
    }

    fn own_bytes(&self) -> usize {
        self.words().map_or(0, Text::own_bytes)
    }

    fn added_bytes(&self) -> usize {
        self.words().map_or(0, Text::added_bytes)
    }

    fn words(&self) -> Option<&Text> {
        match self {
            Self::Text(text) => Some(text),
            Self::Media(_) => None,
            Self::With(inner) => inner.0.words(),
        }
    }
}

/// An answer that did not fit, and what was wrong with it: the next attempt shows both to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// What the model said.
    pub answer: String,
    /// What was wrong.
    pub problem: String,
}

/// One question to a provider.
#[derive(Debug)]
pub struct Ask {
    /// The prompt.
    pub prompt: Prompt,
    /// The failed answer of the attempt before.
    // In a box, for few questions have one.
    pub correction: Option<Box<Correction>>,
    /// A key for this request alone.
    pub key: Option<SecretString>,
    /// Who follows the answer while it comes.
    pub listener: Option<Arc<Listener>>,
    /// Where its answer may be brought later.
    pub deferral: Option<Deferral>,
    /// What is to be cached of it, once that is decided.
    pub plan: OnceLock<Option<Box<Plan>>>,
}

impl Ask {
    /// A question without any of the rest.
    pub fn new(prompt: Prompt) -> Self {
        Self { prompt, correction: None, key: None, listener: None, deferral: None, plan: OnceLock::new() }
    }

    /// What its request says to the provider's cache, if anything.
    pub fn marks(&self) -> Option<&Marks> {
        Some(&self.plan.get()?.as_ref()?.marks)
    }

    /// A cache holds what the question began with; or none does any more.
    pub fn use_cache(&mut self, name: Option<String>) {
        if let Some(Some(plan)) = self.plan.get_mut() {
            plan.marks.fixed = name.is_some();
            plan.marks.cached = name;
        }
    }

    /// The conversation as turns, with the correction at its end.
    pub fn turns(&self) -> Vec<Turn<'_>> {
        let mut turns = match &self.prompt {
            Prompt::Text(text) => vec![Turn::text(Role::User, Cow::Borrowed(text))],
            Prompt::Messages(messages) => messages.iter().map(Turn::from).collect(),
        };
        if let Some(Correction { answer, problem }) = self.correction.as_deref() {
            turns.push(Turn::text(Role::Assistant, Cow::Owned(answer.clone().into())));
            let text = format!(
                "Your answer is not valid: {problem}\nAnswer again: a value of the schema with nothing around it, or a call whose \
                 arguments fit the tool's schema."
            );
            turns.push(Turn::text(Role::User, Cow::Owned(text.into())));
        }
        turns
    }

    /// Whether a turn has what its provider wants back.
    pub fn has_state(&self) -> bool {
        let Prompt::Messages(messages) = &self.prompt else { return false };
        messages.iter().any(|message| message.state.is_some() || in_calls(&message.tool_calls).is_some())
    }

    /// Whether there is more than text.
    pub fn has_media(&self) -> bool {
        match &self.prompt {
            Prompt::Text(_) => false,
            Prompt::Messages(messages) => {
                messages.iter().flat_map(|message| &message.parts).any(|part| part.text().is_none())
            }
        }
    }

    /// Bytes that the texts of the question add to what is in memory.
    pub fn added_bytes(&self) -> usize {
        match &self.prompt {
            Prompt::Text(text) => text.added_bytes(),
            Prompt::Messages(messages) => {
                messages.iter().flat_map(|message| &message.parts).map(Part::added_bytes).sum()
            }
        }
    }

    /// Bytes of the texts that the question has for itself.
    pub fn own_bytes(&self) -> usize {
        match &self.prompt {
            Prompt::Text(text) => text.own_bytes(),
            Prompt::Messages(messages) => messages.iter().flat_map(|message| &message.parts).map(Part::own_bytes).sum(),
        }
    }

    /// All words of the question, to estimate its length by.
    pub fn characters(&self) -> usize {
        match &self.prompt {
            Prompt::Text(text) => text.len(),
            Prompt::Messages(messages) => {
                messages.iter().flat_map(|message| &message.parts).map(|part| part.text().map_or(0, str::len)).sum()
            }
        }
    }
}

/// One turn of a conversation, borrowed from a question.
#[derive(Debug, Clone)]
pub struct Turn<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content<'a>,
    /// Tools the model called.
    pub tool_calls: &'a [ToolCall],
    /// The call that this answers.
    pub tool_call_id: Option<&'a str>,
    /// The speaker's name.
    pub name: Option<&'a str>,
    /// What the provider wants back with it.
    pub state: Option<&'a str>,
    /// Whether something before it has changed since the provider wrote it, so that its thoughts belong to it no more.
    pub is_after_edit: bool,
    /// What else is in it.
    pub more: &'a Fields,
}

/// What is said in a turn.
#[derive(Debug, Clone)]
pub enum Content<'a> {
    /// Words alone.
    Text(Cow<'a, Text>),
    /// Several pieces.
    Parts(&'a [Part]),
}

impl<'a> Turn<'a> {
    fn text(role: Role, text: Cow<'a, Text>) -> Self {
        static NONE: Fields = Fields(Vec::new());
        Self {
            role,
            content: Content::Text(text),
            tool_calls: &[],
            tool_call_id: None,
            name: None,
            state: None,
            is_after_edit: false,
            more: &NONE,
        }
    }

    /// The words alone.
    pub fn words(&self) -> Cow<'_, str> {
        match &self.content {
            Content::Text(text) => Cow::Borrowed(&***text),
            Content::Parts(parts) => Cow::Owned(parts.iter().filter_map(Part::text).collect::<Vec<_>>().join("\n")),
        }
    }

    /// The words of a turn that can hold nothing else.
    ///
    /// # Errors
    /// Names what else is in it, for users of `protocol`.
    pub fn only_words(&self, protocol: &str) -> Result<Cow<'_, str>, String> {
        let role = if self.role == Role::Tool { "tool" } else { "system" };
        if let Content::Parts(parts) = &self.content {
            for part in *parts {
                match part {
                    Part::Text(_) => {}
                    Part::Media(media) => {
                        return Err(format!("{protocol} accepts no {} in a {role} message", media.kind.name()));
                    }
                    Part::With(inner) => inner.1.only(&[], &format!("part of a {role} message"), protocol)?,
                }
            }
        }
        Ok(self.words())
    }

    /// Whether there is anything in it.
    pub fn is_empty(&self) -> bool {
        let says_nothing = match &self.content {
            Content::Text(text) => text.trim().is_empty(),
            Content::Parts(parts) => parts.iter().all(|part| part.text().is_some_and(|text| text.trim().is_empty())),
        };
        says_nothing && self.tool_calls.is_empty()
    }
}

/// The state that travels with the calls of a turn.
fn in_calls(calls: &[ToolCall]) -> Option<&str> {
    calls.iter().find_map(|call| call.state.as_deref())
}

impl<'a> From<&'a Message> for Turn<'a> {
    fn from(message: &'a Message) -> Self {
        let content = match message.parts.as_slice() {
            [Part::Text(text)] => Content::Text(Cow::Borrowed(text)),
            parts => Content::Parts(parts),
        };
        Self {
            role: message.role,
            content,
            tool_calls: &message.tool_calls,
            tool_call_id: message.tool_call_id.as_deref(),
            name: message.name.as_deref(),
            state: message.state.as_deref().or_else(|| in_calls(&message.tool_calls)),
            is_after_edit: false,
            more: &message.more,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correction_follows_the_conversation() {
        let correction = Correction { answer: "{}".to_owned(), problem: "a is missing".to_owned() };
        let ask = Ask { correction: Some(Box::new(correction)), ..Ask::new(Prompt::Text("Hi".to_owned().into())) };
        let turns = ask.turns();
        assert_eq!(turns.iter().map(|turn| turn.role).collect::<Vec<_>>(), [Role::User, Role::Assistant, Role::User]);
        assert!(turns[2].words().contains("a is missing"));
    }
}
