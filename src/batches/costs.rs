//! Whether a request costs less by itself than in a batch, although batches are half price: where it begins like others,
//! the provider's prompt cache has its beginning, which costs a tenth by itself; in a batch, a hit is a matter of luck.
//! Pure. [`auto`](super::auto) asks this for each request, and whoever plans a run.

/// The share of a head that requests in a batch read from the cache as long as none were seen, where the provider caches
/// without being told: the low end of what Anthropic's documentation reports of batches (30 to 98 %); others say nothing.
/// Where entries have to be marked there are none: a batch's lines have no marks.
const HITS_IN_BATCHES: f64 = 0.3;
/// How many tokens of prompts in batches it takes until what was read of them is believed more than that.
const TOKENS: f64 = 100_000.0;
/// How many replies it takes until hits are believed more than assumed.
const WEIGHT: f64 = 8.0;
/// After so many replies the older ones count half.
const MEMORY: f64 = 500.0;

/// What tokens cost, in any unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of prompts.
    pub input: f64,
    /// Of prompts that are read from the cache.
    pub cached: f64,
    /// Of answers.
    pub output: f64,
}

/// What they cost by themselves and in batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// By themselves.
    pub live: Rates,
    /// In batches.
    pub batch: Rates,
}

/// What is known of what batches cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KnownCosts {
    /// Whether they cost less; none: as the provider has it.
    pub is_cheaper: Option<bool>,
    /// What tokens cost.
    pub prices: Option<Prices>,
}

/// What a request is expected to use, tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// All of its prompt.
    pub input: f64,
    /// Of it, what others begin with too.
    pub head: f64,
    /// Its answer.
    pub output: f64,
    /// Whether the head has to be marked to be cached.
    pub is_marked: bool,
}

impl Rates {
    fn of(&self, size: &Size, hits: f64) -> f64 {
        let read = size.head * hits;
        (size.input - read).max(0.0) * self.input + read * self.cached + size.output * self.output
    }
}

impl Prices {
    /// Whether a cache may make up for the price of a batch at all: else there is nothing to weigh.
    pub fn may_favour_live(&self) -> bool {
        self.live.cached < self.batch.input
    }

    /// Whether a request costs less by itself. `hits`: the share of the head that is read from the cache then;
    /// `in_batches`: what was seen of requests like it there.
    pub fn favour_live(&self, size: &Size, hits: f64, in_batches: CacheReads) -> bool {
        self.live.of(size, hits) < self.batch.of(size, in_batches.hits(size))
    }
}

/// What earlier batches have used, tokens: of prompts, and of these what was read from the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CacheReads {
    /// All.
    pub input: f64,
    /// Those that were read.
    pub cached: f64,
}

impl CacheReads {
    /// The share of a head that is read in a batch, if this request is like those before it.
    fn hits(&self, size: &Size) -> f64 {
        if size.is_marked || size.head <= 0.0 {
            return 0.0;
        }
        let seen = (self.cached / self.input.max(1.0) * size.input / size.head).min(1.0);
        (TOKENS * HITS_IN_BATCHES + self.input * seen) / (TOKENS + self.input)
    }
}

/// What is seen of requests that go by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usual {
    replies: f64,
    input: f64,
    output: f64,
    /// Replies to requests with a head, and the shares of it that were read.
    heads: f64,
    hits: f64,
}

impl Usual {
    /// A reply has used so much. `head`: what its request had in common with others, tokens, and how many were read.
    pub fn see(&mut self, input: u64, output: u64, head: Option<(u32, u64)>) {
        #[allow(clippy::cast_precision_loss)]
        {
            self.replies += 1.0;
            self.input += input as f64;
            self.output += output as f64;
            if let Some((tokens, read)) = head {
                self.heads += 1.0;
                self.hits += (read as f64 / f64::from(tokens.max(1))).min(1.0);
            }
        }
        if self.replies > MEMORY {
            let Self { replies, input, output, heads, hits } = self;
            [replies, input, output, heads, hits].into_iter().for_each(|sum| *sum /= 2.0);
        }
    }

