//! Structured output: the shape of an answer, and the answer found, read and checked. What providers are sent of a
//! schema is in [`schema_dialects`](super::schema_dialects).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{numbers, thoughts};

/// The shape an answer must have.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// A name for the provider: letters, digits, `_` and `-`, 64 at most.
    pub name: String,
    /// The JSON Schema, as the user or pydantic wrote it.
    pub schema: Value,
    /// Whether answers are checked here, and handed over as values. Otherwise somebody above does both.
    pub check: bool,
}

/// A compiled check.
#[derive(Clone)]
pub struct Check(Arc<jsonschema::Validator>);

impl Check {
    /// # Errors
    /// When the schema is none.
    pub fn new(schema: &Value) -> Result<Self, String> {
        Self::named(schema, "response_model")
    }

    /// The same for a schema that errors call otherwise.
    ///
    /// # Errors
    /// When the schema is none.
    pub fn named(schema: &Value, name: &str) -> Result<Self, String> {
        let validator = jsonschema::validator_for(&numbers::approximate(schema))
            .map_err(|error| format!("{name} is not a valid JSON Schema: {}", described(&error)))?;
        Ok(Self(Arc::new(validator)))
    }

    /// # Errors
    /// The first problems, with the place of each.
    pub fn apply(&self, value: &Value) -> Result<(), String> {
        let problems: Vec<String> = self.0.iter_errors(value).take(3).map(|error| described(&error)).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// The same for JSON text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn apply_to(&self, json: &str) -> Result<(), String> {
        let value = serde_json::from_str(json).or_else(|error| {
            serde_json::from_str(&numbers::finite(json)).map_err(|_| match error.to_string() {
                deep if deep.contains("recursion limit") => "its JSON is nested deeper than 127 levels".to_owned(),
                error => format!("its JSON is invalid: {error}"),
            })
        })?;
        self.apply(&value)
    }
}

fn described(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    if place.is_empty() { error.to_string() } else { format!("at {place}: {error}") }
}

/// How many values of an answer are handed out, at most.
const MOST_VALUES: usize = 1000;
/// How many ends of thoughts are looked behind, the last first.
const MOST_ENDS: usize = 8;

/// The JSON values in an answer, in their order. Models think aloud before the value, wrap it in code fences, and go on
/// after it: all of that is left out, with whatever brackets it has. Broken JSON is not repaired, and no part of it is
/// taken for the answer.
///
/// # Errors
/// When there is no whole JSON value.
pub fn find_json(text: &str) -> Result<Vec<&str>, String> {
    let whole = text.trim();
    // Python writes and reads NaN and Infinity. Only places count here, so that numbers of the same length will do.
    let plain = if whole.contains("NaN") || whole.contains("Infinity") {
        Cow::Owned(whole.replace("NaN", "0.0").replace("Infinity", "10000000"))
    } else {
        Cow::Borrowed(whole)
    };
    if serde_json::from_str::<IgnoredAny>(&plain).is_ok() {
        return Ok(vec![whole]);
    }
    let found = values(&plain)?;
    Ok(found.into_iter().map(|place| &whole[place]).collect())
}

/// Where the values are.
fn values(text: &str) -> Result<Vec<Range<usize>>, String> {
    let all = scan(text);
    let is_text_of_a_value =
        |end: usize| all.as_ref().is_ok_and(|found| found.iter().any(|place| place.start < end && end < place.end));
    let ends = thoughts::ends(text);
    for end in ends.into_iter().rev().filter(|end| !is_text_of_a_value(*end)).take(MOST_ENDS) {
        match scan(&text[end..]) {
            Ok(found) => return Ok(found.into_iter().map(|place| place.start + end..place.end + end).collect()),
            Err(Some(error)) => return Err(format!("its JSON is invalid: {error}")),
            // Thoughts after the answer, or nothing else.
            Err(None) => {}
        }
    }
    all.map_err(|error| {
        error.map_or_else(|| "it contains no JSON".to_owned(), |error| format!("its JSON is invalid: {error}"))
    })
}

