//! Amazon Bedrock's Converse and InvokeModel (with Claude), and Vertex AI's rawPredict, as servers speak them.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::anthropic::{Anthropic, stop_reason};
use super::dialect::{Answer, Dialect, Header, more, size_field, text, text_field, tree};
use super::faults::FaultKind;
use super::invalid::Invalid;
use super::model::Question;
use super::prompt_caches::Prompt;
use super::quota::Quota;
use super::state;
use super::streams::event::{Form, Streaming};
use super::streams::{anthropic, converse};

/// Converse; streamed or not, as the path says.
pub struct Converse(pub Form);

/// Messages whose model is in the path.
pub struct Hosted {
    /// How Bedrock streams; none: the body says whether (Vertex AI).
    form: Option<Form>,
    version: &'static str,
}

/// InvokeModel.
pub const INVOKE: Hosted = Hosted { form: Some(Form::Whole), version: "bedrock-2023-05-31" };
/// InvokeModelWithResponseStream.
pub const INVOKE_STREAM: Hosted = Hosted { form: Some(Form::Frames { chunks: true }), ..INVOKE };
/// rawPredict and streamRawPredict.
pub const RAW_PREDICT: Hosted = Hosted { form: None, version: "vertex-2023-10-16" };

/// A model's name as a path has it, without percent-encoding.
fn named(model: Option<&str>) -> String {
    let text = model.unwrap_or_default().replace('+', "%2B");
    url::form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

impl Dialect for Hosted {
    fn key_headers(&self) -> &'static [&'static str] {
        &["authorization"]
    }

    fn question(&self, body: &[u8], model: Option<&str>) -> Result<Question, Invalid> {
        let question = Anthropic.question(&self.with_model(body, model)?, None)?;
        Ok(Question { form: self.form.unwrap_or(question.form), ..question })
    }

    fn prompt(&self, body: &[u8], model: Option<&str>) -> Result<Option<Prompt>, Invalid> {
        Anthropic.prompt(&self.with_model(body, model)?, None)
    }

    fn answer(&self, answer: &Answer<'_>) -> Vec<u8> {
        Anthropic.answer(answer)
    }

    fn streaming(&self) -> Option<&'static Streaming> {
        match self.form {
            Some(_) => Some(&CHUNKS),
            None => Anthropic.streaming(),
        }
    }

    fn error(&self, kind: FaultKind, retry_after: Option<f64>) -> (u16, Value) {
        match self.form {
            Some(_) => error(kind),
            None => Anthropic.error(kind, retry_after),
        }
    }

    fn invalid(&self, problem: &Invalid) -> Value {
        match self.form {
            Some(_) => invalid(problem),
            None => Anthropic.invalid(problem),
        }
    }
}

impl Hosted {
    /// The body that Anthropic itself is sent. What is in there already is no field of this one.
    fn with_model(&self, body: &[u8], model: Option<&str>) -> Result<Vec<u8>, Invalid> {
        let mut body = tree(body)?;
        // The newest SDKs send the date of Anthropic's own interface.
        let is_date = |text: &str| text.len() == 10 && jiff::civil::Date::strptime("%Y-%m-%d", text).is_ok();
        let version = body.get("anthropic_version").and_then(Value::as_str).unwrap_or_default();
        if version != self.version && !is_date(version) {
            return Err(Invalid::new(format!("anthropic_version: must be {:?}", self.version)));
        }
        for name in ["model"].into_iter().chain(self.form.map(|_| "stream")) {
            if body.get(name).is_some() {
                return Err(Invalid::new(format!("{name}: Extra inputs are not permitted")));
            }
        }
        body["model"] = named(model).into();
        Ok(text(&body))
    }
}

/// Anthropic's events, in chunks.
const CHUNKS: Streaming = Streaming { events: anthropic::events, error: converse::exception, ping: "" };

impl Dialect for Converse {
    fn key_headers(&self) -> &'static [&'static str] {
        &["authorization"]
    }

    fn question(&self, body: &[u8], model: Option<&str>) -> Result<Question, Invalid> {
        let question = question(&tree(body)?, named(model))?;
        Ok(Question { form: self.0, ..question })
    }

    fn answer(&self, ready: &Answer<'_>) -> Vec<u8> {
        text(&answer(ready))
    }

    fn streaming(&self) -> Option<&'static Streaming> {
        Some(&converse::STREAMING)
    }

    fn error(&self, kind: FaultKind, _retry_after: Option<f64>) -> (u16, Value) {
        error(kind)
    }

    fn invalid(&self, problem: &Invalid) -> Value {
        invalid(problem)
    }

    fn limit_headers(&self, _quota: &Quota, _now: SystemTime) -> Vec<Header> {
        Vec::new()
    }
}

/// The words of a message's content, and what is wrong with it.
fn content(message: &Value, place: usize, into: &mut Vec<String>) -> Result<(), Invalid> {
    const KINDS: [&str; 9] = [
        "text",
        "image",
        "audio",
        "document",
        "toolUse",
        "toolResult",
        "reasoningContent",
        "cachePoint",
        "guardContent",
    ]; // fmt: skip
    let blocks = message.get("content").and_then(Value::as_array);
    let blocks = blocks.ok_or_else(|| format!("messages.{place}.content must be a list"))?;
    for block in blocks {
        let fields = block.as_object().filter(|fields| fields.len() == 1);
        let Some((kind, value)) = fields.and_then(|fields| fields.iter().next()) else {
            return Err(format!("messages.{place}.content: a block must have one field").into());
        };
        match (kind.as_str(), value) {
            ("text", Value::String(text)) if text.trim().is_empty() => {
                let problem = "The text field in the ContentBlock object is blank. Add text and try again.";
                return Err(Invalid::new(problem));
            }
            ("text", Value::String(text)) => into.push(text.clone()),
            ("toolResult", result) => {
                text_field(result, "toolUseId")?;
                let parts = result.get("content").and_then(Value::as_array).into_iter().flatten();
                into.extend(parts.filter_map(|part| part.get("text")?.as_str().map(str::to_owned)));
            }
            (kind, _) if KINDS.contains(&kind) => {}
            (kind, _) => return Err(format!("messages.{place}.content: unknown block {kind:?}").into()),
        }
    }
    Ok(())
}

