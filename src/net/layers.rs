//! The layers that networks are made of, as plain structs over tensors.

use tch::{Kind, Tensor};

use super::{
    Mode,
    weights::{Init, Weights},
    winograd::Winograd,
};

/// The nonlinearity of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x·sigmoid(x), also called SiLU.
    Swish,
}

impl Activation {
    /// The activated `x`, same shape.
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Self::Relu => x.relu(),
            Self::Swish => x.silu(),
        }
    }

    /// As [`Activation::apply`], in the memory of `x` where no gradient needs what was there.
    pub fn consume(self, mut x: Tensor) -> Tensor {
        match self {
            Self::Relu => x.relu_(),
            // The gradient of Swish is a function of its input.
            Self::Swish if x.requires_grad() => x.silu(),
            Self::Swish => x.silu_(),
        }
    }
}

/// How a convolution meets the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Zeros on all sides.
    Even(i64),
    /// TensorFlow's `SAME` for a 3×3 kernel with stride 2 on even sizes: one column right and one
    /// row below.
    RightAndBelow,
}

/// Everything that fixes a convolution but its tensors.
#[derive(Debug, Clone, Copy)]
pub struct ConvSpec {
    /// Input channels.
    pub from: i64,
    /// Output channels.
    pub to: i64,
    /// Edge length of the kernel.
    pub kernel: i64,
    /// Step between outputs.
    pub stride: i64,
    /// Treatment of the border.
    pub padding: Padding,
    /// Whether a bias is added.
    pub bias: bool,
    /// Start of the weight; the bias starts uniform within ±1/√fan-in.
    pub init: Init,
}

impl ConvSpec {
    /// Inputs to one output.
    pub fn fan_in(&self) -> f64 {
        (self.from * self.kernel * self.kernel) as f64
    }

    /// torch's default start: uniform within ±1/√fan-in.
    #[must_use]
    pub fn torch_init(self) -> Self {
        Self { init: Init::Uniform(self.fan_in().powf(-0.5)), ..self }
    }

    /// A biasless convolution that keeps the size at stride 1; start as torch's default.
    pub fn same(from: i64, to: i64, kernel: i64, stride: i64) -> Self {
        let padding = Padding::Even(kernel / 2);
        let init = Init::Constant(0.0);
        Self { from, to, kernel, stride, padding, bias: false, init }.torch_init()
    }
}

/// A square convolution.
#[derive(Debug)]
pub struct Conv {
    /// `[to,from,k,k]`.
    pub weight: Tensor,
    /// `[to]`.
    pub bias: Option<Tensor>,
    stride: i64,
    padding: Padding,
    /// The same for weights that no longer change, where no gradient is asked for.
    quick: Option<Winograd>,
}

impl Conv {
    /// `name.weight` and, if asked for, `name.bias`.
    pub fn new(weights: &mut Weights, name: &str, spec: ConvSpec) -> Self {
        let shape = [spec.to, spec.from, spec.kernel, spec.kernel];
        let weight = weights.parameter(&format!("{name}.weight"), &shape, spec.init);
        let bias = spec.bias.then(|| {
            let init = Init::Uniform(spec.fan_in().powf(-0.5));
            weights.parameter(&format!("{name}.bias"), &[spec.to], init)
        });
        Self { weight, bias, stride: spec.stride, padding: spec.padding, quick: None }
    }

    /// The same tensors in a second structure, for evaluation alone: they no longer change.
    #[must_use]
    pub fn settled(&self) -> Self {
        // Aliases: only read.
        let bias = self.bias.as_ref().map(Tensor::shallow_clone);
        self.with(self.weight.shallow_clone(), bias)
    }

    fn with(&self, weight: Tensor, bias: Option<Tensor>) -> Self {
        let keeps_size = self.stride == 1 && self.padding == Padding::Even(1);
        let quick = keeps_size.then(|| {
            let zeros = || Tensor::zeros([weight.size()[0]], (weight.kind(), weight.device()));
            Winograd::of(&weight, &bias.as_ref().map_or_else(zeros, Tensor::shallow_clone))
        });
        Self { weight, bias, stride: self.stride, padding: self.padding, quick: quick.flatten() }
    }

