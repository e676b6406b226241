//! Questions of one run are answered in batches, whatever goes wrong.

use super::*;

#[tokio::test(start_paused = true)]
async fn questions_are_answered_in_batches() {
    let scene = Scene::new(&[]);
    let lane = scene.lane(3);
    let provider = scene.provider(&lane, "k").unwrap();
    assert_eq!(scene.ask(&provider, &FIVE).await, all(&FIVE));
    assert_eq!(lock(&scene.world).creates, 2);
    lane.at_rest().await;
    assert_eq!(lane.counts().collected, 5);
    lane.close(true).unwrap();
    assert_eq!(scene.stages(), [Stage::Settled, Stage::Settled]);
}

#[tokio::test(start_paused = true)]
async fn a_request_in_a_batch_takes_little() {
    let scene = Scene::new(&[]);
    let lane = scene.lane(3);
    let attempt = scene.provider(&lane, "k").unwrap().attempt(ask("a"));
    assert!(size_of_val(&*attempt) <= 512, "{} bytes", size_of_val(&*attempt));
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_each_question_is_paid_once() {
    for (faults, creates) in [
        (vec![Fault::Lost], 1),
        (vec![Fault::Made500], 1),
        (vec![Fault::NotMade500], 2),
        (vec![Fault::NotMade500, Fault::Lost], 2),
        (vec![Fault::QueueFull, Fault::QueueFull], 3),
        (vec![Fault::Fails], 2),
        (vec![Fault::Expires], 2),
        (vec![Fault::Cut], 1),
        (vec![Fault::Odd], 1),
    ] {
        let scene = Scene::new(&faults);
        let lane = scene.lane(10);
        let provider = scene.provider(&lane, "k").unwrap();
        assert_eq!(scene.ask(&provider, &FIVE).await, all(&FIVE), "{faults:?}");
        let mut world = lock(&scene.world);
        assert_eq!(world.creates, creates, "{faults:?}");
        world.paid.sort();
        assert_eq!(world.paid, ["\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"e\""], "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn states_that_nobody_knows_end_nothing() {
    for word in ["dreaming", "", "COMPLETED_LATER"] {
        let scene = Scene::new(&[Fault::Odd]);
        (lock(&scene.world).word, lock(&scene.world).lasts) = (Some(word), Some(Duration::from_secs(7200)));
        let lane = scene.lane(10);
        let provider = scene.provider(&lane, "k").unwrap();
        assert_eq!(scene.ask(&provider, &FIVE).await, all(&FIVE), "{word}");
        let world = lock(&scene.world);
        assert_eq!((world.creates, world.paid.len()), (1, 5), "{word}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_without_a_reply_is_looked_for_before_it_is_sent_again() {
    let scene = Scene::new(&[Fault::NotMade500]);
    let lane = scene.lane(10);
    let provider = scene.provider(&lane, "k").unwrap();
    let began = tokio::time::Instant::now();
    scene.ask(&provider, &FIVE).await;
    assert_eq!(lock(&scene.world).lists, 4);
    assert!(began.elapsed() >= Duration::from_secs(15 + 60 + 180), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn errors_reach_those_they_are_about() {
    let scene = Scene::new(&[Fault::BadLine]);
    let lane = scene.lane(10);
    let provider = scene.provider(&lane, "k").unwrap();
    let mut expected = all(&FIVE);
    expected[1] = Err(400);
    assert_eq!(scene.ask(&provider, &FIVE).await, expected);
    let scene = Scene::new(&[Fault::Forbidden]);
    let lane = scene.lane(10);
    let provider = scene.provider(&lane, "k").unwrap();
    assert_eq!(scene.ask(&provider, &FIVE).await, [Err(401), Err(401), Err(401), Err(401), Err(401)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_submitted_is_at_the_provider() {
    for round in 0..200_usize {
        let scene = Scene::new(&[]);
        let lane = scene.lane(2);
        let provider = scene.provider(&lane, "k").unwrap();
        let attempts: Vec<Attempt> = FIVE.iter().map(|text| provider.attempt(ask(text))).collect();
        let waiting = tokio::spawn(futures_util::future::join_all(attempts));
        while lane.counts().waiting < FIVE.len() {
            tokio::task::yield_now().await;
        }
        lane.flush();
        lane.submitted().await;
        assert_eq!(lock(&scene.world).creates, 3, "{round}");
        lane.detach();
        let _ = waiting.await;
    }
}
