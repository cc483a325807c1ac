//! The real stages behind `exec`: job and inputs in, files out.

use std::{fs, path::Path, sync::Mutex};

use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::{
    data::{Dataset, find, generated, reference::Reference, spec::Source},
    diffusion::{self, features::Extractor, fid::Moments, quality::Judged, spec::QualitySpec},
    digest::hash_file,
    error::{AtPath, Error, Result},
    evaluate::{
        self, Place, Protocol,
        journal::{image_files, read_images},
        spec::{Checkpoint, EvaluateSpec},
    },
    leaderboard::records::write_parquet,
    net::{
        Classifier, Denoiser,
        load::{Loaded, Told, load_any, load_classifier},
    },
    plan::{ImportSpec, Role, Work},
    run::{Stages, Task},
    store::Artifact,
    train::{self, Supply},
};

/// The stages of this program.
#[derive(Debug, Clone, Copy)]
pub struct Real;

impl Stages for Real {
    fn run(&self, task: &Task<'_>) -> Result<Value> {
        let &Task { device, work, out, progress, .. } = task;
        match &task.job.work {
            Work::Import(spec) => import(spec, out),
            Work::Reference(set) => refer(set, out),
            Work::Fit(spec) => {
                let data = images(task, &spec.data)?;
                summary(&diffusion::fit::run(spec, &data, device, work, out, progress)?)
            }
            Work::Generate(spec) => {
                let denoiser = denoiser(task)?;
                let turns: Vec<i64> = (0..spec.classes).collect();
                let origin = spec.origin.as_ref().map(|source| images(task, source)).transpose()?;
                let draw = diffusion::generate::Draw {
                    spec,
                    denoiser: denoiser.as_ref(),
                    device,
                    turns: &turns,
                    origin: origin.as_ref(),
                };
                let made = diffusion::generate::run(&draw, work, out, progress)?;
                Ok(
                    json!({ "count": made.count, "drawn": made.drawn, "evaluations": made.evaluations }),
                )
            }
            Work::Label(spec) => {
                let names: Vec<String> = (0..spec.classes).map(|class| class.to_string()).collect();
                let parts = generated_parts(task, &names, None)?;
                let labeller = inputs(task, Role::Labeller)
                    .map(|artifact| {
                        let path = artifact.file("labeller");
                        match path.exists() {
                            true => {
                                load_classifier(&path, spec.arch.as_deref(), &spec.dataset, device)
                            }
                            false => trained(artifact, Checkpoint::Best, device),
                        }
                    })
                    .next()
                    .transpose()?;
                for remark in labeller.iter().flat_map(|labeller| labeller.remarks()) {
                    progress.warn(format!("labeller: {remark}"));
                }
                let judge =
                    labeller.as_deref().map(|labeller| (labeller as &dyn Classifier, device));
                summary(&diffusion::label::run(spec, &parts, judge, work, out, progress)?)
            }
            Work::Quality(spec) => quality(task, spec),
            Work::Train(spec) => {
                let real = images(task, &spec.data)?;
                if spec.live.is_some() {
                    let supply = Supply::Live { denoiser: denoiser(task)?, identity: &task.job.id };
                    return summary(&train::run(
                        spec,
                        &real,
                        supply,
                        &[device],
                        work,
                        out,
                        progress,
                    )?);
                }
                let parts = generated_parts(task, &real.classes, Some(spec.generated))?;
                let parts: Vec<&Dataset> = parts.iter().collect();
                let supply = Supply::Set(&parts);
                summary(&train::run(spec, &real, supply, &[device], work, out, progress)?)
            }
            Work::Evaluate(spec) => evaluation(task, spec),
        }
    }
}

fn summary(summary: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(summary).map_err(Error::input)
}

/// The images that a spec names: the same bytes as when it was planned.
fn images(task: &Task<'_>, source: &Source) -> Result<Dataset> {
    Ok(find::resolve(source, &task.job.roots)?.0)
}

