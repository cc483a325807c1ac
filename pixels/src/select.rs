//! Selection among magnitudes without sorting.

/// Buckets by exponent and three bits of the mantissa.
const BUCKETS: usize = 2048;
const SHIFT: u32 = 20;

/// The largest threshold at or above which at least `count` magnitudes of `values` lie, exactly:
/// the `count`-th largest. `room` is scratch. `count` is clamped to `1..=values.len()`.
pub fn threshold(values: &[f32], count: usize, room: &mut Vec<u32>) -> f32 {
    let count = count.clamp(1, values.len());
    // Magnitudes order as their bits do.
    let bits = |value: f32| value.abs().to_bits();
    let mut counts = [[0u32; BUCKETS]; 2];
    let (pairs, rest) = values.as_chunks::<2>();
    for pair in pairs {
        counts[0][(bits(pair[0]) >> SHIFT) as usize % BUCKETS] += 1;
        counts[1][(bits(pair[1]) >> SHIFT) as usize % BUCKETS] += 1;
    }
    for value in rest {
        counts[0][(bits(*value) >> SHIFT) as usize % BUCKETS] += 1;
    }
    let (mut bucket, mut above) = (BUCKETS, 0);
    let mut here = 0;
    while above + here < count {
        above += here;
        bucket -= 1;
        here = (counts[0][bucket] + counts[1][bucket]) as usize;
    }
    room.clear();
    room.resize(values.len() + 1, 0);
    let mut found = 0;
    for &value in values {
        let bits = bits(value);
        room[found] = bits;
        found += usize::from((bits >> SHIFT) as usize == bucket);
    }
    let rank = here - (count - above); // ascending
    f32::from_bits(*room[..found].select_nth_unstable(rank).1)
}

/// Positions of the entries of `values` whose magnitude is at least the `count`-th largest, by
/// falling magnitude, equal ones by position.
pub fn largest(values: &[f32], count: usize, room: &mut Vec<u32>, order: &mut Vec<u32>) {
    let least = threshold(values, count, room);
    order.clear();
    order.extend((0..values.len() as u32).filter(|&i| values[i as usize].abs() >= least));
    let key = |i: &u32| (u32::MAX - values[*i as usize].abs().to_bits(), *i);
    order.sort_unstable_by_key(key);
}
