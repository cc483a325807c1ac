//! Pre-activation residual networks of 18 to 101 layers, in the two forms that robustness code
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

/// What fixes a network of this family but its number of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreActSpec {
    /// Names, nonlinearity and padding.
    pub form: Form,
    /// 18 or 34, or with three convolutions in a block 50 or 101.
    pub layers: i64,
    /// Whether a plain shortcut takes the block's input before its activation, as in Wong et al.
    /// 2020: no name in a file tells.
    pub raw: bool,
    /// Whether nothing normalises before the head.
    pub bare: bool,
}

/// A normalisation, an activation and a convolution.
#[derive(Debug)]
struct Step {
    /// `None` once folded into the convolution before it.
    norm: Option<BatchNorm>,
    conv: Conv,
}

#[derive(Debug)]
struct Block {
    steps: Vec<Step>,
    shortcut: Option<Conv>,
    /// Whether the shortcut's convolution takes the input before its activation.
    raw: bool,
    activation: Activation,
}

impl Block {
    fn new(weights: &mut Weights, spec: PreActSpec, name: &str, sizes: [i64; 3]) -> Self {
        let [from, width, stride] = sizes;
        let form = spec.form;
        let [norm_0, conv_0, norm_1, conv_1, shortcut] =
            form.inner().map(|part| format!("{name}.{part}"));
        let mut step = |norm: &str, conv: &str, from, spec| Step {
            norm: Some(BatchNorm::new(weights, norm, from)),
            conv: Conv::new(weights, conv, spec),
        };
        let to = width * expansion(spec.layers);
        let steps = if spec.layers < 50 {
            vec![
                step(&norm_0, &conv_0, from, form.first(from, to, stride)),
                step(&norm_1, &conv_1, to, ConvSpec::same(to, to, 3, 1)),
            ]
        } else {
            let [norm_2, conv_2] = ["bn3", "conv3"].map(|part| format!("{name}.{part}"));
            vec![
                step(&norm_0, &conv_0, from, ConvSpec::same(from, width, 1, 1)),
                step(&norm_1, &conv_1, width, ConvSpec::same(width, width, 3, stride)),
                step(&norm_2, &conv_2, width, ConvSpec::same(width, to, 1, 1)),
            ]
        };
        let changes = stride != 1 || from != to;
        Self {
            steps,
            shortcut: changes
                .then(|| Conv::new(weights, &shortcut, form.shortcut(from, to, stride))),
            raw: spec.raw || form == Form::Gowal,
            activation: form.activation(),
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let activate =
            |norm: &BatchNorm, x: &Tensor| self.activation.consume(norm.forward(x, mode));
        let [first, rest @ ..] = &self.steps[..] else { unreachable!("blocks have two steps") };
        let active = activate(first.norm.as_ref().expect("the first is never folded"), x);
        let mut out = first.conv.forward(&active);
        for Step { norm, conv } in rest {
            out = match norm {
                Some(norm) => conv.forward(&activate(norm, &out)),
                None => conv.forward(&self.activation.consume(out)),
            };
        }
        out += match &self.shortcut {
            Some(shortcut) => shortcut.forward(if self.raw { x } else { &active }),
            None => x.shallow_clone(), // alias: only read
        };
        out
    }

    fn fused(&self) -> Self {
        let steps = self.steps.iter().enumerate().map(|(index, step)| Step {
            norm: if index == 0 { step.norm.as_ref().map(BatchNorm::fused) } else { None },
            conv: match self.steps.get(index + 1).and_then(|next| next.norm.as_ref()) {
                Some(norm) => step.conv.folded(norm),
                None => step.conv.settled(),
            },
        });
        Self {
            steps: steps.collect(),
            shortcut: self.shortcut.as_ref().map(Conv::settled),
            ..*self
        }
    }
}

/// Blocks in the four stages of a network of so many layers.
pub fn counts(layers: i64) -> [i64; 4] {
    match layers {
        18 => [2, 2, 2, 2],
        34 | 50 => [3, 4, 6, 3],
        101 => [3, 4, 23, 3],
        _ => [3, 8, 36, 3],
    }
}

/// How much wider a block's output is than its stage: 4 where it has three convolutions.
pub fn expansion(layers: i64) -> i64 {
    if layers < 50 { 1 } else { 4 }
}

/// PreActResNet-18, -34, -50 or -101. Takes normalised images (the plain form: images as they are).
#[derive(Debug)]
pub struct PreActResNet {
    stem: Conv,
    blocks: Vec<Block>,
    norm: Option<BatchNorm>,
    head: Linear,
    activation: Activation,
}

impl PreActResNet {
    /// Builds the network over `weights`.
    pub fn new(weights: &mut Weights, spec: PreActSpec, classes: i64) -> Self {
        let [stem, norm, head] = spec.form.ends();
        let stem = Conv::new(weights, stem, ConvSpec::same(3, 64, 3, 1));
        let mut blocks = Vec::new();
        let mut from = 64;
        let stages = counts(spec.layers).into_iter().zip([64, 128, 256, 512]);
        for (stage, (count, width)) in stages.enumerate() {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = spec.form.block(stage, index);
                blocks.push(Block::new(weights, spec, &name, [from, width, stride]));
                from = width * expansion(spec.layers);
            }
        }
        let norm = (!spec.bare).then(|| BatchNorm::new(weights, norm, from));
        let head = Linear::new(weights, head, from, classes, Linear::torch_init(from));
        Self { stem, blocks, norm, head, activation: spec.form.activation() }
    }

    /// Logits `[b,k]` of images `[b,3,h,w]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let mut x = self.stem.forward(x);
        for block in &self.blocks {
            x = block.forward(&x, mode);
        }
        if let Some(norm) = &self.norm {
            x = self.activation.consume(norm.forward(&x, mode));
        }
        self.head.forward(&x.adaptive_avg_pool2d([1, 1]).flatten(1, -1)) // [b,c] before the head
    }

    /// The same in evaluation up to rounding, as [`super::wrn::WideResNet::fused`].
    #[must_use]
    pub fn fused(&self) -> Self {
        Self {
            stem: self.stem.settled(),
            blocks: self.blocks.iter().map(Block::fused).collect(),
            norm: self.norm.as_ref().map(BatchNorm::fused),
            head: self.head.alias(),
            activation: self.activation,
        }
    }
}
