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
    fn other_texts_stay_as_they_are() {
        let value = json!({"a": MARK, "b": format!("{MARK}x"), "c": format!("x {MARK}1")});
        let written = serde_json::to_vec(&value).unwrap();
        assert_eq!(with_digits(written.clone()), written);
    }
}
