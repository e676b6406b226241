//! Streams of OpenAI's Responses (API reference, 2026): the last event holds the whole reply. Items that were done
//! before stand in where a gateway leaves them out of it.

use std::collections::BTreeMap;

use super::fields::{self, Fields, Object, array, quoted};
use super::fold::{Fold, Step};
use crate::providers::listener::Part;

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
            "response.output_text.delta" => {
                if let Some(text) = fields.text("delta") {
                    self.open.entry(place()).or_default().push_str(&text);
                }
                Step::Progress
            }
            "keepalive" | "response.keepalive" => Step::Nothing,
            _ => Step::Progress,
        }
    }

    fn parts(&self, name: &str, fields: &Fields<'_>, hear: &mut dyn FnMut(Part, &str)) {
        let part = match name {
            "response.output_text.delta" => Part::Text,
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
