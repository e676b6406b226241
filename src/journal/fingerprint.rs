//! Fingerprints of requests: SHA-256 of canonical JSON, the same in every process, on every machine.
//!
//! Canonical JSON here: no blanks, the keys of objects in the order of their bytes, strings as `serde_json` writes them,
//! whole numbers in full whatever their type (so that `1` and `1.0` are one), others by their shortest decimal form.

use std::io::{self, Write};

use ring::digest::{Context, SHA256};

use super::record::Key;

/// A fingerprint that is being made.
pub struct Fingerprint(Context);

impl Fingerprint {
    /// Of nothing yet. `purpose`: what it is of; those of different purposes are never equal.
    pub fn new(purpose: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(purpose.as_bytes());
        context.update(b"\0");
        Self(context)
    }

    /// Adds bytes as they are: punctuation, whole numbers, other fingerprints.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds a string.
    pub fn text(&mut self, text: &str) {
        // Writing to a hash does not fail, nor does a string.
        let _ = serde_json::to_writer(self, text);
    }

    /// The first half of it, which is enough for a key.
    pub fn key(self) -> Key {
        let mut key = [0; 16];
        key.copy_from_slice(&self.0.finish().as_ref()[..16]);
        Key(key)
    }
}

impl Write for Fingerprint {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
