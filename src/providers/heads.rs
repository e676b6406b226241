//! What requests have in common at their beginning, for the providers' prompt caches: where it ends, how long it is,
//! whether marking it pays, and for how long others may read what one of them has written.
//!
//! A client asks [`Heads`] for the [`Plan`] of a question: its [`Head`], which the scheduler needs to let the first
//! request run alone until the others can read what it has written, and its [`Marks`], which the dialect writes. What a
//! head is depends on the questions that were seen: [`points`] are the places where one may end, and [`seen`] counts how
//! many questions have each of them. Pure: time is given.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

mod points;
mod seen;

use super::caching::Caching;
use super::error::ProviderError;
use super::options::{CachePrompt, Options};
pub use super::plan::{Head, Marks, Plan, Readable};
use super::prompt::{Ask, Message, Part, Prompt, Role};
use super::reply::TokenUsage;
use super::shared::Text;
use points::{End, Point};
use seen::{FEWEST, Seen};

/// Requests a minute with the same key that one machine takes (OpenAI's guide to prompt caching, 2026).
const PER_KEY: u64 = 15;
/// Most keys of one head, and most while nobody knows how many requests there are a minute.
const MOST_KEYS: u64 = 64;
const MOST_AT_FIRST: u64 = 16;
/// So many replies were not read from the cache before a head gets one of its own: the first one never is, nor are those
/// that were in flight with it.
const MISSES: u32 = 4;

/// Blocks that a mark looks back for what earlier requests have written, its own included (Anthropic's guide to prompt
/// caching, 2026).
const LOOK_BACK: usize = 20;

/// The heads of one strategy.
pub struct Heads {
    caching: Caching,
    hour: bool,
    /// What all requests begin with, and whether an entry can end there.
    fixed: Point,
    ends_fixed: bool,
    /// Whether conversations may go on: then their newest message is worth caching as well.
    goes_on: bool,
    seen: Mutex<Seen>,
    /// Whether the server takes marks, once that is known.
    accepted: AtomicBool,
    refused: AtomicBool,
}

impl Heads {
    /// Those of a strategy with these options, at a provider that caches like this.
    pub fn new(caching: Caching, options: &Options) -> Self {
        let by_hand = options.extra_body.keys().any(|name| BY_HAND.contains(&name.as_str()));
        let caching = if by_hand || options.cache_prompt == CachePrompt::Never { Caching::None } else { caching };
        Self {
            caching,
            hour: options.cache_prompt == CachePrompt::Hour,
            fixed: points::fixed(options),
            ends_fixed: caching.ends_at_tools() || options.system_prompt.is_some(),
            goes_on: !options.tools.is_empty() || options.keeps_turns,
            seen: Mutex::new(Seen::new(caching.life(options.cache_prompt == CachePrompt::Hour))),
            accepted: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        }
    }

    /// Whether the provider is known to cache any.
    pub fn are_cached(&self) -> bool {
        self.caching != Caching::None
    }

    /// Whether questions without a head are worth a word: instructions and tools are at least half as long as an entry, or
    /// the user has asked for caches of an hour.
    pub fn are_too_short(&self) -> bool {
        let (length, least) = (self.fixed.tokens, self.caching.least());
        self.are_cached() && length < least && (self.hour || (self.ends_fixed && length >= least / 2))
    }

    /// Whether requests may be marked.
    pub fn marks(&self) -> bool {
        matches!(self.caching, Caching::Marks { .. } | Caching::Breakpoints)
    }

    /// Whether nobody knows yet if the server takes marks.
    pub fn are_untried(&self) -> bool {
        !self.accepted.load(Ordering::Relaxed)
    }

    /// The server has taken marks.
    pub fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    /// Whether the server has rejected marks.
    pub fn are_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The server has rejected marks: from now on there are none.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Sees questions that will be asked.
    pub fn notice(&self, asks: &[&Ask], now: Instant) {
        let found: Vec<_> = asks.iter().filter_map(|ask| self.points(ask)).collect();
        if !found.is_empty() {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            found.iter().for_each(|(points, whole)| seen.add(points, *whole, now));
        }
    }

