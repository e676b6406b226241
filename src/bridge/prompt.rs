//! Prompts as Python writes them: a text, a list of parts, or a list of messages.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use serde_json::value::RawValue;

use super::errors::guarded;
use super::json::{Writing, shown};
use super::media::PyMedia;
use crate::providers::media::{Media, MediaKind};
use crate::providers::prompt::{Fields, Message, Part, Prompt, Role};
use crate::providers::reply::ToolCall;
use crate::providers::shared::Text;
use crate::providers::shown::Quoted;

/// Reads a prompt.
///
/// # Errors
/// `TypeError` or `ValueError` that names the place and what belongs there.
pub fn read(given: &Bound<'_, PyAny>) -> PyResult<Prompt> {
    guarded(|| whole(given))
}

/// The messages of a conversation, read once each: its next request is the same and a few more.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct Messages(Mutex<Arc<Vec<Message>>>);

#[pymethods]
impl Messages {
    /// Those of a prompt.
    #[new]
    fn new(given: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(Mutex::new(messages(read(given)?))))
    }

    /// Adds those of another prompt at the end.
    fn extend(&self, given: &Bound<'_, PyAny>) -> PyResult<()> {
        let more = messages(read(given)?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The request before has been written, so nobody else has them any more, and none is copied.
        Arc::make_mut(&mut known).extend(Arc::unwrap_or_clone(more));
        Ok(())
    }
}

fn messages(prompt: Prompt) -> Arc<Vec<Message>> {
    match prompt {
        Prompt::Text(text) => Arc::new(vec![Message { parts: vec![Part::Text(text)], ..Message::default() }]),
        Prompt::Messages(messages) => messages,
    }
}

fn whole(given: &Bound<'_, PyAny>) -> PyResult<Prompt> {
    if let Ok(known) = given.cast_exact::<Messages>() {
        return Ok(Prompt::Messages(Arc::clone(&known.get().0.lock().unwrap_or_else(PoisonError::into_inner))));
    }
    if let Ok(text) = given.cast::<PyString>() {
        return Ok(Prompt::Text(Text::of(&text.to_cow()?)));
    }
    let items = sequence(given).ok_or_else(|| {
        let kind = given.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!(
            "prompt must be a string, a list of messages, or a list of texts and media, not {kind}"
        ))
    })?;
    if items.is_empty() {
        return Err(PyValueError::new_err("prompt is an empty list; add a message"));
    }
    let messages = items.iter().filter(|item| has_role(item)).count();
    if messages == 0 {
        let parts = items.iter().enumerate().map(|(place, item)| part(item, &format!("part {place}")));
        let message = Message { role: Role::User, parts: parts.collect::<PyResult<_>>()?, ..Message::default() };
        return Ok(vec![message].into());
    }
    if messages < items.len() {
        return Err(PyTypeError::new_err(
            "prompt mixes messages (with a role) and parts (without one); use only one kind",
        ));
    }
    let messages = items.iter().enumerate().map(|(place, item)| message(item, place));
    Ok(messages.collect::<PyResult<Vec<_>>>()?.into())
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

/// Keys of a message with a meaning here.
const OF_MESSAGES: [&str; 6] = ["role", "content", "tool_calls", "tool_call_id", "name", "state"];
/// Keys that some providers know; their dialects send them or name them in an error.
const PASSED_ON: &[&str] = &[
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "cache_control",
    "is_error",
    "refusal",
    "prefix",
    "partial",
]; // fmt: skip

