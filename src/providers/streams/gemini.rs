//! Streams of Gemini (`streamGenerateContent?alt=sse`, Google's API reference, 2026): each event is a reply with the
//! parts that are new. Whole when each candidate has a reason why it ended, or the prompt was blocked.

use serde_json::value::RawValue;

use super::fields::{self, Fields, Object, array, quoted};
use super::fold::{Fold, Step};
use super::repeat::{Hole, Pattern, Repeats, only};
use crate::providers::listener::Part as Heard;

/// See the module.
#[derive(Default)]
pub struct GeminiFold {
    reply: Object,
    usage: Object,
    candidates: Vec<Candidate>,
    is_blocked: bool,
    /// For the last texts of candidates, by place.
    repeats: Repeats<usize>,
    /// The last event that was recognized: its counts are the newest.
    repeated: String,
}

#[derive(Default)]
struct Candidate {
    index: usize,
    content: Object,
    parts: Vec<Part>,
    has_ended: bool,
    more: Object,
}

/// A part of an answer.
enum Part {
    /// Words, or a thought, and nothing else: those beside each other are one.
    Text { text: String, is_thought: bool },
    /// Anything else, as it is: a signature belongs to the very part that it came in.
    Other(Box<RawValue>),
}

impl Fold for GeminiFold {
    fn take(&mut self, _name: &str, fields: &Fields<'_>) -> Step {
        self.usage = self.usage_so_far();
        self.repeated.clear();
        let mut step = Step::Nothing;
        for (name, value) in &fields.0 {
            match &**name {
                "candidates" => {
                    for (place, candidate) in fields::list(value).into_iter().enumerate() {
                        self.candidate(&Fields::of(candidate), place);
                        step = Step::Progress;
                    }
                }
                "usageMetadata" => count(&mut self.usage, value),
                "promptFeedback" => {
                    self.is_blocked |= Fields::of(value).get("blockReason").is_some();
                    self.reply.set(name, value.get());
                    step = Step::Progress;
                }
                _ if fields::is_null(value) => {}
                _ => self.reply.set(name, value.get()),
            }
        }
        step
    }

    fn take_repeated(&mut self, _name: &str, data: &str) -> Option<(&'static str, bool)> {
        let (text, place) = self.repeats.find(data)?;
        let Some(Part::Text { text: known, .. }) = self.candidates.get_mut(place)?.parts.last_mut() else {
            return None;
        };
        known.push_str(&text);
        self.repeated.clear();
        self.repeated.push_str(data);
        Some(("data", true))
    }

    fn expect_like(&mut self, _name: &str, data: &str, fields: &Fields<'_>) {
        if self.repeats.are_worth_it() {
            let pattern = self.pattern(data, fields);
            self.repeats.expect(pattern);
        }
    }

    fn parts(&self, _name: &str, fields: &Fields<'_>, hear: &mut dyn FnMut(Heard, &str)) {
        let candidates = fields.get("candidates").map(fields::list).unwrap_or_default();
        let first = candidates.into_iter().map(Fields::of).find(|one| one.place("index").unwrap_or(0) == 0);
        let Some(content) = first.as_ref().and_then(|candidate| candidate.get("content")) else { return };
        for part in Fields::of(content).get("parts").map(fields::list).unwrap_or_default() {
            let part = Fields::of(part);
            let is_thought = part.get("thought").is_some_and(|value| value.get() == "true");
            let kind = if is_thought { Heard::Reasoning } else { Heard::Text };
            hear(kind, &part.text("text").unwrap_or_default());
        }
    }

    fn body(&self) -> Option<String> {
        let all_ended = !self.candidates.is_empty() && self.candidates.iter().all(|candidate| candidate.has_ended);
        (all_ended || self.candidates.is_empty() && self.is_blocked).then(|| self.so_far())
    }

    fn so_far(&self) -> String {
        let mut reply = Object::default();
        if !self.candidates.is_empty() {
            let mut candidates: Vec<&Candidate> = self.candidates.iter().collect();
            candidates.sort_by_key(|candidate| candidate.index);
            reply.set("candidates", array(candidates.into_iter().map(Candidate::json)));
        }
        reply.extend(&self.reply);
        reply.set("usageMetadata", self.usage_so_far().json());
        reply.json()
    }
}

