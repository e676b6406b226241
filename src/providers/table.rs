//! The providers, one row each. A new OpenAI-compatible one is a row here and nothing else.

use super::anthropic::Anthropic;
use super::auth::Kind;
use super::chat::{Chat, Quirks};
use super::converse::Converse;
use super::dialect::Dialect;
use super::gemini::Gemini;
use super::hosted::{Host, HostedAnthropic, HostedGemini, is_claude};
use super::keys::Auth;
use super::limits::Periods;
use super::responses::Responses;

/// The languages that providers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// OpenAI's Chat Completions.
    Chat(Quirks),
    /// Anthropic's Messages.
    Anthropic,
    /// Google's generateContent.
    Gemini,
    /// Amazon Bedrock's: Converse, and for Claude Anthropic's Messages.
    Bedrock,
    /// Vertex AI's: Google's generateContent, and for Claude Anthropic's Messages.
    Vertex,
}

/// Which of several languages a user wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// The provider's usual one for the model.
    #[default]
    Usual,
    /// OpenAI's Responses.
    Responses,
    /// Amazon Bedrock's Converse.
    Converse,
    /// Anthropic's Messages, at Amazon Bedrock.
    Messages,
}

/// What is known of one provider.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Its name in `"name:model"`.
    pub name: &'static str,
    /// Where it is; `None`: the user has to say.
    pub base_url: Option<&'static str>,
    /// What is added to a base URL without a version.
    pub version: &'static str,
    /// Environment variables that hold a base URL; the first that is set counts.
    pub address_variables: &'static [&'static str],
    /// Environment variables that hold its key; the first that is set counts.
    pub key_variables: &'static [&'static str],
    /// Environment variables that hold a token, sent as `authorization: Bearer TOKEN`, where no key is set.
    pub token_variables: &'static [&'static str],
    /// Environment variables that are sent as headers, together with a key of the environment.
    pub header_variables: &'static [(&'static str, &'static str)],
    /// Whose credentials it takes where there is no key.
    pub credentials: Option<Kind>,
    /// Whether it answers nobody without a key.
    pub needs_key: bool,
    /// How the key is sent.
    pub auth: Auth,
    /// What it speaks.
    pub language: Language,
    /// Whether it speaks OpenAI's Responses too.
    pub has_responses: bool,
    /// Texts per embeddings request; 0: it has no embeddings.
    pub embeddings: u32,
    /// What its limits are for, where its headers do not say it.
    pub periods: Periods,
}

const NEW: Quirks = Quirks {
    max_tokens: "max_completion_tokens",
    takes_schemas: true,
    wants_thoughts: false,
    pings: false,
    marks_as_anthropic: false,
    counts: false,
};
const OLD: Quirks = Quirks { max_tokens: "max_tokens", ..NEW };

const SECOND: f64 = 1.0;
const MINUTE: f64 = 60.0;
const DAY: f64 = 86_400.0;

const fn per(requests: f64, tokens: f64) -> Periods {
    Periods { requests: Some(requests), tokens: Some(tokens) }
}

/// An OpenAI-compatible provider.
const fn compatible(name: &'static str, base_url: &'static str, variables: &'static [&'static str]) -> Row {
    Row {
        name,
        base_url: Some(base_url),
        version: "",
        address_variables: &[],
        key_variables: variables,
        token_variables: &[],
        header_variables: &[],
        credentials: None,
        needs_key: !variables.is_empty(),
        auth: Auth::Bearer,
        language: Language::Chat(OLD),
        has_responses: false,
        embeddings: 0,
        periods: Periods { requests: None, tokens: None },
    }
}

