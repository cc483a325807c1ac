//! FAB's step: between the projections of the current point and of the clean image onto the plane
//! where two logits are equal, inside the box, in time linear in the pixels.
//!
//! With every coordinate moving against the plane, at most up to its wall, how far an image gets
//! is `f(λ)`: concave and piecewise linear. Newton's iteration starts where the last step's ended,
//! for the plane moves little between steps; from right of the root it lands left of it, and from
//! there it climbs.

use crate::{Walls, clamp, least, select, sums};

/// Newton steps at most.
const NEWTON: usize = 24;
/// Relative distance from the plane at which Newton's iteration rests: a few units of a float.
const REST: f32 = 2e-6;
/// Weights up to this do not move, as in the published code (L-infinity: only zero).
const FROZEN: f32 = 1e-8;
/// A λ beyond all walls: the image cannot reach its plane.
const BEYOND: f32 = 1e12;
/// Shortest length that weighs.
const SHORTEST: f32 = 1e-8;
/// How many of the largest weights L1 looks at first.
const FIRST: usize = 48;

/// The numbers of a step.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Largest weight of the way towards the clean image.
    pub alpha: f32,
    /// Overshoot beyond the plane.
    pub overshoot: f32,
    /// The box.
    pub walls: Walls,
}

/// Scratch for one image.
#[derive(Debug, Default)]
pub struct Scratch {
    near: Vec<f32>,
    far: Vec<f32>,
    bits: Vec<u32>,
    order: Vec<u32>,
}

/// A point's projection: which side of the plane it is on, and how far along it must go.
#[derive(Clone, Copy)]
struct Way {
    side: f32,
    lambda: f32,
    length: f32,
}

/// Excess of `x` over the plane, where `at` exceeds it by `difference`.
fn excess(at: &[f32], x: &[f32], normal: &[f32], difference: f32) -> f32 {
    let mut room = 0.0;
    let mut part = [0.0f32; crate::LANES];
    let chunks = |v| <[f32]>::as_chunks::<{ crate::LANES }>(v);
    let ((a, ar), (x, xr), (w, wr)) = (chunks(at), chunks(x), chunks(normal));
    for ((a, x), w) in a.iter().zip(x).zip(w) {
        for lane in 0..crate::LANES {
            part[lane] += (a[lane] - x[lane]) * w[lane];
        }
    }
    for ((a, x), w) in ar.iter().zip(xr).zip(wr) {
        room += (a - x) * w;
    }
    difference - (crate::total(part) + room)
}

/// Moves `at` by one step in L-infinity. `warm` holds both λ of the step before, 0 at first.
pub fn linf(
    at: &mut [f32],
    (x, normal, difference): (&[f32], &[f32], f32),
    warm: &mut [f32; 2],
    walk: &Walk,
    scratch: &mut Scratch,
) {
    step::<false>(at, (x, normal, difference), warm, walk, scratch);
}

/// Moves `at` by one step in L2.
pub fn l2(
    at: &mut [f32],
    (x, normal, difference): (&[f32], &[f32], f32),
    warm: &mut [f32; 2],
    walk: &Walk,
    scratch: &mut Scratch,
) {
    step::<true>(at, (x, normal, difference), warm, walk, scratch);
}

#[inline(always)]
fn step<const L2: bool>(
    at: &mut [f32],
    (x, normal, difference): (&[f32], &[f32], f32),
    warm: &mut [f32; 2],
    walk: &Walk,
    scratch: &mut Scratch,
) {
    scratch.near.resize(x.len(), 0.0);
    scratch.far.resize(x.len(), 0.0);
    let (room_near, room_far) = (&mut scratch.near[..], &mut scratch.far[..]);
    let beyond = excess(at, x, normal, difference);
    let near = way::<L2>(at, normal, difference, warm[0], walk.walls, room_near);
    let far = way::<L2>(x, normal, beyond, warm[1], walk.walls, room_far);
    *warm = [near.lambda, far.lambda];
    let alpha = near.length / (near.length + far.length);
    let alpha = clamp(alpha, 0.0, walk.alpha);
    let (on, off) = (walk.overshoot * near.side, walk.overshoot * far.side);
    let others = x.iter().zip(normal).zip(room_near.iter().zip(&*room_far));
    for (at, ((&x, &w), (&room_near, &room_far))) in at.iter_mut().zip(others) {
        let unit = rate::<L2>(w);
        let sign = if w > 0.0 { 1.0 } else { -1.0 };
        let first = *at - on * sign * least(near.lambda * unit, room_near);
        let second = x - off * sign * least(far.lambda * unit, room_far);
        *at = clamp(first + (second - first) * alpha, walk.walls.low, walk.walls.high);
    }
}

/// How fast a coordinate moves with λ.
#[inline(always)]
fn rate<const L2: bool>(w: f32) -> f32 {
    if L2 { w.abs() } else { 1.0 }
}

