//! The way of one chunk: it is uploaded, a batch is made of it and looked at until it has ended, and its results are
//! fetched. Each step is in the ledger before it is taken. Routes begin drivers.

mod looking;
mod making;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::{Instant, sleep};

use super::lines::{Answered, LineOutcome};
use super::polling::Polling;
use super::results::{Reader, Source, StoredReply};
use super::route::Route;
use super::shared::blocking;
use super::watch::{Counted, Looking};
use super::wire::{End, Problem, Sealed, Seen, State};
use crate::journal::batches::{Chunk, News, Stage};
use crate::journal::error::JournalError;
use crate::journal::record::now;
use crate::providers::ProviderError;
use crate::providers::call::Call;
use crate::providers::error::Category;

/// With what a driver begins.
pub(super) enum Start {
    /// A chunk of this run.
    Sealed(Sealed),
    /// A chunk that an earlier run has left; its lines are not here.
    Found,
}

/// How often a request that was certainly of no effect is sent before whoever waits is told.
const TRIES: u32 = 4;
/// Between these tries: it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// A batch that the provider does not know for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(3600);
/// So many questions in a row that fail are a warning.
const WARN_AFTER: Duration = Duration::from_secs(1800);
/// So many lines are told together what became of them.
const TOGETHER: usize = 64;
/// How often a chunk that failed as a whole, for no reason of ours, is sent again.
const RESENDS: u32 = 2;

/// Why a chunk goes no further.
enum Stop {
    /// All of its lines have this error.
    Failed(ProviderError),
    /// Its lines are to be asked again: no batch was made of it, or nothing came of it.
    Again,
    /// The ledger fails.
    Ledger(JournalError),
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Self::Ledger(error)
    }
}

/// See the module.
pub(super) struct Driver {
    route: Arc<Route>,
    chunk: Chunk,
    counted: Counted,
    /// The provider's clock, as it was last seen: seconds ahead of ours.
    skew: f64,
}

impl Driver {
    pub(super) fn new(route: Arc<Route>, chunk: Chunk) -> Self {
        let (skew, counted) = (chunk.skew, route.watch.count());
        Self { route, chunk, counted, skew }
    }

    /// Goes all the way.
    pub(super) async fn drive(mut self, start: Start) {
        let sealed = match start {
            Start::Sealed(sealed) => Some(sealed),
            Start::Found => None,
        };
        let outcome = self.go(sealed).await;
        match outcome {
            Ok(()) => {}
            Err(Stop::Again) => self.give_up(|| LineOutcome::Again).await,
            Err(Stop::Failed(error)) => self.give_up(|| LineOutcome::Failed(error.clone())).await,
            Err(Stop::Ledger(error)) => {
                self.route.shared.note(format!("The store cannot record batches: {error}"));
                let error = ProviderError::Request(error.to_string());
                self.give_up(|| LineOutcome::Failed(error.clone())).await;
            }
        }
        self.route.chunk_ended(self.chunk.id);
    }

    async fn go(&mut self, mut sealed: Option<Sealed>) -> Result<(), Stop> {
        let mut resends = 0;
        if self.chunk.stage < Stage::Creating && sealed.is_none() {
            // Nothing was paid, and what the lines ask is known to their items alone.
            return Err(Stop::Again);
        }
        loop {
            if self.chunk.stage < Stage::Open {
                let route = Arc::clone(&self.route);
                let is_certain = self.chunk.stage < Stage::Creating;
                let turn = async {
                    // What may be at the provider is looked for in any case.
                    if is_certain {
                        route.stall_ends().await;
                    }
                    route.creating.lock().await
                };
                let _turn = tokio::select! {
                    turn = turn => turn,
                    () = route.leaves(self.chunk.id), if is_certain => return Err(Stop::Again),
                };
                if !self.open(sealed.as_ref()).await? {
                    continue;
                }
            }
            self.route.opened(self.chunk.id, self.chunk.batch.as_deref().unwrap_or_default(), self.age());
            if self.route.is_leaving(self.chunk.id) && self.chunk.cancelled.is_none() {
                self.note(News::Cancelling("deadline")).await?;
                self.chunk.cancelled = Some("deadline".to_owned());
                let cancel = self.route.wire.cancel(self.chunk.batch.as_deref().unwrap_or_default());
                let _ = self.call(cancel).await;
            }
            let seen = self.wait_for_end(&mut sealed).await?;
            if let State::Ended(End::Failed) = seen.state
                && seen.outputs.is_empty()
            {
                self.route.failed(self.chunk.id);
                self.failed(&seen, sealed.is_some(), &mut resends).await?;
                continue;
            }
            self.route.ending(self.chunk.id);
            self.note(News::Ended).await?;
            self.chunk.stage = Stage::Ended;
            self.fetch(&seen).await?;
            self.pass_on().await?;
            return self.finish().await;
        }
    }

