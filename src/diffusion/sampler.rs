//! EDM's samplers (Karras et al. 2022, algorithms 1 and 2): a float64 state around the network.
//! [`super::ablation`] generalises them, [`super::ancestral`] has those of earlier work; all walk
//! down a list of noise levels and can enter it late and leave it early.

use tch::{Device, Kind, Tensor};

use crate::{
    diffusion::{
        ablation, ancestral,
        spec::{SamplerSpec, Solver},
    },
    net::Denoiser,
    rng::Stream,
};

pub use super::sampler_check::check;

/// What images are drawn by.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    /// The sampler.
    pub spec: &'a SamplerSpec,
    /// The network.
    pub denoiser: &'a dyn Denoiser,
    /// One-hot classes `[b,k]`.
    pub label: Option<&'a Tensor>,
    /// The step, counted from 0, at which a noised `origin` enters; 0 for pure noise.
    pub start: usize,
    /// The step, counted from 0, whose denoised image is the result; `None` for the whole way.
    pub exit: Option<usize>,
}

impl<'a> Walk<'a> {
    /// The whole way.
    pub fn whole(
        spec: &'a SamplerSpec,
        denoiser: &'a dyn Denoiser,
        label: Option<&'a Tensor>,
    ) -> Self {
        Self { spec, denoiser, label, start: 0, exit: None }
    }

    /// `D(x; sigma)`, `Float` or what the denoiser gives.
    pub(super) fn denoise(&self, x: &Tensor, sigma: f64) -> Tensor {
        let level = Tensor::full([1i64], sigma, (Kind::Double, x.device()));
        self.denoiser.denoise(x, &level, self.label)
    }
}

/// Where a walk begins.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// Standard normal `[b,c,h,w]`.
    pub latents: &'a Tensor,
    /// Images `[b,c,h,w]` in `[-1, 1]` under the noise, where the walk does not start from pure
    /// noise.
    pub images: Option<&'a Tensor>,
}

impl Origin<'_> {
    /// The images under noise of deviation `sigma`, `Double`.
    pub(super) fn noised(&self, sigma: f64) -> Tensor {
        let noise = self.latents.to_kind(Kind::Double) * sigma;
        match self.images {
            Some(images) => noise + images,
            None => noise,
        }
    }
}

/// Draws images. `noise` gives standard normal `[b,c,h,w]` for a step, counted from 0, and is asked
/// only where a sampler adds noise. Returns `[b,c,h,w]`, `Double`, pixels around `[-1, 1]`.
///
/// Noise levels that the network does not support are clamped to those it does; call
/// [`check`] first to refuse them instead.
pub fn sample(walk: &Walk<'_>, origin: Origin<'_>, noise: &mut dyn FnMut(u64) -> Tensor) -> Tensor {
    let _guard = tch::no_grad_guard();
    match walk.spec.solver {
        Solver::Ddpm | Solver::Ddim => ancestral::sample(walk, origin, noise),
        Solver::Heun | Solver::Euler if walk.spec.is_plain() => plain(walk, origin, noise),
        Solver::Heun | Solver::Euler => ablation::sample(walk, origin, noise),
    }
}

fn plain(walk: &Walk<'_>, origin: Origin<'_>, noise: &mut dyn FnMut(u64) -> Tensor) -> Tensor {
    let (spec, denoiser) = (walk.spec, walk.denoiser);
    let levels = levels(spec, denoiser);
    let mut x = origin.noised(levels[walk.start]);
    for (step, pair) in levels.windows(2).enumerate().skip(walk.start) {
        let (sigma, sigma_next) = (pair[0], pair[1]);
        if walk.exit == Some(step) {
            return walk.denoise(&x, sigma).to_kind(Kind::Double);
        }
        let sigma_hat = denoiser.round_sigma(sigma * (1.0 + gamma(spec, sigma)));
        if sigma_hat > sigma {
            let added = (sigma_hat.powi(2) - sigma.powi(2)).sqrt() * spec.churn_noise;
            x += noise(step as u64) * added;
        }
        x = advance(walk, x, (sigma_hat, sigma_next));
    }
    x
}

/// One Euler or Heun step of the probability-flow ODE from `sigma.0` to `sigma.1`. The step that
/// ends at 0 is Euler's, since the slope there is not defined.
///
/// Source: Karras et al. 2022, algorithm 2, lines 7-11.
fn advance(walk: &Walk<'_>, x: Tensor, (sigma, sigma_next): (f64, f64)) -> Tensor {
    let h = sigma_next - sigma;
    let mut slope = slope(walk, &x, sigma);
    if walk.spec.solver == Solver::Heun && sigma_next > 0.0 {
        let reached = &x + &slope * h;
        slope += self::slope(walk, &reached, sigma_next);
        slope *= 0.5;
    }
    slope *= h;
    slope += x;
    slope
}

