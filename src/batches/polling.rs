//! When to ask how batches are. Pure.

use std::time::Duration;

/// How often a provider is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Polling {
    /// The first time after the newest batch was made.
    pub first: Duration,
    /// At most this long in between, in the first hour.
    pub longest: Duration,
    /// And after that.
    pub patient: Duration,
}

/// Waits grow by this factor: 56 questions in the first hour, about twelve in each later one.
const GROWTH: f64 = 1.5;
const HOUR: Duration = Duration::from_secs(3600);
/// Waits are longer by a random share, up to this.
const JITTER: f64 = 0.1;

impl Default for Polling {
    fn default() -> Self {
        let (first, longest, patient) = (Duration::from_secs(1), Duration::from_secs(75), Duration::from_secs(300));
        Self { first, longest, patient }
    }
}

impl Polling {
    /// The same for a provider that does not like to be asked more often than this; whoever wants even the longest waits to
    /// be shorter is not heeding it.
    #[must_use]
    pub fn at_least(self, least: Duration) -> Self {
        if self.longest < least {
            return self;
        }
        Self { first: self.first.max(least), longest: self.longest.max(least), patient: self.patient.max(least) }
    }

    /// How long to wait after a wait of `before` (none: after the batch was made), when the batch is `age` old.
    /// `uniform`: a random number from 0 to 1.
    pub fn next(&self, before: Option<Duration>, age: Duration, uniform: f64) -> Duration {
        let most = if age < HOUR { self.longest } else { self.patient };
        let wait = before.map_or(self.first, |before| before.mul_f64(GROWTH).clamp(self.first, most));
        wait.mul_f64(1.0 + JITTER * uniform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polls_within(polling: Polling, first: Duration, last: Duration) -> usize {
        let (mut age, mut wait, mut polls) = (Duration::ZERO, None, 0);
        while age < last {
            let next = polling.next(wait, age, 0.0);
            (age, wait) = (age + next, Some(next));
            polls += usize::from(age > first && age <= last);
        }
        polls
    }

    #[test]
    fn a_batch_is_asked_for_at_most_sixty_times_an_hour() {
        let polling = Polling::default();
        assert_eq!(polls_within(polling, Duration::ZERO, HOUR), 56);
        assert_eq!(polls_within(polling, HOUR, 2 * HOUR), 14);
        assert_eq!(polls_within(polling.at_least(Duration::from_secs(60)), Duration::ZERO, HOUR), 48);
        let hasty = Polling { longest: Duration::from_secs(2), ..polling };
        assert_eq!(hasty.at_least(Duration::from_secs(60)), hasty);
    }
}
