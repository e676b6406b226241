//! What is asked of a model, in words that every dialect can translate.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::deferral::Deferral;
use super::listener::Listener;
use super::plan::{Marks, Plan};
use super::reply::ToolCall;
use super::shared::{SharedText, Text};

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
#[derive(Debug, Clone)]
pub struct Media {
    /// What it is.
    pub kind: MediaKind,
    /// Its IANA media type, `image/png` for instance; empty where nobody knows it, of a URL.
    pub media_type: String,
    /// A name for documents.
    pub name: Option<String>,
    /// OpenAI's `detail` of a picture.
    pub detail: Option<String>,
    /// A URL of any kind; for bytes a `data:` URL.
    url: SharedText,
    /// Where the base64 text begins in it; `None` when the bytes are elsewhere.
    encoded_from: Option<usize>,
    /// That text, once a dialect has sent it without the rest of the URL.
    encoded: OnceLock<SharedText>,
}

impl PartialEq for Media {
    fn eq(&self, other: &Self) -> bool {
        let told = |media: &Self| (media.kind, media.media_type.clone(), media.name.clone(), media.detail.clone());
        self.url == other.url && told(self) == told(other)
    }
}

impl Media {
    /// A medium whose bytes travel with each request.
    pub fn from_bytes(kind: MediaKind, media_type: &str, bytes: &[u8]) -> Self {
        let mut url = format!("data:{media_type};base64,");
        let start = url.len();
        STANDARD.encode_string(bytes, &mut url);
        Self { encoded_from: Some(start), ..Self::from_url(kind, media_type, &url) }
    }

    /// A medium that the provider fetches.
    pub fn from_url(kind: MediaKind, media_type: &str, url: &str) -> Self {
        Self {
            kind,
            media_type: media_type.to_owned(),
            name: None,
            detail: None,
            url: SharedText::new(url),
            encoded_from: None,
            encoded: OnceLock::new(),
        }
    }

    /// A medium at a URL; a `data:` URL (RFC 2397) is its bytes. Without a media type, that of the URL, of the name in it
    /// or of the first bytes is taken.
    ///
    /// # Errors
    /// Says what is wrong with a `data:` URL.
    pub fn at(kind: MediaKind, media_type: Option<&str>, url: String) -> Result<Self, String> {
        if !url.trim_start().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
            let guessed = || {
                let path = url.split(['?', '#']).next().unwrap_or_default();
                mime_guess::from_path(path).first_raw().unwrap_or_default()
            };
            let media_type = media_type.unwrap_or_else(guessed).to_owned();
            return Ok(Self::from_url(kind, &media_type, &url));
        }
        let wrong = |what: &str| format!("the data: URL of this {} {what}", kind.name());
        // Some write base64 as it is written in addresses (RFC 4648, section 5).
        let url = match url.split_once(";base64,") {
            Some((head, data)) if data.contains(['-', '_']) => {
                format!("{head};base64,{}", data.replace('-', "+").replace('_', "/"))
            }
            _ => url,
        };
        let parsed = data_url::DataUrl::process(url.trim()).map_err(|_| wrong("is not valid (RFC 2397)"))?;
        let (bytes, _) = parsed.decode_to_vec().map_err(|_| wrong("is not valid base64"))?;
        if bytes.is_empty() {
            return Err(wrong("is empty"));
        }
        let head = url.split(',').next().unwrap_or_default();
        let names_type = head.len() > 5 && head[5..].trim_start().starts_with(|c: char| c != ';' && !c.is_whitespace());
        let own = names_type.then(|| format!("{}/{}", parsed.mime_type().type_, parsed.mime_type().subtype));
        let media_type = media_type
            .map(str::to_owned)
            .or(own)
            .or_else(|| sniff(&bytes).map(str::to_owned))
            .ok_or_else(|| wrong("has no media type: write, for example, data:image/png;base64,..."))?;
        let media_type = if media_type == "image/jpg" { "image/jpeg".to_owned() } else { media_type };
        if kind == MediaKind::Image && !media_type.starts_with("image/") {
            return Err(wrong(&format!("has the media type {media_type}, which is not an image")));
        }
        Ok(Self::from_bytes(kind, &media_type, &bytes))
    }

    /// Whether its bytes travel with the request.
    pub fn travels(&self) -> bool {
        self.encoded_from.is_some()
    }

    /// The bytes as base64 text, if they travel with the request.
    pub fn base64(&self) -> Option<&SharedText> {
        let start = self.encoded_from?;
        let written = || SharedText::new(self.url.text().get(start..).unwrap_or_default());
        Some(self.encoded.get_or_init(written))
    }

    /// Its URL; for bytes a `data:` URL.
    pub fn url(&self) -> &SharedText {
        &self.url
    }

    /// The second half of the media type: `png` of `image/png`.
    pub fn format(&self) -> &str {
        let format = self.media_type.rsplit('/').next().unwrap_or_default();
        match format {
            "mpeg" => "mp3",
            "x-wav" | "wave" => "wav",
            _ => format,
        }
    }
}

