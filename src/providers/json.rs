//! The JSON of replies, read as leniently as other clients read it. Used by the dialects, embeddings and error bodies.
//!
//! A reply is parsed strictly first. If that fails, it is parsed again without what JSON does not have but servers
//! send all the same: a byte order mark, comments and `data:` frames around the value, NaN and Infinity, lone
//! surrogates, control characters in strings, numbers that no float holds, bytes that are not UTF-8, a key that
//! stands twice (the last one counts, as in Python).

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{ProviderError, excerpt};
use super::numbers;

/// Reads a reply into a type of a dialect's own, or says why it cannot be read.
///
/// # Errors
/// [`ProviderError::Protocol`].
pub fn parse<T: DeserializeOwned>(protocol: &'static str, body: &[u8]) -> Result<T, ProviderError> {
    read(body).map_err(|error| bad(protocol, body, error.to_string()))
}

/// Reads the JSON value at the beginning of a body; what follows it is ignored.
///
/// # Errors
/// What a strict parser says.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let json = json_part(body);
    let strict = std::str::from_utf8(json).map_or_else(|_| serde_json::from_slice(json), first_value);
    strict.or_else(|error| {
        let text = decoded(body);
        let proper = relaxed(&text, Huge::Kept);
        let read = first_value(&proper).or_else(|_| first_value(&relaxed(&text, Huge::Null)));
        read.or_else(|_| by_tree(&text)).map_err(|_| error)
    })
}

/// JSON text whose values other programs can hold, and stores can keep: no numbers beyond all floats, no halves of
/// surrogate pairs. Nearly always it is the same text.
pub fn storable(json: &str) -> Cow<'_, str> {
    match may_be_unstorable(json).then(|| relaxed(json, Huge::Null)).filter(|proper| proper != json) {
        Some(proper) => Cow::Owned(proper),
        None => Cow::Borrowed(json),
    }
}

/// Whether there may be half of a surrogate pair in it, or a number with an exponent or of hundreds of digits. To look
/// for them costs less than to write the text anew, which log-probabilities would pay for each reply.
fn may_be_unstorable(json: &str) -> bool {
    let mut digits = 0;
    let huge = json.bytes().any(|byte| {
        let is_exponent = matches!(byte, b'e' | b'E') && digits > 0;
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        is_exponent || digits > 300
    });
    huge || json.contains("\\ud") || json.contains("\\uD")
}

/// JSON text as strict parsers read it, with all digits of its numbers.
pub fn proper(json: &str) -> String {
    relaxed(json, Huge::Kept)
}

/// What becomes of numbers that no float holds.
#[derive(Clone, Copy, PartialEq)]
enum Huge {
    /// They stay: JSON has them, though few programs do.
    Kept,
    Null,
    /// All numbers become marked texts, and keep their digits on a way through a tree.
    Marked,
}

/// A reply that is not what the protocol says.
pub fn bad(protocol: &'static str, body: &[u8], problem: impl Into<String>) -> ProviderError {
    ProviderError::Protocol { protocol, problem: problem.into(), excerpt: excerpt(body) }
}

/// The JSON of a reply, without what gateways put before it: a byte order mark, blank lines, `: keep-alive` comments,
/// and the `data:` of a stream that nobody asked for.
pub fn json_part(body: &[u8]) -> &[u8] {
    let mut rest = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    while rest.first() == Some(&b':') {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        rest = rest[end..].trim_ascii_start();
    }
    rest.strip_prefix(b"data:").map_or(rest, <[u8]>::trim_ascii_start)
}

/// The text of a body, to be parsed by a lenient parser: without what stands before the value and after it.
pub fn value_text(body: &[u8]) -> Cow<'_, str> {
    let text = match std::str::from_utf8(json_part(body)) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => decoded(body),
    };
    let end = text.rfind("data:").filter(|at| text[*at..].trim_end().ends_with("[DONE]"));
    match (end, text) {
        (Some(end), Cow::Borrowed(text)) => Cow::Borrowed(text[..end].trim_end()),
        (Some(end), Cow::Owned(text)) => Cow::Owned(text[..end].trim_end().to_owned()),
        (None, text) => text,
    }
}

fn first_value<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    T::deserialize(&mut serde_json::Deserializer::from_str(text))
}

