//! What a report is made from, gathered from a plan and the store: rows, sample grids, learning
//! curves and provenance.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;

use crate::{
    data::{self, Dataset, spec::Source},
    digest::JobId,
    error::{AtPath, Error, Result},
    evaluate::Evaluation,
    leaderboard::Row,
    plan::{Cell, CellEvaluation, Plan, Stage, Work},
    report::{Curve, Grid, GridImage, Input, Provenance},
    store::{Artifact, Lookup, Store},
    train::spec::TrainSpec,
};

/// Rows of samples in a grid; one column for each class.
const SAMPLES_PER_CLASS: usize = 3;
/// Classes shown in a grid: a hundred columns would be dots.
const CLASSES_SHOWN: usize = 10;

/// Everything that the report of `plan` shows, as far as `store` holds it. `command` is what the
/// user typed.
///
/// # Errors
/// If an artifact is damaged, or if not one evaluation is there.
pub fn input(plan: &Plan, store: &Store, command: String) -> Result<Input> {
    let rows = rows(plan, store)?;
    let small_scale = rows.iter().any(|row| !row.is_comparable());
    Ok(Input {
        suite: plan.suite.clone(),
        description: plan.description.clone(),
        rows,
        grids: grids(plan, store)?,
        curves: curves(plan, store)?,
        provenance: provenance(plan, store),
        pivot: pivot(plan),
        small_scale,
        command,
        versions: vec![
            ("gauntlet".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("commit".to_owned(), env!("GAUNTLET_COMMIT").to_owned()),
            ("libtorch".to_owned(), crate::device::LIBTORCH_VERSION.to_owned()),
        ],
    })
}

/// The results of `plan` that `store` holds.
///
/// # Errors
/// As [`input`].
pub fn rows(plan: &Plan, store: &Store) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for cell in &plan.cells {
        for evaluation in &cell.evaluations {
            if let Lookup::Hit(artifact) = store.lookup(&evaluation.job) {
                rows.push(row(plan, cell, evaluation, &artifact, store)?);
            }
        }
    }
    complete_axes(&mut rows);
    if rows.is_empty() {
        return Err(Error::input(format!(
            "suite {}: the store {} holds none of its evaluations yet; run `gauntlet run` first",
            plan.suite,
            store.root().display()
        )));
    }
    Ok(rows)
}

/// An extra cell may say what the axes' cells leave to the sections above them: there the value is
/// the objective that the classifier was trained with.
fn complete_axes(rows: &mut [Row]) {
    const LOSS: &str = "train.loss";
    if rows.iter().any(|row| row.axis(LOSS).is_some()) {
        for row in rows.iter_mut().filter(|row| row.axis(LOSS).is_none()) {
            row.axes.push((LOSS.to_owned(), row.loss.clone()));
        }
    }
}

/// `report: {rows: axis, columns: axis}` of the suite.
fn pivot(plan: &Plan) -> Option<(String, String)> {
    let axis = |name: &str| plan.report.get(name)?.as_str().map(str::to_owned);
    Some((axis("rows")?, axis("columns")?))
}

