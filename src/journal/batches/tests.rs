//! What a ledger keeps, and who else may write meanwhile.

use super::*;
use crate::journal::options::SCHEMA_VERSION;
use crate::journal::record::{Entry, Reuse};
use crate::journal::{self, Durability, Options};
use std::time::Duration;

fn options() -> Options {
    Options {
        durability: Durability::Flush,
        busy_timeout: Duration::from_secs(5),
        reuse: Reuse::Success,
        package_version: "0".to_owned(),
        user_metadata: None,
    }
}

fn route() -> Route {
    let text = |text: &str| text.to_owned();
    let (provider, base_url) = (text("openai"), text("http://h/v1"));
    Route { account: [7; 16], provider, base_url, model: text("m"), endpoint: text("chat/completions") }
}

#[test]
fn a_chunk_is_there_again_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    let ledger = Ledger::open(&path, Format::Sqlite, &options()).unwrap();
    let keys = [Key([1; 16]), Key([2; 16]), Key([1; 16])];
    let id = ledger.plan("nonce", &route(), 100, &keys).unwrap();
    for news in [
        News::Uploading,
        News::Uploaded("file-1".to_owned()),
        News::Creating { skew: 1.5 },
        News::NotMade,
        News::Creating { skew: 2.0 },
    ] {
        ledger.note(id, &news).unwrap();
    }
    assert!(matches!(Ledger::open(&path, Format::Sqlite, &options()), Err(JournalError::Locked { .. })));
    drop(ledger);
    let ledger = Ledger::open(&path, Format::Sqlite, &options()).unwrap();
    let [chunk] = &ledger.chunks(false).unwrap()[..] else { panic!("one chunk") };
    assert_eq!((chunk.stage, chunk.tries, chunk.skew), (Stage::Creating, 2, 2.0));
    assert_eq!((chunk.file.as_deref(), &chunk.route), (Some("file-1"), &route()));
    let mut lines = 0;
    ledger.each_open_line(|_| lines += 1).unwrap();
    assert_eq!(lines, 3);
}

/// What packages check that know no batches: they read format 1.
fn opens_with_format_1(path: &Path) -> Result<(), JournalError> {
    let version: i64 =
        Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    if version > i64::from(SCHEMA_VERSION) {
        return Err(JournalError::Newer { path: path.to_owned(), found: version, known: SCHEMA_VERSION });
    }
    Ok(())
}

#[test]
fn a_store_is_for_older_packages_until_it_has_batches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    drop(journal::open(&path, Format::Sqlite, &options()).unwrap());
    opens_with_format_1(&path).unwrap();
    assert!(Ledger::view(&path, Format::Sqlite).unwrap().is_none());
    let ledger = Ledger::open(&path, Format::Sqlite, &options()).unwrap();
    ledger.plan("nonce", &route(), 100, &[Key([1; 16])]).unwrap();
    drop(ledger);
    let refused = opens_with_format_1(&path).unwrap_err().to_string();
    let says = "was written by a newer batch-llm (format 2; this version reads up to 1); upgrade batch-llm, or use another file";
    assert!(refused.ends_with(says), "{refused}");
    // This one opens both.
    drop(journal::open(&path, Format::Sqlite, &options()).unwrap());
    assert_eq!(Ledger::view(&path, Format::Sqlite).unwrap().unwrap().chunks(true).unwrap().len(), 1);
}

#[test]
fn replies_without_pause_do_not_keep_results_out_of_the_store() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    // Shorter than each of the transactions that it competes with.
    let options = Options { busy_timeout: Duration::from_millis(1), ..options() };
    let mut store = journal::open(&path, Format::Sqlite, &options).unwrap();
    let ledger = Ledger::open(&path, Format::Sqlite, &options).unwrap();
    let id = ledger.plan("nonce", &route(), 100, &[Key([1; 16])]).unwrap();
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Each of these changes the same line: a transaction that is long, of a file that stays small.
                let replies: Vec<_> = (0..20_000).map(|_| (0, 500, vec![b'x'; 1_000])).collect();
                while !is_over.load(SeqCst) {
                    ledger.answer(id, &replies).unwrap();
                    answered.fetch_add(1, SeqCst);
                }
            });
        }
        let written = (1..=5).try_for_each(|event| {
            while answered.load(SeqCst) < event * 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            store.backend.append(&mut vec![Entry::Event(event.to_string())])
        });
        is_over.store(true, SeqCst);
        written.unwrap();
    });
}

#[test]
fn results_that_are_fetched_twice_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("run.jsonl"), Format::Jsonl, &options()).unwrap();
    assert!(folder.path().join("run.jsonl.batches.db").exists());
    let id = ledger.plan("nonce", &route(), 100, &[Key([1; 16]), Key([2; 16]), Key([3; 16])]).unwrap();
    let bytes = |text: &str| text.as_bytes().to_vec();
    ledger.answer(id, &[(0, 200, bytes("a")), (1, 500, bytes("error"))]).unwrap();
    ledger.answer(id, &[(0, 200, bytes("other")), (1, 200, bytes("b"))]).unwrap();
    assert_eq!(ledger.reply(id, 0).unwrap(), Some((200, bytes("a"))));
    assert_eq!(ledger.reply(id, 1).unwrap(), Some((200, bytes("b"))));
    assert_eq!((ledger.reply(id, 2).unwrap(), ledger.waiting(id).unwrap()), (None, 2));
    assert_eq!(ledger.forget_unanswered(id).unwrap(), [(Key([3; 16]), 2)]);
    ledger.forget(id, &[0]).unwrap();
    let mut left = Vec::new();
    ledger.each_open_line(|line| left.push(line.line)).unwrap();
    assert_eq!(left, [1]);
    ledger.note(id, &News::Settled).unwrap();
    assert!(ledger.chunks(false).unwrap().is_empty());
    assert_eq!(ledger.chunks(true).unwrap().len(), 1);
}

#[test]
fn what_is_written_is_synced_whatever_the_durability_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    for durability in [Durability::Flush, Durability::Fsync] {
        let path = folder.path().join(format!("{durability:?}.db"));
        let ledger = Ledger::open(&path, Format::Sqlite, &Options { durability, ..options() }).unwrap();
        let pragma = |name: &'static str| {
            ledger.with("reading", |database| database.pragma_query_value(None, name, |row| row.get::<_, i64>(0)))
        };
        // FULL: each commit is on the disk before it returns.
        assert_eq!(pragma("synchronous").unwrap(), 2);
    }
}
