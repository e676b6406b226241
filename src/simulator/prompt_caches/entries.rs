//! The entries of prompt caches, and who may read them when. Time is given, in seconds.

use std::collections::HashMap;
use std::collections::VecDeque;

/// More entries than this are looked through for those that have ended.
const MOST: usize = 100_000;
/// Over how long rates are measured, seconds.
const MINUTE: f64 = 60.0;

/// Where an entry is: its machine, model and whatever else separates entries, and the hash of what it holds.
pub type Place = (u64, u64);

/// An entry.
#[derive(Debug)]
struct Entry {
    /// From when on it can be read.
    readable: f64,
    /// When it ends.
    ends: f64,
    /// How long after its last use.
    life: f64,
    /// Whether it was ever read.
    was_read: bool,
    /// Whether it was paid for.
    is_paid: bool,
}

/// All entries.
#[derive(Debug, Default)]
pub struct Entries {
    all: HashMap<Place, Entry>,
    /// Entries that were written and paid for.
    pub writes: u64,
    /// Those of them that were read.
    pub useful: u64,
}

impl Entries {
    /// Reads an entry, if there is one that can be read. That renews it.
    pub fn read(&mut self, place: Place, now: f64) -> bool {
        let Some(entry) = self.all.get_mut(&place).filter(|entry| entry.readable <= now && entry.ends > now) else {
            return false;
        };
        entry.ends = now + entry.life;
        let is_first = !std::mem::replace(&mut entry.was_read, true);
        self.useful += u64::from(is_first && entry.is_paid);
        true
    }

    /// Writes an entry that can be read later, unless there is one. A second one that is written meanwhile is paid for
    /// as well.
    pub fn write(&mut self, place: Place, now: f64, readable: f64, life: f64, is_paid: bool) {
        self.writes += u64::from(is_paid);
        if self.all.len() >= MOST {
            self.all.retain(|_, entry| entry.ends > now);
        }
        let fresh = Entry { readable, ends: now + life, life, was_read: false, is_paid };
        match self.all.get_mut(&place).filter(|entry| entry.ends > now) {
            Some(entry) => {
                entry.readable = entry.readable.min(readable);
                entry.ends = entry.ends.max(fresh.ends);
                entry.life = entry.life.max(life);
            }
            None => drop(self.all.insert(place, fresh)),
        }
    }
}

/// Who has seen what, whether or not it was kept: what a cache could have had.
#[derive(Debug, Default)]
pub struct Seen {
    all: HashMap<Place, Sight>,
}

#[derive(Debug)]
struct Sight {
    /// From when on somebody could have read it.
    from: f64,
    /// When it was seen last.
    last: f64,
    /// Whether somebody could have read it since.
    was_read: bool,
}

impl Seen {
    /// Whether it was seen within its life, and whether somebody could have read it since.
    pub fn get(&self, place: Place, now: f64, life: f64) -> Option<bool> {
        let sight = self.all.get(&place).filter(|sight| sight.from <= now && now - sight.last < life);
        sight.map(|sight| sight.was_read)
    }

    /// It is seen now, and can be read from some time on. `was_read`: it could have been read now.
    pub fn see(&mut self, place: Place, now: f64, from: f64, life: f64, was_read: bool) {
        if self.all.len() >= MOST {
            self.all.retain(|_, sight| now - sight.last < life);
        }
        match self.all.get_mut(&place).filter(|sight| now - sight.last < life) {
            Some(sight) => {
                sight.last = now;
                sight.was_read |= was_read;
            }
            None => drop(self.all.insert(place, Sight { from, last: now, was_read })),
        }
    }
}

/// Where requests go that begin alike.
#[derive(Debug, Default)]
pub struct Routes {
    all: HashMap<u64, Route>,
}

#[derive(Debug, Default)]
struct Route {
    /// When those of the last minute came.
    times: VecDeque<f64>,
    /// How many came ever.
    count: u64,
}

impl Routes {
    /// The machine that serves a request: one takes so many a minute, and above that there are more, in turn.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn machine(&mut self, route: u64, now: f64, per_minute: f64) -> u64 {
        let route = self.all.entry(route).or_default();
        while route.times.front().is_some_and(|time| now - time >= MINUTE) {
            route.times.pop_front();
        }
        route.times.push_back(now);
        route.count += 1;
        let machines = (route.times.len() as f64 / per_minute).ceil().max(1.0) as u64;
        (route.count - 1) % machines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = (1, 2);

    #[test]
    fn an_entry_is_read_from_when_it_is_readable_until_its_life_has_passed_since() {
        let mut entries = Entries::default();
        entries.write(PLACE, 0.0, 5.0, 300.0, true);
        assert!(!entries.read(PLACE, 4.9));
        assert!(!entries.read((1, 3), 6.0));
        assert!(entries.read(PLACE, 5.0));
        // A read renews it.
        assert!(entries.read(PLACE, 304.9));
        assert!(!entries.read(PLACE, 604.9));
        assert_eq!((entries.writes, entries.useful), (1, 1));
    }

    #[test]
    fn entries_written_at_the_same_time_are_paid_for_twice() {
        let mut entries = Entries::default();
        entries.write(PLACE, 0.0, 5.0, 300.0, true);
        entries.write(PLACE, 1.0, 4.0, 300.0, true);
        assert!(entries.read(PLACE, 4.0));
        assert_eq!((entries.writes, entries.useful), (2, 1));
        // After its end it is another.
        entries.write(PLACE, 1000.0, 1005.0, 300.0, true);
        assert!(!entries.read(PLACE, 1001.0));
        assert!(entries.read(PLACE, 1005.0));
        assert_eq!((entries.writes, entries.useful), (3, 2));
        // What costs nothing is not wasted either.
        entries.write((1, 4), 0.0, 0.0, 300.0, false);
        assert!(entries.read((1, 4), 1.0));
        assert_eq!((entries.writes, entries.useful), (3, 2));
    }

    #[test]
    fn requests_above_the_rate_of_a_machine_go_to_more() {
        let mut routes = Routes::default();
        let machines: Vec<u64> = (0..31).map(|_| routes.machine(7, 0.0, 15.0)).collect();
        assert!(machines[..15].iter().all(|machine| *machine == 0));
        assert_eq!(machines[15..19], [1, 0, 1, 0]);
        assert_eq!(machines.iter().max(), Some(&1));
        assert_eq!(routes.machine(8, 0.0, 15.0), 0);
        // A minute later one is enough.
        assert_eq!(routes.machine(7, 60.0, 15.0), 0);
    }
}