    /// What is to be cached of a question; `None`: nothing is known of a cache.
    pub fn plan(&self, ask: &Ask, now: Instant) -> Option<Plan> {
        let (points, whole) = self.points(ask)?;
        let least = self.caching.least();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.add(&points, whole, now);
        let longest = self.longest(&points, &seen, now);
        // OpenAI's newer models mark the newest message by themselves.
        let newest = matches!(self.caching, Caching::Marks { .. }) && calls_tools(ask);
        let before = if newest { far_before(ask) } else { None };
        let mut marks = Marks { newest, before, hour: self.hour && self.marks(), ..Marks::default() };
        let Some(longest) = longest else {
            // Many questions without a head: whatever they write, nobody reads.
            let writes = matches!(self.caching, Caching::Breakpoints) && !self.may_go_on(ask);
            marks.nothing_else = writes && seen.questions(now) >= FEWEST;
            // Those that come later will have this key, and it costs nothing.
            let may_come = !self.marks() && self.caching.has_key() && self.fixed.tokens >= least;
            marks.key = may_come.then(|| format!("{:016x}", self.fixed.hash));
            return marks.say_something().then_some(Plan { head: None, marks, split: None, base: 0 });
        };
        let mut split = None;
        if self.marks() {
            // What is shorter is marked too: other heads may begin with it.
            marks.fixed = self.ends_fixed && self.fixed.tokens >= least;
            (marks.part, split) = match longest.end {
                End::Fixed => (None, None),
                End::Part(message, part) => (Some((message, part)), None),
                End::Inside(bytes) => (Some(last_part(&ask.prompt)), Some(bytes)),
            };
            marks.nothing_else = matches!(self.caching, Caching::Breakpoints) && !self.may_go_on(ask);
        }
        let mut key = longest.hash;
        marks.key = self.caching.has_key().then(|| {
            if self.caching.splits_keys() {
                // As many questions in a row as a machine takes have the same one.
                let number = seen.key(longest.hash, now) / PER_KEY;
                key = key.wrapping_add(number % keys(seen.rate(longest.hash, now)));
            }
            format!("{key:016x}")
        });
        let life = self.caching.life(self.hour);
        let (base, tokens) = (longest.hash, longest.tokens);
        let head = Head { key, base, tokens, life, readable: self.caching.readable(), marked: self.marks() };
        Some(Plan { head: Some(head), marks, split, base })
    }

    /// Whether a question begins with this head; `base`: that of [`Head`].
    pub fn begin(&self, ask: &Ask, base: u64) -> bool {
        // Where marks are refused, heads are not looked at any more.
        self.are_refused() || self.points(ask).is_some_and(|(points, _)| points.iter().any(|point| point.hash == base))
    }

    /// The longest head of a question, of those that others have too.
    fn longest(&self, points: &[Point], seen: &Seen, now: Instant) -> Option<Point> {
        let least = self.caching.least();
        let can_end = |point: &&Point| point.tokens >= least && (self.ends_fixed || point.end != End::Fixed);
        points.iter().rfind(|point| can_end(point) && seen.count(point.hash, now) >= FEWEST).copied()
    }

    /// A question with this plan was answered: its head was read, or not.
    pub fn answered(&self, plan: &Plan, usage: &TokenUsage, now: Instant) {
        if let Some(head) = plan.head
            && usage.cache_read < u64::from(head.tokens) / 2
        {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).missed(plan.base, now);
        }
    }

    /// The parts of a question, if its head is to have a cache of its own: where the provider can make one, and what it
    /// caches by itself was not found often enough. Making one costs as much as a miss, and holding it for five minutes
    /// about a third of one (Gemini's prices of storage, 2026), so that pays from two further misses on.
    pub fn cut(&self, ask: &Ask, plan: &Plan, now: Instant) -> Option<Cut> {
        if !self.caching.is_explicit() || plan.head.is_none() {
            return None;
        }
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).misses(plan.base, now) < MISSES {
            return None;
        }
        // What the plan was made of is looked for once more: few heads have a cache of their own.
        let (points, _) = self.points(ask)?;
        let head = points.iter().find(|point| point.hash == plan.base)?;
        let (before, after) = cut(&ask.prompt, head.end)?;
        // Instructions belong to the cache, and all the rest must be left to ask.
        let is_whole = after.iter().any(|message| message.role == Role::System) || after.is_empty();
        (!is_whole).then_some(Cut { key: plan.base, before: before.into(), after: after.into() })
    }

    /// A request with this plan is sent.
    pub fn sent(&self, plan: &Plan, now: Instant) {
        if self.caching.splits_keys() && plan.head.is_some() {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).sent(plan.base, now);
        }
    }

    /// Where a head of a question may end, and the number of the whole question; `None`: nowhere.
    fn points(&self, ask: &Ask) -> Option<(Vec<Point>, u64)> {
        if self.caching == Caching::None || self.are_refused() || is_marked_by_hand(ask) {
            return None;
        }
        // Most questions are short, and need no further look.
        let most = self.fixed.tokens.saturating_add(points::length(ask));
        (most >= self.caching.least()).then(|| points::of(self.fixed, ask, self.caching))
    }

    /// Whether a conversation may go on, and what is new in it be read later.
    fn may_go_on(&self, ask: &Ask) -> bool {
        let answered = |prompt: &Prompt| match prompt {
            Prompt::Text(_) => false,
            Prompt::Messages(messages) => messages.iter().any(|message| message.role == Role::Assistant),
        };
        self.goes_on || answered(&ask.prompt)
    }
}

/// A question in two parts.
pub struct Cut {
    /// The same for all questions with the same first part, and for no others.
    pub key: u64,
    /// What it begins with, beside what all requests of the strategy have; perhaps nothing.
    pub before: Prompt,
    /// What is left to ask.
    pub after: Prompt,
}

