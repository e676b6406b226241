//! Lines that become one batch: how they are put together, and what their ids are. [`route`](super::route) fills chunks,
//! [`driver`](super::driver) sends them.

use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};

use super::wire::{Frame, Limits, Sealed, Wire};
use crate::journal::fingerprint::Fingerprint;
use crate::journal::record::Key;
use crate::providers::call::Content;
use crate::spool::{Spool, Stored};

/// The share of a provider's limit of bytes that is used: providers count in ways of their own.
const FILL: f64 = 0.95;

/// So many bytes of lines are in memory before they are written to the disk.
const IN_MEMORY: usize = 256 << 10;

/// The digest of a request, by which its line is found.
pub fn digest(body: &[u8]) -> Key {
    let mut digest = Fingerprint::new("batch line");
    digest.raw(body);
    digest.key()
}

/// Marks the traces of one chunk at its provider: 80 random bits.
///
/// # Errors
/// When the system has no random numbers.
pub fn nonce() -> Result<String, String> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_| "the operating system provides no random numbers".to_owned())?;
    Ok(random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

/// The id of a line: 57 letters at most, which every provider takes (Anthropic: `^[a-zA-Z0-9_-]{1,64}$`).
pub fn custom_id(nonce: &str, key: Key, line: u32) -> String {
    let mut digits = Vec::new();
    let mut rest = line;
    loop {
        digits.push(char::from_digit(rest % 36, 36).unwrap_or('0'));
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    format!("{nonce}-{key}-{}", digits.iter().rev().collect::<String>())
}

/// What the line with an id asks, and its number, if it is of a chunk with this nonce.
pub fn line_of(nonce: &str, custom_id: &str) -> Option<(Key, u32)> {
    let (key, line) = custom_id.strip_prefix(nonce)?.strip_prefix('-')?.split_once('-')?;
    Some((Key::parse(key)?, u32::from_str_radix(line, 36).ok()?))
}

/// A chunk that is being filled.
pub struct Filling {
    nonce: String,
    model: String,
    frame: Frame,
    limits: Limits,
    /// Bytes, at most, of several lines.
    most_bytes: usize,
    /// Its end, which is in memory.
    end: Vec<u8>,
    /// What is before that.
    stored: Option<Stored>,
    /// How long all of it is.
    length: usize,
    /// What each line asks.
    pub keys: Vec<Key>,
}

impl Filling {
    /// An empty one, for so many lines and bytes at most. Without a spool it is in memory.
    ///
    /// # Errors
    /// See [`nonce`].
    pub fn new(wire: &dyn Wire, model: &str, most: Limits, spool: Option<Arc<Spool>>) -> Result<Self, String> {
        let (frame, limits) = (wire.frame(model), wire.limits());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let bytes = (limits.bytes as f64 * FILL) as usize;
        let limits = Limits { lines: most.lines.clamp(1, limits.lines), bytes };
        let end = frame.before.clone().into_bytes();
        let (nonce, model, length) = (nonce()?, model.to_owned(), end.len());
        let most_bytes = most.bytes.min(bytes);
        let stored = spool.map(Stored::new);
        Ok(Self { nonce, model, frame, limits, most_bytes, end, stored, length, keys: Vec::new() })
    }

    /// Adds a line; returns its number. `None`: there is no room, and nothing was added.
    pub fn add(&mut self, wire: &dyn Wire, key: Key, body: &[u8]) -> Option<u32> {
        // The id and what is around it.
        const AROUND: usize = 256;
        let most = if self.keys.is_empty() { self.limits.bytes } else { self.most_bytes };
        if self.keys.len() >= self.limits.lines || self.length + body.len() + AROUND > most {
            return None;
        }
        let line = u32::try_from(self.keys.len()).ok()?;
        let before = self.end.len();
        if line > 0 {
            self.end.extend_from_slice(self.frame.between.as_bytes());
        }
        wire.write(&custom_id(&self.nonce, key, line), body, &mut self.end);
        self.length += self.end.len() - before;
        self.keys.push(key);
        if self.end.len() >= IN_MEMORY {
            self.store();
        }
        Some(line)
    }

    /// Writes to the disk what is in memory. Where that is not possible, it stays there.
    fn store(&mut self) {
        if let Some(stored) = &mut self.stored
            && stored.add(&self.end).is_ok()
        {
            self.end.clear();
        }
    }

    /// Whether another line of any length has no room.
    pub fn is_full(&self) -> bool {
        self.keys.len() >= self.limits.lines
    }

    /// Ends it.
    pub fn seal(mut self) -> (Sealed, Vec<Key>) {
        self.end.extend_from_slice(self.frame.after.as_bytes());
        self.store();
        let Self { nonce, model, keys, stored, end, .. } = self;
        let body = stored.map(Content::stored).unwrap_or_default();
        let body = if end.is_empty() { body } else { body.then(end) };
        let count = keys.len();
        (Sealed { nonce, model, body, count }, keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::wire::wire_of;
    use proptest::prelude::*;

    #[test]
    fn nonces_differ() {
        let (one, other) = (nonce().unwrap(), nonce().unwrap());
        assert!(one != other && one.len() == 16, "{one} {other}");
    }

    proptest! {
        #[test]
        fn lines_are_known_by_their_ids(line: u32, key: [u8; 16]) {
            let id = custom_id("abcdefghijklmnop", Key(key), line);
            prop_assert!(id.len() <= 57 && id.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'-'));
            prop_assert_eq!(line_of("abcdefghijklmnop", &id), Some((Key(key), line)));
            prop_assert_eq!(line_of("bbcdefghijklmnop", &id), None);
        }

        #[test]
        fn ids_of_others_are_none_of_ours(id in ".{0,80}") {
            prop_assert_eq!(line_of("abcdefghijklmnop", &id), None);
        }
    }

    #[test]
    fn a_chunk_ends_where_the_provider_says() {
        let wire = wire_of("anthropic", "v1/messages").unwrap();
        let mut chunk = Filling::new(&*wire, "m", Limits { lines: 2, bytes: 9999 }, None).unwrap();
        let add = |chunk: &mut Filling| chunk.add(&*wire, Key([0; 16]), b"{\"model\":\"m\"}");
        assert_eq!((add(&mut chunk), add(&mut chunk), add(&mut chunk)), (Some(0), Some(1), None));
        let (sealed, keys) = chunk.seal();
        assert_eq!((sealed.count, keys.len()), (2, 2));
        let body: serde_json::Value = serde_json::from_slice(&sealed.body.whole().unwrap()).unwrap();
        assert_eq!(body["requests"][1]["params"]["model"], "m");
        assert!(body["requests"][1]["custom_id"].as_str().unwrap().ends_with("-1"));
    }

    #[test]
    fn a_long_line_has_a_chunk_of_its_own() {
        let wire = wire_of("openai", "chat/completions").unwrap();
        let mut chunk = Filling::new(&*wire, "m", Limits { lines: 10, bytes: 1000 }, None).unwrap();
        assert_eq!(chunk.add(&*wire, Key([0; 16]), &[b' '; 5000]), Some(0));
        assert_eq!(chunk.add(&*wire, Key([0; 16]), b"{}"), None);
        let limits = Limits { lines: 10, bytes: usize::MAX };
        let mut chunk = Filling::new(&*wire, "m", limits, None).unwrap();
        assert_eq!(chunk.add(&*wire, Key([0; 16]), &vec![b' '; 191_000_000]), None, "more than the provider takes");
    }

    #[test]
    fn a_long_chunk_is_on_the_disk_and_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let wire = wire_of("openai", "chat/completions").unwrap();
        let fill = |spool: Option<Arc<Spool>>| {
            let mut chunk = Filling::new(&*wire, "m", Limits { lines: 5000, bytes: usize::MAX }, spool).unwrap();
            chunk.nonce = "n".repeat(16);
            for number in 0..5000 {
                let body = format!("{{\"model\":\"m\",\"n\":{number},\"text\":\"{}\"}}", "x".repeat(number % 300));
                chunk.add(&*wire, Key([7; 16]), body.as_bytes()).unwrap();
                assert!(chunk.stored.is_none() || chunk.end.len() < IN_MEMORY);
            }
            let length = chunk.length as u64 + 1;
            let body = chunk.seal().0.body;
            assert_eq!(body.size(), length);
            body.whole().unwrap()
        };
        let spool = Arc::new(Spool::beside(&folder.path().join("run.db")).unwrap());
        let first = fill(Some(Arc::clone(&spool)));
        assert!(first.len() > 2 * IN_MEMORY && first == fill(Some(spool)) && first == fill(None));
    }

    #[test]
    fn an_openai_file_has_a_line_for_each() {
        let wire = wire_of("openai", "chat/completions").unwrap();
        let mut chunk = Filling::new(&*wire, "m", Limits { lines: 10, bytes: 9999 }, None).unwrap();
        for _ in 0..3 {
            chunk.add(&*wire, Key([0; 16]), b"{\"model\":\"m\"}").unwrap();
        }
        let (sealed, _) = chunk.seal();
        let body = sealed.body.whole().unwrap();
        let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
        assert_eq!((lines.len(), lines[3]), (4, &b""[..]));
        let line: serde_json::Value = serde_json::from_slice(lines[2]).unwrap();
        assert_eq!((line["url"].as_str(), line["body"]["model"].as_str()), (Some("/v1/chat/completions"), Some("m")));
    }
}
