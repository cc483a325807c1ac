//! Passes as shares of the fastest convolution that this machine does: how far attacks, samplers and
//! training are from what its arithmetic allows.
//!
//! `OMP_NUM_THREADS=1 cargo bench --profile dev --bench peak` prints a Markdown table. Two operations
//! a multiplication; an input gradient repeats the forward pass's once, one for weights twice.

use std::{hint::black_box, time::Instant};

use gauntlet::{
    net::{
        Classifier, Denoiser, DenoiserNet, Mode, Network, formula,
        spec::{ClassifierSpec, DenoiserSpec},
    },
    plan::{classifier_gmacs, denoiser_gmacs},
    train::layout,
};
use tch::{Device, Kind, Tensor};

/// Billions of operations a second: the best of some seconds, since other programs only slow it.
fn rate(gmacs: f64, mut work: impl FnMut()) -> f64 {
    work();
    let begin = Instant::now();
    let mut least = f64::INFINITY;
    let mut times = 0;
    while times < 5 || begin.elapsed().as_secs_f64() < 4.0 {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed().as_secs_f64());
        times += 1;
    }
    2.0 * gmacs / least
}

/// A 3x3 convolution alone, of `channels` to as many on `side` x `side` pixels.
fn convolution(channels: i64, side: i64, laid: bool) -> f64 {
    let batch = 8;
    let _guard = tch::no_grad_guard();
    let mut x = formula::images(&[batch, channels, side, side], -1.0, 1.0, Device::Cpu);
    let mut weight = formula::images(&[channels, channels, 3, 3], -1.0, 1.0, Device::Cpu);
    if laid {
        (x, weight) = (layout::to_channels_last(&x), layout::to_channels_last(&weight));
    }
    let bias = None::<&Tensor>;
    let gmacs = (batch * side * side * channels * channels * 9) as f64 / 1e9;
    rate(gmacs, || {
        let _ = black_box(x.conv2d(&weight, bias, 1, 1, 1, 1));
    })
}

struct Table {
    peak: f64,
}

impl Table {
    fn row(&self, name: &str, batch: i64, gmacs: f64, work: impl FnMut()) {
        let found = rate(gmacs * batch as f64, work);
        println!("| {name} | {batch} | {found:.1} | {:.0}% |", 100.0 * found / self.peak);
    }
}

fn classifiers(table: &Table) {
    for (arch, batch) in [("wrn-10-1-swish", 128), ("preact-resnet18", 32), ("wrn-28-10-swish", 4)]
    {
        let spec = ClassifierSpec { arch: arch.into(), dataset: "cifar10".into(), classes: 10 };
        let gmacs = classifier_gmacs(&spec, 32);
        let network = Network::new(&spec, 0, Device::Cpu).expect("a known architecture");
        let fused = network.fused().expect("it has batch normalisation");
        let x = formula::images(&[batch, 3, 32, 32], 0.0, 1.0, Device::Cpu);
        table.row(&format!("{arch}, forward as evaluated"), batch, gmacs, || {
            let _guard = tch::no_grad_guard();
            let _ = black_box(fused.logits(&x));
        });
        table.row(&format!("{arch}, input gradient as evaluated"), batch, 2.0 * gmacs, || {
            let x = x.detach().copy().set_requires_grad(true);
            let value = fused.logits(&x).logsumexp(1, false).sum(Kind::Float);
            black_box(Tensor::run_backward(&[value], &[&x], false, false));
        });
        let laid = match layout::channels_last(arch, Device::Cpu) {
            true => layout::to_channels_last(&x),
            false => x.copy(),
        };
        table.row(&format!("{arch}, weights' gradient as trained"), batch, 3.0 * gmacs, || {
            let logits = network.forward(&laid, Mode::Train { momentum: 0.01 });
            let value = logits.logsumexp(1, false).sum(Kind::Float);
            let parameters: Vec<_> = network.parameters().iter().map(|(_, t)| t).collect();
            black_box(Tensor::run_backward(&[value], &parameters, false, false));
        });
    }
}

fn denoisers(table: &Table) {
    let edm = DenoiserSpec::edm_cifar10();
    let small = DenoiserSpec {
        channels: 32,
        channel_mult: vec![2, 3, 4],
        blocks: 1,
        attention: vec![16],
        ..edm.clone()
    };
    for (name, spec, batch) in [("DDPM++ of suites/evidence", small, 32), ("EDM's DDPM++", edm, 4)]
    {
        let network = DenoiserNet::new(&spec, 0, Device::Cpu).expect("known sizes");
        let x = formula::images(&[batch, 3, 32, 32], -1.0, 1.0, Device::Cpu);
        let sigma = Tensor::from_slice(&[1f32]);
        table.row(&format!("{name}, one sampler pass"), batch, denoiser_gmacs(&spec), || {
            let _guard = tch::no_grad_guard();
            let _ = black_box(network.denoise(&x, &sigma, None));
        });
    }
}

fn main() {
    // As the program does.
    gauntlet::device::keep_memory();
    let shapes = [(64, 32), (128, 32), (160, 32), (256, 16), (320, 16), (512, 8), (640, 8)];
    let peak = shapes
        .iter()
        .flat_map(|&(channels, side)| [false, true].map(|laid| convolution(channels, side, laid)))
        .fold(0.0, f64::max);
    let threads = tch::get_num_threads();
    println!("fastest 3x3 convolution, {threads} thread(s): {peak:.1} GFLOP/s\n");
    println!("| pass | images | GFLOP/s | of that |\n|:--|--:|--:|--:|");
    let table = Table { peak };
    classifiers(&table);
    denoisers(&table);
}
