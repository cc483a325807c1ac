//! The plan: every cell resolved into jobs, each named by what it computes. No tensor, no YAML.

mod checks;
mod cost;
mod explain;
mod graph;
mod identity;
mod layers;
pub mod picture;
mod references;
mod specs;
mod supply;
mod survey;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    cost::{Calibration, Estimate},
    explain::{Explanation, Line, explain},
    graph::resolve,
    references::PlanReference,
    specs::sampling,
    survey::{Files, Published},
};
use crate::{
    data::{reference::Reference, spec::Source},
    diffusion::spec::{FitSpec, GenerateSpec, LabelSpec, QualitySpec},
    digest::JobId,
    error::Result,
    evaluate::spec::EvaluateSpec,
    net::architecture::Architecture,
    suite::{ci::Thresholds, report::Layout},
    threat::ThreatModel,
    train::spec::TrainSpec,
};

/// The stages in the order of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Takes a file of the user into the store.
    Import,
    /// Trains a denoiser.
    Fit,
    /// Samples a part of a generated set.
    Generate,
    /// Labels a generated set and keeps the best of it.
    Label,
    /// Judges a generated set.
    Quality,
    /// Trains a classifier.
    Train,
    /// Attacks a classifier.
    Evaluate,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 7] = [
        Self::Import,
        Self::Fit,
        Self::Generate,
        Self::Label,
        Self::Quality,
        Self::Train,
        Self::Evaluate,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Fit => "fit",
            Self::Generate => "generate",
            Self::Label => "label",
            Self::Quality => "quality",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
        }
    }

    /// Part of every job's id: raised when the stage's code gives other results for the same spec,
    /// so that old results are not taken for new ones.
    pub fn revision(self) -> u32 {
        match self {
            Self::Import | Self::Fit | Self::Generate | Self::Label | Self::Evaluate => 1,
            // Quality: the distance has a standard error. Training: where images lie class by
            // class, those held out are spread over the classes; rotations round as Pillow's do.
            Self::Quality | Self::Train => 2,
        }
    }
}

/// A file that a suite names instead of computing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportSpec {
    /// Where it lies; not part of the job's id.
    pub path: PathBuf,
    /// BLAKE3 of its content.
    pub blake3: String,
    /// The name it gets in the artifact: `denoiser.safetensors`, `images.npz`.
    pub name: String,
}

/// The last part of a path: what fits a line, and what a report may show to anyone.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// What a job does, resolved: every number that can change its result.
#[allow(clippy::large_enum_variant)] // a plan holds one for each job, most of them the large ones
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Takes a file into the store.
    Import(ImportSpec),
    /// Takes note of a generated set that stays where it lies.
    Reference(Reference),
    /// Trains a denoiser.
    Fit(FitSpec),
    /// Samples images.
    Generate(GenerateSpec),
    /// Labels and selects images.
    Label(LabelSpec),
    /// Judges images.
    Quality(QualitySpec),
    /// Trains a classifier.
    Train(TrainSpec),
    /// Attacks a classifier.
    Evaluate(EvaluateSpec),
}

impl Work {
    /// Its stage.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Import(_) | Self::Reference(_) => Stage::Import,
            Self::Fit(_) => Stage::Fit,
            Self::Generate(_) => Stage::Generate,
            Self::Label(_) => Stage::Label,
            Self::Quality(_) => Stage::Quality,
            Self::Train(_) => Stage::Train,
            Self::Evaluate(_) => Stage::Evaluate,
        }
    }

    /// A few words for people: `train wrn-28-10-swish trades linf 8/255 + 1M`.
    pub fn title(&self) -> String {
        match self {
            Self::Import(spec) => format!("import {}", file_name(&spec.path)),
            Self::Reference(set) => match set.paths.as_slice() {
                [only] => format!("refer to {}", file_name(only)),
                many => format!("refer to {} and {} more", file_name(&many[0]), many.len() - 1),
            },
            Self::Fit(spec) => format!("fit denoiser on {}", spec.data.name),
            Self::Generate(spec) => format!(
                "generate {}-{} at {} steps",
                spec.start,
                spec.start + spec.count,
                spec.sampler.steps
            ),
            Self::Label(spec) => match spec.count {
                Some(count) => format!("label, keep {count} images"),
                None => "label images".to_owned(),
            },
            Self::Quality(spec) => format!("judge {} generated images", spec.images),
            Self::Train(spec) => {
                let threat = spec.threat.map(|threat| format!(" {threat}")).unwrap_or_default();
                let generated = match spec.generated {
                    0 => String::new(),
                    count => format!(" + {count} generated"),
                };
                let loss = serde_json::to_value(spec.loss).unwrap_or_default();
                let loss = loss.as_str().unwrap_or_default();
                format!("train {} {loss}{threat}{generated}", spec.network.arch)
            }
            Self::Evaluate(spec) => format!("evaluate {} under {}", spec.suite, spec.threat),
        }
    }
}

/// What an input is to its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The denoiser that is sampled.
    Denoiser,
    /// A part of the generated set, in order.
    Generated,
    /// The classifier that is attacked.
    Classifier,
    /// The classifier that labels.
    Labeller,
    /// The Inception network whose features judge a set.
    Inception,
    /// Statistics of real images.
    Reference,
}

impl Role {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Denoiser => "denoiser",
            Self::Generated => "generated",
            Self::Classifier => "classifier",
            Self::Labeller => "labeller",
            Self::Inception => "inception",
            Self::Reference => "reference",
        }
    }
}

