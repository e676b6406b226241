//! How batches are made, and why some are not.

use super::super::latency::Latency;
use super::batch::{Batch, Output, plan};
use super::faults::{FaultKind, Faults};
use super::files::MOST_BYTES;
use super::lines::{Lines, Problem};
use super::live;
use super::order::Order;
use super::provider::Provider;
use super::state::State;

/// Most batches that are remembered.
const MOST_BATCHES: usize = 100_000;
/// Tokens that a queue without a limit takes, where a fault says that it is full.
const USUAL_QUEUE: u64 = 2_000_000;

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
    /// There is no money.
    NoCredit,
    /// It is remembered no more.
    NoRoom(String),
}

impl State {
    /// Makes a batch: its place, or what is told in place of it.
    ///
    /// # Errors
    /// What goes wrong, with or without a batch.
    pub fn create(&mut self, mut order: Order, banned: &[String], now: f64) -> Result<usize, Trouble> {
        self.advance(now);
        self.creates += 1;
        self.ledger.open().called("create");
        let (number, nonce) = (self.creates, order.nonce());
        let faults = Faults::of(&self.settings.faults, number);
        for what in banned {
            self.ledger.open().violated(now, "banned", what.clone());
        }
        for problem in order.problems.iter().filter(|one| matches!(one.code, "too_many_tasks" | "file_too_large")) {
            self.ledger.open().violated(now, "size", problem.message.clone());
        }
        if let Some(nonce) = &nonce {
            self.ledger.open().creating(now, nonce);
        }
        if faults.has(FaultKind::Create500NotMade) {
            return Err(Trouble::Status(500));
        }
        let rejected = self.refusal(&order, &faults, now).or_else(|| self.queue_full(&mut order, &faults));
        if let Some(trouble) = rejected {
            // It is known that there is no batch.
            nonce.iter().for_each(|nonce| self.ledger.open().looked(nonce));
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

    fn refusal(&mut self, order: &Order, faults: &Faults, now: f64) -> Option<Trouble> {
        // Anthropic says so in each line.
        if faults.has(FaultKind::NoCredit) && order.provider != Provider::Anthropic {
            return Some(Trouble::NoCredit);
        }
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
        let most = self.settings.max_open.or(order.provider.max_open());
        if let Some(most) = most.filter(|most| open > *most) {
            let message = format!("Too many batches are open: at most {most} are allowed.");
            self.ledger.open().violated(now, "open", message.clone());
            return Some(Trouble::TooMany(message));
        }
        None
    }

    /// Open batches of the same account.
    fn open_of(&self, order: &Order) -> impl Iterator<Item = &Batch> {
        let (provider, account) = (order.provider, order.account);
        let open = self.open.iter().map(|place| &self.batches[*place]).filter(|batch| !batch.is_idle());
        open.filter(move |batch| (batch.order.provider, batch.order.account) == (provider, account))
    }

    /// Looks whether the queue has room. What does not fit is refused now, or gets a problem that is told later.
    fn queue_full(&mut self, order: &mut Order, faults: &Faults) -> Option<Trouble> {
        let forced = faults.find(|kind| match kind {
            FaultKind::QueueFull(late) => Some(late),
            _ => None,
        });
        let limit = self.settings.queue_tokens.or(forced.map(|_| USUAL_QUEUE))?;
        let wanted: u64 = (0..order.lines.len()).map(|line| live::tokens(order, line, &self.model)).sum();
        order.tokens = wanted;
        let model = order.model.clone().unwrap_or_default();
        let queued: u64 = self
            .open_of(order)
            .filter(|batch| batch.order.model == order.model && !batch.timing.fails)
            .map(|batch| batch.order.tokens)
            .sum();
        if queued + wanted <= limit && forced.is_none() {
            let mut ledger = self.ledger.open();
            ledger.peak_queued = ledger.peak_queued.max(queued + wanted);
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
        let timing = plan(created, takes, created + order.expires_after, &order, &faults);
        let batch = Batch::new(place as u64 + 1, id.clone(), order, timing, faults);
        if let Some(nonce) = &batch.nonce {
            self.ledger.open().made(nonce);
        }
        self.by_id.insert(id, place);
        self.batches.push(batch);
        self.open.push_back(place);
        let mut ledger = self.ledger.open();
        ledger.peak_open = ledger.peak_open.max(self.open.len());
        place
    }

    /// How long the next batch takes.
    pub fn takes(&self) -> f64 {
        let Some(distribution) = self.settings.distribution else { return self.settings.delay };
        let spread = std::time::Duration::try_from_secs_f64(self.settings.delay).unwrap_or_default();
        let latency = Latency { spread, distribution, ..Latency::default() };
        latency.of(self.batches.len() as u64 + 1, self.model.seed, 0).as_secs_f64()
    }

    /// Adds lines to a batch of xAI's.
    ///
    /// # Errors
    /// When one of them is there already.
    pub fn add(&mut self, place: usize, lines: Lines, now: f64) -> Result<(), String> {
        let takes = self.takes();
        let batch = &mut self.batches[place];
        let ids: Vec<String> = (0..lines.len()).map(|line| lines.id(line)).collect();
        if let Some(id) = ids.iter().find(|id| batch.ids.contains(*id)) {
            return Err(format!("The request '{id}' is in the batch already."));
        }
        batch.ids.extend(ids);
        batch.extend(lines, takes, now);
        Ok(())
    }
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}
