//! A denoiser: U-Net, preconditioning, named weights.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::{
    Denoiser,
    architecture::Architecture,
    precond,
    spec::{DenoiserSpec, Precision, Precond},
    tensors::Arrays,
    unet::{Condition, UNet},
    weights::Weights,
};
use crate::error::Result;

/// A denoiser with named weights. [`DenoiserNet::forward`] builds gradients to parameters;
/// [`Denoiser::denoise`] sees the same weights and never does.
#[derive(Debug)]
pub struct DenoiserNet {
    arch: Architecture,
    weights: Weights,
    /// Over the parameters themselves.
    living: UNet,
    /// Over the same storage, detached.
    still: UNet,
    /// iDDPM's table `u` `[M+1]`.
    levels: Option<Tensor>,
    /// Whether evaluation counts on weights that no longer change.
    settled: bool,
}

impl DenoiserNet {
    /// A network initialised as EDM does, its numbers drawn from `seed`.
    ///
    /// # Errors
    /// If the sizes in `spec` do not go together.
    pub fn new(spec: &DenoiserSpec, seed: u64, device: Device) -> Result<Self> {
        Ok(Self::over(Weights::drawn(seed, device), Architecture::of(spec)?))
    }

    /// A network of zeros, to be loaded over.
    ///
    /// # Errors
    /// If the sizes in `arch` do not go together.
    pub fn blank(arch: Architecture, device: Device) -> Result<Self> {
        Ok(Self::over(Weights::blank(device), arch.checked()?))
    }

    fn over(mut weights: Weights, arch: Architecture) -> Self {
        let iddpm = arch.precond == Precond::Iddpm;
        // iDDPM's networks also predict a variance, which is not used.
        let out = if iddpm { 2 * arch.img_channels } else { arch.img_channels };
        let levels = iddpm.then(|| weights.buffer("u", &precond::iddpm_levels(&arch.schedule)));
        let living = UNet::new(&mut weights, &arch, out);
        let still = UNet::new(&mut weights.without_gradients(), &arch, out);
        Self { arch, weights, living, still, levels, settled: false }
    }

    /// The same network with the gradients of its parameters off, its weights no longer to be
    /// changed: on a CPU wide 3×3 convolutions go by Winograd's filtering from here on.
    #[must_use]
    pub fn frozen(mut self) -> Self {
        self.weights.set_requires_grad(false);
        self.still.settle();
        self.settled = true;
        self
    }

    /// The denoised image `D(x; σ)` `[b,c,h,w]`, `Float`, with gradients to parameters: `x` as for
    /// [`Denoiser::denoise`], `augment` the augmentation label `[b,a]`, `dropout` the share of
    /// inner activations to zero.
    ///
    /// Images go through the network in the numbers of `precision`; noise levels and labels, what
    /// surrounds the network and the weights are 32 bits wide always.
    ///
    /// Dropout draws from torch's global generator: for a run that can be resumed, call
    /// [`tch::manual_seed`] with a number made of seed and step before each step.
    pub fn forward(
        &self,
        x: &Tensor,
        sigma: &Tensor,
        label: Option<&Tensor>,
        augment: Option<&Tensor>,
        dropout: f64,
        precision: Precision,
    ) -> Tensor {
        let labels = Labels { class: label, augment, dropout, precision };
        self.precondition(&self.living, x, sigma, labels)
    }

    fn precondition(&self, unet: &UNet, x: &Tensor, sigma: &Tensor, labels: Labels) -> Tensor {
        let x = x.to_kind(Kind::Float);
        let sigma = sigma.to_device(x.device()).to_kind(Kind::Float).flatten(0, -1); // [b] or [1]
        let c = precond::coefficients(&self.arch, &sigma, self.levels.as_ref());
        let class = (self.arch.label_dim > 0).then(|| match labels.class {
            Some(label) => label.to_kind(Kind::Float).view([-1, self.arch.label_dim]),
            None => Tensor::zeros([1, self.arch.label_dim], (Kind::Float, x.device())),
        });
        let condition = Condition {
            noise: &c.noise,
            label: class.as_ref(),
            augment: labels.augment,
            dropout: labels.dropout,
        };
        let scaled = (&x * &c.input).to_kind(labels.precision.kind());
        let raw = unet.forward(&scaled, condition).to_kind(Kind::Float);
        let raw = raw.narrow(1, 0, self.arch.img_channels); // iDDPM: without the variance
        (x * &c.skip).addcmul(&raw, &c.out)
    }

    /// Trainable tensors by name, gradients on unless [`DenoiserNet::frozen`].
    pub fn parameters(&self) -> &[(String, Tensor)] {
        self.weights.parameters()
    }

