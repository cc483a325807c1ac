//! Cells to jobs: what each cell needs, shared wherever two cells need the same.

use std::{collections::HashMap, path::PathBuf};

use serde_json::json;

use crate::{
    data::{
        reference::Reference,
        spec::{Source, Split},
    },
    digest::JobId,
    error::Result,
    net::architecture::Architecture,
    plan::{
        Cell, CellEvaluation, CellValue, Estimate, ImportSpec, Input, Job, Plan, PlanAxis, Role,
        Survey, Surveyor, Work,
        checks::{blame, combinations, images, training},
        identity::{Recent, identity},
        references, specs,
        supply::Generated,
    },
    suite::{
        Suite,
        axes::Draft,
        problem::{self, Problem},
        settings::Settings,
        table::FIELDS,
    },
    threat::ThreatModel,
    train::spec::{Loss, TrainSpec},
};

/// Resolves every cell of `suite` into jobs. `roots` are searched for data sets before the suite's
/// own folder and the usual places.
///
/// # Errors
/// Everything that is wrong with any cell, at its place in the suite.
pub fn resolve(suite: &Suite, roots: &[PathBuf], surveyor: &dyn Surveyor) -> Result<Plan> {
    let mut graph = Graph::new(suite, roots, surveyor);
    let drafts = suite.axes.cells();
    let reference = references::resolve(suite, &drafts, &mut graph.problems);
    let needs: Vec<Option<Need>> = drafts.iter().map(|draft| graph.need(draft)).collect();
    if !graph.problems.is_empty() {
        return Err(problem::error(&suite.files, graph.problems));
    }
    for need in needs.iter().flatten() {
        graph.remember_count(need);
    }
    let cells = drafts.iter().zip(needs.into_iter().flatten()).enumerate();
    let cells = cells.map(|(index, (draft, need))| graph.cell(index, draft, &need)).collect();
    Ok(Plan {
        suite: suite.name.clone(),
        description: suite.description.clone(),
        axes: axes(suite),
        cells,
        jobs: graph.jobs,
        report: suite.report.clone(),
        reference,
        ci: suite.ci,
    })
}

/// Settings and training of every cell, for those who ask why.
///
/// # Errors
/// As [`resolve`].
pub(super) fn settle(
    suite: &Suite,
    roots: &[PathBuf],
    surveyor: &dyn Surveyor,
) -> Result<Vec<(Settings, TrainSpec)>> {
    let mut graph = Graph::new(suite, roots, surveyor);
    let needs: Vec<_> = suite.axes.cells().iter().map(|draft| graph.need(draft)).collect();
    if !graph.problems.is_empty() {
        return Err(problem::error(&suite.files, graph.problems));
    }
    Ok(needs.into_iter().flatten().map(|need| (need.settings, need.spec)).collect())
}

fn axes(suite: &Suite) -> Vec<PlanAxis> {
    let axis = |axis: &crate::suite::axes::Axis| PlanAxis {
        path: FIELDS[axis.field].path.to_owned(),
        labels: axis.points.iter().map(|point| point.label.clone()).collect(),
    };
    suite.axes.fields().map(axis).collect()
}

/// A threat model under the name that the report uses.
type NamedModel = (String, ThreatModel);

/// A cell's settings with what planning found out about them.
pub(super) struct Need {
    pub(super) settings: Settings,
    pub(super) roots: Vec<PathBuf>,
    pub(super) train: (Source, Survey),
    pub(super) test: (Source, Survey),
    /// Threat models of the evaluations by name.
    pub(super) evaluations: Vec<NamedModel>,
    pub(super) generated: Option<Generated>,
    pub(super) spec: TrainSpec,
}

