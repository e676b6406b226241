//! Prompt caches of a provider: which heads of requests are in them, and who is writing one.
//!
//! Providers keep the beginning of a prompt, its head, for a while; a request whose head they have costs less. Until an
//! entry can be read, requests with the same head write it again, each at the price of a write. So the first request of
//! a head, its leader, goes alone, and the others follow when the entry can be read (`warming` has the scheduler's
//! part):
//!
//! ```text
//! cold -> a leader in flight -> warm, for its life since the last use -> cold
//! ```
//!
//! A [`Scope`](super::scope::Scope) has the [`Entries`] of its runs: they ask with one key.

use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::scope::Member;
use super::units::ItemIndex;

/// What requests begin with alike, where the provider caches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The same for all requests that can read the same entry, and for no others.
    pub key: u64,
    /// The same for all that begin alike, also where their entries have several keys.
    pub base: u64,
    /// How long an entry lives after its last use.
    pub life: Duration,
    /// When the entry that a request writes can be read.
    pub readable: Readable,
}

/// When the entry that a request writes can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// When the reply begins: whoever executes attempts reports that with
    /// [`Scheduler::readable`](super::scheduler::Scheduler::readable), or else it is the end.
    AtFirstByte,
    /// When the reply has ended.
    AtEnd,
}

/// With fewer requests of a head nobody waits: little is gained by it.
pub const LEAST_GROUP: u64 = 3;

/// Nobody waits longer for a leader before anything is known of how long leaders take.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(30);
/// When it is known, at least this long, however quick they were.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);
/// And at most this long.
const MOST_PATIENCE: Duration = Duration::from_secs(60);
/// Times of leaders that are remembered. The longest of so few is about where 95 % of all are.
const RECENT: usize = 16;
/// Leaders that may fail in a row before the others go without one.
const MOST_FAILURES: u32 = 3;
/// The last part of a life does not count: a request takes a while to arrive.
const USABLE_LIFE: f64 = 0.97;
/// Entries that are kept, whatever has become of them, before those that are over are dropped.
const TIDY_ABOVE: usize = 1024;

/// Whose attempt it is.
pub type Who = (Member, ItemIndex);

/// Whether a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Its head can be read, or it does not matter.
    Go,
    /// It would be the first.
    Lead,
    /// Another one is the first: until it is through, but not beyond this instant.
    Wait(Instant),
}

/// How an attempt ended, as far as the cache is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The provider has read the prompt, so its head can be read.
    Read,
    /// It has not, as far as is known.
    Failed,
    /// Nothing was sent, or it came too fast: that says nothing of the head.
    Void,
}

/// What a request finds in the cache, as far as is known when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The first of its head: nothing. It is the leader.
    Nothing,
    /// An entry that nobody has used for too long. It is the leader.
    Expired,
    /// An entry that is being written: it did not wait.
    Unwritten,
    /// What it can read.
    Entry,
}

/// What is known of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmth {
    /// The provider has it not.
    Cold,
    /// It is being written.
    Warming,
    /// It can be read.
    Warm,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Cold,
    /// Until when the others wait, and how many went all the same, the leader included.
    Warming {
        until: Instant,
        started: u64,
    },
    Warm {
        until: Instant,
    },
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    head: Head,
    state: State,
    /// The leader, while it is in flight, and since when.
    leader: Option<(Who, Instant)>,
    /// Leaders that failed, since one did not.
    failures: u32,
}

impl Entry {
    fn warm_until(&self, since: Instant) -> State {
        State::Warm { until: since + self.head.life.mul_f64(USABLE_LIFE) }
    }

