//! The standard CIFAR ResNets (He et al. 2016, section 4.2) of 20, 32, 44, 56, ... layers, with
//! the names and parameterless shortcuts of the published PyTorch weights.

use tch::Tensor;

use super::{
    Mode,
    layers::{BatchNorm, Conv, ConvSpec, Linear},
    weights::{Init, Weights},
};

#[derive(Debug)]
struct Block {
    convs: [Conv; 2],
    norms: [BatchNorm; 2],
}

impl Block {
    fn new(weights: &mut Weights, name: &str, from: i64, to: i64, stride: i64) -> Self {
        Self {
            convs: [
                Conv::new(weights, &format!("{name}.conv1"), conv(from, to, stride)),
                Conv::new(weights, &format!("{name}.conv2"), conv(to, to, 1)),
            ],
            norms: [
                BatchNorm::new(weights, &format!("{name}.bn1"), to),
                BatchNorm::new(weights, &format!("{name}.bn2"), to),
            ],
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let inner = self.norms[0].forward(&self.convs[0].forward(x), mode).relu();
        let out = self.norms[1].forward(&self.convs[1].forward(&inner), mode);
        let (from, to) = (x.size()[1], out.size()[1]);
        if from == to {
            return (out + x).relu();
        }
        // Option A: every second pixel, the new channels zero, half of them on either side.
        let side = (to - from) / 2;
        let halved = x.slice(2, 0, None, 2).slice(3, 0, None, 2); // [b,c,h/2,w/2]
        (out + halved.constant_pad_nd([0, 0, 0, 0, side, side])).relu()
    }
}

fn conv(from: i64, to: i64, stride: i64) -> ConvSpec {
    let same = ConvSpec::same(from, to, 3, stride);
    ConvSpec { init: Init::Normal((2.0 / same.fan_in()).sqrt()), ..same }
}

/// ResNet-(6n+2). Takes normalised images.
#[derive(Debug)]
pub struct CifarResNet {
    conv1: Conv,
    bn1: BatchNorm,
    blocks: Vec<Block>,
    linear: Linear,
}

impl CifarResNet {
    /// Builds the network over `weights`; `depth` is 6n + 2.
    pub fn new(weights: &mut Weights, depth: i64, classes: i64) -> Self {
        let conv1 = Conv::new(weights, "conv1", conv(3, 16, 1));
        let bn1 = BatchNorm::new(weights, "bn1", 16);
        let mut blocks = Vec::new();
        let mut from = 16;
        for (stage, to) in [16, 32, 64].into_iter().enumerate() {
            for index in 0..(depth - 2) / 6 {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("layer{}.{index}", stage + 1);
                blocks.push(Block::new(weights, &name, from, to, stride));
                from = to;
            }
        }
        let linear = Linear::new(weights, "linear", from, classes, Linear::torch_init(from));
        Self { conv1, bn1, blocks, linear }
    }

    /// Logits `[b,k]` of normalised images `[b,3,h,w]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let mut x = self.bn1.forward(&self.conv1.forward(x), mode).relu();
        for block in &self.blocks {
            x = block.forward(&x, mode);
        }
        self.linear.forward(&x.adaptive_avg_pool2d([1, 1]).flatten(1, -1)) // [b,64] before the head
    }
}
