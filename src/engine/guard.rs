//! What a run may not exceed: its time, its tokens, its money.

use super::quota::Used;
use super::stats::Usage;

/// Why a run ends before all items were tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Its time is over.
    Deadline,
    /// The budget is used up.
    Budget,
    /// An error that concerns every item.
    Aborted,
    /// The user has interrupted it.
    Interrupted,
    /// Its results cannot be stored any more.
    Unstored,
    /// The provider was away for too long.
    Outage,
    /// What is left waits in batches, for another run to collect.
    InBatch,
}

impl Stop {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Deadline, Self::Budget, Self::Aborted, Self::Interrupted, Self::Unstored, Self::Outage, Self::InBatch];

    /// The name in results: the category of the items that did not get to their end.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deadline => "batch_deadline_exceeded",
            Self::Budget => "batch_budget_exceeded",
            Self::Aborted => "batch_aborted",
            Self::Interrupted => "interrupted",
            Self::Unstored => "artifact_error",
            Self::Outage => "provider_outage",
            Self::InBatch => "in_batch",
        }
    }
}

/// What a token costs, in any currency.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Price {
    /// Of the prompt.
    pub input: f64,
    /// Of the prompt, from the provider's cache.
    pub cached: f64,
    /// Of the prompt, into the provider's cache.
    pub cache_write: f64,
    /// Of the prompt, into the provider's cache for an hour.
    pub cache_write_hour: f64,
    /// Of the answer.
    pub output: f64,
    /// Of what a cache of ours holds at the provider, for an hour.
    pub held: f64,
}

impl Price {
    /// The cost of a usage.
    #[allow(clippy::cast_precision_loss)]
    pub fn of(&self, usage: &Usage) -> f64 {
        let plain = usage.input.saturating_sub(usage.cached).saturating_sub(usage.cache_write);
        let hour = usage.cache_write_hour.min(usage.cache_write);
        plain as f64 * self.input
            + usage.cached as f64 * self.cached
            + (usage.cache_write - hour) as f64 * self.cache_write
            + hour as f64 * self.cache_write_hour
            + usage.output as f64 * self.output
            + usage.cache_held as f64 * self.held
    }

    /// The most that so many tokens can cost.
    pub fn at_most(&self, input: f64, output: f64) -> f64 {
        let dearest = self.input.max(self.cached).max(self.cache_write).max(self.cache_write_hour);
        input * dearest + output * self.output
    }
}

/// Tokens and cost together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spending {
    /// Tokens of prompts and answers.
    pub tokens: f64,
    /// Cost in the currency of the prices.
    pub cost: f64,
}

/// What may be spent; `None`: as much as it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Caps {
    /// Tokens of prompts and answers.
    pub tokens: Option<f64>,
    /// Cost in the currency of the prices.
    pub cost: Option<f64>,
}

/// Whether an attempt can be afforded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affordable {
    /// Yes, and it is reserved.
    Yes,
    /// Perhaps, when attempts in flight turn out cheaper than reserved.
    Later,
    /// Never.
    No,
}

/// The ledger of a run. Before an attempt is sent, the most it can cost is reserved; so what was spent and what is
/// reserved never exceed the caps together, as far as "the most" is known.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    caps: Caps,
    spent: Spending,
    reserved: Spending,
    /// Attempts whose real usage nobody knows: they count with what was reserved.
    unknown: u64,
    /// The part of a cost cap of several runs that is ours.
    allowance: Option<Allowance>,
    /// The cost of the last attempt that could not be afforded.
    wanted: f64,
}

/// What may be spent of a cap that several runs have together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// So much.
    pub cost: f64,
    /// Whether it will never be more.
    pub is_final: bool,
}

/// Rounding of sums of reservations is no overspending.
const ROUNDING: f64 = 1e-9;

impl Budget {
    /// Nothing is spent yet.
    pub fn new(caps: Caps) -> Self {
        Self { caps, ..Self::default() }
    }

    /// Changes the cap of the cost; what is spent and reserved stays so.
    pub fn set_cost_cap(&mut self, cost: Option<f64>) {
        self.caps.cost = cost;
    }

    /// The cap of the cost.
    pub fn cost_cap(&self) -> Option<f64> {
        self.caps.cost
    }

    /// Whether anything is capped.
    pub fn has_caps(&self) -> bool {
        self.caps != Caps::default() || self.allowance.is_some()
    }

