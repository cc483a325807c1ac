//! What fixes a trained denoiser and a generated set.

use serde::{Deserialize, Serialize};

use crate::{data::spec::Source, net::spec::DenoiserSpec};

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
    /// Seed of weights, order and noise.
    pub seed: u64,
}

/// Which numerical solver draws the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// Second order (Karras et al. 2022, algorithms 1 and 2).
    Heun,
    /// First order.
    Euler,
}

/// A sampler and its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerSpec {
    /// The solver.
    pub solver: Solver,
    /// Number of steps N; Heun evaluates the network 2N - 1 times.
    pub steps: u64,
    /// Lowest noise level.
    pub sigma_min: f64,
    /// Highest noise level.
    pub sigma_max: f64,
    /// Exponent of the noise schedule.
    pub rho: f64,
    /// S_churn: 0 is deterministic.
    pub churn: f64,
    /// S_min.
    pub churn_min: f64,
    /// S_max; `None` is infinity.
    pub churn_max: Option<f64>,
    /// S_noise.
    pub churn_noise: f64,
}

/// A part of a generated set: images `start..start + count` of the set that (denoiser, sampler,
/// seed) define. Image `i` depends on nothing else, so sets of different sizes are nested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateSpec {
    /// The sampler.
    pub sampler: SamplerSpec,
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

/// How time steps are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discretization {
    /// Uniform in the time of the variance-preserving process.
    Vp,
    /// Geometric noise levels.
    Ve,
    /// iDDPM's table.
    Iddpm,
    /// Karras et al. 2022, equation 5.
    Edm,
}

/// The noise level as a function of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Variance preserving.
    Vp,
    /// The square root of time.
    Ve,
    /// Time itself.
    Linear,
}

/// How the signal is scaled over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// Variance preserving.
    Vp,
    /// Not at all.
    None,
}

/// The generalised sampler of Karras et al. 2022, table 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AblationSpec {
    /// The solver.
    pub solver: Solver,
    /// Number of steps.
    pub steps: u64,
    /// Time steps.
    pub discretization: Discretization,
    /// Noise schedule.
    pub schedule: Schedule,
    /// Signal scaling.
    pub scaling: Scaling,
    /// Lowest noise level; `None` is the discretization's own.
    pub sigma_min: Option<f64>,
    /// Highest noise level; `None` is the discretization's own.
    pub sigma_max: Option<f64>,
    /// Exponent of EDM's discretization.
    pub rho: f64,
    /// Last time of VP's discretization (1e-3).
    pub epsilon_s: f64,
    /// Where the second slope is taken, as a share of the step (1 is Heun, 0.5 the midpoint).
    pub alpha: f64,
    /// S_churn: 0 is deterministic.
    pub churn: f64,
    /// S_min.
    pub churn_min: f64,
    /// S_max; `None` is infinity.
    pub churn_max: Option<f64>,
    /// S_noise.
    pub churn_noise: f64,
}
