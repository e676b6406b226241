//! The fields that all requests of a client have in common, written once; and those of requests for a stream. Used by the
//! client alone.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use reqwest::Url;
use serde_json::{Map, Value};

use crate::providers::address::endpoint;
use crate::providers::dialect::Streaming;
use crate::providers::error::ProviderError;
use crate::providers::numbers;
use crate::providers::options::{Options, Stream};
use crate::providers::prompt::Ask;
use crate::providers::streams::{self, Clocks, Fold};

/// The fields of every request, written once.
pub struct Fixed {
    plain: Bytes,
    /// The same where a request marks what it has in common with others, if that is written in there.
    marked: Option<Bytes>,
}

impl Fixed {
    pub fn new(fields: &Map<String, Value>, marked: Option<&Map<String, Value>>) -> Result<Self, String> {
        Ok(Self { plain: written(fields)?, marked: marked.map(written).transpose()? })
    }

    pub fn of(&self, ask: &Ask) -> &Bytes {
        let is_marked = ask.marks().is_some_and(|marks| marks.fixed);
        self.marked.as_ref().filter(|_| is_marked).unwrap_or(&self.plain)
    }
}

/// How replies come as streams.
pub struct Streams {
    pub url: Url,
    /// The fields of every request for a stream, written once.
    pub head: Fixed,
    pub fold: fn() -> Box<dyn Fold>,
    pub clocks: Clocks,
    /// Whether replies come so though nobody follows them.
    pub is_wanted: bool,
    /// Whether a plain reply will do.
    pub is_optional: bool,
    /// Whether the server has refused.
    pub refused: AtomicBool,
}

impl Streams {
    pub fn new(
        streaming: Streaming,
        base_url: &str,
        options: &Options,
        fields: &Map<String, Value>,
        marked: Option<&Map<String, Value>>,
    ) -> Result<Self, String> {
        let (path, query) = streaming.path;
        let mut url = endpoint(base_url, &path)?;
        if let Some((name, value)) = query {
            url.query_pairs_mut().append_pair(name, value);
        }
        // The user's own fields stay.
        let asked = |fields: &Map<String, Value>| {
            let mut asked = streaming.fields.clone();
            for (name, value) in fields {
                match (asked.get_mut(name), value) {
                    (Some(Value::Object(known)), Value::Object(more)) => known.extend(more.clone()),
                    _ => drop(asked.insert(name.clone(), value.clone())),
                }
            }
            asked
        };
        Ok(Self {
            url,
            head: Fixed::new(&asked(fields), marked.map(asked).as_ref())?,
            fold: streaming.fold,
            clocks: if streams::thinks(options) { streaming.clocks.thinking() } else { streaming.clocks },
            is_wanted: streams::is_wanted(options),
            is_optional: options.stream == Stream::Auto,
            refused: AtomicBool::new(false),
        })
    }
}

/// Whether a server, or the account there, does not stream: OpenAI streams some models only for verified organizations.
pub fn refuses_streams(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Status { status: 400 | 403 | 404 | 405 | 422 | 501, message, code, .. }
        if message.to_ascii_lowercase().contains("stream") || code.as_deref().is_some_and(|code| code.contains("stream")))
}

/// Fields as JSON.
fn written(fields: &Map<String, Value>) -> Result<Bytes, String> {
    let text = serde_json::to_vec(fields).map(|text| numbers::with_digits(text).into());
    text.map_err(|error| format!("the request cannot be written as JSON: {error}"))
}
