//! What a sampler must fulfil before it draws.

use crate::{
    diffusion::{
        ancestral,
        spec::{Policy, PolicyKind, SamplerSpec},
    },
    error::{Error, Result},
};

/// The most steps anybody means.
const MOST_STEPS: u64 = 100_000;

/// Refuses a sampler that cannot work on a network that supports noise levels `supported`.
///
/// # Errors
/// If a number is impossible or outside what the network supports; the message names its key.
pub fn check(spec: &SamplerSpec, supported: (f64, f64)) -> Result<()> {
    let wrong = |key: &str, value: f64, expected: &str| {
        Err(Error::input(format!("sampler.{key}: is {value}, expected {expected}")))
    };
    let (lowest, highest) = supported;
    let finite = |value: f64| value.is_finite() && value >= 0.0;
    let most = if spec.solver.is_discrete() { ancestral::LENGTH } else { MOST_STEPS };
    if spec.steps == 0 || spec.steps > most {
        return wrong("steps", spec.steps as f64, &format!("1 to {most}"));
    }
    for (key, value) in [("alpha", spec.alpha), ("eta", spec.eta)] {
        if !(0.0..=1.0).contains(&value) || (key == "alpha" && value == 0.0) {
            return wrong(key, value, "a number above 0, at most 1");
        }
    }
    if spec.solver.is_discrete() {
        // Their noise levels are those of the process that the network supports.
        return Ok(());
    }
    if !finite(spec.sigma_min) || spec.sigma_min == 0.0 {
        return wrong("sigma_min", spec.sigma_min, "a positive noise level");
    }
    if !finite(spec.sigma_max) || spec.sigma_max <= spec.sigma_min {
        let above = format!("a noise level above sigma_min, {}", spec.sigma_min);
        return wrong("sigma_max", spec.sigma_max, &above);
    }
    let range = format!("what the network supports, {lowest} to {highest}");
    // Planning knows the network's range to a few digits only.
    if spec.sigma_min < lowest * (1.0 - 1e-4) {
        return wrong("sigma_min", spec.sigma_min, &range);
    }
    if spec.sigma_max > highest * (1.0 + 1e-4) {
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

/// Refuses a policy whose numbers lie outside the sampler's schedule.
///
/// # Errors
/// The message names the key.
pub fn check_policy(policy: &Policy, spec: &SamplerSpec) -> Result<()> {
    let wrong = |key: &str, value: String, expected: String| {
        Err(Error::input(format!("policy.{key}: is {value}, expected {expected}")))
    };
    if policy.min == 0 || policy.min > policy.max {
        let (min, max) = (policy.min, policy.max);
        return wrong("min", min.to_string(), format!("1 to max, which is {max}"));
    }
    if policy.max > spec.steps {
        let expected = format!("at most the sampler's steps, {}", spec.steps);
        return wrong("max", policy.max.to_string(), expected);
    }
    if !(0.0..=1.0).contains(&policy.mirror) {
        return wrong("mirror", policy.mirror.to_string(), "a probability".to_owned());
    }
    if policy.kind == PolicyKind::Uniform && policy.mirror > 0.0 {
        let expected = "0, or kind: mirrored".to_owned();
        return wrong("mirror", policy.mirror.to_string(), expected);
    }
    Ok(())
}
