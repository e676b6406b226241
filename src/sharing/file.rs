//! Limits shared between the processes of one host, through a file that they all name. No server.
//!
//! Each process that is at work holds a lease in the file and renews it; a lease that is not renewed ends, so that a
//! dead process gives back its share. The shares are max-min fair (Bertsekas and Gallager, *Data Networks*, 6.5):
//! whoever needs less than an equal part gets what it needs, the others share the rest. Those who want all that they
//! can get are kept even over time: who has had more than the others, because it came first for instance, gets less for
//! a while. All parts together are never more than the whole: nobody takes what another has not given back. The file is
//! locked for the moment of an update, and readable JSON.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::files::no_file;

/// How often a lease is renewed.
pub const BEAT: Duration = Duration::from_millis(500);
/// How soon one is renewed whose part is nothing yet.
pub const SOON: Duration = Duration::from_millis(100);
/// How long a lease holds without being renewed, milliseconds.
const LEASE_MS: u64 = 3000;
/// How long the file's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried.
const LOOK: Duration = Duration::from_millis(2);
/// Longest file that is read, bytes.
const LONGEST: u64 = 16 << 20;
/// A process that was not held back may need so much more in the next moment.
const GROWTH: f64 = 1.5;
/// And never gets less than this part of an equal share.
const LEAST: f64 = 0.1;
/// Whoever comes so soon after the first, seconds, has begun together with it.
const TOGETHER: f64 = 3.0;
/// What somebody has had more than others is made up for within about so many seconds ...
const EVEN_WITHIN: f64 = 3.0;
/// ... but whoever wants something gets this part of its share at least.
const WHILE_OTHERS_CATCH_UP: f64 = 0.1;
/// A part that is none, but with which one can calculate.
const NOTHING: f64 = 1e-3;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lease {
    scope: String,
    holder: String,
    /// Milliseconds since 1970.
    until: u64,
    /// The part of the limits that it can use; `None`: as much as there is.
    demand: Option<f64>,
    /// The part that it has.
    #[serde(default)]
    part: f64,
    /// What it has had before its last renewal, in seconds of the whole limits; only differences mean something.
    #[serde(default)]
    had: f64,
    /// When that was, milliseconds since 1970.
    #[serde(default)]
    at: u64,
}

impl Lease {
    /// What it has had until now.
    #[allow(clippy::cast_precision_loss)]
    fn had_by(&self, now: u64) -> f64 {
        self.had + self.part * now.saturating_sub(self.at).min(LEASE_MS) as f64 / 1000.0
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Leases {
    leases: Vec<Lease>,
}

/// A process' place in a shared file, for one scope.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// What the limits are for; the same words in all processes.
    pub scope: String,
    /// Who holds the lease; unique on this host.
    pub holder: String,
}

/// What a renewal finds out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// The part of the limits that is ours.
    pub part: f64,
    /// Whether that stands for nothing: the others have not made room yet.
    pub is_nothing: bool,
    /// Whether there was no lease before.
    pub is_new: bool,
}

impl Place {
    /// Renews the lease. `demand`: the part of the whole limits that could be used; `None`: as much as there is.
    ///
    /// # Errors
    /// When the file cannot be opened, locked, read or written.
    pub fn renew(&self, demand: Option<f64>) -> io::Result<Share> {
        self.renew_at(demand, milliseconds())
    }

    fn renew_at(&self, demand: Option<f64>, now: u64) -> io::Result<Share> {
        self.update(|leases| {
            leases.retain(|lease| lease.until > now);
            let before = leases.iter().position(|lease| self.is_mine(lease)).map(|place| leases.swap_remove(place));
            let others: Vec<&Lease> = leases.iter().filter(|lease| lease.scope == self.scope).collect();
            let usual = had_on_average(&others, now);
            let had = match &before {
                Some(lease) if demand.is_none() => lease.had_by(now),
                None if others.iter().map(|lease| lease.had_by(now)).sum::<f64>() <= TOGETHER => 0.0,
                // Who comes later, or does not want all that there is, has saved nothing up.
                _ => usual.unwrap_or(0.0),
            };
            let (scope, holder) = (self.scope.clone(), self.holder.clone());
            let mut mine = Lease { scope, holder, until: now + LEASE_MS, demand, part: 0.0, had, at: now };
            let taken: f64 = others.iter().map(|lease| lease.part).sum();
            let all: Vec<&Lease> = others.into_iter().chain([&mine]).collect();
            let wanted = fair(&all, now).pop().unwrap_or(1.0);
            let part = wanted.min(1.0 - taken).max(0.0);
            mine.part = part;
            leases.push(mine);
            Share { part: part.max(NOTHING), is_nothing: part < NOTHING, is_new: before.is_none() }
        })
    }

