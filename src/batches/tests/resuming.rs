//! What a run has left in batches is taken up by the next.

use super::*;

/// A run submits five requests in a batch, and ends; returns what became of its attempts.
async fn leave_behind(scene: &Scene) -> Vec<Result<Reply, ProviderError>> {
    let lane = scene.lane(10);
    let provider = scene.provider(&lane, "k").unwrap();
    let attempts: Vec<Attempt> = FIVE.iter().map(|text| provider.attempt(ask(text))).collect();
    let waiting = tokio::spawn(futures_util::future::join_all(attempts));
    tokio::time::sleep(Duration::from_millis(1)).await;
    lane.flush();
    lane.submitted().await;
    lane.detach();
    waiting.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_a_run_has_left_in_batches_the_next_one_collects() {
    let scene = Scene::new(&[]);
    assert!(leave_behind(&scene).await.iter().all(Result::is_err));
    assert_eq!(scene.stages(), [Stage::Open]);

    // Another key must not even list them.
    let lane = scene.lane(10);
    let message = scene.provider(&lane, "another").err().unwrap().to_string();
    assert!(message.contains("another API key") && message.contains("http://fake/v1"), "{message}");
    drop(lane);

    let lane = scene.lane(10);
    let provider = scene.provider(&lane, "k").unwrap();
    let mut questions = FIVE.to_vec();
    questions.push("new");
    assert_eq!(scene.ask(&provider, &questions).await, all(&questions));
    let world = lock(&scene.world);
    assert_eq!((world.creates, world.paid.len()), (2, 6));
}

#[tokio::test(start_paused = true)]
async fn replies_wait_in_the_ledger_for_whoever_asks() {
    let scene = Scene::new(&[]);
    for round in 0..3 {
        let lane = scene.lane(10);
        let provider = scene.provider(&lane, "k").unwrap();
        // In the second round they are not forgotten, as after a crash.
        assert_eq!(scene.ask(&provider, &FIVE).await, all(&FIVE));
        if round == 1 {
            lane.close(true).unwrap();
        }
    }
    assert_eq!(lock(&scene.world).paid.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_ended_keeps_replies_that_nobody_may_have_stored() {
    let scene = Scene::new(&[]);
    for is_complete in [false, false, true, true] {
        let lane = scene.lane(10);
        let provider = scene.provider(&lane, "k").unwrap();
        assert_eq!(scene.ask(&provider, &FIVE).await, all(&FIVE));
        lane.close(is_complete).unwrap();
    }
    assert_eq!(lock(&scene.world).paid.len(), 10, "asked again only after the third");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_nobody_knows_of_is_found_by_the_next_run() {
    let scene = Scene::new(&[Fault::Lost]);
    let lane = scene.lane(10);
    let provider = scene.provider(&lane, "k").unwrap();
    let attempts: Vec<Attempt> = FIVE.iter().map(|text| provider.attempt(ask(text))).collect();
    let waiting = tokio::spawn(futures_util::future::join_all(attempts));
    lock(&scene.world).is_listless = true;
    // Its batch is made, and nobody knows.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(lock(&scene.world).creates, 1);
    lock(&scene.world).is_listless = false;
    lane.detach();
    let _ = waiting.await;
    drop((provider, lane));
    assert_eq!(scene.stages(), [Stage::Creating]);
    let lane = scene.lane(10);
    let provider = scene.provider(&lane, "k").unwrap();
    assert_eq!(scene.ask(&provider, &FIVE).await, all(&FIVE));
    let world = lock(&scene.world);
    assert_eq!((world.creates, world.paid.len()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn results_that_are_gone_are_asked_for_once_more() {
    let scene = Scene::new(&[]);
    leave_behind(&scene).await;
    // A month later.
    lock(&scene.world).gone = 1;
    for _ in 0..2 {
        let lane = scene.lane(10);
        let provider = scene.provider(&lane, "k").unwrap();
        assert_eq!(scene.ask(&provider, &FIVE).await, all(&FIVE));
        let notes = lane.take_notes();
        let gone = "The results of batch batch_0 are gone at the provider; its requests are sent again";
        let is_first = lock(&scene.world).gone == 1;
        assert_eq!(notes.iter().filter(|note| *note == gone).count(), usize::from(is_first), "{notes:?}");
        // The run may be repeated before its results are stored.
        lane.close(false).unwrap();
        lock(&scene.world).gone = 0;
    }
    let world = lock(&scene.world);
    assert_eq!((world.creates, world.paid.len()), (2, 5));
}
