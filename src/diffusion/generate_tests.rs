//! Generated sets: resume, nesting, policies, refusals.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use tch::Device;

use crate::{
    data::{Dataset, spec::Split, synthetic},
    diffusion::{
        gaussian::Gaussian,
        generate::{Draw, Generated, run},
        spec::{Applies, GenerateSpec, Per, Policy, PolicyKind, SamplerSpec},
    },
    error::{AtPath, Error, Result},
    net::Denoiser,
    progress::{Event, Progress, Silent},
};

fn spec(start: u64, count: u64) -> GenerateSpec {
    GenerateSpec {
        sampler: SamplerSpec { churn: 10.0, ..SamplerSpec::edm(5) },
        policy: None,
        origin: None,
        seed: 3,
        classes: 3,
        start,
        count,
        batch: 4,
    }
}

fn denoiser() -> Gaussian {
    Gaussian { mean: 0.0, deviation: 0.3, classes: 3 }
}

fn draw_into(spec: &GenerateSpec, progress: &dyn Progress, work: &Path) -> Result<Generated> {
    let denoiser = denoiser();
    let turns: Vec<i64> = (0..denoiser.classes()).collect();
    let draw = Draw { spec, denoiser: &denoiser, device: Device::Cpu, turns: &turns, origin: None };
    run(&draw, work, &work.join("out"), progress)
}

fn draw(spec: &GenerateSpec, progress: &dyn Progress, work: &Path) -> Result<Vec<u8>> {
    let done = draw_into(spec, progress, work)?;
    fs::read(&done.file).at(&done.file)
}

/// Arrays of an `.npz` of integers.
fn column(bytes: &[u8], name: &str) -> Vec<i64> {
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let array = npyz::NpyFile::new(zip.by_name(&format!("{name}.npy")).unwrap()).unwrap();
    array.into_vec().unwrap()
}

fn pixels(bytes: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    npyz::NpyFile::new(zip.by_name("image.npy").unwrap()).unwrap().into_vec().unwrap()
}

/// Stops after some events.
struct Stopping(AtomicU64);

impl Progress for Stopping {
    fn event(&self, _: Event) {}

    fn stopping(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
    }
}

#[test]
fn an_interrupted_set_has_the_same_bytes() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = draw(&spec(0, 18), &Silent, whole.path()).unwrap();
    let stopping = Stopping(AtomicU64::new(2));
    let first = draw(&spec(0, 18), &stopping, broken.path());
    assert!(matches!(first, Err(Error::Interrupted)));
    assert!(!broken.path().join("out/images.npz").exists());
    let done = draw_into(&spec(0, 18), &Silent, broken.path()).unwrap();
    assert_eq!(done.drawn, 10, "two parts of 4 were there");
    assert_eq!(fs::read(done.file).unwrap(), expected);
}

#[test]
fn sets_are_nested() {
    let folder = tempfile::tempdir().unwrap();
    let read = |start, count, name: &str| {
        let bytes = draw(&spec(start, count), &Silent, &folder.path().join(name)).unwrap();
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        let image = npyz::NpyFile::new(zip.by_name("image.npy").unwrap()).unwrap();
        assert_eq!(image.shape(), [count, 4, 4, 3]);
        let image: Vec<u8> = image.into_vec().unwrap();
        let label = npyz::NpyFile::new(zip.by_name("label.npy").unwrap()).unwrap();
        (image, label.into_vec::<i64>().unwrap())
    };
    let (all, labels) = read(0, 11, "all");
    let (some, some_labels) = read(3, 6, "some");
    assert_eq!(all.len(), 11 * 48);
    assert_eq!(some, all[3 * 48..9 * 48]);
    assert_eq!(some_labels, labels[3..9]);
    assert_eq!(labels[..5], [0, 1, 2, 0, 1]);
    // A label moves the Gaussian's mean by a tenth per class: 13 grey levels.
    let mean = |class: usize| {
        let of: Vec<f64> = all
            .chunks(48)
            .skip(class)
            .step_by(3)
            .flat_map(|image| image.iter().map(|&v| f64::from(v)))
            .collect();
        of.iter().sum::<f64>() / of.len() as f64
    };
    assert!(mean(2) - mean(0) > 10.0, "{} {}", mean(0), mean(2));
}

