//! Conversations with tools, as the vendors' servers check them: each call has its result in the right place, and what
//! the model wants back is there. Messages are the vendors' own (2026), as their references and users' reports have them.

use serde_json::Value;

use super::invalid::Invalid;
use super::state::{self, Reasoning};

type Checked = Result<(), Invalid>;

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Chat Completions.
pub fn chat(body: &Value) -> Checked {
    let unanswered = |(place, ids): &(usize, Vec<&str>)| {
        Invalid::new(format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each \
             'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            ids.join(", ")
        ))
        .at(format!("messages.[{place}].role"))
    };
    // The calls of the last assistant message, and those of them without an answer.
    let mut calls: Vec<&str> = Vec::new();
    let mut open: (usize, Vec<&str>) = (0, Vec::new());
    for (place, message) in list(body, "messages").iter().enumerate() {
        if text(message, "role") == "tool" {
            let id = text(message, "tool_call_id");
            if calls.is_empty() {
                let problem = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message \
                               with 'tool_calls'.";
                return Err(Invalid::new(problem).at(format!("messages.[{place}].role")));
            }
            if !calls.contains(&id) {
                let problem = format!(
                    "Invalid parameter: 'tool_call_id' of '{id}' not found in 'tool_calls' of previous message."
                );
                return Err(Invalid::new(problem).at(format!("messages.[{place}].tool_call_id")));
            }
            open.1.retain(|one| *one != id);
            continue;
        }
        if !open.1.is_empty() {
            return Err(unanswered(&open));
        }
        if message.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(Vec::is_empty)) {
            let problem = format!(
                "Invalid 'messages[{place}].tool_calls': empty array. Expected an array with minimum length 1, but got \
                 an empty array instead."
            );
            let invalid = Invalid::new(problem).at(format!("messages[{place}].tool_calls"));
            return Err(Invalid { code: Some("empty_array"), ..invalid });
        }
        calls = list(message, "tool_calls").iter().map(|call| text(call, "id")).collect();
        open = (place, calls.clone());
    }
    if open.1.is_empty() { Ok(()) } else { Err(unanswered(&open)) }
}

/// Thoughts that a server of Chat Completions wants back.
pub fn reasoning(body: &Value, wanted: Reasoning) -> Checked {
    for (place, message) in list(body, "messages").iter().enumerate() {
        let has_calls = !list(message, "tool_calls").is_empty();
        let is_needed = text(message, "role") == "assistant" && (wanted == Reasoning::OfAll || has_calls);
        if is_needed && text(message, "reasoning_content").is_empty() {
            return Err(Invalid::new(match wanted {
                Reasoning::OfAll => {
                    "The reasoning_content in the thinking mode must be passed back to the API.".to_owned()
                }
                Reasoning::OfCalls => format!(
                    "thinking is enabled but reasoning_content is missing in assistant tool call message at index {place}"
                ),
            }));
        }
    }
    Ok(())
}

