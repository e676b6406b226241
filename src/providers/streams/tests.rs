//! Streams as the vendors send them, and what they come to.

use http::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::providers::dialect::{Answer, Dialect};
use crate::providers::table::{Api, row};
use crate::providers::{Category, ProviderError};

fn dialect(name: &str) -> Box<dyn Dialect> {
    match name {
        "responses" => row("openai").unwrap().dialect("m", Api::Responses),
        name => row(name).unwrap().dialect("m", Api::Usual),
    }
}

fn folded(dialect: &dyn Dialect, stream: &str, step: usize) -> (Option<Vec<u8>>, Folded) {
    let mut folded = Folded::new((dialect.streaming("m").unwrap().fold)(), None);
    for part in stream.as_bytes().chunks(step) {
        folded.push(part);
    }
    (folded.end(), folded)
}

fn events(events: &[Value]) -> String {
    let line = |event: &Value| {
        let name = event["type"].as_str().map_or(String::new(), |name| format!("event: {name}\n"));
        format!("{name}data: {event}\n\n")
    };
    events.iter().map(line).collect()
}

/// Reads a stream, however it is split, and the plain reply that it stands for: both have to say the same.
fn same(name: &str, stream: &str, plain: &Value) -> Answer {
    let dialect = dialect(name);
    let plain = dialect.read(plain.to_string().as_bytes(), &HeaderMap::new()).unwrap();
    for step in [1, 7, 4096] {
        let Some(body) = folded(&*dialect, stream, step).0 else { panic!("{stream} was cut") };
        let streamed = dialect.read(&body, &HeaderMap::new()).unwrap();
        assert_eq!(format!("{streamed:?}"), format!("{plain:?}"));
    }
    plain
}

fn cut(name: &str, stream: &str) -> String {
    let dialect = dialect(name);
    match folded(&*dialect, stream, 5) {
        (Some(body), _) => panic!("{} is no whole reply", String::from_utf8_lossy(&body)),
        (None, folded) => {
            let so_far = folded.so_far().unwrap();
            let answer = dialect.read(so_far.as_bytes(), &HeaderMap::new());
            answer.map(|answer| answer.choices[0].text.clone()).unwrap_or_default()
        }
    }
}

fn error(name: &str, stream: &str) -> ProviderError {
    let dialect = dialect(name);
    let Some(body) = folded(&*dialect, stream, 5).0 else { panic!("{stream} was cut") };
    dialect.read(&body, &HeaderMap::new()).unwrap_err()
}

fn chunk(choices: Value, usage: Value) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": choices,
        "usage": usage, "service_tier": "flex", "obfuscation": "xyz"})
}

#[test]
fn chat_with_samples_that_interleave() {
    let said = |index: usize, text: &str| {
        json!({"index": index, "delta": {"content": text}, "logprobs": {"content": [{"token": text, "logprob": -1}],
            "refusal": null}, "finish_reason": null})
    };
    let role = |index: usize| json!({"index": index, "delta": {"role": "assistant", "content": "", "refusal": null}});
    let end = |index: usize, why: &str| json!({"index": index, "delta": {}, "finish_reason": why});
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9});
    let stream = events(&[
        chunk(json!([role(0)]), json!(null)),
        chunk(json!([role(1)]), json!(null)),
        chunk(json!([said(0, "Grü")]), json!(null)),
        chunk(json!([said(1, "a")]), json!(null)),
        chunk(json!([said(0, "ße \u{1f600}")]), json!(null)),
        chunk(json!([end(1, "length")]), json!(null)),
        chunk(json!([end(0, "stop")]), json!(null)),
        chunk(json!([]), usage.clone()),
    ]) + "data: [DONE]\n\n";
    let sample = |index: usize, parts: &[&str], why: &str| {
        let logprobs: Vec<Value> = parts.iter().map(|part| json!({"token": part, "logprob": -1})).collect();
        json!({"index": index, "message": {"role": "assistant", "content": parts.concat(), "refusal": null},
            "logprobs": {"content": logprobs, "refusal": null}, "finish_reason": why})
    };
    let plain = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m-1", "service_tier": "flex",
        "choices": [sample(0, &["Grü", "ße \u{1f600}"], "stop"), sample(1, &["a"], "length")], "usage": usage});
    assert_eq!(same("openai", &stream, &plain).usage.output, 4);
    // The end of one sample is not the end of the other.
    let open = stream.split("\"finish_reason\":\"stop\"").next().unwrap().rsplit_once("data:").unwrap().0;
    assert_eq!(cut("openai", open), "Grüße \u{1f600}");
}

