//! The same projections as [`super::hyperplane`] in time linear in the pixels: no sorting.
//!
//! With every coordinate moving against the plane, at most up to its wall, how far a row gets is
//! `f(λ) = Σ a·min(λ, q)`: concave and piecewise linear, and Newton's iteration from the left
//! reaches the root in a handful of passes. L1 fills coordinates by falling weight, and few
//! suffice: those are selected. No row's arithmetic depends on the rows beside it.
//!
//! Speed here is memory traffic: comparisons write floats, not booleans, and buffers are reused.

use tch::{Device, Kind, Tensor};

use super::{Bounds, geometry::row_sum, hyperplane::Hyperplane};
use crate::threat::Norm;

/// Newton steps at most; convergence is finite and takes under ten on images.
const NEWTON: usize = 24;
/// After how many a GPU is asked whether all rows rest.
const LOOK: usize = 3;
/// Relative distance from the plane at which Newton's iteration rests: a few units of float32.
const REST: f64 = 2e-6;
/// Weights up to this do not move, as in the published code (L-infinity: only zero).
const FROZEN: f64 = 1e-8;
/// A λ beyond all walls: the row cannot reach its plane.
const BEYOND: f64 = 1e12;
/// How many of the largest weights L1 looks at first: torch selects up to a 64th of a row by a
/// partial sort, at a tenth of a sort's cost.
const FIRST: i64 = 48;

/// As [`super::hyperplane::project`].
pub fn project(points: &Tensor, plane: &Hyperplane, norm: Norm, bounds: Bounds) -> Tensor {
    let excess = row_sum(&(&plane.normal * points)) - plane.offset.unsqueeze(1);
    Planes::new(&plane.normal, norm, bounds).toward(points, &excess).0.neg()
}

/// One plane for each row, and what the projections of several points onto it share.
pub(crate) struct Planes {
    norm: Norm,
    bounds: Bounds,
    /// Signs and magnitudes of the normals `[n,d]`; both 0 where a coordinate is frozen.
    sign: Tensor,
    size: Tensor,
    /// What a unit of λ gains in each coordinate, `[n,d]`, and in all, `[n,1]`; unused by L1.
    gain: Tensor,
    total: Tensor,
}

impl Planes {
    /// Planes with normals `[n,d]`.
    pub(crate) fn new(normal: &Tensor, norm: Norm, bounds: Bounds) -> Self {
        let (mut sign, mut size) = (normal.sign(), normal.abs());
        if norm != Norm::Linf {
            let moves = size.zeros_like();
            let frozen = Tensor::full([0i64; 0], FROZEN, (Kind::Float, size.device()));
            let _ = size.gt_tensor_out(&moves, &frozen);
            sign *= &moves;
            size *= &moves;
        }
        let gain = match norm {
            Norm::Linf => size.shallow_clone(), // alias: only read
            Norm::L2 => size.square(),
            Norm::L1 => Tensor::new(),
        };
        let total = if norm == Norm::L1 { Tensor::new() } else { row_sum(&gain) };
        Self { norm, bounds, sign, size, gain, total }
    }

    /// How each row of `points` moves onto its plane, to be subtracted, `[n,d]`, and the length of
    /// that move in the norm, `[n,1]`. `excess` `[n,1]` is `<w, x> - b`.
    pub(crate) fn toward(&self, points: &Tensor, excess: &Tensor) -> (Tensor, Tensor) {
        let side = excess.ge(0.0).to_kind(Kind::Float) * 2.0 - 1.0;
        let sign = &self.sign * side;
        let need = excess.abs();
        // Room to the wall: x - low where the coordinate falls, high - x where it rises.
        let (middle, half) = (
            f64::midpoint(self.bounds.low, self.bounds.high),
            (self.bounds.high - self.bounds.low) / 2.0,
        );
        let mut room = points - middle;
        room *= &sign;
        room += half;
        let mut step = match self.norm {
            Norm::Linf => {
                let lambda = self.newton(&room, &need);
                room.clamp_max_tensor_(&lambda)
            }
            Norm::L2 => {
                room /= &self.size.clamp_min(FROZEN);
                let lambda = self.newton(&room, &need);
                let _ = room.clamp_max_tensor_(&lambda);
                room *= &self.size;
                room
            }
            Norm::L1 => by_weight(&self.size, &room, &need, FIRST),
        };
        step *= &sign;
        let length = match self.norm {
            Norm::Linf => step.amax([1], true).maximum(&step.amin([1], true).neg()),
            Norm::L2 => row_sum(&step.square()).sqrt(),
            Norm::L1 => row_sum(&step.abs()),
        };
        (step, length)
    }

