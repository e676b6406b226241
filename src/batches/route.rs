//! The lines of one strategy: those that wait for their chunk to be sent, and those that wait for replies. The
//! [`provider`](super::provider) brings lines, the [`driver`](super::driver) of each chunk brings replies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use super::chunk::Filling;
use super::driver::{Driver, Start};
use super::shared::{Counts, Shared, blocking, lock};
use super::wire::{Limits, Wire};
use crate::journal::batches::{self, Chunk, News, OpenLine, Stage};
use crate::journal::record::Key;
use crate::providers::call::Batchable;
use crate::providers::{ProviderError, TokenUsage};

/// What became of a line.
#[derive(Debug)]
pub enum Told {
    /// Its reply.
    Reply(Answered),
    /// It was not answered, and nothing was paid: it is to be asked again.
    Again,
    /// Its chunk could not be sent.
    Failed(ProviderError),
    /// It does not fit into a batch.
    Unfit(String),
    /// The run lets go of it; it stays in its batch.
    Detached,
}

/// The reply to a line.
#[derive(Debug)]
pub struct Answered {
    /// The HTTP status that the request would have had by itself.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    /// The provider's id of the batch.
    pub batch: Arc<str>,
    /// Its chunk.
    pub chunk: i64,
}

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

/// A line of a chunk.
pub type Place = (i64, u32);

#[derive(Default)]
struct State {
    filling: Option<Filling>,
    /// Who waits for the lines of the chunk that is being filled.
    entering: Vec<oneshot::Sender<Told>>,
    /// Grows with each line, so that a timer knows whether one has come since.
    entered: u64,
    /// Lines of earlier runs that nobody has asked for yet.
    known: FxHashMap<Key, VecDeque<OpenLine>>,
    /// Who waits for which line.
    waiting: FxHashMap<Place, oneshot::Sender<Told>>,
    /// Chunks on their way, how many lines each has, and where it is.
    chunks: FxHashMap<i64, (u64, Way)>,
    sending: usize,
    collected: usize,
    /// How many chunks this route has begun.
    begun: usize,
    drivers: Vec<AbortHandle>,
    is_detached: bool,
    /// Whether it is too late for batches: those that are there end, and no other is made.
    is_over: bool,
}

/// See the module.
pub struct Route {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Arc<dyn Batchable>,
    pub(super) wire: Box<dyn Wire>,
    pub(super) of: batches::Route,
    state: Mutex<State>,
    /// The ids of batches, by chunk.
    batches: Mutex<FxHashMap<i64, Arc<str>>>,
    /// Something has changed that [`submitted`](Self::submitted) waits for.
    changed: Notify,
    /// Held by whoever makes a batch: one at a time, so that a full queue holds up all.
    pub(super) creating: tokio::sync::Mutex<()>,
    /// A batch of ours has ended: there may be room in the provider's queue.
    pub(super) ended: Notify,
}

