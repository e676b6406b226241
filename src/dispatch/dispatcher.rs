//! Attempts that no Python has a part in: the way of nearly every item of a native strategy.
//!
//! The event loop's thread stages the questions of the next items. When the engine starts one of them, on whatever
//! thread that happens, its request is sent from there; and when a success needs nothing but to be counted, that is
//! done from the thread of the request, which so starts the next item. The loop hears of it with the result, in
//! batches. Everything else (a first attempt that was not staged, a failure, a timeout, an answer that Python has to
//! look at) goes through the [`Mailbox`]; the loop then adopts the attempt, and goes on with the item as with any
//! other.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::mailbox::{Done, Mailbox, Message};
use crate::engine::commands::StartedAttempt;
use crate::engine::heads::{Head, Readable};
use crate::engine::run::Remote;
use crate::engine::{Command, Executor, ItemIndex, ItemReport, Usage};
use crate::providers::deferral::Deferral;
use crate::providers::heads;
use crate::providers::listener::Listener;
use crate::providers::{Ask, Provider, ProviderError, Reply, TokenUsage};

mod desk;

/// Most words that are staged, bytes: long prompts are not to be in memory twice.
const MOST_BYTES: usize = 16 << 20;

/// Replies at once that are worth a task to free them. With fewer nobody waits.
const WORTH_A_TASK: usize = 4;

/// A question that may be sent as soon as its item starts.
pub struct Staged {
    /// Who answers it.
    pub provider: Arc<dyn Provider>,
    /// The question.
    pub ask: Ask,
    /// Whether a success is a result as it is, with nothing left to do for its item.
    pub whole: bool,
    /// What it adds to what is in memory, as it was when it was staged.
    bytes: usize,
    /// Whether others may read what it writes into a prompt cache when its reply begins.
    is_read_early: bool,
}

impl Staged {
    /// A question that nobody has asked yet.
    pub fn new(provider: Arc<dyn Provider>, ask: Ask, whole: bool) -> Self {
        Self { provider, bytes: ask.added_bytes(), ask, whole, is_read_early: false }
    }

    /// What it begins with, as the engine has it, where the provider caches that.
    pub fn find_head(&mut self) -> Option<Head> {
        let head = self.provider.head(&self.ask).map(head)?;
        self.is_read_early = head.readable == Readable::AtFirstByte;
        Some(head)
    }

    /// How many bytes it adds to what is in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// An attempt in flight.
pub struct InFlight {
    /// When it began.
    pub started: Instant,
    /// How the engine started it.
    pub start: StartedAttempt,
    /// Ends its request; none for an answer that was brought later.
    pub request: Option<AbortHandle>,
    whole: bool,
    /// Whether it is about to be deferred, or has just come back: it is not counted.
    is_passing: bool,
}

#[derive(Default)]
struct Table {
    staged: FxHashMap<ItemIndex, Staged>,
    bytes: usize,
    in_flight: FxHashMap<ItemIndex, InFlight>,
    /// Of these, how many are not counted.
    passing: usize,
}

impl Table {
    fn add(&mut self, item: ItemIndex, attempt: InFlight) {
        self.passing += usize::from(attempt.is_passing);
        self.in_flight.insert(item, attempt);
    }

    fn take_attempt(&mut self, item: ItemIndex) -> Option<InFlight> {
        let attempt = self.in_flight.remove(&item)?;
        self.passing -= usize::from(attempt.is_passing);
        Some(attempt)
    }
}

struct Inner {
    mailbox: Arc<Mailbox>,
    runtime: Handle,
    engine: OnceLock<Remote<Dispatcher>>,
    // Taken inside the engine's lock, never the other way round.
    table: Mutex<Table>,
    /// How many are staged: where none are, nobody takes the lock.
    waiting: AtomicUsize,
    /// The start that somebody waits for.
    expected: Mutex<Option<Expected>>,
    /// What the times of the engine are counted from.
    began: Instant,
    /// There is room again for answers that are brought.
    room: Notify,
    /// Whether all deferred items are wanted back.
    is_over: watch::Sender<bool>,
    /// Whether nobody waits for anything any more.
    is_closed: AtomicBool,
}

/// A start of which no message is wanted, if it comes at once.
struct Expected {
    item: ItemIndex,
    start: Option<(u32, StartedAttempt)>,
}

/// The attempts of one run that no Python has a part in; the executor of its engine.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

impl Dispatcher {
    /// None yet. Everything that is not for it goes into `mailbox`.
    pub fn new(mailbox: Arc<Mailbox>, runtime: Handle) -> Self {
        let (engine, table) = (OnceLock::new(), Mutex::default());
        let (waiting, expected) = (AtomicUsize::new(0), Mutex::default());
        let (began, room, is_over) = (Instant::now(), Notify::new(), watch::Sender::new(false));
        let is_closed = AtomicBool::new(false);
        Self(Arc::new(Inner { mailbox, runtime, engine, table, waiting, expected, began, room, is_over, is_closed }))
    }

    /// The engine that counts successes; to be called once, before anything starts.
    pub fn belongs_to(&self, engine: Remote<Self>) {
        let _ = self.0.engine.set(engine);
    }