#[test]
fn chat_with_calls_and_thoughts() {
    let delta = |delta: Value| json!({"model": "m", "choices": [{"index": 0, "delta": delta}]});
    let function = |name: Value, arguments: &str| json!({"name": name, "arguments": arguments});
    let stream = ": OPENROUTER PROCESSING\n\n".to_owned()
        + &events(&[
            delta(json!({"role": "assistant", "content": null, "reasoning_content": "Let "})),
            delta(json!({"reasoning_content": "me see"})),
            delta(
                json!({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": function(json!("f"), "")}]}),
            ),
            delta(
                json!({"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": function(json!("g"), "{}")}]}),
            ),
            delta(json!({"tool_calls": [{"index": 0, "function": function(json!(null), "{\"x\":")}]})),
            delta(json!({"tool_calls": [{"index": 0, "function": function(json!(null), " 1}")}]})),
            json!({"model": "m", "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "tool_calls"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
        ]);
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": function(json!(name), arguments)});
    let plain = json!({"model": "m", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": null, "reasoning_content": "Let me see",
        "tool_calls": [call("a", "f", "{\"x\": 1}"), call("b", "g", "{}")]}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2}});
    let answer = same("deepseek", &stream, &plain);
    assert_eq!(answer.choices[0].tool_calls.len(), 2);
    // Servers that give no index begin a new call with a new id.
    let stream = stream.replace("\"index\":1,", "").replace("\"index\":0,\"function\"", "\"function\"");
    let stream = stream.replace(
        "{\"function\":{\"arguments\":\"{\\\"x\\\":\",\"name\":null}}",
        "{\"id\":\"c\",\"function\":{\"name\":\"h\",\"arguments\":\"\"}}",
    );
    assert!(folded(&*dialect("deepseek"), &stream, 9).0.is_some());
}

#[test]
fn calls_with_the_same_index_are_told_by_their_ids() {
    let calls = |fragments: &[Value]| {
        let delta = |call: &Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]});
        let mut stream: Vec<Value> = fragments.iter().map(delta).collect();
        stream.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}));
        let dialect = dialect("openai");
        let body = folded(&*dialect, &events(&stream), 9).0.unwrap();
        let answer = dialect.read(&body, &HeaderMap::new()).unwrap();
        let told = answer.choices[0].tool_calls.iter();
        told.map(|call| (call.id.clone(), call.name.clone(), call.arguments.clone())).collect::<Vec<_>>()
    };
    let call = |id: &str, name: &str, arguments: &str| json!({"index": 0, "id": id, "function": {"name": name, "arguments": arguments}});
    let told = |id: &str, name: &str, arguments: &str| (id.to_owned(), name.to_owned(), arguments.to_owned());
    // Gemini's interface for OpenAI's clients.
    let whole = calls(&[call("a", "f", "{}"), call("b", "g", "{\"x\":1}"), call("c", "g", "{}")]);
    assert_eq!(whole, [told("a", "f", "{}"), told("b", "g", "{\"x\":1}"), told("c", "g", "{}")]);
    // What has no id goes on with the last; what repeats one, with its own.
    let parts = [
        call("a", "f", "{"),
        json!({"index": 0, "function": {"arguments": "}"}}),
        call("b", "g", "{\"x\""),
        call("", "", ":"),
        call("b", "g", "1}"),
        call("a", "f", " "),
        call("a", "", " "),
    ];
    assert_eq!(calls(&parts), [told("a", "f", "{}  "), told("b", "g", "{\"x\":1}")]);
    // Servers that make up an id for each fragment name the function only once.
    assert_eq!(calls(&[call("a", "f", "{"), call("z", "", "}")]), [told("a", "f", "{}")]);
}

