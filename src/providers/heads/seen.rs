//! How many questions have been seen with a beginning, and how fast they are sent. Bounded: what was not seen for long is
//! forgotten.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::points::Point;

/// So many questions must have a head: of two, both would write it at once.
pub const FEWEST: usize = 3;
/// Beginnings of a generation; there are two.
const MOST: usize = 4_096;
/// Over how long a rate is measured.
const MINUTE: Duration = Duration::from_secs(60);

/// What was seen.
pub struct Seen {
    life: Duration,
    young: FxHashMap<u64, Beginning>,
    old: FxHashMap<u64, Beginning>,
    all: Beginning,
}

/// One beginning.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    /// The first questions with it.
    questions: [u64; FEWEST],
    count: usize,
    /// When it was seen last.
    last: Instant,
    /// The minute that is measured: when it began, and how many were sent in it and in the one before.
    minute: (Instant, u32, u32),
    /// How many questions with it have got a key.
    keyed: u64,
    /// How many replies to questions with it were not read from the cache.
    missed: u32,
}

impl Beginning {
    fn new(now: Instant) -> Self {
        Self { questions: [0; FEWEST], count: 0, last: now, minute: (now, 0, 0), keyed: 0, missed: 0 }
    }

    /// Another question has it, or the same again. After the life of an entry there is nothing left to share.
    fn add(&mut self, whole: u64, life: Duration, now: Instant) {
        if now.saturating_duration_since(self.last) >= life {
            (self.count, self.missed) = (0, 0);
        }
        self.last = self.last.max(now);
        if self.count < FEWEST && !self.questions[..self.count].contains(&whole) {
            self.questions[self.count] = whole;
            self.count += 1;
        }
    }

    fn count(&self, life: Duration, now: Instant) -> usize {
        if now.saturating_duration_since(self.last) < life { self.count } else { 0 }
    }

    fn roll(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.minute.0);
        if passed >= 2 * MINUTE {
            self.minute = (now, 0, 0);
        } else if passed >= MINUTE {
            self.minute = (self.minute.0 + MINUTE, 0, self.minute.1);
        }
    }
}

impl Seen {
    /// Nothing yet. `life`: of entries.
    pub fn new(life: Duration) -> Self {
        Self { life, young: FxHashMap::default(), old: FxHashMap::default(), all: Beginning::new(Instant::now()) }
    }

    /// A question is seen, with all its beginnings. The same question may be seen again.
    pub fn add(&mut self, points: &[Point], whole: u64, now: Instant) {
        let life = self.life;
        self.all.add(whole, life, now);
        for point in points {
            self.get(point.hash, now).add(whole, life, now);
        }
    }

    /// How many questions with a beginning were seen, up to [`FEWEST`].
    pub fn count(&self, hash: u64, now: Instant) -> usize {
        let found = self.young.get(&hash).or_else(|| self.old.get(&hash));
        found.map_or(0, |found| found.count(self.life, now))
    }

    /// How many questions were seen at all, up to [`FEWEST`].
    pub fn questions(&self, now: Instant) -> usize {
        self.all.count(self.life, now)
    }

    /// The number of a question among those with a beginning that get a key.
    pub fn key(&mut self, hash: u64, now: Instant) -> u64 {
        let found = self.get(hash, now);
        found.keyed += 1;
        found.keyed - 1
    }

    /// A request with a beginning is sent.
    pub fn sent(&mut self, hash: u64, now: Instant) {
        let found = self.get(hash, now);
        found.roll(now);
        found.minute.1 = found.minute.1.saturating_add(1);
    }

    /// A reply to a question with a beginning was not read from the cache.
    pub fn missed(&mut self, hash: u64, now: Instant) {
        let found = self.get(hash, now);
        found.missed = found.missed.saturating_add(1);
    }

    /// How many of these there were lately.
    pub fn misses(&self, hash: u64, now: Instant) -> u32 {
        let found = self.young.get(&hash).or_else(|| self.old.get(&hash));
        found.filter(|found| now.saturating_duration_since(found.last) < self.life).map_or(0, |found| found.missed)
    }

    /// Requests a minute with a beginning; `None`: none was sent lately.
    pub fn rate(&self, hash: u64, now: Instant) -> Option<f64> {
        let mut found = *self.young.get(&hash).or_else(|| self.old.get(&hash))?;
        found.roll(now);
        let (began, count, before) = found.minute;
        let left = 1.0 - now.saturating_duration_since(began).as_secs_f64() / MINUTE.as_secs_f64();
        (count + before > 0).then(|| f64::from(count) + f64::from(before) * left.max(0.0))
    }

    fn get(&mut self, hash: u64, now: Instant) -> &mut Beginning {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        let before = self.old.remove(&hash);
        self.young.entry(hash).or_insert_with(|| before.unwrap_or_else(|| Beginning::new(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::points::End;
    use super::*;

    const LIFE: Duration = Duration::from_secs(300);

    fn point(hash: u64) -> [Point; 1] {
        [Point { end: End::Fixed, hash, tokens: 1 }]
    }

    #[test]
    fn questions_are_counted_once_and_forgotten_after_the_life_of_an_entry() {
        let (mut seen, now) = (Seen::new(LIFE), Instant::now());
        for whole in [1, 1, 2, 2] {
            seen.add(&point(7), whole, now);
        }
        assert_eq!((seen.count(7, now), seen.count(8, now), seen.questions(now)), (2, 0, 2));
        seen.add(&point(7), 3, now + LIFE / 2);
        seen.add(&point(7), 4, now + LIFE / 2);
        assert_eq!(seen.count(7, now + LIFE), FEWEST);
        assert_eq!(seen.count(7, now + 2 * LIFE), 0);
        seen.add(&point(7), 5, now + 2 * LIFE);
        assert_eq!(seen.count(7, now + 2 * LIFE), 1);
    }

    #[test]
    fn what_comes_again_stays_and_all_else_is_bounded() {
        let (mut seen, now) = (Seen::new(LIFE), Instant::now());
        seen.add(&point(7), 1, now);
        for hash in 0..5 * MOST as u64 {
            seen.add(&point(hash + 100), 2, now);
            if hash % 1_000 == 0 {
                seen.add(&point(7), 3, now);
            }
        }
        assert_eq!(seen.count(7, now), 2);
        assert_eq!(seen.count(100, now), 0);
        assert!(seen.young.len() <= MOST && seen.old.len() <= MOST);
    }

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let (mut seen, now) = (Seen::new(LIFE), Instant::now());
        assert_eq!(seen.rate(7, now), None);
        for second in 0..90 {
            seen.sent(7, now + Duration::from_secs(second));
        }
        let rate = seen.rate(7, now + Duration::from_secs(90)).unwrap();
        assert!((rate - 60.0).abs() < 2.0, "{rate}");
        assert_eq!(seen.rate(7, now + Duration::from_secs(300)), None);
    }
}
