//! Whether the provider of a scope is away: an outage is one event, not a failure of each item that it hits.
//!
//! A failure that says "the server is away" (refused, reset, HTTP 500 and above) opens a **streak**. The requests that
//! were sent next decide: the provider is away when nearly all of them fail that way, for several items; the streak is
//! over when enough of what was sent later is answered. Requests that are still on count as answered until they fail, or
//! failures that come at once would weigh more than answers that take their time: with one dead endpoint of several
//! behind an address, the first to end are always failures.
//!
//! Where the first that were sent can decide neither way any more, as when an item's own failure opened the streak
//! just before the provider went, the next failure makes them look at what is sent from then on. It stays the same
//! streak: what failed in it waits for the verdict.
//!
//! During an **outage** one probe at a time is sent: the next attempt of an item, as any other. The first answer ends
//! it. Streaks are numbered (their *epoch*), so that whoever failed in one can learn later what it was: failures in
//! an outage do not count, those of another streak do.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashSet;
use tokio::time::Instant;

use super::units::ItemIndex;

/// Items that fail before an outage is declared, at most: where there are fewer, all of them, and
/// [`LEAST_ITEMS`] at least.
pub const MOST_ITEMS: u64 = 20;
/// See [`MOST_ITEMS`]. With fewer it may as well be the items.
pub const LEAST_ITEMS: u64 = 3;
/// From the beginning of an outage to the first probe.
const FIRST_PROBE: Duration = Duration::from_millis(500);
/// From one probe to the next: 48 a minute.
const PROBE_EVERY: Duration = Duration::from_millis(1250);
/// A probe that takes longer may be answered at last, or never: the next one does not wait for it.
const LONG_PROBE: Duration = Duration::from_secs(5);
/// Of requests that others have overtaken for so long, the last few are not waited for.
const HANGS: Duration = Duration::from_millis(100);
/// A streak in which nothing has failed for so long says nothing about the next failure.
const STALE: Duration = Duration::from_secs(120);
/// Outages whose numbers are remembered, for items that failed in one and have not been looked at since.
const REMEMBERED: usize = 256;

/// Which streak of failures something belongs to.
pub type Epoch = u64;

/// What the end of an attempt says about whether the provider is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sign {
    /// Nothing.
    #[default]
    Nothing,
    /// It answers.
    Alive,
    /// The request was lost, or the provider could not do it.
    Away,
    /// There was no connection to it. That is never the item's fault.
    Unreachable,
}

impl Sign {
    /// Whether it says that the provider is away.
    pub fn is_away(self) -> bool {
        matches!(self, Self::Away | Self::Unreachable)
    }
}

/// An attempt that failed because the provider is away, as its executor reports it.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// What the failure says.
    pub sign: Sign,
    /// Items that share its request.
    pub together: u64,
    /// When to come back, by the server's `Retry-After`.
    pub at_least: Duration,
}

/// A failure that says that the provider is away.
#[derive(Debug, Clone, Copy)]
pub struct Evidence {
    /// Whose: the run in its scope, and the item.
    pub who: (u64, ItemIndex),
    /// Whether it may tell of the provider: an item that failed before while others did not tells only of itself.
    pub counts: bool,
    /// Items of the run that are in work or wait.
    pub available: u64,
    /// Of so many items it takes a failure, at least.
    pub least: u64,
    /// Items that share a request, and so fail together: they count as one. At least 1.
    pub together: u64,
    /// When to come back, by the server's `Retry-After`.
    pub at_least: Duration,
}

/// What a failure was part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody knows yet.
    Suspected(Epoch),
    /// An outage: it does not count.
    Away(Epoch),
}

/// What became of a streak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody knows yet.
    Open,
    /// It was, or is, an outage.
    Outage,
    /// The provider was there.
    Counts,
}

/// An outage that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its number.
    pub epoch: Epoch,
    /// When the first attempt failed.
    pub since: Instant,
    /// Whether the provider had ever answered before.
    pub lived: bool,
}

#[derive(Debug)]
struct Streak {
    since: Instant,
    last: Instant,
    /// Number of the first attempt that failed, or of the first after those that had ended: what was sent from then on
    /// decides.
    from: u64,
    /// How it ended.
    away: u64,
    alive: u64,
    /// How many of the first of it decide, and the same of these.
    first: u64,
    away_first: u64,
    alive_first: u64,
    neutral_first: u64,
    /// When one of the first failed last.
    last_first: Instant,
    /// Items that failed, some of them.
    items: FxHashSet<(u64, ItemIndex)>,
    not_before: Instant,
}

