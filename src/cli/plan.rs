//! `gauntlet plan`: what a suite would run.

use std::{
    collections::HashSet,
    fmt::Write,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    cli::{
        cells, explain,
        terminal::{print, size},
    },
    digest::JobId,
    error::{AtPath, Result},
    plan::{self, Calibration, Files, Job, Plan, Published, Stage, Surveyor, Work},
    progress::duration,
    run::local,
    store::Store,
    suite::{Suite, reference::Certainty, scale::Scale},
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
    /// Shrinks networks, counts and epochs and keeps the grid: `tiny` runs in minutes.
    #[arg(long, value_name = "SIZE", value_parser = ["tiny"])]
    pub scale: Option<String>,
}

impl Which {
    /// Reads and resolves the suite.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn plan(&self) -> Result<Plan> {
        Ok(self.resolve(&Files)?.1)
    }

    /// The suite and its plan, with estimates for this machine if it has been measured.
    ///
    /// # Errors
    /// Everything that is wrong with the suite.
    pub fn resolve(&self, surveyor: &dyn Surveyor) -> Result<(Suite, Plan)> {
        let mut suite = Suite::load(&self.suite, &self.set)?;
        suite.scale = self.scale.as_ref().map(|_| Scale::Tiny);
        let mut plan = plan::resolve(&suite, &Files::roots(self.data.as_deref()), surveyor)?;
        if let Some(calibration) = calibration(&self.store) {
            plan.calibrate(&calibration);
        }
        Ok((suite, plan))
    }

    fn explain(&self) -> Result<Vec<plan::Explanation>> {
        let mut suite = Suite::load(&self.suite, &self.set)?;
        suite.scale = self.scale.as_ref().map(|_| Scale::Tiny);
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
  gauntlet plan suite.yaml --explain              every value and its origin
  gauntlet plan suite.yaml --explain 3            those of cell 3
  gauntlet plan suite.yaml --graph jobs.svg       a picture of the jobs
  gauntlet plan suite.yaml --as-published         the cost on the whole data sets
  gauntlet plan suite.yaml --json | jq '.jobs[] | select(.needed) | .title'")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Prints one JSON object with cells and jobs.
    #[arg(long)]
    json: bool,
    /// Shows every resolved value and its origin: of all cells, or of one (a number, a label, or axis
    /// values like threat=linf).
    #[arg(long, value_name = "CELL", num_args = 0..=1, default_missing_value = "all")]
    explain: Option<String>,
    /// Draws the job graph (SVG).
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// Takes the data sets at their published sizes, whether or not they are here.
    #[arg(long)]
    as_published: bool,
}

/// Runs the command.
///
/// # Errors
/// Everything that is wrong with the suite.
pub fn run(args: &Args) -> Result<()> {
    let surveyor: &dyn Surveyor = if args.as_published { &Published } else { &Files };
    let (_, plan) = args.which.resolve(surveyor)?;
    let store = Store::at(&args.which.store);
    if let Some(path) = &args.graph {
        let svg = plan::picture::svg(&plan, &|id| store.has(id));
        std::fs::write(path, svg).at(path)?;
    }
    if let Some(cell) = &args.explain {
        let explanations = args.which.explain()?;
        let only = (cell != "all").then(|| cells::find(&plan, cell)).transpose()?;
        if args.json {
            let cells = plan.cells.iter().zip(&explanations).enumerate();
            let cells = cells.filter(|(index, _)| only.is_none_or(|only| only == *index));
            let cells = cells.map(|(index, (cell, e))| {
                json!({"cell": cell.title(), "index": index, "values": e.lines})
            });
            print(&json!(cells.collect::<Vec<_>>()).to_string());
        } else if let Some(index) = only {
            print(&explain::one(&plan, index, &explanations[index]));
        } else {
            print(explain::text(&plan, &explanations).trim_start());
        }
    } else if args.json {
        print(&json(&plan, &store));
    } else {
        print(&text(&plan, &store, &args.which.suite));
    }
    Ok(())
}