    /// Filters and tables by name.
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
        assert!(!self.settled, "weights are loaded before a network is frozen");
        self.weights.load(named)
    }

    /// As [`DenoiserNet::load`], from arrays of a file.
    ///
    /// # Errors
    /// As [`DenoiserNet::load`].
    pub fn load_arrays(&self, arrays: &Arrays) -> Result<()> {
        self.weights.load_arrays(arrays)
    }

    /// What the network was built from.
    pub fn architecture(&self) -> &Architecture {
        &self.arch
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.weights.device()
    }
}

/// What a forward pass is told besides image and noise level.
#[derive(Debug, Clone, Copy)]
struct Labels<'a> {
    class: Option<&'a Tensor>,
    augment: Option<&'a Tensor>,
    dropout: f64,
    precision: Precision,
}

impl Denoiser for DenoiserNet {
    fn shape(&self) -> [i64; 3] {
        [self.arch.img_channels, self.arch.img_resolution, self.arch.img_resolution]
    }

    fn classes(&self) -> i64 {
        self.arch.label_dim
    }

    fn sigma_range(&self) -> (f64, f64) {
        precond::sigma_range(&self.arch, self.levels.as_ref())
    }

    fn round_sigma(&self, sigma: f64) -> f64 {
        match &self.levels {
            Some(levels) => {
                let nearest = (levels - sigma).abs().argmin(None, false).int64_value(&[]);
                levels.double_value(&[nearest])
            }
            None => sigma,
        }
    }

