//! What is to be cached of a question, and what its request says about it. [`heads`](super::heads) decides it; dialects
//! write it.

use std::time::Duration;

/// What a request begins with and others begin with too, where the provider caches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The same for all requests that can read the same entry of the cache, and for no others.
    pub key: u64,
    /// The same for all requests that begin like this: those of a head that has several keys, too.
    pub base: u64,
    /// Its length, tokens, as estimated from its bytes.
    pub tokens: u32,
    /// How long an entry lives after its last use.
    pub life: Duration,
    /// When the entry that a request writes can be read.
    pub readable: Readable,
    /// Whether the request marks its end, without which the provider would not cache it.
    pub marked: bool,
}

/// When the entry that a request writes can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// When the reply begins.
    AtFirstByte,
    /// When the reply has ended.
    AtEnd,
}

/// What is to be cached of a question, and what its request says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What others begin with too.
    pub head: Option<Head>,
    /// What the dialect writes.
    pub marks: Marks,
    /// After how many bytes the last text is to be split in two, so that a part ends where the head does.
    pub split: Option<usize>,
    /// The head's number, whatever its keys are.
    pub base: u64,
}

/// What a request says to the provider's cache. The default says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Whether what all requests of the strategy have in common ends at a mark: tools and instructions.
    pub fixed: bool,
    /// The part that ends at a mark: the message's number, and its own in there.
    pub part: Option<(usize, usize)>,
    /// Whether the newest message ends at a mark: the conversation is likely to go on, and then begins with all of it.
    pub newest: bool,
    /// The last message of the request before this one, where the mark at the newest is too far behind it to find what was
    /// written there.
    pub before: Option<usize>,
    /// Whether entries are to live for an hour.
    pub hour: bool,
    /// The key that requests with this head have, and no others.
    pub key: Option<String>,
    /// Whether nothing else is to be cached.
    pub nothing_else: bool,
    /// The cache that holds what the question began with, which is no longer part of it.
    pub cached: Option<String>,
}

impl Marks {
    /// Whether a request has anything of it.
    pub fn say_something(&self) -> bool {
        self.fixed || self.part.is_some() || self.newest || self.key.is_some() || self.nothing_else
    }

    /// Whether this part ends at a mark.
    pub fn are_at(&self, message: usize, part: usize) -> bool {
        self.part == Some((message, part))
    }

    /// The part of a message that ends at a mark, if one does.
    pub fn part_of(&self, message: usize) -> Option<usize> {
        self.part.filter(|(place, _)| *place == message).map(|(_, part)| part)
    }
}
