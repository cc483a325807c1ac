//! Tests of whole training runs: resuming, stopping, refusing.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{
    net::spec::Precision,
    progress::{Event, Silent},
    threat::ThreatModel,
    train::{golden, toy},
    units::Epsilon,
};

fn spec() -> TrainSpec {
    let mut spec = TrainSpec {
        epochs: 3,
        batch: 16,
        validation: 8,
        validation_steps: 2,
        attack_steps: 2,
        learning_rate: 0.05,
        average_warmup: 0.1,
        ..golden::spec()
    };
    spec.network.classes = 4;
    spec
}

/// Asks to stop at the n-th look.
struct StopAt(AtomicU64);

impl Progress for StopAt {
    fn event(&self, _: Event) {}

    fn stopping(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

fn train(spec: &TrainSpec, folder: &Path, progress: &dyn Progress) -> Result<TrainSummary> {
    let (real, fake) = (toy::shapes(60, 0), toy::shapes(50, 1));
    let parts = [&fake];
    let parts: &[&Dataset] = if spec.generated > 0 { &parts } else { &[] };
    run(
        spec,
        &real,
        Supply::Set(parts),
        &[Device::Cpu],
        &folder.join("work"),
        &folder.join("out"),
        progress,
    )
}

#[test]
fn an_interrupted_run_ends_where_an_uninterrupted_one_does() {
    let spec = TrainSpec { generated: 50, generated_fraction: 0.5, ..spec() };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = train(&spec, whole.path(), &Silent).unwrap();
    let mut interruptions = 0;
    // 12 steps: stops after 1, 3, 5 more, within epochs and at their ends.
    for after in [1, 3, 5] {
        let stopped = train(&spec, parts.path(), &StopAt(AtomicU64::new(after)));
        interruptions += u64::from(matches!(stopped, Err(Error::Interrupted)));
    }
    assert_eq!(interruptions, 3);
    let summary = train(&spec, parts.path(), &Silent).unwrap();
    assert_eq!((summary.best_epoch, summary.best), (expected.best_epoch, expected.best));
    for name in ["best.safetensors", "last.safetensors"] {
        let read = |folder: &Path| fs::read(folder.join("out").join(name)).unwrap();
        assert!(read(whole.path()) == read(parts.path()), "{name} differs");
    }
    let log = |folder: &Path| {
        let text = fs::read_to_string(folder.join("out/log.jsonl")).unwrap();
        let lines = text.lines().map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["seconds"].take();
            line["images_per_second"].take();
            line["time"].take();
            line["outside"].take();
            line
        });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(log(whole.path()).len(), 3);
    // Time outside the passes is some, validation is no part of it, and speed is one number.
    let text = fs::read_to_string(whole.path().join("out/log.jsonl")).unwrap();
    let last: Line = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let [outside, waiting, saving] = last.outside.unwrap();
    assert!(outside > waiting + saving && outside < 95.0, "{outside} {waiting} {saving}");
    let ratio = last.images_per_second / expected.images_per_second;
    assert!((0.3..3.0).contains(&ratio), "{ratio}");
    assert_eq!(log(whole.path()), log(parts.path()));
    // A finished run has nothing left to do.
    assert_eq!(train(&spec, parts.path(), &Silent).unwrap().best, expected.best);
    // Nor does another recipe go on from it.
    let other = TrainSpec { beta: 4.0, ..spec };
    let message = train(&other, parts.path(), &Silent).unwrap_err().to_string();
    assert!(message.contains("checkpoint.safetensors: is the checkpoint of another recipe"));
}

/// Weights after training on so many CPUs, called devices, and the summary.
fn trained_on(spec: &TrainSpec, devices: usize) -> (Vec<Tensor>, TrainSummary) {
    let folder = tempfile::tempdir().unwrap();
    let (real, fake) = (toy::shapes(60, 0), toy::shapes(50, 1));
    let (work, out) = (folder.path().join("work"), folder.path().join("out"));
    let devices = vec![Device::Cpu; devices];
    let summary = run(spec, &real, Supply::Set(&[&fake]), &devices, &work, &out, &Silent).unwrap();
    let (tensors, _) = checkpoint::read(&out.join("last.safetensors")).unwrap();
    (tensors.into_values().collect(), summary)
}

#[test]
fn several_devices_train_what_one_trains() {
    let base = TrainSpec {
        virtual_batch: Some(5), // parts of 5, 5, 5 and 1
        generated: 50,
        generated_fraction: 0.5,
        ..spec()
    };
    // A saturated L2 step turns no sign, so rounding stays rounding through all steps.
    let l2 = ThreatModel { norm: Norm::L2, epsilon: Epsilon::new(1, 4) };
    for spec in [
        TrainSpec { threat: Some(l2), ..base.clone() },
        TrainSpec { threat: Some(l2), loss: Loss::PgdAt, ..base.clone() },
        TrainSpec { threat: Some(l2), consistency: 1.0, virtual_batch: Some(8), ..base.clone() },
    ] {
        let (one, summary) = trained_on(&spec, 1);
        for devices in [2, 3] {
            let (several, other) = trained_on(&spec, devices);
            for (a, b) in one.iter().zip(&several) {
                let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
                let off = (&a - &b).norm().double_value(&[]) / a.norm().double_value(&[]).max(1e-3);
                assert!(off < 1e-3, "{:?} on {devices}: {off}", spec.loss);
            }
            assert_eq!(summary.epochs, other.epochs);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let real = toy::shapes(60, 0);
    let whole = TrainSpec { virtual_batch: None, generated: 0, generated_fraction: 0.0, ..base };
    let two = [Device::Cpu; 2];
    let error = run(&whole, &real, Supply::Set(&[]), &two, folder.path(), folder.path(), &Silent)
        .unwrap_err();
    assert!(error.to_string().contains("train.virtual_batch=8"), "{error}");
}

#[test]
fn every_objective_learns() {
    let base = TrainSpec { epochs: 5, average_warmup: 0.5, ..spec() };
    let of = |loss| TrainSpec { loss, ..base.clone() };
    for spec in [
        TrainSpec { threat: None, ..of(Loss::Standard) },
        of(Loss::Trades),
        of(Loss::PgdAt),
        TrainSpec { keep_clean: true, ..of(Loss::PgdAt) },
        of(Loss::Mart),
        of(Loss::Score),
        TrainSpec { cutmix: true, ..base.clone() },
        TrainSpec { consistency: 1.0, ..base.clone() },
        TrainSpec { virtual_batch: Some(8), checkpointing: true, ..base.clone() },
        TrainSpec { precision: Precision::Bf16, ..base.clone() },
        TrainSpec { precision: Precision::Fp16, ..base.clone() },
        TrainSpec { craft: super::super::spec::Craft::Adam, ..base.clone() },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let summary = train(&spec, folder.path(), &Silent).unwrap();
        let log = fs::read_to_string(folder.path().join("out/log.jsonl")).unwrap();
        let losses: Vec<f64> = log
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap()
            })
            .collect();
        assert_eq!(losses.len(), 5);
        assert!(losses[4] < losses[0], "{:?} {losses:?}", spec.loss);
        assert_eq!(summary.last.unwrap().robust.is_some(), spec.loss != Loss::Standard);
    }
}

#[test]
fn a_loss_that_explodes_stops_and_names_the_step() {
    let spec = TrainSpec {
        learning_rate: 1e20,
        schedule: super::super::spec::Schedule::Constant,
        ..spec()
    };
    let folder = tempfile::tempdir().unwrap();
    let error = train(&spec, folder.path(), &Silent).unwrap_err();
    let Error::Numerics(text) = error else { panic!("{error}") };
    for part in ["at step ", "begins with Real(", "There is no checkpoint yet"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!folder.path().join("work/checkpoint.safetensors").exists());
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |spec: TrainSpec, word: &str| {
        let folder = tempfile::tempdir().unwrap();
        let message = train(&spec, folder.path(), &Silent).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    };
    refused(TrainSpec { threat: None, ..spec() }, "train.threat");
    refused(TrainSpec { validation: 60, ..spec() }, "train.validation");
    refused(TrainSpec { generated: 51, generated_fraction: 0.5, ..spec() }, "train.generated");
    refused(TrainSpec { generated_fraction: 0.5, ..spec() }, "train.generated_fraction");
    refused(TrainSpec { batch: 0, ..spec() }, "train.batch");
    let mut few = spec();
    few.network.classes = 3;
    refused(few, "4 classes");
}

#[test]
fn files_say_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let spec = TrainSpec { epochs: 1, ..spec() };
    train(&spec, folder.path(), &Silent).unwrap();
    let (tensors, words) = checkpoint::read(&folder.path().join("out/best.safetensors")).unwrap();
    assert_eq!((words["kind"].as_str(), words["arch"].as_str()), ("classifier", "wrn-10-1-swish"));
    assert_eq!((words["dataset"].as_str(), words["classes"].as_str()), ("cifar10", "4"));
    let network = crate::net::Network::blank(&spec.network, Device::Cpu).unwrap();
    network.load(&tensors).unwrap();
}
