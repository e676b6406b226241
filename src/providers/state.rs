//! What a provider wants back with a turn that called tools: signatures, thoughts, encrypted reasoning.
//!
//! A dialect leaves the turn as the provider wrote it in [`Choice::turn`](super::reply::Choice::turn); it travels as the
//! `state` of the turn's first call, or of the message itself, and the dialect writes the same parts again when it comes
//! back in a conversation. State of another protocol or model is left out: signatures hold for one model alone.
//!
//! Sources: the guides to thought signatures (Google), extended thinking (Anthropic), reasoning items (OpenAI) and
//! thinking mode (DeepSeek, Moonshot, OpenRouter), 2026.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::prompt::{Content, Turn};
use super::reply::ToolCall;

#[derive(Serialize, Deserialize)]
struct State {
    protocol: String,
    model: String,
    turn: Box<RawValue>,
}

/// The state of a turn, as text.
pub fn keep(protocol: &str, model: &str, turn: Box<str>) -> Option<Arc<str>> {
    let turn = RawValue::from_string(turn.into()).ok()?;
    let state = State { protocol: protocol.to_owned(), model: model.to_owned(), turn };
    serde_json::to_string(&state).ok().map(Arc::from)
}

/// The turn as this protocol and model wrote it, if the message or one of its calls carries it.
pub fn turn_of<T: serde::de::DeserializeOwned>(turn: &Turn<'_>, protocol: &str, model: &str) -> Option<T> {
    let text = turn.state.or_else(|| turn.tool_calls.iter().find_map(|call| call.state.as_deref()))?;
    let state: State = serde_json::from_str(text).ok()?;
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
    for (part, kind) in parts.into_iter().zip(kinds) {
        match kind {
            Kind::Opaque => written.push(Written::Raw(part)),
            Kind::Text(_) if !is_edited => written.push(Written::Raw(part)),
            Kind::Text(_) => {
                if std::mem::take(&mut content_left) {
                    written.push(Written::Content);
                }
            }
            Kind::Call(id, arguments) => {
                if std::mem::take(&mut content_left) {
                    written.push(Written::Content);
                }
                let place = turn.tool_calls.iter().zip(&used).position(|(call, used)| !used && call.id == id);
                if let Some(place) = place {
                    used[place] = true;
                    let call = &turn.tool_calls[place];
                    let is_same = call.arguments == arguments;
                    written.push(if is_same { Written::Raw(part) } else { Written::Call(call) });
                }
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
