//! Where and by what protocol an evaluation happens, beside what it measures.

use std::{path::Path, sync::Mutex};

use tch::Device;

use super::{aim::Aim, spec::EvaluateSpec};
use crate::{data::Dataset, net::Classifier, progress::Progress, units::Epsilon};

/// Where an evaluation happens.
pub struct Place<'a> {
    /// Where the model is.
    pub device: Device,
    /// Where the state to resume from is kept, and adversarial images.
    pub work: &'a Path,
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// What names the model, so that a resumed run continues with the same: a digest of its file.
    pub model_identity: &'a str,
    /// Whether adversarial images are kept, for `gauntlet verify`.
    pub save_images: bool,
    /// Without `save_images`: how many adversarial images are kept all the same, of the first that
    /// are found, to be shown.
    pub samples: usize,
    /// Further handles to the model: each lets one more thread attack batches of its own. Results
    /// do not depend on how many there are.
    pub helpers: Mutex<Vec<Box<dyn Classifier + Send>>>,
}

/// How examples meet attacks, where it differs from AutoAttack's cascade at one bound.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Protocol {
    /// Every attack meets every example that is right when clean: `robust` counts each attack
    /// alone, the worst case stands beside it.
    pub individual: bool,
    /// The class that every attack aims at; only reaching it counts as a break.
    pub aim: Option<Aim>,
    /// More bounds, for a curve.
    pub curve: Vec<Epsilon>,
}

impl Protocol {
    /// All bounds, the largest first, each once.
    pub(crate) fn epsilons(&self, spec: &EvaluateSpec) -> Vec<Epsilon> {
        let mut all = self.curve.clone();
        all.push(spec.threat.epsilon);
        all.sort_by(|a, b| b.value().total_cmp(&a.value()));
        all.dedup();
        all
    }
}

/// What workers share: nothing in it belongs to one thread.
#[derive(Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) spec: &'a EvaluateSpec,
    pub(crate) data: &'a Dataset,
    pub(crate) place: &'a Place<'a>,
}

impl Bench<'_> {
    /// The index in the split of the `row`-th image.
    pub(crate) fn index(&self, row: usize) -> u64 {
        self.spec.data.skip + row as u64
    }
}
