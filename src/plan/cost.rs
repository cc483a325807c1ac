//! What a job takes, from the multiplications of its network. Rough on purpose: the order of
//! magnitude decides whether one starts a run on a laptop.

use serde::{Deserialize, Serialize};

use crate::{
    diffusion::spec::{FitSpec, GenerateSpec, QualitySpec},
    evaluate::spec::{AttackName, EvaluateSpec},
    net::{
        architecture::Architecture,
        spec::{ClassifierSpec, DenoiserSpec},
    },
    plan::{Stage, Work, layers::Layers},
    train::spec::{LiveSpec, Loss, TrainSpec},
};

/// Multiplications that one CPU core gets through in a second, small networks at small batches.
const MACS_PER_CORE_SECOND: f64 = 12e9;
/// A forward and a backward pass, in forward passes.
const BOTH_WAYS: f64 = 3.0;
/// Memory of a process that has loaded libtorch and computes nothing.
const RESIDENT: u64 = 350 << 20;

/// What a job will take.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Estimate {
    /// Multiplications, in units of 10^9.
    pub gmacs: f64,
    /// Minutes of one CPU core.
    pub core_minutes: f64,
    /// Hours of one device: of one CPU core, or of the calibrated device.
    #[serde(default)]
    pub device_hours: f64,
    /// Bytes of its artifact.
    pub bytes: u64,
    /// Bytes of memory at its peak.
    #[serde(default)]
    pub memory: u64,
}

/// What a device was measured to do (`gauntlet calibrate`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// `cpu` (one core), `cuda:0`.
    pub device: String,
    /// Multiplications a second of a classifier, forwards and backwards, in units of 10^9.
    pub classifier: f64,
    /// Those of a denoiser, forwards.
    pub denoiser: f64,
    /// Seconds that a job takes before it computes.
    pub start: f64,
}

impl Estimate {
    fn new(macs: f64, bytes: u64) -> Self {
        // Starting a process and loading libtorch is never free.
        let seconds = 2.0 + macs / MACS_PER_CORE_SECOND;
        let memory = RESIDENT;
        let (core_minutes, device_hours) = (seconds / 60.0, seconds / 3600.0);
        Self { gmacs: macs / 1e9, core_minutes, device_hours, bytes, memory }
    }

    /// The same with what holds weights and activations: `copies` of all weights, and what one
    /// image leaves behind in a forward pass, for each image of a batch.
    fn holding(self, copies: f64, weights: f64, batch: u64, elements: f64) -> Self {
        let bytes = 4.0 * (copies * weights + batch as f64 * elements);
        Self { memory: RESIDENT + bytes as u64, ..self }
    }

    pub(super) fn calibrate(&mut self, stage: Stage, calibration: &Calibration) {
        let rate = match stage {
            Stage::Fit | Stage::Generate => calibration.denoiser,
            _ => calibration.classifier,
        };
        let seconds = calibration.start + self.gmacs / rate.max(1e-9);
        (self.core_minutes, self.device_hours) = (seconds / 60.0, seconds / 3600.0);
    }

    /// A file copied.
    pub(super) fn import() -> Self {
        Self::new(0.0, 0)
    }

    /// Training of a denoiser.
    pub(super) fn fit(spec: &FitSpec) -> Self {
        // At an edge of one pixel a convolution multiplies each weight once: macs are parameters.
        let one_pixel = DenoiserSpec { resolution: 1, ..spec.network.clone() };
        let weights = denoiser_macs(&one_pixel);
        let macs = denoiser_macs(&spec.network);
        // Gradient, two moments and the average stand beside the weights.
        Self::new(BOTH_WAYS * spec.images as f64 * macs, (4.0 * weights) as u64).holding(
            5.0,
            weights,
            spec.batch,
            denoiser_elements(&spec.network),
        )
    }

    /// Sampling; `macs` are those of one forward pass of the denoiser.
    pub(super) fn generate(spec: &GenerateSpec, macs: f64, resolution: u64) -> Self {
        let passes = (2 * spec.sampler.steps).saturating_sub(1).max(1) as f64;
        let pixels = 3 * resolution * resolution;
        // Without gradients only a few feature maps live at once; a network of `macs` has maps
        // of about its square root's order at full resolution.
        let elements = 8.0 * (macs / 9.0).sqrt() * resolution as f64;
        Self::new(passes * spec.count as f64 * macs, spec.count * (pixels + 8)).holding(
            1.0,
            macs / (resolution * resolution).max(1) as f64,
            spec.batch.min(spec.count),
            elements,
        )
    }

    /// A training beside which images are drawn in `steps` steps; `macs` are those of one forward
    /// pass of the denoiser.
    pub(super) fn and_live(self, live: &LiveSpec, steps: u64, macs: f64, resolution: u64) -> Self {
        let count = live.draw.count + (steps as f64 * live.rate) as u64;
        let drawn = Self::generate(&GenerateSpec { count, ..live.draw.clone() }, macs, resolution);
        let held = live.draw.count * 3 * resolution * resolution;
        Self {
            gmacs: self.gmacs + drawn.gmacs,
            core_minutes: self.core_minutes + drawn.core_minutes,
            device_hours: self.device_hours + drawn.device_hours,
            memory: self.memory + drawn.memory.saturating_sub(RESIDENT) + held,
            ..self
        }
    }

