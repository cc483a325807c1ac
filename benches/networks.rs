//! Forward passes and input gradients: what attacks and samplers spend their time on.
//!
//! `cargo bench --profile dev --bench networks` avoids building libtorch's bindings anew; the
//! arithmetic is libtorch's either way. `OMP_NUM_THREADS=1` for comparable numbers.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gauntlet::net::{
    Classifier, Denoiser, DenoiserNet, Mode, Network, formula, load_classifier, save_classifier,
    spec::{ClassifierSpec, DenoiserSpec},
};
use tch::{Device, Kind, Tensor};

fn classifiers(criterion: &mut Criterion) {
    for (arch, batch) in [("wrn-10-1-swish", 32), ("wrn-28-10-swish", 4)] {
        let spec = ClassifierSpec { arch: arch.into(), dataset: "cifar10".into(), classes: 10 };
        let network = Network::new(&spec, 0, Device::Cpu).expect("a known architecture");
        let x = formula::images(&[batch, 3, 32, 32], 0.0, 1.0, Device::Cpu);
        let mut group = criterion.benchmark_group(format!("{arch}/{batch}"));
        group.sample_size(10);
        group.bench_function("forward", |bencher| {
            let _guard = tch::no_grad_guard();
            bencher.iter(|| black_box(network.logits(&x)));
        });
        let fused = network.fused().expect("wide networks have batch normalisation");
        group.bench_function("forward, folded", |bencher| {
            let _guard = tch::no_grad_guard();
            bencher.iter(|| black_box(fused.logits(&x)));
        });
        let gradient = |network: &dyn Classifier| {
            let x = x.detach().copy().set_requires_grad(true);
            let value = network.logits(&x).logsumexp(1, false).sum(Kind::Float);
            black_box(Tensor::run_backward(&[value], &[&x], false, false))
        };
        group.bench_function("input gradient", |b| b.iter(|| gradient(&network)));
        group.bench_function("input gradient, folded", |b| b.iter(|| gradient(&*fused)));
        group.bench_function("parameter gradient", |bencher| {
            bencher.iter(|| {
                let logits = network.forward(&x, Mode::Train { momentum: 0.01 });
                let value = logits.logsumexp(1, false).sum(Kind::Float);
                let parameters: Vec<_> = network.parameters().iter().map(|(_, t)| t).collect();
                black_box(Tensor::run_backward(&[value], &parameters, false, false))
            });
        });
    }
}

/// Beside Python as a ratio, of a checkpoint of torch: `tools/beside_python.py`.
fn loading(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder to write to");
    let path = folder.path().join("wrn-28-10.safetensors");
    let arch = "wrn-28-10-swish".to_owned();
    let spec = ClassifierSpec { arch, dataset: "cifar10".into(), classes: 10 };
    let network = Network::new(&spec, 0, Device::Cpu).expect("a known architecture");
    save_classifier(&path, &network).expect("room for 146 MB");
    let mut group = criterion.benchmark_group("wrn-28-10-swish");
    group.sample_size(10);
    group.bench_function("load", |bencher| {
        bencher.iter(|| load_classifier(&path, None, "cifar10", Device::Cpu).expect("just saved"));
    });
}

fn denoisers(criterion: &mut Criterion) {
    let spec = DenoiserSpec::edm_cifar10();
    let network = DenoiserNet::new(&spec, 0, Device::Cpu).expect("EDM's own sizes");
    let x = formula::images(&[2, 3, 32, 32], -1.0, 1.0, Device::Cpu);
    let sigma = Tensor::from_slice(&[1f32]);
    let mut group = criterion.benchmark_group("ddpmpp-cifar10/2");
    group.sample_size(10);
    group.bench_function("denoise", |bencher| {
        let _guard = tch::no_grad_guard();
        bencher.iter(|| black_box(network.denoise(&x, &sigma, None)));
    });
}

criterion_group!(benches, loading, classifiers, denoisers);
criterion_main!(benches);
