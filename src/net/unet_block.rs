//! The block and the resampling convolution that all of EDM's U-Nets are made of.
//!
//! Source: Karras et al. 2022, appendix F.7; Song et al. 2021; Dhariwal and Nichol 2021.

use tch::{Kind, Tensor};

use super::{
    layers::{GroupNorm, Linear},
    weights::{Init, Weights},
    winograd::Winograd,
};

/// EDM's start of a layer: uniform, bounded by Xavier's or Kaiming's rule, then scaled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) kaiming: bool,
    pub(super) weight: f64,
    pub(super) bias: f64,
}

impl Start {
    pub(super) const XAVIER: Self = Self { kaiming: false, weight: 1.0, bias: 0.0 };

    /// Starts of weight and bias.
    fn of(self, fan_in: i64, fan_out: i64) -> [Init; 2] {
        let bound = if self.kaiming {
            (3.0 / fan_in as f64).sqrt()
        } else {
            (6.0 / (fan_in + fan_out) as f64).sqrt()
        };
        [Init::Uniform(bound * self.weight), Init::Uniform(bound * self.bias)]
    }
}

/// A fully connected layer with EDM's start.
pub(super) fn dense(weights: &mut Weights, name: &str, sizes: [i64; 2], start: Start) -> Linear {
    let [from, to] = sizes;
    let [weight, bias] = start.of(from, to);
    Linear {
        weight: weights.parameter(&format!("{name}.weight"), &[to, from], weight),
        bias: Some(weights.parameter(&format!("{name}.bias"), &[to], bias)),
    }
}

/// A fully connected layer without bias.
pub(super) fn dense_biasless(
    weights: &mut Weights,
    name: &str,
    sizes: [i64; 2],
    init: Init,
) -> Linear {
    let weight = weights.parameter(&format!("{name}.weight"), &[sizes[1], sizes[0]], init);
    Linear { weight, bias: None }
}

/// Change of resolution before (or, fused, around) a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resample {
    Keep,
    Up,
    Down,
    /// Down with the convolution first, as NCSN++'s encoder has it.
    DownFused,
}

/// What fixes a resampling convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvSpec<'a> {
    pub(super) from: i64,
    pub(super) to: i64,
    /// Edge length; 0 for resampling alone.
    pub(super) kernel: i64,
    pub(super) resample: Resample,
    pub(super) taps: &'a [f64],
    pub(super) start: Start,
}

/// A convolution with bias and an optional change of resolution.
#[derive(Debug)]
pub(super) struct Conv {
    kernel: Option<(Tensor, Tensor)>,
    /// `[1,1,t,t]`, sum 1.
    filter: Option<Tensor>,
    /// Two equal taps: a 2×2 mean, or every pixel four times, without a convolution.
    boxed: bool,
    resample: Resample,
    /// The same convolution for weights that no longer change.
    quick: Option<Winograd>,
}

impl Conv {
    pub(super) fn new(weights: &mut Weights, name: &str, spec: ConvSpec) -> Self {
        let area = spec.kernel * spec.kernel;
        let [weight, bias] = spec.start.of((spec.from * area).max(1), (spec.to * area).max(1));
        let kernel = (spec.kernel > 0).then(|| {
            let shape = [spec.to, spec.from, spec.kernel, spec.kernel];
            let weight = weights.parameter(&format!("{name}.weight"), &shape, weight);
            (weight, weights.parameter(&format!("{name}.bias"), &[spec.to], bias))
        });
        let filter = (spec.resample != Resample::Keep)
            .then(|| weights.buffer(&format!("{name}.resample_filter"), &filter(spec.taps)));
        let boxed = spec.taps.len() == 2 && spec.taps[0].to_bits() == spec.taps[1].to_bits();
        Self { kernel, filter, boxed, resample: spec.resample, quick: None }
    }

    /// Prepares for weights that no longer change.
    pub(super) fn settle(&mut self) {
        self.quick = self.kernel.as_ref().and_then(|(weight, bias)| Winograd::of(weight, bias));
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        match self.resample {
            Resample::Keep => self.convolve(x, 0),
            Resample::Up => self.convolve(&self.up(x), 0),
            Resample::Down => self.convolve(&self.down(x, self.margin()), 0),
            Resample::DownFused => self.down(&self.convolve(x, self.margin()), 0),
        }
    }

