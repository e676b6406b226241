//! Attempts that no Python has a part in: the way of nearly every item of a native strategy.
//!
//! The event loop's thread stages the questions of the next items. When the engine starts one of them, on whatever
//! thread that happens, its request is sent from there; and when a success needs nothing but to be counted, that is
//! done from the thread of the request, which so starts the next item. The loop hears of it with the result, in
//! batches. Everything else (a first attempt that was not staged, a failure, a time-out, an answer that Python has to
//! look at) goes through the [`Mailbox`]; the loop then adopts the attempt, and goes on with the item as with any
//! other.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::mailbox::{Done, Mailbox, Message};
use crate::engine::commands::StartedAttempt;
use crate::engine::heads::{Head, Readable};
use crate::engine::run::Remote;
use crate::engine::{Command, Executor, ItemIndex, ItemReport, Usage};
use crate::providers::heads;
use crate::providers::listener::Listener;
use crate::providers::{Ask, Provider, ProviderError, Reply, TokenUsage};

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
    /// Ends its request.
    pub request: AbortHandle,
    whole: bool,
}

#[derive(Default)]
struct Table {
    staged: FxHashMap<ItemIndex, Staged>,
    bytes: usize,
    in_flight: FxHashMap<ItemIndex, InFlight>,
}

struct Inner {
    mailbox: Arc<Mailbox>,
    runtime: Handle,
    engine: OnceLock<Remote<Dispatcher>>,
    // Taken inside the engine's lock, never the other way round.
    table: Mutex<Table>,
    /// How many are staged: where none are, nobody takes the lock.
    waiting: AtomicUsize,
}

/// The attempts of one run that no Python has a part in; the executor of its engine.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