    // Waiting for its end

    fn polling(&self) -> Polling {
        self.route.shared.settings.polling.at_least(self.route.wire.least_wait())
    }

    /// Since its batch was made.
    fn age(&self) -> Duration {
        let created = self.chunk.created_at.or(self.chunk.create_begun_at);
        Duration::from_secs_f64(created.map_or(0.0, |created| (now() - created).max(0.0)))
    }

    fn has_ended(&self, seen: &Seen) -> bool {
        self.route.wire.has_ended(seen, self.chunk.lines, self.age())
    }

    /// Looks at the batch until it has ended. The lines are let go of as soon as they are accepted: a batch may take a day.
    async fn wait_for_end(&mut self, sealed: &mut Option<Sealed>) -> Result<Seen, Stop> {
        let route = Arc::clone(&self.route);
        let id = self.chunk.batch.clone().unwrap_or_default();
        let mut looking = Looking::begins();
        let mut lost_since = None;
        let mut last_good = Instant::now();
        let mut warned = false;
        let mut bare = 0;
        let mut word = self.chunk.word.clone();
        loop {
            let seen = match self.next_look(&id, &mut looking).await {
                Ok(seen) => seen,
                Err(ProviderError::Status { status: 404, .. }) => {
                    let since: Instant = *lost_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > LOST_AFTER {
                        route
                            .shared
                            .note(format!("Batch {id} no longer exists at the provider; its requests are sent again"));
                        return Err(Stop::Again);
                    }
                    None
                }
                Err(_) => None,
            };
            let Some(seen) = seen else {
                route.looked_at(self.chunk.id);
                if last_good.elapsed() > WARN_AFTER && !warned {
                    warned = true;
                    route
                        .shared
                        .note(format!("The state of batch {id} could not be read for half an hour; still trying"));
                }
                continue;
            };
            if seen.state != State::Waiting && !matches!(seen.state, State::Ended(_)) {
                *sealed = None;
            }
            (last_good, lost_since, warned) = (Instant::now(), None, false);
            route.seen(self.chunk.id, &seen);
            let has_ended = self.has_ended(&seen);
            // Results may be named a moment after the end. Without them, all of it would be asked and paid for again.
            if has_ended
                && bare < TRIES
                && seen.state == State::Ended(End::Done)
                && route.wire.results(&seen).is_empty()
            {
                bare += 1;
                route.looked_at(self.chunk.id);
                continue;
            }
            if word.as_ref() != Some(&seen.word) || has_ended {
                self.note(News::Seen { word: seen.word.clone(), done: seen.done }).await?;
                word = Some(seen.word.clone());
            }
            if has_ended {
                return Ok(seen);
            }
            route.looked_at(self.chunk.id);
        }
    }

