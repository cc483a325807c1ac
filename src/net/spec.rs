//! Architectures as data: `arch: wrn-28-10-swish`.

use serde::{Deserialize, Serialize};

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
