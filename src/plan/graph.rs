//! Cells to jobs: what each cell needs, shared wherever two cells need the same.

use std::{collections::HashMap, path::PathBuf};

use serde_json::json;

use crate::{
    data::spec::{Source, Split},
    diffusion::spec::{GenerateSpec, LabelSpec},
    digest::JobId,
    error::Result,
    net::{architecture::Architecture, precond},
    plan::{
        Cell, CellEvaluation, CellValue, Estimate, ImportSpec, Input, Job, Plan, PlanAxis, Role,
        Survey, Surveyor, Work,
        checks::{self, blame, combinations, images, training},
        cost,
        identity::{Recent, identity},
        references, specs,
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
struct Need {
    settings: Settings,
    roots: Vec<PathBuf>,
    train: (Source, Survey),
    test: (Source, Survey),
    /// Threat models of the evaluations by name.
    evaluations: Vec<NamedModel>,
    generated: Option<Generated>,
    spec: TrainSpec,
}

/// Where generated images come from.
struct Generated {
    /// The denoiser's or the imported set's own work.
    origin: Work,
    /// The id of that work.
    source: JobId,
    /// The whole set, where it is sampled.
    spec: Option<GenerateSpec>,
    /// Identity of the set, whatever part of it is used.
    identity: JobId,
    /// How many images are drawn.
    drawn: u64,
    /// How many join training.
    count: u64,
    /// How they are labelled and selected, and by which imported classifier.
    label: Option<(LabelSpec, Option<Work>)>,
}

struct Graph<'a> {
    suite: &'a Suite,
    roots: &'a [PathBuf],
    surveyor: &'a dyn Surveyor,
    surveys: HashMap<String, std::result::Result<Survey, String>>,
    hashes: HashMap<PathBuf, std::result::Result<String, String>>,
    networks: HashMap<PathBuf, std::result::Result<Option<Architecture>, String>>,
    recent: Recent,
    /// Shards by set, first image and count.
    shards: HashMap<(JobId, u64, u64), JobId>,
    /// The largest part of each generated set that any cell uses.
    largest: HashMap<JobId, u64>,
    jobs: Vec<Job>,
    by_id: HashMap<JobId, usize>,
    problems: Vec<Problem>,
}

impl<'a> Graph<'a> {
    fn new(suite: &'a Suite, roots: &'a [PathBuf], surveyor: &'a dyn Surveyor) -> Self {
        Self {
            suite,
            roots,
            surveyor,
            surveys: HashMap::new(),
            hashes: HashMap::new(),
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
        let spec = specs::train(&settings, train.0.clone(), train.1.classes, threat);
        self.problems.extend(training(&settings, &spec));
        let generated = match settings.count("generated.count") {
            0 => None,
            count => Some(self.generated(&settings, &train, count)?),
        };
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

    fn generated(
        &mut self,
        settings: &Settings,
        train: &(Source, Survey),
        count: u64,
    ) -> Option<Generated> {
        let found = checks::labels(settings);
        let faulty = !found.is_empty();
        self.problems.extend(found);
        let (classes, dataset) = (train.1.classes, train.0.name.as_str());
        let labeller = match settings.text("labels.classifier") {
            Some(_) => Some(self.import(settings, "labels.classifier", "labeller")?),
            None => None,
        };
        let label = specs::label(settings, dataset, classes).map(|spec| (spec, labeller));
        if settings.text("generated.file").is_some() {
            let origin = self.import(settings, "generated.file", "images.npz")?;
            let source = self.recent.identity(&origin, None);
            let identity = source.clone();
            return Some(Generated {
                origin,
                source,
                spec: None,
                identity,
                drawn: count,
                count,
                label,
            });
        }
        let (origin, network) = self.denoiser(settings, train)?;
        let mut spec = specs::generate(settings, classes, &train.0);
        if let Some(network) = &network {
            spec.classes = network.label_dim;
            spec.sampler = specs::within(settings, spec.sampler, precond::plain_range(network));
            let data = (train.0.resolution, classes);
            let found = checks::generation(settings, &spec, network, data);
            let wrong = !found.is_empty();
            self.problems.extend(found);
            if wrong || faulty {
                return None;
            }
        }
        let whole = GenerateSpec { start: 0, count: 0, ..spec.clone() };
        let source = self.recent.identity(&origin, None);
        let identity = self.recent.identity(&Work::Generate(whole), Some(&source));
        let drawn = settings.optional_count("generated.drawn").unwrap_or(count);
        Some(Generated { origin, source, spec: Some(spec), identity, drawn, count, label })
    }

    /// The denoiser's own work and, where it is known, what it is built from.
    fn denoiser(
        &mut self,
        settings: &Settings,
        train: &(Source, Survey),
    ) -> Option<(Work, Option<Architecture>)> {
        let Some(file) = settings.text("denoiser.file") else {
            let spec = specs::fit(settings, train.0.clone(), train.1.classes);
            return match Architecture::of(&spec.network) {
                Ok(network) => Some((Work::Fit(spec), Some(network))),
                Err(error) => {
                    let message = error.to_string();
                    let message = message.trim_start_matches("denoiser: ").to_owned();
                    self.problems.push(blame(settings, "denoiser.channels", message));
                    None
                }
            };
        };
        let path = absolute(&self.suite.folder.join(file));
        let extension = path.extension().and_then(|text| text.to_str()).unwrap_or("safetensors");
        let work = self.import(settings, "denoiser.file", &format!("denoiser.{extension}"))?;
        let surveyor = self.surveyor;
        let known = self
            .networks
            .entry(path.clone())
            .or_insert_with(|| surveyor.denoiser(&path).map_err(|error| error.to_string()));
        match known {
            Ok(network) => Some((work, network.clone())),
            Err(message) => {
                let problem = blame(settings, "denoiser.file", message.clone());
                self.problems.push(problem);
                None
            }
        }
    }

    fn import(&mut self, settings: &Settings, path: &str, name: &str) -> Option<Work> {
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
        if let Some(generated) = &need.generated {
            let largest = self.largest.entry(generated.identity.clone()).or_default();
            *largest = generated.drawn.max(*largest);
        }
    }

    fn cell(&mut self, index: usize, draft: &Draft, need: &Need) -> Cell {
        let (mut denoiser, mut shards) = (None, Vec::new());
        let mut train_identity = json!(null);
        if let Some(generated) = &need.generated {
            (denoiser, shards) = self.generated_jobs(index, need, generated);
            train_identity = json!({ "set": generated.identity, "count": generated.count });
            if let Some(label) = &generated.label {
                let label = self.label_job(index, need, generated, label, shards);
                train_identity = json!({ "set": label, "count": generated.count });
                shards = vec![label];
            }
        }
        let survey = &need.train.1;
        let spec = need.spec.clone();
        let estimate = Estimate::train(&spec, survey.images);
        let network = spec.network.clone();
        let work = Work::Train(spec);
        let inputs =
            shards.iter().map(|id| Input { role: Role::Generated, id: id.clone() }).collect();
        let id = identity(&work, &train_identity);
        let train = self.add(index, need, Job { inputs, ..blank(id, work, estimate) });
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
        Cell { label: draft.label.clone(), values, denoiser, generated: shards, train, evaluations }
    }

    /// The denoiser's job and those of the shards that hold the images drawn.
    fn generated_jobs(
        &mut self,
        index: usize,
        need: &Need,
        generated: &Generated,
    ) -> (Option<JobId>, Vec<JobId>) {
        let source = generated.source.clone();
        let macs = match &generated.origin {
            Work::Fit(spec) => cost::denoiser_macs(&spec.network),
            // An imported denoiser is taken for one of the published size.
            _ => 21.2e9,
        };
        if !self.note(index, &source) {
            let origin = generated.origin.clone();
            let estimate = match &origin {
                Work::Fit(spec) => Estimate::fit(spec),
                _ => Estimate::import(),
            };
            self.add(index, need, blank(source.clone(), origin, estimate));
        }
        let Some(whole) = &generated.spec else { return (None, vec![source]) };
        let largest = self.largest[&generated.identity];
        let size = need.settings.count("generated.shard");
        let mut shards = Vec::new();
        for start in (0..generated.drawn).step_by(size as usize) {
            let count = size.min(largest - start);
            let key = (generated.identity.clone(), start, count);
            if let Some(id) = self.shards.get(&key).cloned() {
                self.note(index, &id);
                shards.push(id);
                continue;
            }
            let spec = GenerateSpec { start, count, ..whole.clone() };
            let estimate = Estimate::generate(&spec, macs, need.train.0.resolution);
            let work = Work::Generate(spec);
            let inputs = vec![Input { role: Role::Denoiser, id: source.clone() }];
            let id = identity(&work, &json!([source]));
            self.shards.insert(key, id.clone());
            shards.push(self.add(index, need, Job { inputs, ..blank(id, work, estimate) }));
        }
        (Some(source), shards)
    }

    /// The job that labels and selects the images of `shards`.
    fn label_job(
        &mut self,
        index: usize,
        need: &Need,
        generated: &Generated,
        (spec, labeller): &(LabelSpec, Option<Work>),
        shards: Vec<JobId>,
    ) -> JobId {
        let labeller = labeller.as_ref().map(|work| {
            let id = self.recent.identity(work, None);
            self.add(index, need, blank(id, work.clone(), Estimate::import()))
        });
        let work = Work::Label(spec.clone());
        let content = json!({
            "set": generated.identity, "drawn": generated.drawn, "labeller": labeller,
        });
        let input = |role| move |id| Input { role, id };
        let inputs = shards.into_iter().map(input(Role::Generated));
        let inputs = inputs.chain(labeller.into_iter().map(input(Role::Labeller))).collect();
        let id = identity(&work, &content);
        let estimate = Estimate::label(generated.drawn, need.train.0.resolution);
        self.add(index, need, Job { inputs, ..blank(id, work, estimate) })
    }

    /// Adds `job` unless it is there, and notes that the cell at `index` needs it.
    fn add(&mut self, index: usize, need: &Need, mut job: Job) -> JobId {
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
    fn note(&mut self, index: usize, id: &JobId) -> bool {
        let Some(&position) = self.by_id.get(id) else { return false };
        let cells = &mut self.jobs[position].cells;
        if cells.last() != Some(&index) {
            cells.push(index);
        }
        true
    }
}

fn blank(id: JobId, work: Work, estimate: Estimate) -> Job {
    let stage = work.stage();
    Job { id, stage, work, inputs: Vec::new(), roots: Vec::new(), cells: Vec::new(), estimate }
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
fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
