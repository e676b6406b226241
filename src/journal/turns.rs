//! One writer at a time per SQLite file, in the order in which they asked: for the connections of this process.
//!
//! SQLite alone does not queue writers. Whoever finds a file locked tries again after pauses of up to 0.1 s, and a
//! connection that writes without pause can win each time until the other's patience is over.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;

static FILES: LazyLock<Mutex<FxHashMap<PathBuf, Weak<Mutex<()>>>>> = LazyLock::new(Mutex::default);

/// Those who write to one file.
pub(super) struct Turns(Arc<Mutex<()>>);

impl Turns {
    /// Of a file, which is there.
    pub fn of(path: &Path) -> Self {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut files = FILES.lock();
        files.retain(|_, turns| turns.strong_count() > 0);
        let known = files.get(&path).and_then(Weak::upgrade);
        let turns = known.unwrap_or_default();
        files.insert(path, Arc::downgrade(&turns));
        Self(turns)
    }

    /// Waits until it is the caller's turn, which lasts as long as what is returned.
    pub fn wait(&self) -> Turn<'_> {
        Turn(Some(self.0.lock()))
    }
}

/// See [`Turns::wait`].
pub(super) struct Turn<'turns>(Option<MutexGuard<'turns, ()>>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(guard) = self.0.take() {
            // To who waits, if anybody does: who writes without pause would be back before that one is awake.
            MutexGuard::unlock_fair(guard);
        }
    }
}
