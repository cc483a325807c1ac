//! Finds results of gauntlet: a report's folder, an evaluation's folder, a suite with its store.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    cli::gather,
    error::{AtPath, Error, Result},
    evaluate::{Evaluation, spec::EvaluateSpec},
    leaderboard::{Row, frame},
    plan::{self, Files},
    store::Store,
    suite::Suite,
};

/// What `gauntlet evaluate --out` saves, without the examples.
#[derive(Deserialize)]
struct Saved {
    spec: EvaluateSpec,
    arch: Option<String>,
    evaluation: Evaluation,
}

/// A result and, where they are found, its per-example records.
#[derive(Debug, Clone)]
pub struct Found {
    /// The result.
    pub row: Row,
    /// Its `records.parquet`.
    pub records: Option<PathBuf>,
}

/// The results at `path`: a folder that `gauntlet evaluate --out` or `gauntlet report --out`
/// wrote, a `results.json`, or a suite's YAML, whose results `store` holds.
///
/// # Errors
/// If there is nothing of these kinds; the message says what was expected.
pub fn find(path: &Path, store: &Path, data: Option<&Path>) -> Result<Vec<Found>> {
    let saved = path.join("evaluation.json");
    if saved.is_file() {
        return Ok(vec![evaluation(path, &saved)?]);
    }
    let suite = path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml");
    if suite || (!path.exists() && path.as_os_str() == "demo") {
        let plan = plan::resolve(&Suite::load(path, &[])?, &Files::roots(data), &Files)?;
        let rows = gather::rows(&plan, &Store::at(store))?;
        return Ok(with_records(rows, store));
    }
    let results = if path.is_dir() { path.join("results.json") } else { path.to_owned() };
    if !results.is_file() {
        return Err(Error::in_file(
            path,
            "no results here: expected the folder of `gauntlet evaluate --out` (evaluation.json) \
             or of `gauntlet report` (results.json), or a suite's YAML",
        ));
    }
    Ok(with_records(frame::read_json(&results)?, store))
}

fn with_records(rows: Vec<Row>, store: &Path) -> Vec<Found> {
    let place = |row: &Row| store.join("artifacts").join(&row.evaluate_job).join("records.parquet");
    let found = |row: Row| Found { records: Some(place(&row)).filter(|path| path.is_file()), row };
    rows.into_iter().map(found).collect()
}

fn evaluation(folder: &Path, path: &Path) -> Result<Found> {
    let text = fs::read_to_string(path).at(path)?;
    let saved: Saved = serde_json::from_str(&text).map_err(|error| {
        Error::in_file(path, format!("not what `gauntlet evaluate --out` writes: {error}"))
    })?;
    let Saved { spec, arch, evaluation } = saved;
    let absolute = folder.canonicalize().at(folder)?;
    let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let row = Row {
        suite: "evaluate".to_owned(),
        cell: name,
        axes: vec![],
        dataset: spec.data.name.clone(),
        threat: spec.threat,
        evaluation: spec.suite.clone(),
        architecture: arch.unwrap_or_else(|| "unknown".to_owned()),
        generated: 0,
        sampler_steps: None,
        loss: "unknown".to_owned(),
        epochs: None,
        checkpoint: "best".to_owned(),
        seed: spec.seed,
        clean: evaluation.clean,
        robust: evaluation.robust,
        robust_after: evaluation.robust_after(),
        attack_seconds: evaluation
            .attacks
            .iter()
            .map(|cost| (cost.attack.clone(), cost.seconds))
            .collect(),
        train_seconds: None,
        generate_seconds: None,
        fid: None,
        fid_error: None,
        fid_published: false,
        generate_job: None,
        train_job: None,
        evaluate_job: String::new(),
        warnings: evaluation.warnings,
        reference: None,
    };
    let records = folder.join("records.parquet");
    Ok(Found { row, records: Some(records).filter(|path| path.is_file()) })
}
