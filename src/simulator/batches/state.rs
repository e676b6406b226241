//! All batches and files of a simulated provider, over the time of the clock that is passed in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::super::answers::Model;
use super::super::latency::{Distribution, Latency};
use super::super::model::hash;
use super::batch::{Batch, Output};
use super::call::Download;
use super::faults::{Fault, FaultKind, Faults};
use super::files::{File, Files, MOST_BYTES};
use super::ledger::Ledger;
use super::lines::Problem;
use super::live;
use super::order::Order;
use super::provider::Provider;
use super::timing::{Cancel, Phase, Timing};

/// Most batches that are remembered.
const MOST_BATCHES: usize = 100_000;
/// Cancelling takes this part of the time that a batch takes.
const CANCELLING: f64 = 0.25;

/// How batches behave. Times are seconds of the clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// From the creation to the end.
    pub delay: f64,
    /// How the delay is spread; `None` = not at all.
    pub distribution: Option<Distribution>,
    /// Scheduled faults.
    pub faults: Vec<Fault>,
    /// Most tokens of prompts that an account may have queued for a model.
    pub queue_tokens: Option<u64>,
    /// Whether Azure refuses at once what does not fit the queue.
    pub azure_at_once: bool,
    /// Most batches that an account may have open.
    pub max_open: Option<usize>,
    /// Batches are missing from lists for so long.
    pub list_lag: f64,
    /// How many seconds pass in a second.
    pub time_scale: f64,
    /// Looks at the same batch may not come faster.
    pub poll_interval: Option<f64>,
    /// In place of the provider's own limits.
    pub max_lines: Option<usize>,
    /// In place of the provider's own limits.
    pub max_bytes: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            delay: 0.2,
            distribution: None,
            faults: Vec::new(),
            queue_tokens: None,
            azure_at_once: false,
            max_open: None,
            list_lag: 0.0,
            time_scale: 1.0,
            poll_interval: None,
            max_lines: None,
            max_bytes: None,
        }
    }
}

/// Why there is no reply with a new batch, though there may be a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The connection is closed.
    Reset,
    /// A server error.
    Status(u16),
    /// The queue is full.
    QueueFull(String),
    /// Too many are open.
    TooMany(String),
    /// It is remembered no more.
    NoRoom(String),
}

/// Everything.
#[derive(Debug)]
pub struct State {
    /// How batches behave.
    pub settings: Settings,
    /// What answers.
    pub model: Arc<Model>,
    /// Whether the ledger keeps questions as texts.
    pub counts_texts: bool,
    /// Seconds since 1970 when the clock began.
    pub epoch: f64,
    /// Files.
    pub files: Files,
    /// Batches, in the order in which they were made.
    pub batches: Vec<Batch>,
    /// Counts.
    pub ledger: Ledger,
    by_id: HashMap<String, usize>,
    /// Places of those that have not ended.
    open: VecDeque<usize>,
    creates: u64,
    uploads: u64,
    ids: u64,
}

impl State {
    /// Nothing yet.
    pub fn new(settings: Settings, model: Arc<Model>, counts_texts: bool, epoch: f64) -> Self {
        Self {
            settings,
            model,
            counts_texts,
            epoch,
            files: Files::default(),
            batches: Vec::new(),
            ledger: Ledger::default(),
            by_id: HashMap::new(),
            open: VecDeque::new(),
            creates: 0,
            uploads: 0,
            ids: 0,
        }
    }

    /// A new id's letters. They are not those of another simulated provider, whose ids somebody may have written down.
    pub fn letters(&mut self, alphabet: &str, length: usize) -> String {
        self.ids += 1;
        let mut random = fastrand::Rng::with_seed(hash(self.epoch.to_bits(), &self.ids.to_le_bytes()));
        let letters = alphabet.as_bytes();
        (0..length).map(|_| char::from(letters[random.usize(..letters.len())])).collect()
    }

