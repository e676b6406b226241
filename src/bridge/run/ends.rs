//! Ends of attempts that need no look of Python: successes are reported together, answers read in one go. For
//! [`attempt`](crate::bridge::attempt).

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::RunHandle;
use crate::bridge::errors::BridgeError;
use crate::dispatch::dispatcher::InFlight;
use crate::dispatch::mailbox::{Done, Message};
use crate::engine::commands::StartedAttempt;
use crate::engine::{Command, ItemIndex, ItemReport};
use crate::providers::Reply;

impl RunHandle {
    /// Counts a success and ends its item, with the next report to the engine: many successes are one crossing, one
    /// look at the clock, one round of decisions. Returns whether it is the first since
    /// [`tell_finished`](Self::tell_finished).
    pub fn finish_soon(&self, item: ItemIndex, report: ItemReport) -> Result<bool, BridgeError> {
        self.process.check()?;
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).push((item, report));
        Ok(!self.has_finished.swap(true, Ordering::Relaxed))
    }

    /// Takes the next first attempt of an item that is to start, if that is the next message: for whoever has just
    /// ended one. Successes are reported to the engine if it has not decided on a start before.
    pub fn next_start(&self) -> Result<Option<(ItemIndex, u32, StartedAttempt)>, BridgeError> {
        if self.closed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let is_fresh = |message: &Message| matches!(message, Message::Command(Command::Start { attempt: 1, .. }));
        self.mailbox.while_awake(|| {
            let mut message = self.mailbox.take_if(is_fresh);
            if message.is_none() && self.tell_of_successes()? {
                message = self.mailbox.take_if(is_fresh);
            }
            Ok(match message {
                Some(Message::Command(Command::Start { item, attempt, worker, waits, at, .. })) => {
                    Some((item, attempt, StartedAttempt { worker, waits, at }))
                }
                _ => None,
            })
        })
    }

    /// Takes the next message if it is of an item that is done.
    pub fn take_done(&self) -> Result<Option<Box<Done>>, BridgeError> {
        self.process.check()?;
        Ok(match self.mailbox.take_if(|message| matches!(message, Message::Done(_))) {
            Some(Message::Done(done)) => Some(done),
            _ => None,
        })
    }

    /// From now on answers of attempts that began without Python are taken with [`take_answer`](Self::take_answer).
    pub fn read_answers(&self) {
        self.reads_answers.store(true, Ordering::Relaxed);
    }

    /// Takes the next message if it is the answer of an attempt that began without Python, and adopts the attempt.
    pub fn take_answer(&self) -> Result<Option<(ItemIndex, InFlight, Box<Reply>)>, BridgeError> {
        let Some(Message::Answered { item, outcome, .. }) = self.mailbox.take_if(|message| self.is_answer(message))
        else {
            return Ok(None);
        };
        let _ = self.observe(item, &outcome);
        Ok(match (self.dispatcher.adopt(item), *outcome) {
            (Some(attempt), Ok(reply)) => Some((item, attempt, Box::new(reply))),
            _ => None,
        })
    }

    /// Whether a message is for [`take_answer`](Self::take_answer).
    pub fn is_answer(&self, message: &Message) -> bool {
        self.reads_answers.load(Ordering::Relaxed)
            && matches!(message, Message::Answered { item, attempt: 1, outcome }
                if outcome.is_ok() && self.dispatcher.is_in_flight(*item))
    }

    /// Counts successes and ends their items at once.
    pub fn finish_now(&self, ended: Vec<(ItemIndex, ItemReport)>) -> Result<(), BridgeError> {
        let told = self.tell(|scheduler, now| {
            for (item, report) in ended {
                scheduler.record(item, report, now);
                scheduler.release(item, now);
            }
        });
        // An engine that has failed is closed already.
        if self.closed.load(Ordering::Relaxed) { Ok(()) } else { told }
    }

    /// Frees what was read.
    pub fn discard<T: Send + 'static>(&self, spent: Vec<T>) {
        self.dispatcher.discard(spent);
    }

    /// Tells the engine of the successes that are collected; whether there were any.
    pub fn tell_of_successes(&self) -> Result<bool, BridgeError> {
        let none = self.finished.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if !none {
            self.tell(|_, _| ())?;
        }
        Ok(!none)
    }
}
