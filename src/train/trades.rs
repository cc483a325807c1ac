//! TRADES (Zhang et al. 2019) as the paper's code has it: crafted with batch statistics, clean
//! branch not detached.

use tch::Tensor;

use crate::{
    net::Mode,
    train::{
        Forward,
        craft::Attack,
        loss::{Examples, Outcome, cross_entropy, divergence},
        spec::{Tracked, TrainSpec},
    },
};

/// Temperature of the consistency term.
const TEMPERATURE: f64 = 0.5;

/// CE(clean) + β·KL(clean ‖ adversarial), with two forward passes: first clean, then adversarial.
/// For consistency the batch holds two views of each image, one half after the other.
pub fn outcome(
    spec: &TrainSpec,
    attack: &Attack,
    forward: &Forward,
    batch: &Examples,
    mode: Mode,
) -> Outcome {
    let reference = reference(forward, batch);
    let adversarial =
        attack.run(&batch.x, &batch.start, &|x| divergence(&forward(x, Mode::Frozen), &reference));
    let clean_mode = if spec.tracked == Tracked::Both { mode } else { Mode::Frozen };
    let clean = forward(&batch.x, clean_mode);
    let robust = forward(&adversarial, mode);
    let mut loss = cross_entropy(&clean, &batch.target)
        + divergence(&robust, &clean.softmax(1, None)) * spec.beta;
    if spec.consistency > 0.0 {
        let views = robust.chunk(2, 0);
        loss += shannon(&views[0], &views[1]) * spec.consistency;
    }
    let (clean, robust) = (clean.detach(), robust.detach());
    // Mixed images have no one label to be right about.
    let judged = |logits| (!batch.mixed).then_some(logits);
    Outcome { loss, clean: judged(clean), robust: judged(robust) }
}

/// What crafting moves away from: the clean prediction, or the mixed label.
pub(crate) fn reference(forward: &Forward, batch: &Examples) -> Tensor {
    if batch.mixed {
        return batch.target.shallow_clone(); // read only
    }
    let _guard = tch::no_grad_guard();
    forward(&batch.x, Mode::Frozen).softmax(1, None)
}

/// Jensen-Shannon divergence of two predictions `[b,k]`: `[]`.
fn shannon(one: &Tensor, other: &Tensor) -> Tensor {
    let (one, other) =
        ((one / TEMPERATURE).softmax(1, None), (other / TEMPERATURE).softmax(1, None));
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
        let cost = |other: &Tensor| shannon(&sure, other).double_value(&[]);
        assert!(cost(&sure).abs() < 1e-6);
        let opposite = Tensor::from_slice2(&[[0.0f32, 60.0], [0.0, 60.0]]);
        assert!((cost(&opposite) - 2.0f64.ln()).abs() < 1e-5);
    }
}
