//! SongUNet (DDPM++, NCSN++) and DhariwalUNet (ADM), with the parameter names of EDM's code.
//!
//! Sources: Karras et al. 2022, appendix F.7; Song et al. 2021; Dhariwal and Nichol 2021.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use tch::Tensor;

use super::{
    architecture::{Architecture, Model},
    layers::{GroupNorm, Linear},
    unet_block::{Block, Conv, dense, silu},
    unet_build,
    weights::Weights,
};

/// One entry of the encoder, in order.
#[derive(Debug)]
pub(super) enum Contract {
    Conv(Conv),
    Block(Box<Block>),
    /// Shrinks the image kept aside (skip encoder).
    ShrinkAside(Conv),
    /// Adds the image kept aside (skip encoder).
    AddAside(Conv),
    /// Adds what the chain beside makes of the image (residual encoder).
    AddResidual(Conv),
}

/// One entry of the decoder, in order.
#[derive(Debug)]
pub(super) enum Expand {
    Block(Box<Block>),
    /// Enlarges the output so far (skip decoder).
    EnlargeOutput(Conv),
    /// Adds to the output.
    AddOutput(Box<(GroupNorm, Conv)>),
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
    encoder: Vec<Contract>,
    decoder: Vec<Expand>,
}

#[derive(Debug)]
pub(super) enum Frequencies {
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
        let family = unet_build::family(arch);
        let mut layer = |name: &str, from| {
            dense(weights, &format!("model.{name}"), [from, family.embedding], family.start)
        };
        let map_layers = [layer("map_layer0", noise), layer("map_layer1", family.embedding)];
        let (encoder, skips) = unet_build::encoder(weights, arch, &family);
        Self {
            model: arch.model,
            frequencies: unet_build::frequencies(weights, arch, noise),
            map_label: unet_build::map_label(weights, arch, noise),
            map_augment: unet_build::map_augment(weights, arch, noise),
            map_layers,
            encoder,
            decoder: unet_build::decoder(weights, arch, skips, out),
        }
    }

    /// Prepares for weights that no longer change.
    pub fn settle(&mut self) {
        for entry in &mut self.encoder {
            if let Contract::Block(block) = entry {
                block.settle();
            }
        }
        for entry in &mut self.decoder {
            if let Expand::Block(block) = entry {
                block.settle();
            }
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
        // Not in place: one noise level `[1,e]` may meet the labels of a batch `[b,e]`.
        if let (Model::SongUNet, Some(label)) = (self.model, &label) {
            vector = label + vector;
        }
        if let (Some(map), Some(augment)) = (&self.map_augment, condition.augment) {
            vector = map.forward(augment) + vector;
        }
        vector = self.map_layers[1].forward(&self.map_layers[0].forward(&vector).silu());
        if let (Model::DhariwalUNet, Some(label)) = (self.model, &label) {
            vector = label + vector;
        }
        vector.silu() // [b,e]
    }

    fn encode(&self, x: &Tensor, embedding: &Tensor, dropout: f64) -> (Tensor, Vec<Tensor>) {
        let mut aux = x.shallow_clone(); // alias: only read
        let mut x = x.shallow_clone(); // alias: only read
        let mut skips: Vec<Tensor> = Vec::new();
        for entry in &self.encoder {
            match entry {
                Contract::ShrinkAside(conv) => aux = conv.forward(&aux),
                Contract::AddAside(conv) => {
                    x = conv.forward(&aux) + x;
                    skips.pop();
                    skips.push(x.shallow_clone()); // alias: only read
                }
                Contract::AddResidual(conv) => {
                    x = (conv.forward(&aux) + x) * FRAC_1_SQRT_2;
                    aux = x.shallow_clone(); // alias: only read
                    skips.pop();
                    skips.push(x.shallow_clone()); // alias: only read
                }
                Contract::Conv(conv) => {
                    x = conv.forward(&x);
                    skips.push(x.shallow_clone()); // alias: only read
                }
                Contract::Block(block) => {
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
                Expand::EnlargeOutput(conv) => out = out.map(|image| conv.forward(&image)),
                Expand::AddOutput(last) => {
                    let (norm, conv) = &**last;
                    let image = conv.forward(&silu(norm.forward(&x)));
                    out = Some(match out {
                        Some(lower) => image + lower,
                        None => image,
                    });
                }
                Expand::Block(block) => {
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
