//! Google's generateContent and batchEmbedContents, as a server speaks them.

use serde_json::{Value, json};

use super::dialect::{Answer, Dialect, more, size_field, text, tree, words};
use super::faults::FaultKind;
use super::invalid::Invalid;
use super::model::Question;
use super::prompt_caches::{Prompt, gemini_prompt};
use super::streams::event::{Form, Streaming};
use super::{history, state, streams};

/// One of the methods of Google's API. Its headers report nothing about limits.
pub struct Gemini {
    question: fn(&Value, &str) -> Result<Question, Invalid>,
    is_cached: bool,
    answer: fn(&Answer<'_>) -> Value,
    form: Form,
}

/// Google's generateContent.
pub const GENERATE_CONTENT: Gemini = Gemini { question, is_cached: true, answer, form: Form::Whole };

/// Google's streamGenerateContent.
pub const STREAM_GENERATE_CONTENT: Gemini = Gemini { form: Form::Array, ..GENERATE_CONTENT };

/// The same with `alt=sse`.
pub const STREAM_GENERATE_EVENTS: Gemini = Gemini { form: Form::Events { usage: true }, ..GENERATE_CONTENT };

/// Google's batchEmbedContents.
pub const BATCH_EMBED_CONTENTS: Gemini = Gemini {
    question: |body, model| Ok(embeddings_question(body, model)?),
    is_cached: false,
    answer: embeddings_answer,
    form: Form::Whole,
};

impl Dialect for Gemini {
    fn key_headers(&self) -> &'static [&'static str] {
        &["x-goog-api-key"]
    }

    fn question(&self, body: &[u8], model: Option<&str>) -> Result<Question, Invalid> {
        let question = (self.question)(&tree(body)?, model.unwrap_or_default())?;
        Ok(Question { form: self.form, ..question })
    }

    fn prompt(&self, body: &[u8], model: Option<&str>) -> Result<Option<Prompt>, Invalid> {
        let prompt = || gemini_prompt(&tree(body)?, model.unwrap_or_default());
        self.is_cached.then(prompt).transpose()
    }

    fn answer(&self, ready: &Answer<'_>) -> Vec<u8> {
        text(&(self.answer)(ready))
    }

    fn streaming(&self) -> Option<&'static Streaming> {
        (self.form != Form::Whole).then_some(&streams::gemini::STREAMING)
    }

    fn error(&self, kind: FaultKind, retry_after: Option<f64>) -> (u16, Value) {
        error(kind, retry_after)
    }

    fn invalid(&self, problem: &Invalid) -> Value {
        json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": problem.message}})
    }
}

fn question(body: &Value, model: &str) -> Result<Question, Invalid> {
    let mut question = Question { model: model.to_owned(), ..Question::default() };
    words(body.get("systemInstruction").unwrap_or(&Value::Null), &mut question.words);
    let contents = body.get("contents").and_then(Value::as_array).ok_or("contents must be a list")?;
    if contents.is_empty() {
        return Err("contents is empty".into());
    }
    for (place, content) in contents.iter().enumerate() {
        match content.get("role").and_then(Value::as_str) {
            Some("user" | "model") | None => {
                words(content, &mut question.words);
                question.words.extend(results(content));
            }
            other => return Err(format!("contents[{place}].role is {other:?}; it must be user or model").into()),
        }
    }
    history::gemini(body, model)?;
    question.cache = body.get("cachedContent").and_then(Value::as_str).map(str::to_owned);
    if let Some(config) = body.get("generationConfig") {
        question.max_tokens = size_field(config, "maxOutputTokens");
        question.samples = size_field(config, "candidateCount").unwrap_or(1);
        question.schema = config.get("responseJsonSchema").cloned();
        if question.schema.is_none() {
            question.schema = config.get("responseSchema").map(lower_types);
        }
    }
    let declarations = body.pointer("/tools/0/functionDeclarations").and_then(Value::as_array);
    for declaration in declarations.into_iter().flatten() {
        let name = declaration.get("name").and_then(Value::as_str).ok_or("a function declaration needs a name")?;
        // Protobuf's JSON takes both spellings; Google's SDK sends either.
        let names = ["parametersJsonSchema", "parameters_json_schema"];
        let schema = names.into_iter().find_map(|name| declaration.get(name)).cloned();
        let schema = schema.or_else(|| declaration.get("parameters").map(lower_types)).unwrap_or_default();
        question.tools.push((name.to_owned(), schema));
    }
    if body.pointer("/toolConfig/functionCallingConfig/mode").and_then(Value::as_str) == Some("ANY") {
        let named = body.pointer("/toolConfig/functionCallingConfig/allowedFunctionNames/0").and_then(Value::as_str);
        question.forced_tool = Some(named.unwrap_or_default().to_owned());
    }
    Ok(question)
}