fn row(
    plan: &Plan,
    cell: &Cell,
    evaluation: &CellEvaluation,
    artifact: &Artifact,
    store: &Store,
) -> Result<Row> {
    let result: Evaluation = read_json(&artifact.file("evaluation.json"))?;
    let Some(Work::Evaluate(spec)) = plan.job(&evaluation.job).map(|job| &job.work) else {
        panic!("a cell's evaluation is an evaluation job of its plan");
    };
    let Some(Work::Train(train)) = plan.job(&cell.train).map(|job| &job.work) else {
        panic!("a cell's classifier is a training job of its plan");
    };
    let generates = train.generated > 0;
    let seconds = |id: &JobId| match store.lookup(id) {
        Lookup::Hit(artifact) => Some(artifact.manifest.provenance.seconds),
        _ => None,
    };
    // Without generated images no sampler ran: its axes say nothing about this row.
    let says = |path: &str| generates || !path.starts_with("sampler.");
    let values = cell.values.iter().filter(|value| says(&value.path));
    let mut axes: Vec<_> = values.map(|value| (value.path.clone(), value.label.clone())).collect();
    if !axes.iter().any(|(path, _)| path == "threat") {
        axes.push(("threat".to_owned(), evaluation.name.clone()));
    }
    Ok(Row {
        suite: plan.suite.clone(),
        cell: cell.title(),
        axes,
        dataset: spec.data.name.clone(),
        threat: evaluation.threat,
        evaluation: spec.suite.clone(),
        architecture: train.network.arch.clone(),
        generated: train.generated,
        sampler_steps: if generates { sampler_steps(plan, cell) } else { None },
        loss: name_of(&train.loss),
        epochs: Some(train.epochs),
        checkpoint: name_of(&spec.checkpoint),
        seed: train.seed,
        clean: result.clean,
        robust: result.robust,
        robust_after: result.robust_after(),
        attack_seconds: result
            .attacks
            .iter()
            .map(|cost| (cost.attack.clone(), cost.seconds))
            .collect(),
        train_seconds: seconds(&cell.train),
        generate_seconds: generates.then(|| cell.generated.iter().filter_map(seconds).sum()),
        fid: None,
        generate_job: cell.generated.first().map(ToString::to_string),
        train_job: Some(cell.train.to_string()),
        evaluate_job: evaluation.job.to_string(),
        warnings: result.warnings,
    })
}

fn sampler_steps(plan: &Plan, cell: &Cell) -> Option<u64> {
    match &plan.job(cell.generated.first()?)?.work {
        Work::Generate(spec) => Some(spec.sampler.steps),
        _ => None,
    }
}

/// The YAML name of a unit enum.
fn name_of(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).at(path)?;
    serde_json::from_str(&text).map_err(|error| Error::in_file(path, error))
}

/// One grid of real images, then one for each generated set that is in the store.
fn grids(plan: &Plan, store: &Store) -> Result<Vec<Grid>> {
    let mut grids = Vec::new();
    let mut names = Vec::new();
    let first_training = plan.jobs.iter().find_map(|job| match &job.work {
        Work::Train(spec) => Some((&spec.data, &job.roots)),
        _ => None,
    });
    if let Some((source, roots)) = first_training {
        let real = load(source, roots)?;
        names.clone_from(&real.classes);
        let caption = "What the denoiser learned from, for comparison.".to_owned();
        grids.push(grid(&real, format!("Real training images of {}", source.name), caption));
    }
    for job in &plan.jobs {
        let (Work::Generate(spec), Lookup::Hit(artifact)) = (&job.work, store.lookup(&job.id))
        else {
            continue;
        };
        if spec.start > 0 {
            continue;
        }
        let set = data::generated::read(&artifact.file("images.npz"), "generated", &names)?;
        let steps = spec.sampler.steps;
        let title = format!("Generated with {steps} sampler steps");
        let caption = format!(
            "The first images of the set of job {}, one class to a column; nothing was selected.",
            job.id.short()
        );
        grids.push(grid(&set, title, caption));
    }
    Ok(grids)
}

fn load(source: &Source, roots: &[std::path::PathBuf]) -> Result<Dataset> {
    let mut searched = roots.to_vec();
    searched.extend(data::roots(None));
    data::load(&source.name, source.split, source.resolution, &searched)?
        .subset(source.skip, source.count)
}

/// The first images of each of the first classes, a class to a column.
fn grid(set: &Dataset, title: String, caption: String) -> Grid {
    let classes = set.classes.len().min(CLASSES_SHOWN);
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (index, &label) in set.labels.iter().enumerate() {
        match columns.get_mut(usize::from(label)) {
            Some(column) if column.len() < SAMPLES_PER_CLASS => column.push(index),
            _ => {}
        }
        if columns.iter().all(|column| column.len() == SAMPLES_PER_CLASS) {
            break;
        }
    }
    columns.retain(|column| !column.is_empty());
    let depth = columns.iter().map(Vec::len).min().unwrap_or(0);
    let images = (0..depth)
        .flat_map(|line| columns.iter().map(move |column| column[line]))
        .map(|index| image(set, index))
        .collect();
    Grid { title, caption, columns: columns.len(), images }
}

