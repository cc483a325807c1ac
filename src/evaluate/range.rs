//! Models that take something else than images in `[0, 1]`. Attacks, bounds and records stay in
//! `[0, 1]`: the model is wrapped, so that 8/255 always means eight grey levels.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{
    error::{Error, Result},
    net::Classifier,
};

/// What turns a pixel of `[0, 1]` into what the model takes: `(scale x + shift - mean) / deviation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The box that the model's images live in.
    pub bounds: [f64; 2],
    /// Subtracted, for each channel.
    pub mean: [f64; 3],
    /// Divided by, for each channel.
    pub deviation: [f64; 3],
}

impl Range {
    /// The range of the options that were given; `None` where none was.
    ///
    /// # Errors
    /// For numbers that make no range.
    pub fn of(
        bounds: Option<&[f64]>,
        mean: Option<&[f64]>,
        deviation: Option<&[f64]>,
    ) -> Result<Option<Self>> {
        if bounds.is_none() && mean.is_none() && deviation.is_none() {
            return Ok(None);
        }
        let three = |flag: &str, values: Option<&[f64]>, fallback: f64| match values {
            None => Ok([fallback; 3]),
            Some(&[one]) => Ok([one; 3]),
            Some(&[a, b, c]) => Ok([a, b, c]),
            Some(other) => Err(Error::input(format!(
                "{flag}: {} numbers; expected one, or one for each of three channels",
                other.len()
            ))),
        };
        let bounds = match bounds {
            None => [0.0, 1.0],
            Some(&[low, high]) if low < high && (high - low).is_finite() => [low, high],
            Some(other) => {
                return Err(Error::input(format!(
                    "--bounds {other:?}: expected the lowest and the highest value, such as 0,255"
                )));
            }
        };
        let (mean, deviation) = (three("--mean", mean, 0.0)?, three("--std", deviation, 1.0)?);
        if deviation.iter().any(|value| *value <= 0.0) {
            return Err(Error::input(format!("--std {deviation:?}: expected positive numbers")));
        }
        Ok(Some(Self { bounds, mean, deviation }))
    }

    /// `model`, to be given images in `[0, 1]`.
    pub fn wrap(&self, model: Box<dyn Classifier + Send>) -> Box<dyn Classifier + Send> {
        let column = |of: &dyn Fn(usize) -> f64| {
            Tensor::from_slice(&[of(0), of(1), of(2)]).to_kind(Kind::Float).view([1, 3, 1, 1])
        };
        let [low, high] = self.bounds;
        Box::new(Wrapped {
            model,
            scale: column(&|c| (high - low) / self.deviation[c]),
            shift: column(&|c| (low - self.mean[c]) / self.deviation[c]),
        })
    }
}

struct Wrapped {
    model: Box<dyn Classifier + Send>,
    scale: Tensor,
    shift: Tensor,
}

impl Classifier for Wrapped {
    fn classes(&self) -> i64 {
        self.model.classes()
    }

    fn architecture(&self) -> Option<String> {
        self.model.architecture()
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        self.model.logits(&moved(x, &self.scale, &self.shift))
    }

    fn fused(&self) -> Option<Box<dyn Classifier>> {
        let model = self.model.fused()?;
        Some(Box::new(Fused { model, scale: self.scale.copy(), shift: self.shift.copy() }))
    }

    fn remarks(&self) -> &[String] {
        self.model.remarks()
    }
}

/// The same before a model's fast form, which stays on its thread.
struct Fused {
    model: Box<dyn Classifier>,
    scale: Tensor,
    shift: Tensor,
}

impl Classifier for Fused {
    fn classes(&self) -> i64 {
        self.model.classes()
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        self.model.logits(&moved(x, &self.scale, &self.shift))
    }
}

fn moved(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Tensor {
    let on = |tensor: &Tensor| tensor.to_device(x.device());
    x * on(scale) + on(shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::testing::Linear;

    #[test]
    fn models_see_their_own_range() {
        // Logits are the pixels less 0.5.
        let model = || Box::new(Linear { weight: Tensor::eye(3, (Kind::Float, tch::Device::Cpu)) });
        let x = Tensor::from_slice(&[0.0f32, 0.5, 1.0]).view([1, 3, 1, 1]);
        let seen = |bounds: Option<&[f64]>, mean: Option<&[f64]>, std: Option<&[f64]>| {
            let range = Range::of(bounds, mean, std).unwrap().unwrap();
            Vec::<f32>::try_from((range.wrap(model()).logits(&x) + 0.5).view([3])).unwrap()
        };
        assert_eq!(seen(Some(&[0.0, 255.0]), None, None), [0.0, 127.5, 255.0]);
        assert_eq!(seen(Some(&[-1.0, 1.0]), None, None), [-1.0, 0.0, 1.0]);
        assert_eq!(seen(None, Some(&[0.5]), Some(&[0.5, 1.0, 0.25])), [-1.0, 0.0, 2.0]);
        assert_eq!(Range::of(None, None, None).unwrap(), None);
        assert!(Range::of(Some(&[1.0, 0.0]), None, None).is_err());
        assert!(Range::of(None, Some(&[1.0, 0.0]), None).is_err());
        assert!(Range::of(None, None, Some(&[0.0])).is_err());
    }
}
