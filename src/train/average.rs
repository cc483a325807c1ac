//! The moving average of the weights, which is what validation and evaluation see.

use crate::train::{schedule::Pace, spec::TrainSpec};

/// How much of the average is kept in step `step`, counted from 0: nothing before the warm-up is
/// over, then ever more up to `tau`.
pub fn decay(spec: &TrainSpec, pace: Pace, step: u64) -> f64 {
    let warmup = spec.average_warmup * spec.epochs as f64 * pace.counted as f64;
    decay_after(spec.tau, warmup, pace.counted_after(step))
}

/// The same for the `step`-th step, counted from 1, with `warmup` in steps.
pub fn decay_after(tau: f64, warmup: f64, step: u64) -> f64 {
    let since = step as f64 - warmup;
    if since < 0.0 { 0.0 } else { tau.min((1.0 + since) / (10.0 + since)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::golden;

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn decay_matches_the_official_average() {
        let golden = &golden::sidecar()["ema"];
        let number = |key: &str| golden[key].as_f64().unwrap();
        let decays = golden["decay"].as_array().unwrap();
        assert!(decays.len() > 100);
        for (index, expected) in decays.iter().enumerate() {
            let ours = decay_after(number("tau"), number("warmup"), index as u64 + 1);
            assert!((ours - expected.as_f64().unwrap()).abs() < 1e-15, "step {}", index + 1);
        }
    }

    #[test]
    fn no_average_is_the_weights_themselves() {
        let spec = TrainSpec { tau: 0.0, ..golden::spec() };
        assert!((0..1000).all(|step| decay(&spec, Pace::of(80, 8), step) == 0.0));
    }
}
