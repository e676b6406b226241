//! The batch lane of a run as Python sees it. Its user is `python/batch_llm/_pipeline/lanes.py`.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde::Deserialize;

use super::client::NativeClient;
use super::errors::journal_error;
use super::journal::{PyOptions, format};
use super::json;
use super::runtime::{Process, awaitable, runtime};
use crate::batches::auto::Wanted;
use crate::batches::costs::{CacheReads, KnownCosts, Prices, Rates, Size};
use crate::batches::lane::{Lane, LaneError};
use crate::batches::plan::Why;
use crate::batches::polling::Polling;
use crate::batches::provider::Marked;
use crate::batches::shared::{Counts, Settings};
use crate::batches::terms::Terms;
use crate::engine::seconds;
use crate::journal::batches::{Chunk, Ledger};
use crate::journal::record::Reuse;

/// How a lane works, from a dict with these names; what is not given is as usual. Durations in seconds.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    size: Option<usize>,
    linger: Option<f64>,
    first_poll: Option<f64>,
    longest_poll: Option<f64>,
    list_delays: Option<Vec<f64>>,
    queue_wait: Option<f64>,
    probe: Option<bool>,
    auto: Option<GivenAuto>,
}

/// Where the choice is ours.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenAuto {
    deadline: Option<f64>,
    rate: Option<f64>,
    concurrency: f64,
    cancel_time: Option<f64>,
}

impl GivenAuto {
    fn wanted(&self) -> Wanted {
        Wanted {
            deadline: self.deadline.map(seconds),
            rate: self.rate,
            concurrency: self.concurrency,
            settle: self.cancel_time.map(seconds),
        }
    }
}

impl Given {
    fn settings(&self) -> Settings {
        let usual = Settings::default();
        let longest = self.longest_poll.map_or(usual.polling.longest, seconds);
        Settings {
            size: self.size.unwrap_or(usual.size).max(1),
            bytes: usual.bytes,
            linger: self.linger.map_or(usual.linger, seconds),
            polling: Polling {
                first: self.first_poll.map_or(usual.polling.first, seconds),
                longest,
                patient: if self.longest_poll.is_some() { longest } else { usual.polling.patient },
            },
            looks: self.list_delays.as_ref().map(|delays| delays.iter().copied().map(seconds).collect()),
            queue_wait: self.queue_wait.map_or(usual.queue_wait, seconds),
            probe: self.probe.unwrap_or(usual.probe),
        }
    }
}

/// What tokens cost by themselves and in batches: of prompts, of what is read from the cache, of answers.
type GivenRates = ((f64, f64, f64), (f64, f64, f64));

fn prices(given: GivenRates) -> Prices {
    let rates = |(input, cached, output)| Rates { input, cached, output };
    Prices { live: rates(given.0), batch: rates(given.1) }
}

/// Whether a request that uses so much costs less by itself than in a batch, once the provider's prompt cache has what it
/// and others begin with. `reads`: the tokens of prompts in earlier batches, and those of them that were read from the cache.
#[pyfunction]
pub fn is_cheaper_live(rates: GivenRates, size: (f64, f64, f64), is_marked: bool, reads: (f64, f64)) -> bool {
    let (prices, (prompt, head, output)) = (prices(rates), size);
    let size = Size { input: prompt.max(head), head, output, is_marked };
    prices.may_favour_live() && prices.favour_live(&size, 1.0, CacheReads { input: reads.0, cached: reads.1 })
}

/// The batches of one run, in a ledger.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct BatchLane {
    process: Process,
    lane: Arc<Lane>,
}

