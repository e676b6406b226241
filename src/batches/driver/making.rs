//! How a chunk becomes a batch: its file is uploaded and the batch made of it, or found, where whether it was made is not
//! known. Part of the [`Driver`].

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Driver, PAUSE, Stop, TRIES, is_queue_full, pause_after};
use crate::batches::reconcile::{self, Found};
use crate::batches::shared::lock;
use crate::batches::wire::{Sealed, Seen, Upload};
use crate::journal::batches::{News, Stage};
use crate::journal::record::now;
use crate::providers::ProviderError;
use crate::providers::error::Contact;

/// Longest wait that a provider may ask for.
const LONGEST_WAIT: f64 = 600.0;
/// Pages of a list that are read, at most.
const PAGES: usize = 200;

/// Whether a batch was made.
enum Made {
    Yes(Box<Seen>),
    No(ProviderError),
    Unknown,
}

impl Driver {
    /// Goes on until there is a batch; false: none is to be made for the time being.
    pub(super) async fn open(&mut self, sealed: Option<&Sealed>) -> Result<bool, Stop> {
        let mut failures = 0;
        loop {
            if self.chunk.stage == Stage::Creating {
                if self.reconcile().await? {
                    return Ok(true);
                }
                self.note(News::NotMade).await?;
                self.chunk.stage = Stage::Uploaded;
            }
            let Some(sealed) = sealed else { return Err(Stop::Again) };
            if self.route.is_leaving(self.chunk.id) {
                return Err(Stop::Again);
            }
            if self.route.is_stalled() {
                return Ok(false);
            }
            if self.chunk.stage < Stage::Uploaded {
                self.upload(sealed).await?;
            }
            match self.create(sealed).await? {
                Made::Yes(seen) => return self.created(&seen, "reply").await.map(|()| true),
                // The provider may have made it: see above.
                Made::Unknown => {}
                Made::No(error) => {
                    self.note(News::NotMade).await?;
                    self.chunk.stage = Stage::Uploaded;
                    self.wait_after(error, &mut failures).await?;
                }
            }
        }
    }

    /// Waits until a request that had no effect may be sent again.
    async fn wait_after(&self, error: ProviderError, failures: &mut u32) -> Result<(), Stop> {
        if is_queue_full(&error) {
            self.wait_for_room(&error.to_string()).await;
            return Ok(());
        }
        *failures += 1;
        if !error.is_retryable() || *failures >= TRIES {
            return Err(Stop::Failed(error));
        }
        let requested = match &error {
            ProviderError::Status { retry_after, .. } => retry_after.unwrap_or_default().min(LONGEST_WAIT),
            _ => 0.0,
        };
        sleep((PAUSE * 2_u32.pow(*failures)).max(Duration::from_secs_f64(requested.max(0.0)))).await;
        Ok(())
    }

    /// Waits until the provider's queue may have room: one of our batches has ended, or some time has passed.
    pub(super) async fn wait_for_room(&self, words: &str) {
        self.route.shared.note(format!("The provider's batch queue is full; waiting until it has room ({words})"));
        let ended = self.route.ended.notified();
        let _ = tokio::time::timeout(self.route.shared.settings.queue_wait, ended).await;
    }

    async fn upload(&mut self, sealed: &Sealed) -> Result<(), Stop> {
        let mut failures = 0;
        // It has all lines in it: it is written anew only where it has to be sent again.
        let mut upload = self.route.wire.upload(sealed);
        if matches!(upload, Upload::None) {
            self.chunk.stage = Stage::Uploaded;
            return Ok(());
        }
        self.note(News::Uploading).await?;
        // A file that was uploaded twice costs nothing, and expires.
        let file = loop {
            match self.upload_once(sealed, upload).await {
                Ok(file) => break file,
                Err(error) => self.wait_after(error, &mut failures).await?,
            }
            upload = self.route.wire.upload(sealed);
        };
        self.note(News::Uploaded(file.clone())).await?;
        self.chunk.file = Some(file);
        self.chunk.stage = Stage::Uploaded;
        Ok(())
    }