    /// A batch failed as a whole. Returns when the chunk is to be sent again.
    async fn failed(&mut self, seen: &Seen, has_lines: bool, resends: &mut u32) -> Result<(), Stop> {
        let first = seen.problems.first().cloned();
        let problem =
            first.unwrap_or(Problem { code: String::new(), message: "the batch failed".to_owned(), line: None });
        let error = error_of(&problem);
        self.note(News::NotMade).await?;
        self.chunk.stage = Stage::Uploaded;
        if is_queue_full(&error) {
            if !has_lines {
                return Err(Stop::Again);
            }
            self.wait_for_room(&problem.message).await;
            return Ok(());
        }
        if seen.problems.iter().any(|problem| problem.line.is_some()) {
            self.fail_lines(&seen.problems).await?;
            return Err(Stop::Again);
        }
        if !error.is_retryable() {
            return Err(Stop::Failed(error));
        }
        if !has_lines {
            return Err(Stop::Again);
        }
        *resends += 1;
        if *resends > RESENDS {
            return Err(Stop::Failed(error));
        }
        Ok(())
    }

    /// The lines that the provider has named fail with its words.
    async fn fail_lines(&mut self, problems: &[Problem]) -> Result<(), Stop> {
        let replies: Vec<StoredReply> = problems
            .iter()
            .filter_map(|problem| {
                let line = u32::try_from(problem.line?).ok()?;
                let body = serde_json::json!({"error": {"code": problem.code, "message": problem.message}});
                Some((line, 400, body.to_string().into_bytes()))
            })
            .collect();
        let (id, ledger) = (self.chunk.id, Arc::clone(&self.route.shared.ledger));
        blocking(move || ledger.answer(id, &replies)).await?;
        Ok(self.pass_on().await?)
    }

    // Its results

    fn batch_id(&self) -> Arc<str> {
        Arc::from(self.chunk.batch.as_deref().unwrap_or_default())
    }

    /// Fetches all results, and writes them down. A reply without any of them (an error or a page of a proxy with
    /// status 200, an empty file) is not the end of it: all of the chunk would be asked and paid for again.
    async fn fetch(&mut self, seen: &Seen) -> Result<(), Stop> {
        let mut empty = 0;
        while !self.fetch_once(seen).await? && empty < TRIES {
            empty += 1;
            sleep(pause_after(empty)).await;
        }
        Ok(())
    }

    /// Whether there were results, or there are none to be had.
    async fn fetch_once(&mut self, seen: &Seen) -> Result<bool, Stop> {
        let mut calls = VecDeque::from(self.route.wire.results(seen));
        let mut is_over = calls.is_empty() || seen.state != State::Ended(End::Done);
        let begun = Instant::now();
        let (mut failures, mut warned) = (0, false);
        while let Some(call) = calls.front() {
            let keep = |group: &[StoredReply]| self.route.shared.ledger.answer(self.chunk.id, group);
            let mut reader = Reader::new(&*self.route.wire, &self.chunk.nonce, &keep);
            let outcome = self.source().read(seen, call.clone(), &mut |line| reader.read(line)).await;
            is_over |= reader.finish()? > 0;
            let why = match outcome {
                Ok(next) => {
                    calls.pop_front();
                    calls.extend(next);
                    failures = 0;
                    continue;
                }
                Err(ProviderError::Status { status: 404 | 410, .. }) => Some("gone at the provider"),
                Err(ProviderError::Protocol { .. }) => Some("unreadable"),
                Err(_) => None,
            };
            failures += 1;
            if let Some(why) = why.filter(|_| failures > TRIES) {
                let id = self.batch_id();
                self.route.shared.note(format!("The results of batch {id} are {why}; its requests are sent again"));
                calls.pop_front();
                (failures, is_over) = (0, true);
                continue;
            }
            if begun.elapsed() > WARN_AFTER && !warned {
                warned = true;
                let id = self.batch_id();
                let note = format!("The results of batch {id} could not be fetched for half an hour; still trying");
                self.route.shared.note(note);
            }
            // What has come is written down; the rest is read with the next try.
            sleep(pause_after(failures)).await;
        }
        Ok(is_over)
    }