    /// Gives the share back.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub fn leave(&self) -> io::Result<()> {
        self.update(|leases| leases.retain(|lease| !self.is_mine(lease)))
    }

    fn is_mine(&self, lease: &Lease) -> bool {
        lease.holder == self.holder && lease.scope == self.scope
    }

    fn update<R>(&self, change: impl FnOnce(&mut Vec<Lease>) -> R) -> io::Result<R> {
        if let Some(kind) = no_file(&self.path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}; name a file")));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file: File = options.open(&self.path)?;
        lock(&file)?;
        let mut text = String::new();
        // What a crash has left half-written holds no lease; everybody renews theirs within a moment.
        let readable = (&file).take(LONGEST).read_to_string(&mut text).is_ok();
        let mut leases: Leases = match serde_json::from_str(&text) {
            Ok(leases) => leases,
            Err(_) if !readable || !text.is_empty() && !text.contains("leases") => {
                let problem = "it is not a file of shared limits; name another one";
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            Err(_) => Leases::default(),
        };
        // No lease ends later than one that is made now: it is of a clock that was wrong, and would never end.
        let latest = milliseconds().saturating_add(2 * LEASE_MS);
        leases.leases.retain(|lease| lease.until <= latest);
        let answer = change(&mut leases.leases);
        let text = serde_json::to_string(&leases)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        Ok(answer)
    }
}

/// What those have had who want all that they can get, or else everybody, on average.
#[allow(clippy::cast_precision_loss)]
fn had_on_average(leases: &[&Lease], now: u64) -> Option<f64> {
    let average = |had: Vec<f64>| (!had.is_empty()).then(|| had.iter().sum::<f64>() / had.len() as f64);
    let wanting = leases.iter().filter(|lease| lease.demand.is_none()).map(|lease| lease.had_by(now)).collect();
    average(wanting).or_else(|| average(leases.iter().map(|lease| lease.had_by(now)).collect()))
}

/// The parts of one whole, with a bias for those who have had less than others; they add up to one.
fn fair(leases: &[&Lease], now: u64) -> Vec<f64> {
    let demands: Vec<Option<f64>> = leases.iter().map(|lease| lease.demand).collect();
    let mut parts = parts(&demands);
    let Some(usual) = had_on_average(leases, now) else { return parts };
    let is_wanting = |place: &usize| demands[*place].is_none();
    let wanting: Vec<usize> = (0..parts.len()).filter(is_wanting).collect();
    let whole: f64 = wanting.iter().map(|place| parts[*place]).sum();
    for place in &wanting {
        let part = parts[*place];
        let bias = (usual - leases[*place].had_by(now)) / EVEN_WITHIN;
        parts[*place] = (part + bias).clamp(part * WHILE_OTHERS_CATCH_UP, whole.max(part));
    }
    let biased: f64 = wanting.iter().map(|place| parts[*place]).sum();
    if biased > 0.0 {
        wanting.iter().for_each(|place| parts[*place] *= whole / biased);
    }
    parts
}

/// The parts of one whole by demand, max-min fair; they add up to one.
#[allow(clippy::cast_precision_loss)]
fn parts(demands: &[Option<f64>]) -> Vec<f64> {
    let count = demands.len().max(1) as f64;
    let wanted: Vec<f64> = demands
        .iter()
        .map(|demand| demand.map_or(f64::INFINITY, |demand| (demand * GROWTH).max(LEAST / count)))
        .collect();
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|one, other| wanted[*one].total_cmp(&wanted[*other]));
    let mut parts = vec![0.0; wanted.len()];
    let (mut left, mut others) = (1.0, wanted.len() as f64);
    for index in order {
        parts[index] = wanted[index].min(left / others);
        left -= parts[index];
        others -= 1.0;
    }
    // What nobody wants at the moment is there for whoever wants it next.
    parts.iter_mut().for_each(|part| *part += left / count);
    parts
}

