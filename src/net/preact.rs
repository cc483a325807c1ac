//! Pre-activation residual networks of 18 and 34 layers, in the two forms that robustness code
//! uses: the Swish one of Gowal et al. 2021 and the plain one (He et al. 2016b), names as there.

use tch::Tensor;

use super::{
    Mode,
    layers::{Activation, BatchNorm, Conv, ConvSpec, Linear, Padding},
    weights::Weights,
};

/// Which of the two forms: they differ in names, padding and shortcut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Gowal et al. 2021: Swish, TensorFlow's padding, 3×3 shortcut of the raw input.
    Gowal,
    /// He et al. 2016b: ReLU, 1×1 shortcut of the activated input.
    Plain,
}

impl Form {
    fn activation(self) -> Activation {
        match self {
            Self::Gowal => Activation::Swish,
            Self::Plain => Activation::Relu,
        }
    }

    /// Names of the first convolution, the last normalisation and the head.
    fn ends(self) -> [&'static str; 3] {
        match self {
            Self::Gowal => ["conv_2d", "batchnorm", "logits"],
            Self::Plain => ["conv1", "bn", "linear"],
        }
    }

    /// Names inside a block: normalisation, convolution, normalisation, convolution, shortcut.
    fn inner(self) -> [&'static str; 5] {
        match self {
            Self::Gowal => ["batchnorm_0", "conv_2d_1", "batchnorm_1", "conv_2d_2", "shortcut"],
            Self::Plain => ["bn1", "conv1", "bn2", "conv2", "shortcut.0"],
        }
    }

    fn block(self, stage: usize, index: i64) -> String {
        match self {
            Self::Gowal => format!("layer_{stage}.{index}"),
            Self::Plain => format!("layer{}.{index}", stage + 1),
        }
    }

    fn first(self, from: i64, to: i64, stride: i64) -> ConvSpec {
        let same = ConvSpec::same(from, to, 3, stride);
        match self {
            Self::Gowal if stride == 2 => ConvSpec { padding: Padding::RightAndBelow, ..same },
            _ => same,
        }
    }

    fn shortcut(self, from: i64, to: i64, stride: i64) -> ConvSpec {
        match self {
            Self::Gowal => self.first(from, to, stride),
            Self::Plain => ConvSpec::same(from, to, 1, stride),
        }
    }
}

#[derive(Debug)]
struct Block {
    norm: BatchNorm,
    /// `None` once folded into the convolution before it.
    second_norm: Option<BatchNorm>,
    convs: [Conv; 2],
    shortcut: Option<Conv>,
    form: Form,
}

impl Block {
    fn new(weights: &mut Weights, form: Form, name: &str, sizes: [i64; 3]) -> Self {
        let [from, to, stride] = sizes;
        let [norm_0, conv_0, norm_1, conv_1, shortcut] =
            form.inner().map(|part| format!("{name}.{part}"));
        let second = ConvSpec::same(to, to, 3, 1);
        Self {
            norm: BatchNorm::new(weights, &norm_0, from),
            second_norm: Some(BatchNorm::new(weights, &norm_1, to)),
            convs: [
                Conv::new(weights, &conv_0, form.first(from, to, stride)),
                Conv::new(weights, &conv_1, second),
            ],
            shortcut: (stride != 1 || from != to)
                .then(|| Conv::new(weights, &shortcut, form.shortcut(from, to, stride))),
            form,
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let activation = self.form.activation();
        let active = activation.consume(self.norm.forward(x, mode));
        let mut inner = self.convs[0].forward(&active);
        if let Some(norm) = &self.second_norm {
            inner = norm.forward(&inner, mode);
        }
        let mut out = self.convs[1].forward(&activation.consume(inner));
        match (&self.shortcut, self.form) {
            (Some(shortcut), Form::Gowal) => out += shortcut.forward(x),
            (Some(shortcut), Form::Plain) => out += shortcut.forward(&active),
            (None, _) => out += x,
        }
        out
    }

    fn fused(&self) -> Self {
        let first = match &self.second_norm {
            Some(norm) => self.convs[0].folded(norm),
            None => self.convs[0].alias(),
        };
        Self {
            norm: self.norm.fused(),
            second_norm: None,
            convs: [first, self.convs[1].alias()],
            shortcut: self.shortcut.as_ref().map(Conv::alias),
            form: self.form,
        }
    }
}

/// PreActResNet-18 or -34. Takes normalised images (the plain form: images as they are).
#[derive(Debug)]
pub struct PreActResNet {
    stem: Conv,
    blocks: Vec<Block>,
    norm: BatchNorm,
    head: Linear,
    form: Form,
}

impl PreActResNet {
    /// Builds the network over `weights`, with `counts` blocks in its four stages.
    pub fn new(weights: &mut Weights, form: Form, counts: [i64; 4], classes: i64) -> Self {
        let [stem, norm, head] = form.ends();
        let stem = Conv::new(weights, stem, ConvSpec::same(3, 64, 3, 1));
        let mut blocks = Vec::new();
        let mut from = 64;
        for (stage, (count, to)) in counts.into_iter().zip([64, 128, 256, 512]).enumerate() {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = form.block(stage, index);
                blocks.push(Block::new(weights, form, &name, [from, to, stride]));
                from = to;
            }
        }
        let norm = BatchNorm::new(weights, norm, from);
        let head = Linear::new(weights, head, from, classes, Linear::torch_init(from));
        Self { stem, blocks, norm, head, form }
    }

    /// Logits `[b,k]` of images `[b,3,h,w]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let mut x = self.stem.forward(x);
        for block in &self.blocks {
            x = block.forward(&x, mode);
        }
        let x = self.form.activation().consume(self.norm.forward(&x, mode));
        self.head.forward(&x.adaptive_avg_pool2d([1, 1]).flatten(1, -1)) // [b,c] before the head
    }

    /// The same in evaluation up to rounding, as [`super::wrn::WideResNet::fused`].
    #[must_use]
    pub fn fused(&self) -> Self {
        Self {
            stem: self.stem.alias(),
            blocks: self.blocks.iter().map(Block::fused).collect(),
            norm: self.norm.fused(),
            head: self.head.alias(),
            form: self.form,
        }
    }
}
