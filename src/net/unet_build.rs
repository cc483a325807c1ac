//! How the parts of EDM's U-Nets are put together: names, channels and starts of every layer.
//!
//! Source: Karras et al. 2022, appendix F.7; the names are those of NVlabs/edm.

use tch::{Device, Kind, Tensor};

use super::{
    architecture::{Architecture, Decoder, Embedding, Encoder, Model},
    layers::{GroupNorm, Linear},
    unet::{Contract, Expand, Frequencies},
    unet_block::{
        Block, BlockSpec, Conv, ConvSpec, Family, Resample, Start, dense, dense_biasless,
    },
    weights::{Init, Weights},
};

/// What the blocks of this architecture share.
pub(super) fn family(arch: &Architecture) -> Family<'_> {
    let embedding = arch.model_channels * arch.channel_mult_emb;
    match arch.model {
        Model::SongUNet => Family {
            embedding,
            heads: Some(1),
            skip_scale: 0.5f64.sqrt(),
            eps: 1e-6,
            taps: &arch.resample_filter,
            resample_proj: true,
            adaptive_scale: false,
            start: Start::XAVIER,
            start_zero: Start { weight: 1e-5, ..Start::XAVIER },
            start_attention: Start { weight: 0.2f64.sqrt(), ..Start::XAVIER },
        },
        Model::DhariwalUNet => {
            let third = (1f64 / 3.0).sqrt();
            let start = Start { kaiming: true, weight: third, bias: third };
            Family {
                embedding,
                heads: None,
                skip_scale: 1.0,
                eps: 1e-5,
                taps: &[1.0, 1.0],
                resample_proj: false,
                adaptive_scale: true,
                start,
                start_zero: Start { kaiming: true, weight: 0.0, bias: 0.0 },
                start_attention: start,
            }
        }
    }
}

/// The table behind the noise embedding of length `noise`.
pub(super) fn frequencies(weights: &mut Weights, arch: &Architecture, noise: i64) -> Frequencies {
    let half = noise / 2;
    if arch.model == Model::SongUNet && arch.embedding_type == Embedding::Fourier {
        let drawn = weights.drawn_values("model.map_noise.freqs", half, Init::Normal(16.0));
        return Frequencies::Random(weights.buffer("model.map_noise.freqs", &drawn));
    }
    let last = half - i64::from(arch.model == Model::SongUNet); // endpoint included
    let steps = Tensor::arange(half, (Kind::Float, Device::Cpu)) / last as f64;
    let table = Tensor::from(1e-4f32).pow(&steps);
    Frequencies::Fixed(table.to_device(weights.device()))
}

/// Classes into the embedding.
pub(super) fn map_label(weights: &mut Weights, arch: &Architecture, noise: i64) -> Option<Linear> {
    (arch.label_dim > 0).then(|| match arch.model {
        Model::SongUNet => {
            dense(weights, "model.map_label", [arch.label_dim, noise], Start::XAVIER)
        }
        Model::DhariwalUNet => {
            let embedding = arch.model_channels * arch.channel_mult_emb;
            let sizes = [arch.label_dim, embedding];
            dense_biasless(weights, "model.map_label", sizes, Init::Normal(1.0))
        }
    })
}

/// Augmentation into the embedding.
pub(super) fn map_augment(
    weights: &mut Weights,
    arch: &Architecture,
    noise: i64,
) -> Option<Linear> {
    (arch.augment_dim > 0).then(|| {
        let init = match arch.model {
            Model::SongUNet => Init::Uniform((6.0 / (arch.augment_dim + noise) as f64).sqrt()),
            Model::DhariwalUNet => Init::Constant(0.0),
        };
        dense_biasless(weights, "model.map_augment", [arch.augment_dim, noise], init)
    })
}

/// A convolution of the encoder, of EDM's start and filter.
fn conv<'a>(family: &Family<'a>, sizes: [i64; 3], resample: Resample) -> ConvSpec<'a> {
    let [from, to, kernel] = sizes;
    ConvSpec { from, to, kernel, resample, taps: family.taps, start: family.start }
}