    /// A new UUID.
    pub fn uuid(&mut self) -> String {
        let hex = self.letters("0123456789abcdef", 32);
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }

    /// Most lines of a batch.
    pub fn most_lines(&self, provider: Provider) -> usize {
        self.settings.max_lines.unwrap_or(provider.most_lines())
    }

    /// Most bytes of a batch.
    pub fn most_bytes(&self, provider: Provider) -> usize {
        self.settings.max_bytes.unwrap_or(provider.most_bytes())
    }

    /// Whether the upload that begins now breaks off.
    pub fn cuts_upload(&mut self) -> bool {
        self.uploads += 1;
        self.ledger.called("upload");
        Faults::of(&self.settings.faults, self.uploads).has(FaultKind::UploadCut)
    }

    /// Brings everything up to a time.
    pub fn advance(&mut self, now: f64) {
        for _ in 0..self.open.len() {
            let Some(place) = self.open.pop_front() else { break };
            let batch = &mut self.batches[place];
            if batch.advance(now, &self.model, &mut self.ledger, self.counts_texts) {
                self.ended(place);
            } else {
                self.open.push_back(place);
            }
        }
        self.files.expire(now);
    }

    /// Puts results into files, where they are fetched as files.
    fn ended(&mut self, place: usize) {
        let batch = &self.batches[place];
        let in_files = match batch.order.provider {
            Provider::Anthropic | Provider::Xai | Provider::OpenRouter => false,
            Provider::Gemini | Provider::Mistral => batch.order.file.is_some(),
            _ => true,
        };
        let (ended, phase) = batch.end.unwrap_or((batch.timing.created, Phase::Failed));
        let provider = batch.order.provider;
        let from = if provider == Provider::Anthropic { batch.timing.created } else { ended };
        let is_gone = batch.faults.has(FaultKind::Gone);
        let forgotten = if is_gone { ended } else { from + provider.keeps_results() };
        self.batches[place].forgotten = forgotten;
        if !in_files || phase == Phase::Failed {
            return;
        }
        let batch = &mut self.batches[place];
        let (output, errors) = (std::mem::take(&mut batch.output), std::mem::take(&mut batch.errors));
        let no_output = batch.faults.has(FaultKind::NoOutputFile);
        let with_empty = provider == Provider::Azure || batch.faults.has(FaultKind::EmptyErrorFile);
        if output.len() > 0 && !no_output {
            self.batches[place].files.0 = self.result_file(place, output.bytes(), "output", forgotten);
        }
        if errors.len() > 0 || with_empty {
            self.batches[place].files.1 = self.result_file(place, errors.bytes(), "error", forgotten);
        }
    }

    /// Keeps results as a file; `None` if there is no room for it.
    fn result_file(&mut self, place: usize, text: &Bytes, what: &str, expires: f64) -> Option<String> {
        let provider = self.batches[place].order.provider;
        let id = match provider {
            // It has 42 letters, which the vendor's own `files.delete` refuses.
            Provider::Gemini => format!("files/batch-{}", self.batches[place].id.trim_start_matches("batches/")),
            _ => self.file_id(provider),
        };
        let batch = &self.batches[place];
        let file = File {
            id: id.clone(),
            account: batch.order.account,
            name: format!("{}_{what}.jsonl", batch.id),
            purpose: "batch_output".to_owned(),
            kind: "application/jsonl".to_owned(),
            bytes: text.clone(),
            created: batch.end.map_or(0.0, |(at, _)| at),
            expires,
            ready: 0.0,
            batch: Some(batch.number),
            is_read: false,
        };
        self.files.add(file).is_ok().then_some(id)
    }