#[pymethods]
impl BatchLane {
    /// Opens the ledger of the store at `path`, and makes it if there is none.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, kind: &str, options: PyOptions, how: &Bound<'_, PyDict>) -> PyResult<Self> {
        let given: Given = serde_json::from_value(json::to_value(how, "batches")?)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let (kind, options) = (format(kind)?, options.with(Reuse::Success));
        let opened = py.detach(|| Ledger::open(&path, kind, &options));
        let ledger = opened.map_err(|error| journal_error(py, &error))?;
        let auto = given.auto.as_ref().map(GivenAuto::wanted);
        let lane = Lane::new(ledger, given.settings(), auto, runtime()?.handle().clone());
        Ok(Self { process: Process::current(), lane: Arc::new(lane) })
    }

    /// The same client, whose questions wait in batches. `is_cheaper`: whether they cost less there, if it is known;
    /// `rates`: what tokens cost by themselves and in batches.
    #[pyo3(signature = (client, is_cheaper = None, rates = None))]
    fn client(
        &self,
        py: Python<'_>,
        client: &NativeClient,
        is_cheaper: Option<bool>,
        rates: Option<GivenRates>,
    ) -> PyResult<NativeClient> {
        self.process.check()?;
        let _entered = runtime()?.enter();
        let costs = KnownCosts { is_cheaper, prices: rates.map(prices) };
        let provider = self.lane.provider(client.name(), &client.provider()?, costs);
        let provider = provider.map_err(|error| lane_error(py, error))?;
        Ok(client.instead(Arc::new(provider)))
    }

    /// The same client for questions that were meant for batches, whose replies say so, and why.
    fn live_client(&self, client: &NativeClient, why: String) -> PyResult<NativeClient> {
        self.process.check()?;
        let model = || client.provider().ok()?.batchable().map(|client| client.model().to_owned());
        let auto = self.lane.auto().cloned().map(|auto| (auto, model().unwrap_or_default()));
        Ok(client.instead(Arc::new(Marked { provider: client.provider()?, lane: "live", why: Some(why), auto })))
    }

    /// Resolves when batches were cancelled, if it is the last moment for that.
    fn look_at_time<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.process.check()?;
        let lane = Arc::clone(&self.lane);
        awaitable(py, async move {
            lane.look_at_time().await;
            Ok(())
        })
    }

    /// So many requests there will be, as far as is known.
    fn expect(&self, requests: usize) -> PyResult<()> {
        self.process.check()?;
        self.lane.auto().into_iter().for_each(|auto| auto.expect(requests));
        Ok(())
    }

    /// How many requests went by themselves, by reason.
    fn reasons(&self) -> PyResult<Vec<(&'static str, u64)>> {
        self.process.check()?;
        Ok(self.lane.auto().map(|auto| auto.reasons()).unwrap_or_default())
    }

    /// Such questions are known to be answered.
    fn proven(&self) -> PyResult<()> {
        self.process.check()?;
        self.lane.proven();
        Ok(())
    }

    /// Sends all chunks as they are.
    fn flush(&self) -> PyResult<()> {
        self.process.check()?;
        let _entered = runtime()?.enter();
        self.lane.flush();
        Ok(())
    }

    /// Resolves when all lines are in batches at the provider, or cannot be.
    fn submitted<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.process.check()?;
        let lane = Arc::clone(&self.lane);
        awaitable(py, async move {
            lane.submitted().await;
            Ok(())
        })
    }

    /// Asks providers to cancel all batches.
    fn cancel<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.process.check()?;
        let lane = Arc::clone(&self.lane);
        awaitable(py, async move {
            lane.cancel().await;
            Ok(())
        })
    }

    /// Resolves when the chunks whose results are here are settled.
    fn at_rest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.process.check()?;
        let lane = Arc::clone(&self.lane);
        awaitable(py, async move {
            lane.at_rest().await;
            Ok(())
        })
    }

    /// Lets go of everything. `is_complete`: what was passed on is stored elsewhere now, and is forgotten.
    fn close(&self, py: Python<'_>, is_complete: bool) -> PyResult<()> {
        self.process.check()?;
        let lane = Arc::clone(&self.lane);
        py.detach(|| lane.close(is_complete)).map_err(|error| journal_error(py, &error))
    }

    /// What the user is to know, since this was last called.
    fn take_notes(&self) -> PyResult<Vec<String>> {
        self.process.check()?;
        Ok(self.lane.take_notes())
    }

    /// Lines that wait for their chunk, are being sent, are in batches; batches; lines that were collected; lines that
    /// somebody waits for.
    fn counts(&self) -> PyResult<(usize, usize, usize, usize, usize, usize)> {
        self.process.check()?;
        let Counts { filling, sending, open, batches, collected, waiting, .. } = self.lane.counts();
        Ok((filling, sending, open, batches, collected, waiting))
    }

    /// Of the lines that somebody waits for, those that no provider works on yet, those that one works on, and those whose
    /// results are being written or fetched; and the lines that were collected.
    fn progress(&self) -> PyResult<(usize, usize, usize, usize)> {
        self.process.check()?;
        let Counts { collected, waiting, running, writing, .. } = self.lane.counts();
        Ok((waiting.saturating_sub(running + writing), running, writing, collected))
    }
}

