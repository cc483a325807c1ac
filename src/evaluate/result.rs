//! What an evaluation found.

use serde::{Deserialize, Serialize};

use crate::units::{Epsilon, Tally};

/// The stage's revision: part of job ids; it rises when results can change.
pub const REVISION: u32 = 4;

/// One example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Index in the split.
    pub index: u64,
    /// [`crate::data::Dataset::image_hash`].
    pub image_hash: String,
    /// The true class.
    pub label: i64,
    /// The class predicted for the clean image.
    pub clean_prediction: i64,
    /// Logit of the label less the largest other one, on the clean image.
    pub clean_margin: f64,
    /// The attack that broke it; `None` for robust examples and those wrong when clean.
    pub broken_by: Option<String>,
    /// The restart that broke it.
    pub restart: Option<u64>,
    /// The class that the attack aimed at.
    pub target: Option<i64>,
    /// The iteration that broke it, 0 being the start.
    pub iteration: Option<u64>,
    /// Norm of the perturbation.
    pub norm: Option<f64>,
    /// Margin on the adversarial image.
    pub adversarial_margin: Option<f64>,
    /// Forward passes spent on it.
    pub forwards: u64,
    /// Backward passes spent on it.
    pub backwards: u64,
}

impl Record {
    /// Whether the clean image is classified rightly.
    pub fn clean(&self) -> bool {
        self.clean_prediction == self.label
    }

    /// Whether it is classified rightly and no attack broke it.
    pub fn robust(&self) -> bool {
        self.clean() && self.broken_by.is_none()
    }

    /// Whether it is classified rightly and no break with a norm of at most `epsilon` is known.
    pub fn robust_at(&self, epsilon: Epsilon) -> bool {
        self.clean() && self.norm.is_none_or(|norm| norm > epsilon.value())
    }
}

/// What one attack cost and left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackCost {
    /// The attack.
    pub attack: String,
    /// Examples still robust after it (individual mode: after it alone).
    pub robust: u64,
    /// Examples still robust after it and all before it: in individual mode the cascade's view.
    #[serde(default)]
    pub worst: u64,
    /// Wall time.
    pub seconds: f64,
    /// Forward passes, counted in examples.
    pub forwards: u64,
    /// Backward passes, counted in examples.
    pub backwards: u64,
}

/// One bound of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The bound.
    pub epsilon: Epsilon,
    /// Right under every attack within it.
    pub robust: Tally,
    /// What was spent on it, after what larger bounds had shown.
    pub attacks: Vec<AttackCost>,
}

/// The whole result. That of a curve is about its largest bound; the others stand in `curve`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Examples.
    pub total: u64,
    /// Right when clean.
    pub clean: Tally,
    /// Right under every attack.
    pub robust: Tally,
    /// The attacks in the order in which they ran.
    pub attacks: Vec<AttackCost>,
    /// What the defence checks and the attacks had to say.
    pub warnings: Vec<String>,
    /// One for each example, in order.
    #[serde(default)]
    pub records: Vec<Record>,
    /// All bounds of a curve, the smallest first; empty where there is one bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<Level>,
}

impl Evaluation {
    /// Robust examples after each attack, in order.
    pub fn robust_after(&self) -> Vec<(String, u64)> {
        self.attacks.iter().map(|cost| (cost.attack.clone(), cost.robust)).collect()
    }
}