pub(super) struct Graph<'a> {
    pub(super) suite: &'a Suite,
    pub(super) roots: &'a [PathBuf],
    pub(super) surveyor: &'a dyn Surveyor,
    pub(super) surveys: HashMap<String, std::result::Result<Survey, String>>,
    pub(super) hashes: HashMap<PathBuf, std::result::Result<String, String>>,
    pub(super) sets: HashMap<Vec<PathBuf>, std::result::Result<Reference, String>>,
    pub(super) networks: HashMap<PathBuf, std::result::Result<Option<Architecture>, String>>,
    pub(super) recent: Recent,
    /// Shards by set, first image and count.
    pub(super) shards: HashMap<(JobId, u64, u64), JobId>,
    /// The largest part of each generated set that any cell uses.
    pub(super) largest: HashMap<JobId, u64>,
    pub(super) jobs: Vec<Job>,
    pub(super) by_id: HashMap<JobId, usize>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Graph<'a> {
    fn new(suite: &'a Suite, roots: &'a [PathBuf], surveyor: &'a dyn Surveyor) -> Self {
        Self {
            suite,
            roots,
            surveyor,
            surveys: HashMap::new(),
            hashes: HashMap::new(),
            sets: HashMap::new(),
            networks: HashMap::new(),
            recent: Recent::default(),
            shards: HashMap::new(),
            largest: HashMap::new(),
            jobs: Vec::new(),
            by_id: HashMap::new(),
            problems: Vec::new(),
        }
    }

    fn need(&mut self, draft: &Draft) -> Option<Need> {
        let settings = self.suite.settings(&draft.given);
        let found = combinations(&settings);
        if !found.is_empty() {
            self.problems.extend(found);
            return None;
        }
        let mut roots = self.roots.to_vec();
        if let Some(dir) = settings.text("data.dir") {
            roots.insert(0, absolute(&self.suite.folder.join(dir)));
        }
        let train = self.survey(&settings, Split::Train, &roots);
        let test = self.survey(&settings, Split::Test, &roots);
        let (threat, evaluations) = self.threats(&settings)?;
        let (train, test) = (train?, test?);
        self.problems.extend(images(&settings, train.1.images));
        let mut spec = specs::train(&settings, train.0.clone(), train.1.classes, threat);
        self.problems.extend(training(&settings, &spec));
        let generated = match settings.count("generated.count") {
            0 => None,
            count => Some(self.generated(&settings, &train, count)?),
        };
        spec.live = generated.as_ref().and_then(|generated| generated.live.clone());
        Some(Need { settings, roots, train, test, evaluations, generated, spec })
    }

    fn survey(
        &mut self,
        settings: &Settings,
        split: Split,
        roots: &[PathBuf],
    ) -> Option<(Source, Survey)> {
        let mut source = specs::source(settings, split);
        let key = format!("{source:?}{roots:?}");
        let surveyor = self.surveyor;
        let survey = self
            .surveys
            .entry(key)
            .or_insert_with(|| surveyor.survey(&source, roots).map_err(|error| error.to_string()));
        match survey {
            Ok(survey) => {
                source.fingerprint.clone_from(&survey.fingerprint);
                // "All" and the number that this is are the same images.
                source.count = Some(survey.images);
                source.resolution = survey.resolution;
                Some((source, survey.clone()))
            }
            Err(message) => {
                let problem = blame(settings, "data.name", message.clone());
                self.problems.push(problem);
                None
            }
        }
    }

    /// The threat model of training and those of the evaluations, with their names.
    fn threats(&mut self, settings: &Settings) -> Option<(Option<ThreatModel>, Vec<NamedModel>)> {
        let training = self.training_threat(settings);
        let named = |name: &String| Some((name.clone(), self.suite.threat(name)?));
        let evaluations: Vec<NamedModel> =
            match (settings.texts("evaluate.threats"), settings.text("evaluate.threat")) {
                (Some(names), _) => names.iter().filter_map(named).collect(),
                (None, Some(name)) => named(&name.to_owned()).into_iter().collect(),
                (None, None) => training.clone().into_iter().collect(),
            };
        let trains = settings.choice::<Loss>("train.loss") != Loss::Standard;
        if evaluations.is_empty() || (trains && training.is_none()) {
            let choices: Vec<_> =
                self.suite.threats.iter().map(|threat| threat.name.as_str()).collect();
            let message = if choices.is_empty() {
                "no threat model: name one in `threats:`, like \
                 `threats: {linf: {norm: linf, epsilon: 8/255}}`"
                    .to_owned()
            } else {
                format!("which threat model? expected one of {}", choices.join(", "))
            };
            self.problems.push(blame(settings, "threat", message));
            return None;
        }
        Some((training.map(|(_, model)| model), evaluations))
    }

    fn training_threat(&self, settings: &Settings) -> Option<(String, ThreatModel)> {
        let named = match (settings.text("threat"), self.suite.threats.as_slice()) {
            (Some(name), _) => Some((name.to_owned(), self.suite.threat(name)?)),
            (None, [only]) => Some((only.name.clone(), only.model)),
            (None, _) => None,
        };
        let norm = settings.text("threat.norm").map(|_| settings.choice("threat.norm"));
        let epsilon = settings.epsilon("threat.epsilon");
        if norm.is_none() && epsilon.is_none() {
            return named;
        }
        let model = ThreatModel {
            norm: norm.or(named.as_ref().map(|(_, model)| model.norm))?,
            epsilon: epsilon.or(named.map(|(_, model)| model.epsilon))?,
        };
        Some((model.to_string(), model))
    }

    pub(super) fn import(&mut self, settings: &Settings, path: &str, name: &str) -> Option<Work> {
        let file = absolute(&self.suite.folder.join(settings.text(path)?));
        let surveyor = self.surveyor;
        let hash = self
            .hashes
            .entry(file.clone())
            .or_insert_with(|| surveyor.hash(&file).map_err(|error| error.to_string()));
        match hash {
            Ok(hash) => Some(Work::Import(ImportSpec {
                blake3: hash.clone(),
                path: file,
                name: name.to_owned(),
            })),
            Err(message) => {
                let problem = blame(settings, path, message.clone());
                self.problems.push(problem);
                None
            }
        }
    }

    fn remember_count(&mut self, need: &Need) {
        // What is drawn while training goes on is nobody else's.
        if let Some(generated) = need.generated.as_ref().filter(|own| own.live.is_none()) {
            let largest = self.largest.entry(generated.identity.clone()).or_default();
            *largest = generated.drawn.max(*largest);
        }
    }

    fn cell(&mut self, index: usize, draft: &Draft, need: &Need) -> Cell {
        let (mut denoiser, mut shards) = (None, Vec::new());
        let (mut train_identity, mut quality) = (json!(null), None);
        if let Some(generated) = &need.generated {
            (denoiser, shards) = self.generated_jobs(index, need, generated);
            train_identity = json!({ "set": generated.identity, "count": generated.count });
            if let Some(label) = &generated.label {
                let label = self.label_job(index, need, generated, label, shards);
                train_identity = json!({ "set": label, "count": generated.count });
                shards = vec![label];
            }
            if generated.live.is_some() {
                train_identity = json!({ "denoiser": denoiser });
            } else {
                quality = self.quality_job(index, need, generated, &shards);
            }
        }
        let survey = &need.train.1;
        let spec = need.spec.clone();
        let mut estimate = Estimate::train(&spec, survey.images);
        if let (Some(live), Some(generated)) = (&spec.live, &need.generated) {
            let steps = survey.images.div_ceil(spec.batch.max(1)) * spec.epochs;
            estimate = estimate.and_live(live, steps, generated.macs, survey.resolution);
        }
        let network = spec.network.clone();
        let work = Work::Train(spec);
        let inputs = shards.iter().map(|id| (Role::Generated, id));
        let draws =
            denoiser.iter().filter(|_| need.spec.live.is_some()).map(|id| (Role::Denoiser, id));
        let inputs = inputs.chain(draws).map(|(role, id)| Input { role, id: id.clone() }).collect();
        let id = identity(&work, &train_identity);
        let set = need.generated.as_ref().and_then(|generated| generated.reference.clone());
        let set = set.filter(|_| shards.iter().all(|id| self.is_reference(id)));
        let train = self.add(index, need, Job { inputs, set, ..blank(id, work, estimate) });
        let evaluation = |(name, threat): &(String, ThreatModel)| {
            let spec =
                specs::evaluate(&need.settings, need.test.0.clone(), need.test.1.classes, *threat);
            let estimate = Estimate::evaluate(&spec, &network, need.test.1.images);
            let work = Work::Evaluate(spec);
            let inputs = vec![Input { role: Role::Classifier, id: train.clone() }];
            let id = identity(&work, &json!([train]));
            let job = self.add(index, need, Job { inputs, ..blank(id, work, estimate) });
            CellEvaluation { name: name.clone(), threat: *threat, job }
        };
        let evaluations = need.evaluations.iter().map(evaluation).collect();
        let values = values(self.suite, draft, &need.settings);
        Cell {
            label: draft.label.clone(),
            values,
            denoiser,
            generated: shards,
            quality,
            train,
            evaluations,
        }
    }

    /// Adds `job` unless it is there, and notes that the cell at `index` needs it.
    pub(super) fn add(&mut self, index: usize, need: &Need, mut job: Job) -> JobId {
        let id = job.id.clone();
        if !self.note(index, &id) {
            job.roots.clone_from(&need.roots);
            job.cells.push(index);
            self.by_id.insert(id.clone(), self.jobs.len());
            self.jobs.push(job);
        }
        id
    }

    /// Notes that the cell at `index` needs the job, if there is such a job.
    pub(super) fn note(&mut self, index: usize, id: &JobId) -> bool {
        let Some(&position) = self.by_id.get(id) else { return false };
        let cells = &mut self.jobs[position].cells;
        if cells.last() != Some(&index) {
            cells.push(index);
        }
        true
    }
}

