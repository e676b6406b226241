//! Replies to Chat Completions: the same request always gets the same text and the same usage.

use std::borrow::Cow;

use serde::Deserialize;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Cow<'a, str>,
}

/// The body of the reply, or what is wrong with the request.
///
/// The text is the template that the prompt's hash picks, with `{excerpt}` (the beginning of the prompt's last
/// line) and `{digest}` (its hash) filled in, safe to stand inside a JSON string. A token is four characters.
pub fn reply(body: &[u8], templates: &[String]) -> Result<String, String> {
    let request: Request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let prompt = request.messages.last().ok_or("messages is empty")?;
    let digest = hash(prompt.content.as_bytes());
    let template = templates.get(usize::try_from(digest % templates.len().max(1) as u64).unwrap_or(0));
    let text = template.map_or("Simulated reply {digest}: {excerpt}", String::as_str);
    let text = text.replace("{digest}", &format!("{digest:016x}")).replace("{excerpt}", &excerpt(&prompt.content));
    let input: usize = request.messages.iter().map(|message| tokens(&message.content)).sum();
    let output = tokens(&text);
    Ok(serde_json::json!({
        "id": format!("chatcmpl-{digest:016x}"),
        "object": "chat.completion",
        "created": 0,
        "model": request.model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}},
    })
    .to_string())
}

fn tokens(text: &str) -> usize {
    text.len().div_ceil(4)
}

fn excerpt(prompt: &str) -> String {
    const LONGEST: usize = 100;
    let line = prompt.trim_end().lines().next_back().unwrap_or_default().trim();
    line.chars().take(LONGEST).filter(|letter| !matches!(letter, '"' | '\\') && !letter.is_control()).collect()
}

/// FNV-1a, 64 bits: stable over runs, machines and versions, unlike the standard library's hasher.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"model": "m", "messages": [{"role": "user", "content": "Say \"hello\"\nto me"}], "n": 1}"#;

    #[test]
    fn the_same_request_gets_the_same_reply() {
        let first = reply(BODY, &[]).unwrap();
        assert_eq!(first, reply(BODY, &[]).unwrap());
        let value: serde_json::Value = serde_json::from_str(&first).unwrap();
        let text = value["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(text.starts_with("Simulated reply ") && text.ends_with(": to me"), "{text}");
        assert_eq!(value["usage"]["prompt_tokens"], 5);
    }

    #[test]
    fn templates_are_filled_in() {
        let value: serde_json::Value =
            serde_json::from_str(&reply(BODY, &[r#"{"said": "{excerpt}"}"#.to_owned()]).unwrap()).unwrap();
        assert_eq!(value["choices"][0]["message"]["content"], r#"{"said": "to me"}"#);
    }

    #[test]
    fn a_wrong_request_is_told_what_is_wrong() {
        assert!(reply(b"{", &[]).unwrap_err().contains("EOF"));
        assert!(reply(br#"{"messages": []}"#, &[]).unwrap_err().contains("model"));
        assert!(reply(br#"{"model": "m", "messages": []}"#, &[]).unwrap_err().contains("messages is empty"));
    }
}
