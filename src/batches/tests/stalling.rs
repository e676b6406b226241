//! A batch that makes no progress keeps others from being made, where there is a deadline.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A lane with batches of one question each, and this deadline; none: everything goes into batches whenever they end.
fn lane(scene: &Scene, deadline: Option<Duration>) -> Arc<Lane> {
    let settings = Settings { size: 1, probe: false, ..Settings::default() };
    let wanted = Wanted { deadline, rate: Some(1.0), concurrency: 10.0, ..Wanted::default() };
    let lane = Arc::new(scene.lane_with(settings, Some(wanted)));
    let watched = Arc::downgrade(&lane);
    tokio::spawn(async move {
        while let Some(lane) = watched.upgrade() {
            lane.look_at_time().await;
            drop(lane);
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
    lane
}

/// Asks in the background: what came of it, and when.
fn requested(provider: &InBatches, text: &'static str) -> tokio::task::JoinHandle<(Result<String, u16>, Duration)> {
    let (attempt, began) = (provider.attempt(ask(text)), tokio::time::Instant::now());
    tokio::spawn(async move { (outcome_of(attempt.await), began.elapsed()) })
}

fn lasts(scene: &Scene, hours: u32) {
    lock(&scene.world).lasts = Some(hours * HOUR);
}

fn creates(scene: &Scene) -> usize {
    lock(&scene.world).creates
}

#[tokio::test(start_paused = true)]
async fn no_other_is_made_until_one_ends() {
    let scene = Scene::new(&[]);
    let lane = lane(&scene, Some(12 * HOUR));
    let provider = scene.provider(&lane, "k").unwrap();
    lasts(&scene, 4);
    let first = requested(&provider, "a");
    tokio::time::sleep(HOUR).await;
    // It takes no longer than others do.
    let second = requested(&provider, "b");
    tokio::time::sleep(HOUR).await;
    assert_eq!((creates(&scene), lane.take_notes()), (2, Vec::new()));
    let third = requested(&provider, "c");
    tokio::time::sleep(HOUR + HOUR / 2).await;
    assert_eq!(creates(&scene), 2);
    assert!(lane.take_notes()[0].contains("no other is created until one ends"));
    lasts(&scene, 1);
    for (requested, text, hours) in [(first, "a", 4), (second, "b", 5), (third, "c", 4)] {
        let (answer, after) = requested.await.unwrap();
        assert_eq!(answer.as_deref(), Ok(text));
        assert!((hours - 1) * HOUR < after && after < hours * HOUR + HOUR / 4, "{text} {after:?}");
    }
    let world = lock(&scene.world);
    assert_eq!((world.creates, world.paid.len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_that_is_sent_otherwise_at_the_last_moment() {
    let scene = Scene::new(&[]);
    let lane = lane(&scene, Some(12 * HOUR));
    let provider = scene.provider(&lane, "k").unwrap();
    lasts(&scene, 1000);
    let first = requested(&provider, "a");
    tokio::time::sleep(3 * HOUR).await;
    let second = requested(&provider, "b");
    // The second is in no batch, and the first one's is cancelled without an answer to it.
    let (outcome, after) = second.await.unwrap();
    assert_eq!((outcome, creates(&scene)), (Err(1), 1));
    assert!(8 * HOUR < after && after < 9 * HOUR, "{after:?}");
    drop(first);
    assert!(lane.auto().unwrap().reasons().iter().any(|(why, _)| *why == "late"));
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_others_are_made() {
    let scene = Scene::new(&[]);
    let lane = lane(&scene, None);
    let provider = scene.provider(&lane, "k").unwrap();
    lasts(&scene, 10);
    let first = requested(&provider, "a");
    tokio::time::sleep(3 * HOUR).await;
    let second = requested(&provider, "b");
    tokio::time::sleep(HOUR).await;
    assert_eq!(creates(&scene), 2);
    for requested in [first, second] {
        assert!(requested.await.unwrap().0.is_ok());
    }
}
