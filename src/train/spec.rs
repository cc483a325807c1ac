//! What fixes a trained classifier. Field names are those of a suite's `train:` section.

use serde::{Deserialize, Serialize};

use crate::{data::spec::Source, net::spec::ClassifierSpec, threat::ThreatModel};

/// The training objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Cross entropy on clean images.
    Standard,
    /// Cross entropy on adversarial images (Madry et al. 2018).
    PgdAt,
    /// Zhang et al. 2019, as the paper's code has it.
    Trades,
    /// Wang et al. 2020.
    Mart,
    /// Pang et al. 2022 (LSE).
    Score,
}

/// How the learning rate moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// OneCycle per epoch with cycling momentum: the paper's.
    Cosinew,
    /// OneCycle per step, a quarter rising.
    Cyclic,
    /// Divided by ten at epochs 100 and 105.
    Step,
    /// Cosine to zero.
    Cosine,
    /// Constant.
    Constant,
}

/// Augmentation of training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// None.
    None,
    /// The data set's own: crop with padding 4 and mirror (CIFAR, TinyImageNet), none (SVHN).
    Base,
}

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// Real images (all of the split that is used, validation included).
    pub data: Source,
    /// The network.
    pub network: ClassifierSpec,
    /// What perturbations it is trained against; `None` for [`Loss::Standard`].
    pub threat: Option<ThreatModel>,
    /// How many generated images join; 0 for none.
    pub generated: u64,
    /// Share of generated images in a batch; 0 where `generated` is 0.
    pub generated_fraction: f64,
    /// The objective.
    pub loss: Loss,
    /// Weight of the robust term.
    pub beta: f64,
    /// Label smoothing.
    pub label_smoothing: f64,
    /// Steps of the crafting attack.
    pub attack_steps: u64,
    /// Step size of the crafting attack in image units; `None` is the recipe's own.
    pub attack_step_size: Option<f64>,
    /// Epochs; one epoch is ⌈N/batch⌉ steps, N the real images.
    pub epochs: u64,
    /// Batch size, real and generated together.
    pub batch: u64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Its schedule.
    pub schedule: Schedule,
    /// Weight decay (batch-norm parameters are exempt).
    pub weight_decay: f64,
    /// Momentum (overridden while a schedule cycles it).
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Largest gradient norm; `None` for no clipping.
    pub clip: Option<f64>,
    /// Decay of the weights' moving average; 0 for none.
    pub tau: f64,
    /// Augmentation.
    pub augment: Augment,
    /// How many of the first training images are held out to choose the best checkpoint.
    pub validation: u64,
    /// Validate after every so many epochs.
    pub validate_every: u64,
    /// PGD steps of the validation attack.
    pub validation_steps: u64,
    /// Seed of weights, order and noise.
    pub seed: u64,
}