/// Google's own schemas write types in capitals.
fn lower_types(schema: &Value) -> Value {
    match schema {
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                ("type", Value::String(kind)) => (name.clone(), Value::String(kind.to_lowercase())),
                _ => (name.clone(), lower_types(value)),
            })
            .collect(),
        Value::Array(values) => values.iter().map(lower_types).collect(),
        other => other.clone(),
    }
}

/// What tools have answered, as words.
fn results(content: &Value) -> Vec<String> {
    let parts = content.get("parts").and_then(Value::as_array).into_iter().flatten();
    let results = parts.filter_map(|part| part.get("functionResponse").or_else(|| part.get("function_response")));
    results.map(|result| result.get("response").unwrap_or(&Value::Null).to_string()).collect()
}

/// A call; the first of an answer is signed, and models of the third generation number them all.
fn call(answer: &Answer<'_>, number: usize, name: &str, arguments: &Value) -> Value {
    let model = &answer.question.model;
    let mut part = json!({"functionCall": {"name": name, "args": arguments}});
    if state::gemini_signs(model) {
        part["functionCall"]["id"] = format!("fc_{:016x}{}", answer.digest, more(number)).into();
    }
    if number == 0 {
        part["thoughtSignature"] = state::signature(model, name).into();
    }
    part
}

fn answer(answer: &Answer<'_>) -> Value {
    let candidates = answer.completions.iter().enumerate().map(|(index, completion)| {
        let mut parts = Vec::new();
        for (number, (name, arguments)) in completion.calls.iter().enumerate() {
            parts.push(call(answer, number, name, arguments));
        }
        if parts.is_empty() {
            parts.push(json!({"text": completion.text}));
        }
        let finish = if completion.truncated { "MAX_TOKENS" } else { "STOP" };
        json!({"index": index, "content": {"role": "model", "parts": parts}, "finishReason": finish,
            "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]})
    });
    let (input, output) = (answer.question.input_tokens(), answer.output_tokens());
    let (charge, explicit) = (answer.question.charge, answer.question.cached_tokens);
    let mut usage = json!({"promptTokenCount": input, "cachedContentTokenCount": charge.read + explicit,
        "candidatesTokenCount": output, "totalTokenCount": input + output});
    if charge.is_on && charge.read + explicit == 0 {
        without(&mut usage, "cachedContentTokenCount");
    }
    json!({
        "candidates": candidates.collect::<Vec<_>>(), "modelVersion": answer.question.model,
        "responseId": format!("{:016x}", answer.digest), "usageMetadata": usage,
    })
}

/// What is nothing is not told.
fn without(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove(name);
    }
}

fn embeddings_question(body: &Value, model: &str) -> Result<Question, String> {
    let requests = body.get("requests").and_then(Value::as_array).ok_or("requests must be a list")?;
    if requests.is_empty() || requests.len() > 100 {
        return Err(format!("requests must have 1 to 100 requests, not {}", requests.len()));
    }
    let mut question = Question { model: model.to_owned(), ..Question::default() };
    for (place, request) in requests.iter().enumerate() {
        let mut texts = Vec::new();
        words(request.get("content").unwrap_or(&Value::Null), &mut texts);
        if texts.concat().is_empty() {
            return Err(format!("requests[{place}].content has no text"));
        }
        question.texts.push(texts.concat());
        question.dimensions = size_field(request, "outputDimensionality");
    }
    Ok(question)
}

fn embeddings_answer(answer: &Answer<'_>) -> Value {
    let vectors = answer.vectors.iter().map(|vector| json!({"values": vector}));
    json!({"embeddings": vectors.collect::<Vec<_>>()})
}

fn error(fault: FaultKind, retry_after: Option<f64>) -> (u16, Value) {
    let status = match fault {
        FaultKind::Status(status) | FaultKind::ErrorInside(status) => status,
        _ => 429,
    };
    let word = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    let mut details = Vec::new();
    if status == 429 {
        let quota = if matches!(fault, FaultKind::DailyQuota | FaultKind::Billing) { "PerDay" } else { "PerMinute" };
        details.push(json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": format!("GenerateRequests{quota}PerProjectPerModel")}]}));
        if let Some(wait) = retry_after {
            details
                .push(json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{wait}s")}));
        }
    }
    let message = format!("{word}: simulated");
    (status, json!({"error": {"code": status, "status": word, "message": message, "details": details}}))
}
