//! A run as the event loop's thread sees it. Its twin is `python/batch_llm/_run/run.py`.

use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use rustc_hash::FxHashMap;
use tokio::task::AbortHandle;

mod ends;
mod leases;
mod requests;

use requests::Extras;

use super::boards::PyBoard;
use super::client::NativeClient;
use super::counts::{self, Counted};
use super::errors::BridgeError;
use super::flight::Flight;
use super::listener::TokenListener;
use super::runtime::{Process, runtime};
use super::scope::Scope;
use super::timing::Timing;
use super::{convert, messages, prompt};
use crate::dispatch::dispatcher::{Dispatcher, Staged};
use crate::dispatch::mailbox::{Mailbox, Message};
use crate::engine::guard::{Allowance, Stop};
use crate::engine::run::Broken;
use crate::engine::scheduler::Scheduler;
use crate::engine::{Executor, ItemIndex, ItemReport, Run, Settings, Verdict, seconds};
use crate::providers::Ask;
use crate::sharing::lease::{Lease, Place};

/// One run of the engine.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct RunHandle {
    process: Process,
    mailbox: Arc<Mailbox>,
    dispatcher: Dispatcher,
    // None only while it is dropped: see `drop`.
    run: Option<Run<Dispatcher>>,
    requests: Mutex<FxHashMap<ItemIndex, AbortHandle>>,
    /// Leases of limits that are shared with other processes.
    leases: Mutex<Vec<Lease>>,
    /// Successes that have not been reported to the engine.
    finished: Mutex<Vec<(ItemIndex, ItemReport)>>,
    /// Whether there were successes since [`tell_finished`](Self::tell_finished) was last called.
    has_finished: AtomicBool,
    closed: AtomicBool,
    /// Whether answers of attempts that began without Python are taken with [`take_answer`](Self::take_answer) alone.
    reads_answers: AtomicBool,
    /// Whether the engine knows what any requests begin with alike.
    has_heads: AtomicBool,
    /// Requests to providers with prompt caches that begin with nothing to be found there.
    headless: AtomicU64,
    /// The same where that is worth a word.
    too_short: AtomicU64,
}

impl RunHandle {
    /// The post box of the run.
    pub fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    fn tell<R>(&self, news: impl FnOnce(&mut Scheduler, tokio::time::Instant) -> R) -> Result<R, BridgeError> {
        let finished = std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        let run = self.run()?;
        // The interpreter stays attached: whoever else takes this lock never waits for the interpreter.
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            run.tell(|scheduler, now| {
                for (item, report) in finished {
                    scheduler.record(item, report, now);
                    scheduler.release(item, now);
                }
                news(scheduler, now)
            })
        }));
        match outcome {
            Ok(answer) => Ok(answer?),
            Err(panic) => {
                // Whoever called may catch the exception that this becomes; the run has to end all the same.
                run.executor().broken("the engine failed");
                std::panic::resume_unwind(panic)
            }
        }
    }

    fn run(&self) -> Result<&Run<Dispatcher>, BridgeError> {
        self.process.check()?;
        self.run.as_ref().ok_or(BridgeError::Broken(Broken))
    }
}

#[pymethods]
impl RunHandle {
    #[new]
    fn new(settings: convert::PySettings, descriptor: bool) -> PyResult<Self> {
        let mailbox = Arc::new(Mailbox::new(descriptor).map_err(BridgeError::from)?);
        let runtime = runtime()?;
        let dispatcher = Dispatcher::new(Arc::clone(&mailbox), runtime.handle().clone());
        let mut random = fastrand::Rng::new();
        let run =
            Run::new(Settings::from(settings), Box::new(move || random.f64()), dispatcher.clone(), runtime.handle());
        dispatcher.belongs_to(run.remote());
        Ok(Self {
            process: Process::current(),
            mailbox,
            dispatcher,
            run: Some(run),
            requests: Mutex::default(),
            leases: Mutex::default(),
            finished: Mutex::default(),
            has_finished: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            reads_answers: AtomicBool::new(false),
            has_heads: AtomicBool::new(false),
            headless: AtomicU64::new(0),
            too_short: AtomicU64::new(0),
        })
    }

