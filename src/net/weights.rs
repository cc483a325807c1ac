//! Named tensors: the parameters and buffers of a network under their published names.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::tensors::{self, Arrays};
use crate::{
    error::{Error, Result},
    formats::array::Array,
    rng::Stream,
};

/// How a parameter starts before training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Every entry the same.
    Constant(f64),
    /// Uniform within ± the bound.
    Uniform(f64),
    /// Normal around zero with this deviation.
    Normal(f64),
}

/// Where the tensors of a network under construction come from.
#[derive(Debug)]
enum Origin {
    /// Drawn: each tensor is a function of the seed and its name.
    Drawn(u64),
    /// Whatever is in memory, to be loaded over.
    Blank,
    /// Existing tensors by name: a second structure over the same storage.
    Existing(BTreeMap<String, Tensor>),
}

/// The parameters and buffers of one network, in the order in which its layers ask for them.
#[derive(Debug)]
pub struct Weights {
    origin: Origin,
    device: Device,
    parameters: Vec<(String, Tensor)>,
    buffers: Vec<(String, Tensor)>,
}

impl Weights {
    /// Fresh weights on `device`, drawn from `seed`.
    pub fn drawn(seed: u64, device: Device) -> Self {
        Self::from_origin(Origin::Drawn(seed), device)
    }

    /// Weights without values on `device`, for networks that are loaded from a file at once.
    pub fn blank(device: Device) -> Self {
        Self::from_origin(Origin::Blank, device)
    }

    /// The same storage without gradients: layers built from it follow every change of these
    /// weights, yet no gradient ever reaches a parameter through them.
    #[must_use]
    pub fn without_gradients(&self) -> Self {
        let existing = self.named().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
        Self::from_origin(Origin::Existing(existing), self.device)
    }

    fn from_origin(origin: Origin, device: Device) -> Self {
        Self { origin, device, parameters: Vec::new(), buffers: Vec::new() }
    }

    /// A trainable `Float` tensor called `name`.
    ///
    /// # Panics
    /// If a structure over existing weights asks for a name that they lack: our mistake.
    pub fn parameter(&mut self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let options = (Kind::Float, self.device);
        let tensor = match &self.origin {
            Origin::Existing(existing) => return existing[name].shallow_clone(), // alias: same storage
            Origin::Blank => Tensor::empty(shape, options),
            Origin::Drawn(seed) => draw(*seed, name, shape, init).to_device(self.device),
        };
        let tensor = tensor.set_requires_grad(true);
        self.parameters.push((name.to_owned(), tensor.shallow_clone())); // alias for the list
        tensor
    }

    /// A tensor that is saved but not trained.
    ///
    /// # Panics
    /// As [`Weights::parameter`].
    pub fn buffer(&mut self, name: &str, start: &Tensor) -> Tensor {
        if let Origin::Existing(existing) = &self.origin {
            return existing[name].shallow_clone(); // alias: same storage
        }
        let tensor = start.to_device(self.device).copy();
        self.buffers.push((name.to_owned(), tensor.shallow_clone())); // alias for the list
        tensor
    }

    /// `count` values for a buffer that starts at random (zeros unless weights are drawn).
    pub fn drawn_values(&self, name: &str, count: i64, init: Init) -> Tensor {
        match self.origin {
            Origin::Drawn(seed) => draw(seed, name, &[count], init),
            _ => Tensor::zeros([count], (Kind::Float, Device::Cpu)),
        }
    }

    /// Trainable tensors, gradients on.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// Running statistics, filters and the like.
    pub fn buffers(&self) -> &[(String, Tensor)] {
        &self.buffers
    }

    /// Where the tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Parameters, then buffers: aliases of the living tensors.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.named().map(|(name, tensor)| (name.clone(), tensor.detach())).collect()
    }

    /// Turns the gradients of all parameters on or off.
    pub fn set_requires_grad(&self, required: bool) {
        for (_, tensor) in &self.parameters {
            let _ = tensor.set_requires_grad(required);
        }
    }

    /// Copies `named` over the tensors of the same names. `num_batches_tracked` may be missing
    /// (files from before 2018 lack it) and then stays.
    ///
    /// # Errors
    /// Lists every missing, unexpected and misshapen entry at once; nothing is copied then.
    pub fn load(&self, named: &BTreeMap<String, Tensor>) -> Result<()> {
        self.check(&named.iter().map(|(name, tensor)| (name.as_str(), tensor.size())).collect())?;
        let _guard = tch::no_grad_guard();
        for (name, tensor) in self.named() {
            if let Some(source) = named.get(name) {
                tensor.detach().copy_(source);
            }
        }
        Ok(())
    }

    /// As [`Weights::load`], from arrays of a file.
    ///
    /// # Errors
    /// As [`Weights::load`].
    pub fn load_arrays(&self, arrays: &Arrays) -> Result<()> {
        let shape = |array: &Array| array.shape().iter().map(|&axis| axis as i64).collect();
        self.check(&arrays.iter().map(|(name, array)| (name.as_str(), shape(array))).collect())?;
        let _guard = tch::no_grad_guard();
        for (name, tensor) in self.named() {
            if let Some(array) = arrays.get(name) {
                tensors::overwrite(tensor, array)
                    .map_err(|error| Error::input(format!("tensor `{name}`: {error}")))?;
            }
        }
        Ok(())
    }

    /// Whether entries of these shapes are exactly what is needed.
    fn check(&self, found: &BTreeMap<&str, Vec<i64>>) -> Result<()> {
        let own = self.named().map(|(name, tensor)| (name.as_str(), tensor.size())).collect();
        check(&own, found)
    }

    fn named(&self) -> impl Iterator<Item = &(String, Tensor)> {
        self.parameters.iter().chain(&self.buffers)
    }
}

