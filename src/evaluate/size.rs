//! How many examples are attacked at once when nobody says.

use std::{fs, time::Instant};

use tch::{Device, Kind, Tensor};

use crate::net::Classifier;

/// As many pixels as these many images of CIFAR's size: enough for full speed.
const PLENTY: u64 = 128;
/// The same on a GPU.
const PLENTY_ON_GPU: u64 = 1024;
/// A step of a batch should not take longer: progress, Ctrl-C and resuming go by batches.
const STEP_SECONDS: f64 = 10.0;
/// Images that are measured.
const PROBE: i64 = 4;
/// Images whose memory is measured where the model is fast.
const MORE: i64 = 32;

/// A batch size for images `[3,h,w]` of `size` on `device`: as large as full speed needs, smaller
/// where one gradient step would take too long or `workers` batches would not fit in memory. A
/// power of two times the probe, so that small differences of speed do not change it.
pub fn automatic(
    model: &dyn Classifier,
    size: (usize, usize),
    device: Device,
    workers: usize,
) -> u64 {
    let (height, width) = (size.0 as i64, size.1 as i64);
    let plenty = if device.is_cuda() { PLENTY_ON_GPU } else { PLENTY };
    let plenty = (plenty * 32 * 32 / (size.0 * size.1) as u64).clamp(1, 1024);
    let step = |count: i64| {
        let images = Tensor::full([count, 3, height, width], 0.5, (Kind::Float, device));
        let leaf = images.set_requires_grad(true);
        let sum = tch::with_grad(|| model.logits(&leaf).sum(Kind::Float));
        if !sum.requires_grad() {
            return sum.double_value(&[]);
        }
        match Tensor::f_run_backward(&[&sum], &[&leaf], false, false) {
            Ok(mut gradients) if gradients[0].defined() => gradients.remove(0),
            _ => sum, // no gradient comes back: it will be forward passes
        }
        .sum(Kind::Float)
        .double_value(&[]) // waits for a GPU
    };
    step(1); // set-up costs of the first pass
    let mut count = PROBE;
    let mut before = peak();
    let timed = || {
        let begun = Instant::now();
        step(PROBE);
        begun.elapsed().as_secs_f64() / PROBE as f64
    };
    let mut seconds = timed();
    if seconds < 0.5 {
        // On a busy machine one fast step may have waited for its turn.
        seconds = (0..4).map(|_| timed()).fold(seconds, f64::min);
    }
    if seconds * MORE as f64 <= STEP_SECONDS / 4.0 {
        // Next to what small networks need, a library's first buffers would weigh too much.
        (before, count) = (peak(), MORE);
        step(count);
    }
    let bytes = peak().saturating_sub(before) / count as u64;
    let room = if device.is_cuda() { u64::MAX } else { available() / 2 / workers.max(1) as u64 };
    let fits =
        |batch: u64| batch as f64 * seconds <= STEP_SECONDS && batch.saturating_mul(bytes) <= room;
    let mut batch = plenty;
    while batch > PROBE as u64 && !fits(batch) {
        batch /= 2;
    }
    batch.max(1)
}

/// The most memory that this process ever held, in bytes.
pub fn peak() -> u64 {
    kilobytes("/proc/self/status", "VmHWM:") * 1024
}

/// Memory that can be had without swapping, in bytes.
fn available() -> u64 {
    match kilobytes("/proc/meminfo", "MemAvailable:") {
        0 => 4 << 30, // unknown: assume little
        found => found * 1024,
    }
}

fn kilobytes(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slow(u64);

    impl Classifier for Slow {
        fn classes(&self) -> i64 {
            2
        }

        fn logits(&self, x: &Tensor) -> Tensor {
            let wait = self.0 * x.size()[0] as u64;
            std::thread::sleep(std::time::Duration::from_millis(wait));
            x.flatten(1, -1).narrow(1, 0, 2)
        }
    }

    #[test]
    fn large_images_and_slow_models_get_small_batches() {
        let size = |model: &Slow, edge| automatic(model, (edge, edge), Device::Cpu, 1);
        assert_eq!(size(&Slow(0), 32), 128);
        assert_eq!(size(&Slow(0), 64), 32);
        assert_eq!(size(&Slow(0), 224), 2);
        assert_eq!(size(&Slow(130), 32), 64, "128 images would take over ten seconds");
        assert!(peak() > 1 << 20 && available() > 1 << 20);
    }
}
