//! A board in a file that the processes of one host name: no server. The file is locked for the moment of an update,
//! and readable JSON. Its time is the host's, since 1970.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::table::Table;
use super::{Board, Demand, Report, Share, Verdict};
use crate::files::no_file;

/// How long the file's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried.
const LOOK: Duration = Duration::from_millis(2);
/// Longest file that is read, bytes.
const LONGEST: u64 = 16 << 20;

/// See the module.
#[derive(Debug, Clone)]
pub struct FileBoard {
    /// The file.
    pub path: PathBuf,
}

impl Board for FileBoard {
    fn renew(&self, scope: &str, holder: &str, demand: &Demand) -> io::Result<Share> {
        self.update(|table, now| table.renew(scope, holder, demand, now))
    }

    fn report(&self, job: &str, holder: &str, report: Report) -> io::Result<Verdict> {
        self.update(|table, now| table.jobs.report(job, holder, report, now))
    }

    fn leave(&self, scope: &str, holder: &str) -> io::Result<()> {
        self.update(|table, _| table.leave(scope, holder))
    }
}

impl FileBoard {
    fn update<R>(&self, change: impl FnOnce(&mut Table, u64) -> R) -> io::Result<R> {
        if let Some(kind) = no_file(&self.path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the path is {kind}; use a file")));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file: File = options.open(&self.path)?;
        lock(&file)?;
        let mut text = String::new();
        // What a crash has left half-written holds no lease; everybody renews theirs within a moment.
        let readable = (&file).take(LONGEST).read_to_string(&mut text).is_ok();
        let mut table: Table = match serde_json::from_str(&text) {
            Ok(table) => table,
            Err(_) if !readable || !text.is_empty() && !text.contains("leases") => {
                let problem = "the file does not contain shared limits; use another path";
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            Err(_) => Table::default(),
        };
        let now = milliseconds();
        table.forget_the_future(now);
        let answer = change(&mut table, now);
        let text = serde_json::to_string(&table)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        Ok(answer)
    }
}

/// Takes the lock of the file, which nobody holds for longer than a moment.
fn lock(file: &File) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => std::thread::sleep(LOOK),
            Err(TryLockError::WouldBlock) => {
                let problem = "another process has locked the file; end that process, or use another file";
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(name: &str) -> FileBoard {
        let path = std::env::temp_dir().join(format!("batch-llm-sharing-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        FileBoard { path }
    }

    fn renew(board: &FileBoard, holder: &str) -> io::Result<Share> {
        board.renew("s", holder, &Demand::default())
    }

    #[test]
    fn those_who_name_the_same_file_share() {
        let one = board("same");
        assert!((renew(&one, "one").unwrap().part - 1.0).abs() < 1e-9);
        assert!(renew(&one, "two").unwrap().is_nothing());
        one.leave("s", "one").unwrap();
        assert!((renew(&one, "two").unwrap().part - 1.0).abs() < 1e-9);
        std::fs::remove_file(&one.path).unwrap();
    }

    #[test]
    fn a_file_of_something_else_is_not_touched() {
        let one = board("foreign");
        std::fs::write(&one.path, "my novel").unwrap();
        assert!(renew(&one, "one").unwrap_err().to_string().contains("use another path"));
        assert_eq!(std::fs::read_to_string(&one.path).unwrap(), "my novel");
        std::fs::write(&one.path, "{\"leases\": [{\"sco").unwrap();
        assert!(renew(&one, "one").is_ok(), "what a crash has left is no obstacle");
        std::fs::remove_file(&one.path).unwrap();
    }

    #[test]
    fn neither_a_lock_nor_a_lease_is_for_ever() {
        let one = board("bounds");
        let far = milliseconds() + 1_000_000_000;
        std::fs::write(
            &one.path,
            format!(r#"{{"leases":[{{"scope":"s","holder":"x","until":{far},"demand":null}}]}}"#),
        )
        .unwrap();
        let share = renew(&one, "one").unwrap();
        assert!((share.part - 1.0).abs() < 1e-9, "a lease from a far future holds nothing");
        let held = File::open(&one.path).unwrap();
        held.lock().unwrap();
        let began = Instant::now();
        assert_eq!(renew(&one, "one").unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= PATIENCE);
        drop(held);
        assert!(renew(&one, "one").is_ok());
        std::fs::remove_file(&one.path).unwrap();
    }
}
