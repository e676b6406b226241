//! Schemas that the vendors' structured outputs reject, in the vendors' words (their guides and error messages, 2026).

use serde_json::{Map, Value};

use super::invalid::Invalid;

/// What may be in a strict schema of OpenAI's.
const OPENAI: &[&str] = &[
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
    "definitions",
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
const FORMATS: &[&str] = &["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];

/// What Anthropic's structured outputs have no means for.
const ANTHROPIC: &[&str] = &[
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
    "prefixItems",
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "propertyNames",
    "patternProperties",
    "oneOf",
]; // fmt: skip

/// A strict schema of OpenAI's; `of` is what it is for: `response_format 'Name'` or `function 'name'`.
pub fn openai(schema: &Value, of: &str, param: &str) -> Result<(), Invalid> {
    let invalid = |problem: String| Invalid::new(format!("Invalid schema for {of}: {problem}")).at(param);
    let kind = schema.get("type");
    if kind.and_then(Value::as_str) != Some("object") {
        let kind = kind.map_or_else(|| "\"None\"".to_owned(), ToString::to_string);
        return Err(invalid(format!("schema must be a JSON Schema of 'type: \"object\"', got 'type: {kind}'.")));
    }
    let mut walker = Walker { context: Vec::new(), check: openai_object };
    walker.walk(schema).map_err(|(context, problem)| invalid(format!("In context={context}, {problem}")))
}

fn openai_object(object: &Map<String, Value>) -> Result<(), String> {
    if let Some(name) = object.keys().find(|name| !OPENAI.contains(&name.as_str())) {
        return Err(format!("'{name}' is not permitted."));
    }
    if object.contains_key("$ref") {
        let others: Vec<String> = object
            .keys()
            .filter(|name| !matches!(name.as_str(), "$ref" | "$defs"))
            .map(|name| format!("'{name}'"))
            .collect();
        return if others.is_empty() {
            Ok(())
        } else {
            Err(format!("$ref cannot have keywords {{{}}}.", others.join(", ")))
        };
    }
    if object.contains_key("anyOf") {
        return Ok(());
    }
    let is_a = |kind: &str| match object.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(several)) => several.iter().any(|one| one == kind),
        _ => false,
    };
    if !object.contains_key("type") {
        return Err("schema must have a 'type' key.".to_owned());
    }
    if let Some(format) = object.get("format").and_then(Value::as_str).filter(|format| !FORMATS.contains(format)) {
        return Err(format!("'{format}' is not a valid format."));
    }
    if is_a("array") && !object.get("items").is_some_and(Value::is_object) {
        return Err("array schema missing items.".to_owned());
    }
    if !is_a("object") {
        return Ok(());
    }
    if object.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err("'additionalProperties' is required to be supplied and to be false.".to_owned());
    }
    let required: Vec<&str> =
        object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = object.get("properties").and_then(Value::as_object);
    let missing = properties.into_iter().flat_map(Map::keys).find(|name| !required.contains(&name.as_str()));
    let begin = "'required' is required to be supplied and to be an array including every key in properties.";
    if let Some(name) = missing {
        return Err(format!("{begin} Missing '{name}'."));
    }
    let extra = required.iter().find(|name| !properties.is_some_and(|properties| properties.contains_key(**name)));
    extra.map_or(Ok(()), |name| Err(format!("{begin} Extra required key '{name}' supplied.")))
}

/// A schema of Anthropic's structured outputs.
pub fn anthropic(schema: &Value) -> Result<(), Invalid> {
    let mut walker = Walker { context: Vec::new(), check: anthropic_object };
    walker.walk(schema).map_err(|(_, problem)| Invalid::new(format!("output_config.format.schema: {problem}")))
}

fn anthropic_object(object: &Map<String, Value>) -> Result<(), String> {
    let kind = object.get("type").and_then(Value::as_str).unwrap_or("object");
    if let Some(name) = object.keys().find(|name| ANTHROPIC.contains(&name.as_str())) {
        return Err(format!("For '{kind}' type, property '{name}' is not supported"));
    }
    if object.get("minItems").is_some_and(|least| least.as_u64().is_none_or(|least| least > 1)) {
        return Err("For 'array' type, 'minItems' values other than 0 or 1 are not supported".to_owned());
    }
    let is_object = object.contains_key("properties") || object.get("type").is_some_and(|kind| kind == "object");
    if is_object && object.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err("For 'object' type, 'additionalProperties' must be explicitly set to false".to_owned());
    }
    Ok(())
}

