//! What a process knows of the segments at a place. All its runs share it, so that a segment is read once.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::{FxHashMap, FxHashSet};

use super::commit::{Committer, is_segment, name_begins};
use super::copy::Copy;
use super::place::{Folder, Listed, Place};
use crate::journal::error::JournalError;
use crate::journal::events;
use crate::journal::gate;
use crate::journal::index::{Reusable, short};
use crate::journal::lines::{Encoder, Line, walk};
use crate::journal::opened::Repairs;
use crate::journal::options::{Durability, Options};
use crate::journal::place::folder_of;
use crate::journal::record::Reuse;
use crate::journal::sqlite::LONGEST;

/// How often what others have written is read while runs are on.
const INTERVAL: Duration = Duration::from_secs(3);
/// How often all names are listed meanwhile. Between, those of new segments are: a store may have a million.
const ALL_INTERVAL: Duration = Duration::from_secs(60);
/// Reading takes at most this part of the time.
const SHARE: u32 = 20;
/// How much earlier than expected the time in a new segment's name may be: clocks differ, and writing takes time. One
/// that is even earlier is found when all names are listed.
const LATE: Duration = Duration::from_secs(120);
/// Places of which something is known, at most.
const MOST_PLACES: usize = 8;

/// See the module.
pub struct Shared {
    name: PathBuf,
    place: Arc<dyn Place>,
    /// Writes.
    pub committer: Committer,
    copy: Copy,
    /// Held by who reads.
    reading: Mutex<()>,
    state: Mutex<State>,
}

/// Which names are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    All,
    /// Those after `news_after`.
    New,
}

#[derive(Default)]
struct State {
    known: Arc<Vec<Reusable>>,
    /// Names of segments that were read, and whether all of one was intact.
    read: FxHashMap<String, bool>,
    /// What comes before the name of every segment that was not there when all names were listed last.
    news_after: String,
    /// Runs of this process that are on, and the places of their own records that were read back.
    runs: FxHashMap<u64, Vec<u64>>,
    /// Whether a thread does so.
    is_refreshed: bool,
    /// Whether this process has written a segment.
    is_writable: bool,
    repairs: Repairs,
    events: Vec<String>,
}

/// Who else has asked for a place, in which process, with which environment.
#[derive(PartialEq, Eq)]
struct PlaceKey {
    process: u32,
    url: String,
    fsync: bool,
    environment: u64,
}

static PLACES: Mutex<VecDeque<(PlaceKey, Arc<Shared>)>> = Mutex::new(VecDeque::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What decides which bucket is meant, and who asks; credentials may change.
fn environment() -> u64 {
    use std::hash::{Hash, Hasher};
    let mut all: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| {
            let name = name.to_string_lossy();
            ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|provider| name.starts_with(provider))
        })
        .collect();
    all.sort();
    let mut hasher = rustc_hash::FxHasher::default();
    all.hash(&mut hasher);
    hasher.finish()
}

impl Shared {
    /// What is known of a place, brought up to date. `is_written`: the folder is made if it is missing.
    ///
    /// # Errors
    /// When the place cannot be reached.
    pub fn at(url: &Path, options: &Options, is_written: bool) -> Result<Arc<Self>, JournalError> {
        let text = url.to_string_lossy().into_owned();
        let fsync = options.durability == Durability::Fsync;
        let asked = PlaceKey { process: std::process::id(), url: text, fsync, environment: environment() };
        let known = {
            let _passed = gate::pass();
            let mut places = locked(&PLACES);
            if places.iter().any(|(one, _)| one.process != asked.process) {
                // Of the process that this one was forked from: its threads, for which a runtime would wait, are not here.
                std::mem::forget(std::mem::take(&mut *places));
            }
            places.iter().find(|(one, _)| *one == asked).map(|(_, known)| Arc::clone(known))
        };
        if let Some(known) = known {
            let list = if locked(&known.state).runs.is_empty() { List::All } else { List::New };
            if known.refresh(list)? {
                return Ok(known);
            }
        }
        let shared = Arc::new(Self::new(url, options, is_written)?);
        shared.refresh(List::All)?;
        let _passed = gate::pass();
        let mut places = locked(&PLACES);
        places.retain(|(one, _)| *one != asked);
        places.push_back((asked, Arc::clone(&shared)));
        if places.len() > MOST_PLACES {
            places.pop_front();
        }
        Ok(shared)
    }

