//! The ring buffer: the same images whenever they are asked for, no more than are wanted, and
//! nobody left waiting.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use tch::{Device, Tensor};

use super::*;
use crate::{
    diffusion::{
        gaussian::Gaussian,
        spec::{GenerateSpec, SamplerSpec},
    },
    net::Denoiser,
};

const RING: Ring = Ring { capacity: 10, rate: 1.5 };
const TURNS: [i64; 3] = [0, 1, 2];

fn spec() -> GenerateSpec {
    GenerateSpec {
        sampler: SamplerSpec { churn: 10.0, ..SamplerSpec::edm(4) },
        policy: None,
        origin: None,
        seed: 3,
        classes: 3,
        start: 0,
        count: 10,
        batch: 4,
    }
}

/// A denoiser that counts its calls and takes its time, or breaks.
struct Slow {
    inner: Gaussian,
    calls: AtomicU64,
    pause: u64,
    breaks: bool,
}

fn slow(pause: u64, breaks: bool) -> Slow {
    let inner = Gaussian { mean: 0.0, deviation: 0.3, classes: 3 };
    Slow { inner, calls: AtomicU64::new(0), pause, breaks }
}

impl Denoiser for Slow {
    fn shape(&self) -> [i64; 3] {
        self.inner.shape()
    }

    fn classes(&self) -> i64 {
        3
    }

    fn sigma_range(&self) -> (f64, f64) {
        self.inner.sigma_range()
    }

    fn round_sigma(&self, sigma: f64) -> f64 {
        sigma
    }

    fn denoise(&self, x: &Tensor, sigma: &Tensor, label: Option<&Tensor>) -> Tensor {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(self.pause));
        let denoised = self.inner.denoise(x, sigma, label);
        if self.breaks && calls > 10 { denoised * f64::NAN } else { denoised }
    }
}

fn draw<'a>(spec: &'a GenerateSpec, denoiser: &'a Slow) -> Draw<'a> {
    Draw { spec, denoiser, device: Device::Cpu, turns: &TURNS, origin: None }
}

/// Label and pixels of image `index` of the set, drawn in one piece.
fn expected(index: u64) -> (u16, Vec<u8>) {
    let (spec, denoiser) = (spec(), slow(0, false));
    let first = index / 4 * 4;
    let bytes = draw(&spec, &denoiser).block(first, index..index + 1).unwrap();
    let mut chw = vec![0; 48];
    ::pixels::layout::split_channels(&bytes, &mut chw);
    ((index % 3) as u16, chw)
}

/// Takes the whole window at each of `steps` and compares; says how often the network was asked.
fn train(folder: &Path, steps: std::ops::Range<u64>, pause: (u64, u64)) -> u64 {
    let (spec, denoiser) = (spec(), slow(pause.0, false));
    let buffer = Buffer::new(&draw(&spec, &denoiser), RING, steps.start, folder).unwrap();
    thread::scope(|scope| {
        let (buffer, spec) = (&buffer, &spec);
        let sampler = scope.spawn(move || {
            buffer.fill(&draw(spec, &denoiser));
            denoiser.calls.load(Ordering::Relaxed)
        });
        let ending = buffer.ending();
        for step in steps {
            for index in RING.window(step) {
                let mut out = vec![0; 48];
                let label = buffer.take(index, &mut out).expect("drawn");
                assert_eq!((label, out), expected(index), "image {index} at step {step}");
            }
            thread::sleep(Duration::from_millis(pause.1));
            buffer.passed(step + 1);
            let held = buffer.state().blocks.len() as u64 * 4;
            assert!(held <= 10 + 12 + 2 * 4, "{held} images are held");
        }
        drop(ending);
        sampler.join().unwrap()
    })
}

#[test]
fn images_are_the_same_whoever_is_late() {
    for pause in [(0, 0), (3, 0), (0, 3)] {
        let folder = tempfile::tempdir().unwrap();
        train(folder.path(), 0..9, pause);
    }
}

#[test]
fn what_goes_on_draws_little_again_and_sees_the_same() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), 0..4, (0, 2));
    // Blocks of the window lie there still; without them the same comes of it.
    let few = train(folder.path(), 4..6, (0, 2));
    fs::remove_dir_all(folder.path()).unwrap();
    let all = train(folder.path(), 4..6, (0, 2));
    assert!(few + 14 <= all, "{few} {all}");
    // What left the buffer is gone from the folder, too.
    let blocks = fs::read_dir(folder.path()).unwrap().flatten();
    let mut numbers: Vec<u64> =
        blocks.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers[0] >= 2, "image 9 is the first of step 6: {numbers:?}");
}

#[test]
fn a_sampler_that_fails_leaves_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (spec, denoiser) = (spec(), slow(0, true));
    let buffer = Buffer::new(&draw(&spec, &denoiser), RING, 0, folder.path()).unwrap();
    thread::scope(|scope| {
        let (buffer, spec) = (&buffer, &spec);
        scope.spawn(move || {
            let _ending = buffer.ending();
            buffer.fill(&draw(spec, &denoiser));
        });
        let mut out = vec![0; 48];
        assert!(buffer.take(0, &mut out).is_some());
        assert!(buffer.take(9, &mut out).is_none());
    });
    let failure = buffer.failure().unwrap().to_string();
    assert!(failure.contains("not finite"), "{failure}");
}
