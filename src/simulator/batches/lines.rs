//! The lines of a batch: where each is within the bytes that came, and what is wrong with them.

use std::borrow::Cow;
use std::collections::HashSet;

use bytes::Bytes;
use rustc_hash::FxBuildHasher;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::model::hash;

/// Most problems of one batch that are listed.
const MOST_PROBLEMS: usize = 1000;

/// A piece of the bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    at: u32,
    length: u32,
}

impl Span {
    /// Where a piece is within the bytes that it was borrowed from.
    fn of(piece: &str, within: &[u8]) -> Option<Self> {
        let at = (piece.as_ptr() as usize).checked_sub(within.as_ptr() as usize)?;
        Some(Self { at: u32::try_from(at).ok()?, length: u32::try_from(piece.len()).ok()? })
    }

    fn from(self, bytes: &[u8]) -> &[u8] {
        let at = self.at as usize;
        bytes.get(at..at + self.length as usize).unwrap_or_default()
    }
}

/// A line: where its id and its body are. The part says in which of the bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    part: u32,
    id: Span,
    body: Span,
}

/// All lines of a batch. Nothing of them is copied.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    parts: Vec<Bytes>,
    all: Vec<Line>,
}

/// What is wrong with a batch, or with a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The code.
    pub code: &'static str,
    /// The message.
    pub message: String,
    /// The number of the line, from 1 on.
    pub line: Option<usize>,
}

impl Problem {
    /// Of a whole batch.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), line: None }
    }
}

/// A line as its provider spells it.
#[derive(Deserialize)]
pub struct Raw<'a> {
    #[serde(borrow, alias = "key", alias = "batch_request_id")]
    custom_id: Option<&'a RawValue>,
    #[serde(borrow, alias = "request", alias = "params", alias = "batch_request")]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
}

/// What is looked at in a body before it is answered.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    speed: Option<IgnoredAny>,
    store: Option<IgnoredAny>,
    previous_thread_event_id: Option<IgnoredAny>,
    cache_hint: Option<IgnoredAny>,
    context_hint: Option<IgnoredAny>,
    research_preview_2026_02: Option<IgnoredAny>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// What a provider demands of lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'a> {
    /// The `url` of each line.
    pub url: Option<&'a str>,
    /// Whether all lines have the same model.
    pub one_model: bool,
    /// Most lines.
    pub most_lines: usize,
    /// Most texts of embeddings in all; 0 = any number.
    pub most_inputs: usize,
    /// Whether lines have metadata in place of an id, or nothing (Gemini, inline).
    pub has_metadata: bool,
    /// Whether the fields are banned that Anthropic bans in batches.
    pub is_anthropic: bool,
}

/// Lines that were read, and what was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The lines.
    pub lines: Lines,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Lines with fields that batches may not have.
    pub banned: Vec<String>,
    /// The model of the first line.
    pub model: Option<String>,
    inputs: usize,
    ids: HashSet<u64, FxBuildHasher>,
}

impl Lines {
    /// How many.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// How many bytes they came in.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// The id of a line, or the `key` of its metadata; empty if it has none.
    pub fn id(&self, line: usize) -> String {
        match self.tag(line) {
            Some(Value::String(id)) => id,
            Some(metadata) => metadata.get("key").and_then(Value::as_str).unwrap_or_default().to_owned(),
            None => String::new(),
        }
    }

    /// The id of a line, or its metadata, as it came.
    pub fn tag(&self, line: usize) -> Option<Value> {
        self.piece(line, |line| line.id).and_then(|raw| serde_json::from_slice(raw).ok())
    }

    /// The body of a line.
    pub fn body(&self, line: usize) -> &[u8] {
        self.piece(line, |line| line.body).unwrap_or_default()
    }

    /// The model that a line names, also inside of what is around a body of xAI's.
    pub fn model(&self, line: usize) -> Option<String> {
        let body: Value = serde_json::from_slice(self.body(line)).ok()?;
        let places = ["/model", "/chat_get_completion/model", "/responses/model"];
        places.iter().find_map(|place| body.pointer(place)?.as_str().map(str::to_owned))
    }

    fn piece(&self, line: usize, of: impl Fn(&Line) -> Span) -> Option<&[u8]> {
        let line = self.all.get(line)?;
        Some(of(line).from(self.parts.get(line.part as usize)?))
    }

    /// Adds lines of another request.
    pub fn extend(&mut self, more: Self) {
        let before = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        self.all.extend(more.all.into_iter().map(|line| Line { part: line.part.saturating_add(before), ..line }));
        self.parts.extend(more.parts);
    }
}