    fn warmth(&self, now: Instant) -> Warmth {
        match self.state {
            // The time of the others' wait is over: they go as if it were written.
            State::Warming { until, .. } if until <= now => Warmth::Warm,
            State::Warming { .. } => Warmth::Warming,
            State::Warm { until } if until > now => Warmth::Warm,
            State::Warm { .. } | State::Cold => Warmth::Cold,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Entries {
    known: FxHashMap<u64, Entry>,
    /// How long the last leaders took.
    recent: [Duration; RECENT],
    leaders: usize,
}

impl Entries {
    /// Whether a request with this head may go. `others`: how many that have not started are known, itself included.
    pub fn turn(&self, key: u64, others: u64, now: Instant) -> Turn {
        let Some(entry) = self.known.get(&key) else { return Turn::Lead };
        match (entry.warmth(now), entry.state) {
            (Warmth::Warming, State::Warming { until, started }) if started.saturating_add(others) >= LEAST_GROUP => {
                Turn::Wait(until)
            }
            (Warmth::Cold, _) => Turn::Lead,
            _ => Turn::Go,
        }
    }

    /// What is known of a head.
    pub fn warmth(&self, key: u64, now: Instant) -> Warmth {
        self.known.get(&key).map_or(Warmth::Cold, |entry| entry.warmth(now))
    }

    /// A request with this head starts: what it finds.
    pub fn started(&mut self, who: Who, head: Head, now: Instant) -> Found {
        let patience = self.patience();
        self.tidy(now);
        let fresh = Entry { head, state: State::Cold, leader: None, failures: 0 };
        let entry = self.known.entry(head.key).or_insert(fresh);
        entry.head = head;
        match (entry.warmth(now), &mut entry.state) {
            (Warmth::Warming, State::Warming { started, .. }) => {
                *started += 1;
                Found::Unwritten
            }
            (Warmth::Warm, state) => {
                // Without patience for its leader, nobody knows whether it is there.
                let found = if matches!(state, State::Warming { .. }) { Found::Unwritten } else { Found::Entry };
                entry.state = entry.warm_until(now);
                found
            }
            _ if entry.failures >= MOST_FAILURES => {
                // It is not worth while that the others wait for one after the other.
                entry.failures = 0;
                entry.state = entry.warm_until(now);
                Found::Unwritten
            }
            _ => {
                let again = matches!(entry.state, State::Warm { .. });
                entry.state = State::Warming { until: now + patience, started: 1 };
                entry.leader = Some((who, now));
                if again { Found::Expired } else { Found::Nothing }
            }
        }
    }

    /// Whether others wait for this request.
    pub fn is_led_by(&self, who: Who, key: u64) -> bool {
        self.known.get(&key).and_then(|entry| entry.leader).is_some_and(|(leader, _)| leader == who)
    }

    /// The reply to a request has begun. Whether that is news to those who wait.
    pub fn first_byte(&mut self, who: Who, key: u64, now: Instant) -> bool {
        match self.known.get(&key) {
            Some(entry) if entry.head.readable == Readable::AtFirstByte => self.ended(who, key, Ended::Read, now),
            _ => false,
        }
    }

    /// A request has ended. Whether that is news to those who wait.
    pub fn ended(&mut self, who: Who, key: u64, ended: Ended, now: Instant) -> bool {
        let Some(entry) = self.known.get_mut(&key) else { return false };
        let leads = entry.leader.filter(|(leader, _)| *leader == who);
        if leads.is_some() {
            entry.leader = None;
        }
        let was_warming = matches!(entry.state, State::Warming { .. });
        match (ended, leads) {
            (Ended::Read, Some((_, since))) => {
                entry.failures = 0;
                // Its life begins with the request where it can be read early.
                entry.state = entry.warm_until(if entry.head.readable == Readable::AtEnd { now } else { since });
                self.recent[self.leaders % RECENT] = now.saturating_duration_since(since);
                self.leaders += 1;
            }
            // Another one was quicker.
            (Ended::Read, None) if was_warming => entry.state = entry.warm_until(now),
            (Ended::Failed | Ended::Void, Some(_)) if was_warming => {
                entry.failures += u32::from(ended == Ended::Failed);
                entry.state = State::Cold;
            }
            _ => return false,
        }
        was_warming
    }

    /// For how long others wait for a leader: for about as long as nearly all leaders take.
    fn patience(&self) -> Duration {
        match self.recent[..self.leaders.min(RECENT)].iter().max() {
            Some(longest) => longest.saturating_mul(2).clamp(LEAST_PATIENCE, MOST_PATIENCE),
            None => UNKNOWN_PATIENCE,
        }
    }

    fn tidy(&mut self, now: Instant) {
        if self.known.len() >= TIDY_ABOVE && self.known.len().is_power_of_two() {
            self.known.retain(|_, entry| entry.leader.is_some() || entry.warmth(now) != Warmth::Cold);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scope::{Control, Scope};
    use super::*;
    use std::sync::Arc;

    const LIFE: Duration = Duration::from_secs(300);
    const SECOND: Duration = Duration::from_secs(1);

    fn who(item: ItemIndex) -> Who {
        (Scope::default().join(Arc::new(|| ()), &[], None, Control::Fixed, Instant::now()), item)
    }

    fn head(readable: Readable) -> Head {
        Head { key: 7, base: 7, life: LIFE, readable }
    }

    #[test]
    fn the_others_wait_for_the_first_until_the_entry_can_be_read() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        assert_eq!(entries.turn(7, 400, now), Turn::Lead);
        assert_eq!(entries.started(who(0), head(Readable::AtFirstByte), now), Found::Nothing);
        assert_eq!(entries.turn(7, 399, now), Turn::Wait(now + UNKNOWN_PATIENCE));
        assert_eq!(entries.turn(8, 399, now), Turn::Lead, "another head has nothing to do with it");
        assert!(entries.first_byte(who(0), 7, now + SECOND));
        assert_eq!(entries.turn(7, 399, now + SECOND), Turn::Go);
        assert!(!entries.ended(who(0), 7, Ended::Failed, now + SECOND * 9), "it was written all the same");
        assert_eq!(entries.warmth(7, now + SECOND * 9), Warmth::Warm);
    }

    #[test]
    fn a_reply_that_begins_says_nothing_where_the_entry_can_be_read_at_its_end() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        entries.started(who(0), head(Readable::AtEnd), now);
        assert!(!entries.first_byte(who(0), 7, now + SECOND));
        assert_eq!(entries.warmth(7, now + SECOND), Warmth::Warming);
        assert!(entries.ended(who(0), 7, Ended::Read, now + SECOND * 2));
        assert_eq!(entries.warmth(7, now + SECOND * 2), Warmth::Warm);
    }

    #[test]
    fn an_entry_lives_from_its_last_use() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        entries.started(who(0), head(Readable::AtFirstByte), now);
        entries.first_byte(who(0), 7, now + SECOND * 20);
        assert_eq!(entries.warmth(7, now + SECOND * 290), Warmth::Warm);
        assert_eq!(entries.turn(7, 9, now + SECOND * 291), Turn::Lead, "from the start of the request");
        assert_eq!(entries.started(who(1), head(Readable::AtFirstByte), now + SECOND * 200), Found::Entry);
        assert_eq!(entries.warmth(7, now + SECOND * 490), Warmth::Warm);
        assert_eq!(entries.started(who(2), head(Readable::AtFirstByte), now + SECOND * 500), Found::Expired);
    }

    #[test]
    fn small_groups_do_not_wait() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        entries.started(who(0), head(Readable::AtEnd), now);
        assert_eq!(entries.turn(7, 1, now), Turn::Go);
        entries.started(who(1), head(Readable::AtEnd), now);
        assert!(matches!(entries.turn(7, 1, now), Turn::Wait(_)), "but those that come one by one are no small group");
    }

    #[test]
    fn a_leader_that_fails_hands_over_and_after_three_the_rest_go() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        for failed in 0..3 {
            assert_eq!(entries.turn(7, 400, now), Turn::Lead);
            assert_eq!(entries.started(who(failed), head(Readable::AtEnd), now), Found::Nothing);
            assert!(entries.ended(who(failed), 7, Ended::Failed, now));
        }
        assert_eq!(entries.started(who(3), head(Readable::AtEnd), now), Found::Unwritten);
        assert_eq!(entries.turn(7, 400, now), Turn::Go);
        // What was never sent is no failure.
        let mut entries = Entries::default();
        for void in 0..9 {
            assert_eq!(entries.started(who(void), head(Readable::AtEnd), now), Found::Nothing);
            assert!(entries.is_led_by(who(void), 7));
            assert!(entries.ended(who(void), 7, Ended::Void, now));
        }
    }

    #[test]
    fn nobody_waits_for_ever_and_patience_follows_the_leaders() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        entries.started(who(0), head(Readable::AtEnd), now);
        assert_eq!(entries.turn(7, 400, now + UNKNOWN_PATIENCE), Turn::Go);
        assert!(entries.ended(who(0), 7, Ended::Read, now + SECOND * 40));
        assert_eq!(entries.patience(), MOST_PATIENCE);
        let mut entries = Entries::default();
        for key in 0..20 {
            let head = Head { key, ..head(Readable::AtEnd) };
            entries.started(who(key), head, now);
            entries.ended(who(key), key, Ended::Read, now + if key == 0 { SECOND * 25 } else { SECOND * 8 });
        }
        assert_eq!(entries.patience(), SECOND * 16, "the slow one is long ago");
    }

    #[test]
    fn what_is_over_is_dropped() {
        let (mut entries, mut now) = (Entries::default(), Instant::now());
        for key in 0..5_000 {
            let head = Head { key, ..head(Readable::AtEnd) };
            entries.started(who(key), head, now);
            entries.ended(who(key), key, Ended::Read, now);
            now += SECOND;
        }
        assert!(entries.known.len() <= 2 * TIDY_ABOVE, "{}", entries.known.len());
    }
}
