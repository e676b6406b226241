//! Files that were uploaded, and files of results. Not any number of bytes is kept.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

/// Most bytes that are kept in all.
pub const MOST_BYTES: usize = 2 << 30;
/// Most files that are kept.
const MOST_FILES: usize = 100_000;

/// A file.
#[derive(Debug, Clone)]
pub struct File {
    /// Its id.
    pub id: String,
    /// Who has uploaded it.
    pub account: u64,
    /// Its name, as it was given.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// Its media type.
    pub kind: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// When it came, by the clock.
    pub created: f64,
    /// When it is forgotten.
    pub expires: f64,
    /// From when on it can be used.
    pub ready: f64,
    /// The number of the batch whose results it has.
    pub batch: Option<u64>,
    /// Whether it was read to the end once.
    pub is_read: bool,
}

/// All files, in the order in which they came.
#[derive(Debug, Default)]
pub struct Files {
    all: BTreeMap<u64, File>,
    by_id: HashMap<String, u64>,
    count: u64,
    bytes: usize,
    /// When the next one may expire.
    soonest: f64,
}

impl Files {
    /// Adds a file.
    ///
    /// # Errors
    /// When there is no room, even without the files of results that have been read.
    pub fn add(&mut self, file: File) -> Result<(), String> {
        self.forget_read(file.bytes.len());
        if self.bytes + file.bytes.len() > MOST_BYTES || self.all.len() >= MOST_FILES {
            return Err(format!(
                "the simulated provider keeps at most {MOST_BYTES} bytes and {MOST_FILES} files; delete some"
            ));
        }
        self.count += 1;
        self.soonest = self.soonest.min(file.expires);
        self.bytes += file.bytes.len();
        self.by_id.insert(file.id.clone(), self.count);
        self.all.insert(self.count, file);
        Ok(())
    }

    /// Forgets what was read already, the oldest first, until there is room for more.
    fn forget_read(&mut self, more: usize) {
        if self.bytes + more <= MOST_BYTES && self.all.len() < MOST_FILES {
            return;
        }
        let read: Vec<String> = self.all.values().filter(|file| file.is_read).map(|file| file.id.clone()).collect();
        for id in read {
            if self.bytes + more > MOST_BYTES || self.all.len() >= MOST_FILES {
                self.remove(&id);
            }
        }
    }

    /// A file that this account may see.
    pub fn get(&mut self, id: &str, account: u64, now: f64) -> Option<&mut File> {
        let file = self.all.get_mut(self.by_id.get(id)?)?;
        (file.account == account && now < file.expires).then_some(file)
    }

    /// Forgets a file.
    pub fn remove(&mut self, id: &str) -> Option<File> {
        let file = self.all.remove(&self.by_id.remove(id)?)?;
        self.bytes -= file.bytes.len();
        Some(file)
    }

    /// Those that this account may see, the newest first.
    pub fn list(&self, account: u64, now: f64) -> impl DoubleEndedIterator<Item = &File> {
        self.all.values().rev().filter(move |file| file.account == account && now < file.expires)
    }

    /// Forgets what has expired.
    pub fn expire(&mut self, now: f64) {
        if now < self.soonest {
            return;
        }
        let over: Vec<String> =
            self.all.values().filter(|file| file.expires <= now).map(|file| file.id.clone()).collect();
        for id in over {
            self.remove(&id);
        }
        self.soonest = self.all.values().map(|file| file.expires).fold(f64::INFINITY, f64::min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(id: &str, account: u64, expires: f64) -> File {
        File {
            id: id.to_owned(),
            account,
            name: "a.jsonl".to_owned(),
            purpose: "batch".to_owned(),
            kind: String::new(),
            bytes: Bytes::from_static(b"{}"),
            created: 0.0,
            expires,
            ready: 0.0,
            batch: None,
            is_read: false,
        }
    }

    #[test]
    fn files_are_seen_by_their_account_until_they_expire() {
        let mut files = Files::default();
        for (id, account, expires) in [("a", 1, 10.0), ("b", 1, 20.0), ("c", 2, 20.0)] {
            files.add(file(id, account, expires)).unwrap();
        }
        let ids = |files: &Files, now| files.list(1, now).map(|file| file.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&files, 0.0), ["b", "a"]);
        assert!(files.get("a", 1, 9.0).is_some() && files.get("a", 2, 9.0).is_none());
        assert!(files.get("a", 1, 10.0).is_none());
        files.expire(10.0);
        assert_eq!((files.bytes, ids(&files, 0.0)), (4, vec!["b".to_owned()]));
        assert!(files.remove("b").is_some() && files.remove("b").is_none());
    }

    #[test]
    fn what_was_read_makes_room() {
        let mut files = Files { bytes: MOST_BYTES, ..Files::default() };
        assert!(files.add(file("a", 1, 9.0)).unwrap_err().contains("delete some"));
        let mut files = Files::default();
        files.add(File { is_read: true, ..file("a", 1, 9.0) }).unwrap();
        files.add(file("b", 1, 9.0)).unwrap();
        files.bytes = MOST_BYTES;
        files.add(file("c", 1, 9.0)).unwrap();
        assert!(files.get("a", 1, 0.0).is_none() && files.get("b", 1, 0.0).is_some());
    }
}
