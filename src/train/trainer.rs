//! Everything that changes while training, and its way to disk and back.

use std::{collections::BTreeMap, path::Path, time::Instant};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{
    average, checkpoint,
    loss::Examples,
    optimiser::{Rule, Weights},
    passes::Passes,
    run::{TrainSummary, export},
    scaling::Scaling,
    schedule::{Pace, Rate},
    spec::TrainSpec,
    team::{self, Member, Task},
    validate::Scores,
};
use crate::{
    digest::JobId,
    error::{Error, Result},
    net::Network,
};

/// The best epoch so far.
#[derive(Debug)]
pub(super) struct Best {
    pub(super) epoch: u64,
    pub(super) scores: Option<Scores>,
    /// Averaged weights and running statistics of that moment, on the CPU.
    pub(super) state: Vec<(String, Tensor)>,
}

/// What a checkpoint knows besides tensors.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Counters {
    /// Steps done.
    pub(super) step: u64,
    /// Images trained on.
    pub(super) images: u64,
    /// Seconds since the beginning, all sessions together.
    pub(super) seconds: f64,
    /// Of these, seconds of validation.
    pub(super) validating: f64,
    /// Of training proper, seconds in the network's passes and in the update.
    pub(super) working: f64,
    /// Of the rest, seconds of waiting for batches.
    pub(super) waiting: f64,
    /// And of writing checkpoints.
    pub(super) saving: f64,
    /// Bytes of the log that are true.
    pub(super) log_length: u64,
    /// Steps since the epoch began that `sums` counts.
    pub(super) summed: u64,
    /// Scores of the latest validation.
    pub(super) last: Option<Scores>,
    best_epoch: u64,
    best_scores: Option<Scores>,
}

/// A classifier in training.
#[derive(Debug)]
pub(super) struct Trainer {
    network: Network,
    weights: Weights,
    /// The network on further devices.
    others: Vec<Member>,
    rule: Rule,
    scaling: Option<Scaling>,
    pub(super) device: Device,
    pub(super) pace: Pace,
    pub(super) counters: Counters,
    pub(super) best: Option<Best>,
    /// Loss, clean and robust accuracy (shares): the last step's, and the epoch's sums. `[3]`.
    pub(super) latest: Tensor,
    sums: Tensor,
    /// The first step whose loss was not finite, `i64::MAX` while there is none. `[]`.
    broken: Tensor,
}

impl Trainer {
    /// A classifier on the first of `devices`, which the others help.
    pub(super) fn new(spec: &TrainSpec, pace: Pace, devices: &[Device]) -> Result<Self> {
        let device = devices[0];
        let network = Network::new(&spec.network, spec.seed, device)?;
        let weights = Weights::of(network.parameters());
        let threads = (tch::get_num_threads() as usize / devices.len()).max(1);
        if devices.len() > 1 {
            crate::device::set_threads(threads);
        }
        let others = devices[1..].iter().map(|&device| Member::new(spec, device, threads));
        let zeros = || Tensor::zeros([3], (Kind::Double, device));
        Ok(Self {
            weights,
            others: others.collect::<Result<_>>()?,
            rule: Rule {
                weight_decay: spec.weight_decay,
                nesterov: spec.nesterov,
                clip: spec.clip,
            },
            scaling: Scaling::of(spec.precision, device),
            network,
            device,
            pace,
            counters: Counters::default(),
            best: None,
            latest: zeros(),
            sums: zeros(),
            broken: Tensor::full([0i64; 0], i64::MAX, (Kind::Int64, device)),
        })
    }

    /// One step of training on `batch`, without waiting for the device: passes, update, average.
    pub(super) fn step(&mut self, spec: &TrainSpec, batch: &Examples, rate: Rate, momentum: f64) {
        let views = if spec.consistency > 0.0 { 2 } else { 1 };
        let parts = team::spread(batch.parts(spec.virtual_batch, views), 1 + self.others.len());
        let task = Task { spec, momentum, whole: batch.len() };
        let first = (&self.network, &self.weights.flat);
        let scale = self.scaling.as_ref().map(|scaling| &scaling.scale);
        let share = team::work(first, &mut self.others, parts, task, scale);
        let begun = Instant::now();
        let _guard = tch::no_grad_guard();
        self.note(&share.seen, batch.len());
        let (gradient, sound) = match &mut self.scaling {
            Some(scaling) => {
                let (gradient, sound) = scaling.undo(&share.gradient);
                (gradient, Some(sound))
            }
            None => (share.gradient, None),
        };
        self.weights.step(gradient, rate, self.rule, sound.as_ref());
        self.weights.move_average(average::decay(spec, self.pace, self.counters.step));
        self.counters.step += 1;
        self.counters.working += (share.spent + begun.elapsed()).as_secs_f64();
    }

