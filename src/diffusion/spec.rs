//! What fixes a trained denoiser and a generated set.

use serde::{Deserialize, Serialize};

use crate::{
    data::spec::Source,
    net::spec::{DenoiserSpec, Precision},
};

pub use super::sampler_spec::{
    Applies, Discretization, Per, Policy, PolicyKind, SamplerSpec, Scaling, Schedule, Solver,
    Variance,
};

/// Training of a denoiser by EDM's recipe (Karras et al. 2022, table 1 and appendix F).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitSpec {
    /// Images to learn from.
    pub data: Source,
    /// The network.
    pub network: DenoiserSpec,
    /// Training length, in images seen.
    pub images: u64,
    /// Batch size.
    pub batch: u64,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Images over which the learning rate rises linearly from 0.
    pub ramp: u64,
    /// Half-life of the weights' moving average, in images.
    pub ema_half_life: u64,
    /// The half-life is at most this share of the images seen so far (EDM: 0.05); 0 switches off.
    pub ema_ramp: f64,
    /// Dropout probability.
    pub dropout: f64,
    /// Mean of ln σ.
    pub p_mean: f64,
    /// Deviation of ln σ.
    pub p_std: f64,
    /// Probability of each geometric augmentation (EDM: 0.12); 0 leaves only the horizontal flip.
    pub augment: f64,
    /// Whether images are mirrored at random.
    pub flip: bool,
    /// Images between snapshots, of which the best becomes the result; 0 keeps the last weights.
    pub snapshot: u64,
    /// Numbers in which the network computes: fp32 or bf16 (fp16 would need a scaled loss).
    #[serde(default, skip_serializing_if = "Precision::is_fp32")]
    pub precision: Precision,
    /// How many images a snapshot draws to be judged by.
    pub snapshot_images: u64,
    /// Steps of the sampler that draws them.
    pub snapshot_steps: u64,
    /// Seed of weights, order and noise.
    pub seed: u64,
}

/// A part of a generated set: images `start..start + count` of the set that (denoiser, sampler,
/// policy, seed) define. Image `i` depends on nothing else, so sets of different sizes are nested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateSpec {
    /// The sampler.
    pub sampler: SamplerSpec,
    /// What differs from image to image; `None` for nothing.
    pub policy: Option<Policy>,
    /// Real images that trajectories start from (`policy.applies` is `start`).
    pub origin: Option<Source>,
    /// Seed of latents and labels.
    pub seed: u64,
    /// How many classes the labels have; image `i` has class `i mod classes`.
    pub classes: i64,
    /// First image of this part.
    pub start: u64,
    /// How many images this part has.
    pub count: u64,
    /// Images sampled at once.
    pub batch: u64,
}

/// Who says what a generated image shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelBy {
    /// The class that the denoiser was asked for.
    Condition,
    /// A classifier: the class that it finds most probable.
    Classifier,
    /// A classifier: how probable it finds each class.
    Soft,
}

/// Labels and selection of a set that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSpec {
    /// Who labels.
    pub by: LabelBy,
    /// How many classes.
    pub classes: i64,
    /// Least probability that the classifier gives the label.
    pub confidence: f64,
    /// Whether all classes get the same number of images.
    pub balance: bool,
    /// How many images are kept, the most confident ones of each class; `None` for all.
    pub count: Option<u64>,
    /// The classifier's architecture, where its file does not say it.
    pub arch: Option<String>,
    /// The data set whose head and normalisation it has.
    pub dataset: String,
}

/// How a generated set is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualitySpec {
    /// Real images that the set should look like.
    pub train: Source,
    /// Real images that nobody has learned from.
    pub test: Source,
    /// BLAKE3 of the Inception network's file; `None` for fixed random filters.
    pub inception: Option<String>,
    /// BLAKE3 of the file of statistics of real images; `None` where they are computed.
    pub reference: Option<String>,
    /// How many generated images are looked at, the first ones of the set.
    pub images: u64,
    /// Nearest neighbours that make a ball, of precision, recall, density and coverage.
    pub neighbours: u64,
    /// Whether near duplicates of real images are sought.
    pub duplicates: bool,
}