/// Takes the lock of the file, which nobody holds for longer than a moment.
fn lock(file: &File) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => std::thread::sleep(LOOK),
            Err(TryLockError::WouldBlock) => {
                let problem = "another process holds its lock; end that process, or name another file";
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(name: &str, holder: &str) -> Place {
        let path = std::env::temp_dir().join(format!("batch-llm-sharing-{name}-{}", std::process::id()));
        Place { path, scope: "s".to_owned(), holder: holder.to_owned() }
    }

    #[test]
    fn equal_shares_and_what_the_dead_give_back() {
        let (one, two) = (place("equal", "one"), place("equal", "two"));
        let _ = std::fs::remove_file(&one.path);
        let part = |place: &Place, now| place.renew_at(None, now).unwrap().part;
        assert_eq!(one.renew_at(None, 1000).unwrap(), Share { part: 1.0, is_nothing: false, is_new: true });
        // Nothing is there before the other has given it back.
        assert!(two.renew_at(None, 1100).unwrap().is_nothing);
        // Who has had all gets less for a while.
        assert!(part(&one, 1500) < 0.5);
        assert!(part(&two, 1600) > 0.5);
        // Two is not heard of any more.
        assert!(part(&one, 4500) < 0.5);
        assert!((part(&one, 4601) - 1.0).abs() < 1e-9);
        two.renew_at(None, 4700).unwrap();
        two.leave().unwrap();
        assert!((part(&one, 4701) - 1.0).abs() < 1e-9);
        // Another scope in the same file has nothing to do with it.
        let other = Place { scope: "t".to_owned(), ..two };
        assert!((part(&other, 4800) - 1.0).abs() < 1e-9);
        std::fs::remove_file(&one.path).unwrap();
    }

    /// Processes that want all that they can get and use all that they have, each with beats of its own. Returns what
    /// each has used from its start on, in seconds' worth of the whole, and the most that all had at one time.
    fn simulated(name: &str, starts: &[u64], until: u64) -> (Vec<f64>, f64) {
        let places: Vec<Place> = (0..starts.len()).map(|number| place(name, &number.to_string())).collect();
        let _ = std::fs::remove_file(&places[0].path);
        let count = starts.len();
        let (mut used, mut parts, mut most) = (vec![0.0; count], vec![0.0; count], 0.0f64);
        let mut next = starts.to_vec();
        for now in 0..until {
            for number in 0..count {
                if now == next[number] {
                    let share = places[number].renew_at(None, 1_000_000 + now).unwrap();
                    parts[number] = if share.is_nothing { 0.0 } else { share.part };
                    next[number] += if share.is_nothing { 100 } else { 500 };
                }
                used[number] += parts[number] / 1000.0;
            }
            most = most.max(parts.iter().sum());
        }
        std::fs::remove_file(&places[0].path).unwrap();
        (used, most)
    }

    #[test]
    fn whoever_comes_first_has_no_more_than_others_in_the_end() {
        for starts in [[0, 130, 170, 480], [0, 600, 1400, 2300]] {
            let (used, most) = simulated("first", &starts, 20_000);
            let equal = used.iter().sum::<f64>() / 4.0;
            assert!(used.iter().all(|one| (one - equal).abs() < 0.05 * equal), "{used:?}");
            assert!(equal > 4.8, "all of it is used: {used:?}");
            assert!(most < 1.0 + 1e-9, "never more than the whole");
        }
    }

    #[test]
    fn a_latecomer_gets_its_part_and_is_owed_nothing() {
        let (used, most) = simulated("late", &[0, 10_000], 20_000);
        assert!(used[1] > 4.0 && used[1] < 5.1, "{used:?}");
        assert!(most < 1.0 + 1e-9);
    }

    #[test]
    fn whoever_needs_little_leaves_the_rest() {
        let shares = parts(&[Some(0.1), None, None]);
        assert!((shares[0] - 0.15).abs() < 1e-9 && (shares[1] - 0.425).abs() < 1e-9);
        let idle = parts(&[Some(0.0), Some(0.0)]);
        assert!((idle[0] - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_file_of_something_else_is_not_touched() {
        let one = place("foreign", "one");
        std::fs::write(&one.path, "my novel").unwrap();
        assert!(one.renew(None).unwrap_err().to_string().contains("another one"));
        assert_eq!(std::fs::read_to_string(&one.path).unwrap(), "my novel");
        std::fs::write(&one.path, "{\"leases\": [{\"sco").unwrap();
        assert!(one.renew(None).is_ok(), "what a crash has left is no obstacle");
        std::fs::remove_file(&one.path).unwrap();
    }

    #[test]
    fn neither_a_lock_nor_a_lease_is_for_ever() {
        let one = place("bounds", "one");
        let far = milliseconds() + 1_000_000_000;
        std::fs::write(
            &one.path,
            format!(r#"{{"leases":[{{"scope":"s","holder":"x","until":{far},"demand":null}}]}}"#),
        )
        .unwrap();
        let share = one.renew(None).unwrap();
        assert!((share.part - 1.0).abs() < 1e-9, "a lease from a far future holds nothing");
        let held = File::open(&one.path).unwrap();
        held.lock().unwrap();
        let began = Instant::now();
        assert_eq!(one.renew(None).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= PATIENCE);
        drop(held);
        assert!(one.renew(None).is_ok());
        std::fs::remove_file(&one.path).unwrap();
    }

    proptest! {
        #[test]
        fn parts_add_up_to_one(demands in prop::collection::vec(prop::option::of(0.0f64..2.0), 1..20)) {
            let parts = parts(&demands);
            prop_assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(parts.iter().all(|part| *part > 0.0));
        }

        #[test]
        fn biased_ones_do_too(all in prop::collection::vec((prop::option::of(0.0f64..2.0), 0.0f64..100.0), 1..20)) {
            let lease = |(demand, had): &(Option<f64>, f64)| Lease {
                scope: String::new(), holder: String::new(), until: 0, demand: *demand, part: 0.0, had: *had, at: 0,
            };
            let leases: Vec<Lease> = all.iter().map(lease).collect();
            let parts = fair(&leases.iter().collect::<Vec<_>>(), 0);
            prop_assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(parts.iter().all(|part| *part > 0.0));
        }
    }
}
