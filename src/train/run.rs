//! A training run from first step to last, interrupted wherever it may be.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{
    checkpoint, checks,
    craft::SMALL,
    journal::{Journal, Line},
    layout,
    loss::{self, Examples},
    resume::CHECKPOINT,
    schedule::{self, Pace},
    spec::{Augment, Loss, TrainSpec},
    supply::{Sampler, Supply},
    trainer::{Best, Trainer},
    validate::{self, Scores},
};
use crate::{
    data::{
        Dataset,
        augment::{Augmentation, Policy},
        live::Ring,
        loader::{Ahead, Batch, BatchSpec, Batches, Noise},
    },
    diffusion::live::Buffer,
    digest::JobId,
    error::{AtPath, Error, Result},
    progress::{Progress, checkpoint_period},
    rng::Stream,
    threat::Norm,
};

/// Time between checkpoints, unless [`checkpoint_period`] says otherwise.
const PERIOD: Duration = Duration::from_mins(2);
/// Threads that make batches: fewer than any attack keeps waiting.
const THREADS: usize = 2;
/// On a device that works ahead of us the loss is looked at after so many steps.
const LOOK: u64 = 16;

/// What a training run came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainSummary {
    /// Epochs trained.
    pub epochs: u64,
    /// The epoch of `best.safetensors`, counted from 1.
    pub best_epoch: u64,
    /// Its scores on held-out images, where there are any.
    pub best: Option<Scores>,
    /// The last epoch's scores.
    pub last: Option<Scores>,
    /// Seconds in all, those before interruptions included.
    pub seconds: f64,
    /// Training images per second, attack included, validation not.
    pub images_per_second: f64,
    /// Share of training proper, validation left out, that was neither passes of the network nor
    /// the update; known on one CPU alone.
    pub overhead: Option<f64>,
    /// How far robust accuracy on held-out images fell from the best epoch to the last, in percent
    /// points (Rice et al. 2020). Nothing where it was not measured.
    #[serde(default)]
    pub robust_overfitting: Option<f64>,
}

