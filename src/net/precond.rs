//! Preconditioning: what surrounds the raw network, `D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise)`.
//!
//! Source: Karras et al. 2022, table 1.

use std::f64::consts::FRAC_PI_2;

use tch::{Kind, Tensor};

use super::{architecture::Architecture, spec::Precond};

/// Slope of VP's schedule.
const BETA_D: f64 = 19.9;
/// Its initial slope.
const BETA_MIN: f64 = 0.1;
/// The smallest time that VP supports.
const EPSILON_T: f64 = 1e-5;
/// Timesteps of the discrete formulations (VP and iDDPM).
const STEPS: i64 = 1000;

/// The four coefficients at noise levels `[n,1,1,1]`; noise labels are `[n]`.
#[derive(Debug)]
pub struct Coefficients {
    /// Weight of the input in the result.
    pub skip: Tensor,
    /// Weight of the network's output in the result.
    pub out: Tensor,
    /// Scale of the network's input.
    pub input: Tensor,
    /// What the network is told about σ.
    pub noise: Tensor,
}

/// The coefficients of `arch` at `sigma` `[n]`, `Float`; `levels` is iDDPM's table `u` `[1001]`.
pub fn coefficients(arch: &Architecture, sigma: &Tensor, levels: Option<&Tensor>) -> Coefficients {
    let flat = sigma;
    let sigma = &sigma.view([-1, 1, 1, 1]);
    let data = arch.sigma_data;
    match arch.precond {
        Precond::Edm => {
            let total = sigma.square() + data * data; // σ² + σ_data²
            Coefficients {
                skip: data * data / &total,
                out: sigma * data / total.sqrt(),
                input: total.rsqrt(),
                noise: flat.log() / 4.0,
            }
        }
        Precond::Vp => variance_preserving(sigma, vp_time(flat) * (STEPS - 1) as f64),
        Precond::Ve => Coefficients {
            skip: sigma.ones_like(),
            out: sigma.shallow_clone(), // alias: only read
            input: sigma.ones_like(),
            noise: (flat * 0.5).log(),
        },
        Precond::Iddpm => {
            let levels = levels.expect("iDDPM has its table of levels");
            let nearest = (flat.unsqueeze(1) - levels.unsqueeze(0)).abs().argmin(1, false); // [n]
            let noise: Tensor = (STEPS - 1) - nearest;
            variance_preserving(sigma, noise.to_kind(Kind::Float))
        }
    }
}

fn variance_preserving(sigma: &Tensor, noise: Tensor) -> Coefficients {
    let input = (sigma.square() + 1.0).rsqrt();
    Coefficients { skip: sigma.ones_like(), out: -sigma, input, noise }
}

/// VP's time at which the noise level is `sigma`.
fn vp_time(sigma: &Tensor) -> Tensor {
    let log: Tensor = (sigma.square() + 1.0).log();
    ((log * (2.0 * BETA_D) + BETA_MIN * BETA_MIN).sqrt() - BETA_MIN) / BETA_D
}

/// VP's noise level at time `t`, in single precision as the official code computes it.
fn vp_sigma(t: f64) -> f64 {
    let t = Tensor::from(t as f32);
    let exponent = t.square() * (0.5 * BETA_D) + t * BETA_MIN;
    (exponent.exp() - 1.0).sqrt().double_value(&[])
}

/// iDDPM's noise levels `u` `[1001]`, `Float`, largest first, the last one zero.
///
/// In single precision throughout: the recurrence subtracts nearly equal numbers, and a more
/// exact one would round σ to levels that published networks never saw.
pub fn iddpm_levels() -> Tensor {
    let alpha_bar = |j: i64| {
        let angle = Tensor::from(j as f32) * FRAC_PI_2 / STEPS as f64 / 1.008;
        angle.sin().square()
    };
    let mut level = Tensor::from(0f32);
    let mut levels = vec![0f32];
    for j in (1..=STEPS).rev() {
        let ratio = (alpha_bar(j - 1) / alpha_bar(j)).clamp_min(0.001);
        level = ((level.square() + 1.0) / ratio - 1.0).sqrt();
        levels.push(level.double_value(&[]) as f32);
    }
    levels.reverse();
    Tensor::from_slice(&levels)
}

/// Smallest and largest supported noise level of `arch`.
pub fn sigma_range(arch: &Architecture, levels: Option<&Tensor>) -> (f64, f64) {
    match arch.precond {
        Precond::Edm | Precond::Ve => (arch.sigma_min, arch.sigma_max.unwrap_or(f64::INFINITY)),
        Precond::Vp => (vp_sigma(EPSILON_T), vp_sigma(1.0)),
        Precond::Iddpm => {
            let levels = levels.expect("iDDPM has its table of levels");
            (levels.double_value(&[STEPS - 1]), levels.double_value(&[0]))
        }
    }
}

/// [`sigma_range`] without a tensor, for planning: the same to four digits.
pub fn plain_range(arch: &Architecture) -> (f64, f64) {
    let vp = |t: f64| ((0.5 * BETA_D * t * t + BETA_MIN * t).exp() - 1.0).sqrt();
    match arch.precond {
        Precond::Edm | Precond::Ve => (arch.sigma_min, arch.sigma_max.unwrap_or(f64::INFINITY)),
        Precond::Vp => (vp(EPSILON_T), vp(1.0)),
        Precond::Iddpm => {
            // In single precision, as `iddpm_levels`.
            let alpha_bar = |j: i64| {
                let angle = j as f32 * FRAC_PI_2 as f32 / STEPS as f32 / 1.008;
                angle.sin().powi(2)
            };
            let (mut level, mut lowest) = (0f32, 0f32);
            for j in (1..=STEPS).rev() {
                let ratio = (alpha_bar(j - 1) / alpha_bar(j)).max(0.001);
                level = ((level * level + 1.0) / ratio - 1.0).sqrt();
                if j == STEPS {
                    lowest = level;
                }
            }
            (f64::from(lowest), f64::from(level))
        }
    }
}
