//! Fields of replies that are read whatever their type is. Used by the dialects and by embeddings.
//!
//! A paid answer must not be lost because a server writes a count as a float, a list as `null`, or a name as a number.
//! What is not of the expected type counts as absent. Only JSON that is broken is an error.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A value without parts.
enum Scalar<'de> {
    Text(Cow<'de, str>),
    Count(u64),
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
        /// Whole floats up to here are exact.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let is_count = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(if is_count { Scalar::Count(number as u64) } else { Scalar::Other })
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

/// A text, or a number as a text: codes and ids.
pub fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match deserializer.deserialize_any(ScalarVisitor)? {
        Scalar::Text(text) => Some(text.into_owned()),
        Scalar::Count(number) => Some(number.to_string()),
        _ => None,
    })
}

/// A count: a whole number that is not negative; anything else counts as absent.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match deserializer.deserialize_any(ScalarVisitor)? {
        Scalar::Count(count) => Some(count),
        _ => None,
    })
}

/// A flag; anything but `true` is `false`.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(matches!(deserializer.deserialize_any(ScalarVisitor)?, Scalar::Flag(true)))
}

/// An object; anything else counts as absent.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Maybe::deserialize(deserializer).map(|Maybe(object)| object)
}

/// A list of objects; what is not an object is left out, and anything but a list is an empty one.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(Maybe(element)) = seq.next_element()? {
                list.extend(element);
            }
            Ok(list)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            drain_map(map).map(|()| Vec::new())
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

        fn visit_str<E>(self, _: &str) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }
    }

    deserializer.deserialize_any(List(PhantomData))
}

/// An error that a success may hold: `None` for `null`, and for what says nothing (`false`, 0, `""`, `{}`, `[]`).
pub fn error<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let says_nothing = match &value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.trim().is_empty(),
        Value::Object(fields) => fields.values().all(Value::is_null),
        Value::Array(values) => values.iter().all(Value::is_null),
        Value::Bool(true) => false,
    };
    Ok((!says_nothing).then_some(value))
}

/// An object, or anything else.
struct Maybe<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Maybe<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Maybe<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|object| Maybe(Some(object)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Maybe<T>, A::Error> {
                drain_seq(seq).map(|()| Maybe(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }

            fn visit_unit<E>(self) -> Result<Maybe<T>, E> {
                Ok(Maybe(None))
            }
        }

        deserializer.deserialize_any(Object(PhantomData))
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
            "1.5",
            "1e30",
            "\"12\"",
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
            assert_eq!(parts, if value == "[1, {}]" { vec![Reply::default()] } else { vec![] }, "{value}");
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
        assert_eq!(reply.parts.iter().map(|part| part.name.as_deref()).collect::<Vec<_>>(), [Some("a"), None]);
    }

    #[test]
    fn an_error_that_says_nothing_is_none() {
        for nothing in ["null", "false", "0", "\"\"", "\" \"", "{}", "[]", "{\"message\": null}"] {
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
