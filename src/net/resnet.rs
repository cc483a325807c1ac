//! Residual networks with normalisation after each convolution (He et al. 2016): those for CIFAR
//! of 20, 32, 44, 56, ... layers with parameterless shortcuts, and those of 18 to 152 layers; names
//! as in the published PyTorch weights.

use tch::Tensor;

use super::{
    Mode,
    layers::{BatchNorm, Conv, ConvSpec, Linear},
    preact::{counts, expansion},
    weights::{Init, Weights},
};

/// A convolution and the normalisation behind it.
#[derive(Debug)]
struct Normed {
    conv: Conv,
    /// `None` once folded into the convolution.
    norm: Option<BatchNorm>,
}

impl Normed {
    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let out = self.conv.forward(x);
        match &self.norm {
            Some(norm) => norm.forward(&out, mode),
            None => out,
        }
    }

    fn fused(&self) -> Self {
        let conv = match &self.norm {
            Some(norm) => self.conv.folded(norm),
            None => self.conv.settled(),
        };
        Self { conv, norm: None }
    }
}

#[derive(Debug)]
struct Block {
    layers: Vec<Normed>,
    /// Where it is none, a change of size drops every second pixel and adds empty channels.
    shortcut: Option<Normed>,
}

/// What the blocks of a network are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Two convolutions, shortcuts without parameters.
    Cifar,
    /// Two convolutions, learned shortcuts.
    Basic,
    /// Three convolutions, the last one four times as wide, learned shortcuts.
    Bottleneck,
}

impl Block {
    fn new(weights: &mut Weights, name: &str, kind: Kind, sizes: [i64; 3]) -> Self {
        let [from, width, stride] = sizes;
        let mut normed = |names: [&str; 2], from, to, kernel, stride| {
            let [conv_name, norm_name] = names.map(|part| format!("{name}.{part}"));
            let conv = Conv::new(weights, &conv_name, conv(from, to, kernel, stride));
            Normed { conv, norm: Some(BatchNorm::new(weights, &norm_name, to)) }
        };
        let [first, second] = [["conv1", "bn1"], ["conv2", "bn2"]];
        let to = if kind == Kind::Bottleneck { 4 * width } else { width };
        let layers = match kind {
            Kind::Cifar | Kind::Basic => {
                vec![normed(first, from, to, 3, stride), normed(second, to, to, 3, 1)]
            }
            Kind::Bottleneck => vec![
                normed(first, from, width, 1, 1),
                normed(second, width, width, 3, stride),
                normed(["conv3", "bn3"], width, to, 1, 1),
            ],
        };
        let changes = kind != Kind::Cifar && (stride != 1 || from != to);
        let shortcut = changes.then(|| normed(["shortcut.0", "shortcut.1"], from, to, 1, stride));
        Self { layers, shortcut }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let (last, inner) = self.layers.split_last().expect("blocks have layers");
        let inner = inner.iter().fold(None, |inner: Option<Tensor>, layer| {
            Some(layer.forward(inner.as_ref().unwrap_or(x), mode).relu_())
        });
        let mut out = last.forward(&inner.expect("blocks have two layers"), mode);
        let (from, to) = (x.size()[1], out.size()[1]);
        if let Some(shortcut) = &self.shortcut {
            out += shortcut.forward(x, mode);
        } else if from == to {
            out += x;
        } else {
            // Option A: every second pixel, the new channels zero, half of them on either side.
            let side = (to - from) / 2;
            let halved = x.slice(2, 0, None, 2).slice(3, 0, None, 2); // [b,c,h/2,w/2]
            out += halved.constant_pad_nd([0, 0, 0, 0, side, side]);
        }
        out.relu_()
    }

    fn fused(&self) -> Self {
        Self {
            layers: self.layers.iter().map(Normed::fused).collect(),
            shortcut: self.shortcut.as_ref().map(Normed::fused),
        }
    }
}

fn conv(from: i64, to: i64, kernel: i64, stride: i64) -> ConvSpec {
    let same = ConvSpec::same(from, to, kernel, stride);
    ConvSpec { init: Init::Normal((2.0 / same.fan_in()).sqrt()), ..same }
}

/// A residual network.
#[derive(Debug)]
pub struct ResNet {
    stem: Normed,
    blocks: Vec<Block>,
    linear: Linear,
}

impl ResNet {
    /// ResNet-(6n+2) for CIFAR over `weights`. Takes normalised images.
    pub fn cifar(weights: &mut Weights, depth: i64, classes: i64) -> Self {
        let count = (depth - 2) / 6;
        Self::new(weights, Kind::Cifar, [(16, count), (32, count), (64, count)], classes)
    }

    /// ResNet-18, -34, -50, -101 or -152 over `weights`. Takes images as they are.
    pub fn basic(weights: &mut Weights, layers: i64, classes: i64) -> Self {
        let kind = if expansion(layers) == 1 { Kind::Basic } else { Kind::Bottleneck };
        let [a, b, c, d] = counts(layers);
        Self::new(weights, kind, [(64, a), (128, b), (256, c), (512, d)], classes)
    }

    /// `stages`: channels and number of blocks; each stage but the first halves the image.
    fn new<const N: usize>(
        weights: &mut Weights,
        kind: Kind,
        stages: [(i64, i64); N],
        classes: i64,
    ) -> Self {
        let mut from = stages[0].0;
        let stem = Normed {
            conv: Conv::new(weights, "conv1", conv(3, from, 3, 1)),
            norm: Some(BatchNorm::new(weights, "bn1", from)),
        };
        let mut blocks = Vec::new();
        for (stage, (width, count)) in stages.into_iter().enumerate() {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("layer{}.{index}", stage + 1);
                blocks.push(Block::new(weights, &name, kind, [from, width, stride]));
                from = if kind == Kind::Bottleneck { 4 * width } else { width };
            }
        }
        let linear = Linear::new(weights, "linear", from, classes, Linear::torch_init(from));
        Self { stem, blocks, linear }
    }

    /// Logits `[b,k]` of images `[b,3,h,w]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let mut x = self.stem.forward(x, mode).relu_();
        for block in &self.blocks {
            x = block.forward(&x, mode);
        }
        self.linear.forward(&x.adaptive_avg_pool2d([1, 1]).flatten(1, -1)) // [b,c] before the head
    }

    /// The same in evaluation up to rounding: every normalisation folded into its convolution.
    #[must_use]
    pub fn fused(&self) -> Self {
        Self {
            stem: self.stem.fused(),
            blocks: self.blocks.iter().map(Block::fused).collect(),
            linear: self.linear.alias(),
        }
    }
}
