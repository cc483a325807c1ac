//! A denoiser with a closed form: data that are one Gaussian, `N(mean, deviation^2)` per pixel.

use tch::{Kind, Tensor};

use crate::net::Denoiser;

/// The posterior mean `E[y | y + sigma n]` of Gaussian data.
pub(super) struct Gaussian {
    pub(super) mean: f64,
    pub(super) deviation: f64,
    pub(super) classes: i64,
}

impl Gaussian {
    /// Where the probability-flow ODE takes `x` (noise level `from`) by noise level 0.
    pub(super) fn flow(&self, x: &Tensor, from: f64) -> Tensor {
        let shrink = self.deviation / (self.deviation.powi(2) + from.powi(2)).sqrt();
        (x - self.mean) * shrink + self.mean
    }
}

impl Denoiser for Gaussian {
    fn shape(&self) -> [i64; 3] {
        [3, 4, 4]
    }

    fn classes(&self) -> i64 {
        self.classes
    }

    fn sigma_range(&self) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }

    fn round_sigma(&self, sigma: f64) -> f64 {
        sigma
    }

    /// In `Double`, so that tests see the solver's error and not the network's rounding. A label
    /// moves the mean by its class number over ten.
    fn denoise(&self, x: &Tensor, sigma: &Tensor, label: Option<&Tensor>) -> Tensor {
        let noise = sigma.to_kind(Kind::Double).square().view([-1, 1, 1, 1]);
        let data = self.deviation.powi(2);
        let mean = match label {
            Some(label) => {
                let class = label.argmax(1, false).to_kind(Kind::Double).view([-1, 1, 1, 1]);
                class / 10.0 + self.mean
            }
            None => Tensor::from(self.mean),
        };
        (x.to_kind(Kind::Double) * data + &noise * mean) / (noise + data)
    }
}