#[derive(Debug)]
struct Probing {
    /// Number of the first attempt that is a probe.
    from: u64,
    next: Instant,
    on: Option<(u64, Instant)>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Quiet,
    Suspected(Streak),
    Away(Streak, Probing),
}

/// The state of one scope. See the module.
#[derive(Debug, Default)]
pub struct Outages {
    /// It has answered, and nothing is suspected: the usual case, in which an answer changes nothing.
    calm: bool,
    lived: bool,
    /// Attempts so far.
    sent: u64,
    /// How many of these had been sent when the latest one of those that have ended was.
    known: u64,
    epoch: Epoch,
    phase: Phase,
    outages: VecDeque<Epoch>,
}

impl Outages {
    /// Whether an attempt may start.
    ///
    /// # Errors
    /// It has to wait, until then at most.
    pub fn ready(&self, now: Instant) -> Result<(), Instant> {
        let Phase::Away(_, probing) = &self.phase else { return Ok(()) };
        let until = match probing.on {
            Some((_, started)) => probing.next.max(started + LONG_PROBE),
            None => probing.next,
        };
        if until > now { Err(until) } else { Ok(()) }
    }

    /// An attempt starts; returns its number.
    pub fn started(&mut self, now: Instant) -> u64 {
        let number = self.sent;
        self.sent += 1;
        if let Phase::Away(_, probing) = &mut self.phase {
            probing.on = Some((number, now));
            probing.next = now + PROBE_EVERY;
        }
        number
    }

    /// An attempt was answered. Returns whether that changes something: a streak, or an outage, is over.
    #[inline]
    pub fn answered(&mut self, number: u64) -> bool {
        self.known = self.known.max(number + 1);
        !self.calm && self.answered_at_last(number)
    }

    fn answered_at_last(&mut self, number: u64) -> bool {
        self.lived = true;
        let over = match &mut self.phase {
            Phase::Quiet => {
                self.calm = true;
                return false;
            }
            Phase::Suspected(streak) => streak.answered(number),
            // What was on its way when the provider went may still be answered: only if that is the larger part, it was
            // a false alarm.
            Phase::Away(streak, probing) => {
                streak.answered(number);
                number >= probing.from || streak.alive > streak.away
            }
        };
        if over {
            self.end();
        }
        over
    }

    /// Nobody is there any more to find out when an outage ends.
    pub fn deserted(&mut self) {
        if !matches!(self.phase, Phase::Quiet) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Quiet;
        self.epoch += 1;
        self.calm = self.lived;
    }

    /// An attempt ended and says nothing, or was not made (`sent`: it was).
    pub fn ended(&mut self, number: u64, sent: bool, now: Instant) {
        self.known = self.known.max(number + 1);
        match &mut self.phase {
            Phase::Quiet => {}
            Phase::Suspected(streak) => streak.neutral_first += u64::from(streak.is_first(number)),
            Phase::Away(_, probing) => {
                if probing.on.is_some_and(|(on, _)| on == number) {
                    probing.on = None;
                    probing.next = if sent { probing.next } else { now };
                }
            }
        }
    }

