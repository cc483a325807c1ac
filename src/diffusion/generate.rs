//! Generated sets: part after part into a work folder, then one `.npz` file.
//!
//! Image `i` is drawn in the batch that holds it when all images from 0 on are cut into batches of
//! `spec.batch`, whole, even where only a part of the batch is wanted. So its bytes depend on
//! (denoiser, sampler, seed, `i`, batch) and on nothing else: not on `start`, `count`, or where a
//! run was interrupted. Another batch size, thread count or device may round a pixel differently.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use tch::{Device, Kind, Tensor};

use crate::{
    diffusion::{
        sampler,
        set::{self, Part},
        spec::GenerateSpec,
    },
    error::{AtPath, Error, Result},
    net::Denoiser,
    progress::Progress,
    rng::Stream,
};

/// What a generation did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Generated {
    /// The set: `image` `[n,h,w,3]` bytes and `label` `[n]` int64.
    pub file: PathBuf,
    /// Images in the set.
    pub count: u64,
    /// Images drawn by this call; the others were found in the work folder.
    pub drawn: u64,
    /// Network evaluations per image.
    pub evaluations: u64,
    /// Seconds that drawing took in this call.
    pub seconds: f64,
}

/// Draws the images `spec.start..spec.start + spec.count` into `out/images.npz`, with the classes
/// taking turns: image `i` has class `i mod classes`. The images of an unconditional denoiser
/// (0 classes) all have label 0 until a classifier labels them.
///
/// # Errors
/// If the spec does not fit the denoiser, a file cannot be written, images are not finite, or
/// `progress` asks to stop; then what is done stays in `work` and the next call goes on from it.
pub fn run(
    spec: &GenerateSpec,
    denoiser: &dyn Denoiser,
    device: Device,
    work: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Generated> {
    let turns: Vec<i64> = (0..spec.classes).collect();
    run_classes(&Draw { spec, denoiser, device, turns: &turns }, work, out, progress)
}

/// What a set is drawn from.
pub struct Draw<'a> {
    /// Sampler, seed and range.
    pub spec: &'a GenerateSpec,
    /// The network.
    pub denoiser: &'a dyn Denoiser,
    /// Where it computes.
    pub device: Device,
    /// Image `i` has class `turns[i mod turns.len()]`; empty when unconditional.
    pub turns: &'a [i64],
}

