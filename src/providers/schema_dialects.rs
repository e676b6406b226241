//! A JSON Schema in the dialect of each provider. What a dialect cannot express is converted, put into words, sent without
//! its promise to hold, or rejected. Answers are checked against the user's own schema in any case.
//!
//! Sources: the guides to structured outputs of OpenAI ("Supported schemas"), Anthropic ("JSON Schema limitations") and
//! Google ("JSON Schema support"), 2026.

use serde_json::{Map, Value, json};

use super::numbers;
use super::schema_simple::{NOTES, each_schema, recursive, simplified, walk};

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

/// Anthropic's dialect: every object closed; limits that it refuses become part of the description.
///
/// # Errors
/// Names the place of what it cannot express at all: objects with keys of any name, and schemas that contain themselves.
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
    let mut closed = simplified(schema);
    if let Some(name) = recursive(&closed) {
        return Err(format!(
            "response_model: {name} contains itself, which Anthropic's structured outputs cannot express: limit its depth \
             with a model for each level, or ask for JSON in the prompt and use response_parser"
        ));
    }
    if let Some(place) = free_object(&closed, "$") {
        return Err(format!(
            "response_model: the object at {place} has keys of any name, which Anthropic's structured outputs cannot \
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
    ]; // fmt: skip
    let mut schema = simplified(schema);
    walk(&mut schema, &mut |object| {
        if let Some(value) = object.get("const").filter(|value| value.is_string() || value.is_number()).cloned() {
            object.shift_remove("const");
            object.insert("enum".to_owned(), Value::Array(vec![value]));
        }
        add_type(object);
        put_into_words(object, IN_WORDS);
    });
    schema
}

/// For providers that promise JSON but take no schema: the schema as an instruction.
pub fn as_instruction(schema: &Value) -> String {
    let schema = String::from_utf8(numbers::with_digits(schema.to_string().into_bytes())).unwrap_or_default();
    format!("Answer with one JSON value and nothing else. It must fit this JSON Schema:\n{schema}")
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

/// Makes words of keywords that a dialect does not have.
fn put_into_words(object: &mut Map<String, Value>, keywords: &[&str]) {
    let moved: Vec<String> =
        keywords.iter().filter_map(|name| Some(in_words(name, &plain(&object.shift_remove(*name)?)))).collect();
    if !moved.is_empty() {
        add_words(object, &format!("({})", moved.join(", ")));
    }
}

fn in_words(keyword: &str, value: &str) -> String {
    match keyword {
        "minimum" => format!("at least {value}"),
        "maximum" => format!("at most {value}"),
        "exclusiveMinimum" => format!("more than {value}"),
        "exclusiveMaximum" => format!("less than {value}"),
        "multipleOf" => format!("a multiple of {value}"),
        "minLength" => format!("at least {value} characters"),
        "maxLength" => format!("at most {value} characters"),
        "minItems" => format!("at least {value} items"),
        "maxItems" => format!("at most {value} items"),
        "minProperties" => format!("at least {value} entries"),
        "maxProperties" => format!("at most {value} entries"),
        "uniqueItems" if value == "true" => "no two alike".to_owned(),
        "uniqueItems" => "in any number".to_owned(),
        "pattern" => format!("matching {value}"),
        "format" => format!("in the format {value}"),
        _ => format!("{keyword}: {value}"),
    }
}

fn plain(value: &Value) -> String {
    numbers::digits(value).or(value.as_str()).map_or_else(|| value.to_string(), str::to_owned)
}

fn add_words(object: &mut Map<String, Value>, words: &str) {
    let before = object.get("description").and_then(Value::as_str).map(|text| format!("{text} "));
    object.insert("description".to_owned(), Value::String(format!("{}{words}", before.unwrap_or_default())));
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

/// Where an object may have keys of any name.
fn free_object(value: &Value, place: &str) -> Option<String> {
    let Value::Object(object) = value else { return None };
    let is_object = object.get("type").is_some_and(|kind| {
        kind == "object" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
    });
    let is_closed = object.get("additionalProperties") == Some(&Value::Bool(false));
    let has_values = object.get("additionalProperties").is_some_and(Value::is_object);
    let has_names = object.get("properties").is_some_and(Value::is_object);
    if object.contains_key("patternProperties") || has_values || (is_object && !has_names && !is_closed) {
        return Some(place.to_owned());
    }
    let mut found = None;
    let mut copy = object.clone();
    let names = ["properties", "$defs"];
    for name in names {
        if let Some(Value::Object(inner)) = copy.shift_remove(name) {
            found = found.or_else(|| {
                inner.iter().find_map(|(key, schema)| {
                    let place = if name == "properties" { format!("{place}.{key}") } else { key.clone() };
                    free_object(schema, &place)
                })
            });
        }
    }
    each_schema(&mut copy, &mut |inner| {
        found = found.take().or_else(|| free_object(inner, place));
        if let Value::Array(values) = inner {
            found = found.take().or_else(|| values.iter().find_map(|value| free_object(value, place)));
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_schemas_are_closed_and_require_everything() {
        let schema = json!({"type": "object", "properties": {
            "required": {"type": "string", "default": "x"},
            "next": {"$ref": "#/$defs/Node"}},
            "$defs": {"Node": {"type": "object", "properties": {"v": {"type": "integer"}}}}});
        let (strict, is_strict) = for_openai(&schema);
        assert!(is_strict);
        assert_eq!(strict["required"], json!(["required", "next"]));
        assert_eq!(strict["properties"]["next"], json!({"$ref": "#/$defs/Node"}));
        assert_eq!(strict["properties"]["required"], json!({"type": "string"}));
        assert_eq!(strict["$defs"]["Node"]["additionalProperties"], json!(false));
    }

    fn object(property: Value) -> Value {
        json!({"type": "object", "properties": {"p": property}, "required": ["p"]})
    }

    #[test]
    fn what_the_strict_dialect_has_not_is_sent_as_it_is() {
        for property in [
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"type": "object"}),
            json!({}),
            json!(true),
            json!({"title": "Any"}),
            json!({"type": "array"}),
            json!({"type": "array", "prefixItems": [{"type": "integer"}], "items": false}),
            json!({"type": "string", "not": {"const": "x"}}),
            json!({"type": "object", "properties": {}, "patternProperties": {"^x": {"type": "integer"}}}),
            json!({"allOf": [{"type": "string"}, {"type": "integer"}]}),
        ] {
            let schema = object(property);
            assert_eq!(for_openai(&schema), (schema.clone(), false), "{schema}");
        }
        let choice = json!({"anyOf": [{"type": "object", "properties": {}}]});
        assert!(!for_openai(&choice).1);
    }

    #[test]
    fn what_the_strict_dialect_says_otherwise_is_converted() {
        for (property, expected) in [
            (
                json!({"oneOf": [{"type": "string"}, {"type": "null"}], "discriminator": {"propertyName": "kind"}}),
                json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
                json!({"type": "array", "items": {"type": "string"}, "description": "(no two alike)"}),
            ),
            (
                json!({"type": "string", "format": "uri", "minLength": 1, "description": "Where"}),
                json!({"type": "string", "description": "Where (at least 1 characters) (in the format uri)"}),
            ),
            (json!({"type": "string", "format": "uuid"}), json!({"type": "string", "format": "uuid"})),
            (json!({"type": "string", "pattern": "^(?!x)a"}), json!({"type": "string"})),
            (json!({"type": "string", "pattern": "^a+$"}), json!({"type": "string", "pattern": "^a+$"})),
            (json!({"enum": ["a", null]}), json!({"enum": ["a", null], "type": ["string", "null"]})),
            (json!({"const": 3}), json!({"const": 3, "type": "integer"})),
            (json!({"allOf": [{"type": "integer"}], "minimum": 1}), json!({"minimum": 1, "type": "integer"})),
        ] {
            let (strict, is_strict) = for_openai(&object(property.clone()));
            assert!(is_strict, "{property}");
            assert_eq!(strict["properties"]["p"], expected, "{property}");
        }
    }

    #[test]
    fn definitions_have_their_newer_name() {
        let schema = json!({"type": "object", "properties": {"a": {"$ref": "#/definitions/A"}},
            "definitions": {"A": {"type": "object", "properties": {"v": {"type": "integer"}}}, "B": {}}});
        let (strict, is_strict) = for_openai(&schema);
        assert!(is_strict);
        assert_eq!(strict["properties"]["a"], json!({"$ref": "#/$defs/A"}));
        assert_eq!(strict["$defs"]["A"]["required"], json!(["v"]));
        assert!(strict.get("definitions").is_none() && strict["$defs"].get("B").is_none());
    }

    #[test]
    fn a_reference_with_a_description_is_put_in_place() {
        let schema = json!({"type": "object", "properties": {
            "home": {"$ref": "#/$defs/Address", "description": "where they live"},
            "work": {"allOf": [{"$ref": "#/$defs/Address"}], "description": "where they work"},
            "parent": {"$ref": "#/$defs/Person", "description": "who raised them"}},
            "$defs": {
                "Address": {"type": "object", "description": "d", "properties": {"street": {"type": "string"}}},
                "Person": {"type": "object", "properties": {"parent": {"$ref": "#/$defs/Person", "description": "again"}}}}});
        let (strict, is_strict) = for_openai(&schema);
        assert!(is_strict, "{strict}");
        let address = |words: &str| {
            json!({"type": "object", "description": words, "properties": {"street": {"type": "string"}},
            "required": ["street"], "additionalProperties": false})
        };
        assert_eq!(strict["properties"]["home"], address("where they live"));
        assert_eq!(strict["properties"]["work"], address("where they work"));
        assert_eq!(
            strict["properties"]["parent"],
            json!({"anyOf": [{"$ref": "#/$defs/Person"}], "description": "who raised them"})
        );
        assert!(strict["$defs"].get("Address").is_none() && strict["$defs"].get("Person").is_some());
        assert_eq!(for_gemini(&schema)["properties"]["home"]["description"], "where they live");
    }

    #[test]
    fn a_schema_does_not_grow_without_bound() {
        let mut definitions = Map::new();
        for level in 0..40 {
            let next = json!({"$ref": format!("#/$defs/L{}", level + 1), "description": "d"});
            definitions.insert(format!("L{level}"), json!({"type": "object", "properties": {"a": next, "b": next}}));
        }
        definitions.insert("L40".to_owned(), json!({"type": "object", "properties": {"v": {"type": "string"}}}));
        let schema = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/L0", "description": "d"}}, "$defs": definitions});
        assert!(for_openai(&schema).0.to_string().len() < 1_000_000);
    }

    #[test]
    fn limits_that_anthropic_refuses_become_words() {
        let schema = json!({"type": "object", "properties": {
            "age": {"type": "integer", "minimum": 0, "description": "Years"},
            "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2}}});
        let closed = for_anthropic(&schema).unwrap();
        assert_eq!(closed["additionalProperties"], json!(false));
        assert_eq!(closed["properties"]["age"], json!({"type": "integer", "description": "Years (at least 0)"}));
        assert_eq!(closed["properties"]["tags"]["description"], json!("(at least 2 items)"));
        let pair = &closed["properties"]["pair"];
        assert_eq!(pair["items"], json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}));
        assert!(pair.get("prefixItems").is_none() && pair["description"].as_str().unwrap().starts_with("(2 items"));
    }

    #[test]
    fn what_anthropic_cannot_express_is_rejected_with_its_place() {
        let free = json!({"type": "object", "properties": {"scores": {"type": "object", "additionalProperties": {"type": "integer"}}}});
        let error = for_anthropic(&free).unwrap_err();
        assert!(error.contains("$.scores") && error.contains("list of objects"), "{error}");
        let inside = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"$ref": "#/$defs/A"}}},
            "$defs": {"A": {"type": "object", "properties": {"any": {"anyOf": [{"type": "null"}, {"type": "object"}]}}}}});
        assert!(for_anthropic(&inside).unwrap_err().contains("A.any"));
        let endless = json!({"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}},
            "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}}});
        assert!(for_anthropic(&endless).unwrap_err().contains("Node contains itself"));
        // An object that takes more than it names is closed.
        let open = json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": true});
        assert_eq!(for_anthropic(&open).unwrap()["additionalProperties"], json!(false));
    }

    #[test]
    fn names_of_properties_are_no_keywords() {
        let schema = object(json!({"type": "object", "properties": {
            "default": {"type": "string"}, "type": {"type": "string"}, "oneOf": {"type": "string"}, "$ref": {"type": "string"}}}));
        let (strict, is_strict) = for_openai(&schema);
        assert!(is_strict, "{strict}");
        assert_eq!(strict["properties"]["p"]["required"], json!(["default", "type", "oneOf", "$ref"]));
    }

    #[test]
    fn gemini_has_no_const() {
        let schema = for_gemini(&object(json!({"const": "cat", "pattern": "c"})));
        assert_eq!(
            schema["properties"]["p"],
            json!({"enum": ["cat"], "type": "string", "description": "(matching c)"})
        );
    }
}
