//! Structured output: a JSON Schema in each provider's dialect, and the answer found, read and checked.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

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
        let validator = jsonschema::validator_for(schema)
            .map_err(|error| format!("response_model is not a valid JSON Schema: {error}"))?;
        Ok(Self(Arc::new(validator)))
    }

    /// # Errors
    /// The first problems, with the place of each.
    pub fn apply(&self, value: &Value) -> Result<(), String> {
        let problems: Vec<String> = self.0.iter_errors(value).take(3).map(|error| described(&error)).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

fn described(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    if place.is_empty() { error.to_string() } else { format!("at {place}: {error}") }
}

/// The JSON value in an answer. Models wrap it in code fences, and go on after it; what comes before it and after it
/// is left out, broken JSON is not repaired.
///
/// # Errors
/// When there is no whole JSON value.
pub fn find_json(text: &str) -> Result<&str, String> {
    let trimmed = text.trim_start();
    let inner = match trimmed.strip_prefix("```") {
        Some(fenced) => fenced.split_once('\n').map_or(fenced, |(_language, rest)| rest),
        None => trimmed,
    };
    let begins = |text: &str| text.starts_with(['{', '[', '"', '-']) || text.starts_with(|c: char| c.is_ascii_digit());
    let inner = inner.trim_start();
    let plain = begins(inner) || ["true", "false", "null"].iter().any(|word| inner.starts_with(word));
    // Prose before the value: it begins at the first bracket.
    let start = if plain { 0 } else { inner.find(['{', '[']).ok_or("there is no JSON in it")? };
    let candidate = &inner[start..];
    let mut values = serde_json::Deserializer::from_str(candidate).into_iter::<serde::de::IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(&candidate[..values.byte_offset()]),
        Some(Err(error)) => Err(format!("its JSON is broken: {error}")),
        None => Err("there is no JSON in it".to_owned()),
    }
}

