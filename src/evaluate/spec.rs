//! What fixes an evaluation.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    data::spec::Source,
    error::{Error, Result},
    threat::{Norm, ThreatModel},
};

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
    /// Auto-PGD towards the classes that MALT ranks nearest.
    Malt,
    /// Projected gradient descent on the probability margin.
    Pma,
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
    /// The suite's name for people: one of [`SUITES`], or `custom`.
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

impl AttackName {
    /// Every attack, in the order in which help lists them.
    pub const ALL: [Self; 9] = [
        Self::ApgdCe,
        Self::ApgdDlr,
        Self::ApgdT,
        Self::Fab,
        Self::FabT,
        Self::Square,
        Self::Pgd,
        Self::Malt,
        Self::Pma,
    ];

    /// Whether it aims at classes one after the other.
    pub fn targeted(self) -> bool {
        matches!(self, Self::ApgdT | Self::FabT | Self::Malt)
    }

    /// The name as suites, records and the command line write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApgdCe => "apgd-ce",
            Self::ApgdDlr => "apgd-dlr",
            Self::ApgdT => "apgd-t",
            Self::Fab => "fab",
            Self::FabT => "fab-t",
            Self::Square => "square",
            Self::Pgd => "pgd",
            Self::Malt => "malt",
            Self::Pma => "pma",
        }
    }
}

impl fmt::Display for AttackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AttackName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Error::input(format!("attack `{text}` is unknown: expected one of {names}"))
        })
    }
}

impl EvaluateSpec {
    /// Whether L1-APGD runs in three stages: AutoAttack does so in its standard version alone.
    pub fn staged(&self) -> bool {
        self.suite == "standard" && self.threat.norm == Norm::L1
    }
}

/// The attack `name` with AutoAttack's numbers; targets never exceed the classes there are.
pub fn published(name: AttackName, classes: i64) -> AttackSpec {
    let others = classes.max(1) as u64 - 1;
    AttackSpec {
        name,
        steps: if name == AttackName::Square { 5000 } else { 100 },
        restarts: 1,
        targets: if name.targeted() { others.min(9) } else { 0 },
        eot: 1,
    }
}

/// Suites that bring their attacks.
pub const SUITES: [&str; 7] = ["standard", "plus", "rand", "malt", "pma", "pma+", "quick"];

/// The attacks of the suite `name`, one of [`SUITES`]: AutoAttack's three versions; MALT and PMA
/// alone; PMA's ensemble with targeted APGD; and a short cascade for continuous integration.
///
/// # Errors
/// If there is no such suite; `custom` has no attacks of its own.
pub fn resolve_suite(name: &str, norm: Norm, classes: i64) -> Result<Vec<AttackSpec>> {
    use AttackName::{ApgdCe, ApgdDlr, ApgdT, Fab, FabT, Malt, Pma, Square};
    let one = |name| published(name, classes);
    let five = |name| AttackSpec { restarts: 5, ..published(name, classes) };
    match name {
        "standard" if norm == Norm::L1 => {
            let few = AttackSpec { targets: one(ApgdT).targets.min(5), ..one(ApgdT) };
            Ok(vec![five(ApgdCe), few, one(FabT), one(Square)])
        }
        "standard" => Ok(vec![one(ApgdCe), one(ApgdT), one(FabT), one(Square)]),
        "plus" => {
            Ok(vec![five(ApgdCe), five(ApgdDlr), five(Fab), one(Square), one(ApgdT), one(FabT)])
        }
        "rand" => Ok([ApgdCe, ApgdDlr].map(|name| AttackSpec { eot: 20, ..one(name) }).to_vec()),
        "malt" => Ok(vec![one(Malt)]),
        "pma" => Ok(vec![one(Pma)]),
        "pma+" => Ok(vec![one(Pma), one(ApgdT)]),
        "quick" => Ok(quick(norm, classes)),
        _ => Err(Error::input(format!(
            "suite `{name}` is unknown: expected {}, or custom with a list of attacks",
            SUITES.join(", ")
        ))),
    }
}

/// Half of the published steps from one start, for the many that fall to it, then a little more than
/// half of them at each of the nearest classes: some 580 passes for an example that nothing breaks,
/// where the standard suite spends 9,700. L1's sparse steps need all 100 of them.
fn quick(norm: Norm, classes: i64) -> Vec<AttackSpec> {
    let with = |name, steps| AttackSpec { steps, ..published(name, classes) };
    let near = |most| {
        let malt = with(AttackName::Malt, 60);
        AttackSpec { targets: malt.targets.min(most), ..malt }
    };
    match norm {
        Norm::L1 => vec![with(AttackName::ApgdDlr, 10), with(AttackName::ApgdCe, 100), near(3)],
        Norm::Linf | Norm::L2 => vec![with(AttackName::ApgdCe, 50), near(4)],
    }
}
