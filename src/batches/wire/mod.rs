//! What the batch APIs of the providers speak: how a chunk is written and sent, and how what comes back is read. Pure:
//! nothing here sends or waits. A provider is one [`Wire`], made by [`wire_of`]; [`chunk`](super::chunk),
//! [`reconcile`](super::reconcile) and [`driver`](super::driver) use them.
//!
//! What is read is read leniently: unknown states, fields and lines end nothing.

mod anthropic;
mod fields;
mod gemini;
mod mistral;
mod openai;
mod openrouter;
mod shape;
#[cfg(test)]
mod tests;
mod xai;

pub use shape::{End, Finding, Frame, Limits, Outcome, Problem, Sealed, Seen, State, Upload, Wire, read_line};

/// The batch API of a provider, by its name in the table, for requests that would go to this path below the base URL.
/// Servers that imitate OpenAI rarely have batches: those with a row of their own (vLLM, Ollama) are not asked.
///
/// # Errors
/// Why there is none.
pub fn wire_of(provider: &str, path: &str) -> Result<Box<dyn Wire>, String> {
    let wire: Box<dyn Wire> = match (provider, path) {
        ("openai", _) => Box::new(openai::OpenAi::itself(path)),
        ("azure", "chat/completions" | "responses") => Box::new(openai::OpenAi::azure(path)),
        ("groq", "chat/completions") => Box::new(openai::OpenAi::groq(path)),
        ("together", "chat/completions") => Box::new(openai::OpenAi::together(path)),
        ("anthropic", _) => Box::new(anthropic::Anthropic),
        ("gemini", _) => Box::new(gemini::Gemini::new(path).map_err(|path| not_for(provider, &path))?),
        ("mistral", "chat/completions" | "embeddings") => Box::new(mistral::Mistral::new(path)),
        ("xai", "chat/completions") => Box::new(xai::Xai),
        ("openrouter", "chat/completions") => Box::new(openrouter::OpenRouter::new(path)),
        ("azure" | "groq" | "together" | "mistral" | "xai" | "openrouter", _) => return Err(not_for(provider, path)),
        _ => return Err(format!("{provider} has no batches; use lane='live'")),
    };
    Ok(wire)
}

fn not_for(provider: &str, path: &str) -> String {
    let what = if path.to_ascii_lowercase().contains("embed") { "embeddings" } else { path };
    format!("{provider} has no batches for {what}; use lane='live'")
}
