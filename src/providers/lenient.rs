//! Fields of replies that are read whatever their type is. Used by the dialects and by embeddings.
//!
//! A paid answer must not be lost because a server writes a count as a float, a list as `null`, or a name as a number.
//! What is not of the expected type counts as absent. Only JSON that is broken is an error.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{Error as ValueError, MapAccessDeserializer, MapDeserializer};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A value without parts.
enum Scalar<'de> {
    Text(Cow<'de, str>),
    Count(u64),
    /// Not a whole number.
    Fraction(f64),
    Flag(bool),
    Other,
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_u64<E>(self, count: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Count(count))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(u64::try_from(number).map_or(Scalar::Other, Scalar::Count))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(match rounded(number) {
            Some(count) if number.fract() == 0.0 => Scalar::Count(count),
            Some(_) => Scalar::Fraction(number),
            None => Scalar::Other,
        })
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Scalar<'de>, A::Error> {
        drain_seq(seq).map(|()| Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar<'de>, A::Error> {
        drain_map(map).map(|()| Scalar::Other)
    }
}

/// The nearest whole number, of floats that are not negative and not too large to be exact.
fn rounded(number: f64) -> Option<u64> {
    /// Whole floats up to here are exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..=EXACT).contains(&number).then(|| number.round() as u64)
}

fn drain_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn drain_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// A text; anything else counts as absent.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match deserializer.deserialize_any(ScalarVisitor)? {
        Scalar::Text(text) => Some(text.into_owned()),
        _ => None,
    })
}

/// A word, or an object with the word as its `type`.
pub fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(default, rename = "type", deserialize_with = "text")]
        kind: Option<String>,
        #[serde(default, deserialize_with = "text")]
        text: Option<String>,
    }
    Ok(match Found::<Typed>::deserialize(deserializer)? {
        Found::Object(typed) => typed.kind.or(typed.text),
        Found::Text(word) => Some(word).filter(|word| !word.is_empty()),
        Found::Other => None,
    })
}

/// A text, or a number as a text: codes and ids.
pub fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match deserializer.deserialize_any(ScalarVisitor)? {
        Scalar::Text(text) => Some(text.into_owned()),
        Scalar::Count(number) => Some(number.to_string()),
        _ => None,
    })
}

/// A count that is not negative. A fraction, as proxies that average write it, is rounded; a text is read as a number;
/// anything else counts as absent.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match deserializer.deserialize_any(ScalarVisitor)? {
        Scalar::Count(count) => Some(count),
        Scalar::Fraction(number) => rounded(number),
        Scalar::Text(text) => text.trim().parse().ok().or_else(|| rounded(text.trim().parse().ok()?)),
        _ => None,
    })
}

/// A flag; anything but `true` is `false`.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(matches!(deserializer.deserialize_any(ScalarVisitor)?, Scalar::Flag(true)))
}

/// An object; anything else counts as absent.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(match Found::deserialize(deserializer)? {
        Found::Object(object) => Some(object),
        Found::Text(_) | Found::Other => None,
    })
}

/// A list of objects. One object by itself is a list of one; a text is an object with that `text`, as in blocks of
/// content; whatever else is not an object is left out.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(found) = seq.next_element()? {
                match found {
                    Found::Object(object) => list.push(object),
                    Found::Text(text) => list.extend(of_text(&text)),
                    Found::Other => {}
                }
            }
            Ok(list)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(|object| vec![object])
        }

        fn visit_bool<E>(self, _: bool) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_i64<E>(self, _: i64) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_u64<E>(self, _: u64) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_f64<E>(self, _: f64) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            Ok(Vec::from_iter(of_text(text)))
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }
    }

    deserializer.deserialize_any(List(PhantomData))
}

/// An error that a success may hold: `None` for `null`, and for what says nothing (`false`, 0, `""`, `{}`, `[]`, or
/// that all is well: 200, `"success"`).
pub fn error<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok((!says_nothing(&value)).then_some(value))
}

/// Whether an error says nothing, or that all is well.
pub fn says_nothing(value: &Value) -> bool {
    const NOTHING: &[&str] = &["", "0", "200", "none", "null", "ok", "success"];
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64().is_some_and(|number| number == 0.0 || number == 200.0),
        Value::String(text) => NOTHING.contains(&text.trim().to_ascii_lowercase().as_str()),
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Array(values) => values.iter().all(says_nothing),
    }
}

/// An object with this text.
fn of_text<'de, T: Deserialize<'de>>(text: &str) -> Option<T> {
    let fields = [("text", text.to_owned())].into_iter();
    T::deserialize(MapDeserializer::<_, ValueError>::new(fields)).ok().filter(|_| !text.is_empty())
}

