//! Whole numbers longer than 64 bits in the options of a strategy: schemas, tools, `extra_body`.
//!
//! `serde_json` would make floats of them. They travel through its trees as marked texts, and become numbers again, with
//! all their digits, when the request is written. (Its feature for numbers of any size would change how every number
//! of every reply is read.)

use memchr::memmem;
use serde_json::Value;

/// Begins the text that stands for a number. The first character is of a private use area of Unicode.
const MARK: &str = "\u{e0b7}integer ";

/// The stand-in of a number with these digits.
pub fn long(digits: &str) -> Value {
    Value::String(format!("{MARK}{digits}"))
}

/// The digits that a value stands for.
pub fn digits(value: &Value) -> Option<&str> {
    let digits = value.as_str()?.strip_prefix(MARK)?;
    let all = digits.strip_prefix('-').unwrap_or(digits);
    (!all.is_empty() && all.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// The same tree with floats in place of long numbers, for whoever compares values with them.
pub fn approximate(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(approximate).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), approximate(value))).collect(),
        value => digits(value).and_then(|digits| digits.parse::<f64>().ok()).map_or_else(|| value.clone(), Value::from),
    }
}

/// Written JSON with the numbers themselves.
pub fn with_digits(json: Vec<u8>) -> Vec<u8> {
    let quoted = format!("\"{MARK}");
    let finder = memmem::Finder::new(quoted.as_bytes());
    let mut out = Vec::new();
    let mut copied = 0;
    for start in finder.find_iter(&json) {
        let from = start + quoted.len();
        let is_part = |byte: &&u8| byte.is_ascii_digit() || matches!(**byte, b'-' | b'+' | b'.' | b'e' | b'E');
        let length = json[from..].iter().take_while(is_part).count();
        if length > 0 && json.get(from + length) == Some(&b'"') {
            out.extend_from_slice(&json[copied..start]);
            out.extend_from_slice(&json[from..from + length]);
            copied = from + length + 1;
        }
    }
    if copied == 0 {
        return json;
    }
    out.extend_from_slice(&json[copied..]);
    out
}

/// The same JSON text for a parser that knows floats only: what no float holds is the largest one, as is Infinity; NaN is
/// a number that is no integer; half of a surrogate pair in a text is the replacement character.
pub fn finite(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '"' => text_length(rest),
            '-' | '0'..='9' | 'N' | 'I' => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
                rest.find(|c| !is_part(c)).unwrap_or(rest.len())
            }
            other => other.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        match part {
            "NaN" => out.push_str("0.5"),
            "Infinity" => out.push_str("1.7e308"),
            "-Infinity" => out.push_str("-1.7e308"),
            text if next == '"' => whole_pairs(text, &mut out),
            number if is_beyond_floats(number) => out.push_str(if next == '-' { "-1.7e308" } else { "1.7e308" }),
            other => out.push_str(other),
        }
        rest = after;
    }
    out
}

/// Whether a number is larger than any float, but not larger than what Python's `json` reads.
fn is_beyond_floats(number: &str) -> bool {
    /// The longest integer that Python makes of a text, digits.
    const LONGEST: usize = 4300;
    let is_read = number.contains(['.', 'e', 'E']) || number.trim_start_matches('-').len() <= LONGEST;
    is_read && number.ends_with(|last: char| last.is_ascii_digit()) && number.parse().is_ok_and(f64::is_infinite)
}

/// The length of a quoted text, with its quotes.
fn text_length(text: &str) -> usize {
    let mut is_escaped = true; // the opening quote ends nothing
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Copies a quoted text without halves of surrogate pairs.
fn whole_pairs(text: &str, out: &mut String) {
    let unit = |at: usize| match (text.get(at..at + 2), text.get(at + 2..at + 6)) {
        (Some("\\u"), Some(digits)) => u16::from_str_radix(digits, 16).ok(),
        _ => None,
    };
    let mut rest = 0;
    while let Some(found) = text[rest..].find('\\') {
        let at = rest + found;
        out.push_str(&text[rest..at]);
        rest = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at + 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push('\u{fffd}');
                rest = at + 6;
                continue;
            }
            // The escaped character may itself be a backslash.
            _ => at + 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&text[at..rest]);
    }
    out.push_str(&text[rest..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_of_any_length_keep_their_digits() {
        let value = json!({"a": long("98765432109876543210"), "b": [long("-98765432109876543210"), 1], "c": "x"});
        let written = with_digits(serde_json::to_vec(&value).unwrap());
        assert_eq!(written, br#"{"a":98765432109876543210,"b":[-98765432109876543210,1],"c":"x"}"#);
        assert_eq!(approximate(&value)["a"], json!(98765432109876543210_f64));
        assert_eq!(digits(&value["a"]), Some("98765432109876543210"));
        assert_eq!((digits(&json!("1")), digits(&json!(1))), (None, None));
    }

    #[test]
    fn floats_hold_what_is_finite() {
        for (json, expected) in [
            ("[NaN, 1e400, -1e999, Infinity, -Infinity, 1.5]", "[0.5, 1.7e308, -1.7e308, 1.7e308, -1.7e308, 1.5]"),
            (r#"{"NaN": "a\\" , "b": "\"NaN", "c": 12}"#, r#"{"NaN": "a\\" , "b": "\"NaN", "c": 12}"#),
            (
                r#"["\ud83d", "\ud83d\ude00", "\\ud83d", "\ude00\ud83d\ude00"]"#,
                "[\"\u{fffd}\", \"\\ud83d\\ude00\", \"\\\\ud83d\", \"\u{fffd}\\ud83d\\ude00\"]",
            ),
        ] {
            assert_eq!(finite(json), expected);
        }
        for odd in ["\"", "\"\\", "\"\\u", "\"\\ud8", "\\", "-", "N", "\"\\é\""] {
            assert_eq!(finite(odd), odd);
        }
        assert_eq!(finite(&"9".repeat(400)), "1.7e308");
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        let value = json!({"a": MARK, "b": format!("{MARK}x"), "c": format!("x {MARK}1")});
        let written = serde_json::to_vec(&value).unwrap();
        assert_eq!(with_digits(written.clone()), written);
    }
}
