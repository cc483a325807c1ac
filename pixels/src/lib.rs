//! Loops over the pixels of one image: what attacks on a CPU spend their time in beside the
//! network's passes. They are a crate of their own for one reason: it is compiled with full
//! optimisation in every profile, and the rest of the program is not.
//!
//! An image is a slice `[c,h,w]` of floats. No function knows of batches, so no image's arithmetic
//! depends on the images beside it. Sums run in sixteen lanes of fixed order: the same numbers on
//! every machine.

pub mod ball;
pub mod layout;
pub mod plane;
pub mod select;
pub mod square;
pub mod step;

/// The box that pixels live in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Walls {
    /// Smallest pixel.
    pub low: f32,
    /// Largest pixel.
    pub high: f32,
}

const LANES: usize = 16;

/// Sums of the pair of terms that `of` makes of every entry of two slices.
#[inline(always)]
fn sums(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> (f32, f32)) -> (f32, f32) {
    let (mut first, mut second) = ([0.0f32; LANES], [0.0f32; LANES]);
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            let (one, two) = of(a[lane], b[lane]);
            first[lane] += one;
            second[lane] += two;
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        let (one, two) = of(*a, *b);
        first[lane] += one;
        second[lane] += two;
    }
    (total(first), total(second))
}

#[inline(always)]
fn sum(a: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    sums(a, a, |a, _| (of(a), 0.0)).0
}

/// Pairwise.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Unlike `f32::clamp` one instruction each; nothing here is NaN.
#[inline(always)]
fn clamp(value: f32, low: f32, high: f32) -> f32 {
    let value = if value > low { value } else { low };
    if value < high { value } else { high }
}

#[inline(always)]
fn least(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// `size` with the sign of `of`; 0 for 0.
#[inline(always)]
fn signed(size: f32, of: f32) -> f32 {
    let up = if of > 0.0 { size } else { 0.0 };
    if of < 0.0 { -size } else { up }
}

/// The Euclidean norm.
pub fn length(values: &[f32]) -> f32 {
    sum(values, |v| v * v).sqrt()
}

/// The sum of magnitudes.
pub fn mass(values: &[f32]) -> f32 {
    sum(values, f32::abs)
}

/// Sum of squares of `a - b`.
pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    sums(a, b, |a, b| ((a - b) * (a - b), 0.0)).0
}

/// Sum of magnitudes of `a - b`.
pub fn mass_between(a: &[f32], b: &[f32]) -> f32 {
    sums(a, b, |a, b| ((a - b).abs(), 0.0)).0
}

/// The largest magnitude of `a - b`.
pub fn furthest(a: &[f32], b: &[f32]) -> f32 {
    let mut most = [0.0f32; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (most, (a, b)) in most.iter_mut().zip(a.iter().zip(b)) {
            *most = if (a - b).abs() > *most { (a - b).abs() } else { *most };
        }
    }
    most.into_iter().fold(0.0, f32::max)
}

/// Moves `at` to `x + (at - x)·share`.
pub fn between(at: &mut [f32], x: &[f32], share: f32) {
    for (at, &x) in at.iter_mut().zip(x) {
        *at = x + (*at - x) * share;
    }
}

/// In how many entries two images differ.
pub fn support(a: &[f32], b: &[f32]) -> f32 {
    sums(a, b, |a, b| (if a == b { 0.0 } else { 1.0 }, 0.0)).0
}

/// Whether every entry is a finite number.
pub fn finite(values: &[f32]) -> bool {
    // Zero times a number is zero, times anything else it is none.
    sum(values, |v| v * 0.0) == 0.0
}
