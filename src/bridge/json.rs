//! Python values as JSON, without an object for each part of them; canonical where it is fingerprinted.

use std::borrow::Cow;
use std::io::{Error as IoError, Write};

use pyo3::Borrowed;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Value};

use super::errors::guarded;
use super::media::PyMedia;
use crate::providers::numbers;

/// Values that are nested deeper are rejected.
const DEPTH: usize = 200;

/// A value as errors show it. What is nested very deep has no `repr`.
pub fn shown(value: &Bound<'_, PyAny>) -> String {
    value.repr().map_or_else(|_| "...".to_owned(), |text| text.to_string_lossy().into_owned())
}

/// Whether a value is nested deeper than anything that is written. For what was rejected: it looks at all of it.
pub fn is_deep(value: &Bound<'_, PyAny>) -> bool {
    const LOOKED_AT: usize = 1_000_000; // one value may stand in many places
    let mut ahead = vec![(value.clone(), 0)];
    for _ in 0..LOOKED_AT {
        let Some((value, depth)) = ahead.pop() else { break };
        let next = depth + 1;
        if depth > DEPTH {
            return true;
        } else if let Ok(dict) = value.cast::<PyDict>() {
            ahead.extend(dict.values().iter().map(|part| (part, next)));
        } else if let Ok(list) = value.cast::<PyList>() {
            ahead.extend(list.iter().map(|part| (part, next)));
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            ahead.extend(tuple.iter().map(|part| (part, next)));
        }
    }
    false
}

/// How to write.
pub struct Writing<'a, 'py> {
    /// Keys in order, whole numbers alike whatever their type: equal values are equal bytes.
    pub canonical: bool,
    /// Asked for what JSON does not have; returns something to_json_value, or raises.
    pub to_json_value: &'a Bound<'py, PyAny>,
}

impl<'py> Writing<'_, 'py> {
    /// Writes a value.
    ///
    /// # Errors
    /// What `to_json_value` raises; `TypeError` or `ValueError` for what JSON cannot say.
    pub fn write(&self, value: &Bound<'py, PyAny>, out: &mut impl Write) -> PyResult<()> {
        guarded(|| self.part(value, out, 0))
    }

    fn part(&self, value: &Bound<'py, PyAny>, out: &mut impl Write, depth: usize) -> PyResult<()> {
        if depth > DEPTH {
            return Err(PyValueError::new_err(format!("it is nested deeper than {DEPTH} levels")));
        }
        if value.is_none() {
            return put(out, b"null");
        }
        if let Ok(text) = value.cast::<PyString>() {
            return self.text(text, out);
        }
        if let Ok(truth) = value.cast::<PyBool>() {
            return put(out, if truth.is_true() { b"true" } else { b"false" });
        }
        if let Ok(number) = value.cast_exact::<PyInt>() {
            return match number.extract::<i64>() {
                Ok(number) => write!(out, "{number}").map_err(failed),
                // Longer than any number of ours.
                Err(_) => put(out, number.str()?.to_cow()?.as_bytes()),
            };
        }
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            return self.float(number.value(), out);
        }
        if let Ok(dict) = value.cast::<PyDict>() {
            return self.dict(dict, out, depth);
        }
        if let Ok(list) = value.cast::<PyList>() {
            return self.sequence(list.iter(), out, depth);
        }
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            return self.sequence(tuple.iter(), out, depth);
        }
        if self.canonical
            && let Some(media) = value.getattr_opt(intern!(value.py(), "_media"))?
            && let Ok(media) = media.cast::<PyMedia>()
        {
            return write!(out, "{{\"media\":\"{}\"}}", media.get().fingerprint()).map_err(failed);
        }
        self.part(&self.to_json_value.call1((value,))?, out, depth + 1)
    }

    fn text(&self, text: &Bound<'py, PyString>, out: &mut impl Write) -> PyResult<()> {
        match text.to_cow() {
            Ok(text) => serde_json::to_writer(out, &text).map_err(|error| failed(error.into())),
            Err(_) => put(out, escaped(text)?.as_bytes()),
        }
    }

    fn float(&self, number: f64, out: &mut impl Write) -> PyResult<()> {
        /// Whole numbers up to here are exact as floats.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if !number.is_finite() {
            // Fingerprints tell them from each other, and from null.
            return match (self.canonical, number.is_nan(), number > 0.0) {
                (false, ..) => put(out, b"null"),
                (true, true, _) => put(out, b"NaN"),
                (true, false, true) => put(out, b"Infinity"),
                (true, false, false) => put(out, b"-Infinity"),
            };
        }
        if self.canonical && number.fract() == 0.0 && number.abs() <= EXACT {
            return write!(out, "{:.0}", number + 0.0).map_err(failed);
        }
        serde_json::to_writer(out, &number).map_err(|error| failed(error.into()))
    }

    fn dict(&self, dict: &Bound<'py, PyDict>, out: &mut impl Write, depth: usize) -> PyResult<()> {
        let mut fields = Vec::with_capacity(dict.len());
        for (key, value) in dict.iter() {
            let Ok(key) = key.cast::<PyString>() else {
                return Err(PyTypeError::new_err(format!("JSON keys must be strings, not {:.80}", shown(&key))));
            };
            let name = key.to_cow().map(Cow::into_owned).or_else(|_| escaped(key))?;
            fields.push((name, key.clone(), value));
        }
        if self.canonical {
            fields.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        }
        put(out, b"{")?;
        for (place, (_, key, value)) in fields.iter().enumerate() {
            if place > 0 {
                put(out, b",")?;
            }
            self.text(key, out)?;
            put(out, b":")?;
            self.part(value, out, depth + 1)?;
        }
        put(out, b"}")
    }

    fn sequence(
        &self,
        values: impl Iterator<Item = Bound<'py, PyAny>>,
        out: &mut impl Write,
        depth: usize,
    ) -> PyResult<()> {
        put(out, b"[")?;
        for (place, value) in values.enumerate() {
            if place > 0 {
                put(out, b",")?;
            }
            self.part(&value, out, depth + 1)?;
        }
        put(out, b"]")
    }
}

