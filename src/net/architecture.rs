//! What fixes a denoiser, in the words of EDM's constructors: the keyword arguments of its
//! pickles, resolved so that no default is left open.
//!
//! Source: the constructors of NVlabs/edm `training/networks.py`, whose defaults these are.

use serde::{Deserialize, Serialize};

use super::spec::{DenoiserArch, DenoiserSpec, Precond};
use crate::error::{Error, Result};

/// Which U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// DDPM++ and NCSN++ (Song et al. 2021).
    SongUNet,
    /// ADM (Dhariwal and Nichol 2021).
    DhariwalUNet,
}

/// How the noise level becomes a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Embedding {
    /// Sines and cosines of fixed frequencies.
    Positional,
    /// Sines and cosines of random frequencies.
    Fourier,
}

/// How the input image enters lower resolutions of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoder {
    /// Not at all (DDPM++).
    Standard,
    /// Shrunk and added.
    Skip,
    /// Through a chain of convolutions (NCSN++).
    Residual,
}

/// How the output image is assembled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoder {
    /// From the highest resolution.
    Standard,
    /// As a sum over all resolutions.
    Skip,
}

/// The noise schedules that VP and iDDPM were trained with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Slope (VP).
    pub beta_d: f64,
    /// Initial slope (VP).
    pub beta_min: f64,
    /// The smallest time (VP).
    pub epsilon_t: f64,
    /// Time steps `M` (VP and iDDPM).
    pub steps: i64,
    /// Least ratio of neighbouring ᾱ (iDDPM's `C_1`).
    pub c_1: f64,
    /// Offset of ᾱ (iDDPM's `C_2`).
    pub c_2: f64,
}

impl Schedule {
    /// That of all published networks.
    pub const USUAL: Self =
        Self { beta_d: 19.9, beta_min: 0.1, epsilon_t: 1e-5, steps: 1000, c_1: 0.001, c_2: 0.008 };

    fn usual() -> Self {
        Self::USUAL
    }

    fn is_usual(&self) -> bool {
        *self == Self::USUAL
    }
}

/// A denoiser's resolved constructor arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// How network outputs become denoised images.
    pub precond: Precond,
    /// Which U-Net.
    pub model: Model,
    /// Edge length of the images.
    pub img_resolution: i64,
    /// Channels of the images.
    pub img_channels: i64,
    /// Classes; 0 for unconditional.
    pub label_dim: i64,
    /// Length of the augmentation label; 0 for none.
    pub augment_dim: i64,
    /// Channels at the highest resolution.
    pub model_channels: i64,
    /// Channel multiplier of each resolution.
    pub channel_mult: Vec<i64>,
    /// Multiplier of the embedding's length.
    pub channel_mult_emb: i64,
    /// Residual blocks at each resolution.
    pub num_blocks: i64,
    /// Resolutions with self-attention.
    pub attn_resolutions: Vec<i64>,
    /// Dropout that it was (or is to be) trained with.
    pub dropout: f64,
    /// Noise-level embedding (SongUNet).
    pub embedding_type: Embedding,
    /// Multiplier of the noise embedding's length (SongUNet).
    pub channel_mult_noise: i64,
    /// Encoder (SongUNet).
    pub encoder_type: Encoder,
    /// Decoder (SongUNet).
    pub decoder_type: Decoder,
    /// Taps of the filter around changes of resolution (SongUNet).
    pub resample_filter: Vec<f64>,
    /// Expected deviation of the data (EDM).
    pub sigma_data: f64,
    /// Smallest supported noise level (EDM and VE; the others derive it).
    pub sigma_min: f64,
    /// Largest supported noise level (EDM and VE), `None` without bound.
    pub sigma_max: Option<f64>,
    /// Noise schedule (VP and iDDPM); not written where it is the usual one.
    #[serde(default = "Schedule::usual", skip_serializing_if = "Schedule::is_usual")]
    pub schedule: Schedule,
}

/// The keyword arguments that pickles hold; absent ones have the constructor's default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kwargs {
    img_resolution: i64,
    img_channels: i64,
    #[serde(default)]
    label_dim: i64,
    #[serde(default)]
    augment_dim: i64,
    model_type: Option<Model>,
    model_channels: Option<i64>,
    channel_mult: Option<Vec<i64>>,
    channel_mult_emb: Option<i64>,
    num_blocks: Option<i64>,
    attn_resolutions: Option<Vec<i64>>,
    dropout: Option<f64>,
    embedding_type: Option<Embedding>,
    channel_mult_noise: Option<i64>,
    encoder_type: Option<Encoder>,
    decoder_type: Option<Decoder>,
    resample_filter: Option<Vec<f64>>,
    sigma_data: Option<f64>,
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
    beta_d: Option<f64>,
    beta_min: Option<f64>,
    epsilon_t: Option<f64>,
    #[serde(rename = "M")]
    steps: Option<i64>,
    #[serde(rename = "C_1")]
    c_1: Option<f64>,
    #[serde(rename = "C_2")]
    c_2: Option<f64>,
    // How it was trained or run: without influence on what it computes here.
    #[serde(rename = "use_fp16")]
    _use_fp16: Option<bool>,
    #[serde(rename = "label_dropout")]
    _label_dropout: Option<f64>,
}

