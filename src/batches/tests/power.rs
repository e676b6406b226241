//! The power is cut before any request to the provider: what the ledger has on the disk by then is enough to pay for
//! nothing twice. `journal/batches/tests.rs` sees to it that what it writes is on the disk before it goes on.

use super::*;

/// Keeps the files of a ledger as they are. Half of the time there is something behind them that was never synced.
pub(super) fn keep(cut: &Cut, number: usize) {
    for end in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        let Ok(mut bytes) = std::fs::read(name(&cut.ledger)) else { continue };
        if end == "-wal" && number.is_multiple_of(2) {
            bytes.extend(std::iter::repeat_n(0xab, 5000));
        }
        std::fs::write(name(&cut.kept), bytes).unwrap();
    }
}

/// Asks until the power is cut before a request, and again with what is left; whether it was cut.
async fn cut_before(request: usize) -> bool {
    let scene = Scene::new(&[]);
    let kept = scene.folder.path().join("kept.db");
    let cut = Cut { before: request, ledger: scene.path(), kept: kept.clone(), has_happened: false };
    lock(&scene.world).cut = Some(cut);
    let lane = scene.lane(3);
    let provider = scene.provider(&lane, "k").unwrap();
    let requested = tokio::time::timeout(Duration::from_secs(7200), scene.ask(&provider, &FIVE)).await;
    lane.detach();
    drop((provider, lane));
    // What comes after the last reply, such as the deletion of files, nobody waits for.
    let was_cut = lock(&scene.world).cut.take().unwrap().has_happened;
    assert_eq!(requested.is_err(), was_cut && !requested.as_ref().is_ok_and(|answers| *answers == all(&FIVE)));
    if was_cut {
        let ledger = Ledger::open(&kept, Format::Sqlite, &options()).unwrap();
        let settings = Settings { size: 3, probe: false, ..Settings::default() };
        let lane = Lane::new(ledger, settings, None, Handle::current());
        let provider = scene.provider(&lane, "k").unwrap();
        assert_eq!(scene.ask(&provider, &FIVE).await, all(&FIVE), "{request}");
        lane.detach();
    }
    let mut world = lock(&scene.world);
    world.paid.sort();
    assert_eq!(world.paid, ["\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"e\""], "{request}");
    was_cut
}

#[tokio::test(start_paused = true)]
async fn nothing_is_paid_twice_when_the_power_is_cut_before_any_request() {
    let mut cuts = 0;
    while cut_before(cuts + 1).await {
        cuts += 1;
    }
    assert!(cuts >= 8, "two uploads, two creates, two looks, two results; cut {cuts} times");
}