impl Route {
    pub(super) fn new(
        shared: Arc<Shared>,
        client: Arc<dyn Batchable>,
        wire: Box<dyn Wire>,
        of: batches::Route,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            client,
            wire,
            of,
            state: Mutex::default(),
            batches: Mutex::default(),
            changed: Notify::new(),
            creating: tokio::sync::Mutex::new(()),
            ended: Notify::new(),
        })
    }

    /// The client whose questions these are.
    pub fn client(&self) -> &Arc<dyn Batchable> {
        &self.client
    }

    /// Goes on with what earlier runs have left.
    pub(super) fn take_up(self: &Arc<Self>, chunks: Vec<Chunk>, lines: &[OpenLine]) {
        lock(&self.batches).extend(chunks.iter().filter_map(|chunk| {
            let batch = chunk.batch.as_deref().filter(|_| chunk.route == self.of)?;
            Some((chunk.id, Arc::from(batch)))
        }));
        let ours: FxHashMap<i64, &Chunk> =
            chunks.iter().filter(|chunk| chunk.route == self.of).map(|chunk| (chunk.id, chunk)).collect();
        let mut state = lock(&self.state);
        for line in lines.iter().filter(|line| ours.contains_key(&line.chunk)) {
            state.known.entry(line.request).or_default().push_back(*line);
        }
        drop(state);
        for chunk in chunks.into_iter().filter(|chunk| chunk.route == self.of && chunk.stage != Stage::Settled) {
            self.drive(chunk, Start::Found);
        }
    }

    /// Whether a line that asks this is in a batch, and nobody waits for it.
    pub fn knows(&self, key: Key) -> bool {
        lock(&self.state).known.contains_key(&key)
    }

    /// How many wait for lines.
    pub fn waiting(&self) -> usize {
        let state = lock(&self.state);
        state.entering.len() + state.waiting.len()
    }

    /// How long a cancelled batch may take.
    pub fn settling(&self) -> std::time::Duration {
        self.wire.settling()
    }

    /// Adds a line, or finds the one that asks the same. What becomes of it comes through what is returned.
    pub fn enter(self: &Arc<Self>, key: Key, body: &[u8]) -> oneshot::Receiver<Told> {
        let (tell, told) = oneshot::channel();
        let mut state = lock(&self.state);
        if state.is_detached {
            let _ = tell.send(Told::Detached);
            return told;
        }
        if let Some(line) = state.take_known(key) {
            if line.is_answered {
                drop(state);
                self.give_stored(line, tell);
            } else {
                state.waiting.insert((line.chunk, line.line), tell);
            }
            return told;
        }
        if let Err(error) = self.add(&mut state, key, body) {
            let _ = tell.send(Told::Unfit(error));
            return told;
        }
        state.entering.push(tell);
        state.entered += 1;
        if state.filling.as_ref().is_some_and(Filling::is_full) {
            self.send(&mut state);
        } else if state.entering.len() == 1 {
            self.send_later();
        }
        told
    }

    fn add(self: &Arc<Self>, state: &mut State, key: Key, body: &[u8]) -> Result<(), String> {
        if let Some(why) = self.wire.unfit(body) {
            return Err(format!("{why}; use lane='live' for this request"));
        }
        for _ in 0..2 {
            if state.filling.is_none() {
                // Chunks of one run differ in size, so that none is taken for another where size is all to go by.
                let lines = self.shared.settings.size.saturating_sub(state.begun % 50).max(1);
                let most = Limits { lines, bytes: self.shared.settings.bytes };
                state.begun += 1;
                let filling = Filling::new(&*self.wire, &self.of.model, most)?;
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

    fn give_stored(&self, line: OpenLine, tell: oneshot::Sender<Told>) {
        let told = match self.shared.ledger.reply(line.chunk, line.line) {
            Ok(Some((status, body))) => {
                lock(&self.shared.given).push((line.chunk, line.line));
                lock(&self.state).collected += 1;
                let batch = lock(&self.batches).get(&line.chunk).cloned().unwrap_or_default();
                Told::Reply(Answered { status, body: body.into(), batch, chunk: line.chunk })
            }
            Ok(None) => Told::Again,
            Err(error) => Told::Failed(ProviderError::Request(error.to_string())),
        };
        let _ = tell.send(told);
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
            let (nonce, bytes) = (sealed.nonce.clone(), sealed.body.len() as u64);
            let (ledger, of) = (Arc::clone(&route.shared.ledger), route.of.clone());
            let id = match blocking(move || ledger.plan(&nonce, &of, bytes, &keys)).await {
                Ok(id) => id,
                Err(error) => {
                    lock(&route.state).sending -= 1;
                    route.changed.notify_waiters();
                    let error = ProviderError::Request(error.to_string());
                    waiting.into_iter().for_each(|tell| drop(tell.send(Told::Failed(error.clone()))));
                    return;
                }
            };
            let chunk = Chunk::planned(id, &sealed.nonce, &route.of, sealed.count as u64, bytes);
            let mut state = lock(&route.state);
            for (line, tell) in (0..).zip(waiting) {
                state.waiting.insert((id, line), tell);
            }
            // Both at once: a chunk that is nowhere for a moment would count as sent.
            state.chunks.insert(id, (chunk.lines, Way::Sending));
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
        let way = if chunk.stage >= Stage::Open { Way::Open } else { Way::Sending };
        state.chunks.insert(chunk.id, (chunk.lines, way));
        let driver = Driver::new(Arc::clone(self), chunk);
        let driving = self.shared.runtime.spawn(driver.drive(start));
        state.drivers.retain(|driver| !driver.is_finished());
        state.drivers.push(driving.abort_handle());
    }

    /// What a line has used.
    pub fn spend(&self, chunk: i64, usage: &TokenUsage) {
        let mut spent = lock(&self.shared.spent);
        let used = spent.entry(chunk).or_default();
        used.input += usage.input;
        used.output += usage.output;
        used.cached += usage.cache_read;
    }

    /// Puts nothing more into batches, and has those that are there cancelled; whoever waits for lines that are not
    /// answered is told to ask again.
    pub async fn wind_up(&self) {
        let waiting: Vec<_> = {
            let mut state = lock(&self.state);
            state.is_over = true;
            state.filling = None;
            state.entering.drain(..).collect()
        };
        waiting.into_iter().for_each(|tell| drop(tell.send(Told::Again)));
        // Whoever waits for room in the provider's queue looks again.
        self.ended.notify_waiters();
        self.cancel("deadline").await;
    }

    /// Whether it is too late for batches.
    pub(super) fn is_over(&self) -> bool {
        lock(&self.state).is_over
    }

    /// Asks the provider to cancel all batches of this route; what is done by then is collected as usual.
    pub async fn cancel(&self, why: &'static str) {
        let open: Vec<i64> = lock(&self.state).chunks.keys().copied().collect();
        for chunk in open {
            let Some(batch) = lock(&self.batches).get(&chunk).cloned() else { continue };
            let _ = self.shared.ledger.note(chunk, &News::Cancelling(why));
            if let Err(error) = self.client.call(self.wire.cancel(&batch)).await {
                self.shared.note(format!("Batch {batch} could not be cancelled: {error}"));
            }
        }
    }

    /// A chunk is at its provider.
    pub(super) fn opened(&self, chunk: i64, batch: &str) {
        lock(&self.batches).insert(chunk, Arc::from(batch));
        self.is_at(chunk, Way::Open);
    }

    /// The results of a chunk are being fetched.
    pub(super) fn ending(&self, chunk: i64) {
        self.is_at(chunk, Way::Ending);
    }

    fn is_at(&self, chunk: i64, way: Way) {
        if let Some(at) = lock(&self.state).chunks.get_mut(&chunk) {
            at.1 = way;
        }
        self.changed.notify_waiters();
    }

    /// A chunk has come to its end.
    pub(super) fn settled(&self, chunk: i64) {
        lock(&self.state).chunks.remove(&chunk);
        self.changed.notify_waiters();
        self.ended.notify_waiters();
    }

    /// Waits until all lines are in batches at the provider.
    pub async fn submitted(&self) {
        let is_sent = |state: &State| {
            let is_sending = state.chunks.values().any(|(_, way)| *way == Way::Sending);
            state.is_detached || (state.entering.is_empty() && state.sending == 0 && !is_sending)
        };
        self.wait_until(is_sent).await;
    }

    /// Waits until no chunk is between the end of its batch and its own.
    pub async fn at_rest(&self) {
        self.wait_until(|state| state.chunks.values().all(|(_, way)| *way != Way::Ending)).await;
    }

    async fn wait_until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(&lock(&self.state)) {
                return;
            }
            changed.await;
        }
    }

    /// Tells whoever waits for a line what became of it. A reply that nobody waits for stays in the ledger.
    pub(super) fn tell(&self, key: Key, place: Place, told: Told) {
        let is_reply = matches!(told, Told::Reply(..));
        let mut state = lock(&self.state);
        let waiting = state.waiting.remove(&place);
        let Some(tell) = waiting else {
            state.learn(key, place, is_reply);
            return;
        };
        state.collected += usize::from(is_reply);
        drop(state);
        match tell.send(told) {
            Ok(()) if is_reply => lock(&self.shared.given).push(place),
            // Whoever asked has gone: the reply waits for the next who does.
            Ok(()) | Err(_) => {}
        }
    }

    /// All who wait for lines of a chunk are told this.
    pub(super) fn fail_all(&self, chunk: i64, told: &dyn Fn() -> Told) {
        let mut state = lock(&self.state);
        let places: Vec<Place> = state.waiting.keys().filter(|(of, _)| *of == chunk).copied().collect();
        let waiting: Vec<_> = places.iter().filter_map(|place| state.waiting.remove(place)).collect();
        drop(state);
        waiting.into_iter().for_each(|tell| drop(tell.send(told())));
    }

    /// Lets go of everything.
    pub fn detach(&self) {
        let mut state = lock(&self.state);
        state.is_detached = true;
        let drivers = std::mem::take(&mut state.drivers);
        let waiting: Vec<_> = state.entering.drain(..).collect();
        let in_batches: Vec<_> = state.waiting.drain().map(|(_, tell)| tell).collect();
        state.filling = None;
        drop(state);
        drivers.iter().for_each(AbortHandle::abort);
        waiting.into_iter().chain(in_batches).for_each(|tell| drop(tell.send(Told::Detached)));
        self.changed.notify_waiters();
    }

    /// What there is, in numbers.
    pub fn counts(&self) -> Counts {
        let state = lock(&self.state);
        let lines = |sending: bool| -> usize {
            let lines = state.chunks.values().filter(|(_, way)| (*way == Way::Sending) == sending);
            usize::try_from(lines.map(|(lines, _)| *lines).sum::<u64>()).unwrap_or(usize::MAX)
        };
        Counts {
            filling: state.entering.len(),
            sending: lines(true),
            open: lines(false),
            batches: state.chunks.values().filter(|(_, way)| *way != Way::Sending).count(),
            collected: state.collected,
            waiting: state.entering.len() + state.waiting.len(),
        }
    }
}

impl State {
    /// A line of an earlier run that asks this.
    fn take_known(&mut self, key: Key) -> Option<OpenLine> {
        let lines = self.known.get_mut(&key)?;
        let line = lines.pop_front();
        if lines.is_empty() {
            self.known.remove(&key);
        }
        line
    }

    /// A line that nobody has asked for was answered, or will not be.
    fn learn(&mut self, key: Key, (chunk, line): Place, is_answered: bool) {
        let Some(lines) = self.known.get_mut(&key) else { return };
        let Some(at) = lines.iter().position(|known| (known.chunk, known.line) == (chunk, line)) else { return };
        if is_answered {
            lines[at].is_answered = true;
        } else {
            lines.remove(at);
        }
    }
}
