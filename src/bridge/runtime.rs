//! The tokio runtime of this process, and the answer to `fork`.
//!
//! A forked child has none of its parent's threads: a runtime made before the fork would accept work and never do
//! it. So the runtime remembers its process, a child gets one of its own, and handles from before refuse to work.
//! Processes are told apart by a counter that Python's own fork hook raises: asking the operating system for the
//! process id costs a tenth of a microsecond at every crossing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{ContextExt, Runtime as AsyncRuntime};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task;

use super::errors::BridgeError;
use crate::journal::gate;

/// How many forks lie between the first process and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Called by Python before each fork.
#[pyfunction]
pub fn before_fork() {
    gate::close();
}

/// Called by Python in the parent after each fork.
#[pyfunction]
pub fn after_fork_in_parent() {
    gate::open();
}

/// Called by Python in each forked child.
#[pyfunction]
pub fn after_fork_in_child() {
    gate::open();
    FORKS.fetch_add(1, Ordering::Relaxed);
    ATTACHING.store(0, Ordering::Release); // those of the parent
}

/// Keeps an object for ever. A forked child does so with an event loop of its parent: if the loop went, so would its
/// tasks, with words about what they had still to do, and with changes to descriptors that the parent uses.
#[pyfunction]
pub fn leave_behind(object: Py<PyAny>) {
    std::mem::forget(object);
}

struct OfProcess {
    process: Process,
    // Leaked on purpose: ending a runtime waits for its threads, which neither interpreter exit nor a fork allows.
    runtime: &'static Runtime,
}

static CURRENT: ArcSwapOption<OfProcess> = ArcSwapOption::const_empty();

/// This process's runtime, made on first use.
///
/// # Errors
/// When the operating system gives no threads.
pub fn runtime() -> Result<&'static Runtime, BridgeError> {
    let process = Process::current();
    loop {
        let current = CURRENT.load_full();
        if let Some(current) = current.as_ref().filter(|current| current.process == process) {
            return Ok(current.runtime);
        }
        let mut builder = Builder::new_multi_thread();
        if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
            builder.worker_threads(workers());
        }
        let runtime = builder.thread_name("batch-llm").enable_all().build()?;
        let fresh = Arc::new(OfProcess { process, runtime: Box::leak(Box::new(runtime)) });
        // Two threads may get here at once: one runtime wins, the other idles without harm.
        CURRENT.compare_and_swap(&current, Some(fresh));
    }
}

/// How many threads do network work: a core is left to the event loop's thread, which on two cores is worth a fifth of
/// all requests. More than eight would wait for that one thread.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).clamp(1, 8))
}

/// The process something was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(u32);

impl Process {
    /// This one.
    pub fn current() -> Self {
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// # Errors
    /// [`BridgeError::Forked`] in any other process.
    pub fn check(self) -> Result<(), BridgeError> {
        if self == Self::current() { Ok(()) } else { Err(BridgeError::Forked) }
    }
}

/// Tasks of pyo3-async-runtimes, and calls of [`attached`]: they alone attach to the interpreter from the runtime's
/// threads. A thread that does so
/// while the interpreter ends is ended by Python in the middle of Rust's frames, which aborts the process.
static ATTACHING: AtomicUsize = AtomicUsize::new(0);
/// Tells them that the interpreter is about to end.
static EXIT: Notify = Notify::const_new();
/// Whether it is.
static ENDS: AtomicBool = AtomicBool::new(false);
/// How long the interpreter's end waits for them.
const LONGEST_EXIT: Duration = Duration::from_secs(2);

/// Counts a task for as long as it lives.
struct Attaching;

impl Attaching {
    fn new() -> Self {
        ATTACHING.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        ATTACHING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Called by Python before the interpreter ends: whatever may attach to it ends first.
#[pyfunction]
pub fn before_exit(py: Python<'_>) {
    py.detach(|| {
        let begun = Instant::now();
        ENDS.store(true, Ordering::SeqCst);
        while ATTACHING.load(Ordering::SeqCst) > 0 && begun.elapsed() < LONGEST_EXIT {
            EXIT.notify_waiters();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Does something attached to the interpreter; `None`: that is about to end.
pub fn attached<T>(work: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _attaching = Attaching::new();
    if ENDS.load(Ordering::SeqCst) {
        return None;
    }
    Python::try_attach(work)
}

/// Lets pyo3-async-runtimes use the runtime above in place of its own, which a fork would break.
pub struct Tokio;

tokio::task_local! {
    static LOCALS: TaskLocals;
}

impl AsyncRuntime for Tokio {
    type JoinError = task::JoinError;
    type JoinHandle = Pin<Box<dyn Future<Output = Result<(), task::JoinError>> + Send>>;

    fn spawn<F: Future<Output = ()> + Send + 'static>(future: F) -> Self::JoinHandle {
        let attaching = Attaching::new();
        let until_exit = async move {
            let _attaching = attaching;
            tokio::select! { () = EXIT.notified() => {}, () = future => {} }
        };
        match runtime() {
            Ok(runtime) => Box::pin(runtime.spawn(until_exit)),
            // Whoever calls through here has made the runtime already.
            Err(_) => Box::pin(std::future::pending()),
        }
    }

    fn spawn_blocking<F: FnOnce() + Send + 'static>(function: F) -> Self::JoinHandle {
        let attaching = Attaching::new();
        let counted = move || {
            let _attaching = attaching;
            function();
        };
        match runtime() {
            Ok(runtime) => Box::pin(runtime.spawn_blocking(counted)),
            Err(_) => Box::pin(std::future::pending()),
        }
    }
}

impl ContextExt for Tokio {
    fn scope<F, R>(locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(LOCALS.scope(locals, future))
    }

    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS.try_with(Clone::clone).ok()
    }
}

/// An awaitable for the running loop that resolves with what `future` gives.
///
/// # Errors
/// Without a running loop.
pub fn awaitable<'py, F, T>(py: Python<'py>, future: F) -> PyResult<Bound<'py, PyAny>>
where
    F: Future<Output = PyResult<T>> + Send + 'static,
    T: for<'a> IntoPyObject<'a> + Send + 'static,
{
    runtime()?;
    pyo3_async_runtimes::generic::future_into_py::<Tokio, _, T>(py, future)
}
