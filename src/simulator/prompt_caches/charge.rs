//! What a request is charged for.

/// What a request read and wrote, tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// Read.
    pub read: usize,
    /// Written, for five minutes or for whatever the vendor has only one price for.
    pub written: usize,
    /// Written for an hour.
    pub written_hour: usize,
    /// Whether the vendor says how much was written.
    pub tells_writes: bool,
    /// Whether there are caches at all.
    pub is_on: bool,
}

impl Charge {
    /// All that was written.
    pub fn all_written(&self) -> usize {
        self.written + self.written_hour
    }
}