    /// A new file's id.
    pub fn file_id(&mut self, provider: Provider) -> String {
        const LETTERS: &str = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
        match provider {
            Provider::Mistral => self.uuid(),
            Provider::Gemini => format!("files/{}", self.letters("0123456789abcdefghijklmnopqrstuvwxyz", 12)),
            Provider::Azure | Provider::Together => format!("file-{}", self.uuid()),
            Provider::Groq => format!("file_01{}", self.letters("0123456789abcdefghjkmnpqrstvwxyz", 24)),
            _ => format!("file-{}", self.letters(LETTERS, 22)),
        }
    }

    fn batch_id(&mut self, provider: Provider) -> String {
        const SMALL: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
        match provider {
            Provider::Anthropic => format!("msgbatch_01{}", self.letters(&SMALL.to_uppercase(), 22)),
            Provider::Gemini => format!("batches/{}", self.letters(SMALL, 36)),
            Provider::Mistral | Provider::Together => self.uuid(),
            Provider::Groq => format!("batch_01{}", self.letters("0123456789abcdefghjkmnpqrstvwxyz", 24)),
            Provider::Xai | Provider::Azure => format!("batch_{}", self.uuid()),
            Provider::OpenAi | Provider::OpenRouter => format!("batch_{}", self.letters("0123456789abcdef", 32)),
        }
    }

    /// Makes a batch: its place, or what is told in place of it.
    ///
    /// # Errors
    /// What goes wrong, with or without a batch.
    pub fn create(&mut self, mut order: Order, banned: &[String], now: f64) -> Result<usize, Trouble> {
        self.advance(now);
        self.creates += 1;
        self.ledger.called("create");
        let (number, nonce) = (self.creates, order.nonce());
        let faults = Faults::of(&self.settings.faults, number);
        for what in banned {
            self.ledger.violated(now, "banned", what.clone());
        }
        for problem in order.problems.iter().filter(|one| matches!(one.code, "too_many_tasks" | "file_too_large")) {
            self.ledger.violated(now, "size", problem.message.clone());
        }
        if let Some(nonce) = &nonce {
            self.ledger.creating(now, nonce);
        }
        if faults.has(FaultKind::Create500NotMade) {
            return Err(Trouble::Status(500));
        }
        let refused = self.refusal(&order, now).or_else(|| self.queue_full(&mut order, &faults));
        if let Some(trouble) = refused {
            // It is known that there is no batch.
            nonce.iter().for_each(|nonce| self.ledger.looked(nonce));
            return Err(trouble);
        }
        let slow = faults.find(|kind| match kind {
            FaultKind::CreateSlow(seconds) => Some(seconds),
            _ => None,
        });
        let copies = if faults.has(FaultKind::SecondBatch) { 2 } else { 1 };
        let mut place = 0;
        for _ in 0..copies {
            place = self.make(order.clone(), faults.clone(), now + slow.unwrap_or_default());
        }
        let trouble = [
            (faults.has(FaultKind::CreateLost), Trouble::Reset),
            (faults.has(FaultKind::Create500Made), Trouble::Status(500)),
            (slow.is_some(), Trouble::Status(504)),
        ];
        trouble.into_iter().find_map(|(is_so, trouble)| is_so.then_some(trouble)).map_or(Ok(place), Err)
    }

    fn refusal(&mut self, order: &Order, now: f64) -> Option<Trouble> {
        let bytes = |batch: &Batch| batch.order.lines.bytes() + batch.output.bytes().len();
        let mut kept: usize = self.batches.iter().map(bytes).sum();
        for batch in self.batches.iter_mut().filter(|batch| batch.is_read || batch.forgotten <= now) {
            if kept + order.lines.bytes() > MOST_BYTES || batch.forgotten <= now {
                kept -= batch.output.bytes().len();
                batch.output = Output::default();
                batch.forgotten = batch.forgotten.min(now);
            }
        }
        if self.batches.len() >= MOST_BATCHES || kept + order.lines.bytes() > MOST_BYTES {
            return Some(Trouble::NoRoom(format!(
                "the simulated provider keeps at most {MOST_BATCHES} batches, and {MOST_BYTES} bytes of open ones"
            )));
        }
        let open = 1 + self.open_of(order).count();
        if let Some(most) = self.settings.max_open.filter(|most| open > *most) {
            let message = format!("Too many batches are open: at most {most} are allowed.");
            self.ledger.violated(now, "open", message.clone());
            return Some(Trouble::TooMany(message));
        }
        None
    }

