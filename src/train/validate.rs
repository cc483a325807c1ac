//! How good the averaged weights are on images held out from training.

use tch::{Device, Kind, Tensor};

use crate::{
    data::Dataset,
    net::Mode,
    rng::Stream,
    train::{
        passes::Passes,
        pgd::{Pgd, margin},
        spec::{Loss, TrainSpec},
    },
    units::Tally,
};

/// Accuracies on the held-out images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Scores {
    /// On clean images.
    pub clean: Tally,
    /// Under PGD with the margin loss; nothing for standard training.
    pub robust: Option<Tally>,
}

impl Scores {
    /// What the best checkpoint has most of.
    pub fn merit(&self) -> u64 {
        self.robust.unwrap_or(self.clean).correct
    }
}

/// Scores of `passes` on the `spec.validation` images of `real` that are held out. The attack's noise is a
/// function of the image, the same every time.
pub fn scores(spec: &TrainSpec, passes: &Passes, real: &Dataset, device: Device) -> Scores {
    let _guard = tch::no_grad_guard();
    let attack = attack(spec);
    let zero = Tally { correct: 0, total: 0 };
    let mut scores = Scores { clean: zero, robust: attack.map(|_| zero) };
    let (indices, _) = real.held_out(spec.validation as usize);
    for chunk in indices.chunks(spec.batch.min(512) as usize) {
        let (x, y) = (real.images(chunk, device), real.targets(chunk, device));
        count(&mut scores.clean, &passes.seen(&x, Mode::Eval), &y);
        if let (Some(attack), Some(robust)) = (attack, &mut scores.robust) {
            let noise = noise(spec.seed, chunk, &x);
            let found = attack.run(&x, &attack.start(&x, &noise), &|x| {
                passes.slope(x, Mode::Eval, &|logits| margin(logits, &y))
            });
            count(robust, &passes.seen(&found, Mode::Eval), &y);
        }
    }
    scores
}

/// The validation attack: nothing where the training was not adversarial.
fn attack(spec: &TrainSpec) -> Option<Pgd> {
    let threat = spec.threat.filter(|_| spec.loss != Loss::Standard)?;
    let step_size = spec.validation_step(threat);
    Some(Pgd { threat, steps: spec.validation_steps, step_size })
}

/// Uniform in `[-1, 1)`, one stream for each image, of the shape of `x`.
fn noise(seed: u64, indices: &[usize], x: &Tensor) -> Tensor {
    let per_image = x.numel() / indices.len();
    let values: Vec<f32> = indices
        .iter()
        .flat_map(|&index| {
            let mut stream = Stream::new(seed, "validation", index as u64);
            (0..per_image).map(move |_| stream.between(-1.0, 1.0) as f32)
        })
        .collect();
    Tensor::from_slice(&values).view(x.size().as_slice()).to_device(x.device())
}

fn count(tally: &mut Tally, logits: &Tensor, y: &Tensor) {
    let right = logits.argmax(1, false).eq_tensor(y).sum(Kind::Int64);
    tally.correct += right.int64_value(&[]) as u64;
    tally.total += y.size()[0] as u64;
}
