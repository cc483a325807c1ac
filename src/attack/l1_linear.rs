//! What L1 attacks do by sorting, in time linear in the pixels: the projection onto the ball inside
//! the box, and the threshold above which so many entries lie. Both look for the root of a
//! monotone function of one number for each row, by the secant between two brackets that the
//! Illinois rule keeps moving (Dowell and Jarratt 1971). No row depends on the rows beside it.

use tch::{Device, Kind, Tensor};

use super::{
    Bounds,
    geometry::{flat, row_sum},
};

/// Evaluations at most; a dozen is usual.
const EVALUATIONS: usize = 48;
/// After how many a GPU is asked whether all rows are done.
const LOOK: usize = 6;

/// The point nearest to `delta` `[b,c,h,w]` in the L1 ball of radius `epsilon`, `x` plus which lies
/// in the box: `sign(δ)·clamp(|δ| - λ, 0, room to the wall)`.
pub fn project(x: &Tensor, delta: &Tensor, epsilon: f64, bounds: Bounds) -> Tensor {
    let (x, y) = (flat(x), flat(delta)); // [b,d]
    let (sign, size) = (y.sign(), y.abs());
    // Room to the wall that each coordinate moves towards.
    let middle = f64::midpoint(bounds.low, bounds.high);
    let mut room = -(x - middle);
    room *= &sign;
    room += (bounds.high - bounds.low) / 2.0;
    let zero = Tensor::zeros([1], (Kind::Float, y.device()));
    let mut part = size.empty_like();
    let mut shrunk = |lambda: &Tensor| -> Tensor {
        let _ = size.sub_out(&part, lambda);
        part.clamp_tensor_(Some(&zero), Some(&room))
    };
    let top = size.amax([1], true);
    let wanted = top.full_like(epsilon);
    let lambda = root((top.zeros_like(), top), &wanted, &(&wanted * 1e-6), |lambda| {
        row_sum(&shrunk(lambda))
    });
    let mut inside = shrunk(&lambda);
    inside *= sign;
    inside.view_as(delta)
}

/// A threshold for each row of `magnitude` `[b,d]` at or above which `count` `[b,1]` entries lie,
/// to within half a percent.
pub fn threshold(magnitude: &Tensor, count: &Tensor) -> Tensor {
    let wanted = count.to_kind(Kind::Float);
    let part = magnitude.empty_like();
    let ends = (magnitude.amin([1], true), magnitude.amax([1], true));
    let tolerance = (&wanted * 0.005).clamp_min(0.5);
    root(ends, &wanted, &tolerance, |at| {
        let _ = magnitude.ge_tensor_out(&part, at);
        row_sum(&part)
    })
}

/// λ `[b,1]` between the two ends with `f(λ) = wanted` to within `tolerance`, for a falling `f`: the
/// lower end where `f` is no larger there, the upper where it is no smaller.
fn root(
    (mut low, mut high): (Tensor, Tensor),
    wanted: &Tensor,
    tolerance: &Tensor,
    mut f: impl FnMut(&Tensor) -> Tensor,
) -> Tensor {
    let (mut above, mut below) = (f(&low) - wanted, f(&high) - wanted);
    let mut at = high.where_self(&above.gt_tensor(tolerance), &low);
    let between = below.neg().gt_tensor(tolerance);
    let mut open = above.gt_tensor(tolerance).logical_and(&between);
    let mut side = above.zeros_like(); // -1: the upper end moved last, 1: the lower
    // A GPU is asked now and then: it waits to be asked, and works while it is not.
    let every = if at.device() == Device::Cpu { 1 } else { LOOK };
    for round in 0..EVALUATIONS {
        if round % every == 0 && open.any().int64_value(&[]) == 0 {
            break;
        }
        let share = &above / (&above - &below);
        // Rows that are done stay as they are, however long others go on.
        at = (&low + (&high - &low) * share).where_self(&open, &at);
        let value = f(&at) - wanted;
        let over = value.gt(0.0);
        let turn = over.to_kind(Kind::Float) * 2.0 - 1.0;
        // An end that stays for a second time counts half.
        let weight = turn.eq_tensor(&side).to_kind(Kind::Float) * -0.5 + 1.0;
        below = (below * &weight).where_self(&over, &value);
        above = value.where_self(&over, &(above * &weight));
        low = at.where_self(&over, &low);
        high = high.where_self(&over, &at);
        side = turn;
        open = open.logical_and(&value.abs().gt_tensor(tolerance));
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attack::oracle, rng::Stream};

    fn random(name: &str, shape: [i64; 4]) -> Tensor {
        let count = shape.iter().product::<i64>() as usize;
        Tensor::from_slice(&Stream::new(0, name, 0).normals(count)).view(shape)
    }

    #[test]
    fn projections_agree_with_a_float64_oracle() {
        for bounds in [Bounds::UNIT, Bounds { low: -2.0, high: 1.5 }] {
            let x = random("images", [6, 3, 7, 5]).clamp(bounds.low, bounds.high);
            for (scale, epsilon) in [(0.01, 5.0), (0.3, 2.0), (3.0, 1.0), (1.0, 12.0), (0.5, 40.0)]
            {
                let delta = random("delta", [6, 3, 7, 5]) * scale;
                let found = project(&x, &delta, epsilon, bounds);
                for row in 0..6 {
                    let get = |t: &Tensor| -> Vec<f64> {
                        Vec::try_from(t.get(row).flatten(0, -1).to_kind(Kind::Double)).unwrap()
                    };
                    let wanted = oracle::l1_ball(&get(&x), &get(&delta), epsilon, bounds);
                    let pairs = get(&found).into_iter().zip(wanted);
                    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(worst < 2e-6 * scale.max(1.0), "{scale}, {epsilon}: {worst}");
                }
                let size = row_sum(&flat(&found).abs()).max().double_value(&[]);
                assert!(size <= epsilon * (1.0 + 3e-6), "{size} beyond {epsilon}");
            }
        }
    }

    #[test]
    fn so_many_entries_reach_the_threshold() {
        let values = random("gradients", [4, 3, 16, 16]).pow_tensor_scalar(3.0).abs();
        let values = flat(&values);
        let _ = values.get(3).zero_();
        let counts = Tensor::from_slice(&[1i64, 30, 700, 5]).view([4, 1]);
        let at = threshold(&values, &counts);
        let found: Vec<f64> = Vec::try_from(values.ge_tensor(&at).sum_dim_intlist(
            [1].as_slice(),
            false,
            Kind::Double,
        ))
        .unwrap();
        assert_eq!(found[..2], [1.0, 30.0]);
        assert!((found[2] - 700.0).abs() <= 3.5, "{found:?}");
        assert_eq!(found[3], 768.0); // all are equal
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let x = random("images", [6, 3, 8, 8]).clamp(0.0, 1.0);
        let delta = random("delta", [6, 3, 8, 8]);
        let together = project(&x, &delta, 3.0, Bounds::UNIT);
        for row in 0..6 {
            let of = |t: &Tensor| t.narrow(0, row, 1).copy();
            assert_eq!(project(&of(&x), &of(&delta), 3.0, Bounds::UNIT), of(&together));
        }
    }
}
