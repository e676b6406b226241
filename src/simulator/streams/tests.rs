//! Streams are what the vendors' servers send.

use serde_json::{Value, json};

use super::event::{Event, Form, frames, split};
use super::{anthropic, chat, gemini, responses};

fn data(events: &[Event]) -> Vec<Value> {
    events.iter().map(|event| serde_json::from_str(&event.data).unwrap()).collect()
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

fn at<'a>(events: &'a [Value], pointer: &str) -> Vec<&'a Value> {
    events.iter().filter_map(|event| event.pointer(pointer)).collect()
}

#[test]
fn texts_are_split_between_characters() {
    assert_eq!(split("Grüße", 2), ["Grü", "ße"]);
    assert_eq!(split("\u{1f600}\u{1f600}", 9), ["\u{1f600}", "\u{1f600}"]);
    assert_eq!(split("abc", 0), ["abc"]);
    assert_eq!(split("", 3), [""]);
}

#[test]
fn chunks_of_several_choices_come_in_turn() {
    let choice = |index: usize, text: &str| {
        json!({"index": index, "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": {"content": [{"token": text, "logprob": -1}], "refusal": null}, "finish_reason": "stop"})
    };
    let plain = json!({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice(0, "abcd"), choice(1, "x")],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2}});
    let mut events = chat::events(&plain, 2);
    assert_eq!(events.pop().unwrap().frame(), "data: [DONE]\n\n");
    let chunks = data(&events);
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == "c"));
    assert_eq!(at(&chunks, "/choices/0/index"), [0, 1, 0, 1, 0, 1, 0]);
    assert_eq!(at(&chunks, "/choices/0/delta/content"), ["", "", "ab", "x", "cd"]);
    assert_eq!(at(&chunks, "/choices/0/logprobs/content/0/token"), ["x", "abcd"]);
    assert_eq!(chunks.last().unwrap()["choices"], json!([]));
    assert_eq!(chunks.last().unwrap()["usage"], plain["usage"]);
    assert!(chunks[..7].iter().all(|chunk| chunk["usage"] == json!(null)));
    // Who does not ask what it cost is not told.
    let mut free = plain;
    free.as_object_mut().unwrap().shift_remove("usage");
    let events = chat::events(&free, 2);
    assert!(data(&events[..events.len() - 1]).iter().all(|chunk| chunk.get("usage").is_none()));
}

#[test]
fn arguments_of_calls_come_in_fragments() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}});
    let plain = json!({"choices": [{"index": 0, "finish_reason": "tool_calls",
        "message": {"role": "assistant", "content": null, "tool_calls": [call]}}]});
    let events = chat::events(&plain, 2);
    let chunks = data(&events[..events.len() - 1]);
    assert_eq!(at(&chunks, "/choices/0/delta/tool_calls/0/function/arguments"), ["", "{\"x\"", ":1}"]);
    assert_eq!(at(&chunks, "/choices/0/delta/tool_calls/0/id"), ["a"]);
    assert_eq!(at(&chunks, "/choices/0/delta/tool_calls/0/index"), [0, 0, 0]);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn events_of_responses_are_numbered_and_the_last_holds_the_reply() {
    let plain = json!({"id": "r", "status": "completed", "output": [
        {"type": "message", "id": "m", "status": "completed",
            "content": [{"type": "output_text", "text": "abcd", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "id": "f", "name": "g", "arguments": "{}", "status": "completed"}],
        "usage": {"output_tokens": 2}});
    let events = responses::events(&plain, 2);
    assert_eq!(
        names(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let events = data(&events);
    let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..15).collect::<Vec<_>>());
    assert_eq!(at(&events, "/item/content"), [&json!([]), &plain["output"][0]["content"]]);
    assert_eq!(events[0]["response"]["usage"], json!(null));
    assert_eq!(events[14]["response"], plain);
    let error = (responses::STREAMING.error)(&json!({"error": {"code": "c", "message": "m", "param": null}}), 7);
    assert!(error.frame().starts_with("event: error\ndata: {\"type\":\"error\",\"code\":\"c\",\"message\":\"m\""));
}

#[test]
fn messages_have_blocks_pings_and_totals() {
    let plain = json!({"id": "m", "content": [{"type": "thinking", "thinking": "hmm", "signature": "s"},
            {"type": "text", "text": "ab"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 5, "output_tokens": 9, "service_tier": "standard"}});
    let events = anthropic::events(&plain, 1);
    assert_eq!(names(&events)[..4], ["message_start", "content_block_start", "ping", "content_block_delta"]);
    let events = data(&events);
    assert_eq!(events[0]["message"]["stop_reason"], json!(null));
    assert_eq!(
        events[0]["message"]["usage"],
        json!({"input_tokens": 5, "output_tokens": 1, "service_tier": "standard"})
    );
    let kinds = ["thinking_delta", "signature_delta", "text_delta", "input_json_delta", "input_json_delta", "tool_use"];
    assert_eq!(at(&events, "/delta/type"), kinds[..5]);
    assert_eq!(at(&events, "/delta/partial_json"), ["", "{\"x\":1}"]);
    assert_eq!(at(&events, "/content_block/input"), [&json!({})]);
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
    assert_eq!(end["usage"], json!({"input_tokens": 5, "output_tokens": 9}));
    assert_eq!(events.last().unwrap(), &json!({"type": "message_stop"}));
}

#[test]
fn gemini_sends_new_parts_and_signed_ones_whole() {
    let signed = json!({"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"});
    let plain = json!({"candidates": [
            {"index": 0, "content": {"role": "model", "parts": [{"text": "abcd"}, signed]}, "finishReason": "STOP"},
            {"index": 1, "finishReason": "SAFETY"}],
        "modelVersion": "g", "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}});
    let events = gemini::events(&plain, 2);
    let replies = data(&events);
    let pointer = "/candidates/0/content/parts/0";
    assert_eq!(at(&replies, pointer), [&json!({"text": "ab"}), &json!({"text": "cd"}), &signed]);
    assert_eq!(at(&replies, "/candidates/1/finishReason"), ["SAFETY"]);
    assert_eq!(replies[0]["candidates"][0].get("finishReason"), None);
    assert_eq!(replies[2]["candidates"][0]["finishReason"], "STOP");
    assert_eq!(replies[0]["usageMetadata"], json!({"promptTokenCount": 5}));
    assert_eq!(replies[2]["usageMetadata"], plain["usageMetadata"]);
    // Without alt=sse it is one JSON array.
    let array: Vec<Value> = serde_json::from_str(&frames(&events, Form::Array).concat()).unwrap();
    assert_eq!(array, replies);
    let error = (gemini::STREAMING.error)(&json!({"error": {"code": 503}}), 1);
    assert_eq!(error.frame(), "{\n  \"error\": {\n    \"code\": 503\n  }\n}\n\n");
}
