//! Scaling of losses whose gradients are 16 bits wide: as large as goes without overflow.
//!
//! Source: Micikevicius et al. 2018; the numbers are those of torch's `GradScaler`.

use tch::{Device, Kind, Tensor};

use crate::net::spec::Precision;

/// What the first loss is multiplied by.
const FIRST: f64 = 65_536.0;
/// After so many sound steps the scale doubles.
const CALM: f64 = 2000.0;

/// The scale, kept on the device so that nobody waits for it.
#[derive(Debug)]
pub(super) struct Scaling {
    /// What losses are multiplied by: `[]`, `Float`.
    pub(super) scale: Tensor,
    /// Sound steps since it last changed: `[]`, `Float`.
    pub(super) calm: Tensor,
}

impl Scaling {
    /// The scaling of trainings that need it.
    pub(super) fn of(precision: Precision, device: Device) -> Option<Self> {
        let number = |value| Tensor::full([0i64; 0], value, (Kind::Float, device));
        (precision == Precision::Fp16).then(|| Self { scale: number(FIRST), calm: number(0.0) })
    }

    /// The gradient without its scale, and whether it is sound (`[]`, `Bool`); sets the next scale.
    pub(super) fn undo(&mut self, gradient: &Tensor) -> (Tensor, Tensor) {
        let sound = gradient.isfinite().all(); // []
        let unscaled = gradient / &self.scale;
        let calm = (&self.calm + 1.0).where_self(&sound, &self.calm.zeros_like());
        let grows = calm.ge(CALM);
        let kept = (&self.scale * 2.0).where_self(&grows, &self.scale);
        self.scale = kept.where_self(&sound, &(&self.scale * 0.5));
        self.calm = calm.zeros_like().where_self(&grows, &calm);
        (unscaled, sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_halve_on_overflow_and_double_when_calm() {
        let mut scaling = Scaling::of(Precision::Fp16, Device::Cpu).unwrap();
        let scale = |scaling: &Scaling| scaling.scale.double_value(&[]);
        let (gradient, sound) = scaling.undo(&Tensor::from_slice(&[65_536.0f32, 32_768.0]));
        assert_eq!(Vec::<f32>::try_from(gradient).unwrap(), [1.0, 0.5]);
        assert!(sound.int64_value(&[]) == 1);
        let (_, sound) = scaling.undo(&Tensor::from_slice(&[f32::INFINITY, 1.0]));
        assert_eq!((sound.int64_value(&[]), scale(&scaling)), (0, FIRST / 2.0));
        for _ in 0..1999 {
            let _ = scaling.undo(&Tensor::from_slice(&[1.0f32]));
        }
        assert_eq!(scale(&scaling), FIRST / 2.0);
        let _ = scaling.undo(&Tensor::from_slice(&[1.0f32]));
        assert_eq!(scale(&scaling), FIRST);
        assert!(Scaling::of(Precision::Bf16, Device::Cpu).is_none());
    }
}
