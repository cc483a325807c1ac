//! Training of denoisers: resume, loss, snapshots, refusals.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use tch::{Device, Kind, Tensor};

use crate::{
    data::{
        Dataset, Layout, Pixels,
        spec::{Source, Split},
    },
    diffusion::{
        augment,
        fit::{FitSummary, check, run},
        spec::FitSpec,
    },
    error::{Error, Result},
    net::{
        Denoiser, load,
        spec::{DenoiserArch, DenoiserSpec, Precision, Precond},
    },
    progress::{Event, Progress, Silent},
    rng::Stream,
};

/// Two classes: bright and dark, 8x8.
fn data() -> Dataset {
    let mut stream = Stream::new(0, "images", 0);
    let pixels = (0..20)
        .flat_map(|image| {
            let base: u8 = if image % 2 == 0 { 200 } else { 40 };
            (0..192).map(|_| base + stream.below(16) as u8).collect::<Vec<_>>()
        })
        .collect();
    Dataset {
        name: "grey".to_owned(),
        classes: vec!["bright".to_owned(), "dark".to_owned()],
        size: (8, 8),
        layout: Layout::Chw,
        pixels: Pixels::Owned(pixels),
        labels: (0..20).map(|image| image % 2).collect(),
        soft: None,
    }
}

fn spec() -> FitSpec {
    FitSpec {
        data: Source {
            name: "grey".to_owned(),
            split: Split::Train,
            skip: 0,
            count: None,
            resolution: 8,
            fingerprint: String::new(),
        },
        network: DenoiserSpec {
            arch: DenoiserArch::Ddpmpp,
            precond: Precond::Edm,
            resolution: 8,
            classes: 2,
            channels: 8,
            channel_mult: vec![1],
            blocks: 1,
            attention: vec![],
            augment_dim: augment::LABELS,
        },
        images: 96,
        batch: 8,
        learning_rate: 2e-3,
        ramp: 16,
        ema_half_life: 32,
        ema_ramp: 0.5,
        dropout: 0.1,
        p_mean: -1.2,
        p_std: 1.2,
        augment: 0.12,
        flip: true,
        snapshot: 0,
        precision: Precision::Fp32,
        snapshot_images: 0,
        snapshot_steps: 0,
        seed: 5,
    }
}

fn fit(spec: &FitSpec, folder: &Path, progress: &dyn Progress) -> Result<FitSummary> {
    run(spec, &data(), Device::Cpu, &folder.join("work"), &folder.join("out"), progress)
}

/// Stops after some steps.
struct Stopping(AtomicU64);

impl Progress for Stopping {
    fn event(&self, _: Event) {}

    fn stopping(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
    }
}

#[test]
fn an_interrupted_training_ends_in_the_same_bytes() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = fs::read(fit(&spec(), whole.path(), &Silent).unwrap().file).unwrap();
    for steps in [5, 3] {
        let stopped = fit(&spec(), broken.path(), &Stopping(AtomicU64::new(steps)));
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert!(!broken.path().join("out/denoiser.safetensors").exists());
    }
    let done = fit(&spec(), broken.path(), &Silent).unwrap();
    assert_eq!((done.steps, done.images), (12, 96));
    assert!(fs::read(&done.file).unwrap() == expected);
    let loaded = load::load_denoiser(&done.file, Device::Cpu).unwrap();
    assert_eq!(crate::net::Denoiser::shape(&loaded), [3, 8, 8]);
    let other = FitSpec { seed: 6, ..spec() };
    let other = fit(&other, broken.path(), &Silent).unwrap();
    assert!(fs::read(other.file).unwrap() != expected, "another seed starts afresh");
}

#[test]
fn training_lowers_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let plain = FitSpec { dropout: 0.0, augment: 0.0, ..spec() };
    let loss = |images| {
        let spec = FitSpec { images, seed: images, ..plain.clone() };
        let log = fit(&spec, &folder.path().join(images.to_string()), &Silent);
        log.unwrap().loss
    };
    let (start, end) = (loss(8), loss(2400));
    assert!(end < 0.6 * start, "{start} {end}");
}

#[test]
fn misfits_are_refused_by_key() {
    let network = |classes, resolution| {
        let base = spec().network;
        FitSpec { network: DenoiserSpec { classes, resolution, ..base }, ..spec() }
    };
    for (spec, key) in [
        (network(3, 8), "network.classes"),
        (network(2, 16), "network.resolution"),
        (FitSpec { learning_rate: f64::NAN, ..spec() }, "learning_rate"),
        (FitSpec { batch: 0, ..spec() }, "batch"),
        (FitSpec { dropout: 1.0, ..spec() }, "dropout"),
    ] {
        let message = check(&spec, &data()).unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn the_best_snapshot_is_the_result_and_resume_keeps_it() {
    let spec = FitSpec { snapshot: 32, snapshot_images: 12, snapshot_steps: 3, ..spec() };
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let done = fit(&spec, whole.path(), &Silent).unwrap();
    let expected = fs::read(done.file).unwrap();
    let read = |folder: &Path, name: &str| fs::read(folder.join(name)).unwrap();
    let lines = read(whole.path(), "out/snapshots.jsonl");
    let lines: Vec<serde_json::Value> = String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let images: Vec<_> = lines.iter().map(|line| line["images"].as_u64().unwrap()).collect();
    assert_eq!(images, [32, 64, 96]);
    let least = lines.iter().map(|line| line["fid"].as_f64().unwrap()).fold(f64::MAX, f64::min);
    let best = done.best.unwrap();
    assert_eq!(best.fid.to_bits(), least.to_bits());
    // Stopped within steps and within snapshots, over and over.
    let mut stops = 0;
    while let Err(error) = fit(&spec, broken.path(), &Stopping(AtomicU64::new(3))) {
        assert!(matches!(error, Error::Interrupted), "{error}");
        stops += 1;
        assert!(stops < 50, "each call gets further");
    }
    assert!(stops > 3);
    assert!(read(broken.path(), "out/denoiser.safetensors") == expected);
    for name in ["out/last.safetensors", "out/snapshots.jsonl"] {
        assert!(read(broken.path(), name) == read(whole.path(), name), "{name}");
    }
}

#[test]
fn fp16_is_refused_and_fp32_not_spelled() {
    let half = FitSpec { precision: Precision::Fp16, ..spec() };
    let message = check(&half, &data()).unwrap_err().to_string();
    assert!(message.contains("precision is fp16: expected fp32 or bf16"), "{message}");
    let text = serde_json::to_string(&spec()).unwrap();
    assert!(!text.contains("precision"), "jobs of before keep their names: {text}");
    let folder = tempfile::tempdir().unwrap();
    let bf16 = FitSpec { precision: Precision::Bf16, ..spec() };
    let file = fit(&bf16, folder.path(), &Silent).unwrap().file;
    let sigma = Tensor::from_slice(&[0.5f64]);
    let x = Tensor::zeros([1, 3, 8, 8], (Kind::Float, Device::Cpu));
    let denoised = load::load_denoiser(&file, Device::Cpu).unwrap().denoise(&x, &sigma, None);
    assert_eq!(denoised.isfinite().all().int64_value(&[]), 1);
}
