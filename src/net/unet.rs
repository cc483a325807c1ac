//! SongUNet (DDPM++, NCSN++) and DhariwalUNet (ADM), with the parameter names of EDM's code.
//!
//! Sources: Karras et al. 2022, appendix F.7; Song et al. 2021; Dhariwal and Nichol 2021.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use tch::{Device, Kind, Tensor};

use super::{
    architecture::{Architecture, Decoder, Embedding, Encoder, Model},
    layers::{GroupNorm, Linear},
    unet_block::{
        Block, BlockSpec, Conv, ConvSpec, Family, Resample, Start, dense, dense_biasless, silu,
    },
    weights::{Init, Weights},
};

/// One entry of the encoder, in order.
#[derive(Debug)]
enum Down {
    Conv(Conv),
    Block(Block),
    AuxDown(Conv),
    AuxSkip(Conv),
    AuxResidual(Conv),
}

/// One entry of the decoder, in order.
#[derive(Debug)]
enum Up {
    Block(Block),
    AuxUp(Conv),
    AuxOut(GroupNorm, Conv),
}

/// What the network is told besides the image.
#[derive(Debug, Clone, Copy)]
pub struct Condition<'a> {
    /// Noise label `[b]` or `[1]`.
    pub noise: &'a Tensor,
    /// One-hot classes `[b,k]` or `[1,k]`; needed where the network has classes.
    pub label: Option<&'a Tensor>,
    /// Augmentation label `[b,a]`.
    pub augment: Option<&'a Tensor>,
    /// Share of inner activations to zero; 0 in evaluation.
    pub dropout: f64,
}

/// A denoising U-Net without its preconditioning.
#[derive(Debug)]
pub struct UNet {
    model: Model,
    /// `[noise/2]`, already times 2π where random.
    frequencies: Frequencies,
    map_label: Option<Linear>,
    map_augment: Option<Linear>,
    map_layers: [Linear; 2],
    encoder: Vec<Down>,
    decoder: Vec<Up>,
}

#[derive(Debug)]
enum Frequencies {
    Fixed(Tensor),
    /// A buffer: it may be loaded over, so the factor 2π is applied at every use.
    Random(Tensor),
}

impl UNet {
    /// Builds the network over `weights`, every name under `model.`, with `out` output channels.
    pub fn new(weights: &mut Weights, arch: &Architecture, out: i64) -> Self {
        let noise = match arch.model {
            Model::SongUNet => arch.model_channels * arch.channel_mult_noise,
            Model::DhariwalUNet => arch.model_channels,
        };
        let embedding = arch.model_channels * arch.channel_mult_emb;
        let family = family(arch);
        let layer = |weights: &mut Weights, name: &str, from| {
            dense(weights, &format!("model.{name}"), [from, embedding], family.start)
        };
        let (encoder, skips) = encoder(weights, arch, &family);
        Self {
            model: arch.model,
            frequencies: frequencies(weights, arch, noise),
            map_label: map_label(weights, arch, noise),
            map_augment: map_augment(weights, arch, noise),
            map_layers: [
                layer(weights, "map_layer0", noise),
                layer(weights, "map_layer1", embedding),
            ],
            encoder,
            decoder: decoder(weights, arch, &family, skips, out),
        }
    }

    /// The raw output `[b,out,h,w]` for `x` `[b,c,h,w]`.
    pub fn forward(&self, x: &Tensor, condition: Condition) -> Tensor {
        let embedding = self.embed(condition);
        let (x, skips) = self.encode(x, &embedding, condition.dropout);
        self.decode(x, skips, &embedding, condition.dropout)
    }