/// All rows. Base URLs and variables as the providers' documentation has them (2026).
pub const TABLE: &[Row] = &[
    Row {
        address_variables: &["OPENAI_BASE_URL", "OPENAI_API_BASE"],
        header_variables: &[("OPENAI_ORG_ID", "openai-organization"), ("OPENAI_PROJECT_ID", "openai-project")],
        language: Language::Chat(NEW),
        has_responses: true,
        embeddings: 2048,
        ..compatible("openai", "https://api.openai.com/v1", &["OPENAI_API_KEY"])
    },
    Row {
        address_variables: &["ANTHROPIC_BASE_URL"],
        token_variables: &["ANTHROPIC_AUTH_TOKEN"],
        auth: Auth::Header("x-api-key"),
        language: Language::Anthropic,
        ..compatible("anthropic", "https://api.anthropic.com", &["ANTHROPIC_API_KEY"])
    },
    Row {
        version: "v1beta",
        address_variables: &["GOOGLE_GEMINI_BASE_URL"],
        auth: Auth::Header("x-goog-api-key"),
        language: Language::Gemini,
        embeddings: 100,
        ..compatible(
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta",
            &["GOOGLE_API_KEY", "GEMINI_API_KEY"], // in the order of Google's SDK
        )
    },
    Row {
        base_url: None,
        version: "openai/v1",
        address_variables: &["AZURE_OPENAI_ENDPOINT"],
        token_variables: &["AZURE_OPENAI_AD_TOKEN"],
        credentials: Some(Kind::Entra),
        auth: Auth::Header("api-key"),
        language: Language::Chat(NEW),
        has_responses: true,
        embeddings: 2048,
        ..compatible("azure", "", &["AZURE_OPENAI_API_KEY"])
    },
    Row {
        base_url: None,
        address_variables: &["AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"],
        credentials: Some(Kind::Aws),
        language: Language::Bedrock,
        ..compatible("bedrock", "", &["AWS_BEARER_TOKEN_BEDROCK"])
    },
    Row {
        base_url: None,
        address_variables: &["GOOGLE_VERTEX_BASE_URL"],
        token_variables: &["CLOUDSDK_AUTH_ACCESS_TOKEN"],
        credentials: Some(Kind::Google),
        language: Language::Vertex,
        ..compatible("vertex", "", &[])
    },
    Row {
        language: Language::Chat(Quirks { pings: true, marks_as_anthropic: true, ..OLD }),
        ..compatible("openrouter", "https://openrouter.ai/api/v1", &["OPENROUTER_API_KEY"])
    },
    Row {
        language: Language::Chat(Quirks { takes_schemas: false, wants_thoughts: true, pings: true, ..OLD }),
        ..compatible("deepseek", "https://api.deepseek.com", &["DEEPSEEK_API_KEY"])
    },
    Row {
        language: Language::Chat(NEW),
        periods: per(DAY, MINUTE),
        ..compatible("groq", "https://api.groq.com/openai/v1", &["GROQ_API_KEY"])
    },
    // Its limits follow the use of the last minutes, and are given per second.
    Row {
        embeddings: 512,
        periods: per(SECOND, SECOND),
        ..compatible("together", "https://api.together.xyz/v1", &["TOGETHER_API_KEY"])
    },
    Row {
        embeddings: 512,
        periods: per(SECOND, MINUTE),
        ..compatible("mistral", "https://api.mistral.ai/v1", &["MISTRAL_API_KEY"])
    },
    compatible("xai", "https://api.x.ai/v1", &["XAI_API_KEY"]),
    Row {
        language: Language::Chat(Quirks { counts: true, ..OLD }),
        embeddings: 2048,
        ..compatible("vllm", "http://localhost:8000/v1", &[])
    },
    Row { embeddings: 2048, ..compatible("sglang", "http://localhost:30000/v1", &[]) },
    Row { embeddings: 512, ..compatible("ollama", "http://localhost:11434/v1", &[]) },
    Row { base_url: None, embeddings: 2048, ..compatible("openai-compatible", "", &[]) },
];

/// The row of a provider.
pub fn row(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

impl Row {
    /// The dialect to speak with it about a model.
    pub fn dialect(&self, model: &str, api: Api) -> Box<dyn Dialect> {
        match self.language {
            Language::Chat(_) if api == Api::Responses => Box::new(Responses { pings: self.name == "azure" }),
            Language::Chat(quirks) => Box::new(Chat(quirks)),
            Language::Anthropic => Box::new(Anthropic),
            Language::Gemini => Box::new(Gemini),
            Language::Bedrock if self.speaks_messages(model, api) => Box::new(HostedAnthropic(Host::Bedrock)),
            Language::Bedrock => Box::new(Converse),
            Language::Vertex if self.speaks_messages(model, api) => Box::new(HostedAnthropic(Host::Vertex)),
            Language::Vertex => Box::new(HostedGemini),
        }
    }

    /// Whether it speaks Anthropic's Messages about a model.
    pub fn speaks_messages(&self, model: &str, api: Api) -> bool {
        match self.language {
            Language::Anthropic => true,
            Language::Bedrock => api == Api::Messages || (api == Api::Usual && is_claude(model)),
            Language::Vertex => is_claude(model),
            Language::Chat(_) | Language::Gemini => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_urls_are_urls() {
        for (number, row) in TABLE.iter().enumerate() {
            assert!(TABLE[number + 1..].iter().all(|other| other.name != row.name), "{}", row.name);
            assert!(row.base_url.is_none_or(|url| reqwest::Url::parse(url).is_ok()), "{}", row.name);
            assert_eq!(row.needs_key, !row.key_variables.is_empty(), "{}", row.name);
            assert!(row.base_url.is_some() || row.credentials.is_none() || !row.address_variables.is_empty());
        }
        assert_eq!(row("groq").unwrap().dialect("m", Api::Usual).protocol(), "Chat Completions");
        assert_eq!(row("openai").unwrap().dialect("m", Api::Responses).protocol(), "Responses");
        let silence = |name: &str| row(name).unwrap().dialect("m", Api::Responses).streaming("m").unwrap().clocks.bytes;
        assert_eq!((silence("openai").to_string(), silence("azure").to_string()), ("600".to_owned(), "90".to_owned()));
        for (name, model, api, protocol) in [
            ("bedrock", "amazon.nova-pro-v1:0", Api::Usual, "Converse"),
            ("bedrock", "us.anthropic.claude-x", Api::Usual, "Messages"),
            ("bedrock", "us.anthropic.claude-x", Api::Converse, "Converse"),
            ("bedrock", "arn:aws:bedrock:r:1:application-inference-profile/x", Api::Messages, "Messages"),
            ("vertex", "claude-x@1", Api::Usual, "Messages"),
            ("vertex", "gemini-x", Api::Usual, "generateContent"),
        ] {
            assert_eq!(row(name).unwrap().dialect(model, api).protocol(), protocol, "{name} {model}");
        }
        assert!(row("nobody").is_none());
    }
}
