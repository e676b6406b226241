//! Streams of Chat Completions (OpenAI's API reference, 2026, and the servers that imitate it): chunks whose deltas are
//! appended. Whole when each choice has a reason why it ended, or, for servers that give none, an answer before `[DONE]`.

use serde_json::value::RawValue;

use super::fields::{self, Fields, Object, array, quoted};
use super::fold::{Fold, Step};
use super::repeat::{Hole, Pattern, Repeats, only};
use crate::providers::listener::Part;

/// Texts that are appended; others come once.
const APPENDED: [&str; 4] = ["content", "refusal", "reasoning", "reasoning_content"];

/// See the module.
#[derive(Default)]
pub struct ChatFold {
    reply: Object,
    choices: Vec<Choice>,
    is_done: bool,
    /// For the texts of choices, by their places in [`APPENDED`].
    repeats: Repeats<(usize, usize)>,
}

#[derive(Default)]
struct Choice {
    index: usize,
    /// In the order of [`APPENDED`].
    texts: [Option<String>; APPENDED.len()],
    /// Content that is a list of parts (Mistral).
    parts: Vec<Box<RawValue>>,
    details: Vec<Object>,
    calls: Vec<Call>,
    function: Option<Function>,
    /// Further fields of the message.
    message: Object,
    logprobs: Option<[Vec<Box<RawValue>>; 2]>,
    has_ended: bool,
    /// Further fields of the choice.
    more: Object,
}

#[derive(Default)]
struct Call {
    index: Option<usize>,
    id: Option<String>,
    function: Function,
    more: Object,
}

#[derive(Default)]
struct Function {
    more: Object,
    arguments: Option<String>,
}

impl Fold for ChatFold {
    fn take(&mut self, _name: &str, fields: &Fields<'_>) -> Step {
        let mut step = Step::Nothing;
        for (name, value) in &fields.0 {
            match &**name {
                "choices" => {
                    for choice in fields::list(value) {
                        if self.choice(&Fields::of(choice)) {
                            step = Step::Progress;
                        }
                    }
                }
                "object" => self.reply.set(name, "\"chat.completion\""),
                "obfuscation" => {}
                _ if fields::is_null(value) && self.reply.has(name) => {}
                _ if self.reply.get(name) == Some(value.get()) => {}
                _ => self.reply.set(name, value.get()),
            }
        }
        step
    }

    fn take_repeated(&mut self, _name: &str, data: &str) -> Option<(&'static str, bool)> {
        let (text, (choice, place)) = self.repeats.find(data)?;
        self.choices.get_mut(choice)?.texts[place].get_or_insert_default().push_str(&text);
        Some(("data", !text.is_empty()))
    }

    fn expect_like(&mut self, _name: &str, data: &str, fields: &Fields<'_>) {
        if self.repeats.are_worth_it() {
            let pattern = self.pattern(data, fields);
            self.repeats.expect(pattern);
        }
    }

    fn done(&mut self) {
        self.is_done = true;
    }

