//! The lines of one strategy: those that wait for their chunk to be sent, and those that wait for replies. The
//! [`provider`](super::provider) brings lines, the [`driver`](super::driver) of each chunk brings replies.
//!
//! Most of those who wait are items of which nothing else is in memory ([`Deferred`]).
//! There may be a million, so what is told to them is told when there is room for it.

use std::sync::{Arc, Mutex, OnceLock};

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::chunk::Filling;
use super::driver::{Driver, Start};
use super::lines::{Answered, EarlierLines, Free, LineOutcome, Place, Waiter};
use super::probing::Probing;
use super::shared::{BatchLoad, Counts, Marks, Shared, blocking, lock};
use super::stalls::Stalls;
use super::watch::Watch;
use super::wire::{self, Finding, Limits, Wire};
use crate::journal::batches::{self, Chunk, Stage};
use crate::journal::error::JournalError;
use crate::journal::record::Key;
use crate::providers::ProviderError;
use crate::providers::call::Batchable;
use crate::providers::deferral::{Deferral, Deferred, Desk};

/// A line that comes back without an answer so often is an error: its batches expire, or lose it.
const MOST_AGAIN: u32 = 5;
/// Items that are told something together.
const TOGETHER: usize = 64;

mod stages;
mod telling;

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// On its way to the provider.
    Sending,
    /// In a batch there.
    Open,
    /// Its results are being fetched.
    Ending,
}

/// What whoever brings a line gets.
pub enum Entered {
    /// What becomes of it comes through this.
    Waits(oneshot::Receiver<LineOutcome>),
    /// What becomes of it is brought to the desk.
    Deferred,
    /// It came back without an answer too often.
    GivenUp,
    /// It does not fit into a batch, and why.
    Unfit(String),
}

/// When batches are made.
pub(super) struct Conditions {
    /// Not before one of their requests was answered by itself, where that is needed.
    pub probing: Probing,
    /// Nor while one of them makes no progress.
    pub stalls: Stalls,
}

/// A chunk on its way.
struct OnItsWay {
    way: Way,
    /// How its batch was when it was last looked at.
    seen: wire::State,
    lines: Vec<Waiter>,
    /// How many of these somebody waits for.
    waiting: usize,
}

impl OnItsWay {
    fn sending(lines: Vec<Waiter>) -> Self {
        let waiting = lines.iter().filter(|waiter| waiter.waits()).count();
        Self { way: Way::Sending, seen: wire::State::Waiting, lines, waiting }
    }

    /// Whether the provider works on its lines, and whether their results are being written or fetched.
    fn stands(&self) -> (bool, bool) {
        let is_writing = self.way == Way::Ending
            || self.way == Way::Open && matches!(self.seen, wire::State::Writing | wire::State::Ended(_));
        (self.way == Way::Open && self.seen != wire::State::Waiting && !is_writing, is_writing)
    }
}

#[derive(Default)]
struct State {
    filling: Option<Filling>,
    /// Who waits for the lines of the chunk that is being filled.
    entering: Vec<Waiter>,
    /// Grows with each line, so that a timer knows whether one has come since.
    entered: u64,
    /// Lines of earlier runs.
    known: EarlierLines,
    chunks: FxHashMap<i64, OnItsWay>,
    stalls: Stalls,
    is_stall_told: bool,
    /// How many wait for lines of these.
    waiting: usize,
    sending: usize,
    /// Lines of chunks that earlier runs have settled, whose replies were passed on.
    taken: Marks,
    /// How often lines that ask this came back without an answer.
    again: FxHashMap<Key, u32>,
    collected: usize,
    /// How many chunks this route has begun.
    begun: usize,
    drivers: Vec<AbortHandle>,
    is_detached: bool,
    /// Chunks in batches of earlier runs that this one has not looked at yet.
    unseen: FxHashSet<i64>,
    /// Chunks whose lines are taken back: their batches are cancelled, or not made.
    leaving: FxHashSet<i64>,
}

