//! Where Auto-PGD starts and how it steps, in the three norms.
//!
//! The order of operations is the published one, to the last bit; the buffers are reused, since
//! beside a small network the memory traffic of one step counts. In L1 alone strict mode goes its
//! own way: the published projection and selection sort every image at every step. On a CPU strict
//! mode steps by the loops of [`host`], in L-infinity with the same results.

use tch::{Kind, Tensor};

use super::{
    apgd::{Ascent, Stage},
    geometry::{flat, into_l2_ball, l1_correction, norm, normalize, per_row},
    host::{self, Keep, Stride},
    l1_linear,
    trial::Trial,
};
use crate::{error::Result, threat::Norm};

/// What an ascent needs of a gradient: in L-infinity its signs.
pub(super) fn direction(trial: &Trial, mut gradient: Tensor) -> Tensor {
    if trial.spec.norm == Norm::Linf && !trial.host() { gradient.sign_() } else { gradient }
}

/// Whether steps run over plain slices. Not in L1: a slice form was as strong on networks, but on a
/// linear model it missed an example that the tensor form breaks.
pub(super) fn by_slices(trial: &Trial) -> bool {
    trial.host() && trial.spec.norm != Norm::L1
}

impl Ascent {
    /// Moves on by one step; the point left becomes the previous one.
    ///
    /// # Errors
    /// If a gradient is not finite, where that is cheap to know. Elsewhere an image becomes
    /// infinite, and the logits after it.
    pub(super) fn step(&mut self, trial: &Trial, stage: &Stage, iteration: u64) -> Result<()> {
        let bounds = trial.spec.bounds;
        let inertia = if iteration == 0 { 1.0 } else { 0.75 };
        if by_slices(trial) {
            return self.stride(trial, stage, inertia);
        }
        let step = per_row(&self.pace.step);
        let next = match trial.spec.norm {
            Norm::Linf => {
                // A step times a sign is exact: no rounding between product and sum.
                let mut ahead = self.at.addcmul(&step, &self.gradient);
                let _ = ahead.clamp_tensor_(Some(&self.low), Some(&self.high));
                self.with_momentum(&mut ahead, inertia);
                ahead.clamp_tensor_(Some(&self.low), Some(&self.high))
            }
            Norm::L2 => {
                let mut ahead = &self.gradient / (per_row(&norm(&self.gradient, Norm::L2)) + 1e-12);
                ahead *= &step;
                ahead += &self.at;
                let mut ahead = into_l2_ball(ahead, &self.x, stage.epsilon, bounds);
                self.with_momentum(&mut ahead, inertia);
                into_l2_ball(ahead, &self.x, stage.epsilon, bounds)
            }
            Norm::L1 => {
                let signs = self.sparse_signs(trial.strict());
                let kept = per_row(&norm(&signs, Norm::L1)) + 1e-10;
                let moved = &self.at + step * signs / kept;
                trial.pull_into_l1_ball(&moved, &self.x, stage.epsilon)
            }
        };
        self.previous = std::mem::replace(&mut self.at, next);
        Ok(())
    }

    /// The same over plain slices.
    fn stride(&mut self, trial: &Trial, stage: &Stage, inertia: f64) -> Result<()> {
        let sizes = host::values(&self.pace.step);
        let stride = Stride { sizes: &sizes, inertia, epsilon: stage.epsilon };
        let images = (&self.x, &self.at, &self.gradient);
        let rows = std::mem::take(&mut self.better);
        let keep = Keep { rows: &rows, best: &mut self.best, gradient: &mut self.best_gradient };
        if let Some(row) = host::climb(trial, images, (&mut self.previous, keep), &stride) {
            return Err(trial.broken_model("gradients", self.rows[row]));
        }
        std::mem::swap(&mut self.at, &mut self.previous);
        Ok(())
    }

    /// `x + (ahead - x)·a + (x - previous)·(1 - a)`; uses up `previous`.
    fn with_momentum(&mut self, ahead: &mut Tensor, inertia: f64) {
        let _ = self.previous.neg_();
        self.previous += &self.at;
        self.previous *= 1.0 - inertia;
        *ahead -= &self.at;
        *ahead *= inertia;
        *ahead += &self.at;
        *ahead += &self.previous;
    }

    /// Signs of the largest gradient entries of each row, the others zero.
    fn sparse_signs(&self, strict: bool) -> Tensor {
        let mut magnitude = self.gradient.abs();
        let features = flat(&magnitude).size()[1];
        let index =
            ((-&self.pace.density + 1.0) * features as f64).clamp(0.0, (features - 1) as f64);
        let index = index.to_kind(Kind::Int64).unsqueeze(1);
        let threshold = if strict {
            l1_linear::threshold(&flat(&magnitude), &(-index + features))
        } else {
            flat(&magnitude).sort(-1, false).0.gather(1, &index, false)
        };
        let threshold = per_row(&threshold);
        let large = magnitude.ge_tensor_(&threshold);
        (&self.gradient * large).sign_()
    }
}

impl Trial<'_> {
    /// `moved` pulled into the L1 ball around `x` and into the box.
    pub(super) fn pull_into_l1_ball(&self, moved: &Tensor, x: &Tensor, epsilon: f64) -> Tensor {
        let delta = moved - x;
        if self.strict() {
            return l1_linear::project(x, &delta, epsilon, self.spec.bounds) + x;
        }
        let correction = l1_correction(x, &delta, epsilon, self.spec.bounds);
        x + delta + correction
    }

    /// As [`Self::pull_into_l1_ball`]; the published code adds up the starts of stages otherwise.
    pub(super) fn start_in_l1_ball(&self, start: &Tensor, x: &Tensor, epsilon: f64) -> Tensor {
        if self.strict() {
            return self.pull_into_l1_ball(start, x, epsilon);
        }
        start + l1_correction(x, &(start - x), epsilon, self.spec.bounds)
    }
}

/// A random point of the ball, or `start`; inside the box.
pub(super) fn starting_point(
    trial: &mut Trial,
    rows: &[usize],
    x: &Tensor,
    stage: &Stage,
    start: Option<&Tensor>,
) -> Tensor {
    let bounds = trial.spec.bounds;
    let (shape, device) = (x.size(), x.device());
    let at = match (start, trial.spec.norm) {
        (Some(start), _) => {
            if !trial.strict() {
                // Drawn and thrown away by the published code: the stream must move on.
                let _ = trial.noise.normal(rows, &shape, device);
            }
            start.copy()
        }
        (None, Norm::Linf) => {
            x + normalize(&trial.noise.uniform(rows, &shape, device), Norm::Linf) * stage.epsilon
        }
        (None, Norm::L2) => {
            x + normalize(&trial.noise.normal(rows, &shape, device), Norm::L2) * stage.epsilon
        }
        (None, Norm::L1) => {
            let noise = trial.noise.normal(rows, &shape, device);
            if trial.strict() {
                l1_linear::project(x, &noise, stage.epsilon, bounds) + x
            } else {
                let correction = l1_correction(x, &noise, stage.epsilon, bounds);
                x + noise + correction
            }
        }
    };
    at.clamp(bounds.low, bounds.high)
}