    fn new(url: &Path, options: &Options, is_written: bool) -> Result<Self, JournalError> {
        let place: Arc<dyn Place> = match folder_of(url)? {
            Some(path) => {
                let folder = Folder::new(&path, options.durability == Durability::Fsync);
                if is_written {
                    folder.make()?;
                }
                Arc::new(folder)
            }
            None => Arc::new(super::bucket::Bucket::new(&url.to_string_lossy())?),
        };
        let copy = Copy::new().map_err(|error| copying(&error))?;
        let committer = Committer::new(Arc::clone(&place))?;
        let (reading, state) = (Mutex::default(), Mutex::default());
        Ok(Self { name: url.to_owned(), place, committer, copy, reading, state })
    }

    /// What was read, as one text journal.
    pub fn copy(&self) -> Copy {
        self.copy.clone()
    }

    /// What was damaged.
    pub fn repairs(&self) -> Repairs {
        locked(&self.state).repairs.clone()
    }

    /// What was done to runs.
    pub fn events(&self) -> Vec<String> {
        locked(&self.state).events.clone()
    }

    /// Names of the segments that were read, each from its beginning to its end.
    pub fn names(&self) -> Vec<String> {
        locked(&self.state).read.iter().filter(|(_, whole)| **whole).map(|(name, _)| name.clone()).collect()
    }

