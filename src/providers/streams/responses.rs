//! Streams of OpenAI's Responses (API reference, 2026): the last event holds the whole reply. Items that were done
//! before stand in where a gateway leaves them out of it.

use std::collections::BTreeMap;

use super::fields::{self, Fields, Object, array, quoted};
use super::fold::{Fold, Step};
use super::repeat::{Hole, Pattern, Repeats};
use crate::providers::listener::Part;

/// The event that adds to the text of an item.
const DELTA: &str = "response.output_text.delta";

/// See the module.
#[derive(Default)]
pub struct ResponsesFold {
    /// The reply, as far as it has come.
    reply: Object,
    /// Items that are done, by place.
    done: BTreeMap<usize, Box<str>>,
    /// The text of items that are not.
    open: BTreeMap<usize, String>,
    is_whole: bool,
    /// For the texts of items, by place.
    repeats: Repeats<usize>,
}

impl Fold for ResponsesFold {
    fn take(&mut self, name: &str, fields: &Fields<'_>) -> Step {
        let place = || fields.place("output_index").unwrap_or(0);
        match name {
            "response.created" | "response.queued" | "response.in_progress" => {
                if let Some(response) = fields.get("response") {
                    self.reply.update(&Fields::of(response));
                }
                Step::Nothing
            }
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
                if let Some(response) = fields.get("response") {
                    self.reply.update(&Fields::of(response));
                }
                self.is_whole = true;
                Step::Progress
            }
            "response.output_item.done" => {
                if let Some(item) = fields.get("item") {
                    self.open.remove(&place());
                    self.done.insert(place(), item.get().into());
                }
                Step::Progress
            }
            DELTA => {
                if let Some(text) = fields.text("delta") {
                    self.open.entry(place()).or_default().push_str(&text);
                }
                Step::Progress
            }
            // What has no name is no event: a plain reply in the frame of one.
            "" | "keepalive" | "response.keepalive" => Step::Nothing,
            _ => Step::Progress,
        }
    }

    fn take_repeated(&mut self, name: &str, data: &str) -> Option<(&'static str, bool)> {
        let (text, place) = self.repeats.find(data).filter(|_| name.is_empty() || name == DELTA)?;
        self.open.get_mut(&place)?.push_str(&text);
        Some((DELTA, true))
    }

    fn expect_like(&mut self, name: &str, data: &str, fields: &Fields<'_>) {
        let is_text = fields.text("type").is_some_and(|kind| kind == DELTA) && (name.is_empty() || name == DELTA);
        if !is_text || !self.repeats.are_worth_it() {
            return;
        }
        let place = fields.place("output_index").unwrap_or(0);
        let text = fields.get("delta").filter(|value| fields::text(value).is_some() && self.open.contains_key(&place));
        let padding = fields.get("obfuscation").filter(|value| fields::text(value).is_some());
        let number = fields.get("sequence_number").filter(|_| fields.place("sequence_number").is_some());
        self.repeats.expect(text.and_then(|text| {
            let more = [padding.map(|value| (value, Hole::Padding)), number.map(|value| (value, Hole::Number))];
            Pattern::new(data, [(text, Hole::Text)].into_iter().chain(more.into_iter().flatten()).collect(), place)
        }));
    }

    fn parts(&self, name: &str, fields: &Fields<'_>, hear: &mut dyn FnMut(Part, &str)) {
        let part = match name {
            DELTA => Part::Text,
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => Part::Reasoning,
            _ => return,
        };
        hear(part, &fields.text("delta").unwrap_or_default());
    }

    fn body(&self) -> Option<String> {
        self.is_whole.then(|| self.so_far())
    }

    fn so_far(&self) -> String {
        let is_given = |output: &str| {
            serde_json::from_str::<&serde_json::value::RawValue>(output)
                .is_ok_and(|output| !fields::list(output).is_empty())
        };
        if self.reply.get("output").is_some_and(is_given) {
            return self.reply.json();
        }
        let mut items: BTreeMap<usize, String> = BTreeMap::new();
        for (place, text) in &self.open {
            let part = format!("{{\"type\":\"output_text\",\"text\":{}}}", quoted(text));
            items.insert(*place, format!("{{\"type\":\"message\",\"role\":\"assistant\",\"content\":[{part}]}}"));
        }
        items.extend(self.done.iter().map(|(place, item)| (*place, item.to_string())));
        let mut reply = self.reply.clone();
        reply.set("output", array(items.into_values()));
        reply.json()
    }
}
