//! Orders in which images of a set are taken where the order of the files would not do.

/// An order of images, given by rule or by list.
#[derive(Debug, Clone)]
pub enum Order {
    /// All over the set.
    Shuffled(Shuffle),
    /// One by one.
    Listed(Vec<u32>),
}

impl Order {
    /// Which image comes at `position`.
    pub fn at(&self, position: usize) -> usize {
        match self {
            Self::Shuffled(shuffle) => shuffle.at(position),
            Self::Listed(list) => list[position] as usize,
        }
    }
}

/// Images sorted by class, taken by turns: the first of each class in the order of labels, then the
/// second of each, and so on. So every beginning of the order holds all classes alike, which a
/// validation split and the first N examples of an evaluation rely on.
pub fn turns(labels: &[u16]) -> Vec<u32> {
    let mut seen = vec![0u32; labels.iter().max().map_or(0, |&most| usize::from(most) + 1)];
    let turn = |(index, &label): (usize, &u16)| {
        let turn = seen[usize::from(label)];
        seen[usize::from(label)] += 1;
        (turn, label, index as u32)
    };
    let mut order: Vec<_> = labels.iter().enumerate().map(turn).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, _, index)| index).collect()
}

/// A permutation of `0..count` that is computed, not held: the same for a count for ever.
///
/// Four rounds of a Feistel network over the next power of four; what falls outside goes round
/// again (Black and Rogaway 2002, cycle walking).
#[derive(Debug, Clone, Copy)]
pub struct Shuffle {
    count: u64,
    /// Bits of each half.
    half: u32,
}

impl Shuffle {
    /// The permutation of `0..count`.
    pub fn of(count: usize) -> Self {
        let count = count as u64;
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Self { count, half: bits.div_ceil(2).max(1) }
    }

    /// What stands at `position`.
    ///
    /// # Panics
    /// If `position` is outside.
    pub fn at(&self, position: usize) -> usize {
        let mut value = position as u64;
        assert!(value < self.count, "position {position} of {}", self.count);
        loop {
            value = self.step(value);
            if value < self.count {
                return value as usize;
            }
        }
    }

    fn step(&self, value: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (value >> self.half, value & mask);
        for round in 1..=4u64 {
            let mixed = mix(right ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            (left, right) = (right, left ^ mixed & mask);
        }
        left << self.half | right
    }
}

/// Every bit of the result depends on every bit of `value` (Steele et al. 2014, `SplitMix64`).
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_is_a_permutation_that_stays_the_same() {
        for count in [1, 2, 3, 5, 16, 17, 1000, 4097] {
            let shuffle = Shuffle::of(count);
            let mut seen: Vec<_> = (0..count).map(|position| shuffle.at(position)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..count), "{count}");
        }
        let first = |count| [0, 1, 2, 3].map(|position| Shuffle::of(count).at(position));
        // Written down once: ids of trainings rest on these.
        assert_eq!(first(1_000_000), [505_815, 520_276, 725_698, 27_499]);
        assert!(first(50_000_000).iter().all(|&at| at < 50_000_000));
        // Ten classes one after the other: each has its share of the first tenth.
        let shuffle = Shuffle::of(100_000);
        let mut classes = [0; 10];
        (0..10_000).for_each(|position| classes[shuffle.at(position) / 10_000] += 1);
        assert!(classes.iter().all(|count| (900..1100).contains(count)), "{classes:?}");
    }

    #[test]
    fn turns_give_every_class_its_share_of_any_beginning() {
        assert_eq!(turns(&[0, 0, 0, 1, 2, 2]), [0, 3, 4, 1, 5, 2]);
        assert!(turns(&[]).is_empty());
        // Images already mixed keep their order within a class.
        assert_eq!(turns(&[1, 0, 1, 0]), [1, 0, 3, 2]);
    }
}