fn draw(seed: u64, name: &str, shape: &[i64], init: Init) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let mut stream = Stream::new(seed, &format!("weights/{name}"), 0);
    let values: Vec<f32> = match init {
        Init::Constant(value) => vec![value as f32; count],
        Init::Uniform(bound) => (0..count).map(|_| stream.between(-bound, bound) as f32).collect(),
        Init::Normal(deviation) => {
            stream.normals(count).into_iter().map(|value| value * deviation as f32).collect()
        }
    };
    Tensor::from_slice(&values).view(shape)
}

/// How many offending names an error spells out before it only counts them.
const SPELLED: usize = 50;

type Shapes<'a> = BTreeMap<&'a str, Vec<i64>>;

fn check(own: &Shapes, named: &Shapes) -> Result<()> {
    let missing: Vec<_> = own
        .keys()
        .filter(|name| !named.contains_key(**name) && !name.ends_with("num_batches_tracked"))
        .map(|name| (*name).to_owned())
        .collect();
    let unexpected: Vec<_> = named
        .keys()
        .filter(|name| !own.contains_key(**name))
        .map(|name| (*name).to_owned())
        .collect();
    let misshapen: Vec<_> = own
        .iter()
        .filter_map(|(name, expected)| {
            let found = named.get(name).filter(|found| *found != expected)?;
            Some(format!("{name} {found:?}, expected {expected:?}"))
        })
        .collect();
    let faults: Vec<_> =
        [("missing", missing), ("unexpected", unexpected), ("wrong shape", misshapen)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(fault, names)| format!("{} {fault}: {}", names.len(), spell(&names)))
            .collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::input(format!("the weights do not fit the architecture; {}", faults.join("; "))))
}

fn spell(names: &[String]) -> String {
    let shown = names[..names.len().min(SPELLED)].join(", ");
    let rest = names.len().saturating_sub(SPELLED);
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Weights {
        let mut weights = Weights::drawn(3, Device::Cpu);
        let _ = weights.parameter("a.weight", &[2, 3], Init::Uniform(0.5));
        let _ = weights.parameter("b.weight", &[4], Init::Normal(2.0));
        let _ = weights.buffer("b.num_batches_tracked", &Tensor::from(0i64));
        weights
    }

    #[test]
    fn draws_depend_on_seed_and_name_only() {
        let first = example();
        let mut other = Weights::drawn(3, Device::Cpu);
        let alone = other.parameter("b.weight", &[4], Init::Normal(2.0));
        assert_eq!(alone, first.parameters()[1].1);
        assert!(first.parameters()[0].1.abs().max().double_value(&[]) <= 0.5);
        assert!(first.parameters()[0].1.requires_grad());
    }

    #[test]
    fn loading_lists_everything_wrong_at_once_and_copies_nothing() {
        let weights = example();
        let before = weights.parameters()[1].1.copy();
        let named = BTreeMap::from([
            ("b.weight".to_owned(), Tensor::zeros([5], (Kind::Float, Device::Cpu))),
            ("c".to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu))),
        ]);
        let message = weights.load(&named).unwrap_err().to_string();
        for part in ["1 missing: a.weight", "1 unexpected: c", "b.weight [5], expected [4]"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(before, weights.parameters()[1].1);
    }

    #[test]
    fn aliases_follow_and_never_ask_for_gradients() {
        let weights = example();
        let mut still = weights.without_gradients();
        let alias = still.parameter("b.weight", &[4], Init::Constant(0.0));
        assert!(!alias.requires_grad());
        let mut named: BTreeMap<_, _> =
            weights.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
        named.insert("b.weight".into(), Tensor::from_slice(&[1f32, 2., 3., 4.]));
        weights.load(&named).unwrap();
        assert_eq!(alias, Tensor::from_slice(&[1f32, 2., 3., 4.]));
    }
}