    /// Removes a segment.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn remove(&self, name: &str) -> Result<(), JournalError> {
        self.place.remove(name)
    }

    /// Writes a first segment, without records, unless this process has done so: a place that cannot be written is an
    /// error before anything is sent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn check_writable(&self, run: u64, options: &Options) -> Result<(), JournalError> {
        if !locked(&self.state).is_writable {
            let mut encoder = Encoder::default();
            encoder.run(run, options);
            self.committer.write(&encoder.buffer, 0, options, Duration::ZERO)?;
            locked(&self.state).is_writable = true;
        }
        Ok(())
    }

    /// A run begins: what it writes itself it does not find again.
    pub fn begin(self: &Arc<Self>, run: u64) {
        let mut state = locked(&self.state);
        state.runs.insert(run, Vec::new());
        if !std::mem::replace(&mut state.is_refreshed, true) {
            let shared = Arc::clone(self);
            let thread = std::thread::Builder::new().name("batch-llm segments".to_owned());
            // Without it, a run finds what was there when it began.
            state.is_refreshed = thread.spawn(move || shared.keep_refreshed()).is_ok();
        }
    }

    /// A run ends.
    pub fn end(&self, run: u64) {
        locked(&self.state).runs.remove(&run);
    }

    /// What may be used again now, and the places of a run's own records that have become known.
    pub fn known(&self, run: u64) -> (Arc<Vec<Reusable>>, Vec<u64>) {
        let mut state = locked(&self.state);
        let own = state.runs.get_mut(&run).map(std::mem::take).unwrap_or_default();
        (Arc::clone(&state.known), own)
    }

    fn keep_refreshed(&self) {
        let (mut took, mut took_all) = (Duration::ZERO, Duration::ZERO);
        let mut listed_all = Instant::now();
        loop {
            std::thread::sleep(INTERVAL.max(took * SHARE));
            {
                let mut state = locked(&self.state);
                if state.runs.is_empty() {
                    state.is_refreshed = false;
                    return;
                }
            }
            let begun = Instant::now();
            let is_due = listed_all.elapsed() > ALL_INTERVAL.max(took_all * SHARE);
            // If it fails, what others write is found later, or requested again; writing reports what is wrong.
            let _ = self.refresh(if is_due { List::All } else { List::New });
            if is_due {
                (listed_all, took_all) = (Instant::now(), begun.elapsed());
            } else {
                took = begun.elapsed();
            }
        }
    }

    /// Reads what was not read before. Returns whether everything that was read is still there, as far as it is listed.
    ///
    /// # Errors
    /// When the place cannot be reached.
    fn refresh(&self, list: List) -> Result<bool, JournalError> {
        let _reading = locked(&self.reading);
        let after = (list == List::New).then(|| locked(&self.state).news_after.clone());
        let begin = SystemTime::now() - LATE;
        let listed = self.place.list(after.as_deref())?;
        let (mut segments, others): (Vec<Listed>, Vec<Listed>) =
            listed.into_iter().partition(|listed| is_segment(&listed.name));
        segments.sort_unstable();
        let mut news = Vec::new();
        {
            let mut state = locked(&self.state);
            if list == List::All {
                state.repairs.foreign = others.len() as u64;
                if let Some(other) = others.iter().map(|other| &other.name).min() {
                    state.repairs.example.get_or_insert_with(|| format!("{other} is not a segment"));
                }
                let there: FxHashSet<&str> = segments.iter().map(|segment| segment.name.as_str()).collect();
                if state.read.keys().any(|name| !there.contains(name.as_str())) {
                    return Ok(false);
                }
                state.news_after = name_begins(begin);
            }
            for segment in segments {
                if state.read.contains_key(&segment.name) {
                    continue;
                }
                if segment.size > LONGEST as u64 * 2 {
                    state.read.insert(segment.name.clone(), false);
                    state.repairs.pass_over(format!("{} is too large to be a segment", segment.name));
                } else {
                    news.push(segment.name);
                }
            }
        }
        let mut fresh = Vec::new();
        let read = self.place.read(&news, &mut |name, content| self.add(name, content, &mut fresh));
        let mut state = locked(&self.state);
        if !fresh.is_empty() {
            fresh.sort_unstable();
            let mut known = Vec::with_capacity(state.known.len() + fresh.len());
            known.extend_from_slice(&state.known);
            known.append(&mut fresh);
            known.sort(); // two runs in order: it merges them
            state.known = Arc::new(known);
        }
        read.map(|()| true)
    }

    /// Adds the records of a segment, as far as they are intact.
    fn add(&self, name: &str, content: &[u8], fresh: &mut Vec<Reusable>) -> Result<(), JournalError> {
        let (begin, known, mut records) = (self.copy.length(), fresh.len(), 0);
        let mut own: Vec<(u64, u64)> = Vec::new();
        let mut state = locked(&self.state);
        let found = walk(Path::new(name), content, 0, &mut |line| {
            if let Line::Record { head, at, .. } = line {
                records += 1;
                if head.kind.has_body() && head.reuse > Reuse::Never {
                    fresh.push(Reusable::new(head.key, short(&head.item_id), begin + at, head.reuse));
                }
                if state.runs.contains_key(&head.run) {
                    own.push((head.run, begin + at));
                }
            }
            Ok::<_, JournalError>(())
        });
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                state.read.insert(name.to_owned(), false);
                state.repairs.pass_over(error.to_string());
                return Ok(());
            }
        };
        state.repairs.damaged += found.about.repairs.damaged;
        let wanted = found.records.unwrap_or_default();
        let damaged = found.about.repairs.damaged.cast_signed();
        let is_cut = !found.has_manifest || found.about.repairs.torn > 0 || wanted > records + damaged;
        if is_cut {
            state.repairs.pass_over(format!("{name} is truncated"));
        }
        let whole = usize::try_from(found.whole).unwrap_or_default();
        if let Err(error) = self.copy.add(&content[..whole]) {
            fresh.truncate(known);
            return Err(copying(&error));
        }
        state.read.insert(name.to_owned(), damaged == 0 && !is_cut);
        found.about.events.iter().for_each(|event| events::keep(&mut state.events, event));
        for (run, place) in own {
            state.runs.entry(run).or_default().push(place);
        }
        Ok(())
    }

    /// What errors name.
    pub fn name(&self) -> &Path {
        &self.name
    }
}

fn copying(error: &std::io::Error) -> JournalError {
    let error = std::io::Error::new(error.kind(), error.to_string());
    JournalError::io(&std::env::temp_dir(), "copying segments to a temporary file", error)
}
