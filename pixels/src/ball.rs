//! The L1 ball inside the box.

use crate::{Walls, clamp, least, signed, sums};

/// Evaluations at most; half a dozen is usual.
const EVALUATIONS: usize = 48;
/// How near to the radius the mass must come.
const REST: f32 = 1e-6;

/// What is left of `delta` when it shrinks by `lambda` and stops at its wall.
#[inline(always)]
fn shrunk(x: f32, delta: f32, lambda: f32, walls: Walls) -> (f32, f32) {
    let room = if delta > 0.0 { walls.high - x } else { x - walls.low };
    (clamp(delta.abs() - lambda, 0.0, room), room)
}

/// The shrinkage λ that brings `delta` into the ball of radius `epsilon` around `x`, inside the box:
/// the root of a falling, piecewise linear function, by Newton's steps between two brackets.
pub fn shrinkage(x: &[f32], delta: &[f32], epsilon: f32, walls: Walls) -> f32 {
    let at = |lambda: f32| {
        sums(x, delta, |x, delta| {
            let (left, room) = shrunk(x, delta, lambda, walls);
            (left, if left > 0.0 && left < room { 1.0 } else { 0.0 })
        })
    };
    let (mut low, mut lambda) = (0.0f32, 0.0f32);
    let mut high = f32::INFINITY;
    for _ in 0..EVALUATIONS {
        let (mass, slope) = at(lambda);
        let over = mass - epsilon;
        if over.abs() <= REST * epsilon || lambda == 0.0 && over <= 0.0 {
            break;
        }
        if over > 0.0 {
            low = lambda;
        } else {
            high = lambda;
        }
        let next = lambda + over / slope; // no slope: infinite, or nothing
        lambda = if next > low && next < high {
            next
        } else {
            if high.is_infinite() {
                high = delta.iter().fold(0.0, |most, d| if d.abs() > most { d.abs() } else { most });
            }
            f32::midpoint(low, high)
        };
        if lambda <= low || lambda >= high {
            break; // floats are exhausted
        }
    }
    lambda
}

/// `out = x + delta` shrunk by `lambda` and stopped at the walls.
pub fn shrink(x: &[f32], delta: &[f32], lambda: f32, walls: Walls, out: &mut [f32]) {
    for ((out, &x), &delta) in out.iter_mut().zip(x).zip(delta) {
        let (left, _) = shrunk(x, delta, lambda, walls);
        *out = clamp(x + signed(left, delta), walls.low, walls.high);
    }
}

/// The factor that brings something of `length` into the L2 ball of radius `epsilon`.
#[inline(always)]
pub(crate) fn pull(length: f32, epsilon: f32) -> f32 {
    least(length, epsilon) / (length + 1e-12)
}
