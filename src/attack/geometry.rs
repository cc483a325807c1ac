//! Norms and projections of perturbations, row by row. Operation order follows AutoAttack, because
//! reference mode must agree with it to the last bit.

use tch::{Device, Kind, Tensor};

use super::{Bounds, host, trial::flags};
use crate::threat::Norm;

/// `[b,...]` as `[b,d]`.
pub(crate) fn flat(x: &Tensor) -> Tensor {
    x.reshape([x.size()[0], -1])
}

/// One number for each row, `[b]`, shaped to multiply images `[b,c,h,w]`.
pub(crate) fn per_row(values: &Tensor) -> Tensor {
    values.view([-1, 1, 1, 1])
}

/// The sum of each row of `v` `[n,d]`, as `[n,1]`.
pub(crate) fn row_sum(v: &Tensor) -> Tensor {
    v.sum_dim_intlist([1].as_slice(), true, None)
}

/// Overwrites the rows of `kept` where `mask` `[n]` holds by those of `from`. `kept` is the
/// caller's own.
pub(crate) fn replace_rows(kept: &mut Tensor, mask: &Tensor, from: &Tensor) {
    if host::plain(kept) && host::plain(from) {
        host::copy_rows(kept, &flags(mask), from);
    } else if kept.device() == Device::Cpu {
        // Whole rows are copied several times faster than pixels are chosen one by one.
        let rows = mask.nonzero().squeeze_dim(1);
        let _ = kept.index_copy_(0, &rows, &from.index_select(0, &rows));
    } else {
        *kept = from.where_self(&per_row(mask), kept); // no wait for the device
    }
}

/// The norm of each row of `delta` `[b,...]`, as `[b]`.
pub fn norm(delta: &Tensor, norm: Norm) -> Tensor {
    let rows = flat(delta);
    match norm {
        Norm::Linf => rows.abs().amax([1], false),
        Norm::L2 => rows.square().sum_dim_intlist([-1].as_slice(), false, None).sqrt(),
        Norm::L1 => rows.abs().sum_dim_intlist([-1].as_slice(), false, None),
    }
}

/// `v` with every row scaled to norm 1.
pub fn normalize(v: &Tensor, kind: Norm) -> Tensor {
    v / (per_row(&norm(v, kind)) + 1e-12)
}

/// How many entries of each row differ from zero, `[b]` `Float`.
pub(crate) fn support(delta: &Tensor) -> Tensor {
    flat(delta).ne(0.0).sum_dim_intlist([-1].as_slice(), false, None).to_kind(Kind::Float)
}

/// `x + d` with `d = moved - x` pulled back to length `epsilon` in L2, then into the box.
pub fn into_l2_ball(mut moved: Tensor, x: &Tensor, epsilon: f64, bounds: Bounds) -> Tensor {
    moved -= x;
    let length = norm(&moved, Norm::L2);
    moved /= per_row(&length) + 1e-12;
    moved *= per_row(&length.clamp_max(epsilon));
    moved += x;
    moved.clamp_(bounds.low, bounds.high)
}

/// What to add to `delta` so that `x + delta` lies in the box and `delta` in the L1 ball of radius
/// `epsilon`, moving as little as possible (Croce and Hein 2021, proposition 3.1).
///
/// `x`, `delta`: `[b,c,h,w]`. Each coordinate shrinks by `max(λ, its excess over the box)`; `λ`
/// comes from sorting the breakpoints of the piecewise linear sum.
pub fn l1_correction(x: &Tensor, delta: &Tensor, epsilon: f64, bounds: Bounds) -> Tensor {
    let (x, y) = (flat(x), flat(delta)); // [b,d]
    let sign = y.sign();
    let slack = (-&x + bounds.high - &y).minimum(&(&x + &y - bounds.low)).clamp_max(0.0);
    let floor = -y.abs();
    let count = y.size()[1];
    let (breaks, order) = (-Tensor::cat(&[&slack, &floor], 1)).sort(1, false); // [b,2d]
    let next = breaks.narrow(1, 1, 2 * count - 1).constant_pad_nd([0, 1]);
    let slopes = (order.lt(count).to_kind(Kind::Float) * 2.0 - 1.0).cumsum(1, None);
    let start = -slack.sum_dim_intlist([1].as_slice(), false, None);
    let over = -(y.abs().sum_dim_intlist([1].as_slice(), false, None) - epsilon);
    let sums = start.unsqueeze(-1) + ((&next - &breaks) * &slopes).cumsum(1, None);
    let steps = f64::from((2 * count) as f32).log2().ceil() as usize;
    let low = last_true(steps, &start, 2 * count - 1, |at| {
        (sums.gather(1, at, false) + over.unsqueeze(-1)).lt(0.0)
    });
    let lambda = (-sums.gather(1, &low, false) - over.unsqueeze(-1))
        / slopes.gather(1, &(&low + 1), false)
        + next.gather(1, &low, false);
    let shrunk = -(-&slack).maximum(&lambda).minimum(&-&floor);
    let outside = (start + over).lt(0.0).unsqueeze(-1);
    (sign * shrunk.where_self(&outside, &slack)).view_as(delta)
}

