//! An attempt with a pool that has members in Python: Python asks the members, waits and reports; who is asked is decided
//! by `engine::pool`. Made by [`NativePool`](super::pool::NativePool).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use tokio::time::Instant;

use super::convert::read_usage;
use super::runtime::runtime;
use crate::engine::measure::ReportedLimit;
use crate::engine::pool::{Ending, News, Next, Place, Pool, Reason, Report, Trial};
use crate::engine::quota::Used;
use crate::engine::seconds;
use crate::providers::Provider;
use crate::providers::pooled::{ReportedFailure, read_queues};

/// Where attempts are made.
pub struct Desk {
    pub pool: Arc<Pool>,
    pub labels: Box<[String]>,
    /// Those of native members: they tell how much their servers have to do.
    pub providers: Box<[Option<Arc<dyn Provider>>]>,
    /// Called with what has become of a member: what, who, why.
    pub hear: Arc<Py<PyAny>>,
}

/// Tells Python what has become of a member.
pub fn tell(py: Python<'_>, hear: &Py<PyAny>, news: News, label: &str, why: &str) {
    let kind = match news {
        News::Ejected(_) => "ejected",
        News::Back(_) => "back",
        News::Dropped(_) => "dropped",
    };
    if let Err(error) = hear.call1(py, (kind, label, why)) {
        error.write_unraisable(py, Some(hear.bind(py)));
    }
}

/// A failure, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyFailure {
    category: String,
    is_retryable: bool,
    is_rate_limit: bool,
    wait: Option<f64>,
    status: Option<u16>,
    code: Option<String>,
    message: String,
    was_invalid: bool,
}

/// What a native member's reply says beside its answer: limits, and an account.
pub type Reported = Arc<Mutex<(Vec<ReportedLimit>, Option<u64>)>>;

/// A member that is asked. One that is let go of without a report counts as cancelled.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct PoolPlace {
    desk: Arc<Desk>,
    /// The member's number.
    #[pyo3(get)]
    member: usize,
    place: Mutex<Option<Place>>,
    failed: Mutex<Option<(Ending, Option<Reason>)>>,
    reported: Reported,
}

impl PoolPlace {
    fn new(desk: &Arc<Desk>, place: Place) -> Self {
        let member = place.member;
        let queue_of = |number: usize| desk.providers.get(number)?.as_ref()?.queue();
        read_queues(&desk.pool, queue_of, runtime().ok().map(|runtime| runtime.handle()));
        Self {
            desk: Arc::clone(desk),
            member,
            place: Mutex::new(Some(place)),
            failed: Mutex::default(),
            reported: Reported::default(),
        }
    }

    fn end(&self, ending: Ending, used: Used) -> Option<News> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let (limits, account) = std::mem::take(&mut *self.reported.lock().unwrap_or_else(PoisonError::into_inner));
        self.desk.pool.ended(&place, &Report { ending, used, limits: &limits, account }, Instant::now())
    }

    /// Where to note what a native member reports.
    pub fn reported(&self) -> Reported {
        Arc::clone(&self.reported)
    }

    fn tell(&self, py: Python<'_>, news: Option<News>, why: &str) {
        if let (Some(news), Some(label)) = (news, self.desk.labels.get(self.member)) {
            tell(py, &self.desk.hear, news, label, why);
        }
    }
}

impl Drop for PoolPlace {
    fn drop(&mut self) {
        self.end(Ending::Cancelled, Used::Unknown);
    }
}

#[pymethods]
impl PoolPlace {
    /// The member has answered.
    fn answered(&self, py: Python<'_>, usage: Option<&Bound<'_, PyAny>>) {
        let used = usage.and_then(read_usage).map_or(Used::Unknown, Used::Reported);
        let news = self.end(Ending::Answered, used);
        self.tell(py, news, "");
    }

