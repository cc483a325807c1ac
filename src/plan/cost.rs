//! What a job takes, from the multiplications of its network. Rough on purpose: the order of
//! magnitude decides whether one starts a run on a laptop.

use serde::{Deserialize, Serialize};

use crate::{
    diffusion::spec::{FitSpec, GenerateSpec},
    evaluate::spec::{AttackName, EvaluateSpec},
    net::spec::{ClassifierSpec, DenoiserSpec},
    train::spec::{Loss, TrainSpec},
};

/// Multiplications that one CPU core gets through in a second, small networks at small batches.
const MACS_PER_CORE_SECOND: f64 = 12e9;
/// A forward and a backward pass, in forward passes.
const BOTH_WAYS: f64 = 3.0;

/// What a job will take.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Estimate {
    /// Multiplications, in units of 10^9.
    pub gmacs: f64,
    /// Minutes of one CPU core.
    pub core_minutes: f64,
    /// Bytes of its artifact.
    pub bytes: u64,
}

impl Estimate {
    fn new(macs: f64, bytes: u64) -> Self {
        // Starting a process and loading libtorch is never free.
        let seconds = 2.0 + macs / MACS_PER_CORE_SECOND;
        Self { gmacs: macs / 1e9, core_minutes: seconds / 60.0, bytes }
    }

    /// A file copied.
    pub(super) fn import() -> Self {
        Self::new(0.0, 0)
    }

    /// Training of a denoiser.
    pub(super) fn fit(spec: &FitSpec) -> Self {
        // At an edge of one pixel a convolution multiplies each weight once: macs are parameters.
        let one_pixel = DenoiserSpec { resolution: 1, ..spec.network.clone() };
        let bytes = 4.0 * denoiser_macs(&one_pixel);
        Self::new(BOTH_WAYS * spec.images as f64 * denoiser_macs(&spec.network), bytes as u64)
    }

    /// Sampling; `macs` are those of one forward pass of the denoiser.
    pub(super) fn generate(spec: &GenerateSpec, macs: f64, resolution: u64) -> Self {
        let passes = (2 * spec.sampler.steps).saturating_sub(1).max(1) as f64;
        Self::new(passes * spec.count as f64 * macs, spec.count * (3 * resolution * resolution + 8))
    }

    /// Labels by a classifier that is taken for a WRN-28-10.
    pub(super) fn label(images: u64, resolution: u64) -> Self {
        Self::new(5.2e9 * images as f64, images * (3 * resolution * resolution + 20))
    }

    /// Training of a classifier on `images` real images an epoch.
    pub(super) fn train(spec: &TrainSpec, images: u64) -> Self {
        let macs = classifier_macs(&spec.network, spec.data.resolution);
        let crafting = BOTH_WAYS * spec.attack_steps as f64;
        let passes = match spec.loss {
            Loss::Standard => BOTH_WAYS,
            Loss::PgdAt => crafting + BOTH_WAYS,
            Loss::Trades | Loss::Mart | Loss::Score => 1.0 + crafting + 2.0 * BOTH_WAYS,
        };
        let seen = images.div_ceil(spec.batch.max(1)) * spec.batch * spec.epochs;
        let validations = spec.epochs / spec.validate_every.max(1) * spec.validation;
        let validation = validations as f64 * (1.0 + BOTH_WAYS * spec.validation_steps as f64);
        // Two checkpoints: the best and the last.
        let bytes = 2.0 * 4.0 * classifier_macs(&spec.network, 1);
        Self::new(macs * (passes * seen as f64 + validation), bytes as u64)
    }

    /// Attacking `images` images, as if every attack met all of them: an upper bound.
    pub(super) fn evaluate(spec: &EvaluateSpec, network: &ClassifierSpec, images: u64) -> Self {
        let macs = classifier_macs(network, spec.data.resolution);
        let passes = |attack: &crate::evaluate::spec::AttackSpec| {
            let runs = (attack.restarts * attack.targets.max(1) * attack.eot.max(1)) as f64;
            let pass = if attack.name == AttackName::Square { 1.0 } else { BOTH_WAYS };
            let halves = if attack.name == AttackName::Pma { 2.0 } else { 1.0 };
            attack.steps as f64 * runs * halves * pass
        };
        let passes: f64 = spec.attacks.iter().map(passes).sum();
        Self::new(macs * images as f64 * (1.0 + passes), images * 200)
    }
}

