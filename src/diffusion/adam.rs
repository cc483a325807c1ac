//! Adam with a moving average of the weights, over one flat buffer for all parameters: a step is a
//! dozen operations however many tensors a network has.

use tch::{Kind, Tensor};

/// Decay of the gradient's average.
const BETA1: f64 = 0.9;
/// Decay of the squared gradient's average.
const BETA2: f64 = 0.999;
/// Keeps the division finite.
const EPSILON: f64 = 1e-8;
/// Every parameter begins at a multiple of so many numbers, as convolutions like it (64 bytes).
const ALIGNMENT: i64 = 16;

/// The state of training: all `Float`, one-dimensional, of equal length.
#[derive(Debug)]
pub(super) struct Adam {
    /// The weights; the network's parameters are views of it.
    pub(super) weights: Tensor,
    /// Their moving average.
    pub(super) average: Tensor,
    /// The gradient's moving average.
    pub(super) first: Tensor,
    /// The squared gradient's moving average.
    pub(super) second: Tensor,
    gradient: Tensor,
    gradients: Vec<Tensor>,
    places: Vec<(i64, Vec<i64>)>,
    /// The weights rounded to 16 bits, where the network computes in them: one rounding for all
    /// layers instead of one for each at each pass.
    rounded: Option<Tensor>,
}

