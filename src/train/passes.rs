//! Passes of a network in training: in which precision they compute, and how much of the way
//! forward is kept for the way back.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use tch::{Kind, Tensor};

use crate::{
    net::{Mode, Network, spec::Precision},
    train::spec::TrainSpec,
};

/// By this much the slopes of half-precision crafting are raised, for each image: what separates
/// two predictions early in an attack is small, and its gradients would vanish in 16 bits.
const RAISED: f64 = 1024.0;

/// A network with the way in which it is passed through. Logits are `Float` whatever the precision.
#[derive(Debug)]
pub struct Passes<'a> {
    network: &'a Network,
    precision: Precision,
    checkpointing: bool,
    /// Forward passes that still have their way back before them, when checkpointing.
    tape: RefCell<Vec<Checkpoints>>,
    spent: Cell<Duration>,
}

/// What checkpointing keeps of a forward pass: the input of each segment, and the logits as a leaf.
#[derive(Debug)]
struct Checkpoints {
    inputs: Vec<Tensor>,
    logits: Tensor,
    /// How the segments are passed through again: running statistics move once alone.
    again: Mode,
}

impl<'a> Passes<'a> {
    /// Passes of `network` as `spec` has them.
    pub fn new(network: &'a Network, spec: &TrainSpec) -> Self {
        Self::with(network, spec.precision, spec.checkpointing)
    }

    /// Passes of `network` in full precision, for validation.
    pub fn exact(network: &'a Network, spec: &TrainSpec) -> Self {
        Self::with(network, Precision::Fp32, spec.checkpointing)
    }

    fn with(network: &'a Network, precision: Precision, checkpointing: bool) -> Self {
        let (tape, spent) = (RefCell::default(), Cell::default());
        Self { network, precision, checkpointing, tape, spent }
    }

    /// Logits `[b,k]` of images `x` `[b,3,h,w]`, whose loss [`Passes::gradient`] takes.
    pub fn logits(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.timed(|| {
            if self.checkpointing && mode != Mode::Eval {
                let checkpoints = self.forward_in_segments(x, mode);
                let logits = checkpoints.logits.shallow_clone(); // alias: the leaf itself
                self.tape.borrow_mut().push(checkpoints);
                return logits;
            }
            self.whole(x, mode)
        })
    }

    /// Logits `[b,k]` without any gradient.
    pub fn seen(&self, x: &Tensor, mode: Mode) -> Tensor {
        let _guard = tch::no_grad_guard();
        self.timed(|| self.whole(x, mode))
    }

    /// The gradient of `cost` (logits to `[]`) with respect to the images `x`, same shape. No
    /// gradient reaches parameters.
    pub fn slope(&self, x: &Tensor, mode: Mode, cost: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let raise = match self.precision {
            Precision::Fp16 => RAISED * x.size()[0] as f64,
            Precision::Fp32 | Precision::Bf16 => 1.0,
        };
        let value = |logits: &Tensor| {
            let value = cost(logits);
            if self.precision == Precision::Fp16 { value * raise } else { value }
        };
        let slope = self.timed(|| {
            if self.checkpointing {
                return self.slope_in_segments(x, mode, &value);
            }
            let x = x.detach().set_requires_grad(true);
            let value = tch::with_grad(|| value(&self.whole(&x, mode)));
            Tensor::run_backward(&[value], &[x], false, false).remove(0)
        });
        match self.precision {
            // What overflows has a sign and no size.
            Precision::Fp16 => slope.nan_to_num(0.0, 1e4, -1e4) / raise,
            Precision::Fp32 | Precision::Bf16 => slope,
        }
    }

    /// Gradients of `loss` `[]` with respect to `parameters`; undefined where there is none.
    pub fn gradient(&self, loss: &Tensor, parameters: &[Tensor]) -> Vec<Tensor> {
        self.timed(|| {
            let tape = self.tape.take();
            if tape.is_empty() {
                return Tensor::run_backward(&[loss], parameters, false, false);
            }
            let leaves: Vec<_> = tape.iter().map(|pass| &pass.logits).collect();
            let slopes = Tensor::run_backward(&[loss], &leaves, false, false);
            let mut sums: Vec<Tensor> = parameters.iter().map(|_| Tensor::new()).collect();
            for (pass, slope) in tape.into_iter().zip(slopes) {
                self.back(pass, &slope, parameters, &mut sums);
            }
            sums
        })
    }

    /// Time spent in passes so far, as this thread sees it.
    pub fn spent(&self) -> Duration {
        self.spent.get()
    }

    fn timed<T>(&self, action: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = action();
        self.spent.set(self.spent.get() + begun.elapsed());
        result
    }

    fn enter(&self, x: &Tensor) -> Tensor {
        self.network.normalise(x).to_kind(self.precision.kind())
    }

    fn whole(&self, x: &Tensor, mode: Mode) -> Tensor {
        let first = self.enter(x);
        let segments = 0..self.network.segments();
        let last = segments.fold(first, |x, index| self.network.segment(index, &x, mode));
        last.to_kind(Kind::Float)
    }

