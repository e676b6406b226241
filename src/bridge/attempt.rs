//! Attempts that nobody but their strategy has a part in: the hot path of most items.
//!
//! Their coroutine is the [`Runner`]; here is what it does with one of them. In Python the same steps take twice as
//! long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyTuple, PyType};

use super::blank::{self, Blank};
use super::call;
use super::convert;
use super::flight::Flight;
use super::run::RunHandle;
use super::runner::{Place, Plain, Runner};
use super::timing::Timing;
use crate::dispatch::dispatcher::InFlight;
use crate::dispatch::mailbox::Done;
use crate::engine::{ItemIndex, ItemReport};
use crate::providers::Reply;

/// How long answers are read at a time before the loop does its other work.
const LONGEST_READING: Duration = Duration::from_millis(2);

/// What all plain attempts of one run share.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct PlainAttempts {
    pipeline: Py<PyAny>,
    run: Py<PyAny>,
    handle: Py<RunHandle>,
    /// The first items of the run by index; None for what has started.
    items: Py<PyList>,
    results: Py<PyList>,
    pub(super) flights: Py<PyDict>,
    /// Passed to `execute()`.
    timeout: Py<PyAny>,
    classes: Classes,
    /// Whether nobody observes single results.
    quiet: bool,
    /// Whether results have their prompts.
    keep_prompts: bool,
    blank_state: Blank,
    /// `asyncio.current_task` and `contextvars.copy_context`.
    current_task: Py<PyAny>,
    copy_context: Py<PyAny>,
    /// The variables of the run.
    context: Py<PyAny>,
    /// The strategy whose attempts were last found to be plain, and whether it cleans up after each item.
    usual: Mutex<Option<(Py<PyAny>, bool)>>,
    /// The strategy whose answers are read where results are taken, and what reads them.
    reader: Mutex<Option<Arc<Reader>>>,
}

struct Reader {
    strategy: Py<PyAny>,
    read: Py<PyAny>,
}

#[derive(FromPyObject)]
struct Classes {
    /// Makes results of successes.
    succeeded: Py<PyAny>,
    state: Py<PyType>,
    coroutine: Py<PyType>,
    /// Outputs of this class need a look.
    special: Py<PyType>,
}

#[pymethods]
impl PlainAttempts {
    #[new]
    #[pyo3(signature = (*, pipeline, run, timeout, classes, quiet, keep_prompts))]
    fn new(
        pipeline: Py<PyAny>,
        run: Bound<'_, PyAny>,
        timeout: Py<PyAny>,
        classes: Classes,
        quiet: bool,
        keep_prompts: bool,
    ) -> PyResult<Self> {
        let py = run.py();
        let copy_context = py.import("contextvars")?.getattr("copy_context")?;
        Ok(Self {
            pipeline,
            handle: run.getattr("handle")?.extract()?,
            items: run.getattr("waiting")?.getattr("first")?.extract()?,
            results: run.getattr("results")?.extract()?,
            flights: run.getattr("flights")?.extract()?,
            run: run.unbind(),
            timeout,
            blank_state: Blank::of(classes.state.bind(py)),
            classes,
            quiet,
            keep_prompts,
            current_task: py.import("asyncio")?.getattr("current_task")?.unbind(),
            context: copy_context.call0()?.unbind(),
            copy_context: copy_context.unbind(),
            usual: Mutex::default(),
            reader: Mutex::default(),
        })
    }

    /// Attempts with this strategy are plain from now on.
    fn remember(&self, strategy: Py<PyAny>, must_clean_up: bool) {
        let _before = self.usual().replace((strategy, must_clean_up));
    }

    /// Answers of this strategy are results once `read` has made `(output, usage, metadata)` of them.
    fn read_answers_of(&self, strategy: Py<PyAny>, read: Py<PyAny>) {
        self.handle.get().read_answers();
        let _before = self.reader().replace(Arc::new(Reader { strategy, read }));
    }

