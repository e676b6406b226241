//! The first request goes by itself, before the first batch is made.

use super::*;

/// Asks five questions, where requests by themselves have these statuses.
async fn requested(live: &[u16]) -> (Scene, Vec<Result<String, u16>>) {
    let scene = Scene::new(&[]);
    lock(&scene.world).live = live.iter().copied().collect();
    let lane = scene.lane_with(Settings::default(), None);
    let provider = scene.provider(&lane, "k").unwrap();
    let answers = scene.ask(&provider, &FIVE).await;
    lane.at_rest().await;
    lane.close(true).unwrap();
    (scene, answers)
}

#[tokio::test(start_paused = true)]
async fn its_answer_is_that_of_its_question() {
    let (scene, answers) = requested(&[200]).await;
    assert_eq!(answers, all(&FIVE));
    let world = lock(&scene.world);
    assert_eq!((world.sent.len(), world.paid.len(), world.creates), (1, 4, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_fails_before_anything_is_uploaded() {
    let (scene, answers) = requested(&[400, 404, 400, 400, 400]).await;
    let refused = |answer: &Result<String, u16>| matches!(answer, Err(400 | 404));
    assert!(answers.iter().all(refused), "{answers:?}");
    let world = lock(&scene.world);
    assert_eq!((world.files.len(), world.creates), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_refused_holds_up_only_the_next() {
    let (scene, answers) = requested(&[400, 200]).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 4);
    let world = lock(&scene.world);
    assert_eq!((world.sent.len(), world.paid.len(), world.creates), (1, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_busy_holds_up_none() {
    let (scene, answers) = requested(&[503]).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 4);
    assert_eq!(lock(&scene.world).creates, 1);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_batch_has_answered_is_not_tried_again() {
    let (scene, _) = requested(&[200]).await;
    let is_proven = {
        let ledger = Ledger::open(&scene.path(), Format::Sqlite, &options()).unwrap();
        let [chunk] = &ledger.chunks(true).unwrap()[..] else { panic!("one chunk") };
        assert!(!ledger.has_answers(&chunk.route).unwrap(), "nothing was used, and its lines are forgotten");
        ledger.spend(chunk.id, crate::journal::batches::Used { input: 1, output: 1, cached: 0 }).unwrap();
        ledger.has_answers(&chunk.route).unwrap()
    };
    assert!(is_proven);
    let lane = scene.lane_with(Settings::default(), None);
    let provider = scene.provider(&lane, "k").unwrap();
    assert_eq!(scene.ask(&provider, &["f", "g"]).await, all(&["f", "g"]));
    assert_eq!(lock(&scene.world).sent.len(), 1);
}