impl Checked {
    /// Reads a file with a line of JSON for each request.
    pub fn file(bytes: &Bytes, rules: &Rules<'_>) -> Self {
        let mut checked = Self::of(bytes);
        let (mut at, mut number) = (0, 0);
        while at < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
            number += 1;
            let line = &bytes[at..end];
            if !line.trim_ascii().is_empty() {
                match serde_json::from_slice::<Raw<'_>>(line) {
                    Ok(raw) => checked.add(&raw, number, bytes, rules),
                    Err(error) => {
                        let message = format!("This line is not parseable as valid JSON: {error}");
                        checked.problem("invalid_json_line", message, Some(number));
                    }
                }
            }
            at = end + 1;
        }
        checked.finish(rules);
        checked
    }

    /// Takes requests that were read out of these bytes.
    pub fn list(bytes: &Bytes, all: &[Raw<'_>], rules: &Rules<'_>) -> Self {
        let mut checked = Self::of(bytes);
        for (place, raw) in all.iter().enumerate() {
            checked.add(raw, place + 1, bytes, rules);
        }
        checked.finish(rules);
        checked
    }

    fn of(bytes: &Bytes) -> Self {
        Self { lines: Lines { parts: vec![bytes.clone()], all: Vec::new() }, ..Self::default() }
    }

    fn add(&mut self, raw: &Raw<'_>, number: usize, bytes: &[u8], rules: &Rules<'_>) {
        let id = if rules.has_metadata { raw.metadata.or(raw.body) } else { raw.custom_id };
        let Some((id, body)) = id.zip(raw.body) else {
            let missing = if raw.body.is_none() { "the request" } else { "custom_id" };
            return self.problem("invalid_request", format!("{missing} is missing"), Some(number));
        };
        let (Some(id_span), Some(body_span)) = (Span::of(id.get(), bytes), Span::of(body.get(), bytes)) else {
            return self.problem("invalid_request", "the line is too far from the beginning", Some(number));
        };
        let text = match serde_json::from_str::<String>(id.get()) {
            Ok(text) => text,
            Err(_) if rules.has_metadata => String::new(),
            Err(_) => return self.problem("invalid_request", "custom_id must be a string", Some(number)),
        };
        if !rules.has_metadata && !self.ids.insert(hash(0, text.as_bytes())) {
            let message = format!("The custom_id '{text}' for this request is a duplicate of another request.");
            self.problem("duplicate_custom_id", message, Some(number));
        }
        if let Some(url) = rules.url {
            if raw.method.as_deref() != Some("POST") {
                self.problem("invalid_method", "method must be POST", Some(number));
            }
            if raw.url.as_deref() != Some(url) {
                let message = "The URL provided for this request does not match the batch endpoint.";
                self.problem("mismatched_endpoint", message, Some(number));
            }
        }
        match serde_json::from_str::<Peek<'_>>(body.get()) {
            Ok(peek) => self.peek(&peek, &text, number, rules),
            // What is wrong with it shows in its answer.
            Err(_) if body.get().starts_with('{') => {}
            Err(_) => self.problem("invalid_request", "the body must be an object", Some(number)),
        }
        let id = if raw.metadata.is_none() && rules.has_metadata { Span { at: 0, length: 0 } } else { id_span };
        self.lines.all.push(Line { part: 0, id, body: body_span });
    }

    fn peek(&mut self, peek: &Peek<'_>, id: &str, number: usize, rules: &Rules<'_>) {
        let model = peek.model.as_deref();
        if self.model.is_none() {
            self.model = model.map(str::to_owned);
        } else if rules.one_model && model != self.model.as_deref() {
            let message = "The requests in a batch must all have the same model.";
            self.problem("mismatched_model", message, Some(number));
        }
        if rules.most_inputs > 0 {
            let texts = peek.input.and_then(|input| serde_json::from_str::<Vec<IgnoredAny>>(input.get()).ok());
            self.inputs += texts.map_or(1, |texts| texts.len());
        }
        let anthropic = [
            ("speed", peek.speed.is_some()),
            ("store", peek.store.is_some()),
            ("previous_thread_event_id", peek.previous_thread_event_id.is_some()),
            ("cache_hint", peek.cache_hint.is_some()),
            ("context_hint", peek.context_hint.is_some()),
            ("research_preview_2026_02", peek.research_preview_2026_02.is_some()),
            ("max_tokens: 0", peek.max_tokens == Some(0)),
        ];
        let anthropic = anthropic.into_iter().filter(|_| rules.is_anthropic);
        let found = [("stream", peek.stream == Some(true))].into_iter().chain(anthropic);
        if let Some((name, _)) = found.into_iter().find(|(_, is_there)| *is_there)
            && self.banned.len() < MOST_PROBLEMS
        {
            self.banned.push(format!("{name} in line {id:?}"));
        }
    }

    fn problem(&mut self, code: &'static str, message: impl Into<String>, line: Option<usize>) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(Problem { code, message: message.into(), line });
        }
    }

    fn finish(&mut self, rules: &Rules<'_>) {
        let count = self.lines.len();
        if count == 0 && self.problems.is_empty() {
            self.problem("empty_file", "The input has no requests. It must have at least one.", None);
        }
        if count > rules.most_lines {
            let message = format!("The batch has {count} requests; the most is {}.", rules.most_lines);
            self.problem("too_many_tasks", message, None);
        }
        if rules.most_inputs > 0 && self.inputs > rules.most_inputs {
            let message = format!("The batch has {} inputs; the most is {}.", self.inputs, rules.most_inputs);
            self.problem("too_many_inputs", message, None);
        }
        self.ids = HashSet::default();
    }
}