    /// λ `[n,1]` with `Σ gain·min(λ, q) = need`; beyond the largest q where that cannot be.
    fn newton(&self, q: &Tensor, need: &Tensor) -> Tensor {
        // All open: never beyond the root, since f is concave.
        let mut lambda = need / self.total.clamp_min(f64::from(f32::MIN_POSITIVE));
        let enough = need * (1.0 - REST);
        let mut part = q.empty_like();
        let every = if q.device() == Device::Cpu { 1 } else { LOOK };
        for round in 1..=NEWTON {
            let _ = q.minimum_out(&part, &lambda);
            part *= &self.gain;
            let reached = row_sum(&part);
            let short = reached.lt_tensor(&enough).logical_and(&lambda.lt(BEYOND));
            // A GPU is asked now and then: it waits to be asked, and works while it is not.
            if round % every == 0 && short.any().int64_value(&[]) == 0 {
                break;
            }
            let _ = q.gt_tensor_out(&part, &lambda);
            part *= &self.gain;
            let slope = row_sum(&part);
            // No slope: all at their walls, and still short of the plane.
            let next = ((need - reached) / slope + &lambda).nan_to_num(BEYOND, BEYOND, BEYOND);
            // Rows that rest stay as they are, however long others go on.
            lambda = next.where_self(&short, &lambda);
        }
        lambda
    }
}

/// Whole rooms by falling weight until `need` `[n,1]` is met, part of the last one: `[n,d]`.
fn by_weight(size: &Tensor, room: &Tensor, need: &Tensor, count: i64) -> Tensor {
    let count = count.min(size.size()[1]);
    let (weights, order) = size.topk(count, 1, true, true); // [n,count]
    let rooms = room.gather(1, &order, false) * weights.gt(0.0).to_kind(Kind::Float);
    let gains = weights * &rooms;
    let reach = gains.cumsum(1, None);
    let share = ((need - (&reach - &gains)) / &gains).nan_to_num(0.0, 1.0, 0.0).clamp(0.0, 1.0);
    let mut lengths = room.zeros_like();
    let _ = lengths.scatter_(1, &order, &(rooms * share));
    if count == size.size()[1] {
        return lengths;
    }
    let short = reach.select(1, count - 1).unsqueeze(1).lt_tensor(need).squeeze_dim(1);
    let rows = short.nonzero().squeeze_dim(1);
    if rows.size()[0] > 0 {
        let of = |t: &Tensor| t.index_select(0, &rows);
        let further = by_weight(&of(size), &of(room), &of(need), count * 8);
        let _ = lengths.index_copy_(0, &rows, &further);
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attack::{geometry::norm as length, hyperplane, oracle},
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
        let offset = row_sum(&(&normal * &points)).squeeze_dim(1) + shift;
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
                    (row_sum(&(&plane.normal * (&points + d))).squeeze_dim(1) - &plane.offset).abs()
                };
                // As near to the plane as the published arithmetic comes, feasible or not.
                let worse = (residual(&a) - residual(&b)).max().double_value(&[]);
                assert!(worse < 2e-4, "{kind}, scale {scale}: {worse} further from the plane");
            }
        }
    }
    #[test]
    fn both_arithmetics_agree_with_a_float64_oracle() {
        for kind in [Norm::Linf, Norm::L2, Norm::L1] {
            for (seed, scale) in [(0, 1.0), (1, 8.0), (2, 30.0), (3, 60.0), (4, 1e-3)] {
                let (points, plane) = problem(seed, scale);
                let linear = project(&points, &plane, kind, Bounds::UNIT);
                let published = hyperplane::project(&points, &plane, kind, Bounds::UNIT);
                for row in 0..16 {
                    let get = |t: &Tensor| -> Vec<f64> {
                        Vec::try_from(t.get(row).to_kind(Kind::Double)).unwrap()
                    };
                    let b = plane.offset.double_value(&[row]);
                    let (x, w) = (get(&points), get(&plane.normal));
                    let wanted = oracle::hyperplane(&x, &w, b, kind, Bounds::UNIT);
                    let gap = |found: &Tensor| {
                        let pairs = get(found).into_iter().zip(&wanted);
                        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
                    };
                    // <w, x> - b is a sum of 300 products in float32; a unit of L1's last pixel
                    // takes all of its rounding.
                    let (a, b) = (gap(&linear), gap(&published));
                    let allowed = if kind == Norm::L1 { 4e-5 } else { 4e-6 };
                    assert!(a < allowed, "{kind}, scale {scale}, row {row}: linear {a}");
                    assert!(b < allowed, "{kind}, scale {scale}, row {row}: published {b}");
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let (points, plane) = problem(4, 20.0);
        for kind in [Norm::Linf, Norm::L2, Norm::L1] {
            let together = project(&points, &plane, kind, Bounds::UNIT);
            for row in 0..16 {
                let of = |t: &Tensor| t.narrow(0, row, 1).copy();
                let own = Hyperplane { normal: of(&plane.normal), offset: of(&plane.offset) };
                assert_eq!(
                    project(&of(&points), &own, kind, Bounds::UNIT),
                    of(&together),
                    "{kind}"
                );
            }
        }
    }
}
