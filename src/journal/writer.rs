//! A thread that writes what others hand it: all that has come together in one group.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::JournalError;
use super::gate;
use super::options::SYNC_INTERVAL;

/// A file that groups of entries are added to.
pub trait Backend: Send {
    /// What is added.
    type Entry: Send + 'static;

    /// Adds a group, wholly or (with an error) not at all; when it returns the group is as safe as was requested.
    ///
    /// # Errors
    /// When it cannot be written. Nothing more is added then.
    fn append(&mut self, group: &mut Vec<Self::Entry>) -> Result<(), JournalError>;

    /// Brings what was added to the disk.
    ///
    /// # Errors
    /// When the disk fails.
    fn sync(&mut self) -> Result<(), JournalError>;

    /// Whether a fork must not happen while it works: see [`gate`].
    fn stops_forks(&self) -> bool {
        true
    }

    /// The last thing that is called.
    ///
    /// # Errors
    /// When the disk fails.
    fn close(&mut self) -> Result<(), JournalError> {
        self.sync()
    }
}

/// What the thread has to say.
pub enum News {
    /// So many of the entries that were handed over are written.
    Written(u64),
    /// Writing has failed, and will not be tried again.
    Failed(String),
}

/// A pause between groups, so that those that come one by one are not written one by one.
const PAUSE: Duration = Duration::from_millis(1);
/// A group of this size waits for nothing.
const FULL_GROUP: usize = 128;

struct State<E> {
    waiting: Vec<E>,
    handed: u64,
    written: u64,
    failure: Option<String>,
    closing: bool,
    /// Whether somebody waits for everything to be written: no pauses then.
    hurry: bool,
    over: bool,
}

struct Shared<E> {
    state: Mutex<State<E>>,
    /// For the thread: there is something to do.
    work: Condvar,
    /// For others: something is done.
    done: Condvar,
}

impl<E> Shared<E> {
    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands entries to the thread.
pub struct Writer<E> {
    shared: Arc<Shared<E>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<E: Send + 'static> Writer<E> {
    /// Begins a thread. `tell` is called by it, and must be quick.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn begin(backend: Box<dyn Backend<Entry = E>>, tell: impl Fn(News) + Send + 'static) -> std::io::Result<Self> {
        let state = State {
            waiting: Vec::new(),
            handed: 0,
            written: 0,
            failure: None,
            closing: false,
            hurry: false,
            over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new() });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("batch-llm journal".to_owned()).spawn(move || {
            let mut backend = backend;
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&own, &mut *backend, &tell)));
            {
                // Closing works with SQLite too, however the thread ends.
                let _passed = gate::pass();
                drop(backend);
            }
            let problem = match outcome {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the thread that writes the file panicked, which is a bug in batch-llm".to_owned()),
            };
            {
                let mut state = own.state();
                state.over = true;
                state.waiting.clear();
                state.failure.clone_from(&problem);
            }
            own.done.notify_all();
            if let Some(problem) = problem {
                tell(News::Failed(problem));
            }
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hands over an entry. Returns how many that makes.
    ///
    /// # Errors
    /// When writing has failed before, or the writer is closed.
    pub fn append(&self, entry: E) -> Result<u64, JournalError> {
        let mut state = self.shared.state();
        if let Some(failure) = &state.failure {
            return Err(JournalError::Failed(failure.clone()));
        }
        if state.closing {
            return Err(JournalError::Failed("the file is closed".to_owned()));
        }
        state.waiting.push(entry);
        state.handed += 1;
        let handed = state.handed;
        // The thread looks again by itself after its pause; a full group, and the first one, wake it.
        let tell = state.waiting.len() == 1 || state.waiting.len() == FULL_GROUP;
        drop(state);
        if tell {
            self.shared.work.notify_one();
        }
        Ok(handed)
    }

    /// How many entries are written.
    pub fn written(&self) -> u64 {
        self.shared.state().written
    }

    /// Waits until everything handed over is written, or cannot be.
    pub fn flush(&self) {
        let mut state = self.shared.state();
        let wanted = state.handed;
        state.hurry = true;
        self.shared.work.notify_one();
        while state.written < wanted && !state.over {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.hurry = false;
    }

    /// Writes everything, closes the file and ends the thread. Idempotent.
    ///
    /// # Errors
    /// What writing has failed with.
    pub fn close(&self) -> Result<(), JournalError> {
        self.shared.state().closing = true;
        self.shared.work.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic in it was caught there.
            let _ = thread.join();
        }
        match &self.shared.state().failure {
            Some(failure) => Err(JournalError::Failed(failure.clone())),
            None => Ok(()),
        }
    }

    /// Forgets the thread: after a fork the child has none.
    pub fn abandon(&self) {
        if let Ok(mut thread) = self.thread.try_lock() {
            std::mem::forget(thread.take());
        }
    }
}

impl<E> Drop for Writer<E> {
    fn drop(&mut self) {
        // Whoever wants to know that everything is written has called `close`. Here nothing is waited for.
        if let Ok(mut state) = self.shared.state.try_lock() {
            state.closing = true;
            self.shared.work.notify_one();
        }
    }
}

/// What the thread does.
fn work<E: Send + 'static>(
    shared: &Shared<E>,
    backend: &mut dyn Backend<Entry = E>,
    tell: &impl Fn(News),
) -> Result<(), JournalError> {
    let mut group = Vec::new();
    let mut last_group = Instant::now();
    // When what is written but not on the disk yet is due.
    let mut sync_at: Option<Instant> = None;
    let pass = backend.stops_forks().then_some(gate::pass as fn() -> _);
    loop {
        let closing = {
            let mut state = shared.state();
            loop {
                let now = Instant::now();
                let ready = !state.waiting.is_empty();
                let pause = PAUSE.saturating_sub(now - last_group);
                if state.closing || (ready && (state.hurry || state.waiting.len() >= FULL_GROUP || pause.is_zero())) {
                    break;
                }
                let until_sync = sync_at.map(|at| at.saturating_duration_since(now));
                if until_sync.is_some_and(|left| left.is_zero()) {
                    break;
                }
                let wait = match (ready.then_some(pause), until_sync) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                state = match wait {
                    Some(wait) => shared.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                    None => shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
            }
            std::mem::swap(&mut group, &mut state.waiting);
            state.closing
        };
        if !group.is_empty() {
            let count = group.len() as u64;
            let passed = pass.map(|pass| pass());
            backend.append(&mut group)?;
            drop(passed);
            group.clear();
            last_group = Instant::now();
            let written = {
                let mut state = shared.state();
                state.written += count;
                state.written
            };
            shared.done.notify_all();
            tell(News::Written(written));
            sync_at = sync_at.or(Some(last_group + SYNC_INTERVAL));
            if closing {
                continue; // something may have come meanwhile
            }
        }
        if closing {
            let _passed = pass.map(|pass| pass());
            return backend.close();
        }
        if sync_at.is_some_and(|at| at <= Instant::now()) {
            let passed = pass.map(|pass| pass());
            backend.sync()?;
            drop(passed);
            sync_at = None;
        }
    }
}