    /// Open batches of the same account.
    fn open_of(&self, order: &Order) -> impl Iterator<Item = &Batch> {
        let (provider, account) = (order.provider, order.account);
        let open = self.open.iter().map(|place| &self.batches[*place]);
        open.filter(move |batch| (batch.order.provider, batch.order.account) == (provider, account))
    }

    /// Looks whether the queue has room. What does not fit is refused now, or gets a problem that is told later.
    fn queue_full(&mut self, order: &mut Order, faults: &Faults) -> Option<Trouble> {
        let forced = faults.find(|kind| match kind {
            FaultKind::QueueFull(late) => Some(late),
            _ => None,
        });
        let limit = self.settings.queue_tokens.or(forced.map(|_| 2_000_000))?;
        let wanted: u64 = (0..order.lines.len()).map(|line| live::tokens(order, line, &self.model)).sum();
        order.tokens = wanted;
        let model = order.model.clone().unwrap_or_default();
        let queued: u64 = self
            .open_of(order)
            .filter(|batch| batch.order.model == order.model && !batch.timing.fails)
            .map(|batch| batch.order.tokens)
            .sum();
        if queued + wanted <= limit && forced.is_none() {
            self.ledger.peak_queued = self.ledger.peak_queued.max(queued + wanted);
            return None;
        }
        let late = match forced.flatten() {
            Some(late) => late,
            None => {
                order.provider.refuses_late() && !(order.provider == Provider::Azure && self.settings.azure_at_once)
            }
        };
        let message = format!(
            "Enqueued token limit reached for {model} in organization org-simulated. Limit: {} enqueued tokens. Please \
             try again once some in_progress batches have been completed.",
            with_commas(limit)
        );
        if late {
            order.problems = vec![Problem::new("token_limit_exceeded", message)];
            return None;
        }
        Some(Trouble::QueueFull(message))
    }

    fn make(&mut self, order: Order, faults: Faults, created: f64) -> usize {
        let takes = self.takes();
        let id = self.batch_id(order.provider);
        let place = self.batches.len();
        let mut timing = Timing::new(created, takes, created + order.expires_after);
        timing.fails = !order.problems.is_empty();
        if let Some(phase) = faults.find(|kind| match kind {
            FaultKind::Stuck(phase) => Some(phase),
            _ => None,
        }) {
            timing.stick(phase);
        }
        if let Some(part) = faults.find(|kind| match kind {
            FaultKind::ExpireAfter(part) => Some(part),
            _ => None,
        }) {
            timing.stop_after(part);
        }
        if let Some(part) = faults.find(|kind| match kind {
            FaultKind::CancelAfter(part) => Some(part),
            _ => None,
        }) {
            let at = timing.when(part);
            timing.cancel = Some(Cancel { asked: at, effect: at });
        }
        let batch = Batch::new(place as u64 + 1, id.clone(), order, timing, faults);
        if let Some(nonce) = &batch.nonce {
            self.ledger.made(nonce);
        }
        self.by_id.insert(id, place);
        self.batches.push(batch);
        self.open.push_back(place);
        self.ledger.peak_open = self.ledger.peak_open.max(self.open.len());
        place
    }

    /// How long the next batch takes.
    pub fn takes(&self) -> f64 {
        let Some(distribution) = self.settings.distribution else { return self.settings.delay };
        let spread = std::time::Duration::try_from_secs_f64(self.settings.delay).unwrap_or_default();
        let latency = Latency { spread, distribution, ..Latency::default() };
        latency.of(self.batches.len() as u64 + 1, self.model.seed, 0).as_secs_f64()
    }