    /// This convolution and, after it, `norm` as evaluation sees it, in one.
    #[must_use]
    pub fn folded(&self, norm: &BatchNorm) -> Self {
        let _guard = tch::no_grad_guard();
        let [scale, shift] = norm.affine(); // [to], Double
        let weight = self.weight.to_kind(Kind::Double) * scale.view([-1, 1, 1, 1]);
        let bias = match &self.bias {
            Some(bias) => bias.to_kind(Kind::Double) * scale + shift,
            None => shift,
        };
        self.with(weight.to_kind(Kind::Float), Some(bias.to_kind(Kind::Float)))
    }

    /// `[b,from,h,w]` to `[b,to,h/stride,w/stride]`, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if let Some(quick) = self.quick.as_ref().filter(|_| Winograd::takes(x)) {
            return quick.forward(x);
        }
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(x.kind()));
        let weight = self.weight.to_kind(x.kind()); // itself, where it has that kind
        let convolve =
            |x: &Tensor, padding: i64| x.conv2d(&weight, bias.as_ref(), self.stride, padding, 1, 1);
        match self.padding {
            Padding::Even(padding) => convolve(x, padding),
            Padding::RightAndBelow => convolve(&x.constant_pad_nd([0, 1, 0, 1]), 0),
        }
    }
}

/// A fully connected layer.
#[derive(Debug)]
pub struct Linear {
    /// `[to,from]`.
    pub weight: Tensor,
    /// `[to]`.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// `name.weight` and `name.bias`; the weight starts as torch's default, the bias as told.
    pub fn new(weights: &mut Weights, name: &str, from: i64, to: i64, bias: Init) -> Self {
        let init = Self::torch_init(from);
        let weight = weights.parameter(&format!("{name}.weight"), &[to, from], init);
        let bias = Some(weights.parameter(&format!("{name}.bias"), &[to], bias));
        Self { weight, bias }
    }

    /// The same tensors in a second structure.
    #[must_use]
    pub fn alias(&self) -> Self {
        let bias = self.bias.as_ref().map(Tensor::shallow_clone);
        Self { weight: self.weight.shallow_clone(), bias }
    }

    /// torch's default start for weight and bias: uniform within ±1/√from.
    pub fn torch_init(from: i64) -> Init {
        Init::Uniform((from as f64).powf(-0.5))
    }

    /// `[b,from]` to `[b,to]`, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(x.kind()));
        x.linear(&self.weight.to_kind(x.kind()), bias.as_ref())
    }
}

/// Batch normalisation with running statistics.
#[derive(Debug)]
pub struct BatchNorm {
    /// Scale `[c]`.
    pub weight: Tensor,
    /// Shift `[c]`.
    pub bias: Tensor,
    /// Running mean `[c]`.
    pub mean: Tensor,
    /// Running variance `[c]`.
    pub variance: Tensor,
    /// Training batches seen, `[]`, `Int64`.
    tracked: Tensor,
    /// Scale and shift `[1,c,1,1]` that stand for all of the above in evaluation, once fused.
    fused: Option<[Tensor; 2]>,
}

/// Added to the variance before its root is taken; torch's default.
pub const BATCH_NORM_EPS: f64 = 1e-5;

impl BatchNorm {
    /// `name.weight`, `.bias`, `.running_mean`, `.running_var`, `.num_batches_tracked`.
    pub fn new(weights: &mut Weights, name: &str, channels: i64) -> Self {
        let ones = Tensor::ones([channels], (Kind::Float, weights.device()));
        let count = Tensor::zeros([0i64; 0], (Kind::Int64, weights.device()));
        Self {
            weight: weights.parameter(&format!("{name}.weight"), &[channels], Init::Constant(1.0)),
            bias: weights.parameter(&format!("{name}.bias"), &[channels], Init::Constant(0.0)),
            mean: weights.buffer(&format!("{name}.running_mean"), &ones.zeros_like()),
            variance: weights.buffer(&format!("{name}.running_var"), &ones),
            tracked: weights.buffer(&format!("{name}.num_batches_tracked"), &count),
            fused: None,
        }
    }

    /// Scale and shift of each channel in evaluation, `[c]`, `Double`.
    fn affine(&self) -> [Tensor; 2] {
        let double = |tensor: &Tensor| tensor.detach().to_kind(Kind::Double);
        let scale = double(&self.weight) / (double(&self.variance) + BATCH_NORM_EPS).sqrt();
        let shift = double(&self.bias) - double(&self.mean) * &scale;
        [scale, shift]
    }