impl Architecture {
    /// From the class name of EDM's preconditioning (`EDMPrecond`) and its keyword arguments.
    ///
    /// # Errors
    /// If the class or an argument is unknown, or the sizes do not go together.
    pub fn from_kwargs(class: &str, kwargs: &serde_json::Value) -> Result<Self> {
        let precond = match class {
            "EDMPrecond" => Precond::Edm,
            "VPPrecond" => Precond::Vp,
            "VEPrecond" => Precond::Ve,
            "iDDPMPrecond" => Precond::Iddpm,
            _ => {
                let known = "EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond";
                return Err(Error::input(format!("unknown class `{class}`; expected {known}")));
            }
        };
        let kwargs: Kwargs = serde_json::from_value(kwargs.clone())
            .map_err(|error| Error::input(format!("{class}: {error}")))?;
        resolve(precond, kwargs).checked()
    }

    /// The published shape that `spec` asks for.
    ///
    /// # Errors
    /// If the sizes do not go together.
    pub fn of(spec: &DenoiserSpec) -> Result<Self> {
        let ncsnpp = spec.arch == DenoiserArch::Ncsnpp;
        let adm = spec.arch == DenoiserArch::Adm;
        let (sigma_min, sigma_max) = default_range(spec.precond);
        Self {
            precond: spec.precond,
            model: if adm { Model::DhariwalUNet } else { Model::SongUNet },
            img_resolution: spec.resolution,
            img_channels: 3,
            label_dim: spec.classes,
            augment_dim: spec.augment_dim,
            model_channels: spec.channels,
            channel_mult: spec.channel_mult.clone(),
            channel_mult_emb: 4,
            num_blocks: spec.blocks,
            attn_resolutions: spec.attention.clone(),
            dropout: if adm { 0.1 } else { 0.13 },
            embedding_type: if ncsnpp { Embedding::Fourier } else { Embedding::Positional },
            channel_mult_noise: if ncsnpp { 2 } else { 1 },
            encoder_type: if ncsnpp { Encoder::Residual } else { Encoder::Standard },
            decoder_type: Decoder::Standard,
            resample_filter: if ncsnpp { vec![1.0, 3.0, 3.0, 1.0] } else { vec![1.0, 1.0] },
            sigma_data: 0.5,
            sigma_min,
            sigma_max,
            schedule: Schedule::USUAL,
        }
        .checked()
    }

    /// Itself, if its sizes go together.
    ///
    /// # Errors
    /// Names the size that does not.
    pub fn checked(self) -> Result<Self> {
        match self.fault() {
            Some(fault) => Err(Error::input(format!("denoiser: {fault}"))),
            None => Ok(self),
        }
    }

    fn fault(&self) -> Option<String> {
        let levels = self.channel_mult.len();
        let positive = [self.img_resolution, self.img_channels, self.model_channels]
            .into_iter()
            .chain([self.channel_mult_emb, self.channel_mult_noise, self.num_blocks])
            .chain(self.channel_mult.iter().copied())
            .all(|size| (1..=100_000).contains(&size));
        if !positive || levels == 0 || levels > 12 || self.label_dim < 0 || self.augment_dim < 0 {
            return Some("every size must be positive and at least one channel_mult given".into());
        }
        if self.img_resolution % (1 << (levels - 1)) != 0 {
            let resolution = self.img_resolution;
            return Some(format!("resolution {resolution} cannot be halved {} times", levels - 1));
        }
        let channels = self.model_channels;
        let widest = 2 * channels * self.channel_mult.iter().max().copied().unwrap_or(1);
        // Group normalisation makes 32 groups, fewer below 128 channels, four channels at least.
        if channels % 32 != 0 && (channels % 4 != 0 || widest >= 128) {
            return Some(if widest < 128 {
                format!("channels {channels} is not a multiple of 4")
            } else {
                format!(
                    "channels {channels} is not a multiple of 32, which the network's widest layers, \
                     {widest} channels, need: they are normalised in 32 groups"
                )
            });
        }
        let uneven = |mult: &&i64| {
            let width = channels * **mult;
            self.model == Model::DhariwalUNet && width >= 64 && width % (width / 64) != 0
        };
        if let Some(mult) = self.channel_mult.iter().find(uneven) {
            return Some(format!("{} channels do not part into heads of 64", channels * mult));
        }
        let Schedule { beta_d, beta_min, steps, c_1, c_2, .. } = self.schedule;
        if !(1..=1_000_000).contains(&steps) || beta_d <= 0.0 || beta_min < 0.0 {
            return Some("M and beta_d must be positive, beta_min not negative".into());
        }
        if !(c_1 > 0.0 && c_1 < 1.0 && c_2 >= 0.0) {
            return Some("C_1 must be between 0 and 1, C_2 not negative".into());
        }
        let taps = self.resample_filter.len();
        (taps == 0 || !taps.is_multiple_of(2) || self.resample_filter.iter().sum::<f64>() == 0.0)
            .then(|| "resample_filter needs an even number of taps, their sum not zero".into())
    }
}

