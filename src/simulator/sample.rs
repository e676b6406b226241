//! Values that fit a JSON Schema, deterministic by a seed.

use serde_json::{Map, Number, Value, json};

/// How deep schemas may refer to themselves before the shortest way out is taken.
const DEEPEST: usize = 8;
/// Deeper there is nothing any more: some schemas have no way out.
const END: usize = 64;
/// So many values are made at most; after them there are only nulls.
const MOST_VALUES: usize = 20_000;
/// Longest text that is made because a schema wants it so long, characters.
const LONGEST_TEXT: usize = 1 << 20;

/// A value that fits a schema, as far as the common keywords go: types, enumerations, constants, references, unions,
/// bounds, lengths, formats. (`pattern` and `not` are not looked at.)
pub fn instance(schema: &Value, seed: u64) -> Value {
    let (random, left, letters) = (fastrand::Rng::with_seed(seed), MOST_VALUES, LONGEST_TEXT);
    Sampler { root: schema, random, left, letters }.value(schema, 0)
}

struct Sampler<'a> {
    root: &'a Value,
    random: fastrand::Rng,
    /// How many values may still be made.
    left: usize,
    /// And how many letters that a schema asks for.
    letters: usize,
}

impl<'a> Sampler<'a> {
    fn value(&mut self, schema: &'a Value, depth: usize) -> Value {
        if depth > END || self.left == 0 {
            return Value::Null;
        }
        self.left -= 1;
        let Some(object) = schema.as_object() else { return json!("text") };
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return target.map_or(Value::Null, |target| self.value(target, depth + 1));
        }
        if let Some(constant) = object.get("const") {
            return constant.clone();
        }
        if let Some(values) = object.get("enum").and_then(Value::as_array).filter(|values| !values.is_empty()) {
            return values[self.random.usize(..values.len())].clone();
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(options) = object.get(keyword).and_then(Value::as_array).filter(|options| !options.is_empty()) {
                return self.option(options, depth);
            }
        }
        if let Some(parts) = object.get("allOf").and_then(Value::as_array) {
            return self.all_of(object, parts, depth);
        }
        match kind(object) {
            Some("object") => self.object(object, depth),
            Some("array") => self.array(object, depth),
            Some("integer") => self.integer(object),
            Some("number") => self.number(object),
            Some("boolean") => Value::Bool(self.random.bool()),
            Some("null") => Value::Null,
            _ => Value::String(self.text(object)),
        }
    }

    /// One of several schemas; deep down one that ends.
    fn option(&mut self, options: &'a [Value], depth: usize) -> Value {
        let simple = |option: &&Value| !option.to_string().contains("$ref");
        let chosen = if depth >= DEEPEST { options.iter().find(simple) } else { None };
        let chosen = chosen.unwrap_or_else(|| &options[self.random.usize(..options.len())]);
        self.value(chosen, depth + 1)
    }

    fn all_of(&mut self, object: &'a Map<String, Value>, parts: &'a [Value], depth: usize) -> Value {
        let mut merged = if object.contains_key("properties") { self.object(object, depth) } else { Value::Null };
        for part in parts {
            match (&mut merged, self.value(part, depth + 1)) {
                (Value::Object(known), Value::Object(more)) => known.extend(more),
                (merged, value) => *merged = value,
            }
        }
        merged
    }

    fn object(&mut self, object: &'a Map<String, Value>, depth: usize) -> Value {
        let properties = object.get("properties").and_then(Value::as_object).into_iter().flatten();
        let required: Vec<&str> = object
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let mut made = Map::new();
        for (name, schema) in properties {
            if required.contains(&name.as_str()) || (depth < DEEPEST && self.random.bool()) {
                made.insert(name.clone(), self.value(schema, depth + 1));
            }
        }
        // Required without a schema: anything goes.
        for name in required {
            if !made.contains_key(name) {
                made.insert(name.to_owned(), json!("text"));
            }
        }
        if let (true, Some(schema @ Value::Object(_))) = (made.is_empty(), object.get("additionalProperties"))
            && depth < DEEPEST
        {
            made.insert("key".to_owned(), self.value(schema, depth + 1));
        }
        Value::Object(made)
    }

    fn array(&mut self, object: &'a Map<String, Value>, depth: usize) -> Value {
        let bound = |name| object.get(name).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
        let prefix = object.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let least = bound("minItems").unwrap_or(0).max(prefix.len());
        let usual = if depth >= DEEPEST { least } else { least.max(prefix.len() + self.random.usize(..3)) };
        let length = bound("maxItems").map_or(usual, |most| usual.min(most)).max(least);
        let items = object.get("items");
        let unique = object.get("uniqueItems") == Some(&Value::Bool(true));
        let mut made: Vec<Value> = prefix.iter().take(length).map(|schema| self.value(schema, depth + 1)).collect();
        for _ in 0..1000 {
            if made.len() >= length || self.left == 0 {
                break;
            }
            let value = items.map_or_else(|| json!("text"), |schema| self.value(schema, depth + 1));
            if !(unique && made.contains(&value)) {
                made.push(value);
            }
        }
        Value::Array(made)
    }

    fn bounds(&self, object: &Map<String, Value>) -> (Option<f64>, Option<f64>) {
        let number = |name| object.get(name).and_then(Value::as_f64);
        let least = number("minimum").or_else(|| number("exclusiveMinimum").map(f64::next_up));
        let most = number("maximum").or_else(|| number("exclusiveMaximum").map(f64::next_down));
        (least, most)
    }

    #[allow(clippy::cast_possible_truncation)]
    fn integer(&mut self, object: &Map<String, Value>) -> Value {
        let (least, most) = self.bounds(object);
        let whole = |number: f64| i128::from(number as i64); // what is beyond is the last that there is
        let step = object.get("multipleOf").and_then(Value::as_f64).map_or(1, |step| whole(step).max(1));
        let from = least.map_or_else(|| most.map_or(0, |most| whole(most.floor()) - 100), |least| whole(least.ceil()));
        let to = most.map_or(from + 100, |most| whole(most.floor()));
        let first = from.div_euclid(step) * step;
        let first = if first < from { first + step } else { first };
        let steps = i64::try_from((to - first) / step).unwrap_or(i64::MAX).max(0);
        let made = first + i128::from(self.random.i64(0..=steps)) * step;
        json!(i64::try_from(made).unwrap_or(if made < 0 { i64::MIN } else { i64::MAX }))
    }

    fn number(&mut self, object: &Map<String, Value>) -> Value {
        if object.contains_key("multipleOf") {
            return self.integer(object);
        }
        let (least, most) = self.bounds(object);
        let from = least.unwrap_or_else(|| most.map_or(0.0, |most| most - 100.0));
        let to = most.unwrap_or(from + 100.0);
        Number::from_f64(from + (to - from) * self.random.f64()).map_or(json!(from), Value::Number)
    }

    fn text(&mut self, object: &Map<String, Value>) -> String {
        let number = self.random.u32(..);
        match object.get("format").and_then(Value::as_str) {
            Some("date-time") => return format!("2026-{:02}-{:02}T12:00:00Z", 1 + number % 12, 1 + number % 28),
            Some("date") => return format!("2026-{:02}-{:02}", 1 + number % 12, 1 + number % 28),
            Some("time") => return format!("{:02}:{:02}:00", number % 24, number % 60),
            Some("duration") => return format!("PT{}S", number % 3600),
            Some("email") => return format!("user{}@example.com", number % 1000),
            Some("uri" | "url") => return format!("https://example.com/{}", number % 1000),
            Some("uuid") => return format!("{number:08x}-0000-4000-8000-{number:012x}"),
            Some("ipv4") => return format!("192.0.2.{}", number % 256),
            _ => {}
        }
        let bound = |name| object.get(name).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
        let mut text = format!("text {:04x}", number % 0x1_0000);
        if let Some(least) = bound("minLength") {
            let more = least.saturating_sub(text.len()).min(self.letters);
            self.letters -= more;
            text.extend(std::iter::repeat_n('x', more));
        }
        if let Some(most) = bound("maxLength") {
            text.truncate(most);
        }
        text
    }
}

