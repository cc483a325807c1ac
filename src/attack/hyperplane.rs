//! Projection onto a hyperplane inside the box, the operation at the heart of FAB, with AutoAttack's
//! own arithmetic: sort, running sums, search. Reference mode needs its exact rounding; strict mode
//! uses [`super::hyperplane_linear`].

use tch::{Kind, Tensor};

use super::{Bounds, geometry::last_true};
use crate::threat::Norm;

/// The hyperplane `{z : <w, z> = b}` of each row: `normal` `[n,d]`, `offset` `[n]`.
#[derive(Debug)]
pub struct Hyperplane {
    /// w.
    pub normal: Tensor,
    /// b.
    pub offset: Tensor,
}

/// The smallest move in `norm` that takes each row of `points` `[n,d]` onto its hyperplane without
/// leaving the box; where none does, the move to the corner nearest to the hyperplane.
pub fn project(points: &Tensor, plane: &Hyperplane, norm: Norm, bounds: Bounds) -> Tensor {
    match norm {
        Norm::Linf => linf(points, plane, bounds),
        Norm::L2 => l2(points, plane, bounds),
        Norm::L1 => l1(points, plane, bounds),
    }
}

/// +1 or -1 for each row, 1 where `value` is not negative.
fn side(value: &Tensor) -> Tensor {
    value.ge(0.0).to_kind(Kind::Float) * 2.0 - 1.0
}

fn row_sum(v: &Tensor) -> Tensor {
    v.sum_dim_intlist([1].as_slice(), false, None)
}

fn halvings(count: i64) -> usize {
    (count as f64).log2().ceil() as usize
}

/// The pixel value that each coordinate moves towards.
fn wall(w: &Tensor, bounds: Bounds) -> Tensor {
    w.full_like(bounds.high).where_self(&w.lt(0.0), &w.full_like(bounds.low))
}

fn linf(t: &Tensor, plane: &Hyperplane, bounds: Bounds) -> Tensor {
    let count = t.size()[1];
    let sign = side(&(row_sum(&(&plane.normal * t)) - &plane.offset));
    let w = &plane.normal * sign.unsqueeze(1);
    let moves = w.ne(0.0).to_kind(Kind::Float);
    let up = w.lt(0.0).to_kind(Kind::Float);
    let direction = &up * 2.0 - 1.0;
    let wall = wall(&w, bounds);
    let d = (&wall - t) * &moves;
    let room = (wall - t) * &direction;
    let order = room.argsort(1, false);
    let b = &plane.offset * sign - row_sum(&(&w * t));
    let b0 = row_sum(&(&w * &d));

    let falling = order.flip([1]);
    let ws = w.gather(1, &falling, false);
    let bs = -(&ws) * d.gather(1, &falling, false);
    let s = ws.abs().cumsum(1, None);
    let sb = bs.cumsum(1, None) + b0.unsqueeze(1);

    let nearest = room.gather(1, &order.narrow(1, 0, 1), false).squeeze_dim(1);
    let (s_all, sb_all) = (s.select(1, count - 1), sb.select(1, count - 1));
    let free = (&b - (&sb_all - &s_all * nearest)).gt(0.0);
    let bound = (&b - &b0).gt(0.0).logical_and(&free.logical_not());
    let low = last_true(halvings(count), t, count - 1, |at| {
        let current = order.gather(1, &(-at + (count - 1)), false);
        let value =
            sb.gather(1, at, false) - s.gather(1, at, false) * room.gather(1, &current, false);
        (b.unsqueeze(1) - value).gt(0.0)
    });
    let lambda_free = ((&b - sb_all) / (-s_all)).clamp_min(0.0).unsqueeze(-1);
    let lambda =
        ((b.unsqueeze(1) - sb.gather(1, &low, false)) / (-s.gather(1, &low, false))).clamp_min(0.0);
    let clipped = lambda.minimum(&d) * &up + (-&lambda).maximum(&d) * (-&up + 1.0);
    let d = (direction * lambda_free).where_self(&free.unsqueeze(1), &d);
    clipped.where_self(&bound.unsqueeze(1), &d) * moves
}

