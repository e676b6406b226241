//! Which parts of a request to Anthropic's Messages are cached (Anthropic's guide to prompt caching, 2026).

use serde_json::Value;

use super::super::dialect::text_field;
use super::super::invalid::Invalid;
use super::prompt::{Block, FIVE_MINUTES, HOUR, Mark, Prompt, Rules};

/// The field of a block that marks it.
pub const MARK: &str = "cache_control";
/// Most marks of a request.
const MOST_MARKS: usize = 4;

/// The shortest prefix that is cached, tokens.
pub fn least(model: &str) -> usize {
    const LEAST: &[(usize, &[&str])] = &[
        (512, &["opus-5", "sonnet-5-5", "haiku-5-5", "fable-5", "mythos-5"]),
        (2_048, &["opus-4-7"]),
        (4_096, &["haiku-4-5", "opus-4-5", "opus-4-6"]),
    ];
    let row = LEAST.iter().find(|(_, names)| names.iter().any(|name| model.replace('.', "-").contains(name)));
    row.map_or(1_024, |(least, _)| *least)
}

/// A request as a prompt, or what is wrong with its marks.
pub fn prompt(body: &Value) -> Result<Prompt, Invalid> {
    let model = text_field(body, "model")?;
    let least = least(&model);
    let mut prompt = Prompt::new(model, Rules::Marks { least });
    prompt.depends("format", body.pointer("/output_config/format"));
    let list = |name: &str| body.get(name).and_then(Value::as_array).into_iter().flatten();
    for tool in list("tools") {
        prompt.push(block("tool", tool)?);
    }
    add(&mut prompt, "system", body.get("system"))?;
    // Another choice or way of thinking leaves tools and instructions as they were.
    for name in ["tool_choice", "thinking"] {
        prompt.depends(name, body.get(name));
    }
    prompt.depends("effort", body.pointer("/output_config/effort"));
    for message in list("messages") {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        add(&mut prompt, role, message.get("content"))?;
        prompt.end_message();
    }
    if let Some(mark) = body.get(MARK).filter(|mark| !mark.is_null())
        && let Some(last) = prompt.blocks.iter_mut().rfind(|block| block.counts && block.tokens > 0)
    {
        last.mark = Some(lived(mark)?);
    }
    check(&prompt)?;
    Ok(prompt)
}

fn add(prompt: &mut Prompt, role: &str, content: Option<&Value>) -> Result<(), Invalid> {
    match content {
        Some(Value::String(text)) => prompt.push(Block::text(role, text)),
        Some(Value::Array(blocks)) => {
            for one in blocks {
                prompt.push(block(role, one)?);
            }
        }
        _ => {}
    }
    Ok(())
}

fn block(role: &str, value: &Value) -> Result<Block, Invalid> {
    let mut block = Block::json(role, value, MARK);
    let Some(mark) = value.get(MARK).filter(|mark| !mark.is_null()) else { return Ok(block) };
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    if matches!(kind, "thinking" | "redacted_thinking") {
        return Err(Invalid::new(format!("{kind} blocks cannot have cache_control")));
    }
    if kind == "text" && block.tokens == 0 {
        return Err(Invalid::new("cache_control cannot be set for empty text blocks"));
    }
    block.mark = Some(lived(mark)?);
    Ok(block)
}

/// How long the entry of a mark is to live, or what is wrong with it.
pub fn lived(mark: &Value) -> Result<Mark, Invalid> {
    if mark.get("type").and_then(Value::as_str) != Some("ephemeral") {
        return Err(Invalid::new("cache_control.type: Input should be 'ephemeral'"));
    }
    match mark.get("ttl").map(|ttl| ttl.as_str().unwrap_or_default()) {
        None | Some("5m") => Ok(Mark(FIVE_MINUTES)),
        Some("1h") => Ok(Mark(HOUR)),
        _ => Err(Invalid::new("cache_control.ttl: Input should be '5m' or '1h'")),
    }
}

/// What is wrong with the marks of a prompt together.
pub fn check(prompt: &Prompt) -> Result<(), Invalid> {
    let marks: Vec<f64> = prompt.blocks.iter().filter_map(|block| block.mark).map(|Mark(life)| life).collect();
    if marks.len() > MOST_MARKS {
        return Err(Invalid::new(format!(
            "A maximum of {MOST_MARKS} blocks with cache_control may be provided. Found {}.",
            marks.len()
        )));
    }
    if marks.windows(2).any(|pair| pair[0] < pair[1]) {
        return Err(Invalid::new(
            "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. Note that blocks are \
             processed in the following order: `tools`, `system`, `messages`.",
        ));
    }
    Ok(())
}