    /// The prompt and the answer of the usual request; `None`: no reply has come.
    pub fn sizes(&self) -> Option<(f64, f64)> {
        (self.replies > 0.0).then(|| (self.input / self.replies, self.output / self.replies))
    }

    /// The share of heads that is read: all of it until replies say otherwise.
    pub fn hits(&self) -> f64 {
        (WEIGHT + self.hits) / (WEIGHT + self.heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a model whose cache costs a tenth.
    const PRICES: Prices = Prices {
        live: Rates { input: 3.0, cached: 0.3, output: 15.0 },
        batch: Rates { input: 1.5, cached: 0.15, output: 7.5 },
    };
    const LONG: Size = Size { input: 5000.0, head: 4800.0, output: 50.0, is_marked: true };

    fn favours(size: &Size, hits: f64) -> bool {
        PRICES.favour_live(size, hits, CacheReads::default())
    }

    #[test]
    fn what_batches_have_read_is_believed() {
        let size = Size { is_marked: false, ..LONG };
        let reads = |input: f64, share: f64| CacheReads { input, cached: share * input };
        assert!((CacheReads::default().hits(&size) - HITS_IN_BATCHES).abs() < 1e-9);
        // Half of the prompts is a little more than half of their heads.
        assert!((reads(1e9, 0.5).hits(&size) - 0.5 * 5000.0 / 4800.0).abs() < 1e-3);
        assert!((reads(1e9, 0.0).hits(&size)).abs() < 1e-3);
        assert!((reads(TOKENS, 0.0).hits(&size) - HITS_IN_BATCHES / 2.0).abs() < 1e-9);
        assert!((reads(1e9, 0.0).hits(&LONG)).abs() < 1e-9);
        // By hand, for 30, 90 and 0 %: 2790 by themselves; 7875 less 4800 x 1.35 x the share in batches.
        assert!(PRICES.favour_live(&size, 1.0, CacheReads::default()));
        assert!(!PRICES.favour_live(&size, 1.0, reads(1e9, 0.9)));
        assert!(PRICES.favour_live(&size, 1.0, reads(1e9, 0.0)));
    }

    #[test]
    fn a_long_head_that_is_read_makes_up_for_half_the_price() {
        assert!(PRICES.may_favour_live() && favours(&LONG, 1.0));
        // By hand: 200 x 3 + 4800 x 0.3 + 50 x 15 = 2790, in a batch 5000 x 1.5 + 50 x 7.5 = 7875.
        assert!((PRICES.live.of(&LONG, 1.0) - 2790.0).abs() < 1e-9);
        assert!((PRICES.batch.of(&LONG, 0.0) - 7875.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_cached_or_answered_at_length_is_cheaper_in_a_batch() {
        for (size, hits) in [
            (LONG, 0.2),
            (Size { head: 0.0, ..LONG }, 1.0),
            (Size { head: 2000.0, ..LONG }, 1.0),
            (Size { output: 2000.0, ..LONG }, 1.0),
        ] {
            assert!(!favours(&size, hits), "{size:?} {hits}");
        }
        // Where nothing has to be marked, batches have hits too.
        let near = Size { head: 2950.0, output: 0.0, ..LONG };
        assert!(favours(&near, 1.0) && !favours(&Size { is_marked: false, ..near }, 1.0));
        let dear = Rates { cached: 1.5, ..PRICES.live };
        assert!(!Prices { live: dear, ..PRICES }.may_favour_live());
    }

    #[test]
    fn hits_are_assumed_until_replies_say_otherwise() {
        let mut usual = Usual::default();
        assert!(usual.sizes().is_none() && (usual.hits() - 1.0).abs() < 1e-9);
        usual.see(100, 10, None);
        usual.see(300, 30, Some((200, 250)));
        assert_eq!(usual.sizes(), Some((200.0, 20.0)));
        assert!((usual.hits() - 1.0).abs() < 1e-9);
        (0..2000).for_each(|_| usual.see(200, 20, Some((200, 0))));
        assert!(usual.hits() < 0.05, "{}", usual.hits());
        // What is long ago counts less.
        (0..2000).for_each(|_| usual.see(200, 20, Some((200, 200))));
        assert!(usual.hits() > 0.9, "{}", usual.hits());
    }
}
