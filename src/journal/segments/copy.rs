//! The local copy of all segments that were read: one text journal in a temporary file, which nobody else sees.
//!
//! So memory does not grow with the store, a record is found without asking the place again, and whoever reads a journal
//! from its beginning to its end can read this one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module. Whoever reads it has a place in it of their own.
#[derive(Clone)]
pub struct Copy {
    file: Arc<File>,
    length: Arc<AtomicU64>,
    at: u64,
}

impl Copy {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        Ok(Self { file: Arc::new(tempfile::tempfile()?), length: Arc::default(), at: 0 })
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Adds lines; one caller at a time.
    pub fn add(&self, lines: &[u8]) -> io::Result<()> {
        let length = self.length();
        write_at(&self.file, lines, length)?;
        self.length.store(length + lines.len() as u64, Ordering::Release);
        Ok(())
    }
}

impl Read for Copy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length().saturating_sub(self.at);
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = read_at(&self.file, &mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Copy {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let moved = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length().checked_add_signed(by),
        };
        self.at = moved.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(unix)]
fn write_at(file: &File, content: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, content, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

#[cfg(windows)]
fn write_at(file: &File, mut content: &[u8], mut at: u64) -> io::Result<()> {
    while !content.is_empty() {
        let wrote = std::os::windows::fs::FileExt::seek_write(file, content, at)?;
        (content, at) = (&content[wrote..], at + wrote as u64);
    }
    Ok(())
}
