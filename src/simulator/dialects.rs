//! The table of what is served: which dialect a path speaks. A new one is a row here and a file of its own.

use super::anthropic::Anthropic;
use super::bedrock::{Converse, INVOKE, INVOKE_STREAM, RAW_PREDICT};
use super::chat::CHAT;
use super::counts::{
    COUNT_BEDROCK, COUNT_CONTENT, COUNT_HOSTED_CONTENT, COUNT_MESSAGES, COUNT_RAW, COUNT_RESPONSES, TOKENIZE,
};
use super::dialect::Dialect;
use super::embeddings::EMBEDDINGS;
use super::gemini::{BATCH_EMBED_CONTENTS, GENERATE_CONTENT, STREAM_GENERATE_CONTENT, STREAM_GENERATE_EVENTS};
use super::responses::RESPONSES;
use super::streams::event::Form;

/// The paths that are served, for the message to whoever requests another one.
pub const PATHS: &str = "/v1/chat/completions, /v1/responses, /v1/embeddings, /v1/messages, \
                         /v1beta/models/MODEL:generateContent, \
                         /v1beta/models/MODEL:streamGenerateContent, \
                         /v1beta/models/MODEL:batchEmbedContents, \
                         /v1beta/cachedContents (these also under /v1), \
                         /model/MODEL/converse and /model/MODEL/invoke (of Bedrock, also as streams), \
                         /v1/projects/PROJECT/locations/PLACE/publishers/VENDOR/models/MODEL:METHOD (of Vertex AI), \
                         those that count tokens, such as /v1/messages/count_tokens, \
                         and batches, such as /v1/files, /v1/batches and /v1/messages/batches";

/// The dialect of errors where no path says which.
pub const DEFAULT: &dyn Dialect = &CHAT;

/// The dialect of errors about caches, which only Google has.
pub const CACHES: &dyn Dialect = &GENERATE_CONTENT;

/// The dialect of Anthropic's errors.
pub const MESSAGES: &dyn Dialect = &Anthropic;

/// Providers that have others' paths have them below paths of their own; Azure's and OpenRouter's also where these have
/// them.
const BELOW: [(&str, &str); 8] = [
    ("/azure/openai/", "azure"),
    ("/openai/", "azure"),
    ("/groq/openai/", "groq"),
    ("/mistral/", "mistral"),
    ("/together/", "together"),
    ("/xai/", "xai"),
    ("/openrouter/api/", "openrouter"),
    ("/api/", "openrouter"),
];

/// The provider below whose own path a path is, and the rest of the path.
pub fn below(path: &str) -> (Option<&'static str>, &str) {
    let found = BELOW.iter().find_map(|(prefix, name)| Some((*name, path.strip_prefix(prefix)?)));
    // The slash before the rest is the rest's.
    found.map_or((None, path), |(name, rest)| (Some(name), &path[path.len() - rest.len() - 1..]))
}

/// The dialect of a path with a query, and the model that the path names.
pub fn of<'a>(path: &'a str, query: Option<&str>) -> Option<(&'static dyn Dialect, Option<&'a str>)> {
    let (_, path) = below(path);
    Some(match path {
        "/v1/chat/completions" => (&CHAT, None),
        "/v1/responses" => (&RESPONSES, None),
        "/v1/embeddings" => (&EMBEDDINGS, None),
        "/v1/messages" => (&Anthropic, None),
        "/v1/messages/count_tokens" => (&COUNT_MESSAGES, None),
        "/tokenize" => (&TOKENIZE, None),
        "/v1/responses/input_tokens" => (&COUNT_RESPONSES, None),
        _ => {
            if let Some(rest) = path.strip_prefix("/model/") {
                return at_bedrock(rest);
            }
            let vertex = path.strip_prefix("/v1/projects/").and_then(|rest| rest.split_once("/publishers/"));
            let (publisher, path) = match vertex {
                Some((_, rest)) => rest.split_once("/models/")?,
                None => ("google", path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"))?),
            };
            let (model, verb) = path.rsplit_once(':')?;
            match verb {
                "rawPredict" if publisher == "anthropic" && model == "count-tokens" => (&COUNT_RAW, None),
                "rawPredict" | "streamRawPredict" if publisher == "anthropic" => (&RAW_PREDICT, Some(model)),
                _ if publisher != "google" => return None,
                "generateContent" => (&GENERATE_CONTENT, Some(model)),
                "streamGenerateContent"
                    if query.is_some_and(|query| query.split('&').any(|part| part == "alt=sse")) =>
                {
                    (&STREAM_GENERATE_EVENTS, Some(model))
                }
                "streamGenerateContent" => (&STREAM_GENERATE_CONTENT, Some(model)),
                "countTokens" if vertex.is_some() => (&COUNT_HOSTED_CONTENT, Some(model)),
                "countTokens" => (&COUNT_CONTENT, Some(model)),
                "batchEmbedContents" => (&BATCH_EMBED_CONTENTS, Some(model)),
                _ => return None,
            }
        }
    })
}

/// The dialect of an action at Bedrock, and the model before it.
fn at_bedrock(rest: &str) -> Option<(&'static dyn Dialect, Option<&str>)> {
    const CONVERSE: Converse = Converse(Form::Whole);
    const CONVERSE_STREAM: Converse = Converse(Form::Frames { chunks: false });
    let (model, action) = rest.rsplit_once('/')?;
    let dialect: &'static dyn Dialect = match action {
        "converse" => &CONVERSE,
        "count-tokens" => &COUNT_BEDROCK,
        "converse-stream" => &CONVERSE_STREAM,
        "invoke" => &INVOKE,
        "invoke-with-response-stream" => &INVOKE_STREAM,
        _ => return None,
    };
    Some((dialect, Some(model)))
}