    fn parts(&self, _name: &str, fields: &Fields<'_>, hear: &mut dyn FnMut(Part, &str)) {
        for choice in fields.get("choices").map(fields::list).unwrap_or_default() {
            let choice = Fields::of(choice);
            let Some(delta) = choice.get("delta").filter(|_| choice.place("index").unwrap_or(0) == 0) else { continue };
            for (name, value) in &Fields::of(delta).0 {
                match (&**name, fields::text(value)) {
                    ("content", Some(text)) => hear(Part::Text, &text),
                    ("reasoning" | "reasoning_content", Some(text)) => hear(Part::Reasoning, &text),
                    // A list of parts (Mistral).
                    ("content", None) => {
                        for part in fields::list(value) {
                            hear(Part::Text, &Fields::of(part).text("text").unwrap_or_default());
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn body(&self) -> Option<String> {
        let has_ended = |choice: &Choice| choice.has_ended || self.is_done && choice.answers();
        let is_whole = !self.choices.is_empty() && self.choices.iter().all(has_ended);
        is_whole.then(|| self.so_far())
    }

    fn so_far(&self) -> String {
        let mut choices: Vec<&Choice> = self.choices.iter().collect();
        choices.sort_by_key(|choice| choice.index);
        let mut reply = self.reply.clone();
        reply.set("choices", array(choices.into_iter().map(Choice::json)));
        reply.json()
    }
}

impl ChatFold {
    /// The pattern of an event that adds to one text of one choice; all the rest of it may be said again.
    fn pattern(&self, data: &str, fields: &Fields<'_>) -> Option<Pattern<(usize, usize)>> {
        let choices = fields.get("choices").map(fields::list)?;
        let [choice] = choices.as_slice() else { return None };
        let choice = Fields::of(choice);
        let delta = Fields::of(choice.get("delta").filter(|_| only(&choice, &["index", "delta"]))?);
        let index = choice.place("index").unwrap_or(0);
        let choice = self.choices.iter().position(|known| known.index == index)?;
        let mut texts = delta.0.iter().filter(|(name, value)| name != "role" && !fields::is_null(value));
        let (Some((name, value)), None) = (texts.next(), texts.next()) else { return None };
        let place = APPENDED.iter().position(|known| known == name).filter(|_| fields::text(value).is_some())?;
        let padding = fields.get("obfuscation").filter(|value| fields::text(value).is_some());
        let holes = [(*value, Hole::Text)].into_iter().chain(padding.map(|value| (value, Hole::Padding)));
        Pattern::new(data, holes.collect(), (choice, place))
    }

    /// Takes a part of a choice; whether the answer has changed.
    fn choice(&mut self, fields: &Fields<'_>) -> bool {
        let index = fields.place("index").unwrap_or(0);
        let known = self.choices.iter().position(|choice| choice.index == index);
        let known = known.unwrap_or_else(|| {
            self.choices.push(Choice { index, ..Choice::default() });
            self.choices.len() - 1
        });
        let choice = &mut self.choices[known];
        let mut progress = false;
        for (name, value) in &fields.0 {
            match &**name {
                "index" => {}
                "delta" | "message" => progress |= choice.delta(&Fields::of(value)),
                "logprobs" if !fields::is_null(value) => {
                    let [content, refusal] = choice.logprobs.get_or_insert_default();
                    let more = Fields::of(value);
                    let of =
                        |name| more.get(name).map(fields::list).unwrap_or_default().into_iter().map(ToOwned::to_owned);
                    content.extend(of("content"));
                    refusal.extend(of("refusal"));
                }
                "finish_reason" if !fields::is_null(value) => {
                    choice.has_ended = true;
                    choice.more.set(name, value.get());
                    progress = true;
                }
                _ if fields::is_null(value) => {}
                _ => choice.more.set(name, value.get()),
            }
        }
        progress
    }
}

impl Choice {
    /// Whether there is an answer in it, be it a refusal.
    fn answers(&self) -> bool {
        let [content, refusal, ..] = &self.texts;
        let says_something = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
        says_something(content)
            || says_something(refusal)
            || !(self.parts.is_empty() && self.calls.is_empty())
            || self.function.is_some()
    }

    fn delta(&mut self, fields: &Fields<'_>) -> bool {
        let mut progress = false;
        for (name, value) in &fields.0 {
            if fields::is_null(value) {
                continue;
            }
            if let Some(place) = APPENDED.iter().position(|known| known == name)
                && let Some(text) = fields::text(value)
            {
                progress |= !text.is_empty();
                self.texts[place].get_or_insert_default().push_str(&text);
                continue;
            }
            match &**name {
                "content" => self.parts.extend(fields::list(value).into_iter().map(ToOwned::to_owned)),
                "tool_calls" => fields::list(value).into_iter().for_each(|call| self.call(&Fields::of(call))),
                "function_call" => self.function.get_or_insert_default().add(&Fields::of(value)),
                "reasoning_details" => {
                    fields::list(value).into_iter().for_each(|detail| self.detail(&Fields::of(detail)));
                }
                "role" => {
                    self.message.set(name, value.get());
                    continue;
                }
                _ => self.message.set(name, value.get()),
            }
            progress = true;
        }
        progress
    }

    /// A fragment of a call: of the last with its index; without one, of the last, unless it has an id of its own.
    fn call(&mut self, fields: &Fields<'_>) {
        let (index, id) = (fields.place("index"), fields.text("id").filter(|id| !id.is_empty()));
        let known = match index {
            Some(_) => {
                // Some servers give all calls the same index, others each fragment of one call another id.
                let is_named = fields.get("function").is_some_and(names_a_function);
                let other = |call: &Call| is_named && matches!((&call.id, &id), (Some(known), Some(id)) if known != id);
                let with = |fits: &dyn Fn(&Call) -> bool| {
                    self.calls.iter().rposition(|call| call.index == index && fits(call))
                };
                with(&|call| id.is_some() && call.id.as_deref() == id.as_deref()).or_else(|| with(&|call| !other(call)))
            }
            None => {
                let is_new =
                    id.as_ref().is_some_and(|id| self.calls.last().is_none_or(|last| last.id.as_deref() != Some(id)));
                self.calls.len().checked_sub(1).filter(|_| !is_new)
            }
        };
        let known = known.unwrap_or_else(|| {
            self.calls.push(Call { index, ..Call::default() });
            self.calls.len() - 1
        });
        let call = &mut self.calls[known];
        for (name, value) in &fields.0 {
            match &**name {
                "index" => {}
                "id" => call.id = call.id.take().or(id.as_deref().map(ToOwned::to_owned)),
                "function" => call.function.add(&Fields::of(value)),
                _ if fields::is_null(value) => {}
                _ => call.more.set(name, value.get()),
            }
        }
    }

    /// A part of thoughts that go back to the provider (OpenRouter): texts of one index and type are appended.
    fn detail(&mut self, fields: &Fields<'_>) {
        let (index, kind) = (fields.get("index").map(RawValue::get), fields.get("type").map(RawValue::get));
        let same = |last: &&mut Object| index.is_some() && last.get("index") == index && last.get("type") == kind;
        let Some(last) = self.details.last_mut().filter(same) else {
            let mut detail = Object::default();
            detail.update(fields);
            return self.details.push(detail);
        };
        for (name, value) in &fields.0 {
            if fields::is_null(value) {
                continue;
            }
            let before = last.get(name).and_then(|json| serde_json::from_str::<String>(json).ok());
            match (&**name, before, fields::text(value)) {
                ("text" | "summary" | "data", Some(before), Some(text)) => last.set(name, quoted(&(before + &text))),
                _ => last.set(name, value.get()),
            }
        }
    }

    fn json(&self) -> String {
        let mut message = Object::default();
        message.set("role", self.message.get("role").unwrap_or("\"assistant\""));
        for (name, text) in APPENDED.iter().zip(&self.texts) {
            match text {
                // What begins a stream and says nothing is nothing.
                Some(text) if !text.is_empty() => message.set(name, quoted(text)),
                _ if *name == "content" => message.set(name, "null"),
                _ => {}
            }
        }
        if !self.parts.is_empty() {
            message.set("content", array(self.parts.iter().map(|part| part.get())));
        }
        if !self.details.is_empty() {
            message.set("reasoning_details", array(self.details.iter().map(Object::json)));
        }
        if !self.calls.is_empty() {
            message.set("tool_calls", array(self.calls.iter().map(Call::json)));
        }
        if let Some(function) = &self.function {
            message.set("function_call", function.json());
        }
        for (name, value) in self.message.iter().filter(|(name, _)| *name != "role") {
            message.set(name, value);
        }
        let mut choice = Object::default();
        choice.set("index", self.index.to_string());
        choice.set("message", message.json());
        if let Some([content, refusal]) = &self.logprobs {
            let list = |list: &Vec<Box<RawValue>>| match list.is_empty() {
                true => "null".to_owned(),
                false => array(list.iter().map(|one| one.get())),
            };
            choice.set("logprobs", format!("{{\"content\":{},\"refusal\":{}}}", list(content), list(refusal)));
        }
        choice.extend(&self.more);
        choice.json()
    }
}

/// Whether a function has a name.
fn names_a_function(function: &RawValue) -> bool {
    Fields::of(function).text("name").is_some_and(|name| !name.is_empty())
}

impl Call {
    fn json(&self) -> String {
        let mut call = Object::default();
        if let Some(id) = &self.id {
            call.set("id", quoted(id));
        }
        call.extend(&self.more);
        call.set("function", self.function.json());
        call.json()
    }
}

impl Function {
    fn add(&mut self, fields: &Fields<'_>) {
        for (name, value) in &fields.0 {
            match (&**name, fields::text(value)) {
                ("arguments", Some(text)) => self.arguments.get_or_insert_default().push_str(&text),
                // Servers that send a call at once may send its arguments as an object.
                ("arguments", None) if !fields::is_null(value) => {
                    self.arguments.get_or_insert_default().push_str(value.get());
                }
                ("name", Some(text)) if text.is_empty() && self.more.has("name") => {}
                _ if fields::is_null(value) => {}
                _ => self.more.set(name, value.get()),
            }
        }
    }

    fn json(&self) -> String {
        let mut function = self.more.clone();
        function.set("arguments", quoted(self.arguments.as_deref().unwrap_or_default()));
        function.json()
    }
}
