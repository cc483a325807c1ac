//! What a training must fulfil before it begins.

use crate::{
    data::Dataset,
    diffusion::{augment, spec::FitSpec},
    error::{Error, Result},
    net::spec::Precision,
};

/// Refuses what cannot be trained; the message names the key.
///
/// # Errors
/// If a number is impossible, or classes or resolution differ between data and network.
pub fn check(spec: &FitSpec, data: &Dataset) -> Result<()> {
    let wrong = |what: String| Err(Error::input(format!("fit: {what}")));
    let network = &spec.network;
    let (height, width) = data.size;
    if [height as i64, width as i64] != [network.resolution; 2] {
        return wrong(format!(
            "network.resolution is {}, but images of {} are {height}x{width}",
            network.resolution, data.name
        ));
    }
    if network.classes != 0 && network.classes != data.classes.len() as i64 {
        return wrong(format!(
            "network.classes is {}, but {} has {} classes: expected that or 0 (unconditional)",
            network.classes,
            data.name,
            data.classes.len()
        ));
    }
    if data.is_empty() {
        return wrong(format!("{} has no images", data.name));
    }
    if spec.images == 0 || spec.batch == 0 {
        return wrong(format!(
            "images is {}, batch {}: expected at least 1",
            spec.images, spec.batch
        ));
    }
    if spec.precision == Precision::Fp16 {
        return wrong("precision is fp16: expected fp32 or bf16".to_owned());
    }
    if spec.snapshot > 0 && (spec.snapshot_images < 2 || spec.snapshot_steps == 0) {
        return wrong(format!(
            "snapshot_images is {}, snapshot_steps {}: expected at least 2 and 1",
            spec.snapshot_images, spec.snapshot_steps
        ));
    }
    if spec.augment > 0.0 && network.augment_dim != augment::LABELS {
        return wrong(format!(
            "augment is {}, but network.augment_dim {}: expected {}, EDM's labels",
            spec.augment,
            network.augment_dim,
            augment::LABELS
        ));
    }
    for (key, value, from, to) in [
        ("learning_rate", spec.learning_rate, f64::MIN_POSITIVE, 1.0),
        ("dropout", spec.dropout, 0.0, 0.99),
        ("augment", spec.augment, 0.0, 1.0),
        ("p_std", spec.p_std, 0.0, 10.0),
        ("p_mean", spec.p_mean, -20.0, 20.0),
        ("ema_ramp", spec.ema_ramp, 0.0, f64::MAX),
    ] {
        if !(from..=to).contains(&value) {
            return wrong(format!("{key} is {value}: expected {from} to {to}"));
        }
    }
    Ok(())
}