    fn fileno(&self) -> Option<i32> {
        self.mailbox.fileno()
    }

    fn wait(&self, py: Python<'_>, longest: f64) -> bool {
        py.detach(|| self.mailbox.wait(seconds(longest)))
    }

    fn ring(&self) {
        self.mailbox.ring();
    }

    fn rest(&self) {
        self.mailbox.rest();
    }

    fn hush(&self) {
        self.mailbox.hush();
    }

    fn take<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyList>> {
        self.process.check()?;
        let list = PyList::empty(py);
        while list.len() < limit
            && let Some(message) =
                self.mailbox.take_if(|message| !matches!(message, Message::Done(_)) && !self.is_answer(message))
        {
            if let Message::Answered { item, outcome, .. } = &message {
                self.forget_request(*item);
                // An engine that has failed says so elsewhere.
                let _ = self.observe(*item, outcome);
            }
            if let Some(message) = messages::read(py, message)? {
                list.append(message)?;
            }
        }
        Ok(list)
    }

    fn queue(&self, scope: &Scope) -> PyResult<u32> {
        let scope = scope.shared();
        Ok(self.tell(|scheduler, now| scheduler.add_queue(scope, now))?)
    }

    /// A queue for attempts that nothing bounds: requests in batches.
    fn unbounded_queue(&self) -> PyResult<u32> {
        Ok(self.tell(Scheduler::add_unbounded_queue)?)
    }

    /// An item whose attempt had no effect goes to another queue: `None` if it will be sent, else as
    /// [`next_round`](Self::next_round).
    fn transfer(
        &self,
        item: ItemIndex,
        queue: u32,
        estimate: convert::GivenEstimate,
    ) -> PyResult<Option<(&'static str, String)>> {
        let expected = estimate.map(|given| convert::expected(Some(given)));
        let outcome = self.tell(|scheduler, now| scheduler.transfer(item, queue, expected, now))?;
        Ok(outcome.err().map(|rejection| rejection.map(messages::rejection_parts).unwrap_or_default()))
    }

    /// A deferred item that was not answered starts anew.
    fn requeue(&self, item: ItemIndex, priority: i32) -> PyResult<()> {
        Ok(self.tell(|scheduler, now| scheduler.requeue(item, priority, now))?)
    }

    /// Shares the limits of a queue with other processes that use the same board and words.
    #[pyo3(signature = (queue, board, scope, holder, is_known))]
    fn share(
        &self,
        py: Python<'_>,
        queue: u32,
        board: &PyBoard,
        scope: String,
        holder: String,
        is_known: bool,
    ) -> PyResult<()> {
        let found = self.tell(|scheduler, _| scheduler.scopes().nth(queue as usize).cloned())?;
        let Some(shared) = found else { return Ok(()) };
        self.begin_lease(py, Place { board: board.board()?, scope, holder }, &shared, is_known)
    }

    /// The same for the limits of a pool's member, which has no queue of its own.
    #[pyo3(signature = (member, board, scope, holder, is_known))]
    fn share_member(
        &self,
        py: Python<'_>,
        member: &Scope,
        board: &PyBoard,
        scope: String,
        holder: String,
        is_known: bool,
    ) -> PyResult<()> {
        self.begin_lease(py, Place { board: board.board()?, scope, holder }, &member.shared(), is_known)
    }

    fn kind(&self, output: f64, price: Option<convert::GivenPrice>) -> PyResult<u32> {
        Ok(self.tell(|scheduler, _| scheduler.add_kind(output, price.map(convert::price)))?)
    }