    /// The member has failed. Whether its answer was invalid.
    fn failed(&self, py: Python<'_>, failure: PyFailure, usage: Option<&Bound<'_, PyAny>>) -> bool {
        let told = ReportedFailure {
            category: &failure.category,
            is_retryable: failure.is_retryable,
            is_rate_limit: failure.is_rate_limit,
            wait: failure.wait.map(seconds),
            status: failure.status,
            code: failure.code.as_deref(),
            message: &failure.message,
            was_invalid: failure.was_invalid,
        };
        let ending = told.ending();
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((ending, told.reason()));
        let used = match usage.and_then(read_usage) {
            Some(usage) => Used::Reported(usage),
            None if failure.status.is_some() || failure.is_rate_limit => Used::Rejected,
            None => Used::Unknown,
        };
        let news = self.end(ending, used);
        self.tell(py, news, &failure.message);
        told.is_invalid()
    }

    /// The request was cancelled.
    fn cancelled(&self) {
        self.end(Ending::Cancelled, Used::Unknown);
    }
}

/// An attempt of an item.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct PoolTrial {
    desk: Arc<Desk>,
    /// What the prompt begins with.
    prefix: Option<u64>,
    state: Mutex<State>,
}

/// `None`: it has not begun. A place that nobody takes would stay taken.
type State = Option<Trial>;

impl PoolTrial {
    pub fn new(desk: Arc<Desk>, prefix: Option<u64>) -> Self {
        Self { desk, prefix, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What Python reads: whom to ask, how many seconds to wait, or what the end is.
    fn step(&self, py: Python<'_>, next: Next) -> PyResult<Py<PyAny>> {
        match next {
            Next::At(place) => PoolPlace::new(&self.desk, place).into_py_any(py),
            Next::Wait(until) => until.saturating_duration_since(Instant::now()).as_secs_f64().into_py_any(py),
            Next::Later => "later".into_py_any(py),
            Next::Nowhere => "nowhere".into_py_any(py),
        }
    }
}

#[pymethods]
impl PoolTrial {
    /// What to do first, and after a wait.
    fn next(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let now = Instant::now();
        let mut state = self.state();
        let next = match &mut *state {
            Some(trial) => trial.retry(&self.desk.pool, now),
            None => {
                let (trial, next) = Trial::begin(&self.desk.pool, self.prefix, now);
                *state = Some(trial);
                next
            }
        };
        drop(state);
        self.step(py, next)
    }

    /// What to do after a failure.
    fn after(&self, py: Python<'_>, place: &PoolPlace) -> PyResult<Py<PyAny>> {
        let failed = *place.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let (ending, found) = failed.unwrap_or((Ending::Cancelled, None));
        let pool = &self.desk.pool;
        let next = self.state().as_mut().map(|trial| trial.failed(pool, place.member, ending, found, Instant::now()));
        self.step(py, next.unwrap_or(Next::Nowhere))
    }

    /// Whether a doubtful answer of this member can be made better.
    fn may_escalate(&self, place: &PoolPlace) -> bool {
        self.state().as_ref().is_some_and(|trial| trial.may_escalate(&self.desk.pool, place.member))
    }

    /// What to do with a doubtful answer.
    fn doubtful(&self, py: Python<'_>, place: &PoolPlace) -> PyResult<Py<PyAny>> {
        let pool = &self.desk.pool;
        let next = self.state().as_mut().map(|trial| trial.doubtful(pool, place.member, Instant::now()));
        self.step(py, next.unwrap_or(Next::Nowhere))
    }

    /// Why the one who is asked is not a member.
    #[getter]
    fn reason(&self) -> Option<&'static str> {
        self.state().as_ref()?.reason().map(Reason::name)
    }

    /// After how many seconds a second request may be sent; `None`: never.
    fn hedges_after(&self) -> Option<f64> {
        let is_of_run = self.state().as_ref().is_some_and(Trial::is_of_run);
        if is_of_run { self.desk.pool.hedges_after().map(|after| after.as_secs_f64()) } else { None }
    }

    /// A second place beside one that takes long, if there may be one now.
    fn hedge(&self, place: &PoolPlace) -> Option<PoolPlace> {
        let found = self.state().as_mut()?.hedge(&self.desk.pool, place.member, Instant::now())?;
        Some(PoolPlace::new(&self.desk, found))
    }
}
