//! Learning rate and momentum through training.

use std::f64::consts::PI;

use crate::train::spec::{Schedule, TrainSpec};

/// What the optimiser uses in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Learning rate.
    pub learning_rate: f64,
    /// Momentum.
    pub momentum: f64,
}

/// How many steps an epoch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// In truth: ⌈N/batch⌉.
    pub steps: u64,
    /// As the paper's code counts for averaging and for [`Schedule::Cyclic`]: ⌊N/batch⌋ + 1, one
    /// more than in truth where the batch divides N.
    pub counted: u64,
}

impl Pace {
    /// The pace of batches of `batch` out of `images`.
    pub fn of(images: u64, batch: u64) -> Self {
        Self { steps: images.div_ceil(batch), counted: images / batch + 1 }
    }

    /// Steps done after step `step` (from 0), as the paper's code counts them.
    pub fn counted_after(self, step: u64) -> u64 {
        step / self.steps * self.counted + step % self.steps + 1
    }
}

/// Learning rate and momentum of step `step` (over all epochs).
pub fn rate(spec: &TrainSpec, pace: Pace, step: u64) -> Rate {
    let steps = pace.steps;
    let epoch = step / steps;
    let total = spec.epochs * steps;
    let peak = spec.learning_rate;
    let constant = |learning_rate| Rate { learning_rate, momentum: spec.momentum };
    match spec.schedule {
        Schedule::Cosinew => cosinew(spec, steps, step),
        Schedule::Cyclic => one_cycle(peak, 0.25, spec.epochs * pace.counted, step),
        Schedule::Step => {
            let passed = [100, 105].into_iter().filter(|&milestone| epoch >= milestone).count();
            constant(peak * 0.1_f64.powi(passed as i32))
        }
        Schedule::Cosine => constant(falling(peak, epoch as f64 / spec.epochs as f64)),
        Schedule::Warmcosine => {
            let warm = spec.warmup_epochs * steps;
            constant(if step < warm {
                peak * (step + 1) as f64 / warm as f64
            } else {
                falling(peak, (step - warm) as f64 / (total - warm).max(1) as f64)
            })
        }
        Schedule::Constant => constant(peak),
    }
}

/// Share of the paper's training in which the learning rate rises.
const RISING: f64 = 0.025;

/// By epoch as the paper's code, where that has an epoch to rise in. With 40 epochs or fewer its
/// formula divides by zero or starts halfway down; there the same curve is followed by step.
fn cosinew(spec: &TrainSpec, steps: u64, step: u64) -> Rate {
    if RISING * spec.epochs as f64 > 1.0 {
        one_cycle(spec.learning_rate, RISING, spec.epochs, step / steps)
    } else {
        one_cycle(spec.learning_rate, RISING, spec.epochs * steps, step)
    }
}

fn falling(peak: f64, done: f64) -> f64 {
    peak * 0.5 * (1.0 + (PI * done).cos())
}

