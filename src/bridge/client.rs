//! Native clients as Python sees them: opaque, and never able to show their key.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use pyo3::exceptions::{PyTimeoutError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::json::Readable;
use super::listener::TokenListener;
use super::pool::Pooling;
use super::pool_trial::PoolPlace;
use super::runtime::{Process, awaitable};
use super::{clouds, convert, errors, json, prompt};
use crate::batches::provider::{Marked, Until};
use crate::engine::seconds;
use crate::providers::address::{Address, Named};
use crate::providers::caching::Caching;
use crate::providers::client::{Client, Parts};
use crate::providers::embeddings::{Embedder, PackLimits};
use crate::providers::heads::{self, Head};
use crate::providers::keys::{Auth, Keys};
use crate::providers::pooled;
use crate::providers::prompt::{Ask, Correction, Prompt};
use crate::providers::schema::Check;
use crate::providers::shown::Quoted;
use crate::providers::table::{Api, Language};
use crate::providers::transport::TransportOptions;
use crate::providers::{Options, Provider, ProviderError, Rejecting, secret_names, status, table};
use crate::simulator::sample;

/// Everything but the keys and the extra body, from a dict with these names.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    provider: String,
    #[serde(default)]
    api: Api,
    base_url: String,
    /// Whether the keys are tokens, sent as `authorization: Bearer`, whatever the provider's usual header is.
    #[serde(default)]
    bearer: bool,
    options: Options,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    transport: TransportOptions,
    #[serde(default)]
    raw: bool,
    /// Whether the provider itself is called, or what simulates it: all of its fields are known there.
    #[serde(default)]
    at_home: bool,
    /// Variables with a cloud's credentials, which sign requests in place of keys.
    environment: Option<clouds::Variables>,
    /// Given for embeddings.
    pack: Option<Pack>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pack {
    items: usize,
    tokens: usize,
    linger: f64,
}

/// A client for one model at one provider. A forked child gets connections of its own.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct NativeClient {
    spec: Spec,
    keys: Vec<SecretString>,
    present: ArcSwap<OfProcess>,
    /// Where requests go, if that is to several clients, of which this is the first.
    pool: Option<Arc<Pooling>>,
}

impl NativeClient {
    /// The name of its provider.
    pub fn name(&self) -> &str {
        &self.spec.provider
    }

    /// The same client with another way to its answers, in this process.
    pub fn instead(&self, provider: Arc<dyn Provider>) -> Self {
        let present = OfProcess { process: Process::current(), provider };
        Self { spec: self.spec.clone(), keys: self.keys.clone(), present: ArcSwap::from_pointee(present), pool: None }
    }

    /// The same client, whose requests go to a pool.
    pub fn pooled(&self, pool: Arc<Pooling>) -> Self {
        let present = ArcSwap::new(self.present.load_full());
        Self { spec: self.spec.clone(), keys: self.keys.clone(), present, pool: Some(pool) }
    }
}

struct OfProcess {
    process: Process,
    provider: Arc<dyn Provider>,
}

#[pymethods]
impl NativeClient {
    #[new]
    fn new(spec: &Bound<'_, PyDict>, extra_body: &Bound<'_, PyDict>, keys: Vec<String>) -> PyResult<Self> {
        errors::guarded(|| {
            let extra_body = json::to_value(extra_body, "extra_body")?;
            let mut spec: Spec =
                serde_json::from_value(described(spec)?).map_err(|error| PyValueError::new_err(error.to_string()))?;
            if let Value::Object(fields) = extra_body {
                spec.options.extra_body = fields;
            }
            let keys: Vec<SecretString> = keys.into_iter().map(SecretString::from).collect();
            let present = OfProcess::new(&spec, &keys)?;
            Ok(Self { spec, keys, present: ArcSwap::from_pointee(present), pool: None })
        })
    }

    /// How long an attempt may take where replies come as streams, seconds.
    fn stream_timeout(&self, is_followed: bool) -> PyResult<Option<f64>> {
        Ok(self.provider()?.stream_timeout(is_followed))
    }

