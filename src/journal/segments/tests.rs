//! Segments in a folder: what several writers write is found, whatever happens to the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::record::{Entry, Head, Key, Kind, Reuse, Spent, Stored, now};
use super::super::{Durability, Options, View, open};
use super::commit::{Committer, is_segment};
use super::place::{Each, Folder, Listed, Place};
use crate::journal::error::JournalError;
use crate::journal::opened::Opened;
use crate::journal::place::{Format, format_of};

struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let name = format!("batch-llm-segments-{}-{:x}", std::process::id(), fastrand::u64(..));
        let home = Self(std::env::temp_dir().join(name));
        fs::create_dir(&home.0).unwrap();
        home
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }

    /// The folder by another name: what a process knows goes by the name, and so this one is another process.
    fn elsewhere(&self) -> PathBuf {
        self.0
            .join("..")
            .join(self.0.file_name().unwrap())
            .join(format!("../{}/", self.0.file_name().unwrap().to_str().unwrap()))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options() -> Options {
    Options {
        durability: Durability::Flush,
        busy_timeout: Duration::default(),
        reuse: Reuse::Success,
        package_version: "0.0.0".to_owned(),
        user_metadata: None,
    }
}

fn record(number: u8) -> Entry {
    let head = Head {
        kind: Kind::Item,
        run: 0,
        key: Key([number; 16]),
        identity: 7,
        item_id: format!("item {number}"),
        submission_index: u64::from(number),
        recorded_at: now(),
        success: true,
        error_category: None,
        reuse: Reuse::Success,
        spent: Spent::default(),
    };
    Entry::Record(Box::new(Stored { head, body: format!(r#"{{"output":"text {number}"}}"#) }))
}

fn opened(path: &Path) -> Opened {
    open(path, Format::Segments, &options()).unwrap()
}

fn write(opened: &mut Opened, numbers: &[u8]) {
    opened.backend.append(&mut numbers.iter().map(|number| record(*number)).collect()).unwrap();
}

fn find(opened: &mut Opened, number: u8) -> Option<Stored> {
    opened.reader.refresh(&mut opened.index);
    let place = opened.index.claim(Key([number; 16]), "")?;
    opened.reader.read(place).unwrap()
}

#[test]
fn what_one_writes_another_finds_and_not_oneself() {
    let home = Home::new();
    let (mut one, mut other) = (opened(&home.0), opened(&home.elsewhere()));
    write(&mut one, &[1, 2]);
    assert!(find(&mut other, 1).is_none());
    let again = std::time::Instant::now();
    while find(&mut other, 1).is_none() {
        assert!(again.elapsed() < Duration::from_secs(60), "it is never read");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(find(&mut other, 1).is_none(), "a record answers one item");
    assert_eq!(find(&mut other, 2).unwrap().body, r#"{"output":"text 2"}"#);
    // A later run in the same process finds it; the one that wrote it sends equal requests again.
    assert!(find(&mut opened(&home.0), 2).is_some());
    assert!(find(&mut one, 2).is_none());
}

#[test]
fn groups_of_several_runs_become_one_segment() {
    let home = Home::new();
    let runs: Vec<Opened> = (0..4).map(|_| opened(&home.0)).collect();
    let before = home.segments().len();
    std::thread::scope(|scope| {
        for (number, mut run) in (0..4).zip(runs) {
            scope.spawn(move || write(&mut run, &[number]));
        }
    });
    let segments = home.segments().len() - before;
    assert!(segments < 4, "{segments}");
    let mut later = opened(&home.0);
    assert!((0..4).all(|number| find(&mut later, number).is_some()));
    let view = View::new(&home.0, Format::Segments).unwrap();
    assert_eq!(view.scan(false, None, &mut |_, _, _| Ok::<_, JournalError>(())).unwrap().runs, 4);
}

#[test]
fn what_bounded_runs_over_time_is_read_and_copied() {
    let home = Home::new();
    let texts = [r#"{"seconds":{"workers":[1]}}"#, r#"{"seconds":{"cooldown":[2]}}"#];
    for text in texts {
        let mut run = opened(&home.0);
        for text in ["{}", text] {
            run.backend.append(&mut vec![Entry::BoundOverTime(text.to_owned())]).unwrap();
        }
    }
    let read = |view: View| view.scan(false, None, &mut |_, _, _| Ok::<_, JournalError>(())).unwrap().bound_over_time;
    let view = View::new(&home.0, Format::Segments).unwrap();
    let target = home.0.join("copy.db");
    let View::Segments(segments) = &view else { unreachable!() };
    segments.compact(&target, &options(), false).unwrap();
    let sorted = |found: Vec<(u64, String)>| {
        let mut found: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
        found.sort();
        found
    };
    let copied = sorted(read(View::new(&target, Format::Sqlite).unwrap()));
    assert_eq!(copied, [texts[1], texts[0]]);
    assert_eq!(sorted(read(view)), copied);
}

#[test]
fn what_is_damaged_or_foreign_is_passed_over() {
    let home = Home::new();
    let mut writer = opened(&home.0);
    for number in 1..=4 {
        write(&mut writer, &[number]);
    }
    let segments = home.segments();
    let with = |number: u8| {
        let holds = |path: &&PathBuf| fs::read_to_string(path).unwrap().contains(&format!("\"text {number}\""));
        segments.iter().find(holds).unwrap().clone()
    };
    let text = fs::read(with(1)).unwrap();
    fs::write(with(1), &text[..text.len() - 9]).unwrap();
    let mut text = fs::read_to_string(with(2)).unwrap();
    text = text.replace("text 2", "text 9");
    fs::write(with(2), text).unwrap();
    let text = fs::read_to_string(with(3)).unwrap();
    fs::write(with(3), text.replacen("\"artifact_schema_version\":1", "\"artifact_schema_version\":99", 1)).unwrap();
    fs::write(home.0.join("notes.txt"), "mine").unwrap();
    fs::write(home.0.join("0000000000000-000000000000-000000.jsonl"), b"\xff\x00").unwrap();
    fs::create_dir(home.0.join("more")).unwrap();
    let mut reader = opened(&home.elsewhere());
    assert_eq!(reader.repairs.foreign, 1);
    // A bad first line fails its checksum, as a newer version's would if it was changed by hand.
    assert_eq!((reader.repairs.damaged, reader.repairs.unreadable), (1, 3));
    assert!(reader.repairs.example.as_ref().unwrap().len() < 300);
    assert!((1..=3).all(|number| find(&mut reader, number).is_none()));
    assert!(find(&mut reader, 4).is_some());
}

#[test]
fn a_cut_between_two_lines_is_seen() {
    let home = Home::new();
    write(&mut opened(&home.0), &[1, 2]);
    let last = home.segments().pop().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(&last, lines[..lines.len() - 1].concat()).unwrap();
    let mut reader = opened(&home.elsewhere());
    assert_eq!((reader.repairs.unreadable, reader.repairs.damaged), (1, 0));
    assert!(find(&mut reader, 1).is_some() && find(&mut reader, 2).is_none());
}

#[test]
fn segments_that_are_removed_are_forgotten() {
    let home = Home::new();
    write(&mut opened(&home.0), &[1]);
    assert!(find(&mut opened(&home.0), 1).is_some());
    for segment in home.segments() {
        fs::remove_file(segment).unwrap();
    }
    assert!(find(&mut opened(&home.0), 1).is_none());
}

#[test]
fn a_segment_is_found_during_a_run_though_its_writers_clock_is_late() {
    let home = Home::new();
    let mut long = opened(&home.0);
    write(&mut opened(&home.elsewhere()), &[1]);
    let segment = home.segments().pop().unwrap();
    let late = |by: u128| {
        let name = segment.file_name().unwrap().to_str().unwrap();
        let at: u128 = name[..13].parse().unwrap();
        segment.with_file_name(format!("{:013}{}", at - by, &name[13..]))
    };
    fs::rename(&segment, late(60_000)).unwrap();
    assert!(find(&mut opened(&home.0), 1).is_some());
    // One that is much too late is found when all names are listed: at the latest where no run is on.
    fs::rename(late(60_000), late(3_600_000)).unwrap();
    assert!(find(&mut long, 1).is_some());
    drop(long);
    assert!(find(&mut opened(&home.0), 1).is_some());
}

#[test]
fn what_a_store_says_about_itself_does_not_depend_on_who_looked_at_it_before() {
    let home = Home::new();
    View::new(&home.0, Format::Segments).unwrap();
    let options = Options { user_metadata: Some(r#"{"team":"a"}"#.to_owned()), ..options() };
    open(&home.0, Format::Segments, &options).unwrap();
    let about = View::new(&home.0, Format::Segments).unwrap();
    let about = about.scan(false, None, &mut |_, _, _| Ok::<_, JournalError>(())).unwrap();
    assert_eq!(about.user_metadata.as_deref(), Some(r#"{"team":"a"}"#));
}

#[test]
fn a_place_that_cannot_be_written_fails_all_who_wait() {
    struct Full;
    impl Place for Full {
        fn list(&self, _: Option<&str>) -> Result<Vec<Listed>, JournalError> {
            Ok(Vec::new())
        }
        fn read(&self, _: &[String], _: Each<'_>) -> Result<(), JournalError> {
            Ok(())
        }
        fn write(&self, _: &str, _: Vec<u8>, _: Duration) -> Result<(), JournalError> {
            Err(JournalError::Shared("full".to_owned()))
        }
        fn remove(&self, _: &str) -> Result<(), JournalError> {
            Ok(())
        }
    }
    let committer = Committer::new(Arc::new(Full)).unwrap();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| committer.commit(b"line\n", 1, &options()))).collect();
        for outcome in waiting {
            assert_eq!(outcome.join().unwrap().unwrap_err().to_string(), "full");
        }
    });
}

#[test]
fn paths_and_urls_are_told_apart() {
    let home = Home::new();
    let of = |path: &str| format_of(Path::new(path)).unwrap();
    for path in
        ["s3://bucket/prefix", "gs://bucket", "az://bucket/a/b/", "file:///tmp/x", "runs/", home.0.to_str().unwrap()]
    {
        assert_eq!(of(path), Some(Format::Segments), "{path}");
    }
    assert_eq!(of("runs/a.db"), Some(Format::Sqlite));
    assert!(
        format_of(Path::new("https://me:hunter2@host/x")).is_err_and(|error| !error.to_string().contains("hunter2"))
    );
    assert!(is_segment("1764265000000-0123456789ab-000000.jsonl"));
    assert!(!is_segment("block-1.jsonl") && !is_segment("1764265000000-0123456789ab-000000.db"));
}

#[test]
fn an_unfinished_file_is_no_segment() {
    let home = Home::new();
    let folder = Folder::new(&home.0, true);
    folder.write("a", b"1".to_vec(), Duration::ZERO).unwrap();
    fs::write(home.0.join(format!("{}b", super::place::UNFINISHED)), "2").unwrap();
    assert_eq!(folder.list(None).unwrap().len(), 1);
}
