//! Bodies of replies while they are read: how much memory all of them may take together, and how they are unpacked
//! where reqwest does not do so: several encodings, names that it does not know, and zstd, whose window is bounded here
//! (reqwest's is not).

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use tokio::sync::{Mutex, MutexGuard};

/// So much all bodies may take that come in more than two parts, bytes.
pub static ALL: Budget = Budget::new(512 << 20);
/// Of an error's body no more is read; what it says stands at its beginning.
pub const LONGEST_ERROR: usize = 64 << 10;
/// Largest window of zstd: 8 MiB, as RFC 8878 recommends and browsers have it.
const WINDOW_LOG: u32 = 23;
/// How often who waits looks whether there is room again.
const LOOK: Duration = Duration::from_millis(20);

/// Memory for many bodies. When it is used up, one body at a time is read on, and the others wait; so all of them come
/// to their end.
pub struct Budget {
    most: usize,
    used: AtomicUsize,
    turn: Mutex<()>,
}

impl Budget {
    /// Of so many bytes.
    pub const fn new(most: usize) -> Self {
        Self { most, used: AtomicUsize::new(0), turn: Mutex::const_new(()) }
    }

    /// The part of one body.
    pub fn begin(&self) -> Reservation<'_> {
        Reservation { budget: self, bytes: 0, turn: None }
    }
}

/// What one body takes; given back when it is dropped.
pub struct Reservation<'a> {
    budget: &'a Budget,
    bytes: usize,
    turn: Option<MutexGuard<'a, ()>>,
}

