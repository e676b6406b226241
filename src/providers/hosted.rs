//! Models of Anthropic and Google as clouds serve them: the vendors' own dialects at other paths, with a few other fields.

use http::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::anthropic::{Anthropic, COUNTED};
use super::auth::sigv4::encode;
use super::counting::{Counting, body_of, body_with};
use super::dialect::{Answer, Body, Dialect, Streaming};
use super::error::ProviderError;
use super::gemini::Gemini;
use super::options::{Options, fields};
use super::prompt::Ask;

/// Who serves Claude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Bedrock, by `InvokeModel`.
    Bedrock,
    /// Vertex AI, by `rawPredict`.
    Vertex,
}

/// Anthropic's Messages without the model, which the path names, and with the version in the body.
pub struct HostedAnthropic(pub Host);

/// The path of a model at Bedrock, for an action.
pub fn at_bedrock(model: &str, action: &str) -> String {
    let mut path = String::from("model/");
    // ARNs have colons and slashes.
    encode(model, false, &mut path);
    path.push('/');
    path.push_str(action);
    path
}

/// The path of a model at Vertex AI, for an action.
fn at_vertex(publisher: &str, model: &str, action: &str) -> String {
    let mut path = format!("publishers/{publisher}/models/");
    encode(model, false, &mut path);
    // Versions follow an @, which is written as it is.
    let path = path.replace("%40", "@");
    format!("{path}:{action}")
}

impl HostedAnthropic {
    fn at(&self, model: &str, action: [&str; 2]) -> String {
        match self.0 {
            Host::Bedrock => at_bedrock(model, action[0]),
            Host::Vertex => at_vertex("anthropic", model, action[1]),
        }
    }
}

impl Dialect for HostedAnthropic {
    fn protocol(&self) -> &'static str {
        Anthropic.protocol()
    }

    fn path(&self, model: &str) -> String {
        self.at(model, ["invoke", "rawPredict"])
    }

    fn fields(&self, options: &Options) -> Result<Map<String, Value>, String> {
        let mut all = Anthropic.fields(options)?;
        all.shift_remove("model");
        let version = match self.0 {
            Host::Bedrock => "bedrock-2023-05-31",
            Host::Vertex => "vertex-2023-10-16",
        };
        all.entry("anthropic_version").or_insert_with(|| version.into());
        Ok(all)
    }

    fn mark(&self, options: &Options, fields: &mut Map<String, Value>) {
        Anthropic.mark(options, fields);
    }

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        Anthropic.conversation(options, ask, body)
    }

    fn count(&self, options: &Options, ask: &Ask) -> Result<Option<Counting>, String> {
        Ok(Some(match self.0 {
            Host::Bedrock => {
                let whole = STANDARD.encode(body_with(self, options, ask, |_| true)?);
                let body = format!("{{\"input\":{{\"invokeModel\":{{\"body\":\"{whole}\"}}}}}}").into();
                Counting::new(at_bedrock(&options.model, "count-tokens"), body, "inputTokens")
            }
            Host::Vertex => {
                let body = body_of(self, options, ask, |fields| {
                    fields.retain(|name, _| name == "anthropic_version" || COUNTED.contains(&name.as_str()));
                    fields.insert("model".to_owned(), json!(options.model));
                })?;
                Counting::new(at_vertex("anthropic", "count-tokens", "rawPredict"), body, "input_tokens")
            }
        }))
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        Anthropic.read(body, headers)
    }

    fn streaming(&self, model: &str) -> Option<Streaming> {
        let streaming = Anthropic.streaming(model)?;
        let path = self.at(model, ["invoke-with-response-stream", "streamRawPredict"]);
        // Bedrock's path says it.
        let fields = match self.0 {
            Host::Bedrock => Map::new(),
            Host::Vertex => fields([("stream", Some(json!(true)))]),
        };
        Some(Streaming { path: (path, None), fields, ..streaming })
    }

    fn turn(&self, body: &[u8]) -> Option<Box<RawValue>> {
        Anthropic.turn(body)
    }

    fn binds_thoughts(&self, options: &Options) -> bool {
        Anthropic.binds_thoughts(options)
    }

    fn go_on(&self, body: &[u8], unfinished: &RawValue) -> Option<Vec<u8>> {
        Anthropic.go_on(body, unfinished)
    }
}

/// Google's generateContent at Vertex AI. Its caches are not used: they are named otherwise there.
pub struct HostedGemini;

