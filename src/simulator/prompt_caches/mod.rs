//! Prompt caches as the vendors' servers have them, and what they cost: which prefix is read, which is written, when it
//! can be read and for how long. Off unless asked for.
//!
//! A dialect reads a [`Prompt`] from a request ([`anthropic`], [`openai`], [`gemini`]) and rejects marks that its vendor
//! rejects; [`PromptCaches`] has the entries and counts. Rules as in the vendors' guides (2026-08 to 2026-10).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

mod anthropic;
pub mod charge;
mod entries;
mod gemini;
mod openai;
pub mod prompt;

pub use anthropic::prompt as anthropic_prompt;
pub use charge::Charge;
use entries::{Entries, Place, Routes, Seen};
pub use gemini::{least as gemini_least, prompt as gemini_prompt};
pub use openai::{chat_prompt, responses_prompt};
pub use prompt::Prompt;
use prompt::{FIVE_MINUTES, Mark, OPENAI_LEAST, Point, Rules};

/// Most blocks that a mark looks back, its own included (Anthropic).
const LOOK_BACK: usize = 20;
/// Entries that one request may write (OpenAI, from gpt-5.6 on).
const MOST_WRITES: usize = 4;
/// The first and the newest explicit breakpoints that are looked up there, and the ends of earlier messages.
const LOOKED_UP: (usize, usize, usize) = (2, 50, 20);

/// How caches behave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How many seconds of an entry's life pass in a second.
    pub time_scale: f64,
    /// Requests a minute with the same beginning that one machine takes (OpenAI).
    pub per_machine: f64,
    /// The share of requests that find what is cached without being asked for where the vendor promises no hit (Google).
    pub implicit: f64,
}

/// The ledger of one model, in tokens. Prices are applied above.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    /// Requests answered.
    pub requests: u64,
    /// Tokens of their prompts.
    pub input: u64,
    /// Of these, read.
    pub read: u64,
    /// Of these, written for five minutes.
    pub written: u64,
    /// Of these, written for an hour.
    pub written_hour: u64,
    /// Tokens of the answers.
    pub output: u64,
    /// Requests that read anything.
    pub hits: u64,
    /// Requests whose beginning somebody had sent before, within the life of an entry and to the same machine.
    pub possible_hits: u64,
    /// Tokens of those beginnings: what could have been read.
    pub possible: u64,
    /// Tokens of the beginnings that could have been read, each counted once: what had to be written for that.
    pub necessary: u64,
    /// Tokens of explicit caches that were created.
    pub created: u64,
    /// Tokens that explicit caches hold, times hours.
    pub stored_hours: f64,
}

/// All sums.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheCounts {
    /// By model.
    pub models: BTreeMap<String, Sums>,
    /// Entries that were paid for and that nobody has read.
    pub wasted_writes: u64,
}

/// The caches of a server.
#[derive(Debug)]
pub struct PromptCaches {
    settings: Settings,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: Entries,
    seen: Seen,
    routes: Routes,
    models: BTreeMap<String, Sums>,
    /// How many requests were to find what nobody has promised.
    unpromised: f64,
}

/// The entries that a request writes, before it is known when they can be read.
#[derive(Debug, Default)]
pub struct Writes {
    now: f64,
    all: Vec<(Place, f64)>,
    /// What nobody could know to be there before it can be read.
    later: Vec<(Place, f64)>,
    at_first_byte: bool,
    are_paid: bool,
}

impl PromptCaches {
    /// Empty ones.
    pub fn new(settings: Settings) -> Self {
        Self { settings, began: Instant::now(), state: Mutex::default() }
    }

    /// Looks a prompt up that is answered now.
    pub fn look_up(&self, prompt: &Prompt) -> (Charge, Writes) {
        let now = self.began.elapsed().as_secs_f64() * self.settings.time_scale;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.look_up(prompt, now, self.settings)
    }

    /// A reply takes so long until its first byte, and until its end: then what it has written can be read.
    pub fn write(&self, writes: Writes, first_byte: Duration, end: Duration) {
        let after = if writes.at_first_byte { first_byte } else { end };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.write(writes, after.as_secs_f64() * self.settings.time_scale);
    }

    /// A request was paid for. `explicit`: what it read from a cache that it named.
    pub fn paid(&self, model: &str, charge: Charge, explicit: usize, input: usize, output: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = state.models.entry(model.to_owned()).or_default();
        sums.requests += 1;
        sums.input += input as u64;
        sums.output += output as u64;
        sums.read += (charge.read + explicit) as u64;
        sums.written += charge.written as u64;
        sums.written_hour += charge.written_hour as u64;
        sums.hits += u64::from(charge.read + explicit > 0);
        sums.possible_hits += u64::from(explicit > 0);
        sums.possible += explicit as u64;
    }