/// Looks at every schema within a schema.
struct Walker {
    context: Vec<String>,
    check: fn(&Map<String, Value>) -> Result<(), String>,
}

impl Walker {
    /// The first problem, with its place as a tuple of Python's.
    fn walk(&mut self, schema: &Value) -> Result<(), (String, String)> {
        let Some(object) = schema.as_object() else { return Ok(()) };
        (self.check)(object).map_err(|problem| (self.place(), problem))?;
        for (name, inner) in object {
            match (name.as_str(), inner) {
                ("properties" | "$defs" | "definitions", Value::Object(schemas)) => {
                    for (key, inner) in schemas {
                        self.inside(&[name, key], inner)?;
                    }
                }
                ("items", inner) => self.inside(&[name], inner)?,
                ("anyOf" | "allOf", Value::Array(schemas)) => {
                    for (number, inner) in schemas.iter().enumerate() {
                        self.inside(&[name, &number.to_string()], inner)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn inside(&mut self, place: &[&str], schema: &Value) -> Result<(), (String, String)> {
        self.context.extend(place.iter().map(|part| format!("'{part}'")));
        let outcome = self.walk(schema);
        self.context.truncate(self.context.len() - place.len());
        outcome
    }

    fn place(&self) -> String {
        match self.context.as_slice() {
            [one] => format!("({one},)"),
            parts => format!("({})", parts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn closed(properties: &Value) -> Value {
        let names: Vec<&String> = properties.as_object().unwrap().keys().collect();
        json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false})
    }

    #[test]
    fn openais_strict_schemas() {
        let ok =
            closed(&json!({"a": {"type": ["string", "null"]}, "b": {"type": "array", "items": {"$ref": "#/$defs/X"}},
            "c": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "description": "d"}}));
        assert_eq!(openai(&ok, "response_format 'S'", "p"), Ok(()));
        for (schema, says) in [
            (json!({"type": "array"}), "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'."),
            (json!({"anyOf": []}), "got 'type: \"None\"'"),
            (json!({"type": "object", "properties": {}}), "In context=(), 'additionalProperties' is required"),
            (
                json!({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": false}),
                "including every key in properties. Missing 'a'.",
            ),
            (closed(&json!({"a": {"oneOf": []}})), "In context=('properties', 'a'), 'oneOf' is not permitted."),
            (closed(&json!({"a": {"$ref": "#", "description": "x"}})), "$ref cannot have keywords {'description'}."),
            (closed(&json!({"a": {"type": "array", "uniqueItems": true}})), "'uniqueItems' is not permitted."),
            (closed(&json!({"a": {"type": "array"}})), "array schema missing items."),
            (closed(&json!({"a": {"description": "any"}})), "schema must have a 'type' key."),
            (closed(&json!({"a": {"type": "string", "format": "uri"}})), "'uri' is not a valid format."),
            (closed(&json!({"a": {"type": "array", "items": {"type": "object"}}})), "('properties', 'a', 'items')"),
        ] {
            let error = openai(&schema, "response_format 'S'", "response_format").unwrap_err();
            assert!(error.message.starts_with("Invalid schema for response_format 'S': "), "{}", error.message);
            assert!(error.message.contains(says), "{schema}: {}", error.message);
        }
    }

    #[test]
    fn anthropics_schemas() {
        let ok = closed(&json!({"a": {"type": "array", "items": {"type": "string"}, "minItems": 1}}));
        assert_eq!(anthropic(&ok), Ok(()));
        for (schema, says) in [
            (json!({"type": "object"}), "'additionalProperties' must be explicitly set to false"),
            (closed(&json!({"a": {"type": "integer", "minimum": 1}})), "For 'integer' type, property 'minimum'"),
            (closed(&json!({"a": {"type": "array", "minItems": 2}})), "'minItems' values other than 0 or 1"),
        ] {
            assert!(anthropic(&schema).unwrap_err().message.contains(says), "{schema}");
        }
    }
}