/// OpenAI's strict dialect, and whether the schema fits it: every object closed, every property required. A schema
/// with free-form objects cannot be strict; it is sent as it is.
///
/// Source: OpenAI's guide to structured outputs, "Supported schemas" (2026).
pub fn for_openai(schema: &Value) -> (Value, bool) {
    if has_free_objects(schema) {
        return (schema.clone(), false);
    }
    let mut strict = schema.clone();
    walk(&mut strict, &|object| {
        if let Some(Value::Object(properties)) = object.get("properties") {
            let names: Vec<Value> = properties.keys().cloned().map(Value::String).collect();
            object.insert("required".to_owned(), Value::Array(names));
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        object.remove("default");
        // A reference may have no neighbours.
        if object.contains_key("$ref") {
            object.retain(|name, _| name == "$ref");
        }
    });
    (strict, true)
}

/// Anthropic's dialect: every object closed; limits that it refuses become part of the description.
///
/// Source: Anthropic's guide to structured outputs, "JSON Schema limitations" (2026).
pub fn for_anthropic(schema: &Value) -> Value {
    const REFUSED: &[&str] = &[
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    ];
    let mut closed = schema.clone();
    walk(&mut closed, &|object| {
        if object.get("type").is_some_and(|kind| kind == "object") || object.contains_key("properties") {
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        // 0 and 1 are allowed for `minItems`, and no more.
        let many = object.get("minItems").and_then(Value::as_u64).is_some_and(|least| least > 1);
        let refused: Vec<(String, Value)> = REFUSED
            .iter()
            .copied()
            .chain(many.then_some("minItems"))
            .filter_map(|name| object.remove_entry(name))
            .collect();
        if !refused.is_empty() {
            let limits: Vec<String> = refused.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let before = object.get("description").and_then(Value::as_str).map(|text| format!("{text} "));
            let text = format!("{}({})", before.unwrap_or_default(), limits.join(", "));
            object.insert("description".to_owned(), Value::String(text));
        }
    });
    closed
}

/// For providers that promise JSON but take no schema: the schema as an instruction.
pub fn as_instruction(schema: &Value) -> String {
    format!("Answer with one JSON value and nothing else. It must fit this JSON Schema:\n{schema}")
}

/// Whether some object may have properties of any name.
fn has_free_objects(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => {
            let is_object = object.get("type").is_some_and(|kind| kind == "object");
            let open = object.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
            (is_object && (open || !object.contains_key("properties"))) || object.values().any(has_free_objects)
        }
        Value::Array(values) => values.iter().any(has_free_objects),
        _ => false,
    }
}

/// Applies a change to every schema inside a schema. Names of properties are no keywords: they are passed over.
fn walk(value: &mut Value, change: &impl Fn(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            for (keyword, inner) in object.iter_mut() {
                match (keyword.as_str(), inner) {
                    ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                        named.values_mut().for_each(|schema| walk(schema, change));
                    }
                    ("enum" | "const" | "default" | "examples" | "required", _) => {}
                    (_, inner) => walk(inner, change),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|schema| walk(schema, change)),
        _ => {}
    }
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
            ("\"text\"", Ok("\"text\"")),
            ("true", Ok("true")),
            ("-3.5", Ok("-3.5")),
            ("{\"a\": ", Err("broken")),
            ("{'a': 1}", Err("broken")),
            ("Sorry, no.", Err("no JSON")),
            ("", Err("no JSON")),
        ] {
            match (find_json(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{text}: {problem}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn strict_schemas_are_closed_and_require_everything() {
        let schema = json!({"type": "object", "properties": {
            "required": {"type": "string", "default": "x"},
            "next": {"$ref": "#/$defs/Node", "description": "d"}},
            "$defs": {"Node": {"type": "object", "properties": {"v": {"type": "integer"}}}}});
        let (strict, is_strict) = for_openai(&schema);
        assert!(is_strict);
        assert_eq!(strict["required"], json!(["next", "required"]));
        assert_eq!(strict["properties"]["next"], json!({"$ref": "#/$defs/Node"}));
        assert_eq!(strict["properties"]["required"], json!({"type": "string"}));
        assert_eq!(strict["$defs"]["Node"]["additionalProperties"], json!(false));
        let free = json!({"type": "object", "additionalProperties": {"type": "integer"}});
        assert_eq!(for_openai(&free), (free.clone(), false));
    }

    #[test]
    fn limits_that_anthropic_refuses_become_words() {
        let schema = json!({"type": "object", "properties": {
            "age": {"type": "integer", "minimum": 0, "description": "Years"},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2}}});
        let closed = for_anthropic(&schema);
        assert_eq!(closed["additionalProperties"], json!(false));
        assert_eq!(closed["properties"]["age"], json!({"type": "integer", "description": "Years (minimum: 0)"}));
        assert_eq!(closed["properties"]["tags"]["description"], json!("(minItems: 2)"));
    }

    #[test]
    fn problems_name_their_place() {
        let check = Check::new(&json!({"properties": {"n": {"type": "integer"}}, "required": ["n"]})).unwrap();
        assert!(check.apply(&json!({"n": 1})).is_ok());
        assert!(check.apply(&json!({"n": "x"})).unwrap_err().contains("/n"));
        assert!(check.apply(&json!({})).unwrap_err().contains("required"));
        assert!(Check::new(&json!({"type": 5})).err().unwrap().contains("JSON Schema"));
    }

    proptest! {
        #[test]
        fn whatever_surrounds_it_the_value_is_found(number in any::<i64>(), after in "[^{\\[]{0,30}") {
            let value = json!({"n": number, "text": "a \"quoted\" } brace"}).to_string();
            for text in [format!("```json\n{value}\n```{after}"), format!("Sure: {value} {after}")] {
                prop_assert_eq!(find_json(&text).unwrap(), value.as_str());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = find_json(&text);
        }
    }
}
