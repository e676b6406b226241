//! Values that cross the bridge.

use std::num::NonZeroUsize;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyType};

use crate::engine::guard::{Caps, Price};
use crate::engine::measure::{Limit, Measure};
use crate::engine::queue::Expected;
use crate::engine::scope::Control;
use crate::engine::{Backoff, ItemReport, Ramp, Settings, Usage, seconds};
use crate::providers::json::{storable, value_text};
use crate::providers::reply::{Choice, Extra, Finish, Output};
use crate::providers::{Reply, TokenUsage};

/// Settings as Python passes them: an object with these attributes, validated there.
#[derive(FromPyObject)]
pub struct PySettings {
    max_workers: usize,
    max_queue_size: usize,
    attempt_timeout: Option<f64>,
    abandon_after: f64,
    max_attempts: u32,
    max_rate_limit_retries: u32,
    initial_wait: f64,
    max_wait: f64,
    exponential_base: f64,
    jitter: bool,
    /// What is counted, how much of it, in how many seconds.
    limits: Vec<(String, f64, f64)>,
    burst: Option<f64>,
    /// Whether the pace is found out, and whether the concurrency is.
    adaptive: (bool, bool),
    /// Attempts in flight in each scope, at most, where workers do not bound them.
    most_in_flight: Option<u32>,
    /// Attempts at once at the beginning, how many more after each interval, its length in seconds.
    ramp: Option<(u64, u64, f64)>,
    item_timeout: Option<f64>,
    run_timeout: Option<f64>,
    cancel_on_stop: bool,
    max_tokens: Option<f64>,
    max_cost: Option<f64>,
    outage_patience: Option<f64>,
    outage_ends_run: bool,
}

impl From<PySettings> for Settings {
    fn from(settings: PySettings) -> Self {
        Self {
            max_workers: NonZeroUsize::new(settings.max_workers).unwrap_or(NonZeroUsize::MIN),
            max_queue: NonZeroUsize::new(settings.max_queue_size),
            attempt_timeout: settings.attempt_timeout.map(seconds),
            abandon_after: seconds(settings.abandon_after),
            max_attempts: settings.max_attempts,
            max_rate_limit_retries: settings.max_rate_limit_retries,
            backoff: Backoff {
                initial: settings.initial_wait,
                max: settings.max_wait,
                base: settings.exponential_base,
                jitter: settings.jitter,
            },
            limits: settings.limits.iter().map(limit).collect(),
            burst: settings.burst,
            control: match settings.adaptive {
                (_, true) => Control::PaceAndConcurrency,
                (true, false) => Control::Pace,
                (false, false) => Control::Fixed,
            },
            most_in_flight: settings.most_in_flight,
            ramp: settings.ramp.map(|(initial, step, every)| Ramp { initial, step, every: seconds(every) }),
            item_timeout: settings.item_timeout.map(seconds),
            run_timeout: settings.run_timeout.map(seconds),
            cancel_on_stop: settings.cancel_on_stop,
            caps: Caps { tokens: settings.max_tokens, cost: settings.max_cost },
            outage_patience: settings.outage_patience.map(seconds),
            outage_ends_run: settings.outage_ends_run,
        }
    }
}

/// A limit as Python gives it: what is counted, how much of it, in how many seconds.
pub fn limit((measure, amount, per): &(String, f64, f64)) -> Limit {
    let measure = match measure.as_str() {
        "tokens" => Measure::Tokens,
        "input_tokens" => Measure::InputTokens,
        "output_tokens" => Measure::OutputTokens,
        _ => Measure::Requests,
    };
    Limit { measure, amount: amount.max(f64::MIN_POSITIVE), per: seconds(*per) }
}

/// An estimate as Python gives it: requests, input, output or None, most input or None, most output or None, kind;
/// None: there is none, and the item is not to be sent.
pub type GivenEstimate = Option<(f64, f64, Option<f64>, Option<f64>, Option<f64>, u32)>;

/// The same for the engine.
pub fn expected(given: GivenEstimate) -> Expected {
    match given {
        None => Expected::Unknown,
        Some((requests, input, output, most_input, most_output, kind)) => {
            Expected::Estimate { requests, input, output, most_input, most_output, kind }
        }
    }
}

