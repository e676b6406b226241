//! How a conversation is written in Chat Completions.

use serde::Serialize;
use serde_json::value::RawValue;

use super::turn::{CallState, PROTOCOL, State, Thoughts};
use crate::providers::marked::Mark;
use crate::providers::media::{Media, MediaKind};
use crate::providers::prompt::{Content, Fields, Part, Role, Turn};
use crate::providers::shared::{SharedText, Text};
use crate::providers::state;

/// A message as it is sent.
#[derive(Serialize, Default)]
pub struct Message<'a> {
    /// Who speaks.
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// What is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<MessageContent<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<OutgoingCall<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    /// What the provider wants back.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    state: Option<Thoughts>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    more: Option<&'a Fields>,
}

/// What is said in it.
#[derive(Serialize)]
#[serde(untagged)]
enum MessageContent<'a> {
    /// Words alone.
    Text(&'a Text),
    /// Words that all requests have.
    Shared(&'a SharedText),
    /// Several pieces.
    Parts(Vec<ChatPart<'a>>),
    /// What the server itself has written.
    Raw(Box<RawValue>),
}

#[derive(Serialize)]
struct OutgoingCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: OutgoingFunction<'a>,
    #[serde(flatten)]
    state: CallState,
}

#[derive(Serialize)]
struct OutgoingFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

/// A piece of a message.
#[derive(Serialize)]
struct ChatPart<'a> {
    #[serde(flatten)]
    part: PlainPart<'a>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    more: Option<&'a Fields>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PlainPart<'a> {
    Text {
        text: &'a Text,
    },
    /// Words that all requests have.
    #[serde(rename = "text")]
    Shared {
        text: &'a SharedText,
    },
    ImageUrl {
        image_url: ImageUrl<'a>,
    },
    InputAudio {
        input_audio: InputAudio<'a>,
    },
    File {
        file: FileData<'a>,
    },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: &'a SharedText,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct InputAudio<'a> {
    data: &'a SharedText,
    format: &'a str,
}

#[derive(Serialize)]
struct FileData<'a> {
    filename: &'a str,
    file_data: &'a SharedText,
}

/// Fields that a message of a conversation may have beside those with names of their own.
const MORE: &[&str] =
    &["reasoning_content", "reasoning", "reasoning_details", "cache_control", "refusal", "prefix", "partial"];

impl<'a> Message<'a> {
    /// Instructions.
    pub fn system(text: &'a SharedText) -> Self {
        Self { role: "system", content: Some(MessageContent::Shared(text)), ..Self::default() }
    }

    /// Instructions whose end is marked for the prompt cache.
    pub fn marked(text: &'a SharedText, mark: Mark) -> Self {
        let part = ChatPart { part: PlainPart::Shared { text }, more: None, mark: Some(mark) };
        // OpenAI takes breakpoints in messages of developers.
        let role = if matches!(mark, Mark::Breakpoint(_)) { "developer" } else { "system" };
        Self { role, content: Some(MessageContent::Parts(vec![part])), ..Self::default() }
    }

    /// Marks its end for the prompt cache.
    pub fn mark(&mut self, mark: Mark) {
        match &mut self.content {
            Some(MessageContent::Text(text)) => {
                let part = ChatPart { part: PlainPart::Text { text }, more: None, mark: Some(mark) };
                self.content = Some(MessageContent::Parts(vec![part]));
            }
            Some(MessageContent::Parts(parts)) => {
                if let Some(last) = parts.last_mut() {
                    last.mark = Some(mark);
                }
            }
            _ => {}
        }
    }

    /// Adds the least that counts as thoughts to a turn of the model that has none: a server that wants them back
    /// rejects the request otherwise.
    pub fn add_thoughts(&mut self) {
        let by_hand = self.more.is_some_and(|more| more.0.iter().any(|(name, _)| name == "reasoning_content"));
        if self.role == "assistant" && !by_hand {
            let thoughts = self.state.get_or_insert_default();
            thoughts.reasoning_content.get_or_insert_with(|| " ".to_owned());
        }
    }
}

