//! Re-checks an evaluation from its saved adversarial images, by forward passes alone. Nothing in
//! the records is believed: labels and hashes come from the data, predictions and norms are
//! computed anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{
    aim::Aim,
    journal::{image_files, read_images},
    result::{Evaluation, Record},
    spec::EvaluateSpec,
};
use crate::{
    attack::geometry,
    data::Dataset,
    error::{Error, Result},
    net::Classifier,
    units::Tally,
};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Breaks that were claimed.
    pub claimed: u64,
    /// Breaks that hold.
    pub held: u64,
    /// Images that are right when clean, counted anew.
    pub clean: Tally,
    /// At most so many are robust: right when clean, and no break holds.
    pub robust: Tally,
    /// What does not hold, one sentence each, naming the example.
    pub problems: Vec<String>,
}

/// How far a norm may exceed ε: rounding of a float32 image (reference mode does not enforce it).
const SLACK: f64 = 1e-6;

/// Checks `evaluation`: that its records are those of `data`, that `model` predicts what they say,
/// and that each break that they claim holds: an image is saved, within norm and box, and
/// misclassified (or, where `aim` is given, taken for the target). `work` is the folder that
/// [`super::run`] had.
///
/// # Errors
/// If the saved images cannot be read.
pub fn verify(
    (spec, aim): (&EvaluateSpec, Option<Aim>),
    evaluation: &Evaluation,
    model: &dyn Classifier,
    data: &Dataset,
    (work, device): (&Path, Device),
) -> Result<Verification> {
    let _guard = tch::no_grad_guard();
    let mut check = Check { spec, model, data, device, targets: Vec::new(), problems: Vec::new() };
    let right = check.clean(&evaluation.records, aim)?;
    let broken = check.breaks(evaluation, work)?;
    let total = data.len() as u64;
    let count = |correct: usize| Tally { correct: correct as u64, total };
    let robust = (0..data.len()).filter(|row| right[*row] && !broken.contains(row)).count();
    let claimed =
        evaluation.records.iter().filter(|record| record.broken_by.is_some()).count() as u64;
    let found = Verification {
        claimed,
        held: broken.len() as u64,
        clean: count(right.iter().filter(|right| **right).count()),
        robust: count(robust),
        problems: check.problems,
    };
    Ok(found.compared(evaluation))
}

impl Verification {
    /// Adds what the counts of `evaluation` say otherwise.
    fn compared(mut self, evaluation: &Evaluation) -> Self {
        for (what, claimed, found) in
            [("clean", evaluation.clean, self.clean), ("robust", evaluation.robust, self.robust)]
        {
            if claimed != found {
                self.problems.push(format!(
                    "{what}: {} of {} are claimed, {} of {} are found",
                    claimed.correct, claimed.total, found.correct, found.total
                ));
            }
        }
        for level in &evaluation.curve {
            let robust = evaluation.records.iter().filter(|r| r.robust_at(level.epsilon)).count();
            if robust as u64 != level.robust.correct {
                self.problems.push(format!(
                    "robust at {}: {} are claimed, the records say {robust}",
                    level.epsilon, level.robust.correct
                ));
            }
        }
        self
    }
}

struct Check<'a> {
    spec: &'a EvaluateSpec,
    model: &'a dyn Classifier,
    data: &'a Dataset,
    device: Device,
    /// The class each row had to be driven to; empty when any wrong one will do.
    targets: Vec<i64>,
    problems: Vec<String>,
}

impl Check<'_> {
    /// Compares records with the data and with the model's answers on it: who is right.
    fn clean(&mut self, records: &[Record], aim: Option<Aim>) -> Result<Vec<bool>> {
        if records.len() != self.data.len() {
            return Err(Error::input(format!(
                "the records are of {} images, the data holds {}",
                records.len(),
                self.data.len()
            )));
        }
        let rows: Vec<usize> = (0..self.data.len()).collect();
        let mut right = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(self.spec.batch.max(1) as usize) {
            let logits = self.model.logits(&self.data.images(chunk, self.device));
            let labels = self.data.targets(chunk, self.device);
            self.targets.extend(aim.map(|aim| aim.of(&labels, &logits)).unwrap_or_default());
            let said: Vec<i64> = Vec::try_from(logits.argmax(1, false)).expect("one a row");
            for (&row, said) in chunk.iter().zip(said) {
                let (record, label) = (&records[row], i64::from(self.data.labels[row]));
                right.push(said == label);
                for (what, same) in [
                    ("its index", record.index == self.spec.data.skip + row as u64),
                    ("the image", record.image_hash == self.data.image_hash(row)),
                    ("the label", record.label == label),
                    ("the clean prediction", record.clean_prediction == said),
                ] {
                    if !same {
                        let index = self.spec.data.skip + row as u64;
                        self.problems.push(format!("example {index}: {what} is another"));
                    }
                }
            }
        }
        Ok(right)
    }

    /// The rows whose claimed breaks hold. Files of images are read one at a time.
    fn breaks(&mut self, evaluation: &Evaluation, work: &Path) -> Result<BTreeSet<usize>> {
        let mut claims: BTreeMap<u64, &Record> = evaluation
            .records
            .iter()
            .filter(|record| record.broken_by.is_some())
            .map(|record| (record.index, record))
            .collect();
        let mut held = BTreeSet::new();
        for path in image_files(work)? {
            let (indices, images) = read_images(&path)?;
            for (place, index) in indices.iter().enumerate() {
                // The first file that holds an example has the last word on it.
                let Some(record) = claims.remove(index) else { continue };
                match self.wrong(record, &images.get(place as i64)) {
                    Ok(row) => drop(held.insert(row)),
                    Err(what) => self.problems.push(format!("example {index}: {what}")),
                }
            }
        }
        let unproven =
            claims.keys().map(|index| format!("example {index}: no adversarial image is saved"));
        self.problems.extend(unproven);
        Ok(held)
    }

    /// The row of a break that holds, or what is wrong with it.
    fn wrong(&self, record: &Record, image: &Tensor) -> std::result::Result<usize, String> {
        let row = record.index.checked_sub(self.spec.data.skip).map(|row| row as usize);
        let Some(row) = row.filter(|&row| row < self.data.len()) else {
            return Err("is not among the images".to_owned());
        };
        let image = image.unsqueeze(0).to_device(self.device);
        let clean = self.data.images(&[row], self.device);
        if image.size() != clean.size() {
            return Err(format!("the saved image has shape {:?}", image.size()));
        }
        let (low, high) = (image.min().double_value(&[]), image.max().double_value(&[]));
        if !(low >= 0.0 && high <= 1.0) {
            return Err(format!("its pixels reach from {low} to {high}, outside [0, 1]"));
        }
        let delta = image.to_kind(Kind::Double) - clean.to_kind(Kind::Double);
        let size = geometry::norm(&delta, self.spec.threat.norm).double_value(&[0]);
        // A record may claim less than the bound: that of a curve does.
        let claimed = record.norm.unwrap_or(f64::INFINITY);
        let bound = claimed.min(self.spec.threat.epsilon.value());
        if size.is_nan() || size > bound * (1.0 + SLACK) {
            return Err(format!("the perturbation has norm {size}, above {bound}"));
        }
        let said = self.model.logits(&image).argmax(1, false).int64_value(&[0]);
        match self.targets.get(row) {
            Some(target) if said != *target => {
                Err(format!("the image is taken for class {said}, not for the target {target}"))
            }
            _ if said == i64::from(self.data.labels[row]) => {
                Err("the image is classified rightly".to_owned())
            }
            _ => Ok(row),
        }
    }
}
