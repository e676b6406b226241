//! JSON objects of streams, field by field, whatever is in them: what nobody knows goes into the whole reply as it is.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::providers::json;

/// The fields of an object, in order, unread.
#[derive(Debug, Default)]
pub struct Fields<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some(Name(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A key, which is borrowed unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    /// Those of an object; of anything else none.
    pub fn of(value: &'a RawValue) -> Self {
        serde_json::from_str(value.get()).unwrap_or_default()
    }

    /// A field that is not null.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| *value).filter(|value| !is_null(value))
    }

    /// A field that is a text.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    /// A field that is a small number: a place in a list.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.get(name)?.get().parse().ok()
    }
}

/// Whether it is null.
pub fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// A string.
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let raw = value.get();
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    let read = serde_json::from_str::<String>(raw).or_else(|_| serde_json::from_str(&json::proper(raw)));
    read.ok().map(Cow::Owned)
}

/// The elements of a list; of anything else none.
pub fn list(value: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(value.get()).unwrap_or_default()
}

/// An object that is put together field by field, JSON text in the end.
#[derive(Debug, Default, Clone)]
pub struct Object(Vec<(Box<str>, Box<str>)>);

impl Object {
    /// Sets a field; it keeps its place if it is there.
    pub fn set(&mut self, name: &str, json: impl Into<Box<str>>) {
        match self.0.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, value)) => *value = json.into(),
            None => self.0.push((name.into(), json.into())),
        }
    }

    /// Sets all fields that are not null.
    pub fn update(&mut self, fields: &Fields<'_>) {
        for (name, value) in &fields.0 {
            if !is_null(value) || !self.has(name) {
                self.set(name, value.get());
            }
        }
    }

    /// Sets all fields of another one.
    pub fn extend(&mut self, other: &Self) {
        other.iter().for_each(|(name, value)| self.set(name, value));
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| **known == *name)
    }

    /// A field's JSON text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    /// Its fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The whole, JSON text.
    pub fn json(&self) -> String {
        let mut out = "{".to_owned();
        for (name, value) in self.iter() {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(&quoted(name));
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        out
    }
}

/// A string as JSON.
pub fn quoted(text: &str) -> String {
    // A string can be written.
    serde_json::to_string(text).unwrap_or_default()
}

/// A list as JSON.
pub fn array<T: AsRef<str>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut out = "[".to_owned();
    for part in parts {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(part.as_ref());
    }
    out.push(']');
    out
}