/// Trains a classifier by `spec` on `real` and `generated`: the first `spec.generated` images of a
/// set, or those that are drawn meanwhile on the first device; on one device or on several that
/// share the batch. `work` holds checkpoints and survives interruptions: called again with the same
/// arguments, training goes on where it was.
/// Checkpoints come every 120 seconds, or as often as the environment variable
/// `GAUNTLET_CHECKPOINT_SECONDS` says. `out` gets `best.safetensors`, `last.safetensors` (averaged
/// weights with the living batch-norm statistics), `log.jsonl`, `log.csv` and an event file for
/// TensorBoard; all three logs grow in `work` meanwhile.
///
/// # Errors
/// [`Error::Interrupted`] once `progress` asks to stop and a checkpoint is written;
/// [`Error::Numerics`] at a loss that is not finite; what is wrong with spec, data or files.
#[allow(clippy::too_many_arguments)] // every stage takes spec, inputs, device, folders, progress
pub fn run(
    spec: &TrainSpec,
    real: &Dataset,
    generated: Supply<'_>,
    devices: &[Device],
    work: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<TrainSummary> {
    spec.check()?;
    let (parts, denoiser, identity) = match generated {
        Supply::Set(parts) => (parts, None, None),
        Supply::Live { denoiser, identity } => (&[][..], Some(denoiser), Some(identity)),
    };
    checks::data(spec, real, parts)?;
    checks::devices(spec, devices)?;
    for folder in [work, out] {
        fs::create_dir_all(folder).at(folder)?;
    }
    let sampler = Sampler::of(spec, denoiser, real, devices[0])?;
    let pace = Pace::of(real.len() as u64, batch_spec(spec, real).batch as u64);
    let mut trainer = Trainer::new(spec, pace, devices)?;
    trainer.resume(&work.join(CHECKPOINT), spec)?;
    let rate = spec.live.as_ref().map_or(0.0, |live| live.rate);
    let folder = work.join(format!("live-{}", identity.map_or("", JobId::short)));
    let buffer = sampler.as_ref().map(|sampler| {
        let ring = Ring { capacity: spec.generated, rate };
        sampler.with(|draw| Buffer::new(draw, ring, trainer.counters.step, &folder))
    });
    let buffer = buffer.transpose()?;
    let batches = match &buffer {
        Some(buffer) => Batches::live(real, buffer, rate, batch_spec(spec, real)),
        None => Batches::new(real, parts, batch_spec(spec, real)),
    };
    let mut journal = Journal::open(&work.join("log.jsonl"), trainer.counters.log_length)?;
    let total = spec.epochs * batches.steps();
    progress.begin("train", total, "step");
    let from = trainer.counters.step;
    progress.at(from, "");
    let session = Session {
        spec,
        real,
        batches: &batches,
        buffer: buffer.as_ref(),
        work,
        progress,
        total,
        period: checkpoint_period()?.unwrap_or(PERIOD),
    };
    thread::scope(|scope| {
        let _ending = buffer.as_ref().map(Buffer::ending);
        if let (Some(sampler), Some(buffer)) = (sampler, &buffer) {
            scope.spawn(move || sampler.fill(buffer));
        }
        let ahead = Ahead::start(scope, &batches, from..total, THREADS);
        session.train(&mut trainer, ahead, &mut journal)
    })?;
    if let Some(failure) = buffer.as_ref().and_then(Buffer::failure) {
        return Err(failure);
    }
    journal.copy(&out.join("log.jsonl"))?;
    journal.draw(out)?;
    trainer.export(spec, out)?;
    if buffer.is_some() {
        let _ = fs::remove_dir_all(&folder);
    }
    Ok(trainer.summary(spec))
}

fn batch_spec(spec: &TrainSpec, real: &Dataset) -> BatchSpec {
    let norm = spec.threat.map(|threat| threat.norm);
    BatchSpec {
        batch: spec.loaded() as usize,
        fraction: spec.generated_fraction,
        generated: spec.generated as usize,
        held_out: spec.validation as usize,
        augmentation: augmentation(spec, real),
        noise: match (spec.loss, norm) {
            (Loss::Standard, _) => Noise::Off,
            (Loss::Mart, _) | (Loss::Trades | Loss::Score, Some(Norm::L2)) => Noise::Normal,
            _ => Noise::Uniform,
        },
        // Consistency takes two views of each image.
        views: if spec.consistency > 0.0 { 2 } else { 1 },
        repeats: (spec.batch / spec.loaded()) as usize,
        seed: spec.seed,
    }
}

fn augmentation(spec: &TrainSpec, real: &Dataset) -> Augmentation {
    let policy = match spec.augment {
        Augment::None => return Augmentation::NONE,
        Augment::Base => Policy::None,
        Augment::Cutout => Policy::Cutout,
        Augment::AutoAugment => Policy::AutoAugment,
        Augment::RandAugment => Policy::RandAugment,
        Augment::Idbh => Policy::Idbh,
    };
    Augmentation::with_policy(&spec.data.name, real.size.0.min(real.size.1), policy)
}

/// What stays the same while training.
struct Session<'a> {
    spec: &'a TrainSpec,
    real: &'a Dataset,
    batches: &'a Batches<'a>,
    /// Images that are drawn meanwhile.
    buffer: Option<&'a Buffer>,
    work: &'a Path,
    progress: &'a dyn Progress,
    total: u64,
    period: Duration,
}