/// Multiplications of a 3x3 convolution at edge length `edge`.
fn conv(inputs: f64, outputs: f64, edge: f64) -> f64 {
    9.0 * inputs * outputs * edge * edge
}

/// Two convolutions to each block; the first of a group changes width, later groups halve edges.
fn residual(stem: f64, widths: &[f64], blocks: u64, resolution: f64) -> f64 {
    let mut macs = conv(3.0, stem, resolution);
    let (mut width, mut edge) = (stem, resolution);
    for (group, &next) in widths.iter().enumerate() {
        if group > 0 {
            edge = (edge / 2.0).max(1.0);
        }
        for _ in 0..blocks {
            macs += conv(width, next, edge) + conv(next, next, edge);
            width = next;
        }
    }
    macs
}

/// Forward multiplications of a classifier for one image.
pub(super) fn classifier_macs(spec: &ClassifierSpec, resolution: u64) -> f64 {
    let edge = resolution as f64;
    let numbers: Vec<u64> = spec.arch.split('-').filter_map(|part| part.parse().ok()).collect();
    match (spec.arch.split('-').next(), numbers.as_slice()) {
        (Some("wrn"), [depth, width, ..]) => {
            let widths = [16.0, 32.0, 64.0].map(|base| base * *width as f64);
            residual(16.0, &widths, depth.saturating_sub(4) / 6, edge)
        }
        (Some("resnet20"), _) => residual(16.0, &[16.0, 32.0, 64.0], 3, edge),
        _ => residual(64.0, &[64.0, 128.0, 256.0, 512.0], 2, edge),
    }
}

/// Forward multiplications of a U-Net for one image: encoder blocks, then one more decoder block to
/// each resolution whose first convolution sees the skipped channels too.
pub(super) fn denoiser_macs(spec: &DenoiserSpec) -> f64 {
    let mut edge = spec.resolution as f64;
    let mut macs = 0.0;
    for mult in &spec.channel_mult {
        let width = (spec.channels * mult) as f64;
        let encoder = 2.0 * spec.blocks as f64;
        let decoder = 3.0 * (spec.blocks + 1) as f64;
        // Resampling blocks: one on the way down, one on the way up.
        macs += conv(width, width, edge) * (encoder + decoder + 2.0);
        edge = (edge / 2.0).max(1.0);
    }
    macs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::spec::{DenoiserArch, Precond};

    #[test]
    fn published_networks_have_their_published_cost() {
        let macs = |arch: &str| {
            let spec = ClassifierSpec { arch: arch.into(), dataset: "cifar10".into(), classes: 10 };
            classifier_macs(&spec, 32) / 1e9
        };
        assert!((macs("wrn-28-10-swish") - 5.24).abs() < 0.1, "{}", macs("wrn-28-10-swish"));
        assert!((macs("wrn-70-16-swish") - 38.8).abs() < 0.5, "{}", macs("wrn-70-16-swish"));
        assert!((macs("preact-resnet18") - 0.56).abs() < 0.05, "{}", macs("preact-resnet18"));
        let spec = ClassifierSpec {
            arch: "wrn-28-10-swish".into(),
            dataset: "cifar10".into(),
            classes: 10,
        };
        let parameters = classifier_macs(&spec, 1) / 1e6;
        assert!((parameters - 36.48).abs() < 0.5, "{parameters}");
        let unet = DenoiserSpec {
            arch: DenoiserArch::Ddpmpp,
            precond: Precond::Edm,
            resolution: 32,
            classes: 10,
            channels: 128,
            channel_mult: vec![2, 2, 2],
            blocks: 4,
            attention: vec![16],
            augment_dim: 9,
        };
        assert!((denoiser_macs(&unet) / 1e9 - 21.2).abs() < 3.0, "{}", denoiser_macs(&unet) / 1e9);
    }
}
