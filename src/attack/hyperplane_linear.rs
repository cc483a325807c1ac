//! The same projections as [`super::hyperplane`] in time linear in the pixels: no sorting.
//!
//! With every coordinate moving against the plane, at most up to its wall, how far a row gets is
//! `f(λ) = Σ a·min(λ, q)`: concave and piecewise linear. Newton's iteration from the left reaches
//! the root in a handful of passes. L1 fills coordinates by falling weight; its threshold is found
//! by halving.

use tch::{Kind, Tensor};

use super::{Bounds, hyperplane::Hyperplane};
use crate::threat::Norm;

/// Newton steps at most; convergence is finite and takes under ten on images.
const NEWTON: usize = 24;
/// Halvings of the L1 threshold: beyond float32's resolution of it.
const HALVINGS: usize = 40;

/// As [`super::hyperplane::project`].
pub fn project(points: &Tensor, plane: &Hyperplane, norm: Norm, bounds: Bounds) -> Tensor {
    let excess = dot(&plane.normal, points) - plane.offset.unsqueeze(1); // [n,1]
    let side = excess.ge(0.0).to_kind(Kind::Float) * 2.0 - 1.0;
    let w = &plane.normal * side;
    let need = excess.abs();
    let toward_low = w.gt(0.0);
    let room = (points - bounds.low).where_self(&toward_low, &(-points + bounds.high));
    let size = w.abs();
    // As the published code: weights this small do not move (L-infinity: only zero).
    let frozen = size.le(if norm == Norm::Linf { 0.0 } else { 1e-8 });
    let room = room.masked_fill(&frozen, 0.0);
    let length = match norm {
        Norm::Linf => newton(&size, &room, &need).minimum(&room),
        Norm::L2 => {
            let quotient = (&room / &size).masked_fill(&frozen, 0.0);
            newton(&size.square(), &quotient, &need).minimum(&quotient) * &size
        }
        Norm::L1 => by_weight(&size, &room, &need),
    };
    length * w.sign().neg()
}

/// Row-wise inner products `[n,1]` without a product in memory.
fn dot(a: &Tensor, b: &Tensor) -> Tensor {
    a.unsqueeze(1).bmm(&b.unsqueeze(2)).squeeze_dim(2)
}

/// λ `[n,1]` with `Σ a·min(λ, q) = need`; beyond the largest q where that cannot be.
fn newton(a: &Tensor, q: &Tensor, need: &Tensor) -> Tensor {
    let reach = dot(a, q);
    let top = q.amax([1], true);
    let mut lambda = (need / dot(a, &q.gt(0.0).to_kind(Kind::Float))).nan_to_num(0.0, 0.0, 0.0);
    let parts = Tensor::stack(&[a, &(a * q)], 1); // [n,2,d]
    let synchronous = a.device() == tch::Device::Cpu;
    for _ in 0..NEWTON {
        let open = q.gt_tensor(&lambda).to_kind(Kind::Float);
        let sums = parts.bmm(&open.unsqueeze(2)); // [n,2,1]
        let (slope, held) = (sums.select(1, 0), sums.select(1, 1));
        // f(λ) = Σ_closed a·q + λ Σ_open a; the tangent's root is the next λ.
        let next = ((need - (&reach - held)) / slope).nan_to_num(f64::INFINITY, 0.0, 0.0);
        let next = next.maximum(&lambda).minimum(&top);
        let moved = next.gt_tensor(&(&lambda * (1.0 + 1e-7)));
        lambda = next;
        if synchronous && moved.any().int64_value(&[]) == 0 {
            break;
        }
    }
    lambda.where_self(&reach.gt_tensor(need), &top)
}

/// Whole rooms by falling weight until `need` is met; those of the threshold's weight in equal
/// parts.
fn by_weight(size: &Tensor, room: &Tensor, need: &Tensor) -> Tensor {
    let gain = size * room;
    let mut high = size.amax([1], true);
    let mut low = high.zeros_like() - 1e-30;
    for _ in 0..HALVINGS {
        let middle = (&low + &high) * 0.5;
        let above = dot(&gain, &size.gt_tensor(&middle).to_kind(Kind::Float));
        let enough = above.ge_tensor(need);
        low = middle.where_self(&enough, &low);
        high = high.where_self(&enough, &middle);
    }
    let whole = size.gt_tensor(&high).to_kind(Kind::Float);
    let edge = size.gt_tensor(&low).to_kind(Kind::Float) - &whole;
    let left = need - dot(&gain, &whole);
    let share = (left / dot(&gain, &edge)).nan_to_num(0.0, 1.0, 0.0).clamp(0.0, 1.0);
    room * (whole + edge * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attack::{geometry::norm as length, hyperplane},
        rng::Stream,
    };

    fn problem(seed: u64, scale: f64) -> (Tensor, Hyperplane) {
        let mut stream = Stream::new(seed, "projection", 0);
        let points: Vec<f32> = (0..16 * 300)
            .map(|i| match i % 7 {
                0 => 0.0,
                1 => 1.0,
                _ => stream.uniform() as f32,
            })
            .collect();
        let points = Tensor::from_slice(&points).view([16, 300]);
        let normal = Tensor::from_slice(&stream.normals(16 * 300)).view([16, 300]);
        let normal = normal.masked_fill(&normal.abs().lt(0.02), 0.0);
        let shift = Tensor::from_slice(&stream.normals(16)) * scale;
        let offset = dot(&normal, &points).squeeze_dim(1) + shift;
        (points, Hyperplane { normal, offset })
    }

    #[test]
    fn both_arithmetics_find_the_same_shortest_move() {
        for kind in [Norm::Linf, Norm::L2, Norm::L1] {
            for (seed, scale) in [(0, 1.0), (1, 8.0), (2, 30.0), (3, 60.0), (4, 1e-3)] {
                let (points, plane) = problem(seed, scale);
                let a = project(&points, &plane, kind, Bounds::UNIT);
                let b = hyperplane::project(&points, &plane, kind, Bounds::UNIT);
                // Rounding of <w, x> - b moves the plane itself by about 1e-5.
                let (found, wanted) = (length(&a, kind), length(&b, kind));
                let gap = (&found - &wanted).abs() - (wanted * 1e-4 + 2e-5);
                let gap = gap.max().double_value(&[]);
                assert!(gap < 0.0, "{kind}, scale {scale}: lengths differ {gap} beyond rounding");
                let moved = &points + &a;
                assert!(moved.min().double_value(&[]) > -1e-6);
                assert!(moved.max().double_value(&[]) < 1.0 + 1e-6);
                let residual = |d: &Tensor| {
                    (dot(&plane.normal, &(&points + d)).squeeze_dim(1) - &plane.offset).abs()
                };
                // As near to the plane as the published arithmetic comes, feasible or not.
                let worse = (residual(&a) - residual(&b)).max().double_value(&[]);
                assert!(worse < 2e-4, "{kind}, scale {scale}: {worse} further from the plane");
            }
        }
    }
}