    /// How many more bytes of questions there is room for.
    pub fn room_bytes(&self) -> usize {
        MOST_BYTES.saturating_sub(self.table().bytes)
    }

    /// How many more questions there is room for if `most` may be staged.
    pub fn room(&self, most: usize) -> usize {
        let table = self.table();
        if table.bytes >= MOST_BYTES { 0 } else { most.saturating_sub(table.staged.len()) }
    }

    /// Runs what may start an item, and takes the number of the attempt and its start if it does: for whoever goes on with
    /// the item there and then, before all that waits in the mailbox.
    pub fn taking_start<R>(&self, item: ItemIndex, news: impl FnOnce() -> R) -> (R, Option<(u32, StartedAttempt)>) {
        *self.expected() = Some(Expected { item, start: None });
        let outcome = news();
        (outcome, self.expected().take().and_then(|expected| expected.start))
    }

    fn expected(&self) -> MutexGuard<'_, Option<Expected>> {
        self.0.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a start for whoever expects it; whether anybody does.
    fn is_expected(&self, item: ItemIndex, attempt: u32, start: StartedAttempt) -> bool {
        match &mut *self.expected() {
            Some(expected) if expected.item == item => {
                expected.start = Some((attempt, start));
                true
            }
            _ => false,
        }
    }

    /// Stages questions.
    pub fn stage(&self, questions: Vec<(ItemIndex, Staged)>) {
        let mut table = self.table();
        for (item, staged) in questions {
            table.bytes += staged.bytes;
            table.staged.insert(item, staged);
        }
        self.0.waiting.store(table.staged.len(), Ordering::Release);
    }

    /// Items that will not start by themselves: the loop begins them, or they were rejected.
    pub fn forget(&self, items: std::ops::Range<ItemIndex>) {
        if self.0.waiting.load(Ordering::Acquire) > 0 {
            let mut table = self.table();
            for item in items {
                self.take_staged(&mut table, item);
            }
        }
    }

    /// How many attempts are in flight, those not counted that are about to be deferred or have just come back.
    pub fn in_flight(&self) -> usize {
        let table = self.table();
        table.in_flight.len().saturating_sub(table.passing)
    }

    /// Whether an attempt is in flight, or its answer waits to be adopted.
    pub fn is_in_flight(&self, item: ItemIndex) -> bool {
        self.table().in_flight.contains_key(&item)
    }

    /// Takes an attempt over: from now on it is the caller's, and its answer comes through the mailbox. `None`: it has
    /// ended, and was counted, or is none of these.
    pub fn adopt(&self, item: ItemIndex) -> Option<InFlight> {
        self.table().take_attempt(item)
    }

    /// Ends everything, and counts nothing any more. Returns the items whose attempts were in flight.
    pub fn close(&self) -> Vec<ItemIndex> {
        let mut table = self.table();
        let Table { in_flight, .. } = std::mem::take(&mut *table);
        self.0.waiting.store(0, Ordering::Release);
        drop(table);
        self.0.is_closed.store(true, Ordering::Release);
        self.0.room.notify_waiters();
        in_flight.values().filter_map(|attempt| attempt.request.as_ref()).for_each(AbortHandle::abort);
        in_flight.into_keys().collect()
    }

    /// Frees what has been read, on a thread of those that made it. The loop's thread would free into memory that such a
    /// thread allocates from at the same time: each would wait for the other with nearly every reply (glibc's malloc has
    /// a lock for each thread's memory).
    pub fn discard<T: Send + 'static>(&self, spent: Vec<T>) {
        if spent.len() >= WORTH_A_TASK {
            self.0.runtime.spawn(async move { drop(spent) });
        }
    }

    /// Who tells the engine when the reply to an item's request begins. Such a reply comes as a stream, where the
    /// provider can do that.
    pub fn begin_listener(&self, item: ItemIndex) -> Arc<Listener> {
        let dispatcher = self.clone();
        Arc::new(Listener::of_beginning(move || {
            let Some(engine) = dispatcher.0.engine.get() else { return };
            let begun = || engine.tell(|scheduler, now| scheduler.readable(item, now));
            if std::panic::catch_unwind(AssertUnwindSafe(begun)).is_err() {
                dispatcher.broken("the engine panicked while a reply began");
            }
        }))
    }

    /// Sends what is staged for an item; whether there is anything. `leads`: others wait for its prompt cache.
    fn launch(&self, item: ItemIndex, start: StartedAttempt, leads: bool) -> bool {
        if self.0.waiting.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut table = self.table();
        let Some(staged) = self.take_staged(&mut table, item) else { return false };
        self.send(&mut table, item, staged, start, leads);
        true
    }

    /// Sends a question whose item has started before it was staged.
    pub fn begin(&self, item: ItemIndex, question: Staged, start: StartedAttempt) {
        self.send(&mut self.table(), item, question, start, false);
    }

