//! The generalised sampler: any mixture of the time steps, noise schedules and scalings of VP
//! (Song et al. 2021), VE (ibid.), iDDPM (Nichol and Dhariwal 2021) and EDM, as in Karras et al.
//! 2022, table 1. It stands beside the simple sampler of [`super::sampler`], which it contains.

use std::f64::consts::PI;

use tch::{Kind, Tensor};

use crate::{
    diffusion::{
        sampler::{Origin, Walk, gamma},
        spec::{Discretization, SamplerSpec, Scaling, Schedule, Solver},
    },
    net::Denoiser,
};

/// Last time of VP's discretization.
const EPSILON_S: f64 = 1e-3;

/// Smallest ratio of successive `alpha_bar` in iDDPM's table of noise levels.
const IDDPM_C1: f64 = 0.001;
/// Offset of iDDPM's cosine schedule.
const IDDPM_C2: f64 = 0.008;
/// Length of iDDPM's table.
const IDDPM_M: usize = 1000;

/// The noise schedule sigma(t) and the scaling s(t) of `x(t) = s(t) (y + sigma(t) n)`.
#[derive(Debug, Clone, Copy)]
struct Process {
    schedule: Schedule,
    scaling: Scaling,
    beta_d: f64,
    beta_min: f64,
}

impl Process {
    fn sigma(&self, t: f64) -> f64 {
        match self.schedule {
            Schedule::Vp => vp_sigma(self.beta_d, self.beta_min, t),
            Schedule::Ve => t.sqrt(),
            Schedule::Linear => t,
        }
    }

    fn sigma_slope(&self, t: f64) -> f64 {
        match self.schedule {
            Schedule::Vp => {
                let sigma = self.sigma(t);
                0.5 * (self.beta_min + self.beta_d * t) * (sigma + 1.0 / sigma)
            }
            Schedule::Ve => 0.5 / t.sqrt(),
            Schedule::Linear => 1.0,
        }
    }

    /// The time at which the noise level is `sigma`.
    fn time(&self, sigma: f64) -> f64 {
        match self.schedule {
            Schedule::Vp => {
                let log = (sigma * sigma + 1.0).ln();
                let root = (self.beta_min.powi(2) + 2.0 * self.beta_d * log).sqrt();
                (root - self.beta_min) / self.beta_d
            }
            Schedule::Ve => sigma * sigma,
            Schedule::Linear => sigma,
        }
    }

    fn scale(&self, t: f64) -> f64 {
        match self.scaling {
            Scaling::Vp => 1.0 / (1.0 + self.sigma(t).powi(2)).sqrt(),
            Scaling::None => 1.0,
        }
    }

    fn scale_slope(&self, t: f64) -> f64 {
        match self.scaling {
            Scaling::Vp => -self.sigma(t) * self.sigma_slope(t) * self.scale(t).powi(3),
            Scaling::None => 0.0,
        }
    }

    /// dx/dt at time `t` (Karras et al. 2022, equation 4 with the denoiser for the score).
    fn slope(&self, denoise: &dyn Fn(&Tensor, f64) -> Tensor, x: &Tensor, t: f64) -> Tensor {
        let (sigma, sigma_slope) = (self.sigma(t), self.sigma_slope(t));
        let scale = self.scale(t);
        let denoised = denoise(&(x / scale), sigma);
        let pull = sigma_slope / sigma + self.scale_slope(t) / scale;
        x * pull - denoised * (sigma_slope * scale / sigma)
    }
}

fn vp_sigma(beta_d: f64, beta_min: f64, t: f64) -> f64 {
    ((0.5 * beta_d * t * t + beta_min * t).exp() - 1.0).sqrt()
}

/// As [`super::sampler::sample`], by the generalised sampler.
///
/// Source: Karras et al. 2022, algorithm 1 with general s and sigma, and algorithm 2's churn.
pub(super) fn sample(
    walk: &Walk<'_>,
    origin: Origin<'_>,
    noise: &mut dyn FnMut(u64) -> Tensor,
) -> Tensor {
    let (spec, denoiser) = (walk.spec, walk.denoiser);
    let denoise = |x: &Tensor, sigma: f64| walk.denoise(x, sigma).to_kind(Kind::Double);
    let (process, times) = process(spec, denoiser);
    let first = times[walk.start];
    let mut x = origin.noised(process.sigma(first)) * process.scale(first);
    for (step, pair) in times.windows(2).enumerate().skip(walk.start) {
        let (t, t_next) = (pair[0], pair[1]);
        let sigma = process.sigma(t);
        if walk.exit == Some(step) {
            return denoise(&(x / process.scale(t)), sigma);
        }
        let gamma = gamma(spec, sigma);
        let mut t_hat = t;
        if gamma > 0.0 {
            let sigma_hat = denoiser.round_sigma(sigma * (1.0 + gamma));
            t_hat = process.time(sigma_hat);
            let added = (sigma_hat.powi(2) - sigma.powi(2)).max(0.0).sqrt();
            x = x * (process.scale(t_hat) / process.scale(t))
                + noise(step as u64) * (added * process.scale(t_hat) * spec.churn_noise);
        }
        let h = t_next - t_hat;
        let mut slope = process.slope(&denoise, &x, t_hat);
        if spec.solver == Solver::Heun && t_next > 0.0 {
            let reached = &x + &slope * (spec.alpha * h);
            let ahead = process.slope(&denoise, &reached, t_hat + spec.alpha * h);
            let share = 0.5 / spec.alpha;
            slope = slope * (1.0 - share) + ahead * share;
        }
        x += slope * h;
    }
    x
}

