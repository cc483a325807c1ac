//! Adversarial training of classifiers, as the paper's code does it.

pub mod average;
pub mod checkpoint;
mod checks;
pub mod craft;
pub mod cutmix;
pub mod journal;
pub mod layout;
pub mod loss;
pub mod mart;
pub mod memory;
#[cfg(test)]
mod official_tests;
pub mod optimiser;
pub mod passes;
pub mod pgd;
pub mod resume;
pub mod run;
mod scaling;
pub mod schedule;
pub mod score;
pub mod spec;
mod supply;
#[cfg(test)]
mod supply_tests;
mod team;
pub mod tensorboard;
#[cfg(test)]
mod toy;
pub mod trades;
mod trainer;
pub mod validate;

pub use run::{TrainSummary, run};
pub use supply::Supply;
#[cfg(test)]
mod golden {
    //! The official code's numbers, and a spec to vary.

    use std::path::PathBuf;

    use super::spec::{Augment, Craft, Loss, Schedule, Smooth, Tracked, TrainSpec};
    use crate::net::spec::Precision;
    use crate::{
        data::spec::{Source, Split},
        net::spec::ClassifierSpec,
        threat::{Norm, ThreatModel},
        units::Epsilon,
    };

    pub(crate) fn folder() -> PathBuf {
        let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED names a folder");
        PathBuf::from(shared).join("golden")
    }

    pub(crate) fn sidecar() -> serde_json::Value {
        let text = std::fs::read_to_string(folder().join("training.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn spec() -> TrainSpec {
        TrainSpec {
            data: Source {
                name: "cifar10".into(),
                split: Split::Train,
                skip: 0,
                count: None,
                resolution: 32,
                fingerprint: String::new(),
            },
            network: ClassifierSpec {
                arch: "wrn-10-1-swish".into(),
                dataset: "cifar10".into(),
                classes: 10,
            },
            threat: Some(ThreatModel { norm: Norm::Linf, epsilon: Epsilon::new(8, 255) }),
            generated: 0,
            live: None,
            generated_fraction: 0.0,
            loss: Loss::Trades,
            beta: 5.0,
            label_smoothing: 0.1,
            smooth: Smooth::All,
            cutmix: false,
            consistency: 0.0,
            consistency_temperature: 0.5,
            score_clip: 0.0,
            keep_clean: false,
            craft: Craft::Steps,
            attack_steps: 10,
            attack_step_size: None,
            epochs: 400,
            batch: 512,
            learning_rate: 0.2,
            schedule: Schedule::Cosinew,
            warmup_epochs: 0,
            weight_decay: 5e-4,
            momentum: 0.9,
            nesterov: true,
            clip: None,
            tau: 0.995,
            average_warmup: 0.025,
            batch_norm_momentum: 0.01,
            tracked: Tracked::Both,
            virtual_batch: None,
            precision: Precision::Fp32,
            checkpointing: false,
            augment: Augment::Base,
            validation: 1024,
            validate_every: 1,
            validation_steps: 40,
            validation_step_size: None,
            seed: 1,
        }
    }
}
