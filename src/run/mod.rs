//! Carrying out a plan: one process for each job, any number at once, resumable anywhere.

pub mod exec;
pub mod local;
mod memory;
mod sbatch;
pub mod signals;
pub mod slurm;
pub mod stages;
pub mod wire;
mod worker;

use std::path::Path;

use serde::Serialize;
use tch::Device;

use crate::{
    digest::JobId,
    error::Result,
    plan::{Job, Role, Stage},
    progress::{Event, Progress},
    store::Artifact,
};

/// What a stage gets to do one job.
pub struct Task<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its inputs in order.
    pub inputs: &'a [(Role, Artifact)],
    /// Where to compute.
    pub device: Device,
    /// What to resume from; survives interruptions.
    pub work: &'a Path,
    /// Where results go.
    pub out: &'a Path,
    /// Whom to tell, and who says stop.
    pub progress: &'a dyn Progress,
}

/// The stages as `exec` calls them; tests put others in their place.
pub trait Stages: Sync {
    /// Does the job and says a few words on it for the manifest.
    ///
    /// # Errors
    /// Whatever keeps the job from its result.
    fn run(&self, task: &Task<'_>) -> Result<serde_json::Value>;
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It ran and its result is in the store.
    Ran,
    /// Another process had done it meanwhile.
    Shared,
    /// It failed; the message says why.
    Failed(String),
    /// It needs the result of a job that failed.
    Skipped(JobId),
    /// It was asked to stop and saved what it had.
    Interrupted,
}

/// Told about everything that happens in a run; prints bars, lines or nothing.
pub trait Watcher {
    /// Before anything starts: all jobs of the plan, how many are done, and which will run.
    fn planned(&self, jobs: usize, cached: usize, missing: &[&Job]);
    /// A job starts.
    fn started(&self, job: &Job, device: &str, threads: usize);
    /// A running job reports.
    fn progress(&self, job: &Job, event: &Event);
    /// A job ended.
    fn finished(&self, job: &Job, outcome: &Outcome, seconds: f64);
    /// Somebody asked the run to stop; running jobs are saving.
    fn stopping(&self);
}

/// A job that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// The job.
    pub id: JobId,
    /// Its stage.
    pub stage: Stage,
    /// What it was.
    pub title: String,
    /// Why.
    pub message: String,
    /// Where its whole output is.
    pub log: std::path::PathBuf,
}

/// What became of a run. `run + cached + failed + skipped` is `jobs` unless it was interrupted.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Summary {
    /// All jobs of the plan.
    pub jobs: usize,
    /// Jobs that ran to their end.
    pub run: usize,
    /// Jobs whose results were there, or that nothing missing depends on.
    pub cached: usize,
    /// Jobs that failed.
    pub failed: usize,
    /// Jobs left out because an input failed.
    pub skipped: usize,
    /// Whether somebody stopped it.
    pub interrupted: bool,
    /// How long it took.
    pub seconds: f64,
    /// The failures in order.
    pub failures: Vec<Failure>,
}

#[cfg(test)]
mod tests;
