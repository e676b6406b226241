//! One run: the scheduler behind a lock, and a timer on tokio.
//!
//! Whoever has something to report (the event loop's thread, a network task, the timer) takes the lock, calls the
//! scheduler and leaves its commands with the [`Executor`]. So an attempt that ends on the loop's thread gets its
//! successor there and then: no thread is woken for it, and ten workers cost no more per item than two hundred.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, Weak};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::commands::Command;
use super::scheduler::Scheduler;
use super::settings::Settings;
use super::units::UniformSource;

/// Executes what a run decides. The one thing the engine knows of the world above.
pub trait Executor: Send + Sync + 'static {
    /// Takes one command. Called under the run's lock, in the order of the decisions: it must only pass it on.
    fn command(&self, command: Command);

    /// The engine broke (a panic, which is a bug in it); nothing more will come.
    fn broken(&self, message: &str);
}

/// The engine panicked earlier, so that its state cannot be trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine of this run failed earlier")]
pub struct Broken;

struct State {
    scheduler: Scheduler,
    /// What the timer sleeps for.
    armed: Option<Instant>,
}

struct Inner<E> {
    state: Mutex<State>,
    executor: E,
    rearm: Arc<Notify>,
}

/// A run. Dropping it ends its timer.
pub struct Run<E: Executor> {
    inner: Arc<Inner<E>>,
    timer: AbortHandle,
}

impl<E: Executor> Run<E> {
    /// Begins a run whose timer lives on `runtime`.
    pub fn new(settings: Settings, uniform: UniformSource, executor: E, runtime: &Handle) -> Self {
        let _context = runtime.enter();
        let (rearm, woken) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let bell = Arc::clone(&woken);
        let scheduler = Scheduler::new(settings, uniform, Arc::new(move || bell.notify_one()), Instant::now());
        let state = Mutex::new(State { scheduler, armed: None });
        let inner = Arc::new(Inner { state, executor, rearm: Arc::clone(&rearm) });
        let timer = runtime.spawn(keep_time(Arc::downgrade(&inner), rearm, woken)).abort_handle();
        Self { inner, timer }
    }

    /// Tells the scheduler something and carries out what follows from it.
    ///
    /// # Errors
    /// [`Broken`] when the scheduler has panicked before.
    pub fn tell<R>(&self, news: impl FnOnce(&mut Scheduler, Instant) -> R) -> Result<R, Broken> {
        self.inner.tell(news)
    }

    /// A way to tell the run something that does not keep it alive.
    pub fn remote(&self) -> Remote<E> {
        Remote(Arc::downgrade(&self.inner))
    }

    /// Who executes this run.
    pub fn executor(&self) -> &E {
        &self.inner.executor
    }
}

/// Tells a run something, for as long as there is one.
pub struct Remote<E>(Weak<Inner<E>>);

impl<E: Executor> Remote<E> {
    /// As [`Run::tell`].
    ///
    /// # Errors
    /// [`Broken`] when the scheduler has panicked before, or the run is gone.
    pub fn tell<R>(&self, news: impl FnOnce(&mut Scheduler, Instant) -> R) -> Result<R, Broken> {
        self.0.upgrade().ok_or(Broken)?.tell(news)
    }
}

impl<E: Executor> Drop for Run<E> {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

impl<E: Executor> Inner<E> {
    fn tell<R>(&self, news: impl FnOnce(&mut Scheduler, Instant) -> R) -> Result<R, Broken> {
        let mut state = self.state.lock().map_err(|_| Broken)?;
        let now = Instant::now();
        let answer = news(&mut state.scheduler, now);
        state.scheduler.advance(now);
        while let Some(command) = state.scheduler.next_command() {
            self.executor.command(command);
        }
        // Only an earlier deadline needs the timer's attention; for a later one it wakes once and sleeps on.
        let wanted = state.scheduler.wakes_at();
        if wanted.is_some_and(|at| state.armed.is_none_or(|armed| at < armed)) {
            state.armed = wanted;
            self.rearm.notify_one();
        }
        Ok(answer)
    }

    /// What the timer is to sleep for, from now on.
    fn arm(&self) -> Result<Option<Instant>, Broken> {
        let mut state = self.state.lock().map_err(|_| Broken)?;
        state.armed = state.scheduler.wakes_at();
        Ok(state.armed)
    }
}

/// The timer of a run: tells the scheduler when something it waits for is due, or when another run that shares a scope
/// has woken it. Holds no strong reference while it
/// sleeps, or a run that was dropped would stay for its own deadlines.
async fn keep_time<E: Executor>(run: Weak<Inner<E>>, rearm: Arc<Notify>, woken: Arc<Notify>) {
    loop {
        let Some(Ok(armed)) = run.upgrade().map(|inner| inner.arm()) else { return };
        tokio::select! {
            () = rearm.notified() => continue,
            () = woken.notified() => {}
            () = sleep_until(armed) => {}
        }
        let Some(inner) = run.upgrade() else { return };
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| inner.tell(|_, _| ())));
        if !matches!(outcome, Ok(Ok(()))) {
            inner.executor.broken("the engine's timer failed");
            return;
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