/// Prices as Python gives them, per token: input, from the cache, into the cache, into it for an hour, output, and held by
/// a cache for an hour.
pub type GivenPrice = (f64, f64, f64, f64, f64, f64);

/// The same for the engine.
pub fn price((input, cached, cache_write, cache_write_hour, output, held): GivenPrice) -> Price {
    Price { input, cached, cache_write, cache_write_hour, output, held }
}

/// Seconds from Python, which validated them; nonsense becomes zero rather than a panic.
pub fn durations(delays: Vec<f64>) -> impl Iterator<Item = Duration> {
    delays.into_iter().map(seconds)
}

/// One count of a usage. None, negative and what is no number count as 0, as `TokenUsage` says.
fn as_count(value: &Bound<'_, PyAny>) -> u64 {
    value.extract::<i64>().ok().and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

/// One count of a usage dict; missing is 0.
fn count(dict: &Bound<'_, PyDict>, key: &Bound<'_, pyo3::types::PyString>) -> u64 {
    dict.get_item(key).ok().flatten().map_or(0, |value| as_count(&value))
}

/// Reads a `TokenUsage`; an empty one, or anything but a dict, tells nothing.
pub fn read_usage(usage: &Bound<'_, PyAny>) -> Option<Usage> {
    let py = usage.py();
    match usage.cast::<PyDict>() {
        Ok(dict) if !dict.is_empty() => Some(Usage {
            input: count(dict, intern!(py, "input_tokens")),
            output: count(dict, intern!(py, "output_tokens")),
            total: count(dict, intern!(py, "total_tokens")),
            cached: count(dict, intern!(py, "cached_input_tokens")),
            cache_write: count(dict, intern!(py, "cache_write_tokens")),
            cache_write_hour: count(dict, intern!(py, "cache_write_1h_tokens")),
            cache_held: count(dict, intern!(py, "cache_storage_token_hours")),
        }),
        _ => None,
    }
}

/// Counts results: how many are successes, and their tokens: input, output, cached input. `None`: there is a count that
/// is no usual one, which Python has to look at.
#[pyfunction]
pub fn sums(results: &Bound<'_, PyList>) -> PyResult<Option<(u64, i64, i64, i64)>> {
    let py = results.py();
    let (mut succeeded, mut tokens) = (0, [0_i64; 3]);
    let keys = [intern!(py, "input_tokens"), intern!(py, "output_tokens"), intern!(py, "cached_input_tokens")];
    for result in results {
        succeeded += u64::from(result.getattr(intern!(py, "success"))?.is_truthy()?);
        let usage = result.getattr(intern!(py, "token_usage"))?;
        let Ok(usage) = usage.cast::<PyDict>() else { continue };
        for (sum, key) in tokens.iter_mut().zip(keys) {
            let Some(count) = usage.get_item(key)? else { continue };
            let more = count.cast_exact::<PyInt>().ok().and_then(|count| count.extract().ok());
            match more.and_then(|more| sum.checked_add(more)) {
                Some(more) => *sum = more,
                None => return Ok(None),
            }
        }
    }
    let [input, output, cached] = tokens;
    Ok(Some((succeeded, input, output, cached)))
}

/// A `TokenUsage`: the original's four keys, and those that only some providers count where they are not zero.
pub fn usage_dict<'py>(py: Python<'py>, usage: &TokenUsage) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item(intern!(py, "input_tokens"), usage.input)?;
    dict.set_item(intern!(py, "output_tokens"), usage.output)?;
    dict.set_item(intern!(py, "total_tokens"), usage.total)?;
    dict.set_item(intern!(py, "cached_input_tokens"), usage.cache_read)?;
    if usage.cache_write > 0 {
        dict.set_item(intern!(py, "cache_write_tokens"), usage.cache_write)?;
    }
    if usage.cache_write_hour > 0 {
        dict.set_item(intern!(py, "cache_write_1h_tokens"), usage.cache_write_hour)?;
    }
    if usage.cache_held > 0 {
        dict.set_item(intern!(py, "cache_storage_token_hours"), usage.cache_held)?;
    }
    if usage.reasoning > 0 {
        dict.set_item(intern!(py, "reasoning_tokens"), usage.reasoning)?;
    }
    Ok(dict)
}

