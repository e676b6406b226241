//! How long answers take: a mean that a few slow ones do not move, and the time that nearly all stay below.

use std::time::Duration;

/// The weight of a new latency in the mean.
const WEIGHT: f64 = 0.03;
/// Standard errors between two means that are no chance.
const CERTAIN: f64 = 3.0;
/// Latencies below are as good as this one, seconds.
const SHORTEST: f64 = 1e-4;

/// The geometric mean of recent latencies: an answer that takes a hundred times as long moves it by a seventh.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    log: f64,
    /// How far the logarithms are from their mean, squared.
    variance: f64,
    count: u32,
}

impl Latency {
    /// An answer has come.
    pub fn learn(&mut self, latency: Duration) {
        let log = latency.as_secs_f64().max(SHORTEST).ln();
        self.count = self.count.saturating_add(1);
        // The first few count alike.
        let weight = WEIGHT.max(1.0 / f64::from(self.count));
        let off = log - self.log;
        self.log += off * weight;
        self.variance += ((1.0 - weight) * off * off - self.variance) * weight;
    }

    /// Whether its mean is so many times the other's, and that is no chance.
    pub fn is_longer(&self, other: &Self, times: f64) -> bool {
        let doubt = |one: &Self| one.variance * (WEIGHT / (2.0 - WEIGHT)).max(1.0 / f64::from(one.count.max(1)));
        let longer = self.log - other.log;
        longer > times.ln() && longer > CERTAIN * (doubt(self) + doubt(other)).sqrt()
    }

    /// The mean, seconds; `None`: nothing is known.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.log.exp())
    }

    /// The order of their means.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.log.total_cmp(&other.log)
    }

    /// How many answers it is made of.
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// Latencies that are remembered.
const REMEMBERED: usize = 512;
/// Fewer say nothing about the slowest of them.
const ENOUGH: usize = 40;
/// After so many new ones the answer is found anew.
const STALE: u32 = 16;

/// The latency that 95 of 100 recent answers stay below.
#[derive(Debug, Clone, Default)]
pub struct Percentile {
    recent: Vec<f32>,
    next: usize,
    since: u32,
    found: Option<f32>,
}

impl Percentile {
    /// An answer has come.
    pub fn learn(&mut self, latency: Duration) {
        let latency = latency.as_secs_f32();
        if self.recent.len() < REMEMBERED {
            self.recent.push(latency);
        } else {
            self.recent[self.next] = latency;
            self.next = (self.next + 1) % REMEMBERED;
        }
        self.since += 1;
        if self.since >= STALE {
            self.found = None;
        }
    }

    /// The latency; `None`: too little is known.
    pub fn get(&mut self) -> Option<Duration> {
        if self.recent.len() < ENOUGH {
            return None;
        }
        if self.found.is_none() {
            let mut sorted = self.recent.clone();
            let place = sorted.len() * 95 / 100;
            let (_, found, _) = sorted.select_nth_unstable_by(place, f32::total_cmp);
            (self.found, self.since) = (Some(*found), 0);
        }
        self.found.map(|found| Duration::from_secs_f32(found.max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_slow_answers_do_not_move_the_mean() {
        let mut latency = Latency::default();
        for number in 0..100 {
            latency.learn(Duration::from_millis(if number % 50 == 49 { 10_000 } else { 100 }));
        }
        let mean = latency.mean().unwrap();
        assert!((0.09..0.2).contains(&mean), "{mean}");
        assert_eq!(Latency::default().mean(), None);
    }

    #[test]
    fn a_mean_is_longer_if_that_is_no_chance() {
        let of = |milliseconds: [u64; 4], count: usize| {
            let mut latency = Latency::default();
            milliseconds.iter().cycle().take(count).for_each(|one| latency.learn(Duration::from_millis(*one)));
            latency
        };
        assert!(of([400, 420, 400, 410], 20).is_longer(&of([100, 110, 100, 90], 20), 3.0));
        assert!(!of([200, 220, 200, 210], 20).is_longer(&of([100, 110, 100, 90], 20), 3.0));
        assert!(!of([40, 2000, 100, 9000], 8).is_longer(&of([20, 1000, 50, 600], 8), 3.0));
    }

    #[test]
    fn the_percentile_is_known_after_enough_and_follows() {
        let mut percentile = Percentile::default();
        for milliseconds in 1..=39 {
            percentile.learn(Duration::from_millis(milliseconds));
        }
        assert_eq!(percentile.get(), None);
        for milliseconds in 40..=100 {
            percentile.learn(Duration::from_millis(milliseconds));
        }
        let found = percentile.get().unwrap();
        assert!((Duration::from_millis(94)..Duration::from_millis(98)).contains(&found), "{found:?}");
        for _ in 0..1000 {
            percentile.learn(Duration::from_secs(1));
        }
        assert_eq!(percentile.get(), Some(Duration::from_secs(1)));
    }
}