fn message(item: &Bound<'_, PyAny>, place: usize) -> PyResult<Message> {
    let dict = item.cast::<PyDict>()?;
    let wrong = |problem: String| PyValueError::new_err(format!("message {place}: {problem}"));
    let mut found = [const { None }; OF_MESSAGES.len()];
    let more = fields(dict, |key, value| {
        let place = OF_MESSAGES.iter().position(|name| *name == key);
        place.inspect(|place| found[*place] = Some(value.clone()).filter(|value| !value.is_none())).is_some()
    })?;
    let [role, content, tool_calls, tool_call_id, name, state] = found;
    if let Some((unknown, _)) = more.0.iter().find(|(key, _)| !PASSED_ON.contains(&key.as_str())) {
        let known = [&OF_MESSAGES, PASSED_ON].concat().join(", ");
        return Err(wrong(format!("unknown key {}; known keys: {known}", Quoted(unknown))));
    }
    let role = match role.map(|role| role.to_string()).unwrap_or_default().as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => return Err(wrong(format!("role must be system, user, assistant or tool, not {}", Quoted(other)))),
    };
    let parts = match content {
        // A tool that returned nothing, or a list of its own, has returned that.
        None if role == Role::Tool => vec![Part::Text("null".to_owned().into())],
        None => Vec::new(),
        Some(content) => match sequence(&content) {
            Some(items) if role == Role::Tool && (items.is_empty() || !items.iter().all(is_part)) => {
                vec![Part::Text(json_text(&content)?.into())]
            }
            Some(items) => {
                let places = items.iter().enumerate();
                places.map(|(p, item)| part(item, &format!("message {place}, part {p}"))).collect::<PyResult<_>>()?
            }
            None if role == Role::Tool && !content.is_instance_of::<PyString>() && !content.hasattr("_media")? => {
                // What a tool returned, as it is.
                vec![Part::Text(json_text(&content)?.into())]
            }
            None => vec![part(&content, &format!("message {place}"))?],
        },
    };
    let tool_calls = match tool_calls {
        None => Vec::new(),
        Some(calls) => sequence(&calls)
            .ok_or_else(|| wrong("tool_calls must be a list".to_owned()))?
            .iter()
            .map(tool_call)
            .collect::<PyResult<_>>()?,
    };
    let text = |value: Bound<'_, PyAny>| -> PyResult<String> { Ok(value.str()?.to_cow()?.into_owned()) };
    let tool_call_id = tool_call_id.map(text).transpose()?;
    let name = name.map(text).transpose()?;
    let state = state.map(text).transpose()?.map(Into::into);
    if role != Role::Assistant && !tool_calls.is_empty() {
        return Err(wrong("only an assistant message can have tool_calls".to_owned()));
    }
    if role != Role::Assistant && state.is_some() {
        return Err(wrong("only an assistant message can have a state".to_owned()));
    }
    if role != Role::Tool && tool_call_id.is_some() {
        return Err(wrong("only a tool message can have tool_call_id".to_owned()));
    }
    if role == Role::Tool && tool_call_id.is_none() {
        return Err(wrong("a tool message needs tool_call_id, the id of the tool call it answers".to_owned()));
    }
    if parts.is_empty() && tool_calls.is_empty() {
        return Err(wrong("it has no content".to_owned()));
    }
    Ok(Message { role, parts, tool_calls, tool_call_id, name, state, more })
}

/// Whether it can be a part of a message: a text, a medium, or a dict that says which.
fn is_part(item: &Bound<'_, PyAny>) -> bool {
    item.is_instance_of::<PyString>()
        || item.hasattr("_media").unwrap_or(false)
        || item.cast::<PyDict>().is_ok_and(|dict| {
            let kind = dict.get_item("type").ok().flatten().map(|kind| kind.to_string());
            kind.is_some_and(|kind| PARTS.contains(&kind.as_str()))
        })
}

/// Types of parts that are written as dicts.
const PARTS: &[&str] = &[
    "text",
    "input_text",
    "output_text",
    "image_url",
    "input_image",
    "image",
    "audio_url",
    "input_audio",
    "file",
    "input_file",
    "document",
]; // fmt: skip

/// The entries of a dict that are not known, as JSON. `None`, and a list without entries, say nothing.
fn fields<'py>(
    dict: &Bound<'py, PyDict>,
    mut is_known: impl FnMut(&str, &Bound<'py, PyAny>) -> bool,
) -> PyResult<Fields> {
    let mut more = Vec::new();
    for (key, value) in dict.iter() {
        let key = key.str()?;
        let key = key.to_cow()?;
        let says_nothing = || value.is_none() || value.cast::<PyList>().is_ok_and(|list| list.is_empty());
        if !is_known(&key, &value) && !says_nothing() {
            let json =
                RawValue::from_string(json_text(&value)?).map_err(|error| PyValueError::new_err(error.to_string()))?;
            more.push((key.into_owned(), json));
        }
    }
    Ok(Fields(more))
}

fn json_text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let to_json_value = value.py().import("batch_llm.serialization")?.getattr("to_plain")?;
    let mut json = Vec::new();
    Writing { canonical: false, to_json_value: &to_json_value }.write(value, &mut json)?;
    String::from_utf8(json).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// A tool call: an object or a dict with `id`, `name` and `arguments`, or OpenAI's with `function` in it.