    fn embed(&self, condition: Condition) -> Tensor {
        let frequencies = match &self.frequencies {
            Frequencies::Fixed(fixed) => fixed.shallow_clone(), // alias: only read
            Frequencies::Random(random) => random * TAU,
        };
        let angle = condition.noise.outer(&frequencies); // [b,noise/2]
        let (sine, cosine) = (angle.sin(), angle.cos());
        let mut vector = match self.model {
            Model::SongUNet => Tensor::cat(&[sine, cosine], 1), // [b,noise]
            Model::DhariwalUNet => Tensor::cat(&[cosine, sine], 1),
        };
        let label = self.map_label.as_ref().zip(condition.label).map(|(map, label)| {
            let classes = map.weight.size()[1] as f64;
            match self.model {
                Model::SongUNet => map.forward(&(label * classes.sqrt())),
                Model::DhariwalUNet => map.forward(label),
            }
        });
        if let (Model::SongUNet, Some(label)) = (self.model, &label) {
            vector = vector + label;
        }
        if let (Some(map), Some(augment)) = (&self.map_augment, condition.augment) {
            vector = vector + map.forward(augment);
        }
        vector = self.map_layers[1].forward(&self.map_layers[0].forward(&vector).silu());
        if let (Model::DhariwalUNet, Some(label)) = (self.model, &label) {
            vector = vector + label;
        }
        vector.silu() // [b,e]
    }

    fn encode(&self, x: &Tensor, embedding: &Tensor, dropout: f64) -> (Tensor, Vec<Tensor>) {
        let mut aux = x.shallow_clone(); // alias: only read
        let mut x = x.shallow_clone(); // alias: only read
        let mut skips: Vec<Tensor> = Vec::new();
        for entry in &self.encoder {
            match entry {
                Down::AuxDown(conv) => aux = conv.forward(&aux),
                Down::AuxSkip(conv) => {
                    x = &x + conv.forward(&aux);
                    skips.pop();
                    skips.push(x.shallow_clone()); // alias: only read
                }
                Down::AuxResidual(conv) => {
                    x = (&x + conv.forward(&aux)) * FRAC_1_SQRT_2;
                    aux = x.shallow_clone(); // alias: only read
                    skips.pop();
                    skips.push(x.shallow_clone()); // alias: only read
                }
                Down::Conv(conv) => {
                    x = conv.forward(&x);
                    skips.push(x.shallow_clone()); // alias: only read
                }
                Down::Block(block) => {
                    x = block.forward(&x, embedding, dropout);
                    skips.push(x.shallow_clone()); // alias: only read
                }
            }
        }
        (x, skips)
    }

    fn decode(
        &self,
        mut x: Tensor,
        mut skips: Vec<Tensor>,
        embedding: &Tensor,
        dropout: f64,
    ) -> Tensor {
        let mut out: Option<Tensor> = None;
        for entry in &self.decoder {
            match entry {
                Up::AuxUp(conv) => out = out.map(|image| conv.forward(&image)),
                Up::AuxOut(norm, conv) => {
                    let image = conv.forward(&silu(norm.forward(&x)));
                    out = Some(match out {
                        Some(lower) => image + lower,
                        None => image,
                    });
                }
                Up::Block(block) => {
                    if x.size()[1] != block.from {
                        let skip = skips.pop().expect("every skip connection has its block");
                        x = Tensor::cat(&[x, skip], 1);
                    }
                    x = block.forward(&x, embedding, dropout);
                }
            }
        }
        out.expect("the decoder ends with an output")
    }
}

fn family(arch: &Architecture) -> Family<'_> {
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