#[test]
fn chat_that_fails_on_the_way() {
    let begun = events(&[chunk(json!([{"index": 0, "delta": {"content": "Hel"}}]), json!(null))]);
    assert_eq!(cut("openai", &begun), "Hel");
    let silent = events(&[chunk(json!([{"index": 0, "delta": {"role": "assistant", "content": ""}}]), json!(null))]);
    assert_eq!(cut("openai", &(silent.clone() + "data: [DONE]\n\n")), "");
    let thinks = events(&[chunk(json!([{"index": 0, "delta": {"reasoning_content": "Hm"}}]), json!(null))]);
    assert_eq!(cut("openai", &(silent + &thinks + "data: [DONE]\n\n")), "");
    let overloaded = begun.clone() + "data: {\"error\":{\"code\":503,\"message\":\"overloaded\"}}\n\ndata: [DONE]\n\n";
    assert_eq!(error("openai", &overloaded).category(), Category::Overload);
    let limited = begun
        + "data: {\"id\":\"c\",\"error\":{\"code\":429,\"message\":\"Rate limit\"},\"choices\":[{\"index\":0,\
        \"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n";
    assert_eq!(error("openrouter", &limited).category(), Category::RateLimit);
}

#[test]
fn chat_without_a_reason_for_the_end_ends_with_its_mark() {
    let delta = |index: usize, delta: Value| json!({"model": "m", "choices": [{"index": index, "delta": delta}]});
    let call = json!({"id": "a", "function": {"name": "f", "arguments": "{}"}});
    let begun = events(&[delta(0, json!({"content": "Hel"})), delta(0, json!({"content": "lo"}))]);
    let message = |message: Value| json!({"model": "m", "choices": [{"message": message, "finish_reason": null}]});
    let done = begun.clone() + "data: [DONE]\n\n";
    same("openai", &done, &message(json!({"content": "Hello"})));
    let called = events(&[delta(0, json!({"tool_calls": [call]}))]) + "data: [DONE]\n\n";
    same("openai", &called, &message(json!({"content": null, "tool_calls": [call]})));
    assert_eq!(cut("openai", &begun), "Hello");
    // Another sample has said nothing.
    assert_eq!(cut("openai", &(events(&[delta(1, json!({"role": "assistant"}))]) + &done)), "Hello");
}

#[test]
fn an_event_that_cannot_be_read_ends_the_stream() {
    let said = |text: &str| events(&[chunk(json!([{"index": 0, "delta": {"content": text}}]), json!(null))]);
    let end = events(&[chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]), json!(null))]);
    let dialect = dialect("openai");
    let not = said("NOT ");
    for missing in [3, 5, 20, 60] {
        let broken = format!("{}\n\n", &not[..not.len() - missing]);
        let (body, folded) = folded(&*dialect, &format!("{}{broken}{}{end}", said("Do "), said("pay.")), 7);
        assert!(body.is_none() && folded.is_damaged(), "{broken}");
        assert!(folded.last().contains("not valid JSON"), "{}", folded.last());
        assert!(folded.so_far().is_some_and(|body| body.contains("\"Do \"")), "{broken}");
    }
    // A connection that closes within an event cuts it off; whether the answer is whole is said before.
    assert!(folded(&*dialect, &format!("{}{end}data: {{\"usage\"", said("Do")), 7).0.is_some());
    assert_eq!(cut("openai", &format!("{}data: {{\"choices\"", said("Do"))), "Do");
}

