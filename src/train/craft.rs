//! Crafting of adversarial images inside TRADES and SCORE: away from the clean prediction, with
//! batch statistics and frozen running statistics.

use tch::Tensor;

use crate::{
    threat::{Norm, ThreatModel},
    train::spec::{Craft, TrainSpec},
};

/// Deviation of the normal noise that crafting starts from, where it starts from normal noise.
pub const SMALL: f64 = 0.001;

/// The attack that crafts.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// What perturbations it may use.
    pub threat: ThreatModel,
    /// Steps.
    pub steps: u64,
    /// Step size in image units.
    pub step_size: f64,
    /// How it follows the gradient.
    pub craft: Craft,
}

impl Attack {
    /// The crafting attack of `spec` under `threat`.
    pub fn of(spec: &TrainSpec, threat: ThreatModel) -> Self {
        let step_size = spec.crafting_step(threat);
        Self { threat, steps: spec.attack_steps, step_size, craft: spec.craft }
    }

    /// Images near `x` `[b,3,h,w]` that raise what `slope` is the gradient of (images to the same
    /// shape), found from the perturbation `start` of the same shape. No gradient flows from the
    /// result.
    pub fn run(&self, x: &Tensor, start: &Tensor, slope: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        match (self.craft, self.threat.norm) {
            (Craft::Adam, _) => self.by_adam(x, start, slope),
            (Craft::Steps, Norm::L2) => self.by_direction(x, start, slope),
            (Craft::Steps, _) => self.by_sign(x, (x + start).clamp_(0.0, 1.0), slope),
        }
    }

    /// The same by the gradient's sign, where what it starts from may lie outside the box.
    pub fn by_sign(&self, x: &Tensor, from: Tensor, slope: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        let epsilon = self.threat.epsilon.value();
        // Images lie in the box, so it and the ball meet in a box.
        let (low, high) = ((x - epsilon).clamp_min_(0.0), (x + epsilon).clamp_max_(1.0));
        let mut adversarial = from;
        for _ in 0..self.steps {
            let mut moved = slope(&adversarial).sign_();
            moved *= self.step_size;
            moved += &adversarial;
            adversarial = moved.clamp_tensor_(Some(&low), Some(&high));
        }
        adversarial
    }

    /// The box comes first and the ball after it: shrinking towards `x` cannot leave the box.
    fn by_direction(
        &self,
        x: &Tensor,
        start: &Tensor,
        slope: &dyn Fn(&Tensor) -> Tensor,
    ) -> Tensor {
        let random = start / SMALL; // standard normal again
        let mut delta = start.copy();
        for _ in 0..self.steps {
            let gradient = slope(&(x + &delta));
            let norms = lengths(&gradient); // [b,1,1,1]
            // A vanished gradient gives no direction: any random one will do, so the start's.
            let direction = (&gradient / &norms).where_self(&norms.not_equal(0.0), &random);
            delta += direction * self.step_size;
            delta = ((delta + x).clamp_(0.0, 1.0) - x).renorm(2.0, 0, self.threat.epsilon.value());
        }
        (x + delta).clamp_(0.0, 1.0)
    }

    /// Source: deepmind-research, adversarial_robustness (Adam 0.1, a tenth from the middle on).
    fn by_adam(&self, x: &Tensor, start: &Tensor, slope: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let epsilon = self.threat.epsilon.value();
        let mut adversarial = (x + start).clamp_(0.0, 1.0);
        let (mut first, mut second) = (x.zeros_like(), x.zeros_like());
        for step in 1..=self.steps {
            // The distance is a mean over the batch; Adam does not mind the scale of what is summed.
            let gradient = slope(&adversarial) * x.size()[0] as f64;
            first = first * 0.9 + &gradient * 0.1;
            second = second * 0.999 + gradient.square() * 0.001;
            let unbiased = |moment: &Tensor, beta: f64| moment / (1.0 - beta.powi(step as i32));
            let way = unbiased(&first, 0.9) / (unbiased(&second, 0.999).sqrt() + 1e-8);
            let rate = if step <= self.steps / 2 { 0.1 } else { 0.01 };
            let delta = adversarial + way * rate - x;
            let delta = match self.threat.norm {
                Norm::L2 => delta.renorm(2.0, 0, epsilon),
                _ => delta.clamp(-epsilon, epsilon),
            };
            adversarial = (x + delta).clamp_(0.0, 1.0);
        }
        adversarial
    }
}

