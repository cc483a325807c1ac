//! Any classifier by its spec: normalisation, body, named weights.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::{
    Classifier, Mode,
    arch::{self, Arch},
    preact::PreActResNet,
    resnet::ResNet,
    small::{CnnA, VerifiedResNet},
    spec::ClassifierSpec,
    tensors::Arrays,
    weights::Weights,
    wrn::WideResNet,
};
use crate::error::{Error, Result};

/// The layers behind the normalisation.
#[derive(Debug)]
enum Body {
    Wide(WideResNet),
    PreAct(PreActResNet),
    Residual(ResNet),
    CnnA(CnnA),
    Verified(VerifiedResNet),
}

impl Body {
    fn new(weights: &mut Weights, spec: &ClassifierSpec, arch: Arch) -> Self {
        let (classes, resolution) = (spec.classes, arch::resolution(&spec.dataset));
        match arch {
            Arch::Wide(wide) => Self::Wide(WideResNet::new(weights, wide, classes)),
            Arch::PreAct(preact) => Self::PreAct(PreActResNet::new(weights, preact, classes)),
            Arch::Cifar(depth) => Self::Residual(ResNet::cifar(weights, depth, classes)),
            Arch::Basic(layers) => Self::Residual(ResNet::basic(weights, layers, classes)),
            Arch::CnnA | Arch::Small => Self::CnnA(CnnA::new(weights, resolution, classes)),
            Arch::Verified(stages) => {
                Self::Verified(VerifiedResNet::new(weights, stages, resolution, classes))
            }
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        match self {
            Self::Wide(body) => body.forward(x, mode),
            Self::PreAct(body) => body.forward(x, mode),
            Self::Residual(body) => body.forward(x, mode),
            Self::CnnA(body) => body.forward(x),
            Self::Verified(body) => body.forward(x),
        }
    }

    fn segments(&self) -> usize {
        if let Self::Wide(body) = self { body.segments() } else { 1 }
    }

    fn segment(&self, index: usize, x: &Tensor, mode: Mode) -> Tensor {
        if let Self::Wide(body) = self {
            body.segment(index, x, mode)
        } else {
            self.forward(x, mode)
        }
    }

    /// The same in evaluation up to rounding; `None` without batch normalisation.
    fn fused(&self) -> Option<Self> {
        match self {
            Self::Wide(body) => Some(Self::Wide(body.fused())),
            Self::PreAct(body) => Some(Self::PreAct(body.fused())),
            Self::Residual(body) => Some(Self::Residual(body.fused())),
            Self::CnnA(_) | Self::Verified(_) => None,
        }
    }
}

/// A classifier with named weights. [`Network::forward`] builds gradients to parameters;
/// [`Classifier::logits`] sees the same weights and never does.
#[derive(Debug)]
pub struct Network {
    spec: ClassifierSpec,
    weights: Weights,
    /// Over the parameters themselves.
    living: Body,
    /// Over the same storage, detached: evaluation inside training needs no copy of the weights.
    still: Body,
    /// Mean and deviation, each `[1,3,1,1]`.
    normalisation: Option<[Tensor; 2]>,
    /// What [`Classifier::remarks`] says.
    remarks: Vec<String>,
}

impl Network {
    /// A network initialised as the official code does, its numbers drawn from `seed`.
    ///
    /// # Errors
    /// If the architecture is unknown (the message lists what exists) or `classes` is not positive.
    pub fn new(spec: &ClassifierSpec, seed: u64, device: Device) -> Result<Self> {
        Self::over(Weights::drawn(seed, device), spec)
    }

    /// A network of zeros, to be loaded over.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn blank(spec: &ClassifierSpec, device: Device) -> Result<Self> {
        Self::over(Weights::blank(device), spec)
    }

    fn over(mut weights: Weights, spec: &ClassifierSpec) -> Result<Self> {
        let (arch, normalisation) = arch::resolve(&spec.arch, &spec.dataset)?;
        if spec.classes < 1 {
            let message = format!("classes: {} is not a number of classes", spec.classes);
            return Err(Error::input(message));
        }
        let living = Body::new(&mut weights, spec, arch);
        let still = Body::new(&mut weights.without_gradients(), spec, arch);
        let channels = |values: [f64; 3]| {
            let values = Tensor::from_slice(&values).to_kind(Kind::Float);
            values.to_device(weights.device()).view([1, 3, 1, 1])
        };
        let normalisation = normalisation.map(|both| both.map(channels));
        let (spec, remarks) = (spec.clone(), Vec::new());
        Ok(Self { spec, weights, living, still, normalisation, remarks })
    }

    /// The same network with `remarks` on what is not certain of it.
    #[must_use]
    pub(super) fn with_remarks(self, remarks: impl IntoIterator<Item = String>) -> Self {
        Self { remarks: remarks.into_iter().collect(), ..self }
    }

    /// The same network with the gradients of its parameters off.
    #[must_use]
    pub fn frozen(self) -> Self {
        self.weights.set_requires_grad(false);
        self
    }