impl Dialect for HostedGemini {
    fn protocol(&self) -> &'static str {
        Gemini.protocol()
    }

    fn path(&self, model: &str) -> String {
        at_vertex("google", model, "generateContent")
    }

    fn fields(&self, options: &Options) -> Result<Map<String, Value>, String> {
        Gemini.fields(options)
    }

    fn conversation(&self, options: &Options, ask: &Ask, body: &mut Body) -> Result<(), String> {
        Gemini.conversation(options, ask, body)
    }

    fn count(&self, options: &Options, ask: &Ask) -> Result<Option<Counting>, String> {
        let body = body_with(self, options, ask, |name| matches!(name, "tools" | "generationConfig"))?;
        Ok(Some(Counting::new(at_vertex("google", &options.model, "countTokens"), body, "totalTokens")))
    }

    fn read(&self, body: &[u8], headers: &HeaderMap) -> Result<Answer, ProviderError> {
        Gemini.read(body, headers)
    }

    fn streaming(&self, model: &str) -> Option<Streaming> {
        let streaming = Gemini.streaming(model)?;
        let (_, query) = streaming.path;
        Some(Streaming { path: (at_vertex("google", model, "streamGenerateContent"), query), ..streaming })
    }

    fn turn(&self, body: &[u8]) -> Option<Box<RawValue>> {
        Gemini.turn(body)
    }
}

/// Whether a model's name is one of Claude's, at Bedrock with what stands before it: `eu.anthropic.claude-...`.
pub fn is_claude(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.starts_with("claude") || name.split('.').any(|part| part == "anthropic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::prompt::Prompt;
    use crate::providers::testing;

    #[test]
    fn the_path_names_the_model() {
        let model = "eu.anthropic.claude-opus-5-20260101-v1:0";
        let bedrock = HostedAnthropic(Host::Bedrock);
        assert_eq!(bedrock.path(model), "model/eu.anthropic.claude-opus-5-20260101-v1%3A0/invoke");
        let (path, _) = bedrock.streaming(model).unwrap().path;
        assert_eq!(path, "model/eu.anthropic.claude-opus-5-20260101-v1%3A0/invoke-with-response-stream");
        let arn = "arn:aws:bedrock:us-east-1:1:application-inference-profile/x";
        assert_eq!(
            at_bedrock(arn, "converse"),
            "model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aapplication-inference-profile%2Fx/converse"
        );
        let vertex = HostedAnthropic(Host::Vertex);
        let path = "publishers/anthropic/models/claude-opus-4@20250514:rawPredict";
        assert_eq!(vertex.path("claude-opus-4@20250514"), path);
        assert_eq!(HostedGemini.path("gemini-x"), "publishers/google/models/gemini-x:generateContent");
        let (path, query) = HostedGemini.streaming("gemini-x").unwrap().path;
        assert_eq!(path, "publishers/google/models/gemini-x:streamGenerateContent");
        assert_eq!(query, Some(("alt", "sse")));
    }

    #[test]
    fn the_body_has_a_version_and_no_model() {
        let options = testing::options(json!({"model": "anthropic.claude-x", "max_tokens": 9,
            "extra_body": {"anthropic_beta": ["b"]}}));
        let ask = Ask::new(Prompt::Text("Hi".to_owned().into()));
        let written = testing::request(&HostedAnthropic(Host::Bedrock), &options, &ask).unwrap();
        assert_eq!(
            written,
            json!({"max_tokens": 9, "anthropic_beta": ["b"], "anthropic_version": "bedrock-2023-05-31",
                "messages": [{"role": "user", "content": "Hi"}]})
        );
        let written = testing::request(&HostedAnthropic(Host::Vertex), &options, &ask).unwrap();
        assert_eq!(written["anthropic_version"], "vertex-2023-10-16");
    }

    #[test]
    fn claude_is_known_by_name() {
        for name in [
            "claude-opus-5",
            "us.anthropic.claude-x-v1:0",
            "anthropic.claude-3",
            "arn:aws:bedrock:r:1:inference-profile/us.anthropic.claude-x",
        ] {
            assert!(is_claude(name), "{name}");
        }
        for name in ["amazon.nova-pro-v1:0", "gemini-3", "arn:aws:bedrock:r:1:application-inference-profile/abc"] {
            assert!(!is_claude(name), "{name}");
        }
    }
}
