//! Boards of shared limits as Python has them: a file, in memory, behind a server, or an object of Python's own.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use rustc_hash::FxHashMap;
use secrecy::SecretString;

use super::errors::BridgeError;
use super::runtime::{Process, attached};
use crate::sharing::client::TcpBoard;
use crate::sharing::file::FileBoard;
use crate::sharing::memory::MemoryBoard;
use crate::sharing::server::Server;
use crate::sharing::table::Table;
use crate::sharing::{Board, Demand, Report, Share, Verdict};

/// A demand, read from a Python object with these attributes.
#[derive(FromPyObject)]
pub struct PyDemand {
    part: Option<f64>,
    pace: Option<f64>,
    refused: u32,
    held: f64,
}

impl From<PyDemand> for Demand {
    fn from(PyDemand { part, pace, refused, held }: PyDemand) -> Self {
        Self { part, held, pace, refused }
    }
}

/// A share, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyShare {
    part: f64,
    is_shared: bool,
    is_new: bool,
    pace: Option<f64>,
    refused: u32,
}

impl From<PyShare> for Share {
    fn from(PyShare { part, is_shared, is_new, pace, refused }: PyShare) -> Self {
        // Other boards may calculate as they like, but not with what is no part.
        let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
        let pace = pace.filter(|pace| pace.is_finite() && *pace > 0.0);
        Self { part, is_shared, is_new, pace, refused }
    }
}

/// A report on a job, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyReport {
    counters: BTreeMap<String, f64>,
    spent: f64,
    reserved: f64,
    wanted: f64,
    least: f64,
    max_cost: Option<f64>,
    timeout: Option<f64>,
    stop: Option<String>,
}

impl From<PyReport> for Report {
    fn from(report: PyReport) -> Self {
        let PyReport { counters, spent, reserved, wanted, least, max_cost, timeout, stop } = report;
        Self { counters, spent, reserved, wanted, least, max_cost, timeout, stop }
    }
}

/// A verdict, read from a Python object with these attributes.
#[derive(FromPyObject)]
struct PyVerdict {
    allowance: Option<f64>,
    is_final: bool,
    stop: Option<String>,
    left: Option<f64>,
    totals: BTreeMap<String, f64>,
}

impl From<PyVerdict> for Verdict {
    fn from(PyVerdict { allowance, is_final, stop, left, totals }: PyVerdict) -> Self {
        Self { allowance, is_final, stop, left, totals }
    }
}

fn report_object<'py>(py: Python<'py>, report: Report) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "batch_llm._boards", "JobReport")?;
    let Report { counters, spent, reserved, wanted, least, max_cost, timeout, stop } = report;
    class.call1((counters, spent, reserved, wanted, least, max_cost, timeout, stop))
}

fn verdict_object(py: Python<'_>, verdict: Verdict) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "batch_llm._boards", "JobVerdict")?;
    let Verdict { allowance, is_final, stop, left, totals } = verdict;
    class.call1((allowance, is_final, stop, left, totals))
}

fn demand_object<'py>(py: Python<'py>, demand: &Demand) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "batch_llm._boards", "Demand")?;
    class.call1((demand.part, demand.pace, demand.refused, demand.held))
}

fn share_object<'py>(py: Python<'py>, share: &Share) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "batch_llm._boards", "Share")?;
    class.call1((share.part, share.is_shared, share.is_new, share.pace, share.refused))
}

/// A board of shared limits.
#[pyclass(frozen, module = "batch_llm._core", name = "Board")]
pub struct PyBoard {
    process: Process,
    board: Arc<dyn Board>,
}

impl PyBoard {
    fn new(board: Arc<dyn Board>) -> Self {
        Self { process: Process::current(), board }
    }

    /// The board, in the process that it was made in.
    pub fn board(&self) -> Result<Arc<dyn Board>, BridgeError> {
        self.process.check()?;
        Ok(Arc::clone(&self.board))
    }
}

#[pymethods]
impl PyBoard {
    #[staticmethod]
    fn memory() -> Self {
        Self::new(Arc::new(MemoryBoard::default()))
    }

    #[staticmethod]
    fn file(path: PathBuf) -> Self {
        Self::new(Arc::new(FileBoard { path }))
    }

    #[staticmethod]
    fn tcp(host: String, port: u16, token: String) -> Self {
        Self::new(connection(host, port, token))
    }

    #[staticmethod]
    #[pyo3(signature = (board, /))]
    fn object(board: Py<PyAny>) -> Self {
        Self::new(Arc::new(ObjectBoard(board)))
    }

