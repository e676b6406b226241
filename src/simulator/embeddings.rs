//! OpenAI's embeddings, as a server speaks them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::dialect::{Answer, size_field, text, text_field, tree};
use super::model::{Question, tokens};
use super::openai::OpenAi;

/// OpenAI's embeddings.
pub const EMBEDDINGS: OpenAi = OpenAi {
    question: |body| Ok(question(&tree(body)?)?),
    prompt: |_| Ok(None),
    answer: |ready| text(&answer(ready)),
    streaming: None,
};

fn question(body: &Value) -> Result<Question, String> {
    let texts = match body.get("input") {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or("input must be a list of strings"))
            .collect::<Result<_, _>>()?,
        _ => return Err("input must be a string or a list of strings".to_owned()),
    };
    if texts.is_empty() || texts.len() > 2048 {
        return Err(format!("input must have 1 to 2048 texts, not {}", texts.len()));
    }
    if let Some(place) = texts.iter().position(|text| text.is_empty() || tokens(text) > 8192) {
        return Err(format!("input[{place}] must have 1 to 8192 tokens"));
    }
    Ok(Question {
        model: text_field(body, "model")?,
        texts,
        dimensions: size_field(body, "dimensions"),
        base64: body.get("encoding_format").and_then(Value::as_str) == Some("base64"),
        ..Question::default()
    })
}

fn answer(answer: &Answer<'_>) -> Value {
    let data = answer.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if answer.question.base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Value::String(STANDARD.encode(bytes))
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    let input = answer.question.input_tokens();
    json!({"object": "list", "data": data.collect::<Vec<_>>(), "model": answer.question.model,
        "usage": {"prompt_tokens": input, "total_tokens": input}})
}
