//! Prompts as Python writes them: a text, a list of parts, or a list of messages.

use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::journal::fingerprint::Fingerprint;
use crate::journal::record::Key;
use crate::providers::prompt::{Media, MediaKind, Message, Part, Prompt, Role};
use crate::providers::reply::ToolCall;

/// A picture, a sound or a document, encoded once; `batch_llm.Image` and its siblings are its faces.
#[pyclass(frozen, module = "batch_llm._core", name = "Media")]
pub struct PyMedia(Arc<Media>, OnceLock<Key>);

#[pymethods]
impl PyMedia {
    #[new]
    #[pyo3(signature = (kind, media_type, *, data = None, url = None, name = None, detail = None))]
    fn new(
        kind: &str,
        media_type: &str,
        data: Option<&[u8]>,
        url: Option<String>,
        name: Option<String>,
        detail: Option<String>,
    ) -> PyResult<Self> {
        let kind = match kind {
            "image" => MediaKind::Image,
            "audio" => MediaKind::Audio,
            "file" => MediaKind::File,
            other => return Err(PyValueError::new_err(format!("there is no kind of media {other:?}"))),
        };
        let mut media = match (data, url) {
            (Some(bytes), _) => Media::from_bytes(kind, media_type, bytes),
            (None, Some(url)) => Media::from_url(kind, media_type, url),
            (None, None) => return Err(PyValueError::new_err("media need data or a url")),
        };
        (media.name, media.detail) = (name, detail);
        Ok(Self(Arc::new(media), OnceLock::new()))
    }

    /// Bytes that it adds to a request.
    #[getter]
    fn size(&self) -> usize {
        self.0.url().len()
    }
}

impl PyMedia {
    /// The fingerprint of everything that a provider is told of it.
    pub fn fingerprint(&self) -> Key {
        *self.1.get_or_init(|| {
            let media = &self.0;
            let mut fingerprint = Fingerprint::new("media");
            let (name, detail) = (media.name.as_deref(), media.detail.as_deref());
            for text in [media.url(), &media.media_type, name.unwrap_or_default(), detail.unwrap_or_default()] {
                fingerprint.text(text);
            }
            fingerprint.key()
        })
    }
}

/// Reads a prompt.
///
/// # Errors
/// `TypeError` or `ValueError` that names the place and what belongs there.
pub fn read(given: &Bound<'_, PyAny>) -> PyResult<Prompt> {
    if let Ok(text) = given.cast::<PyString>() {
        return Ok(Prompt::Text(text.to_cow()?.into_owned()));
    }
    let items = sequence(given).ok_or_else(|| {
        let kind = given.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!(
            "prompt must be a string, a list of messages, or a list of texts and media, not {kind}"
        ))
    })?;
    if items.is_empty() {
        return Err(PyValueError::new_err("prompt is an empty list; give it a message"));
    }
    let messages = items.iter().filter(|item| has_role(item)).count();
    if messages == 0 {
        let parts = items.iter().enumerate().map(|(place, item)| part(item, &format!("part {place}")));
        let message = Message {
            role: Role::User,
            parts: parts.collect::<PyResult<_>>()?,
            tool_calls: Vec::new(),
            tool_call_id: None,
        };
        return Ok(Prompt::Messages(vec![message]));
    }
    if messages < items.len() {
        return Err(PyTypeError::new_err(
            "prompt mixes messages (with a role) and parts (without); use one or the other",
        ));
    }
    let messages = items.iter().enumerate().map(|(place, item)| message(item, place));
    Ok(Prompt::Messages(messages.collect::<PyResult<_>>()?))
}

fn sequence<'py>(given: &Bound<'py, PyAny>) -> Option<Vec<Bound<'py, PyAny>>> {
    match (given.cast::<PyList>(), given.cast::<PyTuple>()) {
        (Ok(list), _) => Some(list.iter().collect()),
        (_, Ok(tuple)) => Some(tuple.iter().collect()),
        _ => None,
    }
}

fn has_role(item: &Bound<'_, PyAny>) -> bool {
    item.cast::<PyDict>().is_ok_and(|dict| dict.contains(intern!(item.py(), "role")).unwrap_or(false))
}