/// The values in a text, or what is wrong with the first thing that begins as one.
fn scan(text: &str) -> Result<Vec<Range<usize>>, Option<serde_json::Error>> {
    let (mut found, mut broken, mut at) = (Vec::new(), None, 0);
    // A bracket that begins no JSON may be read to the end of the text, and so may the next one.
    let mut budget = 8 * text.len() + (1 << 20);
    while let Some(start) = text[at..].find(['{', '['])
        && found.len() < MOST_VALUES
    {
        at += start;
        let rest = &text[at..];
        match first_value(rest) {
            Ok(end) => {
                found.push(at..at + end);
                at += end;
            }
            // All that follows belongs to a value that does not end.
            Err(error) if error.is_eof() => {
                broken.get_or_insert(error);
                break;
            }
            Err(error) => {
                let closing = closing_bracket(rest);
                let read = offset(rest, &error) + closing.unwrap_or_else(|read| read);
                broken.get_or_insert(error);
                at += closing.unwrap_or(1);
                let Some(left) = budget.checked_sub(read) else { break };
                budget = left;
            }
        }
    }
    if found.is_empty()
        && let Some(scalar) = scalar(text)
    {
        found.push(scalar);
    }
    if found.is_empty() { Err(broken) } else { Ok(found) }
}

/// Where the JSON value at the beginning of a text ends.
fn first_value(text: &str) -> Result<usize, serde_json::Error> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(values.byte_offset()),
        Some(Err(error)) => Err(error),
        None => Ok(0),
    }
}

/// Where in a text an error is.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    lines.map(str::len).sum::<usize>() + error.column()
}

