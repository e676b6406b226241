//! What processes that share a scope tell each other.

/// A part below this is none, but one can calculate with it.
pub const NOTHING: f64 = 1e-3;

/// What a process says of itself when it renews its lease.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    /// The part of the whole limits that it can use; `None`: as much as there is.
    pub part: Option<f64>,
    /// The part that it has, for a board that has forgotten it; 0: none yet.
    pub held: f64,
    /// Attempts per second that it has found it may start, where no limit is known.
    pub pace: Option<f64>,
    /// Rate limits that it met since it last said so, where no limit is known.
    pub refused: u32,
}

/// What it gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Its part of the limits; less than [`NOTHING`]: the others have not made room yet.
    pub part: f64,
    /// Whether others have a part.
    pub is_shared: bool,
    /// Whether it had no lease before.
    pub is_new: bool,
    /// Its part of what all together have found that they may start, attempts per second.
    pub pace: Option<f64>,
    /// Rate limits that others met since it last asked.
    pub refused: u32,
}

impl Share {
    /// What a process has until a board that is away is there again.
    pub const UNKNOWN: Self = Self { part: 0.0, is_shared: true, is_new: true, pace: None, refused: 0 };

    /// Whether the others have not made room yet.
    pub fn is_nothing(&self) -> bool {
        self.part < NOTHING
    }
}