/// As [`run`], with the classes of `draw.turns` taking turns.
///
/// # Errors
/// As [`run`].
pub fn run_classes(
    draw: &Draw<'_>,
    work: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Generated> {
    draw.check()?;
    let spec = draw.spec;
    let parts = draw.parts(work)?;
    if draw.turns.is_empty() {
        progress.warn("the denoiser knows no classes: every label is 0 until a classifier says");
    }
    progress.begin("generate", spec.count, "image");
    let (started, mut drawn, mut done) = (Instant::now(), 0, 0);
    for part in &parts {
        if !part.path.exists() {
            if progress.stopping() {
                return Err(Error::Interrupted);
            }
            set::write_part(part, &draw.bytes(part)?)?;
            drawn += part.count;
        }
        done += part.count;
        let seconds = started.elapsed().as_secs_f64();
        progress.at(done, format!("{:.1} images/s", drawn as f64 / seconds.max(1e-9)));
    }
    let seconds = started.elapsed().as_secs_f64();
    let labels: Vec<i64> =
        (spec.start..spec.start + spec.count).map(|index| draw.class(index)).collect();
    let [_, h, w] = draw.denoiser.shape();
    fs::create_dir_all(out).at(out)?;
    let file = out.join("images.npz");
    set::write_npz(&file, &parts, &labels, (h as usize, w as usize))?;
    let evaluations = sampler::evaluations(&spec.sampler);
    Ok(Generated { file, count: spec.count, drawn, evaluations, seconds })
}

impl Draw<'_> {
    /// Refuses what cannot be drawn, before anything is.
    ///
    /// # Errors
    /// If sampler, classes, channels or counts do not fit the denoiser.
    pub fn check(&self) -> Result<()> {
        let (spec, classes) = (self.spec, self.denoiser.classes());
        sampler::check(&spec.sampler, self.denoiser.sigma_range())?;
        if spec.classes != classes {
            return Err(Error::input(format!(
                "generate: classes is {}, but the denoiser is conditioned on {classes}",
                spec.classes
            )));
        }
        if let Some(class) = self.turns.iter().find(|class| !(0..classes).contains(*class)) {
            return Err(Error::input(format!(
                "generate: there is no class {class}: the denoiser has {classes}, counted from 0"
            )));
        }
        if classes > 0 && self.turns.is_empty() {
            return Err(Error::input("generate: no class is named"));
        }
        if self.denoiser.shape()[0] != 3 {
            return Err(Error::input(format!(
                "generate: the denoiser makes images of {} channels: sets have 3",
                self.denoiser.shape()[0]
            )));
        }
        let end = spec.start.checked_add(spec.count).and_then(|end| i64::try_from(end).ok());
        if spec.count == 0 || spec.batch == 0 || end.is_none() {
            return Err(Error::input(format!(
                "generate: start {}, count {}, batch {}: expected at least one image at a time",
                spec.start, spec.count, spec.batch
            )));
        }
        Ok(())
    }

    /// The files into which the range falls, one for each batch. They lie in a folder named after
    /// everything they depend on, so that parts of another set are never taken for this one's.
    fn parts(&self, work: &Path) -> Result<Vec<Part>> {
        let spec = self.spec;
        let identity = serde_json::json!({
            "sampler": spec.sampler, "seed": spec.seed, "batch": spec.batch,
            "turns": self.turns, "shape": self.denoiser.shape(),
        });
        let folder = work.join(format!("parts-{}", crate::digest::JobId::of(&identity).short()));
        fs::create_dir_all(&folder).at(&folder)?;
        let (mut parts, mut start) = (Vec::new(), spec.start);
        let end = spec.start + spec.count;
        while start < end {
            let stop = ((start / spec.batch + 1).saturating_mul(spec.batch)).min(end);
            let path = folder.join(format!("{start}-{stop}"));
            parts.push(Part { path, start, count: stop - start });
            start = stop;
        }
        Ok(parts)
    }

    fn class(&self, index: u64) -> i64 {
        if self.turns.is_empty() { 0 } else { self.turns[index as usize % self.turns.len()] }
    }

    /// The bytes of a part, pixel by pixel.
    fn bytes(&self, part: &Part) -> Result<Vec<u8>> {
        let batch = self.spec.batch;
        let first = part.start / batch * batch;
        let indices: Vec<u64> = (first..first + batch).collect();
        let images = self.images(&indices);
        if !images.isfinite().all().int64_value(&[]).eq(&1) {
            return Err(Error::Numerics(format!(
                "generate: images {first} to {} are not finite: is the denoiser trained?",
                first + batch - 1
            )));
        }
        let wanted = images.narrow(0, (part.start - first) as i64, part.count as i64);
        let bytes = sampler::to_bytes(&wanted.permute([0, 2, 3, 1])).contiguous();
        Ok(bytes.view([-1]).try_into().expect("bytes on the CPU"))
    }

    /// The images `indices`, `[b,c,h,w]`, `Double`, pixels around `[-1, 1]`.
    pub fn images(&self, indices: &[u64]) -> Tensor {
        let _guard = tch::no_grad_guard();
        let (spec, shape) = (self.spec, self.denoiser.shape());
        let latents = sampler::latents(spec.seed, indices, shape, self.device);
        let label = self.label(indices);
        // One stream for each image, drawn from step by step: churn, too, knows no neighbours.
        let mut streams: Vec<Stream> =
            indices.iter().map(|&index| Stream::new(spec.seed, "churn", index)).collect();
        let pixels = shape.iter().product::<i64>() as usize;
        let mut noise = |_| {
            let drawn: Vec<f32> = streams.iter_mut().flat_map(|s| s.normals(pixels)).collect();
            Tensor::from_slice(&drawn).view_as(&latents).to_device(self.device)
        };
        sampler::sample(&spec.sampler, self.denoiser, &latents, label.as_ref(), &mut noise)
    }

    /// One-hot classes `[b,k]` of the images `indices`; `None` when unconditional.
    fn label(&self, indices: &[u64]) -> Option<Tensor> {
        if self.turns.is_empty() {
            return None;
        }
        let classes: Vec<i64> = indices.iter().map(|&index| self.class(index)).collect();
        let one_hot = Tensor::from_slice(&classes).one_hot(self.denoiser.classes());
        Some(one_hot.to_kind(Kind::Float).to_device(self.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diffusion::{gaussian::Gaussian, sampler::tests::edm, spec::Solver},
        progress::{Event, Silent},
    };
    use std::sync::atomic::{AtomicU64, Ordering};

    fn spec(start: u64, count: u64) -> GenerateSpec {
        GenerateSpec {
            sampler: crate::diffusion::spec::SamplerSpec { churn: 10.0, ..edm(Solver::Heun, 5) },
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

    fn draw(spec: &GenerateSpec, progress: &dyn Progress, work: &Path) -> Result<Vec<u8>> {
        let out = work.join("out");
        let done = run(spec, &denoiser(), Device::Cpu, work, &out, progress)?;
        fs::read(&done.file).at(&done.file)
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
        let denoiser = denoiser();
        let out = broken.path().join("out");
        let done = run(&spec(0, 18), &denoiser, Device::Cpu, broken.path(), &out, &Silent).unwrap();
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
}
