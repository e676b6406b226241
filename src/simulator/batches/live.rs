//! How a line is answered: by the code of the live endpoint, with the body that the endpoint would get.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::answers::{BatchAnswer, Model, Refusal};
use super::super::dialect::Dialect;
use super::super::dialects;
use super::super::invalid::Invalid;
use super::super::streams::event::Form;
use super::lines::banned_by_anthropic;
use super::order::Order;
use super::provider::Provider;

const RESPONSES: &str = "/v1/responses";

/// What is around a body of xAI's.
#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    chat_get_completion: Option<&'a RawValue>,
    #[serde(borrow)]
    responses: Option<&'a RawValue>,
}

/// The dialect in which a batch's lines are answered, and the model that their path names.
pub fn dialect(endpoint: &str) -> Option<(&'static dyn Dialect, Option<&str>)> {
    dialects::of(endpoint, None)
}

/// Answers a line as the live endpoint would.
///
/// # Errors
/// The status and the body of the error that it would give.
pub fn answer(order: &Order, line: usize, model: &Model) -> Result<BatchAnswer, Refusal> {
    let body = order.lines.body(line);
    let (endpoint, body) = sent(order, body);
    let Some((dialect, named)) = dialect(endpoint) else {
        return Err((404, order.provider.error(404, None, "there is no such endpoint")));
    };
    let invalid = |problem: String| (400, dialect.invalid(&Invalid::new(problem)));
    if order.provider == Provider::Anthropic
        && let Some(problem) = banned_by_anthropic(&body)
    {
        return Err(invalid(problem));
    }
    // A URL is the only way for images there.
    if order.provider == Provider::OpenRouter && memchr::memmem::find(&body, b"\"data:image/").is_some() {
        return Err(invalid("images must be given by URL in a batch".to_owned()));
    }
    let mut said = model.answer(dialect, &body, named)?;
    if said.question.form != Form::Whole {
        return Err(invalid("stream is not supported in a batch".to_owned()));
    }
    if order.provider == Provider::Gemini && !said.question.texts.is_empty() {
        said.body = one_of_several(&said.body);
    }
    Ok(said)
}

/// Tokens of a line's prompt, as they count in a queue; 0 if it cannot be read.
pub fn tokens(order: &Order, line: usize, model: &Model) -> u64 {
    let (endpoint, body) = sent(order, order.lines.body(line));
    let read = dialect(endpoint).and_then(|(dialect, named)| model.read(dialect, &body, named).ok());
    read.map_or(0, |(question, _)| question.input_tokens() as u64)
}

/// The endpoint and the body that a line stands for.
fn sent<'a>(order: &'a Order, body: &'a [u8]) -> (&'a str, Cow<'a, [u8]>) {
    let endpoint = order.endpoint.as_str();
    match (order.provider, &order.model) {
        (Provider::Mistral | Provider::OpenRouter, Some(model)) => (endpoint, with_model(body, model)),
        (Provider::Gemini, _) if endpoint.ends_with(":batchEmbedContents") => {
            (endpoint, Cow::Owned([&b"{\"requests\":["[..], body, b"]}"].concat()))
        }
        (Provider::Gemini, _) => (endpoint, in_camel_case(body)),
        (Provider::Xai, _) => match serde_json::from_slice::<Wrapped<'_>>(body) {
            Ok(Wrapped { responses: Some(inner), .. }) => (RESPONSES, Cow::Borrowed(inner.get().as_bytes())),
            Ok(Wrapped { chat_get_completion: Some(inner), .. }) => (endpoint, Cow::Borrowed(inner.get().as_bytes())),
            _ => (endpoint, Cow::Borrowed(body)),
        },
        _ => (endpoint, Cow::Borrowed(body)),
    }
}

/// A body with the model that was named once for all.
fn with_model<'a>(body: &'a [u8], model: &str) -> Cow<'a, [u8]> {
    match serde_json::from_slice::<Map<String, Value>>(body) {
        Ok(mut fields) if !fields.contains_key("model") => {
            fields.insert("model".to_owned(), model.into());
            Cow::Owned(serde_json::to_vec(&fields).unwrap_or_default())
        }
        _ => Cow::Borrowed(body),
    }
}

/// The reply with one vector, of a reply with a list of one.
fn one_of_several(body: &[u8]) -> Vec<u8> {
    let vector = body.strip_prefix(b"{\"embeddings\":[").and_then(|rest| rest.strip_suffix(b"]}"));
    [&b"{\"embedding\":"[..], vector.unwrap_or(b"null"), b"}"].concat()
}

/// Protobuf's JSON takes both spellings of fields; the live dialect reads one.
fn in_camel_case(body: &[u8]) -> Cow<'_, [u8]> {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(body) else { return Cow::Borrowed(body) };
    let inner = |value: &Value| value.as_object().is_some_and(|fields| fields.keys().any(|name| name.contains('_')));
    let config = ["generation_config", "generationConfig"].into_iter().find_map(|name| fields.get(name));
    if !fields.keys().any(|name| name.contains('_')) && !config.is_some_and(inner) {
        return Cow::Borrowed(body);
    }
    let named = fields.into_iter().map(|(name, value)| {
        let name = camel(&name);
        let value = match value {
            Value::Object(inner) if name == "generationConfig" || name == "toolConfig" => {
                inner.into_iter().map(|(name, value)| (camel(&name), value)).collect()
            }
            other => other,
        };
        (name, value)
    });
    Cow::Owned(serde_json::to_vec(&named.collect::<Map<_, _>>()).unwrap_or_default())
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        name + &first.into_iter().chain(letters).collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_brought_into_the_form_of_the_live_endpoint() {
        assert_eq!(&*with_model(br#"{"a":1}"#, "m"), br#"{"a":1,"model":"m"}"#);
        assert_eq!(&*with_model(br#"{"model":"own"}"#, "m"), br#"{"model":"own"}"#);
        let snake = br#"{"contents":[],"generation_config":{"max_output_tokens":3},"system_instruction":"x"}"#;
        let camel = br#"{"contents":[],"generationConfig":{"maxOutputTokens":3},"systemInstruction":"x"}"#;
        assert_eq!(&*in_camel_case(snake), camel);
        assert_eq!(&*in_camel_case(camel), camel);
        assert_eq!(one_of_several(br#"{"embeddings":[{"values":[1]}]}"#), br#"{"embedding":{"values":[1]}}"#);
    }
}