/// See the module.
pub struct Route {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Arc<dyn Batchable>,
    pub(super) wire: Box<dyn Wire>,
    pub(super) of: batches::Route,
    /// How batches are looked at, of this route and the others of its account.
    pub(super) watch: Arc<Watch>,
    pub(super) probing: Probing,
    began: Instant,
    state: Mutex<State>,
    /// The ids of batches, by chunk.
    batches: Mutex<FxHashMap<i64, Arc<str>>>,
    /// Something has changed that [`submitted`](Self::submitted) waits for.
    changed: Notify,
    /// Held by whoever makes a batch: one at a time, so that a full queue holds up all.
    pub(super) creating: tokio::sync::Mutex<()>,
    /// Held by whoever passes on replies: one chunk at a time, so that not all have some in memory.
    pub(super) passing: tokio::sync::Mutex<()>,
    /// A batch of ours has ended: there may be room in the provider's queue.
    pub(super) ended: Notify,
    /// Where those are told that are deferred; a lane is for one run, so there is one.
    desk: OnceLock<Arc<dyn Desk>>,
}

impl Route {
    pub(super) fn new(
        shared: Arc<Shared>,
        client: Arc<dyn Batchable>,
        wire: Box<dyn Wire>,
        of: batches::Route,
        Conditions { probing, stalls }: Conditions,
    ) -> Arc<Self> {
        let watch = Arc::clone(lock(&shared.watches).entry(of.account).or_default());
        Arc::new(Self {
            shared,
            client,
            wire,
            of,
            watch,
            probing,
            began: Instant::now(),
            state: Mutex::new(State { stalls, ..State::default() }),
            batches: Mutex::default(),
            changed: Notify::new(),
            creating: tokio::sync::Mutex::new(()),
            passing: tokio::sync::Mutex::new(()),
            ended: Notify::new(),
            desk: OnceLock::new(),
        })
    }

    /// The client whose questions these are.
    pub fn client(&self) -> &Arc<dyn Batchable> {
        &self.client
    }