    fn denoise(&self, x: &Tensor, sigma: &Tensor, label: Option<&Tensor>) -> Tensor {
        let precision = Precision::Fp32;
        let labels = Labels { class: label, augment: None, dropout: 0.0, precision };
        self.precondition(&self.still, x, sigma, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{formula, load, spec::DenoiserArch, spec::DenoiserSpec, spec::Precond};
    use serde_json::Value;

    type Tensors = BTreeMap<String, Tensor>;

    fn goldens() -> (serde_json::Map<String, Value>, Tensors) {
        let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED is set");
        let folder = std::path::Path::new(&shared).join("golden");
        let text = std::fs::read_to_string(folder.join("diffusion.json")).unwrap();
        // Python writes infinity bare; sigma_max null is compared as infinity below.
        let json = serde_json::from_str(&text.replace("Infinity", "null")).unwrap();
        let tensors = Tensor::read_safetensors(folder.join("diffusion.safetensors")).unwrap();
        (json, tensors.into_iter().collect())
    }

    fn network(tag: &str, case: &Value, tensors: &Tensors) -> DenoiserNet {
        let class = case["precond"].as_str().unwrap();
        let arch = Architecture::from_kwargs(class, &case["args"]).unwrap();
        let network = DenoiserNet::blank(arch, Device::Cpu).unwrap();
        formula::fill(&network.state());
        for (name, tensor) in network.state() {
            if let Some(stored) = tensors.get(&format!("{tag}.{name}")) {
                tensor.detach().copy_(stored);
            }
        }
        network
    }

    fn check_names(tag: &str, case: &Value, network: &DenoiserNet) {
        let sorted = |named: &[(String, Tensor)]| {
            let mut own: Vec<_> = named.iter().map(|(n, t)| (n.clone(), t.size())).collect();
            own.sort();
            own
        };
        let (own, buffers) = (sorted(network.parameters()), sorted(network.buffers()));
        let count: usize = network.parameters().iter().map(|(_, t)| t.numel()).sum();
        assert_eq!(count as u64, case["params"].as_u64().unwrap(), "{tag}");
        match &case["state_dict"] {
            Value::Array(_) => {
                let expected: Vec<(String, Vec<i64>)> =
                    serde_json::from_value(case["state_dict"].clone()).unwrap();
                assert_eq!(own, expected, "{tag}");
            }
            expected => assert_eq!(own.len() as u64, expected.as_u64().unwrap(), "{tag}"),
        }
        match &case["buffers"] {
            Value::Object(_) => {
                let expected: BTreeMap<String, Vec<i64>> =
                    serde_json::from_value(case["buffers"].clone()).unwrap();
                assert_eq!(buffers, expected.into_iter().collect::<Vec<_>>(), "{tag}");
            }
            expected => assert_eq!(buffers.len() as u64, expected.as_u64().unwrap(), "{tag}"),
        }
    }

    fn check_sigmas(tag: &str, case: &Value, network: &DenoiserNet) {
        let close = |a: f64, b: f64| {
            (a.is_infinite() && b.is_infinite()) || (a - b).abs() <= 1e-6 * b.abs()
        };
        let (low, high) = network.sigma_range();
        let infinity = f64::INFINITY;
        assert!(close(low, case["sigma_min"].as_f64().unwrap()), "{tag}: {low}");
        assert!(close(high, case["sigma_max"].as_f64().unwrap_or(infinity)), "{tag}: {high}");
        let rounded: Vec<f64> = serde_json::from_value(case["round_sigma"].clone()).unwrap();
        for (sigma, expected) in [0.01, 0.5, 7.0].into_iter().zip(rounded) {
            let got = network.round_sigma(sigma);
            assert!(close(got, expected), "{tag}: {sigma} rounds to {got}, not {expected}");
        }
    }

    fn check(wanted: impl Fn(&str) -> bool) {
        let (cases, tensors) = goldens();
        let mut seen = 0;
        let tagged = cases.iter().filter(|(tag, case)| wanted(tag) && case.get("args").is_some());
        for (tag, case) in tagged {
            let network = network(tag, case, &tensors);
            check_names(tag, case, &network);
            check_sigmas(tag, case, &network);
            let [c, h, w] = network.shape();
            let sigma: Vec<f64> = serde_json::from_value(case["sigma"].clone()).unwrap();
            let sigma = Tensor::from_slice(&sigma).to_kind(Kind::Float);
            let batch = case["batch"].as_i64().unwrap();
            let x = formula::images(&[batch, c, h, w], -1.0, 1.0, Device::Cpu)
                * (&sigma + 1.0).view([-1, 1, 1, 1]);
            let classes = network.classes();
            let label = (classes > 0).then(|| {
                let index = Tensor::arange(batch, (Kind::Int64, Device::Cpu)).remainder(classes);
                index.one_hot(classes).to_kind(Kind::Float)
            });
            let _guard = tch::no_grad_guard();
            let got = network.denoise(&x, &sigma, label.as_ref());
            let expected = &tensors[&format!("{tag}.denoised")];
            let error = (got - expected).abs().max() / expected.abs().max();
            let error = error.double_value(&[]);
            println!("{tag}: relative error {error:.1e}");
            assert!(error < 1e-4, "{tag}: {error}");
            seen += 1;
        }
        assert!(seen > 0, "some tag is checked");
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn denoised_images_match_the_official_networks() {
        check(|tag| !tag.starts_with("imagenet64"));
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn denoised_images_match_the_official_imagenet_network() {
        check(|tag| tag.starts_with("imagenet64"));
    }

    fn small(arch: DenoiserArch) -> DenoiserSpec {
        DenoiserSpec {
            arch,
            precond: Precond::Edm,
            resolution: 16,
            classes: 4,
            channels: 32,
            channel_mult: vec![1, 2],
            blocks: 1,
            attention: vec![8],
            augment_dim: 9,
        }
    }

    #[test]
    fn bf16_rounds_images_and_gradients_and_no_more() {
        for arch in [DenoiserArch::Ddpmpp, DenoiserArch::Ncsnpp, DenoiserArch::Adm] {
            let network = DenoiserNet::new(&small(arch), 5, Device::Cpu).unwrap();
            formula::fill(&network.state());
            let x = formula::images(&[2, 3, 16, 16], -1.0, 1.0, Device::Cpu);
            let sigma = Tensor::from_slice(&[0.5f32, 2.0]);
            let label = Tensor::eye(4, (Kind::Float, Device::Cpu)).narrow(0, 0, 2);
            let pass = |precision| {
                let out = network.forward(&x, &sigma, Some(&label), None, 0.0, precision);
                let parameters: Vec<_> = network.parameters().iter().map(|(_, t)| t).collect();
                let loss = (&out - &x).square().sum(Kind::Float);
                let slopes = Tensor::run_backward(&[loss], &parameters, false, false);
                let slopes: Vec<_> =
                    slopes.iter().filter(|t| t.defined()).map(|t| t.view([-1])).collect();
                assert!(slopes.iter().all(|slope| slope.kind() == Kind::Float));
                (out.detach(), Tensor::cat(&slopes, 0))
            };
            let ((whole, slope), (half, rough)) = (pass(Precision::Fp32), pass(Precision::Bf16));
            let apart = |a: &Tensor, b: &Tensor| ((a - b).norm() / a.norm()).double_value(&[]);
            let (image, slope) = (apart(&whole, &half), apart(&slope, &rough));
            println!("{arch:?}: {image} {slope}");
            assert!(half.kind() == Kind::Float && image > 0.0 && image < 0.02, "{arch:?} {image}");
            assert!(slope < 0.1, "{arch:?} {slope}");
        }
    }

    #[test]
    fn training_reaches_every_parameter_and_evaluation_none() {
        for arch in [DenoiserArch::Ddpmpp, DenoiserArch::Ncsnpp, DenoiserArch::Adm] {
            let network = DenoiserNet::new(&small(arch), 5, Device::Cpu).unwrap();
            let x = formula::images(&[2, 3, 16, 16], -1.0, 1.0, Device::Cpu);
            let sigma = Tensor::from_slice(&[0.5f32, 2.0]);
            let label = Tensor::eye(4, (Kind::Float, Device::Cpu)).narrow(0, 0, 2);
            let augment = Tensor::ones([2, 9], (Kind::Float, Device::Cpu));
            assert!(!network.denoise(&x, &sigma, Some(&label)).requires_grad());
            let fp32 = Precision::Fp32;
            let out = network.forward(&x, &sigma, Some(&label), Some(&augment), 0.1, fp32);
            out.square().sum(Kind::Float).backward();
            for (name, tensor) in network.parameters() {
                assert!(tensor.grad().defined(), "{arch:?} {name}");
            }
            let deviation = network.denoise(&x, &sigma, None).isfinite().all();
            assert_eq!(deviation.int64_value(&[]), 1);
        }
    }

    #[test]
    fn frozen_networks_compute_the_same() {
        for arch in [DenoiserArch::Ddpmpp, DenoiserArch::Adm] {
            let wide = DenoiserSpec { channels: 128, ..small(arch) };
            let network = DenoiserNet::new(&wide, 5, Device::Cpu).unwrap();
            formula::fill(&network.state());
            let x = formula::images(&[3, 3, 16, 16], -2.0, 2.0, Device::Cpu);
            let sigma = Tensor::from_slice(&[1f32]);
            let label = Tensor::eye(4, (Kind::Float, Device::Cpu)).narrow(0, 0, 3);
            let plain = network.denoise(&x, &sigma, Some(&label));
            let frozen = network.frozen().denoise(&x, &sigma, Some(&label));
            let error = (&plain - frozen).abs().max() / plain.abs().max();
            let error = error.double_value(&[]);
            println!("{arch:?}: {error:.1e}");
            assert!(error < 1e-5, "{arch:?}: {error}");
        }
    }

    #[test]
    fn sigma_may_be_shared_and_the_input_double() {
        let x = formula::images(&[2, 3, 16, 16], -1.0, 1.0, Device::Cpu);
        let label = Tensor::eye(4, (Kind::Float, Device::Cpu)).narrow(0, 0, 2);
        for arch in [DenoiserArch::Ddpmpp, DenoiserArch::Adm] {
            let network = DenoiserNet::new(&small(arch), 5, Device::Cpu).unwrap();
            // Zero and tiny starts would hide what the labels do.
            formula::fill(&network.state());
            for label in [None, Some(&label)] {
                let each = network.denoise(&x, &Tensor::from_slice(&[2f32, 2.0]), label);
                let double = x.to_kind(Kind::Double);
                let shared = network.denoise(&double, &Tensor::from_slice(&[2f64]), label);
                assert_eq!(shared.kind(), Kind::Float);
                // One row and two go through different matrix products.
                let error = (&each - shared).abs().max() / each.abs().max();
                let error = error.double_value(&[]);
                println!("{arch:?}: {error:.1e}");
                assert!(error < 1e-5, "{arch:?}: {error}");
            }
        }
    }

    #[test]
    fn saved_denoisers_of_every_kind_load() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("denoiser.safetensors");
        for (arch, precond) in [
            (DenoiserArch::Ncsnpp, Precond::Ve),
            (DenoiserArch::Adm, Precond::Iddpm),
            (DenoiserArch::Ddpmpp, Precond::Vp),
        ] {
            let spec = DenoiserSpec {
                arch,
                precond,
                resolution: 8,
                classes: 0,
                channels: 32,
                channel_mult: vec![1, 1],
                blocks: 1,
                attention: vec![],
                augment_dim: 0,
            };
            let network = DenoiserNet::new(&spec, 0, Device::Cpu).unwrap();
            load::save_denoiser(&path, &network).unwrap();
            let again = load::load_denoiser(&path, Device::Cpu).unwrap();
            assert_eq!(again.architecture(), network.architecture());
            assert_eq!(again.sigma_range(), network.sigma_range());
            let x = formula::images(&[1, 3, 8, 8], -1.0, 1.0, Device::Cpu);
            let sigma = Tensor::from_slice(&[1f32]);
            assert!(again.denoise(&x, &sigma, None).equal(&network.denoise(&x, &sigma, None)));
        }
    }
}
