//! Attacks on a model's fast form, for the sake of the model itself.
//!
//! The fast form rounds otherwise, so a few of its breaks are none of the model's; and who is broken
//! has left the attack. Left at that, rounding would make the model look robust. Those examples
//! meet the attack again, on the model itself.

use tch::Tensor;

use super::{Batch, Mode, Outcome, Spec, run, trial::wrong};
use crate::{error::Result, net::Classifier, progress::Progress};

/// As [`run`] on `fast`; every break of the outcome is one of `exact`.
///
/// # Errors
/// As [`run`].
pub fn run_on_fast(
    spec: &Spec,
    (fast, exact): (&dyn Classifier, &dyn Classifier),
    batch: &Batch,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let mut outcome = run(spec, fast, batch, progress)?;
    debug_assert!(spec.mode == Mode::Strict, "reference mode knows no fast form");
    let _guard = tch::no_grad_guard();
    let broken: Vec<usize> =
        (0..outcome.breaks.len()).filter(|&row| outcome.breaks[row].is_some()).collect();
    if broken.is_empty() {
        return Ok(outcome);
    }
    let device = batch.images.device();
    let pick = |from: &Tensor, rows: &[usize]| {
        let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        from.index_select(0, &Tensor::from_slice(&rows).to_device(device))
    };
    let logits = exact.logits(&pick(&outcome.adversarial, &broken));
    broken.iter().for_each(|&row| outcome.forward[row] += 1);
    let upheld = wrong(&logits, &pick(batch.labels, &broken));
    let rows: Vec<usize> =
        broken.iter().zip(upheld).filter(|(_, upheld)| !upheld).map(|(row, _)| *row).collect();
    if rows.is_empty() {
        return Ok(outcome);
    }
    let (images, labels) = (pick(batch.images, &rows), pick(batch.labels, &rows));
    let examples: Vec<u64> = rows.iter().map(|&row| batch.examples[row]).collect();
    let streams: Vec<u64> = rows.iter().map(|&row| batch.streams[row]).collect();
    let again = Batch { images: &images, labels: &labels, examples: &examples, streams: &streams };
    let second = run(spec, exact, &again, progress)?;
    for (place, &row) in rows.iter().enumerate() {
        outcome.breaks[row] = second.breaks[place];
        outcome.forward[row] += second.forward[place];
        outcome.backward[row] += second.backward[place];
        outcome.adversarial.get(row as i64).copy_(&second.adversarial.get(place as i64));
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attack::{Bounds, Kind, testing::Linear},
        progress::Silent,
        threat::Norm,
    };

    /// A linear model with more for class 1.
    struct Tilted(Linear, f64);

    impl Classifier for Tilted {
        fn classes(&self) -> i64 {
            self.0.classes()
        }

        fn logits(&self, x: &Tensor) -> Tensor {
            self.0.logits(x) + Tensor::from_slice(&[0.0f32, self.1 as f32])
        }
    }

    #[test]
    fn an_example_that_only_the_fast_form_mistakes_meets_the_model_itself() {
        let model = |tilt: f64| {
            let weight = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0]).view([2, 2]);
            Tilted(Linear { weight: weight.constant_pad_nd([0, 1]) }, tilt)
        };
        // Gaps of 0.18 and 0.5, of which the bound takes 0.2: the first falls, and to the tilted
        // form long before.
        let (exact, fast) = (model(0.0), model(0.1));
        let images = Tensor::from_slice(&[0.6f32, 0.42, 0.5, 0.75, 0.25, 0.9]).view([2, 3, 1, 1]);
        let labels = Tensor::from_slice(&[0i64, 0]);
        let batch = Batch { images: &images, labels: &labels, examples: &[3, 8], streams: &[3, 8] };
        for kind in [Kind::Pgd, Kind::FabTargeted] {
            let spec = Spec {
                kind,
                steps: 60,
                restarts: 1,
                targets: 1,
                eot: 1,
                staged: false,
                norm: Norm::Linf,
                epsilon: 0.1,
                bounds: Bounds::UNIT,
                mode: Mode::Strict,
                seed: 0,
            };
            let alone = run(&spec, &fast, &batch, &Silent).unwrap();
            assert!(alone.breaks[0].is_some(), "{kind:?}: the fast form is broken");
            let upheld = wrong(&exact.logits(&alone.adversarial), &labels);
            assert!(!upheld[0], "{kind:?}: the model withstands what breaks the fast form");
            let both = run_on_fast(&spec, (&fast, &exact), &batch, &Silent).unwrap();
            assert!(both.breaks[0].is_some() && both.breaks[1].is_none(), "{kind:?}");
            assert!(wrong(&exact.logits(&both.adversarial), &labels)[0], "{kind:?}");
            assert!(both.forward[0] > alone.forward[0] + 1, "{kind:?}: both runs are paid for");
            assert_eq!(both.forward[1], alone.forward[1], "{kind:?}");
        }
    }
}
