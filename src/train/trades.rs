//! TRADES (Zhang et al. 2019) as the paper's code has it: crafted with batch statistics, clean
//! branch not detached.

use tch::Tensor;

use crate::{
    net::Mode,
    train::{
        craft::Attack,
        loss::{Examples, Outcome, cross_entropy, divergence},
        passes::Passes,
        spec::{Tracked, TrainSpec},
    },
};

/// CE(clean) + β·KL(clean ‖ adversarial), with two forward passes: first clean, then adversarial.
/// Mixed labels cost their divergence instead of the cross entropy, which differs by a constant.
/// For consistency the batch holds two views of each image, one half after the other.
pub fn outcome(
    spec: &TrainSpec,
    attack: &Attack,
    passes: &Passes,
    batch: &Examples,
    mode: Mode,
) -> Outcome {
    let clean_mode = if spec.tracked == Tracked::Both { mode } else { Mode::Frozen };
    let clean = passes.logits(&batch.x, clean_mode);
    let predicted = clean.softmax(1, None);
    let reference = reference(&predicted, batch);
    let adversarial = attack.run(&batch.x, &batch.start, &|x| {
        passes.slope(x, Mode::Frozen, &|logits| divergence(logits, &reference))
    });
    let robust = passes.logits(&adversarial, mode);
    // The official code is as good as its target for mixed labels, and no better.
    let natural = if batch.mixed { divergence } else { cross_entropy };
    let mut loss = natural(&clean, &batch.target) + divergence(&robust, &predicted) * spec.beta;
    if spec.consistency > 0.0 {
        let views = robust.chunk(2, 0);
        loss += shannon(&views[0], &views[1], spec.consistency_temperature) * spec.consistency;
    }
    let (clean, robust) = (clean.detach(), robust.detach());
    // Mixed images have no one label to be right about.
    let judged = |logits| (!batch.mixed).then_some(logits);
    Outcome { loss, clean: judged(clean), robust: judged(robust) }
}

/// What crafting moves away from: the clean prediction `[b,k]`, or the mixed label. The official
/// code passes forward once more for it; with the same weights and batch it is the same prediction.
pub(crate) fn reference(predicted: &Tensor, batch: &Examples) -> Tensor {
    if batch.mixed { batch.target.shallow_clone() } else { predicted.detach() } // read only
}

/// Jensen-Shannon divergence of two predictions `[b,k]`: `[]`.
fn shannon(one: &Tensor, other: &Tensor, temperature: f64) -> Tensor {
    let (one, other) =
        ((one / temperature).softmax(1, None), (other / temperature).softmax(1, None));
    let middle = ((&one + &other) * 0.5).clamp_min(1e-8).log();
    let from_middle =
        |p: &Tensor| middle.kl_div(p, tch::Reduction::Sum, false) / p.size()[0] as f64;
    (from_middle(&one) + from_middle(&other)) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_that_agree_cost_nothing_and_opposites_cost_log_two() {
        let sure = Tensor::from_slice2(&[[60.0f32, 0.0], [60.0, 0.0]]);
        let cost = |other: &Tensor| shannon(&sure, other, 0.5).double_value(&[]);
        assert!(cost(&sure).abs() < 1e-6);
        let opposite = Tensor::from_slice2(&[[0.0f32, 60.0], [0.0, 60.0]]);
        assert!((cost(&opposite) - 2.0f64.ln()).abs() < 1e-5);
    }
}
