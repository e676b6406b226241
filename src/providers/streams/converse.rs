//! Streams of Amazon Bedrock's Converse (botocore's service model, 2026): blocks that grow, the end's reason, and then
//! the usage. Whole when the usage has come after the end's reason.

use super::fields::{Fields, Object, array, quoted};
use super::fold::{Fold, Step};
use crate::providers::listener::Part;

/// See the module.
#[derive(Default)]
pub struct ConverseFold {
    role: Option<String>,
    blocks: Vec<Block>,
    end: Object,
    metadata: Object,
    is_whole: bool,
}

#[derive(Default)]
struct Block {
    index: usize,
    text: String,
    /// Fields of the call, without its input.
    call: Option<Object>,
    input: String,
    reasoning: String,
    signature: Option<Box<str>>,
    redacted: Option<Box<str>>,
    citations: Vec<Box<str>>,
}

impl Fold for ConverseFold {
    fn take(&mut self, name: &str, fields: &Fields<'_>) -> Step {
        match name {
            "messageStart" => {
                self.role = fields.text("role").map(Into::into);
                Step::Nothing
            }
            "contentBlockStart" => {
                let start = fields.get("start").map(Fields::of).unwrap_or_default();
                let block = self.block(fields);
                if let Some(call) = start.get("toolUse") {
                    block.call.get_or_insert_default().update(&Fields::of(call));
                }
                Step::Progress
            }
            "contentBlockDelta" => {
                let delta = fields.get("delta").map(Fields::of).unwrap_or_default();
                self.block(fields).add(&delta);
                Step::Progress
            }
            "messageStop" => {
                self.end.update(fields);
                Step::Progress
            }
            "metadata" => {
                self.metadata.update(fields);
                self.is_whole = self.end.has("stopReason");
                Step::Progress
            }
            "contentBlockStop" => Step::Progress,
            _ => Step::Nothing,
        }
    }

    fn parts(&self, name: &str, fields: &Fields<'_>, hear: &mut dyn FnMut(Part, &str)) {
        if let Some(delta) = fields.get("delta").filter(|_| name == "contentBlockDelta") {
            let delta = Fields::of(delta);
            let reasoning = delta.get("reasoningContent").map(Fields::of).unwrap_or_default();
            hear(Part::Reasoning, &reasoning.text("text").unwrap_or_default());
            hear(Part::Text, &delta.text("text").unwrap_or_default());
        }
    }

    fn body(&self) -> Option<String> {
        self.is_whole.then(|| self.so_far())
    }

    fn so_far(&self) -> String {
        let mut message = Object::default();
        message.set("role", quoted(self.role.as_deref().unwrap_or("assistant")));
        message.set("content", array(self.blocks.iter().filter_map(Block::json)));
        let mut output = Object::default();
        output.set("message", message.json());
        let mut whole = Object::default();
        whole.set("output", output.json());
        whole.extend(&self.end);
        whole.extend(&self.metadata);
        whole.json()
    }
}

impl ConverseFold {
    fn block(&mut self, fields: &Fields<'_>) -> &mut Block {
        let index = fields.place("contentBlockIndex").unwrap_or(0);
        let place = self.blocks.iter().rposition(|block| block.index == index).unwrap_or_else(|| {
            self.blocks.push(Block { index, ..Block::default() });
            self.blocks.len() - 1
        });
        &mut self.blocks[place]
    }
}

impl Block {
    fn add(&mut self, delta: &Fields<'_>) {
        self.text.push_str(&delta.text("text").unwrap_or_default());
        if let Some(call) = delta.get("toolUse") {
            self.call.get_or_insert_default();
            self.input.push_str(&Fields::of(call).text("input").unwrap_or_default());
        }
        if let Some(reasoning) = delta.get("reasoningContent") {
            let reasoning = Fields::of(reasoning);
            self.reasoning.push_str(&reasoning.text("text").unwrap_or_default());
            if let Some(signature) = reasoning.get("signature") {
                self.signature = Some(signature.get().into());
            }
            if let Some(redacted) = reasoning.get("redactedContent") {
                self.redacted = Some(redacted.get().into());
            }
        }
        if let Some(citation) = delta.get("citation") {
            self.citations.push(citation.get().into());
        }
    }

    /// The block of a plain reply. `None`: nothing has come of it.
    fn json(&self) -> Option<String> {
        let (mut inner, mut block) = (Object::default(), Object::default());
        if let Some(call) = &self.call {
            inner = call.clone();
            match self.input.trim() {
                "" => inner.set("input", "{}"),
                // What is no JSON stays a text: the call is truncated, and whoever reads it says so.
                input if serde_json::from_str::<serde::de::IgnoredAny>(input).is_ok() => inner.set("input", input),
                input => inner.set("input", quoted(input)),
            }
            block.set("toolUse", inner.json());
        } else if let Some(redacted) = &self.redacted {
            inner.set("redactedContent", redacted.clone());
            block.set("reasoningContent", inner.json());
        } else if !self.reasoning.is_empty() || self.signature.is_some() {
            let mut text = Object::default();
            text.set("text", quoted(&self.reasoning));
            if let Some(signature) = &self.signature {
                text.set("signature", signature.clone());
            }
            inner.set("reasoningText", text.json());
            block.set("reasoningContent", inner.json());
        } else if !self.citations.is_empty() {
            let mut text = Object::default();
            text.set("text", quoted(&self.text));
            inner.set("content", array([text.json()]));
            inner.set("citations", array(&self.citations));
            block.set("citationsContent", inner.json());
        } else if !self.text.is_empty() {
            block.set("text", quoted(&self.text));
        } else {
            return None;
        }
        Some(block.json())
    }
}
