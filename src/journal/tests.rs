//! Journals end to end: what is written is found, whatever happens to the file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::cache::{self, Bounds};
use super::error::JournalError;
use super::fingerprint::Fingerprint;
use super::place::{Format, format_of};
use super::record::{Entry, Head, Key, Kind, Reuse, Spent, Stored, now};
use super::writer::{News, Writer};
use super::{About, Durability, Opened, Options, View, open};

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("batch-llm-journal-{}-{:x}", std::process::id(), fastrand::u64(..));
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir(&folder.0).unwrap();
        folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options() -> Options {
    Options {
        durability: Durability::Flush,
        busy_timeout: Duration::from_millis(200),
        reuse: Reuse::Success,
        package_version: "0.0.0".to_owned(),
        user_metadata: Some(r#"{"a":{"b":1}}"#.to_owned()),
    }
}

fn key(number: u64) -> Key {
    let mut fingerprint = Fingerprint::new("test");
    fingerprint.raw(number.to_string().as_bytes());
    fingerprint.key()
}

fn record(number: u64) -> Stored {
    let head = Head {
        kind: Kind::Item,
        run: 0,
        key: key(number),
        identity: 7,
        item_id: format!("a \"id\",\"result\":{number}\n"),
        submission_index: number,
        recorded_at: now(),
        success: true,
        error_category: None,
        reuse: Reuse::Success,
        spent: Spent { input_tokens: 3, output_tokens: number, cached_input_tokens: 1, cost: Some(0.1) },
    };
    Stored { head, body: format!(r#"{{"output":"text {number} }}}}","n":{{"result":[]}}}}"#) }
}

fn add(opened: &mut Opened, records: impl IntoIterator<Item = Stored>) {
    let mut group = vec![Entry::Identity(7, r#"{"model":{"x":{}}}"#.to_owned())];
    group.extend(records.into_iter().map(|record| Entry::Record(Box::new(record))));
    opened.backend.append(&mut group).unwrap();
}

fn all(path: &Path, format: Format) -> Result<(About, Vec<Stored>), JournalError> {
    let mut found = Vec::new();
    let about = View::new(path, format)?.scan(true, None, &mut |_, head, body| {
        found.push(Stored { head, body });
        Ok::<_, JournalError>(())
    })?;
    Ok((about, found))
}

const BOTH: [(Format, &str); 2] = [(Format::Sqlite, "new/a.db"), (Format::Jsonl, "new/a.jsonl")];

#[test]
fn what_bounded_a_run_over_time_takes_one_place_for_each_run() {
    for (format, name) in BOTH {
        let folder = Folder::new();
        let path = folder.file(name);
        let mut run = open(&path, format, &options()).unwrap();
        add(&mut run, [record(1)]);
        run.backend.close().unwrap();
        assert_eq!(all(&path, format).unwrap().0.bound_over_time, [], "older stores have none");
        drop(run);
        let text = |number: u64| format!(r#"{{"seconds":{{"workers":[{number}]}}}}"#);
        for number in 2..=3 {
            let mut run = open(&path, format, &options()).unwrap();
            let mut group = vec![Entry::BoundOverTime(text(0)), Entry::BoundOverTime(text(number))];
            run.backend.append(&mut group).unwrap();
            run.backend.close().unwrap();
        }
        let (about, found) = all(&path, format).unwrap();
        assert_eq!(about.bound_over_time, [(2, text(2)), (3, text(3))]);
        assert_eq!((about.events.len(), about.repairs.damaged, found.len()), (0, 0, 1));
        let mut run = open(&path, format, &options()).unwrap();
        run.backend.append(&mut vec![Entry::BoundOverTime(format!("[{}]", "1,".repeat(1 << 17)))]).unwrap();
        run.backend.close().unwrap();
        assert_eq!(all(&path, format).unwrap().0.bound_over_time.len(), 2, "one that is too long is not read");
    }
}

#[test]
fn what_is_written_is_found() {
    for (format, name) in BOTH {
        let folder = Folder::new();
        let path = folder.file(name);
        let mut first = open(&path, format, &options()).unwrap();
        assert_eq!(first.index.count(), 0);
        let failed = Stored {
            head: Head {
                success: false,
                reuse: Reuse::Failure,
                error_category: Some("timeout".into()),
                ..record(3).head
            },
            ..record(3)
        };
        let attempt = Stored { head: Head { kind: Kind::Attempt, ..failed.head.clone() }, body: String::new() };
        let attempt = Stored { body: if format == Format::Jsonl { "null".into() } else { String::new() }, ..attempt };
        add(&mut first, [record(1), record(2), failed.clone(), attempt.clone()]);
        // While it is in use, and after.
        for closed in [false, true] {
            if closed {
                first.backend.close().unwrap();
            }
            let (about, found) = all(&path, format).unwrap();
            assert_eq!((about.runs, about.repairs), (1, super::Repairs::default()));
            assert!(about.created_at > 1e9);
            assert_eq!(about.user_metadata.as_deref(), Some(r#"{"a":{"b":1}}"#));
            assert_eq!(about.identities, [(7, r#"{"model":{"x":{}}}"#.to_owned())]);
            assert_eq!(found.len(), 4);
            for (found, wanted) in found.iter().zip([record(1), record(2), failed.clone(), attempt.clone()]) {
                let head = Head { run: 1, recorded_at: found.head.recorded_at, ..wanted.head };
                assert_eq!((&found.head, &found.body), (&head, &wanted.body));
            }
        }
        drop(first);
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
        let mut second = open(&path, format, &options()).unwrap();
        assert_eq!(second.index.count(), 2);
        let place = second.index.claim(key(2), "?").unwrap();
        assert_eq!(second.reader.read(place).unwrap().unwrap().body, record(2).body);
        assert_eq!(second.index.claim(key(2), "?"), None);
        assert_eq!(second.index.claim(key(3), "?"), None);
        drop(second);
        let mut third = open(&path, format, &Options { reuse: Reuse::Failure, ..options() }).unwrap();
        assert!(third.index.claim(key(3), "?").is_some());
        assert_eq!(all(&path, format).unwrap().0.runs, 3);
    }
}

#[test]
fn a_torn_last_line_costs_itself_alone() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl");
    let mut journal = open(&path, Format::Jsonl, &options()).unwrap();
    add(&mut journal, (0..5).map(record));
    let before = fs::metadata(&path).unwrap().len();
    add(&mut journal, [record(5)]);
    drop(journal);
    let whole = fs::read(&path).unwrap();
    // The identity comes again with each group here.
    let line = before + whole[before as usize..].iter().position(|byte| *byte == b'\n').unwrap() as u64 + 1;
    for length in line..whole.len() as u64 {
        fs::write(&path, &whole[..length as usize]).unwrap();
        assert_eq!(all(&path, Format::Jsonl).unwrap().1.len(), 5);
        assert_eq!(fs::metadata(&path).unwrap().len(), length, "reading changes nothing");
        let mut journal = open(&path, Format::Jsonl, &options()).unwrap();
        assert_eq!((journal.index.count(), journal.repairs.torn), (5, length - line));
        add(&mut journal, [record(5)]);
        drop(journal);
        let (about, found) = all(&path, Format::Jsonl).unwrap();
        assert_eq!((about.runs, about.repairs, found.len()), (2, super::Repairs::default(), 6));
    }
    // Also where that was the first one.
    let manifest = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for length in 0..manifest {
        fs::write(&path, &whole[..length]).unwrap();
        drop(open(&path, Format::Jsonl, &options()).unwrap());
        assert_eq!(all(&path, Format::Jsonl).unwrap().0.runs, 1);
    }
}

#[test]
fn a_torn_log_costs_the_last_group_alone() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    let mut journal = open(&path, Format::Sqlite, &options()).unwrap();
    journal.backend.sync().unwrap();
    (0..5).for_each(|number| add(&mut journal, [record(number)]));
    let before = fs::metadata(folder.file("a.db-wal")).unwrap().len();
    add(&mut journal, [record(5)]);
    let (whole, log) = (fs::read(&path).unwrap(), fs::read(folder.file("a.db-wal")).unwrap());
    assert!(log.len() as u64 > before);
    let copy = Folder::new();
    let path = copy.file("a.db");
    for length in before..log.len() as u64 {
        let _ = fs::remove_file(copy.file("a.db-shm"));
        fs::write(&path, &whole).unwrap();
        fs::write(copy.file("a.db-wal"), &log[..length as usize]).unwrap();
        // Opening for writing is slow enough to be tried now and then only.
        if length % 97 == 0 {
            drop(open(&path, Format::Sqlite, &options()).unwrap());
        }
        let (_, found) = all(&path, Format::Sqlite).unwrap();
        assert_eq!(found.len(), 5, "cut at {length}");
    }
}

#[test]
fn damage_costs_the_record_it_is_in() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl");
    let mut journal = open(&path, Format::Jsonl, &options()).unwrap();
    add(&mut journal, (0..9).map(record));
    drop(journal);
    let mut content = fs::read(&path).unwrap();
    let at = content.windows(6).position(|window| window == b"text 4").unwrap();
    content[at] = b'!';
    fs::write(&path, &content).unwrap();
    let mut journal = open(&path, Format::Jsonl, &options()).unwrap();
    assert_eq!((journal.index.count(), journal.repairs.damaged, journal.repairs.torn), (8, 1, 0));
    assert!(journal.index.claim(key(4), "?").is_none());
    assert!(fs::read(&path).unwrap().starts_with(&content));
}

#[test]
fn files_of_others_are_left_alone() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl");
    for content in
        ["{\"a\": 1}\n", "hello", "hello\n", "{\"record_type\":\"manifest\",\"artifact_schema_version\":1}\n"]
    {
        fs::write(&path, content).unwrap();
        assert!(matches!(open(&path, Format::Jsonl, &options()), Err(JournalError::Format { .. })), "{content}");
        assert!(matches!(all(&path, Format::Jsonl), Err(JournalError::Format { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let path = folder.file("a.db");
    fs::write(&path, "x".repeat(5000)).unwrap();
    assert!(matches!(open(&path, Format::Sqlite, &options()), Err(JournalError::Format { .. })));
    let path = folder.file("b.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    assert!(matches!(open(&path, Format::Sqlite, &options()), Err(JournalError::Format { .. })));
    assert_eq!(format_of(&path).unwrap(), Some(Format::Sqlite));
    assert_eq!(format_of(&folder.file("c.txt")).unwrap(), None);
}

#[test]
fn newer_files_are_left_alone() {
    let folder = Folder::new();
    let path = folder.file("a.db");
    drop(open(&path, Format::Sqlite, &options()).unwrap());
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(open(&path, Format::Sqlite, &options()), Err(JournalError::Newer { found: 99, .. })));
    let path = folder.file("a.jsonl");
    drop(open(&path, Format::Jsonl, &options()).unwrap());
    let content = fs::read_to_string(&path).unwrap().replace("schema_version\":1", "schema_version\":99");
    let line = content.lines().next().unwrap();
    let line = &line[..line.len() - 20];
    fs::write(&path, format!("{line},\"crc32\":\"{:08x}\"}}\n", crc32fast::hash(line.as_bytes()))).unwrap();
    assert!(matches!(open(&path, Format::Jsonl, &options()), Err(JournalError::Newer { found: 99, .. })));
}

#[test]
fn one_writer_for_text_several_for_databases() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl");
    let journal = open(&path, Format::Jsonl, &options()).unwrap();
    let Err(error) = open(&path, Format::Jsonl, &options()) else { panic!("opened twice") };
    assert!(matches!(error, JournalError::Locked { .. }));
    #[cfg(target_os = "linux")]
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(journal);
    open(&path, Format::Jsonl, &options()).unwrap();

    let path = folder.file("a.db");
    let mut both = [(); 2].map(|()| open(&path, Format::Sqlite, &options()).unwrap());
    for number in 0..20 {
        add(&mut both[number % 2], [record(number as u64)]);
    }
    assert_eq!(all(&path, Format::Sqlite).unwrap().1.len(), 20);
    let held = rusqlite::Connection::open(&path).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let failure = both[0].backend.append(&mut vec![Entry::Record(Box::new(record(1)))]);
    assert!(matches!(failure, Err(JournalError::Locked { .. })), "{failure:?}");
}

#[test]
fn equal_requests_have_a_record_each() {
    let records = (0..6u64).map(|n| (key(n / 3), super::index::short(&format!("id {n}")), n)).collect();
    let mut index = super::index::Index::build(records);
    assert_eq!(index.claim(key(0), "id 1"), Some(1));
    let mut others = [index.claim(key(0), "?"), index.claim(key(0), "id 1")];
    others.sort();
    assert_eq!(others, [Some(0), Some(2)]);
    assert_eq!(index.claim(key(0), "id 0"), None);
    assert_eq!(index.claim(key(1), "id 5"), Some(5));
    let many = (0..5000).map(|n| (key(0), n, u64::from(n))).collect();
    let mut index = super::index::Index::build(many);
    let mut taken: Vec<u64> = (0..5000).map(|_| index.claim(key(0), "?").unwrap()).collect();
    taken.sort_unstable();
    assert!(taken.into_iter().eq(0..5000));
    // Of records of one id the last one counts.
    let mut index = super::index::Index::build(vec![(key(0), 7, 1), (key(0), 7, 9), (key(0), 7, 5)]);
    assert_eq!(index.claim(key(0), "?"), Some(9));
}

#[test]
fn the_thread_writes_in_order_and_says_so() {
    for (format, name) in BOTH {
        let folder = Folder::new();
        let path = folder.file(name);
        let (tell, told) = mpsc::channel();
        let opened = open(&path, format, &options()).unwrap();
        let writer = Writer::begin(opened.backend, move |news| tell.send(news).unwrap()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let writer = &writer;
                scope.spawn(move || {
                    for number in 0..500 {
                        writer.append(Entry::Record(Box::new(record(thread * 1000 + number)))).unwrap();
                    }
                });
            }
        });
        writer.flush();
        assert_eq!(writer.written(), 2000);
        assert_eq!(all(&path, format).unwrap().1.len(), 2000);
        writer.append(Entry::Record(Box::new(record(1)))).unwrap();
        writer.close().unwrap();
        writer.close().unwrap();
        assert!(writer.append(Entry::Record(Box::new(record(1)))).is_err());
        assert_eq!(all(&path, format).unwrap().1.len(), 2001);
        drop(writer);
        let mut last = 0;
        for news in told {
            let News::Written(written) = news else { panic!("it failed") };
            assert!(written > last);
            last = written;
        }
        assert_eq!(last, 2001);
    }
}

#[test]
fn a_failure_is_told_once_and_nothing_more_is_taken() {
    struct Bad;
    impl super::writer::Backend for Bad {
        type Entry = u8;
        fn append(&mut self, _: &mut Vec<u8>) -> Result<(), JournalError> {
            Err(JournalError::Failed("on purpose".to_owned()))
        }
        fn sync(&mut self) -> Result<(), JournalError> {
            Ok(())
        }
    }
    let (tell, told) = mpsc::channel();
    let writer = Writer::begin(Box::new(Bad), move |news| tell.send(news).unwrap()).unwrap();
    writer.append(1).unwrap();
    writer.flush();
    assert!(writer.append(2).is_err());
    assert!(writer.close().is_err());
    assert!(matches!(told.recv(), Ok(News::Failed(text)) if text.contains("on purpose")));
}

#[test]
fn fingerprints_tell_apart_what_differs() {
    let text = |parts: &[&str]| {
        let mut fingerprint = Fingerprint::new("test");
        parts.iter().for_each(|part| fingerprint.text(part));
        fingerprint.key()
    };
    assert_ne!(text(&["a", "b"]), text(&["ab"]));
    assert_ne!(text(&["a\"", "b"]), text(&["a", "\"b"]));
    // Forever: whoever changes these re-runs everybody's journals.
    assert_eq!(text(&["a", "b"]).to_string(), "a609a53ddefeb496d4fafcaf445d73a9");
    assert_eq!(Key::parse(&text(&["a"]).to_string()), Some(text(&["a"])));
    assert_eq!(Key::parse("xyz"), None);
}

#[test]
fn caches_keep_answers_for_a_time_and_up_to_a_size() {
    let folder = Folder::new();
    let path = folder.file("cache.db");
    let bounds = Bounds { ttl: Some(60.0), bytes: Some(1000) };
    let (mut file, answers) = cache::open(&path, bounds, &options()).unwrap();
    let answer =
        |number, sample, size: usize| cache::Entry::Answer { key: key(number), sample, body: "x".repeat(size) };
    use super::writer::Backend;
    file.append(&mut vec![answer(1, 0, 10), answer(1, 1, 11), answer(2, 0, 12)]).unwrap();
    let body = |size: usize| Some("x".repeat(size));
    assert_eq!(answers.look_up(key(1)).unwrap(), (0, body(10)));
    assert_eq!(answers.look_up(key(1)).unwrap(), (1, body(11)));
    assert_eq!(answers.look_up(key(1)).unwrap(), (2, None));
    assert_eq!(answers.look_up(key(3)).unwrap(), (0, None));
    file.append(&mut vec![cache::Entry::Used(key(1), 0), answer(4, 0, 880)]).unwrap();
    file.append(&mut vec![answer(5, 0, 100)]).unwrap();
    drop((file, answers));
    // The oldest went; what was used since stays as long as there is room.
    let (mut file, answers) = cache::open(&path, bounds, &options()).unwrap();
    assert_eq!(answers.look_up(key(5)).unwrap().1, body(100));
    assert_eq!(answers.look_up(key(2)).unwrap().1, None);
    file.sync().unwrap();
    drop((file, answers));
    let (_, answers) = cache::open(&path, Bounds { ttl: Some(0.0), bytes: None }, &options()).unwrap();
    assert_eq!(answers.look_up(key(5)).unwrap().1, None);
}

mod fuzz {
    use proptest::prelude::*;

    use super::*;

    /// A file of ten records, and where each of its lines ends.
    fn good(path: &Path) -> Vec<u8> {
        let mut opened = open(path, Format::Jsonl, &options()).unwrap();
        add(&mut opened, (0..10).map(record));
        drop(opened);
        fs::read(path).unwrap()
    }

    proptest! {
        /// Whatever is torn, changed or put into a file: what is read is what was written, and the file goes on.
        #[test]
        fn fuzz_lines(
            at in any::<prop::sample::Index>(),
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            how in 0..4u8,
        ) {
            let folder = Folder::new();
            let path = folder.file("a.jsonl");
            let mut file = good(&path);
            let at = at.index(file.len());
            match how {
                0 => file.truncate(at),
                1 => file.splice(at..at, bytes).for_each(drop),
                2 => {
                    let end = (at + bytes.len()).min(file.len());
                    file.splice(at..end, bytes).for_each(drop);
                }
                _ => file.extend_from_slice(&bytes),
            }
            fs::write(&path, &file).unwrap();
            let Ok(mut opened) = open(&path, Format::Jsonl, &options()) else {
                // Refused, as a file of another kind: then it is as it was.
                prop_assert_eq!(fs::read(&path).unwrap(), file);
                return Ok(());
            };
            add(&mut opened, [record(99)]);
            drop(opened);
            let (_, found) = all(&path, Format::Jsonl).unwrap();
            prop_assert!(found.len() <= 11);
            for stored in &found {
                prop_assert_eq!(&stored.body, &record(stored.head.submission_index).body);
            }
            prop_assert_eq!(found.last().map(|stored| stored.head.submission_index), Some(99));
        }
    }
}

#[test]
fn many_may_make_one_file_at_the_same_time() {
    let options = Options { busy_timeout: Duration::from_secs(30), ..options() };
    for _ in 0..15 {
        let folder = Folder::new();
        let (path, barrier) = (folder.file("runs.db"), std::sync::Barrier::new(6));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    barrier.wait();
                    open(&path, Format::Sqlite, &options).unwrap();
                });
            }
        });
    }
}

#[test]
fn steps_of_conversations_that_ended_are_nobody_elses() {
    let (request, step) = (key(1), key(2));
    let record = |key, id: &str, place| (key, super::index::short(id), place);
    // The conversation of "a" has a result, that of "b" has none.
    let records = vec![record(step, "a", 1), record(step, "b", 2), record(request, "a", 3)];
    let mut index = super::index::Index::build(records);
    assert_eq!(index.claim_step(step, "c", request), Some(2), "it goes on where b was");
    assert_eq!(index.claim_step(step, "b", request), None);
    assert_eq!(index.claim_step(step, "a", request), Some(1), "its own is its own");
}
