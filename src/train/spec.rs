//! What fixes a trained classifier. Field names are those of a suite's `train:` section.

use serde::{Deserialize, Serialize};

use crate::{
    data::spec::Source,
    diffusion::spec::GenerateSpec,
    error::{Error, Result},
    net::spec::{ClassifierSpec, Precision},
    threat::{Norm, ThreatModel},
};

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
    /// Cosine to zero, by epoch.
    Cosine,
    /// Linear over `warmup_epochs`, then cosine to zero, by step: DeepMind's.
    Warmcosine,
    /// Constant.
    Constant,
}

/// Which images' labels are smoothed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Smooth {
    /// Real and generated alike: the paper's.
    All,
    /// Generated ones only: DeepMind's.
    Generated,
}

/// How the crafting attack of TRADES and SCORE follows the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Craft {
    /// By its sign (L-infinity) or its direction (L2): the paper's.
    Steps,
    /// By Adam at 0.1, a tenth of that in the second half: DeepMind's.
    Adam,
}

/// Which forward passes of TRADES move batch norm's running statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tracked {
    /// The clean one, then the adversarial one: the paper's.
    Both,
    /// The adversarial one: DeepMind's.
    Adversarial,
}

/// Augmentation of training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// None.
    None,
    /// The data set's own: crop with padding 4 and mirror (CIFAR, TinyImageNet), a rotation besides
    /// (CIFAR-100), none (SVHN).
    Base,
    /// That, then Cutout.
    Cutout,
    /// That, then AutoAugment's policy for CIFAR-10 and Cutout.
    AutoAugment,
    /// RandAugment (2 operations of magnitude 14), then that.
    RandAugment,
    /// The mirror, then IDBH's `cifar10-weak`.
    Idbh,
}

/// Generated images that are drawn while training goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveSpec {
    /// Images drawn for each step of training: each takes the place of the oldest one.
    pub rate: f64,
    /// How they are drawn, from image `start` on; `count` of them are there at a time.
    pub draw: GenerateSpec,
}

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // each stands for a line of a suite
pub struct TrainSpec {
    /// Real images (all of the split that is used, validation included).
    pub data: Source,
    /// The network.
    pub network: ClassifierSpec,
    /// What perturbations it is trained against; `None` for [`Loss::Standard`].
    pub threat: Option<ThreatModel>,
    /// How many generated images join, with `live` at a time; 0 for none.
    pub generated: u64,
    /// Where they come from, unless from a set that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveSpec>,
    /// Share of generated images in a batch; 0 where `generated` is 0.
    pub generated_fraction: f64,
    /// The objective.
    pub loss: Loss,
    /// Weight of the robust term.
    pub beta: f64,
    /// Label smoothing (not in PGD-AT and MART).
    pub label_smoothing: f64,
    /// Whose labels are smoothed.
    pub smooth: Smooth,
    /// Whether batches are mixed by CutMix (four boxes for each image; TRADES and SCORE).
    pub cutmix: bool,
    /// Weight of the consistency between two views of each image (TRADES); 0 for none.
    pub consistency: f64,
    /// Temperature of the predictions that are to be consistent (the paper's 0.5).
    pub consistency_temperature: f64,
    /// SCORE: robust distances below this do not count.
    pub score_clip: f64,
    /// PGD-AT: whether the clean images join the adversarial ones.
    pub keep_clean: bool,
    /// How adversarial images are crafted.
    pub craft: Craft,
    /// Steps of the crafting attack.
    pub attack_steps: u64,
    /// Step size of the crafting attack in image units; `None` is ε/4 for L-infinity and 2ε/steps
    /// for L2 (where the paper's TRADES ignores what it is told).
    pub attack_step_size: Option<f64>,
    /// Epochs; one epoch is ⌈N/batch⌉ steps, N the real images.
    pub epochs: u64,
    /// Batch size, real and generated together.
    pub batch: u64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Its schedule.
    pub schedule: Schedule,
    /// Epochs of linear warm-up ([`Schedule::Warmcosine`]).
    pub warmup_epochs: u64,
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
    /// Share of training before the average begins (the paper's 0.025).
    pub average_warmup: f64,
    /// Momentum of batch norm's running statistics (the paper's 0.01); 1 in the very first step.
    pub batch_norm_momentum: f64,
    /// Which forward passes move them.
    pub tracked: Tracked,
    /// Images that share batch statistics, as on one of several GPUs; `None` is the whole batch.
    /// So many are in memory at once, and so many at least go to each of several devices.
    pub virtual_batch: Option<u64>,
    /// In which kind of numbers the network computes.
    pub precision: Precision,
    /// Whether the way forward is computed twice to save memory.
    pub checkpointing: bool,
    /// Augmentation.
    pub augment: Augment,
    /// How many of the first training images are held out to choose the best checkpoint.
    pub validation: u64,
    /// Validate after every so many epochs.
    pub validate_every: u64,
    /// PGD steps of the validation attack.
    pub validation_steps: u64,
    /// Its step size in image units; `None` is ε/4 for L-infinity and 15ε/128 for L2.
    pub validation_step_size: Option<f64>,
    /// Seed of weights, order and noise.
    pub seed: u64,
}

/// Share of ε that L2 attacks other than TRADES' move in a step: the paper's 15/255 at 128/255.
const L2_STEP: f64 = 15.0 / 128.0;

