//! Whoever follows an answer while it comes.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// What a part of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its text.
    Text,
    /// What the model thinks before.
    Reasoning,
}

/// What is called with each part.
type Hear = Box<dyn Fn(Part, &str) + Send + Sync>;

/// What is called when the answer begins.
type Begin = Box<dyn Fn() + Send + Sync>;

/// Gets the parts of an answer as they come, in the thread that receives them, and can end it.
pub struct Listener {
    hear: Hear,
    begin: Option<Begin>,
    heard: AtomicBool,
    is_stopped: AtomicBool,
    wake: Notify,
}

impl Listener {
    /// Calls a function with each part; it must be quick, and must not panic.
    pub fn new(hear: impl Fn(Part, &str) + Send + Sync + 'static) -> Self {
        Self {
            hear: Box::new(hear),
            begin: None,
            heard: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Calls a function when the answer begins, and has no interest in its parts; likewise quick, and without panic.
    pub fn of_beginning(begin: impl Fn() + Send + Sync + 'static) -> Self {
        Self { begin: Some(Box::new(begin)), ..Self::new(|_, _| ()) }
    }

    /// Whether parts are of no interest.
    pub fn is_of_beginning(&self) -> bool {
        self.begin.is_some()
    }

    /// The first of a stream has come, and it is no error.
    pub fn begin(&self) {
        if let Some(begin) = &self.begin {
            begin();
        }
    }

    /// A part has come.
    pub fn hear(&self, part: Part, text: &str) {
        if !text.is_empty() {
            self.heard.store(true, Ordering::Relaxed);
            (self.hear)(part, text);
        }
    }

    /// Whether there was a part since the last call.
    pub fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// Enough: what has come is the answer.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits until it is enough.
    pub async fn stopped(&self) {
        while !self.is_stopped.load(Ordering::Acquire) {
            self.wake.notified().await;
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Listener")
    }
}
