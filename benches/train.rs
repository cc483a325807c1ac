//! One step of TRADES training: crafting, both passes, the update and the average.
//!
//! `OMP_NUM_THREADS=1 cargo bench --profile dev --bench train` (`TRAIN_BENCH=wrn-28` for the large
//! network alone, `TRAIN_BATCH=8` for another batch, `TRAIN_STEPS=4` for plain CPU times).
//! `tools/official_step.py` times the official step on the same libtorch. CPU time of either, taken
//! in turns: `tools/compare_steps.sh DM-IMPROVES-AT`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gauntlet::{
    data::spec::{Source, Split},
    net::{Mode, Network, formula, spec::ClassifierSpec},
    train::{
        layout,
        loss::{self, Examples},
        optimiser::{Rule, Weights},
        passes::Passes,
        schedule::Rate,
        spec::TrainSpec,
    },
};
use tch::{Device, Kind, Tensor};

/// The paper's recipe on CIFAR-10 under L-infinity 8/255.
fn spec(arch: &str) -> TrainSpec {
    let data = Source {
        name: "cifar10".into(),
        split: Split::Train,
        skip: 0,
        count: None,
        resolution: 32,
        fingerprint: String::new(),
    };
    let network = ClassifierSpec { arch: arch.into(), dataset: "cifar10".into(), classes: 10 };
    let recipe = serde_json::json!({
        "data": data, "network": network,
        "threat": {"norm": "linf", "epsilon": "8/255"},
        "generated": 0, "generated_fraction": 0.0, "loss": "trades", "beta": 5.0,
        "label_smoothing": 0.1, "smooth": "all", "cutmix": false, "consistency": 0.0,
        "consistency_temperature": 0.5, "score_clip": 0.0, "keep_clean": false, "craft": "steps",
        "attack_steps": 10, "attack_step_size": null, "epochs": 400, "batch": 512,
        "learning_rate": 0.2, "schedule": "cosinew", "warmup_epochs": 0, "weight_decay": 5e-4,
        "momentum": 0.9, "nesterov": true, "clip": null, "tau": 0.995, "average_warmup": 0.025,
        "batch_norm_momentum": 0.01, "tracked": "both", "virtual_batch": null, "precision": "fp32",
        "checkpointing": false, "augment": "base", "validation": 1024, "validate_every": 1,
        "validation_steps": 40, "validation_step_size": null, "seed": 1,
    });
    serde_json::from_value(recipe).expect("a whole recipe")
}

/// One step of training, as `train::run` takes it.
fn step(spec: &TrainSpec, network: &Network, weights: &mut Weights, batch: &Examples) {
    let passes = Passes::new(network, spec);
    let outcome = loss::outcome(spec, &passes, batch, Mode::Train { momentum: 0.01 });
    let gradient = weights.flat.gradient(&passes, &outcome.loss);
    let rule = Rule { weight_decay: 5e-4, nesterov: true, clip: None };
    let rate = Rate { learning_rate: 1e-4, momentum: 0.9 };
    weights.step(gradient, rate, rule, None);
    weights.move_average(0.995);
    black_box(outcome.loss.double_value(&[]));
}

fn steps(criterion: &mut Criterion) {
    // As the program does.
    gauntlet::device::keep_memory();
    let wanted = std::env::var("TRAIN_BENCH").unwrap_or_default();
    let other = std::env::var("TRAIN_BATCH").ok().and_then(|text| text.parse().ok());
    for (arch, batch) in [("wrn-10-1-swish", 64), ("wrn-28-10-swish", 4)] {
        if !arch.starts_with(&wanted) {
            continue;
        }
        let batch = other.unwrap_or(batch);
        let spec = spec(arch);
        let network = Network::new(&spec.network, 1, Device::Cpu).expect("a known architecture");
        let mut weights = Weights::of(network.parameters());
        let laid = |tensor: &Tensor| match layout::channels_last(arch, Device::Cpu) {
            true => layout::to_channels_last(tensor),
            false => tensor.copy(),
        };
        let y = Tensor::arange(batch, (Kind::Int64, Device::Cpu)).remainder(10);
        let generated = Tensor::zeros([batch], (Kind::Float, Device::Cpu));
        let shape = [batch, 3, 32, 32];
        let examples = Examples {
            x: laid(&formula::tensor(1 << 20, &shape, 0.0, 1.0)),
            target: loss::smoothed(&spec, &y.one_hot(10).to_kind(Kind::Float), &generated),
            y,
            soft: false,
            mixed: false,
            start: laid(&formula::tensor(3 << 20, &shape, -8.0 / 255.0, 8.0 / 255.0)),
        };
        if let Some(count) = std::env::var("TRAIN_STEPS").ok().and_then(|text| text.parse().ok()) {
            for _ in 0..count {
                let begun = cpu_seconds();
                step(&spec, &network, &mut weights, &examples);
                println!("{arch} {batch} gauntlet {:.4}", cpu_seconds() - begun);
            }
            continue;
        }
        let mut group = criterion.benchmark_group(format!("trades/{arch}/{batch}"));
        group.sample_size(10);
        group.bench_function("step", |bencher| {
            bencher.iter(|| step(&spec, &network, &mut weights, &examples));
        });
    }
}

/// CPU time of this process so far, all threads together (Linux).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    let nanoseconds: f64 = stat.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    nanoseconds / 1e9
}

criterion_group!(benches, steps);
criterion_main!(benches);
