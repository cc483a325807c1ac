//! Training objectives: what one batch costs, and the logits by which progress is judged.

use tch::{Device, Reduction, Tensor};

use crate::{
    net::Mode,
    threat::ThreatModel,
    train::{
        craft::Attack,
        mart,
        passes::Passes,
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
    /// Whether `target` says more than `y`, so that objectives of plain labels follow it too.
    pub soft: bool,
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

impl Examples {
    /// How many images there are, both views of each counted.
    pub fn len(&self) -> i64 {
        self.x.size()[0]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Parts of `size` images each, the last one smaller if it must be; where there are two `views`
    /// of each image, both are in the same part.
    pub fn parts(&self, size: Option<u64>, views: i64) -> Vec<Self> {
        let all = self.len() / views;
        let size = size.map_or(all, |size| (size as i64 / views).clamp(1, all));
        let starts = (0..all).step_by(size as usize);
        starts.map(|start| self.part(start, size.min(all - start), views)).collect()
    }

    fn part(&self, start: i64, count: i64, views: i64) -> Self {
        let of = |tensor: &Tensor| {
            let all = tensor.size()[0] / views;
            let part = |view: i64| tensor.narrow(0, view * all + start, count);
            if views == 1 { part(0) } else { Tensor::cat(&[part(0), part(1)], 0) }
        };
        let start =
            if self.start.size()[0] == self.len() { of(&self.start) } else { self.start.copy() };
        let (x, y, target) = (of(&self.x), of(&self.y), of(&self.target));
        Self { x, y, target, soft: self.soft, mixed: self.mixed, start }
    }

    /// The same on another device.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        let of = |tensor: &Tensor| tensor.to_device(device);
        let (x, y, target) = (of(&self.x), of(&self.y), of(&self.target));
        Self { x, y, target, soft: self.soft, mixed: self.mixed, start: of(&self.start) }
    }
}

/// The objective of `spec` on `batch`; `mode` is that of the passes that may move batch norm's
/// running statistics.
pub fn outcome(spec: &TrainSpec, passes: &Passes, batch: &Examples, mode: Mode) -> Outcome {
    let Some(threat) = spec.threat.filter(|_| spec.loss != Loss::Standard) else {
        let logits = passes.logits(&batch.x, mode);
        let loss = cross_entropy(&logits, &batch.target);
        return Outcome { loss, clean: Some(logits.detach()), robust: None };
    };
    let attack = Attack::of(spec, threat);
    match spec.loss {
        Loss::Trades => trades::outcome(spec, &attack, passes, batch, mode),
        Loss::Score => score::outcome(spec, &attack, passes, batch, mode),
        Loss::Mart => mart::outcome(spec.beta, &attack, passes, batch, mode),
        Loss::PgdAt | Loss::Standard => {
            pgd_at(spec.keep_clean, pgd(spec, threat), passes, batch, mode)
        }
    }
}

/// The attack of PGD-AT.
pub fn pgd(spec: &TrainSpec, threat: ThreatModel) -> Pgd {
    let step_size = spec.crafting_step(threat);
    Pgd { threat, steps: spec.attack_steps, step_size }
}

/// Cross entropy on images found by PGD in evaluation mode; labels are never smoothed.
fn pgd_at(keep_clean: bool, attack: Pgd, passes: &Passes, batch: &Examples, mode: Mode) -> Outcome {
    // Labels `[b]`, or probabilities `[b,k]`: it takes both.
    let said = if batch.soft { &batch.target } else { &batch.y };
    let cost = |logits: &Tensor, said: &Tensor| {
        logits.cross_entropy_loss::<Tensor>(said, None, Reduction::Mean, -100, 0.0)
    };
    let adversarial = attack.run(&batch.x, &batch.start, &|x| {
        passes.slope(x, Mode::Eval, &|logits| cost(logits, said))
    });
    if keep_clean {
        let both = Tensor::cat(&[&batch.x, &adversarial], 0); // [2b,3,h,w]
        let logits = passes.logits(&both, mode);
        let loss = cost(&logits, &Tensor::cat(&[said, said], 0));
        let mut halves = logits.detach().chunk(2, 0);
        let robust = halves.pop();
        return Outcome { loss, clean: halves.pop(), robust };
    }
    let logits = passes.logits(&adversarial, mode);
    Outcome { loss: cost(&logits, said), clean: None, robust: Some(logits.detach()) }
}

/// Probabilities to be predicted for images that are said to be `right` `[b,k]` (one-hot or soft):
/// a share of each is spread over all classes. `generated` `[b]` is 1 where an image is. `[b,k]`,
/// `Float`.
pub fn smoothed(spec: &TrainSpec, right: &Tensor, generated: &Tensor) -> Tensor {
    let classes = right.size()[1];
    let share = match spec.smooth {
        Smooth::All => generated.ones_like(),
        Smooth::Generated => generated.shallow_clone(), // read only
    };
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::Kind;

    use super::*;
    use crate::{
        net::{Network, formula},
        threat::Norm,
        train::{
            average, golden, layout,
            optimiser::{Rule, Weights},
            schedule,
        },
        units::Epsilon,
    };

    fn network() -> Network {
        let network = Network::blank(&golden::spec().network, Device::Cpu).unwrap();
        formula::fill(&network.state());
        network
    }

    fn goldens() -> BTreeMap<String, Tensor> {
        let path = golden::folder().join("training.safetensors");
        Tensor::read_safetensors(path).unwrap().into_iter().collect()
    }

    fn batch(spec: &TrainSpec, counter: u64, start: &Tensor) -> Examples {
        let x = formula::tensor(counter, &[8, 3, 32, 32], 0.0, 1.0);
        let y = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 5, 6, 7]);
        let generated = Tensor::zeros([8], (Kind::Float, Device::Cpu));
        let target = smoothed(spec, &y.one_hot(10).to_kind(Kind::Float), &generated);
        Examples { x, y, target, soft: false, mixed: false, start: start.copy() }
    }

    /// The largest difference relative to the largest golden value.
    fn error(got: &Tensor, expected: &Tensor) -> f64 {
        let scale = expected.abs().max().double_value(&[]).max(1e-12);
        (got - expected).abs().max().double_value(&[]) / scale
    }

    fn accuracy(logits: &Tensor, y: &Tensor) -> f64 {
        logits.argmax(1, false).eq_tensor(y).to_kind(Kind::Double).mean(None).double_value(&[])
    }

    /// Loss, gradients, accuracies and running statistics of one case, in both layouts.
    fn check(case: &str, spec: &TrainSpec) {
        let goldens = goldens();
        let batch = batch(spec, 1 << 20, &goldens[&format!("{case}.noise")]);
        let last = |tensor: &Tensor| layout::to_channels_last(tensor);
        let other = Examples {
            x: last(&batch.x),
            start: last(&batch.start),
            y: batch.y.copy(),
            target: batch.target.copy(),
            soft: false,
            mixed: false,
        };
        check_batch(case, spec, &goldens, &batch, 2e-4);
        // Rounded otherwise, a slope of nearly nothing may have the other sign.
        check_batch(case, spec, &goldens, &other, 2e-2);
    }

    fn check_batch(
        case: &str,
        spec: &TrainSpec,
        goldens: &BTreeMap<String, Tensor>,
        batch: &Examples,
        bound: f64,
    ) {
        let (sidecar, network) = (golden::sidecar(), network());
        let passes = Passes::new(&network, spec);
        let outcome = outcome(spec, &passes, batch, Mode::Train { momentum: 0.01 });
        let metrics = &sidecar[case]["metrics"];
        let number = |key: &str| metrics[key].as_f64().unwrap();
        let loss = outcome.loss.double_value(&[]);
        assert!((loss - number("loss")).abs() < 0.01 * bound * loss, "{case}: {loss}");
        assert!((accuracy(&outcome.clean.unwrap(), &batch.y) - number("clean_acc")).abs() < 1e-6);
        let robust = accuracy(&outcome.robust.unwrap(), &batch.y);
        assert!((robust - number("adversarial_acc")).abs() < 1e-6, "{case}: {robust}");
        let tensors: Vec<_> = network.parameters().iter().map(|(_, tensor)| tensor).collect();
        let gradients = Tensor::run_backward(&[outcome.loss], &tensors, false, false);
        let mut worst = 0.0f64;
        for ((name, _), gradient) in network.parameters().iter().zip(gradients) {
            let off = error(&gradient, &goldens[&format!("{case}.grad.{name}")]);
            assert!(off < bound, "{case}: gradient of {name} is off by {off:e}");
            worst = worst.max(off);
        }
        for (name, buffer) in network.buffers().iter().filter(|(name, _)| name.contains("running"))
        {
            let off = error(buffer, &goldens[&format!("{case}.{name}")]);
            assert!(off < 0.05 * bound, "{case}: {name} is off by {off:e}");
        }
        println!("{case}: loss {loss}, worst gradient error {worst:e}");
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn objectives_match_the_official_ones() {
        let spec = golden::spec();
        check("trades-linf", &spec);
        let threat = Some(ThreatModel { norm: Norm::L2, epsilon: Epsilon::new(128, 255) });
        check("trades-l2", &TrainSpec { threat, ..spec.clone() });
        check("score-linf", &TrainSpec { loss: Loss::Score, beta: 4.0, ..spec.clone() });
        check("mart-linf", &TrainSpec { loss: Loss::Mart, beta: 6.0, ..spec });
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn six_steps_of_the_recipe_match() {
        let (sidecar, goldens, network) = (golden::sidecar(), goldens(), network());
        let spec = golden::spec();
        let recipe = &sidecar["recipe"];
        let mut weights = Weights::of(network.parameters());
        let rule = Rule { weight_decay: 5e-4, nesterov: true, clip: None };
        for (step, expected) in recipe["steps"].as_array().unwrap().iter().enumerate() {
            let batch =
                batch(&spec, (1 << 21) + step as u64, &goldens[&format!("recipe.noise.{step}")]);
            let momentum = if step == 0 { 1.0 } else { 0.01 };
            let passes = Passes::new(&network, &spec);
            let outcome = outcome(&spec, &passes, &batch, Mode::Train { momentum });
            let (loss, golden) =
                (outcome.loss.double_value(&[]), expected["loss"].as_f64().unwrap());
            assert!((loss - golden).abs() < 2e-5 * golden, "step {step}: {loss} for {golden}");
            let rate = schedule::one_cycle(0.2, 0.34, 3, step as u64 / 2);
            assert!((rate.learning_rate - expected["lr"].as_f64().unwrap()).abs() < 1e-12);
            assert!((rate.momentum - expected["momentum"].as_f64().unwrap()).abs() < 1e-12);
            let gradient = weights.flat.gradient(&passes, &outcome.loss);
            weights.step(gradient, rate, rule, None);
            weights.move_average(average::decay_after(0.995, 1.5, step as u64 + 1));
        }
        let compare = |kind: &str| {
            for (name, tensor) in network.parameters().iter().chain(network.buffers()) {
                let golden = &goldens[&format!("recipe.{kind}.{name}")];
                let off = error(&tensor.to_kind(Kind::Float), &golden.to_kind(Kind::Float));
                assert!(off < 1e-3, "{kind}: {name} is off by {off:e}");
            }
        };
        compare("model");
        weights.with_average(|| compare("averaged"));
    }

    #[test]
    fn targets_spread_what_is_smoothed() {
        let right = Tensor::from_slice(&[1i64, 0]).one_hot(4).to_kind(Kind::Float);
        let generated = Tensor::from_slice(&[0.0f32, 1.0]);
        let rows = |spec: &TrainSpec| {
            let target = smoothed(spec, &right, &generated).to_kind(Kind::Double);
            Vec::<Vec<f64>>::try_from(&target).unwrap()
        };
        let near = |a: &[f64], b: [f64; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        let spec = TrainSpec { label_smoothing: 0.2, ..golden::spec() };
        assert!(near(&rows(&spec)[0], [0.05, 0.85, 0.05, 0.05]));
        let deepmind = TrainSpec { smooth: Smooth::Generated, ..spec.clone() };
        assert!(near(&rows(&deepmind)[0], [0.0, 1.0, 0.0, 0.0]));
        assert!(near(&rows(&deepmind)[1], [0.85, 0.05, 0.05, 0.05]));
        let score = TrainSpec { loss: Loss::Score, label_smoothing: 0.3, ..spec.clone() };
        assert!(near(&rows(&score)[0], [0.1, 0.7, 0.1, 0.1]));
        let mart = TrainSpec { loss: Loss::Mart, ..spec };
        assert!(near(&rows(&mart)[0], [0.0, 1.0, 0.0, 0.0]));
    }
}