/// Why Anthropic does not take a body in a batch; it is not asked of bodies that are answered live.
pub fn banned_by_anthropic(body: &[u8]) -> Option<String> {
    let mut checked = Checked::default();
    let peek = serde_json::from_slice::<Peek<'_>>(body).ok()?;
    checked.peek(&peek, "", 0, &Rules { is_anthropic: true, ..Rules::default() });
    let found = checked.banned.pop()?;
    Some(format!("{} is not supported in a batch", found.split(" in line").next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'static> = Rules {
        url: Some("/v1/chat/completions"),
        one_model: true,
        most_lines: 3,
        most_inputs: 0,
        has_metadata: false,
        is_anthropic: false,
    };

    fn line(id: &str, model: &str) -> String {
        format!(
            "{{\"custom_id\": \"{id}\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \
             \"body\": {{\"model\": \"{model}\"}}}}\n"
        )
    }

    #[test]
    fn a_good_file() {
        let text = Bytes::from(format!("{}\r\n{}", line("a", "m"), line("b\\u00e9", "m").trim_end()));
        let checked = Checked::file(&text, &RULES);
        assert_eq!((checked.problems, checked.model.as_deref()), (vec![], Some("m")));
        assert_eq!((checked.lines.id(0), checked.lines.id(1)), ("a".to_owned(), "bé".to_owned()));
        assert_eq!(checked.lines.body(1), br#"{"model": "m"}"#);
        let mut both = checked.lines.clone();
        both.extend(checked.lines);
        assert_eq!((both.len(), both.id(2), both.body(5)), (4, "a".to_owned(), &b""[..]));
    }

    #[test]
    fn problems_have_the_number_of_their_line() {
        let bad = line("a", "n") + "{\n" + &line("b", "m").replace("chat/completions\"", "x\"") + &line("c", "m");
        let text = Bytes::from(line("a", "m") + &bad);
        let problems = Checked::file(&text, &RULES).problems;
        let found: Vec<_> = problems.iter().map(|problem| (problem.code, problem.line)).collect();
        assert_eq!(
            found,
            [
                ("duplicate_custom_id", Some(2)),
                ("mismatched_model", Some(2)),
                ("invalid_json_line", Some(3)),
                ("mismatched_endpoint", Some(4)),
                ("too_many_tasks", None),
            ]
        );
        for (text, code) in [
            ("\n", "empty_file"),
            ("\u{feff}{}", "invalid_json_line"),
            ("{\"custom_id\": 1, \"body\": {}}", "invalid_request"),
            ("{\"custom_id\": \"a\"}", "invalid_request"),
        ] {
            let problems = Checked::file(&Bytes::from(text), &RULES).problems;
            assert_eq!(problems[0].code, code, "{text}");
        }
    }

    #[test]
    fn banned_fields_and_inputs_are_counted() {
        let rules = Rules { most_lines: 9, most_inputs: 2, is_anthropic: true, ..Rules::default() };
        let body = r#"{"custom_id": "a", "params": {"stream": true}}
                      {"custom_id": "b", "params": {"cache_hint": 1, "input": ["a", "b"]}}
                      {"custom_id": "c", "params": {"stream": false, "max_tokens": 0}}"#;
        let checked = Checked::file(&Bytes::from(body), &rules);
        assert_eq!(checked.banned, ["stream in line \"a\"", "cache_hint in line \"b\"", "max_tokens: 0 in line \"c\""]);
        assert_eq!(checked.problems[0].code, "too_many_inputs");
        assert_eq!(banned_by_anthropic(br#"{"speed": "fast"}"#).unwrap(), "speed is not supported in a batch");
        assert_eq!(banned_by_anthropic(br#"{"max_tokens": 1}"#), None);
    }
}
