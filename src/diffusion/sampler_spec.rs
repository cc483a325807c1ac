//! What fixes a sampler, and what of it differs from image to image.

use serde::{Deserialize, Serialize};

/// Which numerical solver draws the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// Second order (Karras et al. 2022, algorithms 1 and 2).
    Heun,
    /// First order.
    Euler,
    /// Ancestral sampling of the discrete process (Ho et al. 2020).
    Ddpm,
    /// Its deterministic relative, stochastic by `eta` (Song et al. 2021).
    Ddim,
}

impl Solver {
    /// Whether it walks the discrete process of 1000 steps, not an ODE.
    pub fn is_discrete(self) -> bool {
        matches!(self, Self::Ddpm | Self::Ddim)
    }
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

impl Discretization {
    /// Lowest and highest noise level where nobody says otherwise.
    pub fn range(self) -> (f64, f64) {
        // sigma(t) of Song's VP process, beta_d = 19.9 and beta_min = 0.1, at t = 1e-3 and 1.
        let vp = |t: f64| ((0.5 * 19.9 * t * t + 0.1 * t).exp() - 1.0).sqrt();
        match self {
            Self::Vp => (vp(1e-3), vp(1.0)),
            Self::Ve => (0.02, 100.0),
            Self::Iddpm => (0.002, 81.0),
            Self::Edm => (0.002, 80.0),
        }
    }
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

/// The variance of an ancestral step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variance {
    /// That of the posterior given the denoised image.
    Small,
    /// That of the forward step.
    Large,
}

/// A sampler and its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerSpec {
    /// The solver.
    pub solver: Solver,
    /// Number of steps N; Heun evaluates the network 2N - 1 times.
    pub steps: u64,
    /// How the steps are laid out.
    pub discretization: Discretization,
    /// The noise level over time.
    pub schedule: Schedule,
    /// The signal's scale over time.
    pub scaling: Scaling,
    /// Where the second slope is taken, as a share of the step (1 is Heun, 0.5 the midpoint).
    pub alpha: f64,
    /// Lowest noise level.
    pub sigma_min: f64,
    /// Highest noise level.
    pub sigma_max: f64,
    /// Exponent of EDM's discretization.
    pub rho: f64,
    /// S_churn: 0 is deterministic.
    pub churn: f64,
    /// S_min.
    pub churn_min: f64,
    /// S_max; `None` is infinity.
    pub churn_max: Option<f64>,
    /// S_noise.
    pub churn_noise: f64,
    /// DDIM: how much noise a step adds; 1 is DDPM's.
    pub eta: f64,
    /// DDPM: the variance of a step.
    pub variance: Variance,
    /// DDPM and DDIM: whether denoised images are clipped to `[-1, 1]`.
    pub clip: bool,
}

impl SamplerSpec {
    /// EDM's deterministic sampler with `steps` steps.
    pub fn edm(steps: u64) -> Self {
        Self {
            solver: Solver::Heun,
            steps,
            discretization: Discretization::Edm,
            schedule: Schedule::Linear,
            scaling: Scaling::None,
            alpha: 1.0,
            sigma_min: 0.002,
            sigma_max: 80.0,
            rho: 7.0,
            churn: 0.0,
            churn_min: 0.0,
            churn_max: None,
            churn_noise: 1.0,
            eta: 0.0,
            variance: Variance::Small,
            clip: true,
        }
    }

    /// Itself with its noise levels brought into `range`.
    #[must_use]
    pub fn within(self, (lowest, highest): (f64, f64)) -> Self {
        let (sigma_min, sigma_max) = (self.sigma_min.max(lowest), self.sigma_max.min(highest));
        Self { sigma_min, sigma_max, ..self }
    }

    /// Whether time is the noise level itself and steps are EDM's: the simple sampler does.
    pub fn is_plain(&self) -> bool {
        self.discretization == Discretization::Edm
            && self.schedule == Schedule::Linear
            && self.scaling == Scaling::None
            && self.alpha.to_bits() == 1f64.to_bits()
    }
}

/// What a number drawn for each image (or batch) is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyKind {
    /// Uniform in `[min, max]`.
    Uniform,
    /// So, and then mirrored about the schedule with a probability.
    Mirrored,
}

/// What the number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Applies {
    /// The number of steps.
    Steps,
    /// The step (1 is the first) whose denoised image is the result.
    Exit,
    /// The step (1 is the first) at which a noised real image enters.
    Start,
}

/// What shares one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Every image has its own.
    Image,
    /// All images that are sampled at once share it.
    Batch,
}

/// How a number of the sampler is drawn anew for every image or batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The distribution.
    pub kind: PolicyKind,
    /// Smallest number.
    pub min: u64,
    /// Largest number.
    pub max: u64,
    /// Probability that number `n` of a schedule of `steps` becomes `steps + 1 - n`.
    pub mirror: f64,
    /// What the number is.
    pub applies: Applies,
    /// What shares one number.
    pub per: Per,
}
