//! What a sampler costs besides its network, and images per second.
//!
//! `OMP_NUM_THREADS=1 cargo bench --profile dev --bench sampler`; the arithmetic is libtorch's in
//! any profile. Beside the official code: `tools/beside_edm.py`.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gauntlet::{
    diffusion::{
        generate::Draw,
        sampler::to_bytes,
        spec::{GenerateSpec, SamplerSpec},
    },
    net::{Denoiser, DenoiserNet, formula, spec::DenoiserSpec},
};
use tch::{Device, Kind, Tensor};

const STEPS: u64 = 18;
const CLASSES: [i64; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// A network that takes no time.
struct Free {
    image: Tensor,
}

impl Denoiser for Free {
    fn shape(&self) -> [i64; 3] {
        [3, 32, 32]
    }

    fn classes(&self) -> i64 {
        10
    }

    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }

    fn round_sigma(&self, sigma: f64) -> f64 {
        sigma
    }

    fn denoise(&self, _: &Tensor, _: &Tensor, _: Option<&Tensor>) -> Tensor {
        self.image.shallow_clone()
    }
}

/// EDM's network for CIFAR-10, or a small one.
fn network(resolution: i64, channels: i64, blocks: i64) -> DenoiserNet {
    let spec = DenoiserSpec {
        resolution,
        channels,
        channel_mult: if resolution == 32 { vec![2, 2, 2] } else { vec![1, 2] },
        blocks,
        attention: vec![resolution / 2],
        ..DenoiserSpec::edm_cifar10()
    };
    let network = DenoiserNet::new(&spec, 0, Device::Cpu).expect("sizes that go together");
    formula::fill(&network.state());
    network.frozen()
}

fn spec(batch: u64, churn: f64) -> GenerateSpec {
    GenerateSpec {
        sampler: SamplerSpec { churn, ..SamplerSpec::edm(STEPS) },
        policy: None,
        origin: None,
        seed: 0,
        classes: 10,
        start: 0,
        count: batch,
        batch,
    }
}

/// Draws one batch to its bytes.
fn drawn(spec: &GenerateSpec, denoiser: &dyn Denoiser) -> Tensor {
    let draw = Draw { spec, denoiser, device: Device::Cpu, turns: &CLASSES, origin: None };
    let indices: Vec<u64> = (0..spec.batch).collect();
    to_bytes(&draw.images(&indices))
}

/// The least of a few runs.
fn least(rounds: u32, mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let begun = Instant::now();
        run();
        begun.elapsed()
    };
    (0..rounds).map(time).min().expect("some rounds")
}

/// The sampler around a network that takes no time, and the real network alone.
fn overhead(criterion: &mut Criterion) {
    let batch = 16;
    let options = (Kind::Float, Device::Cpu);
    let free = Free { image: Tensor::zeros([batch, 3, 32, 32], options) };
    let mut group = criterion.benchmark_group("cifar10/16 images, 18 steps");
    group.throughput(Throughput::Elements(batch as u64));
    for (name, churn) in [("all but the network", 0.0), ("the same, stochastic", 40.0)] {
        let spec = spec(batch as u64, churn);
        group.bench_function(name, |b| b.iter(|| black_box(drawn(&spec, &free))));
    }
    group.finish();
    let network = network(32, 128, 4);
    let x = formula::images(&[batch, 3, 32, 32], -1.0, 1.0, Device::Cpu);
    let label = Tensor::eye(10, options).repeat([2, 1]).narrow(0, 0, batch);
    let _guard = tch::no_grad_guard();
    let evaluation = least(2, || {
        let _ = black_box(network.denoise(&x, &Tensor::from_slice(&[1f32]), Some(&label)));
    });
    for (name, churn) in [("deterministic", 0.0), ("stochastic", 40.0)] {
        let spec = spec(batch as u64, churn);
        let own = least(20, || {
            let _ = black_box(drawn(&spec, &free));
        });
        let whole = own + evaluation * (2 * STEPS as u32 - 1);
        println!(
            "cifar10 size, {name}: {:.3} s an evaluation, {:.4} images/s, {:.3}% outside the network",
            evaluation.as_secs_f64(),
            batch as f64 / whole.as_secs_f64(),
            100.0 * own.as_secs_f64() / whole.as_secs_f64(),
        );
    }
}

fn throughput(criterion: &mut Criterion) {
    let network = network(16, 32, 2);
    let mut group = criterion.benchmark_group("16x16 pixels, 32 channels, 18 steps");
    group.sample_size(10);
    group.throughput(Throughput::Elements(16));
    let spec = spec(16, 0.0);
    group.bench_function("16 images", |b| b.iter(|| black_box(drawn(&spec, &network))));
}

criterion_group!(benches, overhead, throughput);
criterion_main!(benches);
