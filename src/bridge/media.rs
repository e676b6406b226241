//! Pictures, sounds and documents of prompts, encoded once; `batch_llm.Image` and its siblings hold one each.

use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::journal::fingerprint::Fingerprint;
use crate::journal::record::Key;
use crate::providers::media::{Media, MediaKind, sniff};
use crate::providers::shown::Quoted;

/// A picture, a sound or a document, encoded once; `batch_llm.Image` and its siblings are its faces.
#[pyclass(frozen, module = "batch_llm._core", name = "Media")]
pub struct PyMedia(Arc<Media>, OnceLock<Key>);

#[pymethods]
impl PyMedia {
    #[new]
    #[pyo3(signature = (kind, media_type = None, *, data = None, url = None, name = None, detail = None))]
    fn new(
        kind: &str,
        media_type: Option<&str>,
        data: Option<&[u8]>,
        url: Option<String>,
        name: Option<String>,
        detail: Option<String>,
    ) -> PyResult<Self> {
        let kind = match kind {
            "image" => MediaKind::Image,
            "audio" => MediaKind::Audio,
            "file" => MediaKind::File,
            other => return Err(PyValueError::new_err(format!("unknown kind of media {}", Quoted(other)))),
        };
        let mut media = match (data, url) {
            (Some(bytes), _) => {
                let media_type = media_type
                    .or_else(|| sniff(bytes))
                    .ok_or_else(|| PyValueError::new_err("the media type cannot be guessed; pass media_type=..."))?;
                Media::from_bytes(kind, media_type, bytes)
            }
            (None, Some(url)) => Media::at(kind, media_type, url).map_err(PyValueError::new_err)?,
            (None, None) => return Err(PyValueError::new_err("media needs data or a URL")),
        };
        (media.name, media.detail) = (name, detail);
        Ok(Self(Arc::new(media), OnceLock::new()))
    }

    /// What makes it again, from a pickle.
    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((&'static str, &str), Bound<'py, PyDict>)> {
        let named = PyDict::new(py);
        named.set_item("url", self.0.url().text())?;
        named.set_item("name", self.0.name.as_deref())?;
        named.set_item("detail", self.0.detail.as_deref())?;
        Ok(((self.0.kind.name(), &self.0.media_type), named))
    }

    /// It never changes.
    fn __deepcopy__(media: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        media
    }

    /// Its media type; empty where nobody knows it, of a URL.
    #[getter]
    fn media_type(&self) -> &str {
        &self.0.media_type
    }

    /// Whether its bytes travel with each request.
    #[getter]
    fn travels(&self) -> bool {
        self.0.travels()
    }

    /// Bytes that it adds to a request.
    #[getter]
    fn size(&self) -> usize {
        self.0.url().text().len()
    }
}

impl PyMedia {
    /// What requests hold of it.
    pub fn media(&self) -> &Arc<Media> {
        &self.0
    }

    /// The fingerprint of everything that a provider is told of it.
    pub fn fingerprint(&self) -> Key {
        *self.1.get_or_init(|| {
            let media = &self.0;
            let mut fingerprint = Fingerprint::new("media");
            let (name, detail) = (media.name.as_deref(), media.detail.as_deref());
            for text in [media.url().text(), &media.media_type, name.unwrap_or_default(), detail.unwrap_or_default()] {
                fingerprint.text(text);
            }
            fingerprint.key()
        })
    }
}