    fn forward_in_segments(&self, x: &Tensor, mode: Mode) -> Checkpoints {
        let _guard = tch::no_grad_guard();
        let mut inputs = Vec::new();
        let mut at = self.enter(x);
        for index in 0..self.network.segments() {
            let next = self.network.segment(index, &at, mode);
            inputs.push(std::mem::replace(&mut at, next));
        }
        let logits = at.to_kind(Kind::Float).set_requires_grad(true);
        let again = if mode == Mode::Eval { Mode::Eval } else { Mode::Frozen };
        Checkpoints { inputs, logits, again }
    }

    fn slope_in_segments(
        &self,
        x: &Tensor,
        mode: Mode,
        value: &dyn Fn(&Tensor) -> Tensor,
    ) -> Tensor {
        let pass = self.forward_in_segments(x, mode);
        let value = tch::with_grad(|| value(&pass.logits));
        let slope = Tensor::run_backward(&[value], &[&pass.logits], false, false).remove(0);
        let mut slope = slope.to_kind(self.precision.kind());
        for (index, input) in pass.inputs.iter().enumerate().rev() {
            let input = input.detach().set_requires_grad(true);
            let out = tch::with_grad(|| self.network.segment(index, &input, pass.again));
            slope = through(&out, &slope, &[&input]).remove(0);
        }
        let x = x.detach().set_requires_grad(true);
        let first = tch::with_grad(|| self.enter(&x));
        through(&first, &slope, &[&x]).remove(0)
    }

    /// Goes back through a pass segment by segment, each passed through once more; adds to `sums`.
    fn back(&self, pass: Checkpoints, slope: &Tensor, parameters: &[Tensor], sums: &mut [Tensor]) {
        let mut slope = slope.to_kind(self.precision.kind());
        for (index, input) in pass.inputs.into_iter().enumerate().rev() {
            let input = input.set_requires_grad(true);
            let out = tch::with_grad(|| self.network.segment(index, &input, pass.again));
            let wanted: Vec<&Tensor> = std::iter::once(&input).chain(parameters).collect();
            let mut found = through(&out, &slope, &wanted).into_iter();
            slope = found.next().expect("the input's");
            let _guard = tch::no_grad_guard();
            for (sum, part) in sums.iter_mut().zip(found).filter(|(_, part)| part.defined()) {
                *sum = if sum.defined() { &*sum + part } else { part };
            }
        }
    }
}

/// What `slope`, the gradient with respect to `out`, is with respect to `wanted`.
fn through(out: &Tensor, slope: &Tensor, wanted: &[&Tensor]) -> Vec<Tensor> {
    // The derivative of this sum is the slope exactly; its value, which may overflow, is of no use.
    let value = tch::with_grad(|| (out * slope.detach()).sum(Kind::Float));
    Tensor::run_backward(&[value], wanted, false, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::formula,
        train::{golden, loss::divergence},
    };
    use tch::Device;

    /// Slope, loss gradients and running means after one clean and one shifted pass.
    fn passed(spec: &TrainSpec) -> Vec<Tensor> {
        let network = Network::blank(&spec.network, Device::Cpu).unwrap();
        formula::fill(&network.state());
        let passes = Passes::new(&network, spec);
        let x = formula::tensor(1 << 20, &[4, 3, 32, 32], 0.0, 1.0);
        let near = formula::tensor(1 << 21, &[4, 10], 0.0, 0.2);
        let slope = passes.slope(&x, Mode::Frozen, &|logits| divergence(logits, &near));
        let mode = Mode::Train { momentum: 0.5 };
        let (clean, moved) = (passes.logits(&x, mode), passes.logits(&(&x + 0.01), mode));
        let loss = divergence(&moved, &clean.softmax(1, None)) + divergence(&clean, &near);
        let parameters: Vec<_> =
            network.parameters().iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        let mut all = passes.gradient(&loss, &parameters);
        all.insert(0, slope);
        all.extend(network.buffers().iter().map(|(_, buffer)| buffer.to_kind(Kind::Float)));
        all
    }

    fn worst(got: &[Tensor], expected: &[Tensor]) -> f64 {
        let off = |(got, expected): (&Tensor, &Tensor)| {
            let scale = expected.norm().double_value(&[]).max(1e-12);
            (got - expected).norm().double_value(&[]) / scale
        };
        assert_eq!(got.len(), expected.len());
        got.iter().zip(expected).map(off).fold(0.0, f64::max)
    }

    #[test]
    fn checkpointing_changes_no_number_beyond_rounding() {
        let plain = passed(&golden::spec());
        let saving = passed(&TrainSpec { checkpointing: true, ..golden::spec() });
        assert!(worst(&saving, &plain) < 1e-5, "{}", worst(&saving, &plain));
        // The way to the images is the same way.
        assert_eq!(saving[0], plain[0]);
    }

    #[test]
    fn sixteen_bits_stay_near_thirty_two() {
        let plain = passed(&golden::spec());
        for (precision, bound) in [(Precision::Bf16, 0.15), (Precision::Fp16, 0.03)] {
            for checkpointing in [false, true] {
                let spec = TrainSpec { precision, checkpointing, ..golden::spec() };
                let halves = passed(&spec);
                let off = worst(&halves, &plain);
                assert!(off > 1e-6 && off < bound, "{precision:?} {checkpointing}: {off}");
                assert!(halves.iter().all(|tensor| tensor.kind() == Kind::Float));
            }
        }
    }
}