impl Reservation<'_> {
    /// Takes more, and returns when the next part may be read.
    pub async fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        let used = self.budget.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used > self.budget.most && self.turn.is_none() {
            // In a box, for it is held only then.
            Box::pin(self.wait()).await;
        }
    }

    async fn wait(&mut self) {
        while self.budget.used.load(Ordering::Relaxed) > self.budget.most {
            if let Ok(turn) = tokio::time::timeout(LOOK, self.budget.turn.lock()).await {
                self.turn = Some(turn);
                return;
            }
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An encoding of a body (RFC 9110, section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// `gzip`, `x-gzip`.
    Gzip,
    /// `deflate`: zlib, though some servers send it without zlib's frame.
    Deflate,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

impl Packing {
    /// Its usual name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// How a body is still packed, in the order in which it was. reqwest unpacks `gzip` and `br`, written so and alone, and
/// takes their header away. A name that is no encoding leaves the body as it is: some servers write `utf-8` there.
pub fn packings(headers: &HeaderMap) -> Vec<Packing> {
    let values = headers.get_all(header::CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase());
    let known = names.filter(|name| !name.is_empty() && name != "identity").map(|name| match name.as_str() {
        "gzip" | "x-gzip" => Some(Packing::Gzip),
        "deflate" => Some(Packing::Deflate),
        "br" => Some(Packing::Brotli),
        "zstd" => Some(Packing::Zstd),
        _ => None,
    });
    known.collect::<Option<_>>().unwrap_or_default()
}

/// Unpacks a body, to one byte more than `most` at most. What was unpacked before an error is there too.
///
/// # Errors
/// When it is not packed so, is cut, or wants a larger window.
pub fn unpacked(body: &[u8], packings: &[Packing], most: usize) -> (Vec<u8>, io::Result<()>) {
    let mut out = Cow::Borrowed(body);
    for packing in packings.iter().rev() {
        let (unpacked, read) = unpacked_once(&out, *packing, most);
        if read.is_err() || unpacked.len() > most {
            return (unpacked, read);
        }
        out = Cow::Owned(unpacked);
    }
    (out.into_owned(), Ok(()))
}

fn unpacked_once(body: &[u8], packing: Packing, most: usize) -> (Vec<u8>, io::Result<()>) {
    let mut out = Vec::new();
    let most = most as u64 + 1;
    let read = match packing {
        Packing::Gzip => MultiGzDecoder::new(body).take(most).read_to_end(&mut out),
        Packing::Deflate if has_zlib_frame(body) => ZlibDecoder::new(body).take(most).read_to_end(&mut out),
        Packing::Deflate => DeflateDecoder::new(body).take(most).read_to_end(&mut out),
        Packing::Brotli => brotli::Decompressor::new(body, 4096).take(most).read_to_end(&mut out),
        Packing::Zstd => zstd::stream::read::Decoder::with_buffer(body).and_then(|mut decoder| {
            decoder.window_log_max(WINDOW_LOG)?;
            decoder.take(most).read_to_end(&mut out)
        }),
    };
    (out, read.map(drop))
}

/// Whether a body begins as RFC 1950 says: the method is deflate, and the check bits are right.
fn has_zlib_frame(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

    const ZSTD: &[Packing] = &[Packing::Zstd];

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_goes_on_when_the_budget_is_used_up() {
        let budget: &'static Budget = Box::leak(Box::new(Budget::new(1000)));
        let peak = Arc::new(AtomicUsize::new(0));
        let read = |peak: Arc<AtomicUsize>| async move {
            let mut held = budget.begin();
            for _ in 0..50 {
                held.grow(10).await;
                peak.fetch_max(budget.used.load(Ordering::Relaxed), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let all: Vec<_> = (0..20).map(|_| tokio::spawn(read(Arc::clone(&peak)))).collect();
        for one in all {
            one.await.unwrap();
        }
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        // All that there is, a whole body beyond it, and a part of each that waits; not 20 bodies of 500.
        let peak = peak.load(Ordering::Relaxed);
        assert!(peak > 900 && peak <= 1000 + 500 + 20 * 10, "{peak}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_dropped_while_waiting_gives_back_what_it_had() {
        let budget = Budget::new(10);
        let mut first = budget.begin();
        first.grow(20).await;
        assert!(first.turn.is_some());
        {
            let mut second = budget.begin();
            assert!(tokio::time::timeout(Duration::from_secs(1), second.grow(5)).await.is_err());
        }
        assert_eq!(budget.used.load(Ordering::Relaxed), 20);
        drop(first);
        let mut third = budget.begin();
        third.grow(5).await;
        assert!(third.turn.is_none());
    }

    #[test]
    fn windows_and_lengths_are_bounded() {
        let packed = |window: u32, data: &[u8]| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(window).unwrap();
            std::io::Write::write_all(&mut encoder, data).unwrap();
            encoder.finish().unwrap()
        };
        let data = vec![7; 1 << 20];
        let (out, read) = unpacked(&packed(20, &data), ZSTD, 2 << 20);
        assert!(read.is_ok() && out == data);
        assert!(unpacked(&packed(27, &data), ZSTD, 2 << 20).1.is_err(), "a window of 128 MiB");
        let (out, read) = unpacked(&packed(20, &data), ZSTD, 1000);
        assert!(read.is_ok() && out.len() == 1001);
        let whole = packed(20, b"an error that is cut");
        assert!(unpacked(&whole[..whole.len() - 4], ZSTD, 1000).1.is_err());
        assert!(unpacked(b"nonsense", ZSTD, 10).1.is_err());
    }

    fn named(names: &[&'static str]) -> Vec<Packing> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(header::CONTENT_ENCODING, name.parse().unwrap());
        }
        packings(&headers)
    }

    #[test]
    fn encodings_are_known_by_all_their_names() {
        use Packing::*;
        for (names, expected) in [
            (&[] as &[&str], &[] as &[Packing]),
            (&["GZip"], &[Gzip]),
            (&["x-gzip"], &[Gzip]),
            (&["deflate"], &[Deflate]),
            (&[" zstd "], &[Zstd]),
            (&["gzip, br"], &[Gzip, Brotli]),
            (&["gzip", "identity", "zstd"], &[Gzip, Zstd]),
            (&["utf-8"], &[]),
            (&["gzip, rot13"], &[]),
            (&["", "identity"], &[]),
        ] {
            assert_eq!(named(names), expected, "{names:?}");
        }
    }

    #[test]
    fn what_was_packed_in_any_way_is_unpacked() {
        fn gzip(data: &[u8]) -> Vec<u8> {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        let data = b"{\"a\": \"bcdefghijklmnopq\"}".repeat(100);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&data).unwrap();
        let zlib = zlib.finish().unwrap();
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        raw.write_all(&data).unwrap();
        let raw = raw.finish().unwrap();
        let twice = zstd::encode_all(&gzip(&data)[..], 1).unwrap();
        let members = [gzip(&data[..50]), gzip(&data[50..])].concat();
        for (packed, packings) in [
            (data.clone(), &[] as &[Packing]),
            (gzip(&data), &[Packing::Gzip]),
            (members, &[Packing::Gzip]),
            (zlib.clone(), &[Packing::Deflate]),
            (raw, &[Packing::Deflate]),
            (twice, &[Packing::Gzip, Packing::Zstd]),
        ] {
            let (out, read) = unpacked(&packed, packings, 1 << 20);
            assert!(read.is_ok() && out == data, "{packings:?}: {read:?}");
            if let [first, ..] = packings {
                assert_eq!(unpacked(&packed, packings, 100).0.len(), 101, "{first:?}");
                assert!(unpacked(&packed[..packed.len() - 9], packings, 1 << 20).1.is_err(), "{first:?}, cut");
            }
        }
        assert!(unpacked(&data, &[Packing::Brotli], 1 << 20).1.is_err());
    }
}
