//! OpenAI's Responses, as a server speaks it.

use serde_json::{Value, json};

use super::dialect::{Answer, more, size_field, text, text_field, tree, words};
use super::invalid::Invalid;
use super::model::Question;
use super::openai::{OpenAi, forced};
use super::prompt_caches::responses_prompt;
use super::streams::event::Form;
use super::{history, state, streams, strict};

/// OpenAI's Responses.
pub const RESPONSES: OpenAi = OpenAi {
    question: |body| question(&tree(body)?),
    prompt: |body| responses_prompt(body).map(Some),
    answer: |ready| text(&answer(ready)),
    streaming: Some(&streams::responses::STREAMING),
};

fn question(body: &Value) -> Result<Question, Invalid> {
    let mut question = Question { model: text_field(body, "model")?, samples: 1, ..Question::default() };
    words(body.get("instructions").unwrap_or(&Value::Null), &mut question.words);
    words(body.get("input").ok_or("input is missing")?, &mut question.words);
    if body.pointer("/text/format/type").and_then(Value::as_str) == Some("json_schema") {
        let format = body.pointer("/text/format").unwrap_or(&Value::Null);
        let schema = format.get("schema").ok_or("text.format.schema is missing")?;
        if format.get("strict") == Some(&Value::Bool(true)) {
            let name = format.get("name").and_then(Value::as_str).unwrap_or_default();
            strict::openai(schema, &format!("response_format '{name}'"), "text.format.schema")?;
        }
        question.schema = Some(schema.clone());
    }
    for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
        if tool.get("type").and_then(Value::as_str) == Some("function") {
            let (name, parameters) = (text_field(tool, "name")?, tool.get("parameters").cloned().unwrap_or_default());
            if tool.get("strict") == Some(&Value::Bool(true)) {
                strict::openai(&parameters, &format!("function '{name}'"), "tools")?;
            }
            question.tools.push((name, parameters));
        }
    }
    history::responses(body)?;
    let include = body.get("include").and_then(Value::as_array);
    let wants_encrypted = include.is_some_and(|names| names.iter().any(|name| name == "reasoning.encrypted_content"));
    question.thinks = body.pointer("/reasoning/effort").is_some_and(|effort| effort != "none") || wants_encrypted;
    question.encrypted = wants_encrypted || body.get("store") == Some(&Value::Bool(false));
    question.one_call = body.get("parallel_tool_calls") == Some(&Value::Bool(false));
    question.forced_tool = forced(body.get("tool_choice"), "/name");
    question.max_tokens = size_field(body, "max_output_tokens");
    if body.get("stream") == Some(&Value::Bool(true)) {
        question.form = Form::Events { usage: true };
    }
    Ok(question)
}

fn answer(answer: &Answer<'_>) -> Value {
    let digest = answer.digest;
    let completion = &answer.completions[0];
    let mut output = Vec::new();
    if answer.question.thinks {
        let mut item = json!({"type": "reasoning", "id": format!("rs_{digest:016x}"), "summary": []});
        if answer.question.encrypted {
            item["encrypted_content"] = state::signature(&answer.question.model, &state::thought(digest)).into();
        }
        output.push(item);
    }
    for (number, (name, arguments)) in completion.calls.iter().enumerate() {
        let more = more(number);
        output.push(json!({"type": "function_call", "id": format!("fc_{digest:016x}{more}"),
            "call_id": format!("call_{digest:016x}{more}"), "name": name, "arguments": arguments.to_string(),
            "status": "completed"}));
    }
    if completion.calls.is_empty() {
        output.push(json!({"type": "message", "id": format!("msg_{digest:016x}"), "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": completion.text, "annotations": [], "logprobs": []}]}));
    }
    let (input, tokens, charge) = (answer.question.input_tokens(), answer.output_tokens(), answer.question.charge);
    let (status, details) = if completion.truncated {
        ("incomplete", json!({"reason": "max_output_tokens"}))
    } else {
        ("completed", Value::Null)
    };
    json!({
        "id": format!("resp_{digest:016x}"), "object": "response", "created_at": 0, "status": status, "error": null,
        "incomplete_details": details, "instructions": null, "metadata": {}, "model": answer.question.model,
        "output": output, "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [],
        "top_p": 1.0,
        "usage": {"input_tokens": input, "input_tokens_details":
                {"cached_tokens": charge.read, "cache_write_tokens": charge.written},
            "output_tokens": tokens, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + tokens},
    })
}