    async fn upload_once(&mut self, sealed: &Sealed, upload: Upload) -> Result<String, ProviderError> {
        let route = Arc::clone(&self.route);
        let reply = match upload {
            Upload::None => return Ok(String::new()),
            Upload::One(call) => self.call(call).await?,
            Upload::Resumable(call, header) => {
                let (headers, _) = self.call(call).await?;
                let place = headers.get(header).and_then(|place| place.to_str().ok()).and_then(path_of);
                let rest = place.and_then(|place| route.wire.upload_rest(sealed, place));
                self.call(rest.ok_or_else(|| unreadable("the address of an upload", b""))?).await?
            }
        };
        let file = route.wire.read_upload(&reply.1).ok_or_else(|| unreadable("an uploaded file", &reply.1))?;
        let mut wait = PAUSE;
        while let Some(look) = route.wire.look_at_file(&file) {
            let (_, body) = self.call(look).await?;
            if route.wire.is_file_ready(&body) {
                break;
            }
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(30));
        }
        Ok(file)
    }

    async fn create(&mut self, sealed: &Sealed) -> Result<Made, Stop> {
        self.note(News::Creating { skew: self.skew }).await?;
        self.chunk.stage = Stage::Creating;
        (self.chunk.create_begun_at, self.chunk.skew) = (Some(now()), self.skew);
        self.chunk.tries += 1;
        let call = self.route.wire.create(sealed, self.chunk.file.as_deref());
        Ok(match self.call(call).await {
            Ok((_, body)) => match self.route.wire.read_created(&body) {
                Some(seen) => Made::Yes(Box::new(seen)),
                None => Made::Unknown,
            },
            Err(error) if is_certain(&error) => Made::No(error),
            Err(_) => Made::Unknown,
        })
    }

    async fn created(&mut self, seen: &Seen, found: &'static str) -> Result<(), Stop> {
        let batch = seen.id.clone();
        self.note(News::Created { batch: batch.clone(), found, created_at: seen.created_at }).await?;
        lock(&self.route.shared.claimed).insert(batch.clone());
        self.chunk.batch = Some(batch);
        self.chunk.found = Some(found.to_owned());
        self.chunk.created_at = Some(seen.created_at.unwrap_or_else(now));
        self.chunk.stage = Stage::Open;
        Ok(())
    }

    /// Looks for the batch at the provider until it is found, or is certain not to be there; whether it was found.
    async fn reconcile(&mut self) -> Result<bool, Stop> {
        let route = Arc::clone(&self.route);
        let finding = route.wire.finding();
        let mut strangers: Vec<String> = Vec::new();
        let looks = route.shared.settings.looks.clone().unwrap_or_else(|| route.wire.looks());
        for look in looks {
            sleep(look).await;
            let list = self.list().await;
            let claimed =
                |id: &str| strangers.iter().any(|stranger| stranger == id) || lock(&route.shared.claimed).contains(id);
            let (one, doubles) = match reconcile::find(finding, &self.chunk, &list, claimed) {
                Found::None => continue,
                Found::One(one, doubles) => (Some(one), doubles),
                Found::Several(candidates) => (self.prove(candidates, &mut strangers).await, Vec::new()),
            };
            for double in doubles {
                route.shared.note(format!("Batch {double} is a duplicate of {}; it is cancelled", self.chunk.nonce));
                let _ = self.call(route.wire.cancel(&double)).await;
            }
            let Some(seen) = one.and_then(|one| list.into_iter().find(|seen| seen.id == one)) else { continue };
            self.created(&seen, reconcile::name(finding)).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Which of several batches is this chunk's: their results tell, so their ends are waited for.
    async fn prove(&mut self, candidates: Vec<String>, strangers: &mut Vec<String>) -> Option<String> {
        for candidate in candidates {
            let mut wait = None;
            loop {
                let seen = self.call(self.route.wire.look(&candidate)).await.ok();
                let seen = seen.and_then(|(_, body)| self.route.wire.read_batch(&body));
                if let Some(seen) = seen.filter(|seen| self.has_ended(seen)) {
                    if self.source().are_of(&seen, &self.chunk.nonce).await {
                        return Some(candidate);
                    }
                    strangers.push(candidate);
                    break;
                }
                wait = Some(self.polling().next(wait, Duration::ZERO, fastrand::f64()));
                sleep(wait.unwrap_or_default()).await;
            }
        }
        None
    }

    /// The provider's batches back to before this chunk's create.
    async fn list(&mut self) -> Vec<Seen> {
        let route = Arc::clone(&self.route);
        let (mut list, mut after) = (Vec::new(), None);
        for _ in 0..PAGES {
            let mut failures = 0;
            let body = loop {
                match self.call(route.wire.list(after.as_deref())).await {
                    Ok((_, body)) => break body,
                    // Without a list nothing is certain: it is asked for until there is one.
                    Err(_) => {
                        failures += 1;
                        sleep(pause_after(failures)).await;
                    }
                }
            };
            let (page, next) = route.wire.read_list(&body, after.as_deref());
            let is_far_enough = reconcile::is_far_enough(&self.chunk, &page);
            list.extend(page);
            after = next;
            if after.is_none() || is_far_enough {
                break;
            }
        }
        list
    }
}

/// Whether an error says for certain that a request had no effect.
fn is_certain(error: &ProviderError) -> bool {
    match error {
        // A timeout of a proxy on the way is none of the provider's.
        ProviderError::Status { status, .. } => (400..500).contains(status) && *status != 408,
        ProviderError::Connection { contact, .. } | ProviderError::Timeout { contact, .. } => *contact == Contact::None,
        ProviderError::Request(_) => true,
        _ => false,
    }
}

fn unreadable(what: &str, body: &[u8]) -> ProviderError {
    ProviderError::Protocol {
        protocol: "batch",
        problem: format!("it does not describe {what}"),
        excerpt: crate::providers::error::excerpt(body),
    }
}

/// The path and the query of an address.
fn path_of(address: &str) -> Option<String> {
    let url = url::Url::parse(address).ok()?;
    Some(url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())))
}
