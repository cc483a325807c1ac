//! Projections once more, in float64, row by row and by the plainest means: what tests hold the
//! tensor arithmetic against.

use super::Bounds;
use crate::threat::Norm;

/// The point of the L1 ball inside the box that is nearest to `y`, by bisection of the shrinkage.
pub(super) fn l1_ball(x: &[f64], y: &[f64], epsilon: f64, bounds: Bounds) -> Vec<f64> {
    let shrunk = |lambda: f64| -> Vec<f64> {
        let one = |(x, y): (&f64, &f64)| {
            let room = if *y > 0.0 { bounds.high - x } else { x - bounds.low };
            y.signum() * (y.abs() - lambda).max(0.0).min(room)
        };
        x.iter().zip(y).map(one).collect()
    };
    let size = |d: &[f64]| d.iter().map(|v| v.abs()).sum::<f64>();
    if size(&shrunk(0.0)) <= epsilon {
        return shrunk(0.0);
    }
    let (mut low, mut high) = (0.0, 100.0);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if size(&shrunk(middle)) > epsilon { low = middle } else { high = middle }
    }
    shrunk(high)
}

/// The shortest move of `x` onto `{z : <w, z> = b}` inside the box; to the corner nearest to the
/// plane where there is none.
pub(super) fn hyperplane(x: &[f64], w: &[f64], b: f64, norm: Norm, bounds: Bounds) -> Vec<f64> {
    let excess = w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() - b;
    let side = if excess >= 0.0 { 1.0 } else { -1.0 };
    let still = if norm == Norm::Linf { 0.0 } else { 1e-8 };
    // Against w·side, up to the wall; the frozen nowhere.
    let room: Vec<f64> = w
        .iter()
        .zip(x)
        .map(|(w, x)| match w * side {
            _ if w.abs() <= still => 0.0,
            w if w > 0.0 => x - bounds.low,
            _ => bounds.high - x,
        })
        .collect();
    let lengths = match norm {
        Norm::L1 => by_weight(w, &room, excess.abs()),
        _ => by_bisection(w, &room, excess.abs(), norm),
    };
    lengths.iter().zip(w).map(|(length, w)| -length * (w * side).signum()).collect()
}

fn by_bisection(w: &[f64], room: &[f64], need: f64, norm: Norm) -> Vec<f64> {
    let moved = |lambda: f64| -> Vec<f64> {
        let rate = |w: &f64| if norm == Norm::L2 { w.abs() } else { 1.0 };
        w.iter().zip(room).map(|(w, room)| (lambda * rate(w)).min(*room)).collect()
    };
    let gain = |d: &[f64]| d.iter().zip(w).map(|(d, w)| d * w.abs()).sum::<f64>();
    if gain(room) <= need {
        return room.to_vec();
    }
    let (mut low, mut high) = (0.0, 1e10);
    for _ in 0..300 {
        let middle = f64::midpoint(low, high);
        if gain(&moved(middle)) < need { low = middle } else { high = middle }
    }
    moved(high)
}

fn by_weight(w: &[f64], room: &[f64], need: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..w.len()).collect();
    order.sort_by(|a, b| w[*b].abs().total_cmp(&w[*a].abs()));
    let (mut left, mut lengths) = (need, vec![0.0; w.len()]);
    for i in order.into_iter().filter(|&i| room[i] > 0.0) {
        lengths[i] = room[i].min(left / w[i].abs());
        left = (left - lengths[i] * w[i].abs()).max(0.0);
    }
    lengths
}