impl Dispatcher {
    /// None yet. Everything that is not for it goes into `mailbox`.
    pub fn new(mailbox: Arc<Mailbox>, runtime: Handle) -> Self {
        let (engine, table) = (OnceLock::new(), Mutex::default());
        Self(Arc::new(Inner { mailbox, runtime, engine, table, waiting: AtomicUsize::new(0) }))
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

    /// How many attempts are in flight.
    pub fn in_flight(&self) -> usize {
        self.table().in_flight.len()
    }

    /// Whether an attempt is in flight, or its answer waits to be adopted.
    pub fn is_in_flight(&self, item: ItemIndex) -> bool {
        self.table().in_flight.contains_key(&item)
    }

    /// Takes an attempt over: from now on it is the caller's, and its answer comes through the mailbox. `None`: it has
    /// ended, and was counted, or is none of these.
    pub fn adopt(&self, item: ItemIndex) -> Option<InFlight> {
        self.table().in_flight.remove(&item)
    }

    /// Ends everything, and counts nothing any more. Returns the items whose attempts were in flight.
    pub fn close(&self) -> Vec<ItemIndex> {
        let mut table = self.table();
        let Table { in_flight, .. } = std::mem::take(&mut *table);
        self.0.waiting.store(0, Ordering::Release);
        drop(table);
        in_flight.values().for_each(|attempt| attempt.request.abort());
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
        let Some(Staged { provider, mut ask, whole, is_read_early, .. }) = self.take_staged(&mut table, item) else {
            return false;
        };
        if leads && is_read_early {
            ask.listener.get_or_insert_with(|| self.begin_listener(item));
        }
        let dispatcher = self.clone();
        let request = self.0.runtime.spawn(async move {
            let outcome = answer(provider, ask).await;
            dispatcher.ended(item, outcome);
        });
        let request = request.abort_handle();
        table.in_flight.insert(item, InFlight { started: Instant::now(), start, request, whole });
        true
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
        if table.in_flight.get(&item)?.whole { table.in_flight.remove(&item) } else { None }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executor for Dispatcher {
    fn command(&self, command: Command) {
        match command {
            Command::Start { item, attempt: 1, worker, waits, at, leads }
                if self.launch(item, StartedAttempt { worker, waits, at }, leads) => {}
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
    let heads::Head { key, life, readable, .. } = head;
    let readable = match readable {
        heads::Readable::AtFirstByte => Readable::AtFirstByte,
        heads::Readable::AtEnd => Readable::AtEnd,
    };
    Head { key, life, readable }
}

/// Python has the last word where the model wants tools to be called.
fn calls_no_tool(reply: &Reply) -> bool {
    reply.choices().iter().all(|choice| choice.tool_calls.is_empty())
}

fn report(usage: &TokenUsage) -> ItemReport {
    let TokenUsage { input, output, total, cache_read, cache_write, cache_write_hour, .. } = *usage;
    let usage = Usage { input, output, total, cached: cache_read, cache_write, cache_write_hour };
    ItemReport { success: true, error: None, usage, reported: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Run, Settings};
    use crate::providers::prompt::Prompt;
    use crate::providers::provider::Attempt;
    use crate::providers::reply::{Choice, Output, ToolCall};
    use std::num::NonZeroUsize;
    use std::time::Duration;

    /// Answers with the question; `fail`, `call` and `hang` are orders.
    struct Echo;

    impl Provider for Echo {
        fn attempt(&self, ask: Ask) -> Attempt {
            let Prompt::Text(text) = ask.prompt else { panic!("a text") };
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let tool_calls = match &*text {
                    "fail" => {
                        return Err(ProviderError::Protocol {
                            protocol: "test",
                            problem: "made on purpose".to_owned(),
                            excerpt: String::new(),
                        });
                    }
                    "hang" => return std::future::pending().await,
                    "call" => vec![ToolCall::new(String::new(), String::new(), String::new())],
                    _ => Vec::new(),
                };
                let choice = Choice { text: text.into_string(), tool_calls, ..Choice::default() };
                let usage = TokenUsage { input: 1, output: 2, total: 3, ..TokenUsage::default() };
                Ok(Reply { output: Output::Chat(vec![choice]), usage, ..Reply::default() })
            })
        }
    }

    struct World {
        mailbox: Arc<Mailbox>,
        dispatcher: Dispatcher,
        run: Run<Dispatcher>,
    }

    fn world(workers: usize) -> World {
        let mailbox = Arc::new(Mailbox::new(false).unwrap());
        let dispatcher = Dispatcher::new(Arc::clone(&mailbox), Handle::current());
        let settings = Settings { max_workers: NonZeroUsize::new(workers).unwrap(), ..Settings::default() };
        let run = Run::new(settings, Box::new(|| 0.5), dispatcher.clone(), &Handle::current());
        dispatcher.belongs_to(run.remote());
        World { mailbox, dispatcher, run }
    }

    impl World {
        fn stage(&self, first: ItemIndex, words: &[&str], whole: bool) {
            let ask = |text: &&str| Ask::new(Prompt::Text((*text).to_owned().into()));
            let staged = |text| Staged::new(Arc::new(Echo), ask(text), whole);
            self.dispatcher.stage((first..).zip(words.iter().map(staged)).collect());
        }

        fn accept(&self, count: u64) {
            self.run.tell(|scheduler, now| scheduler.accept(0, 0, count, now)).unwrap();
        }

        /// What the loop gets, in short.
        fn told(&self) -> Vec<String> {
            std::iter::from_fn(|| self.mailbox.take())
                .map(|message| match message {
                    Message::Done(done) => format!("done {} {}", done.item, done.reply.choices()[0].text),
                    Message::Answered { item, outcome, .. } => format!("answered {item} {}", outcome.is_ok()),
                    Message::Command(Command::Start { item, attempt, .. }) => format!("start {item} {attempt}"),
                    Message::Command(Command::Drained) => "drained".to_owned(),
                    _ => "another".to_owned(),
                })
                .collect()
        }

        fn processed(&self) -> u64 {
            self.run.tell(|scheduler, _| scheduler.stats().processed).unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn staged_items_begin_and_end_without_the_loop() {
        let world = world(1);
        world.stage(0, &["a", "b", "c"], true);
        world.accept(3);
        assert_eq!((world.dispatcher.in_flight(), world.dispatcher.room(3)), (1, 1));
        // Nobody takes messages; each success starts the next item all the same.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!((world.processed(), world.dispatcher.in_flight()), (2, 1));
        tokio::time::sleep(Duration::from_millis(1000)).await;
        assert_eq!(world.told(), ["done 0 a", "done 1 b", "done 2 c", "drained"]);
        let tokens = world.run.tell(|scheduler, _| scheduler.stats().usage.total).unwrap();
        assert_eq!((tokens, world.dispatcher.in_flight()), (9, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_staged_is_left_to_the_loop() {
        let world = world(10);
        world.stage(1, &["b"], true);
        world.accept(3);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.told(), ["start 0 1", "start 2 1", "done 1 b"]);
        // One that is staged after its start was decided is forgotten when the loop begins it.
        world.stage(2, &["c"], true);
        world.dispatcher.forget(2..3);
        assert_eq!(world.dispatcher.room(5), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_else_happens_is_adopted() {
        let world = world(10);
        world.stage(0, &["fail", "call", "hang"], true);
        world.stage(3, &["to be parsed"], false);
        world.accept(4);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut told = world.told();
        told.sort();
        assert_eq!(told, ["answered 0 false", "answered 1 true", "answered 3 true"]);
        assert_eq!(world.processed(), 0);
        for item in 0..4 {
            let attempt = world.dispatcher.adopt(item).unwrap();
            assert_eq!(attempt.request.is_finished(), item != 2);
            assert!(world.dispatcher.adopt(item).is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_adopted_attempt_counts_nothing() {
        let world = world(10);
        world.stage(0, &["a"], true);
        world.accept(1);
        assert!(world.dispatcher.adopt(0).is_some());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((world.told(), world.processed()), (vec!["answered 0 true".to_owned()], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_drops_requests_and_names_their_items() {
        let world = world(2);
        world.stage(0, &["a", "b", "c"], true);
        world.accept(3);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut on = world.dispatcher.close();
        on.sort_unstable();
        assert_eq!((on, world.dispatcher.in_flight(), world.dispatcher.room(7)), (vec![0, 1], 0, 7));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.processed(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_items_are_staged_no_more() {
        let world = world(1);
        world.stage(0, &["a", "b", "c"], true);
        world.accept(3);
        world.run.tell(|scheduler, now| scheduler.stop(crate::engine::guard::Stop::Aborted, false, now)).unwrap();
        assert_eq!(world.dispatcher.room(3), 3);
    }

    #[test]
    fn what_was_read_is_freed_where_it_was_made() {
        struct Freed(std::sync::mpsc::Sender<std::thread::ThreadId>);
        impl Drop for Freed {
            fn drop(&mut self) {
                let _ = self.0.send(std::thread::current().id());
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let dispatcher = Dispatcher::new(Arc::new(Mailbox::new(false).unwrap()), runtime.handle().clone());
        for count in [WORTH_A_TASK - 1, WORTH_A_TASK, 64] {
            let (freed, seen) = std::sync::mpsc::channel();
            dispatcher.discard((0..count).map(|_| Freed(freed.clone())).collect());
            drop(freed);
            let here = seen.iter().filter(|thread| *thread == std::thread::current().id()).count();
            assert_eq!(here, if count < WORTH_A_TASK { count } else { 0 });
        }
    }

    #[test]
    fn long_prompts_are_staged_one_at_a_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dispatcher = Dispatcher::new(Arc::new(Mailbox::new(false).unwrap()), runtime.handle().clone());
        let ask = Ask::new(Prompt::Text("x".repeat(MOST_BYTES).into()));
        dispatcher.stage(vec![(0, Staged::new(Arc::new(Echo), ask, true))]);
        assert_eq!(dispatcher.room(100), 0);
        dispatcher.forget(0..1);
        assert_eq!(dispatcher.room(100), 100);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_ends_at_once_are_each_counted_once() {
        struct AtOnce;
        impl Provider for AtOnce {
            fn attempt(&self, _: Ask) -> Attempt {
                Box::pin(async { Ok(Reply { output: Output::Chat(vec![Choice::default()]), ..Reply::default() }) })
            }
        }
        const ITEMS: u64 = 20_000;
        let world = world(50);
        let ask = || Ask::new(Prompt::Text(String::new().into()));
        let staged = |item| (item, Staged::new(Arc::new(AtOnce), ask(), true));
        world.dispatcher.stage((0..ITEMS).map(staged).collect());
        world.accept(ITEMS);
        let mut seen = vec![0; usize::try_from(ITEMS).unwrap()];
        loop {
            match world.mailbox.take() {
                Some(Message::Done(done)) => seen[usize::try_from(done.item).unwrap()] += 1,
                Some(Message::Command(Command::Drained)) => break,
                Some(_) => panic!("nothing else happens"),
                None => tokio::task::yield_now().await,
            }
        }
        assert!(seen.iter().all(|times| *times == 1));
        assert_eq!((world.processed(), world.dispatcher.in_flight()), (ITEMS, 0));
    }
}