    /// Goes on with what earlier runs have left.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub(super) fn take_up(self: &Arc<Self>, chunks: Vec<Chunk>) -> Result<(), JournalError> {
        let chunks: FxHashMap<i64, Chunk> =
            chunks.into_iter().filter(|chunk| chunk.route == self.of).map(|chunk| (chunk.id, chunk)).collect();
        lock(&self.batches).extend(chunks.values().filter_map(|chunk| {
            let batch = chunk.batch.as_deref()?;
            Some((chunk.id, Arc::from(batch)))
        }));
        let mut state = lock(&self.state);
        for chunk in chunks.values().filter(|chunk| chunk.stage != Stage::Settled) {
            let lines = usize::try_from(chunk.lines).unwrap_or(usize::MAX);
            let lines = std::iter::repeat_with(Waiter::default).take(lines).collect();
            state.chunks.insert(chunk.id, OnItsWay::sending(lines));
            if chunk.stage == Stage::Open {
                state.unseen.insert(chunk.id);
            }
        }
        self.shared.ledger.each_open_line(|line| {
            if !chunks.contains_key(&line.chunk) {
                return;
            }
            state.known.add(&line);
            let at = state.chunks.get_mut(&line.chunk).and_then(|chunk| chunk.lines.get_mut(line.line as usize));
            if let Some(waiter) = at.filter(|_| line.is_answered) {
                *waiter = Waiter::Stored;
            }
        })?;
        state.known.sort();
        drop(state);
        let mut chunks: Vec<Chunk> = chunks.into_values().filter(|chunk| chunk.stage != Stage::Settled).collect();
        chunks.sort_unstable_by_key(|chunk| chunk.id);
        chunks.into_iter().for_each(|chunk| self.drive(chunk, Start::Found));
        Ok(())
    }

    /// Whether a line that asks this is in a batch, and nobody waits for it.
    pub fn knows(&self, key: Key) -> bool {
        lock(&self.state).find_known(key).is_some()
    }

    /// What those who wait for lines have of batches.
    pub fn load(&self) -> BatchLoad {
        let state = lock(&self.state);
        let waiting = state.entering.len() + state.waiting;
        let leaving = state.leaving.iter().filter_map(|chunk| state.chunks.get(chunk)).map(|chunk| chunk.lines.len());
        let settling = leaving.sum::<usize>().min(waiting);
        BatchLoad { in_batches: waiting - settling, settling }
    }

    /// Whether a line that asks this came back without an answer.
    pub fn came_back(&self, key: Key) -> bool {
        lock(&self.state).again.contains_key(&key)
    }

    /// Adds a line, or finds the one that asks the same. `deferral`: where what becomes of it may be brought later.
    pub fn enter(self: &Arc<Self>, key: Key, body: &[u8], deferral: Option<&Deferral>) -> Entered {
        let (tell, reported) = oneshot::channel();
        let mut state = lock(&self.state);
        if state.is_detached {
            let _ = tell.send(LineOutcome::Detached);
            return Entered::Waits(reported);
        }
        if let Some((place, free)) = state.find_known(key) {
            if free == Free::Open {
                let (waiter, entered) = self.waiter(deferral, tell, reported);
                state.put(place, waiter);
                state.waits_in(place.0, 1);
                return entered;
            }
            state.put(place, Waiter::Gone);
            drop(state);
            self.give_stored(place, tell);
            return Entered::Waits(reported);
        }
        if state.again.get(&key).is_some_and(|times| *times >= MOST_AGAIN) {
            return Entered::GivenUp;
        }
        if let Err(problem) = self.add(&mut state, key, body) {
            return Entered::Unfit(problem);
        }
        // Its line is there, but nobody can answer it before the lock is free.
        let (waiter, entered) = self.waiter(deferral, tell, reported);
        state.entering.push(waiter);
        state.entered += 1;
        if state.filling.as_ref().is_some_and(Filling::is_full) {
            self.send(&mut state);
        } else if state.entering.len() == 1 {
            self.send_later();
        }
        entered
    }

    fn waiter(
        self: &Arc<Self>,
        deferral: Option<&Deferral>,
        tell: oneshot::Sender<LineOutcome>,
        reported: oneshot::Receiver<LineOutcome>,
    ) -> (Waiter, Entered) {
        let deferred = deferral.and_then(|Deferral { desk, item }| {
            let deferred = desk.defer(*item)?;
            if self.desk.set(Arc::clone(desk)).is_ok() {
                self.give_back_at_the_end(Arc::clone(desk));
            }
            Some(deferred)
        });
        match deferred {
            Some(deferred) => (Waiter::Item(deferred), Entered::Deferred),
            None => (Waiter::Attempt(tell), Entered::Waits(reported)),
        }
    }

    /// Gives all items back once their run is over.
    fn give_back_at_the_end(self: &Arc<Self>, desk: Arc<dyn Desk>) {
        let route = Arc::downgrade(self);
        self.shared.runtime.spawn(async move {
            desk.is_over().await;
            let Some(route) = route.upgrade() else { return };
            let all = lock(&route.state).take_items();
            for some in all.chunks(TOGETHER) {
                desk.has_room().await;
                some.iter().for_each(|deferred| desk.give_back(*deferred));
            }
        });
    }

    fn add(self: &Arc<Self>, state: &mut State, key: Key, body: &[u8]) -> Result<(), String> {
        if let Some(why) = self.wire.unfit(body) {
            return Err(format!("{why}; use lane='live' for this request"));
        }
        for _ in 0..2 {
            if state.filling.is_none() {
                // Where size is all to go by, chunks of one run differ in size, so that none is taken for another.
                let size = self.shared.settings.size;
                let is_known_by_size = self.wire.finding() == Finding::Fingerprint;
                let less = if is_known_by_size { state.begun % 50 % (size / 10 + 1) } else { 0 };
                let lines = size.saturating_sub(less).max(1);
                let most = Limits { lines, bytes: self.shared.settings.bytes };
                state.begun += 1;
                let filling = Filling::new(&*self.wire, &self.of.model, most, self.shared.spool())?;
                state.filling = Some(filling);
            }
            let added = state.filling.as_mut().and_then(|filling| filling.add(&*self.wire, key, body));
            if added.is_some() {
                return Ok(());
            }
            if state.entering.is_empty() {
                break;
            }
            self.send(state);
        }
        Err(format!(
            "the request has {} bytes, more than a batch at {} may contain; use lane='live' for it",
            body.len(),
            self.of.provider
        ))
    }

    fn give_stored(&self, (chunk, line): Place, tell: oneshot::Sender<LineOutcome>) {
        let reported = match self.shared.ledger.reply(chunk, line) {
            Ok(Some((status, body))) => {
                self.give((chunk, line));
                let batch = lock(&self.batches).get(&chunk).cloned().unwrap_or_default();
                LineOutcome::Reply(Answered { status, body: body.into(), batch, chunk })
            }
            Ok(None) => LineOutcome::Again,
            Err(error) => LineOutcome::Failed(ProviderError::Request(error.to_string())),
        };
        let _ = tell.send(reported);
    }

    /// A reply is passed on.
    fn give(&self, place: Place) {
        lock(&self.shared.given).add(place);
        lock(&self.state).collected += 1;
    }

    /// Sends the chunk once no line has come for a while.
    fn send_later(self: &Arc<Self>) {
        let route = Arc::downgrade(self);
        let linger = self.shared.settings.linger;
        self.shared.runtime.spawn(async move {
            let mut seen = None;
            loop {
                tokio::time::sleep(linger).await;
                let Some(route) = route.upgrade() else { return };
                let mut state = lock(&route.state);
                if state.entering.is_empty() {
                    return;
                }
                if seen == Some(state.entered) {
                    route.send(&mut state);
                    return;
                }
                seen = Some(state.entered);
            }
        });
    }

    /// Sends the chunk as it is.
    pub fn flush(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        if !state.entering.is_empty() {
            self.send(&mut state);
        }
    }

    fn send(self: &Arc<Self>, state: &mut State) {
        let Some(filling) = state.filling.take() else { return };
        let (sealed, keys) = filling.seal();
        let waiting = std::mem::take(&mut state.entering);
        state.sending += 1;
        let route = Arc::clone(self);
        let sending = self.shared.runtime.spawn(async move {
            let (nonce, bytes) = (sealed.nonce.clone(), sealed.body.size());
            let (ledger, of) = (Arc::clone(&route.shared.ledger), route.of.clone());
            let id = match blocking(move || ledger.plan(&nonce, &of, bytes, &keys)).await {
                Ok(id) => id,
                Err(error) => {
                    lock(&route.state).sending -= 1;
                    route.changed.notify_waiters();
                    let error = ProviderError::Request(error.to_string());
                    return route.tell_all(waiting, || LineOutcome::Failed(error.clone())).await;
                }
            };
            let chunk = Chunk::planned(id, &sealed.nonce, &route.of, sealed.count as u64, bytes);
            let mut state = lock(&route.state);
            state.waiting += waiting.len();
            // Both at once: a chunk that is nowhere for a moment would count as sent.
            state.chunks.insert(id, OnItsWay::sending(waiting));
            state.sending -= 1;
            drop(state);
            route.drive(chunk, Start::Sealed(sealed));
        });
        state.drivers.push(sending.abort_handle());
    }

    fn drive(self: &Arc<Self>, chunk: Chunk, start: Start) {
        let mut state = lock(&self.state);
        if state.is_detached {
            return;
        }
        if let Some(at) = state.chunks.get_mut(&chunk.id).filter(|_| chunk.stage >= Stage::Open) {
            at.way = Way::Open;
        }
        let driver = Driver::new(Arc::clone(self), chunk);
        let driving = self.shared.runtime.spawn(driver.drive(start));
        state.drivers.retain(|driver| !driver.is_finished());
        state.drivers.push(driving.abort_handle());
    }

    /// Lets go of everything.
    pub fn detach(&self) {
        let mut state = lock(&self.state);
        state.is_detached = true;
        let drivers = std::mem::take(&mut state.drivers);
        let chunks: Vec<i64> = state.chunks.keys().copied().collect();
        let mut waiting: Vec<Waiter> = state.entering.drain(..).collect();
        chunks.into_iter().for_each(|chunk| waiting.append(&mut state.take_waiting(chunk)));
        state.filling = None;
        drop(state);
        drivers.iter().for_each(AbortHandle::abort);
        waiting.into_iter().for_each(|waiter| _ = self.tell_one(waiter, LineOutcome::Detached));
        self.changed.notify_waiters();
    }

    /// What there is, in numbers.
    pub fn counts(&self) -> Counts {
        let state = lock(&self.state);
        let lines = |sending: bool| -> usize {
            let chunks = state.chunks.values().filter(|chunk| (chunk.way == Way::Sending) == sending);
            chunks.map(|chunk| chunk.lines.len()).sum()
        };
        Counts {
            filling: state.entering.len(),
            sending: lines(true),
            open: lines(false),
            batches: state.chunks.values().filter(|chunk| chunk.way != Way::Sending).count(),
            collected: state.collected,
            waiting: state.entering.len() + state.waiting,
            running: state.chunks.values().filter(|chunk| chunk.stands().0).map(|chunk| chunk.waiting).sum(),
            writing: state.chunks.values().filter(|chunk| chunk.stands().1).map(|chunk| chunk.waiting).sum(),
        }
    }
}

