//! Generated images of a cell: denoiser, shards, labels and selection as jobs.

use serde_json::json;

use crate::{
    data::{reference::Reference, spec::Source},
    diffusion::spec::{GenerateSpec, LabelSpec},
    digest::JobId,
    net::{architecture::Architecture, precond},
    plan::{
        Estimate, Input, Job, Role, Survey, Work,
        checks::{self, blame},
        cost,
        graph::{Graph, Need, absolute, blank},
        identity::identity,
        specs,
    },
    suite::settings::Settings,
    train::spec::LiveSpec,
};

/// Where generated images come from.
pub(super) struct Generated {
    /// The denoiser's or the imported set's own work.
    pub(super) origin: Work,
    /// Multiplications of one forward pass of the denoiser.
    pub(super) macs: f64,
    /// The id of that work.
    pub(super) source: JobId,
    /// The whole set, where it is sampled.
    pub(super) spec: Option<GenerateSpec>,
    /// How images are drawn while training goes on, in place of a set.
    pub(super) live: Option<LiveSpec>,
    /// The set, where it lies on disk already.
    pub(super) reference: Option<Reference>,
    /// Identity of the set, whatever part of it is used.
    pub(super) identity: JobId,
    /// How many images are drawn.
    pub(super) drawn: u64,
    /// How many join training.
    pub(super) count: u64,
    /// How they are labelled and selected, and by which classifier, imported or trained.
    pub(super) label: Option<(LabelSpec, Option<Work>)>,
    /// Files by which they are judged: the Inception network, statistics of real images.
    pub(super) judges: Vec<(Role, Work)>,
}