    /// Keeps what the log and the progress line say of a step.
    fn note(&mut self, seen: &Tensor, images: i64) {
        // Made on the device: a number that travels there would wait for all that it has to do.
        let step = self.counters.step as i64 + 1;
        let now = Tensor::full([0i64; 0], step, (Kind::Int64, self.device));
        let sound = seen.select(0, 0).isfinite();
        self.broken = self.broken.where_self(&sound, &self.broken.minimum(&now));
        self.sums += seen;
        self.latest = seen.shallow_clone(); // alias: made for this step alone
        self.counters.summed += 1;
        self.counters.images += images as u64;
    }

    /// Whether every weight is a number. Waits for the device.
    pub(super) fn sound(&self) -> bool {
        let _guard = tch::no_grad_guard();
        self.weights.flat.values.isfinite().all().int64_value(&[]) == 1
    }

    /// The first step, counted from 1, whose loss was not finite. Waits for the device.
    pub(super) fn broken_at(&self) -> Option<u64> {
        let step = self.broken.int64_value(&[]);
        (step != i64::MAX).then_some(step as u64)
    }

    /// Runs `action` with the network under its averaged weights.
    pub(super) fn averaged<T>(&mut self, spec: &TrainSpec, action: impl FnOnce(&Passes) -> T) -> T {
        let Self { network, weights, .. } = self;
        weights.with_average(|| action(&Passes::exact(network, spec)))
    }

    /// Means of loss, clean and robust accuracy since the last call.
    pub(super) fn take_means(&mut self) -> [f64; 3] {
        let means = &self.sums / self.counters.summed.max(1) as f64;
        self.sums = self.sums.zeros_like();
        self.counters.summed = 0;
        Vec::<f64>::try_from(means).ok().and_then(|v| v.try_into().ok()).expect("three numbers")
    }

    /// Averaged weights and living running statistics by name, copied to the CPU.
    pub(super) fn state(&self) -> Vec<(String, Tensor)> {
        let _guard = tch::no_grad_guard();
        let buffers =
            self.network.buffers().iter().map(|(name, t)| (name.clone(), t.shallow_clone()));
        let copied = |(name, tensor): (String, Tensor)| {
            let copy = Tensor::empty(tensor.size(), (tensor.kind(), Device::Cpu));
            (name, {
                let mut copy = copy;
                copy.copy_(&tensor);
                copy
            })
        };
        self.weights
            .flat
            .named(&self.weights.average)
            .into_iter()
            .chain(buffers)
            .map(copied)
            .collect()
    }

    /// Images per second of training proper.
    pub(super) fn speed(&self) -> f64 {
        let counters = &self.counters;
        counters.images as f64 / (counters.seconds - counters.validating).max(1e-9)
    }

    /// Shares of training proper, where the host's clock sees them (on a CPU): all that is neither
    /// passes of the network nor update; of that, waiting for batches, and writing checkpoints.
    pub(super) fn outside(&self) -> Option<[f64; 3]> {
        let counters = &self.counters;
        let proper = counters.seconds - counters.validating;
        let alone = self.device == Device::Cpu && self.others.is_empty() && proper > 0.0;
        let all = (1.0 - counters.working / proper).max(0.0);
        alone.then(|| [all, counters.waiting / proper, counters.saving / proper])
    }

    /// By how many percent points robust accuracy on held-out images has fallen since its best.
    pub(super) fn overfitting(&self) -> Option<f64> {
        let best = self.best.as_ref()?.scores?.robust?;
        Some(best.percent() - self.counters.last?.robust?.percent())
    }

    /// Writes everything that is needed to go on.
    pub(super) fn save(&mut self, path: &Path, spec: &TrainSpec) -> Result<()> {
        let weights = &self.weights;
        let mut tensors = vec![
            ("weights".to_owned(), weights.flat.values.shallow_clone()),
            ("velocity".to_owned(), weights.velocity.shallow_clone()),
            ("average".to_owned(), weights.average.shallow_clone()),
            ("sums".to_owned(), self.sums.shallow_clone()),
        ];
        if let Some(scaling) = &self.scaling {
            tensors.push(("scale".to_owned(), scaling.scale.shallow_clone()));
            tensors.push(("calm".to_owned(), scaling.calm.shallow_clone()));
        }
        let named = |prefix: &str, named: &[(String, Tensor)]| -> Vec<_> {
            named.iter().map(|(name, t)| (format!("{prefix}.{name}"), t.shallow_clone())).collect()
        };
        tensors.extend(named("buffer", self.network.buffers()));
        if let Some(best) = &self.best {
            tensors.extend(named("best", &best.state));
            self.counters.best_epoch = best.epoch;
            self.counters.best_scores = best.scores;
        }
        let counters = serde_json::to_string(&self.counters).expect("numbers");
        checkpoint::write(path, &tensors, &[("recipe", recipe(spec)), ("counters", counters)])
    }

