//! The objectives against the official code in settings that differ in everything: see
//! `tools/golden_training.py`, which wrote the numbers.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::{
    craft::SMALL,
    golden,
    loss::{self, Examples},
    passes::Passes,
    pgd::{Pgd, margin},
    spec::{Loss, TrainSpec},
};
use crate::{
    net::{Mode, Network, formula},
    threat::{Norm, ThreatModel},
};

#[derive(Debug, Deserialize)]
struct Case {
    loss: String,
    arch: String,
    dataset: String,
    classes: i64,
    norm: String,
    epsilon: String,
    beta: f64,
    ls: f64,
    steps: u64,
    step_size: f64,
    #[serde(default)]
    cutmix: bool,
    #[serde(default)]
    consistency: f64,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    clip: f64,
    #[serde(default)]
    keep_clean: bool,
    expected: Expected,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Expected {
    loss: f64,
    /// Length, and product with a formula.
    gradients: BTreeMap<String, [f64; 2]>,
    /// Lengths of running statistics.
    running: BTreeMap<String, f64>,
    logits: Vec<f32>,
}

fn cases() -> BTreeMap<String, Case> {
    serde_json::from_str(include_str!("official.json")).unwrap()
}

fn spec(case: &Case) -> TrainSpec {
    let mut spec = TrainSpec {
        threat: Some(ThreatModel {
            norm: case.norm.parse().unwrap(),
            epsilon: case.epsilon.parse().unwrap(),
        }),
        loss: match case.loss.as_str() {
            "trades" => Loss::Trades,
            "score" => Loss::Score,
            "mart" => Loss::Mart,
            "pgd-at" => Loss::PgdAt,
            _ => Loss::Standard,
        },
        beta: case.beta,
        // What planning makes of plain training.
        label_smoothing: if case.loss == "standard" { 0.0 } else { case.ls },
        cutmix: case.cutmix,
        consistency: case.consistency,
        consistency_temperature: case.temperature.unwrap_or(0.5),
        score_clip: case.clip,
        keep_clean: case.keep_clean,
        attack_steps: case.steps,
        attack_step_size: Some(case.step_size),
        ..golden::spec()
    };
    spec.network.arch.clone_from(&case.arch);
    spec.network.dataset.clone_from(&case.dataset);
    spec.network.classes = case.classes;
    spec
}

fn network(spec: &TrainSpec) -> Network {
    let network = Network::blank(&spec.network, Device::Cpu).unwrap();
    formula::fill(&network.state());
    network
}

fn images() -> Tensor {
    formula::tensor(1 << 20, &[8, 3, 32, 32], -0.4, 1.4).clamp(0.0, 1.0)
}

/// Noise of the kind that training draws, from the formula.
fn noise(bound: f64) -> Tensor {
    formula::tensor(3 << 20, &[8, 3, 32, 32], -bound, bound)
}

fn batch(case: &Case, spec: &TrainSpec) -> Examples {
    let x = images();
    let mut y = Tensor::arange(8, (Kind::Int64, Device::Cpu)) * 3;
    y = y.remainder(case.classes);
    if case.consistency > 0.0 {
        y = y.narrow(0, 0, 4).repeat([2i64]);
    }
    let generated = Tensor::zeros([8], (Kind::Float, Device::Cpu));
    let one_hot = y.one_hot(case.classes).to_kind(Kind::Float);
    let mut target = loss::smoothed(spec, &one_hot, &generated);
    if case.cutmix {
        target = &one_hot * 0.7 + one_hot.roll([1i64].as_slice(), [0i64].as_slice()) * 0.3;
    }
    let threat = spec.threat.unwrap();
    let start = match (spec.loss, threat.norm) {
        (Loss::PgdAt, _) => loss::pgd(spec, threat).start(&x, &noise(1.0)),
        (Loss::Mart, _) | (_, Norm::L2) => noise(3f64.sqrt()) * SMALL,
        _ => noise(1.0) * threat.epsilon.value(),
    };
    Examples { x, y, target, soft: false, mixed: case.cutmix, start }
}

#[test]
fn objectives_match_the_official_code_in_many_settings() {
    let mut seen = 0;
    for (name, case) in cases().iter().filter(|(_, case)| case.loss != "validation") {
        let spec = spec(case);
        let network = network(&spec);
        let passes = Passes::new(&network, &spec);
        let outcome =
            loss::outcome(&spec, &passes, &batch(case, &spec), Mode::Train { momentum: 0.01 });
        let value = outcome.loss.double_value(&[]);
        let expected = &case.expected;
        println!("{name}: {value} for {}", expected.loss);
        assert!((value - expected.loss).abs() < 1e-5 * value.abs().max(0.1), "{name}: {value}");
        let tensors: Vec<_> =
            network.parameters().iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        let gradients = passes.gradient(&outcome.loss, &tensors);
        assert_eq!(gradients.len(), expected.gradients.len(), "{name}");
        let longest = expected.gradients.values().map(|[length, _]| *length).fold(0.0, f64::max);
        for ((parameter, _), gradient) in network.parameters().iter().zip(&gradients) {
            let [length, product] = expected.gradients[parameter];
            let probe = formula::tensor(5 << 20, &gradient.size(), -1.0, 1.0);
            let found = (gradient * probe).sum(Kind::Double).double_value(&[]);
            let own = gradient.to_kind(Kind::Double).norm().double_value(&[]);
            // A gradient that should vanish (that of a shift before a normalisation) is rounding.
            let bound = 5e-4 * length + 1e-6 * longest;
            assert!((own - length).abs() < bound, "{name}, {parameter}: {own} for {length}");
            assert!((found - product).abs() < 4.0 * bound, "{name}, {parameter}: {found}");
        }
        for (buffer, tensor) in network.buffers() {
            let Some(length) = expected.running.get(buffer) else { continue };
            let own = tensor.to_kind(Kind::Double).norm().double_value(&[]);
            assert!((own - length).abs() < 1e-5 * length, "{name}, {buffer}: {own} for {length}");
        }
        seen += 1;
    }
    assert_eq!(seen, 16);
}

#[test]
fn validation_matches_the_official_attack() {
    let mut seen = 0;
    for (name, case) in cases().iter().filter(|(_, case)| case.loss == "validation") {
        let spec = spec(case);
        let network = network(&spec);
        let passes = Passes::exact(&network, &spec);
        let (x, threat) = (images(), spec.threat.unwrap());
        let y = passes.seen(&x, Mode::Eval).argmax(1, false);
        let attack = Pgd { threat, steps: case.steps, step_size: case.step_size };
        let found = attack.run(&x, &attack.start(&x, &noise(1.0)), &|x| {
            passes.slope(x, Mode::Eval, &|logits| margin(logits, &y))
        });
        let logits = passes.seen(&found, Mode::Eval).flatten(0, -1);
        let expected = Tensor::from_slice(&case.expected.logits);
        let off = (&logits - &expected).abs().max().double_value(&[]);
        assert!(off < 1e-3, "{name}: {off}");
        assert_eq!(case.expected.logits.len(), 80);
        seen += 1;
    }
    assert_eq!(seen, 2);
}
