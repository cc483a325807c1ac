//! The probability margin attack (Xie et al. 2024, arXiv 2411.15210): projected gradient descent in
//! the two stages of the margin decomposition attack (Jiang et al. 2023), on probabilities instead
//! of logits. The first half climbs one term of the margin, in one run the label's and in another
//! the rival's; the second half climbs the whole.

use super::{loss::Loss, pgd, trial::Trial};
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
            let (steps, epsilon) = (trial.spec.steps, trial.spec.epsilon);
            pgd::ascent(trial, rows, 2 * restart + u64::from(rival), |iteration| {
                (loss(iteration, steps, rival), pace(iteration, steps) * 2.0 * epsilon)
            })?;
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
