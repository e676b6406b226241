//! A JSON Schema in the dialect of each provider. What a dialect cannot express is converted, put into words, sent without
//! its promise to hold, or rejected. Answers are checked against the user's own schema in any case.
//!
//! Sources: the guides to structured outputs of OpenAI ("Supported schemas"), Anthropic ("JSON Schema limitations") and
//! Google ("JSON Schema support"), 2026.

use serde_json::{Map, Value, json};

use super::numbers;
use super::schema_simple::{NOTES, each_schema, recursive, resolves, simplified, walk};
use super::schema_words::{add_words, put_into_words, put_pattern_into_words, with_digits};

/// Formats that OpenAI's and Anthropic's dialects know.
const FORMATS: &[&str] = &["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];

/// OpenAI's strict dialect, and whether the schema fits it: every object closed, every property required. A schema that
/// does not fit is sent as it is, and not as strict.
pub fn for_openai(schema: &Value) -> (Value, bool) {
    /// Limits that are put into words.
    const IN_WORDS: &[&str] = &["uniqueItems", "minLength", "maxLength", "minProperties", "maxProperties"];
    /// What may be in a strict schema.
    const KNOWN: &[&str] = &[
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "anyOf",
        "$ref",
        "$defs",
        "description",
        "title",
        "pattern",
        "format",
        "multipleOf",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minItems",
        "maxItems",
    ]; // fmt: skip
    let mut strict = simplified(schema);
    let mut fits = strict.get("properties").is_some_and(Value::is_object) && strict.get("anyOf").is_none();
    fits &= resolves(&strict) && is_small(&strict);
    walk(&mut strict, &mut |object| {
        object.retain(|name, _| !NOTES.contains(&name.as_str()) && !name.starts_with("x-"));
        put_into_words(object, IN_WORDS);
        if object.get("format").and_then(Value::as_str).is_some_and(|format| !FORMATS.contains(&format)) {
            put_into_words(object, &["format"]);
        }
        add_type(object);
        let is_a = |kind: &str, object: &Map<String, Value>| match object.get("type") {
            Some(Value::String(one)) => one == kind,
            Some(Value::Array(several)) => several.iter().any(|one| one == kind),
            _ => false,
        };
        let is_open = object.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
        let has_shape = ["type", "anyOf", "$ref"].iter().any(|name| object.contains_key(*name));
        let has_properties = object.get("properties").is_some_and(Value::is_object);
        let has_items = object.get("items").is_some_and(Value::is_object);
        fits &= has_shape
            && !is_open
            && (has_properties || !is_a("object", object))
            && (has_items || !is_a("array", object))
            && object.keys().all(|name| KNOWN.contains(&name.as_str()));
        if let Some(Value::Object(properties)) = object.get("properties") {
            fits &= properties.values().all(Value::is_object);
            let names: Vec<Value> = properties.keys().cloned().map(Value::String).collect();
            object.insert("required".to_owned(), Value::Array(names));
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    });
    if fits { (strict, true) } else { (schema.clone(), false) }
}

/// Whether a schema keeps the limits of OpenAI's strict dialect.
fn is_small(schema: &Value) -> bool {
    const LEVELS: usize = 10;
    const PROPERTIES: usize = 5000;
    const ENUM_VALUES: usize = 1000;
    /// Of the names of properties and definitions and of the values of enumerations, together.
    const CHARACTERS: usize = 120_000;
    let (mut properties, mut values, mut characters) = (0, 0, 0);
    let mut copy = schema.clone();
    let length = |value: &Value| value.as_str().map_or(0, |text| text.chars().count());
    walk(&mut copy, &mut |object| {
        for (name, inner) in object.iter() {
            match (name.as_str(), inner) {
                ("properties" | "$defs", Value::Object(named)) => {
                    properties += if name == "properties" { named.len() } else { 0 };
                    characters += named.keys().map(|name| name.chars().count()).sum::<usize>();
                }
                ("enum", Value::Array(several)) => {
                    values += several.len();
                    characters += several.iter().map(length).sum::<usize>();
                }
                ("const", value) => characters += length(value),
                _ => {}
            }
        }
    });
    properties <= PROPERTIES && values <= ENUM_VALUES && characters <= CHARACTERS && levels(&mut copy) <= LEVELS
}

/// How deep objects are nested in a schema.
fn levels(schema: &mut Value) -> usize {
    let mut deepest = 0;
    match schema {
        Value::Object(object) => {
            each_schema(object, &mut |inner| deepest = deepest.max(levels(inner)));
            deepest + usize::from(object.contains_key("properties"))
        }
        Value::Array(several) => several.iter_mut().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

/// Anthropic's dialect: every object closed; limits that it rejects become part of the description.
///
/// # Errors
/// Names the place of what it cannot express at all: objects with keys of any name, schemas that contain themselves,
/// enumerations of objects, and an `allOf` whose parts contradict each other.
pub fn for_anthropic(schema: &Value) -> Result<Value, String> {
    const IN_WORDS: &[&str] = &[
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
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "dependentSchemas",
        "contains",
        "minContains",
        "maxContains",
        "propertyNames",
    ]; // fmt: skip
    /// Parts of patterns: boundaries of words, and references to groups.
    const ANCHORS_AND_REFERENCES: &[&str] =
        &["\\b", "\\B", "\\1", "\\2", "\\3", "\\4", "\\5", "\\6", "\\7", "\\8", "\\9", "\\k<", "(?P="];
    let mut closed = simplified(schema);
    if let Some(name) = recursive(&closed) {
        return Err(format!(
            "response_model: {name} contains itself, which Anthropic's structured outputs cannot express: limit its depth \
             with a model for each level, or request JSON in the prompt and use response_parser"
        ));
    }
    if let Some(place) = place_of(&closed, "$", &|object| object.contains_key("allOf")) {
        return Err(format!(
            "response_model: the parts of allOf at {place} cannot be merged, and Anthropic's structured outputs \
             cannot express them: write a single schema instead"
        ));
    }
    let lists_containers = |object: &Map<String, Value>| {
        let values = object.get("enum").and_then(Value::as_array).into_iter().flatten().chain(object.get("const"));
        values.into_iter().any(|value| value.is_object() || value.is_array())
    };
    if let Some(place) = place_of(&closed, "$", &lists_containers) {
        return Err(format!(
            "response_model: the values at {place} are objects or lists, which an enum of Anthropic's structured outputs \
             cannot contain: use anyOf of their schemas"
        ));
    }
    if let Some(place) = place_of(&closed, "$", &is_free) {
        return Err(format!(
            "response_model: the object at {place} allows arbitrary keys, which Anthropic's structured outputs cannot \
             express (every object is closed there): use a list of objects with a key and a value"
        ));
    }
    walk(&mut closed, &mut |object| {
        if object.get("type").is_some_and(|kind| kind == "object") || object.contains_key("properties") {
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        if let Some(Value::Array(places)) = object.get("prefixItems") {
            let length = places.len();
            let kinds = dedup(places);
            let items = if let [one] = kinds.as_slice() { one.clone() } else { json!({"anyOf": kinds}) };
            object.shift_remove("prefixItems");
            object.insert("items".to_owned(), items);
            add_words(object, &format!("({length} items, in this order of types)"));
        }
        // 0 and 1 are allowed for `minItems`, and no more.
        if object.get("minItems").and_then(Value::as_u64).is_some_and(|least| least > 1) {
            put_into_words(object, &["minItems"]);
        }
        let known = |format: &str| FORMATS.contains(&format) || format == "uri";
        if object.get("format").and_then(Value::as_str).is_some_and(|format| !known(format)) {
            put_into_words(object, &["format"]);
        }
        put_pattern_into_words(object, ANCHORS_AND_REFERENCES);
        put_into_words(object, IN_WORDS);
    });
    Ok(closed)
}

/// Google's dialect: it has no `const`, no `allOf`, and takes no neighbours of a reference; it ignores limits that it does
/// not know, so that they are put into words.
pub fn for_gemini(schema: &Value) -> Value {
    const IN_WORDS: &[&str] = &[
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "const",
        "allOf",
        "not",
        "if",
        "then",
        "else",
        "patternProperties",
        "propertyNames",
        "dependentRequired",
        "dependentSchemas",
        "contains",
        "minContains",
        "maxContains",
    ]; // fmt: skip
    let mut schema = simplified(schema);
    walk(&mut schema, &mut |object| {
        if let Some(value) = object.get("const").filter(|value| value.is_string() || value.is_number()).cloned() {
            object.shift_remove("const");
            object.insert("enum".to_owned(), Value::Array(vec![value]));
        }
        add_type(object);
        put_into_words(object, IN_WORDS);
        let known = |format: &str| ["date-time", "date", "time"].contains(&format);
        if object.get("format").and_then(Value::as_str).is_some_and(|format| !known(format)) {
            put_into_words(object, &["format"]);
        }
    });
    schema
}

/// For providers that promise JSON but take no schema: the schema as an instruction.
pub fn as_instruction(schema: &Value) -> String {
    format!("Answer with one JSON value and nothing else. It must fit this JSON Schema:\n{}", with_digits(schema))
}

/// Adds the type of an enumeration that has none.
fn add_type(object: &mut Map<String, Value>) {
    if object.contains_key("type") || object.contains_key("anyOf") || object.contains_key("$ref") {
        return;
    }
    let values = match (object.get("enum"), object.get("const")) {
        (Some(Value::Array(values)), _) => values.clone(),
        (_, Some(value)) => vec![value.clone()],
        _ => return,
    };
    let kinds: Vec<Value> = values
        .iter()
        .filter_map(|value| match value {
            Value::Null => Some(json!("null")),
            Value::Bool(_) => Some(json!("boolean")),
            long if numbers::digits(long).is_some() => Some(json!("integer")),
            Value::String(_) => Some(json!("string")),
            Value::Number(number) if number.is_f64() => Some(json!("number")),
            Value::Number(_) => Some(json!("integer")),
            Value::Array(_) | Value::Object(_) => None,
        })
        .collect();
    if kinds.len() == values.len() {
        let mut kinds = dedup(&kinds);
        let kind = if kinds.len() == 1 { kinds.remove(0) } else { Value::Array(kinds) };
        object.insert("type".to_owned(), kind);
    }
}

fn dedup(values: &[Value]) -> Vec<Value> {
    let mut unique: Vec<Value> = Vec::new();
    for value in values {
        if !unique.contains(value) {
            unique.push(value.clone());
        }
    }
    unique
}

/// Whether an object may have keys of any name.
fn is_free(object: &Map<String, Value>) -> bool {
    let is_object = object.get("type").is_some_and(|kind| {
        kind == "object" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
    });
    let is_closed = object.get("additionalProperties") == Some(&Value::Bool(false));
    let has_values = object.get("additionalProperties").is_some_and(Value::is_object);
    let has_names = object.get("properties").is_some_and(Value::is_object);
    object.contains_key("patternProperties") || has_values || (is_object && !has_names && !is_closed)
}

/// Where the first schema is of which something is true.
fn place_of(value: &Value, place: &str, is_so: &dyn Fn(&Map<String, Value>) -> bool) -> Option<String> {
    let object = match value {
        Value::Object(object) => object,
        Value::Array(values) => return values.iter().find_map(|value| place_of(value, place, is_so)),
        _ => return None,
    };
    if is_so(object) {
        return Some(place.to_owned());
    }
    let mut copy = object.clone();
    let mut found = None;
    for name in ["properties", "$defs"] {
        if let Some(Value::Object(inner)) = copy.shift_remove(name) {
            found = found.or_else(|| {
                inner.iter().find_map(|(key, schema)| {
                    let place = if name == "properties" { format!("{place}.{key}") } else { key.clone() };
                    place_of(schema, &place, is_so)
                })
            });
        }
    }
    each_schema(&mut copy, &mut |inner| found = found.take().or_else(|| place_of(inner, place, is_so)));
    found
}