    /// The tokens of an item's present attempt cost this, not what those of its kind do.
    fn reprice(&self, item: ItemIndex, price: convert::GivenPrice) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.reprice(item, convert::price(price)))?)
    }

    fn accept(&self, groups: Vec<(u32, i32, u64)>) -> PyResult<()> {
        Ok(self.tell(|scheduler, now| {
            // Also if there are none: a run without items is drained.
            scheduler.accept(0, 0, 0, now);
            for (queue, priority, count) in groups {
                scheduler.accept(queue, priority, count, now);
            }
        })?)
    }

    fn skip(&self, count: u64) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.skip(count))?)
    }

    fn record_reused(&self, succeeded: u64, failed: u64) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.record_reused(succeeded, failed))?)
    }

    fn offer(&self, queue: u32, priority: i32, bounded: bool) -> PyResult<Option<ItemIndex>> {
        let accepted = self.tell(|scheduler, now| scheduler.offer(queue, priority, bounded, now))?;
        Ok(accepted.ok())
    }

    fn expect(&self, estimates: Vec<(ItemIndex, convert::GivenEstimate)>) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| {
            for (item, estimate) in estimates {
                scheduler.expect(item, convert::expected(estimate));
            }
        })?)
    }

    fn executing(&self, item: ItemIndex) -> PyResult<bool> {
        Ok(self.tell(|scheduler, now| scheduler.executing(item, now))?)
    }

    fn extend(&self, item: ItemIndex, left: f64) -> PyResult<()> {
        Ok(self.tell(|scheduler, now| scheduler.extend(item, seconds(left), now))?)
    }

    fn not_sent(&self, item: ItemIndex) -> PyResult<()> {
        Ok(self.tell(|scheduler, now| scheduler.not_sent(item, now))?)
    }

    /// `(whether there will be another attempt, the category of the rejection if another one would have helped)`.
    #[pyo3(signature = (item, kind, at_least, has_retry_after, usage, sign = 0, together = 1))]
    fn failed(
        &self,
        item: ItemIndex,
        kind: u8,
        at_least: f64,
        has_retry_after: bool,
        usage: &Bound<'_, PyAny>,
        sign: u8,
        together: u64,
    ) -> PyResult<(bool, Option<&'static str>)> {
        let (failure, usage) = (messages::failure(kind, at_least, has_retry_after)?, convert::read_usage(usage));
        let sign = messages::sign(sign)?;
        let verdict = self.tell(|scheduler, now| scheduler.failed(item, failure, sign, together, usage, now))?;
        Ok(match verdict {
            Verdict::Retry => (true, None),
            Verdict::GiveUp => (false, None),
            Verdict::Rejected(rejection) => (false, Some(messages::rejection_parts(rejection).0)),
        })
    }

    /// The item's request was answered, and the item goes on with another one later. `usage`: of all so far.
    fn end_round(&self, item: ItemIndex, usage: &Bound<'_, PyAny>) -> PyResult<()> {
        let usage = convert::read_usage(usage);
        Ok(self.tell(|scheduler, now| scheduler.end_round(item, usage, now))?)
    }

    /// The item's next request is ready. Returns the category and the details of the rejection, if it will not be sent; an
    /// empty category: a message says why. And, with `takes_start`, its start if it starts at once, of which no message
    /// tells then.
    #[allow(clippy::type_complexity)]
    fn next_round(
        &self,
        item: ItemIndex,
        estimate: convert::GivenEstimate,
        takes_start: bool,
    ) -> PyResult<(Option<(&'static str, String)>, Option<(u32, Timing)>)> {
        let expected = estimate.map(|given| convert::expected(Some(given)));
        let news = || self.tell(|scheduler, now| scheduler.next_round(item, expected, now));
        let (outcome, start) = if takes_start { self.dispatcher.taking_start(item, news) } else { (news(), None) };
        let rejection = outcome?.err().map(|rejection| rejection.map(messages::rejection_parts).unwrap_or_default());
        Ok((rejection, start.map(|(attempt, start)| (attempt, Timing::of(start)))))
    }

    fn decide_cooldown(&self, queue: u32, pause: f64, delays: Vec<f64>, more: bool) -> PyResult<f64> {
        let (pause, delays) = (seconds(pause), convert::durations(delays));
        let planned = self.tell(|scheduler, now| scheduler.decide_cooldown(queue, pause, delays, more, now))?;
        Ok(planned.as_secs_f64())
    }

    fn extend_slow_start(&self, queue: u32, delays: Vec<f64>, more: bool) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.extend_slow_start(queue, convert::durations(delays), more))?)
    }

    #[pyo3(signature = (cancel, why = "batch_aborted"))]
    fn stop(&self, cancel: bool, why: &str) -> PyResult<()> {
        let stop = Stop::ALL.into_iter().find(|stop| stop.name() == why).unwrap_or(Stop::Aborted);
        Ok(self.tell(|scheduler, now| scheduler.stop(stop, cancel, now))?)
    }

    fn keep_open(&self, is_open: bool) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.keep_open(is_open))?)
    }

    fn set_full(&self, is_full: bool) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.set_full(is_full))?)
    }

    fn pause(&self, paused: bool) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.pause(paused))?)
    }

    fn set_workers(&self, workers: usize) -> PyResult<()> {
        let workers = NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN);
        Ok(self.tell(|scheduler, _| scheduler.set_workers(workers))?)
    }

    /// Limits of the run's scopes, as in its settings.
    fn set_limits(&self, limits: Vec<(String, f64, f64)>) -> PyResult<()> {
        let limits = limits.iter().map(convert::limit).collect();
        Ok(self.tell(|scheduler, now| scheduler.set_limits(limits, now))?)
    }

    fn set_cost_cap(&self, cost: Option<f64>) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.set_cost_cap(cost))?)
    }

    fn set_time_left(&self, left: Option<f64>) -> PyResult<()> {
        Ok(self.tell(|scheduler, now| scheduler.set_time_left(left.map(seconds), now))?)
    }

    /// Whether it is paused, how many workers it has, its cap, the seconds left, whether nothing more starts.
    #[allow(clippy::type_complexity)] // a tuple is what Python reads most easily
    fn steering(&self) -> PyResult<(bool, usize, Option<f64>, Option<f64>, bool)> {
        let now = self.tell(|scheduler, now| scheduler.steering(now))?;
        let left = now.time_left.map(|left| left.as_secs_f64());
        Ok((now.is_paused, now.workers, now.cost_cap, left, now.is_stopped))
    }

    fn cancel(&self, item: ItemIndex) -> PyResult<()> {
        Ok(self.tell(|scheduler, now| scheduler.cancel(item, now))?)
    }

    /// Items that have not started, attempts in flight, items that wait for another one, seconds left of a pause;
    /// seconds of an outage, if there is one; why nothing goes on, and seconds left of that, if it has lasted.
    #[allow(clippy::type_complexity)]
    fn gauges(&self) -> PyResult<(u64, usize, usize, f64, Option<f64>, Option<(&'static str, Option<f64>)>)> {
        let gauges = self.tell(|scheduler, now| scheduler.gauges(now))?;
        let standstill = gauges.standstill.map(|(bound, left)| (bound.name(), left.map(|left| left.as_secs_f64())));
        let (cooldown, outage) = (gauges.cooldown.as_secs_f64(), gauges.outage.map(|outage| outage.as_secs_f64()));
        Ok((gauges.queued, gauges.in_flight, gauges.retrying, cooldown, outage, standstill))
    }

    /// What may be spent of a cap that several runs have together; `is_final`: it will never be more.
    fn allow(&self, cost: f64, is_final: bool) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.allow(Allowance { cost, is_final }))?)
    }

    /// What is spent, what is reserved, and what the last attempt would cost that could not be afforded.
    fn claims(&self) -> PyResult<(f64, f64, f64)> {
        Ok(self.tell(|scheduler, _| scheduler.budget().claims())?)
    }

    fn spend(&self, cost: f64) -> PyResult<()> {
        Ok(self.tell(|scheduler, now| scheduler.spend(cost, now))?)
    }

    fn record_rejected(&self, count: u64, error: &str) -> PyResult<()> {
        Ok(self.tell(|scheduler, _| scheduler.record_rejected(count, error))?)
    }

    /// An item's answer is there; `record` or `finish` follows when its result has been written down. `frees`: its
    /// worker does not wait for that.
    fn answered(&self, item: ItemIndex, success: bool, usage: &Bound<'_, PyAny>, frees: bool) -> PyResult<()> {
        let report = convert::report(success, None, usage);
        Ok(self.tell(|scheduler, now| {
            scheduler.answered(item, &report, now);
            scheduler.await_store(item);
            if frees {
                scheduler.free_worker(item);
            }
        })?)
    }

    fn record(&self, item: ItemIndex, success: bool, error: Option<String>, usage: &Bound<'_, PyAny>) -> PyResult<()> {
        let report = convert::report(success, error, usage);
        Ok(self.tell(|scheduler, now| scheduler.record(item, report, now))?)
    }

    fn release(&self, item: ItemIndex) -> PyResult<()> {
        Ok(self.tell(|scheduler, now| scheduler.release(item, now))?)
    }

    /// `record` and `release` in one crossing, for items with nothing to do in between.
    fn finish(&self, item: ItemIndex, success: bool, error: Option<String>, usage: &Bound<'_, PyAny>) -> PyResult<()> {
        let report = convert::report(success, error, usage);
        Ok(self.tell(|scheduler, now| {
            scheduler.record(item, report, now);
            scheduler.release(item, now);
        })?)
    }

    /// [`finish`](Self::finish) for many; they are `(item, success, error, usage)`.
    fn finish_all(&self, ended: Vec<(ItemIndex, bool, Option<String>, Bound<'_, PyAny>)>) -> PyResult<()> {
        let reports: Vec<(ItemIndex, ItemReport)> = ended
            .into_iter()
            .map(|(item, success, error, usage)| (item, convert::report(success, error, &usage)))
            .collect();
        Ok(self.tell(|scheduler, now| {
            for (item, report) in reports {
                scheduler.record(item, report, now);
                scheduler.release(item, now);
            }
        })?)
    }

    /// Tells the engine of the successes that [`finish_soon`](Self::finish_soon) has collected.
    fn tell_finished(&self) -> PyResult<()> {
        self.has_finished.store(false, Ordering::Relaxed);
        self.tell_of_successes()?;
        Ok(())
    }

    /// Ends everything. Returns the items whose attempts were in flight without Python.
    fn close(&self) -> PyResult<Vec<ItemIndex>> {
        self.process.check()?;
        self.closed.store(true, Ordering::Relaxed);
        let on = self.dispatcher.close();
        let requests = std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner));
        requests.values().for_each(AbortHandle::abort);
        // An engine that has failed is closed already.
        let _ = self.tell(|scheduler, now| scheduler.close(now));
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(on)
    }

    /// Whether all items are done and their results taken. If some were not, another message says so after them: a run
    /// that is drained, takes items and is drained again says it twice, and the loop may be slow to read the first.
    fn is_drained(&self) -> PyResult<bool> {
        Ok(self.tell(|scheduler, _| scheduler.is_drained())? && !self.mailbox.has_results())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut counted = self.tell(|scheduler, now| Counted {
            stats: scheduler.stats().clone(),
            bound_by: scheduler
                .bound()
                .totals(now)
                .into_iter()
                .map(|(bound, time)| (bound.name(), time.as_secs_f64()))
                .collect(),
            bound_over_time: scheduler.bound().over_time(now),
            budget: scheduler.budget().clone(),
            caches: scheduler.cache_counts().by_name().into(),
            scopes: scheduler.scopes().cloned().collect(),
            served: scheduler.served(now),
        })?;
        counted.caches.push(("short", self.headless.load(Ordering::Relaxed)));
        counted.caches.push(("too_short", self.too_short.load(Ordering::Relaxed)));
        counts::read(py, counted)
    }

    /// Finished items, evenly spaced over the run, and the run now; `_core.pyi` has their fields.
    fn samples<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyList>, (f64, u64, u64))> {
        let (stored, now) = self.tell(|scheduler, now| {
            let samples = scheduler.samples();
            let present = (scheduler.elapsed(now).as_secs_f64(), samples.done(), scheduler.in_work());
            (samples.stored().to_vec(), present)
        })?;
        Ok((counts::samples(py, stored)?, now))
    }

    /// Sends a native attempt. `place`: the item, and the number of the attempt; `correction`: the answer before, and what was wrong with it.
    #[pyo3(signature = (place, client, given, correction = None, key = None, listener = None))]
    fn launch(
        &self,
        place: (ItemIndex, u32),
        client: &NativeClient,
        given: &Bound<'_, PyAny>,
        correction: Option<(String, String)>,
        key: Option<String>,
        listener: Option<&TokenListener>,
    ) -> PyResult<()> {
        self.send(place, client, given, Extras { correction, key, listener })
    }

    /// How many more questions may be staged, if `most` may be at once.
    fn room(&self, most: usize) -> PyResult<usize> {
        self.process.check()?;
        Ok(self.dispatcher.room(most))
    }

    /// Stages the questions of those of `items` that are of this strategy; the first has the number `first`. `whole`: as
    /// in [`Staged`]; `None`: only what they begin with alike is read, for Python
    /// starts them. Returns how many were looked at before there was no room for more words.
    fn stage(
        &self,
        first: ItemIndex,
        items: &Bound<'_, PyList>,
        strategy: &Bound<'_, PyAny>,
        client: &NativeClient,
        whole: Option<bool>,
    ) -> PyResult<usize> {
        self.read_and_stage(first, items, strategy, client, whole)
    }

    /// Sends the first attempt of an item that has started before it was staged, as if it had been.
    fn begin(&self, item: ItemIndex, client: &NativeClient, given: &Bound<'_, PyAny>, timing: &Timing) -> PyResult<()> {
        self.process.check()?;
        let question = Staged::new(client.provider()?, Ask::new(prompt::read(given)?), false);
        self.dispatcher.begin(item, question, timing.start());
        Ok(())
    }

    /// Items start the usual way, or never.
    #[pyo3(signature = (first, count = 1))]
    pub fn unstage(&self, first: ItemIndex, count: u64) -> PyResult<()> {
        self.process.check()?;
        self.dispatcher.forget(first..first + count);
        if self.has_heads.load(Ordering::Relaxed) {
            self.tell(|scheduler, _| scheduler.forget_heads(first..first + count))?;
        }
        Ok(())
    }

    /// Takes over an attempt that began without Python, if it is in flight.
    fn adopt(&self, item: ItemIndex, work: Bound<'_, PyAny>) -> PyResult<Option<Flight>> {
        self.take_over(item, work)
    }

    /// How many attempts are in flight without Python.
    fn in_direct_flight(&self) -> PyResult<usize> {
        self.process.check()?;
        Ok(self.dispatcher.in_flight())
    }

    fn abort(&self, item: ItemIndex) {
        if let Some(request) = self.forget_request(item) {
            request.abort();
        }
    }

    /// Panics inside the engine's lock: for the test that a panic ends in an exception. Not in release builds.
    #[cfg(debug_assertions)]
    fn _panic(&self) -> PyResult<()> {
        #[allow(clippy::panic)]
        Ok(self.tell(|_, _| panic!("made on purpose"))?)
    }
}

impl Drop for RunHandle {
    fn drop(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        let (run, requests) = (self.run.take(), std::mem::take(&mut self.requests));
        if self.process.check().is_ok() {
            requests.into_inner().unwrap_or_else(PoisonError::into_inner).values().for_each(AbortHandle::abort);
        } else {
            // Ending tasks takes the runtime's locks, which may be held by threads that do not exist in this child.
            std::mem::forget((run, requests, leases));
        }
    }
}