/// What stands where an object is expected.
enum Found<T> {
    Object(T),
    Text(String),
    Other,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Found<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
            type Value = Found<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("anything")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Found<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Found::Object)
            }

            fn visit_str<E>(self, text: &str) -> Result<Found<T>, E> {
                Ok(Found::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Found<T>, A::Error> {
                drain_seq(seq).map(|()| Found::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Found<T>, E> {
                Ok(Found::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Found<T>, E> {
                Ok(Found::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Found<T>, E> {
                Ok(Found::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Found<T>, E> {
                Ok(Found::Other)
            }

            fn visit_unit<E>(self) -> Result<Found<T>, E> {
                Ok(Found::Other)
            }
        }

        deserializer.deserialize_any(Any(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Default, Debug, PartialEq)]
    #[serde(default)]
    struct Reply {
        #[serde(deserialize_with = "text")]
        name: Option<String>,
        #[serde(deserialize_with = "code")]
        id: Option<String>,
        #[serde(deserialize_with = "count")]
        tokens: Option<u64>,
        #[serde(deserialize_with = "flag")]
        thought: bool,
        #[serde(deserialize_with = "object")]
        inner: Option<Box<Reply>>,
        #[serde(deserialize_with = "list")]
        parts: Vec<Reply>,
        #[serde(deserialize_with = "error")]
        error: Option<Value>,
    }

    fn read(json: &str) -> Reply {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_of_another_type_counts_as_absent() {
        let odd = [
            "null",
            "true",
            "-1",
            "-1.5",
            "1e30",
            "\"many\"",
            "\"-1\"",
            "[]",
            "[1, {}]",
            "{}",
            "{\"a\": [null]}",
            "98765432109876543210",
        ];
        for value in odd {
            assert_eq!(read(&format!("{{\"tokens\": {value}}}")).tokens, None, "{value}");
            if !value.starts_with('"') {
                assert_eq!(read(&format!("{{\"name\": {value}}}")).name, None, "{value}");
            }
            if value != "true" {
                assert!(!read(&format!("{{\"thought\": {value}}}")).thought, "{value}");
            }
            let parts = read(&format!("{{\"parts\": {value}}}")).parts;
            let objects = value.starts_with('"') || matches!(value, "[1, {}]" | "{}" | "{\"a\": [null]}");
            assert_eq!(parts, if objects { vec![Reply::default()] } else { vec![] }, "{value}");
            let is_object = value.starts_with('{');
            assert_eq!(read(&format!("{{\"inner\": {value}}}")).inner.is_some(), is_object, "{value}");
        }
    }

    #[test]
    fn what_is_of_the_type_is_read() {
        let reply = read(
            r#"{"name": "é\"", "id": 7, "tokens": 12.0, "thought": true, "inner": {"tokens": 3},
                "parts": [null, {"name": "a"}, "text", {"name": 1}]}"#,
        );
        assert_eq!((reply.name.as_deref(), reply.id.as_deref(), reply.tokens), (Some("é\""), Some("7"), Some(12)));
        assert!(reply.thought && reply.inner.unwrap().tokens == Some(3));
        assert_eq!(reply.parts.iter().map(|part| part.name.as_deref()).collect::<Vec<_>>(), [Some("a"), None, None]);
    }

    #[test]
    fn counts_are_read_as_fractions_and_as_texts_too() {
        for (value, count) in
            [("14417.92", 14418), ("0.2", 0), ("\"12\"", 12), ("\" 12 \"", 12), ("\"12.0\"", 12), ("\"2.6\"", 3)]
        {
            assert_eq!(read(&format!("{{\"tokens\": {value}}}")).tokens, Some(count), "{value}");
        }
        assert_eq!(read("{\"id\": 1.5}").id, None);
    }

    #[test]
    fn an_error_that_says_nothing_is_none() {
        for nothing in [
            "null",
            "false",
            "0",
            "\"\"",
            "\" \"",
            "{}",
            "[]",
            "{\"message\": null}",
            "200",
            "\"none\"",
            "{\"code\": 0, \"message\": \"ok\"}",
        ] {
            assert_eq!(read(&format!("{{\"error\": {nothing}}}")).error, None, "{nothing}");
        }
        for something in ["true", "1", "\"no\"", "{\"code\": 5}", "[\"no\"]"] {
            assert!(read(&format!("{{\"error\": {something}}}")).error.is_some(), "{something}");
        }
    }

    #[test]
    fn broken_json_is_an_error() {
        for broken in ["{\"tokens\": ", "{\"parts\": [{]}", "{\"inner\": {\"a\" 1}}"] {
            assert!(serde_json::from_str::<Reply>(broken).is_err(), "{broken}");
        }
    }
}