    /// The ledger. `explicit`: tokens of explicit caches that were created, and what they hold, times hours, by model.
    pub fn counts(&self, explicit: BTreeMap<String, (u64, f64)>) -> CacheCounts {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wasted_writes = state.entries.writes - state.entries.useful;
        let mut models = state.models.clone();
        for (model, (created, hours)) in explicit {
            let sums = models.entry(model).or_default();
            (sums.created, sums.stored_hours) = (created, hours);
        }
        CacheCounts { models, wasted_writes }
    }
}

/// Numbers and texts as one number.
fn hash(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

impl State {
    fn look_up(&mut self, prompt: &Prompt, now: f64, settings: Settings) -> (Charge, Writes) {
        let per_machine = settings.per_machine;
        match prompt.rules {
            Rules::Marks { least } => self.marks(prompt, least, now),
            Rules::Breakpoints { implicit, life } => self.breakpoints(prompt, implicit, life, now, per_machine),
            Rules::Automatic { least, step, life, is_spread } => {
                let points = prompt.grid(step, least);
                let machine = if is_spread { self.machine(prompt, now, per_machine) } else { 0 };
                let place = hash((&prompt.model, &prompt.key, machine));
                let later = self.count_possible(prompt, &points, place, life, now, machine > 0);
                let is_served = is_spread || self.is_served(settings.implicit);
                let found = points.iter().rposition(|point| self.entries.read((place, point.hash), now));
                let found = found.filter(|_| is_served);
                let read = found.map_or(0, |found| points[found].tokens);
                // What is shorter is used as well.
                for point in &points[..found.unwrap_or(0)] {
                    self.entries.read((place, point.hash), now);
                }
                let all = points[found.map_or(0, |found| found + 1)..].iter().map(|point| ((place, point.hash), life));
                let charge = Charge { read, is_on: true, ..Charge::default() };
                (charge, Writes { now, all: all.collect(), later, at_first_byte: false, are_paid: false })
            }
            Rules::Never => (Charge { is_on: true, ..Charge::default() }, Writes::default()),
        }
    }

    /// Whether the next request is one of those that find what is cached, if it is this share of all.
    fn is_served(&mut self, share: f64) -> bool {
        let before = self.unpromised;
        self.unpromised += share;
        self.unpromised.floor() > before.floor()
    }

    fn write(&mut self, writes: Writes, after: f64) {
        let Writes { now, all, later, are_paid, .. } = writes;
        for (place, life) in later {
            // What its writing cost has been counted.
            self.seen.see(place, now, now + after, life, true);
        }
        for (place, life) in all {
            self.entries.write(place, now, now + after, life, are_paid);
        }
    }

    /// Anthropic's rules: each mark reads the longest entry among the blocks before it, and writes the rest up to it.
    fn marks(&mut self, prompt: &Prompt, least: usize, now: f64) -> (Charge, Writes) {
        let points = prompt.ends();
        let place = hash(&prompt.model);
        let long = points.iter().copied().filter(|point| point.tokens >= least).collect::<Vec<_>>();
        let marked = points.iter().enumerate().filter_map(|(at, point)| Some((at, prompt.blocks[point.block].mark?)));
        let marked: Vec<(usize, Mark)> = marked.collect();
        let life = marked.iter().map(|(_, Mark(life))| *life).fold(FIVE_MINUTES, f64::max);
        let later = self.count_possible(prompt, &long, place, life, now, false);
        let looked_up = |at: usize| points[(at + 1).saturating_sub(LOOK_BACK)..=at].iter().rev();
        let found = marked.iter().rev().flat_map(|(at, _)| looked_up(*at)).filter(|point| point.tokens >= least);
        let read = found
            .filter(|point| self.entries.read((place, point.hash), now))
            .map(|point| point.tokens)
            .max()
            .unwrap_or(0);
        let mut charge = Charge { read, tells_writes: true, is_on: true, ..Charge::default() };
        let (mut all, mut before) = (Vec::new(), read);
        for (at, Mark(life)) in marked {
            let point = points[at];
            if point.tokens >= least && point.tokens > before {
                *if life > FIVE_MINUTES { &mut charge.written_hour } else { &mut charge.written } +=
                    point.tokens - before;
                before = point.tokens;
                all.push(((place, point.hash), life));
            }
        }
        (charge, Writes { now, all, later, at_first_byte: true, are_paid: true })
    }

    /// OpenAI's rules from gpt-5.6 on.
    fn breakpoints(
        &mut self,
        prompt: &Prompt,
        implicit: bool,
        life: f64,
        now: f64,
        per_machine: f64,
    ) -> (Charge, Writes) {
        let points = prompt.ends();
        let machine = self.machine(prompt, now, per_machine);
        let place = |is_explicit: bool| hash((&prompt.model, &prompt.key, machine, is_explicit));
        let long = points.iter().copied().filter(|point| point.tokens >= OPENAI_LEAST).collect::<Vec<_>>();
        let later = self.count_possible(prompt, &long, place(true), life, now, machine > 0);
        let explicit: Vec<Point> =
            points.iter().copied().filter(|point| prompt.blocks[point.block].mark.is_some()).collect();
        let ends = |point: &&Point| prompt.blocks[point.block].ends_message;
        let newest = points
            .iter()
            .filter(ends)
            .rfind(|point| prompt.blocks[point.block].role != "assistant")
            .filter(|_| implicit);
        let (first, last, messages) = LOOKED_UP;
        let looked_up =
            explicit.iter().enumerate().filter(|(number, _)| *number < first || explicit.len() - number <= last);
        let mut places: Vec<(Point, bool)> = looked_up.map(|(_, point)| (*point, true)).collect();
        if let Some(newest) = newest {
            let earlier = points.iter().filter(ends).filter(|point| point.block < newest.block).rev().take(messages);
            let developer =
                points.iter().find(|point| matches!(prompt.blocks[point.block].role.as_str(), "developer" | "system"));
            places.extend([newest].into_iter().chain(earlier).chain(developer).map(|point| (*point, false)));
        }
        places.sort_by_key(|(point, _)| std::cmp::Reverse(point.tokens));
        let found = places.iter().filter(|(point, _)| point.tokens >= OPENAI_LEAST).find(|(point, is_explicit)| {
            // What was written without being asked for is found only where nobody asks.
            self.entries.read((place(true), point.hash), now)
                || (!is_explicit && self.entries.read((place(false), point.hash), now))
        });
        let read = found.map_or(0, |(point, _)| point.tokens);
        let most = if implicit { MOST_WRITES - 1 } else { MOST_WRITES };
        let newest_explicit = &explicit[explicit.len().saturating_sub(most)..];
        let written = newest_explicit.iter().map(|point| (*point, true)).chain(newest.map(|point| (*point, false)));
        let written: Vec<(Point, bool)> =
            written.filter(|(point, _)| point.tokens >= OPENAI_LEAST && point.tokens > read).collect();
        let longest = written.iter().map(|(point, _)| point.tokens).max().unwrap_or(read);
        let charge = Charge { read, written: longest - read, tells_writes: true, is_on: true, ..Charge::default() };
        if !later.is_empty() {
            // No client can do without what it writes on a machine of which it does not know.
            let necessary = written.iter().filter(|(_, is_explicit)| *is_explicit).map(|(point, _)| point.tokens).max();
            let sums = self.models.entry(prompt.model.clone()).or_default();
            sums.necessary += necessary.map_or(0, |tokens| tokens - read) as u64;
        }
        let all = written.iter().map(|(point, is_explicit)| ((place(*is_explicit), point.hash), life)).collect();
        (charge, Writes { now, all, later, at_first_byte: false, are_paid: true })
    }

    /// The machine that requests with this beginning go to.
    fn machine(&mut self, prompt: &Prompt, now: f64, per_machine: f64) -> u64 {
        let beginning = prompt.grid(OPENAI_LEAST, OPENAI_LEAST).first().map_or(0, |point| point.hash);
        self.routes.machine(hash((&prompt.model, &prompt.key, beginning)), now, per_machine)
    }

    /// Counts what could have been read if all that came before had been written at once. `is_further`: the request was
    /// sent on to another machine, which no client sees, and so none can wait until it can read there; what it has seen
    /// there is returned.
    fn count_possible(
        &mut self,
        prompt: &Prompt,
        points: &[Point],
        place: u64,
        life: f64,
        now: f64,
        is_further: bool,
    ) -> Vec<(Place, f64)> {
        let seen: Vec<Option<bool>> =
            points.iter().map(|point| self.seen.get((place, point.hash), now, life)).collect();
        let longest = seen.iter().rposition(Option::is_some);
        let sums = self.models.entry(prompt.model.clone()).or_default();
        if let Some(longest) = longest {
            let tokens = points[longest].tokens;
            sums.possible_hits += 1;
            sums.possible += tokens as u64;
            let counted = (0..=longest).rev().find(|at| seen[*at] == Some(true)).map_or(0, |at| points[at].tokens);
            sums.necessary += (tokens - counted) as u64;
        }
        let mut later = Vec::new();
        for (at, point) in points.iter().enumerate() {
            let place = (place, point.hash);
            if is_further && seen[at].is_none() {
                later.push((place, life));
            } else {
                self.seen.see(place, now, now, life, longest == Some(at));
            }
        }
        later
    }
}

#[cfg(test)]
mod tests;