/// For each row the last index `[b,1]` for which `holds`, found by halving `0..=last` `steps` times.
pub(crate) fn last_true(
    steps: usize,
    like: &Tensor,
    last: i64,
    holds: impl Fn(&Tensor) -> Tensor,
) -> Tensor {
    let options = (Kind::Int64, like.device());
    let mut low = Tensor::zeros([like.size()[0], 1], options);
    let mut high = low.full_like(last);
    for _ in 0..steps {
        let middle = (&low + &high).floor_divide_scalar(2);
        let yes = holds(&middle);
        low = middle.where_self(&yes, &low);
        high = high.where_self(&yes, &middle);
    }
    low
}

/// `candidate` moved as little as needed to satisfy norm and box when both are computed in float64:
/// what strict mode accepts. Shapes `[b,c,h,w]`, `Float`.
pub fn admissible(candidate: &Tensor, x: &Tensor, spec: (Norm, f64), bounds: Bounds) -> Tensor {
    let (kind, epsilon) = spec;
    let wide = x.to_kind(Kind::Double);
    let mut image = candidate.clamp(bounds.low, bounds.high);
    // Rounding to float32 may overshoot again by one unit in the last place; a few rounds settle it.
    for round in 0..8 {
        let delta = image.to_kind(Kind::Double) - &wide;
        let length = norm(&delta, kind);
        let over = length.gt(epsilon);
        if over.any().int64_value(&[]) == 0 {
            break;
        }
        let target = epsilon * (1.0 - 1e-7 * f64::from(round));
        let pulled = match kind {
            Norm::Linf => {
                // One float32 step inward at a time, for the overshooting pixels alone.
                let shrink = target * (1.0 - 6e-8 / epsilon.max(1e-6) * f64::from(round + 1));
                &wide + delta.clamp(-shrink, shrink)
            }
            Norm::L2 | Norm::L1 => &wide + delta * per_row(&(target / length)),
        };
        let pulled = pulled.to_kind(Kind::Float).clamp(bounds.low, bounds.high);
        image = pulled.where_self(&per_row(&over), &image);
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attack::oracle, rng::Stream};

    fn normals(name: &str, scale: f64) -> Tensor {
        let values = Stream::new(0, name, 0).normals(8 * 3 * 6 * 5);
        Tensor::from_slice(&values).view([8, 3, 6, 5]) * scale
    }

    fn images() -> Tensor {
        let mut stream = Stream::new(0, "images", 0);
        let values: Vec<f32> = (0..8 * 90).map(|_| stream.uniform() as f32).collect();
        Tensor::from_slice(&values).view([8, 3, 6, 5])
    }

    #[test]
    fn l1_projection_agrees_with_a_float64_oracle() {
        let x = images();
        for (scale, epsilon) in [(0.01, 5.0), (0.3, 2.0), (3.0, 1.0), (1.0, 12.0)] {
            let delta = normals("delta", scale);
            let projected = &delta + l1_correction(&x, &delta, epsilon, Bounds::UNIT);
            for row in 0..8 {
                let get = |t: &Tensor| -> Vec<f64> {
                    Vec::try_from(t.get(row).flatten(0, -1).to_kind(Kind::Double)).unwrap()
                };
                let wanted = oracle::l1_ball(&get(&x), &get(&delta), epsilon, Bounds::UNIT);
                let worst = get(&projected)
                    .iter()
                    .zip(&wanted)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f64::max);
                // Running sums in float32: the error grows with what is summed.
                assert!(worst < 1e-5 * scale.max(0.5), "scale {scale}, row {row}: {worst}");
            }
        }
    }

    #[test]
    fn admitted_images_obey_norm_and_box_in_float64() {
        let x = images();
        for (kind, epsilon) in [(Norm::Linf, 8.0 / 255.0), (Norm::L2, 0.5), (Norm::L1, 12.0)] {
            let candidate = &x + normals("far", 0.4);
            let image = admissible(&candidate, &x, (kind, epsilon), Bounds::UNIT);
            let delta = image.to_kind(Kind::Double) - x.to_kind(Kind::Double);
            assert!(norm(&delta, kind).max().double_value(&[]) <= epsilon, "{kind}");
            assert!(norm(&delta, kind).min().double_value(&[]) > epsilon * 0.8, "{kind}");
            assert!(image.min().double_value(&[]) >= 0.0 && image.max().double_value(&[]) <= 1.0);
            assert_eq!(image.device(), Device::Cpu);
        }
    }
}
