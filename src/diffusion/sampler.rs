//! EDM's samplers (Karras et al. 2022, algorithms 1 and 2): a float64 state around the network.

use tch::{Device, Kind, Tensor};

use crate::{
    diffusion::spec::{SamplerSpec, Solver},
    error::{Error, Result},
    net::Denoiser,
    rng::Stream,
};

/// The most steps anybody means.
const MOST_STEPS: u64 = 100_000;

/// Draws images from `latents`.
///
/// `latents` `[b,c,h,w]` are standard normal; `label` is one-hot `[b,k]`. `noise` gives standard
/// normal `[b,c,h,w]` for a step, counted from 0, and is asked only where churn adds noise.
/// Returns `[b,c,h,w]`, `Double`, pixels around `[-1, 1]`.
///
/// Noise levels that the network does not support are clamped to those it does; call
/// [`check`] first to refuse them instead.
pub fn sample(
    spec: &SamplerSpec,
    denoiser: &dyn Denoiser,
    latents: &Tensor,
    label: Option<&Tensor>,
    noise: &mut dyn FnMut(u64) -> Tensor,
) -> Tensor {
    let _guard = tch::no_grad_guard();
    let levels = levels(spec, denoiser);
    let mut x = latents.to_kind(Kind::Double) * levels[0];
    for (step, pair) in levels.windows(2).enumerate() {
        let (sigma, sigma_next) = (pair[0], pair[1]);
        let sigma_hat = denoiser.round_sigma(sigma * (1.0 + gamma(spec, sigma)));
        if sigma_hat > sigma {
            let added = (sigma_hat.powi(2) - sigma.powi(2)).sqrt() * spec.churn_noise;
            x += noise(step as u64) * added;
        }
        x = advance(spec.solver, denoiser, x, (sigma_hat, sigma_next), label);
    }
    x
}

/// One Euler or Heun step of the probability-flow ODE from `sigma.0` to `sigma.1`. The step that
/// ends at 0 is Euler's, since the slope there is not defined.
///
/// Source: Karras et al. 2022, algorithm 2, lines 7-11.
fn advance(
    solver: Solver,
    denoiser: &dyn Denoiser,
    x: Tensor,
    (sigma, sigma_next): (f64, f64),
    label: Option<&Tensor>,
) -> Tensor {
    let h = sigma_next - sigma;
    let mut slope = slope(denoiser, &x, sigma, label);
    if solver == Solver::Heun && sigma_next > 0.0 {
        let reached = &x + &slope * h;
        slope += self::slope(denoiser, &reached, sigma_next, label);
        slope *= 0.5;
    }
    slope *= h;
    slope += x;
    slope
}

/// dx/dσ at noise level `sigma`, `Double`.
fn slope(denoiser: &dyn Denoiser, x: &Tensor, sigma: f64, label: Option<&Tensor>) -> Tensor {
    let level = Tensor::from_slice(&[sigma]).to_device(x.device());
    // Ours from here on, so that the arithmetic may overwrite it.
    let mut slope = x - denoiser.denoise(x, &level, label);
    slope /= sigma;
    slope
}

/// How much churn raises the noise level `sigma`, relative to it.
fn gamma(spec: &SamplerSpec, sigma: f64) -> f64 {
    let inside = sigma >= spec.churn_min && sigma <= spec.churn_max.unwrap_or(f64::INFINITY);
    let full = (spec.churn / spec.steps as f64).min(std::f64::consts::SQRT_2 - 1.0);
    if inside { full } else { 0.0 }
}

/// The noise levels that a sampler passes, highest first, 0 at the end: `steps + 1` numbers.
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

/// How often one image passes through the network.
pub fn evaluations(spec: &SamplerSpec) -> u64 {
    match spec.solver {
        Solver::Heun => 2 * spec.steps - 1,
        Solver::Euler => spec.steps,
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

/// Refuses a sampler that cannot work on a network that supports noise levels `supported`.
///
/// # Errors
/// If a number is impossible or outside what the network supports; the message names its key.
pub fn check(spec: &SamplerSpec, supported: (f64, f64)) -> Result<()> {
    let wrong = |key: &str, value: f64, expected: &str| {
        Err(Error::input(format!("sampler: {key} is {value}: expected {expected}")))
    };
    let (lowest, highest) = supported;
    let finite = |value: f64| value.is_finite() && value >= 0.0;
    if spec.steps == 0 || spec.steps > MOST_STEPS {
        return wrong("steps", spec.steps as f64, &format!("1 to {MOST_STEPS}"));
    }
    if !finite(spec.sigma_min) || spec.sigma_min == 0.0 {
        return wrong("sigma_min", spec.sigma_min, "a positive noise level");
    }
    if !finite(spec.sigma_max) || spec.sigma_max <= spec.sigma_min {
        let above = format!("a noise level above sigma_min, {}", spec.sigma_min);
        return wrong("sigma_max", spec.sigma_max, &above);
    }
    let range = format!("what the network supports, {lowest} to {highest}");
    if spec.sigma_min < lowest {
        return wrong("sigma_min", spec.sigma_min, &range);
    }
    if spec.sigma_max > highest {
        return wrong("sigma_max", spec.sigma_max, &range);
    }
    if !finite(spec.rho) || spec.rho == 0.0 {
        return wrong("rho", spec.rho, "a positive number (EDM: 7)");
    }
    for (key, value) in [
        ("churn", spec.churn),
        ("churn_min", spec.churn_min),
        ("churn_max", spec.churn_max.unwrap_or(0.0)),
        ("churn_noise", spec.churn_noise),
    ] {
        if !finite(value) {
            return wrong(key, value, "a number of at least 0");
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::diffusion::gaussian::Gaussian;

    pub(in crate::diffusion) fn edm(solver: Solver, steps: u64) -> SamplerSpec {
        SamplerSpec {
            solver,
            steps,
            sigma_min: 0.002,
            sigma_max: 80.0,
            rho: 7.0,
            churn: 0.0,
            churn_min: 0.0,
            churn_max: None,
            churn_noise: 1.0,
        }
    }

    fn never(_: u64) -> Tensor {
        unreachable!("a deterministic sampler asks for no noise")
    }

    fn error(solver: Solver, steps: u64) -> f64 {
        let data = Gaussian { mean: 0.2, deviation: 0.5, classes: 0 };
        let z = latents(3, &[0, 1], data.shape(), Device::Cpu);
        let drawn = sample(&edm(solver, steps), &data, &z, None, &mut never);
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
        let drawn = sample(&spec, &data, &z, None, &mut |step| {
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
            sample(&edm(Solver::Heun, 8), &data, &z, None, &mut never)
        };
        assert_eq!(draw(&[4, 9]).get(1), draw(&[9]).get(0));
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
        ];
        for (spec, key) in cases {
            let message = check(&spec, (0.0, f64::INFINITY)).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
        let message = check(&fine, (0.02, 100.0)).unwrap_err().to_string();
        assert!(message.contains("0.02 to 100"), "{message}");
    }
}