    /// Looks a batch up, as a client that polls it.
    pub fn poll(&mut self, id: &str, provider: Provider, account: u64, now: f64) -> Option<usize> {
        self.advance(now);
        self.ledger.called("poll");
        let place = self.find(id, provider, account, now)?;
        let least = self.settings.poll_interval.unwrap_or(provider.poll_interval());
        let batch = &mut self.batches[place];
        batch.polls += 1;
        let before = batch.polled.replace(now);
        if let Some(nonce) = &batch.nonce {
            self.ledger.looked(nonce);
        }
        // A thousandth of a second is the network's.
        if let Some(since) = before.map(|before| now - before).filter(|since| *since < least - 1e-3) {
            let detail = format!("{id} after {since:.3} s; {least} s is the least");
            self.ledger.violated(now, "poll", detail);
        }
        Some(place)
    }

    /// Looks a batch up.
    pub fn find(&self, id: &str, provider: Provider, account: u64, now: f64) -> Option<usize> {
        let place = *self.by_id.get(id)?;
        self.batches[place].is_seen_by(provider, account, now).then_some(place)
    }

    /// Places of all batches that a list shows, the newest first.
    pub fn list(&mut self, provider: Provider, account: u64, now: f64) -> Vec<usize> {
        self.advance(now);
        self.ledger.called("list");
        self.ledger.listed();
        let lag = |batch: &Batch| {
            let own = batch.faults.find(|kind| match kind {
                FaultKind::ListLag(seconds) => Some(seconds),
                _ => None,
            });
            self.settings.list_lag.max(own.unwrap_or_default())
        };
        let seen =
            |batch: &&Batch| batch.is_seen_by(provider, account, now) && now >= batch.timing.created + lag(batch);
        let mut places: Vec<usize> =
            (0..self.batches.len()).rev().filter(|place| seen(&&self.batches[*place])).collect();
        // One that was made slowly is newer than its number says.
        places.sort_by(|a, b| self.batches[*b].timing.created.total_cmp(&self.batches[*a].timing.created));
        places
    }

    /// Asks for a cancellation; nothing happens to what has ended.
    pub fn cancel(&mut self, place: usize, now: f64) {
        self.ledger.called("cancel");
        let effect = now + CANCELLING * self.settings.delay;
        let batch = &mut self.batches[place];
        if batch.end.is_none() && batch.timing.cancel.is_none_or(|cancel| cancel.asked > now) {
            let never = batch.faults.has(FaultKind::Stuck(Phase::Cancelling));
            batch.timing.cancel = Some(Cancel { asked: now, effect: if never { f64::INFINITY } else { effect } });
        }
        self.advance(now);
    }

    /// A file that is downloaded.
    pub fn download(&mut self, id: &str, account: u64, now: f64) -> Option<Download> {
        self.advance(now);
        self.ledger.called("download");
        let file = self.files.get(id, account, now)?;
        let (bytes, first) = (file.bytes.clone(), !std::mem::replace(&mut file.is_read, file.batch.is_some()));
        let faults = file.batch.and_then(|number| self.batches.get(usize::try_from(number).ok()?.checked_sub(1)?));
        Some(download(bytes, first, faults.map(|batch| &batch.faults)))
    }

    /// Results that are kept with their batch.
    pub fn results(&mut self, place: usize) -> Download {
        self.ledger.called("download");
        let batch = &mut self.batches[place];
        let first = !std::mem::replace(&mut batch.is_read, true);
        download(batch.output.bytes().clone(), first, Some(&batch.faults))
    }
}

fn download(bytes: Bytes, first: bool, faults: Option<&Faults>) -> Download {
    let has = |kind| faults.is_some_and(|faults| faults.has(kind));
    Download {
        bytes,
        kind: if has(FaultKind::NoContentType) { "" } else { "application/octet-stream" },
        is_cut: first && has(FaultKind::CutDownload),
    }
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}
