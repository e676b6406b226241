//! The batch lane of one run: its ledger, its settings, and a [`Route`] for each strategy. The bridge makes one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;

use super::auto::{Auto, Wanted};
use super::chunk::digest;
use super::costs::KnownCosts;
use super::probing::Probing;
use super::provider::{Choice, InBatches};
use super::route::{Conditions, Route};
use super::shared::{BatchLoad, Counts, Settings, Shared, lock};
use super::stalls::Stalls;
pub use super::terms::LaneError;
use super::terms::{Found, Terms, batchable};
use crate::journal::batches::{self, Chunk, Ledger};
use crate::journal::error::JournalError;
use crate::providers::Provider;

/// How long a run that ends waits for chunks to be settled.
const SETTLING: Duration = Duration::from_secs(10);

/// See the module.
pub struct Lane {
    shared: Arc<Shared>,
    routes: Mutex<Vec<Arc<Route>>>,
    /// Where the choice is ours.
    auto: Option<Arc<Auto>>,
    /// Whether such questions are known to be answered.
    is_proven: AtomicBool,
}

impl Lane {
    /// A lane with this ledger.
    pub fn new(ledger: Ledger, settings: Settings, auto: Option<Wanted>, runtime: Handle) -> Self {
        let shared = Shared {
            ledger: Arc::new(ledger),
            settings,
            runtime,
            notes: Mutex::default(),
            claimed: Mutex::default(),
            watches: Mutex::default(),
            given: Mutex::default(),
            spent: Mutex::default(),
            spool: OnceLock::new(),
        };
        let auto = auto.map(|wanted| Arc::new(Auto::new(wanted)));
        Self { shared: Arc::new(shared), routes: Mutex::default(), auto, is_proven: AtomicBool::new(false) }
    }

    /// A provider whose questions take this lane. `costs`: what is known of what batches cost.
    ///
    /// # Errors
    /// When its provider has no batches, or another key made some that have not ended.
    pub fn provider(&self, name: &str, client: &Arc<dyn Provider>, costs: KnownCosts) -> Result<InBatches, LaneError> {
        let found = batchable(name, client)?;
        let choice = self.auto.as_ref().map(|auto| {
            let terms = Terms::of(name, &*found.1, found.0.model(), costs, Some(&self.shared.ledger))?;
            let measuring = Probing::new(self.shared.settings.probe && terms.prices.is_some());
            Ok::<_, JournalError>(Choice { auto: Arc::clone(auto), terms, measuring })
        });
        let choice = choice.transpose()?;
        // Without a deadline nothing is lost by waiting for a batch that does not end.
        let timed = choice.as_ref().filter(|choice| choice.auto.has_deadline());
        let stalls = Stalls::new(timed.map(|choice| choice.terms.lengths.late()));
        let route = self.route(name, found, stalls)?;
        Ok(InBatches::new(route, Arc::clone(client), choice))
    }

    /// Where the choice is ours, what was chosen.
    pub fn auto(&self) -> Option<&Arc<Auto>> {
        self.auto.as_ref()
    }

    /// Takes requests out of batches if they could not be sent otherwise in time any more: no more than necessary.
    pub async fn look_at_time(&self) {
        let Some(auto) = &self.auto else { return };
        auto.watch();
        let routes = self.routes();
        let load = routes.iter().fold(BatchLoad::default(), |sum, route| {
            let BatchLoad { in_batches, settling } = route.load();
            BatchLoad { in_batches: sum.in_batches + in_batches, settling: sum.settling + settling }
        });
        let settle = routes.iter().map(|route| route.wire.settling()).max().unwrap_or_default();
        let mut excess = auto.excess(settle, load);
        if excess > 0 && auto.is_first_time() {
            let all = load.in_batches;
            self.shared.note(format!(
                "The deadline is near: batches are cancelled as far as necessary; {all} requests are waiting in them"
            ));
        }
        for route in routes {
            if excess > 0 {
                excess = excess.saturating_sub(route.take_back(excess).await);
            }
        }
    }