fn l2(t: &Tensor, plane: &Hyperplane, bounds: Bounds) -> Tensor {
    let count = t.size()[1];
    let excess = row_sum(&(&plane.normal * t)) - &plane.offset;
    let sign = side(&excess);
    let w = &plane.normal * sign.unsqueeze(1);
    let c = excess * sign;

    let size = w.abs();
    let r = ((t - bounds.low) / &w).maximum(&((t - bounds.high) / &w)).clamp(-1e12, 1e12);
    let r = r.masked_fill(&size.lt(1e-8), 1e12);
    let r = r.masked_fill(&r.eq(-1e12), 1e12);
    let (sorted, order) = r.sort(1, false);
    let next = sorted.narrow(1, 1, count - 1).constant_pad_nd([0, 1]);
    let sorted = sorted.masked_fill(&sorted.eq(1e12), 0.0);
    let next = next.masked_fill(&next.eq(1e12), 0.0);

    let squares = w.square().gather(1, &order, false);
    let total = squares.sum_dim_intlist([1].as_slice(), true, None); // [n,1]
    let left = &total - squares.cumsum(1, None);
    let moves = size.gt(1e-8).to_kind(Kind::Float);
    let d = -(&r * &w) * &moves;
    let first = -&total * sorted.narrow(1, 0, 1);
    let steps = ((-&next + &sorted) * &left).cumsum(1, None);
    let s = Tensor::cat(&[&first, &(steps - &total * sorted.narrow(1, 0, 1))], 1); // [n,d+1]

    let free = (s.select(1, 0) + &c).lt(0.0);
    let infeasible = (row_sum(&(&d * &w)) + &c).gt(0.0);
    let bound = free.logical_or(&infeasible).logical_not();
    let low = last_true(halvings(count), t, count - 1, |at| {
        (s.gather(1, at, false) + c.unsqueeze(1)).gt(0.0)
    });
    let share = left.gather(1, &low, false);
    let alpha =
        (s.gather(1, &low, false) + c.unsqueeze(1)) / &share + sorted.gather(1, &low, false);
    let alpha = alpha.masked_fill(&share.eq(0.0), 0.0);
    let stopped = alpha.gt_tensor(&r).to_kind(Kind::Float);
    let mixed = &d * &stopped - &alpha * &w * (-stopped + 1.0);
    let straight = -(&c / total.squeeze_dim(1)).unsqueeze(-1) * &w;
    let d = straight.where_self(&free.unsqueeze(1), &d);
    mixed.where_self(&bound.unsqueeze(1), &d) * moves
}

fn l1(t: &Tensor, plane: &Hyperplane, bounds: Bounds) -> Tensor {
    let count = t.size()[1];
    let excess = row_sum(&(&plane.normal * t)) - &plane.offset;
    let sign = side(&excess);
    let w = &plane.normal * sign.unsqueeze(1);
    let c = excess * sign;

    let order = w.reciprocal().abs().clamp_max(1e12).argsort(1, false);
    let rank = order.argsort(1, false);
    let d = (wall(&w, bounds) - t) * w.ne(0.0).to_kind(Kind::Float);
    let gains = (-&w * (t - bounds.low)).minimum(&(&w * (-t + bounds.high)));
    let gains = gains.gather(1, &order, false);
    let s = Tensor::cat(&[&c.unsqueeze(-1), &gains], 1).cumsum(1, None); // [n,d+1]
    let reachable = s.select(1, count).lt(0.0);
    let low = last_true(halvings(count), t, count + 1, |at| s.gather(1, at, false).gt(0.0));
    // Rows that cannot reach the plane run past the end; their result is not used.
    let last = low.clamp_max(count - 1);
    let partial = order.gather(1, &last, false);
    let alpha = -s.gather(1, &last, false) / w.gather(1, &partial, false);
    let whole = rank.lt_tensor(&last).to_kind(Kind::Float);
    let moved = (&d * whole).scatter(1, &partial, &alpha);
    moved.where_self(&reachable.unsqueeze(1), &d) * w.abs().gt(1e-8).to_kind(Kind::Float)
}
