//! What a recipe asks of images and devices, looked at before anything runs.

use tch::Device;

use super::spec::{Loss, TrainSpec};
use crate::{
    data::{Dataset, Soft},
    error::{Error, Result},
};

/// Whether images fit the recipe.
pub(super) fn data(spec: &TrainSpec, real: &Dataset, generated: &[&Dataset]) -> Result<()> {
    let classes = spec.network.classes;
    if real.classes.len() as i64 > classes {
        let count = real.classes.len();
        return Err(Error::input(format!(
            "{} has {count} classes, the network {classes}: state `classes: {count}`",
            real.name
        )));
    }
    if spec.validation >= real.len() as u64 {
        return Err(Error::input(format!(
            "train.validation: {} held-out images leave none of the {} of {} to train on",
            spec.validation,
            real.len(),
            real.name
        )));
    }
    let available: usize = generated.iter().map(|part| part.len()).sum();
    if spec.live.is_none() && spec.generated > available as u64 {
        return Err(Error::input(format!(
            "train.generated: {} images are asked for, the generated set holds {available}",
            spec.generated
        )));
    }
    for set in generated.iter().copied().chain([real]) {
        let Some(width) = set.soft.as_ref().map(Soft::classes) else { continue };
        if spec.loss == Loss::Mart {
            return Err(Error::input(format!(
                "train.loss: mart takes one label of each image, and {} has soft ones: use trades, \
                 pgd-at, score or standard",
                set.name
            )));
        }
        if width as i64 != classes {
            return Err(Error::input(format!(
                "{} has soft labels over {width} classes, the network knows {classes}",
                set.name
            )));
        }
    }
    for part in generated {
        let worst = part.labels.iter().max().map_or(0, |&label| i64::from(label));
        if part.size != real.size || worst >= classes {
            return Err(Error::input(format!(
                "generated set {}: images of {:?} pixels and labels up to {worst} do not go with {} \
                 ({:?} pixels, {classes} classes)",
                part.name, part.size, real.name, real.size
            )));
        }
    }
    Ok(())
}

/// Batch statistics must not depend on how many devices there are.
pub(super) fn devices(spec: &TrainSpec, devices: &[Device]) -> Result<()> {
    let images = if spec.consistency > 0.0 { 2 * spec.batch } else { spec.batch };
    let parts = spec.virtual_batch.map_or(1, |size| images.div_ceil(size));
    if (devices.len() as u64) <= parts && !devices.is_empty() {
        return Ok(());
    }
    let (count, each) = (devices.len(), images / (devices.len() as u64).max(1));
    Err(Error::input(format!(
        "train.virtual_batch: {count} devices share a batch of {images} in {parts} parts; expected one \
         part or more for each, such as train.virtual_batch={} (the images that share batch \
         statistics, so that results do not depend on the number of devices)",
        each.max(1)
    )))
}