    fn convolve(&self, x: &Tensor, margin: i64) -> Tensor {
        if let Some(quick) = self.quick.as_ref().filter(|_| margin == 0 && Winograd::takes(x)) {
            return quick.forward(x);
        }
        match &self.kernel {
            Some((weight, bias)) => {
                let padding = weight.size()[3] / 2 + margin;
                let kind = x.kind(); // of the weights too, as a rule
                x.conv2d(&weight.to_kind(kind), Some(bias.to_kind(kind)), 1, padding, 1, 1)
            }
            None => x.shallow_clone(), // alias: only read
        }
    }

    /// Padding that centres the filter.
    fn margin(&self) -> i64 {
        self.filter.as_ref().map_or(0, |filter| (filter.size()[3] - 1) / 2)
    }

    fn up(&self, x: &Tensor) -> Tensor {
        let (_, c, h, w) = x.size4().expect("images are [b,c,h,w]");
        match &self.filter {
            Some(filter) if !self.boxed => {
                let taps = (filter * 4.0).to_kind(x.kind()).expand([c, -1, -1, -1], false);
                let none: Option<Tensor> = None;
                x.conv_transpose2d(&taps, none, 2, self.margin(), 0, c, 1)
            }
            _ => x.upsample_nearest2d([2 * h, 2 * w], None, None),
        }
    }

    fn down(&self, x: &Tensor, padding: i64) -> Tensor {
        let channels = x.size()[1];
        match &self.filter {
            Some(filter) if !self.boxed => {
                let taps = filter.to_kind(x.kind()).expand([channels, -1, -1, -1], false);
                let none: Option<Tensor> = None;
                x.conv2d(&taps, none, 2, padding, 1, channels)
            }
            _ => x.avg_pool2d(2, 2, 0, false, true, None),
        }
    }
}

/// The separable filter of `taps`, `[1,1,t,t]`, sum 1.
fn filter(taps: &[f64]) -> Tensor {
    let taps = Tensor::from_slice(taps).to_kind(Kind::Float);
    (taps.outer(&taps) / taps.sum(Kind::Float).square()).unsqueeze(0).unsqueeze(0)
}

/// What the blocks of one U-Net share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family<'a> {
    /// Length of the embedding.
    pub(super) embedding: i64,
    /// Attention heads; `None` for one per 64 channels.
    pub(super) heads: Option<i64>,
    /// Factor after each residual sum.
    pub(super) skip_scale: f64,
    /// Of group normalisation.
    pub(super) eps: f64,
    /// Taps of the filter around changes of resolution.
    pub(super) taps: &'a [f64],
    /// Whether a resampled shortcut always has a 1×1 convolution.
    pub(super) resample_proj: bool,
    /// Whether the embedding scales and shifts (ADM) or only shifts before the norm (Song).
    pub(super) adaptive_scale: bool,
    pub(super) start: Start,
    pub(super) start_zero: Start,
    pub(super) start_attention: Start,
}

/// What fixes one block within its family.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockSpec {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) resample: Resample,
    pub(super) attention: bool,
}

#[derive(Debug)]
struct Attention {
    norm: GroupNorm,
    qkv: Conv,
    proj: Conv,
    heads: i64,
}

impl Attention {
    /// `x` plus what its positions tell each other.
    fn forward(&self, x: &Tensor) -> Tensor {
        let (b, c, h, w) = x.size4().expect("images are [b,c,h,w]");
        let depth = c / self.heads;
        let qkv = self.qkv.forward(&self.norm.forward(x));
        let parts = qkv.contiguous().view([b * self.heads, depth, 3, h * w]).unbind(2); // 3 of [bn,d,hw]
        let [q, k, v] = [&parts[0], &parts[1], &parts[2]];
        let scaled = k / (depth as f64).sqrt();
        let weight = q.transpose(1, 2).bmm(&scaled).softmax(2, Kind::Float).to_kind(x.kind()); // [bn,hw,hw]
        let mixed = v.bmm(&weight.transpose(1, 2)).view([b, c, h, w]);
        self.proj.forward(&mixed).g_add_(x)
    }
}

