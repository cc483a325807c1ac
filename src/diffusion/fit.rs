//! Training a denoiser by EDM's recipe (Karras et al. 2022, table 1, column "training", and
//! appendix F).
//!
//! Every random number of a step is a function of (seed, step), so an interrupted training that
//! resumes from its checkpoint ends, on one device and thread count, in the same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tch::{Device, Kind, Tensor};

use crate::{
    data::Dataset,
    diffusion::{
        adam::Adam,
        augment,
        checkpoint::{Checkpoint, Log},
        spec::FitSpec,
    },
    error::{AtPath, Error, Result},
    net::{denoiser::DenoiserNet, load},
    progress::Progress,
    rng::{Stream, torch_turn},
};

pub use super::fit_check::check;

/// Standard deviation of the data that EDM's loss and preconditioning assume.
const SIGMA_DATA: f64 = 0.5;
/// How often training is saved.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// How often the loss is read (which waits for the device) and reported.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What a training came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct FitSummary {
    /// The averaged weights.
    pub file: PathBuf,
    /// Images seen.
    pub images: u64,
    /// Steps made.
    pub steps: u64,
    /// Mean loss per pixel over the last report's steps.
    pub loss: f64,
    /// Seconds that this call trained for.
    pub seconds: f64,
    /// Images per second in this call.
    pub images_per_second: f64,
}

/// Trains `spec.network` on `data` and writes `out/denoiser.safetensors` (the averaged weights,
/// for [`load::load_denoiser`]) and `out/log.jsonl`.
///
/// # Errors
/// If the spec is impossible or does not fit the data, a file cannot be written, the loss is not
/// finite, or `progress` asks to stop; then a checkpoint stays in `work` and the next call goes on
/// from it.
pub fn run(
    spec: &FitSpec,
    data: &Dataset,
    device: Device,
    work: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<FitSummary> {
    check(spec, data)?;
    fs::create_dir_all(work).at(work)?;
    fs::create_dir_all(out).at(out)?;
    let mut training = Training::new(spec, data, device)?;
    let checkpoint = Checkpoint::new(work, spec);
    training.step = match checkpoint.load(&mut training.adam) {
        Ok(step) => step,
        Err(error) => {
            progress.warn(format!("training starts afresh: {error}"));
            0
        }
    };
    let mut log = Log::open(work, training.step * spec.batch)?;
    let steps = spec.images.div_ceil(spec.batch);
    let first = training.step;
    progress.begin("fit", spec.images, "image");
    let (started, mut saved, mut reported) = (Instant::now(), Instant::now(), Instant::now());
    let (mut losses, mut since) = (Tensor::zeros([], (Kind::Float, device)), 0);
    let mut loss = f64::NAN;
    while training.step < steps {
        if progress.stopping() {
            checkpoint.save(&training.adam, training.step)?;
            return Err(Error::Interrupted);
        }
        losses += training.advance();
        since += 1;
        if reported.elapsed() >= REPORT_EVERY || training.step == steps {
            loss = losses.double_value(&[]) / f64::from(since);
            if !loss.is_finite() {
                return Err(Error::Numerics(format!(
                    "fit: the loss is {loss} at step {}: lower learning_rate ({}) or lengthen ramp",
                    training.step, spec.learning_rate
                )));
            }
            let seconds = started.elapsed().as_secs_f64();
            let speed = ((training.step - first) * spec.batch) as f64 / seconds;
            let seen = training.step * spec.batch;
            log.write(seen, loss, speed)?;
            progress.at(seen.min(spec.images), format!("loss {loss:.4}, {speed:.0} images/s"));
            (reported, since) = (Instant::now(), 0);
            let _ = losses.zero_();
        }
        if saved.elapsed() >= SAVE_EVERY {
            checkpoint.save(&training.adam, training.step)?;
            saved = Instant::now();
        }
    }
    // Before the weights are written, so that a run stopped here has nothing left to repeat.
    checkpoint.save(&training.adam, training.step)?;
    let file = out.join("denoiser.safetensors");
    training.write(&file)?;
    log.copy_to(&out.join("log.jsonl"))?;
    let seconds = started.elapsed().as_secs_f64();
    let images = training.step * spec.batch;
    let images_per_second = ((training.step - first) * spec.batch) as f64 / seconds.max(1e-9);
    Ok(FitSummary { file, images, steps, loss, seconds, images_per_second })
}

/// A training in progress.
struct Training<'a> {
    spec: &'a FitSpec,
    data: &'a Dataset,
    device: Device,
    network: DenoiserNet,
    parameters: Vec<Tensor>,
    adam: Adam,
    /// Steps made.
    step: u64,
    /// An epoch's number and its order of images.
    order: (u64, Vec<u32>),
}

impl<'a> Training<'a> {
    fn new(spec: &'a FitSpec, data: &'a Dataset, device: Device) -> Result<Self> {
        let network = DenoiserNet::new(&spec.network, spec.seed, device)?;
        // Aliases: the optimiser moves the network's own tensors.
        let mut parameters: Vec<Tensor> =
            network.parameters().iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        let adam = Adam::adopt(&mut parameters);
        let order = (u64::MAX, Vec::new());
        Ok(Self { spec, data, device, network, parameters, adam, step: 0, order })
    }