    /// Takes up what [`Trainer::save`] left at `path`, if it left anything.
    pub(super) fn resume(&mut self, path: &Path, spec: &TrainSpec) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let (mut tensors, words) = checkpoint::read(path)?;
        if words.get("recipe") != Some(&recipe(spec)) {
            let message = "is the checkpoint of another recipe: delete it to begin anew, or give \
                           another --out";
            return Err(Error::in_file(path, message));
        }
        let counters = words.get("counters").and_then(|text| serde_json::from_str(text).ok());
        self.counters = counters
            .ok_or_else(|| Error::in_file(path, "lacks its counters; delete it to begin anew"))?;
        let _guard = tch::no_grad_guard();
        copy(path, &tensors, "weights", &mut self.weights.flat.values)?;
        copy(path, &tensors, "velocity", &mut self.weights.velocity)?;
        copy(path, &tensors, "average", &mut self.weights.average)?;
        copy(path, &tensors, "sums", &mut self.sums)?;
        if let Some(scaling) = &mut self.scaling {
            copy(path, &tensors, "scale", &mut scaling.scale)?;
            copy(path, &tensors, "calm", &mut scaling.calm)?;
        }
        for (name, buffer) in self.network.buffers() {
            // The same storage as the network's.
            copy(path, &tensors, &format!("buffer.{name}"), &mut buffer.shallow_clone())?;
        }
        if self.counters.best_epoch > 0 {
            let names = self.state().into_iter().map(|(name, _)| name);
            let state = names
                .map(|name| {
                    let key = format!("best.{name}");
                    let tensor = tensors.remove(&key).ok_or_else(|| lacks(path, &key))?;
                    Ok((name, tensor))
                })
                .collect::<Result<_>>()?;
            let (epoch, scores) = (self.counters.best_epoch, self.counters.best_scores);
            self.best = Some(Best { epoch, scores, state });
        }
        Ok(())
    }

    /// The step of a checkpoint with these words.
    pub(super) fn step_of(words: &BTreeMap<String, String>) -> Option<u64> {
        let counters: Counters = serde_json::from_str(words.get("counters")?).ok()?;
        Some(counters.step)
    }

    /// Writes `best.safetensors` and `last.safetensors` into `out`.
    pub(super) fn export(&self, spec: &TrainSpec, out: &Path) -> Result<()> {
        if let Some(best) = &self.best {
            export(&out.join("best.safetensors"), spec, best.epoch, &best.state)?;
        }
        export(&out.join("last.safetensors"), spec, spec.epochs, &self.state())
    }

    pub(super) fn summary(&self, spec: &TrainSpec) -> TrainSummary {
        TrainSummary {
            epochs: spec.epochs,
            best_epoch: self.best.as_ref().map_or(spec.epochs, |best| best.epoch),
            best: self.best.as_ref().and_then(|best| best.scores),
            last: self.counters.last,
            seconds: self.counters.seconds,
            images_per_second: self.speed(),
            overhead: self.outside().map(|[all, ..]| all),
            robust_overfitting: self.overfitting(),
        }
    }
}

/// A digest of all that fixes the result.
fn recipe(spec: &TrainSpec) -> String {
    JobId::of(&serde_json::to_value(spec).expect("a spec is plain data")).to_string()
}

fn lacks(path: &Path, name: &str) -> Error {
    Error::in_file(path, format!("lacks `{name}`; delete it to begin anew"))
}

fn copy(path: &Path, from: &BTreeMap<String, Tensor>, name: &str, to: &mut Tensor) -> Result<()> {
    let tensor = from.get(name).ok_or_else(|| lacks(path, name))?;
    if tensor.size() != to.size() {
        let sizes = format!("`{name}` is {:?}, expected {:?}", tensor.size(), to.size());
        return Err(Error::in_file(path, format!("{sizes}; delete it to begin anew")));
    }
    to.copy_(tensor);
    Ok(())
}
