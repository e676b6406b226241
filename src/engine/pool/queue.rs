//! What a member's server tells of its queue: when to ask for it, and how many requests of others are ahead of ours.
//!
//! Asked for is only as long as requests are sent, and at most once a second. What was told long ago counts no more.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is asked for, at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often, after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// What was told so long ago is forgotten.
const STALE: Duration = Duration::from_secs(5);

/// What a server has told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Depth {
    /// How many requests run, if it says so, and how many wait.
    Known {
        /// Those that run.
        running: Option<f64>,
        /// Those that wait.
        waiting: f64,
    },
    /// Nothing, this time.
    Unknown,
    /// It never tells.
    Never,
}

/// The queue of one member.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queue {
    /// When it is to be asked for again; `None`: never.
    due: Option<Instant>,
    is_watched: bool,
    ahead: f64,
    known: Option<Instant>,
}

impl Queue {
    /// Nothing is known of it. `is_watched`: whether it is ever asked for.
    pub fn new(is_watched: bool) -> Self {
        Self { is_watched, ..Self::default() }
    }

    /// Whether it is ever asked for.
    pub fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Whether it is to be asked for now; whoever asks this does so.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.is_watched && self.due.is_none_or(|due| due <= now);
        if is_due {
            // Should the answer not come, the next is asked for as after a failure.
            self.due = Some(now + AFTER_FAILURE);
        }
        is_due
    }

    /// The server has answered, to a question of `asked`. `own`: our requests there.
    pub fn reported(&mut self, reported: Depth, own: f64, requested: Instant, now: Instant) {
        match reported {
            Depth::Known { running, waiting } => {
                (self.ahead, self.known) = (ahead(running, waiting, own), Some(now));
                self.due = Some((requested + INTERVAL).max(now));
            }
            Depth::Unknown => {}
            Depth::Never => *self = Self::default(),
        }
    }

    /// How many requests of others wait there.
    pub fn ahead(&self, now: Instant) -> f64 {
        if self.known.is_some_and(|known| now < known + STALE) { self.ahead } else { 0.0 }
    }
}

/// How many of the requests that wait are not ours. Ours may run or wait; it is not known which.
fn ahead(running: Option<f64>, waiting: f64, own: f64) -> f64 {
    let others = running.unwrap_or_default() + waiting - own;
    others.clamp(0.0, waiting.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn our_own_requests_are_no_queue_of_others() {
        for (running, waiting, own, expected) in [
            (Some(8.0), 0.0, 0.0, 0.0),
            (Some(8.0), 20.0, 0.0, 20.0),
            (Some(8.0), 20.0, 28.0, 0.0),
            (Some(8.0), 20.0, 20.0, 8.0),
            (Some(8.0), 20.0, 40.0, 0.0),
            (None, 20.0, 5.0, 15.0),
            (None, 5.0, 20.0, 0.0),
        ] {
            assert_eq!(ahead(running, waiting, own), expected, "{running:?} {waiting} {own}");
        }
    }

    #[test]
    fn it_is_asked_for_once_a_second_and_less_often_after_failures() {
        let now = Instant::now();
        let depth = Depth::Known { running: None, waiting: 7.0 };
        let mut queue = Queue::new(true);
        assert!(queue.is_due(now) && !queue.is_due(now + 9 * SECOND));
        queue.reported(depth, 0.0, now, now + SECOND / 2);
        assert!(!queue.is_due(now + SECOND * 9 / 10) && queue.is_due(now + SECOND));
        queue.reported(Depth::Unknown, 0.0, now + SECOND, now + SECOND);
        assert!(!queue.is_due(now + 10 * SECOND) && queue.is_due(now + 11 * SECOND));
        queue.reported(depth, 0.0, now + 11 * SECOND, now + 15 * SECOND);
        assert!(queue.is_due(now + 15 * SECOND));
        queue.reported(Depth::Never, 0.0, now + 15 * SECOND, now + 15 * SECOND);
        assert!(!queue.is_due(now + 1000 * SECOND) && !queue.is_watched());
        assert!(!Queue::new(false).is_due(now));
    }

    #[test]
    fn what_was_told_is_forgotten() {
        let now = Instant::now();
        let mut queue = Queue::new(true);
        queue.reported(Depth::Known { running: None, waiting: 7.0 }, 2.0, now, now);
        assert_eq!((queue.ahead(now + 4 * SECOND), queue.ahead(now + 5 * SECOND)), (5.0, 0.0));
    }
}
