//! Where the provider's prompt cache has what questions begin with, they may cost less by themselves than in batches.

use super::*;
use crate::batches::costs::{Prices, Rates};
use crate::batches::provider::Marked;

const PRICES: Prices = Prices {
    live: Rates { input: 3.0, cached: 0.3, output: 15.0 },
    batch: Rates { input: 1.5, cached: 0.15, output: 7.5 },
};

/// A lane that chooses, where questions begin alike with so many tokens, of which so many are read.
struct Chosen {
    scene: Scene,
    lane: Lane,
}

impl Chosen {
    fn new(head: Option<(u32, u64)>, wanted: Wanted) -> Self {
        let scene = Scene::new(&[]);
        (lock(&scene.world).head, lock(&scene.world).live) = (head, std::iter::repeat_n(200, 1000).collect());
        let lane = scene.lane_with(Settings::default(), Some(wanted));
        Self { scene, lane }
    }

    fn client(&self) -> Arc<dyn Provider> {
        Arc::new(OfFake(Arc::clone(&self.scene.world), "k"))
    }

    /// Asks so many questions as the bridge does: those that are to go by themselves are asked again there. Returns how
    /// many went where.
    async fn ask(&self, prices: Option<Prices>, count: usize) -> (usize, usize) {
        let costs = KnownCosts { is_cheaper: Some(true), prices };
        let provider = self.lane.provider("openai", &self.client(), costs).unwrap();
        let auto = self.lane.auto().cloned().map(|auto| (auto, "m".to_owned()));
        let live = Marked { provider: self.client(), lane: "live", why: Some("cache".to_owned()), auto };
        let attempts = (0..count).map(|number| {
            let (provider, live, text) = (&provider, &live, format!("question {number}"));
            async move {
                let outcome = match provider.attempt(ask(&text)).await {
                    Err(ProviderError::Elsewhere("cache")) => live.attempt(ask(&text)).await,
                    other => other,
                };
                assert_eq!(outcome_of(outcome), Ok(text));
            }
        });
        futures_util::future::join_all(attempts).await;
        let world = lock(&self.scene.world);
        assert_eq!(world.sent.len() + world.paid.len(), count);
        (world.sent.len(), world.paid.len())
    }

    fn reasons(&self) -> Vec<(&'static str, u64)> {
        self.lane.auto().unwrap().reasons()
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_cached_makes_up_for_the_price_of_a_batch() {
    let chosen = Chosen::new(Some((4800, 4800)), Wanted { concurrency: 10.0, ..Wanted::default() });
    assert_eq!(chosen.ask(Some(PRICES), 200).await, (200, 0));
    // The first one measures, and the others go by themselves for what it has shown.
    assert_eq!(chosen.reasons(), [("cache", 199)]);
    assert_eq!(lock(&chosen.scene.world).creates, 0);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_to_be_gained_all_goes_into_batches() {
    for (head, prices) in [
        (None, Some(PRICES)),
        // Long answers, of which a cache has nothing.
        (Some((4800, 4800)), Some(Prices { live: Rates { output: 3000.0, ..PRICES.live }, ..PRICES })),
        (Some((4800, 4800)), None),
        (Some((4800, 4800)), Some(Prices { live: Rates { cached: 2.0, ..PRICES.live }, ..PRICES })),
    ] {
        let chosen = Chosen::new(head, Wanted { concurrency: 10.0, ..Wanted::default() });
        assert_eq!(chosen.ask(prices, 200).await, (1, 199), "{head:?}: the first goes by itself");
        assert_eq!(chosen.reasons(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_not_read_is_given_up() {
    let chosen = Chosen::new(Some((4800, 0)), Wanted { concurrency: 10.0, ..Wanted::default() });
    let (live, batched) = chosen.ask(Some(PRICES), 500).await;
    assert!((2..100).contains(&live) && live + batched == 500, "{live} {batched}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_changes_nothing_about_that() {
    let deadline = Some(Duration::from_secs(12 * 3600));
    let chosen = Chosen::new(Some((4800, 4800)), Wanted { deadline, concurrency: 10.0, ..Wanted::default() });
    let (live, batched) = chosen.ask(Some(PRICES), 200).await;
    assert_eq!((live, batched), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_first_request_nothing_is_known_of_caches() {
    let chosen = Chosen::new(Some((4800, 4800)), Wanted { concurrency: 10.0, ..Wanted::default() });
    let Chosen { scene, lane } = chosen;
    drop(lane);
    let lane = scene.lane_with(Settings { probe: false, ..Settings::default() }, Some(Wanted::default()));
    let unprobed = Chosen { scene, lane };
    assert_eq!(unprobed.ask(Some(PRICES), 50).await, (0, 50));
}
