//! Words that both halves of the dialect use.

/// The protocol, for errors and states of turns.
pub const PROTOCOL: &str = "generateContent";
/// The API, for messages to users.
pub const NAME: &str = "the Gemini API";
/// How ids of calls begin to which the server has given none.
pub const MADE_UP: &str = "call_";
