//! What a report is made from, gathered from a plan and the store: rows, sample grids, learning
//! curves and provenance.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    cli::sheets,
    diffusion::quality::Quality,
    digest::JobId,
    error::{AtPath, Error, Result},
    evaluate::Evaluation,
    leaderboard::{
        Row,
        aggregate::summarise,
        row::{Reference, is_seed},
    },
    plan::{Cell, CellEvaluation, Job, Plan, Stage, Work, file_name},
    report::{Curve, Input, Provenance},
    store::{Artifact, Lookup, Store},
    train::spec::TrainSpec,
};

/// Bytes from the end of a job's log that a report takes along.
const LOG: usize = 256 << 10;

/// Everything that the report of `plan` shows, as far as `store` holds it. `command` is what the
/// user typed.
///
/// # Errors
/// If an artifact is damaged, or if not one evaluation is there.
pub fn input(plan: &Plan, store: &Store, command: String) -> Result<Input> {
    let rows = rows(plan, store)?;
    let small_scale = rows.iter().any(|row| !row.is_comparable());
    let (mut grids, classes) = sheets::samples(plan, store)?;
    grids.extend(sheets::attacks(&rows, store, &classes)?);
    Ok(Input {
        suite: plan.suite.clone(),
        description: plan.description.clone(),
        rows,
        grids,
        curves: curves(plan, store),
        provenance: provenance(plan, store),
        layout: plan.report.clone(),
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
    for (at, cell) in plan.cells.iter().enumerate() {
        for evaluation in &cell.evaluations {
            if let Lookup::Hit(artifact) = store.lookup(&evaluation.job) {
                let mut row = row(plan, cell, evaluation, &artifact, store)?;
                row.reference = reference(plan, at, evaluation);
                rows.push(row);
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

/// The records of an evaluation must add up to what it says.
fn contradiction(result: &Evaluation, artifact: &Artifact) -> Result<Option<String>> {
    let path = artifact.file("records.parquet");
    if !path.is_file() {
        return Ok(None);
    }
    let found = summarise(&path)?;
    let agree = (found.clean, found.robust) == (result.clean, result.robust);
    Ok((!agree).then(|| {
        format!(
            "records.parquet adds up to {} right and {} robust of {}, evaluation.json says {} and \
             {} of {}",
            found.clean.correct,
            found.robust.correct,
            found.robust.total,
            result.clean.correct,
            result.robust.correct,
            result.robust.total
        )
    }))
}

/// The published result for a cell. Where a cell is attacked under several threat models it speaks
/// of the cell's own.
fn reference(plan: &Plan, at: usize, evaluation: &CellEvaluation) -> Option<Reference> {
    let cell = &plan.cells[at];
    let own =
        cell.values.iter().find(|value| value.path == "threat").and_then(|v| v.value.as_str());
    let own = own.or_else(|| cell.evaluations.first().map(|first| first.name.as_str()));
    if cell.evaluations.len() > 1 && own != Some(evaluation.name.as_str()) {
        return None;
    }
    let found = plan.reference.iter().find(|one| one.cells.contains(&at))?;
    Some(Reference {
        clean: found.numbers.clean,
        robust: found.numbers.robust,
        fid: found.numbers.fid,
        source: found.numbers.source.clone(),
        certainty: found.numbers.certainty.name().to_owned(),
    })
}

fn row(
    plan: &Plan,
    cell: &Cell,
    evaluation: &CellEvaluation,
    artifact: &Artifact,
    store: &Store,
) -> Result<Row> {
    let mut result: Evaluation = read_json(&artifact.file("evaluation.json"))?;
    result.warnings.extend(contradiction(&result, artifact)?);
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
    let quality = quality(cell, store)?;
    Ok(Row {
        suite: plan.suite.clone(),
        cell: Some(cell.title()).filter(|t| !t.is_empty()).unwrap_or_else(|| plan.suite.clone()),
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
        generate_seconds: generates
            .then(|| plan.makers(cell).iter().filter_map(|job| seconds(&job.id)).sum()),
        fid: quality.as_ref().map(|quality| quality.fid),
        fid_error: quality.as_ref().and_then(|quality| quality.fid_error),
        fid_published: quality.is_some_and(|quality| quality.published),
        generate_job: cell.generated.first().map(ToString::to_string),
        train_job: Some(cell.train.to_string()),
        evaluate_job: evaluation.job.to_string(),
        warnings: result.warnings,
        reference: None,
    })
}

/// What was found about the generated images of a cell.
fn quality(cell: &Cell, store: &Store) -> Result<Option<Quality>> {
    match cell.quality.as_ref().map(|id| store.lookup(id)) {
        Some(Lookup::Hit(artifact)) => Quality::read(&artifact.file("quality.json")).map(Some),
        _ => Ok(None),
    }
}

fn sampler_steps(plan: &Plan, cell: &Cell) -> Option<u64> {
    plan.makers(cell).iter().find_map(|job| match &job.work {
        Work::Generate(spec) => Some(spec.sampler.steps),
        _ => None,
    })
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

fn curves(plan: &Plan, store: &Store) -> Vec<Curve> {
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
                    setting: String::new(),
                    seed: None,
                    x_label: "images seen".to_owned(),
                    y_label: "denoising loss".to_owned(),
                    lines: vec![("loss".to_owned(), points)],
                });
            }
            Work::Train(spec) => {
                let curve = training(spec, job.work.title(), &lines(&log));
                curves.push(Curve { setting: setting(plan, job), ..curve });
            }
            _ => {}
        }
    }
    curves
}

/// The axis values of the first cell that a job serves, without seeds.
fn setting(plan: &Plan, job: &Job) -> String {
    let Some(cell) = job.cells.first().and_then(|at| plan.cells.get(*at)) else {
        return String::new();
    };
    let values = cell.values.iter().filter(|value| !is_seed(&value.path));
    values.map(|value| format!("{}={}", value.path, value.label)).collect::<Vec<_>>().join(" ")
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
        title,
        setting: String::new(),
        seed: Some(spec.seed),
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
            spec: without_folders(from.spec.clone()),
            inputs: job.inputs.iter().map(|input| input.id.to_string()).collect(),
            facts,
            log: log(&store.log(&job.id)),
        });
    }
    found
}