/// By way of a tree, in which the last of equal keys counts.
fn by_tree<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    let tree: Value = first_value(&relaxed(text, Huge::Marked))?;
    serde_json::from_slice(&numbers::with_digits(tree.to_string().into_bytes()))
}

fn decoded(body: &[u8]) -> Cow<'_, str> {
    let wide = |join: fn([u8; 2]) -> u16| {
        let (units, _) = body[2..].as_chunks::<2>();
        Cow::Owned(String::from_utf16_lossy(&units.iter().map(|unit| join(*unit)).collect::<Vec<_>>()))
    };
    match body {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => String::from_utf8_lossy(json_part(body)),
    }
}

/// The same text as JSON proper, where that can be told.
fn relaxed(text: &str, huge: Huge) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = match next {
            '"' => string(&rest[1..], &mut out),
            '-' | '+' | '.' | '0'..='9' | 'N' | 'I' => number(rest, huge, &mut out),
            _ => {
                out.push(next);
                &rest[next.len_utf8()..]
            }
        };
    }
    out
}

/// Copies a number if JSON has it, and writes `null` for those that it does not have.
fn number<'a>(text: &'a str, huge: Huge, out: &mut String) -> &'a str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let is_finite = number.parse::<f64>().map_or(true, f64::is_finite);
    let has_digits = number.contains(|c: char| c.is_ascii_digit());
    match huge {
        Huge::Marked if has_digits && serde_json::from_str::<&RawValue>(number).is_ok() => {
            out.push_str(&numbers::long(number).to_string());
        }
        Huge::Null if !is_finite => out.push_str("null"),
        _ if !is_finite && !has_digits => out.push_str("null"),
        _ => out.push_str(number),
    }
    rest
}

/// Copies the rest of a string, up to and with its closing quote.
fn string<'a>(mut rest: &'a str, out: &mut String) -> &'a str {
    out.push('"');
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        rest = match next {
            '"' => {
                out.push('"');
                return after;
            }
            '\\' => escape(after, out),
            control if (control as u32) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", control as u32));
                after
            }
            other => {
                out.push(other);
                after
            }
        };
    }
    rest
}