/// How many of so many requests of a client would go into batches, why the rest would not, and after how many seconds half
/// of such batches have ended. `store`: a path and a kind, whose earlier batches tell how long they take.
#[pyfunction]
#[pyo3(signature = (client, requests, left, rate, is_cheaper = None, store = None))]
pub fn plan_batches(
    py: Python<'_>,
    client: &NativeClient,
    requests: usize,
    left: Option<f64>,
    rate: f64,
    is_cheaper: Option<bool>,
    store: Option<(PathBuf, String)>,
) -> PyResult<(usize, Option<&'static str>, f64)> {
    let store = store.map(|(path, kind)| Ok::<_, PyErr>((path, format(&kind)?))).transpose()?;
    let (name, provider) = (client.name(), client.provider()?);
    let terms = py.detach(|| {
        let ledger = store.map(|(path, kind)| if path.exists() { Ledger::view(&path, kind) } else { Ok(None) });
        let costs = KnownCosts { is_cheaper, prices: None };
        Terms::of_client(name, &provider, costs, ledger.transpose()?.flatten().as_ref())
    });
    let terms = terms.map_err(|error| lane_error(py, error))?;
    let (placed, why) = terms.split(requests, left, rate);
    Ok((placed, why.map(Why::name), terms.lengths.median()))
}

fn lane_error(py: Python<'_>, error: LaneError) -> PyErr {
    match error {
        LaneError::Journal(error) => journal_error(py, &error),
        other => PyValueError::new_err(other.to_string()),
    }
}

/// The batches in the ledger of a store, in order, each a dict; `None`: it has none.
#[pyfunction]
pub fn batches_of<'py>(py: Python<'py>, path: PathBuf, kind: &str) -> PyResult<Option<Bound<'py, PyList>>> {
    let kind = format(kind)?;
    let read = || {
        let Some(ledger) = Ledger::view(&path, kind)? else { return Ok(None) };
        let chunks = ledger.chunks(true)?;
        let chunks = chunks.into_iter().map(|chunk| Ok((ledger.waiting(chunk.id)?, chunk)));
        chunks.collect::<Result<Vec<(u64, Chunk)>, _>>().map(Some)
    };
    let Some(found) = py.detach(read).map_err(|error| journal_error(py, &error))? else { return Ok(None) };
    let list = PyList::empty(py);
    for (waiting, chunk) in found {
        let dict = PyDict::new(py);
        dict.set_item("chunk", chunk.id)?;
        dict.set_item("nonce", chunk.nonce)?;
        dict.set_item("provider", chunk.route.provider)?;
        dict.set_item("base_url", chunk.route.base_url)?;
        dict.set_item("model", chunk.route.model)?;
        dict.set_item("endpoint", chunk.route.endpoint)?;
        dict.set_item("lines", chunk.lines)?;
        dict.set_item("bytes", chunk.bytes)?;
        dict.set_item("stage", chunk.stage.name())?;
        dict.set_item("planned_at", chunk.planned_at)?;
        dict.set_item("tries", chunk.tries)?;
        dict.set_item("batch_id", chunk.batch)?;
        dict.set_item("found", chunk.found)?;
        dict.set_item("created_at", chunk.created_at)?;
        dict.set_item("word", chunk.word)?;
        dict.set_item("done", chunk.done)?;
        dict.set_item("failed", chunk.failed)?;
        dict.set_item("seen_at", chunk.seen_at)?;
        dict.set_item("cancelled", chunk.cancelled)?;
        dict.set_item("ended_at", chunk.ended_at)?;
        dict.set_item("waiting", waiting)?;
        dict.set_item("input_tokens", chunk.used.input)?;
        dict.set_item("output_tokens", chunk.used.output)?;
        dict.set_item("cached_input_tokens", chunk.used.cached)?;
        list.append(dict)?;
    }
    Ok(Some(list))
}

impl Drop for BatchLane {
    fn drop(&mut self) {
        if self.process.check().is_err() {
            // Ending tasks takes the runtime's locks, which may be held by threads that do not exist in this child.
            std::mem::forget(Arc::clone(&self.lane));
        }
    }
}