    fn renew<'py>(&self, py: Python<'py>, scope: &str, holder: &str, demand: PyDemand) -> PyResult<Bound<'py, PyAny>> {
        let (board, demand) = (self.board()?, demand.into());
        let share = py.detach(|| board.renew(scope, holder, &demand))?;
        share_object(py, &share)
    }

    fn report<'py>(&self, py: Python<'py>, job: &str, holder: &str, report: PyReport) -> PyResult<Bound<'py, PyAny>> {
        let (board, report) = (self.board()?, report.into());
        let verdict = py.detach(|| board.report(job, holder, report))?;
        verdict_object(py, verdict)
    }

    fn leave(&self, py: Python<'_>, scope: &str, holder: &str) -> PyResult<()> {
        let board = self.board()?;
        Ok(py.detach(|| board.leave(scope, holder))?)
    }
}

/// The connections of this process: one to each server, whoever uses it.
#[derive(Default)]
struct Connections(Mutex<FxHashMap<(String, u16, String), Arc<TcpBoard>>>);

fn connection(host: String, port: u16, token: String) -> Arc<TcpBoard> {
    // Another one in a forked child: a lock of its parent may be held by a thread that it does not have.
    static OF_PROCESS: ArcSwapOption<(Process, Connections)> = ArcSwapOption::const_empty();
    let process = Process::current();
    let present = OF_PROCESS.load_full().filter(|present| present.0 == process).unwrap_or_else(|| {
        let fresh = Arc::new((process, Connections::default()));
        std::mem::forget(OF_PROCESS.swap(Some(Arc::clone(&fresh))));
        fresh
    });
    let mut known = present.1.0.lock().unwrap_or_else(PoisonError::into_inner);
    let board = known
        .entry((host.clone(), port, token.clone()))
        .or_insert_with(|| Arc::new(TcpBoard::new(host, port, SecretString::from(token))));
    Arc::clone(board)
}

/// A board that is an object of Python's.
struct ObjectBoard(Py<PyAny>);

impl ObjectBoard {
    fn call<T>(&self, work: impl FnOnce(Python<'_>, &Bound<'_, PyAny>) -> PyResult<T>) -> io::Result<T> {
        let outcome = attached(|py| work(py, self.0.bind(py)).map_err(|error| io::Error::other(error.to_string())));
        outcome.unwrap_or_else(|| Err(io::Error::other("the interpreter is shutting down")))
    }
}

impl Board for ObjectBoard {
    fn renew(&self, scope: &str, holder: &str, demand: &Demand) -> io::Result<Share> {
        self.call(|py, object| {
            let share = object.call_method1(intern!(py, "renew"), (scope, holder, demand_object(py, demand)?))?;
            Ok(share.extract::<PyShare>()?.into())
        })
    }

    fn report(&self, job: &str, holder: &str, report: Report) -> io::Result<Verdict> {
        self.call(|py, object| {
            let verdict = object.call_method1(intern!(py, "report"), (job, holder, report_object(py, report)?))?;
            Ok(verdict.extract::<PyVerdict>()?.into())
        })
    }

    fn leave(&self, scope: &str, holder: &str) -> io::Result<()> {
        self.call(|py, object| object.call_method1(intern!(py, "leave"), (scope, holder)).map(|_| ()))
    }
}

/// The table of a board with a clock that whoever calls turns: for tests of other boards.
#[pyclass(module = "batch_llm._core")]
#[derive(Default)]
pub struct LimitTable(Table);

#[pymethods]
impl LimitTable {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn renew<'py>(
        &mut self,
        py: Python<'py>,
        scope: &str,
        holder: &str,
        demand: PyDemand,
        now: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        share_object(py, &self.0.renew(scope, holder, &demand.into(), now))
    }

    fn report<'py>(
        &mut self,
        py: Python<'py>,
        job: &str,
        holder: &str,
        report: PyReport,
        now: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        verdict_object(py, self.0.jobs.report(job, holder, report.into(), now))
    }

    fn leave(&mut self, scope: &str, holder: &str) {
        self.0.leave(scope, holder);
    }
}

/// A running server of shared limits.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct LimitServerHandle {
    process: Process,
    // None after a stop, and forgotten in a child process, which must not stop its parent's.
    server: Mutex<Option<Server>>,
    port: u16,
}

#[pymethods]
impl LimitServerHandle {
    #[new]
    fn new(host: &str, port: u16, token: String, board: &PyBoard) -> PyResult<Self> {
        if token.is_empty() {
            return Err(PyRuntimeError::new_err("token must not be empty"));
        }
        let server = Server::start(host, port, SecretString::from(token), board.board()?)?;
        let port = server.address().port();
        Ok(Self { process: Process::current(), server: Mutex::new(Some(server)), port })
    }

    #[getter]
    fn port(&self) -> u16 {
        self.port
    }

    fn stop(&self, py: Python<'_>) {
        if self.process.check().is_err() {
            return;
        }
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(move || drop(server));
    }
}

impl Drop for LimitServerHandle {
    fn drop(&mut self) {
        if self.process.check().is_err() {
            std::mem::forget(self.server.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}
