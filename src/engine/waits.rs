//! What an item waits for before an attempt, for its owner to see. The scheduler decides nothing by it.

use std::time::Duration;

use tokio::time::Instant;

use super::bound::Bound;
use super::units::ItemIndex;

/// What an item has waited for before one attempt, seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Waits {
    /// For its turn and for a worker.
    pub queue: f32,
    /// At the head of the line: for a limit of requests or tokens, or the pace.
    pub quota: f32,
    /// At the head of the line: for room at the provider.
    pub admission: f32,
    /// For the end of a pause after a rate limit.
    pub cooldown: f32,
    /// Since the last attempt failed, because it did.
    pub backoff: f32,
}

impl Waits {
    fn add(&mut self, bound: Bound, time: Duration) {
        let time = time.as_secs_f32();
        match bound {
            Bound::Quota(_) | Bound::Pace => self.quota += time,
            Bound::Concurrency | Bound::OtherRuns | Bound::SlowStart | Bound::Outage => self.admission += time,
            Bound::Cooldown => self.cooldown += time,
            _ => self.queue += time,
        }
    }
}

/// An item that is to be retried.
#[derive(Debug, Clone, Copy)]
pub struct PendingRetry {
    /// When its last attempt failed.
    pub failed_at: Instant,
    /// When it may go on.
    pub retry_at: Instant,
    /// Whether it waits for the end of a pause.
    pub after_pause: bool,
}

impl PendingRetry {
    /// With the time until it may go on.
    pub fn added_to(self, mut waits: Waits) -> Waits {
        let time = self.retry_at.saturating_duration_since(self.failed_at).as_secs_f32();
        *(if self.after_pause { &mut waits.cooldown } else { &mut waits.backoff }) += time;
        waits
    }
}

/// The head of a queue that has to wait, and what for.
#[derive(Debug, Clone, Copy)]
pub struct BlockedHead {
    item: ItemIndex,
    cause: Bound,
    since: Instant,
    /// When it became the head.
    first: Instant,
    waits: Waits,
}

impl BlockedHead {
    /// This item has to wait for that.
    pub fn note(blocked: &mut Option<Self>, item: ItemIndex, cause: Bound, now: Instant) {
        match blocked {
            Some(known) if known.item == item => {
                if known.cause != cause {
                    known.waits.add(known.cause, now.saturating_duration_since(known.since));
                    (known.cause, known.since) = (cause, now);
                }
            }
            _ => *blocked = Some(Self { item, cause, since: now, first: now, waits: Waits::default() }),
        }
    }

    /// The item starts: what it has waited for since `since`, whether it was blocked at the head or only stood in line.
    pub fn end(blocked: &mut Option<Self>, item: ItemIndex, since: Instant, now: Instant) -> Waits {
        let blocked = blocked.take_if(|known| known.item == item);
        let (mut waits, first) = match blocked {
            Some(mut known) => {
                known.waits.add(known.cause, now.saturating_duration_since(known.since));
                (known.waits, known.first)
            }
            None => (Waits::default(), now),
        };
        waits.queue += first.saturating_duration_since(since).as_secs_f32();
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::Measure;
    use super::*;

    #[test]
    fn waits_add_up_to_the_time_since_acceptance() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut blocked = None;
        BlockedHead::note(&mut blocked, 7, Bound::Quota(Measure::Tokens), at(10));
        BlockedHead::note(&mut blocked, 7, Bound::Quota(Measure::Tokens), at(11));
        BlockedHead::note(&mut blocked, 7, Bound::Concurrency, at(13));
        BlockedHead::note(&mut blocked, 7, Bound::Cooldown, at(14));
        let waits = BlockedHead::end(&mut blocked, 7, start, at(18));
        assert_eq!(waits, Waits { queue: 10.0, quota: 3.0, admission: 1.0, cooldown: 4.0, backoff: 0.0 });
        assert!(blocked.is_none());
    }

    #[test]
    fn another_item_s_waits_are_not_mine() {
        let start = Instant::now();
        let mut blocked = None;
        BlockedHead::note(&mut blocked, 7, Bound::Cooldown, start);
        let waits = BlockedHead::end(&mut blocked, 8, start, start + Duration::from_secs(2));
        assert_eq!(waits, Waits { queue: 2.0, ..Waits::default() });
        assert!(blocked.is_some());
    }
}
