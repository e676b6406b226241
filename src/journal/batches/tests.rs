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
                // All of these are for the same line: a transaction that is long, of a file that stays small.
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

/// The replies that are passed on: lines and bodies.
fn passed_on(ledger: &Ledger, chunk: i64) -> Vec<(Key, u32, String)> {
    let (mut all, mut part) = (Vec::new(), 0);
    while let Some((next, replies)) = ledger.replies(chunk, part).unwrap() {
        part = next;
        all.extend(replies.into_iter().map(|(key, line, _, body)| (key, line, String::from_utf8(body).unwrap())));
    }
    all
}

#[test]
fn replies_are_passed_on_once_whatever_parts_they_came_in() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("run.db"), Format::Sqlite, &options()).unwrap();
    let keys: Vec<Key> = (0..100).map(|number| Key([number; 16])).collect();
    let (id, other) = (ledger.plan("a", &route(), 1, &keys).unwrap(), ledger.plan("b", &route(), 1, &keys).unwrap());
    let reply = |line: u32, status: u16| (line, status, format!("{line} {status}").into_bytes());
    // In reverse, all of them twice, some errors before their successes; of another chunk in between.
    for from in [75, 50, 25, 0] {
        let group: Vec<_> = (from..from + 25).rev().flat_map(|line| [reply(line, 500), reply(line, 200)]).collect();
        ledger.answer(id, &group).unwrap();
        ledger.answer(other, &[reply(from, 200)]).unwrap();
        ledger.answer(id, &group).unwrap();
        assert_eq!(ledger.reply(id, from).unwrap(), Some((200, format!("{from} 200").into_bytes())));
    }
    let mut all = passed_on(&ledger, id);
    all.sort();
    let expected = |line: u8| (Key([line; 16]), u32::from(line), format!("{line} 200"));
    assert_eq!(all, (0..100).map(expected).collect::<Vec<_>>());
    assert_eq!((ledger.waiting(id).unwrap(), ledger.waiting(other).unwrap()), (100, 4));
    // What is forgotten is not passed on, nor there; the rest is.
    ledger.forget(id, &(10..100).collect::<Vec<_>>()).unwrap();
    assert_eq!((ledger.reply(id, 9).unwrap().is_some(), ledger.reply(id, 10).unwrap()), (true, None));
    assert_eq!((passed_on(&ledger, id).len(), ledger.waiting(id).unwrap()), (10, 10));
    assert!(ledger.has_answers(&route()).unwrap());
    ledger.forget(id, &(0..10).collect::<Vec<_>>()).unwrap();
    let rows = |table: &'static str| {
        let count = format!("SELECT count(*) FROM {table} WHERE batch = ?1");
        ledger.with("reading", |database| database.query_row(&count, [id], |row| row.get::<_, i64>(0))).unwrap()
    };
    assert_eq!((rows("batch_requests"), rows("batch_replies")), (0, 0));
    assert_eq!(passed_on(&ledger, other).len(), 4);
    assert_eq!(ledger.forget_unanswered(other).unwrap().len(), 96);
}

#[test]
fn damaged_replies_end_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("run.db"), Format::Sqlite, &options()).unwrap();
    let id = ledger.plan("a", &route(), 1, &[Key([1; 16]), Key([2; 16])]).unwrap();
    ledger.answer(id, &[(0, 200, b"a".to_vec()), (1, 200, b"bc".to_vec())]).unwrap();
    let damage = |sql: &'static str| {
        ledger.with("writing", |database| database.execute(sql, [])).unwrap();
        ledger.note(id, &News::Ended).unwrap();
    };
    damage("UPDATE batch_replies SET bodies = x'61', heads = heads || x'00'");
    assert_eq!((ledger.reply(id, 0).unwrap(), ledger.reply(id, 1).unwrap()), (Some((200, b"a".to_vec())), None));
    assert_eq!(passed_on(&ledger, id).len(), 1);
    damage("UPDATE batch_replies SET heads = 7");
    assert!(passed_on(&ledger, id).is_empty());
    damage("UPDATE batch_requests SET requests = x'00', gone = x'ffffff'");
    assert!(passed_on(&ledger, id).is_empty());
    ledger.each_open_line(|line| panic!("{line:?}")).unwrap();
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