fn tool_call(call: &Bound<'_, PyAny>) -> PyResult<ToolCall> {
    let py = call.py();
    let get = |of: &Bound<'_, PyAny>, name: &Bound<'_, PyString>| -> PyResult<Option<Py<PyAny>>> {
        let value = match of.cast::<PyDict>() {
            Ok(dict) => dict.get_item(name)?,
            Err(_) => of.getattr_opt(name)?,
        };
        Ok(value.filter(|value| !value.is_none()).map(Bound::unbind))
    };
    let needed = |of: &Bound<'_, PyAny>, name: &Bound<'_, PyString>| -> PyResult<Py<PyAny>> {
        get(of, name)?.ok_or_else(|| PyValueError::new_err(format!("a tool call needs {name}")))
    };
    let text = |value: Py<PyAny>| -> PyResult<String> { Ok(value.bind(py).str()?.to_cow()?.into_owned()) };
    let function = get(call, intern!(py, "function"))?;
    let of = function.as_ref().map_or(call, |function| function.bind(py));
    // A string is JSON text already; anything else is what that text says.
    let arguments = match get(of, intern!(py, "arguments"))? {
        None => "{}".to_owned(),
        Some(given) if given.bind(py).is_instance_of::<PyString>() => text(given)?,
        Some(given) => json_text(given.bind(py))?,
    };
    if let Ok(dict) = call.cast::<PyDict>() {
        let known = ["id", "type", "function", "name", "arguments", "value", "state", "index"];
        if let Some((unknown, _)) = fields(dict, |key, _| known.contains(&key))?.0.first() {
            return Err(PyValueError::new_err(format!(
                "unknown key {unknown:?} in a tool call; send the tool calls of a result back unchanged"
            )));
        }
    }
    let mut read =
        ToolCall::new(text(needed(call, intern!(py, "id"))?)?, text(needed(of, intern!(py, "name"))?)?, arguments);
    if let Some(state) = get(call, intern!(py, "state"))? {
        read.state = Some(text(state)?.into());
    }
    Ok(read)
}

fn part(item: &Bound<'_, PyAny>, place: &str) -> PyResult<Part> {
    let py = item.py();
    if let Ok(text) = item.cast::<PyString>() {
        return Ok(Part::Text(Text::of(&text.to_cow()?)));
    }
    if let Some(media) = item.getattr_opt(intern!(py, "_media"))? {
        return Ok(Part::Media(Arc::clone(media.cast::<PyMedia>()?.get().media())));
    }
    if let Ok(dict) = item.cast::<PyDict>() {
        return written_part(dict, place);
    }
    let kind = item.get_type().name()?;
    Err(PyTypeError::new_err(format!(
        "{place}: a part must be a string, an Image, an Audio or a File, not {kind} ({:.60})",
        shown(item)
    )))
}

