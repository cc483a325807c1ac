//! The clean pass: who is right without an attack, and what the model's answers give away.

use tch::Tensor;

use super::{
    aim::Aim,
    batch::{floats, seed_model},
    checks,
    place::Bench,
    result::Record,
    spec::EvaluateSpec,
};
use crate::{
    attack::loss::margin,
    data::Dataset,
    error::{Error, Result},
    net::Classifier,
};

/// What the clean pass found.
pub(crate) struct Clean {
    pub(crate) records: Vec<Record>,
    /// The class to drive each example to; empty when none is.
    pub(crate) aims: Vec<i64>,
    pub(crate) warnings: Vec<String>,
}

/// Passes all images through `model` once. Cheap next to any attack, so it is done anew on resume.
pub(crate) fn pass(bench: &Bench, aim: Option<Aim>, model: &dyn Classifier) -> Result<Clean> {
    let _guard = tch::no_grad_guard();
    let (data, progress) = (bench.data, bench.place.progress);
    let mut found = Clean { records: Vec::new(), aims: Vec::new(), warnings: Vec::new() };
    let rows: Vec<usize> = (0..data.len()).collect();
    progress.begin("clean", rows.len() as u64, "image");
    for chunk in rows.chunks(bench.spec.batch as usize) {
        if progress.stopping() {
            return Err(Error::Interrupted);
        }
        let images = data.images(chunk, bench.place.device);
        let labels = data.targets(chunk, bench.place.device);
        seed_model(bench, (255, 255), bench.index(chunk[0]));
        let logits = model.logits(&images);
        check_shape(&logits, chunk.len(), model)?;
        let margins = floats(&margin(&logits, &labels));
        // A row with an infinite logit may still have a finite margin.
        let whole = floats(&logits.isfinite().all_dim(1, false));
        if let Some(bad) = whole.iter().position(|whole| *whole == 0.0) {
            return Err(Error::Numerics(format!(
                "the model's logits for example {} are not finite on the clean image; check the \
                 weights and the input normalisation",
                bench.index(chunk[bad])
            )));
        }
        if chunk[0] == 0 {
            found.warnings.extend(checks::first_batch(
                bench.spec,
                model,
                (&images, &labels),
                &logits,
            ));
        }
        let predictions: Vec<i64> =
            Vec::try_from(logits.argmax(1, false)).expect("a class for each row");
        found.aims.extend(aim.map(|aim| aim.of(&labels, &logits)).unwrap_or_default());
        for (i, &row) in chunk.iter().enumerate() {
            found.records.push(record(bench, row, predictions[i], margins[i]));
        }
        progress.at(found.records.len() as u64, "");
    }
    found.warnings.extend(checks::labels(&found.records, model.classes()));
    Ok(found)
}

/// Labels and targets must be classes of the model.
pub(crate) fn check_labels(
    (spec, data): (&EvaluateSpec, &Dataset),
    aim: Option<Aim>,
    model: &dyn Classifier,
) -> Result<()> {
    let classes = model.classes();
    let wrong = |label: &u16| i64::from(*label) >= classes;
    if let Some(row) = data.labels.iter().position(wrong) {
        let count = data.labels.iter().filter(|label| wrong(label)).count();
        return Err(Error::input(format!(
            "example {} has label {}, but the model has only the classes 0 to {} ({count} of {} \
             labels are out of range, labels up to {}): is this the model's data set?",
            spec.data.skip + row as u64,
            data.labels[row],
            classes - 1,
            data.len(),
            data.labels.iter().max().copied().unwrap_or(0)
        )));
    }
    match aim {
        Some(Aim::Class(class)) if class >= classes => Err(Error::input(format!(
            "--target {class}: the model has only the classes 0 to {}",
            classes - 1
        ))),
        _ => Ok(()),
    }
}

fn check_shape(logits: &Tensor, count: usize, model: &dyn Classifier) -> Result<()> {
    let wanted = [count as i64, model.classes()];
    if logits.size() == wanted {
        return Ok(());
    }
    Err(Error::Numerics(format!(
        "the model gives {:?} numbers for a batch of {count}; expected logits {wanted:?}",
        logits.size()
    )))
}

fn record(bench: &Bench, row: usize, prediction: i64, margin: f64) -> Record {
    Record {
        index: bench.index(row),
        image_hash: bench.data.image_hash(row),
        label: i64::from(bench.data.labels[row]),
        clean_prediction: prediction,
        clean_margin: margin,
        broken_by: None,
        restart: None,
        target: None,
        iteration: None,
        norm: None,
        adversarial_margin: None,
        forwards: 1,
        backwards: 0,
    }
}
