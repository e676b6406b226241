//! Messages for the event loop as Python takes them. Their twin is `python/batch_llm/_run/messages.py`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::convert;
use super::errors::provider_error;
use super::timing::Timing;
use crate::dispatch::mailbox::Message;
use crate::engine::commands::{Limit, StartedAttempt};
use crate::engine::outage::Sign;
use crate::engine::{Command, Failure, Rejection, seconds};

/// The codes of messages. A test compares them with `_run/messages.py`, as it does those below.
mod code {
    pub const START: u8 = 0;
    pub const ANSWERED: u8 = 1;
    pub const FAILED: u8 = 2;
    pub const RESUME: u8 = 3;
    pub const TIMED_OUT: u8 = 4;
    pub const ABANDON: u8 = 5;
    pub const ASK_COOLDOWN: u8 = 6;
    pub const ASK_SLOW_START: u8 = 7;
    pub const COOLDOWN_ENDED: u8 = 8;
    pub const ROOM: u8 = 9;
    pub const DRAINED: u8 = 10;
    pub const BROKEN: u8 = 11;
    pub const REFUSE: u8 = 12;
    pub const REFUSE_FRESH: u8 = 13;
    pub const ESTIMATE: u8 = 14;
    pub const STOPPED: u8 = 15;
    pub const WRITTEN: u8 = 16;
    pub const UNWRITTEN: u8 = 17;
    pub const GIVE_UP: u8 = 18;
    pub const OUTAGE_BEGAN: u8 = 19;
    pub const OUTAGE_ENDED: u8 = 20;
    pub const STANDSTILL: u8 = 21;
    pub const BOARD: u8 = 22;
    pub const DEFERRED: u8 = 23;
    pub const AGAIN: u8 = 24;
}

/// How an attempt failed.
mod failed {
    pub const PERMANENT: u8 = 0;
    pub const RETRY_WITH_BACKOFF: u8 = 1;
    pub const RETRY_AT_ONCE: u8 = 2;
    pub const RATE_LIMIT: u8 = 3;
    pub const OVERLOADED: u8 = 4;
    pub const CUT: u8 = 5;
}

/// What that says about whether the provider is there.
mod shows {
    pub const NOTHING: u8 = 0;
    pub const ALIVE: u8 = 1;
    pub const AWAY: u8 = 2;
    pub const UNREACHABLE: u8 = 3;
}

/// How an attempt failed, by its code.
///
/// # Errors
/// `ValueError`: there is no such code.
pub fn failure(kind: u8, at_least: f64, has_retry_after: bool) -> PyResult<Failure> {
    let at_least = seconds(at_least);
    Ok(match kind {
        failed::PERMANENT => Failure::Permanent,
        failed::RETRY_WITH_BACKOFF => Failure::Retryable { backoff: true, at_least, overload: false },
        failed::RETRY_AT_ONCE => Failure::Retryable { backoff: false, at_least, overload: false },
        failed::RATE_LIMIT => Failure::RateLimit { at_least, has_retry_after },
        failed::OVERLOADED => Failure::Retryable { backoff: true, at_least, overload: true },
        failed::CUT => Failure::Interrupted,
        kind => return Err(PyValueError::new_err(format!("no kind of failure has the code {kind}"))),
    })
}

/// What that says about whether the provider is there, by its code.
///
/// # Errors
/// `ValueError`: there is no such code.
pub fn sign(code: u8) -> PyResult<Sign> {
    Ok(match code {
        shows::NOTHING => Sign::Nothing,
        shows::ALIVE => Sign::Alive,
        shows::AWAY => Sign::Away,
        shows::UNREACHABLE => Sign::Unreachable,
        code => return Err(PyValueError::new_err(format!("no sign has the code {code}"))),
    })
}

/// Whose time is over: the categories of `errors.py`; an attempt's own is no category of its own.
fn limit_name(limit: Limit) -> Option<&'static str> {
    match limit {
        Limit::Attempt => None,
        Limit::Item => Some(ITEM_DEADLINE),
        Limit::Run(stop) => Some(stop.name()),
        Limit::Cancelled => Some(CANCELLED),
    }
}

const CANCELLED: &str = "cancelled";
const ITEM_DEADLINE: &str = "framework_total_item_timeout";

/// Why an item is not sent: a category, and what there is to say about it.
pub fn rejection_parts(rejection: Rejection) -> (&'static str, String) {
    match rejection {
        Rejection::TooLarge(problem) => ("token_estimate_exceeds_limit", problem.to_string()),
        Rejection::NoEstimate => ("token_estimation_error", String::new()),
        Rejection::ItemDeadline => (ITEM_DEADLINE, String::new()),
        Rejection::Stopped(stop) => (stop.name(), String::new()),
        Rejection::Cancelled => (CANCELLED, String::new()),
    }
}