#[test]
fn events_are_read_as_leniently_as_plain_replies() {
    let text = |data: &str| format!("data: {data}\n\n");
    let said = |more: &str| format!("{{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{more}}}}}]}}");
    let end = "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"x\":NaN}";
    let stream = text(&said("\"a\""))
        + &text(&format!("\u{feff}{}", said("\"b\\ud83d\"")))
        + &text(&said("\"c\",\"score\":-Infinity"))
        + "data: waiting\n\ndata:\n\ndata: \"{\"\n\n"
        // Without the empty line between events, and with the last mark beside one.
        + &format!("data: {}\ndata: {}\n\n", said("\"d\""), said("\"e\""))
        + &format!("data: {end}\ndata: [DONE]\n\n");
    let dialect = dialect("openai");
    for step in [1, 4096] {
        let body = folded(&*dialect, &stream, step).0.unwrap();
        let answer = dialect.read(&body, &HeaderMap::new()).unwrap();
        assert_eq!(answer.choices[0].text, "ab\u{fffd}cde");
    }
}

#[test]
fn a_plain_reply_in_place_of_a_stream_is_taken() {
    let plain = json!({"model": "m", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]});
    same("openai", &format!("\u{feff}\n {plain}"), &plain);
    assert!(error("openai", "<html>").to_string().contains("html"));
}

#[test]
fn responses_end_with_the_whole_reply() {
    let message = json!({"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text",
        "text": "Hello", "annotations": []}]});
    let whole = json!({"id": "r", "status": "completed", "model": "m-1", "output": [message],
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}});
    let mut empty = whole.clone();
    empty["output"] = json!(null);
    let stream = |end: &Value| {
        events(&[
            json!({"type": "response.created", "sequence_number": 0, "response": {"id": "r", "status": "in_progress",
                "model": "m-1", "output": [], "error": null}}),
            json!({"type": "keepalive", "sequence_number": 1}),
            json!({"type": "response.output_text.delta", "output_index": 0, "delta": "Hel", "logprobs": []}),
            json!({"type": "response.output_text.delta", "output_index": 0, "delta": "lo", "logprobs": []}),
            json!({"type": "response.output_item.done", "output_index": 0, "item": message}),
            json!({"type": "response.completed", "response": end}),
        ])
    };
    same("responses", &stream(&whole), &whole);
    same("responses", &stream(&empty), &whole);
    let begun = stream(&whole);
    let begun = begun.split("event: response.output_item.done").next().unwrap();
    assert_eq!(cut("responses", begun), "Hello");
    let failed = begun.to_owned()
        + &events(&[json!({"type": "response.failed", "response": {"id": "r", "status": "failed", "output": [],
            "error": {"code": "rate_limit_exceeded", "message": "Rate limit reached"}}})]);
    assert_eq!(error("responses", &failed).category(), Category::RateLimit);
    let broken = begun.to_owned()
        + &events(&[json!({"type": "error", "code": "server_error", "message": "failed", "param": null})]);
    assert_eq!(error("responses", &broken).category(), Category::Server);
}