/// Where the bracket at the beginning of a text is closed, behind the closing one; quoted brackets count as others. One
/// that is closed by none of its kind ("[0, 1)") is a mere character. Otherwise how much was read.
fn closing_bracket(text: &str) -> Result<usize, usize> {
    let mut open = Vec::new();
    // What has quotes may be meant as JSON: then nothing inside of it is the answer.
    let mut has_quotes = false;
    let mut has_round = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' | b'[' => open.push(byte),
            b'"' | b'\'' => has_quotes = true,
            b'(' => has_round = true,
            b')' if !has_quotes && !has_round => return Err(at),
            b'}' | b']' => {
                let is_other = open.pop().is_some_and(|open| (open == b'{') != (byte == b'}'));
                if is_other && !has_quotes {
                    return Err(at);
                }
                if open.is_empty() {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
    }
    Err(text.len())
}

/// Where a number, a word or a string of JSON is, alone or in a code fence.
fn scalar(text: &str) -> Option<Range<usize>> {
    let inner = match text.trim().strip_prefix("```") {
        Some(fenced) => fenced.split_once('\n').map_or(fenced, |(_language, rest)| rest),
        None => text,
    };
    let inner = inner.trim_start();
    let end = first_value(inner).ok().filter(|end| *end > 0)?;
    let start = inner.as_ptr() as usize - text.as_ptr() as usize;
    matches!(inner[end..].trim(), "" | "```").then(|| start..start + end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn json_is_found_in_what_models_say() {
        for (text, expected) in [
            ("{\"a\": 1}", Ok("{\"a\": 1}")),
            ("  [1, 2] ", Ok("[1, 2]")),
            ("```json\n{\"a\": 1}\n```", Ok("{\"a\": 1}")),
            ("```\n{\"a\": 1}```", Ok("{\"a\": 1}")),
            ("{\"a\": 1}\n```_", Ok("{\"a\": 1}")),
            ("{\"a\": 1} I hope this helps!", Ok("{\"a\": 1}")),
            ("Here you are: {\"a\": [1]}. Bye", Ok("{\"a\": [1]}")),
            ("<think>maybe {x: 1} or {\"a\": 0}</think>{\"a\": 1}", Ok("{\"a\": 1}")),
            ("so {\"a\": 0}?</think>\n\n{\"a\": 1}", Ok("{\"a\": 1}")),
            ("2 candidates were found. {\"a\": 1}", Ok("{\"a\": 1}")),
            ("- Here: {\"a\": 1}", Ok("{\"a\": 1}")),
            ("See [note]: {\"a\": 1}", Ok("{\"a\": 1}")),
            ("Of the set {x, y}: {\"a\": 1}", Ok("{\"a\": 1}")),
            ("An open [ bracket: {\"a\": 1}", Ok("{\"a\": 1}")),
            ("{\"html\": \"</think>\"}", Ok("{\"html\": \"</think>\"}")),
            ("Here: {\"html\": \"a </think> [1]\"}", Ok("{\"html\": \"a </think> [1]\"}")),
            ("<think>hm {\"a\": 0}</think>{\"h\": \"</think>\"} done", Ok("{\"h\": \"</think>\"}")),
            ("{\"a\": 1}<think>is [x] right?</think>", Ok("{\"a\": 1}")),
            ("<think>{\"a\": 0}</think>{\"a\": ", Err("is invalid")),
            ("<THINK>{\"a\": 0}</ Think >{\"a\": 1}", Ok("{\"a\": 1}")),
            ("On [0, 1): {\"a\": 1} as (2, 3]", Ok("{\"a\": 1}")),
            ("{'a': ':)', 'b': {\"c\": 1}}", Err("is invalid")),
            ("{\"a\": [1, 2}, \"b\": {\"c\": 1}}", Err("is invalid")),
            ("So {\"a\": NaN, \"b\": -Infinity}.", Ok("{\"a\": NaN, \"b\": -Infinity}")),
            ("\"text\"", Ok("\"text\"")),
            ("true", Ok("true")),
            ("```json\ntrue\n```", Ok("true")),
            ("-3.5", Ok("-3.5")),
            ("{\"a\": ", Err("is invalid")),
            ("{\"a\": {\"b\": 1}, \"c\": ", Err("is invalid")),
            ("{'a': {\"b\": 1}}", Err("is invalid")),
            ("Sorry, no.", Err("no JSON")),
            ("2 candidates were found.", Err("no JSON")),
            ("", Err("no JSON")),
        ] {
            match (find_json(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found[0], expected, "{text}"),
                (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{text}: {problem}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        assert_eq!(find_json("See [1] or {\"b\": 2}: {\"a\": 1}").unwrap(), ["[1]", "{\"b\": 2}", "{\"a\": 1}"]);
    }

    #[test]
    fn brackets_without_end_take_little_time() {
        assert!(find_json(&"[x ".repeat(200_000)).is_err());
        assert!(find_json(&"[".repeat(200_000)).is_err());
        assert!(find_json(&"{]".repeat(200_000)).is_err());
        assert!(find_json(&format!("{}x", "[1,".repeat(200_000))).is_err());
        assert_eq!(find_json(&"{}".repeat(200_000)).unwrap().len(), MOST_VALUES);
        for before in ["see [x] ", "\\frac{x}{y} ", "{x} "] {
            assert_eq!(find_json(&format!("{}{{\"a\": 1}}", before.repeat(20_000))).unwrap()[0], "{\"a\": 1}");
        }
    }

    #[test]
    fn problems_name_their_place() {
        let check = Check::new(&json!({"properties": {"n": {"type": "integer"}}, "required": ["n"]})).unwrap();
        assert!(check.apply(&json!({"n": 1})).is_ok());
        assert!(check.apply(&json!({"n": "x"})).unwrap_err().contains("/n"));
        assert!(check.apply_to("{}").unwrap_err().contains("required"));
        assert!(check.apply_to("{").unwrap_err().contains("is invalid"));
        assert!(check.apply_to(&format!("{}{}", "[".repeat(500), "]".repeat(500))).unwrap_err().contains("deeper"));
        assert!(Check::new(&json!({"type": 5})).err().unwrap().contains("JSON Schema"));
    }

    #[test]
    fn what_python_reads_is_checked() {
        let check = Check::new(&json!({"properties": {"n": {"type": "integer"}}})).unwrap();
        assert!(check.apply_to(&format!("{{\"n\": {}}}", "9".repeat(4300))).is_ok());
        assert!(check.apply_to(&format!("{{\"n\": {}}}", "9".repeat(4301))).unwrap_err().contains("out of range"));
        assert!(check.apply_to("{\"n\": 1, \"x\": [1e400, -1e400, NaN, -Infinity], \"y\": \"caf\\ud83d\"}").is_ok());
        assert!(check.apply_to("{\"n\": NaN}").is_err());
        assert!(check.apply_to("{\"n\": nope}").unwrap_err().contains("is invalid"));
    }

    proptest! {
        #[test]
        fn whatever_surrounds_it_the_value_is_found(number in any::<i64>(), after in "[^{\\[]{0,30}") {
            let value = json!({"n": number, "text": "a \"quoted\" } brace"}).to_string();
            for text in [format!("```json\n{value}\n```{after}"), format!("Sure: {value} {after}")] {
                prop_assert_eq!(find_json(&text).unwrap()[0], value.as_str());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}", brackets in "[\\[\\]{}\"a1:, ]{0,60}") {
            let _ = (find_json(&text), find_json(&brackets));
        }
    }
}