/// Responses.
pub fn responses(body: &Value) -> Checked {
    let items = list(body, "input");
    let is_stored = body.get("store") != Some(&Value::Bool(false));
    let mut calls: Vec<&str> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let id = text(item, "call_id");
        match text(item, "type") {
            "function_call" => {
                let is_output =
                    |later: &Value| text(later, "type") == "function_call_output" && text(later, "call_id") == id;
                if !items[place..].iter().any(is_output) {
                    let problem = format!("No tool output found for function call {id}.");
                    return Err(Invalid::new(problem).at("input"));
                }
                calls.push(id);
            }
            "function_call_output"
                if !calls.contains(&id) && body.get("previous_response_id").is_none_or(Value::is_null) =>
            {
                let problem = format!("No tool call found for function call output with call_id {id}.");
                return Err(Invalid::new(problem).at("input"));
            }
            "reasoning" => {
                let blob = text(item, "encrypted_content");
                if !blob.is_empty() && !state::is_ours(blob) {
                    let begin: String = blob.chars().take(10).collect();
                    let problem = format!(
                        "The encrypted content {begin}... could not be verified. Reason: Encrypted content could not be \
                         decrypted or parsed."
                    );
                    let invalid = Invalid::new(problem);
                    return Err(Invalid { code: Some("invalid_encrypted_content"), ..invalid });
                }
                let next = items
                    .get(place + 1)
                    .map_or("", |next| if next.get("role").is_some() { "message" } else { text(next, "type") });
                if is_stored && blob.is_empty() && !matches!(next, "message" | "function_call" | "reasoning") {
                    let problem = format!(
                        "Item '{}' of type 'reasoning' was provided without its required following item.",
                        text(item, "id")
                    );
                    return Err(Invalid::new(problem).at("input"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Anthropic's Messages.
pub fn anthropic(body: &Value) -> Checked {
    let messages = list(body, "messages");
    if list(body, "system").iter().any(|block| text(block, "type") == "text" && text(block, "text").is_empty()) {
        return Err(Invalid::new("system: text content blocks must be non-empty"));
    }
    for (place, message) in messages.iter().enumerate() {
        blocks(place, list(message, "content"))?;
        results(place, messages)?;
    }
    match body.pointer("/thinking/type").and_then(Value::as_str) {
        Some("enabled" | "adaptive") => thoughts(text(body, "model"), messages),
        _ => Ok(()),
    }
}

fn blocks(place: usize, blocks: &[Value]) -> Checked {
    for (number, block) in blocks.iter().enumerate() {
        match text(block, "type") {
            "text" if text(block, "text").is_empty() => {
                return Err(Invalid::new("messages: text content blocks must be non-empty"));
            }
            "text" if text(block, "text").trim().is_empty() => {
                return Err(Invalid::new("messages: text content blocks must contain non-whitespace text"));
            }
            kind @ ("image" | "document") => {
                let url = block.pointer("/source/url").and_then(Value::as_str).unwrap_or_default();
                if url.starts_with("data:") {
                    return Err(Invalid::new(format!(
                        "messages.{place}.content.{number}.{kind}.source.url: Only HTTPS URLs are supported."
                    )));
                }
            }
            "tool_result" => self::blocks(place, list(block, "content"))?,
            _ => {}
        }
    }
    Ok(())
}

/// The calls of a message are answered at the beginning of the next, and nothing else is.
fn results(place: usize, messages: &[Value]) -> Checked {
    let ids = |blocks: &'_ [Value], kind: &str, name: &str| -> Vec<String> {
        blocks.iter().filter(|block| text(block, "type") == kind).map(|block| text(block, name).to_owned()).collect()
    };
    let content = |at: usize| messages.get(at).map_or(&[][..], |message| list(message, "content"));
    let calls = ids(content(place), "tool_use", "id");
    let next = content(place + 1);
    let first = next.iter().take_while(|block| text(block, "type") == "tool_result").count();
    let answered = ids(&next[..first], "tool_result", "tool_use_id");
    let missing: Vec<&str> = calls.iter().filter(|id| !answered.contains(id)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(Invalid::new(format!(
            "messages.{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each \
             `tool_use` block must have a corresponding `tool_result` block in the next message.",
            missing.join(", ")
        )));
    }
    let known = if place == 0 { Vec::new() } else { ids(content(place - 1), "tool_use", "id") };
    for (number, block) in content(place).iter().enumerate() {
        let id = text(block, "tool_use_id");
        if text(block, "type") == "tool_result" && !known.iter().any(|known| known == id) {
            return Err(Invalid::new(format!(
                "messages.{place}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each \
                 `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )));
        }
    }
    Ok(())
}

/// The turn that goes on begins with its thoughts, unchanged.
fn thoughts(model: &str, messages: &[Value]) -> Checked {
    let is_result = |message: &Value| list(message, "content").iter().any(|block| text(block, "type") == "tool_result");
    // Where the user last said something; what is before may have lost its thoughts.
    let begins =
        messages.iter().rposition(|message| text(message, "role") == "user" && !is_result(message)).unwrap_or(0);
    for (place, message) in messages.iter().enumerate().skip(begins) {
        let content = list(message, "content");
        for (number, block) in content.iter().enumerate().filter(|(_, block)| text(block, "type") == "thinking") {
            if !state::is_signed(model, text(block, "thinking"), text(block, "signature")) {
                return Err(Invalid::new(format!(
                    "messages.{place}.content.{number}: Invalid `signature` in `thinking` block"
                )));
            }
        }
        let first = content.first().map_or("", |block| text(block, "type"));
        let calls = content.iter().any(|block| text(block, "type") == "tool_use");
        if calls && !matches!(first, "thinking" | "redacted_thinking") {
            return Err(Invalid::new(format!(
                "messages.{place}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{first}`. When \
                 `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the \
                 lastmost set of `tool_use` and `tool_result` blocks)."
            )));
        }
    }
    Ok(())
}

/// Strings that Google's servers take for the signature of a call that they have not made.
const UNSIGNED: &[&str] = &["skip_thought_signature_validator", "context_engineering_is_the_way_to_go"];

const CALL: [&str; 2] = ["functionCall", "function_call"];
const RESPONSE: [&str; 2] = ["functionResponse", "function_response"];
const SIGNATURE: [&str; 2] = ["thoughtSignature", "thought_signature"];

/// A field by either of its names: protobuf's JSON takes both.
fn field<'a>(part: &'a Value, names: [&str; 2]) -> Option<&'a Value> {
    names.iter().find_map(|name| part.get(*name))
}

fn fields<'a>(content: &'a Value, names: [&str; 2]) -> Vec<&'a Value> {
    list(content, "parts").iter().filter_map(|part| field(part, names)).collect()
}

/// Google's generateContent.
pub fn gemini(body: &Value, model: &str) -> Checked {
    let contents = list(body, "contents");
    for place in 0..contents.len() {
        gemini_results(place, contents)?;
    }
    if state::gemini_signs(model) { gemini_signatures(contents, model) } else { Ok(()) }
}

/// The calls of a content have their responses in the next, and nothing else has.
fn gemini_results(place: usize, contents: &[Value]) -> Checked {
    let responses = fields(&contents[place], RESPONSE);
    for (number, response) in responses.iter().enumerate() {
        if !response.get("response").is_some_and(Value::is_object) {
            return Err(Invalid::new(format!(
                "Invalid value at 'contents[{place}].parts[{number}].function_response.response' \
                 (type.googleapis.com/google.protobuf.Struct)"
            )));
        }
    }
    let has_calls_before = place > 0 && !fields(&contents[place - 1], CALL).is_empty();
    if !responses.is_empty() && !has_calls_before {
        return Err(Invalid::new(
            "Please ensure that function response turn comes immediately after a function call turn.",
        ));
    }
    let calls = fields(&contents[place], CALL);
    let next = contents.get(place + 1).map_or_else(Vec::new, |next| fields(next, RESPONSE));
    if !calls.is_empty() && !is_answered(&calls, &next) {
        return Err(Invalid::new(
            "Please ensure that the number of function response parts is equal to the number of function call parts of \
             the function call turn.",
        ));
    }
    Ok(())
}

/// In the turn that goes on, the first call of each step has the signature that it came with.
fn gemini_signatures(contents: &[Value], model: &str) -> Checked {
    let is_said = |content: &Value| {
        text(content, "role") != "model" && list(content, "parts").iter().any(|part| field(part, RESPONSE).is_none())
    };
    let begins = contents.iter().rposition(is_said).unwrap_or(0);
    for (place, content) in contents.iter().enumerate().skip(begins) {
        let first = list(content, "parts").iter().find_map(|part| Some((part, field(part, CALL)?)));
        let Some((part, call)) = first else { continue };
        let (name, signature) = (text(call, "name"), field(part, SIGNATURE).and_then(Value::as_str));
        let Some(signature) = signature.filter(|signature| !signature.is_empty()) else {
            return Err(Invalid::new(format!(
                "Unable to submit request because function call `{name}` in the {}. content block is missing a \
                 `thought_signature`.",
                place + 1
            )));
        };
        let is_unsigned = UNSIGNED
            .iter()
            .any(|word| signature == *word || state::decoded(signature).is_some_and(|bytes| bytes == word.as_bytes()));
        if !is_unsigned && !state::is_signed(model, name, signature) {
            return Err(Invalid::new("Thought signature is not valid."));
        }
    }
    Ok(())
}

/// Whether each call has its response, by id where there is one, else by name.
fn is_answered(calls: &[&Value], responses: &[&Value]) -> bool {
    let mut open: Vec<(&str, &str)> = calls.iter().map(|call| (text(call, "name"), text(call, "id"))).collect();
    for response in responses {
        let (name, id) = (text(response, "name"), text(response, "id"));
        let matches =
            |(call, known): &(&str, &str)| *call == name && (id.is_empty() || known.is_empty() || *known == id);
        match open.iter().position(matches) {
            Some(place) => drop(open.remove(place)),
            None => return false,
        }
    }
    open.is_empty()
}