    /// Says what is wrong with a prompt, if anything is.
    #[staticmethod]
    fn check_prompt(given: &Bound<'_, PyAny>) -> PyResult<()> {
        match prompt::read(given) {
            // Such an item fails by itself: a text with a lone surrogate, or what is nested too deep.
            Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(given.py()) || json::is_deep(given) => Ok(()),
            read => read.map(drop),
        }
    }

    /// The length of a prompt: its bytes, and whether there is more in it than text.
    #[staticmethod]
    fn measure(given: &Bound<'_, PyAny>) -> PyResult<(usize, bool)> {
        let ask = Ask::new(prompt::read(given)?);
        Ok((ask.characters(), ask.has_media()))
    }

    /// Whether the provider is known to cache what prompts begin with alike.
    #[getter]
    fn has_heads(&self) -> PyResult<bool> {
        Ok(self.provider()?.has_heads())
    }

    /// What prompts begin with alike, as far as the provider caches it: for each its key, tokens, life in seconds,
    /// whether it can be read when the reply that writes it begins, and whether its end is marked.
    #[allow(clippy::type_complexity)] // a tuple is what Python reads most easily
    fn heads(&self, given: Vec<Bound<'_, PyAny>>) -> PyResult<Vec<Option<(u64, u32, f64, bool, bool)>>> {
        let asks: Vec<Ask> = given.iter().map(|one| prompt::read(one).map(Ask::new)).collect::<PyResult<_>>()?;
        let provider = self.provider()?;
        provider.notice(&asks.iter().collect::<Vec<_>>());
        let read = |head: Head| {
            let at_first_byte = head.readable == heads::Readable::AtFirstByte;
            (head.key, head.tokens, head.life.as_secs_f64(), at_first_byte, head.marked)
        };
        Ok(asks.iter().map(|ask| provider.head(ask).map(read)).collect())
    }

    /// The same client, whose replies say which lane they took, and why.
    #[pyo3(signature = (lane, why = None))]
    fn marked(&self, lane: &str, why: Option<String>) -> PyResult<Self> {
        Ok(self.instead(Arc::new(Marked { provider: self.provider()?, lane: name_of(lane), why, auto: None })))
    }

    /// The same client in a tier of its provider, such as `flex`. `late`: takes its place after so many seconds.
    #[pyo3(signature = (tier, late = None, after = None))]
    fn in_tier(&self, tier: &str, late: Option<&Self>, after: Option<f64>) -> PyResult<Self> {
        if self.pool.is_some() {
            return Err(PyValueError::new_err(format!("a pool has no {tier} tier; use lane='live'")));
        }
        if self.spec.pack.is_some() {
            return Err(PyValueError::new_err(format!(
                "embeddings have no {tier} tier; use lane='live' or lane='batch'"
            )));
        }
        let mut spec = self.spec.clone();
        let is_gemini = table::row(&spec.provider).is_some_and(|row| row.language == Language::Gemini);
        let field = if is_gemini { "serviceTier" } else { "service_tier" };
        spec.options.extra_body.insert(field.to_owned(), Value::String(tier.to_owned()));
        let OfProcess { provider, .. } = OfProcess::new(&spec, &self.keys)?;
        let mut provider: Arc<dyn Provider> = Arc::new(Marked { provider, lane: name_of(tier), why: None, auto: None });
        if let (Some(late), Some(after)) = (late, after) {
            let end = tokio::time::Instant::now() + seconds(after);
            provider = Arc::new(Until { first: provider, then: late.provider()?, end });
        }
        Ok(self.instead(provider))
    }

    /// A run asks its questions with this client: caches may be made for them at the provider.
    fn open_caches(&self) -> PyResult<()> {
        self.provider()?.hold();
        Ok(())
    }

