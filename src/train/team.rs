//! One network on several devices: each device passes through its parts of a batch, the gradients
//! are added up, and all go on from the same weights.
//!
//! What shares batch statistics is a part (`virtual_batch`), whoever computes it, so any number of
//! devices gives the same training up to rounding.

use std::{collections::VecDeque, thread, time::Duration};

use tch::{Device, Kind, Tensor};

use super::{
    loss::{self, Examples, Outcome},
    optimiser::Flat,
    passes::Passes,
    spec::TrainSpec,
};
use crate::{
    error::Result,
    net::{Mode, Network},
};

/// The network as one device has it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) network: Network,
    pub(super) flat: Flat,
    threads: usize,
}

/// What comes of some parts of a batch.
#[derive(Debug)]
pub(super) struct Share {
    /// Their part of the gradient `[n]`.
    pub(super) gradient: Tensor,
    /// Their part of loss, clean and robust accuracy: `[3]`, `Double`.
    pub(super) seen: Tensor,
    /// Time in the network's passes.
    pub(super) spent: Duration,
}

/// What all members do in one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) spec: &'a TrainSpec,
    /// Momentum of batch norm's running statistics.
    pub(super) momentum: f64,
    /// Images in the whole batch.
    pub(super) whole: i64,
}

/// The parts of one device with their numbers.
type Parts = VecDeque<(usize, Examples)>;

impl Member {
    pub(super) fn new(spec: &TrainSpec, device: Device, threads: usize) -> Result<Self> {
        let network = Network::new(&spec.network, spec.seed, device)?;
        let flat = Flat::of(network.parameters());
        Ok(Self { network, flat, threads })
    }

    /// Takes over weights and running statistics.
    pub(super) fn follow(&mut self, values: &Tensor, buffers: &[(String, Tensor)]) {
        let _guard = tch::no_grad_guard();
        self.flat.values.copy_(values);
        for ((_, own), (_, other)) in self.network.buffers().iter().zip(buffers) {
            own.shallow_clone().copy_(other); // alias: the network's own buffer
        }
    }
}

/// Spreads `parts` over `members` devices, neighbours together.
pub(super) fn spread(parts: Vec<Examples>, members: usize) -> Vec<Parts> {
    let count = parts.len();
    let mut spread: Vec<Parts> = (0..members).map(|_| Parts::new()).collect();
    for (number, part) in parts.into_iter().enumerate() {
        spread[number * members / count].push_back((number, part));
    }
    spread
}

/// All that the network on the first device and `others` make of `parts`, on the first device. The
/// gradient is that of the loss times `scale` (`[]`).
pub(super) fn work(
    first: (&Network, &Flat),
    others: &mut [Member],
    parts: Vec<Parts>,
    task: Task<'_>,
    scale: Option<&Tensor>,
) -> Share {
    let mut parts = parts.into_iter();
    let own = parts.next().expect("the first device has parts");
    if others.is_empty() {
        return share(first.0, first.1, own, task, scale);
    }
    let (values, buffers) = (&first.1.values, first.0.buffers());
    for other in others.iter_mut() {
        other.follow(values, buffers);
    }
    let device = values.device();
    thread::scope(|scope| {
        let helpers = others.iter_mut().zip(parts).filter(|(_, parts)| !parts.is_empty());
        let helpers = helpers.map(|(member, parts)| {
            let scale = scale.map(|scale| scale.to_device(member.flat.values.device()).copy());
            scope.spawn(move || {
                crate::device::set_threads(member.threads);
                share(&member.network, &member.flat, parts, task, scale.as_ref())
            })
        });
        let helpers: Vec<_> = helpers.collect();
        let mut sum = share(first.0, first.1, own, task, scale);
        for helper in helpers {
            let found = helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sum.gradient += found.gradient.to_device(device);
            sum.seen += found.seen.to_device(device);
        }
        sum
    })
}