fn frequencies(weights: &mut Weights, arch: &Architecture, noise: i64) -> Frequencies {
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

fn map_label(weights: &mut Weights, arch: &Architecture, noise: i64) -> Option<Linear> {
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

fn map_augment(weights: &mut Weights, arch: &Architecture, noise: i64) -> Option<Linear> {
    (arch.augment_dim > 0).then(|| {
        let init = match arch.model {
            Model::SongUNet => Init::Uniform((6.0 / (arch.augment_dim + noise) as f64).sqrt()),
            Model::DhariwalUNet => Init::Constant(0.0),
        };
        dense_biasless(weights, "model.map_augment", [arch.augment_dim, noise], init)
    })
}

/// The encoder, and the channels that its skip connections carry.
fn encoder(weights: &mut Weights, arch: &Architecture, family: &Family) -> (Vec<Down>, Vec<i64>) {
    let conv = |from, to, kernel, resample| ConvSpec {
        from,
        to,
        kernel,
        resample,
        taps: family.taps,
        start: family.start,
    };
    let (mut entries, mut skips) = (Vec::new(), Vec::new());
    let (mut width, mut aux) = (arch.img_channels, arch.img_channels);
    for (level, mult) in arch.channel_mult.iter().enumerate() {
        let edge = arch.img_resolution >> level;
        let name = |part: &str| format!("model.enc.{edge}x{edge}_{part}");
        let mut aux_conv = |part: &str, spec| Conv::new(weights, &name(part), spec);
        if level == 0 {
            // ADM's first convolution already has the multiplier; Song's has not.
            let first = if arch.model == Model::SongUNet { 1 } else { *mult };
            let to = arch.model_channels * first;
            entries.push(Down::Conv(aux_conv("conv", conv(width, to, 3, Resample::Keep))));
            width = to;
        } else {
            let spec =
                BlockSpec { from: width, to: width, resample: Resample::Down, attention: false };
            entries.push(Down::Block(Block::new(weights, &name("down"), family, spec)));
            let mut aux_conv = |part: &str, spec| Conv::new(weights, &name(part), spec);
            match arch.encoder_type {
                Encoder::Skip if arch.model == Model::SongUNet => {
                    let down = conv(aux, aux, 0, Resample::Down);
                    entries.push(Down::AuxDown(aux_conv("aux_down", down)));
                    let skip = conv(aux, width, 1, Resample::Keep);
                    entries.push(Down::AuxSkip(aux_conv("aux_skip", skip)));
                }
                Encoder::Residual if arch.model == Model::SongUNet => {
                    let residual = conv(aux, width, 3, Resample::DownFused);
                    entries.push(Down::AuxResidual(aux_conv("aux_residual", residual)));
                    aux = width;
                }
                _ => {}
            }
        }
        skips.push(width);
        for index in 0..arch.num_blocks {
            let to = arch.model_channels * mult;
            let attention = arch.attn_resolutions.contains(&edge);
            let spec = BlockSpec { from: width, to, resample: Resample::Keep, attention };
            let name = name(&format!("block{index}"));
            entries.push(Down::Block(Block::new(weights, &name, family, spec)));
            width = to;
            skips.push(width);
        }
    }
    (entries, skips)
}

fn decoder(
    weights: &mut Weights,
    arch: &Architecture,
    family: &Family,
    mut skips: Vec<i64>,
    out: i64,
) -> Vec<Up> {
    let last = arch.channel_mult.len() - 1;
    let song = arch.model == Model::SongUNet;
    let skip_decoder = song && arch.decoder_type == Decoder::Skip;
    let image = |from, kernel, resample, start| ConvSpec {
        from,
        to: out,
        kernel,
        resample,
        taps: family.taps,
        start,
    };
    let mut entries = Vec::new();
    let mut width = arch.model_channels * arch.channel_mult[last];
    for (level, mult) in arch.channel_mult.iter().enumerate().rev() {
        let edge = arch.img_resolution >> level;
        let name = |part: &str| format!("model.dec.{edge}x{edge}_{part}");
        let mut push = |weights: &mut Weights, part: &str, spec| {
            entries.push(Up::Block(Block::new(weights, &name(part), family, spec)));
        };
        let plain =
            BlockSpec { from: width, to: width, resample: Resample::Keep, attention: false };
        if level == last {
            push(weights, "in0", BlockSpec { attention: true, ..plain });
            push(weights, "in1", plain);
        } else {
            push(weights, "up", BlockSpec { resample: Resample::Up, ..plain });
        }
        for index in 0..=arch.num_blocks {
            let from = width + skips.pop().expect("as many skips as decoder blocks");
            width = arch.model_channels * mult;
            // Song's decoder attends in the last block of a resolution only.
            let attention =
                arch.attn_resolutions.contains(&edge) && (!song || index == arch.num_blocks);
            let spec = BlockSpec { from, to: width, attention, ..plain };
            push(weights, &format!("block{index}"), spec);
        }
        if skip_decoder && level < last {
            let up = image(out, 0, Resample::Up, family.start);
            entries.push(Up::AuxUp(Conv::new(weights, &name("aux_up"), up)));
        }
        if skip_decoder || level == 0 {
            let (norm, conv) = if song {
                (name("aux_norm"), name("aux_conv"))
            } else {
                ("model.out_norm".to_owned(), "model.out_conv".to_owned())
            };
            let norm = GroupNorm::new(weights, &norm, width, family.eps);
            let spec = image(width, 3, Resample::Keep, family.start_zero);
            entries.push(Up::AuxOut(norm, Conv::new(weights, &conv, spec)));
        }
    }
    entries
}