    /// A run has asked all its questions: after the last run, caches are deleted. Resolves when that is done, or has
    /// taken too long.
    fn release_caches<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let done = self.provider()?.release();
        awaitable(py, async move {
            done.await;
            Ok(())
        })
    }

    /// Whether the provider counts the tokens of prompts.
    #[getter]
    fn counts(&self) -> PyResult<bool> {
        // Making the request sends nothing.
        Ok(self.provider()?.count(Ask::new(Prompt::Text(String::new().into()))).is_some())
    }

    /// Counts the tokens of a prompt at the provider. Resolves to `(True, tokens)` or `(False, exception)`; None: the
    /// provider cannot.
    #[pyo3(signature = (given, timeout, key = None))]
    fn count<'py>(
        &self,
        py: Python<'py>,
        given: &Bound<'py, PyAny>,
        timeout: f64,
        key: Option<String>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let ask = Ask { key: key.map(SecretString::from), ..Ask::new(prompt::read(given)?) };
        let Some(count) = self.provider()?.count(ask) else { return Ok(None) };
        let limit: Duration = seconds(timeout);
        let counted = awaitable(py, async move {
            match tokio::time::timeout(limit, AssertUnwindSafe(count).catch_unwind()).await {
                Ok(Ok(result)) => Ok(Outcome { result, made: |py, tokens| Ok(tokens.into_pyobject(py)?.into_any()) }),
                Ok(Err(_)) => Err(errors::panicked()),
                Err(_) => Err(PyTimeoutError::new_err(format!("tokens were not counted within {timeout} s"))),
            }
        });
        counted.map(Some)
    }

    /// Asks once, outside of a run. Resolves to `(True, (output, usage, metadata))` or `(False, exception)`. `place`: notes
    /// what the reply says about limits.
    #[pyo3(signature = (given, timeout, key = None, listener = None, correction = None, place = None))]
    fn complete<'py>(
        &self,
        py: Python<'py>,
        given: &Bound<'py, PyAny>,
        timeout: f64,
        key: Option<String>,
        listener: Option<&TokenListener>,
        correction: Option<(String, String)>,
        place: Option<&PoolPlace>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let reported = place.map(PoolPlace::reported);
        let correction = correction.map(|(answer, problem)| Box::new(Correction { answer, problem }));
        let ask = Ask {
            correction,
            key: key.map(SecretString::from),
            listener: listener.map(TokenListener::listener),
            ..Ask::new(prompt::read(given)?)
        };
        let attempt = self.provider()?.attempt(ask);
        let limit: Duration = seconds(timeout);
        awaitable(py, async move {
            match tokio::time::timeout(limit, AssertUnwindSafe(attempt).catch_unwind()).await {
                Ok(Ok(mut outcome)) => {
                    if let Some(reported) = reported {
                        *reported.lock().unwrap_or_else(PoisonError::into_inner) = pooled::reported(&mut outcome);
                    }
                    Ok(Outcome { result: outcome, made: convert::reply })
                }
                Ok(Err(_)) => Err(errors::panicked()),
                Err(_) => Err(PyTimeoutError::new_err(format!(
                    "no reply within {timeout} s; raise the timeout or request a shorter answer"
                ))),
            }
        })
    }
}

impl NativeClient {
    /// The provider, for a run.
    pub fn provider(&self) -> PyResult<Arc<dyn Provider>> {
        if let Some(pool) = &self.pool {
            return pool.provider();
        }
        let present = self.present.load();
        if present.process == Process::current() {
            return Ok(Arc::clone(&present.provider));
        }
        let fresh = Arc::new(OfProcess::new(&self.spec, &self.keys)?);
        // Dropping the parent's would take locks of its runtime, which may be held by threads that are not here.
        std::mem::forget(self.present.swap(Arc::clone(&fresh)));
        Ok(Arc::clone(&fresh.provider))
    }
}

impl Drop for NativeClient {
    fn drop(&mut self) {
        if self.present.load().process != Process::current() {
            std::mem::forget(self.present.load_full());
        }
    }
}

impl OfProcess {
    fn new(spec: &Spec, keys: &[SecretString]) -> PyResult<Self> {
        let provider = provider(spec.clone(), keys).map_err(PyValueError::new_err)?;
        Ok(Self { process: Process::current(), provider })
    }
}

/// A lane's name, as replies have it.
fn name_of(lane: &str) -> &'static str {
    match lane {
        "flex" => "flex",
        "batch" => "batch",
        _ => "live",
    }
}