    /// The same in evaluation, as one product and one sum: their gradient costs half of that of a
    /// normalisation, which looks for batch statistics even where there are none.
    #[must_use]
    pub fn fused(&self) -> Self {
        let fused = self.affine().map(|values| values.to_kind(Kind::Float).view([1, -1, 1, 1]));
        let alias = Tensor::shallow_clone;
        Self {
            weight: alias(&self.weight),
            bias: alias(&self.bias),
            mean: alias(&self.mean),
            variance: alias(&self.variance),
            tracked: alias(&self.tracked),
            fused: Some(fused),
        }
    }

    /// `x` `[b,c,h,w]` normalised by batch or running statistics, as `mode` says.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        if let (Some([scale, shift]), Mode::Eval) = (&self.fused, mode) {
            return (x * scale).g_add_(shift);
        }
        let running = (Some(&self.mean), Some(&self.variance));
        let ((mean, variance), training, momentum) = match mode {
            Mode::Eval => (running, false, 0.0),
            Mode::Frozen => ((None, None), true, 0.0),
            Mode::Train { momentum } => {
                let _guard = tch::no_grad_guard();
                let _ = self.tracked.shallow_clone().g_add_scalar_(1); // alias: counts in place
                (running, true, momentum)
            }
        };
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        x.batch_norm(weight, bias, mean, variance, training, momentum, BATCH_NORM_EPS, true)
    }
}

/// Group normalisation.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// `name.weight` and `name.bias`; EDM's number of groups: 32, fewer below 128 channels.
    pub fn new(weights: &mut Weights, name: &str, channels: i64, eps: f64) -> Self {
        Self {
            weight: weights.parameter(&format!("{name}.weight"), &[channels], Init::Constant(1.0)),
            bias: weights.parameter(&format!("{name}.bias"), &[channels], Init::Constant(0.0)),
            groups: (channels / 4).min(32),
            eps,
        }
    }

    /// `x` `[b,c,h,w]` normalised within each image and group, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [weight, bias] = [&self.weight, &self.bias].map(|tensor| tensor.to_kind(x.kind()));
        x.group_norm(self.groups, Some(&weight), Some(&bias), self.eps, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn batch() -> Tensor {
        Tensor::arange(2 * 3 * 4 * 4, (Kind::Float, Device::Cpu)).view([2, 3, 4, 4]).sin()
    }

    #[test]
    fn batch_norm_moves_statistics_in_training_only() {
        let mut weights = Weights::drawn(0, Device::Cpu);
        let norm = BatchNorm::new(&mut weights, "bn", 3);
        let x = batch();
        let frozen = norm.forward(&x, Mode::Frozen);
        assert_eq!(norm.mean, norm.mean.zeros_like());
        assert!(frozen.mean(Kind::Float).abs().double_value(&[]) < 1e-6);
        let trained = norm.forward(&x, Mode::Train { momentum: 0.25 });
        assert_eq!(frozen, trained);
        let mean = x.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float);
        assert!((&norm.mean - mean * 0.25).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(norm.tracked.int64_value(&[]), 1);
        let _ = norm.forward(&x, Mode::Eval);
        assert_eq!(norm.tracked.int64_value(&[]), 1);
    }

    #[test]
    fn same_padding_with_stride_two_looks_right_and_below() {
        let mut weights = Weights::blank(Device::Cpu);
        let spec = ConvSpec { padding: Padding::RightAndBelow, ..ConvSpec::same(1, 1, 3, 2) };
        let conv = Conv::new(&mut weights, "conv", spec);
        let corner = Tensor::from_slice(&[0f32, 0., 0., 0., 0., 0., 0., 0., 1.]).view([1, 1, 3, 3]);
        weights.load(&[("conv.weight".to_owned(), corner)].into()).unwrap();
        let x = Tensor::arange(16, (Kind::Float, Device::Cpu)).view([1, 1, 4, 4]);
        let y = Vec::<f32>::try_from(conv.forward(&x).flatten(0, -1)).unwrap();
        assert_eq!(y, [10.0, 0.0, 0.0, 0.0]);
    }
}
