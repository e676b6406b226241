//! Structured output: the shape of an answer, and the answer found, read and checked. What providers are sent of a
//! schema is in [`schema_dialects`](super::schema_dialects).

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::numbers;

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
        let validator = jsonschema::validator_for(&numbers::approximate(schema))
            .map_err(|error| format!("response_model is not a valid JSON Schema: {error}"))?;
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
        let value = serde_json::from_str(json).map_err(|error| format!("its JSON is broken: {error}"))?;
        self.apply(&value)
    }
}

fn described(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    if place.is_empty() { error.to_string() } else { format!("at {place}: {error}") }
}

/// How many brackets are tried that begin no JSON.
const FALSE_STARTS: usize = 100;

/// The JSON values in an answer, in their order. Models think aloud before the value, wrap it in code fences, and go on
/// after it: all of that is left out, with whatever brackets it has. Broken JSON is not repaired, and no part of it is
/// taken for the answer.
///
/// # Errors
/// When there is no whole JSON value.
pub fn find_json(text: &str) -> Result<Vec<&str>, String> {
    let whole = text.trim();
    if serde_json::from_str::<IgnoredAny>(whole).is_ok() {
        return Ok(vec![whole]);
    }
    let spoken = after_thoughts(whole);
    let (mut found, mut broken, mut tries) = (Vec::new(), None, 0);
    let mut rest = spoken;
    while let Some(start) = rest.find(['{', '['])
        && tries < FALSE_STARTS
    {
        rest = &rest[start..];
        match first_value(rest) {
            Ok(end) => {
                found.push(&rest[..end]);
                rest = &rest[end..];
            }
            // All that follows belongs to a value that does not end.
            Err(error) if error.is_eof() => {
                broken.get_or_insert(error);
                break;
            }
            Err(error) => {
                tries += 1;
                broken.get_or_insert(error);
                rest = &rest[closing_bracket(rest).unwrap_or(1)..];
            }
        }
    }
    if found.is_empty()
        && let Some(scalar) = scalar(spoken)
    {
        found.push(scalar);
    }
    match broken {
        _ if !found.is_empty() => Ok(found),
        Some(error) => Err(format!("its JSON is broken: {error}")),
        None => Err("there is no JSON in it".to_owned()),
    }
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

/// What is said after the model's thoughts, where they are in the text.
fn after_thoughts(text: &str) -> &str {
    const ENDS: &[&str] = &["</think>", "</thinking>", "</thought>", "</reasoning>", "[/THINK]"];
    let end = ENDS.iter().filter_map(|end| text.rfind(end).map(|at| at + end.len())).max();
    let rest = end.map_or(text, |end| &text[end..]);
    // Thoughts after the answer, or nothing else.
    if rest.trim().is_empty() { text } else { rest }
}

/// Where the bracket at the beginning of a text is closed, behind the closing one; quoted brackets count as others.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' | b'[' => open += 1,
            b'}' | b']' => {
                open = open.saturating_sub(1);
                if open == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// A text that is a number, a word or a string of JSON, alone or in a code fence.
fn scalar(text: &str) -> Option<&str> {
    let inner = match text.trim().strip_prefix("```") {
        Some(fenced) => fenced.split_once('\n').map_or(fenced, |(_language, rest)| rest),
        None => text,
    };
    let inner = inner.trim_start();
    let end = first_value(inner).ok().filter(|end| *end > 0)?;
    matches!(inner[end..].trim(), "" | "```").then(|| &inner[..end])
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
            ("\"text\"", Ok("\"text\"")),
            ("true", Ok("true")),
            ("```json\ntrue\n```", Ok("true")),
            ("-3.5", Ok("-3.5")),
            ("{\"a\": ", Err("broken")),
            ("{\"a\": {\"b\": 1}, \"c\": ", Err("broken")),
            ("{'a': {\"b\": 1}}", Err("broken")),
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
    }

    #[test]
    fn problems_name_their_place() {
        let check = Check::new(&json!({"properties": {"n": {"type": "integer"}}, "required": ["n"]})).unwrap();
        assert!(check.apply(&json!({"n": 1})).is_ok());
        assert!(check.apply(&json!({"n": "x"})).unwrap_err().contains("/n"));
        assert!(check.apply_to("{}").unwrap_err().contains("required"));
        assert!(check.apply_to("{").unwrap_err().contains("broken"));
        assert!(Check::new(&json!({"type": 5})).err().unwrap().contains("JSON Schema"));
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
