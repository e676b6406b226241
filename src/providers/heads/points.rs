//! The places where the head of a question may end.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use crate::providers::caching::Caching;
use crate::providers::media::{Media, MediaKind};
use crate::providers::options::Options;
use crate::providers::prompt::{Ask, Part, Prompt, Role};

/// Parts after which a head may end; those behind are looked at as a whole.
const MOST_PARTS: usize = 8;
/// Places inside of the last text are about so many bytes apart,
const STEP: usize = 4 << 10;
/// and there are so many at most.
const MOST_INSIDE: usize = 48;

/// A place where a head may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Where it is.
    pub end: End,
    /// Of everything before it.
    pub hash: u64,
    /// Tokens before it.
    pub tokens: u32,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After what all requests of the strategy have in common.
    Fixed,
    /// After a part of a message: the message's number, and its own in there.
    Part(usize, usize),
    /// In the middle of the last text, after so many bytes.
    Inside(usize),
}

/// What all requests of a strategy have in common.
pub fn fixed(options: &Options) -> Point {
    let mut hasher = FxHasher::default();
    let mut bytes = 0;
    let system = options.system_prompt.as_deref().unwrap_or_default();
    for tool in &options.tools {
        let parameters = tool.parameters.to_string();
        bytes += tool.name.len() + tool.description.len() + parameters.len();
        (&tool.name, &tool.description, parameters).hash(&mut hasher);
    }
    bytes += system.len();
    let schema = options.schema.as_ref().map(|wanted| wanted.schema.to_string());
    // What changes one of these changes what is cached.
    (&options.model, system, schema, &options.tool_choice, &options.reasoning_effort).hash(&mut hasher);
    Point { end: End::Fixed, hash: hasher.finish(), tokens: tokens(bytes) }
}

/// A token is about four bytes.
fn tokens(bytes: usize) -> u32 {
    u32::try_from(bytes / 4).unwrap_or(u32::MAX)
}

/// Tokens of a question.
pub fn length(ask: &Ask) -> u32 {
    match &ask.prompt {
        Prompt::Text(text) => tokens(text.len()),
        Prompt::Messages(messages) => {
            let parts = messages.iter().flat_map(|message| &message.parts);
            parts.map(part_length).fold(0, u32::saturating_add)
        }
    }
}

fn part_length(part: &Part) -> u32 {
    match part {
        Part::Text(text) => tokens(text.len()),
        Part::Media(media) => media_length(media),
        Part::With(inner) => part_length(&inner.0),
    }
}

/// About as many as vendors count: for a picture of a megapixel, and for pages of a document.
fn media_length(media: &Media) -> u32 {
    let bytes = media.url().text().len();
    match media.kind {
        MediaKind::Image => tokens(bytes).min(1_200),
        MediaKind::File if media.media_type.starts_with("text/") => tokens(bytes),
        MediaKind::File | MediaKind::Audio => tokens(bytes / 10),
    }
}

/// The places in a question, the shortest first, and the number of the whole question.
pub fn of(fixed: Point, ask: &Ask, caching: Caching) -> (Vec<Point>, u64) {
    let is_split = !matches!(caching, Caching::Automatic { .. });
    // OpenAI takes no breakpoint in what the model itself has said.
    let can_end = |role: Role| role != Role::Assistant || caching != Caching::Breakpoints;
    let mut walk = Walk { hasher: FxHasher::default(), tokens: fixed.tokens, points: vec![fixed] };
    fixed.hash.hash(&mut walk.hasher);
    match &ask.prompt {
        Prompt::Text(text) => walk.last(text, is_split),
        Prompt::Messages(messages) => {
            let count: usize = messages.iter().map(|message| message.parts.len()).sum();
            let mut number = 0;
            let (mut is_open, mut has_begun) = (true, false);
            for (place, message) in messages.iter().enumerate() {
                // Dialects put instructions before the rest, and turns that called tools are nobody else's.
                let is_late = message.role == Role::System && has_begun;
                has_begun |= message.role != Role::System;
                is_open &= !is_late && message.tool_calls.is_empty() && message.state.is_none();
                (message.role as u8, &message.name, &message.tool_call_id).hash(&mut walk.hasher);
                for (at, part) in message.parts.iter().enumerate() {
                    number += 1;
                    match part {
                        // What is behind a head is of each question's own.
                        Part::Text(text) if number == count && is_open && message.role == Role::User => {
                            walk.last(text, is_split);
                        }
                        part => walk.part(part),
                    }
                    if is_open && number < count && number <= MOST_PARTS && can_end(message.role) {
                        walk.point(End::Part(place, at));
                    }
                }
                for call in &message.tool_calls {
                    (&call.name, &call.arguments).hash(&mut walk.hasher);
                }
            }
        }
    }
    (walk.points, walk.hasher.finish())
}

struct Walk {
    hasher: FxHasher,
    tokens: u32,
    points: Vec<Point>,
}

impl Walk {
    fn point(&mut self, end: End) {
        self.points.push(Point { end, hash: self.hasher.finish(), tokens: self.tokens });
    }

    fn part(&mut self, part: &Part) {
        match part {
            Part::Text(text) => text.digest().hash(&mut self.hasher),
            Part::Media(media) => (media.kind as u8, media.url().digest()).hash(&mut self.hasher),
            Part::With(inner) => return self.part(&inner.0),
        }
        self.tokens = self.tokens.saturating_add(part_length(part));
    }

    /// The last text of a question. Where it is split, it is split between lines.
    fn last(&mut self, text: &str, is_split: bool) {
        let (bytes, before, mut done) = (text.as_bytes(), self.tokens, 0);
        let places = (1..=MOST_INSIDE).map(|number| number * STEP);
        for place in places.take_while(|place| *place < bytes.len()) {
            let line = || bytes[done..place].iter().rposition(|byte| *byte == b'\n').map(|at| done + at + 1);
            let Some(end) = (if is_split { line() } else { Some(place) }) else { continue };
            self.hasher.write(&bytes[done..end]);
            done = end;
            self.tokens = before.saturating_add(tokens(end));
            self.point(End::Inside(end));
        }
        self.hasher.write(&bytes[done..]);
        self.tokens = before.saturating_add(tokens(bytes.len()));
    }
}