/// A Python value as a tree of JSON, in its own order and with all digits of its numbers. `place` names it in errors.
///
/// # Errors
/// `TypeError` or `ValueError` that names the place of what JSON does not have.
pub fn to_value(value: &Bound<'_, PyAny>, place: &str) -> PyResult<Value> {
    guarded(|| tree(value, place, 0))
}

fn tree(value: &Bound<'_, PyAny>, place: &str, depth: usize) -> PyResult<Value> {
    if depth > DEPTH {
        return Err(PyValueError::new_err(format!("{place} is nested deeper than {DEPTH} levels")));
    }
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_cow().map_err(|_| {
            PyValueError::new_err(format!("{place} has an unpaired surrogate, which UTF-8 cannot encode; remove it"))
        })?;
        return Ok(Value::String(text.into_owned()));
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Value::Bool(truth.is_true()));
    }
    if let Ok(number) = value.cast::<PyInt>() {
        return match (number.extract::<i64>(), number.extract::<u64>()) {
            (Ok(number), _) => Ok(number.into()),
            (_, Ok(number)) => Ok(number.into()),
            _ => Ok(numbers::long(&number.str()?.to_cow()?)),
        };
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        let number = number.value();
        let known = serde_json::Number::from_f64(number);
        return known
            .map(Value::Number)
            .ok_or_else(|| PyValueError::new_err(format!("{place} is {number}, which JSON cannot represent")));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let mut fields = Map::with_capacity(dict.len());
        for (key, value) in dict.iter() {
            let Ok(key) = key.cast::<PyString>() else {
                return Err(PyTypeError::new_err(format!("{place}: the key {:.80} is not a string", shown(&key))));
            };
            let key = key.to_cow()?.into_owned();
            let inner = tree(&value, &format!("{place}.{key}"), depth + 1)?;
            fields.insert(key, inner);
        }
        return Ok(Value::Object(fields));
    }
    let values: Vec<Bound<'_, PyAny>> = match (value.cast::<PyList>(), value.cast::<PyTuple>()) {
        (Ok(list), _) => list.iter().collect(),
        (_, Ok(tuple)) => tuple.iter().collect(),
        // Any other mapping or sequence, as `MappingProxyType`.
        _ if value.hasattr(intern!(value.py(), "keys"))? => {
            let dict = PyDict::new(value.py());
            dict.update(value.cast()?)?;
            return tree(&dict, place, depth + 1);
        }
        _ => {
            let kind = value.get_type().name()?;
            return Err(PyValueError::new_err(format!("{place} cannot be written as JSON: its type is {kind}")));
        }
    };
    let parts = values.iter().enumerate().map(|(at, value)| tree(value, &format!("{place}[{at}]"), depth + 1));
    Ok(Value::Array(parts.collect::<PyResult<_>>()?))
}

/// A text that has half of a surrogate pair, which UTF-8 does not have, as JSON: with an escape for it.
fn escaped(text: &Bound<'_, PyString>) -> PyResult<String> {
    let json = text.py().import(intern!(text.py(), "json"))?;
    json.call_method1(intern!(text.py(), "dumps"), (text,))?.extract()
}

/// A text of Python's as UTF-8: half of a surrogate pair becomes an escape, `\ud83d`.
pub struct Readable(pub String);

impl<'py> FromPyObject<'_, 'py> for Readable {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let text = object.cast::<PyString>()?;
        if let Ok(text) = text.to_cow() {
            return Ok(Self(text.into_owned()));
        }
        let bytes = text.call_method1(intern!(object.py(), "encode"), ("utf-8", "backslashreplace"))?;
        Ok(Self(String::from_utf8_lossy(bytes.cast::<PyBytes>()?.as_bytes()).into_owned()))
    }
}

fn put(out: &mut impl Write, bytes: &[u8]) -> PyResult<()> {
    out.write_all(bytes).map_err(failed)
}

fn failed(error: IoError) -> PyErr {
    error.into()
}