impl Graph<'_> {
    pub(super) fn generated(
        &mut self,
        settings: &Settings,
        train: &(Source, Survey),
        count: u64,
    ) -> Option<Generated> {
        let found = [checks::labels(settings), checks::live(settings)].concat();
        let faulty = !found.is_empty();
        self.problems.extend(found);
        let (classes, dataset) = (train.1.classes, train.0.name.as_str());
        let labeller = match settings.text("labels.classifier") {
            Some(_) => Some(self.import(settings, "labels.classifier", "labeller")?),
            None if specs::trains_labeller(settings) => {
                Some(Work::Train(specs::labeller(settings, train.0.clone(), classes)))
            }
            None => None,
        };
        let label = specs::label(settings, dataset, classes).map(|spec| (spec, labeller));
        let mut judges = Vec::new();
        for (key, role, name) in [
            ("quality.inception", Role::Inception, "inception.pt"),
            ("quality.reference", Role::Reference, "reference.npz"),
        ] {
            if settings.count("quality.images") > 0 && settings.text(key).is_some() {
                judges.push((role, self.import(settings, key, name)?));
            }
        }
        if let Some(paths) = settings.paths("generated.file") {
            let set = self.reference(settings, &paths)?;
            let found = checks::set(settings, &set, (train.0.resolution, classes));
            if !found.is_empty() || faulty {
                self.problems.extend(found);
                return None;
            }
            let origin = Work::Reference(set.clone());
            let source = self.recent.identity(&origin, None);
            let identity = source.clone();
            // A selection is made from the whole set.
            let drawn = if label.is_some() { set.images } else { count };
            let (spec, live, reference) = (None, None, Some(set));
            return Some(Generated {
                origin,
                macs: 0.0,
                source,
                spec,
                live,
                reference,
                identity,
                drawn,
                count,
                label,
                judges,
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
        let live = specs::live(settings, &spec);
        let (spec, reference) = (Some(spec), None);
        // A file that does not say what it is is taken for one of the published size.
        let macs = network.as_ref().map_or(21.2e9, cost::imported_macs);
        Some(Generated {
            origin,
            macs,
            source,
            spec,
            live,
            reference,
            identity,
            drawn,
            count,
            label,
            judges,
        })
    }

    fn reference(&mut self, settings: &Settings, paths: &[&str]) -> Option<Reference> {
        let paths: Vec<_> = paths.iter().map(|p| absolute(&self.suite.folder.join(p))).collect();
        let surveyor = self.surveyor;
        let look = || surveyor.set(&paths).map_err(|error| error.to_string());
        match self.sets.entry(paths.clone()).or_insert_with(look) {
            Ok(set) => Some(set.clone()),
            Err(message) => {
                let problem = blame(settings, "generated.file", message.clone());
                self.problems.push(problem);
                None
            }
        }
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

    /// The denoiser's job and those of the shards that hold the images drawn.
    pub(super) fn generated_jobs(
        &mut self,
        index: usize,
        need: &Need,
        generated: &Generated,
    ) -> (Option<JobId>, Vec<JobId>) {
        let source = generated.source.clone();
        let macs = generated.macs;
        if !self.note(index, &source) {
            let origin = generated.origin.clone();
            let estimate = match &origin {
                Work::Fit(spec) => Estimate::fit(spec),
                _ => Estimate::import(),
            };
            self.add(index, need, blank(source.clone(), origin, estimate));
        }
        if generated.live.is_some() {
            return (Some(source), Vec::new());
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

    /// The job that judges the set which `parts` hold, its images counted from the first.
    pub(super) fn quality_job(
        &mut self,
        index: usize,
        need: &Need,
        generated: &Generated,
        parts: &[JobId],
    ) -> Option<JobId> {
        let labelled = generated.label.is_some();
        // Cells that use more or fewer images of one set share one verdict.
        let largest = if labelled { generated.count } else { self.largest[&generated.identity] };
        let sources = (need.train.0.clone(), need.test.0.clone());
        let hash = |wanted| {
            let judge = generated.judges.iter().find(|(role, _)| *role == wanted);
            judge.and_then(|(_, work)| match work {
                Work::Import(spec) => Some(spec.blake3.clone()),
                _ => None,
            })
        };
        let hashes = [Role::Inception, Role::Reference].map(hash);
        let spec = specs::quality(&need.settings, sources, largest, hashes)?;
        let whole = labelled || generated.spec.is_none();
        let size = need.settings.count("generated.shard");
        let count = if whole { 1 } else { spec.images.div_ceil(size) };
        let estimate = Estimate::quality(&spec, need.train.1.images);
        // A cell that uses few images leaves the verdict to the one that has enough of them.
        let parts: Vec<JobId> = parts.iter().take(count as usize).cloned().collect();
        let set = if labelled { &parts[0] } else { &generated.identity };
        let work = Work::Quality(spec);
        let id = self.recent.identity(&work, Some(set));
        if !whole && (parts.len() as u64) < count || self.note(index, &id) {
            return Some(id);
        }
        let mut judges = Vec::new();
        for (role, work) in &generated.judges {
            let id = self.recent.identity(work, None);
            let id = self.add(index, need, blank(id, work.clone(), Estimate::import()));
            judges.push(Input { role: *role, id });
        }
        let inputs = parts.into_iter().map(|id| Input { role: Role::Generated, id });
        let inputs = inputs.chain(judges).collect();
        let set = generated.reference.clone().filter(|_| !labelled);
        Some(self.add(index, need, Job { inputs, set, ..blank(id, work, estimate) }))
    }

    /// The job that labels and selects the images of `shards`.
    pub(super) fn label_job(
        &mut self,
        index: usize,
        need: &Need,
        generated: &Generated,
        (spec, labeller): &(LabelSpec, Option<Work>),
        shards: Vec<JobId>,
    ) -> JobId {
        let estimate = Estimate::label(generated.drawn, need.train.0.resolution, labeller.as_ref());
        let labeller = labeller.as_ref().map(|work| {
            let (id, estimate) = match work {
                Work::Train(spec) => {
                    let images = need.train.1.images;
                    (identity(work, &json!(null)), Estimate::train(spec, images))
                }
                _ => (self.recent.identity(work, None), Estimate::import()),
            };
            self.add(index, need, blank(id, work.clone(), estimate))
        });
        let work = Work::Label(spec.clone());
        let content = json!({
            "set": generated.identity, "drawn": generated.drawn, "labeller": labeller,
        });
        let input = |role| move |id| Input { role, id };
        let inputs = shards.into_iter().map(input(Role::Generated));
        let inputs = inputs.chain(labeller.into_iter().map(input(Role::Labeller))).collect();
        let id = identity(&work, &content);
        let set = generated.reference.clone();
        self.add(index, need, Job { inputs, set, ..blank(id, work, estimate) })
    }
}