/// A spec as a tree. Its errors name what the user gave.
fn described(spec: &Bound<'_, PyDict>) -> PyResult<Value> {
    let mut fields = Map::new();
    for (name, value) in spec.iter() {
        let name: String = name.extract()?;
        let value = match value.cast::<PyDict>() {
            Ok(options) if name == "options" => Value::Object(options_of(options)?),
            _ => json::to_value(&value, &name)?,
        };
        fields.insert(name, value);
    }
    Ok(Value::Object(fields))
}

fn options_of(given: &Bound<'_, PyDict>) -> PyResult<Map<String, Value>> {
    let mut options = Map::new();
    for (name, value) in given.iter() {
        let name: String = name.extract()?;
        let value = match value.cast::<PyDict>() {
            Ok(shape) if name == "schema" => {
                let part = |(part, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
                    Ok((part.extract::<String>()?, json::to_value(&value, "response_model")?))
                };
                Value::Object(shape.iter().map(part).collect::<PyResult<_>>()?)
            }
            _ => json::to_value(&value, &name)?,
        };
        // Alone, it is the one that an error is about.
        let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        if let Err(error) = serde_json::from_value::<Options>(alone) {
            let problem = error.to_string();
            let words = [("u64", "an integer >= 0"), ("u32", "an integer >= 0"), ("a JSON number", "a number")];
            let problem = words.iter().fold(problem, |text, (rust, word)| {
                text.replace(&format!("expected {rust}"), &format!("expected {word}"))
            });
            return Err(PyValueError::new_err(format!("{name}: {problem}")));
        }
        options.insert(name, value);
    }
    Ok(options)
}

fn provider(spec: Spec, keys: &[SecretString]) -> Result<Arc<dyn Provider>, String> {
    let row = table::row(&spec.provider).ok_or_else(|| format!("unknown provider {:?}", spec.provider))?;
    let address = Address::new(row, &spec.base_url, &spec.options.model)?;
    if let Some(problem) = address.problem {
        return Ok(Arc::new(Rejecting(problem.to_owned())));
    }
    let signer = match &spec.environment {
        None => None,
        Some(variables) => clouds::signer(row, variables, &spec.options.model, (address.host(), &spec.transport))?,
    };
    // Azure's dated versions do not know newer fields.
    let is_dated = row.name == "azure" && spec.base_url.contains("api-version=2");
    let caching = match spec.api {
        Api::Converse => Caching::None,
        _ => Caching::of(row, &spec.options.model, spec.at_home && !is_dated),
    };
    let parts = Parts {
        dialect: row.dialect(&spec.options.model, spec.api),
        base_url: spec.base_url,
        keys: Keys::new(if spec.bearer { Auth::Bearer } else { row.auth }, keys)?,
        signer,
        periods: row.periods,
        options: spec.options,
        headers: spec.headers,
        transport: spec.transport,
        caching,
        raw: spec.raw,
    };
    Ok(match spec.pack {
        None => Arc::new(Client::new(parts)?),
        Some(Pack { items, tokens, linger }) => {
            let limits = PackLimits { items: items.max(1), tokens: tokens.max(1), linger: seconds(linger) };
            Arc::new(Embedder::new(parts, row.language, limits)?)
        }
    })
}

/// The outcome of a call or a count, made into Python objects only where the interpreter is attached anyway.
struct Outcome<T> {
    result: Result<T, ProviderError>,
    made: for<'py> fn(Python<'py>, &T) -> PyResult<Bound<'py, PyAny>>,
}

impl<'py, T> IntoPyObject<'py> for Outcome<T> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (success, value) = match &self.result {
            Ok(given) => (true, (self.made)(py, given)?),
            Err(error) => (false, errors::provider_error(py, error)?.into_any()),
        };
        Ok((success, value).into_pyobject(py)?.into_any())
    }
}

/// A base URL, read by the parser that the transport uses, and completed.
#[pyclass(frozen, name = "Address", module = "batch_llm._core")]
pub struct PyAddress(Address);