fn image(set: &Dataset, index: usize) -> GridImage {
    let (height, width) = set.size;
    let mut chw = vec![0; set.image_bytes()];
    set.copy_chw(index, &mut chw);
    let plane = height * width;
    let rgb = (0..plane).flat_map(|at| [chw[at], chw[plane + at], chw[2 * plane + at]]).collect();
    let label = set.classes[usize::from(set.labels[index])].clone();
    GridImage { label, width: width as u32, height: height as u32, rgb }
}

#[derive(Deserialize)]
struct FitLine {
    images: u64,
    loss: f64,
}

#[derive(Deserialize)]
struct TrainLine {
    epoch: u64,
    clean: Option<f64>,
    robust: Option<f64>,
    validation: Option<crate::train::validate::Scores>,
}

/// The lines of a log; a line that is not whole is left out.
fn lines<T: for<'de> Deserialize<'de>>(path: &Path) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn curves(plan: &Plan, store: &Store) -> Result<Vec<Curve>> {
    let mut curves = Vec::new();
    for job in &plan.jobs {
        let Lookup::Hit(artifact) = store.lookup(&job.id) else { continue };
        let log = artifact.file("log.jsonl");
        match &job.work {
            Work::Fit(_) => {
                let points: Vec<_> =
                    lines::<FitLine>(&log).iter().map(|l| (l.images as f64, l.loss)).collect();
                curves.push(Curve {
                    title: format!("{} ({})", job.work.title(), job.id.short()),
                    x_label: "images seen".to_owned(),
                    y_label: "denoising loss".to_owned(),
                    lines: vec![("loss".to_owned(), points)],
                });
            }
            Work::Train(spec) => curves.push(training(spec, job.work.title(), &lines(&log))),
            _ => {}
        }
    }
    Ok(curves)
}

fn training(spec: &TrainSpec, title: String, log: &[TrainLine]) -> Curve {
    let series = |value: &dyn Fn(&TrainLine) -> Option<f64>| -> Vec<(f64, f64)> {
        log.iter().filter_map(|line| Some((line.epoch as f64, value(line)?))).collect()
    };
    let held_out = |line: &TrainLine| line.validation.as_ref().map(|scores| scores.clean.percent());
    let pgd = |line: &TrainLine| Some(line.validation.as_ref()?.robust?.percent());
    let named = [
        ("training batches, clean", series(&|line| line.clean)),
        ("training batches, crafted", series(&|line| line.robust)),
        ("held out, clean", series(&held_out)),
        ("held out, PGD", series(&pgd)),
    ];
    let lines = named
        .into_iter()
        .filter(|(_, points)| !points.is_empty())
        .map(|(name, points)| (name.to_owned(), points))
        .collect();
    Curve {
        title: format!("{title}, seed {}", spec.seed),
        x_label: "epoch".to_owned(),
        y_label: "accuracy (%)".to_owned(),
        lines,
    }
}

/// How every job in the store that the plan uses came to be.
fn provenance(plan: &Plan, store: &Store) -> Vec<Provenance> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for job in &plan.jobs {
        let Lookup::Hit(artifact) = store.lookup(&job.id) else { continue };
        if !seen.insert(job.id.clone()) {
            continue;
        }
        let from = &artifact.manifest.provenance;
        let mut facts = vec![
            ("job".to_owned(), job.work.title()),
            ("seconds".to_owned(), format!("{:.1}", from.seconds)),
            ("device".to_owned(), from.device.clone()),
            ("threads".to_owned(), from.threads.to_string()),
            ("host".to_owned(), from.host.clone()),
            ("gauntlet".to_owned(), format!("{} {}", from.gauntlet, from.commit)),
            ("libtorch".to_owned(), from.libtorch.clone()),
        ];
        facts.extend(artifact.manifest.files.iter().map(|file| {
            (file.name.clone(), format!("{} bytes, blake3 {}", file.bytes, &file.blake3[..16]))
        }));
        found.push(Provenance {
            job: job.id.to_string(),
            stage: stage_name(job.stage),
            spec: from.spec.clone(),
            inputs: job.inputs.iter().map(|input| input.id.to_string()).collect(),
            facts,
        });
    }
    found
}

fn stage_name(stage: Stage) -> String {
    stage.name().to_owned()
}