/// A part as the APIs of OpenAI and Anthropic write it.
fn written_part(dict: &Bound<'_, PyDict>, place: &str) -> PyResult<Part> {
    let wrong = |problem: String| PyValueError::new_err(format!("{place}: {problem}"));
    let kind = text_of(dict, "type")?.unwrap_or_default();
    // The object of the part's own name, where it has one: `{"type": "image_url", "image_url": {"url": ...}}`.
    let own = dict.get_item(&kind)?.or(dict.get_item("source")?);
    let own = own.as_ref().and_then(|own| own.cast::<PyDict>().ok());
    let of = own.unwrap_or(dict);
    let known_inside: &[&str] = match kind.as_str() {
        "image_url" | "audio_url" => &["url", "detail"],
        "input_audio" => &["data", "format"],
        "file" => &["filename", "file_data"],
        "image" | "document" => &["type", "media_type", "data", "url"],
        _ => &[],
    };
    if let Some(inside) = own
        && !known_inside.is_empty()
        && let Some((unknown, _)) = fields(inside, |key, _| known_inside.contains(&key))?.0.first()
    {
        return Err(wrong(format!("unknown key {unknown:?} in {kind:?}; known keys: {}", known_inside.join(", "))));
    }
    let media_kind = match kind.as_str() {
        "image_url" | "input_image" | "image" => MediaKind::Image,
        "input_audio" | "audio_url" => MediaKind::Audio,
        _ => MediaKind::File,
    };
    let at = |media_type: Option<&str>, url: String| {
        check_address(media_kind, &url).map_err(&wrong)?;
        Media::at(media_kind, media_type, url).map_err(&wrong)
    };
    let bytes = |media_type: &str, data: &str| at(Some(media_type), format!("data:{media_type};base64,{data}"));
    let (mut media, known): (Media, &[&str]) = match kind.as_str() {
        "text" | "input_text" | "output_text" => {
            let Some(text) = dict.get_item("text")?.filter(|text| text.is_instance_of::<PyString>()) else {
                return Err(wrong(format!("a part of type {kind:?} needs a string in \"text\"")));
            };
            let text = Part::Text(Text::of(&text.str()?.to_cow()?));
            let more = fields(dict, |key, _| ["type", "text", "annotations", "logprobs"].contains(&key))?;
            return Ok(with(text, more));
        }
        "image_url" | "audio_url" | "input_image" => {
            let address = if own.is_some() {
                text_of(of, "url")?
            } else {
                text_of(dict, if kind == "input_image" { "image_url" } else { &kind })?
            };
            let Some(url) = address else { return Err(wrong(format!("a part of type {kind:?} needs a url"))) };
            (at(None, url)?, &["type", "image_url", "audio_url", "detail"])
        }
        "input_audio" => match (text_of(of, "data")?, text_of(of, "format")?) {
            (Some(data), _) if data.starts_with("data:") => (at(None, data)?, &["type", "input_audio"]),
            (Some(data), Some(format)) => {
                let format = match format.to_ascii_lowercase().as_str() {
                    "mp3" => "mpeg".to_owned(),
                    "wave" | "x-wav" => "wav".to_owned(),
                    other => other.to_owned(),
                };
                (bytes(&format!("audio/{format}"), &data)?, &["type", "input_audio"])
            }
            _ => return Err(wrong("a part of type \"input_audio\" needs data and format".to_owned())),
        },
        "file" | "input_file" => match (text_of(of, "file_data")?, text_of(of, "file_url")?) {
            (Some(data), _) => {
                let name = text_of(of, "filename")?.or(text_of(dict, "filename")?).unwrap_or_default();
                let data =
                    if data.starts_with("data:") { data } else { format!("data:{};base64,{data}", type_of(&name)) };
                (at(None, data)?, &["type", "file", "filename", "file_data"])
            }
            (None, Some(url)) => (at(None, url)?, &["type", "file", "filename", "file_url"]),
            (None, None) => return Err(wrong(format!("a part of type {kind:?} needs file_data or file_url"))),
        },
        "image" | "document" => {
            let known: &[&str] = &["type", "source", "title"];
            match (
                text_of(of, "type")?.as_deref(),
                text_of(of, "media_type")?,
                text_of(of, "data")?,
                text_of(of, "url")?,
            ) {
                (Some("url"), media_type, _, Some(url)) => (at(media_type.as_deref(), url)?, known),
                (Some("base64"), Some(media_type), Some(data), _) => (bytes(&media_type, &data)?, known),
                (Some("text"), media_type, Some(data), _) => {
                    let media_type = media_type.unwrap_or_else(|| "text/plain".to_owned());
                    (Media::from_bytes(media_kind, &media_type, data.as_bytes()), known)
                }
                _ => return Err(wrong(format!("a part of type {kind:?} needs a source with a url or data"))),
            }
        }
        other => {
            return Err(wrong(format!(
                "unknown type {other:?} of a part; use text, image_url, input_audio, file, image or document, or pass an Image, \
                 an Audio or a File"
            )));
        }
    };
    if let Some(title) = text_of(dict, "title")?.filter(|_| kind != "document") {
        return Err(wrong(format!("a part of type {kind:?} cannot have a title ({title:?}); remove it")));
    }
    media.detail = text_of(of, "detail")?.or(text_of(dict, "detail")?);
    media.name = text_of(of, "filename")?.or(text_of(dict, "filename")?).or(text_of(dict, "title")?);
    Ok(with(Part::Media(Arc::new(media)), fields(dict, |key, _| known.contains(&key))?))
}

/// Whether providers can fetch from an address, or its bytes are in it.
fn check_address(kind: MediaKind, url: &str) -> Result<(), String> {
    let url = url.trim();
    let known = ["http://", "https://", "gs://", "s3://", "data:"];
    let is_known =
        known.iter().any(|scheme| url.get(..scheme.len()).is_some_and(|own| own.eq_ignore_ascii_case(scheme)));
    if is_known || url.starts_with("files/") {
        return Ok(());
    }
    let class = match kind {
        MediaKind::Image => "Image",
        MediaKind::Audio => "Audio",
        MediaKind::File => "File",
    };
    Err(format!("{:.60?} is not a URL that a provider can fetch; for a local file use {class}(Path(...))", url))
}

/// The media type of a file's name; a document is a PDF unless its name says something else.
fn type_of(name: &str) -> &'static str {
    mime_guess::from_path(name).first_raw().unwrap_or("application/pdf")
}

fn with(part: Part, more: Fields) -> Part {
    if more.0.is_empty() { part } else { Part::With(Box::new((part, more))) }
}

fn text_of(dict: &Bound<'_, PyDict>, name: &str) -> PyResult<Option<String>> {
    match dict.get_item(name)?.filter(|value| !value.is_none()) {
        Some(value) => Ok(Some(value.str()?.to_cow()?.into_owned())),
        None => Ok(None),
    }
}