fn kind(object: &Map<String, Value>) -> Option<&str> {
    match object.get("type") {
        Some(Value::String(kind)) => Some(kind),
        // Of several types the first that is not null.
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        _ if object.contains_key("properties") => Some("object"),
        _ if object.contains_key("items") => Some("array"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::schema::Check;
    use proptest::prelude::*;

    fn schemas() -> Vec<Value> {
        vec![
            json!({"type": "object", "required": ["a", "b", "c", "d", "e"], "additionalProperties": false, "properties": {
                "a": {"type": "integer", "minimum": 3, "maximum": 5}, "b": {"type": "number", "exclusiveMinimum": 0},
                "c": {"enum": ["x", "y"]}, "d": {"type": ["string", "null"], "minLength": 30},
                "e": {"type": "string", "maxLength": 3}, "f": {"type": "string", "format": "date-time"}}}),
            json!({"type": "array", "items": {"type": "integer", "multipleOf": 7}, "minItems": 2, "maxItems": 4}),
            json!({"$ref": "#/$defs/Node", "$defs": {"Node": {"type": "object", "required": ["value", "next"], "properties":
                {"value": {"const": 1}, "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}}}}),
            json!({"type": "object", "additionalProperties": {"type": "boolean"}}),
            json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2}),
            json!({"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
                {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}),
            json!({"type": "array", "uniqueItems": true, "minItems": 2, "items": {"enum": [1, 2]}}),
        ]
    }

    #[test]
    fn schemas_without_an_end_have_one() {
        let node = json!({"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "required": ["a", "b"], "properties":
            {"a": {"$ref": "#/$defs/N"}, "b": {"$ref": "#/$defs/N"}}}}});
        let wide = json!({"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000, "items":
            {"type": "array", "minItems": 1000, "items": {"type": "string", "minLength": 1_000_000_000_u64}}}});
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"anyOf": [{"$ref": "#"}]}),
            json!({"type": "array", "minItems": 3, "items": {"$ref": "#"}}),
            node,
            wide,
            json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX, "multipleOf": i64::MAX}),
            json!({"type": "integer", "minimum": 1e300}),
            json!({"type": "integer", "maximum": -1e300}),
            json!({"type": "array", "minItems": u64::MAX}),
            json!({"type": "number", "maximum": f64::MAX, "minimum": f64::MIN}),
        ] {
            for seed in 0..3 {
                assert!(instance(&schema, seed).to_string().len() < 8 << 20);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_made_fits(seed in any::<u64>()) {
            for schema in schemas() {
                let value = instance(&schema, seed);
                let verdict = Check::new(&schema).unwrap().apply(&value);
                prop_assert!(verdict.is_ok(), "{schema}: {value}: {verdict:?}");
                prop_assert_eq!(instance(&schema, seed), value);
            }
        }
    }
}
