//! Endpoints that count the tokens of a prompt, as vendors have them: each reads what its API reads, within other fields,
//! and answers with a number.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::anthropic::Anthropic;
use super::bedrock::{Converse, INVOKE};
use super::chat::CHAT;
use super::dialect::{Answer, Dialect, text, tree};
use super::faults::FaultKind;
use super::gemini::GENERATE_CONTENT;
use super::invalid::Invalid;
use super::model::Question;
use super::prompt_caches::Prompt;
use super::responses::RESPONSES;
use super::streams::event::Form;

/// The request whose prompt is counted, in the body of one that asks to count it.
type Whole = fn(Map<String, Value>, Option<&str>) -> Result<(Value, &'static dyn Dialect), Invalid>;

/// An endpoint that counts.
pub struct Counts {
    /// The dialect of its errors and keys.
    of: &'static dyn Dialect,
    whole: Whole,
    told: fn(usize) -> Value,
}

/// Anthropic's `count_tokens`.
pub const COUNT_MESSAGES: Counts = Counts {
    of: &Anthropic,
    whole: |body, _| {
        only(&body, OF_MESSAGES)?;
        Ok((with_length(body), &Anthropic))
    },
    told: |tokens| json!({"input_tokens": tokens}),
};

/// The same at Vertex AI, where the body has a version.
pub const COUNT_RAW: Counts = Counts {
    whole: |mut body, _| {
        body.shift_remove("anthropic_version").ok_or("anthropic_version is missing")?;
        only(&body, OF_MESSAGES)?;
        Ok((with_length(body), &Anthropic))
    },
    ..COUNT_MESSAGES
};

/// OpenAI's `input_tokens` of Responses.
pub const COUNT_RESPONSES: Counts = Counts {
    of: &RESPONSES,
    whole: |body, _| {
        only(&body, OF_RESPONSES)?;
        Ok((body.into(), &RESPONSES))
    },
    told: |tokens| json!({"object": "response.input_tokens", "input_tokens": tokens}),
};

/// vLLM's `tokenize`, which returns the tokens as well; here there are none.
pub const TOKENIZE: Counts = Counts {
    of: &CHAT,
    whole: |body, _| Ok((body.into(), &CHAT)),
    told: |tokens| json!({"count": tokens, "max_model_len": 131_072, "tokens": []}),
};

/// Google's `countTokens`: of contents alone, or of a whole request.
pub const COUNT_CONTENT: Counts = Counts {
    of: &GENERATE_CONTENT,
    whole: |mut body, model| {
        let both = "contents and generateContentRequest are mutually exclusive";
        match (body.shift_remove("generateContentRequest"), body.contains_key("contents")) {
            (Some(_), true) => Err(both.into()),
            (Some(whole), false) => {
                let named = whole.get("model").and_then(Value::as_str).unwrap_or_default();
                if named.strip_prefix("models/") != model {
                    return Err(format!("generateContentRequest.model is {named:?}, not the path's").into());
                }
                only(&body, &[])?;
                Ok((whole, &GENERATE_CONTENT))
            }
            (None, _) => {
                only(&body, &["contents"])?;
                Ok((body.into(), &GENERATE_CONTENT))
            }
        }
    },
    told: |tokens| json!({"totalTokens": tokens}),
};

/// Vertex AI's `countTokens`.
pub const COUNT_HOSTED_CONTENT: Counts = Counts {
    whole: |body, _| {
        only(&body, &["model", "contents", "instances", "systemInstruction", "tools", "generationConfig"])?;
        Ok((body.into(), &GENERATE_CONTENT))
    },
    ..COUNT_CONTENT
};

/// Bedrock's `CountTokens`.
pub const COUNT_BEDROCK: Counts = Counts {
    of: &CONVERSE,
    whole: |mut body, _| {
        let input = body.shift_remove("input").ok_or("input is missing")?;
        if let Some(whole) = input.get("converse") {
            let fields = whole.as_object().ok_or("input.converse must be an object")?;
            only(fields, &["messages", "system", "toolConfig", "additionalModelRequestFields"])?;
            return Ok((whole.clone(), &CONVERSE));
        }
        let coded = input.pointer("/invokeModel/body").and_then(Value::as_str);
        let coded = coded.ok_or("input must have converse or invokeModel.body")?;
        let decoded = STANDARD.decode(coded).map_err(|_| "input.invokeModel.body is not base64")?;
        Ok((tree(&decoded)?, &INVOKE))
    },
    told: |tokens| json!({"inputTokens": tokens}),
};

const CONVERSE: Converse = Converse(Form::Whole);
const OF_MESSAGES: &[&str] =
    &["model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control"];
const OF_RESPONSES: &[&str] = &[
    "model",
    "input",
    "conversation",
    "instructions",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "truncation",
];

/// These endpoints reject what they do not know.
fn only(body: &Map<String, Value>, known: &[&str]) -> Result<(), Invalid> {
    match body.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("{name}: Extra inputs are not permitted").into()),
        None => Ok(()),
    }
}