#[test]
fn messages_with_thoughts_calls_and_totals() {
    let delta = |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let start =
        |index: usize, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let stop = |index: usize| json!({"type": "content_block_stop", "index": index});
    let begun = events(&[
        json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "c",
            "content": [], "stop_reason": null, "usage": {"input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 1}}}),
        start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        json!({"type": "ping"}),
        delta(0, json!({"type": "thinking_delta", "thinking": "Hm"})),
        delta(0, json!({"type": "thinking_delta", "thinking": "m"})),
        delta(0, json!({"type": "signature_delta", "signature": "sig"})),
        stop(0),
        start(1, json!({"type": "text", "text": ""})),
        delta(1, json!({"type": "text_delta", "text": "I "})),
        delta(1, json!({"type": "text_delta", "text": "look"})),
        stop(1),
        start(2, json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})),
        delta(2, json!({"type": "input_json_delta", "partial_json": ""})),
        delta(2, json!({"type": "input_json_delta", "partial_json": "{\"x\": \"\\u00e"})),
        delta(2, json!({"type": "input_json_delta", "partial_json": "9\"}"})),
        stop(2),
        start(3, json!({"type": "tool_use", "id": "u", "name": "g", "input": {}})),
        stop(3),
    ]);
    let end = json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
        "usage": {"input_tokens": 9, "cache_read_input_tokens": null, "output_tokens": 40}});
    let whole = begun.clone() + &events(&[end, json!({"type": "message_stop"})]);
    let plain = format!(
        "{{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c\",\"content\":[{},{},{},{}],\
         \"stop_reason\":\"tool_use\",\"stop_sequence\":null,\"usage\":{}}}",
        json!({"type": "thinking", "thinking": "Hmm", "signature": "sig"}),
        json!({"type": "text", "text": "I look"}),
        "{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{\"x\": \"\\u00e9\"}}",
        json!({"type": "tool_use", "id": "u", "name": "g", "input": {}}),
        json!({"input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 40}),
    );
    let dialect = dialect("anthropic");
    let streamed = dialect.read(&folded(&*dialect, &whole, 3).0.unwrap(), &HeaderMap::new()).unwrap();
    let plain = dialect.read(plain.as_bytes(), &HeaderMap::new()).unwrap();
    let of = |answer: &Answer| {
        let choice = &answer.choices[0];
        (choice.text.clone(), choice.reasoning.clone(), choice.tool_calls.clone(), choice.finish, answer.usage)
    };
    assert_eq!(of(&streamed), of(&plain));
    let turn = |answer: &Answer| serde_json::from_str::<Value>(answer.choices[0].turn.as_ref().unwrap()).unwrap();
    assert_eq!(turn(&streamed), turn(&plain));
    // Whole as soon as there is a reason for the end.
    assert!(folded(&*dialect, whole.split("event: message_stop").next().unwrap(), 5).0.is_some());
    assert_eq!(cut("anthropic", &begun), "I look");
    let overloaded = begun
        + "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    assert_eq!(error("anthropic", &overloaded).category(), Category::Overload);
}

#[test]
fn gemini_sends_replies_with_the_parts_that_are_new() {
    let reply = |parts: Value, more: Value| {
        let mut reply = json!({"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}],
            "modelVersion": "g", "responseId": "r"});
        reply["candidates"][0].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        reply
    };
    let mut first = reply(json!([{"text": "Hm", "thought": true}]), json!({}));
    first["usageMetadata"] = json!({"promptTokenCount": 7, "cachedContentTokenCount": 2, "totalTokenCount": 7});
    let begun = events(&[
        first,
        reply(json!([{"text": "m", "thought": true}]), json!({})),
        reply(json!([{"text": "Hel"}]), json!({"finishReason": "FINISH_REASON_UNSPECIFIED"})),
        reply(
            json!([{"text": "lo"}, {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "s"}]),
            json!({}),
        ),
    ]);
    let mut last = reply(json!([{"text": "", "thoughtSignature": "t"}]), json!({"finishReason": "STOP"}));
    last["usageMetadata"] =
        json!({"promptTokenCount": 7, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 12});
    let plain = json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "Hmm", "thought": true},
            {"text": "Hello"}, {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "s"},
            {"text": "", "thoughtSignature": "t"}]}, "finishReason": "STOP", "index": 0}],
        "modelVersion": "g", "responseId": "r", "usageMetadata": {"promptTokenCount": 7, "cachedContentTokenCount": 2,
            "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 12}});
    let answer = same("gemini", &(begun.clone() + &events(std::slice::from_ref(&last))), &plain);
    assert_eq!((answer.usage.output, answer.usage.cache_read), (5, 2));
    assert_eq!(cut("gemini", &begun), "Hello");
    // A proxy that leaves `alt=sse` out.
    let list = |stream: &str| {
        let events: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        format!("[{}\n]\n", events.join(",\r\n"))
    };
    same("gemini", &list(&(begun.clone() + &events(&[last]))), &plain);
    assert_eq!(cut("gemini", &list(&begun)), "Hello");
    let overloaded = json!({"error": {"code": 503, "message": "The model is overloaded", "status": "UNAVAILABLE"}});
    assert_eq!(error("gemini", &list(&(begun.clone() + &events(&[overloaded])))).category(), Category::Overload);
    let bare = begun
        + "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"The model is overloaded\",\n    \"status\": \"UNAVAILABLE\"\n  }\n}\n";
    assert_eq!(error("gemini", &bare).category(), Category::Overload);
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7}});
    same("gemini", &events(std::slice::from_ref(&blocked)), &blocked);
}
