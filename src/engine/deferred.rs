//! Items whose requests wait elsewhere, perhaps for hours: a lane has put them into a batch. Nothing is kept of them here
//! but their number, so that a million cost nothing; whoever has their requests gives them back, a few at a time.
//!
//! ```text
//! Start -> defer -> recall  -> record -> release      (its reply is there, or the run ends)
//!                -> requeue -> Start ...              (it came back unanswered)
//! ```

use rustc_hash::FxHashMap;

use super::item::{Item, Need};
use super::units::ItemIndex;

/// See the module.
#[derive(Debug, Default)]
pub struct Deferred {
    /// Items that are elsewhere.
    pub count: u64,
    /// What is reserved for them, where money or tokens are bounded.
    pub needs: FxHashMap<ItemIndex, Need>,
    /// Items that were given back and are not done.
    pub recalled: usize,
    /// Whether somebody waits for room to give items back.
    pub is_awaited: bool,
}

impl Deferred {
    /// An item that was given back has its result, or goes on in another way.
    pub fn resolve(&mut self, item: &mut Item) {
        if std::mem::take(&mut item.is_recalled) {
            self.recalled = self.recalled.saturating_sub(1);
        }
    }
}
