//! Architectures as data: `arch: wrn-28-10-swish`.

use serde::{Deserialize, Serialize};
use tch::Kind;

/// In which kind of numbers networks compute. Weights, statistics and losses are 32 bits wide always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits: the paper's.
    #[default]
    Fp32,
    /// 16 bits with the range of 32.
    Bf16,
    /// 16 bits with a finer grain and a small range; losses are scaled as they need it.
    Fp16,
}

impl Precision {
    /// The numbers that activations are.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        }
    }

    /// Whether it is the usual one, which specs do not mention.
    pub fn is_fp32(&self) -> bool {
        *self == Self::Fp32
    }
}

/// Everything that fixes a classifier's parameters' shapes and its arithmetic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierSpec {
    /// `wrn-28-10-swish`, `preact-resnet18`, `resnet20`, ...
    pub arch: String,
    /// The data set whose head and normalisation it has (`cifar10`, `tiny-imagenet`, ...).
    pub dataset: String,
    /// How many classes.
    pub classes: i64,
}

/// The U-Net of a denoiser, in EDM's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DenoiserArch {
    /// SongUNet with positional embedding and standard encoder and decoder.
    Ddpmpp,
    /// SongUNet with Fourier embedding and residual encoder.
    Ncsnpp,
    /// DhariwalUNet.
    Adm,
}

/// How network outputs become denoised images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precond {
    /// Karras et al. 2022.
    Edm,
    /// Variance preserving (Song et al. 2021).
    Vp,
    /// Variance exploding (Song et al. 2021).
    Ve,
    /// Nichol and Dhariwal 2021.
    Iddpm,
}

/// A denoiser that gauntlet trains itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenoiserSpec {
    /// Which U-Net.
    pub arch: DenoiserArch,
    /// Preconditioning.
    pub precond: Precond,
    /// Edge length of the images.
    pub resolution: i64,
    /// Classes that condition it; 0 for unconditional.
    pub classes: i64,
    /// Channels at the highest resolution.
    pub channels: i64,
    /// Channel multiplier of each resolution.
    pub channel_mult: Vec<i64>,
    /// Residual blocks at each resolution.
    pub blocks: i64,
    /// Resolutions with self-attention.
    pub attention: Vec<i64>,
    /// Length of the augmentation label; 0 for none, 9 for EDM's pipe.
    pub augment_dim: i64,
}

impl DenoiserSpec {
    /// The DDPM++ that Karras et al. (2022) train on CIFAR-10 with classes.
    pub fn edm_cifar10() -> Self {
        Self {
            arch: DenoiserArch::Ddpmpp,
            precond: Precond::Edm,
            resolution: 32,
            classes: 10,
            channels: 128,
            channel_mult: vec![2, 2, 2],
            blocks: 4,
            attention: vec![16],
            augment_dim: 9,
        }
    }
}
