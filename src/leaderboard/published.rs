//! Published results to stand beside ours, shipped with their sources.

use serde::{Deserialize, Serialize};

use crate::{
    threat::{Norm, ThreatModel},
    units::Tally,
};

/// One published result. Most are RobustBench's entries of March 2025 (their figures, MIT
/// licence); SVHN and TinyImageNet come from the papers' own tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// RobustBench's model name, or one like it.
    pub key: String,
    /// Title of the paper.
    pub title: String,
    /// Data set.
    pub dataset: String,
    /// Norm of the threat model.
    pub norm: Norm,
    /// Its bound as published: some say `0.031` for 8/255.
    pub epsilon: String,
    /// Architecture.
    pub architecture: String,
    /// Where it appeared.
    pub venue: String,
    /// Clean accuracy, in percent.
    pub clean: f64,
    /// Best known robust accuracy, in percent: what RobustBench ranks by.
    pub robust: f64,
    /// Robust accuracy under AutoAttack, in percent.
    pub autoattack: f64,
    /// Whether data beyond the training set was used.
    pub extra_data: bool,
    /// Address of the source.
    pub source: String,
    /// Whether AutoAttack's figure may be too high; `None` where nobody says.
    pub unreliable: Option<bool>,
    /// What RobustBench notes under it; may be empty.
    pub footnote: String,
}

impl Published {
    /// Whether this is Wang et al. 2023, whose recipe gauntlet follows.
    pub fn is_ours_to_match(&self) -> bool {
        self.key.starts_with("Wang2023Better")
    }

    /// How many test images the figures stand for: RobustBench attacks 10,000 of CIFAR and 5,000
    /// of ImageNet, the papers on the other sets the whole test set.
    pub fn examples(&self) -> u64 {
        match self.dataset.as_str() {
            "imagenet" => 5000,
            "svhn" => 26_032,
            _ => 10_000,
        }
    }

    /// The clean, AutoAttack and best known robust figure as counts of the examples behind them.
    pub fn tallies(&self) -> [Tally; 3] {
        let total = self.examples();
        [self.clean, self.autoattack, self.robust].map(|percent| {
            let correct = (percent / 100.0 * total as f64).round() as u64;
            Tally { correct, total }
        })
    }
}

/// All shipped results.
pub fn all() -> Vec<Published> {
    serde_json::from_str(include_str!("published.json"))
        .expect("the shipped table parses: a test reads it")
}

/// The results for a data set under a threat model, best first. Bounds that differ by
/// rounding count as the same: the literature writes 8/255 as 0.031 and 128/255 as 0.5.
pub fn matching(dataset: &str, threat: ThreatModel) -> Vec<Published> {
    let near = |text: &str| {
        super::row::number(text)
            .is_some_and(|value| (value - threat.epsilon.value()).abs() <= 0.0005 + 0.005 * value)
    };
    let mut found: Vec<_> = all()
        .into_iter()
        .filter(|one| one.dataset == dataset && one.norm == threat.norm && near(&one.epsilon))
        .collect();
    found.sort_by(|a, b| b.robust.total_cmp(&a.robust));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_holds_the_paper() {
        let linf = ThreatModel { norm: Norm::Linf, epsilon: "8/255".parse().unwrap() };
        let l2 = ThreatModel { norm: Norm::L2, epsilon: "128/255".parse().unwrap() };
        let of = |dataset: &str, threat, architecture: &str| {
            let found = matching(dataset, threat)
                .into_iter()
                .find(|one| one.is_ours_to_match() && one.architecture == architecture);
            found.map(|one| (one.clean, one.autoattack)).unwrap()
        };
        assert_eq!(of("cifar10", linf, "WideResNet-28-10"), (92.44, 67.31));
        assert_eq!(of("cifar10", linf, "WideResNet-70-16"), (93.25, 70.69));
        assert_eq!(of("cifar10", l2, "WideResNet-28-10"), (95.16, 83.68));
        assert_eq!(of("cifar100", linf, "WideResNet-70-16"), (75.22, 42.67));
        assert_eq!(of("svhn", linf, "WideResNet-28-10"), (95.56, 64.01));
        assert_eq!(of("tiny-imagenet", linf, "WideResNet-28-10"), (65.19, 31.30));
        // 93 entries at 8/255 and 6 at 0.031.
        assert_eq!(matching("cifar10", linf).len(), 99);
        let stricter = ThreatModel { norm: Norm::Linf, epsilon: "4/255".parse().unwrap() };
        assert!(matching("cifar10", stricter).is_empty());
        for one in all() {
            assert!(one.source.starts_with("http"), "{}", one.key);
            assert!(one.robust <= one.clean && one.robust <= one.autoattack, "{}", one.key);
        }
    }
}