/// Takes totals; a later event may leave one out, or write zero.
fn count(usage: &mut Object, value: &RawValue) {
    for (name, count) in &Fields::of(value).0 {
        if !(usage.has(name) && (fields::is_null(count) || count.get() == "0")) {
            usage.set(name, count.get());
        }
    }
}

impl GeminiFold {
    /// The counts, with those of the last event that was recognized.
    fn usage_so_far(&self) -> Object {
        let mut usage = self.usage.clone();
        let last: Fields<'_> = serde_json::from_str(&self.repeated).unwrap_or_default();
        if let Some(value) = last.get("usageMetadata") {
            count(&mut usage, value);
        }
        usage
    }

    /// The pattern of an event that adds to the last text of one candidate; all the rest of it may be said again, and
    /// counts are looked at later.
    fn pattern(&self, data: &str, fields: &Fields<'_>) -> Option<Pattern<usize>> {
        let candidates = fields.get("candidates").map(fields::list)?;
        let [candidate] = candidates.as_slice() else { return None };
        let candidate = Fields::of(candidate);
        let content = candidate.get("content").filter(|_| only(&candidate, &["content", "index"]))?;
        let parts = Fields::of(content).get("parts").map(fields::list)?;
        let [part] = parts.as_slice() else { return None };
        let part = Fields::of(part);
        let text =
            part.get("text").filter(|value| fields::text(value).is_some() && only(&part, &["text", "thought"]))?;
        let index = candidate.place("index").unwrap_or(0);
        let place = self.candidates.iter().position(|known| known.index == index)?;
        let counts = fields.get("usageMetadata").map(Fields::of).unwrap_or_default();
        let numbers = counts.0.iter().filter(|(_, value)| value.get().parse::<u64>().is_ok());
        let holes = [(text, Hole::Text)].into_iter().chain(numbers.map(|(_, value)| (*value, Hole::Number)));
        Pattern::new(data, holes.collect(), place)
    }

    fn candidate(&mut self, fields: &Fields<'_>, place: usize) {
        let index = fields.place("index").unwrap_or(place);
        let known = self.candidates.iter().position(|candidate| candidate.index == index);
        let known = known.unwrap_or_else(|| {
            self.candidates.push(Candidate { index, ..Candidate::default() });
            self.candidates.len() - 1
        });
        let candidate = &mut self.candidates[known];
        for (name, value) in &fields.0 {
            match &**name {
                "content" => {
                    for (name, value) in &Fields::of(value).0 {
                        match &**name {
                            "parts" => fields::list(value).into_iter().for_each(|part| candidate.part(part)),
                            _ => candidate.content.set(name, value.get()),
                        }
                    }
                }
                "finishReason" => {
                    // Vertex sends this word with every event.
                    let reason = fields::text(value).filter(|reason| reason != "FINISH_REASON_UNSPECIFIED");
                    if reason.is_some() {
                        candidate.has_ended = true;
                        candidate.more.set(name, value.get());
                    }
                }
                _ if fields::is_null(value) => {}
                _ => candidate.more.set(name, value.get()),
            }
        }
    }
}

impl Candidate {
    fn part(&mut self, raw: &RawValue) {
        let fields = Fields::of(raw);
        let is_plain = fields.0.iter().all(|(name, _)| name == "text" || name == "thought");
        let Some(text) = fields.text("text").filter(|_| is_plain) else {
            return self.parts.push(Part::Other(raw.to_owned()));
        };
        let thinks = fields.get("thought").is_some_and(|flag| flag.get() == "true");
        match self.parts.last_mut() {
            Some(Part::Text { text: before, is_thought }) if *is_thought == thinks => before.push_str(&text),
            _ => self.parts.push(Part::Text { text: text.into_owned(), is_thought: thinks }),
        }
    }

    fn json(&self) -> String {
        let mut candidate = Object::default();
        if !self.parts.is_empty() || self.content.iter().next().is_some() {
            let mut content = Object::default();
            if !self.parts.is_empty() {
                content.set("parts", array(self.parts.iter().map(Part::json)));
            }
            content.extend(&self.content);
            candidate.set("content", content.json());
        }
        candidate.extend(&self.more);
        candidate.json()
    }
}

impl Part {
    fn json(&self) -> String {
        match self {
            Self::Text { text, is_thought: false } => format!("{{\"text\":{}}}", quoted(text)),
            Self::Text { text, is_thought: true } => format!("{{\"text\":{},\"thought\":true}}", quoted(text)),
            Self::Other(raw) => raw.get().to_owned(),
        }
    }
}