/// How an item ended, from the parts that Python passes.
pub fn report(success: bool, error: Option<String>, usage: &Bound<'_, PyAny>) -> ItemReport {
    let usage = read_usage(usage);
    ItemReport { success, error, usage: usage.unwrap_or_default(), reported: usage.is_some() }
}

/// The report of a success whose usage is one as it is: counts by our names, or nothing. `None`: it is any other, and
/// needs a look.
pub fn usual_success(counts: &Bound<'_, PyDict>) -> Option<ItemReport> {
    let py = counts.py();
    let mut usage = Usage::default();
    let (mut reasoning, mut is_empty) = (0, true);
    for (name, count) in counts {
        let places = [
            (intern!(py, "input_tokens"), &mut usage.input),
            (intern!(py, "output_tokens"), &mut usage.output),
            (intern!(py, "total_tokens"), &mut usage.total),
            (intern!(py, "cached_input_tokens"), &mut usage.cached),
            (intern!(py, "cache_write_tokens"), &mut usage.cache_write),
            (intern!(py, "cache_write_1h_tokens"), &mut usage.cache_write_hour),
            (intern!(py, "cache_storage_token_hours"), &mut usage.cache_held),
            (intern!(py, "reasoning_tokens"), &mut reasoning),
        ];
        // Names in code are the very same objects, those that were read are only equal.
        let same = places.iter().position(|(known, _)| name.is(*known));
        let equal = || places.iter().position(|(known, _)| name.eq(*known).unwrap_or(false));
        let place = same.or_else(equal)?;
        if count.is_exact_instance_of::<PyInt>() {
            *places[place].1 = as_count(&count);
        } else if !count.is_none() {
            return None;
        }
        is_empty = false;
    }
    Some(ItemReport { success: true, error: None, usage, reported: !is_empty })
}

/// A reply as Python takes it: `(output, usage, metadata)`.
pub fn reply<'py>(py: Python<'py>, reply: &Reply) -> PyResult<Bound<'py, PyAny>> {
    Ok(answer(py, reply)?.into_pyobject(py)?.into_any())
}

/// What a strategy's `execute()` would return.
type Answer<'py> = (Bound<'py, PyAny>, Bound<'py, PyDict>, Bound<'py, PyDict>);

/// Output, usage and metadata of a reply. The output is a text, a value that was checked against a JSON Schema, or an
/// array of numbers; of several samples a list.
pub fn answer<'py>(py: Python<'py>, reply: &Reply) -> PyResult<Answer<'py>> {
    let usage = usage_dict(py, &reply.usage)?;
    let metadata = PyDict::new(py);
    let output = match &reply.output {
        Output::Vector(vector) => array(py, vector)?,
        Output::Chat(choices) if reply.many => {
            let outputs = PyList::empty(py);
            for choice in choices {
                outputs.append(output(py, choice)?)?;
            }
            describe(py, choices, &metadata, |values| Ok(PyList::new(py, values)?.into_any()))?;
            outputs.into_any()
        }
        Output::Chat(choices) => {
            let first = choices.first().map_or_else(|| Ok(py.None().into_bound(py)), |choice| output(py, choice))?;
            let single = |values: Vec<Bound<'py, PyAny>>| {
                Ok(values.into_iter().next().unwrap_or_else(|| py.None().into_bound(py)))
            };
            describe(py, choices, &metadata, single)?;
            first
        }
    };
    if let Output::Chat(choices) = &reply.output
        && let Some(state) = choices.iter().find_map(|choice| choice.state.as_deref())
    {
        metadata.set_item(intern!(py, "state"), state)?;
    }
    metadata.set_item(intern!(py, "model"), reply.model.as_deref())?;
    metadata.set_item(intern!(py, "request_id"), reply.request_id.as_deref())?;
    if let Some(first_token) = reply.first_token {
        metadata.set_item(intern!(py, "first_token_seconds"), first_token.as_secs_f64())?;
    }
    if let Some(processing_ms) = reply.processing_ms {
        metadata.set_item(intern!(py, "processing_ms"), processing_ms)?;
    }
    for (name, value) in &reply.extras {
        match value {
            Extra::Text(text) => metadata.set_item(*name, text)?,
            Extra::Json(json) => metadata.set_item(*name, provider_json(py, &json.0))?,
        }
    }
    if let Some(raw) = &reply.raw {
        // What Python cannot read either is left as it came.
        let text = value_text(raw);
        let value = json_or_text(py, &text);
        metadata.set_item(intern!(py, "raw"), value)?;
    }
    Ok((output, usage, metadata))
}

