//! Re-checks an evaluation from its saved adversarial images, by forward passes alone.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{
    journal::saved_images,
    result::{Evaluation, Record},
    spec::EvaluateSpec,
};
use crate::{attack::geometry, data::Dataset, error::Result, net::Classifier};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Breaks that were claimed.
    pub claimed: u64,
    /// Breaks that hold.
    pub held: u64,
    /// What does not hold, one sentence each, naming the example.
    pub problems: Vec<String>,
}

/// How far a norm may exceed ε: rounding of a float32 image (reference mode does not enforce it).
const SLACK: f64 = 1e-6;

/// Checks that each break that `evaluation` claims holds: an image is saved, within norm and box,
/// and misclassified. `work` is the folder that [`super::run`] had.
///
/// # Errors
/// If the saved images cannot be read.
pub fn verify(
    spec: &EvaluateSpec,
    evaluation: &Evaluation,
    model: &dyn Classifier,
    data: &Dataset,
    (work, device): (&Path, Device),
) -> Result<Verification> {
    let images: BTreeMap<u64, Tensor> = {
        let mut first = BTreeMap::new();
        // The first attack that broke an example has the record.
        for (index, image) in saved_images(work)? {
            first.entry(index).or_insert(image);
        }
        first
    };
    let mut found = Verification { claimed: 0, held: 0, problems: Vec::new() };
    let claims: Vec<&Record> =
        evaluation.records.iter().filter(|record| record.broken_by.is_some()).collect();
    for chunk in claims.chunks(spec.batch.max(1) as usize) {
        found.claimed += chunk.len() as u64;
        for problem in check(spec, model, data, (chunk, &images, device)) {
            match problem {
                Some(problem) => found.problems.push(problem),
                None => found.held += 1,
            }
        }
    }
    Ok(found)
}

/// For each claim what is wrong with it, or `None`.
fn check(
    spec: &EvaluateSpec,
    model: &dyn Classifier,
    data: &Dataset,
    (claims, images, device): (&[&Record], &BTreeMap<u64, Tensor>, Device),
) -> Vec<Option<String>> {
    let _guard = tch::no_grad_guard();
    claims
        .iter()
        .map(|record| {
            let problem = |what: String| Some(format!("example {}: {what}", record.index));
            let Some(image) = images.get(&record.index) else {
                return problem("no adversarial image is saved".to_owned());
            };
            let row = record.index.checked_sub(spec.data.skip).map(|row| row as usize);
            let Some(row) = row.filter(|&row| row < data.len()) else {
                return problem("is not among the images".to_owned());
            };
            if data.image_hash(row) != record.image_hash {
                return problem("the data holds another image than was attacked".to_owned());
            }
            let image = image.unsqueeze(0).to_device(device);
            let clean = data.images(&[row], device);
            if image.size() != clean.size() {
                return problem(format!("the saved image has shape {:?}", image.size()));
            }
            let (low, high) = (image.min().double_value(&[]), image.max().double_value(&[]));
            if !(low >= 0.0 && high <= 1.0) {
                return problem(format!("its pixels reach from {low} to {high}, outside [0, 1]"));
            }
            let delta = image.to_kind(Kind::Double) - clean.to_kind(Kind::Double);
            let size = geometry::norm(&delta, spec.threat.norm).double_value(&[0]);
            let epsilon = spec.threat.epsilon.value();
            if size > epsilon * (1.0 + SLACK) {
                return problem(format!("the perturbation has norm {size}, above {epsilon}"));
            }
            let prediction = model.logits(&image).argmax(1, false).int64_value(&[0]);
            if prediction == record.label {
                return problem("the image is classified rightly".to_owned());
            }
            None
        })
        .collect()
}
