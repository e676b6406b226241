//! What a run has counted, for Python.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::scope;
use crate::engine::guard::Budget;
use crate::engine::samples::Sample;
use crate::engine::scope::Scope;
use crate::engine::{BoundOverTime, Stats, Usage};

/// What is read, at one time.
pub struct Counted {
    pub stats: Stats,
    /// What kept the run from being faster, and for how many seconds.
    pub bound_by: Vec<(&'static str, f64)>,
    /// The same over time.
    pub bound_over_time: BoundOverTime,
    pub budget: Budget,
    /// Requests by what became of the head of their prompt.
    pub caches: Vec<(&'static str, u64)>,
    pub scopes: Vec<Arc<Scope>>,
    /// By queue: attempts, and for how long they have been in flight in all.
    pub served: Vec<(u64, Duration)>,
}

/// As a dict; `_core.pyi` has its fields.
pub fn read(py: Python<'_>, counted: Counted) -> PyResult<Bound<'_, PyDict>> {
    let Counted { stats, bound_by, bound_over_time, budget, caches, scopes, served } = counted;
    let dict = PyDict::new(py);
    dict.set_item("total", stats.total)?;
    dict.set_item("processed", stats.processed)?;
    dict.set_item("succeeded", stats.succeeded)?;
    dict.set_item("failed", stats.failed)?;
    dict.set_item("error_counts", stats.errors)?;
    dict.set_item("replayed", stats.reused)?;
    dict.set_item("rate_limit_count", stats.rate_limits)?;
    dict.set_item("total_input_tokens", stats.usage.input)?;
    dict.set_item("total_output_tokens", stats.usage.output)?;
    dict.set_item("total_tokens", stats.usage.total)?;
    dict.set_item("cached_input_tokens", stats.usage.cached)?;
    dict.set_item("total_cached_tokens", stats.usage.cached)?;
    dict.set_item("cache_write_tokens", stats.usage.cache_write)?;
    let found = PyDict::new(py);
    for (name, count) in caches.into_iter().filter(|(_, count)| *count > 0) {
        found.set_item(name, count)?;
    }
    dict.set_item("prompt_cache", found)?;
    let times = PyDict::new(py);
    for (name, time) in bound_by {
        times.set_item(name, time)?;
    }
    dict.set_item("bound_by", times)?;
    dict.set_item("bound_over_time", over_time(py, bound_over_time)?)?;
    dict.set_item("budget_tokens_used", budget.spent().tokens)?;
    dict.set_item("budget_cost_used", budget.spent().cost)?;
    dict.set_item("budget_unknown_usage_attempts", budget.unknown())?;
    let limits = PyList::empty(py);
    for scope in &scopes {
        for limit in scope::limits(py, scope)? {
            limits.append(limit)?;
        }
    }
    dict.set_item("limits", limits)?;
    let bounds: Vec<(f64, Option<f64>)> = scopes.iter().filter_map(|scope| scope.bounds()).collect();
    dict.set_item("concurrency", bounds.iter().map(|(window, _)| window).sum::<f64>() + 0.0)?; // of none it is -0
    let served: Vec<(u64, f64)> = served.into_iter().map(|(attempts, time)| (attempts, time.as_secs_f64())).collect();
    dict.set_item("endpoints", served)?;
    Ok(dict)
}

/// Seconds by reason and interval, to the millisecond.
fn over_time(py: Python<'_>, found: BoundOverTime) -> PyResult<Bound<'_, PyDict>> {
    let to_millisecond = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
    let seconds = PyDict::new(py);
    for (bound, times) in found.seconds {
        seconds.set_item(bound.name(), times.into_iter().map(f64::from).map(to_millisecond).collect::<Vec<_>>())?;
    }
    let dict = PyDict::new(py);
    dict.set_item("interval", found.interval.as_secs_f64())?;
    dict.set_item("end", to_millisecond(found.end.as_secs_f64()))?;
    dict.set_item("seconds", seconds)?;
    Ok(dict)
}

/// Each as a tuple.
pub fn samples(py: Python<'_>, samples: Vec<Sample>) -> PyResult<Bound<'_, PyList>> {
    let usage = |usage: Usage| (usage.input, usage.output, usage.cached);
    let rows = samples.into_iter().map(|Sample { at, done, in_work, used, spent, took, own }| {
        (at.as_secs_f64(), done, in_work, usage(used), spent, took.as_secs_f64(), usage(own))
    });
    PyList::new(py, rows.collect::<Vec<_>>())
}