#[test]
fn misfits_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let misfits = [
        (GenerateSpec { classes: 10, ..spec(0, 4) }, "classes is 10"),
        (GenerateSpec { count: 0, ..spec(0, 4) }, "count 0"),
        (GenerateSpec { batch: 0, ..spec(0, 4) }, "batch 0"),
        (spec(u64::MAX, 4), "start"),
    ];
    for (spec, expected) in misfits {
        let message = draw(&spec, &Silent, folder.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn policies_are_recorded_and_keep_sets_nested() {
    let folder = tempfile::tempdir().unwrap();
    let policy = |applies, per| Policy {
        kind: PolicyKind::Mirrored,
        min: 1,
        max: 3,
        mirror: 0.5,
        applies,
        per,
    };
    let with = |applies, per, start, count| GenerateSpec {
        sampler: SamplerSpec::edm(6),
        policy: Some(policy(applies, per)),
        ..spec(start, count)
    };
    for (name, applies, per) in [
        ("steps", Applies::Steps, Per::Image),
        ("exit", Applies::Exit, Per::Image),
        ("batch", Applies::Steps, Per::Batch),
    ] {
        let all = draw(&with(applies, per, 0, 11), &Silent, &folder.path().join(name)).unwrap();
        let some = folder.path().join(format!("{name}-some"));
        let some = draw(&with(applies, per, 3, 6), &Silent, &some).unwrap();
        assert_eq!(pixels(&some), pixels(&all)[3 * 48..9 * 48], "{name}");
        let numbers = column(&all, "policy");
        assert_eq!(column(&some, "policy"), numbers[3..9]);
        let mirrored = column(&all, "mirrored");
        for (index, number) in numbers.iter().enumerate() {
            let range = if mirrored[index] == 1 { 4..=6 } else { 1..=3 };
            assert!(range.contains(number), "{name}: {numbers:?} {mirrored:?}");
            if per == Per::Batch {
                assert_eq!(*number, numbers[index / 4 * 4], "{numbers:?}");
            }
            assert_eq!(column(&all, "evaluations")[index], 2 * number - 1);
        }
        assert!(numbers.iter().any(|number| *number != numbers[0]));
    }
}

#[test]
fn trajectories_start_from_real_images_and_keep_their_labels() {
    let folder = tempfile::tempdir().unwrap();
    // Gaussian data is 4 by 4; so are these, the corners of drawn images.
    let drawn = synthetic::draw(Split::Train, 0, 5, 8);
    let corner: Vec<u8> = (0..5)
        .flat_map(|index| {
            let image = drawn.image(index).to_vec();
            (0..48).map(move |at| image[at / 16 * 64 + at % 16 / 4 * 8 + at % 4])
        })
        .collect();
    let real = Dataset {
        size: (4, 4),
        classes: ["a", "b", "c"].map(str::to_owned).into(),
        labels: vec![2, 0, 1, 1, 0],
        pixels: crate::data::Pixels::Owned(corner),
        ..drawn
    };
    let policy = Policy {
        kind: PolicyKind::Uniform,
        min: 18,
        max: 18,
        mirror: 0.0,
        applies: Applies::Start,
        per: Per::Image,
    };
    let sampler = SamplerSpec::edm(18);
    let spec = GenerateSpec { sampler, policy: Some(policy), ..spec(0, 7) };
    let denoiser = denoiser();
    let turns = [0, 1, 2];
    let nothing =
        Draw { spec: &spec, denoiser: &denoiser, device: Device::Cpu, turns: &turns, origin: None };
    let message = nothing.check().unwrap_err().to_string();
    assert!(message.contains("real images"), "{message}");
    let draw = Draw { origin: Some(&real), ..nothing };
    let done = run(&draw, folder.path(), &folder.path().join("out"), &Silent).unwrap();
    let bytes = fs::read(done.file).unwrap();
    assert_eq!(column(&bytes, "label"), [2, 0, 1, 1, 0, 2, 0]);
    assert_eq!(done.evaluations, 7);
    // The noise of the last step is a quarter of a grey level: the images are the real ones.
    let drawn = pixels(&bytes);
    for index in 0..7 {
        let mut chw = [0; 48];
        real.copy_chw(index % 5, &mut chw);
        for (at, byte) in drawn[index * 48..][..48].iter().enumerate() {
            let real = chw[at % 3 * 16 + at / 3];
            assert!(byte.abs_diff(real) <= 2, "{index}: {byte} {real}");
        }
    }
}
