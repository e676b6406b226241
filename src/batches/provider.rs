//! A provider whose questions wait in batches, and one whose questions were meant to.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::auto::{Auto, Begins, Place};
use super::chunk::digest;
use super::lines::LineOutcome;
use super::plan::Why;
use super::probing::Probing;
use super::route::{Entered, Route};
use super::terms::Terms;
use crate::providers::provider::Attempt;
use crate::providers::reply::Extra;
use crate::providers::{Ask, Provider, ProviderError, Reply, status};

/// Where the choice between a batch and a request by itself is ours.
pub struct Choice {
    /// Chooses.
    pub auto: Arc<Auto>,
    /// What is known of its batches.
    pub terms: Terms,
    /// Where a prompt cache may make up for the price of a batch, one request goes by itself to find that out.
    pub(super) measuring: Probing,
}

struct Inner {
    route: Arc<Route>,
    /// Sends by itself.
    live: Arc<dyn Provider>,
    choice: Option<Choice>,
}

/// See the module.
pub struct InBatches(Arc<Inner>);

impl InBatches {
    /// `choice`: none, where all goes into batches.
    pub fn new(route: Arc<Route>, live: Arc<dyn Provider>, choice: Option<Choice>) -> Self {
        Self(Arc::new(Inner { route, live, choice }))
    }
}

impl Provider for InBatches {
    fn attempt(&self, ask: Ask) -> Attempt {
        Box::pin(Arc::clone(&self.0).ask(ask))
    }

    fn defers(&self) -> bool {
        true
    }

    fn notice(&self, asks: &[&Ask]) {
        if self.0.choice.as_ref().is_some_and(|choice| choice.terms.prices.is_some()) {
            self.0.live.notice(asks);
        }
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
            let is_new = !self.route.knows(key.0);
            let came_back = self.route.came_back(key.0);
            self.choice.iter().filter(|_| !came_back).for_each(|choice| choice.auto.arrives());
            let is_cheaper = self.choice.as_ref().is_none_or(|choice| choice.terms.is_cheaper);
            let begins = if is_new && is_cheaper { self.begins(&mut ask, key.1.len()) } else { None };
            if is_new && is_cheaper && !self.route.probing.is_over() {
                // In a box, as what follows, for few requests are any.
                if let Some(_turn) = Box::pin(self.route.probing.turn()).await {
                    return Box::pin(self.probe(ask, begins)).await;
                }
            }
            if let Some(choice) = self.choice.as_ref().filter(|_| is_new) {
                if begins.is_some()
                    && !choice.auto.knows_usual(&choice.terms.model)
                    && let Some(_turn) = Box::pin(choice.measuring.turn()).await
                {
                    return Box::pin(self.probe(ask, begins)).await;
                }
                let place = choice.auto.place(&choice.terms, begins, || self.route.load());
                match Box::pin(place).await {
                    Place::Batch => {}
                    Place::Probe => return Box::pin(self.probe(ask, begins)).await,
                    // It was in a batch that has ended without an answer.
                    Place::Live(_) if came_back => return Err(choice.elsewhere(Why::Late)),
                    Place::Live(why) => return Err(choice.elsewhere(why)),
                }
            }
            let entered = self.route.enter(key.0, &key.1, ask.deferral.as_ref());
            drop(key);
            let reported = match entered {
                Entered::Waits(reported) => reported,
                Entered::Deferred => return Err(ProviderError::Deferred),
                Entered::GivenUp => break,
                Entered::Unfit(problem) => {
                    return Err(match &self.choice {
                        Some(choice) => choice.elsewhere(Why::Unfit),
                        None => ProviderError::Request(problem),
                    });
                }
            };
            match reported.await {
                Ok(LineOutcome::Reply(answered)) => return self.route.read(answered),
                Ok(LineOutcome::Again) => {}
                Ok(LineOutcome::Failed(error)) => return Err(error),
                // The run is over: nobody hears this.
                Ok(LineOutcome::Detached) | Err(_) => break,
            }
        }
        if let Some(choice) = &self.choice {
            return Err(choice.elsewhere(Why::Late));
        }
        let body =
            b"{\"error\":{\"message\":\"the batches that contained this request ended without an answer to it\"}}";
        Err(status::read(500, &http::HeaderMap::new(), body))
    }

    /// What a question and others begin with, if a cache of that may make up for the price of a batch. `length`: of its
    /// body, bytes.
    fn begins(&self, ask: &mut Ask, length: usize) -> Option<Begins> {
        self.choice.as_ref()?.terms.prices?;
        // As a line of a batch it had none.
        ask.plan = OnceLock::new();
        let head = self.live.head(ask)?;
        // Of an image, the length says nothing.
        #[allow(clippy::cast_precision_loss)]
        let input = (!ask.has_media()).then_some(length as f64 / 4.0);
        Some(Begins { head, input })
    }

    /// Asks by itself: whether such requests are answered, how long that takes, and what they use.
    async fn probe(&self, ask: Ask, begins: Option<Begins>) -> Result<Reply, ProviderError> {
        let began = Instant::now();
        let outcome = self.live.attempt(ask).await;
        if let Some(choice) = &self.choice {
            choice.auto.probed(began.elapsed());
            if let Ok(reply) = &outcome {
                choice.auto.used(&choice.terms.model, &reply.usage, begins.map(|begins| begins.head));
            }
            choice.measuring.ended(outcome.as_ref().err());
        }
        self.route.probing.ended(outcome.as_ref().err());
        outcome.map(|reply| marked(reply, "live", Some("probe")))
    }
}

impl Choice {
    fn elsewhere(&self, why: Why) -> ProviderError {
        self.auto.goes_live(why);
        ProviderError::Elsewhere(why.name())
    }
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
    /// Hears of the ends of requests that were meant for batches, of this model.
    pub auto: Option<(Arc<Auto>, String)>,
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
        let head = self.auto.as_ref().and_then(|_| self.provider.head(&ask));
        let attempt = self.provider.attempt(ask);
        let (lane, why, auto) = (self.lane, self.why.clone(), self.auto.clone());
        Box::pin(async move {
            let outcome = attempt.await;
            if let Some((auto, model)) = auto.filter(|_| !outcome.as_ref().is_err_and(ProviderError::is_retryable)) {
                outcome.iter().for_each(|reply| auto.used(&model, &reply.usage, head));
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
