//! Wide residual networks as the robustness papers use them, with the parameter names of the
//! official code: the form of Gowal et al. and the classic one of TRADES and its successors.
//!
//! Sources: Zagoruyko and Komodakis 2016; Zhang et al. 2019; Gowal et al. 2020 (Swish,
//! TensorFlow's padding).

use tch::Tensor;

use super::{
    Mode,
    layers::{Activation, BatchNorm, Conv, ConvSpec, Linear, Padding},
    weights::{Init, Weights},
};

/// Which of the two forms: they differ in names, padding and normalisation of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WideForm {
    /// Gowal et al. 2020: TensorFlow's padding; normalises its images.
    Gowal,
    /// Zhang et al. 2019 (TRADES): even padding; takes images as they are.
    Classic,
}

impl WideForm {
    /// Names of the first convolution, the last normalisation and the head.
    fn ends(self) -> [&'static str; 3] {
        match self {
            Self::Gowal => ["init_conv", "batchnorm", "logits"],
            Self::Classic => ["conv1", "bn1", "fc"],
        }
    }

    /// Names inside a block: normalisation, convolution, normalisation, convolution, shortcut.
    fn inner(self) -> [&'static str; 5] {
        match self {
            Self::Gowal => ["batchnorm_0", "conv_0", "batchnorm_1", "conv_1", "shortcut"],
            Self::Classic => ["bn1", "conv1", "bn2", "conv2", "convShortcut"],
        }
    }

    fn block(self, group: usize, index: i64) -> String {
        match self {
            Self::Gowal => format!("layer.{group}.block.{index}"),
            Self::Classic => format!("block{}.layer.{index}", group + 1),
        }
    }
}

/// Form, depth, width and nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WideSpec {
    /// Names and padding.
    pub form: WideForm,
    /// Layers: 6n + 4.
    pub depth: i64,
    /// Channel multiplier.
    pub width: i64,
    /// Nonlinearity.
    pub activation: Activation,
}

#[derive(Debug)]
struct Block {
    norm_0: BatchNorm,
    conv_0: Conv,
    /// `None` once folded into the convolution before it.
    norm_1: Option<BatchNorm>,
    conv_1: Conv,
    shortcut: Option<Conv>,
    activation: Activation,
}

impl Block {
    fn new(weights: &mut Weights, spec: WideSpec, name: &str, sizes: [i64; 3]) -> Self {
        let [from, to, stride] = sizes;
        let [norm_0, conv_0, norm_1, conv_1, shortcut] =
            spec.form.inner().map(|part| format!("{name}.{part}"));
        let same = conv(from, to, 3, stride);
        let first = match spec.form {
            WideForm::Gowal if stride != 1 => ConvSpec { padding: Padding::RightAndBelow, ..same },
            _ => same,
        };
        Self {
            norm_0: BatchNorm::new(weights, &norm_0, from),
            conv_0: Conv::new(weights, &conv_0, first),
            norm_1: Some(BatchNorm::new(weights, &norm_1, to)),
            conv_1: Conv::new(weights, &conv_1, conv(to, to, 3, 1)),
            shortcut: (from != to)
                .then(|| Conv::new(weights, &shortcut, conv(from, to, 1, stride))),
            activation: spec.activation,
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let active = self.activation.consume(self.norm_0.forward(x, mode));
        let mut inner = self.conv_0.forward(&active);
        if let Some(norm) = &self.norm_1 {
            inner = norm.forward(&inner, mode);
        }
        let mut out = self.conv_1.forward(&self.activation.consume(inner));
        match &self.shortcut {
            // Where widths differ the activated input feeds both ways.
            Some(shortcut) => out += shortcut.forward(&active),
            None => out += x,
        }
        out
    }

    fn fused(&self) -> Self {
        let conv_0 = match &self.norm_1 {
            Some(norm) => self.conv_0.folded(norm),
            None => self.conv_0.settled(),
        };
        Self {
            norm_0: self.norm_0.fused(),
            conv_0,
            norm_1: None,
            conv_1: self.conv_1.settled(),
            shortcut: self.shortcut.as_ref().map(Conv::settled),
            activation: self.activation,
        }
    }
}

/// A biasless convolution with the official start, N(0, 2/(k²·to)).
fn conv(from: i64, to: i64, kernel: i64, stride: i64) -> ConvSpec {
    let deviation = (2.0 / (kernel * kernel * to) as f64).sqrt();
    ConvSpec { init: Init::Normal(deviation), ..ConvSpec::same(from, to, kernel, stride) }
}

/// WRN-depth-width. Takes normalised images (the classic form: images as they are).
#[derive(Debug)]
pub struct WideResNet {
    stem: Conv,
    blocks: Vec<Block>,
    norm: BatchNorm,
    head: Linear,
    activation: Activation,
}

impl WideResNet {
    /// Builds the network over `weights`.
    pub fn new(weights: &mut Weights, spec: WideSpec, classes: i64) -> Self {
        let [stem, norm, head] = spec.form.ends();
        let stem = Conv::new(weights, stem, conv(3, 16, 3, 1));
        let mut blocks = Vec::new();
        let mut from = 16;
        for (group, (to, stride)) in [(16, 1), (32, 2), (64, 2)].into_iter().enumerate() {
            let to = to * spec.width;
            for index in 0..(spec.depth - 4) / 6 {
                let stride = if index == 0 { stride } else { 1 };
                let name = spec.form.block(group, index);
                blocks.push(Block::new(weights, spec, &name, [from, to, stride]));
                from = to;
            }
        }
        let norm = BatchNorm::new(weights, norm, from);
        let head = Linear::new(weights, head, from, classes, Init::Constant(0.0));
        Self { stem, blocks, norm, head, activation: spec.activation }
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
            None => self.stem.forward(x),
            Some(block) if block < self.blocks.len() => self.blocks[block].forward(x, mode),
            Some(_) => {
                let x = self.activation.consume(self.norm.forward(x, mode));
                self.head.forward(&x.adaptive_avg_pool2d([1, 1]).flatten(1, -1)) // [b,c] inside
            }
        }
    }

    /// The same in evaluation up to rounding: batch normalisation folded where it follows a
    /// convolution, one product and one sum elsewhere.
    #[must_use]
    pub fn fused(&self) -> Self {
        Self {
            stem: self.stem.settled(),
            blocks: self.blocks.iter().map(Block::fused).collect(),
            norm: self.norm.fused(),
            head: self.head.alias(),
            activation: self.activation,
        }
    }
}