fn import(spec: &ImportSpec, out: &Path) -> Result<Value> {
    let target = out.join(&spec.name);
    fs::copy(&spec.path, &target).at(&spec.path)?;
    let hash = hash_file(&target)?;
    if hash != spec.blake3 {
        let message = format!(
            "the file has changed since the plan was made (BLAKE3 {hash}, planned {}): run the \
             suite again",
            spec.blake3
        );
        return Err(Error::in_file(&spec.path, message));
    }
    Ok(json!({ "path": spec.path }))
}

/// The set stays where it is: the store holds what it was, and where.
fn refer(set: &Reference, out: &Path) -> Result<Value> {
    let now = Reference::of(&set.paths)?;
    if now != *set {
        let message = format!(
            "the generated set has changed since the plan was made (fingerprint {}, planned {}): \
             run the suite again",
            now.fingerprint, set.fingerprint
        );
        return Err(Error::in_file(&set.paths[0], message));
    }
    let path = out.join("set.json");
    let text = serde_json::to_string_pretty(set).map_err(Error::input)?;
    fs::write(&path, text).at(&path)?;
    summary(set)
}

/// The inputs of that role, in order.
fn inputs<'a>(task: &'a Task<'_>, role: Role) -> impl Iterator<Item = &'a Artifact> {
    task.inputs.iter().filter(move |(own, _)| *own == role).map(|(_, artifact)| artifact)
}

fn only<'a>(task: &'a Task<'_>, role: Role) -> &'a Artifact {
    inputs(task, role).next().unwrap_or_else(|| panic!("{} has a {}", task.job.id, role.name()))
}

/// The denoiser, trained here or imported under its own extension.
fn denoiser(task: &Task<'_>) -> Result<Box<dyn Denoiser>> {
    let artifact = only(task, Role::Denoiser);
    let names = artifact.manifest.files.iter().map(|file| file.name.as_str());
    let name = names.into_iter().find(|name| name.starts_with("denoiser.")).ok_or_else(|| {
        Error::in_file(&artifact.folder, "holds no file called denoiser: not a denoiser's artifact")
    })?;
    let path = artifact.file(name);
    match load_any(&path, Told { arch: None, dataset: "", weights: None }, task.device)? {
        Loaded::Denoiser(denoiser) => Ok(denoiser),
        Loaded::Classifier(_) => {
            Err(Error::in_file(&path, "holds a classifier; expected a denoiser"))
        }
    }
}

/// The generated images: parts that were made here, or `count` images (all) of a set on disk.
fn generated_parts(
    task: &Task<'_>,
    classes: &[String],
    count: Option<u64>,
) -> Result<Vec<Dataset>> {
    if let Some(set) = &task.job.set {
        return Ok(vec![set.open(classes, count.unwrap_or(set.images))?]);
    }
    inputs(task, Role::Generated)
        .map(|part| generated::read(&part.file("images.npz"), "generated", classes))
        .collect()
}

fn quality(task: &Task<'_>, spec: &QualitySpec) -> Result<Value> {
    let (train, test) = (images(task, &spec.train)?, images(task, &spec.test)?);
    let parts = generated_parts(task, &train.classes, Some(spec.images))?;
    let file = |role, name| inputs(task, role).map(move |artifact| artifact.file(name)).next();
    let extractor = match file(Role::Inception, "inception.pt") {
        Some(path) => Extractor::inception(&path, task.device)?,
        None => Extractor::filters(task.device),
    };
    let reference = file(Role::Reference, "reference.npz");
    let reference = reference.map(|path| Moments::read(&path)).transpose()?;
    let judged =
        Judged { parts: &parts, train: &train, test: &test, reference: reference.as_ref() };
    let found = diffusion::quality::judge(spec, &judged, &extractor, task.progress)?;
    let path = task.out.join("quality.json");
    let text = serde_json::to_string_pretty(&found).map_err(Error::input)?;
    fs::write(&path, text).at(&path)?;
    summary(&json!({ "fid": found.fid, "features": found.features, "images": found.images }))
}

