//! All batches and files of a simulated provider, over the time of the clock that is passed in. (How batches are made is
//! in [`create`](super::create).)

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::super::answers::Model;
use super::super::model::hash;
use super::batch::Batch;
use super::call::Download;
use super::faults::{FaultKind, Faults};
use super::files::{File, Files};
use super::ledger::Books;
use super::provider::Provider;
use super::sessions::Sessions;
use super::settings::Settings;
use super::timing::{Cancel, Phase};

/// Cancelling takes this part of the time that a batch takes.
const CANCELLING: f64 = 0.25;

/// Everything.
#[derive(Debug)]
pub struct State {
    /// How batches behave.
    pub settings: Arc<Settings>,
    /// What answers.
    pub model: Arc<Model>,
    /// Seconds since 1970 when the clock began.
    pub epoch: f64,
    /// Files.
    pub files: Files,
    /// Uploads that are not complete.
    pub sessions: Sessions,
    /// Batches, in the order in which they were made.
    pub batches: Vec<Batch>,
    /// Counts.
    pub ledger: Books,
    /// Places by id.
    pub(super) by_id: HashMap<String, usize>,
    /// Places of those that have not ended.
    pub(super) open: VecDeque<usize>,
    /// Batches asked for.
    pub(super) creates: u64,
    ids: u64,
}

impl State {
    /// Nothing yet.
    pub fn new(settings: Arc<Settings>, model: Arc<Model>, ledger: Books, epoch: f64) -> Self {
        Self {
            settings,
            model,
            epoch,
            files: Files::default(),
            sessions: Sessions::default(),
            batches: Vec::new(),
            ledger,
            by_id: HashMap::new(),
            open: VecDeque::new(),
            creates: 0,
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

    /// Brings everything up to a time.
    pub fn advance(&mut self, now: f64) {
        for _ in 0..self.open.len() {
            let Some(place) = self.open.pop_front() else { break };
            let batch = &mut self.batches[place];
            if batch.advance(now, &self.model, &self.ledger) {
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
        // Gemini has one file for all.
        let with_empty = provider != Provider::Gemini
            && (provider == Provider::Azure || batch.faults.has(FaultKind::EmptyErrorFile));
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

    /// A new batch's id.
    pub fn batch_id(&mut self, provider: Provider) -> String {
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

    /// Looks a batch up, as a client that polls it.
    pub fn poll(&mut self, id: &str, provider: Provider, account: u64, now: f64) -> Option<usize> {
        self.advance(now);
        self.ledger.open().called("poll");
        let place = self.find(id, provider, account, now)?;
        let least = self.settings.poll_interval.unwrap_or(provider.poll_interval());
        let batch = &mut self.batches[place];
        batch.polls += 1;
        let before = batch.polled.replace(now);
        if let Some(nonce) = &batch.nonce {
            self.ledger.open().looked(nonce);
        }
        // A thousandth of a second is the network's.
        if let Some(since) = before.map(|before| now - before).filter(|since| *since < least - 1e-3) {
            let detail = format!("{id} after {since:.3} s; {least} s is the least");
            self.ledger.open().violated(now, "poll", detail);
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
        self.ledger.open().called("list");
        self.ledger.open().listed();
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
        self.ledger.open().called("cancel");
        let effect = now + CANCELLING * self.settings.delay;
        let batch = &mut self.batches[place];
        if batch.end.is_none() && batch.timing.cancel.is_none_or(|cancel| cancel.requested > now) {
            let never = batch.faults.has(FaultKind::Stuck(Phase::Cancelling));
            batch.timing.cancel = Some(Cancel { requested: now, effect: if never { f64::INFINITY } else { effect } });
        }
        self.advance(now);
    }

    /// Forgets a batch, which is stopped if it runs.
    pub fn delete(&mut self, place: usize, now: f64) {
        let batch = &mut self.batches[place];
        if batch.end.is_none() {
            batch.timing.cancel = Some(Cancel { requested: now, effect: now });
            self.advance(now);
        }
        self.batches[place].delete();
    }

    /// A file that is downloaded.
    pub fn download(&mut self, id: &str, account: u64, now: f64) -> Option<Download> {
        self.advance(now);
        self.ledger.open().called("download");
        let file = self.files.get(id, account, now)?;
        let (bytes, first) = (file.bytes.clone(), !std::mem::replace(&mut file.is_read, file.batch.is_some()));
        let faults = file.batch.and_then(|number| self.batches.get(usize::try_from(number).ok()?.checked_sub(1)?));
        Some(download(bytes, first, faults.map(|batch| &batch.faults)))
    }

    /// Results that are kept with their batch.
    pub fn results(&mut self, place: usize) -> Download {
        self.ledger.open().called("download");
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
