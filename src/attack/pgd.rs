//! Projected gradient descent (Madry et al. 2018) with restarts, on cross entropy: a uniform start
//! in the ball, a fixed step of 2.5 ε / steps.

use tch::Tensor;

use super::{
    Break,
    geometry::{self, norm, normalize, per_row},
    host,
    loss::Loss,
    trial::{Slope, Trial, flags, positions},
};
use crate::{error::Result, threat::Norm};

/// Runs all restarts on the rows that stand.
pub(crate) fn attack(trial: &mut Trial) -> Result<()> {
    for restart in 0..trial.spec.restarts {
        let rows = trial.standing.clone();
        if rows.is_empty() {
            return Ok(());
        }
        let size = 2.5 * trial.spec.epsilon / trial.spec.steps.max(1) as f64;
        ascent(trial, rows, restart, |_| (Loss::CrossEntropy, size))?;
    }
    Ok(())
}

/// From a random point up what `plan` says at each iteration, a loss and the length of the step
/// behind it. Whoever is broken leaves.
pub(crate) fn ascent(
    trial: &mut Trial,
    mut rows: Vec<usize>,
    restart: u64,
    plan: impl Fn(u64) -> (Loss, f64),
) -> Result<()> {
    let mut x = trial.images(&rows);
    let mut at = start(trial, &rows, &x);
    for iteration in 0..=trial.spec.steps {
        trial.iteration = iteration;
        let (loss, size) = plan(iteration);
        let Slope { logits, gradient, .. } = trial.slope(&rows, &at, &loss)?;
        if trial.host()
            && let Some(row) = host::first_infinite(&gradient)
        {
            return Err(trial.broken_model("gradients", rows[row]));
        }
        let fooled = flags(&logits.argmax(1, false).ne_tensor(&trial.labels(&rows)));
        let how = |_: usize| Break { restart, target: None, iteration };
        let fell = trial.claim(&rows, &fooled, &at, &how)?;
        at = ascend(trial, &x, (&at, &gradient), size);
        if fell.contains(&true) {
            let stay: Vec<usize> = (0..rows.len()).filter(|&i| !fell[i]).collect();
            let index = positions(&stay, x.device());
            rows = stay.iter().map(|&i| rows[i]).collect();
            (x, at) = (x.index_select(0, &index), at.index_select(0, &index));
        }
        if rows.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

/// A point of the ball: uniform for L-infinity, else in a random direction at a random length.
fn start(trial: &mut Trial, rows: &[usize], x: &Tensor) -> Tensor {
    let (epsilon, shape, device) = (trial.spec.epsilon, x.size(), x.device());
    let moved = match trial.spec.norm {
        Norm::Linf => x + trial.noise.uniform(rows, &shape, device) * epsilon,
        kind @ (Norm::L2 | Norm::L1) => {
            let direction = normalize(&trial.noise.normal(rows, &shape, device), kind);
            let length = trial.noise.uniform(rows, &[rows.len() as i64, 1, 1, 1], device).abs();
            x + direction * length * epsilon
        }
    };
    inside(trial, &moved, x)
}

/// The point a step of length `size` up the gradient, back in the ball and the box.
fn ascend(trial: &Trial, x: &Tensor, (at, gradient): (&Tensor, &Tensor), size: f64) -> Tensor {
    let moved = match trial.spec.norm {
        Norm::Linf => at + gradient.sign() * size,
        Norm::L2 => at + normalize(gradient, Norm::L2) * size,
        Norm::L1 => {
            // Steepest ascent in L1 moves the few largest coordinates: here the top hundredth.
            let magnitude = geometry::flat(&gradient.abs());
            let count = (magnitude.size()[1] / 100).max(1);
            let (top, _) = magnitude.topk(count, 1, true, true);
            let threshold = per_row(&top.select(1, count - 1));
            let chosen = gradient.sign() * gradient.abs().ge_tensor(&threshold);
            at + &chosen / (per_row(&norm(&chosen, Norm::L1)) + 1e-12) * size
        }
    };
    inside(trial, &moved, x)
}

fn inside(trial: &Trial, moved: &Tensor, x: &Tensor) -> Tensor {
    let (epsilon, bounds) = (trial.spec.epsilon, trial.spec.bounds);
    match trial.spec.norm {
        Norm::Linf => moved
            .clamp_tensor(Some(&(x - epsilon)), Some(&(x + epsilon)))
            .clamp(bounds.low, bounds.high),
        Norm::L2 => geometry::into_l2_ball(moved.copy(), x, epsilon, bounds),
        Norm::L1 => trial.pull_into_l1_ball(moved, x, epsilon),
    }
}
