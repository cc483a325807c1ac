//! One small step before all others: does the model take these images, and does a gradient of its
//! logits come back to them?

use std::{
    any::Any,
    cell::Cell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use tch::{Device, Kind, Tensor};

use super::spec::{AttackName, EvaluateSpec};
use crate::{
    data::Dataset,
    error::{Error, Result},
    net::Classifier,
};

/// Runs `model` forwards and backwards on the first images of `data`: two, or one where `batch`
/// says so. Returns whether a gradient came back.
///
/// # Errors
/// If the model does not take them.
pub fn probe(
    model: &dyn Classifier,
    data: &Dataset,
    device: Device,
    batch: Option<u64>,
) -> Result<bool> {
    let most = batch.unwrap_or(2).min(2) as usize;
    let rows: Vec<usize> = (0..data.len().min(most)).collect();
    let images = data.images(&rows, device);
    match step(model, &images) {
        Ok(reached) => Ok(reached),
        Err(why) if rows.len() > 1 && step(model, &images.narrow(0, 0, 1)).is_ok() => {
            Err(Error::input(format!(
                "the model takes one image at a time and fails for two ({why}): save it with a free \
                 batch dimension, or pass --batch-size 1"
            )))
        }
        Err(why) => Err(Error::input(format!(
            "the model does not take these images, {:?} (count, channels, height, width): {why}",
            images.size()
        ))),
    }
}

/// Refuses attacks that follow gradients where none come back.
///
/// # Errors
/// As said.
pub(crate) fn blind(spec: &EvaluateSpec, reached: bool) -> Result<()> {
    let follows = spec.attacks.iter().find(|attack| attack.name != AttackName::Square);
    match follows {
        Some(attack) if !reached => Err(Error::input(format!(
            "no gradient of the logits comes back to the images (the model detaches them, or was \
             saved without gradients), and {} follows it; --suite custom --attacks square:5000 \
             needs none, but gives no more than an upper bound",
            attack.name
        ))),
        _ => Ok(()),
    }
}

fn step(model: &dyn Classifier, images: &Tensor) -> std::result::Result<bool, String> {
    quietly(|| {
        let leaf = images.detach().set_requires_grad(true);
        let sum = tch::with_grad(|| model.logits(&leaf).sum(Kind::Float));
        if !sum.requires_grad() {
            return false;
        }
        // Fails where the graph does not reach the images.
        let gradient = Tensor::f_run_backward(&[sum], &[&leaf], false, false);
        gradient.is_ok_and(|gradient| gradient[0].defined())
    })
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or why it panicked, in libtorch's words and without a word on the terminal.
fn quietly<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    result.map_err(|payload| reason(&*payload))
}

fn reason(payload: &(dyn Any + Send)) -> String {
    if let Some(error) = payload.downcast_ref::<Error>() {
        return error.to_string();
    }
    let text = payload.downcast_ref::<String>().map_or("no reason given", String::as_str);
    let text = text.rsplit_once("Torch(\"").map_or(text, |(_, said)| said);
    text.split("\\n").next().unwrap_or(text).to_owned()
}