/// The classifier that a training job left.
fn trained(
    artifact: &Artifact,
    checkpoint: Checkpoint,
    device: Device,
) -> Result<Box<dyn Classifier + Send>> {
    let name = match checkpoint {
        Checkpoint::Best => "best.safetensors",
        Checkpoint::Last => "last.safetensors",
    };
    let spec = artifact.manifest.provenance.spec.clone();
    let Ok(Work::Train(spec)) = serde_json::from_value(spec) else {
        return Err(Error::in_file(&artifact.folder, "is not the artifact of a training"));
    };
    let network = &spec.network;
    load_classifier(&artifact.file(name), Some(&network.arch), &network.dataset, device)
}

/// Attacked images that an evaluation keeps for its report.
const EXAMPLES: usize = 6;

/// Writes `examples.safetensors`: a few clean images, what attacks made of them, and the class that
/// the model sees in the result. Nothing is selected: they are the first that were broken.
fn examples(
    task: &Task<'_>,
    spec: &EvaluateSpec,
    model: &dyn Classifier,
    data: &Dataset,
) -> Result<()> {
    let mut found: Vec<(u64, Tensor)> = Vec::new();
    for file in image_files(task.work)? {
        let (indices, images) = read_images(&file)?; // [n,3,h,w]
        found.extend(
            indices.into_iter().enumerate().map(|(at, index)| (index, images.get(at as i64))),
        );
    }
    found.sort_by_key(|(index, _)| *index);
    found.dedup_by_key(|(index, _)| *index);
    found.truncate(EXAMPLES);
    let rows: Vec<usize> =
        found.iter().map(|(index, _)| (index - spec.data.skip) as usize).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let images: Vec<&Tensor> = found.iter().map(|(_, image)| image).collect();
    let adversarial = Tensor::stack(&images, 0); // [n,3,h,w]
    let _guard = tch::no_grad_guard();
    let seen = model.logits(&adversarial.to_device(task.device)).argmax(1, false);
    let words = |words: Vec<i64>| Tensor::from_slice(&words);
    let tensors = [
        ("index", words(found.iter().map(|(index, _)| *index as i64).collect())),
        ("label", words(rows.iter().map(|row| i64::from(data.labels[*row])).collect())),
        ("prediction", seen.to_device(Device::Cpu)),
        ("clean", data.images(&rows, Device::Cpu)),
        ("adversarial", adversarial),
    ];
    let path = task.out.join("examples.safetensors");
    Tensor::write_safetensors(&tensors, &path)
        .map_err(|error| Error::in_file(&path, format!("cannot be written: {error}")))
}

fn evaluation(task: &Task<'_>, spec: &EvaluateSpec) -> Result<Value> {
    let data = images(task, &spec.data)?;
    let &Task { device, work, out, progress, .. } = task;
    let load = || trained(only(task, Role::Classifier), spec.checkpoint, device);
    let model = load()?;
    // Each thread attacks batches of its own, as far as there are some.
    let threads = tch::get_num_threads().max(1) as usize;
    let workers = evaluate::how_many(spec, data.len(), threads, device);
    let helpers = (1..workers).map(|_| load()).collect::<Result<_>>()?;
    let place = Place {
        device,
        work,
        progress,
        model_identity: "",
        save_images: false,
        samples: EXAMPLES,
        helpers: Mutex::new(helpers),
    };
    crate::device::set_threads(threads / workers);
    let evaluation = evaluate::run_in(spec, &Protocol::default(), &*model, &data, &place);
    crate::device::set_threads(threads);
    let evaluation = evaluation?;
    examples(task, spec, &*model, &data)?;
    write_parquet(&out.join("records.parquet"), &evaluation.records)?;
    let path = out.join("evaluation.json");
    let text = serde_json::to_string_pretty(&evaluation).map_err(Error::input)?;
    fs::write(&path, text).at(&path)?;
    Ok(json!({
        "total": evaluation.total,
        "clean": evaluation.clean,
        "robust": evaluation.robust,
        "attacks": evaluation.attacks,
        "warnings": evaluation.warnings,
    }))
}
