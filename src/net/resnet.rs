//! Residual networks with normalisation after each convolution (He et al. 2016): those for CIFAR
//! of 20, 32, 44, 56, ... layers with parameterless shortcuts, and those of 18 and 34 layers;
//! names as in the published PyTorch weights.

use tch::Tensor;

use super::{
    Mode,
    layers::{BatchNorm, Conv, ConvSpec, Linear},
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
            None => self.conv.alias(),
        };
        Self { conv, norm: None }
    }
}

#[derive(Debug)]
struct Block {
    layers: [Normed; 2],
    /// Where it is none, a change of size drops every second pixel and adds empty channels.
    shortcut: Option<Normed>,
}

impl Block {
    fn new(weights: &mut Weights, name: &str, learned: bool, sizes: [i64; 3]) -> Self {
        let [from, to, stride] = sizes;
        let mut conv = |part: &str, from, to, kernel, stride| {
            Conv::new(weights, &format!("{name}.{part}"), conv(from, to, kernel, stride))
        };
        let convs = [conv("conv1", from, to, 3, stride), conv("conv2", to, to, 3, 1)];
        let changes = learned && (stride != 1 || from != to);
        let shortcut = changes.then(|| conv("shortcut.0", from, to, 1, stride));
        let mut norm = |part: &str| BatchNorm::new(weights, &format!("{name}.{part}"), to);
        let norms = [norm("bn1"), norm("bn2")];
        let shortcut = shortcut.map(|conv| Normed { conv, norm: Some(norm("shortcut.1")) });
        let [first, second] = convs;
        let [first_norm, second_norm] = norms;
        Self {
            layers: [
                Normed { conv: first, norm: Some(first_norm) },
                Normed { conv: second, norm: Some(second_norm) },
            ],
            shortcut,
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let inner = self.layers[0].forward(x, mode).relu_();
        let mut out = self.layers[1].forward(&inner, mode);
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
        let [first, second] = &self.layers;
        let shortcut = self.shortcut.as_ref().map(Normed::fused);
        Self { layers: [first.fused(), second.fused()], shortcut }
    }
}

fn conv(from: i64, to: i64, kernel: i64, stride: i64) -> ConvSpec {
    let same = ConvSpec::same(from, to, kernel, stride);
    ConvSpec { init: Init::Normal((2.0 / same.fan_in()).sqrt()), ..same }
}

/// A residual network of basic blocks.
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
        Self::new(weights, false, &[(16, count), (32, count), (64, count)], classes)
    }

    /// ResNet-18 or -34 over `weights`, with `counts` blocks in its four stages. Takes images as
    /// they are.
    pub fn basic(weights: &mut Weights, counts: [i64; 4], classes: i64) -> Self {
        let [a, b, c, d] = counts;
        Self::new(weights, true, &[(64, a), (128, b), (256, c), (512, d)], classes)
    }

    /// `stages`: channels and number of blocks; each stage but the first halves the image.
    fn new(weights: &mut Weights, learned: bool, stages: &[(i64, i64)], classes: i64) -> Self {
        let mut from = stages[0].0;
        let stem = Normed {
            conv: Conv::new(weights, "conv1", conv(3, from, 3, 1)),
            norm: Some(BatchNorm::new(weights, "bn1", from)),
        };
        let mut blocks = Vec::new();
        for (stage, &(to, count)) in stages.iter().enumerate() {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("layer{}.{index}", stage + 1);
                blocks.push(Block::new(weights, &name, learned, [from, to, stride]));
                from = to;
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
