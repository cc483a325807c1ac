//! The generalised sampler: any mixture of the time steps, noise schedules and scalings of VP
//! (Song et al. 2021), VE (ibid.), iDDPM (Nichol and Dhariwal 2021) and EDM, as in Karras et al.
//! 2022, table 1. It stands beside the simple sampler of [`super::sampler`], which it contains.

use std::f64::consts::{PI, SQRT_2};

use tch::{Kind, Tensor};

use crate::{
    diffusion::spec::{AblationSpec, Discretization, Scaling, Schedule, Solver},
    net::Denoiser,
};

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

/// Draws images as [`super::sampler::sample`] does, by the generalised sampler.
///
/// Source: Karras et al. 2022, algorithm 1 with general s and sigma, and algorithm 2's churn.
pub fn sample(
    spec: &AblationSpec,
    denoiser: &dyn Denoiser,
    latents: &Tensor,
    label: Option<&Tensor>,
    noise: &mut dyn FnMut(u64) -> Tensor,
) -> Tensor {
    let _guard = tch::no_grad_guard();
    let denoise = |x: &Tensor, sigma: f64| {
        let level = Tensor::from_slice(&[sigma]).to_device(x.device());
        denoiser.denoise(x, &level, label).to_kind(Kind::Double)
    };
    let (process, times) = process(spec, denoiser);
    let mut x = latents.to_kind(Kind::Double) * (process.sigma(times[0]) * process.scale(times[0]));
    for (step, pair) in times.windows(2).enumerate() {
        let (t, t_next) = (pair[0], pair[1]);
        let sigma = process.sigma(t);
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

fn gamma(spec: &AblationSpec, sigma: f64) -> f64 {
    let inside = sigma >= spec.churn_min && sigma <= spec.churn_max.unwrap_or(f64::INFINITY);
    if inside { (spec.churn / spec.steps as f64).min(SQRT_2 - 1.0) } else { 0.0 }
}

/// The process and its times, first to last, 0 at the end.
fn process(spec: &AblationSpec, denoiser: &dyn Denoiser) -> (Process, Vec<f64>) {
    let epsilon = spec.epsilon_s;
    let vp = |t| vp_sigma(19.9, 0.1, t);
    let (low, high) = match spec.discretization {
        Discretization::Vp => (vp(epsilon), vp(1.0)),
        Discretization::Ve => (0.02, 100.0),
        Discretization::Iddpm => (0.002, 81.0),
        Discretization::Edm => (0.002, 80.0),
    };
    let (lowest, highest) = denoiser.sigma_range();
    let low = spec.sigma_min.unwrap_or(low).max(lowest);
    let high = spec.sigma_max.unwrap_or(high).min(highest);
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
    ) -> AblationSpec {
        AblationSpec {
            solver: Solver::Heun,
            steps,
            discretization: process.0,
            schedule: process.1,
            scaling: process.2,
            sigma_min: None,
            sigma_max: None,
            rho: 7.0,
            epsilon_s: 1e-3,
            alpha: 1.0,
            churn: 0.0,
            churn_min: 0.0,
            churn_max: None,
            churn_noise: 1.0,
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
            let simple = sampler::tests::edm(solver, 9);
            let difference = sample(&general, &data, &z, None, &mut never)
                - sampler::sample(&simple, &data, &z, None, &mut never);
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
            let drawn = sample(&spec(process, 200), &data, &z, None, &mut never);
            let exact = data.flow(&(z.to_kind(Kind::Double) * sigma_max), sigma_max);
            let error = (drawn - exact).abs().max().double_value(&[]);
            assert!(error < 2e-2, "{process:?}: {error}");
        }
    }
}
