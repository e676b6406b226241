//! A file without a name, for what would take too much memory while it waits: what is to be uploaded, and items whose
//! requests are in batches. It goes with the process. The system's memory is not the process's: what was written lately is
//! still there, as far as there is room.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What is added is written when there is so much of it, bytes.
const BUFFER: usize = 64 << 10;

/// See the module.
pub struct Spool(Mutex<State>);

struct State {
    file: File,
    /// Bytes in the file.
    written: u64,
    /// What follows them.
    buffer: Vec<u8>,
    /// Bytes that somebody may still want.
    wanted: u64,
}

impl Spool {
    /// An empty one, on the disk that has the file at this path.
    ///
    /// # Errors
    /// When there can be none.
    pub fn beside(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::tempfile_in(folder)?;
        Ok(Self(Mutex::new(State { file, written: 0, buffer: Vec::new(), wanted: 0 })))
    }

    /// Adds bytes at the end; returns where they are.
    ///
    /// # Errors
    /// When they cannot be written: nothing was added.
    pub fn add(&self, bytes: &[u8]) -> io::Result<u64> {
        let mut state = self.state();
        if state.buffer.len() + bytes.len() > BUFFER {
            state.flush()?;
        }
        let at = state.written + state.buffer.len() as u64;
        if bytes.len() > BUFFER {
            state.write(bytes)?;
        } else {
            state.buffer.extend_from_slice(bytes);
        }
        state.wanted += bytes.len() as u64;
        Ok(at)
    }

    /// Reads bytes that were added.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        let State { file, written, buffer, .. } = &mut *state;
        let in_file = usize::try_from(written.saturating_sub(at)).unwrap_or(usize::MAX).min(into.len());
        let (from_file, from_buffer) = into.split_at_mut(in_file);
        if !from_file.is_empty() {
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(from_file)?;
        }
        let at = usize::try_from(at.saturating_sub(*written)).unwrap_or(usize::MAX);
        let found = buffer.get(at..).and_then(|rest| rest.get(..from_buffer.len()));
        from_buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Nobody wants so many bytes any more. The file gets shorter when nobody wants any.
    pub fn forget(&self, bytes: u64) {
        let mut state = self.state();
        state.wanted = state.wanted.saturating_sub(bytes);
        if state.wanted == 0 {
            state.buffer.clear();
            state.written = 0;
            // What is in it is not looked at any more either way.
            let _ = state.file.set_len(0);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let outcome = self.write(&buffer);
        self.buffer = buffer;
        outcome?;
        self.buffer.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.written))?;
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// Bytes in a spool that belong together. They are forgotten when it is dropped.
pub struct Stored {
    spool: Arc<Spool>,
    /// Where its parts are, and how long each is.
    parts: Vec<(u64, u64)>,
    length: u64,
}

impl Stored {
    /// None yet.
    pub fn new(spool: Arc<Spool>) -> Self {
        Self { spool, parts: Vec::new(), length: 0 }
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// As [`Spool::add`].
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.spool.add(bytes)?;
        let length = bytes.len() as u64;
        match self.parts.last_mut() {
            Some((last, before)) if *last + *before == at => *before += length,
            _ => self.parts.push((at, length)),
        }
        self.length += length;
        Ok(())
    }

    /// How many there are.
    pub fn size(&self) -> u64 {
        self.length
    }

    /// Reads those from a place on, `most` at most; none at the end.
    ///
    /// # Errors
    /// As [`Spool::read`].
    pub fn read(&self, mut from: u64, most: usize) -> io::Result<Bytes> {
        for (at, length) in &self.parts {
            if from < *length {
                let length = usize::try_from(length - from).unwrap_or(usize::MAX).min(most);
                let mut bytes = vec![0; length];
                self.spool.read(at + from, &mut bytes)?;
                return Ok(bytes.into());
            }
            from -= length;
        }
        Ok(Bytes::new())
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.spool.forget(self.length);
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} bytes", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_belong_together_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::beside(&folder.path().join("run.db")).unwrap());
        let (mut one, mut other) = (Stored::new(Arc::clone(&spool)), Stored::new(Arc::clone(&spool)));
        for number in 0..100_u8 {
            one.add(&[number; 3000]).unwrap();
            if number % 7 == 0 {
                other.add(b"between").unwrap();
            }
        }
        let (mut read, mut from) = (Vec::new(), 0);
        loop {
            let bytes = one.read(from, 7001).unwrap();
            if bytes.is_empty() {
                break;
            }
            from += bytes.len() as u64;
            read.extend_from_slice(&bytes);
        }
        assert!(
            read.len() as u64 == one.size() && read.chunks(3000).enumerate().all(|(at, part)| part == [at as u8; 3000])
        );
        drop((one, other));
        assert_eq!(spool.state().file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn what_was_added_is_read_until_nobody_wants_it() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::beside(&folder.path().join("run.db")).unwrap();
        let text = |number: usize| vec![b'a' + u8::try_from(number % 26).unwrap(); number * 37 % 90_000];
        let places: Vec<u64> = (0..300).map(|number| spool.add(&text(number)).unwrap()).collect();
        for number in (0..300).rev() {
            let mut read = vec![0; text(number).len()];
            spool.read(places[number], &mut read).unwrap();
            assert!(read == text(number), "{number}");
        }
        let mut beyond = [0; 8];
        assert!(spool.read(places[299] + text(299).len() as u64 - 1, &mut beyond).is_err());
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "it has no name");
        for number in 0..300 {
            spool.forget(text(number).len() as u64);
        }
        assert_eq!(spool.state().file.metadata().unwrap().len(), 0);
        assert_eq!(spool.add(b"again").unwrap(), 0);
    }
}
