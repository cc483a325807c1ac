//! Stochastic gradient descent over all parameters at once.

use tch::Tensor;

use crate::train::{passes::Passes, schedule::Rate};

/// What does not change from step to step.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Weight decay of parameters that are decayed.
    pub weight_decay: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Largest gradient norm.
    pub clip: Option<f64>,
}

/// Every parameter begins at a multiple of so many numbers (64 bytes): kernels of GPUs read several
/// at once and refuse, convolutions of CPUs are slower, where it does not.
const ALIGNMENT: i64 = 16;

/// All parameters of a network in one flat tensor, of which the network's own tensors are windows:
/// an update is a handful of operations, however many parameters there are.
#[derive(Debug)]
pub struct Flat {
    /// The values `[n]`, `Float`: decayed parameters first, then those of batch norm, with zeros
    /// between them that stay zero.
    pub values: Tensor,
    parameters: Vec<Tensor>,
    /// Where each parameter begins in `values`.
    starts: Vec<i64>,
    names: Vec<String>,
    decayed: i64,
}

impl Flat {
    /// Takes over the parameters of a network: from now on they live in [`Flat::values`]. Those
    /// with `batchnorm` or `.bn` in their name, and other networks' norms, are not decayed.
    pub fn of(named: &[(String, Tensor)]) -> Self {
        let _guard = tch::no_grad_guard();
        let (free, decayed): (Vec<_>, Vec<_>) = named.iter().partition(|(name, _)| undecayed(name));
        let count = decayed.iter().map(|(_, tensor)| room(tensor)).sum();
        let order = || decayed.iter().chain(&free).map(|(_, tensor)| tensor);
        let values = Tensor::cat(&order().map(padded).collect::<Vec<_>>(), 0);
        let (mut starts, mut start) = (Vec::new(), 0);
        let parameters = order().map(|tensor| {
            // The same tensor as the network's: it shall see our storage.
            let mut parameter = tensor.shallow_clone();
            parameter.set_data(&window(&values, start, tensor));
            starts.push(start);
            start += room(tensor);
            parameter
        });
        let parameters = parameters.collect();
        let names = decayed.iter().chain(&free).map(|(name, _)| name.clone()).collect();
        Self { values, parameters, starts, names, decayed: count }
    }

    /// Windows of `values`, flat as these are, by the parameters' names and in their shapes.
    pub fn named(&self, values: &Tensor) -> Vec<(String, Tensor)> {
        let places = self.starts.iter().zip(&self.parameters);
        let windows = places.map(|(&start, parameter)| window(values, start, parameter));
        self.names.iter().cloned().zip(windows).collect()
    }

    /// The gradient `[n]` of `loss` `[]`, which `passes` led to, with respect to all parameters.
    pub fn gradient(&self, passes: &Passes, loss: &Tensor) -> Tensor {
        let parts = passes.gradient(loss, &self.parameters);
        let _guard = tch::no_grad_guard();
        let flat = |(part, parameter): (&Tensor, &Tensor)| {
            if part.defined() { padded(part) } else { padded(&parameter.zeros_like()) }
        };
        Tensor::cat(&parts.iter().zip(&self.parameters).map(flat).collect::<Vec<_>>(), 0)
    }
}