impl Adam {
    /// Moves `parameters` into one buffer: they become views of it, and so does every other handle
    /// on them; those of which `rounds` is true become views of its numbers in `kind`.
    pub(super) fn adopt(parameters: &mut [Tensor], kind: Kind, rounds: &[bool]) -> Self {
        let _guard = tch::no_grad_guard();
        let device = parameters.first().expect("a network has parameters").device();
        let mut places = Vec::with_capacity(parameters.len());
        let mut length = 0;
        for parameter in parameters.iter() {
            places.push((length, parameter.size()));
            length += (parameter.numel() as i64 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        }
        let buffer = || Tensor::zeros([length], (Kind::Float, device));
        let (weights, gradient) = (buffer(), buffer());
        let rounded = (kind != Kind::Float).then(|| weights.to_kind(kind));
        let rounded_views = rounded.as_ref().map(|rounded| views(rounded, &places));
        for (i, mut view) in views(&weights, &places).into_iter().enumerate() {
            view.copy_(&parameters[i]);
            let seen =
                rounded_views.as_ref().filter(|_| rounds[i]).map_or(&view, |views| &views[i]);
            parameters[i].set_data(seen);
        }
        let gradients = views(&gradient, &places);
        let average = weights.copy();
        let (first, second) = (buffer(), buffer());
        let adam = Self { weights, average, first, second, gradient, gradients, places, rounded };
        adam.round();
        adam
    }

    /// Makes the rounded weights those of now; called after every change from outside.
    pub(super) fn round(&self) {
        let _guard = tch::no_grad_guard();
        if let Some(rounded) = &self.rounded {
            rounded.shallow_clone().copy_(&self.weights); // alias: the same storage
        }
    }

    /// Step `step` (counted from 1) along `gradients`, given in the order of the parameters, at
    /// `rate`. Gradients that are not finite count as 0 or as ±1e5, as in EDM.
    ///
    /// Source: Kingma and Ba 2015, algorithm 1.
    pub(super) fn step(&mut self, gradients: &[Tensor], rate: f64, step: u64) {
        let _guard = tch::no_grad_guard();
        for (view, gradient) in self.gradients.iter_mut().zip(gradients) {
            // A parameter that took no part (labels that nobody gave) has no gradient at all.
            if gradient.defined() {
                view.copy_(gradient);
            } else {
                let _ = view.zero_();
            }
        }
        let _ = self.gradient.nan_to_num_(0.0, 1e5, -1e5);
        let _ = self.first.lerp_(&self.gradient, 1.0 - BETA1);
        let _ = self.second.lerp_(&self.gradient.square(), 1.0 - BETA2);
        let power = |beta: f64| 1.0 - beta.powf(step as f64);
        let mut change = self.second.sqrt();
        change /= power(BETA2).sqrt();
        change += EPSILON;
        let mut change = &self.first / change;
        change *= -rate / power(BETA1);
        self.weights += change;
        self.round();
    }

    /// Moves the average towards the weights, keeping `decay` of it.
    pub(super) fn average(&mut self, decay: f64) {
        let _guard = tch::no_grad_guard();
        let _ = self.average.lerp_(&self.weights, 1.0 - decay);
    }

    /// The averaged parameters, as views in the order of the parameters.
    pub(super) fn averaged(&self) -> Vec<Tensor> {
        views(&self.average, &self.places)
    }
}

fn views(buffer: &Tensor, places: &[(i64, Vec<i64>)]) -> Vec<Tensor> {
    places
        .iter()
        .map(|(start, shape)| {
            buffer.narrow(0, *start, shape.iter().product()).view(shape.as_slice())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn, nn::OptimizerConfig};

    fn parameters() -> Vec<Tensor> {
        let tensor = |k: i64, shape: &[i64]| {
            let count = shape.iter().product::<i64>();
            (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.1 + k).view(shape)
        };
        vec![tensor(1, &[3, 2]).set_requires_grad(true), tensor(-2, &[5]).set_requires_grad(true)]
    }

    fn loss(parameters: &[Tensor]) -> Tensor {
        (parameters[0].sin().sum(Kind::Float) * 2.0) + parameters[1].square().sum(Kind::Float)
    }

    #[test]
    fn steps_are_those_of_torch() {
        let mut ours = parameters();
        let mut adam = Adam::adopt(&mut ours, Kind::Float, &[]);
        let store = nn::VarStore::new(Device::Cpu);
        let theirs: Vec<Tensor> = parameters()
            .iter()
            .enumerate()
            .map(|(i, start)| store.root().var_copy(&format!("p{i}"), start))
            .collect();
        let mut optimizer =
            nn::Adam { beta1: BETA1, beta2: BETA2, eps: EPSILON, ..nn::Adam::default() }
                .build(&store, 0.05)
                .unwrap();
        for step in 1..=20 {
            let gradients = Tensor::run_backward(&[loss(&ours)], &ours, false, false);
            adam.step(&gradients, 0.05, step);
            optimizer.backward_step(&loss(&theirs));
        }
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!((ours - theirs).abs().max().double_value(&[]) < 1e-6);
        }
        assert_ne!(ours[0], parameters()[0]);
    }

    #[test]
    fn rounded_parameters_follow_whole_weights() {
        let mut ours = parameters();
        let mut adam = Adam::adopt(&mut ours, Kind::BFloat16, &[true, false]);
        assert_eq!((ours[0].kind(), ours[1].kind()), (Kind::BFloat16, Kind::Float));
        assert!(ours.iter().all(Tensor::requires_grad));
        // Steps too small for 16 bits add up in the weights.
        for step in 1..=64 {
            let gradients = Tensor::run_backward(&[loss(&ours)], &ours, false, false);
            assert_eq!(gradients[0].kind(), Kind::BFloat16);
            adam.step(&gradients, 1e-3, step);
        }
        let whole = &views(&adam.weights, &adam.places)[0];
        assert_eq!(ours[0], whole.to_kind(Kind::BFloat16));
        assert!((whole - &parameters()[0]).abs().min().double_value(&[]) > 0.03);
    }

    #[test]
    fn averages_halve_and_bad_gradients_are_cleaned() {
        let mut ours = parameters();
        let start = ours[1].copy();
        let mut adam = Adam::adopt(&mut ours, Kind::Float, &[]);
        let broken =
            [Tensor::full([3, 2], f64::NAN, (Kind::Float, Device::Cpu)), start.ones_like()];
        adam.step(&broken, 0.1, 1);
        assert_eq!(ours[0], parameters()[0], "no step along a gradient that is not a number");
        adam.average(0.5);
        let expected = (&start + &ours[1]) * 0.5;
        let difference = (&adam.averaged()[1] - expected).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "{difference}");
    }
}