/// dx/dσ at noise level `sigma`, `Double`.
fn slope(walk: &Walk<'_>, x: &Tensor, sigma: f64) -> Tensor {
    // Ours from here on, so that the arithmetic may overwrite it.
    let mut slope = x - walk.denoise(x, sigma);
    slope /= sigma;
    slope
}

/// How much churn raises the noise level `sigma`, relative to it.
pub(super) fn gamma(spec: &SamplerSpec, sigma: f64) -> f64 {
    let inside = sigma >= spec.churn_min && sigma <= spec.churn_max.unwrap_or(f64::INFINITY);
    let full = (spec.churn / spec.steps as f64).min(std::f64::consts::SQRT_2 - 1.0);
    if inside { full } else { 0.0 }
}

/// The noise levels that EDM's sampler passes, highest first, 0 at the end: `steps + 1` numbers.
///
/// Source: Karras et al. 2022, equation 5.
pub fn levels(spec: &SamplerSpec, denoiser: &dyn Denoiser) -> Vec<f64> {
    let (lowest, highest) = denoiser.sigma_range();
    let root = |sigma: f64| sigma.powf(1.0 / spec.rho);
    let (low, high) = (root(spec.sigma_min.max(lowest)), root(spec.sigma_max.min(highest)));
    let last = (spec.steps.max(2) - 1) as f64;
    (0..spec.steps)
        .map(|i| denoiser.round_sigma((high + i as f64 / last * (low - high)).powf(spec.rho)))
        .chain([0.0])
        .collect()
}

/// How often one image passes through the network on the way from step `start` to `exit`.
pub fn evaluations(spec: &SamplerSpec, start: usize, exit: Option<usize>) -> u64 {
    let (start, steps) = (start as u64, spec.steps);
    let twice = spec.solver == Solver::Heun;
    match exit {
        Some(exit) if twice => 2 * (exit as u64 - start) + 1,
        Some(exit) => exit as u64 - start + 1,
        None if twice => 2 * (steps - start) - 1,
        None => steps - start,
    }
}

/// Standard-normal latents `[n,c,h,w]`, `Float`, of the images `indices` under `seed`: each is a
/// function of (seed, its index) alone.
pub fn latents(seed: u64, indices: &[u64], [c, h, w]: [i64; 3], device: Device) -> Tensor {
    let mut values = Vec::with_capacity(indices.len() * (c * h * w) as usize);
    for &index in indices {
        values.extend(Stream::new(seed, "latent", index).normals((c * h * w) as usize));
    }
    Tensor::from_slice(&values).view([indices.len() as i64, c, h, w]).to_device(device)
}

