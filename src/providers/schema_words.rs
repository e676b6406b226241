//! What a dialect cannot express of a schema, put into its descriptions. Used by
//! [`schema_dialects`](super::schema_dialects).

use serde_json::{Map, Value};

use super::numbers;

/// What most parsers of patterns for structured outputs do not have.
pub const LOOK_AROUND: &[&str] = &["(?=", "(?!", "(?<=", "(?<!"];

/// A pattern becomes words if it has one of these parts.
pub fn put_pattern_into_words(object: &mut Map<String, Value>, parts: &[&str]) {
    let pattern = object.get("pattern").and_then(Value::as_str);
    if pattern.is_some_and(|pattern| parts.iter().any(|part| pattern.contains(part))) {
        put_into_words(object, &["pattern"]);
    }
}

/// Makes words of keywords that a dialect does not have.
pub fn put_into_words(object: &mut Map<String, Value>, keywords: &[&str]) {
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
        "const" => format!("exactly {value}"),
        "allOf" => format!("all of: {value}"),
        "pattern" => format!("matching {value}"),
        "format" => format!("in the format {value}"),
        _ => format!("{keyword}: {value}"),
    }
}

fn plain(value: &Value) -> String {
    numbers::digits(value).or(value.as_str()).map_or_else(|| with_digits(value), str::to_owned)
}

pub fn add_words(object: &mut Map<String, Value>, words: &str) {
    let before = object.get("description").and_then(Value::as_str).map(|text| format!("{text} "));
    object.insert("description".to_owned(), Value::String(format!("{}{words}", before.unwrap_or_default())));
}

/// JSON with all digits of its numbers.
pub fn with_digits(value: &Value) -> String {
    String::from_utf8(numbers::with_digits(value.to_string().into_bytes())).unwrap_or_default()
}
