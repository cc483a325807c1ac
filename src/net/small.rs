//! Small networks of the verification benchmarks: CNN-A and the bias-only ResNets 2B and 4B.
//!
//! Sources: the alpha-beta-CROWN benchmark set and VNN-COMP 2021; Wong et al. 2018 (`cifar-small`).

use tch::Tensor;

use super::{
    layers::{Conv, ConvSpec, Linear, Padding},
    weights::Weights,
};

/// A convolution with bias and torch's start.
fn conv(from: i64, to: i64, kernel: i64, stride: i64) -> ConvSpec {
    ConvSpec {
        bias: true,
        padding: Padding::Even(kernel / 2),
        ..ConvSpec::same(from, to, kernel, stride)
    }
}

fn linear(weights: &mut Weights, name: &str, from: i64, to: i64) -> Linear {
    Linear::new(weights, name, from, to, Linear::torch_init(from))
}

/// Two 4×4 convolutions of stride 2 and two fully connected layers.
#[derive(Debug)]
pub struct CnnA {
    convs: [Conv; 2],
    linears: [Linear; 2],
}

impl CnnA {
    /// Builds the network over `weights` for square images of edge `resolution`.
    pub fn new(weights: &mut Weights, resolution: i64, classes: i64) -> Self {
        let four = |from, to| ConvSpec { padding: Padding::Even(1), ..conv(from, to, 4, 2) };
        let flat = 32 * (resolution / 4) * (resolution / 4);
        Self {
            convs: [Conv::new(weights, "0", four(3, 16)), Conv::new(weights, "2", four(16, 32))],
            linears: [linear(weights, "5", flat, 100), linear(weights, "7", 100, classes)],
        }
    }

    /// Logits `[b,k]` of normalised images `[b,3,h,w]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.convs[1].forward(&self.convs[0].forward(x).relu()).relu();
        self.linears[1].forward(&self.linears[0].forward(&x.flatten(1, -1)).relu())
    }
}

#[derive(Debug)]
struct Block {
    convs: [Conv; 2],
    shortcut: Option<Conv>,
}

impl Block {
    fn new(weights: &mut Weights, name: &str, from: i64, to: i64, stride: i64) -> Self {
        Self {
            convs: [
                Conv::new(weights, &format!("{name}.conv1"), conv(from, to, 3, stride)),
                Conv::new(weights, &format!("{name}.conv2"), conv(to, to, 3, 1)),
            ],
            shortcut: (stride != 1 || from != to).then(|| {
                Conv::new(weights, &format!("{name}.shortcut.0"), conv(from, to, 1, stride))
            }),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let out = self.convs[1].forward(&self.convs[0].forward(x).relu());
        match &self.shortcut {
            Some(shortcut) => (out + shortcut.forward(x)).relu(),
            None => (out + x).relu(),
        }
    }
}

/// ResNet-2B (one stage) or ResNet-4B (two stages) without batch normalisation.
#[derive(Debug)]
pub struct VerifiedResNet {
    conv1: Conv,
    blocks: Vec<Block>,
    linears: [Linear; 2],
}

impl VerifiedResNet {
    /// Builds the network over `weights` for square images of edge `resolution`: a stem to
    /// `channels`, then `stages` of two blocks with twice the channels, each halving the image.
    pub fn new(weights: &mut Weights, stages: i64, resolution: i64, classes: i64) -> Self {
        let channels = 8 * stages;
        let conv1 = Conv::new(weights, "conv1", conv(3, channels, 3, 2));
        let mut blocks = Vec::new();
        let mut from = channels;
        for stage in 1..=stages {
            for index in 0..2 {
                let stride = if index == 0 { 2 } else { 1 };
                let name = format!("layer{stage}.{index}");
                blocks.push(Block::new(weights, &name, from, 2 * channels, stride));
                from = 2 * channels;
            }
        }
        let edge = resolution >> (1 + stages);
        let linears = [
            linear(weights, "linear1", from * edge * edge, 100),
            linear(weights, "linear2", 100, classes),
        ];
        Self { conv1, blocks, linears }
    }

    /// Logits `[b,k]` of normalised images `[b,3,h,w]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.conv1.forward(x).relu();
        for block in &self.blocks {
            x = block.forward(&x);
        }
        self.linears[1].forward(&self.linears[0].forward(&x.flatten(1, -1)).relu())
    }
}
