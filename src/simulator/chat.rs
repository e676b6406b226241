//! OpenAI's Chat Completions, as a server speaks them. Questions and answers are typed, for they are what benchmarks ask
//! for, and trees of values take longer than all the rest.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::dialect::{Answer, more, text, text_field, words};
use super::invalid::Invalid;
use super::model::{Completion, Question};
use super::openai::{OpenAi, forced};
use super::prompt_caches::chat_prompt;
use super::state::{self, Reasoning};
use super::streams::event::Form;
use super::{history, streams, strict};

/// OpenAI's Chat Completions.
pub const CHAT: OpenAi = OpenAi {
    question,
    prompt: |body| chat_prompt(body).map(Some),
    answer: |ready| text(&answer(ready)),
    streaming: Some(&streams::chat::STREAMING),
};

/// The fields of a request that are obeyed.
#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    response_format: Option<Value>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    max_completion_tokens: Option<usize>,
    max_tokens: Option<usize>,
    n: Option<usize>,
    logprobs: Option<bool>,
    parallel_tool_calls: Option<bool>,
    thinking: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    /// Text or parts.
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
}

/// Reads a question, or says what is wrong with it.
fn question(body: &[u8]) -> Result<Question, Invalid> {
    let requested: Request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let messages = requested.messages.ok_or("messages is missing")?;
    if messages.is_empty() {
        return Err("messages is empty".into());
    }
    let model = requested.model.ok_or("model is missing")?.into_owned();
    let mut question = Question { model, ..Question::default() };
    for (place, message) in messages.iter().enumerate() {
        match message.role.as_deref() {
            Some("system" | "developer" | "user" | "assistant" | "tool") => {}
            other => return Err(format!("messages[{place}].role is {other:?}").into()),
        }
        let Some(content) = message.content.map(RawValue::get) else { continue };
        let problem = |error: serde_json::Error| format!("messages[{place}].content: {error}");
        if content.starts_with('"') {
            question.words.push(serde_json::from_str(content).map_err(problem)?);
        } else {
            words(&serde_json::from_str(content).map_err(problem)?, &mut question.words);
        }
    }
    let format = requested.response_format.as_ref();
    match format.and_then(|format| format.get("type")).and_then(Value::as_str) {
        Some("json_schema") => {
            let schema = format.and_then(|format| format.pointer("/json_schema/schema"));
            let schema = schema.ok_or("response_format.json_schema.schema is missing")?;
            if let Some(format) = format.and_then(|format| format.get("json_schema"))
                && format.get("strict") == Some(&Value::Bool(true))
            {
                let name = format.get("name").and_then(Value::as_str).unwrap_or_default();
                strict::openai(schema, &format!("response_format '{name}'"), "response_format")?;
            }
            question.schema = Some(schema.clone());
        }
        Some("json_object") => {
            question.schema = Some(json!({"type": "object", "additionalProperties": {"type": "string"}}))
        }
        _ => {}
    }
    for (place, tool) in requested.tools.iter().flatten().enumerate() {
        let function = tool.get("function").ok_or("a tool needs function")?;
        let (name, parameters) =
            (text_field(function, "name")?, function.get("parameters").cloned().unwrap_or_default());
        if function.get("strict") == Some(&Value::Bool(true)) {
            let param = format!("tools[{place}].function.parameters");
            strict::openai(&parameters, &format!("function '{name}'"), &param)?;
        }
        question.tools.push((name, parameters));
    }
    let is_off =
        requested.thinking.as_ref().and_then(|thinking| thinking.get("type")).is_some_and(|kind| kind == "disabled");
    let reasoning = Reasoning::of(&question.model).filter(|_| !is_off);
    question.thinks = reasoning.is_some();
    question.one_call = requested.parallel_tool_calls == Some(false);
    let has_tools =
        messages.iter().any(|message| message.tool_calls.is_some() || message.role.as_deref() == Some("tool"));
    if has_tools || (question.thinks && !question.tools.is_empty()) {
        // Few requests have tools; only theirs are read as a tree.
        let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        history::chat(&body)?;
        if let Some(wanted) = reasoning.filter(|_| !question.tools.is_empty()) {
            history::reasoning(&body, wanted)?;
        }
    }
    question.forced_tool = forced(requested.tool_choice.as_ref(), "/function/name");
    question.max_tokens = requested.max_completion_tokens.or(requested.max_tokens);
    question.samples = requested.n.unwrap_or(1);
    question.logprobs = requested.logprobs.unwrap_or_default();
    if requested.stream == Some(true) {
        let usage = requested.stream_options.and_then(|options| options.include_usage).unwrap_or_default();
        question.form = Form::Events { usage };
    }
    Ok(question)
}

/// A reply.
#[derive(Serialize)]
struct Reply<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    usage: Usage,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: ReplyMessage<'a>,
    logprobs: Option<Value>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct ReplyMessage<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Value>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_write_tokens: Option<usize>,
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

/// The reply with an answer.
fn answer<'a>(answer: &Answer<'a>) -> Reply<'a> {
    let choices = answer.completions.iter().enumerate().map(|(index, completion)| {
        let tool_calls = (!completion.calls.is_empty()).then(|| {
            let calls = completion.calls.iter().enumerate().map(|(number, (name, arguments))| {
                json!({"id": format!("call_{:016x}_{index}{}", answer.digest, more(number)), "type": "function",
                    "function": {"name": name, "arguments": arguments.to_string()}})
            });
            Value::Array(calls.collect())
        });
        let reasoning_content = answer.question.thinks.then(|| state::thought(answer.digest));
        let content = tool_calls.is_none().then_some(completion.text.as_str());
        let logprobs = answer.question.logprobs.then(|| {
            json!({"content": [{"token": completion.text, "logprob": -0.5, "bytes": null, "top_logprobs": []}], "refusal": null})
        });
        let message = ReplyMessage { role: "assistant", content, refusal: (), reasoning_content, tool_calls };
        Choice { index, message, logprobs, finish_reason: finish(completion) }
    });
    let (input, output, charge) = (answer.question.input_tokens(), answer.output_tokens(), answer.question.charge);
    Reply {
        id: format!("chatcmpl-{:016x}", answer.digest),
        object: "chat.completion",
        created: 0,
        model: &answer.question.model,
        choices: choices.collect(),
        usage: Usage {
            prompt_tokens: input,
            completion_tokens: output,
            total_tokens: input + output,
            prompt_tokens_details: PromptDetails {
                cached_tokens: charge.read,
                cache_write_tokens: charge.tells_writes.then_some(charge.written),
            },
            completion_tokens_details: CompletionDetails { reasoning_tokens: 0 },
        },
    }
}

fn finish(completion: &Completion) -> &'static str {
    match completion {
        Completion { calls, .. } if !calls.is_empty() => "tool_calls",
        Completion { truncated: true, .. } => "length",
        _ => "stop",
    }
}