    /// Logits `[b,k]` of images `x` `[b,3,h,w]`, `Float` in `[0, 1]`, with gradients to parameters.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.living.forward(&self.normalise(x), mode)
    }

    /// As [`Network::forward`] without gradients to parameters: crafting adversarial images with
    /// batch statistics ([`Mode::Frozen`]) at less cost.
    pub fn forward_still(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.still.forward(&self.normalise(x), mode)
    }

    /// Segments of the way from [`Network::normalise`]d images to logits, for who must hold less
    /// of it in memory than a whole pass.
    pub fn segments(&self) -> usize {
        self.living.segments()
    }

    /// Segment `index` of the way, with gradients to parameters. Computes in the kind of `x`,
    /// batch norm's statistics and parameters in `Float`.
    pub fn segment(&self, index: usize, x: &Tensor, mode: Mode) -> Tensor {
        self.living.segment(index, x, mode)
    }

    /// Images as the first segment takes them.
    pub fn normalise(&self, x: &Tensor) -> Tensor {
        // Channels-last would be a sixth faster for small networks on the CPU, but it rounds
        // otherwise than the official code: signed gradients flip, and crafted images differ.
        normalised(x, self.normalisation.as_ref())
    }

    /// Trainable tensors by name, gradients on unless [`Network::frozen`].
    pub fn parameters(&self) -> &[(String, Tensor)] {
        self.weights.parameters()
    }

    /// `running_mean`, `running_var` and `num_batches_tracked` by name.
    pub fn buffers(&self) -> &[(String, Tensor)] {
        self.weights.buffers()
    }

    /// Parameters, then buffers: detached aliases of the living tensors (copy before keeping).
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.weights.state()
    }

    /// Copies `named` into the network.
    ///
    /// # Errors
    /// Lists missing, unexpected and misshapen entries all at once; nothing is copied then.
    pub fn load(&self, named: &BTreeMap<String, Tensor>) -> Result<()> {
        self.weights.load(named)
    }

    /// As [`Network::load`], from arrays of a file.
    ///
    /// # Errors
    /// As [`Network::load`].
    pub fn load_arrays(&self, arrays: &Arrays) -> Result<()> {
        self.weights.load_arrays(arrays)
    }

    /// What the network was built from.
    pub fn spec(&self) -> &ClassifierSpec {
        &self.spec
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.weights.device()
    }
}

impl Classifier for Network {
    fn classes(&self) -> i64 {
        self.spec.classes
    }

    fn architecture(&self) -> Option<String> {
        let ClassifierSpec { arch, dataset, classes } = &self.spec;
        let inside = match arch::resolve(arch, dataset) {
            Ok((_, Some([mean, deviation]))) => {
                let list = |values: [f64; 3]| {
                    values.map(|value| ((value * 1e4).round() / 1e4).to_string()).join(" ")
                };
                format!("normalised by mean {} and deviation {}", list(mean), list(deviation))
            }
            _ => "images as they are".into(),
        };
        Some(format!("{arch}, {classes} classes, {inside}"))
    }

    fn remarks(&self) -> &[String] {
        &self.remarks
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        self.forward_still(x, Mode::Eval)
    }

    fn fused(&self) -> Option<Box<dyn Classifier>> {
        let body = self.still.fused()?;
        let alias = |both: &[Tensor; 2]| [both[0].shallow_clone(), both[1].shallow_clone()];
        let normalisation = self.normalisation.as_ref().map(alias);
        let cpu = self.device() == Device::Cpu;
        let widest =
            self.parameters().iter().filter_map(|(_, tensor)| tensor.size().first().copied());
        let turned = cpu.then_some(widest.max().unwrap_or(0) <= WIDEST_TURNED);
        Some(Box::new(Fused { body, normalisation, turned, classes: self.spec.classes }))
    }
}

/// Up to so many channels a CPU computes gradients faster with channels last.
const WIDEST_TURNED: i64 = 512;

/// A network as evaluation sees it, its normalisations folded: a copy that does not follow when
/// the network is trained further.
#[derive(Debug)]
struct Fused {
    body: Body,
    normalisation: Option<[Tensor; 2]>,
    /// On a CPU: whether images are stored channels last even where gradients are asked for. Only
    /// here, as it rounds otherwise than the official code.
    turned: Option<bool>,
    classes: i64,
}

impl Classifier for Fused {
    fn classes(&self) -> i64 {
        self.classes
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let mut x = normalised(x, self.normalisation.as_ref());
        if self.turned.is_some_and(|always| always || !x.requires_grad()) {
            x = x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        }
        self.body.forward(&x, Mode::Eval)
    }
}

/// `x` less the mean and over the deviation, each `[1,3,1,1]`.
fn normalised(x: &Tensor, by: Option<&[Tensor; 2]>) -> Tensor {
    match by {
        Some([mean, deviation]) => (x - mean) / deviation,
        None => x.shallow_clone(), // alias: only read
    }
}

#[cfg(test)]
#[path = "classifier_tests.rs"]
mod tests;
