//! Projected gradient descent on a loss of logits and labels (Madry et al. 2018), in evaluation
//! mode: what PGD-AT trains on and what validation measures.

use tch::{Kind, Tensor};

use crate::{
    threat::{Norm, ThreatModel},
    train::craft::lengths,
};

/// The attack.
#[derive(Debug, Clone, Copy)]
pub struct Pgd {
    /// What perturbations it may use.
    pub threat: ThreatModel,
    /// Steps.
    pub steps: u64,
    /// Step size in image units.
    pub step_size: f64,
}

impl Pgd {
    /// The first perturbation from `noise`, uniform in `[-1, 1)`: uniform in the cube (L-infinity);
    /// the way to a uniformly drawn image, shortened to ε (L2).
    pub fn start(&self, x: &Tensor, noise: &Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        let epsilon = self.threat.epsilon.value();
        let delta = match self.threat.norm {
            Norm::L2 => shorten(&((noise + 1.0) / 2.0 - x), epsilon),
            _ => noise * epsilon,
        };
        (x + delta).clamp_(0.0, 1.0) - x
    }

    /// Images near `x` that raise what `slope` is the gradient of (images to the same shape), found
    /// from the perturbation `start`.
    pub fn run(&self, x: &Tensor, start: &Tensor, slope: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        let epsilon = self.threat.epsilon.value();
        let mut delta = start.copy();
        for _ in 0..self.steps {
            let gradient = slope(&(x + &delta));
            delta = if self.threat.norm == Norm::L2 {
                let direction = &gradient / lengths(&gradient).clamp_min(1e-6);
                let moved = (x + delta + direction * self.step_size).clamp_(0.0, 1.0) - x;
                shorten(&moved, epsilon)
            } else {
                let moved = (delta + gradient.sign() * self.step_size).clamp_(-epsilon, epsilon);
                (x + moved).clamp_(0.0, 1.0) - x
            };
        }
        (x + delta).clamp_(0.0, 1.0)
    }
}

fn shorten(delta: &Tensor, epsilon: f64) -> Tensor {
    delta * (lengths(delta).reciprocal() * epsilon).clamp_max(1.0).nan_to_num(1.0, 1.0, 1.0)
}

/// The margin loss of Carlini and Wagner 2017 as the paper's validation uses it: minus the lead of
/// the right class, summed over the batch, nothing where it has none. `[]` of logits `[b,k]`.
pub fn margin(logits: &Tensor, labels: &Tensor) -> Tensor {
    let right = labels.one_hot(logits.size()[1]).to_kind(logits.kind()); // [b,k]
    let real = (logits * &right).sum_dim_intlist([1].as_slice(), false, logits.kind());
    let other = (logits - right * 10_000.0).amax([1].as_slice(), false);
    -(real - other).clamp_min(0.0).sum(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{train::craft::input_gradient, units::Epsilon};
    use tch::Device;

    #[test]
    fn margins_are_leads_of_the_right_class() {
        let logits = Tensor::from_slice2(&[[3.0f32, 1.0, 0.0], [0.0, 2.0, 5.0]]);
        // The first leads by 2; the second is wrong, so it counts nothing.
        assert_eq!(margin(&logits, &Tensor::from_slice(&[0i64, 1])).double_value(&[]), -2.0);
    }

    #[test]
    fn a_linear_classifier_falls_exactly_at_its_margin() {
        let options = (Kind::Float, Device::Cpu);
        let slope = Tensor::from_slice(&[1.0f32, -2.0, 0.5, 1.5, -1.0, 1.0]).view([1, 6]);
        let x = Tensor::full([1, 3, 1, 2], 0.5, options);
        let lead = (x.view([1, 6]) * &slope).sum(Kind::Float).double_value(&[]); // 0.5
        let logits = |x: &Tensor| {
            let score = x.view([-1, 6]).matmul(&slope.tr());
            Tensor::cat(&[score.zeros_like(), score], 1)
        };
        let label = Tensor::from_slice(&[1i64]);
        // ‖w‖₁ = 7 and ‖w‖₂² = 9.5: the nearest boundary is lead/‖w‖ away.
        for (norm, distance) in [(Norm::Linf, lead / 7.0), (Norm::L2, lead / 9.5f64.sqrt())] {
            for (factor, falls) in [(0.98, false), (1.02, true)] {
                let epsilon = Epsilon::new((distance * factor * 1e6) as u64, 1_000_000);
                let threat = ThreatModel { norm, epsilon };
                let attack = Pgd { threat, steps: 20, step_size: distance / 4.0 };
                let start = attack.start(&x, &Tensor::full([1, 3, 1, 2], 0.3, options));
                let found =
                    attack.run(&x, &start, &|x| input_gradient(x, &|x| margin(&logits(x), &label)));
                let wrong = logits(&found).argmax(1, false).int64_value(&[0]) == 0;
                assert_eq!(wrong, falls, "{norm} at {factor} of the distance");
            }
        }
    }
}