    /// An attempt failed, and says that the provider is away. Returns what that is part of, and whether the outage
    /// begins with it.
    pub fn failed(&mut self, number: u64, evidence: &Evidence, now: Instant) -> (Standing, bool) {
        self.calm = false;
        let back = now + evidence.at_least;
        if let Phase::Suspected(streak) = &self.phase
            && now > streak.last + STALE
        {
            self.end();
            self.calm = false;
        }
        let not_before = match &self.phase {
            Phase::Quiet => Some(now),
            Phase::Suspected(streak) if streak.is_undecidable() || streak.waits_for_few(now) => Some(streak.not_before),
            _ => None,
        };
        if let Some(not_before) = not_before {
            // What has ended before says nothing of what comes.
            let from = number.max(self.known);
            let streak = Streak { not_before, ..Streak::new(from, evidence.together, now) };
            self.phase = Phase::Suspected(streak);
        }
        self.known = self.known.max(number + 1);
        match &mut self.phase {
            Phase::Away(streak, probing) => {
                streak.failed(number, evidence, now);
                if probing.on.is_some_and(|(on, _)| on == number) {
                    probing.on = None;
                }
                probing.next = probing.next.max(back);
                (Standing::Away(self.epoch), false)
            }
            Phase::Suspected(streak) => {
                streak.failed(number, evidence, now);
                streak.not_before = streak.not_before.max(back);
                let requests = match self.lived {
                    true => (evidence.available / evidence.together).clamp(evidence.least.min(MOST_ITEMS), MOST_ITEMS),
                    // Whoever starts a small run against nothing wants to hear of it soon.
                    false => MOST_ITEMS,
                };
                let needed = requests * evidence.together;
                if !streak.is_outage(needed, self.sent) {
                    return (Standing::Suspected(self.epoch), false);
                }
                let probing = Probing { from: self.sent, next: streak.not_before.max(now + FIRST_PROBE), on: None };
                if let Phase::Suspected(streak) = std::mem::take(&mut self.phase) {
                    self.phase = Phase::Away(streak, probing);
                }
                if self.outages.len() == REMEMBERED {
                    self.outages.pop_front();
                }
                self.outages.push_back(self.epoch);
                (Standing::Away(self.epoch), true)
            }
            Phase::Quiet => (Standing::Suspected(self.epoch), false),
        }
    }

    /// Whether a streak is open that may become an outage.
    pub fn is_suspected(&self) -> bool {
        matches!(self.phase, Phase::Suspected(_))
    }

    /// Whether there is an outage.
    pub fn is_away(&self) -> bool {
        matches!(self.phase, Phase::Away(..))
    }

    /// What became of a streak.
    pub fn fate(&self, epoch: Epoch) -> Fate {
        if self.outages.contains(&epoch) {
            Fate::Outage
        } else if epoch == self.epoch && self.is_suspected() {
            Fate::Open
        } else {
            Fate::Counts
        }
    }

    /// The current outage.
    pub fn view(&self) -> Option<View> {
        match &self.phase {
            Phase::Away(streak, _) => Some(View { epoch: self.epoch, since: streak.since, lived: self.lived }),
            _ => None,
        }
    }
}

impl Streak {
    fn new(number: u64, together: u64, now: Instant) -> Self {
        Self {
            since: now,
            last: now,
            from: number,
            away: 0,
            alive: 0,
            first: MOST_ITEMS * together,
            away_first: 0,
            last_first: now,
            alive_first: 0,
            neutral_first: 0,
            items: FxHashSet::default(),
            not_before: now,
        }
    }

    /// Whether it is one of those that decide.
    fn is_first(&self, number: u64) -> bool {
        (self.from..self.from + self.first).contains(&number)
    }

    fn failed(&mut self, number: u64, evidence: &Evidence, now: Instant) {
        self.last = now;
        self.away += u64::from(number >= self.from);
        if self.is_first(number) {
            self.away_first += 1;
            self.last_first = now;
        }
        if evidence.counts && (self.items.len() as u64) < self.first {
            self.items.insert(evidence.who);
        }
    }

    /// Whether at least four fifths of the first that were sent failed. `sent`: the number of the next attempt.
    fn is_outage(&self, needed: u64, sent: u64) -> bool {
        let first = (sent - self.from).min(self.first).saturating_sub(self.neutral_first);
        self.items.len() as u64 >= needed && self.away_first > 0 && 5 * self.away_first >= 4 * first
    }

    /// Whether most of the first failed, and the others have taken longer since than all of those: they hang, as a
    /// connection whose first packet was lost does for a second, and say nothing. Others are to decide.
    fn waits_for_few(&self, now: Instant) -> bool {
        let took = self.last_first.saturating_duration_since(self.since).max(HANGS);
        2 * self.away_first >= self.first && now > self.last_first + took
    }

    /// Whether it cannot become an outage any more, even if all that are still on fail: more than a fifth of the first
    /// were answered.
    fn is_undecidable(&self) -> bool {
        5 * self.alive_first > self.first.saturating_sub(self.neutral_first)
    }

    /// Whether more than a fifth of what was sent and has ended was answered.
    fn answered(&mut self, number: u64) -> bool {
        if number < self.from {
            return false;
        }
        self.alive += 1;
        self.alive_first += u64::from(self.is_first(number));
        5 * self.alive > self.alive + self.away
    }
}

#[cfg(test)]
#[path = "outage_tests.rs"]
mod tests;
