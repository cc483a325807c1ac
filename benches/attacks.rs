//! One step of each attack: a step costs a network pass and little beside it, so each stands next
//! to the bare passes.
//!
//! `cargo bench --profile dev --bench attacks`; `OMP_NUM_THREADS=1` for comparable numbers.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gauntlet::{
    attack::{self, Batch, Bounds, Kind, Mode, Spec},
    net::{Classifier, Network, formula, spec::ClassifierSpec},
    progress::Silent,
    threat::Norm,
};
use tch::{Device, Tensor};

/// Images in a batch.
const BATCH: i64 = 32;

fn attacks(criterion: &mut Criterion) {
    let spec =
        ClassifierSpec { arch: "wrn-10-1-swish".into(), dataset: "cifar10".into(), classes: 10 };
    let network = Network::new(&spec, 0, Device::Cpu).expect("a known architecture");
    let x = formula::images(&[BATCH, 3, 32, 32], 0.0, 1.0, Device::Cpu);
    let labels = {
        let _guard = tch::no_grad_guard();
        network.logits(&x).argmax(1, false)
    };
    let mut group = criterion.benchmark_group(format!("one step, {BATCH} images"));
    group.sample_size(10);
    group.bench_function("forward alone", |bencher| {
        let _guard = tch::no_grad_guard();
        bencher.iter(|| black_box(network.logits(&x)));
    });
    let all = [Norm::Linf, Norm::L2, Norm::L1];
    let cases: [(Kind, &[Norm]); 6] = [
        (Kind::ApgdCe, &all),
        (Kind::ApgdDlr, &all[..1]),
        (Kind::ApgdTargeted, &all[..1]),
        (Kind::FabTargeted, &all),
        (Kind::Square, &all),
        (Kind::Pgd, &all[..1]),
    ];
    for (kind, norms) in cases {
        for &norm in norms {
            // So small a bound breaks nobody: the whole batch pays for its step.
            let spec = Spec {
                kind,
                steps: 1,
                restarts: 1,
                targets: 1,
                eot: 1,
                staged: false,
                norm,
                epsilon: 1e-6,
                bounds: Bounds::UNIT,
                mode: Mode::Strict,
                seed: 0,
            };
            group.bench_function(format!("{kind} {norm}"), |bencher| {
                bencher.iter(|| black_box(step(&spec, &network, (&x, &labels))));
            });
        }
    }
}

/// Clean pass, start and one step.
fn step(spec: &Spec, network: &Network, (x, labels): (&Tensor, &Tensor)) -> u64 {
    let examples: Vec<u64> = (0..BATCH as u64).collect();
    let batch = Batch { images: x, labels, examples: &examples, streams: &examples };
    let outcome = attack::run(spec, network, &batch, &Silent).expect("finite logits");
    outcome.forward.iter().sum()
}

criterion_group!(benches, attacks);
criterion_main!(benches);