/// One artifact that a job needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What for.
    pub role: Role,
    /// The job that makes it.
    pub id: JobId,
}

/// One unit of work. Also the record by which `gauntlet exec` knows a job without its suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// Its stage.
    pub stage: Stage,
    /// What it does.
    pub work: Work,
    /// What it needs.
    pub inputs: Vec<Input>,
    /// Folders in which data sets are looked for, before the usual places; not part of the id.
    pub roots: Vec<PathBuf>,
    /// The generated set among its inputs that stays where it lies: its paths are no part of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Reference>,
    /// Positions of the cells that need it.
    pub cells: Vec<usize>,
    /// What it will take.
    pub estimate: Estimate,
}

/// The value of one axis in one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellValue {
    /// The dotted path.
    pub path: String,
    /// The value.
    pub value: serde_json::Value,
    /// What tables and plots call it.
    pub label: String,
}

/// One evaluation of a cell's classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellEvaluation {
    /// The threat model's name in the suite.
    pub name: String,
    /// The threat model.
    pub threat: ThreatModel,
    /// The job.
    pub job: JobId,
}

/// One combination of axis values, or an extra cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The name of an extra cell.
    pub label: Option<String>,
    /// One value for each axis in order, then for each field that some extra cell sets.
    pub values: Vec<CellValue>,
    /// The denoiser's job, where generated images join.
    pub denoiser: Option<JobId>,
    /// The parts of the generated set, in order.
    pub generated: Vec<JobId>,
    /// The job that judges it, unless none is wanted.
    #[serde(default)]
    pub quality: Option<JobId>,
    /// The classifier's job.
    pub train: JobId,
    /// Its evaluations.
    pub evaluations: Vec<CellEvaluation>,
}

impl Cell {
    /// A line for people: the label, or the axis values.
    pub fn title(&self) -> String {
        let values: Vec<_> =
            self.values.iter().map(|value| format!("{}={}", value.path, value.label)).collect();
        self.label.clone().unwrap_or_else(|| values.join(" "))
    }
}

/// One axis: a path and its values as the cells have them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanAxis {
    /// The dotted path.
    pub path: String,
    /// Labels of its values in order.
    pub labels: Vec<String>,
}

/// A suite resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The suite's name.
    pub suite: String,
    /// What it is about.
    pub description: String,
    /// The axes in order.
    pub axes: Vec<PlanAxis>,
    /// The cells.
    pub cells: Vec<Cell>,
    /// The jobs; inputs precede their users.
    pub jobs: Vec<Job>,
    /// The suite's `report:` section.
    pub report: Layout,
    /// The suite's `reference:` section.
    pub reference: Vec<PlanReference>,
    /// The suite's `ci:` section.
    pub ci: Thresholds,
}

impl Plan {
    /// Replaces the estimates by what this machine was measured to do.
    pub fn calibrate(&mut self, calibration: &Calibration) {
        for job in &mut self.jobs {
            job.estimate.calibrate(job.stage, calibration);
        }
    }

    /// The job of that id.
    pub fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == *id)
    }

    /// The jobs that made the generated set of `cell`: where it is labelled or selected, that job
    /// and those that drew the images.
    pub fn makers(&self, cell: &Cell) -> Vec<&Job> {
        let last: Vec<&Job> = cell.generated.iter().filter_map(|id| self.job(id)).collect();
        let inputs = last.iter().flat_map(|job| &job.inputs);
        let drawn = inputs.filter(|input| input.role == Role::Generated);
        let first: Vec<&Job> = drawn.filter_map(|input| self.job(&input.id)).collect();
        [first, last].concat()
    }
}

/// What planning must know of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// [`crate::data::Dataset::fingerprint`] of exactly the images asked for.
    pub fingerprint: String,
    /// How many classes.
    pub classes: i64,
    /// How many images.
    pub images: u64,
    /// Their edge length.
    pub resolution: u64,
}

/// Looks at the files that a plan depends on; tests answer without any.
pub trait Surveyor {
    /// Looks at `source` (whose fingerprint is empty), searching `roots` first.
    ///
    /// # Errors
    /// If the images are not there or not whole.
    fn survey(&self, source: &Source, roots: &[PathBuf]) -> Result<Survey>;

    /// BLAKE3 of a file.
    ///
    /// # Errors
    /// If it cannot be read.
    fn hash(&self, path: &Path) -> Result<String> {
        crate::digest::hash_file(path)
    }

    /// The generated set at these files and folders.
    ///
    /// # Errors
    /// If it cannot be read.
    fn set(&self, paths: &[PathBuf]) -> Result<Reference> {
        Reference::of(paths)
    }

    /// What the denoiser in a file was built from; `None` where nobody looks.
    ///
    /// # Errors
    /// If it cannot be read or is no denoiser.
    fn denoiser(&self, path: &Path) -> Result<Option<Architecture>> {
        crate::net::load::denoiser_architecture(path).map(Some)
    }
}

/// Multiplications of a classifier's forward pass for one image, in units of 10^9.
pub fn classifier_gmacs(spec: &crate::net::spec::ClassifierSpec, resolution: u64) -> f64 {
    layers::Layers::of(spec, resolution).macs() / 1e9
}

/// Multiplications of a denoiser's forward pass for one image, in units of 10^9.
pub fn denoiser_gmacs(spec: &crate::net::spec::DenoiserSpec) -> f64 {
    cost::denoiser_macs(spec) / 1e9
}

#[cfg(test)]
mod tests;
