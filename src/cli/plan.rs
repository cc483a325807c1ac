//! `gauntlet plan`: what a suite would run.

use std::{
    collections::HashSet,
    fmt::Write,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    cli::{
        explain,
        terminal::{duration, print},
    },
    digest::JobId,
    error::Result,
    plan::{self, Files, Plan, Stage},
    run::local,
    store::Store,
    suite::Suite,
};

/// What `plan` and `run` have in common.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// The suite: a YAML file, or `demo`, which is built in.
    #[arg(default_value = "demo")]
    pub suite: PathBuf,
    /// Where results are kept and found again.
    #[arg(long, default_value = ".gauntlet", env = "GAUNTLET_STORE")]
    pub store: PathBuf,
    /// Folder with the data sets (else GAUNTLET_DATA, else ./data).
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Sets a field over the suite, or fixes an axis to one value.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
}

impl Which {
    /// Reads and resolves the suite.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn plan(&self) -> Result<Plan> {
        let suite = Suite::load(&self.suite, &self.set)?;
        plan::resolve(&suite, &Files::roots(self.data.as_deref()), &Files)
    }

    fn explain(&self) -> Result<Vec<plan::Explanation>> {
        let suite = Suite::load(&self.suite, &self.set)?;
        plan::explain(&suite, &Files::roots(self.data.as_deref()), &Files)
    }
}

/// Shows what a suite would run: cells, jobs after sharing, what is cached, what the rest takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet plan                                   the built-in demonstration
  gauntlet plan suite.yaml --data ~/datasets
  gauntlet plan suite.yaml --set train.epochs=10 --set sampler.steps=18
  gauntlet plan suite.yaml --explain | grep train.
  gauntlet plan suite.yaml --json | jq '.jobs[] | select(.needed) | .title'")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Prints one JSON object with cells and jobs.
    #[arg(long)]
    json: bool,
    /// Prints every resolved number with where it comes from: default, preset, line, axis, --set.
    #[arg(long)]
    explain: bool,
}

/// Runs the command.
///
/// # Errors
/// Everything that is wrong with the suite.
pub fn run(args: &Args) -> Result<()> {
    let plan = args.which.plan()?;
    let store = Store::at(&args.which.store);
    if args.explain {
        let explanations = args.which.explain()?;
        if args.json {
            let cells = plan.cells.iter().zip(&explanations);
            let cells = cells.map(|(cell, e)| json!({"cell": cell.title(), "values": e.lines}));
            print(&json!(cells.collect::<Vec<_>>()).to_string());
        } else {
            print(explain::text(&plan, &explanations).trim_start());
        }
    } else if args.json {
        print(&json(&plan, &store).to_string());
    } else {
        print(&text(&plan, &store, &args.which.suite));
    }
    Ok(())
}

/// The plan for scripts: cells and jobs, each job with `cached` and `needed`.
fn json(plan: &Plan, store: &Store) -> serde_json::Value {
    let needed: HashSet<&JobId> =
        local::missing(&plan.jobs, store).iter().map(|job| &job.id).collect();
    let jobs: Vec<_> = plan
        .jobs
        .iter()
        .map(|job| {
            json!({
                "id": job.id,
                "stage": job.stage,
                "title": job.work.title(),
                "cached": store.has(&job.id),
                "needed": needed.contains(&job.id),
                "inputs": job.inputs,
                "cells": job.cells,
                "estimate": job.estimate,
                "work": job.work,
            })
        })
        .collect();
    json!({
        "suite": plan.suite,
        "description": plan.description,
        "axes": plan.axes,
        "cells": plan.cells,
        "jobs": jobs,
    })
}

/// More cells than this are counted, not listed.
const LISTED: usize = 40;

fn text(plan: &Plan, store: &Store, suite: &Path) -> String {
    let mut text = format!("{}: {}\n\n", plan.suite, plan.description);
    for axis in &plan.axes {
        let _ = writeln!(text, "  {:24} {}", axis.path, axis.labels.join(", "));
    }
    let _ = writeln!(text, "\n{} cells", plan.cells.len());
    for cell in plan.cells.iter().take(LISTED) {
        let ready = cell.evaluations.iter().all(|evaluation| store.has(&evaluation.job));
        let mark = if ready { "done" } else { "    " };
        let threats: Vec<_> =
            cell.evaluations.iter().map(|evaluation| evaluation.threat.to_string()).collect();
        let _ = writeln!(text, "  {mark} {}  [{}]", cell.title(), threats.join(", "));
    }
    if plan.cells.len() > LISTED {
        let _ = writeln!(text, "  ... and {} more (--json lists all)", plan.cells.len() - LISTED);
    }
    stages(&mut text, plan, store);
    let _ = writeln!(text, "\ngauntlet run {} carries it out.", suite.display());
    text
}

fn stages(text: &mut String, plan: &Plan, store: &Store) {
    let missing = local::missing(&plan.jobs, store);
    let _ = writeln!(text, "\n{} jobs after sharing", plan.jobs.len());
    let _ = writeln!(
        text,
        "  {:10} {:>6} {:>8} {:>7} {:>14}",
        "stage", "jobs", "cached", "to run", "core time"
    );
    for stage in Stage::ALL {
        let jobs = plan.jobs.iter().filter(|job| job.stage == stage);
        let (all, cached) = jobs
            .fold((0, 0), |(all, cached), job| (all + 1, cached + usize::from(store.has(&job.id))));
        let to_run = missing.iter().filter(|job| job.stage == stage);
        let (count, minutes) = to_run.fold((0, 0.0), |(count, minutes), job| {
            (count + 1, minutes + job.estimate.core_minutes)
        });
        if all > 0 {
            let time = duration(60.0 * minutes);
            let _ =
                writeln!(text, "  {:10} {all:>6} {cached:>8} {count:>7} {time:>14}", stage.name());
        }
    }
    let minutes: f64 = missing.iter().map(|job| job.estimate.core_minutes).sum();
    let bytes: u64 = missing.iter().map(|job| job.estimate.bytes).sum();
    let cores = crate::device::cores();
    let _ = writeln!(
        text,
        "\nabout {} of one core, {} on the {cores} cores here; up to {} MB of results",
        duration(60.0 * minutes),
        duration(60.0 * minutes / cores as f64),
        bytes >> 20
    );
}
