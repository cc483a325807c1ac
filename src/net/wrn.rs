//! Wide residual networks as the robustness papers use them, with the parameter names of the
//! official code.
//!
//! Sources: Zagoruyko and Komodakis 2016; Gowal et al. 2020 (Swish, TensorFlow's padding).

use tch::Tensor;

use super::{
    Mode,
    layers::{Activation, BatchNorm, Conv, ConvSpec, Linear, Padding},
    weights::{Init, Weights},
};

/// Depth, width and nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WideSpec {
    /// Layers: 6n + 4.
    pub depth: i64,
    /// Channel multiplier.
    pub width: i64,
    /// Nonlinearity.
    pub activation: Activation,
}

#[derive(Debug)]
struct Block {
    batchnorm_0: BatchNorm,
    conv_0: Conv,
    batchnorm_1: BatchNorm,
    conv_1: Conv,
    shortcut: Option<Conv>,
    activation: Activation,
}

impl Block {
    fn new(weights: &mut Weights, name: &str, from: i64, to: i64, stride: i64) -> Self {
        let padding = if stride == 1 { Padding::Even(1) } else { Padding::RightAndBelow };
        let first = ConvSpec { padding, ..conv(from, to, 3, stride) };
        Self {
            batchnorm_0: BatchNorm::new(weights, &format!("{name}.batchnorm_0"), from),
            conv_0: Conv::new(weights, &format!("{name}.conv_0"), first),
            batchnorm_1: BatchNorm::new(weights, &format!("{name}.batchnorm_1"), to),
            conv_1: Conv::new(weights, &format!("{name}.conv_1"), conv(to, to, 3, 1)),
            shortcut: (from != to).then(|| {
                Conv::new(weights, &format!("{name}.shortcut"), conv(from, to, 1, stride))
            }),
            activation: Activation::Swish,
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let active = self.activation.apply(&self.batchnorm_0.forward(x, mode));
        let inner = self.batchnorm_1.forward(&self.conv_0.forward(&active), mode);
        let out = self.conv_1.forward(&self.activation.apply(&inner));
        match &self.shortcut {
            // Where widths differ the activated input feeds both ways.
            Some(shortcut) => shortcut.forward(&active) + out,
            None => x + out,
        }
    }
}

/// A biasless convolution with the official start, N(0, 2/(k²·to)).
fn conv(from: i64, to: i64, kernel: i64, stride: i64) -> ConvSpec {
    let deviation = (2.0 / (kernel * kernel * to) as f64).sqrt();
    ConvSpec { init: Init::Normal(deviation), ..ConvSpec::same(from, to, kernel, stride) }
}

/// WRN-depth-width. Takes normalised images.
#[derive(Debug)]
pub struct WideResNet {
    init_conv: Conv,
    blocks: Vec<Block>,
    batchnorm: BatchNorm,
    logits: Linear,
    activation: Activation,
}

impl WideResNet {
    /// Builds the network over `weights`.
    pub fn new(weights: &mut Weights, spec: WideSpec, classes: i64) -> Self {
        let init_conv = Conv::new(weights, "init_conv", conv(3, 16, 3, 1));
        let mut blocks = Vec::new();
        let mut from = 16;
        for (group, (to, stride)) in [(16, 1), (32, 2), (64, 2)].into_iter().enumerate() {
            for index in 0..(spec.depth - 4) / 6 {
                let name = format!("layer.{group}.block.{index}");
                let stride = if index == 0 { stride } else { 1 };
                let block = Block::new(weights, &name, from, to * spec.width, stride);
                blocks.push(Block { activation: spec.activation, ..block });
                from = to * spec.width;
            }
        }
        let batchnorm = BatchNorm::new(weights, "batchnorm", from);
        let logits = Linear::new(weights, "logits", from, classes, Init::Constant(0.0));
        Self { init_conv, blocks, batchnorm, logits, activation: spec.activation }
    }

    /// Logits `[b,k]` of normalised images `[b,3,h,w]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        (1..self.segments())
            .fold(self.segment(0, x, mode), |x, index| self.segment(index, &x, mode))
    }

    /// Into how many segments the way from images to logits can be cut: the first convolution,
    /// each block, the head.
    pub fn segments(&self) -> usize {
        self.blocks.len() + 2
    }

    /// Segment `index` of [`WideResNet::forward`].
    pub fn segment(&self, index: usize, x: &Tensor, mode: Mode) -> Tensor {
        match index.checked_sub(1) {
            None => self.init_conv.forward(x),
            Some(block) if block < self.blocks.len() => self.blocks[block].forward(x, mode),
            Some(_) => {
                let x = self.activation.apply(&self.batchnorm.forward(x, mode));
                self.logits.forward(&x.adaptive_avg_pool2d([1, 1]).flatten(1, -1)) // [b,c] inside
            }
        }
    }
}