/// The media type of bytes, by how they begin.
pub fn sniff(bytes: &[u8]) -> Option<&'static str> {
    const SIGNATURES: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF-", "application/pdf"),
        (b"ID3", "audio/mpeg"),
        (b"\xff\xfb", "audio/mpeg"),
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
    ];
    match (bytes.get(..4), bytes.get(8..12)) {
        (Some(b"RIFF"), Some(b"WEBP")) => Some("image/webp"),
        (Some(b"RIFF"), Some(b"WAVE")) => Some("audio/wav"),
        _ => SIGNATURES.iter().find(|(signature, _)| bytes.starts_with(signature)).map(|(_, kind)| *kind),
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
            state: message.state.as_deref(),
            more: &message.more,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_encoded_once_and_seen_two_ways() {
        let media = Media::from_bytes(MediaKind::Audio, "audio/mpeg", b"abc");
        assert_eq!(media.base64().map(SharedText::text), Some("YWJj"));
        assert_eq!(media.url().text(), "data:audio/mpeg;base64,YWJj");
        assert_eq!(media.format(), "mp3");
        assert_eq!(Media::from_url(MediaKind::Image, "image/png", "https://x/y.png").base64(), None);
    }

    #[test]
    fn data_urls_are_bytes_in_every_spelling() {
        let of = |url: &str| Media::at(MediaKind::Image, None, url.to_owned());
        for url in [
            "data:image/png;base64,YWJj",
            "DATA:image/png;base64,YWJj",
            "data:image/png;charset=utf-8;base64,YWJj",
            "data:IMAGE/PNG;base64,YW%4Aj",
            "data:image/png;base64,YW\nJj",
            "data:image/png,abc",
            " data:image/png;base64,YWJj ",
        ] {
            let media = of(url).unwrap();
            let encoded = media.base64().map(SharedText::text);
            assert_eq!((encoded, media.media_type.as_str()), (Some("YWJj"), "image/png"), "{url}");
            assert_eq!(media.url().text(), "data:image/png;base64,YWJj");
        }
        let sniffed = of("data:;base64,iVBORw0KGgo=").unwrap();
        assert_eq!(sniffed.media_type, "image/png");
        assert!(of("data:image/png;base64,*").unwrap_err().contains("base64"));
        assert!(of("data:;base64,YWJj").unwrap_err().contains("has no media type"));
        assert!(of("data:nothing").is_err());
        let far = of("https://h/x.jpeg?a=b.png").unwrap();
        assert_eq!((far.base64(), far.media_type.as_str()), (None, "image/jpeg"));
        assert_eq!(of("https://h/picture").unwrap().media_type, "");
        assert_eq!(
            Media::at(MediaKind::File, Some("text/x"), "https://h/x.pdf".to_owned()).unwrap().media_type,
            "text/x"
        );
    }

    #[test]
    fn a_correction_follows_the_conversation() {
        let correction = Correction { answer: "{}".to_owned(), problem: "a is missing".to_owned() };
        let ask = Ask { correction: Some(Box::new(correction)), ..Ask::new(Prompt::Text("Hi".to_owned().into())) };
        let turns = ask.turns();
        assert_eq!(turns.iter().map(|turn| turn.role).collect::<Vec<_>>(), [Role::User, Role::Assistant, Role::User]);
        assert!(turns[2].words().contains("a is missing"));
    }
}