/// Whether a coordinate moves at all.
#[inline(always)]
fn moves<const L2: bool>(w: f32) -> bool {
    w.abs() > if L2 { FROZEN } else { 0.0 }
}

/// Fills `room` with what each coordinate of `point` may move, and finds λ.
#[inline(always)]
fn way<const L2: bool>(
    point: &[f32],
    normal: &[f32],
    excess: f32,
    warm: f32,
    walls: Walls,
    room: &mut [f32],
) -> Way {
    let side = if excess >= 0.0 { 1.0 } else { -1.0 };
    for ((room, &p), &w) in room.iter_mut().zip(point).zip(normal) {
        let falls = w * side > 0.0;
        let free = if falls { p - walls.low } else { walls.high - p };
        *room = if moves::<L2>(w) { free } else { 0.0 };
    }
    let need = excess.abs();
    let size = |w: f32| if moves::<L2>(w) { w.abs() } else { 0.0 };
    let start = {
        let total = crate::sum(normal, |w| size(w) * rate::<L2>(w));
        need / if total > f32::MIN_POSITIVE { total } else { f32::MIN_POSITIVE }
    };
    let mut lambda = if warm > start && warm < BEYOND { warm } else { start };
    for _ in 0..NEWTON {
        let (reached, slope) = sums(normal, room, |w, room| {
            let (size, way) = (w.abs(), lambda * rate::<L2>(w));
            (size * least(way, room), if way < room { size * rate::<L2>(w) } else { 0.0 })
        });
        let gap = need - reached;
        if gap.abs() <= REST * need {
            break;
        }
        if slope > 0.0 {
            let next = lambda + gap / slope;
            lambda = if next > start { next } else { start };
        } else if gap > 0.0 {
            lambda = BEYOND; // all at their walls, and still short of the plane
            break;
        } else {
            lambda = start; // a warm start beyond all walls
        }
    }
    let length = if L2 {
        let way = |w: f32, room: f32| least(lambda * rate::<L2>(w), room);
        sums(normal, room, |w, room| (way(w, room) * way(w, room), 0.0)).0.sqrt()
    } else {
        least(lambda, room.iter().fold(0.0, |most, room| if *room > most { *room } else { most }))
    };
    Way { side, lambda, length: if length > SHORTEST { length } else { SHORTEST } }
}

/// Moves `at` by one step in L1: whole rooms by falling weight until the plane is reached, part of
/// the last one.
pub fn l1(
    at: &mut [f32],
    (x, normal, difference): (&[f32], &[f32], f32),
    walk: &Walk,
    scratch: &mut Scratch,
) {
    let beyond = excess(at, x, normal, difference);
    let Scratch { near, far, bits, order } = scratch;
    let mut count = FIRST.min(x.len());
    let (near_length, far_length) = loop {
        select::largest(normal, count, bits, order);
        let whole = count == x.len();
        let first = fill((&*at, normal, difference), order, walk.walls, near);
        let second = fill((x, normal, beyond), order, walk.walls, far);
        if whole || first.1 && second.1 {
            break (first.0, second.0);
        }
        count = (count * 8).min(x.len());
    };
    let alpha = clamp(near_length / (near_length + far_length), 0.0, walk.alpha);
    for (at, &x) in at.iter_mut().zip(x) {
        *at = clamp(*at + (x - *at) * alpha, walk.walls.low, walk.walls.high);
    }
    for ((&i, &near), &far) in order.iter().zip(&*near).zip(&*far) {
        let at = &mut at[i as usize];
        let moved = *at - walk.overshoot * (near * (1.0 - alpha) + far * alpha);
        *at = clamp(moved, walk.walls.low, walk.walls.high);
    }
}

/// Signed moves, to be subtracted, of the coordinates in `order`; their length, and whether the
/// plane is reached.
fn fill(
    (point, normal, excess): (&[f32], &[f32], f32),
    order: &[u32],
    walls: Walls,
    moves: &mut Vec<f32>,
) -> (f32, bool) {
    let side = if excess >= 0.0 { 1.0 } else { -1.0 };
    let (mut left, mut length) = (excess.abs(), 0.0f32);
    moves.clear();
    for &i in order {
        let (p, w) = (point[i as usize], normal[i as usize]);
        let size = w.abs();
        if size <= FROZEN || left <= 0.0 {
            moves.push(0.0);
            continue;
        }
        let room = if w * side > 0.0 { p - walls.low } else { walls.high - p };
        let step = least(room, left / size);
        left = if step < room { 0.0 } else { left - step * size };
        length += step;
        moves.push(if w * side > 0.0 { step } else { -step });
    }
    (if length > SHORTEST { length } else { SHORTEST }, left <= 0.0)
}
