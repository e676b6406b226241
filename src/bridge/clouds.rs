//! Credentials of clouds, from the variables that Python has read.

use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::providers::auth::{Environment, Kind, Signer, is_entra_named};
use crate::providers::clouds;
use crate::providers::shown::Quoted;
use crate::providers::table::{self, Row};
use crate::providers::transport::{TransportOptions, aside};

/// Names and values.
pub type Variables = BTreeMap<String, String>;

/// What signs requests to a host about a model, if the provider takes a cloud's credentials.
pub fn signer(
    row: &Row,
    variables: &Variables,
    model: &str,
    (host, transport): (&str, &TransportOptions),
) -> Result<Option<Arc<Signer>>, String> {
    let Some(kind) = row.credentials else { return Ok(None) };
    let environment = Environment::new(variables.clone());
    let region = match kind {
        Kind::Aws => clouds::region_of(&environment, model, Some(host))?,
        Kind::Google | Kind::Entra => String::new(),
    };
    Signer::new(kind, &environment, &region, aside(transport)?).map(Arc::new).map(Some)
}

/// The base URL of a cloud's provider for a model: at its own origin, or at `origin`.
#[pyfunction]
#[pyo3(signature = (provider, variables, model, origin = None))]
pub fn cloud_url(provider: &str, variables: Variables, model: &str, origin: Option<&str>) -> PyResult<String> {
    let kind = table::row(provider)
        .and_then(|row| row.credentials)
        .ok_or_else(|| PyValueError::new_err(format!("{} is not a cloud", Quoted(provider))))?;
    clouds::base_url(kind, &Environment::new(variables), model, origin).map_err(PyValueError::new_err)
}

/// Whether variables name an identity at Microsoft Entra.
#[pyfunction]
pub fn names_entra(variables: Variables) -> bool {
    is_entra_named(&Environment::new(variables))
}
