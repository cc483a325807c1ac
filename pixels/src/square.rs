//! What Square does to one image `[c,h,w]`.

use crate::{Walls, ball, clamp, mass_between, signed, squared_distance};

/// A square window of an image.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows and columns.
    pub edge: usize,
}

/// Height and width of an image.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Window {
    /// Where each of its rows in `channel` begins.
    fn starts(self, channel: usize, size: Size) -> impl Iterator<Item = usize> {
        let first = (channel * size.height + self.top) * size.width + self.left;
        (0..self.edge).map(move |row| first + row * size.width)
    }
}

/// L-infinity: the window's pixels move by `colours[channel]` within ±`epsilon` of `x`. `old` gets
/// what was there.
pub fn paint(
    best: &mut [f32],
    x: &[f32],
    (window, size): (Window, Size),
    colours: &[f32],
    (epsilon, walls): (f32, Walls),
    old: &mut Vec<f32>,
) {
    for (channel, &colour) in colours.iter().enumerate() {
        for start in window.starts(channel, size) {
            let (best, x) = (&mut best[start..start + window.edge], &x[start..start + window.edge]);
            old.extend_from_slice(best);
            for (best, &x) in best.iter_mut().zip(x) {
                let inside = clamp(*best + colour, x - epsilon, x + epsilon);
                *best = clamp(inside, walls.low, walls.high);
            }
        }
    }
}

/// Puts back what [`paint`] found.
pub fn unpaint(best: &mut [f32], (window, size): (Window, Size), channels: usize, old: &[f32]) {
    let mut rows = old.chunks_exact(window.edge);
    for channel in 0..channels {
        for (start, row) in window.starts(channel, size).zip(&mut rows) {
            best[start..start + window.edge].copy_from_slice(row);
        }
    }
}

/// What L2 and L1 move: the mass of both windows into the first.
#[derive(Debug)]
pub struct Shift<'a> {
    /// Filled.
    pub into: Window,
    /// Emptied.
    pub from: Window,
    /// The images' size.
    pub size: Size,
    /// The profile `[edge,edge]`, of norm 1.
    pub profile: &'a [f32],
    /// A sign for each channel.
    pub signs: &'a [f32],
    /// Radius of the ball.
    pub epsilon: f32,
    /// The box.
    pub walls: Walls,
}

/// L2: writes the candidate made from `best`. `size` is the squared length of `best - x`; returns
/// that of the candidate.
pub fn shift_l2(best: &[f32], x: &[f32], shift: &Shift, size: f32, candidate: &mut [f32]) -> f32 {
    let unused = shift.epsilon * shift.epsilon - size;
    let unused = if unused > 0.0 { unused } else { 0.0 } / shift.signs.len() as f32;
    let whole = rearranged::<false>(best, x, shift, candidate, |there| (unused + there).sqrt());
    let scale = shift.epsilon / ((size + whole).sqrt() + 1e-12);
    for (candidate, &x) in candidate.iter_mut().zip(x) {
        *candidate = clamp(x + *candidate * scale, shift.walls.low, shift.walls.high);
    }
    squared_distance(candidate, x)
}

/// L1: as [`shift_l2`]; sizes are sums of magnitudes, the ball has radius `radius`.
pub fn shift_l1(
    best: &[f32],
    x: &[f32],
    shift: &Shift,
    (size, radius): (f32, f32),
    (delta, candidate): (&mut [f32], &mut [f32]),
) -> f32 {
    let unused = if shift.epsilon > size { shift.epsilon - size } else { 0.0 };
    let channels = shift.signs.len() as f32;
    let share = unused / channels;
    rearranged::<true>(best, x, shift, delta, |there| (share + there) * channels);
    let lambda = ball::shrinkage(x, delta, radius, shift.walls);
    ball::shrink(x, delta, lambda, shift.walls, candidate);
    mass_between(candidate, x)
}

/// `delta = best - x` with the first window's new content, the second empty; `content` says how
/// much goes into a channel from what both windows held. Returns by how much the size grew.
#[inline(always)]
fn rearranged<const L1: bool>(
    best: &[f32],
    x: &[f32],
    shift: &Shift,
    delta: &mut [f32],
    content: impl Fn(f32) -> f32,
) -> f32 {
    for (delta, (&best, &x)) in delta.iter_mut().zip(best.iter().zip(x)) {
        *delta = best - x;
    }
    let measure = |v: f32| if L1 { v.abs() } else { v * v };
    let mut grown = 0.0;
    for (channel, &sign) in shift.signs.iter().enumerate() {
        // What the first window holds alone, then with what the second holds beside it.
        let edge = shift.into.edge;
        let rows = |window: Window| window.starts(channel, shift.size);
        let old: f32 =
            rows(shift.into).map(|at| total(&delta[at..at + edge], measure)).sum::<f32>();
        let unit = if L1 { old } else { old.sqrt() } + 1e-12;
        let mut pattern_size = 0.0;
        for (row, at) in rows(shift.into).enumerate() {
            let profile = &shift.profile[row * edge..(row + 1) * edge];
            for (delta, &profile) in delta[at..at + edge].iter_mut().zip(profile) {
                *delta = signed(1.0, sign) * profile + *delta / unit;
                pattern_size += measure(*delta);
            }
        }
        let mut beside = 0.0;
        for (row, at) in rows(shift.from).enumerate() {
            let y = shift.from.top + row;
            let crosses = (shift.into.top..shift.into.top + edge).contains(&y);
            let (start, end) = (shift.into.left, shift.into.left + edge);
            for column in 0..edge {
                let covered = crosses && (start..end).contains(&(shift.from.left + column));
                if !covered {
                    beside += measure(delta[at + column]);
                    delta[at + column] = 0.0;
                }
            }
        }
        let wanted = content(old + beside);
        let pattern = if L1 { pattern_size } else { pattern_size.sqrt() } + 1e-12;
        for at in rows(shift.into) {
            for delta in &mut delta[at..at + edge] {
                *delta = *delta / pattern * wanted;
            }
        }
        grown += if L1 { wanted } else { wanted * wanted } - old - beside;
    }
    grown
}

#[inline(always)]
fn total(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    values.iter().map(|v| of(*v)).sum()
}