fn message(item: &Bound<'_, PyAny>, place: usize) -> PyResult<Message> {
    let dict = item.cast::<PyDict>()?;
    let wrong = |problem: String| PyValueError::new_err(format!("message {place}: {problem}"));
    let get = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> { Ok(dict.get_item(name)?.filter(|v| !v.is_none())) };
    let known = ["role", "content", "tool_calls", "tool_call_id", "name"];
    if let Some(unknown) = dict.keys().iter().map(|key| key.to_string()).find(|key| !known.contains(&key.as_str())) {
        return Err(wrong(format!("unknown key {unknown:?}; a message has {}", known.join(", "))));
    }
    let role = match get("role")?.map(|role| role.to_string()).unwrap_or_default().as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => return Err(wrong(format!("role must be system, user, assistant or tool, not {other:?}"))),
    };
    let parts = match get("content")? {
        None => Vec::new(),
        Some(content) => match sequence(&content) {
            Some(items) => {
                let places = items.iter().enumerate();
                places.map(|(p, item)| part(item, &format!("message {place}, part {p}"))).collect::<PyResult<_>>()?
            }
            None => vec![part(&content, &format!("message {place}"))?],
        },
    };
    let tool_calls = match get("tool_calls")? {
        None => Vec::new(),
        Some(calls) => sequence(&calls)
            .ok_or_else(|| wrong("tool_calls must be a list".to_owned()))?
            .iter()
            .map(tool_call)
            .collect::<PyResult<_>>()?,
    };
    let tool_call_id = get("tool_call_id")?.map(|id| id.to_string());
    if role == Role::Tool && tool_call_id.is_none() {
        return Err(wrong("a tool's message needs tool_call_id, the id of the call that it answers".to_owned()));
    }
    if parts.is_empty() && tool_calls.is_empty() {
        return Err(wrong("it has no content".to_owned()));
    }
    Ok(Message { role, parts, tool_calls, tool_call_id })
}

/// A tool call: an object or a dict with `id`, `name` and `arguments`, or OpenAI's with `function` in it.
fn tool_call(call: &Bound<'_, PyAny>) -> PyResult<ToolCall> {
    let field = |of: &Bound<'_, PyAny>, name: &str| -> PyResult<String> {
        let value = match of.cast::<PyDict>() {
            Ok(dict) => {
                dict.get_item(name)?.ok_or_else(|| PyValueError::new_err(format!("a tool call needs {name}")))?
            }
            Err(_) => of.getattr(name)?,
        };
        Ok(value.to_string())
    };
    let function = match call.cast::<PyDict>() {
        Ok(dict) => dict.get_item("function")?,
        Err(_) => None,
    };
    let of = function.as_ref().unwrap_or(call);
    Ok(ToolCall { id: field(call, "id")?, name: field(of, "name")?, arguments: field(of, "arguments")? })
}

fn part(item: &Bound<'_, PyAny>, place: &str) -> PyResult<Part> {
    let py = item.py();
    if let Ok(text) = item.cast::<PyString>() {
        return Ok(Part::Text(text.to_cow()?.into_owned()));
    }
    if let Some(media) = item.getattr_opt(intern!(py, "_media"))? {
        return Ok(Part::Media(Arc::clone(&media.cast::<PyMedia>()?.get().0)));
    }
    if let Ok(dict) = item.cast::<PyDict>() {
        let text = |name: &str| -> PyResult<Option<String>> { Ok(dict.get_item(name)?.map(|value| value.to_string())) };
        match text("type")?.as_deref() {
            Some("text") => {
                if let Some(text) = text("text")? {
                    return Ok(Part::Text(text));
                }
            }
            // The form that most people know by heart.
            Some("image_url") => {
                let inner = dict.get_item("image_url")?;
                let url = match inner.as_ref().map(|inner| inner.cast::<PyDict>()) {
                    Some(Ok(object)) => object.get_item("url")?,
                    _ => inner,
                };
                if let Some(url) = url {
                    let media = Media::from_url(MediaKind::Image, "image/*", url.to_string());
                    return Ok(Part::Media(Arc::new(media)));
                }
            }
            _ => {}
        }
    }
    let kind = item.get_type().name()?;
    Err(PyTypeError::new_err(format!(
        "{place}: a part must be a string, an Image, an Audio or a File, not {kind} ({:.60})",
        item.repr()?.to_string()
    )))
}