/// A turn of a conversation as a message. `mark`: of the part with this number.
///
/// # Errors
/// Names what this dialect cannot express.
pub fn message<'a>(turn: &'a Turn<'a>, model: &str, mark: Option<(usize, Mark)>) -> Result<Message<'a>, String> {
    let role = match turn.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    turn.more.only(MORE, "message", PROTOCOL)?;
    let mut kept: Option<State> = state::turn_of(turn, PROTOCOL, model);
    if turn.is_after_edit {
        // Thoughts go, whatever else the server has written stays.
        kept.iter_mut().for_each(|kept| kept.thoughts = Thoughts::default());
    }
    let (thoughts, raw, calls) =
        kept.map_or_else(Default::default, |kept| (Some(kept.thoughts), kept.content, kept.calls));
    let content = match (&turn.content, raw) {
        // The content as the server wrote it, unless the user has another one.
        (Content::Parts([]), Some((raw, _))) => Some(MessageContent::Raw(raw)),
        (Content::Text(text), Some((raw, words))) if ***text == *words => Some(MessageContent::Raw(raw)),
        (Content::Text(text), _) => Some(MessageContent::Text(text)),
        // A message that only calls tools has no content.
        (Content::Parts([]), None) => None,
        (Content::Parts(parts), _) => {
            let parts = parts
                .iter()
                .enumerate()
                .map(|(number, one)| part(one, mark.filter(|(marked, _)| *marked == number).map(|(_, mark)| mark)));
            Some(MessageContent::Parts(parts.collect::<Result<_, _>>()?))
        }
    };
    let tool_calls = turn.tool_calls.iter().map(|call| OutgoingCall {
        id: &call.id,
        r#type: "function",
        function: OutgoingFunction { name: &call.name, arguments: call.object() },
        state: calls.iter().find(|(id, _)| *id == call.id).map(|(_, state)| state.clone()).unwrap_or_default(),
    });
    let tool_calls = (!turn.tool_calls.is_empty()).then(|| tool_calls.collect());
    // What the user gives by hand counts before what was kept.
    let by_hand = turn.more.0.iter().any(|(name, _)| name.starts_with("reasoning"));
    let state = thoughts.filter(|_| !by_hand);
    let more = (!turn.more.0.is_empty()).then_some(turn.more);
    let mut message =
        Message { role, name: turn.name, content, tool_calls, tool_call_id: turn.tool_call_id, state, more };
    if let (Content::Text(_), Some((_, mark))) = (&turn.content, mark) {
        message.mark(mark);
    }
    Ok(message)
}

fn part(part: &Part, mark: Option<Mark>) -> Result<ChatPart<'_>, String> {
    match part {
        Part::With(inner) => Ok(ChatPart { part: plain(&inner.0)?, more: Some(&inner.1), mark }),
        part => Ok(ChatPart { part: plain(part)?, more: None, mark }),
    }
}

fn plain(part: &Part) -> Result<PlainPart<'_>, String> {
    let media: &Media = match part {
        Part::Text(text) => return Ok(PlainPart::Text { text }),
        Part::Media(media) => media,
        Part::With(inner) => return plain(&inner.0),
    };
    match media.kind {
        MediaKind::Image => {
            let image_url = ImageUrl { url: media.url(), detail: media.detail.as_deref() };
            Ok(PlainPart::ImageUrl { image_url })
        }
        MediaKind::File if media.travels() => {
            let filename = media.name.as_deref().unwrap_or("file");
            Ok(PlainPart::File { file: FileData { filename, file_data: media.url() } })
        }
        kind => match media.base64().filter(|_| kind == MediaKind::Audio) {
            Some(data) => Ok(PlainPart::InputAudio { input_audio: InputAudio { data, format: media.format() } }),
            None => Err(format!(
                "Chat Completions accepts no {} by URL: pass the bytes, or use api=\"responses\" for files",
                kind.name()
            )),
        },
    }
}