/// The encoder, and the channels that its skip connections carry.
pub(super) fn encoder(
    weights: &mut Weights,
    arch: &Architecture,
    family: &Family,
) -> (Vec<Contract>, Vec<i64>) {
    let (mut entries, mut skips) = (Vec::new(), Vec::new());
    let (mut width, mut aside) = (arch.img_channels, arch.img_channels);
    for (level, mult) in arch.channel_mult.iter().enumerate() {
        let edge = arch.img_resolution >> level;
        let prefix = format!("model.enc.{edge}x{edge}");
        if level == 0 {
            // ADM's first convolution already has the multiplier; Song's has not.
            let first = if arch.model == Model::SongUNet { 1 } else { *mult };
            let spec = conv(family, [width, arch.model_channels * first, 3], Resample::Keep);
            width = spec.to;
            entries.push(Contract::Conv(Conv::new(weights, &format!("{prefix}_conv"), spec)));
        } else {
            let spec =
                BlockSpec { from: width, to: width, resample: Resample::Down, attention: false };
            let block = Block::new(weights, &format!("{prefix}_down"), family, spec);
            entries.push(Contract::Block(Box::new(block)));
            if arch.model == Model::SongUNet {
                let channels = [aside, width];
                entries.extend(beside(weights, arch.encoder_type, family, &prefix, channels));
                if arch.encoder_type == Encoder::Residual {
                    aside = width;
                }
            }
        }
        skips.push(width);
        for index in 0..arch.num_blocks {
            let to = arch.model_channels * mult;
            let attention = arch.attn_resolutions.contains(&edge);
            let spec = BlockSpec { from: width, to, resample: Resample::Keep, attention };
            let block = Block::new(weights, &format!("{prefix}_block{index}"), family, spec);
            entries.push(Contract::Block(Box::new(block)));
            width = to;
            skips.push(width);
        }
    }
    (entries, skips)
}

/// How the image (or the chain that replaced it) enters a lower resolution: from `channels[0]`
/// channels to `channels[1]`.
fn beside(
    weights: &mut Weights,
    encoder: Encoder,
    family: &Family,
    prefix: &str,
    channels: [i64; 2],
) -> Vec<Contract> {
    let [from, to] = channels;
    let mut make = |part: &str, sizes, resample| {
        Conv::new(weights, &format!("{prefix}_{part}"), conv(family, sizes, resample))
    };
    match encoder {
        Encoder::Standard => Vec::new(),
        Encoder::Skip => vec![
            Contract::ShrinkAside(make("aux_down", [from, from, 0], Resample::Down)),
            Contract::AddAside(make("aux_skip", [from, to, 1], Resample::Keep)),
        ],
        Encoder::Residual => {
            let residual = make("aux_residual", [from, to, 3], Resample::DownFused);
            vec![Contract::AddResidual(residual)]
        }
    }
}

/// The decoder for an encoder whose skip connections carry `skips` channels.
pub(super) fn decoder(
    weights: &mut Weights,
    arch: &Architecture,
    mut skips: Vec<i64>,
    out: i64,
) -> Vec<Expand> {
    let family = &family(arch);
    let last = arch.channel_mult.len() - 1;
    let song = arch.model == Model::SongUNet;
    let sums = song && arch.decoder_type == Decoder::Skip;
    let mut entries = Vec::new();
    let mut width = arch.model_channels * arch.channel_mult[last];
    for (level, mult) in arch.channel_mult.iter().enumerate().rev() {
        let edge = arch.img_resolution >> level;
        let prefix = format!("model.dec.{edge}x{edge}");
        let mut push = |part: &str, spec| {
            let block = Block::new(weights, &format!("{prefix}_{part}"), family, spec);
            entries.push(Expand::Block(Box::new(block)));
        };
        let plain =
            BlockSpec { from: width, to: width, resample: Resample::Keep, attention: false };
        if level == last {
            push("in0", BlockSpec { attention: true, ..plain });
            push("in1", plain);
        } else {
            push("up", BlockSpec { resample: Resample::Up, ..plain });
        }
        for index in 0..=arch.num_blocks {
            let from = width + skips.pop().expect("as many skips as decoder blocks");
            width = arch.model_channels * mult;
            // Song's decoder attends in the last block of a resolution only.
            let attends = !song || index == arch.num_blocks;
            let attention = attends && arch.attn_resolutions.contains(&edge);
            push(&format!("block{index}"), BlockSpec { from, to: width, attention, ..plain });
        }
        if sums && level < last {
            let spec = conv(family, [out, out, 0], Resample::Up);
            let enlarge = Conv::new(weights, &format!("{prefix}_aux_up"), spec);
            entries.push(Expand::EnlargeOutput(enlarge));
        }
        if sums || level == 0 {
            let prefix = if song { format!("{prefix}_aux") } else { "model.out".to_owned() };
            entries.push(output(weights, family, &prefix, [width, out]));
        }
    }
    entries
}

/// The last layers of a resolution: normalisation and convolution to the image.
fn output(weights: &mut Weights, family: &Family, prefix: &str, channels: [i64; 2]) -> Expand {
    let [from, to] = channels;
    let norm = GroupNorm::new(weights, &format!("{prefix}_norm"), from, family.eps);
    let start = family.start_zero;
    let spec = ConvSpec { start, ..conv(family, [from, to, 3], Resample::Keep) };
    Expand::AddOutput(Box::new((norm, Conv::new(weights, &format!("{prefix}_conv"), spec))))
}