    /// One step; gives the mean loss per pixel, `[]`.
    fn advance(&mut self) -> Tensor {
        let batch = self.batch();
        // Torch draws the masks: its generator, too, becomes a function of (seed, step).
        let _turn = (self.spec.dropout > 0.0).then(|| {
            let turn = torch_turn();
            let seed = Stream::new(self.spec.seed, "fit dropout", self.step).bits();
            tch::manual_seed((seed >> 1) as i64);
            turn
        });
        let network = &self.network;
        let denoised = network.forward(
            &(&batch.images + &batch.noise),
            &batch.sigma,
            batch.label.as_ref(),
            batch.augment.as_ref(),
            self.spec.dropout,
        );
        let loss = loss(&denoised, &batch);
        let count = self.spec.batch as f64;
        let total = loss.sum(Kind::Float) / count;
        let gradients = Tensor::run_backward(&[total], &self.parameters, false, false);
        let seen = (self.step * self.spec.batch) as f64;
        let rate = self.spec.learning_rate * (seen / (self.spec.ramp as f64).max(1e-8)).min(1.0);
        self.step += 1;
        self.adam.step(&gradients, rate, self.step);
        self.adam.average(self.decay(seen));
        loss.detach().mean(Kind::Float)
    }

    /// How much of the average a step keeps after `seen` images.
    fn decay(&self, seen: f64) -> f64 {
        let mut half_life = self.spec.ema_half_life as f64;
        if self.spec.ema_ramp > 0.0 {
            half_life = half_life.min(seen * self.spec.ema_ramp);
        }
        0.5f64.powf(self.spec.batch as f64 / half_life.max(1e-8))
    }

    /// The batch of the current step, a function of (seed, step).
    fn batch(&mut self) -> Batch {
        let (spec, device) = (self.spec, self.device);
        let indices = self.indices();
        let mut stream = Stream::new(spec.seed, "fit", self.step);
        let images = self.data.images(&indices, device) * 2.0 - 1.0;
        let (images, augment) = if spec.augment > 0.0 {
            let (images, labels) = augment::apply(&images, spec.augment, spec.flip, &mut stream);
            (images, Some(labels))
        } else if spec.flip {
            (mirror(&images, &mut stream), None)
        } else {
            (images, None)
        };
        let sigma = Tensor::from_slice(&stream.normals(indices.len())).to_device(device);
        let sigma = (sigma * spec.p_std + spec.p_mean).exp();
        let noise = Tensor::from_slice(&stream.normals(images.numel())).to_device(device);
        let noise = noise.view_as(&images) * sigma.view([-1, 1, 1, 1]);
        let label = (spec.network.classes > 0).then(|| {
            self.data.targets(&indices, device).one_hot(spec.network.classes).to_kind(Kind::Float)
        });
        Batch { images, noise, sigma, label, augment }
    }

    /// The images of the current step: every image once per epoch, in an order of its own.
    fn indices(&mut self) -> Vec<usize> {
        let count = self.data.len() as u64;
        let first = self.step * self.spec.batch;
        (first..first + self.spec.batch)
            .map(|position| {
                let epoch = position / count;
                if self.order.0 != epoch {
                    let order = Stream::new(self.spec.seed, "fit order", epoch);
                    self.order = (epoch, { order }.permutation(self.data.len()));
                }
                self.order.1[(position % count) as usize] as usize
            })
            .collect()
    }

    /// Puts the averaged weights in the place of the trained ones and writes the network.
    fn write(&self, path: &Path) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (parameter, average) in self.parameters.iter().zip(self.adam.averaged()) {
            parameter.detach().copy_(&average);
        }
        load::save_denoiser(path, &self.network)
    }
}

/// What one step learns from.
struct Batch {
    /// `[b,c,h,w]`, `Float` in `[-1, 1]`.
    images: Tensor,
    /// Noise of deviation `sigma`, of the shape of `images`.
    noise: Tensor,
    /// `[b]`.
    sigma: Tensor,
    /// One-hot `[b,k]`.
    label: Option<Tensor>,
    /// `[b,9]`.
    augment: Option<Tensor>,
}

/// The weighted squared error of every pixel, `[b,c,h,w]`.
fn loss(denoised: &Tensor, batch: &Batch) -> Tensor {
    let variance = batch.sigma.square();
    let weight = (&variance + SIGMA_DATA * SIGMA_DATA) / (&variance * (SIGMA_DATA * SIGMA_DATA));
    (denoised - &batch.images).square() * weight.view([-1, 1, 1, 1])
}

/// Mirrors each image left to right with probability one half.
fn mirror(images: &Tensor, stream: &mut Stream) -> Tensor {
    let chosen: Vec<bool> = (0..images.size()[0]).map(|_| stream.chance(0.5)).collect();
    let chosen = Tensor::from_slice(&chosen).view([-1, 1, 1, 1]).to_device(images.device());
    images.flip([3]).where_self(&chosen, images)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{
            Layout, Pixels,
            spec::{Source, Split},
        },
        net::spec::{DenoiserArch, DenoiserSpec, Precond},
        progress::{Event, Silent},
    };
    use std::sync::atomic::{AtomicU64, Ordering};

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
}