impl Graph<'_> {
    /// Whether the job of that id only takes note of a set.
    fn is_reference(&self, id: &JobId) -> bool {
        self.by_id.get(id).is_some_and(|&at| matches!(self.jobs[at].work, Work::Reference(_)))
    }
}

pub(super) fn blank(id: JobId, work: Work, estimate: Estimate) -> Job {
    let stage = work.stage();
    let (inputs, roots, cells) = (Vec::new(), Vec::new(), Vec::new());
    Job { id, stage, work, inputs, roots, set: None, cells, estimate }
}

/// The cell's value on every axis, then of what any extra cell says beyond the axes: every cell has
/// the same columns, so that tables can tell an extra cell from the others.
fn values(suite: &Suite, draft: &Draft, settings: &Settings) -> Vec<CellValue> {
    let mut fields: Vec<usize> = suite.axes.fields().map(|axis| axis.field).collect();
    for given in suite.axes.include.iter().flat_map(|draft| &draft.given) {
        // Each evaluation names its own threat model.
        let evaluated = FIELDS[given.field].path.starts_with("evaluate.threat");
        if !evaluated && !fields.contains(&given.field) {
            fields.push(given.field);
        }
    }
    let value = |field: usize| {
        let setting = &settings.at(field).value;
        let own = draft.labels.iter().find(|(labelled, _)| *labelled == field);
        // The axis knows how people call the value, in extra cells too.
        let point = suite
            .axes
            .fields()
            .find(|axis| axis.field == field)
            .and_then(|axis| axis.points.iter().find(|point| point.value == *setting));
        CellValue {
            path: FIELDS[field].path.to_owned(),
            value: serde_json::to_value(setting).unwrap_or_default(),
            label: match (own, point) {
                (Some((_, label)), _) => label.clone(),
                (None, Some(point)) => point.label.clone(),
                (None, None) => setting.to_string(),
            },
        }
    };
    fields.into_iter().map(value).collect()
}

/// The path from the root, so that a job finds its files from anywhere.
pub(super) fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
