//! Trainings on images that are drawn meanwhile, and on soft labels.

use std::{fs, path::Path};

use tch::{Device, Kind, Tensor};

use super::{Supply, run::run};
use crate::{
    data::{Dataset, Pixels, Soft},
    diffusion::spec::{GenerateSpec, SamplerSpec},
    digest::JobId,
    error::{Error, Result},
    net::{
        DenoiserNet, formula,
        spec::{DenoiserArch, DenoiserSpec, Precond},
    },
    progress::{Event, Progress, Silent},
    train::{
        checkpoint, golden,
        spec::{LiveSpec, Loss, TrainSpec},
        toy,
    },
};

fn spec() -> TrainSpec {
    let mut spec = TrainSpec {
        epochs: 2,
        batch: 16,
        validation: 0,
        attack_steps: 1,
        learning_rate: 0.05,
        generated: 10,
        generated_fraction: 0.5,
        ..golden::spec()
    };
    spec.network.classes = 4;
    spec
}

fn live(rate: f64) -> TrainSpec {
    let draw = GenerateSpec {
        sampler: SamplerSpec::edm(2),
        policy: None,
        origin: None,
        seed: 1,
        classes: 4,
        start: 0,
        count: 10,
        batch: 4,
    };
    TrainSpec { live: Some(LiveSpec { rate, draw }), ..spec() }
}

fn denoiser(resolution: i64) -> DenoiserNet {
    let spec = DenoiserSpec {
        arch: DenoiserArch::Ddpmpp,
        precond: Precond::Edm,
        resolution,
        classes: 4,
        channels: 8,
        channel_mult: vec![1],
        blocks: 1,
        attention: vec![],
        augment_dim: 0,
    };
    let network = DenoiserNet::new(&spec, 0, Device::Cpu).unwrap();
    formula::fill(&network.state());
    network
}

/// Asks to stop once `at` steps are done.
struct StopAfter(u64, std::sync::atomic::AtomicU64);

impl Progress for StopAfter {
    fn event(&self, _: Event) {}

    fn stopping(&self) -> bool {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 >= self.0
    }
}

fn train(spec: &TrainSpec, folder: &Path, progress: &dyn Progress) -> Result<Vec<u8>> {
    let (real, identity) = (toy::shapes(60, 0), JobId::of(&serde_json::json!(1)));
    let supply = Supply::Live { denoiser: Box::new(denoiser(16).frozen()), identity: &identity };
    let (work, out) = (folder.join("work"), folder.join("out"));
    run(spec, &real, supply, &[Device::Cpu], &work, &out, progress)?;
    assert_eq!(fs::read_dir(&work).unwrap().flatten().filter(|e| e.path().is_dir()).count(), 0);
    Ok(fs::read(out.join("last.safetensors")).unwrap())
}

#[test]
fn a_training_beside_a_sampler_ends_the_same_wherever_it_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let expected = train(&live(3.0), &folder.path().join("whole"), &Silent).unwrap();
    let cut = folder.path().join("cut");
    for after in [1, 3] {
        let stopped = train(&live(3.0), &cut, &StopAfter(after, 0.into()));
        assert!(matches!(stopped, Err(Error::Interrupted)));
        if after == 3 {
            // Nothing that lies there is needed.
            let work = fs::read_dir(cut.join("work")).unwrap().flatten();
            let folders: Vec<_> = work.filter(|entry| entry.path().is_dir()).collect();
            fs::remove_dir_all(folders[0].path()).unwrap();
        }
    }
    assert!(train(&live(3.0), &cut, &Silent).unwrap() == expected, "cut off, other weights");
    // The rate matters: other images come.
    let other = train(&live(0.0), &folder.path().join("still"), &Silent).unwrap();
    assert!(other != expected);
}

#[test]
fn denoisers_that_do_not_fit_are_refused() {
    let (real, identity) = (toy::shapes(60, 0), JobId::of(&serde_json::json!(1)));
    let refused = |spec: &TrainSpec, supply: Supply<'_>, expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let error = run(spec, &real, supply, &[Device::Cpu], at, at, &Silent).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    let of = |edge| Supply::Live { denoiser: Box::new(denoiser(edge)), identity: &identity };
    refused(&live(1.0), of(8), "images of 8x8 pixels");
    refused(&live(1.0), Supply::Set(&[]), "live images need a denoiser");
    refused(&live(f64::NAN), of(16), "the rate is not");
    let mut few = live(1.0);
    few.network.classes = 5;
    few.live.as_mut().unwrap().draw.classes = 5;
    refused(&few, of(16), "classes is 5, but the denoiser is conditioned on 4");
}

/// Shapes with rows of probabilities: `sure` of the label, the rest of the next class.
fn soft(sure: f32) -> Dataset {
    let mut set = toy::shapes(50, 1);
    let row = |&label: &u16| {
        let mut row = [0f32; 4];
        (row[usize::from(label)], row[usize::from(label + 1) % 4]) = (sure, 1.0 - sure);
        row
    };
    let bytes = set.labels.iter().flat_map(row).flat_map(f32::to_le_bytes).collect();
    set.soft = Some(Soft::new(4, Pixels::Owned(bytes)));
    set
}

fn weights(spec: &TrainSpec, fake: &Dataset) -> Tensor {
    let folder = tempfile::tempdir().unwrap();
    let (real, at) = (toy::shapes(60, 0), folder.path());
    run(spec, &real, Supply::Set(&[fake]), &[Device::Cpu], at, at, &Silent).unwrap();
    let (tensors, _) = checkpoint::read(&at.join("last.safetensors")).unwrap();
    let flat: Vec<_> = tensors.values().map(|t| t.to_kind(Kind::Double).flatten(0, -1)).collect();
    Tensor::cat(&flat, 0)
}

#[test]
fn every_objective_follows_soft_labels_and_certain_ones_are_labels() {
    let base = TrainSpec { generated: 50, tau: 0.0, ..spec() };
    for loss in [Loss::Standard, Loss::PgdAt, Loss::Trades, Loss::Score] {
        let threat = base.threat.filter(|_| loss != Loss::Standard);
        let spec = TrainSpec { loss, threat, ..base.clone() };
        let hard = weights(&spec, &toy::shapes(50, 1));
        let off = |other: Tensor| ((other - &hard).norm() / hard.norm()).double_value(&[]);
        let (certain, unsure) = (off(weights(&spec, &soft(1.0))), off(weights(&spec, &soft(0.6))));
        // Signs of tiny gradients turn with rounding.
        assert!(certain < 1e-2 && unsure > 3.0 * certain, "{loss:?}: {certain:e} {unsure:e}");
    }
    let mixed = TrainSpec { cutmix: true, ..base.clone() };
    let apart = weights(&mixed, &soft(0.6)) - weights(&mixed, &soft(1.0));
    assert!(apart.norm().double_value(&[]) > 1e-6);
    let mart = TrainSpec { loss: Loss::Mart, ..base };
    let (real, fake, folder) = (toy::shapes(60, 0), soft(0.6), tempfile::tempdir().unwrap());
    let supply = Supply::Set(&[&fake]);
    let at = folder.path();
    let error = run(&mart, &real, supply, &[Device::Cpu], at, at, &Silent).unwrap_err();
    assert!(error.to_string().contains("mart takes one label"), "{error}");
}