fn share(
    network: &Network,
    flat: &Flat,
    mut parts: Parts,
    task: Task<'_>,
    scale: Option<&Tensor>,
) -> Share {
    let passes = Passes::new(network, task.spec);
    let device = flat.values.device();
    let mut gradient: Option<Tensor> = None;
    let mut seen = Tensor::zeros([3], (Kind::Double, device));
    // The first part alone moves running statistics, as the first of several GPUs does, and it
    // comes last: what crafts with them sees those that the step began with.
    while let Some((number, part)) = parts.pop_back() {
        let part = if part.x.device() == device { part } else { part.to_device(device) };
        let mode = if number == 0 { Mode::Train { momentum: task.momentum } } else { Mode::Frozen };
        let weight = part.len() as f64 / task.whole as f64;
        let outcome = loss::outcome(task.spec, &passes, &part, mode);
        seen += noted(&outcome, &part, device) * weight;
        let whole = part.len() == task.whole;
        let loss = if whole { outcome.loss } else { &outcome.loss * weight };
        let loss = scale.map_or_else(|| loss.shallow_clone(), |scale| &loss * scale); // alias
        let found = flat.gradient(&passes, &loss);
        gradient = Some(gradient.map_or_else(|| found.shallow_clone(), |sum| sum + &found));
    }
    Share { gradient: gradient.expect("at least one part"), seen, spent: passes.spent() }
}

/// Loss, clean and robust accuracy (shares): `[3]`, `Double`, on the device still.
fn noted(outcome: &Outcome, batch: &Examples, device: Device) -> Tensor {
    let _guard = tch::no_grad_guard();
    let accuracy = |logits: &Option<Tensor>| match logits {
        Some(logits) => {
            logits.argmax(1, false).eq_tensor(&batch.y).to_kind(Kind::Double).mean(None)
        }
        None => Tensor::full([0i64; 0], f64::NAN, (Kind::Double, device)),
    };
    let loss = outcome.loss.detach().to_kind(Kind::Double);
    Tensor::stack(&[loss, accuracy(&outcome.clean), accuracy(&outcome.robust)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::formula,
        threat::{Norm, ThreatModel},
        train::{golden, spec::Loss, toy},
        units::Epsilon,
    };

    /// Two halves that are alike have the batch statistics of the whole, so that parts must add up
    /// to it; and so must devices.
    #[test]
    fn parts_of_a_batch_add_up_to_the_whole() {
        // A direction turns with rounding as much as rounding is; a sign may turn over.
        let threat = Some(ThreatModel { norm: Norm::L2, epsilon: Epsilon::new(128, 255) });
        let base = TrainSpec { threat, attack_steps: 3, ..golden::spec() };
        for loss in [Loss::Trades, Loss::Score, Loss::PgdAt] {
            let spec = TrainSpec { loss, ..base.clone() };
            let indices: Vec<usize> = (0..8).collect();
            let twice = |half: Tensor| Tensor::cat(&[&half, &half], 0);
            let images = toy::shapes(8, 5);
            let y = twice(images.targets(&indices, Device::Cpu));
            let generated = Tensor::zeros([16], (Kind::Float, Device::Cpu));
            let batch = Examples {
                x: twice(images.images(&indices, Device::Cpu)),
                target: loss::smoothed(&spec, &y.one_hot(10).to_kind(Kind::Float), &generated),
                y,
                soft: false,
                mixed: false,
                start: twice(formula::tensor(3 << 20, &[8, 3, 16, 16], -0.002, 0.002)),
            };
            let share = |size: Option<u64>, devices: usize| {
                let network = Network::new(&spec.network, 3, Device::Cpu).unwrap();
                let flat = Flat::of(network.parameters());
                let member = |_| Member::new(&spec, Device::Cpu, 1).unwrap();
                let mut others: Vec<Member> = (1..devices).map(member).collect();
                let task = Task { spec: &spec, momentum: 0.1, whole: 16 };
                let parts = spread(batch.parts(size, 1), devices);
                work((&network, &flat), &mut others, parts, task, None)
            };
            let whole = share(None, 1);
            for (size, devices) in [(8, 1), (8, 2)] {
                let parts = share(Some(size), devices);
                let off = (&parts.gradient - &whole.gradient).norm() / whole.gradient.norm();
                let off = off.double_value(&[]);
                println!("{loss:?} in parts of {size} on {devices}: gradient off by {off:e}");
                assert!(off < 1e-5, "{loss:?} {size} {devices}: {off:e}");
                let seen = (&parts.seen - &whole.seen).nan_to_num(0.0, None, None).abs().max();
                assert!(seen.double_value(&[]) < 1e-6);
            }
            assert!(whole.gradient.norm().double_value(&[]) > 1e-3);
        }
    }
}
