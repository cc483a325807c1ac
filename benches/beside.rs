//! One round of what `tools/beside_python.py` compares with Python on the same libtorch: loading
//! a checkpoint of WRN-28-10, forward passes and input gradients, one thread, CPU seconds.
//!
//! `cargo bench --profile dev --bench beside -- CHECKPOINT BATCH [load]` prints `case seconds`.

use std::{fs, hint::black_box, path::Path, time::Instant};

use gauntlet::net::{Classifier, formula, load};
use tch::{Device, Kind, Tensor};

/// CPU seconds of this thread so far.
fn cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    let spent = text.split(' ').next().expect("nanoseconds come first");
    spent.parse::<f64>().expect("a number") * 1e-9
}

/// The largest resident size so far, in bytes.
fn peak() -> f64 {
    let text = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux says it");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("KiB") * 1024.0
}

/// Page faults of this process so far that needed no disk.
fn faults() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let (_, fields) = text.rsplit_once(')').expect("the name is in parentheses");
    fields.split_whitespace().nth(7).and_then(|count| count.parse().ok()).expect("a number")
}

/// Prints the least CPU time and wall time of `rounds` runs of `run`; the page faults so far.
fn time<T>(case: &str, rounds: usize, mut run: impl FnMut() -> T) -> f64 {
    let (mut best, mut wall) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        let (begun, started) = (Instant::now(), cpu());
        let kept = black_box(run());
        (best, wall) = (best.min(cpu() - started), wall.min(begun.elapsed().as_secs_f64()));
        drop(kept);
    }
    println!("{case} {best:.6}");
    println!("{case} (wall) {wall:.6}");
    faults()
}

fn gradient(network: &dyn Classifier, x: &Tensor) -> Tensor {
    let x = x.copy().set_requires_grad(true);
    let value = network.logits(&x).logsumexp(1, false).sum(Kind::Float);
    Tensor::run_backward(&[value], &[&x], false, false).remove(0)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [checkpoint, batch, rest @ ..] = &arguments[..] else {
        println!("needs a checkpoint; tools/beside_python.py makes one and runs this");
        return;
    };
    tch::set_num_threads(1);
    let read = || load::load_classifier(Path::new(checkpoint), None, "cifar10", Device::Cpu);
    let before = peak();
    // The first load pays for memory that the process never had; later ones find it warm.
    let (cold, first) = (faults(), time("load, first", 1, || read().expect("a good checkpoint")));
    println!("page faults of the first load {:.0}", first - cold);
    println!("peak before loading {before:.0}");
    println!("peak while loading {:.0}", peak());
    let warm = faults();
    let rounds = 7;
    let last = time("load", rounds, || read().expect("a good checkpoint"));
    println!("page faults of a later load {:.0}", (last - warm) / rounds as f64);
    if !rest.is_empty() {
        return;
    }
    let network: Box<dyn Classifier> = read().expect("a good checkpoint");
    let fused = network.fused().expect("wide networks have batch normalisation");
    let batch = batch.parse().expect("a number of images");
    let x = formula::images(&[batch, 3, 32, 32], 0.0, 1.0, Device::Cpu);
    for (name, network) in [("", &network), (", folded", &fused)] {
        let guard = tch::no_grad_guard();
        time(&format!("forward{name}"), 2, || network.logits(&x));
        drop(guard);
        time(&format!("input gradient{name}"), 2, || gradient(&**network, &x));
    }
}
