//! Named counter-based random streams: every draw is a function of (seed, name, index, position),
//! never of global state, thread count or batch size.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// torch has one CPU generator for the whole process. Whoever must draw from it (AutoAttack's own
/// behaviour, dropout) seeds it and draws while holding this turn.
pub fn torch_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One random stream. The same `(seed, name, index)` gives the same numbers on every machine.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream `index` (an image, an example, an epoch) of the purpose `name` under `seed`.
    pub fn new(seed: u64, name: &str, index: u64) -> Self {
        let key = blake3::Hasher::new_derive_key("gauntlet rng 1")
            .update(&seed.to_le_bytes())
            .update(name.as_bytes())
            .finalize();
        let mut generator = ChaCha8Rng::from_seed(*key.as_bytes());
        generator.set_stream(index);
        Self(generator)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `[0, 1)` with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low..high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..bound` without bias (Lemire 2019).
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box and Muller 1958, the cosine half).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// `count` standard normals as `f32`, both halves of each Box-Muller pair used.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            let (sine, cosine) = (std::f64::consts::TAU * self.uniform()).sin_cos();
            values.push((radius * cosine) as f32);
            values.push((radius * sine) as f32);
        }
        values.truncate(count);
        values
    }

    /// A random order of `0..count` (Fisher and Yates).
    pub fn permutation(&mut self, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..u32::try_from(count).expect("under 2^32 items")).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_functions_of_their_name() {
        let draw = |seed, name, index| Stream::new(seed, name, index).bits();
        assert_eq!(draw(1, "noise", 2), draw(1, "noise", 2));
        assert_ne!(draw(1, "noise", 2), draw(1, "noise", 3));
        assert_ne!(draw(1, "noise", 2), draw(1, "crop", 2));
        assert_ne!(draw(1, "noise", 2), draw(2, "noise", 2));
    }

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let values = Stream::new(0, "moments", 0).normals(200_000);
        let n = values.len() as f64;
        let moment = |k: i32| values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.02);
        assert!((moment(4) - 3.0).abs() < 0.1, "{}", moment(4));
    }

    #[test]
    fn permutations_hold_every_item_once() {
        let mut order = Stream::new(0, "order", 0).permutation(1000);
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &item)| i as u32 == item));
    }
}