fn question(body: &Value, model: String) -> Result<Question, Invalid> {
    let mut question = Question { model, samples: 1, ..Question::default() };
    if body.get("model").is_some() || body.get("modelId").is_some() {
        return Err(Invalid::new("the model is in the path"));
    }
    for block in body.get("system").and_then(Value::as_array).into_iter().flatten() {
        question.words.extend(block.get("text").and_then(Value::as_str).map(str::to_owned));
    }
    let messages = body.get("messages").and_then(Value::as_array).ok_or("messages must be a list")?;
    let mut last = "assistant";
    for (place, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        if !matches!(role, "user" | "assistant") || role == last {
            let problem = "A conversation must alternate between user and assistant roles. Make sure the conversation \
                           alternates between user and assistant roles and try again.";
            return Err(Invalid::new(problem));
        }
        last = if role == "user" { "user" } else { "assistant" };
        content(message, place, &mut question.words)?;
    }
    if last == "assistant" {
        return Err(Invalid::new("A conversation must end with a user message. Try again with a user message."));
    }
    if let Some(config) = body.get("inferenceConfig") {
        question.max_tokens = size_field(config, "maxTokens");
    }
    if let Some(schema) = body.pointer("/outputConfig/textFormat/structure/jsonSchema/schema") {
        let text = schema.as_str().ok_or("the schema must be JSON text")?;
        question.schema = Some(serde_json::from_str(text).map_err(|_| "the schema must be JSON text")?);
    }
    let fields = body.get("additionalModelRequestFields");
    question.thinks = fields.and_then(|fields| fields.get("reasoning_config").or(fields.get("thinking"))).is_some();
    for tool in body.pointer("/toolConfig/tools").and_then(Value::as_array).into_iter().flatten() {
        let Some(spec) = tool.get("toolSpec") else { continue };
        let schema = spec.pointer("/inputSchema/json").cloned().unwrap_or_default();
        question.tools.push((text_field(spec, "name")?, schema));
    }
    question.forced_tool = match body.pointer("/toolConfig/toolChoice").and_then(Value::as_object) {
        Some(choice) if choice.contains_key("any") => Some(String::new()),
        Some(choice) => choice.get("tool").and_then(|tool| tool.get("name")?.as_str().map(str::to_owned)),
        None => None,
    };
    Ok(question)
}

fn answer(answer: &Answer<'_>) -> Value {
    let completion = &answer.completions[0];
    let mut content = Vec::new();
    if answer.question.thinks {
        let thought = state::thought(answer.digest);
        let signature = state::signature(&answer.question.model, &thought);
        content.push(json!({"reasoningContent": {"reasoningText": {"text": thought, "signature": signature}}}));
    }
    for (number, (name, arguments)) in completion.calls.iter().enumerate() {
        let id = format!("tooluse_{:016x}{}", answer.digest, more(number));
        content.push(json!({"toolUse": {"toolUseId": id, "name": name, "input": arguments}}));
    }
    if completion.calls.is_empty() {
        content.push(json!({"text": completion.text}));
    }
    let stop = stop_reason(completion);
    let (input, output) = (answer.question.input_tokens(), answer.output_tokens());
    json!({
        "output": {"message": {"role": "assistant", "content": content}}, "stopReason": stop,
        "usage": {"inputTokens": input, "outputTokens": output, "totalTokens": input + output},
        "metrics": {"latencyMs": 1},
    })
}

/// An error as AWS writes it: `__type` is sent as a header.
pub fn named_error(name: &str, message: &str) -> Value {
    json!({"message": message, "__type": name})
}

fn error(fault: FaultKind) -> (u16, Value) {
    let (status, name, message) = match fault {
        FaultKind::Status(status) | FaultKind::ErrorInside(status) => {
            let (name, message) = match status {
                401 | 403 => {
                    ("AccessDeniedException", "You don't have access to the model with the specified model ID.")
                }
                404 => {
                    ("ResourceNotFoundException", "Could not resolve the foundation model from the model identifier.")
                }
                408 => ("ModelTimeoutException", "Model has timed out in processing the request."),
                424 => ("ModelErrorException", "The model returned an error."),
                429 => ("ThrottlingException", "Too many requests, please wait before trying again."),
                503 | 529 => ("ServiceUnavailableException", "Too many connections, please wait before trying again."),
                500.. => ("InternalServerException", "The system encountered an unexpected error."),
                _ => ("ValidationException", "The request is invalid."),
            };
            (if status == 401 { 403 } else { status }, name, message)
        }
        FaultKind::DailyQuota => {
            (429, "ThrottlingException", "Too many tokens per day, please wait before trying again.")
        }
        FaultKind::Billing => {
            (403, "AccessDeniedException", "Your account is not authorized: INVALID_PAYMENT_INSTRUMENT.")
        }
        _ => (429, "ThrottlingException", "Too many requests, please wait before trying again."),
    };
    (status, named_error(name, message))
}

fn invalid(problem: &Invalid) -> Value {
    named_error("ValidationException", &problem.message)
}
