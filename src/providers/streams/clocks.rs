//! How long a stream may be silent, by three clocks: of bytes, of events, and of events that change the answer.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::folded::Progress;
use crate::engine::seconds;

/// Limits of a stream, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Clocks {
    /// Of the wait for the reply's headers.
    pub first_byte: f64,
    /// Between bytes of any kind, comments too: a connection that is silent for longer is dead.
    pub bytes: f64,
    /// Between events, pings too.
    pub events: f64,
    /// Between events that change the answer: a model may think for long.
    pub progress: f64,
    /// Of the whole reply.
    pub whole: f64,
}

impl Clocks {
    /// Where the server sends pings or comments while a model thinks.
    pub const PINGED: Self = Self { first_byte: 600.0, bytes: 90.0, events: 600.0, progress: 600.0, whole: 3600.0 };
    /// Where it is silent.
    pub const SILENT: Self = Self { bytes: 600.0, ..Self::PINGED };

    /// The same for a model that thinks hard.
    #[must_use]
    pub fn thinking(self) -> Self {
        let longer = |clock: f64| if clock >= 600.0 { clock.max(1800.0) } else { clock };
        Self {
            first_byte: longer(self.first_byte),
            bytes: longer(self.bytes),
            events: longer(self.events),
            progress: longer(self.progress),
            whole: self.whole,
        }
    }

    /// The same with a user's own limits, seconds: between bytes, between events and until the
    /// answer progresses, and of the whole.
    #[must_use]
    pub fn with(self, idle: Option<f64>, progress: Option<f64>, total: Option<f64>) -> Self {
        Self {
            first_byte: self.first_byte,
            bytes: idle.unwrap_or(self.bytes),
            // Nothing progresses without events: whoever waits longer for the one waits as long for the other.
            events: progress.unwrap_or(self.events),
            progress: progress.unwrap_or(self.progress),
            whole: total.unwrap_or(self.whole),
        }
    }
}

/// The clocks of one stream.
pub struct Watch {
    limits: [(&'static str, Duration); 4],
    last: [Instant; 4],
}

impl Watch {
    /// Clocks that begin now.
    pub fn new(clocks: &Clocks) -> Self {
        let limits = [
            ("byte", seconds(clocks.bytes)),
            ("event", seconds(clocks.events)),
            ("progress", seconds(clocks.progress)),
            ("total", seconds(clocks.whole)),
        ];
        Self { limits, last: [Instant::now(); 4] }
    }

    /// Something has come.
    pub fn heard(&mut self, heard: Progress) {
        let now = Instant::now();
        let [byte, event, progress, _] = &mut self.last;
        *byte = now;
        if heard.events {
            *event = now;
        }
        if heard.progress {
            *progress = now;
        }
    }

    /// When the first clock will fire.
    pub fn end(&self) -> Instant {
        let ends = self.limits.iter().zip(&self.last).map(|((_, limit), last)| *last + *limit);
        ends.min().unwrap_or_else(Instant::now)
    }

    /// Which clock has fired, for an error. `last`: what came last.
    pub fn fired(&self, last: &str) -> String {
        let now = Instant::now();
        let over = |((_, limit), since): &(&(&str, Duration), &Instant)| now.duration_since(**since) >= *limit;
        let (name, limit) = self.limits.iter().zip(&self.last).find(over).map_or(self.limits[0], |(clock, _)| *clock);
        let what = match name {
            "byte" => "no data arrived",
            "event" => "no event arrived",
            "progress" => "the answer did not progress",
            _ => "the reply was not complete",
        };
        format!(
            "{what} {} {} s ({name} timeout); {last}",
            if name == "total" { "after" } else { "for" },
            limit.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_that_fires_is_named() {
        let clocks = Clocks { bytes: 10.0, events: 30.0, progress: 100.0, ..Clocks::PINGED };
        let mut watch = Watch::new(&clocks);
        tokio::time::sleep_until(watch.end()).await;
        assert_eq!(
            watch.fired("no event has arrived"),
            "no data arrived for 10 s (byte timeout); no event has arrived"
        );
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(8)).await;
            watch.heard(Progress::default());
        }
        tokio::time::sleep_until(watch.end()).await;
        assert_eq!(
            watch.fired("the last event was \"ping\""),
            "no event arrived for 30 s (event timeout); the last event was \"ping\""
        );
        let mut watch = Watch::new(&clocks);
        for _ in 0..13 {
            tokio::time::sleep(Duration::from_secs(8)).await;
            watch.heard(Progress { events: true, ..Progress::default() });
        }
        assert_eq!(
            watch.fired("the last event was \"ping\""),
            "the answer did not progress for 100 s (progress timeout); the last event was \"ping\""
        );
    }

    #[test]
    fn the_limits_of_the_user_take_precedence() {
        let own = Clocks::PINGED.with(Some(1.0), Some(2_000.0), Some(3.0));
        assert_eq!((own.bytes, own.events, own.progress, own.whole), (1.0, 2_000.0, 2_000.0, 3.0));
        assert_eq!(own.first_byte, Clocks::PINGED.first_byte);
        assert_eq!(Clocks::SILENT.with(None, None, None), Clocks::SILENT);
    }

    #[test]
    fn whoever_thinks_hard_has_more_time_but_not_where_the_server_pings() {
        let clocks = Clocks::PINGED.thinking();
        assert_eq!((clocks.bytes, clocks.progress, clocks.whole), (90.0, 1800.0, 3600.0));
        assert_eq!(Clocks::SILENT.thinking().bytes.to_string(), "1800");
    }
}
