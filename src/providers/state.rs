//! What a provider wants back with a turn that called tools: signatures, thoughts, encrypted reasoning.
//!
//! A dialect leaves the turn as the provider wrote it in [`Choice::turn`](super::reply::Choice::turn); it travels as the
//! `state` of the turn's first call, or of the message itself, and the dialect writes the same parts again when it comes
//! back in a conversation. State of another protocol or model is left out: signatures hold for one model alone.
//!
//! Some models take their thoughts back only as long as everything before them is unchanged
//! ([`Dialect::binds_thoughts`](super::dialect::Dialect::binds_thoughts)). Their states hold a number of what they followed
//! ([`number_of`]), and [`find_edits`] finds the turns before which something has changed.
//!
//! Sources: the guides to thought signatures (Google), extended thinking (Anthropic), reasoning items (OpenAI) and
//! thinking mode (DeepSeek, Moonshot, OpenRouter), 2026.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::options::Options;
use super::prompt::{Content, Fields, Part, Turn};
use super::reply::ToolCall;
use super::shared::Text;

#[derive(Serialize, Deserialize)]
struct State {
    protocol: String,
    model: String,
    turn: Box<RawValue>,
    /// The number of what it followed, in hexadecimal digits: not every reader of JSON has integers of 64 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

/// The state of a turn, as text. `after`: the number of what it followed, where that matters.
pub fn keep(protocol: &str, model: &str, turn: Box<str>, after: Option<u64>) -> Option<Arc<str>> {
    let turn = RawValue::from_string(turn.into()).ok()?;
    let after = after.map(digits);
    let state = State { protocol: protocol.to_owned(), model: model.to_owned(), turn, after };
    serde_json::to_string(&state).ok().map(Arc::from)
}

fn digits(number: u64) -> String {
    format!("{number:016x}")
}

/// The number of what a reply to a conversation follows: instructions, tools and turns.
pub fn number_of(options: &Options, turns: &[Turn<'_>]) -> u64 {
    let mut hasher = begin(options);
    turns.iter().for_each(|turn| add(turn, &mut hasher));
    hasher.finish()
}

/// Finds the turns before which something was changed, added or left out since the provider wrote them.
pub fn find_edits(options: &Options, turns: &mut [Turn<'_>]) {
    let Some(last) = turns.iter().rposition(|turn| turn.state.is_some()) else { return };
    let mut hasher = begin(options);
    for turn in &mut turns[..=last] {
        let state = turn.state.and_then(|text| serde_json::from_str::<State>(text).ok());
        // Where nothing is known of what a turn followed, it is taken as it is.
        let after = state.and_then(|state| state.after);
        turn.is_after_edit = after.is_some_and(|after| after != digits(hasher.finish()));
        add(turn, &mut hasher);
    }
}

fn begin(options: &Options) -> FxHasher {
    let mut hasher = FxHasher::default();
    let number = options.number.get_or_init(|| {
        let mut hasher = FxHasher::default();
        options.system_prompt.as_deref().hash(&mut hasher);
        for tool in &options.tools {
            (&tool.name, &tool.description, tool.parameters.to_string()).hash(&mut hasher);
        }
        for name in ["system", "tools", "toolConfig"] {
            options.extra_body.get(name).map(ToString::to_string).hash(&mut hasher);
        }
        hasher.finish()
    });
    number.hash(&mut hasher);
    hasher
}

fn add(turn: &Turn<'_>, hasher: &mut FxHasher) {
    (turn.role as u8, turn.name, turn.tool_call_id, turn.state).hash(hasher);
    add_fields(turn.more, hasher);
    match &turn.content {
        Content::Text(text) => text.digest().hash(hasher),
        Content::Parts(parts) => {
            // A text that is sent in two parts, for the prompt cache, says the same.
            let mut words = String::new();
            for part in *parts {
                add_part(part, &mut words, hasher);
            }
            add_words(&mut words, hasher);
        }
    }
    for call in turn.tool_calls {
        (&call.id, &call.name, &call.arguments).hash(hasher);
    }
}

fn add_part(part: &Part, words: &mut String, hasher: &mut FxHasher) {
    match part {
        Part::Text(text) => words.push_str(text),
        Part::Media(media) => {
            add_words(words, hasher);
            (media.kind as u8, media.url().digest()).hash(hasher);
        }
        Part::With(inner) => {
            add_part(&inner.0, words, hasher);
            add_fields(&inner.1, hasher);
        }
    }
}

fn add_words(words: &mut String, hasher: &mut FxHasher) {
    if !words.is_empty() {
        Text::from(std::mem::take(words)).digest().hash(hasher);
    }
}

/// But for marks of the prompt cache, which move on with a conversation.
fn add_fields(fields: &Fields, hasher: &mut FxHasher) {
    for (name, value) in fields.0.iter().filter(|(name, _)| name != "cache_control") {
        (name, value.get()).hash(hasher);
    }
}

/// The turn as this protocol and model wrote it, if the message or one of its calls carries it.
pub fn turn_of<T: serde::de::DeserializeOwned>(turn: &Turn<'_>, protocol: &str, model: &str) -> Option<T> {
    let state: State = serde_json::from_str(turn.state?).ok()?;
    (state.protocol == protocol && state.model == model).then(|| serde_json::from_str(state.turn.get()).ok())?
}

/// What a part of a turn is.
pub enum Kind {
    /// Words of the answer.
    Text(String),
    /// A call: its id, its arguments as [`ToolCall`] has them.
    Call(String, String),
    /// Anything else, which goes back as it is.
    Opaque,
}

/// How a part of a turn is written.
#[derive(Debug)]
pub enum Written<'a> {
    /// As the provider wrote it.
    Raw(Box<RawValue>),
    /// The same of what is neither a text nor a call, behind something that the user has changed or left out.
    Late(Box<RawValue>),
    /// What the user says in the turn, in place of the model's words.
    Content,
    /// A call that the user has changed or added.
    Call(&'a ToolCall),
}

/// The parts of a turn, for a conversation that holds it: as the provider wrote them, but for words and calls that the
/// user has changed or left out. `kind` gets the number of calls before.
pub fn replay<'a>(
    parts: Vec<Box<RawValue>>,
    turn: &'a Turn<'a>,
    kind: impl Fn(&RawValue, usize) -> Kind,
) -> Vec<Written<'a>> {
    let mut calls = 0;
    let kinds: Vec<Kind> = parts
        .iter()
        .map(|part| {
            let kind = kind(part, calls);
            calls += usize::from(matches!(kind, Kind::Call(..)));
            kind
        })
        .collect();
    let said: String = kinds.iter().map(|kind| if let Kind::Text(text) = kind { text.as_str() } else { "" }).collect();
    let is_edited = match &turn.content {
        Content::Text(text) => !text.trim().is_empty() && text.trim() != said.trim(),
        Content::Parts(parts) => !parts.is_empty(),
    };
    let mut content_left = is_edited;
    let mut used = vec![false; turn.tool_calls.len()];
    let mut written = Vec::with_capacity(parts.len());
    let mut is_late = false;
    for (part, kind) in parts.into_iter().zip(kinds) {
        match kind {
            Kind::Opaque if is_late => written.push(Written::Late(part)),
            Kind::Opaque => written.push(Written::Raw(part)),
            Kind::Text(_) if !is_edited => written.push(Written::Raw(part)),
            Kind::Text(_) => {
                is_late = true;
                if std::mem::take(&mut content_left) {
                    written.push(Written::Content);
                }
            }
            Kind::Call(id, arguments) => {
                if std::mem::take(&mut content_left) {
                    is_late = true;
                    written.push(Written::Content);
                }
                let place = turn.tool_calls.iter().zip(&used).position(|(call, used)| !used && call.id == id);
                let Some(place) = place else {
                    is_late = true;
                    continue;
                };
                used[place] = true;
                let call = &turn.tool_calls[place];
                let is_same = call.arguments == arguments;
                is_late |= !is_same;
                written.push(if is_same { Written::Raw(part) } else { Written::Call(call) });
            }
        }
    }
    if content_left {
        written.push(Written::Content);
    }
    let more = turn.tool_calls.iter().zip(used).filter(|(_, used)| !used);
    written.extend(more.map(|(call, _)| Written::Call(call)));
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::prompt::{Ask, Message, Prompt, Role};
    use crate::providers::testing;
    use serde_json::json;

    fn say(role: Role, parts: &[&str]) -> Message {
        let parts = parts.iter().map(|text| Part::Text((*text).to_owned().into())).collect();
        Message { role, parts, ..Message::default() }
    }

    /// Two rounds, each answered by a model that binds its thoughts to what came before.
    fn conversation(options: &Options) -> Vec<Message> {
        let mut messages = vec![say(Role::User, &["a", "b"])];
        for round in ["1", "2"] {
            let after = number_of(options, &Ask::new(Prompt::from(messages.clone())).turns());
            let mut call = ToolCall::new(round.to_owned(), "f".to_owned(), "{}".to_owned());
            call.state = keep("p", "m", "[]".into(), Some(after));
            messages.push(Message { tool_calls: vec![call], ..say(Role::Assistant, &["so"]) });
            messages.push(Message { tool_call_id: Some(round.to_owned()), ..say(Role::Tool, &["7"]) });
        }
        messages
    }

    fn edited(options: &Options, messages: Vec<Message>) -> Vec<bool> {
        let ask = Ask::new(Prompt::from(messages));
        let mut turns = ask.turns();
        find_edits(options, &mut turns);
        turns.iter().filter(|turn| turn.state.is_some()).map(|turn| turn.is_after_edit).collect()
    }

    #[test]
    fn turns_behind_a_change_are_found() {
        let options = testing::options(json!({"model": "m", "system_prompt": "s"}));
        let whole = conversation(&options);
        assert_eq!(edited(&options, whole.clone()), [false, false]);
        let change = |change: &dyn Fn(&mut Vec<Message>)| {
            let mut messages = whole.clone();
            change(&mut messages);
            edited(&options, messages)
        };
        assert_eq!(change(&|messages| messages[0].parts = vec![Part::Text("other".to_owned().into())]), [true, true]);
        assert_eq!(change(&|messages| messages.insert(0, say(Role::User, &["more"]))), [true, true]);
        assert_eq!(change(&|messages| messages[2].parts = vec![Part::Text("8".to_owned().into())]), [false, true]);
        assert_eq!(change(&|messages| messages[1].tool_calls[0].arguments = "{\"x\":1}".to_owned()), [false, true]);
        assert_eq!(change(&|messages| messages[1].parts.clear()), [false, true]);
        assert_eq!(change(&|messages| drop(messages.drain(1..3))), [true]);
        // What comes later is not before them, and a text in two parts for the cache is the same text.
        assert_eq!(change(&|messages| messages.push(say(Role::User, &["more"]))), [false, false]);
        assert_eq!(change(&|messages| messages[0] = say(Role::User, &["ab"])), [false, false]);
        // Of what has no number nothing is known.
        let unknown = |messages: &mut Vec<Message>| {
            messages[1].tool_calls[0].state = keep("p", "m", "[]".into(), None);
            messages[0] = say(Role::User, &["other"]);
        };
        assert_eq!(change(&unknown), [false, true]);
    }

    #[test]
    fn instructions_and_tools_come_before_all() {
        let tool = json!([{"name": "f", "parameters": {"type": "object"}}]);
        let whole = conversation(&testing::options(json!({"model": "m", "system_prompt": "s", "tools": tool})));
        for other in [
            json!({"model": "m", "system_prompt": "t", "tools": tool}),
            json!({"model": "m", "system_prompt": "s"}),
            json!({"model": "m", "system_prompt": "s", "tools": tool, "extra_body": {"tools": []}}),
        ] {
            assert_eq!(edited(&testing::options(other), whole.clone()), [true, true]);
        }
        let same = json!({"model": "m", "system_prompt": "s", "tools": tool, "max_tokens": 5, "temperature": 0.5});
        assert_eq!(edited(&testing::options(same), whole), [false, false]);
    }
}
