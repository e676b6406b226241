//! Reads the prompts of items that have not started: their questions, and what these begin with alike. Used by
//! [`RunHandle`](super::run::RunHandle) alone.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::prompt;
use crate::dispatch::dispatcher::Staged;
use crate::engine::ItemIndex;
use crate::engine::heads::Head;
use crate::providers::{Ask, Provider};

/// What was read.
pub struct Read {
    /// The questions, by item.
    pub staged: Vec<(ItemIndex, Staged)>,
    /// What they begin with alike.
    pub heads: Heads,
    /// How many items were looked at before there was no room for more words.
    pub looked_at: usize,
}

/// What the requests of items begin with alike: of each item in order whether there was a question, and its head.
pub struct Heads {
    /// By item.
    pub by_item: Vec<Option<Head>>,
    /// Questions without a head to a provider with prompt caches.
    pub headless: u64,
    /// The same of strategies whose heads are almost long enough, or were expected to be.
    pub too_short: u64,
}

impl Heads {
    /// Whether any has a head.
    pub fn are_any(&self) -> bool {
        self.by_item.iter().any(Option::is_some)
    }
}

/// Reads the prompts of those of `items` that are of this strategy; the first has the number `first`. `whole`: as in
/// [`Staged`]. `room`: for so many bytes.
///
/// # Errors
/// What Python raises.
pub fn read(
    first: ItemIndex,
    items: &Bound<'_, PyList>,
    strategy: &Bound<'_, PyAny>,
    provider: Arc<dyn Provider>,
    whole: Option<bool>,
    room: usize,
) -> PyResult<Read> {
    let py = items.py();
    let mut staged = Vec::with_capacity(items.len());
    let (mut looked_at, mut bytes) = (0, 0);
    for (item, work) in (first..).zip(items) {
        if bytes >= room {
            break;
        }
        looked_at += 1;
        if work.is_none() || !work.getattr(intern!(py, "strategy"))?.is(strategy) {
            continue;
        }
        // What cannot be read fails when its item starts.
        if let Ok(prompt) = prompt::read(&work.getattr(intern!(py, "prompt"))?) {
            let question = Staged::new(Arc::clone(&provider), Ask::new(prompt), whole.unwrap_or_default());
            bytes += question.bytes();
            staged.push((item, question));
        }
    }
    let heads = find_heads(&*provider, first, looked_at, &mut staged);
    Ok(Read { staged, heads, looked_at })
}

fn find_heads(provider: &dyn Provider, first: ItemIndex, count: usize, staged: &mut [(ItemIndex, Staged)]) -> Heads {
    let mut heads = Heads { by_item: vec![None; count], headless: 0, too_short: 0 };
    provider.notice(&staged.iter().map(|(_, question)| &question.ask).collect::<Vec<_>>());
    if !provider.has_heads() {
        return heads;
    }
    for (item, question) in staged {
        let place = usize::try_from(*item - first).ok();
        if let Some(known) = place.and_then(|place| heads.by_item.get_mut(place)) {
            *known = question.find_head();
            if known.is_none() {
                *(if provider.is_too_short() { &mut heads.too_short } else { &mut heads.headless }) += 1;
            }
        }
    }
    heads
}