    /// From now on so much may be spent, beside the caps. While that may become more, nothing ends for want of it.
    pub fn allow(&mut self, allowance: Allowance) {
        self.allowance = Some(allowance);
        self.wanted = 0.0;
    }

    /// What is spent, what is reserved, and what the last attempt would cost that could not be afforded since the last
    /// [`allow`](Self::allow).
    pub fn claims(&self) -> (f64, f64, f64) {
        (self.spent.cost, self.reserved.cost, self.wanted)
    }

    /// Reserves the most that an attempt can cost.
    pub fn reserve(&mut self, most: Spending) -> Affordable {
        let fits = |cap: Option<f64>, sum: f64| cap.is_none_or(|cap| sum <= cap * (1.0 + ROUNDING));
        let now = fits(self.caps.tokens, self.spent.tokens + self.reserved.tokens + most.tokens)
            && fits(self.caps.cost, self.spent.cost + self.reserved.cost + most.cost);
        let allowed = |cost: f64| fits(self.allowance.map(|allowance| allowance.cost), cost + most.cost);
        if now && !self.is_used_up() && allowed(self.spent.cost + self.reserved.cost) {
            self.reserved.tokens += most.tokens;
            self.reserved.cost += most.cost;
            return Affordable::Yes;
        }
        let ever = fits(self.caps.tokens, self.spent.tokens + most.tokens)
            && fits(self.caps.cost, self.spent.cost + most.cost)
            && (self.may_get_more() || allowed(self.spent.cost));
        self.wanted = most.cost;
        let on = self.reserved.tokens > ROUNDING || self.reserved.cost > ROUNDING;
        let on = on || self.may_get_more();
        if ever && on && !self.is_used_up() { Affordable::Later } else { Affordable::No }
    }

    /// The attempt is not made after all.
    pub fn cancel(&mut self, reserved: Spending) {
        if self.has_caps() {
            self.reserved.tokens = (self.reserved.tokens - reserved.tokens).max(0.0);
            self.reserved.cost = (self.reserved.cost - reserved.cost).max(0.0);
        }
    }

    /// Puts what an attempt really cost in the place of its reservation.
    #[allow(clippy::cast_precision_loss)]
    pub fn reconcile(&mut self, reserved: Spending, used: Used, price: Option<Price>) {
        self.reserved.tokens = (self.reserved.tokens - reserved.tokens).max(0.0);
        self.reserved.cost = (self.reserved.cost - reserved.cost).max(0.0);
        match used {
            Used::NotSent | Used::Rejected => {}
            Used::Reported(usage) => {
                self.spent.tokens += usage.total.max(usage.input + usage.output) as f64;
                self.spent.cost += price.map_or(0.0, |price| price.of(&usage));
            }
            Used::Unknown => {
                self.unknown += 1;
                self.spent.tokens += reserved.tokens;
                self.spent.cost += reserved.cost;
            }
        }
    }

    /// Adds a cost that a user's own function has found.
    pub fn spend(&mut self, cost: f64) {
        self.spent.cost += cost;
    }

    /// Whether a cap is reached.
    pub fn is_used_up(&self) -> bool {
        self.caps.tokens.is_some_and(|cap| self.spent.tokens >= cap)
            || self.caps.cost.is_some_and(|cap| self.spent.cost >= cap)
            || self.allowance.is_some_and(|allowance| allowance.is_final && self.spent.cost >= allowance.cost)
    }

    fn may_get_more(&self) -> bool {
        self.allowance.is_some_and(|allowance| !allowance.is_final)
    }

    /// What was spent.
    pub fn spent(&self) -> Spending {
        self.spent
    }