    fn send(&self, table: &mut Table, item: ItemIndex, question: Staged, start: StartedAttempt, leads: bool) {
        let Staged { provider, mut ask, whole, is_read_early, .. } = question;
        if leads && is_read_early {
            ask.listener.get_or_insert_with(|| self.begin_listener(item));
        }
        let is_passing = provider.defers();
        if is_passing {
            ask.deferral = Some(Deferral { desk: Arc::<Inner>::clone(&self.0), item });
        }
        let dispatcher = self.clone();
        let request = self.0.runtime.spawn(async move {
            let outcome = answer(provider, ask).await;
            dispatcher.ended(item, outcome);
        });
        let request = Some(request.abort_handle());
        table.add(item, InFlight { started: Instant::now(), start, request, whole, is_passing });
    }

    fn take_staged(&self, table: &mut Table, item: ItemIndex) -> Option<Staged> {
        let staged = table.staged.remove(&item)?;
        table.bytes -= staged.bytes;
        self.0.waiting.store(table.staged.len(), Ordering::Release);
        Some(staged)
    }

    fn ended(&self, item: ItemIndex, outcome: Result<Reply, ProviderError>) {
        let left = match outcome {
            Ok(reply) if calls_no_tool(&reply) => self.count(item, reply).map(Ok),
            Err(ProviderError::Deferred) => None,
            other => Some(other),
        };
        if let Some(outcome) = left {
            self.0.mailbox.post(Message::Answered { item, attempt: 1, outcome: Box::new(outcome) });
        }
    }

    /// Counts a success and leaves its result for the loop; gives it back if there is more to do.
    fn count(&self, item: ItemIndex, reply: Reply) -> Option<Reply> {
        let Some(engine) = self.0.engine.get() else { return Some(reply) };
        let mut left = Some(reply);
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            engine.tell(|scheduler, now| {
                let Some(InFlight { started, start, .. }) = self.take_whole(item) else { return };
                let Some(mut reply) = left.take() else { return };
                let (limits, report) = (std::mem::take(&mut reply.limits), report(&reply.usage));
                // First, so that the loop gets the last result before the message that there are no more. Whoever
                // sees it and reads the counters has to wait for this lock.
                let done = Done { item, start, execution: started.elapsed(), reply };
                self.0.mailbox.post(Message::Done(Box::new(done)));
                scheduler.observe(item, &limits, now);
                scheduler.record(item, report, now);
                scheduler.release(item, now);
            })
        }));
        if outcome.is_err() {
            self.broken("the engine panicked while it recorded an answer");
        }
        left
    }

    /// An attempt whose success is a result as it is, if it still is one of these.
    fn take_whole(&self, item: ItemIndex) -> Option<InFlight> {
        let mut table = self.table();
        if table.in_flight.get(&item)?.whole { table.take_attempt(item) } else { None }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table()
    }
}

impl Executor for Dispatcher {
    fn command(&self, command: Command) {
        match command {
            Command::Recall => drop(self.0.is_over.send_replace(true)),
            Command::TakesBack => self.0.room.notify_waiters(),
            Command::Start { item, attempt: 1, worker, waits, at, leads }
                if self.launch(item, StartedAttempt { worker, waits, at }, leads) => {}
            Command::Start { item, attempt, worker, waits, at, .. }
                if self.is_expected(item, attempt, StartedAttempt { worker, waits, at }) => {}
            command => {
                if let Command::RejectFresh { items, .. } = &command {
                    self.forget(items.clone());
                }
                self.0.mailbox.post(Message::Command(command));
            }
        }
    }

    fn broken(&self, message: &str) {
        self.0.mailbox.post(Message::Broken(message.to_owned()));
    }
}

/// One attempt; a panic in it is a failed attempt, not a lost item.
///
/// # Errors
/// As [`Provider::attempt`].
pub async fn answer(provider: Arc<dyn Provider>, ask: Ask) -> Result<Reply, ProviderError> {
    let attempt = AssertUnwindSafe(async move { provider.attempt(ask).await });
    attempt.catch_unwind().await.unwrap_or_else(|_| {
        Err(ProviderError::Protocol {
            protocol: "provider",
            problem: "batch-llm's code for this provider panicked, which is a bug in batch-llm".to_owned(),
            excerpt: String::new(),
        })
    })
}

/// What a request begins with, as the engine has it.
pub fn head(head: heads::Head) -> Head {
    let heads::Head { key, base, life, readable, .. } = head;
    let readable = match readable {
        heads::Readable::AtFirstByte => Readable::AtFirstByte,
        heads::Readable::AtEnd => Readable::AtEnd,
    };
    Head { key, base, life, readable }
}

/// Python has the last word where the model wants tools to be called.
fn calls_no_tool(reply: &Reply) -> bool {
    reply.choices().iter().all(|choice| choice.tool_calls.is_empty())
}

fn report(usage: &TokenUsage) -> ItemReport {
    let TokenUsage { input, output, total, cache_read, cache_write, cache_write_hour, cache_held, .. } = *usage;
    let usage = Usage { input, output, total, cached: cache_read, cache_write, cache_write_hour, cache_held };
    ItemReport { success: true, error: None, usage, reported: true }
}

#[cfg(test)]
mod tests;
