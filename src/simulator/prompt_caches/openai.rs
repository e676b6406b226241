//! Which parts of a request to OpenAI are cached (OpenAI's guide to prompt caching, 2026-09).

use serde_json::Value;

use super::super::dialect::text_field;
use super::super::invalid::Invalid;
use super::anthropic;
use super::prompt::{Block, FIVE_MINUTES, HOUR, Mark, OPENAI_LEAST, Prompt, Rules};

/// The field of a block that marks it.
const MARK: &str = "prompt_cache_breakpoint";
/// Models of Anthropic at OpenRouter, which are marked as at Anthropic.
const OF_ANTHROPIC: &str = "anthropic/";
/// Longest key, characters.
const LONGEST_KEY: usize = 64;
/// The life of entries, seconds.
const HALF_HOUR: f64 = 1_800.0;
/// Steps of models that cache automatically, tokens.
const STEP: usize = 128;
const LONG_STEP: usize = 2_048;

/// Whether a model caches at breakpoints: gpt-5.6 and later.
fn has_breakpoints(model: &str) -> bool {
    version(model).is_some_and(|version| version >= (5, 6))
}

/// The version in a model's name.
fn version(model: &str) -> Option<(u32, u32)> {
    let rest = model.strip_prefix("gpt-")?;
    let number = rest.split('-').next()?;
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A request to Chat Completions as a prompt, or what is wrong with its marks.
pub fn chat_prompt(body: &Value) -> Result<Prompt, Invalid> {
    let mut prompt = begin(body, &["response_format", "reasoning_effort", "verbosity"], false)?;
    for message in list(body, "messages") {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        let name = message.get("name").and_then(Value::as_str).unwrap_or_default();
        content(&mut prompt, &format!("{role}{name}"), message.get("content"), message)?;
        for call in list(message, "tool_calls") {
            prompt.push(Block::text(role, call.to_string()));
        }
        prompt.end_message();
    }
    if matches!(prompt.rules, Rules::Marks { .. }) {
        anthropic::check(&prompt)?;
    }
    Ok(prompt)
}

/// A request to Responses as a prompt, or what is wrong with its marks.
pub fn responses_prompt(body: &Value) -> Result<Prompt, Invalid> {
    let mut prompt = begin(body, &["text", "reasoning"], true)?;
    if let Some(text) = body.get("instructions").and_then(Value::as_str) {
        prompt.push(Block::text("instructions", text));
        prompt.end_message();
    }
    if let Some(text) = body.get("input").and_then(Value::as_str) {
        prompt.push(Block::text("user", text));
        prompt.end_message();
    }
    for item in list(body, "input") {
        let role = item.get("role").and_then(Value::as_str);
        match (role, item.get("output")) {
            (Some(role), _) => content(&mut prompt, role, item.get("content"), item)?,
            (None, Some(output)) => {
                let id = item.get("call_id").and_then(Value::as_str).unwrap_or_default();
                content(&mut prompt, &format!("tool{id}"), Some(output), item)?;
            }
            _ => prompt.push(Block::text("assistant", item.to_string())),
        }
        prompt.end_message();
    }
    Ok(prompt)
}

fn list<'a>(body: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    body.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// What entries depend on before the conversation.
fn begin(body: &Value, names: &[&str], is_responses: bool) -> Result<Prompt, Invalid> {
    let model = text_field(body, "model")?;
    let key = body.get("prompt_cache_key").and_then(Value::as_str).unwrap_or_default();
    if key.chars().count() > LONGEST_KEY {
        return Err(Invalid::new(format!(
            "Invalid 'prompt_cache_key': string too long. Expected a string with maximum length {LONGEST_KEY}, but got \
             a string with length {} instead.",
            key.chars().count()
        ))
        .at("prompt_cache_key"));
    }
    let rules = if let Some(model) = model.strip_prefix(OF_ANTHROPIC) {
        Rules::Marks { least: anthropic::least(model) }
    } else if has_breakpoints(&model) {
        breakpoints(body, is_responses)?
    } else {
        automatic(body, &model)?
    };
    let mut prompt = Prompt { key: key.to_owned(), ..Prompt::new(model, rules) };
    for name in names.iter().chain(&["parallel_tool_calls", "tool_choice"]) {
        prompt.depends(name, body.get(name));
    }
    for tool in list(body, "tools") {
        prompt.push(Block::text("tool", tool.to_string()));
    }
    Ok(prompt)
}

fn breakpoints(body: &Value, is_responses: bool) -> Result<Rules, Invalid> {
    let options = body.get("prompt_cache_options").unwrap_or(&Value::Null);
    let word = |name: &str| options.get(name).map(|value| value.as_str().unwrap_or_default());
    let implicit = match word("mode") {
        None | Some("implicit") => true,
        Some("explicit") => false,
        _ => return Err(invalid("prompt_cache_options.mode", "Supported values are: 'implicit' and 'explicit'.")),
    };
    let life = match word("ttl") {
        None | Some("30m") => HALF_HOUR,
        Some("12h") if is_responses => 12.0 * HOUR,
        _ => return Err(invalid("prompt_cache_options.ttl", "Supported values are: '30m' and, in Responses, '12h'.")),
    };
    Ok(Rules::Breakpoints { implicit, life })
}

fn automatic(body: &Value, model: &str) -> Result<Rules, Invalid> {
    if body.get("prompt_cache_options").is_some() {
        return Err(unsupported("prompt_cache_options"));
    }
    let life = match body.get("prompt_cache_retention").and_then(Value::as_str) {
        Some("24h") => HALF_HOUR,
        _ => FIVE_MINUTES,
    };
    let step = if version(model) == Some((5, 5)) { LONG_STEP } else { STEP };
    Ok(Rules::Automatic { least: OPENAI_LEAST.max(step), step, life, is_spread: true })
}

fn content(prompt: &mut Prompt, role: &str, content: Option<&Value>, item: &Value) -> Result<(), Invalid> {
    if item.get(MARK).is_some() {
        return Err(invalid(MARK, "It belongs on a block of the content."));
    }
    match content {
        Some(Value::String(text)) => prompt.push(Block::text(role, text)),
        Some(Value::Array(parts)) => {
            for part in parts {
                let block = marked(prompt, role, part)?;
                prompt.push(block);
            }
        }
        _ => {}
    }
    Ok(())
}

fn marked(prompt: &Prompt, role: &str, part: &Value) -> Result<Block, Invalid> {
    let mut block = Block::json(role, part, MARK);
    if let (Rules::Marks { .. }, Some(mark)) = (prompt.rules, part.get(anthropic::MARK)) {
        let mut block = Block::json(role, part, anthropic::MARK);
        block.mark = Some(anthropic::lived(mark)?);
        return Ok(block);
    }
    let Some(mark) = part.get(MARK) else { return Ok(block) };
    let Rules::Breakpoints { life, .. } = prompt.rules else { return Err(unsupported(MARK)) };
    if mark.get("mode").and_then(Value::as_str) != Some("explicit") {
        return Err(invalid(&format!("{MARK}.mode"), "Supported values are: 'explicit'."));
    }
    if role == "assistant" {
        return Err(invalid(MARK, "Outputs of the model cannot have breakpoints."));
    }
    block.mark = Some(Mark(life));
    Ok(block)
}

fn invalid(param: &str, problem: &str) -> Invalid {
    Invalid::new(format!("Invalid value: '{param}'. {problem}")).at(param)
}

fn unsupported(param: &str) -> Invalid {
    Invalid::new(format!("Unsupported parameter: '{param}' is not supported with this model.")).at(param)
}