    /// Attempts that count with what was reserved for them.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn most(tokens: f64, cost: f64) -> Spending {
        Spending { tokens, cost }
    }

    fn usage(input: u64, output: u64) -> Used {
        Used::Reported(Usage { input, output, total: input + output, ..Usage::default() })
    }

    const PRICE: Price =
        Price { input: 0.01, cached: 0.001, cache_write: 0.0125, cache_write_hour: 0.02, output: 0.04, held: 0.5 };

    #[test]
    fn prices_by_kind_of_token() {
        let usage = Usage {
            input: 100,
            output: 10,
            total: 110,
            cached: 40,
            cache_write: 20,
            cache_write_hour: 0,
            cache_held: 0,
        };
        assert!((PRICE.of(&usage) - (0.4 + 0.04 + 0.25 + 0.4)).abs() < 1e-9);
        let usage = Usage { cache_write_hour: 10, ..usage };
        assert!((PRICE.of(&usage) - (0.4 + 0.04 + 0.125 + 0.2 + 0.4)).abs() < 1e-9);
        assert!((PRICE.at_most(100.0, 10.0) - (2.0 + 0.4)).abs() < 1e-9);
    }

    #[test]
    fn waits_for_what_is_reserved_and_ends_when_nothing_is() {
        let mut budget = Budget::new(Caps { tokens: Some(100.0), cost: None });
        assert_eq!(budget.reserve(most(60.0, 0.0)), Affordable::Yes);
        assert_eq!(budget.reserve(most(60.0, 0.0)), Affordable::Later);
        budget.reconcile(most(60.0, 0.0), usage(10, 10), None);
        assert_eq!(budget.reserve(most(60.0, 0.0)), Affordable::Yes);
        budget.reconcile(most(60.0, 0.0), usage(30, 29), None);
        assert_eq!(budget.reserve(most(60.0, 0.0)), Affordable::No);
        assert_eq!(budget.reserve(most(20.0, 0.0)), Affordable::Yes);
    }

    #[test]
    fn an_allowance_is_waited_for_until_it_is_final() {
        let mut budget = Budget::default();
        budget.allow(Allowance { cost: 1.0, is_final: false });
        assert!(budget.has_caps());
        assert_eq!(budget.reserve(most(1.0, 0.8)), Affordable::Yes);
        budget.reconcile(most(1.0, 0.8), Used::Unknown, Some(PRICE));
        assert_eq!(budget.reserve(most(1.0, 0.5)), Affordable::Later, "though nothing is in flight");
        assert_eq!(budget.claims(), (0.8, 0.0, 0.5));
        budget.allow(Allowance { cost: 1.5, is_final: false });
        assert_eq!(budget.reserve(most(1.0, 0.5)), Affordable::Yes);
        budget.allow(Allowance { cost: 1.5, is_final: true });
        assert_eq!(budget.reserve(most(1.0, 0.5)), Affordable::Later, "what is in flight may be cheaper");
        budget.reconcile(most(1.0, 0.5), Used::Unknown, Some(PRICE));
        assert_eq!(budget.reserve(most(1.0, 0.5)), Affordable::No);
        assert_eq!(budget.reserve(most(1.0, 0.2)), Affordable::Yes);
        // The run's own cap holds beside it.
        let mut budget = Budget::new(Caps { tokens: None, cost: Some(1.0) });
        budget.allow(Allowance { cost: 100.0, is_final: false });
        assert_eq!(budget.reserve(most(1.0, 1.2)), Affordable::No);
    }

    #[test]
    fn what_nobody_knows_counts_as_reserved() {
        let mut budget = Budget::new(Caps { tokens: None, cost: Some(1.0) });
        budget.reserve(most(10.0, 0.6));
        budget.reconcile(most(10.0, 0.6), Used::Unknown, Some(PRICE));
        assert_eq!((budget.unknown(), budget.spent().cost), (1, 0.6));
        budget.reserve(most(10.0, 0.3));
        budget.reconcile(most(10.0, 0.3), Used::Rejected, Some(PRICE));
        assert!((budget.spent().cost - 0.6).abs() < 1e-9);
    }

    proptest! {
        /// Whatever is reserved and however it ends: never more than the caps, if no attempt costs more than its most.
        #[test]
        fn the_caps_hold(attempts in prop::collection::vec((1u64..200, 1u64..200, 0.0f64..1.0, 0u8..4), 1..300)) {
            let mut budget = Budget::new(Caps { tokens: Some(5000.0), cost: Some(60.0) });
            let mut on: Vec<(Spending, Used)> = Vec::new();
            for (input, output, share, kind) in attempts {
                #[allow(clippy::cast_precision_loss)]
                let reserved = most((input + output) as f64, PRICE.at_most(input as f64, output as f64));
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
                let used = match kind {
                    0 => Used::Unknown,
                    1 => Used::Rejected,
                    _ => usage((input as f64 * share) as u64, (output as f64 * share) as u64),
                };
                if budget.reserve(reserved) == Affordable::Yes {
                    on.push((reserved, used));
                }
                if kind == 3 && let Some((reserved, used)) = on.pop() {
                    budget.reconcile(reserved, used, Some(PRICE));
                }
            }
            for (reserved, used) in on {
                budget.reconcile(reserved, used, Some(PRICE));
            }
            prop_assert!(budget.spent().tokens <= 5000.0 + 1e-3 && budget.spent().cost <= 60.0 + 1e-6);
        }
    }
}
