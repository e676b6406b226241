//! Bodies of replies while they are read: how much memory all of them may take together, and zstd, whose window is
//! bounded (reqwest's is not).

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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
    pub fn begin(&self) -> Held<'_> {
        Held { budget: self, bytes: 0, turn: None }
    }
}

/// What one body takes; given back when it is dropped.
pub struct Held<'a> {
    budget: &'a Budget,
    bytes: usize,
    turn: Option<MutexGuard<'a, ()>>,
}

impl Held<'_> {
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

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Unpacks zstd, to one byte more than `most` at most. What was unpacked before an error is there too.
///
/// # Errors
/// When it is none, is cut, or wants a larger window.
pub fn unpacked(body: &[u8], most: usize) -> (Vec<u8>, std::io::Result<()>) {
    let mut out = Vec::new();
    let read = zstd::stream::read::Decoder::with_buffer(body).and_then(|mut decoder| {
        decoder.window_log_max(WINDOW_LOG)?;
        decoder.take(most as u64 + 1).read_to_end(&mut out).map(drop)
    });
    (out, read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

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
        let (out, read) = unpacked(&packed(20, &data), 2 << 20);
        assert!(read.is_ok() && out == data);
        assert!(unpacked(&packed(27, &data), 2 << 20).1.is_err(), "a window of 128 MiB");
        let (out, read) = unpacked(&packed(20, &data), 1000);
        assert!(read.is_ok() && out.len() == 1001);
        let whole = packed(20, b"an error that is cut");
        assert!(unpacked(&whole[..whole.len() - 4], 1000).1.is_err());
        assert!(unpacked(b"nonsense", 10).1.is_err());
    }
}
