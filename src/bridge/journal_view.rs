//! Journals that are looked into, read from their beginning to their end. Its user is `python/batch_llm/inspection.py`.

use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use rustc_hash::{FxHashMap, FxHashSet};

use super::errors::journal_error;
use super::journal::{PyOptions, behind_gate, format, ignored};
use crate::journal::error::JournalError;
use crate::journal::events::Requeue;
use crate::journal::gate;
use crate::journal::index::short;
use crate::journal::record::{Head, Key, Kind, Reuse};
use crate::journal::{About, View};

/// A journal that is looked into.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct JournalView {
    view: View,
    about: About,
    sums: Sums,
    /// Places of the last records of their items.
    last: FxHashSet<u64>,
}

/// What a whole journal sums up to.
#[derive(Default)]
struct Sums {
    records: u64,
    succeeded: u64,
    failed: u64,
    attempts: u64,
    errors: FxHashMap<String, u64>,
    input_tokens: u64,
    output_tokens: u64,
    cached_input_tokens: u64,
    cost: f64,
    /// Records with tokens whose cost is not known.
    without_cost: u64,
    last_at: f64,
}

impl Sums {
    fn spend(&mut self, head: &Head) {
        let spent = &head.spent;
        self.input_tokens = self.input_tokens.saturating_add(spent.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(spent.output_tokens);
        self.cached_input_tokens = self.cached_input_tokens.saturating_add(spent.cached_input_tokens);
        match spent.cost {
            Some(cost) => self.cost += cost,
            None => self.without_cost += u64::from(spent.input_tokens > 0 || spent.output_tokens > 0),
        }
        self.last_at = self.last_at.max(head.recorded_at);
    }
}

/// The last record of an item.
struct Last {
    place: u64,
    run: u64,
    success: bool,
    category: Option<String>,
    at: f64,
}

/// The end of a page, or an error.
enum End {
    Page,
    Error(JournalError),
}

impl From<JournalError> for End {
    fn from(error: JournalError) -> Self {
        Self::Error(error)
    }
}

#[pymethods]
impl JournalView {
    /// Reads through a journal once.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, kind: &str) -> PyResult<Self> {
        let format = format(kind)?;
        let found = py.detach(|| {
            let view = View::new(&path, format)?;
            let _passed = view.stops_forks().then(gate::pass);
            let mut sums = Sums::default();
            // By request and item: of several records the last one counts.
            let mut last: FxHashMap<(Key, u32), Last> = FxHashMap::default();
            let mut others = Vec::new();
            let about = view.scan(false, None, &mut |place, head, _| {
                sums.records += 1;
                sums.spend(&head);
                if head.kind != Kind::Item {
                    sums.attempts += u64::from(head.kind == Kind::Attempt);
                    return Ok::<_, JournalError>(());
                }
                let Head { run, success, error_category: category, item_id, recorded_at: at, .. } = head;
                let entry = Last { place, run, success, category, at };
                match last.insert((head.key, short(&item_id)), entry) {
                    // Twice in one run: two items of one name, or one that was sent again.
                    Some(before) if before.run == run => others.push((item_id, before)),
                    _ => {}
                }
                Ok(())
            })?;
            let requeues: Vec<Requeue> = about.events.iter().filter_map(|event| Requeue::of(event)).collect();
            others.retain(|(id, Last { success, category, at, .. })| {
                !requeues.iter().any(|requeue| requeue.concerns(*at, id, *success, category.as_ref()))
            });
            let mut places = FxHashSet::default();
            let others = others.into_iter().map(|(_, last)| last);
            for Last { place, success, category, .. } in last.into_values().chain(others) {
                places.insert(place);
                if success {
                    sums.succeeded += 1;
                } else {
                    sums.failed += 1;
                    *sums.errors.entry(category.unwrap_or_else(|| "unknown".to_owned())).or_default() += 1;
                }
            }
            Ok((view, about, sums, places))
        });
        let (view, about, sums, last) = found.map_err(|error: JournalError| journal_error(py, &error))?;
        Ok(Self { view, about, sums, last })
    }

    /// Everything that can be said about the whole.
    fn sums<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let sums = &self.sums;
        dict.set_item("created_at", self.about.created_at)?;
        dict.set_item("updated_at", sums.last_at.max(self.about.created_at))?;
        dict.set_item("runs", self.about.runs)?;
        dict.set_item("user_metadata", &self.about.user_metadata)?;
        dict.set_item("identities", self.about.identities.iter().map(|(_, text)| text).collect::<Vec<_>>())?;
        dict.set_item("events", &self.about.events)?;
        dict.set_item("bound_over_time", &self.about.bound_over_time)?;
        dict.set_item("torn_bytes", self.about.repairs.torn)?;
        dict.set_item("damaged_records", self.about.repairs.damaged)?;
        dict.set_item("records", sums.records)?;
        dict.set_item("succeeded", sums.succeeded)?;
        dict.set_item("failed", sums.failed)?;
        dict.set_item("failed_attempts", sums.attempts)?;
        dict.set_item("errors", &sums.errors)?;
        dict.set_item("input_tokens", sums.input_tokens)?;
        dict.set_item("output_tokens", sums.output_tokens)?;
        dict.set_item("cached_input_tokens", sums.cached_input_tokens)?;
        dict.set_item("cost", sums.cost)?;
        dict.set_item("records_without_cost", sums.without_cost)?;
        Ok(dict)
    }

    /// Files of a folder or bucket that are no segments, or that cannot be read: how many, and what is wrong with one.
    #[getter]
    fn ignored(&self) -> Option<(u64, &str)> {
        ignored(&self.about.repairs)
    }

    /// Copies all segments into a new SQLite store. Returns how many records it has, and how many segments were removed.
    fn compact(&self, py: Python<'_>, target: PathBuf, options: PyOptions, remove: bool) -> PyResult<(u64, u64)> {
        let View::Segments(view) = &self.view else {
            return Err(PyValueError::new_err("this store is one file already: there is nothing to compact"));
        };
        let options = options.with(Reuse::Success);
        py.detach(|| behind_gate(|| view.compact(&target, &options, remove))).map_err(|error| journal_error(py, &error))
    }

    /// A page of the last records of items: `(place, item id, index, success, category, JSON, (run, time, cost))`; go on
    /// after the last place.
    #[pyo3(signature = (after, limit))]
    fn page<'py>(&self, py: Python<'py>, after: Option<u64>, limit: usize) -> PyResult<Bound<'py, PyList>> {
        let mut page = Vec::new();
        let read = py.detach(|| {
            let _passed = self.view.stops_forks().then(gate::pass);
            self.view.scan(true, after, &mut |place, head, body| {
                if self.last.contains(&place) {
                    page.push((place, head, body));
                }
                if page.len() < limit { Ok(()) } else { Err(End::Page) }
            })
        });
        if let Err(End::Error(error)) = read {
            return Err(journal_error(py, &error));
        }
        let page = page.into_iter().map(|(place, head, body)| {
            let of_run = (head.run, head.recorded_at, head.spent.cost);
            (place, head.item_id, head.submission_index, head.success, head.error_category, body, of_run)
        });
        PyList::new(py, page.collect::<Vec<_>>())
    }
}
