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
    device::upload,
    diffusion::{
        adam::Adam,
        augment,
        checkpoint::{Checkpoint, Log},
        features::Extractor,
        snapshot::{Snapshot, Snapshots},
        spec::FitSpec,
    },
    error::{AtPath, Error, Result},
    net::{denoiser::DenoiserNet, load},
    progress::{Progress, checkpoint_period},
    rng::{Stream, torch_turn},
};

pub use super::fit_check::check;

/// Standard deviation of the data that EDM's loss and preconditioning assume.
const SIGMA_DATA: f64 = 0.5;
/// How often training is saved, unless saving takes long: then for every second that it takes
/// training goes on for twenty, or [`checkpoint_period`] says otherwise.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// How often the loss is read (which waits for the device) and reported.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Images of up to so many bytes stay on a GPU while it trains.
const RESIDENT: usize = 4 << 30;

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
    /// The snapshot that `file` holds, where any were taken.
    pub best: Option<Snapshot>,
}

/// Trains `spec.network` on `data` and writes `out/denoiser.safetensors` (the averaged weights,
/// for [`load::load_denoiser`]; with snapshots those of the best) and `out/log.jsonl`; with
/// snapshots also `out/last.safetensors` and `out/snapshots.jsonl`.
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
    let judge = Extractor::filters(device);
    run_judged(&Fit { spec, data, device, judge: &judge }, work, out, progress)
}

/// What a training is made of.
#[derive(Debug, Clone, Copy)]
pub struct Fit<'a> {
    /// Network and recipe.
    pub spec: &'a FitSpec,
    /// Images to learn from.
    pub data: &'a Dataset,
    /// Where to compute.
    pub device: Device,
    /// In whose features snapshots are judged.
    pub judge: &'a Extractor,
}

/// As [`run`], with a choice of features for snapshots.
///
/// # Errors
/// As [`run`].
pub fn run_judged(
    fit: &Fit<'_>,
    work: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<FitSummary> {
    let Fit { spec, data, device, judge } = *fit;
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
    let seen = training.step * spec.batch;
    let mut snapshots = Snapshots::open(spec, data, judge, device, work, seen);
    let steps = spec.images.div_ceil(spec.batch);
    let first = training.step;
    progress.begin("fit", spec.images, "image");
    let (started, mut saved, mut reported) = (Instant::now(), Instant::now(), Instant::now());
    let period = checkpoint_period()?;
    let (mut pause, mut since) = (period.unwrap_or(SAVE_EVERY), 0);
    let mut losses = Tensor::zeros([], (Kind::Float, device));
    let mut loss = f64::NAN;
    loop {
        if snapshots.due(training.step) {
            checkpoint.save(&training.adam, training.step)?;
            snapshots.take(&training.averaged()?, training.step * spec.batch, progress)?;
            saved = Instant::now();
        }
        if training.step == steps {
            break;
        }
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
        if saved.elapsed() >= pause {
            let began = Instant::now();
            checkpoint.save(&training.adam, training.step)?;
            pause = period.unwrap_or_else(|| SAVE_EVERY.max(began.elapsed() * 20));
            saved = Instant::now();
        }
    }
    // Before the weights are written, so that a run stopped here has nothing left to repeat.
    checkpoint.save(&training.adam, training.step)?;
    let file = out.join("denoiser.safetensors");
    let best = snapshots.best().cloned();
    if best.is_some() {
        load::save_denoiser(&out.join("last.safetensors"), &training.averaged()?)?;
        snapshots.finish(&file, out)?;
    } else {
        load::save_denoiser(&file, &training.averaged()?)?;
    }
    log.copy_to(&out.join("log.jsonl"))?;
    let seconds = started.elapsed().as_secs_f64();
    let images = training.step * spec.batch;
    let images_per_second = ((training.step - first) * spec.batch) as f64 / seconds.max(1e-9);
    Ok(FitSummary { file, images, steps, loss, seconds, images_per_second, best })
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
    /// All images `[n,3,h,w]`, `Uint8`, on a GPU that has room for them: a core gathers slower than
    /// a GPU trains.
    resident: Option<Tensor>,
}

impl<'a> Training<'a> {
    fn new(spec: &'a FitSpec, data: &'a Dataset, device: Device) -> Result<Self> {
        let network = DenoiserNet::new(&spec.network, spec.seed, device)?;
        // Aliases: the optimiser moves the network's own tensors.
        let mut parameters: Vec<Tensor> =
            network.parameters().iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        // What turns noise levels and labels into an embedding is small and stays whole.
        let rounds: Vec<bool> = network
            .parameters()
            .iter()
            .map(|(name, _)| !name.contains(".map_") && !name.contains(".affine."))
            .collect();
        let adam = Adam::adopt(&mut parameters, spec.precision.kind(), &rounds);
        let order = (u64::MAX, Vec::new());
        let bytes = data.len() * data.image_bytes();
        let resident = (device.is_cuda() && bytes <= RESIDENT)
            .then(|| data.bytes(&(0..data.len()).collect::<Vec<_>>(), device));
        Ok(Self { spec, data, device, network, parameters, adam, step: 0, order, resident })
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
            self.spec.precision,
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
        let images = match &self.resident {
            Some(all) => {
                let places: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
                let places = upload(&Tensor::from_slice(&places), device);
                all.index_select(0, &places).to_kind(Kind::Float) / 255.0
            }
            None => self.data.images(&indices, device),
        };
        let images = images * 2.0 - 1.0;
        let (images, augment) = if spec.augment > 0.0 {
            let (images, labels) = augment::apply(&images, spec.augment, spec.flip, &mut stream);
            (images, Some(labels))
        } else if spec.flip {
            (mirror(&images, &mut stream), None)
        } else {
            (images, None)
        };
        let sigma = upload(&Tensor::from_slice(&stream.normals(indices.len())), device);
        let sigma = (sigma * spec.p_std + spec.p_mean).exp();
        let noise = if device.is_cuda() {
            // A core draws slower than a GPU trains: the GPU draws for itself, seeded alike.
            let _turn = torch_turn();
            tch::manual_seed((stream.bits() >> 1) as i64);
            images.randn_like()
        } else {
            Tensor::from_slice(&stream.normals(images.numel())).view_as(&images)
        };
        let noise = noise * sigma.view([-1, 1, 1, 1]);
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

    /// A network of the averaged weights as they are now.
    fn averaged(&self) -> Result<DenoiserNet> {
        let network = DenoiserNet::blank(self.network.architecture().clone(), self.device)?;
        let names = self.network.parameters().iter().map(|(name, _)| name.clone());
        let named = names.zip(self.adam.averaged());
        let buffers = self.network.buffers().iter();
        // Aliases: `load` copies.
        let buffers = buffers.map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        network.load(&named.chain(buffers).collect())?;
        Ok(network.frozen())
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
    let chosen = upload(&Tensor::from_slice(&chosen).view([-1, 1, 1, 1]), images.device());
    images.flip([3]).where_self(&chosen, images)
}