/// The process and its times, first to last, 0 at the end.
fn process(spec: &SamplerSpec, denoiser: &dyn Denoiser) -> (Process, Vec<f64>) {
    let epsilon = EPSILON_S;
    let (lowest, highest) = denoiser.sigma_range();
    let (low, high) = (spec.sigma_min.max(lowest), spec.sigma_max.min(highest));
    // The VP process that has `low` at `epsilon` and `high` at 1.
    let (log_low, log_high) = ((low * low + 1.0).ln(), (high * high + 1.0).ln());
    let beta_d = 2.0 * (log_low / epsilon - log_high) / (epsilon - 1.0);
    let beta_min = log_high - 0.5 * beta_d;
    let process = Process { schedule: spec.schedule, scaling: spec.scaling, beta_d, beta_min };
    let last = (spec.steps.max(2) - 1) as f64;
    let table = match spec.discretization {
        Discretization::Iddpm => iddpm_table(low, high),
        _ => Vec::new(),
    };
    let level = |i: u64| {
        let share = i as f64 / last;
        match spec.discretization {
            Discretization::Vp => vp_sigma(beta_d, beta_min, 1.0 + share * (epsilon - 1.0)),
            Discretization::Ve => high * (low / high).powf(share),
            Discretization::Iddpm => {
                let position = (table.len() - 1) as f64 / last * i as f64;
                table[position.round_ties_even() as usize]
            }
            Discretization::Edm => {
                let (from, to) = (high.powf(1.0 / spec.rho), low.powf(1.0 / spec.rho));
                (from + share * (to - from)).powf(spec.rho)
            }
        }
    };
    let times = (0..spec.steps)
        .map(|i| process.time(denoiser.round_sigma(level(i))))
        .chain([0.0])
        .collect();
    (process, times)
}

/// iDDPM's noise levels from `low` to `high`, highest first.
fn iddpm_table(low: f64, high: f64) -> Vec<f64> {
    let alpha_bar =
        |j: usize| (0.5 * PI * j as f64 / IDDPM_M as f64 / (IDDPM_C2 + 1.0)).sin().powi(2);
    let mut table = vec![0.0; IDDPM_M + 1];
    for j in (1..=IDDPM_M).rev() {
        let ratio = (alpha_bar(j - 1) / alpha_bar(j)).max(IDDPM_C1);
        let above: f64 = table[j];
        table[j - 1] = ((above * above + 1.0) / ratio - 1.0).sqrt();
    }
    table.retain(|sigma| (low..=high).contains(sigma));
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::diffusion::{gaussian::Gaussian, sampler};
    use tch::Device;

    pub(in crate::diffusion) fn spec(
        process: (Discretization, Schedule, Scaling),
        steps: u64,
    ) -> SamplerSpec {
        let (discretization, schedule, scaling) = process;
        let (sigma_min, sigma_max) = discretization.range();
        SamplerSpec {
            discretization,
            schedule,
            scaling,
            sigma_min,
            sigma_max,
            ..SamplerSpec::edm(steps)
        }
    }

    fn never(_: u64) -> Tensor {
        unreachable!("a deterministic sampler asks for no noise")
    }

    #[test]
    fn edm_in_every_respect_is_the_simple_sampler() {
        let data = Gaussian { mean: 0.2, deviation: 0.5, classes: 0 };
        let z = sampler::latents(0, &[0, 1], data.shape(), Device::Cpu);
        for solver in [Solver::Heun, Solver::Euler] {
            let mut general = spec((Discretization::Edm, Schedule::Linear, Scaling::None), 9);
            general.solver = solver;
            let walk = Walk::whole(&general, &data, None);
            let origin = Origin { latents: &z, images: None };
            assert!(general.is_plain());
            let difference =
                sample(&walk, origin, &mut never) - sampler::sample(&walk, origin, &mut never);
            assert!(difference.abs().max().double_value(&[]) < 1e-12);
        }
    }

    #[test]
    fn every_process_reaches_the_data() {
        let data = Gaussian { mean: 0.2, deviation: 0.5, classes: 0 };
        let z = sampler::latents(0, &[0], data.shape(), Device::Cpu);
        for (process, sigma_max) in [
            ((Discretization::Vp, Schedule::Vp, Scaling::Vp), vp_sigma(19.9, 0.1, 1.0)),
            ((Discretization::Ve, Schedule::Ve, Scaling::None), 100.0),
            ((Discretization::Iddpm, Schedule::Linear, Scaling::None), 80.0),
        ] {
            let spec = spec(process, 200);
            let origin = Origin { latents: &z, images: None };
            let drawn = sample(&Walk::whole(&spec, &data, None), origin, &mut never);
            let exact = data.flow(&(z.to_kind(Kind::Double) * sigma_max), sigma_max);
            let error = (drawn - exact).abs().max().double_value(&[]);
            assert!(error < 2e-2, "{process:?}: {error}");
        }
    }
}