/// Cuts a prompt in two.
fn cut(prompt: &Prompt, end: End) -> Option<(Vec<Message>, Vec<Message>)> {
    let mut whole = prompt.clone();
    let (message, part) = match end {
        End::Fixed => return Some((Vec::new(), messages_of(whole))),
        End::Part(message, part) => (message, part),
        End::Inside(bytes) => {
            let place = last_part(prompt);
            split_at(bytes, &mut whole);
            place
        }
    };
    let mut before = messages_of(whole);
    let last = before.get_mut(message)?;
    let rest = last.parts.split_off((part + 1).min(last.parts.len()));
    let rest = (!rest.is_empty()).then(|| Message { role: last.role, parts: rest, ..Message::default() });
    let after = rest.into_iter().chain(before.drain(message + 1..)).collect();
    Some((before, after))
}

fn messages_of(prompt: Prompt) -> Vec<Message> {
    match prompt {
        Prompt::Text(text) => vec![Message { parts: vec![Part::Text(text)], ..Message::default() }],
        Prompt::Messages(messages) => Arc::unwrap_or_clone(messages),
    }
}

/// The number of the last message, and of the last part in there.
fn last_part(prompt: &Prompt) -> (usize, usize) {
    match prompt {
        Prompt::Text(_) => (0, 0),
        Prompt::Messages(messages) => {
            let parts = messages.last().map_or(0, |message| message.parts.len());
            (messages.len().saturating_sub(1), parts.saturating_sub(1))
        }
    }
}

/// Splits the last text of the question where its head ends in the middle of it.
pub fn split(plan: &Plan, prompt: &mut Prompt) {
    if let Some(bytes) = plan.split {
        split_at(bytes, prompt);
    }
}

fn split_at(bytes: usize, prompt: &mut Prompt) {
    let halves = |text: &Text| {
        // The first is the same for many questions.
        Some([Part::Text(Text::of(text.get(..bytes)?)), Part::Text(text.get(bytes..)?.to_owned().into())])
    };
    match prompt {
        Prompt::Text(text) => {
            if let Some(parts) = halves(text) {
                *prompt = Prompt::from(vec![Message { parts: parts.into(), ..Message::default() }]);
            }
        }
        Prompt::Messages(messages) => {
            let parts = Arc::make_mut(messages).last_mut().map(|message| &mut message.parts);
            if let Some(parts) = parts
                && let Some(Part::Text(text)) = parts.last()
                && let Some(both) = halves(text)
            {
                parts.pop();
                parts.extend(both);
            }
        }
    }
}

/// Whether tools were called in a conversation. Who has called one is likely to call another.
fn calls_tools(ask: &Ask) -> bool {
    let Prompt::Messages(messages) = &ask.prompt else { return false };
    messages.iter().any(|message| message.role == Role::Tool)
}

/// The last message of the request before, if more blocks have been added since than a mark looks back. One mark there is
/// enough, however many these are: the newest one does not have to find it any more.
fn far_before(ask: &Ask) -> Option<usize> {
    let Prompt::Messages(messages) = &ask.prompt else { return None };
    let turn = messages.iter().rposition(|message| message.role == Role::Assistant)?;
    // That request had a mark at its end if it called tools as well.
    let was_marked = messages[..turn].iter().any(|message| message.role == Role::Tool);
    // At most: each call of the model may have a thought before it.
    let blocks = messages[turn..].iter().map(|message| match message.role {
        Role::Tool => 1,
        _ => message.parts.len() + 2 * message.tool_calls.len() + 1,
    });
    (was_marked && blocks.sum::<usize>() >= LOOK_BACK).then(|| turn.checked_sub(1))?
}

/// How many keys a head with so many requests a minute needs.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn keys(per_minute: Option<f64>) -> u64 {
    per_minute.map_or(MOST_AT_FIRST, |rate| (rate / PER_KEY as f64).ceil().clamp(1.0, MOST_KEYS as f64) as u64)
}

/// Further fields of requests with which users take the cache, or the head, into their own hands.
const BY_HAND: &[&str] = &[
    "cache_control",
    "cachedContent",
    "instructions",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "system",
    "systemInstruction",
    "tools",
];

/// Whether the user marks parts of a question.
fn is_marked_by_hand(ask: &Ask) -> bool {
    let Prompt::Messages(messages) = &ask.prompt else { return false };
    messages.iter().any(|message| {
        let parts = message.parts.iter().filter_map(Part::more);
        parts.chain([&message.more]).any(|fields| {
            fields.0.iter().any(|(name, _)| matches!(name.as_str(), "cache_control" | "prompt_cache_breakpoint"))
        })
    })
}

/// Whether a server does not know the fields that speak of its cache: one that imitates another, or an older model.
pub fn refuses_marks(error: &ProviderError) -> bool {
    let names = ["cache_control", "prompt_cache"];
    matches!(error, ProviderError::Status { status: 400 | 422, message, .. }
        if names.iter().any(|name| message.contains(name)))
}

#[cfg(test)]
mod tests;
