//! Keeps SQLite still while the process forks.
//!
//! SQLite has locks that all its files share. Held by a thread at the moment of a fork, they would be held for ever in
//! the child, which has no such thread. So whoever works with it passes a gate, and a fork closes that gate for its
//! moment. Threads that hold Python's interpreter need not pass it, for the one that forks holds it too.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

static GATE: RwLock<()> = RwLock::new(());
static CLOSING: AtomicBool = AtomicBool::new(false);
/// How long a fork waits: then it is as it would be without a gate.
const LONGEST: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_micros(200);

thread_local! {
    static CLOSED: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Passes the gate, for as long as what is returned lives. Not twice at a time in one thread.
pub fn pass() -> RwLockReadGuard<'static, ()> {
    while CLOSING.load(Ordering::Acquire) {
        std::thread::sleep(PAUSE);
    }
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Closes the gate as soon as nobody is in it: before a fork.
pub fn close() {
    CLOSING.store(true, Ordering::Release);
    let begun = Instant::now();
    let guard = loop {
        match GATE.try_write() {
            Ok(guard) => break Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => break Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LONGEST => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => break None,
        }
    };
    CLOSED.with_borrow_mut(|closed| *closed = guard);
}

/// Opens it again, after the fork, in the same thread: in the parent and in the child.
pub fn open() {
    drop(CLOSED.with_borrow_mut(Option::take));
    CLOSING.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_waits_for_those_inside_and_keeps_others_out() {
        let passed = pass();
        let closing = std::thread::spawn(|| {
            close();
            let is_closed = GATE.try_read().is_err();
            open();
            is_closed
        });
        while !CLOSING.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        drop(passed);
        assert!(closing.join().unwrap());
        drop(pass());
    }
}
