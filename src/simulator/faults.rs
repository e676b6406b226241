//! Which requests go wrong, and how.

use super::streams::quirks::{QUIRKS, Quirk};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// An error reply with this status, 400 to 599, in the dialect's words.
    Status(u16),
    /// A 429 that means money: no waiting helps.
    Billing,
    /// A 429 that means the quota of the day.
    DailyQuota,
    /// An error object inside a 200.
    ErrorInside(u16),
    /// The connection is closed without a reply.
    Reset,
    /// No reply ever comes.
    Hang,
    /// The reply comes byte by byte.
    Drip,
    /// The reply breaks off in the middle.
    Cut,
    /// A whole reply, whose JSON breaks off in the middle.
    Malformed,
    /// An HTML page with status 200, as proxies send them.
    Html,
    /// Nothing more comes after half of a stream's events; of a plain reply, after the headers.
    Stall,
    /// Nothing but signs of life comes after half of a stream's events; of a plain reply, after the headers.
    PingOnly,
    /// An error takes the place of the second half of a stream's events; the place of a plain reply.
    StreamError,
    /// A byte of AWS's binary frames is another one than was sent.
    Checksum,
    /// Blank lines and a comment before the JSON, as gateways send them; no fault at all.
    KeepAlive,
    /// The model thinks for all of the latency: after a stream's first event, signs of life, and then the answer; no
    /// fault either.
    Thinking,
    /// A stream that is written differently; no fault either.
    Quirk(Quirk),
}

/// Those without a number, with the names that Python uses.
const NAMES: [(&str, FaultKind); 15] = [
    ("checksum", FaultKind::Checksum),
    ("billing", FaultKind::Billing),
    ("daily_quota", FaultKind::DailyQuota),
    ("error_inside", FaultKind::ErrorInside(503)),
    ("reset", FaultKind::Reset),
    ("hang", FaultKind::Hang),
    ("drip", FaultKind::Drip),
    ("cut", FaultKind::Cut),
    ("malformed", FaultKind::Malformed),
    ("html", FaultKind::Html),
    ("keep_alive", FaultKind::KeepAlive),
    ("stall", FaultKind::Stall),
    ("ping_only", FaultKind::PingOnly),
    ("stream_error", FaultKind::StreamError),
    ("thinking", FaultKind::Thinking),
];

/// All with a name.
fn named() -> impl Iterator<Item = (&'static str, FaultKind)> {
    NAMES.into_iter().chain(QUIRKS.map(|(name, quirk)| (name, FaultKind::Quirk(quirk))))
}

impl FaultKind {
    /// From the name that Python uses, or a status as text.
    ///
    /// # Errors
    /// A message with the names.
    pub fn from_name(name: &str) -> Result<Self, String> {
        if let Some((_, kind)) = named().find(|(known, _)| *known == name) {
            return Ok(kind);
        }
        match name.parse() {
            Ok(status @ 400..=599) => Ok(Self::Status(status)),
            _ => {
                let names = named().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
                Err(format!("a fault must be a status from 400 to 599 or one of {names}, not {name:?}"))
            }
        }
    }

    /// Whether there is no reply but what the fault says.
    pub fn takes_the_place(self) -> bool {
        use FaultKind::{Billing, DailyQuota, ErrorInside, Hang, Reset, Status};
        matches!(self, Reset | Hang | Status(_) | Billing | DailyQuota | ErrorInside(_))
    }

    /// The name that Python uses, or a status as text.
    pub fn name(self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            kind => named().find(|(_, known)| *known == kind).map_or_else(String::new, |(name, _)| name.to_owned()),
        }
    }
}

/// A scheduled fault. Requests are numbered from 1 in the order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Hits every n-th request; 0 = none by rhythm.
    pub every: u64,
    /// Hits these requests, sorted.
    pub on: Vec<u64>,
    /// Hits all from the first to the second.
    pub between: Option<(u64, u64)>,
    /// Sent as `retry-after`, seconds.
    pub retry_after: Option<f64>,
}

impl Fault {
    /// Whether request number `request` is hit.
    pub fn hits(&self, request: u64) -> bool {
        (self.every > 0 && request.is_multiple_of(self.every))
            || self.on.binary_search(&request).is_ok()
            || self.between.is_some_and(|(first, last)| (first..=last).contains(&request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_by_rhythm_by_number_and_in_storms() {
        let fault =
            Fault { kind: FaultKind::Reset, every: 4, on: vec![1, 6], between: Some((10, 11)), retry_after: None };
        let hit: Vec<u64> = (1..=12).filter(|request| fault.hits(*request)).collect();
        assert_eq!(hit, [1, 4, 6, 8, 10, 11, 12]);
        assert!(!Fault { every: 0, on: vec![], between: None, ..fault }.hits(4));
    }

    #[test]
    fn names_are_known() {
        assert_eq!(FaultKind::from_name("429"), Ok(FaultKind::Status(429)));
        assert_eq!(FaultKind::from_name("crlf"), Ok(FaultKind::Quirk(Quirk::Crlf)));
        for name in named().map(|(name, _)| name).chain(["429", "599"]) {
            assert_eq!(FaultKind::from_name(name).unwrap().name(), name);
        }
        assert!(FaultKind::from_name("200").unwrap_err().contains("400 to 599"));
    }
}
