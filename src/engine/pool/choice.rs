//! Which member is asked: of two random ones, the one with the lower expected wait; the others after it.

/// Members of a pool, at most: sets of them are bits of a number.
pub const MOST: usize = 64;

/// A set of members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// Adds one.
    pub fn add(&mut self, member: usize) {
        self.0 |= 1 << (member % MOST);
    }

    /// Adds all of another one.
    pub fn add_all(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether it is one of them.
    pub fn has(self, member: usize) -> bool {
        self.0 >> (member % MOST) & 1 == 1
    }
}

/// Random numbers: SplitMix64, which is enough to spread requests.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Always the same numbers for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of so many.
    pub fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * count as u128) >> 64) as usize
    }
}

/// Members in the order in which to ask them, each with its expected wait.
#[derive(Debug)]
pub struct Candidates {
    found: [(u8, f64); MOST],
    count: usize,
    /// Where the first begins that is asked only if no other can be.
    weak: usize,
}

impl Default for Candidates {
    fn default() -> Self {
        Self { found: [(0, 0.0); MOST], count: 0, weak: 0 }
    }
}

impl Candidates {
    /// Adds one; all that are weak come after all that are not.
    pub fn add(&mut self, member: usize, cost: f64, is_weak: bool) {
        if self.count == MOST {
            return;
        }
        self.found[self.count] = (u8::try_from(member).unwrap_or(u8::MAX), cost);
        self.count += 1;
        if !is_weak {
            self.found.swap(self.count - 1, self.weak);
            self.weak += 1;
        }
    }

    /// The first to ask.
    pub fn first(&mut self, random: &mut Random) -> Option<usize> {
        let strong = if self.weak > 0 { self.weak } else { self.count };
        if strong == 0 {
            return None;
        }
        let one = random.below(strong);
        let mut chosen = one;
        if strong > 1 {
            let other = (one + 1 + random.below(strong - 1)) % strong;
            if self.found[other].1 < self.found[one].1 {
                chosen = other;
            }
        }
        self.found.swap(0, chosen);
        Some(usize::from(self.found[0].0))
    }

    /// The others, if the first cannot be asked: those with the lower expected wait first, weak ones last.
    pub fn rest(&mut self) -> impl Iterator<Item = usize> + '_ {
        let (weak, count) = (self.weak.clamp(1, self.count.max(1)), self.count);
        let by_cost = |one: &(u8, f64), other: &(u8, f64)| one.1.total_cmp(&other.1);
        self.found[1..weak].sort_unstable_by(by_cost);
        self.found[weak..count.max(weak)].sort_unstable_by(by_cost);
        self.found[1..count.max(1)].iter().map(|(member, _)| usize::from(*member))
    }
}

/// Where requests with this prefix go, of members with these weights: each prefix keeps its member when others come or
/// go (rendezvous hashing).
pub fn home(prefix: u64, members: impl Iterator<Item = (usize, f64)>) -> Option<usize> {
    #[allow(clippy::cast_precision_loss)]
    let score = |(member, weight): (usize, f64)| {
        let mut random = Random::new(prefix ^ (member as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93));
        let uniform = (random.below(1 << 53) as f64 + 0.5) / (1_u64 << 53) as f64;
        (member, -weight / uniform.ln())
    };
    members.map(score).max_by(|one, other| one.1.total_cmp(&other.1)).map(|(member, _)| member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_the_one_with_the_lower_wait_and_weak_ones_last() {
        let mut random = Random::new(1);
        for _ in 0..100 {
            let mut candidates = Candidates::default();
            for (member, cost, is_weak) in [(0, 9.0, false), (1, 1.0, true), (2, 2.0, false), (3, 0.5, true)] {
                candidates.add(member, cost, is_weak);
            }
            assert_eq!(candidates.first(&mut random), Some(2), "of the two that are not weak");
            assert_eq!(candidates.rest().collect::<Vec<_>>(), [0, 3, 1]);
        }
        let mut weak = Candidates::default();
        weak.add(7, 1.0, true);
        assert_eq!(weak.first(&mut random), Some(7));
        assert_eq!(weak.rest().count(), 0);
        assert_eq!(Candidates::default().first(&mut random), None);
    }

    #[test]
    fn the_worst_is_never_the_first_and_all_others_are() {
        let mut random = Random::new(2);
        let mut times = [0; 4];
        for _ in 0..4000 {
            let mut candidates = Candidates::default();
            (0..4).for_each(|member| candidates.add(member, member as f64, false));
            times[candidates.first(&mut random).unwrap()] += 1;
        }
        assert!(times[3] == 0 && times[0] > 1800 && times[2] > 500, "{times:?}");
    }

    #[test]
    fn prefixes_spread_by_weight_and_stay_where_they_are() {
        let weights = [1.0, 1.0, 2.0];
        let homes = |without: Option<usize>| {
            let members = weights.iter().copied().enumerate().filter(move |(member, _)| Some(*member) != without);
            (0..4000)
                .map(|prefix: u64| home(prefix.wrapping_mul(0x5851_f42d), members.clone()).unwrap())
                .collect::<Vec<_>>()
        };
        let all = homes(None);
        let count = |member| all.iter().filter(|home| **home == member).count();
        assert!((850..1150).contains(&count(0)) && (1850..2150).contains(&count(2)));
        let without = homes(Some(1));
        assert!(all.iter().zip(&without).all(|(before, after)| *before == 1 || before == after));
    }
}