/// The same of what a provider tells beside the answer, which stores are to keep: without what they cannot.
fn provider_json<'py>(py: Python<'py>, text: &str) -> Bound<'py, PyAny> {
    json_or_text(py, &storable(text))
}

/// What Python cannot read (too deep, integers of thousands of digits) stays a text.
fn json_or_text<'py>(py: Python<'py>, text: &str) -> Bound<'py, PyAny> {
    read_json(py, text).unwrap_or_else(|_| PyString::new(py, text).into_any())
}

/// What Python's own `json` makes of a text: keys in their order, integers of any length, NaN.
fn read_json<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "json", "loads")?.call1((text,))
}

fn output<'py>(py: Python<'py>, choice: &Choice) -> PyResult<Bound<'py, PyAny>> {
    match choice.checked {
        true => Ok(json_or_text(py, &choice.text)),
        false => Ok(PyString::new(py, &choice.text).into_any()),
    }
}

/// 32-bit numbers as an `array.array`, which numpy takes without a copy.
fn array<'py>(py: Python<'py>, vector: &[f32]) -> PyResult<Bound<'py, PyAny>> {
    static ARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let bytes = PyBytes::new_with(py, size_of_val(vector), |bytes| {
        for (place, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(vector) {
            *place = number.to_ne_bytes();
        }
        Ok(())
    })?;
    ARRAY.import(py, "array", "array")?.call1((intern!(py, "f"), bytes))
}

/// What is told about each sample; `join` makes one value of those of all samples.
fn describe<'py>(
    py: Python<'py>,
    choices: &[Choice],
    metadata: &Bound<'py, PyDict>,
    join: impl Fn(Vec<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<()> {
    let none = || py.None().into_bound(py);
    let finishes = choices.iter().map(|choice| finish(py, choice.finish).clone().into_any()).collect();
    metadata.set_item(intern!(py, "finish_reason"), join(finishes)?)?;
    if choices.iter().any(|choice| choice.native_finish.is_some()) {
        let words = choices.iter().map(|choice| match &choice.native_finish {
            Some(word) => PyString::new(py, word).into_any(),
            None => finish(py, choice.finish).clone().into_any(),
        });
        metadata.set_item(intern!(py, "native_finish_reason"), join(words.collect())?)?;
    }
    if choices.iter().any(|choice| !choice.tool_calls.is_empty()) {
        let mut all = Vec::new();
        for choice in choices {
            let calls = PyList::empty(py);
            for call in &choice.tool_calls {
                calls.append((&call.id, &call.name, &call.arguments, call.state.as_deref()))?;
            }
            all.push(calls.into_any());
        }
        metadata.set_item(intern!(py, "tool_calls"), join(all)?)?;
    }
    if choices.iter().any(|choice| choice.logprobs.is_some()) {
        let all = choices.iter().map(|choice| match &choice.logprobs {
            Some(json) => Ok(provider_json(py, &json.0)),
            None => Ok(none()),
        });
        metadata.set_item(intern!(py, "logprobs"), join(all.collect::<PyResult<_>>()?)?)?;
    }
    if choices.iter().any(|choice| choice.reasoning.is_some()) {
        let all = choices.iter().map(|choice| match &choice.reasoning {
            Some(text) => PyString::new(py, text).into_any(),
            None => none(),
        });
        metadata.set_item(intern!(py, "reasoning"), join(all.collect())?)?;
    }
    Ok(())
}

/// One object per word, not one per result.
fn finish(py: Python<'_>, finish: Finish) -> &Bound<'_, PyString> {
    match finish {
        Finish::Stop => intern!(py, "stop"),
        Finish::Length => intern!(py, "length"),
        Finish::ToolCalls => intern!(py, "tool_calls"),
        Finish::ContentFilter => intern!(py, "content_filter"),
        Finish::Refusal => intern!(py, "refusal"),
        Finish::Interrupted { .. } => intern!(py, "error"),
        Finish::Malformed => intern!(py, "malformed_tool_call"),
        Finish::Stopped => intern!(py, "stopped"),
        Finish::Other => intern!(py, "other"),
    }
}
