//! How many attempts of a queue have ended, and how long its attempts have taken: shows an endpoint that is slower than
//! others. Only the scheduler uses it.

use std::time::Duration;

/// Times are since the start of the run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Served {
    ended: u64,
    time: Duration,
    in_flight: u32,
    /// The sum of the times at which those in flight have started.
    starts: Duration,
}

impl Served {
    /// An attempt starts.
    pub fn start(&mut self, at: Duration) {
        self.in_flight += 1;
        self.starts += at;
    }

    /// An attempt that started at `from` has ended.
    pub fn end(&mut self, from: Duration, to: Duration) {
        self.ended += 1;
        self.time += to.saturating_sub(from);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.starts = self.starts.saturating_sub(from);
    }

    /// How many attempts have ended or are in flight, and for how long they have been in flight in all.
    pub fn total(&self, now: Duration) -> (u64, Duration) {
        let on = now.saturating_mul(self.in_flight).saturating_sub(self.starts);
        (self.ended + u64::from(self.in_flight), self.time + on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_in_flight_count_as_far_as_they_are() {
        let at = Duration::from_secs;
        let mut served = Served::default();
        served.start(at(1));
        served.start(at(3));
        served.end(at(1), at(5));
        assert_eq!(served.total(at(6)), (2, at(7)));
        served.end(at(3), at(7));
        assert_eq!(served.total(at(9)), (2, at(8)));
    }
}