impl State {
    /// Who waits for a line of a chunk on its way.
    fn at(&mut self, (chunk, line): Place) -> Option<&mut Waiter> {
        self.chunks.get_mut(&chunk)?.lines.get_mut(line as usize)
    }

    /// So many more wait for lines of a chunk.
    fn waits_in(&mut self, chunk: i64, more: usize) {
        self.waiting += more;
        self.chunks.entry(chunk).and_modify(|chunk| chunk.waiting += more);
    }

    fn put(&mut self, place: Place, waiter: Waiter) {
        if let Some(at) = self.at(place) {
            *at = waiter;
        } else {
            self.taken.add(place);
        }
    }

    /// A line of an earlier run that asks this, and has not been taken.
    fn find_known(&mut self, key: Key) -> Option<(Place, Free)> {
        let Self { known, chunks, taken, .. } = self;
        known.find(key, |(chunk, line)| match chunks.get(&chunk).map(|chunk| chunk.lines.get(line as usize)) {
            Some(Some(Waiter::Nobody)) => Free::Open,
            Some(Some(Waiter::Stored)) => Free::Stored,
            Some(_) => Free::No,
            // It is settled: what there is of its lines is in the ledger.
            None if taken.has((chunk, line)) => Free::No,
            None => Free::Stored,
        })
    }

