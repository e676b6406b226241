//! What a client makes of replies, with no server.

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::providers::error::Category;
use crate::providers::keys::Auth;
use crate::providers::table::Api;
use crate::providers::{table, testing};

fn client(options: serde_json::Value) -> Client {
    Client::new(Parts {
        dialect: table::row("openai").unwrap().dialect("m", Api::Usual),
        base_url: "http://localhost/v1".to_owned(),
        keys: Keys::new(Auth::Bearer, &[]).unwrap(),
        signer: None,
        periods: Periods::default(),
        options: testing::options(options),
        headers: vec![],
        transport: TransportOptions::default(),
        caching: Caching::None,
        raw: false,
    })
    .unwrap()
}

fn finish(client: &Client, choices: serde_json::Value) -> Result<Reply, ProviderError> {
    let body = json!({"choices": choices, "usage": {"prompt_tokens": 3}}).to_string();
    let received =
        Received { headers: HeaderMap::new(), body: Bytes::from(body), first_token: None, is_stopped: false };
    let answer = client.0.dialect.read(&received.body, &received.headers)?;
    client.0.finish(answer, received, None)
}

fn category(result: Result<Reply, ProviderError>) -> Option<&'static str> {
    result.err().map(|error| error.category().name())
}

#[test]
fn answers_of_no_use_are_told_apart_and_counted() {
    let (text, structured) =
        (client(json!({})), client(json!({"schema": {"name": "S", "schema": {"type": "object"}, "check": true}})));
    let said = |content: &str, finish: &str| json!([{"message": {"content": content}, "finish_reason": finish}]);
    let refusal = json!([{"message": {"content": null, "refusal": "I can't"}}]);
    assert_eq!(category(finish(&text, refusal.clone())), Some("refusal"));
    assert!(finish(&text, refusal).unwrap_err().to_string().contains("I can't"));
    assert_eq!(category(finish(&text, said("", "content_filter"))), Some("content_filter"));
    assert_eq!(category(finish(&text, said("", "stop"))), Some("empty_response"));
    assert_eq!(category(finish(&text, said("", "length"))), Some("truncated"));
    // A text that is cut off is a text; an object that is cut off is none.
    assert_eq!(category(finish(&text, said("Once upon", "length"))), None);
    let cut = finish(&structured, said("{\"a\":", "length")).unwrap_err();
    assert_eq!((cut.category().name(), cut.usage().unwrap().input), ("truncated", 3));
    let calls = json!([{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]);
    assert_eq!(category(finish(&structured, calls)), None);
}

#[test]
fn checked_answers_are_values() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let client = client(json!({"schema": {"name": "S", "schema": schema, "check": true}}));
    let said = |content: &str| json!([{"message": {"content": content}, "finish_reason": "stop"}]);
    let reply = finish(&client, said("```json\n{\"n\": 1}\n```")).unwrap();
    assert!(reply.choices()[0].checked);
    assert_eq!(reply.choices()[0].text, "{\"n\": 1}");
    let error = finish(&client, said("{\"n\": \"x\"}")).unwrap_err();
    assert!(matches!(&error, ProviderError::Validation { text, .. } if text == "{\"n\": \"x\"}"), "{error}");
    assert!(finish(&client, said("no")).unwrap_err().to_string().contains("no JSON"));
}

#[test]
fn samples_of_no_use_are_left_out() {
    let samples = json!([{"message": {"content": "a"}}, {"message": {"content": ""}}, {"message": {"content": "c"}}]);
    let reply = finish(&client(json!({"n": 3})), samples).unwrap();
    let texts: Vec<&str> = reply.choices().iter().map(|choice| choice.text.as_str()).collect();
    assert_eq!(texts, ["a", "c"]);
}

#[test]
fn html_is_called_by_its_name() {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let received = Received { headers, body: Bytes::from_static(b"<html>"), first_token: None, is_stopped: false };
    let error = client(json!({})).0.dialect.read(&received.body, &received.headers).unwrap_err();
    assert!(with_type(error, &received).to_string().contains("HTML page"));
}

#[test]
fn an_open_request_takes_little() {
    let attempt = client(json!({})).attempt(Ask::new(crate::providers::prompt::Prompt::Text(String::new().into())));
    // What is longer, malloc's caches for small blocks (glibc: up to 1,032 bytes) do not serve.
    assert!(size_of_val(&*attempt) <= 1024, "{} bytes", size_of_val(&*attempt));
}

fn unasked(name: &str, kind: &str, body: &str) -> Result<Answer, ProviderError> {
    let dialect = table::row(name).unwrap().dialect("m", Api::Usual);
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap())]);
    let received = Received { headers, body: Bytes::from(body.to_owned()), first_token: None, is_stopped: false };
    let received = streamed::fold_unrequested(&*dialect, "m", received)?;
    dialect.read(&received.body, &received.headers)
}

#[test]
fn streams_that_nobody_asked_for_are_read() {
    const EVENTS: &str = "text/event-stream; charset=utf-8";
    let said = |text: &str, why: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":{why}}}]}}\n\n")
    };
    let whole = said("hi ", "null") + &said("there", "\"stop\"") + "data: [DONE]\n\n";
    for kind in [EVENTS, "application/json"] {
        assert_eq!(unasked("openai", kind, &whole).unwrap().choices[0].text, "hi there");
    }
    let cut = unasked("openai", EVENTS, &said("hi ", "null")).unwrap_err();
    assert_eq!(cut.category(), Category::Connection);
    assert!(matches!(&cut, ProviderError::Cut(cut) if cut.text == "hi "), "{cut}");
    let failed = said("hi ", "null") + "data: {\"error\":{\"code\":429,\"message\":\"slow down\"}}\n\n";
    assert_eq!(unasked("openai", EVENTS, &failed).unwrap_err().category(), Category::RateLimit);
    // Plain replies stay what they are, also in the frame of an event.
    let plain = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]});
    for body in [plain.to_string(), format!("data: {plain}\n\ndata: [DONE]\n\n")] {
        assert_eq!(unasked("openai", EVENTS, &body).unwrap().choices[0].text, "x");
    }
    let message = json!({"type": "message", "content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"});
    assert_eq!(unasked("anthropic", EVENTS, &format!("data: {message}\n\n")).unwrap().choices[0].text, "x");
    let response = json!({"status": "completed", "output": [{"type": "message", "role": "assistant",
        "content": [{"type": "output_text", "text": "x"}]}]});
    let dialect = table::row("openai").unwrap().dialect("m", Api::Responses);
    let body = Bytes::from(format!("data: {response}\n\n"));
    let received = Received { headers: HeaderMap::new(), body, first_token: None, is_stopped: false };
    let received = streamed::fold_unrequested(&*dialect, "m", received).unwrap();
    assert_eq!(dialect.read(&received.body, &received.headers).unwrap().choices[0].text, "x");
}