fn default_range(precond: Precond) -> (f64, Option<f64>) {
    if precond == Precond::Ve { (0.02, Some(100.0)) } else { (0.0, None) }
}

fn resolve(precond: Precond, kwargs: Kwargs) -> Architecture {
    let default_model = match precond {
        Precond::Edm | Precond::Iddpm => Model::DhariwalUNet,
        Precond::Vp | Precond::Ve => Model::SongUNet,
    };
    let model = kwargs.model_type.unwrap_or(default_model);
    let song = model == Model::SongUNet;
    let (sigma_min, sigma_max) = default_range(precond);
    Architecture {
        precond,
        model,
        img_resolution: kwargs.img_resolution,
        img_channels: kwargs.img_channels,
        label_dim: kwargs.label_dim,
        augment_dim: kwargs.augment_dim,
        model_channels: kwargs.model_channels.unwrap_or(if song { 128 } else { 192 }),
        channel_mult: kwargs
            .channel_mult
            .unwrap_or_else(|| if song { vec![1, 2, 2, 2] } else { vec![1, 2, 3, 4] }),
        channel_mult_emb: kwargs.channel_mult_emb.unwrap_or(4),
        num_blocks: kwargs.num_blocks.unwrap_or(if song { 4 } else { 3 }),
        attn_resolutions: kwargs
            .attn_resolutions
            .unwrap_or_else(|| if song { vec![16] } else { vec![32, 16, 8] }),
        dropout: kwargs.dropout.unwrap_or(0.1),
        embedding_type: kwargs.embedding_type.unwrap_or(Embedding::Positional),
        channel_mult_noise: kwargs.channel_mult_noise.unwrap_or(1),
        encoder_type: kwargs.encoder_type.unwrap_or(Encoder::Standard),
        decoder_type: kwargs.decoder_type.unwrap_or(Decoder::Standard),
        resample_filter: kwargs.resample_filter.unwrap_or_else(|| vec![1.0, 1.0]),
        sigma_data: kwargs.sigma_data.unwrap_or(0.5),
        sigma_min: kwargs.sigma_min.unwrap_or(sigma_min),
        // JSON has no infinity: absent and null both mean without bound.
        sigma_max: kwargs.sigma_max.or(sigma_max),
        schedule: Schedule {
            beta_d: kwargs.beta_d.unwrap_or(Schedule::USUAL.beta_d),
            beta_min: kwargs.beta_min.unwrap_or(Schedule::USUAL.beta_min),
            epsilon_t: kwargs.epsilon_t.unwrap_or(Schedule::USUAL.epsilon_t),
            steps: kwargs.steps.unwrap_or(Schedule::USUAL.steps),
            c_1: kwargs.c_1.unwrap_or(Schedule::USUAL.c_1),
            c_2: kwargs.c_2.unwrap_or(Schedule::USUAL.c_2),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bad_arguments_are_named() {
        let build = |class: &str, extra: serde_json::Value| {
            let mut kwargs = json!({"img_resolution": 32, "img_channels": 3});
            let extra = extra.as_object().unwrap().clone();
            kwargs.as_object_mut().unwrap().extend(extra);
            Architecture::from_kwargs(class, &kwargs)
        };
        assert!(build("EDMPrecond", json!({})).is_ok());
        let faults = [
            ("Precond", json!({}), "unknown class"),
            ("EDMPrecond", json!({"colour": 1}), "colour"),
            ("EDMPrecond", json!({"model_type": "UNet"}), "SongUNet"),
            ("VPPrecond", json!({"img_resolution": 36}), "halved 3 times"),
            ("VPPrecond", json!({"model_channels": 100}), "multiple of 32"),
            ("VPPrecond", json!({"num_blocks": -1}), "positive"),
            ("VPPrecond", json!({"M": 0}), "M and beta_d"),
            ("iDDPMPrecond", json!({"C_1": 0}), "C_1"),
        ];
        for (class, extra, part) in faults {
            let message = build(class, extra).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
