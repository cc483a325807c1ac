//! Preconditioning: what surrounds the raw network, `D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise)`.
//!
//! Source: Karras et al. 2022, table 1.

use std::f64::consts::FRAC_PI_2;

use tch::{Kind, Tensor};

use super::{
    architecture::{Architecture, Schedule},
    spec::Precond,
};

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

/// The coefficients of `arch` at `sigma` `[n]`, `Float`; `levels` is iDDPM's table `u` `[M+1]`.
pub fn coefficients(arch: &Architecture, sigma: &Tensor, levels: Option<&Tensor>) -> Coefficients {
    let flat = sigma;
    let sigma = &sigma.view([-1, 1, 1, 1]);
    let data = arch.sigma_data;
    let last = arch.schedule.steps - 1;
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
        Precond::Vp => variance_preserving(sigma, vp_time(&arch.schedule, flat) * last as f64),
        Precond::Ve => Coefficients {
            skip: sigma.ones_like(),
            out: sigma.shallow_clone(), // alias: only read
            input: sigma.ones_like(),
            noise: (flat * 0.5).log(),
        },
        Precond::Iddpm => {
            let levels = levels.expect("iDDPM has its table of levels");
            let nearest = (flat.unsqueeze(1) - levels.unsqueeze(0)).abs().argmin(1, false); // [n]
            let noise: Tensor = last - nearest;
            variance_preserving(sigma, noise.to_kind(Kind::Float))
        }
    }
}

fn variance_preserving(sigma: &Tensor, noise: Tensor) -> Coefficients {
    let input = (sigma.square() + 1.0).rsqrt();
    Coefficients { skip: sigma.ones_like(), out: -sigma, input, noise }
}

/// VP's time at which the noise level is `sigma`.
fn vp_time(schedule: &Schedule, sigma: &Tensor) -> Tensor {
    let Schedule { beta_d, beta_min, .. } = *schedule;
    let log: Tensor = (sigma.square() + 1.0).log();
    ((log * (2.0 * beta_d) + beta_min * beta_min).sqrt() - beta_min) / beta_d
}

/// VP's noise level at time `t`, in single precision as the official code computes it.
fn vp_sigma(schedule: &Schedule, t: f64) -> f64 {
    let t = Tensor::from(t as f32);
    let exponent = t.square() * (0.5 * schedule.beta_d) + t * schedule.beta_min;
    (exponent.exp() - 1.0).sqrt().double_value(&[])
}

/// iDDPM's noise levels `u` `[M+1]`, `Float`, largest first, the last one zero.
///
/// In single precision throughout: the recurrence subtracts nearly equal numbers, and a more
/// exact one would round σ to levels that published networks never saw.
pub fn iddpm_levels(schedule: &Schedule) -> Tensor {
    let Schedule { steps, c_1, c_2, .. } = *schedule;
    let alpha_bar = |j: i64| {
        let angle = Tensor::from(j as f32) * FRAC_PI_2 / steps as f64 / (c_2 + 1.0);
        angle.sin().square()
    };
    let mut level = Tensor::from(0f32);
    let mut levels = vec![0f32];
    for j in (1..=steps).rev() {
        let ratio = (alpha_bar(j - 1) / alpha_bar(j)).clamp_min(c_1);
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
        Precond::Vp => {
            let schedule = &arch.schedule;
            (vp_sigma(schedule, schedule.epsilon_t), vp_sigma(schedule, 1.0))
        }
        Precond::Iddpm => {
            let levels = levels.expect("iDDPM has its table of levels");
            (levels.double_value(&[arch.schedule.steps - 1]), levels.double_value(&[0]))
        }
    }
}

/// [`sigma_range`] without a tensor, for planning: the same to four digits.
pub fn plain_range(arch: &Architecture) -> (f64, f64) {
    let Schedule { beta_d, beta_min, epsilon_t, steps, c_1, c_2 } = arch.schedule;
    let vp = |t: f64| ((0.5 * beta_d * t * t + beta_min * t).exp() - 1.0).sqrt();
    match arch.precond {
        Precond::Edm | Precond::Ve => (arch.sigma_min, arch.sigma_max.unwrap_or(f64::INFINITY)),
        Precond::Vp => (vp(epsilon_t), vp(1.0)),
        Precond::Iddpm => {
            // In single precision, as `iddpm_levels`.
            let alpha_bar = |j: i64| {
                let angle = j as f32 * FRAC_PI_2 as f32 / steps as f32 / (c_2 + 1.0) as f32;
                angle.sin().powi(2)
            };
            let (mut level, mut lowest) = (0f32, 0f32);
            for j in (1..=steps).rev() {
                let ratio = (alpha_bar(j - 1) / alpha_bar(j)).max(c_1 as f32);
                level = ((level * level + 1.0) / ratio - 1.0).sqrt();
                if j == steps {
                    lowest = level;
                }
            }
            (f64::from(lowest), f64::from(level))
        }
    }
}
