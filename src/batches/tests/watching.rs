//! How often providers are asked how batches are.

use tokio::time::Instant;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// The most questions of this kind in any hour.
fn most_in_an_hour(looked: &[(Instant, String)], kind: impl Fn(&str) -> bool) -> usize {
    let times: Vec<Instant> = looked.iter().filter(|(_, what)| kind(what)).map(|(at, _)| *at).collect();
    let within = |from: &Instant| times.iter().filter(|at| *at >= from && **at < *from + HOUR).count();
    times.iter().map(within).max().unwrap_or_default()
}

/// Asks so many questions, each in a batch of its own, which takes so long.
async fn requested(questions: usize, lasts: Duration, unlisted: Vec<usize>) -> (Scene, Vec<(Instant, String)>) {
    let scene = Scene::new(&[]);
    {
        let mut world = lock(&scene.world);
        (world.lasts, world.unlisted) = (Some(lasts), unlisted);
    }
    let lane = scene.lane(1);
    let provider = scene.provider(&lane, "k").unwrap();
    let texts: Vec<String> = (0..questions).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(scene.ask(&provider, &texts).await, all(&texts));
    let looked = lock(&scene.world).looked.clone();
    (scene, looked)
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_looked_at_sixty_times_an_hour_at_most() {
    let (_scene, looked) = requested(1, 5 * HOUR, Vec::new()).await;
    let most = most_in_an_hour(&looked, |_| true);
    assert!((40..=60).contains(&most), "{most}");
    assert!(looked.iter().all(|(_, what)| what == "batch_0"));
}

#[tokio::test(start_paused = true)]
async fn many_batches_are_looked_at_together() {
    let (_scene, looked) = requested(50, 5 * HOUR, Vec::new()).await;
    let most = most_in_an_hour(&looked, |what| what == "list");
    assert!((40..=60).contains(&most), "{most}");
    // The first few may be looked at before there are many.
    let by_itself = looked.iter().filter(|(_, what)| what != "list").count();
    assert!(by_itself <= 5, "{by_itself}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_no_list_shows_is_looked_at_by_itself() {
    let (_scene, looked) = requested(50, 5 * HOUR, vec![7]).await;
    assert!((40..=60).contains(&most_in_an_hour(&looked, |what| what == "list")));
    assert!((40..=60).contains(&most_in_an_hour(&looked, |what| what == "batch_7")));
    let others = looked.iter().filter(|(_, what)| what != "list" && what != "batch_7").count();
    assert!(others <= 5, "{others}");
}

#[tokio::test(start_paused = true)]
async fn lists_that_cannot_be_read_end_nothing() {
    let scene = Scene::new(&[]);
    lock(&scene.world).lasts = Some(HOUR);
    let lane = scene.lane(1);
    let provider = scene.provider(&lane, "k").unwrap();
    let texts = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let world = Arc::clone(&scene.world);
    tokio::spawn(async move {
        lock(&world).is_listless = true;
        tokio::time::sleep(3 * HOUR).await;
        lock(&world).is_listless = false;
    });
    assert_eq!(scene.ask(&provider, &texts).await, all(&texts));
    let notes = lane.take_notes();
    assert_eq!(notes.iter().filter(|note| note.contains("could not be read")).count(), texts.len(), "{notes:?}");
    assert_eq!(lock(&scene.world).paid.len(), texts.len());
}