    /// Labels of `images` images by `labeller`, the job that trains or imports a classifier. An
    /// imported one is taken for a wide ResNet of its file's size, which multiplies every weight
    /// some 143 times at 32 pixels.
    pub(super) fn label(images: u64, resolution: u64, labeller: Option<&Work>) -> Self {
        let scale = (resolution * resolution) as f64 / 1024.0;
        let macs = match labeller {
            Some(Work::Train(spec)) => Layers::of(&spec.network, resolution).macs(),
            Some(Work::Import(spec)) => {
                let bytes = std::fs::metadata(&spec.path).map_or(0, |found| found.len());
                143.0 * bytes as f64 / 4.0 * scale
            }
            _ => 0.0,
        };
        Self::new(macs * images as f64, images * (3 * resolution * resolution + 20))
    }

    /// Judging `spec.images` images beside `real` ones: features, and all pairs at 16 pixels.
    pub(super) fn quality(spec: &QualitySpec, real: u64) -> Self {
        let images = spec.images as f64;
        let seen = images + if spec.reference.is_some() { 0.0 } else { real as f64 };
        let features = if spec.inception.is_some() { 5.7e9 } else { 12e6 } * seen;
        let pairs = if spec.duplicates { 4.0 * 768.0 * images * real as f64 } else { 0.0 };
        Self::new(features + pairs, 8192)
    }

    /// Training of a classifier on `images` real images an epoch.
    pub(super) fn train(spec: &TrainSpec, images: u64) -> Self {
        let layers = Layers::of(&spec.network, spec.data.resolution);
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
        let weights = layers.weights();
        // TRADES holds the graphs of two passes at once.
        let passes_held = if spec.loss == Loss::Standard { 1.0 } else { 2.0 };
        let macs = layers.macs() * (passes * seen as f64 + validation);
        let elements = passes_held * layers.elements();
        Self::new(macs, (8.0 * weights) as u64).holding(4.0, weights, spec.batch, elements)
    }

    /// Attacking `images` images, as if every attack met all of them: an upper bound.
    pub(super) fn evaluate(spec: &EvaluateSpec, network: &ClassifierSpec, images: u64) -> Self {
        let layers = Layers::of(network, spec.data.resolution);
        let passes = |attack: &crate::evaluate::spec::AttackSpec| {
            let runs = (attack.restarts * attack.targets.max(1) * attack.eot.max(1)) as f64;
            let pass = if attack.name == AttackName::Square { 1.0 } else { BOTH_WAYS };
            let halves = if attack.name == AttackName::Pma { 2.0 } else { 1.0 };
            attack.steps as f64 * runs * halves * pass
        };
        let passes: f64 = spec.attacks.iter().map(passes).sum();
        let batch = spec.batch.min(images);
        Self::new(layers.macs() * images as f64 * (1.0 + passes), images * 200).holding(
            1.0,
            layers.weights(),
            batch,
            layers.elements(),
        )
    }
}

/// Multiplications of a 3x3 convolution at edge length `edge`.
fn conv(inputs: f64, outputs: f64, edge: f64) -> f64 {
    9.0 * inputs * outputs * edge * edge
}

/// Numbers that a U-Net's forward pass leaves for the backward pass, for one image: each
/// convolution's input, its normalisation and its activation.
fn denoiser_elements(spec: &DenoiserSpec) -> f64 {
    let mut edge = spec.resolution as f64;
    let mut elements = 0.0;
    for mult in &spec.channel_mult {
        let width = (spec.channels * mult) as f64;
        elements +=
            width * edge * edge * (2.0 * spec.blocks as f64 + 3.0 * (spec.blocks + 1) as f64);
        edge = (edge / 2.0).max(1.0);
    }
    3.0 * elements
}

/// Forward multiplications of a U-Net for one image.
pub(super) fn denoiser_macs(spec: &DenoiserSpec) -> f64 {
    unet(spec.resolution, spec.channels, &spec.channel_mult, spec.blocks)
}

/// Those of a network in a file.
pub(super) fn imported_macs(network: &Architecture) -> f64 {
    let Architecture { img_resolution, model_channels, channel_mult, num_blocks, .. } = network;
    unet(*img_resolution, *model_channels, channel_mult, *num_blocks)
}

/// Encoder blocks, then one more decoder block to each resolution whose first convolution sees the
/// skipped channels too.
fn unet(resolution: i64, channels: i64, channel_mult: &[i64], blocks: i64) -> f64 {
    let mut edge = resolution as f64;
    let mut macs = 0.0;
    for mult in channel_mult {
        let width = (channels * mult) as f64;
        let encoder = 2.0 * blocks as f64;
        let decoder = 3.0 * (blocks + 1) as f64;
        // Resampling blocks: one on the way down, one on the way up.
        macs += conv(width, width, edge) * (encoder + decoder + 2.0);
        edge = (edge / 2.0).max(1.0);
    }
    macs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_networks_have_their_published_cost() {
        let unet = DenoiserSpec::edm_cifar10();
        let imported = Architecture::of(&unet).unwrap();
        assert!((imported_macs(&imported) - denoiser_macs(&unet)).abs() < 1.0);
        assert!((denoiser_macs(&unet) / 1e9 - 21.2).abs() < 3.0, "{}", denoiser_macs(&unet) / 1e9);
    }
}
