//! Streams of Google's generateContent: replies with the parts that are new. Calls come whole, and so does whatever is
//! signed.

use serde_json::{Map, Value, json};

use super::event::{Event, Streaming, list, split, without};

/// Those of streamGenerateContent. Google's own SDK expects errors without `data:`.
pub const STREAMING: Streaming =
    Streaming { events, error: |body, _| Event { is_bare: true, ..Event::unnamed(format!("{body:#}")) }, ping: "\n" };

/// The events of a plain reply: each has a part of every candidate that has not ended.
pub fn events(plain: &Value, pieces: usize) -> Vec<Event> {
    let head = without(plain, &["candidates", "usageMetadata"]);
    let usage = plain.get("usageMetadata");
    let mut turns: Vec<_> = list(plain, "candidates")
        .iter()
        .enumerate()
        .map(|(place, one)| parts(one, place, pieces).into_iter())
        .collect();
    let mut rounds = Vec::new();
    loop {
        let round: Vec<Value> = turns.iter_mut().filter_map(Iterator::next).collect();
        if round.is_empty() {
            break;
        }
        rounds.push(round);
    }
    if rounds.is_empty() {
        return vec![Event::unnamed(plain)];
    }
    let last = rounds.len() - 1;
    let event = |(place, candidates): (usize, Vec<Value>)| {
        let mut reply = Map::new();
        reply.insert("candidates".to_owned(), candidates.into());
        reply.extend(head.clone());
        let usage = usage.map(|usage| if place == last { usage.clone() } else { so_far(usage) });
        reply.extend(usage.map(|usage| ("usageMetadata".to_owned(), usage)));
        Event::unnamed(Value::Object(reply))
    };
    rounds.into_iter().enumerate().map(event).collect()
}

/// The usage before the answer is whole: that of the prompt.
fn so_far(usage: &Value) -> Value {
    let mut known = usage.clone();
    if let Some(counts) = known.as_object_mut() {
        counts.retain(|name, _| matches!(name.as_str(), "promptTokenCount" | "cachedContentTokenCount"));
    }
    known
}

/// The parts of a candidate, which has this place in the reply; the last says why it has ended.
fn parts(candidate: &Value, place: usize, pieces: usize) -> Vec<Value> {
    let content = candidate.get("content").unwrap_or(&Value::Null);
    let part = |part: Value| {
        let mut content = without(content, &[]);
        content.insert("parts".to_owned(), vec![part].into());
        json!({"index": candidate.get("index").unwrap_or(&place.into()), "content": content})
    };
    let mut parts: Vec<Value> =
        list(content, "parts").iter().flat_map(|one| split_part(one, pieces)).map(part).collect();
    match parts.last_mut() {
        Some(last) => {
            if let Some(last) = last.as_object_mut() {
                last.extend(without(candidate, &["content", "index"]));
            }
        }
        None => parts.push(candidate.clone()),
    }
    parts
}

/// A part in pieces, if it is words and nothing else.
fn split_part(part: &Value, pieces: usize) -> Vec<Value> {
    let is_plain = part.as_object().is_some_and(|fields| fields.keys().all(|name| name == "text" || name == "thought"));
    let Some(text) = part["text"].as_str().filter(|_| is_plain) else { return vec![part.clone()] };
    let piece = |text: &str| {
        let mut piece = part.clone();
        piece["text"] = text.into();
        piece
    };
    split(text, pieces).into_iter().map(piece).collect()
}