/// A message as Python takes it: `(code, item, attempt, value)`; what is in the last two depends on the code. `None`:
/// it is none for Python.
pub fn read<'py>(py: Python<'py>, message: Message) -> PyResult<Option<Bound<'py, PyAny>>> {
    let tuple = match message {
        // The last two stay with the dispatcher.
        Message::Done(_) | Message::Command(Command::Recall | Command::TakesBack) => return Ok(None),
        Message::Deferred(item) => (code::DEFERRED, item, 0, 0).into_pyobject(py)?,
        Message::Again(item) => (code::AGAIN, item, 0, 0).into_pyobject(py)?,
        Message::Command(Command::Start { item, attempt, worker, waits, at, .. }) => {
            (code::START, item, attempt, Timing::of(StartedAttempt { worker, waits, at })).into_pyobject(py)?
        }
        Message::Answered { item, attempt, outcome } => {
            let (code, value) = match &*outcome {
                Ok(reply) => (code::ANSWERED, convert::reply(py, reply)?),
                Err(error) => (code::FAILED, provider_error(py, error)?),
            };
            (code, item, attempt, value).into_pyobject(py)?
        }
        Message::Command(Command::Resume { item }) => (code::RESUME, item, 0, 0).into_pyobject(py)?,
        Message::Command(Command::TimedOut { item, attempt, limit }) => {
            (code::TIMED_OUT, item, attempt, limit_name(limit)).into_pyobject(py)?
        }
        Message::Command(Command::Reject { item, rejection }) => {
            (code::REFUSE, item, 0, rejection_parts(rejection)).into_pyobject(py)?
        }
        Message::Command(Command::RejectFresh { items, rejection }) => {
            (code::REFUSE_FRESH, items.start, items.end - items.start, rejection_parts(rejection)).into_pyobject(py)?
        }
        Message::Command(Command::Estimate { items }) => (code::ESTIMATE, 0, 0, items).into_pyobject(py)?,
        Message::Command(Command::Stopped { stop }) => (code::STOPPED, 0, 0, stop.name()).into_pyobject(py)?,
        Message::Command(Command::Abandon { item, attempt }) => (code::ABANDON, item, attempt, 0).into_pyobject(py)?,
        Message::Command(Command::AskCooldown { queue, worker, consecutive, has_retry_after }) => {
            (code::ASK_COOLDOWN, worker, consecutive, (queue, has_retry_after)).into_pyobject(py)?
        }
        Message::Command(Command::AskSlowStart { queue, from }) => {
            (code::ASK_SLOW_START, from, queue, 0).into_pyobject(py)?
        }
        Message::Command(Command::CooldownEnded { queue, lasted }) => {
            (code::COOLDOWN_ENDED, 0, queue, lasted.as_secs_f64()).into_pyobject(py)?
        }
        Message::Command(Command::GiveUp { item }) => (code::GIVE_UP, item, 0, 0).into_pyobject(py)?,
        Message::Command(Command::OutageBegan { queue, since, patience }) => {
            let times = (since.as_secs_f64(), patience.as_secs_f64());
            (code::OUTAGE_BEGAN, 0, queue, times).into_pyobject(py)?
        }
        Message::Command(Command::OutageEnded { queue, lasted }) => {
            (code::OUTAGE_ENDED, 0, queue, lasted.as_secs_f64()).into_pyobject(py)?
        }
        Message::Command(Command::Standstill { bound, left }) => {
            let left = left.map(|left| left.as_secs_f64());
            (code::STANDSTILL, 0, 0, (bound.name(), left)).into_pyobject(py)?
        }
        Message::Command(Command::Room) => (code::ROOM, 0, 0, 0).into_pyobject(py)?,
        Message::Command(Command::Drained) => (code::DRAINED, 0, 0, 0).into_pyobject(py)?,
        Message::Written(count) => (code::WRITTEN, 0, 0, count).into_pyobject(py)?,
        Message::Unwritten(problem) => (code::UNWRITTEN, 0, 0, problem).into_pyobject(py)?,
        Message::Board(problem) => (code::BOARD, 0, 0, problem).into_pyobject(py)?,
        Message::Broken(text) => (code::BROKEN, 0, 0, text).into_pyobject(py)?,
    };
    Ok(Some(tuple.into_any()))
}