    /// The way of a strategy's questions, and for the batches that earlier runs have left of them.
    ///
    /// # Errors
    /// When another key made batches there that have not ended.
    fn route(&self, provider: &str, (client, wire): Found, stalls: Stalls) -> Result<Arc<Route>, LaneError> {
        let (path, base_url) = (client.path(), client.base_url());
        let account = digest(&[provider.as_bytes(), base_url.as_bytes(), &client.key()].join(&b"\0"[..])).0;
        let (provider, model) = (provider.to_owned(), client.model().to_owned());
        let of = batches::Route { account, provider, base_url, model, endpoint: path };
        let chunks = self.shared.ledger.chunks(true)?;
        if let Some(other) = chunks.iter().find(|chunk| is_of_other_key(chunk, &of)) {
            return Err(LaneError::OtherAccount(other_key(other)));
        }
        lock(&self.shared.claimed).extend(chunks.iter().filter_map(|chunk| chunk.batch.clone()));
        let is_needed = self.shared.settings.probe
            && !self.is_proven.load(Ordering::Relaxed)
            && !self.shared.ledger.has_answers(&of)?;
        let conditions = Conditions { probing: Probing::new(is_needed), stalls };
        let route = Route::new(Arc::clone(&self.shared), client, wire, of, conditions);
        route.take_up(chunks)?;
        lock(&self.routes).push(Arc::clone(&route));
        Ok(route)
    }

    /// Such questions are known to be answered: none needs to go by itself before the first batch.
    pub fn proven(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
        self.routes().iter().for_each(|route| route.probing.ended(None));
    }

    /// Sends all chunks as they are; whoever adds no more lines calls this.
    pub fn flush(&self) {
        self.routes().iter().for_each(|route| route.flush());
    }

    /// Waits until all lines are in batches, or cannot be.
    pub async fn submitted(&self) {
        for route in self.routes() {
            route.submitted().await;
        }
    }

    /// Lets go of everything: batches stay at their providers, and whoever waits is told so.
    pub fn detach(&self) {
        self.routes().iter().for_each(|route| route.detach());
    }

    /// Asks providers to cancel all batches; what is done by then is collected as usual.
    pub async fn cancel(&self) {
        for route in self.routes() {
            route.cancel("user").await;
        }
    }

    /// Waits for chunks whose results are here to be settled, but not long.
    pub async fn at_rest(&self) {
        let at_rest = async {
            for route in self.routes() {
                route.at_rest().await;
            }
        };
        let _ = tokio::time::timeout(SETTLING, at_rest).await;
    }

    /// Lets go of everything, and closes the ledger. `is_complete`: what came of all replies that were passed on is on the
    /// disk, so that their lines are forgotten. Where a run was ended, somebody may have got a reply and not have lived to
    /// make a result of it: then all lines stay, for whoever asks again.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn close(&self, is_complete: bool) -> Result<(), JournalError> {
        self.detach();
        if !is_complete {
            self.shared.ledger.close();
            return Ok(());
        }
        let given = std::mem::take(&mut *lock(&self.shared.given));
        let spent = std::mem::take(&mut *lock(&self.shared.spent));
        let ledger = &self.shared.ledger;
        let written = given
            .into_chunks()
            .try_for_each(|(chunk, lines)| ledger.forget(chunk, &lines))
            .and_then(|()| spent.into_iter().try_for_each(|(chunk, used)| ledger.spend(chunk, used)));
        ledger.close();
        written
    }

    /// What the user is to know, since this was last called.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.notes))
    }

    /// The numbers of all routes.
    pub fn counts(&self) -> Counts {
        self.routes().iter().fold(Counts::default(), |sum, route| {
            let counts = route.counts();
            Counts {
                filling: sum.filling + counts.filling,
                sending: sum.sending + counts.sending,
                open: sum.open + counts.open,
                batches: sum.batches + counts.batches,
                collected: sum.collected + counts.collected,
                waiting: sum.waiting + counts.waiting,
                running: sum.running + counts.running,
                writing: sum.writing + counts.writing,
            }
        })
    }

    fn routes(&self) -> Vec<Arc<Route>> {
        lock(&self.routes).clone()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.detach();
        self.shared.ledger.close();
    }
}

/// Whether a chunk that has not ended is at the same place for the same model, but was sent with another key.
fn is_of_other_key(chunk: &Chunk, route: &batches::Route) -> bool {
    chunk.stage.may_be_at_provider()
        && (&chunk.route.provider, &chunk.route.base_url, &chunk.route.model)
            == (&route.provider, &route.base_url, &route.model)
        && chunk.route.account != route.account
}

fn other_key(chunk: &Chunk) -> String {
    let since = jiff::Timestamp::from_second(whole(chunk.planned_at)).map(|at| at.to_string()).unwrap_or_default();
    format!(
        "the store has an open batch of {} requests for {:?} at {} ({}), created with another API key at {since}; use \
         the key of that account to collect it, or use another store",
        chunk.lines, chunk.route.model, chunk.route.provider, chunk.route.base_url
    )
}

#[allow(clippy::cast_possible_truncation)]
fn whole(seconds: f64) -> i64 {
    seconds as i64
}