/// Copies what follows a backslash; half of a surrogate pair becomes the replacement character.
fn escape<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    match rest.chars().next() {
        Some('u') => {
            let Some(code) = rest.get(1..5).and_then(|digits| u16::from_str_radix(digits, 16).ok()) else {
                out.push_str("\\\\");
                return rest;
            };
            let after = &rest[5..];
            match code {
                0xd800..=0xdbff if matches!(unit(after), Some(0xdc00..=0xdfff)) => {
                    out.push('\\');
                    out.push_str(&rest[..11]);
                    &after[6..]
                }
                0xd800..=0xdfff => {
                    out.push('\u{fffd}');
                    after
                }
                _ => {
                    out.push('\\');
                    out.push_str(&rest[..5]);
                    after
                }
            }
        }
        Some(known @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {
            out.push('\\');
            out.push(known);
            &rest[1..]
        }
        // JSON has no such escape: the backslash stands for itself.
        _ => {
            out.push_str("\\\\");
            rest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn value(body: &[u8]) -> Value {
        read(body).unwrap()
    }

    #[test]
    fn what_python_reads_is_read() {
        assert_eq!(
            value(b"{\"a\": NaN, \"b\": [-Infinity, Infinity, 1e999, -0.5]}"),
            json!({"a": null, "b": [null, null, null, -0.5]})
        );
        assert_eq!(value(br#"{"a": "caf\ud83d"}"#), json!({"a": "caf\u{fffd}"}));
        assert_eq!(
            value(br#"{"a": "\ude00 \ud83d\ude00 \ud83d\ud83d\ude00", "b": NaN}"#),
            json!({"a": "\u{fffd} 😀 \u{fffd}😀", "b": null})
        );
        assert_eq!(value(b"\xef\xbb\xbf{\"a\": 1}"), json!({"a": 1}));
        assert_eq!(value(b"\xff\xfe{\0\"\0a\0\"\0:\x001\0}\0"), json!({"a": 1}));
        assert_eq!(value(b"{\"a\": 1}\n\ndata: [DONE]\n\n"), json!({"a": 1}));
        assert_eq!(value(b"data: {\"a\": 1}\n\ndata: [DONE]\n\n"), json!({"a": 1}));
        assert_eq!(
            value(b"{\"a\": \"line\nbreak\ttab\", \"b\": \"\\x \\\" \\\\\"}"),
            json!({"a": "line\nbreak\ttab", "b": "\\x \" \\"})
        );
        assert_eq!(
            value(b"{\"text\": \"NaN, \\\"Infinity\\\"\", \"x\": NaN}"),
            json!({"text": "NaN, \"Infinity\"", "x": null})
        );
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        #[derive(serde::Deserialize)]
        struct Reply {
            id: String,
        }
        assert_eq!(read::<Reply>(br#"{"id": "a", "id": "b"}"#).unwrap().id, "b");
    }

    #[test]
    fn digits_survive_whatever_else_is_odd() {
        #[derive(serde::Deserialize)]
        struct Reply {
            input: Box<RawValue>,
        }
        let digits = "9".repeat(400);
        for odd in ["NaN", "\"\\ud83d\"", "-Infinity"] {
            let body = format!("{{\"input\": {{\"z\": {digits}, \"a\": 0.10}}, \"odd\": {odd}}}");
            assert_eq!(
                read::<Reply>(body.as_bytes()).unwrap().input.get(),
                format!("{{\"z\": {digits}, \"a\": 0.10}}")
            );
        }
        let twice = format!("{{\"input\": 1, \"input\": {{\"z\": {digits}, \"a\": -1.50e2, \"a\": 0.10}}}}");
        assert_eq!(read::<Reply>(twice.as_bytes()).unwrap().input.get(), format!("{{\"z\":{digits},\"a\":0.10}}"));
    }

    #[test]
    fn what_stores_cannot_keep_is_replaced() {
        assert_eq!(storable("[1e999, -1e999, 1.5]"), "[null, null, 1.5]");
        assert_eq!(storable(r#"["\ud83d", "\ud83d\ude00", "e"]"#), "[\"\u{fffd}\", \"\\ud83d\\ude00\", \"e\"]");
        assert_eq!(storable("[98765432109876543210]"), "[98765432109876543210]");
    }

    #[test]
    fn bytes_that_are_not_utf8_do_not_cost_the_answer() {
        #[derive(serde::Deserialize, Debug)]
        struct Reply {
            text: String,
        }
        assert_eq!(read::<Reply>(b"{\"text\": \"a\", \"other\": \"\xff\"}").unwrap().text, "a");
        assert_eq!(read::<Reply>(b"{\"text\": \"a\xff\"}").unwrap().text, "a\u{fffd}");
    }

    #[test]
    fn what_is_broken_stays_broken() {
        for body in [&b"{\"a\": "[..], b"", b"<html>", b"{\"a\": nope}", b"{\"a\": \"", b": only a comment"] {
            assert!(read::<Value>(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        let error = parse::<Value>("Chat", b"{\"a\": ").unwrap_err().to_string();
        assert!(error.contains("EOF") && error.contains("Chat"), "{error}");
    }

    #[test]
    fn what_gateways_put_before_the_json_is_skipped() {
        assert_eq!(json_part(b"\n\n: keep-alive\n\r\n: OPENROUTER PROCESSING\n {\"a\": 1}"), b"{\"a\": 1}");
        assert_eq!(json_part(b": only a comment"), b"");
        assert_eq!(value_text(b"\xef\xbb\xbf\n{\"a\": \"data: b\"}\n\ndata: [DONE]\n"), "{\"a\": \"data: b\"}");
        assert_eq!(value_text(b"{\"a\": \"data: b\"}"), "{\"a\": \"data: b\"}");
    }

    proptest! {
        #[test]
        fn proper_json_is_not_changed(text in ".{0,40}", number in any::<f64>(), list in prop::collection::vec(any::<i64>(), 0..5)) {
            let value = json!({"text": text, "number": number, "list": list, "null": null, "true": true}).to_string();
            for huge in [Huge::Kept, Huge::Null] {
                prop_assert_eq!(&relaxed(&value, huge), &value);
            }
            prop_assert_eq!(&*storable(&value), value.as_str());
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..60), text in "[\"\\\\uduDNI0-9a-f{}:,.+-]{0,40}") {
            let _ = read::<Value>(&body);
            let _ = read::<Value>(text.as_bytes());
            value_text(&body);
        }
    }
}