    /// A chunk is settled: what there is of it from now on is in the ledger.
    fn forget(&mut self, chunk: i64) {
        let Some(gone) = self.chunks.remove(&chunk) else { return };
        if self.known.has(chunk) {
            let lines = (0..).zip(&gone.lines).filter(|(_, waiter)| !matches!(waiter, Waiter::Stored));
            lines.for_each(|(line, _)| self.taken.add((chunk, line)));
        }
    }

    fn take_waiting(&mut self, chunk: i64) -> Vec<Waiter> {
        let Some(chunk) = self.chunks.get_mut(&chunk) else { return Vec::new() };
        let waiting: Vec<Waiter> = chunk.lines.iter_mut().filter_map(|waiter| waiter.take(Waiter::Nobody)).collect();
        chunk.waiting -= waiting.len();
        self.waiting -= waiting.len();
        waiting
    }

    /// All items that wait. Their lines stay in their batches.
    fn take_items(&mut self) -> Vec<Deferred> {
        let (chunks, entering) = (self.chunks.values_mut(), &mut self.entering);
        let mut items: Vec<Deferred> = Vec::new();
        let mut take = |waiter: &mut Waiter| match waiter {
            Waiter::Item(deferred) => {
                items.push(*deferred);
                *waiter = Waiter::Nobody;
                1
            }
            _ => 0,
        };
        let mut taken = 0;
        for chunk in chunks {
            let of_chunk: usize = chunk.lines.iter_mut().map(&mut take).sum();
            chunk.waiting -= of_chunk;
            taken += of_chunk;
        }
        entering.iter_mut().for_each(|waiter| _ = take(waiter));
        self.waiting -= taken;
        items.sort_unstable_by_key(|deferred| deferred.item);
        items
    }
}