/// Names files without the folders they lay in: reports go to people whom these do not concern, such
/// as reviewers who must not learn who wrote the paper. The content is told by its hash.
fn without_folders(mut spec: Value) -> Value {
    for (stage, key) in [("import", "path"), ("reference", "paths")] {
        let Some(place) = spec.get_mut(stage).and_then(|work| work.get_mut(key)) else { continue };
        let paths = match place {
            Value::Array(paths) => paths.iter_mut().collect(),
            one => vec![one],
        };
        for path in paths {
            *path = path.as_str().map_or(Value::Null, |text| file_name(Path::new(text)).into());
        }
    }
    spec
}

/// What a job printed, or its end, without the lines that say how it was started.
fn log(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let said = |line: &&str| !line.starts_with("--- ") && !line.trim().is_empty();
    let mut left = LOG;
    let fits = |line: &&str| {
        left = left.saturating_sub(line.len() + 1);
        left > 0
    };
    let mut lines: Vec<&str> = text.lines().rev().filter(said).take_while(fits).collect();
    lines.reverse();
    lines.join("\n")
}

fn stage_name(stage: Stage) -> String {
    stage.name().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_does_not_say_where_files_lay() {
        let import = json!({"import": {"path": "/home/me/d.pkl", "blake3": "b", "name": "n"}});
        assert_eq!(without_folders(import)["import"]["path"], "d.pkl");
        let reference = json!({"reference": {"paths": ["/home/me/1.npz", "x/2.npz"]}});
        assert_eq!(without_folders(reference)["reference"]["paths"], json!(["1.npz", "2.npz"]));
        let train = json!({"train": {"epochs": 3}});
        assert_eq!(without_folders(train.clone()), train);
    }
}