#[pymethods]
impl PyAddress {
    #[new]
    fn new(provider: &str, base_url: &str, model: &str) -> PyResult<Self> {
        let row = table::row(provider)
            .ok_or_else(|| PyValueError::new_err(format!("unknown provider {}", Quoted(provider))))?;
        errors::guarded(|| Ok(Self(Address::new(row, base_url, model).map_err(PyValueError::new_err)?)))
    }

    #[getter]
    fn url(&self) -> String {
        self.0.as_text()
    }

    #[getter]
    fn shown(&self) -> String {
        self.0.shown()
    }

    #[getter]
    fn origin(&self) -> String {
        self.0.origin()
    }

    #[getter]
    fn label(&self) -> String {
        self.0.label()
    }

    #[getter]
    fn is_own(&self) -> bool {
        self.0.is_own()
    }

    #[getter]
    fn has_own_host(&self) -> bool {
        self.0.has_own_host()
    }

    #[getter]
    fn is_encrypted(&self) -> bool {
        self.0.is_encrypted()
    }

    #[getter]
    fn is_loopback(&self) -> bool {
        self.0.is_loopback()
    }

    #[getter]
    fn problem(&self) -> Option<&'static str> {
        self.0.problem
    }

    #[getter]
    fn api(&self) -> Option<&'static str> {
        self.0.named.map(|named| match named {
            Named::Chat => "chat",
            Named::Responses => "responses",
        })
    }

    fn __repr__(&self) -> String {
        format!("Address({:?})", self.0.shown())
    }
}

/// The table of providers.
#[pyfunction]
pub fn providers(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for row in table::TABLE {
        let dict = PyDict::new(py);
        dict.set_item("name", row.name)?;
        dict.set_item("base_url", row.base_url)?;
        dict.set_item("address_variables", row.address_variables)?;
        dict.set_item("key_variables", row.key_variables)?;
        dict.set_item("token_variables", row.token_variables)?;
        dict.set_item("header_variables", row.header_variables)?;
        dict.set_item("is_cloud", row.credentials.is_some())?;
        dict.set_item("needs_key", row.needs_key)?;
        dict.set_item("has_responses", row.has_responses)?;
        dict.set_item("embeddings", row.embeddings)?;
        dict.set_item("is_bearer", row.auth == Auth::Bearer)?;
        let language = match row.language {
            Language::Chat(_) => "chat",
            Language::Anthropic => "anthropic",
            Language::Gemini => "gemini",
            Language::Bedrock => "bedrock",
            Language::Vertex => "vertex",
        };
        dict.set_item("language", language)?;
        list.append(dict)?;
    }
    Ok(list)
}

/// Whether something of this name may be a secret; with `only`: whether it is a credential and nothing else.
#[pyfunction]
pub fn is_secret_name(name: Readable, only: bool) -> bool {
    let name = name.0.as_str();
    if only { secret_names::is_credential(name) } else { secret_names::may_be_secret(name) }
}

/// What an HTTP status with these codes means: `(category, whether another attempt may help)`.
#[pyfunction]
pub fn classify_error(status: u16, codes: Vec<String>) -> (&'static str, bool) {
    let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    let category = status::classify(Some(status), &codes, "", false);
    (category.name(), category.is_retryable())
}

/// A JSON Schema that values are checked against.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct SchemaCheck(Check);

#[pymethods]
impl SchemaCheck {
    /// `name`: what errors call the schema.
    #[new]
    #[pyo3(signature = (schema, name = "schema"))]
    fn new(schema: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        errors::guarded(|| Check::named(&json::to_value(schema, name)?, name).map(Self).map_err(PyValueError::new_err))
    }

    /// What is wrong with a value, given as JSON text; `None`: nothing.
    fn problem(&self, text: &str) -> PyResult<Option<String>> {
        errors::guarded(|| Ok(self.0.apply_to(text).err()))
    }
}

/// A value that fits a JSON Schema, both as JSON text: what a dry run answers.
#[pyfunction]
pub fn example(schema: &str) -> PyResult<String> {
    errors::guarded(|| {
        let schema = serde_json::from_str(schema).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(sample::instance(&schema, 0).to_string())
    })
}
