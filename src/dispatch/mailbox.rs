//! Messages for the event loop's thread, and the way to wake it.
//!
//! Any thread posts; only the loop's thread takes. A flag says whether the loop has been woken, so that a burst of
//! messages costs one wake-up. The loop keeps the flag up while it takes, and lowers it when it found nothing more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_queue::SegQueue;

use crate::engine::commands::StartedAttempt;
use crate::engine::{Command, ItemIndex};
use crate::providers::{ProviderError, Reply};

/// A message for the loop's thread. Answers are long, so they are boxed: messages are moved often.
pub enum Message {
    /// From the engine.
    Command(Command),
    /// From a native attempt.
    Answered {
        /// The item.
        item: ItemIndex,
        /// The attempt that was sent.
        attempt: u32,
        /// What came of it.
        outcome: Box<Result<Reply, ProviderError>>,
    },
    /// An item has its result.
    Done(Box<Done>),
    /// The answer to an item comes later, and nothing is kept of it where it began.
    Deferred(ItemIndex),
    /// A deferred item is to be asked again: it was not answered, and has cost nothing.
    Again(ItemIndex),
    /// So many of the records handed to the journal are written.
    Written(u64),
    /// Nothing more can be written to the journal.
    Unwritten(String),
    /// The board of shared limits cannot be reached, and why; `None`: it can again.
    Board(Option<String>),
    /// The engine cannot go on.
    Broken(String),
}

/// An item that is done, and counted: its first attempt was a success that Python had no part in.
pub struct Done {
    /// The item.
    pub item: ItemIndex,
    /// How its attempt began.
    pub start: StartedAttempt,
    /// How long it took.
    pub execution: Duration,
    /// What came of it.
    pub reply: Reply,
}

/// The post box of one run.
pub struct Mailbox {
    messages: SegQueue<Message>,
    /// Looked at and not wanted yet: it is before all others. Only the loop's thread has to do with it.
    first: Mutex<Option<Message>>,
    awake: AtomicBool,
    /// Results that nobody has taken.
    results: AtomicUsize,
    signal: Signal,
}

/// How the loop is woken.
enum Signal {
    /// A byte for a descriptor that the loop watches with `add_reader`.
    #[cfg(unix)]
    Descriptor { read: std::os::unix::net::UnixStream, write: std::os::unix::net::UnixStream },
    /// A helper thread, for loops that cannot watch descriptors: it waits here and calls `call_soon_threadsafe`.
    Thread { rung: Mutex<bool>, bell: Condvar },
}

impl Mailbox {
    /// An empty box. With `descriptor`, where the platform has it, the loop is woken through [`fileno`](Self::fileno).
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new(descriptor: bool) -> std::io::Result<Self> {
        let signal = match descriptor {
            #[cfg(unix)]
            true => {
                let (read, write) = std::os::unix::net::UnixStream::pair()?;
                read.set_nonblocking(true)?;
                write.set_nonblocking(true)?;
                Signal::Descriptor { read, write }
            }
            _ => Signal::Thread { rung: Mutex::new(false), bell: Condvar::new() },
        };
        Ok(Self {
            messages: SegQueue::new(),
            first: Mutex::default(),
            awake: AtomicBool::new(false),
            results: AtomicUsize::new(0),
            signal,
        })
    }

    /// The descriptor to watch for reading, if there is one.
    pub fn fileno(&self) -> Option<i32> {
        match &self.signal {
            #[cfg(unix)]
            Signal::Descriptor { read, .. } => Some(std::os::fd::AsRawFd::as_raw_fd(read)),
            Signal::Thread { .. } => None,
        }
    }

    /// Adds a message and wakes the loop if nobody has yet.
    pub fn post(&self, message: Message) {
        if matches!(message, Message::Done(_)) {
            self.results.fetch_add(1, Ordering::Relaxed);
        }
        self.messages.push(message);
        self.tell();
    }