/// How many numbers `tensor` takes in a flat tensor.
fn room(tensor: &Tensor) -> i64 {
    (tensor.numel() as i64 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

/// `tensor` flat, with zeros behind it up to its room.
fn padded(tensor: &Tensor) -> Tensor {
    let rest = room(tensor) - tensor.numel() as i64;
    let flat = tensor.reshape([-1]);
    if rest == 0 { flat } else { flat.constant_pad_nd([0, rest]) }
}

/// The place of `like` in `values`, in its shape.
fn window(values: &Tensor, start: i64, like: &Tensor) -> Tensor {
    values.narrow(0, start, like.numel() as i64).view(like.size().as_slice())
}

/// A network's weights and what the optimiser keeps of them.
#[derive(Debug)]
pub struct Weights {
    /// The weights themselves.
    pub flat: Flat,
    /// Running mean of gradients `[n]`.
    pub velocity: Tensor,
    /// Moving average of the weights `[n]`.
    pub average: Tensor,
}

impl Weights {
    /// Takes over the parameters of a network.
    pub fn of(named: &[(String, Tensor)]) -> Self {
        let flat = Flat::of(named);
        let (velocity, average) = (flat.values.zeros_like(), flat.values.copy());
        Self { flat, velocity, average }
    }

    /// One step along `gradient` `[n]`, as `torch.optim.SGD` takes it (no dampening), unless `sound`
    /// (`[]`, `Bool`) is false: then everything stays, without asking the device which it is.
    pub fn step(&mut self, mut gradient: Tensor, rate: Rate, rule: Rule, sound: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        let before = sound.map(|sound| (sound, self.flat.values.copy(), self.velocity.copy()));
        let values = &mut self.flat.values;
        if let Some(limit) = rule.clip {
            // As `torch.nn.utils.clip_grad_norm_`, without asking the device for the norm.
            gradient *= ((gradient.norm() + 1e-6).reciprocal() * limit).clamp_max(1.0);
        }
        let mut decayed = gradient.narrow(0, 0, self.flat.decayed);
        decayed += values.narrow(0, 0, self.flat.decayed) * rule.weight_decay;
        self.velocity *= rate.momentum;
        self.velocity += &gradient;
        let mut step = if rule.nesterov {
            gradient += &self.velocity * rate.momentum;
            gradient
        } else {
            self.velocity.copy()
        };
        step *= rate.learning_rate;
        *values -= step;
        if let Some((sound, values, velocity)) = before {
            self.flat.values.copy_(&self.flat.values.where_self(sound, &values));
            self.velocity.copy_(&self.velocity.where_self(sound, &velocity));
        }
    }

    /// Moves the average towards the weights, of which it keeps `decay` of itself.
    pub fn move_average(&mut self, decay: f64) {
        let _guard = tch::no_grad_guard();
        if decay == 0.0 {
            self.average.copy_(&self.flat.values);
        } else {
            let _ = self.average.lerp_(&self.flat.values, 1.0 - decay);
        }
    }

    /// Runs `action` while the network has the averaged weights.
    pub fn with_average<T>(&mut self, action: impl FnOnce() -> T) -> T {
        let _guard = tch::no_grad_guard();
        let live = self.flat.values.copy();
        self.flat.values.copy_(&self.average);
        let result = action();
        self.flat.values.copy_(&live);
        result
    }
}

/// Batch-norm parameters: `layer.0.block.0.batchnorm_0.weight`, `bn1.bias`, ... The published
/// architectures name them so; shortcuts of torchvision-style networks (`downsample.1`) are decayed
/// there too.
fn undecayed(name: &str) -> bool {
    name.split('.').any(|part| part.starts_with("batchnorm") || part.starts_with("bn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(values: &[(&str, &[f32])]) -> Vec<(String, Tensor)> {
        let leaf = |v: &[f32]| Tensor::from_slice(v).set_requires_grad(true);
        values.iter().map(|(name, v)| ((*name).to_owned(), leaf(v))).collect()
    }

    fn flat(values: &[f32]) -> Tensor {
        padded(&Tensor::from_slice(values))
    }

    #[test]
    fn parameters_begin_where_gpus_can_read_them() {
        let flat = Flat::of(&named(&[("a.bias", &[1.0, 2.0, 3.0]), ("b.weight", &[4.0])]));
        assert_eq!((flat.values.size(), &flat.starts), (vec![32], &vec![0, 16]));
        let own = flat.named(&flat.values);
        assert_eq!(Vec::<f32>::try_from(&own[1].1).unwrap(), [4.0]);
        assert_eq!(flat.values.sum(tch::Kind::Float).double_value(&[]), 10.0);
    }

    #[test]
    fn the_network_sees_every_step() {
        let parameters = named(&[("batchnorm.weight", &[1.0]), ("conv.weight", &[2.0, 3.0])]);
        let mut weights = Weights::of(&parameters);
        // Decayed parameters come first. d/dw of 3b + w²:
        let gradient = Tensor::cat(&[flat(&[4.0, 6.0]), flat(&[3.0])], 0);
        let rate = Rate { learning_rate: 0.1, momentum: 0.0 };
        let rule = Rule { weight_decay: 0.5, nesterov: false, clip: None };
        weights.step(gradient, rate, rule, None);
        let of = |i: usize| Vec::<f32>::try_from(&parameters[i].1).unwrap();
        // Decay adds half of the weight to the convolution's gradient and nothing to batch norm's.
        assert_eq!(of(0), [0.7]);
        assert_eq!(of(1), [1.5, 2.25]);
        assert!(parameters[1].1.requires_grad());
    }

    #[test]
    fn momentum_is_nesterov() {
        // p = torch.nn.Parameter(torch.tensor([1.])); o = torch.optim.SGD([p], .1, momentum=.9,
        // nesterov=True); three steps with gradient 1: p = 0.81, 0.539, 0.1951
        let parameters = named(&[("w", &[1.0])]);
        let mut weights = Weights::of(&parameters);
        let rate = Rate { learning_rate: 0.1, momentum: 0.9 };
        let rule = Rule { weight_decay: 0.0, nesterov: true, clip: None };
        for expected in [0.81, 0.539, 0.1951] {
            weights.step(flat(&[1.0]), rate, rule, None);
            assert!((parameters[0].1.double_value(&[0]) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn clipping_bounds_the_norm_and_leaves_small_gradients() {
        let rate = Rate { learning_rate: 1.0, momentum: 0.0 };
        let rule = Rule { weight_decay: 0.0, nesterov: false, clip: Some(1.0) };
        for (gradient, expected) in [([3.0f32, 4.0], [-0.6f32, -0.8]), ([0.3, 0.4], [-0.3, -0.4])] {
            let mut weights = Weights::of(&named(&[("w", &[0.0, 0.0])]));
            weights.step(flat(&gradient), rate, rule, None);
            let moved = Vec::<f32>::try_from(&weights.flat.values).unwrap();
            assert!(moved.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{moved:?}");
        }
    }

    #[test]
    fn the_average_comes_and_goes() {
        let parameters = named(&[("w", &[1.0, 5.0])]);
        let mut weights = Weights::of(&parameters);
        weights.step(
            flat(&[1.0, 1.0]),
            Rate { learning_rate: 1.0, momentum: 0.0 },
            Rule { weight_decay: 0.0, nesterov: false, clip: None },
            None,
        );
        weights.move_average(0.75);
        let seen = weights.with_average(|| Vec::<f32>::try_from(&parameters[0].1).unwrap());
        assert_eq!(seen, [0.75, 4.75]);
        assert_eq!(Vec::<f32>::try_from(&parameters[0].1).unwrap(), [0.0, 4.0]);
        weights.move_average(0.0);
        assert_eq!(weights.average, weights.flat.values);
    }

    #[test]
    fn an_unsound_step_changes_nothing() {
        let rate = Rate { learning_rate: 0.1, momentum: 0.9 };
        let rule = Rule { weight_decay: 0.1, nesterov: true, clip: None };
        let mut weights = Weights::of(&named(&[("w", &[1.0, 5.0])]));
        let all = |weights: &Weights| (weights.flat.values.copy(), weights.velocity.copy());
        weights.step(flat(&[1.0, 2.0]), rate, rule, Some(&Tensor::from(true)));
        let before = all(&weights);
        assert!(before.0.double_value(&[0]) < 1.0);
        let broken = flat(&[f32::NAN, 2.0]);
        weights.step(broken, rate, rule, Some(&Tensor::from(false)));
        assert_eq!(all(&weights), before);
    }
}