impl TrainSpec {
    /// Step size of the crafting attack under `threat`, in image units.
    pub fn crafting_step(&self, threat: ThreatModel) -> f64 {
        let epsilon = threat.epsilon.value();
        match (self.loss, threat.norm) {
            // The paper's code has it so, whatever step size it is told.
            (Loss::Trades | Loss::Score, Norm::L2) => {
                2.0 * epsilon / self.attack_steps.max(1) as f64
            }
            (_, Norm::L2) => self.attack_step_size.unwrap_or(epsilon * L2_STEP),
            _ => self.attack_step_size.unwrap_or(epsilon / 4.0),
        }
    }

    /// Step size of the validation attack under `threat`, in image units.
    pub fn validation_step(&self, threat: ThreatModel) -> f64 {
        let share = if threat.norm == Norm::L2 { L2_STEP } else { 0.25 };
        self.validation_step_size.unwrap_or(threat.epsilon.value() * share)
    }

    /// Images that a batch loads: CutMix repeats each of them four times.
    pub(super) fn loaded(&self) -> u64 {
        if self.cutmix { self.batch / 4 } else { self.batch }
    }

    /// Of these, generated ones.
    fn drawn(&self) -> u64 {
        (self.loaded() as f64 * self.generated_fraction) as u64
    }

    /// Whether the schedule sets the momentum too.
    fn cycles_momentum(&self) -> bool {
        matches!(self.schedule, Schedule::Cosinew | Schedule::Cyclic)
    }

    /// Refuses combinations of values that mean nothing, before anything runs.
    ///
    /// # Errors
    /// A message that names the field, its value and what is possible.
    pub fn check(&self) -> Result<()> {
        let adversarial = self.loss != Loss::Standard;
        let norm = self.threat.map(|threat| threat.norm);
        let rules = [
            (self.batch == 0, "batch: 0 images make no step; expected 1 or more".to_owned()),
            (self.epochs == 0, "epochs: 0 trains nothing; expected 1 or more".into()),
            (self.validate_every == 0, "validate_every: expected 1 or more".into()),
            (
                !(self.learning_rate > 0.0 && self.learning_rate.is_finite()),
                format!("learning_rate: {} is not a positive number", self.learning_rate),
            ),
            (
                !(0.0..=1.0).contains(&self.generated_fraction),
                format!("generated_fraction: {} is outside [0, 1]", self.generated_fraction),
            ),
            (
                self.generated == 0 && self.generated_fraction > 0.0,
                "generated_fraction: there are no generated images (generated: 0)".into(),
            ),
            (
                self.generated_fraction > 0.0 && self.drawn() == 0,
                format!(
                    "generated_fraction: {} of a batch of {} is less than one image",
                    self.generated_fraction,
                    self.loaded()
                ),
            ),
            (
                self.live.as_ref().is_some_and(|l| !(l.rate >= 0.0 && l.rate.is_finite())),
                "live: the rate is not a number of images from 0 on".into(),
            ),
            (
                self.live.is_some() && self.generated_fraction == 0.0,
                "live: generated_fraction is 0, so that no drawn image is used".into(),
            ),
            (
                !(0.0..1.0).contains(&self.label_smoothing),
                format!("label_smoothing: {} is outside [0, 1)", self.label_smoothing),
            ),
            (!(0.0..1.0).contains(&self.tau), format!("tau: {} is outside [0, 1)", self.tau)),
            (
                adversarial && self.threat.is_none(),
                "threat: adversarial training needs one; state it, or use `loss: standard`".into(),
            ),
            (
                adversarial && norm == Some(Norm::L1),
                "threat: no training objective crafts L1 perturbations; use linf or l2".into(),
            ),
            (
                self.loss == Loss::Mart && norm == Some(Norm::L2),
                "loss: mart crafts L-infinity perturbations only; use trades, pgd-at or score"
                    .into(),
            ),
            (
                self.cutmix && !matches!(self.loss, Loss::Trades | Loss::Score),
                "cutmix: only trades and score take mixed labels".into(),
            ),
            (
                self.cutmix && !self.batch.is_multiple_of(4),
                format!("cutmix: batch {} is not a multiple of 4", self.batch),
            ),
            (
                self.consistency > 0.0 && (self.loss != Loss::Trades || self.cutmix),
                "consistency: only trades without cutmix has it".into(),
            ),
            (
                self.checkpointing && !self.network.arch.starts_with("wrn-"),
                format!(
                    "checkpointing: {} has no blocks to save; only wrn-DEPTH-WIDTH networks do",
                    self.network.arch
                ),
            ),
            (
                self.schedule == Schedule::Warmcosine && self.warmup_epochs >= self.epochs,
                format!(
                    "warmup_epochs: {} leave none of the {} epochs to train in",
                    self.warmup_epochs, self.epochs
                ),
            ),
            (
                self.virtual_batch.is_some_and(|size| size < 2),
                "virtual_batch: batch statistics need 2 images or more".into(),
            ),
            (
                self.consistency > 0.0
                    && self.virtual_batch.is_some_and(|size| !size.is_multiple_of(2)),
                "virtual_batch: with consistency both views of an image go together; expected an \
                 even number"
                    .into(),
            ),
            (
                self.nesterov && self.momentum == 0.0 && !self.cycles_momentum(),
                "nesterov: needs a momentum; state train.momentum or nesterov: false".into(),
            ),
            (
                self.threat.is_some_and(|threat| threat.epsilon.value() == 0.0),
                "threat: a bound of 0 perturbs nothing; use `loss: standard`".into(),
            ),
        ];
        rules
            .into_iter()
            .find(|(broken, _)| *broken)
            .map_or(Ok(()), |(_, message)| Err(Error::input(format!("train.{message}"))))
    }
}