    /// Begins the first attempt of an item, if it is a plain one: nearly every item comes this way, and needs no Python
    /// but its strategy's. `goes_on`: whether the task may go on with other items.
    fn begin<'py>(
        slf: &Bound<'py, Self>,
        index: ItemIndex,
        item: Bound<'py, PyAny>,
        attempt: u32,
        timing: Py<Timing>,
        goes_on: bool,
    ) -> PyResult<Option<Bound<'py, Runner>>> {
        let Some((strategy, must_clean_up)) = slf.get().usual_of(&item)? else { return Ok(None) };
        let flight = Py::new(slf.py(), Flight::new(index, item.unbind(), attempt, timing))?;
        let plain = Plain { flight, strategy, must_clean_up };
        Bound::new(slf.py(), Runner::new(slf.clone().unbind(), plain, goes_on)).map(Some)
    }

    /// Begins a further attempt of an item, or its first if that is not known to be a plain one by its strategy.
    fn retry(slf: Py<Self>, flight: Py<Flight>, strategy: Py<PyAny>, must_clean_up: bool) -> Runner {
        Runner::new(slf, Plain { flight, strategy, must_clean_up }, false)
    }

    /// Takes messages as long as they are of items that began without Python and have ended, or end when their answer is
    /// read, `most` of them. Records their results, and has the engine count those that it has not. Returns how many
    /// messages and results there were, and the id of the last item.
    fn take_results<'py>(&self, py: Python<'py>, most: usize) -> PyResult<(usize, usize, Option<Bound<'py, PyAny>>)> {
        let (mut spent, mut read, mut last) = (Vec::with_capacity(most), Vec::new(), None);
        let (handle, begun) = (self.handle.get(), Instant::now());
        let reader = self.reader().clone();
        let (mut answers, mut ends) = (0, false);
        while spent.len() + answers < most && !ends {
            let Some(done) = handle.take_done()? else {
                let Some(reader) = &reader else { break };
                let Some((index, attempt, reply)) = handle.take_answer()? else { break };
                let item = self.take_item(py, index)?;
                read.extend(self.read(&item, index, attempt, &reply, reader)?);
                answers += 1;
                last = Some(item);
                // What reads may be slow, and the loop has other things to do.
                ends = begun.elapsed() > LONGEST_READING;
                continue;
            };
            let Done { item: index, start, execution, reply } = &*done;
            let (index, timing) = (*index, Timing::of(*start));
            let item = self.take_item(py, index)?;
            timing.executed(*execution);
            let (output, usage, metadata) = convert::answer(py, reply)?;
            let answer = (output, usage.as_any(), Some(metadata));
            let result = self.result(&item, index, 1, &Py::new(py, timing)?, answer)?;
            self.results.bind(py).append(result)?;
            spent.push(done);
            last = Some(item);
        }
        let (messages, results) = (spent.len() + answers, spent.len() + read.len());
        handle.discard(spent);
        if !read.is_empty() {
            handle.finish_now(read)?;
        }
        Ok((messages, results, last.map(|item| item.getattr(intern!(py, "item_id"))).transpose()?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.pipeline)?;
        visit.call(&self.run)?;
        visit.call(&self.context)?;
        visit.call(&self.handle)?;
        visit.call(&self.items)?;
        visit.call(&self.results)?;
        visit.call(&self.flights)?;
        if let Ok(usual) = self.usual.try_lock()
            && let Some((strategy, _)) = &*usual
        {
            visit.call(strategy)?;
        }
        if let Ok(reader) = self.reader.try_lock()
            && let Some(reader) = &*reader
        {
            visit.call(&reader.strategy)?;
            visit.call(&reader.read)?;
        }
        visit.call(&self.timeout)
    }
}

/// Output, usage and metadata.
type Answer<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

/// What there is to do after an answer.
pub(super) enum End<'py> {
    /// Nothing.
    Done,
    /// What this coroutine does.
    Follow(Bound<'py, PyAny>),
}