/// What `gauntlet calibrate` measured for this store, if it did.
fn calibration(store: &Path) -> Option<Calibration> {
    let text = std::fs::read_to_string(store.join(CALIBRATION)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Name of the file in a store that holds what the machine was measured to do.
pub const CALIBRATION: &str = "calibration.json";

/// The plan for scripts: cells and jobs, each job with `cached` and `needed`.
/// What `--json` prints. Written without building it as a value first: ten thousand cells are 27 MB.
#[derive(serde::Serialize)]
struct Listing<'a> {
    suite: &'a str,
    description: &'a str,
    axes: &'a [plan::PlanAxis],
    cells: &'a [plan::Cell],
    jobs: Vec<Listed<'a>>,
    reference: &'a [plan::PlanReference],
    estimate: serde_json::Value,
}

#[derive(serde::Serialize)]
struct Listed<'a> {
    id: &'a JobId,
    stage: Stage,
    title: String,
    cached: bool,
    needed: bool,
    inputs: &'a [plan::Input],
    cells: &'a [usize],
    estimate: &'a plan::Estimate,
    work: &'a Work,
}

impl<'a> Listed<'a> {
    fn of(job: &'a Job, store: &Store, needed: &HashSet<&JobId>) -> Self {
        let Job { id, stage, work, inputs, cells, estimate, .. } = job;
        let (title, needed) = (work.title(), needed.contains(id));
        let (cached, stage) = (store.has(id), *stage);
        Self { id, stage, title, cached, needed, inputs, cells, estimate, work }
    }
}

fn json(plan: &Plan, store: &Store) -> String {
    let missing = local::missing(&plan.jobs, store);
    let needed: HashSet<&JobId> = missing.iter().map(|job| &job.id).collect();
    let Plan { suite, description, axes, cells, reference, .. } = plan;
    let jobs = plan.jobs.iter().map(|job| Listed::of(job, store, &needed)).collect();
    let estimate = totals(&missing);
    let listing = Listing { suite, description, axes, cells, jobs, reference, estimate };
    serde_json::to_string(&listing).expect("plain data")
}

/// What the jobs take together: peak memory is that of the largest one.
fn totals(jobs: &[&Job]) -> serde_json::Value {
    let sum = |of: &dyn Fn(&Job) -> f64| jobs.iter().map(|job| of(job)).sum::<f64>();
    json!({
        "gmacs": sum(&|job| job.estimate.gmacs),
        "core_minutes": sum(&|job| job.estimate.core_minutes),
        "device_hours": sum(&|job| job.estimate.device_hours),
        "bytes": jobs.iter().map(|job| job.estimate.bytes).sum::<u64>(),
        "memory": jobs.iter().map(|job| job.estimate.memory).max().unwrap_or(0),
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
    for (index, cell) in plan.cells.iter().enumerate().take(LISTED) {
        let ready = cell.evaluations.iter().all(|evaluation| store.has(&evaluation.job));
        let mark = if ready { "done" } else { "    " };
        let threats: Vec<_> =
            cell.evaluations.iter().map(|evaluation| evaluation.threat.to_string()).collect();
        let _ = writeln!(text, "{index:>4} {mark} {}  [{}]", cell.title(), threats.join(", "));
    }
    if plan.cells.len() > LISTED {
        let _ = writeln!(text, "  ... and {} more (--json lists all)", plan.cells.len() - LISTED);
    }
    if !plan.reference.is_empty() {
        let unsure = plan.reference.iter().filter(|r| r.numbers.certainty == Certainty::Unverified);
        let _ = writeln!(
            text,
            "\n{} published numbers to compare with, {} of them unverified",
            plan.reference.len(),
            unsure.count()
        );
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
    let memory = missing.iter().map(|job| job.estimate.memory).max().unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let measured = calibration(store.root());
    let (device, several) = match &measured {
        Some(calibration) if calibration.device != "cpu" => (calibration.device.as_str(), None),
        _ => ("one core", Some(cores)),
    };
    let all = several.map(|cores| {
        format!(", {} on the {cores} cores here", duration(60.0 * minutes / cores as f64))
    });
    let _ = writeln!(
        text,
        "\nabout {} of {device}{}\nup to {} on disk, {} of memory for the largest job",
        duration(60.0 * minutes),
        all.unwrap_or_default(),
        size(bytes),
        size(memory)
    );
    if measured.is_none() {
        let _ = writeln!(text, "(rough: `gauntlet calibrate` measures this machine in seconds)");
    }
}