impl Session<'_> {
    fn train(&self, trainer: &mut Trainer, mut ahead: Ahead, log: &mut Journal) -> Result<()> {
        let (begun, before) = (Instant::now(), trainer.counters.seconds);
        let mut saved = Instant::now();
        // Where the device works ahead of us, asking for each step's numbers would wait for them.
        let mut seen = vec![f64::NAN; 3];
        loop {
            let asked = Instant::now();
            let Some(batch) = ahead.next() else { return Ok(()) };
            trainer.counters.waiting += asked.elapsed().as_secs_f64();
            self.step(trainer, &batch);
            self.batches.take_back(batch);
            trainer.counters.seconds = before + begun.elapsed().as_secs_f64();
            let step = trainer.counters.step;
            self.buffer.iter().for_each(|buffer| buffer.passed(step));
            let ends_epoch = step.is_multiple_of(trainer.pace.steps);
            let stopping = self.progress.stopping() && step < self.total;
            // The end of an epoch alone is no reason: small epochs would do nothing but save.
            let saves = stopping || saved.elapsed() >= self.period || step == self.total;
            if trainer.device == Device::Cpu || step.is_multiple_of(LOOK) || ends_epoch || saves {
                self.check(trainer, saves)?;
                seen = Vec::<f64>::try_from(&trainer.latest).expect("three numbers");
                // The device has done now what it was asked for.
                trainer.counters.seconds = before + begun.elapsed().as_secs_f64();
            }
            if ends_epoch {
                self.end_epoch(trainer, log)?;
                trainer.counters.seconds = before + begun.elapsed().as_secs_f64();
            }
            self.report(trainer, &seen);
            if saves {
                let begun = Instant::now();
                trainer.counters.log_length = log.length;
                trainer.save(&self.work.join(CHECKPOINT), self.spec)?;
                saved = Instant::now();
                trainer.counters.saving += begun.elapsed().as_secs_f64();
            }
            if stopping {
                return Err(Error::Interrupted);
            }
        }
    }

    fn step(&self, trainer: &mut Trainer, batch: &Batch) {
        let (spec, step) = (self.spec, trainer.counters.step);
        let examples = self.examples(trainer.device, batch);
        let momentum = if step == 0 { 1.0 } else { spec.batch_norm_momentum };
        trainer.step(spec, &examples, schedule::rate(spec, trainer.pace, step), momentum);
    }

    fn examples(&self, device: Device, batch: &Batch) -> Examples {
        let _guard = tch::no_grad_guard();
        let (mut x, mut y) = (batch.images(device), batch.targets(device));
        let soft = batch.soft(device);
        let one_hot = || y.one_hot(self.spec.network.classes).to_kind(Kind::Float);
        let (has_soft, said) = (soft.is_some(), soft.unwrap_or_else(one_hot)); // [b,k]
        let mut target = loss::smoothed(self.spec, &said, &batch.generated(device));
        if self.spec.cutmix {
            // Mixed labels are not smoothed besides.
            target = said;
            let mut stream = Stream::new(self.spec.seed, "cutmix", batch.step);
            (x, target) = super::cutmix::mix(&mut stream, &x, &target);
            y = y.repeat([4i64]);
        }
        let mut start = self.start(&x, batch.noise(device));
        if layout::channels_last(&self.spec.network.arch, device) {
            (x, start) = (layout::to_channels_last(&x), layout::to_channels_last(&start));
        }
        Examples { x, y, target, soft: has_soft, mixed: self.spec.cutmix, start }
    }

    /// The perturbation that crafting begins with, from the batch's noise.
    fn start(&self, x: &Tensor, noise: Tensor) -> Tensor {
        let Some(threat) = self.spec.threat.filter(|_| self.spec.loss != Loss::Standard) else {
            return noise;
        };
        match (self.spec.loss, threat.norm) {
            (Loss::PgdAt, _) => loss::pgd(self.spec, threat).start(x, &noise),
            (Loss::Mart, _) | (_, Norm::L2) => noise * SMALL,
            _ => noise * threat.epsilon.value(),
        }
    }

    fn end_epoch(&self, trainer: &mut Trainer, journal: &mut Journal) -> Result<()> {
        let epoch = trainer.counters.step / trainer.pace.steps;
        let due = epoch.is_multiple_of(self.spec.validate_every) || epoch == self.spec.epochs;
        let begun = Instant::now();
        let validation = (due && self.spec.validation > 0).then(|| {
            let device = trainer.device;
            trainer.averaged(self.spec, |passes| {
                validate::scores(self.spec, passes, self.real, device)
            })
        });
        let spent = begun.elapsed().as_secs_f64();
        trainer.counters.validating += spent;
        trainer.counters.seconds += spent;
        trainer.counters.last = validation.or(trainer.counters.last);
        // Ties go to the later epoch; without held-out images every epoch ties.
        let merit = validation.map(|scores| scores.merit());
        let best = trainer.best.as_ref().and_then(|best| best.scores).map(|scores| scores.merit());
        if due && merit >= best {
            trainer.best = Some(Best { epoch, scores: validation, state: trainer.state() });
        }
        let rate = schedule::rate(self.spec, trainer.pace, trainer.counters.step - 1);
        let [loss, clean, robust] = trainer.take_means();
        let outside = trainer.outside();
        let percent = |share: f64| Some(100.0 * share).filter(|value| value.is_finite());
        journal.add(&Line {
            epoch,
            step: trainer.counters.step,
            learning_rate: rate.learning_rate,
            loss,
            clean: percent(clean),
            robust: percent(robust),
            validation,
            robust_overfitting: trainer.overfitting(),
            images_per_second: trainer.speed(),
            outside: outside.map(|shares| shares.map(|share| 100.0 * share)),
            seconds: trainer.counters.seconds,
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()),
        })?;
        journal.draw(self.work)
    }

    /// The line that people watch; `seen` are loss, clean and robust accuracy of a recent step.
    fn report(&self, trainer: &Trainer, seen: &[f64]) {
        let step = trainer.counters.step;
        let epoch = (step - 1) / trainer.pace.steps + 1;
        let mut words = vec![format!("epoch {epoch}/{}", self.spec.epochs)];
        let share = |value: f64| format!("{:.0}%", 100.0 * value);
        let parts = [
            ("loss", seen[0], format!("{:.3}", seen[0])),
            ("clean", seen[1], share(seen[1])),
            ("robust", seen[2], share(seen[2])),
        ];
        let known = parts.into_iter().filter(|(_, value, _)| value.is_finite());
        words.extend(known.map(|(name, _, text)| format!("{name} {text}")));
        words.push(format!("{:.0} images/s", trainer.speed()));
        self.progress.at(step, words.join(", "));
    }

    /// Stops where numbers went wrong: `thoroughly` looks at every weight too, so that no
    /// checkpoint is ever unsound.
    fn check(&self, trainer: &Trainer, thoroughly: bool) -> Result<()> {
        let (what, step) = match trainer.broken_at() {
            Some(step) => ("the loss is not finite", step),
            None if thoroughly && !trainer.sound() => {
                ("a weight is not finite after the update", trainer.counters.step)
            }
            None => return Ok(()),
        };
        let origins = self.batches.origins_at(step - 1);
        let some: Vec<_> = origins.iter().take(8).map(|origin| format!("{origin:?}")).collect();
        let path = self.work.join(CHECKPOINT);
        let checkpoint = match checkpoint::read(&path) {
            Ok((_, words)) => {
                let step = Trainer::step_of(&words).map(|step| format!(" (step {step})"));
                let step = step.unwrap_or_default();
                format!("The last checkpoint, {}{step}, is sound", path.display())
            }
            Err(_) => "There is no checkpoint yet".to_owned(),
        };
        Err(Error::Numerics(format!(
            "{what} at step {step} (epoch {}); the batch begins with {}. {checkpoint}. A lower \
             train.learning_rate or train.clip=1 may help",
            (step - 1) / trainer.pace.steps + 1,
            some.join(", "),
        )))
    }
}

/// Writes a classifier's file.
pub(super) fn export(
    path: &Path,
    spec: &TrainSpec,
    epoch: u64,
    state: &[(String, Tensor)],
) -> Result<()> {
    let words = [
        ("kind", "classifier".to_owned()),
        ("arch", spec.network.arch.clone()),
        ("dataset", spec.network.dataset.clone()),
        ("classes", spec.network.classes.to_string()),
        ("epoch", epoch.to_string()),
    ];
    checkpoint::write(path, state, &words)
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