/// A residual block with embedding, optional resampling and optional self-attention.
#[derive(Debug)]
pub(super) struct Block {
    /// Input channels: how the decoder knows where a skip connection ends.
    pub(super) from: i64,
    norms: [GroupNorm; 2],
    convs: [Conv; 2],
    affine: Linear,
    skip: Option<Conv>,
    attention: Option<Attention>,
    skip_scale: f64,
    adaptive_scale: bool,
}

impl Block {
    pub(super) fn new(weights: &mut Weights, name: &str, family: &Family, spec: BlockSpec) -> Self {
        let BlockSpec { from, to, resample, .. } = spec;
        let conv = |from, to, kernel, start| ConvSpec {
            from,
            to,
            kernel,
            resample: Resample::Keep,
            taps: family.taps,
            start,
        };
        let first = ConvSpec { resample, ..conv(from, to, 3, family.start) };
        let scales = if family.adaptive_scale { 2 } else { 1 };
        let mut part = |part: &str, spec| Conv::new(weights, &format!("{name}.{part}"), spec);
        let convs = [part("conv0", first), part("conv1", conv(to, to, 3, family.start_zero))];
        let skip = (from != to || resample != Resample::Keep).then(|| {
            let kernel = i64::from(family.resample_proj || from != to);
            part("skip", ConvSpec { kernel, ..first })
        });
        let sizes = [family.embedding, to * scales];
        let affine = dense(weights, &format!("{name}.affine"), sizes, family.start);
        let mut norm = |part: &str, channels| {
            GroupNorm::new(weights, &format!("{name}.{part}"), channels, family.eps)
        };
        let norms = [norm("norm0", from), norm("norm1", to)];
        let heads = if spec.attention { family.heads.unwrap_or(to / 64) } else { 0 };
        let attention = (heads > 0).then(|| Attention {
            norm: GroupNorm::new(weights, &format!("{name}.norm2"), to, family.eps),
            qkv: {
                let spec = conv(to, 3 * to, 1, family.start_attention);
                Conv::new(weights, &format!("{name}.qkv"), spec)
            },
            proj: {
                let spec = conv(to, to, 1, family.start_zero);
                Conv::new(weights, &format!("{name}.proj"), spec)
            },
            heads,
        });
        let (skip_scale, adaptive_scale) = (family.skip_scale, family.adaptive_scale);
        Self { from, norms, convs, affine, skip, attention, skip_scale, adaptive_scale }
    }

    /// Prepares for weights that no longer change.
    pub(super) fn settle(&mut self) {
        self.convs.iter_mut().chain(&mut self.skip).for_each(Conv::settle);
    }

    /// `x` `[b,from,h,w]`, `embedding` `[b or 1,e]`; a share `dropout` of the inner activations is
    /// zeroed (0 in evaluation).
    pub(super) fn forward(&self, x: &Tensor, embedding: &Tensor, dropout: f64) -> Tensor {
        let mut inner = self.convs[0].forward(&silu(self.norms[0].forward(x)));
        let params = self.affine.forward(embedding).to_kind(x.kind());
        let params = params.unsqueeze(2).unsqueeze(3); // [b,c,1,1]
        if self.adaptive_scale {
            let parts = params.chunk(2, 1);
            let (scale, shift) = (&parts[0] + 1.0, &parts[1]);
            inner = silu(shift.addcmul(&self.norms[1].forward(&inner), &scale));
        } else {
            inner = silu(self.norms[1].forward(&inner.g_add_(&params)));
        }
        if dropout > 0.0 {
            inner = inner.dropout(dropout, true);
        }
        let mut out = self.convs[1].forward(&inner);
        out = match &self.skip {
            Some(skip) => out.g_add_(&skip.forward(x)),
            None => out.g_add_(x),
        };
        out = self.scale(out);
        match &self.attention {
            Some(attention) => self.scale(attention.forward(&out)),
            None => out,
        }
    }

    fn scale(&self, mut x: Tensor) -> Tensor {
        if self.skip_scale.to_bits() == 1f64.to_bits() {
            x
        } else {
            x.g_mul_scalar_(self.skip_scale)
        }
    }
}

/// SiLU of a tensor that nobody else holds: in place where autograd does not need the input.
pub(super) fn silu(mut x: Tensor) -> Tensor {
    if x.requires_grad() { x.silu() } else { x.silu_() }
}