    /// Wakes the loop if nobody has yet.
    fn tell(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            self.ring();
        }
    }

    /// The next message, whatever it is.
    #[cfg(test)]
    pub fn take(&self) -> Option<Message> {
        self.take_if(|_| true)
    }

    /// The next message, if it is one of those that are wanted.
    pub fn take_if(&self, is_wanted: impl FnOnce(&Message) -> bool) -> Option<Message> {
        let mut first = self.first();
        let message = first.take().or_else(|| self.messages.pop())?;
        if is_wanted(&message) {
            if matches!(message, Message::Done(_)) {
                self.results.fetch_sub(1, Ordering::Relaxed);
            }
            Some(message)
        } else {
            *first = Some(message);
            None
        }
    }

    /// Whether there are results that nobody has taken: then the news that a run is drained is an old one.
    pub fn has_results(&self) -> bool {
        self.results.load(Ordering::Relaxed) > 0
    }

    /// Wakes nobody for the messages that come while `report` runs: the loop's thread looks at them there and then,
    /// and is woken for what it leaves.
    pub fn while_awake<R>(&self, report: impl FnOnce() -> R) -> R {
        struct Rest<'a>(&'a Mailbox);
        impl Drop for Rest<'_> {
            fn drop(&mut self) {
                let Self(mailbox) = self;
                mailbox.awake.store(false, Ordering::Release);
                if mailbox.first().is_some() || !mailbox.messages.is_empty() {
                    mailbox.tell();
                }
            }
        }
        // Whoever is awake already looks again anyway.
        let _rest = (!self.awake.swap(true, Ordering::AcqRel)).then(|| Rest(self));
        report()
    }

    fn first(&self) -> MutexGuard<'_, Option<Message>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop found nothing more: the next message wakes it again. Look once more after this, for a message may
    /// have come in between.
    pub fn rest(&self) {
        self.hush();
        self.awake.store(false, Ordering::Release);
    }

    /// The loop found nothing more, and looks again before long by itself: no message wakes it.
    pub fn hush(&self) {
        #[cfg(unix)]
        if let Signal::Descriptor { read, .. } = &self.signal {
            use std::io::Read;
            let mut bytes = [0; 8];
            let _ = (&mut &*read).read(&mut bytes);
        }
    }

    /// Blocks the helper thread until the loop is to be woken, or for `longest`. Returns whether it is.
    pub fn wait(&self, longest: Duration) -> bool {
        let Signal::Thread { rung, bell } = &self.signal else { return false };
        let guard = rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut guard, _) =
            bell.wait_timeout_while(guard, longest, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *guard)
    }

    /// Wakes whoever waits, loop or helper thread.
    pub fn ring(&self) {
        match &self.signal {
            #[cfg(unix)]
            Signal::Descriptor { write, .. } => {
                use std::io::Write;
                // A full pipe means that the loop has been woken often enough.
                let _ = (&mut &*write).write(&[1]);
            }
            Signal::Thread { rung, bell } => {
                *rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
                bell.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn messages_are_short() {
        assert!(size_of::<Message>() <= 80, "{} bytes", size_of::<Message>());
    }

    #[test]
    fn no_message_is_left_without_a_wake_up() {
        // Four threads post; one takes whenever it is woken and rests in between, as the loop does.
        let mailbox = Arc::new(Mailbox::new(false).expect("no descriptor needed"));
        const EACH: usize = 20_000;
        let posters: Vec<_> = (0..4)
            .map(|_| {
                let mailbox = Arc::clone(&mailbox);
                std::thread::spawn(move || {
                    (0..EACH).for_each(|_| mailbox.post(Message::Command(Command::Room)));
                })
            })
            .collect();
        let mut taken = 0;
        while taken < 4 * EACH {
            assert!(mailbox.wait(Duration::from_secs(30)), "a message came without a wake-up after {taken}");
            loop {
                while mailbox.take().is_some() {
                    taken += 1;
                }
                mailbox.rest();
                match mailbox.take() {
                    Some(_) => taken += 1,
                    None => break,
                }
            }
        }
        posters.into_iter().for_each(|poster| poster.join().expect("posters do not fail"));
        assert_eq!(taken, 4 * EACH);
    }

    #[test]
    fn what_is_left_after_a_look_wakes_and_what_was_taken_does_not() {
        let mailbox = Mailbox::new(false).expect("no descriptor needed");
        let is_rung = || mailbox.wait(Duration::ZERO);
        let is_drained = |message: &Message| matches!(message, Message::Command(Command::Drained));
        let taken = mailbox.while_awake(|| {
            mailbox.post(Message::Command(Command::Drained));
            mailbox.take_if(is_drained)
        });
        assert!(taken.is_some() && !is_rung());
        let taken = mailbox.while_awake(|| {
            mailbox.post(Message::Command(Command::Room));
            mailbox.post(Message::Command(Command::Drained));
            mailbox.take_if(is_drained)
        });
        assert!(taken.is_none() && is_rung(), "the first message is not wanted");
        // The loop is awake now: nothing rings until it rests.
        mailbox.while_awake(|| mailbox.post(Message::Command(Command::Room)));
        assert!(!is_rung());
        assert!(matches!(mailbox.take(), Some(Message::Command(Command::Room))), "in order");
        assert!(matches!(mailbox.take(), Some(Message::Command(Command::Drained))));
        assert!(mailbox.take().is_some() && mailbox.take().is_none());
    }

    #[test]
    fn a_panic_while_awake_leaves_a_mailbox_that_wakes() {
        let mailbox = Mailbox::new(false).expect("no descriptor needed");
        let panicking = std::panic::AssertUnwindSafe(|| {
            mailbox.while_awake(|| {
                mailbox.post(Message::Broken(String::new()));
                std::panic::resume_unwind(Box::new(()));
            })
        });
        assert!(std::panic::catch_unwind(panicking).is_err());
        assert!(mailbox.wait(Duration::ZERO));
    }
}
