//! When nothing goes on because the provider wants it so: to be said once, with its end.

use std::time::Duration;

use tokio::time::Instant;

use super::bound::Bound;
use super::commands::Command;
use super::scheduler::Scheduler;

/// A standstill of this length is news.
pub const NEWS_AFTER: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standstill {
    since: Option<Instant>,
    /// Whether it has been looked at, and what it waits for if that is news.
    said: Option<Option<(Bound, Option<Instant>)>>,
}

impl Standstill {
    /// When it becomes news.
    pub fn due(&self) -> Option<Instant> {
        self.since.filter(|_| self.said.is_none()).map(|since| since + NEWS_AFTER)
    }

    /// What is waited for, if it was news, and until when.
    pub fn news(&self) -> Option<(Bound, Option<Instant>)> {
        self.said.flatten()
    }
}

impl Scheduler {
    /// Takes note of why nothing starts, and says so when that has lasted.
    pub(super) fn watch_standstill(&mut self, bound: Bound, now: Instant) {
        // An outage says for itself when it begins.
        if self.in_flight > 0 || !matches!(bound, Bound::Cooldown | Bound::Quota(_)) {
            self.standstill = Standstill::default();
            return;
        }
        self.standstill.since.get_or_insert(now);
        if self.standstill.due().is_none_or(|due| due > now) {
            return;
        }
        let mut held = self.lanes.iter().filter(|lane| lane.held.is_some_and(|(_, other)| other == bound));
        let until = held.clone().filter_map(|lane| lane.held.and_then(|(until, _)| until)).min();
        let is_its_word = match bound {
            // The user's own limits are no news to the user.
            Bound::Quota(measure) => held.any(|lane| {
                lane.scope.levels(now).iter().any(|(limit, learned, _)| *learned && limit.measure == measure)
            }),
            _ => true,
        };
        self.standstill.said = Some(is_its_word.then_some((bound, until)));
        if is_its_word {
            let left = until.map(|until| until.saturating_duration_since(now));
            self.commands.push_back(Command::Standstill { bound, left });
        }
    }
}
