//! How long answers take.

use std::time::Duration;

/// How the varying part of a latency is spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Evenly between nothing and all of it.
    #[default]
    Uniform,
    /// Exponentially, with it as the mean.
    Exponential,
    /// Log-normally, with it as the median; one in a hundred takes over three times as long.
    LogNormal,
}

/// The time to a reply.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    /// Always.
    pub fixed: Duration,
    /// Added, as the distribution says.
    pub spread: Duration,
    /// How.
    pub distribution: Distribution,
    /// Added for each token of the answer.
    pub per_token: Duration,
}

impl Latency {
    /// The latency of one request. It depends on the request's number and the seed only, so that every run is alike.
    pub fn of(&self, number: u64, seed: u64, tokens: usize) -> Duration {
        let factor = if self.spread.is_zero() { 0.0 } else { self.factor(number.wrapping_add(seed)) };
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.fixed + self.spread.mul_f64(factor) + self.per_token.saturating_mul(tokens)
    }

    fn factor(&self, number: u64) -> f64 {
        // Multiples of irrational numbers, of which only the fraction counts, spread evenly.
        #[allow(clippy::cast_precision_loss)]
        let evenly = |irrational: f64| (number as f64 * irrational).fract();
        let first = evenly(0.618_033_988_749_894_9);
        match self.distribution {
            Distribution::Uniform => first,
            Distribution::Exponential => -(1.0 - first).ln(),
            Distribution::LogNormal => {
                let second = evenly(std::f64::consts::SQRT_2 - 1.0);
                // Box and Muller's way from two even numbers to a normal one.
                let normal = (-2.0 * (1.0 - first).ln()).sqrt() * (std::f64::consts::TAU * second).cos();
                (0.5 * normal).exp()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_what_they_say() {
        let mean_and_median = |distribution| {
            let latency = Latency { spread: Duration::from_secs(1), distribution, ..Latency::default() };
            let mut all: Vec<f64> = (1..=10_000).map(|number| latency.of(number, 0, 0).as_secs_f64()).collect();
            all.sort_by(f64::total_cmp);
            (all.iter().sum::<f64>() / 10_000.0, all[5_000])
        };
        let near = |a: f64, b: f64| (a - b).abs() < 0.05;
        let (mean, median) = mean_and_median(Distribution::Uniform);
        assert!(near(mean, 0.5) && near(median, 0.5));
        let (mean, median) = mean_and_median(Distribution::Exponential);
        assert!(near(mean, 1.0) && near(median, std::f64::consts::LN_2));
        let (mean, median) = mean_and_median(Distribution::LogNormal);
        assert!(near(mean, 0.125f64.exp()) && near(median, 1.0), "{mean} {median}");
    }

    #[test]
    fn tokens_take_time() {
        let latency =
            Latency { fixed: Duration::from_millis(5), per_token: Duration::from_millis(2), ..Latency::default() };
        assert_eq!(latency.of(1, 0, 10), Duration::from_millis(25));
    }
}