/// A message has to say how long its answer may be.
fn with_length(mut body: Map<String, Value>) -> Value {
    body.insert("max_tokens".to_owned(), json!(1));
    body.into()
}

impl Counts {
    fn read(&self, body: &[u8], model: Option<&str>) -> Result<(Vec<u8>, &'static dyn Dialect), Invalid> {
        let Value::Object(fields) = tree(body)? else { return Err("the body must be an object".into()) };
        let (whole, dialect) = (self.whole)(fields, model)?;
        Ok((text(&whole), dialect))
    }
}

impl Dialect for Counts {
    fn key_headers(&self) -> &'static [&'static str] {
        self.of.key_headers()
    }

    fn question(&self, body: &[u8], model: Option<&str>) -> Result<Question, Invalid> {
        let (whole, dialect) = self.read(body, model)?;
        dialect.question(&whole, model)
    }

    fn prompt(&self, body: &[u8], model: Option<&str>) -> Result<Option<Prompt>, Invalid> {
        let (whole, dialect) = self.read(body, model)?;
        dialect.prompt(&whole, model)
    }

    fn answer(&self, answer: &Answer<'_>) -> Vec<u8> {
        text(&(self.told)(answer.question.input_tokens()))
    }

    fn only_counts(&self) -> bool {
        true
    }

    fn error(&self, kind: FaultKind, retry_after: Option<f64>) -> (u16, Value) {
        self.of.error(kind, retry_after)
    }

    fn invalid(&self, problem: &Invalid) -> Value {
        self.of.invalid(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(endpoint: &Counts, model: Option<&str>, body: &Value) -> Result<usize, String> {
        let question = endpoint.question(body.to_string().as_bytes(), model);
        question.map(|question| question.input_tokens()).map_err(|problem| problem.message)
    }

    #[test]
    fn each_counts_the_words_of_its_api_and_rejects_other_fields() {
        let messages = json!([{"role": "user", "content": "12345678"}]);
        let contents = json!([{"role": "user", "parts": [{"text": "12345678"}]}]);
        let blocks = json!([{"role": "user", "content": [{"text": "12345678"}]}]);
        let invoked = json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 5, "messages": messages});
        let coded = STANDARD.encode(invoked.to_string());
        for (endpoint, body) in [
            (&COUNT_MESSAGES, json!({"model": "m", "messages": messages})),
            (&COUNT_RAW, json!({"model": "m", "messages": messages, "anthropic_version": "vertex-2023-10-16"})),
            (&COUNT_RESPONSES, json!({"model": "m", "input": "12345678"})),
            (&TOKENIZE, json!({"model": "m", "messages": messages})),
            (&COUNT_CONTENT, json!({"contents": contents})),
            (&COUNT_CONTENT, json!({"generateContentRequest": {"model": "models/m", "contents": contents}})),
            (&COUNT_HOSTED_CONTENT, json!({"contents": contents})),
            (&COUNT_BEDROCK, json!({"input": {"converse": {"messages": blocks}}})),
            (&COUNT_BEDROCK, json!({"input": {"invokeModel": {"body": coded}}})),
        ] {
            assert_eq!(counted(endpoint, Some("m"), &body), Ok(2), "{body}");
        }
        for (endpoint, body) in [
            (&COUNT_MESSAGES, json!({"model": "m", "messages": messages, "max_tokens": 5})),
            (&COUNT_RAW, json!({"model": "m", "messages": messages})),
            (&COUNT_RESPONSES, json!({"model": "m", "input": "x", "store": false})),
            (&COUNT_CONTENT, json!({"contents": contents, "systemInstruction": {}})),
            (&COUNT_CONTENT, json!({"contents": contents, "generateContentRequest": {}})),
            (&COUNT_CONTENT, json!({"generateContentRequest": {"model": "models/other", "contents": contents}})),
            (&COUNT_HOSTED_CONTENT, json!({"contents": contents, "toolConfig": {}})),
            (&COUNT_BEDROCK, json!({"input": {"converse": {"messages": blocks, "inferenceConfig": {}}}})),
            (&COUNT_BEDROCK, json!({"input": {"invokeModel": {"body": "!"}}})),
            (&COUNT_BEDROCK, json!({})),
            (&COUNT_BEDROCK, json!([])),
        ] {
            assert!(counted(endpoint, Some("m"), &body).is_err(), "{body}");
        }
    }
}