/// Pixels around `[-1, 1]` as bytes on the CPU: scaled by 127.5, raised by 128, clipped and
/// truncated, exactly as the published sets were.
pub fn to_bytes(x: &Tensor) -> Tensor {
    (x * 127.5 + 128.0).clamp(0.0, 255.0).to_kind(Kind::Uint8).to_device(Device::Cpu)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::diffusion::{
        gaussian::Gaussian,
        spec::{Discretization, Scaling, Schedule},
    };

    pub(in crate::diffusion) fn edm(solver: Solver, steps: u64) -> SamplerSpec {
        SamplerSpec { solver, ..SamplerSpec::edm(steps) }
    }

    fn never(_: u64) -> Tensor {
        unreachable!("a deterministic sampler asks for no noise")
    }

    fn drawn(spec: &SamplerSpec, data: &Gaussian, latents: &Tensor) -> Tensor {
        sample(&Walk::whole(spec, data, None), Origin { latents, images: None }, &mut never)
    }

    fn error(solver: Solver, steps: u64) -> f64 {
        let data = Gaussian { mean: 0.2, deviation: 0.5, classes: 0 };
        let z = latents(3, &[0, 1], data.shape(), Device::Cpu);
        let drawn = drawn(&edm(solver, steps), &data, &z);
        let exact = data.flow(&(z.to_kind(Kind::Double) * 80.0), 80.0);
        (drawn - exact).abs().max().double_value(&[])
    }

    #[test]
    fn heun_converges_with_order_two_and_euler_with_order_one() {
        for (solver, order) in [(Solver::Heun, 2.0), (Solver::Euler, 1.0)] {
            let (coarse, fine) = (error(solver, 64), error(solver, 128));
            let seen = (coarse / fine).log2();
            assert!((seen - order).abs() < 0.15, "{solver:?}: order {seen} ({coarse} {fine})");
        }
    }

    #[test]
    fn churn_keeps_the_distribution() {
        let data = Gaussian { mean: 0.2, deviation: 0.5, classes: 0 };
        let spec = SamplerSpec {
            churn: 40.0,
            churn_min: 0.05,
            churn_max: Some(50.0),
            ..edm(Solver::Heun, 40)
        };
        let indices: Vec<u64> = (0..400).collect();
        let z = latents(0, &indices, data.shape(), Device::Cpu);
        let mut asked = Vec::new();
        let origin = Origin { latents: &z, images: None };
        let drawn = sample(&Walk::whole(&spec, &data, None), origin, &mut |step| {
            asked.push(step);
            let values = Stream::new(1, "churn", step).normals(z.numel());
            Tensor::from_slice(&values).view_as(&z)
        });
        let (mean, deviation) = (drawn.mean(Kind::Double), drawn.std(true));
        assert!((mean.double_value(&[]) - 0.2).abs() < 0.02, "{mean}");
        assert!((deviation.double_value(&[]) - 0.5).abs() < 0.02, "{deviation}");
        // Noise is drawn only inside [churn_min, churn_max].
        let levels = levels(&spec, &data);
        assert!(asked.iter().all(|&step| (0.05..=50.0).contains(&levels[step as usize])));
        assert!(!asked.is_empty() && asked.len() < 40);
    }

    #[test]
    fn an_image_is_a_function_of_its_index() {
        let data = Gaussian { mean: 0.0, deviation: 0.5, classes: 0 };
        let draw = |indices: &[u64]| {
            let z = latents(7, indices, data.shape(), Device::Cpu);
            drawn(&edm(Solver::Heun, 8), &data, &z)
        };
        assert_eq!(draw(&[4, 9]).get(1), draw(&[9]).get(0));
    }

    #[test]
    fn walks_enter_late_and_leave_early() {
        let data = Gaussian { mean: 0.2, deviation: 0.5, classes: 0 };
        let z = latents(0, &[0, 1], data.shape(), Device::Cpu);
        let general = (Discretization::Vp, Schedule::Vp, Scaling::Vp);
        for spec in [
            edm(Solver::Heun, 9),
            ablation::tests::spec(general, 9),
            SamplerSpec { clip: false, ..edm(Solver::Ddim, 9) },
        ] {
            let origin = Origin { latents: &z, images: None };
            let whole = Walk::whole(&spec, &data, None);
            let all = sample(&whole, origin, &mut never);
            // The last step goes to what the network sees at the lowest level; where the signal
            // is scaled over time, only nearly.
            let exit = sample(&Walk { exit: Some(8), ..whole }, origin, &mut never);
            let near = if spec.scaling == Scaling::Vp { 0.02 } else { 1e-12 };
            let gap = (&all - exit).abs().max().double_value(&[]);
            assert!(gap < near, "{spec:?}: {gap}");
            let early = sample(&Walk { exit: Some(0), ..whole }, origin, &mut never);
            assert!((early - 0.2).abs().max().double_value(&[]) < 0.05, "{spec:?}: blurred");
            // A real image under little noise stays nearly what it is.
            let images = Tensor::full_like(&z, 0.6);
            let origin = Origin { latents: &z, images: Some(&images) };
            let near = sample(&Walk { start: 8, ..whole }, origin, &mut never);
            assert!((near - 0.6).abs().max().double_value(&[]) < 0.15, "{spec:?}");
        }
    }

    #[test]
    fn bytes_truncate_as_published() {
        let x = Tensor::from_slice(&[-1.1, -1.0, 0.0, 0.999, 1.0, 2.0]);
        let bytes: Vec<u8> = to_bytes(&x).try_into().unwrap();
        assert_eq!(bytes, [0, 0, 128, 255, 255, 255]);
    }

    #[test]
    fn impossible_samplers_are_refused_by_key() {
        let fine = edm(Solver::Heun, 18);
        assert!(check(&fine, (0.0, f64::INFINITY)).is_ok());
        let cases = [
            (SamplerSpec { steps: 0, ..fine.clone() }, "steps"),
            (SamplerSpec { sigma_min: 0.0, ..fine.clone() }, "sigma_min"),
            (SamplerSpec { sigma_max: 0.001, ..fine.clone() }, "sigma_max"),
            (SamplerSpec { sigma_max: f64::NAN, ..fine.clone() }, "sigma_max"),
            (SamplerSpec { rho: 0.0, ..fine.clone() }, "rho"),
            (SamplerSpec { churn: -1.0, ..fine.clone() }, "churn"),
            (SamplerSpec { alpha: 0.0, ..fine.clone() }, "alpha"),
            (SamplerSpec { solver: Solver::Ddpm, steps: 1001, ..fine.clone() }, "1 to 1000"),
        ];
        for (spec, key) in cases {
            let message = check(&spec, (0.0, f64::INFINITY)).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
        let message = check(&fine, (0.02, 100.0)).unwrap_err().to_string();
        assert!(message.contains("0.02 to 100"), "{message}");
    }
}
