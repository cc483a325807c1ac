//! The probability margin attack (Xie et al. 2024, arXiv 2411.15210): projected gradient descent in
//! the two stages of the margin decomposition attack (Jiang et al. 2023), on probabilities instead
//! of logits. The first half climbs one term of the margin, in one run the label's and in another
//! the rival's; the second half climbs the whole.

use super::{
    Break,
    loss::Loss,
    pgd,
    trial::{Slope, Trial, flags, positions},
};
use crate::error::Result;

/// Runs all restarts, each in two runs, on the rows that stand.
pub(crate) fn attack(trial: &mut Trial) -> Result<()> {
    for restart in 0..trial.spec.restarts {
        for rival in [false, true] {
            let rows = trial.standing.clone();
            if rows.is_empty() {
                return Ok(());
            }
            // A run of either kind counts as a restart in the records.
            climb(trial, rows, rival, 2 * restart + u64::from(rival))?;
        }
    }
    Ok(())
}

fn climb(trial: &mut Trial, mut rows: Vec<usize>, rival: bool, restart: u64) -> Result<()> {
    let (steps, mut x) = (trial.spec.steps, trial.images(&rows));
    let mut at = pgd::start(trial, &rows, &x);
    for iteration in 0..=steps {
        let Slope { logits, gradient, .. } =
            trial.slope(&rows, &at, &loss(iteration, steps, rival))?;
        let fooled = flags(&logits.argmax(1, false).ne_tensor(&trial.labels(&rows)));
        let how = |_: usize| Break { restart, target: None, iteration };
        let fell = trial.claim(&rows, &fooled, &at, &how)?;
        let size = pace(iteration, steps) * 2.0 * trial.spec.epsilon;
        at = pgd::ascend(trial, &x, (&at, &gradient), size);
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

/// What is climbed from the point that `iteration` begins at. The very first step moves deeper
/// into the label's class, which diversifies the starts.
fn loss(iteration: u64, steps: u64, rival: bool) -> Loss {
    let (other, own) = match iteration {
        0 => (0.0, 1.0),
        early if 2 * early < steps && rival => (1.0, 0.0),
        early if 2 * early < steps => (0.0, -1.0),
        _ => (1.0, -1.0),
    };
    Loss::Probability { other, own }
}

/// The share of the longest step: half a cosine in each half of the run.
fn pace(iteration: u64, steps: u64) -> f64 {
    let half = steps as f64 / 2.0;
    let at = iteration as f64;
    let since = if at > half { at - half - 1.0 } else { at - 1.0 };
    0.5 * (1.0 + (since / half * std::f64::consts::PI).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_begin_with_the_longest_step() {
        assert!((pace(1, 100) - 1.0).abs() < 1e-12 && (pace(51, 100) - 1.0).abs() < 1e-12);
        assert!(pace(50, 100) < 0.01 && pace(100, 100) < 0.01);
        assert!((pace(26, 100) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_second_half_climbs_the_margin() {
        let terms = |iteration, rival| match loss(iteration, 100, rival) {
            Loss::Probability { other, own } => (other, own),
            _ => unreachable!(),
        };
        assert_eq!(terms(0, true), (0.0, 1.0));
        assert_eq!((terms(49, true), terms(49, false)), ((1.0, 0.0), (0.0, -1.0)));
        assert_eq!((terms(50, true), terms(100, false)), ((1.0, -1.0), (1.0, -1.0)));
    }
}
