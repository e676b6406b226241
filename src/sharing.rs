//! Limits shared between the processes of one host, through a file that they all name. No server.
//!
//! Each process that is at work holds a lease in the file and renews it; a lease that is not renewed ends, so that a
//! dead process gives back its share. The shares are max-min fair (Bertsekas and Gallager, *Data Networks*, 6.5):
//! whoever needs less than an equal part gets what it needs, the others part the rest. The file is locked for the
//! moment of an update, and readable JSON.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How often a lease is renewed.
pub const BEAT: Duration = Duration::from_millis(500);
/// How long a lease holds without being renewed.
const LEASE: Duration = Duration::from_secs(3);
/// A process that was not held back may need so much more in the next moment.
const GROWTH: f64 = 1.5;
/// And never gets less than this part of an equal share.
const LEAST: f64 = 0.1;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lease {
    scope: String,
    holder: String,
    /// Milliseconds since 1970.
    until: u64,
    /// The part of the limits that it can use; `None`: as much as there is.
    demand: Option<f64>,
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
    /// Whether others have leases too.
    pub shared: bool,
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
            leases.retain(|lease| lease.until > now && !self.is_mine(lease));
            let until = now + u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
            leases.push(Lease { scope: self.scope.clone(), holder: self.holder.clone(), until, demand });
            let here: Vec<&Lease> = leases.iter().filter(|lease| lease.scope == self.scope).collect();
            let demands: Vec<Option<f64>> = here.iter().map(|lease| lease.demand).collect();
            let part = parts(&demands).pop().unwrap_or(1.0);
            Share { part, shared: demands.len() > 1 }
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
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file: File = options.open(&self.path)?;
        file.lock()?;
        let mut text = String::new();
        // What a crash has left half-written holds no lease; everybody renews theirs within a moment.
        let readable = file.read_to_string(&mut text).is_ok();
        let mut leases: Leases = match serde_json::from_str(&text) {
            Ok(leases) => leases,
            Err(_) if !readable || !text.is_empty() && !text.contains("leases") => {
                let problem = "it is not a file of shared limits; name another one";
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            Err(_) => Leases::default(),
        };
        let answer = change(&mut leases.leases);
        let text = serde_json::to_string(&leases)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        Ok(answer)
    }
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
        assert_eq!(one.renew_at(None, 1000).unwrap(), Share { part: 1.0, shared: false });
        assert_eq!(two.renew_at(None, 1100).unwrap(), Share { part: 0.5, shared: true });
        assert!((one.renew_at(None, 1500).unwrap().part - 0.5).abs() < 1e-9);
        // Two is not heard of any more.
        assert!((one.renew_at(None, 4000).unwrap().part - 0.5).abs() < 1e-9);
        assert!((one.renew_at(None, 4101).unwrap().part - 1.0).abs() < 1e-9);
        two.renew_at(None, 4200).unwrap();
        two.leave().unwrap();
        assert!((one.renew_at(None, 4201).unwrap().part - 1.0).abs() < 1e-9);
        // Another scope in the same file has nothing to do with it.
        let other = Place { scope: "t".to_owned(), ..two };
        assert!((other.renew_at(None, 4300).unwrap().part - 1.0).abs() < 1e-9);
        std::fs::remove_file(&one.path).unwrap();
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

    proptest! {
        #[test]
        fn parts_add_up_to_one(demands in prop::collection::vec(prop::option::of(0.0f64..2.0), 1..20)) {
            let parts = parts(&demands);
            prop_assert!((parts.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(parts.iter().all(|part| *part > 0.0));
        }
    }
}