/// `torch.optim.lr_scheduler.OneCycleLR` with its defaults (start at 1/25, end at 1e-4 of the start,
/// cosine, momentum 0.95 to 0.85 and back) at index `index` of `total`, `rising` the share in which
/// the rate rises. Where no index is left to rise in, it starts at the peak.
pub fn one_cycle(peak: f64, rising: f64, total: u64, index: u64) -> Rate {
    let start = peak / 25.0;
    let end = start * 1e-4;
    let top = rising * total as f64 - 1.0;
    let last = total as f64 - 1.0;
    let index = index as f64;
    let anneal = |from: f64, to: f64, done: f64| to + (from - to) / 2.0 * (1.0 + (PI * done).cos());
    if top > 0.0 && index <= top {
        let done = index / top;
        Rate { learning_rate: anneal(start, peak, done), momentum: anneal(0.95, 0.85, done) }
    } else {
        let top = top.max(0.0);
        let done = if last > top { ((index - top) / (last - top)).clamp(0.0, 1.0) } else { 0.0 };
        Rate { learning_rate: anneal(peak, end, done), momentum: anneal(0.85, 0.95, done) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::golden;

    fn check(name: &str, spec: &TrainSpec, steps: u64, stride: u64) {
        let golden = golden::sidecar();
        let golden = &golden["schedules"][name];
        let values = |key: &str| -> Vec<f64> {
            golden[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let pairs: Vec<_> = values("lr").into_iter().zip(values("momentum")).collect();
        assert!(pairs.len() >= 100);
        for (index, (lr, momentum)) in pairs.into_iter().enumerate() {
            let pace = Pace { steps, counted: steps };
            let rate = rate(spec, pace, index as u64 * stride);
            assert!((rate.learning_rate - lr).abs() < 1e-12, "{name} {index}: {rate:?} {lr}");
            assert!(
                (rate.momentum - momentum).abs() < 1e-12,
                "{name} {index}: {rate:?} {momentum}"
            );
        }
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn schedules_match_the_official_ones() {
        for (learning_rate, epochs) in [(0.2, 400), (0.4, 100), (0.1, 200)] {
            let spec = TrainSpec { learning_rate, epochs, ..golden::spec() };
            check(&format!("cosinew lr={learning_rate} epochs={epochs}"), &spec, 98, 98);
        }
        let spec = TrainSpec { schedule: Schedule::Cyclic, epochs: 4, ..golden::spec() };
        check("cyclic lr=0.2 epochs=4 steps=98", &spec, 98, 1);
    }

    #[test]
    fn few_epochs_still_rise_and_fall() {
        for epochs in [1, 2, 3, 10, 39, 40, 41] {
            for steps in [1, 2, 30] {
                let spec = TrainSpec { epochs, ..golden::spec() };
                let pace = Pace { steps, counted: steps };
                let all: Vec<f64> =
                    (0..epochs * steps).map(|step| rate(&spec, pace, step).learning_rate).collect();
                let peak = all.iter().copied().fold(0.0, f64::max);
                assert!(all.iter().all(|lr| lr.is_finite() && *lr > 0.0), "{epochs} {steps}");
                assert!(peak > 0.9 * 0.2, "{epochs} {steps}: peak {peak}");
                let last = *all.last().unwrap();
                assert!(all.len() == 1 || last < 1e-3, "{epochs} {steps}: last {last}");
            }
        }
    }

    #[test]
    fn the_other_schedules_are_what_they_say() {
        let spec =
            |schedule| TrainSpec { schedule, epochs: 110, warmup_epochs: 10, ..golden::spec() };
        let pace = Pace::of(31, 8);
        assert_eq!((pace.steps, pace.counted), (4, 4));
        let at = |schedule, step| rate(&spec(schedule), pace, step).learning_rate;
        assert_eq!(at(Schedule::Constant, 77), 0.2);
        assert_eq!(at(Schedule::Step, 399), 0.2);
        assert!((at(Schedule::Step, 400) - 0.02).abs() < 1e-12);
        assert!((at(Schedule::Step, 420) - 0.002).abs() < 1e-12);
        assert_eq!(at(Schedule::Cosine, 3), 0.2);
        assert!((at(Schedule::Cosine, 220) - 0.1).abs() < 1e-12);
        assert_eq!(at(Schedule::Warmcosine, 0), 0.2 / 40.0);
        assert_eq!(at(Schedule::Warmcosine, 39), 0.2);
        assert_eq!(at(Schedule::Warmcosine, 40), 0.2);
        assert!((at(Schedule::Warmcosine, 240) - 0.1).abs() < 1e-12);
        assert_eq!(rate(&spec(Schedule::Constant), pace, 0).momentum, 0.9);
        // The official count runs ahead where the batch divides the images.
        let even = Pace::of(32, 8);
        assert_eq!((even.steps, even.counted, even.counted_after(4)), (4, 5, 6));
    }
}