impl PlainAttempts {
    pub(super) fn pipeline<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.pipeline.bind(py)
    }

    fn usual(&self) -> MutexGuard<'_, Option<(Py<PyAny>, bool)>> {
        self.usual.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> MutexGuard<'_, Option<Arc<Reader>>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the answer of an attempt that began without Python, and records its result. Returns what is to be counted;
    /// `None`: it is no result yet, and the pipeline goes on with it.
    fn read<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        index: ItemIndex,
        InFlight { start, started, .. }: InFlight,
        reply: &Reply,
        reader: &Reader,
    ) -> PyResult<Option<(ItemIndex, ItemReport)>> {
        let py = item.py();
        let timing = Py::new(py, Timing::of(start))?;
        let answer = convert::reply(py, reply)?;
        let adopted = || Flight::adopted(index, item.clone().unbind(), timing.clone_ref(py), started);
        if !item.getattr(intern!(py, "strategy"))?.is(&reader.strategy) {
            self.pipeline.bind(py).call_method1(intern!(py, "take_over"), (adopted(), answer))?;
            return Ok(None);
        }
        let (output, usage, metadata) = match reader.read.bind(py).call1((answer,)) {
            Ok(read) => read.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyDict>)>()?,
            Err(error) => {
                self.pipeline.bind(py).call_method1(intern!(py, "unread"), (adopted(), error.into_value(py)))?;
                return Ok(None);
            }
        };
        timing.get().executed(started.elapsed());
        let report = convert::report(true, None, &usage);
        let result = self.result(item, index, 1, &timing, (output, &usage, Some(metadata)))?;
        self.results.bind(py).append(result)?;
        Ok(Some((index, report)))
    }

    /// The item's strategy and whether it must clean up, if its attempts are plain ones.
    fn usual_of(&self, item: &Bound<'_, PyAny>) -> PyResult<Option<(Py<PyAny>, bool)>> {
        let strategy = item.getattr(intern!(item.py(), "strategy"))?;
        Ok(match &*self.usual() {
            Some((usual, must_clean_up)) if usual.is(&strategy) => Some((strategy.unbind(), *must_clean_up)),
            _ => None,
        })
    }

    /// The task that runs this.
    pub(super) fn current_task<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.current_task.bind(py).call0()
    }

    /// Whether the present context has the variables that the run began with, and no others.
    pub(super) fn is_context_untouched(&self, py: Python<'_>) -> PyResult<bool> {
        // Two copies of one context are equal without a look at what is in them.
        let present = self.copy_context.bind(py).call0()?;
        // The comparison of values is their own business: what cannot be compared is another value.
        Ok(present.eq(&self.context).unwrap_or(false))
    }

    /// Tells the engine of successes, and takes the item that it starts next. `None`: there is none, or it is on its
    /// way in a task of its own.
    pub(super) fn next(&self, py: Python<'_>) -> PyResult<Option<Plain>> {
        let Some((index, attempt, start)) = self.handle.get().next_start()? else { return Ok(None) };
        let item = self.take_item(py, index)?;
        let timing = Py::new(py, Timing::of(start))?;
        let Some((strategy, must_clean_up)) = self.usual_of(&item)? else {
            self.run.bind(py).call_method1(intern!(py, "begin"), (index, item, attempt, timing))?;
            return Ok(None);
        };
        let flight = Py::new(py, Flight::new(index, item.unbind(), attempt, timing))?;
        Ok(Some(Plain { flight, strategy, must_clean_up }))
    }

    /// Takes an item out of the queue: as `Run.take_fresh`, which is called for what is not one of the first items.
    fn take_item<'py>(&self, py: Python<'py>, index: ItemIndex) -> PyResult<Bound<'py, PyAny>> {
        let items = self.items.bind(py);
        if let Some(place) = usize::try_from(index).ok().filter(|place| *place < items.len()) {
            let item = items.get_item(place)?;
            if !item.is_none() {
                items.set_item(place, py.None())?;
                self.handle.get().unstage(index, 1)?;
                return Ok(item);
            }
        }
        self.run.bind(py).call_method1(intern!(py, "take_fresh"), (index,))
    }

    /// Whether the run finds a flight.
    pub(super) fn knows(&self, flight: &Bound<'_, Flight>) -> PyResult<bool> {
        self.flights.bind(flight.py()).contains(flight.get().index)
    }

    /// Puts a flight where the run finds it; an attempt that ends in the first step of its task never gets there.
    pub(super) fn register(&self, place: &mut Place<'_>) -> PyResult<()> {
        if !place.registered {
            let flight = &place.flight;
            self.flights.bind(flight.py()).set_item(flight.get().index, flight)?;
            place.registered = true;
        }
        Ok(())
    }

    /// Calls `execute()`; what it returns is a coroutine.
    pub(super) fn call<'py>(&self, place: &Place<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Place { flight, strategy, .. } = place;
        let py = flight.py();
        let item = flight.get().item.bind(py);
        let notes = match flight.get().notes(py) {
            Some(notes) => notes,
            // Without calling `__init__`, as the class expects: most notes are never looked into.
            None => self.blank_state.make(py)?.unbind(),
        };
        flight.get().begin_execution(Some(notes.clone_ref(py)));
        let prompt = item.getattr(intern!(py, "prompt"))?;
        let attempt = flight.get().attempt().into_pyobject(py)?.into_any();
        let arguments = [&prompt, &attempt, self.timeout.bind(py), notes.bind(py)];
        let call = call::method(strategy, intern!(py, "execute"), arguments)?;
        if call.get_type().is(&self.classes.coroutine) {
            return Ok(call);
        }
        self.pipeline.bind(py).call_method1(intern!(py, "as_coroutine"), (call, strategy))
    }

    /// Records an answer.
    pub(super) fn answered<'py>(&self, place: &mut Place<'py>, answer: &Bound<'py, PyAny>) -> PyResult<End<'py>> {
        let must_clean_up = place.must_clean_up;
        let flight = &place.flight.clone();
        let py = flight.py();
        let pipeline = self.pipeline.bind(py);
        let usual = flight.get().returned();
        let parts = match answer.cast_exact::<PyTuple>() {
            Ok(tuple) if usual && tuple.len() == 2 => Some((tuple.get_item(0)?, tuple.get_item(1)?, None)),
            Ok(tuple) if usual && tuple.len() == 3 => {
                Some((tuple.get_item(0)?, tuple.get_item(1)?, Some(tuple.get_item(2)?)))
            }
            _ => None,
        };
        let exact = |object: &Bound<'_, PyAny>| object.is_exact_instance_of::<PyDict>();
        let is_usual = |(output, _, metadata): &Answer<'_>| {
            metadata.as_ref().is_none_or(exact) && !output.get_type().is(&self.classes.special)
        };
        let counted = |(output, usage, metadata): Answer<'py>| {
            let report = convert::usual_success(usage.cast_exact::<PyDict>().ok()?)?;
            Some((output, usage, metadata, report))
        };
        let Some((output, usage, metadata, report)) = parts.filter(is_usual).and_then(counted) else {
            self.register(place)?;
            let look = pipeline.call_method1(intern!(py, "look_at"), (flight, &place.strategy, answer))?;
            return Ok(End::Follow(look));
        };
        let metadata = metadata.map(Bound::cast_into::<PyDict>).transpose()?;
        let (index, attempt, timing) = (flight.get().index, flight.get().attempt(), &flight.get().timing);
        let result = self.result(flight.get().item.bind(py), index, attempt, timing, (output, &usage, metadata))?;
        if must_clean_up || !self.quiet {
            self.register(place)?;
        }
        if must_clean_up {
            let complete = pipeline.call_method1(intern!(py, "complete"), (flight, result))?;
            return Ok(End::Follow(complete));
        }
        if !self.quiet {
            if pipeline.call_method1(intern!(py, "record_result"), (flight, &result))?.is_truthy()? {
                return Ok(End::Done);
            }
            let post_process = pipeline.call_method1(intern!(py, "post_process"), (flight, result))?;
            return Ok(End::Follow(post_process));
        }
        self.results.bind(py).append(result)?;
        if place.registered {
            self.flights.bind(py).del_item(flight.get().index)?;
        }
        if self.handle.get().finish_soon(flight.get().index, report)? {
            pipeline.call_method0(intern!(py, "tell_soon"))?;
        }
        Ok(End::Done)
    }

    /// A successful result.
    fn result<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        index: ItemIndex,
        attempt: u32,
        timing: &Py<Timing>,
        (output, usage, metadata): (Bound<'py, PyAny>, &Bound<'py, PyAny>, Option<Bound<'py, PyDict>>),
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = item.py();
        let nothing = py.None().into_bound(py);
        let metadata = metadata.map_or_else(|| nothing.clone(), Bound::into_any);
        let arguments = [
            item,
            &index.into_pyobject(py)?.into_any(),
            &attempt.into_pyobject(py)?.into_any(),
            timing.bind(py).as_any(),
            &output,
            usage,
            &metadata,
            &PyBool::new(py, self.keep_prompts).to_owned().into_any(),
        ];
        let result = call::function(self.classes.succeeded.bind(py), arguments)?;
        // A usage is a dict of numbers.
        let context = item.getattr(intern!(py, "context"))?;
        let prompt = if self.keep_prompts { item.getattr(intern!(py, "prompt"))? } else { nothing };
        blank::untrack_unless(&result, [&output, &context, &metadata, &prompt]);
        Ok(result)
    }
}
