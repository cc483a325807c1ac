//! What fixes an evaluation.

use serde::{Deserialize, Serialize};

use crate::{data::spec::Source, threat::ThreatModel};

/// Which weights of a training run are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checkpoint {
    /// Best validation robustness.
    Best,
    /// After the last epoch.
    Last,
}

/// How random numbers and acceptance work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvalMode {
    /// Per-example random streams, ε and box enforced, every break verified.
    Strict,
    /// AutoAttack's own behaviour, bit for bit on one thread.
    Reference,
}

/// One attack of a cascade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttackName {
    /// Auto-PGD on cross entropy.
    ApgdCe,
    /// Auto-PGD on the difference of logits ratio.
    ApgdDlr,
    /// Auto-PGD on the targeted difference of logits ratio.
    ApgdT,
    /// Fast adaptive boundary, untargeted.
    Fab,
    /// Fast adaptive boundary, targeted.
    FabT,
    /// Square attack.
    Square,
    /// Projected gradient descent with restarts on cross entropy.
    Pgd,
}

/// One attack with its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackSpec {
    /// Which attack.
    pub name: AttackName,
    /// Iterations (queries for Square).
    pub steps: u64,
    /// Random restarts.
    pub restarts: u64,
    /// Target classes for targeted attacks (capped at classes - 1); 0 for others.
    pub targets: u64,
    /// Gradients averaged at each step (EOT); 1 for deterministic models.
    pub eot: u64,
}

/// An evaluation of one classifier under one threat model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSpec {
    /// The images.
    pub data: Source,
    /// The threat model.
    pub threat: ThreatModel,
    /// The suite's name for people: `standard`, `plus`, `rand`, `custom`.
    pub suite: String,
    /// The cascade, resolved.
    pub attacks: Vec<AttackSpec>,
    /// Strict or reference.
    pub mode: EvalMode,
    /// Which weights of the training run.
    pub checkpoint: Checkpoint,
    /// Examples attacked at once.
    pub batch: u64,
    /// Seed of the attacks.
    pub seed: u64,
}
