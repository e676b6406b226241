//! Items that wait outside of memory, as Python has written them. Its user is `python/batch_llm/_run/deferred.py`.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::runtime::Process;
use crate::engine::ItemIndex;
use crate::spool::Spool;

/// Bytes by item, in a file without a name. Eight bytes of memory each.
#[pyclass(frozen, module = "batch_llm._core")]
pub struct Shelf {
    process: Process,
    spool: Spool,
    places: Mutex<Places>,
}

/// Where the bytes of each item are, counted from 1; 0: nowhere.
#[derive(Default)]
struct Places {
    first: ItemIndex,
    places: VecDeque<u64>,
}

impl Places {
    fn put(&mut self, item: ItemIndex, place: u64) {
        if self.places.is_empty() {
            self.first = item;
        }
        while item < self.first {
            self.places.push_front(0);
            self.first -= 1;
        }
        let at = usize::try_from(item - self.first).unwrap_or(usize::MAX);
        if self.places.len() <= at {
            self.places.resize(at + 1, 0);
        }
        self.places[at] = place + 1;
    }

    fn take(&mut self, item: ItemIndex) -> Option<u64> {
        let at = usize::try_from(item.checked_sub(self.first)?).ok()?;
        let place = std::mem::take(self.places.get_mut(at)?).checked_sub(1)?;
        while self.places.front() == Some(&0) {
            self.places.pop_front();
            self.first += 1;
        }
        Some(place)
    }
}

#[pymethods]
impl Shelf {
    /// An empty one, on the disk that has the file at `path`.
    #[new]
    fn new(path: PathBuf) -> PyResult<Self> {
        Ok(Self { process: Process::current(), spool: Spool::beside(&path)?, places: Mutex::default() })
    }

    /// Puts the bytes of an item there.
    fn put(&self, item: ItemIndex, data: &[u8]) -> PyResult<()> {
        self.process.check()?;
        let length = (data.len() as u64).to_le_bytes();
        let place = self.spool.add(&[&length[..], data].concat())?;
        self.places().put(item, place);
        Ok(())
    }

    /// Takes the bytes of an item; `None`: it has none here.
    fn take<'py>(&self, py: Python<'py>, item: ItemIndex) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.process.check()?;
        let Some(place) = self.places().take(item) else { return Ok(None) };
        let mut length = [0; 8];
        self.spool.read(place, &mut length)?;
        let length = u64::from_le_bytes(length);
        let read = |into: &mut [u8]| Ok(self.spool.read(place + 8, into)?);
        let bytes = PyBytes::new_with(py, usize::try_from(length).unwrap_or(usize::MAX), read)?;
        self.spool.forget(length + 8);
        Ok(Some(bytes))
    }

    /// The items that are here.
    fn items(&self) -> Vec<ItemIndex> {
        let places = self.places();
        (places.first..).zip(&places.places).filter(|(_, place)| **place != 0).map(|(item, _)| item).collect()
    }
}

impl Shelf {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
