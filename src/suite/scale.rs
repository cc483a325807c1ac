//! `--scale tiny`: a whole suite in miniature. Networks, counts and epochs shrink, the grid stays:
//! the same cells under the same labels, so that every suite can be seen to run to its report.

use crate::suite::{
    settings::{Origin, Settings},
    value::{NamedAttack, Value},
};

/// How small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Seconds for each job on a CPU. The numbers mean nothing.
    Tiny,
}

impl Scale {
    /// Shrinks the settings of one cell.
    pub fn apply(self, settings: &mut Settings) {
        let Self::Tiny = self;
        let counts: [(&str, &dyn Fn(u64) -> u64); 27] = [
            ("data.train.count", &|count| count.min(32)),
            ("data.test.count", &|count| count.min(8)),
            ("denoiser.channels", &|count| count.min(8)),
            ("denoiser.blocks", &|count| count.min(1)),
            ("denoiser.images", &|count| count.min(32)),
            ("denoiser.batch", &|count| count.min(16)),
            ("denoiser.ramp", &|count| count.min(64)),
            ("denoiser.ema_half_life", &|count| count.min(64)),
            ("sampler.steps", &|count| count.min(40).div_ceil(5)),
            ("policy.min", &|count| count.min(40).div_ceil(5)),
            ("policy.max", &|count| count.min(40).div_ceil(5)),
            ("generated.count", &images),
            ("generated.drawn", &images),
            ("generated.shard", &|count| count),
            ("generated.batch", &|count| count.min(32)),
            ("train.attack_steps", &|count| count.min(2)),
            ("train.epochs", &|count| 1 + count / 400),
            ("train.warmup_epochs", &|count| count.min(1)),
            ("train.batch", &|count| (count / 64).clamp(2, 32)),
            ("train.validation", &|count| count.min(4)),
            ("train.validation_steps", &|count| count.min(1)),
            ("evaluate.steps", &|count| count.min(2)),
            ("evaluate.queries", &|count| count.min(4)),
            ("evaluate.restarts", &|count| count.min(1)),
            ("evaluate.targets", &|count| count.min(1)),
            ("evaluate.batch", &|count| count.min(8)),
            ("train.virtual_batch", &|count| count.min(4)),
        ];
        for (path, smaller) in counts {
            // What is not given stands for the published number, which is larger than any here.
            let absent = match path {
                "train.virtual_batch" | "policy.max" | "generated.drawn" => None,
                _ => Some(1 << 20),
            };
            if let Some(before) = settings.optional_count(path).or(absent) {
                put(settings, path, Value::Count(smaller(before)));
            }
        }
        let rate = settings.real("generated.rate").min(2.0);
        put(settings, "generated.rate", Value::Real(rate));
        put(settings, "denoiser.channel_mult", Value::Counts(vec![1, 2]));
        put(settings, "denoiser.attention", Value::Counts(Vec::new()));
        if let Some(arch) = settings.text("train.arch").map(network) {
            put(settings, "train.arch", Value::Text(arch));
        }
        if let Some(attacks) = settings.attacks("evaluate.attacks") {
            let attacks = attacks.iter().map(attack).collect();
            put(settings, "evaluate.attacks", Value::Attacks(attacks));
        }
    }
}

/// Notes the change, unless it is none.
fn put(settings: &mut Settings, path: &str, value: Value) {
    if settings.get(path).value != value {
        settings.put(path, value, Origin::Scale);
    }
}

/// Generated images: none stays none, and a larger set stays larger.
fn images(count: u64) -> u64 {
    match count {
        0..=8 => count,
        _ => 6 + u64::from(count.ilog2()),
    }
}

/// The smallest network of the same kind.
fn network(arch: &str) -> String {
    let suffix = if arch.contains("-swish") { "-swish" } else { "" };
    let mut parts = arch.split('-');
    match (parts.next(), parts.nth(1).and_then(|width| width.parse::<u64>().ok())) {
        (Some("wrn"), Some(width)) if width > 10 => format!("wrn-10-2{suffix}"),
        (Some("wrn" | "preact"), _) => format!("wrn-10-1{suffix}"),
        _ => arch.to_owned(),
    }
}

fn attack(attack: &NamedAttack) -> NamedAttack {
    NamedAttack {
        name: attack.name.clone(),
        steps: attack.steps.map(|steps| steps.min(4)),
        restarts: attack.restarts.map(|restarts| restarts.min(1)),
        targets: attack.targets.map(|targets| targets.min(1)),
        eot: attack.eot.map(|eot| eot.min(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_shrinks_and_order_stays() {
        let mut settings = Settings::layered(&[], &[]);
        Scale::Tiny.apply(&mut settings);
        assert_eq!(settings.text("train.arch"), Some("wrn-10-1-swish"));
        assert_eq!(settings.get("train.epochs").origin, Origin::Scale);
        assert!(settings.count("denoiser.images") < 1000);
        assert_eq!(settings.count("generated.count"), 0);
        let counts = [0, 50_000, 100_000, 1_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000];
        let small = counts.map(images);
        assert!(small.windows(2).all(|pair| pair[0] < pair[1]), "{small:?}");
        assert!(small[7] < 40);
    }
}
