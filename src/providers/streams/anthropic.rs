//! Streams of Anthropic's Messages (API reference, 2026): a skeleton, blocks that grow, and the end's reason and usage.
//! Whole at `message_stop`, or when the end's reason has come.

use super::fields::{self, Fields, Object, array, quoted};
use super::fold::{Fold, Step};
use super::repeat::{Hole, Pattern, Repeats};
use crate::providers::listener::Part;

/// The event that adds to a block.
const DELTA: &str = "content_block_delta";

/// See the module.
#[derive(Default)]
pub struct AnthropicFold {
    message: Object,
    usage: Object,
    blocks: Vec<Block>,
    has_ended: bool,
    /// For the texts of blocks, by place.
    repeats: Repeats<usize>,
}

#[derive(Default)]
struct Block {
    index: usize,
    fields: Object,
    text: Option<(&'static str, String)>,
    input: Option<String>,
    citations: Vec<Box<str>>,
}

impl Fold for AnthropicFold {
    fn take(&mut self, name: &str, fields: &Fields<'_>) -> Step {
        match name {
            "message_start" => {
                if let Some(message) = fields.get("message") {
                    let message = Fields::of(message);
                    self.message.update(&message);
                    if let Some(usage) = message.get("usage") {
                        self.usage.update(&Fields::of(usage));
                    }
                }
                Step::Nothing
            }
            "content_block_start" => {
                let mut block = Block { index: fields.place("index").unwrap_or(self.blocks.len()), ..Block::default() };
                if let Some(start) = fields.get("content_block") {
                    block.fields.update(&Fields::of(start));
                }
                self.blocks.push(block);
                Step::Progress
            }
            "content_block_delta" => {
                let index = fields.place("index").unwrap_or(0);
                if let Some(delta) = fields.get("delta") {
                    self.add(index, &Fields::of(delta));
                }
                Step::Progress
            }
            "message_delta" => {
                if let Some(delta) = fields.get("delta") {
                    let delta = Fields::of(delta);
                    self.has_ended |= delta.get("stop_reason").is_some();
                    self.message.update(&delta);
                }
                if let Some(usage) = fields.get("usage") {
                    self.count(&Fields::of(usage));
                }
                Step::Progress
            }
            "message_stop" => {
                self.has_ended = true;
                Step::Progress
            }
            "content_block_stop" => Step::Progress,
            _ => Step::Nothing,
        }
    }

    fn take_repeated(&mut self, name: &str, data: &str) -> Option<(&'static str, bool)> {
        let (text, block) = self.repeats.find(data).filter(|_| name.is_empty() || name == DELTA)?;
        let Block { text: known, input, .. } = self.blocks.get_mut(block)?;
        known.as_mut().map(|(_, text)| text).or(input.as_mut())?.push_str(&text);
        Some((DELTA, true))
    }

    fn expect_like(&mut self, name: &str, data: &str, fields: &Fields<'_>) {
        if (name.is_empty() || name == DELTA) && self.repeats.are_worth_it() {
            let pattern = self.pattern(data, fields);
            self.repeats.expect(pattern);
        }
    }

    fn parts(&self, name: &str, fields: &Fields<'_>, hear: &mut dyn FnMut(Part, &str)) {
        if let Some(delta) = fields.get("delta").filter(|_| name == "content_block_delta") {
            let delta = Fields::of(delta);
            hear(Part::Reasoning, &delta.text("thinking").unwrap_or_default());
            hear(Part::Text, &delta.text("text").unwrap_or_default());
        }
    }

    fn body(&self) -> Option<String> {
        self.has_ended.then(|| self.so_far())
    }

    fn so_far(&self) -> String {
        let mut message = Object::default();
        for (name, value) in self.message.iter().filter(|(name, _)| *name != "usage") {
            message.set(name, value);
        }
        message.set("content", array(self.blocks.iter().map(Block::json)));
        message.set("usage", self.usage.json());
        message.json()
    }
}

impl AnthropicFold {
    /// Adds to a block. Gateways leave out its start.
    fn add(&mut self, index: usize, delta: &Fields<'_>) {
        let begun = self.blocks.iter().rposition(|block| block.index == index);
        let place = begun.or_else(|| {
            let kind = ["text", "thinking"].into_iter().find(|kind| delta.get(kind).is_some())?;
            let mut block = Block { index, ..Block::default() };
            block.fields.set("type", quoted(kind));
            self.blocks.push(block);
            Some(self.blocks.len() - 1)
        });
        if let Some(block) = place.and_then(|place| self.blocks.get_mut(place)) {
            block.add(delta);
        }
    }

    /// Takes counts: totals, not differences. Gateways write 0 for what they know at the start or at the end alone.
    fn count(&mut self, counts: &Fields<'_>) {
        for (name, count) in &counts.0 {
            if !self.usage.has(name) || !(fields::is_null(count) || count.get() == "0") {
                self.usage.set(name, count.get());
            }
        }
    }

    /// The pattern of an event that adds to the only text of a block.
    fn pattern(&self, data: &str, fields: &Fields<'_>) -> Option<Pattern<usize>> {
        let delta = Fields::of(fields.get("delta").filter(|_| fields.text("type").is_some_and(|kind| kind == DELTA))?);
        let index = fields.place("index").unwrap_or(0);
        let block = self.blocks.iter().rposition(|block| block.index == index)?;
        let mut texts = delta.0.iter().filter(|(name, _)| name != "type");
        let (Some((name, value)), None) = (texts.next(), texts.next()) else { return None };
        fields::text(value)?;
        let Block { text, input, .. } = &self.blocks[block];
        let is_only = match &**name {
            "text" | "thinking" => text.as_ref().is_some_and(|(known, _)| known == name) && input.is_none(),
            "partial_json" => text.is_none() && input.is_some(),
            _ => false,
        };
        Pattern::new(data, vec![(*value, Hole::Text)], block).filter(|_| is_only)
    }
}

impl Block {
    fn add(&mut self, delta: &Fields<'_>) {
        for (name, value) in &delta.0 {
            match &**name {
                "type" => {}
                "text" | "thinking" => {
                    let name = if name == "text" { "text" } else { "thinking" };
                    let before = || self.fields.get(name).and_then(|json| serde_json::from_str(json).ok());
                    let (_, text) = self.text.get_or_insert_with(|| (name, before().unwrap_or_default()));
                    text.push_str(&fields::text(value).unwrap_or_default());
                }
                "partial_json" => {
                    self.input.get_or_insert_default().push_str(&fields::text(value).unwrap_or_default());
                }
                "citation" => self.citations.push(value.get().into()),
                _ => self.fields.set(name, value.get()),
            }
        }
    }

    fn json(&self) -> String {
        let mut block = self.fields.clone();
        if let Some((name, text)) = &self.text {
            block.set(name, quoted(text));
        }
        match self.input.as_deref().map(str::trim) {
            None | Some("") => {}
            // What is no JSON stays a text: the call is truncated, and whoever reads it says so.
            Some(input) if serde_json::from_str::<serde::de::IgnoredAny>(input).is_ok() => block.set("input", input),
            Some(input) => block.set("input", quoted(input)),
        }
        if !self.citations.is_empty() {
            block.set("citations", array(&self.citations));
        }
        block.json()
    }
}
