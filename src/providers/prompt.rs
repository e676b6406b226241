//! What is asked of a model, in words that every dialect can translate.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::reply::ToolCall;

/// A prompt: one text, or a conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// The user says this.
    Text(String),
    /// A conversation that ends where the model is to go on.
    Messages(Vec<Message>),
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions; `system` and `developer` alike.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub parts: Vec<Part>,
    /// Tools the model called, in a message of its own.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a message of role [`Role::Tool`] answers.
    pub tool_call_id: Option<String>,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Words.
    Text(String),
    /// Anything else, shared between items.
    Media(Arc<Media>),
}

/// What a medium is, as far as dialects tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// Sound.
    Audio,
    /// A document.
    File,
}

impl MediaKind {
    /// The word for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::File => "file",
        }
    }
}

/// A picture, a sound or a document; its bytes are encoded once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// What it is.
    pub kind: MediaKind,
    /// Its IANA media type, `image/png` for instance.
    pub media_type: String,
    /// A name for documents.
    pub name: Option<String>,
    /// OpenAI's `detail` of a picture.
    pub detail: Option<String>,
    /// A URL of any kind; for bytes a `data:` URL.
    url: String,
    /// Where the base64 text begins in it; `None` when the bytes are elsewhere.
    encoded_from: Option<usize>,
}

impl Media {
    /// A medium whose bytes travel with each request.
    pub fn from_bytes(kind: MediaKind, media_type: &str, bytes: &[u8]) -> Self {
        let mut url = format!("data:{media_type};base64,");
        let start = url.len();
        STANDARD.encode_string(bytes, &mut url);
        Self { kind, media_type: media_type.to_owned(), name: None, detail: None, url, encoded_from: Some(start) }
    }

    /// A medium that the provider fetches.
    pub fn from_url(kind: MediaKind, media_type: &str, url: String) -> Self {
        Self { kind, media_type: media_type.to_owned(), name: None, detail: None, url, encoded_from: None }
    }

    /// The bytes as base64 text, if they travel with the request.
    pub fn base64(&self) -> Option<&str> {
        self.encoded_from.map(|start| &self.url[start..])
    }

    /// Its URL; for bytes a `data:` URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The second half of the media type: `png` of `image/png`.
    pub fn format(&self) -> &str {
        let format = self.media_type.rsplit('/').next().unwrap_or_default();
        match format {
            "mpeg" => "mp3",
            "x-wav" => "wav",
            _ => format,
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
    pub correction: Option<Correction>,
    /// A key for this request alone.
    pub key: Option<SecretString>,
}

impl Ask {
    /// A question without any of the rest.
    pub fn new(prompt: Prompt) -> Self {
        Self { prompt, correction: None, key: None }
    }

    /// The conversation as turns, with the correction at its end.
    pub fn turns(&self) -> Vec<Turn<'_>> {
        let mut turns = match &self.prompt {
            Prompt::Text(text) => vec![Turn::text(Role::User, Cow::Borrowed(text))],
            Prompt::Messages(messages) => messages.iter().map(Turn::from).collect(),
        };
        if let Some(Correction { answer, problem }) = &self.correction {
            turns.push(Turn::text(Role::Assistant, Cow::Borrowed(answer)));
            let text = format!(
                "Your answer is not valid: {problem}\nAnswer again, with nothing but a JSON value that fits the schema."
            );
            turns.push(Turn::text(Role::User, Cow::Owned(text)));
        }
        turns
    }

    /// Whether there is more than text.
    pub fn has_media(&self) -> bool {
        match &self.prompt {
            Prompt::Text(_) => false,
            Prompt::Messages(messages) => {
                messages.iter().flat_map(|message| &message.parts).any(|part| !matches!(part, Part::Text(_)))
            }
        }
    }

    /// All words of the question, to estimate its length by.
    pub fn characters(&self) -> usize {
        match &self.prompt {
            Prompt::Text(text) => text.len(),
            Prompt::Messages(messages) => messages
                .iter()
                .flat_map(|message| &message.parts)
                .map(|part| if let Part::Text(text) = part { text.len() } else { 0 })
                .sum(),
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
}

/// What is said in a turn.
#[derive(Debug, Clone)]
pub enum Content<'a> {
    /// Words alone.
    Text(Cow<'a, str>),
    /// Several pieces.
    Parts(&'a [Part]),
}

impl<'a> Turn<'a> {
    fn text(role: Role, text: Cow<'a, str>) -> Self {
        Self { role, content: Content::Text(text), tool_calls: &[], tool_call_id: None }
    }

    /// The words alone; media are left out.
    pub fn words(&self) -> Cow<'_, str> {
        match &self.content {
            Content::Text(text) => Cow::Borrowed(text),
            Content::Parts(parts) => {
                let texts = parts.iter().filter_map(|part| match part {
                    Part::Text(text) => Some(text.as_str()),
                    Part::Media(_) => None,
                });
                Cow::Owned(texts.collect::<Vec<_>>().join("\n"))
            }
        }
    }
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_encoded_once_and_seen_two_ways() {
        let media = Media::from_bytes(MediaKind::Audio, "audio/mpeg", b"abc");
        assert_eq!(media.base64(), Some("YWJj"));
        assert_eq!(media.url(), "data:audio/mpeg;base64,YWJj");
        assert_eq!(media.format(), "mp3");
        assert_eq!(Media::from_url(MediaKind::Image, "image/png", "https://x/y.png".to_owned()).base64(), None);
    }

    #[test]
    fn a_correction_follows_the_conversation() {
        let correction = Correction { answer: "{}".to_owned(), problem: "a is missing".to_owned() };
        let ask = Ask { correction: Some(correction), ..Ask::new(Prompt::Text("Hi".to_owned())) };
        let turns = ask.turns();
        assert_eq!(turns.iter().map(|turn| turn.role).collect::<Vec<_>>(), [Role::User, Role::Assistant, Role::User]);
        assert!(turns[2].words().contains("a is missing"));
    }
}
