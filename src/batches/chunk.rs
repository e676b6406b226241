//! Lines that become one batch: how they are put together, and what their ids are. [`route`](super::route) fills chunks,
//! [`driver`](super::driver) sends them.

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};

use super::wire::{Frame, Limits, Sealed, Wire};
use crate::journal::fingerprint::Fingerprint;
use crate::journal::record::Key;

/// The share of a provider's limit of bytes that is used: providers count in ways of their own.
const FILL: f64 = 0.95;

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
    body: Vec<u8>,
    /// What each line asks.
    pub keys: Vec<Key>,
}

impl Filling {
    /// An empty one, for so many lines and bytes at most.
    ///
    /// # Errors
    /// See [`nonce`].
    pub fn new(wire: &dyn Wire, model: &str, most: Limits) -> Result<Self, String> {
        let (frame, limits) = (wire.frame(model), wire.limits());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let bytes = (limits.bytes as f64 * FILL) as usize;
        let limits = Limits { lines: most.lines.clamp(1, limits.lines), bytes };
        let body = frame.before.clone().into_bytes();
        let model = model.to_owned();
        let most_bytes = most.bytes.min(bytes);
        Ok(Self { nonce: nonce()?, model, frame, limits, most_bytes, body, keys: Vec::new() })
    }

    /// Adds a line; returns its number. `None`: there is no room, and nothing was added.
    pub fn add(&mut self, wire: &dyn Wire, key: Key, body: &[u8]) -> Option<u32> {
        // The id and what is around it.
        const AROUND: usize = 256;
        let most = if self.keys.is_empty() { self.limits.bytes } else { self.most_bytes };
        if self.keys.len() >= self.limits.lines || self.body.len() + body.len() + AROUND > most {
            return None;
        }
        let line = u32::try_from(self.keys.len()).ok()?;
        if line > 0 {
            self.body.extend_from_slice(self.frame.between.as_bytes());
        }
        wire.write(&custom_id(&self.nonce, key, line), body, &mut self.body);
        self.keys.push(key);
        Some(line)
    }

    /// Whether another line of any length has no room.
    pub fn is_full(&self) -> bool {
        self.keys.len() >= self.limits.lines
    }

    /// Ends it.
    pub fn seal(mut self) -> (Sealed, Vec<Key>) {
        self.body.extend_from_slice(self.frame.after.as_bytes());
        let (body, count) = (Bytes::from(self.body), self.keys.len());
        let Self { nonce, model, keys, .. } = self;
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
        let mut chunk = Filling::new(&*wire, "m", Limits { lines: 2, bytes: 9999 }).unwrap();
        let add = |chunk: &mut Filling| chunk.add(&*wire, Key([0; 16]), b"{\"model\":\"m\"}");
        assert_eq!((add(&mut chunk), add(&mut chunk), add(&mut chunk)), (Some(0), Some(1), None));
        let (sealed, keys) = chunk.seal();
        assert_eq!((sealed.count, keys.len()), (2, 2));
        let body: serde_json::Value = serde_json::from_slice(&sealed.body).unwrap();
        assert_eq!(body["requests"][1]["params"]["model"], "m");
        assert!(body["requests"][1]["custom_id"].as_str().unwrap().ends_with("-1"));
    }

    #[test]
    fn a_long_line_has_a_chunk_of_its_own() {
        let wire = wire_of("openai", "chat/completions").unwrap();
        let mut chunk = Filling::new(&*wire, "m", Limits { lines: 10, bytes: 1000 }).unwrap();
        assert_eq!(chunk.add(&*wire, Key([0; 16]), &[b' '; 5000]), Some(0));
        assert_eq!(chunk.add(&*wire, Key([0; 16]), b"{}"), None);
        let limits = Limits { lines: 10, bytes: usize::MAX };
        let mut chunk = Filling::new(&*wire, "m", limits).unwrap();
        assert_eq!(chunk.add(&*wire, Key([0; 16]), &vec![b' '; 191_000_000]), None, "more than the provider takes");
    }

    #[test]
    fn an_openai_file_has_a_line_for_each() {
        let wire = wire_of("openai", "chat/completions").unwrap();
        let mut chunk = Filling::new(&*wire, "m", Limits { lines: 10, bytes: 9999 }).unwrap();
        for _ in 0..3 {
            chunk.add(&*wire, Key([0; 16]), b"{\"model\":\"m\"}").unwrap();
        }
        let (sealed, _) = chunk.seal();
        let lines: Vec<&[u8]> = sealed.body.split(|byte| *byte == b'\n').collect();
        assert_eq!((lines.len(), lines[3]), (4, &b""[..]));
        let line: serde_json::Value = serde_json::from_slice(lines[2]).unwrap();
        assert_eq!((line["url"].as_str(), line["body"]["model"].as_str()), (Some("/v1/chat/completions"), Some("m")));
    }
}
