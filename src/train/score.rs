//! SCORE with the squared error of probabilities (LSE; Pang et al. 2022).

use tch::{Kind, Tensor};

use crate::{
    net::Mode,
    train::{
        craft::Attack,
        loss::{Examples, Outcome},
        passes::Passes,
        spec::{Tracked, TrainSpec},
        trades::reference,
    },
};

/// ‖p(clean) − target‖² + β·relu(‖p(adversarial) − p(clean)‖² − clip), averaged over the batch.
pub fn outcome(
    spec: &TrainSpec,
    attack: &Attack,
    passes: &Passes,
    batch: &Examples,
    mode: Mode,
) -> Outcome {
    let clean_mode = if spec.tracked == Tracked::Both { mode } else { Mode::Frozen };
    let clean = passes.logits(&batch.x, clean_mode).softmax(1, None);
    let away = reference(&clean, batch);
    let adversarial = attack.run(&batch.x, &batch.start, &|x| {
        passes.slope(x, Mode::Frozen, &|logits| {
            (logits.softmax(1, None) - &away).square().sum(Kind::Float)
        })
    });
    let robust = passes.logits(&adversarial, mode).softmax(1, None);
    let beyond = (distances(&robust, &clean) - spec.score_clip).relu();
    let loss = distances(&clean, &batch.target).mean(None) + beyond.mean(None) * spec.beta;
    // Probabilities order the classes as logits do.
    let judged = |p: &Tensor| (!batch.mixed).then(|| p.detach());
    Outcome { loss, clean: judged(&clean), robust: judged(&robust) }
}

/// Squared distances of rows `[b,k]`: `[b]`.
fn distances(a: &Tensor, b: &Tensor) -> Tensor {
    (a - b).square().sum_dim_intlist([1].as_slice(), false, None)
}
