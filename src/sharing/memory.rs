//! A board in the memory of one process, which keeps its own time.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::table::Table;
use super::{Board, Demand, Report, Share, Verdict};

/// See the module.
pub struct MemoryBoard {
    table: Mutex<Table>,
    began: Instant,
}

impl Default for MemoryBoard {
    fn default() -> Self {
        Self { table: Mutex::default(), began: Instant::now() }
    }
}

impl MemoryBoard {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Board for MemoryBoard {
    fn renew(&self, scope: &str, holder: &str, demand: &Demand) -> io::Result<Share> {
        let mut table = self.table();
        Ok(table.renew(scope, holder, demand, self.now()))
    }

    fn report(&self, job: &str, holder: &str, report: Report) -> io::Result<Verdict> {
        let mut table = self.table();
        Ok(table.jobs.report(job, holder, report, self.now()))
    }

    fn leave(&self, scope: &str, holder: &str) -> io::Result<()> {
        self.table().leave(scope, holder);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_takes_all_and_leaves_it() {
        let board = MemoryBoard::default();
        let demand = Demand::default();
        let share = board.renew("s", "one", &demand).unwrap();
        assert_eq!(share, Share { part: 1.0, is_shared: false, is_new: true, pace: None, refused: 0 });
        let share = board.renew("s", "two", &demand).unwrap();
        assert!(share.is_nothing() && share.is_shared);
        board.leave("s", "one").unwrap();
        assert!((board.renew("s", "two", &demand).unwrap().part - 1.0).abs() < 1e-9);
    }
}