/// Euclidean lengths of images `[b,3,h,w]` as `[b,1,1,1]`.
pub(crate) fn lengths(x: &Tensor) -> Tensor {
    x.flatten(1, -1).norm_scalaropt_dim(2.0, [1].as_slice(), true).view([-1, 1, 1, 1])
}

#[cfg(test)]
/// The gradient of `value` (images to `[]`) at `x`, same shape.
pub(crate) fn input_gradient(x: &Tensor, value: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
    let x = x.detach().set_requires_grad(true);
    let value = tch::with_grad(|| value(&x)); // []
    Tensor::run_backward(&[value], &[x], false, false).remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Epsilon;
    use tch::{Device, Kind};

    /// Distance along a fixed direction: the optimum is known in closed form.
    fn attack(norm: Norm, craft: Craft) -> Attack {
        let threat = ThreatModel { norm, epsilon: Epsilon::new(1, 10) };
        let step_size = if norm == Norm::L2 { 0.02 } else { 0.025 };
        Attack { threat, steps: 10, step_size, craft }
    }

    #[test]
    fn linear_distances_are_raised_to_their_maximum() {
        let options = (Kind::Float, Device::Cpu);
        let x = Tensor::full([2, 3, 2, 2], 0.5, options);
        let slope = Tensor::arange(12, options).view([1, 3, 2, 2]) - 5.5;
        let start = Tensor::full([2, 3, 2, 2], 1e-3, options);
        let distance = |adversarial: &Tensor| (adversarial * &slope).sum(Kind::Float);
        for craft in [Craft::Steps, Craft::Adam] {
            let found =
                attack(Norm::Linf, craft).run(&x, &start, &|x| input_gradient(x, &distance));
            let best = &x + slope.sign() * 0.1;
            assert!((found - best).abs().max().double_value(&[]) < 1e-6, "{craft:?}");
        }
        let found =
            attack(Norm::L2, Craft::Steps).run(&x, &start, &|x| input_gradient(x, &distance));
        let best = &x + &slope / slope.norm() * 0.1;
        assert!((found - best).abs().max().double_value(&[]) < 1e-3);
        let found =
            attack(Norm::L2, Craft::Adam).run(&x, &start, &|x| input_gradient(x, &distance));
        assert!(lengths(&(found - &x)).max().double_value(&[]) <= 0.1 + 1e-6);
    }

    #[test]
    fn results_stay_in_the_box_and_the_ball_even_without_gradient() {
        let options = (Kind::Float, Device::Cpu);
        let x = Tensor::cat(
            &[Tensor::zeros([1, 3, 2, 2], options), Tensor::ones([1, 3, 2, 2], options)],
            0,
        );
        let start = Tensor::arange(24, options).view([2, 3, 2, 2]) * 1e-3 - 0.01;
        let flat = |adversarial: &Tensor| (adversarial * 0.0).sum(Kind::Float);
        for norm in [Norm::Linf, Norm::L2] {
            let found = attack(norm, Craft::Steps).run(&x, &start, &|x| input_gradient(x, &flat));
            assert!(found.isfinite().all().int64_value(&[]) == 1);
            assert!(found.min().double_value(&[]) >= 0.0 && found.max().double_value(&[]) <= 1.0);
            let delta = found - &x;
            let size = if norm == Norm::L2 { lengths(&delta) } else { delta.abs() };
            assert!(size.max().double_value(&[]) <= 0.1 + 1e-6);
        }
    }
}
