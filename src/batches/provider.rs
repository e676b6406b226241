//! A provider whose questions wait in batches, and one whose questions were meant to.

use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

use super::auto::{Auto, Place};
use super::chunk::digest;
use super::lines::Told;
use super::plan::{Lengths, Why};
use super::route::{Entered, Route};
use crate::providers::provider::Attempt;
use crate::providers::reply::Extra;
use crate::providers::{Ask, Provider, ProviderError, Reply, status};

/// Where the choice between a batch and a request by itself is ours.
pub struct Choice {
    /// Chooses.
    pub auto: Arc<Auto>,
    /// Sends by itself.
    pub live: Arc<dyn Provider>,
    /// Whether batches cost less.
    pub is_cheaper: bool,
    /// How long they take.
    pub lengths: Lengths,
}

struct Inner {
    route: Arc<Route>,
    choice: Option<Choice>,
}

/// See the module.
pub struct InBatches(Arc<Inner>);

impl InBatches {
    /// `choice`: none, where all goes into batches.
    pub fn new(route: Arc<Route>, choice: Option<Choice>) -> Self {
        Self(Arc::new(Inner { route, choice }))
    }
}

impl Provider for InBatches {
    fn attempt(&self, ask: Ask) -> Attempt {
        Box::pin(Arc::clone(&self.0).ask(ask))
    }

    fn defers(&self) -> bool {
        true
    }
}

impl Inner {
    async fn ask(self: Arc<Self>, mut ask: Ask) -> Result<Reply, ProviderError> {
        loop {
            let key = {
                let body = self.route.client().line(&mut ask)?;
                (digest(&body), body)
            };
            // What is paid for already is waited for.
            if let Some(choice) = self.choice.as_ref().filter(|_| !self.route.knows(key.0)) {
                let settle = self.route.settling();
                let place = choice.auto.place(&choice.lengths, settle, choice.is_cheaper, || self.route.waiting());
                match Box::pin(place).await {
                    Place::Batch => {}
                    // In a box, for few requests are any.
                    Place::Probe => return Box::pin(probe(choice, ask)).await,
                    Place::Live(why) => return Err(choice.elsewhere(why)),
                }
            }
            let entered = self.route.enter(key.0, &key.1, ask.deferral.as_ref());
            drop(key);
            let told = match entered {
                Entered::Waits(told) => told,
                Entered::Deferred => return Err(ProviderError::Deferred),
                Entered::GivenUp => break,
                Entered::Unfit(problem) => {
                    return Err(match &self.choice {
                        Some(choice) => choice.elsewhere(Why::Unfit),
                        None => ProviderError::Request(problem),
                    });
                }
            };
            match told.await {
                Ok(Told::Reply(answered)) => return self.route.read(answered),
                Ok(Told::Again) => {}
                Ok(Told::Failed(error)) => return Err(error),
                // The run is over: nobody hears this.
                Ok(Told::Detached) | Err(_) => break,
            }
        }
        if let Some(choice) = &self.choice {
            return Err(choice.elsewhere(Why::Late));
        }
        let body =
            b"{\"error\":{\"message\":\"the batches that contained this request ended without an answer to it\"}}";
        Err(status::read(500, &http::HeaderMap::new(), body))
    }
}

impl Choice {
    fn elsewhere(&self, why: Why) -> ProviderError {
        self.auto.goes_live(why);
        ProviderError::Elsewhere(why.name())
    }
}

/// Asks by itself, and measures how long that takes.
async fn probe(choice: &Choice, ask: Ask) -> Result<Reply, ProviderError> {
    let began = Instant::now();
    let outcome = choice.live.attempt(ask).await;
    choice.auto.probed(began.elapsed());
    outcome.map(|reply| marked(reply, "live", Some("probe")))
}

fn marked(mut reply: Reply, lane: &'static str, why: Option<&str>) -> Reply {
    reply.extras.push(("lane", Extra::Text(lane.to_owned())));
    reply.extras.extend(why.map(|why| ("lane_reason", Extra::Text(why.to_owned()))));
    reply
}

/// A provider whose replies say which lane they took, and why.
pub struct Marked {
    /// Answers.
    pub provider: Arc<dyn Provider>,
    /// The lane.
    pub lane: &'static str,
    /// Why it was not another one.
    pub why: Option<String>,
    /// Hears of the ends of requests that were meant for batches.
    pub auto: Option<Arc<Auto>>,
}

/// A provider that another one takes the place of at some time.
pub struct Until {
    /// Answers until then.
    pub first: Arc<dyn Provider>,
    /// Answers after that.
    pub then: Arc<dyn Provider>,
    /// When that is.
    pub end: Instant,
}

impl Provider for Until {
    fn attempt(&self, ask: Ask) -> Attempt {
        if Instant::now() < self.end { self.first.attempt(ask) } else { self.then.attempt(ask) }
    }

    fn stream_timeout(&self, is_followed: bool) -> Option<f64> {
        self.first.stream_timeout(is_followed)
    }
}

impl Provider for Marked {
    fn attempt(&self, ask: Ask) -> Attempt {
        let attempt = self.provider.attempt(ask);
        let (lane, why, auto) = (self.lane, self.why.clone(), self.auto.clone());
        Box::pin(async move {
            let outcome = attempt.await;
            if let Some(auto) = auto.filter(|_| !outcome.as_ref().is_err_and(ProviderError::is_retryable)) {
                auto.ended();
            }
            outcome.map(|reply| marked(reply, lane, why.as_deref()))
        })
    }

    fn stream_timeout(&self, is_followed: bool) -> Option<f64> {
        self.provider.stream_timeout(is_followed)
    }

    fn has_heads(&self) -> bool {
        self.provider.has_heads()
    }

    fn notice(&self, asks: &[&Ask]) {
        self.provider.notice(asks);
    }

    fn head(&self, ask: &Ask) -> Option<crate::providers::plan::Head> {
        self.provider.head(ask)
    }

    fn begins_with(&self, ask: &Ask, base: u64) -> bool {
        self.provider.begins_with(ask, base)
    }

    fn hold(&self) {
        self.provider.hold();
    }

    fn release(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.provider.release()
    }
}
