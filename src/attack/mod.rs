//! Attacks on classifiers: APGD, FAB, Square and PGD, after AutoAttack (Croce and Hein 2020); MALT
//! and PMA beyond it.
//!
//! An attack is a function over one batch. It differs between the two [`Mode`]s only in where its
//! random numbers come from, in when a broken example leaves, and in what counts as broken; the
//! arithmetic is one.

pub mod apgd;
mod apgd_step;
pub mod confirm;
pub mod fab;
pub mod geometry;
mod host;
pub mod hyperplane;
pub mod hyperplane_linear;
pub mod l1_linear;
pub mod loss;
pub mod malt;
pub mod noise;
pub mod pgd;
pub mod pma;
mod seats;
mod slope;
pub mod square;
mod square_host;
pub mod square_shape;
pub mod trial;

#[cfg(test)]
mod edge_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod host_tests;
#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(crate) mod testing;

use tch::Tensor;

use crate::{error::Result, net::Classifier, progress::Progress, threat::Norm};
use trial::Trial;

/// Which attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Auto-PGD on cross entropy.
    ApgdCe,
    /// Auto-PGD on the difference of logits ratio.
    ApgdDlr,
    /// Auto-PGD on the targeted difference of logits ratio.
    ApgdTargeted,
    /// Fast adaptive boundary, untargeted.
    Fab,
    /// Fast adaptive boundary, targeted.
    FabTargeted,
    /// Square attack.
    Square,
    /// Projected gradient descent on cross entropy.
    Pgd,
    /// Auto-PGD towards the classes that a linear model of the network says are nearest.
    Malt,
    /// Projected gradient descent on the margin of probabilities.
    Pma,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ApgdCe => "apgd-ce",
            Self::ApgdDlr => "apgd-dlr",
            Self::ApgdTargeted => "apgd-t",
            Self::Fab => "fab",
            Self::FabTargeted => "fab-t",
            Self::Square => "square",
            Self::Pgd => "pgd",
            Self::Malt => "malt",
            Self::Pma => "pma",
        })
    }
}

/// Where random numbers come from and what counts as broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each example has its own stream; it leaves as soon as it is broken; norm and box are
    /// enforced and a fresh forward pass confirms the break.
    Strict,
    /// AutoAttack's own behaviour, bit for bit on one thread.
    Reference,
}

/// The box that images live in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Smallest pixel.
    pub low: f64,
    /// Largest pixel.
    pub high: f64,
}

impl Bounds {
    /// `[0, 1]`.
    pub const UNIT: Self = Self { low: 0.0, high: 1.0 };
}

/// One attack with its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Which attack.
    pub kind: Kind,
    /// Iterations, or queries for Square.
    pub steps: u64,
    /// Random restarts.
    pub restarts: u64,
    /// Target classes of targeted attacks; capped at classes - 1.
    pub targets: u64,
    /// Gradients averaged at each step.
    pub eot: u64,
    /// Whether L1-APGD runs in three stages of shrinking radius.
    pub staged: bool,
    /// The norm.
    pub norm: Norm,
    /// The bound.
    pub epsilon: f64,
    /// The box.
    pub bounds: Bounds,
    /// Strict or reference.
    pub mode: Mode,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// Images to attack.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Images `[b,3,h,w]`, `Float`, inside the box.
    pub images: &'a Tensor,
    /// Labels `[b]`, `Int64`.
    pub labels: &'a Tensor,
    /// What names each example in messages: its index in the data set.
    pub examples: &'a [u64],
    /// What names each example's random stream: a digest of its image, so that the order of the
    /// examples does not matter.
    pub streams: &'a [u64],
}

/// When an attack broke an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    /// Restart, from 0.
    pub restart: u64,
    /// The class aimed at, for targeted attacks.
    pub target: Option<i64>,
    /// Iteration, 0 being the start.
    pub iteration: u64,
}

/// What an attack did to a batch.
#[derive(Debug)]
pub struct Outcome {
    /// For each example how it was broken, or `None`.
    pub breaks: Vec<Option<Break>>,
    /// Images `[b,3,h,w]`: adversarial where broken, else the originals (reference mode: whatever
    /// the attack returned).
    pub adversarial: Tensor,
    /// Forward passes each example went through.
    pub forward: Vec<u64>,
    /// Backward passes each example went through.
    pub backward: Vec<u64>,
    /// Examples whose gradient at the start of a DLR attack was zero everywhere.
    pub zero_gradients: u64,
}

/// Attacks `batch`.
///
/// # Errors
/// [`crate::error::Error::Numerics`] if logits are not finite, [`crate::error::Error::Interrupted`]
/// if `progress` asks to stop.
pub fn run(
    spec: &Spec,
    model: &dyn Classifier,
    batch: &Batch,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let _guard = tch::no_grad_guard();
    let seated = seats::Seated(model);
    let seats = spec.mode == Mode::Strict && batch.images.device().is_cuda();
    let model: &dyn Classifier = if seats { &seated } else { model };
    let mut trial = Trial::begin(spec, model, batch, progress)?;
    match spec.kind {
        Kind::ApgdCe | Kind::ApgdDlr | Kind::ApgdTargeted => apgd::attack(&mut trial)?,
        Kind::Fab | Kind::FabTargeted => fab::attack(&mut trial)?,
        Kind::Square => square::attack(&mut trial)?,
        Kind::Pgd => pgd::attack(&mut trial)?,
        Kind::Malt => malt::attack(&mut trial)?,
        Kind::Pma => pma::attack(&mut trial)?,
    }
    trial.finish()
}
