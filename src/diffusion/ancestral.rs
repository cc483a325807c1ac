//! The samplers of earlier work: DDPM's ancestral sampling (Ho et al. 2020) and DDIM (Song et al.
//! 2021) over any subsequence of the 1000 steps of Ho's process. A denoiser of any preconditioning
//! serves: `x_VP = sqrt(alpha_bar) x_VE` and `sigma^2 = (1 - alpha_bar) / alpha_bar`.

use tch::{Kind, Tensor};

use crate::{
    diffusion::{
        sampler::{Origin, Walk},
        spec::{SamplerSpec, Solver, Variance},
    },
    net::Denoiser,
};

/// Length of the process.
pub const LENGTH: u64 = 1000;
/// Variances of its first and last forward step; those between rise evenly.
const BETA: (f64, f64) = (1e-4, 0.02);

/// The share of the signal's variance that is left after each of the process's steps.
fn alpha_bar() -> Vec<f64> {
    let last = (LENGTH - 1) as f64;
    (0..LENGTH)
        .scan(1.0, |left, step| {
            *left *= 1.0 - (BETA.0 + step as f64 / last * (BETA.1 - BETA.0));
            Some(*left)
        })
        .collect()
}

/// `alpha_bar` at the visited steps, the noisiest first, 1 at the end: evenly spread over those of
/// the process whose noise the network supports, the first and the last among them.
///
/// Source: Nichol and Dhariwal 2021, section 4.
fn visited(spec: &SamplerSpec, denoiser: &dyn Denoiser) -> Vec<f64> {
    let (low, high) = denoiser.sigma_range();
    let mut known = alpha_bar();
    known.retain(|left| (low..=high).contains(&sigma(*left)));
    let last = known.len().saturating_sub(1) as f64;
    let stride = last / (spec.steps.max(2) - 1) as f64;
    (0..spec.steps)
        .map(|i| known[(last - i as f64 * stride).round() as usize])
        .chain([1.0])
        .collect()
}

fn sigma(alpha_bar: f64) -> f64 {
    ((1.0 - alpha_bar) / alpha_bar).sqrt()
}

/// As [`super::sampler::sample`], along the discrete process.
///
/// Source: Song et al. 2021 (DDIM), equations 12 and 16, divided by `sqrt(alpha_bar)`.
pub(super) fn sample(
    walk: &Walk<'_>,
    origin: Origin<'_>,
    noise: &mut dyn FnMut(u64) -> Tensor,
) -> Tensor {
    let spec = walk.spec;
    let visited = visited(spec, walk.denoiser);
    let mut x = origin.noised(sigma(visited[walk.start]));
    for (step, pair) in visited.windows(2).enumerate().skip(walk.start) {
        let (here, next) = (pair[0], pair[1]);
        let (sigma_here, sigma_next) = (sigma(here), sigma(next));
        let mut denoised = walk.denoise(&x, sigma_here).to_kind(Kind::Double);
        if spec.clip {
            denoised = denoised.clamp(-1.0, 1.0);
        }
        if walk.exit == Some(step) || sigma_next == 0.0 {
            return denoised;
        }
        let eta = if spec.solver == Solver::Ddpm { 1.0 } else { spec.eta };
        // Variance of the step for x_VE: the posterior's, times eta squared.
        let forward = 1.0 - here / next;
        let posterior = eta * eta * (1.0 - next) / (1.0 - here) * forward / next;
        let kept = (sigma_next * sigma_next - posterior).max(0.0).sqrt() / sigma_here;
        x = (x - &denoised) * kept + denoised;
        let large = spec.solver == Solver::Ddpm && spec.variance == Variance::Large;
        let added = if large { forward / next } else { posterior };
        if added > 0.0 {
            x += noise(step as u64) * added.sqrt();
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diffusion::{gaussian::Gaussian, sampler},
        rng::Stream,
    };
    use tch::Device;

    fn spec(solver: Solver, steps: u64) -> SamplerSpec {
        SamplerSpec { solver, clip: false, ..SamplerSpec::edm(steps) }
    }

    #[test]
    fn the_process_is_that_of_ho() {
        let known = alpha_bar();
        // 1 - 1e-4, and the product of all thousand, as the paper's code has them.
        assert!((known[0] - 0.9999).abs() < 1e-12);
        assert!((known[999] - 4.035_829_765_375_612e-5).abs() < 1e-12, "{}", known[999]);
    }

    #[test]
    fn ddim_is_eulers_method_on_its_levels() {
        // Between two levels Euler's step keeps `denoised + (x - denoised) sigma' / sigma`.
        let data = Gaussian { mean: 0.2, deviation: 0.5, classes: 0 };
        let z = sampler::latents(0, &[0, 1], data.shape(), Device::Cpu);
        let origin = Origin { latents: &z, images: None };
        let spec = spec(Solver::Ddim, 20);
        let drawn = sample(&Walk::whole(&spec, &data, None), origin, &mut |_| unreachable!());
        let levels: Vec<f64> = visited(&spec, &data).into_iter().map(sigma).collect();
        let mut x = z.to_kind(Kind::Double) * levels[0];
        for pair in levels.windows(2) {
            let walk = Walk::whole(&spec, &data, None);
            let slope = (&x - walk.denoise(&x, pair[0])) / pair[0];
            x += slope * (pair[1] - pair[0]);
        }
        assert!((drawn - &x).abs().max().double_value(&[]) < 1e-12);
        // And with many steps it ends where the flow does.
        let fine = self::spec(Solver::Ddim, 1000);
        let drawn = sample(&Walk::whole(&fine, &data, None), origin, &mut |_| unreachable!());
        let exact = data.flow(&(z.to_kind(Kind::Double) * levels[0]), levels[0]);
        let error = (drawn - exact).abs().max().double_value(&[]);
        assert!(error < 0.02, "{error}");
    }

    #[test]
    fn ancestral_sampling_draws_from_the_data() {
        let data = Gaussian { mean: 0.2, deviation: 0.5, classes: 0 };
        let indices: Vec<u64> = (0..400).collect();
        let z = sampler::latents(0, &indices, data.shape(), Device::Cpu);
        let origin = Origin { latents: &z, images: None };
        for (solver, eta, variance) in [
            (Solver::Ddpm, 0.0, Variance::Small),
            (Solver::Ddpm, 0.0, Variance::Large),
            (Solver::Ddim, 0.5, Variance::Small),
        ] {
            let spec = SamplerSpec { eta, variance, ..spec(solver, 250) };
            let mut asked = 0;
            let drawn = sample(&Walk::whole(&spec, &data, None), origin, &mut |step| {
                asked += 1;
                let values = Stream::new(1, "ancestral", step).normals(z.numel());
                Tensor::from_slice(&values).view_as(&z)
            });
            assert_eq!(asked, 249, "no noise at the last step");
            let mean = drawn.mean(Kind::Double).double_value(&[]);
            let deviation = drawn.std(true).double_value(&[]);
            assert!((mean - 0.2).abs() < 0.02, "{spec:?}: {mean}");
            assert!((deviation - 0.5).abs() < 0.02, "{spec:?}: {deviation}");
        }
    }
}
