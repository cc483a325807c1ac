//! Training objectives: what one batch costs, and the logits by which progress is judged.

use tch::{Kind, Reduction, Tensor};

use crate::{
    net::Mode,
    train::{
        Forward,
        craft::Attack,
        mart,
        pgd::Pgd,
        score,
        spec::{Loss, Smooth, TrainSpec},
        trades,
    },
};

/// A batch on its device.
#[derive(Debug)]
pub struct Examples {
    /// Images `[b,3,h,w]` in `[0, 1]`.
    pub x: Tensor,
    /// Labels `[b]`, `Int64`.
    pub y: Tensor,
    /// What is to be predicted: probabilities `[b,k]`, smoothed or mixed.
    pub target: Tensor,
    /// Whether `target` is mixed, so that it also leads the attack (CutMix).
    pub mixed: bool,
    /// What the crafting attack starts from, in units of the image.
    pub start: Tensor,
}

/// What one batch costs.
#[derive(Debug)]
pub struct Outcome {
    /// The loss `[]`, which has gradients.
    pub loss: Tensor,
    /// Logits `[b,k]` of clean images, where the objective looks at them.
    pub clean: Option<Tensor>,
    /// Logits `[b,k]` of adversarial images, where the objective looks at them.
    pub robust: Option<Tensor>,
}

/// The objective of `spec` on `batch`; batch norm's running statistics move by `momentum`.
pub fn outcome(spec: &TrainSpec, forward: &Forward, batch: &Examples, momentum: f64) -> Outcome {
    let mode = Mode::Train { momentum };
    let Some(threat) = spec.threat.filter(|_| spec.loss != Loss::Standard) else {
        let logits = forward(&batch.x, mode);
        let loss = cross_entropy(&logits, &batch.target);
        return Outcome { loss, clean: Some(logits.detach()), robust: None };
    };
    let attack = Attack::of(spec, threat);
    match spec.loss {
        Loss::Trades => trades::outcome(spec, &attack, forward, batch, mode),
        Loss::Score => score::outcome(spec, &attack, forward, batch, mode),
        Loss::Mart => mart::outcome(spec.beta, &attack, forward, batch, mode),
        Loss::PgdAt | Loss::Standard => {
            let attack = Pgd {
                threat,
                steps: spec.attack_steps,
                step_size: pgd_step(spec, threat.epsilon.value()),
            };
            pgd_at(spec.keep_clean, attack, forward, batch, mode)
        }
    }
}

/// The step size of PGD-AT: what is stated, else ε/4 for L-infinity, 15ε/128 for L2.
fn pgd_step(spec: &TrainSpec, epsilon: f64) -> f64 {
    let l2 = spec.threat.is_some_and(|threat| threat.norm == crate::threat::Norm::L2);
    spec.attack_step_size.unwrap_or(if l2 { epsilon * 15.0 / 128.0 } else { epsilon / 4.0 })
}

/// Cross entropy on images found by PGD in evaluation mode; labels are never smoothed.
fn pgd_at(
    keep_clean: bool,
    attack: Pgd,
    forward: &Forward,
    batch: &Examples,
    mode: Mode,
) -> Outcome {
    let cost = |logits: &Tensor, y: &Tensor| {
        logits.cross_entropy_loss::<Tensor>(y, None, Reduction::Mean, -100, 0.0)
    };
    let adversarial =
        attack.run(&batch.x, &batch.start, &|x| cost(&forward(x, Mode::Eval), &batch.y));
    if keep_clean {
        let both = Tensor::cat(&[&batch.x, &adversarial], 0); // [2b,3,h,w]
        let logits = forward(&both, mode);
        let loss = cost(&logits, &Tensor::cat(&[&batch.y, &batch.y], 0));
        let mut halves = logits.detach().chunk(2, 0);
        let robust = halves.pop();
        return Outcome { loss, clean: halves.pop(), robust };
    }
    let logits = forward(&adversarial, mode);
    Outcome { loss: cost(&logits, &batch.y), clean: None, robust: Some(logits.detach()) }
}

/// Probabilities to be predicted for labels `y` `[b]`: `share` `[b]` of each spread over all
/// `classes`, the rest on the label. `[b,k]`, `Float`.
pub fn smoothed(spec: &TrainSpec, y: &Tensor, generated: &Tensor, classes: i64) -> Tensor {
    let share = match spec.smooth {
        Smooth::All => generated.ones_like(),
        Smooth::Generated => generated.shallow_clone(), // read only
    };
    let right = y.one_hot(classes).to_kind(Kind::Float); // [b,k]
    // SCORE spreads over the wrong classes, the others over all.
    let (spread, drop) = match spec.loss {
        Loss::Score => {
            let spread = spec.label_smoothing / (classes - 1) as f64;
            (spread, classes as f64 * spread)
        }
        Loss::PgdAt | Loss::Mart => (0.0, 0.0),
        Loss::Standard | Loss::Trades => {
            (spec.label_smoothing / classes as f64, spec.label_smoothing)
        }
    };
    let share = share.unsqueeze(1); // [b,1]
    right * (1.0 - &share * drop) + share * spread
}

/// Mean cross entropy `[]` of logits `[b,k]` against probabilities `target` `[b,k]`.
pub fn cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    -(logits.log_softmax(1, None) * target).sum_dim_intlist([1].as_slice(), false, None).mean(None)
}

/// Kullback-Leibler divergence of probabilities `to` `[b,k]` from those of `logits` `[b,k]`,
/// averaged over the batch: `[]`. Differentiable in both.
pub fn divergence(logits: &Tensor, to: &Tensor) -> Tensor {
    let sum = logits.log_softmax(1, None).kl_div(to, Reduction::Sum, false);
    sum / logits.size()[0] as f64
}