    fn source(&self) -> Source<'_> {
        Source { client: &*self.route.client, wire: &*self.route.wire }
    }

    /// Passes on the replies that are written down, as there is room for them.
    async fn pass_on(&self) -> Result<(), JournalError> {
        let (chunk, batch) = (self.chunk.id, self.batch_id());
        let mut part = 0;
        let _turn = self.route.passing.lock().await;
        loop {
            let ledger = Arc::clone(&self.route.shared.ledger);
            let Some((next, replies)) = blocking(move || ledger.replies(chunk, part)).await? else { return Ok(()) };
            part = next;
            let mut replies = replies.into_iter().peekable();
            while replies.peek().is_some() {
                self.route.has_room().await;
                for (key, line, status, body) in replies.by_ref().take(TOGETHER) {
                    let answered = Answered { status, body: body.into(), batch: Arc::clone(&batch), chunk };
                    self.route.tell(key, (chunk, line), LineOutcome::Reply(answered));
                }
            }
        }
    }

    /// What has no reply is asked again; nothing else is left to do.
    async fn finish(&mut self) -> Result<(), Stop> {
        self.end(&|| LineOutcome::Again).await?;
        if let Some(call) = self.chunk.file.as_deref().and_then(|file| self.route.wire.delete_file(file)) {
            let _ = self.call(call).await;
        }
        Ok(())
    }

    /// The chunk is settled; lines without a reply are told this.
    async fn end(&mut self, reported: &(dyn Fn() -> LineOutcome + Send + Sync)) -> Result<(), Stop> {
        let (id, ledger) = (self.chunk.id, Arc::clone(&self.route.shared.ledger));
        let left = blocking(move || {
            let left = ledger.forget_unanswered(id)?;
            ledger.note(id, &News::Settled)?;
            Ok(left)
        })
        .await?;
        self.chunk.stage = Stage::Settled;
        let _turn = self.route.passing.lock().await;
        for some in left.chunks(TOGETHER) {
            self.route.has_room().await;
            some.iter().for_each(|(key, line)| self.route.tell(*key, (id, *line), reported()));
        }
        Ok(())
    }

    /// Nothing comes of the chunk any more.
    async fn give_up(&mut self, reported: impl Fn() -> LineOutcome + Send + Sync) {
        if let Err(Stop::Ledger(error)) = self.end(&reported).await {
            self.route.shared.note(format!("The store cannot record batches: {error}"));
            self.route.fail_all(self.chunk.id, &reported).await;
        }
    }

    // Common

    async fn call(&mut self, call: Call) -> Result<(HeaderMap, Bytes), ProviderError> {
        let received = self.route.client.call(call).await?;
        self.skew = self.route.wire.skew(&received.headers, now());
        Ok((received.headers, received.body))
    }

    async fn note(&self, news: News) -> Result<(), JournalError> {
        let (id, ledger) = (self.chunk.id, Arc::clone(&self.route.shared.ledger));
        blocking(move || ledger.note(id, &news)).await
    }
}

/// How long to wait after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    (PAUSE * 2_u32.pow(failures.min(7))).min(LONGEST_PAUSE)
}

/// Whether an error says that the provider's queue of batches is full.
fn is_queue_full(error: &ProviderError) -> bool {
    let ProviderError::Status { status, message, code, category, .. } = error else { return false };
    code.as_deref() == Some("token_limit_exceeded")
        || message.to_ascii_lowercase().contains("enqueued")
        || (*status == 429 && *category == Category::RateLimit)
}

/// What is wrong with a whole batch, as an error of the provider.
fn error_of(problem: &Problem) -> ProviderError {
    let body = serde_json::json!({"error": {"code": problem.code, "message": problem.message}}).to_string();
    let status = match problem.code.as_str() {
        "model_not_found" => 404,
        "token_limit_exceeded" => 429,
        "billing_hard_limit_reached" => 402,
        "" | "server_error" | "internal_error" => 500,
        _ => 400,
    };
    crate::providers::status::read(status, &HeaderMap::new(), body.as_bytes())
}
