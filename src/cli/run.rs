//! `gauntlet run`: a suite from end to end.

use std::{
    collections::HashSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{
    cli::{cells, plan::Which, report, screen::Screen, terminal::print},
    device::{self, CudaSupport},
    digest::JobId,
    error::{AtPath, Error, Result},
    plan::{Job, Plan, Stage},
    progress::duration,
    run::{
        Summary,
        local::{self, Policy, Pool, Start},
        signals,
        slurm::{self, Slurm},
    },
    store::Store,
    suite::cluster::Cluster,
};

/// Runs whatever a suite's results still need.
///
/// Results are kept in the store by what they are, so a second run repeats nothing, a changed
/// suite reuses what it shares with the old one, and an interrupted run (Ctrl-C, kill, power)
/// goes on where it was. A job that fails takes only those with it that need its result.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet run                                    the built-in demonstration
  gauntlet run suite.yaml --data ~/datasets
  gauntlet run suite.yaml --jobs 4 --device cpu
  gauntlet run suite.yaml --set train.epochs=2    try it small first
  gauntlet run suite.yaml --scale tiny            the whole grid in miniature
  gauntlet run suite.yaml --only 0 --until train
  gauntlet run suite.yaml --engine slurm --cluster cluster.yaml
  gauntlet run suite.yaml --json > summary.json")]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Folder of the report [default: out/SUITE].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only these cells and what they need: a number, a label, or values of axes like
    /// generated.count=1M,threat=linf; several if repeated.
    #[arg(long, value_name = "CELLS")]
    only: Vec<String>,
    /// Nothing beyond this stage.
    #[arg(long, value_name = "STAGE", value_parser = ["import", "fit", "generate", "label", "train", "evaluate"])]
    until: Option<String>,
    /// Only jobs that a missing result needs (the default).
    #[arg(long, conflicts_with = "all")]
    needed: bool,
    /// Every job that is not in the store, also those that nothing missing needs.
    #[arg(long)]
    all: bool,
    /// After a failure the jobs that do not depend on it go on (the default).
    #[arg(long, conflicts_with = "fail_fast")]
    keep_going: bool,
    /// The first failure ends the run, once running jobs are done.
    #[arg(long)]
    fail_fast: bool,
    /// Ends once everything is submitted (--engine slurm); the same command follows it again.
    #[arg(long)]
    detach: bool,
    /// Ends with one JSON object on standard output that counts the jobs.
    #[arg(long)]
    json: bool,
}

/// Where and how jobs run: common to `run` and `check`.
#[derive(Debug, clap::Args)]
pub struct Settings {
    #[command(flatten)]
    which: Which,
    /// Jobs at once; as many as there are cores or GPUs if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// cpu, cuda (all GPUs), cuda:N (several with commas), or auto (GPUs where there are).
    #[arg(long, default_value = "auto")]
    device: String,
    /// How often a job is started again that was killed or refused a file by the system; after a
    /// kill, which may mean too little memory, with half the batch.
    #[arg(long, value_name = "N", default_value_t = 1)]
    retries: u32,
    /// local: processes on this machine; slurm: arrays on a cluster.
    #[arg(long, default_value = "local", value_parser = ["local", "slurm"])]
    engine: String,
    /// Partition, time, GPUs and the like for --engine slurm.
    #[arg(long, value_name = "FILE", default_value = "cluster.yaml")]
    cluster: PathBuf,
}

impl Settings {
    /// The plan and its store.
    ///
    /// # Errors
    /// Everything that is wrong with the suite; if the store cannot be opened.
    pub fn open(&self) -> Result<(Plan, Store)> {
        Ok((self.which.plan()?, Store::open(&self.which.store)?))
    }
}

/// Runs the command.
///
/// # Errors
/// If the suite is bad, a job failed, or a signal stopped the run.
pub fn run(args: &Args) -> Result<()> {
    let plan = args.settings.which.plan()?;
    let jobs = selected(&plan, args)?;
    let policy =
        Policy { retries: args.settings.retries, fail_fast: args.fail_fast, all: args.all };
    let (store, summary) = carry_out(&args.settings, &jobs, policy, args.detach)?;
    let out = report::folder(args.out.as_deref(), &plan);
    keep_plan(&plan, &out)?;
    let shown = report_of(&plan, &store, &out)?;
    if args.json {
        print(&json_of(&plan, &summary, &out).to_string());
    } else {
        print(&shown);
        print(&text_of(&summary));
    }
    if args.detach {
        print("submitted; the same command without --detach follows it");
        return Ok(());
    }
    verdict(&summary)
}

/// Runs everything that a suite's results need.
///
/// # Errors
/// As [`run`].
pub fn everything(settings: &Settings) -> Result<(Plan, Store)> {
    let plan = settings.which.plan()?;
    let policy = Policy { retries: settings.retries, fail_fast: false, all: false };
    let (store, summary) = carry_out(settings, &plan.jobs, policy, false)?;
    verdict(&summary)?;
    Ok((plan, store))
}

fn carry_out(
    settings: &Settings,
    jobs: &[Job],
    policy: Policy,
    detach: bool,
) -> Result<(Store, Summary)> {
    let stops = signals::count()?;
    let program = std::env::current_exe().at(Path::new("this program"))?;
    let screen = Screen::new();
    if settings.engine == "slurm" {
        let cluster = Cluster::load(&settings.cluster)?;
        let store = Store::open(&settings.which.store)?;
        let slurm = Slurm { cluster: &cluster, program: &program, policy, detach };
        let summary = slurm::run(jobs, &store, &slurm, &screen, &stops)?;
        return Ok((store, summary));
    }
    let store = Store::open(&settings.which.store)?;
    let pool = pool(settings, policy)?;
    let root = store.root().to_owned();
    let launch = move |start: &Start<'_>| worker(&program, &root, start);
    let summary = local::run(jobs, &store, (&pool, &launch), &screen, &stops)?;
    Ok((store, summary))
}

/// The jobs that `--only` and `--until` leave.
fn selected(plan: &Plan, args: &Args) -> Result<Vec<Job>> {
    let mut cells = Vec::new();
    for name in &args.only {
        cells.extend(cells::select(plan, name)?);
    }
    let last = args
        .until
        .as_deref()
        .and_then(|name| Stage::ALL.into_iter().find(|stage| stage.name() == name));
    let wanted = |job: &Job| {
        (args.only.is_empty() || job.cells.iter().any(|cell| cells.contains(cell)))
            && last.is_none_or(|last| job.stage <= last)
    };
    let mut needed: HashSet<&JobId> = HashSet::new();
    // Backwards, so that a job's users are known: a labelling may need a later stage, a training.
    for job in plan.jobs.iter().rev() {
        if wanted(job) || needed.contains(&job.id) {
            needed.insert(&job.id);
            needed.extend(job.inputs.iter().map(|input| &input.id));
        }
    }
    Ok(plan.jobs.iter().filter(|job| needed.contains(&job.id)).cloned().collect())
}

/// The report's table and place; nothing while not one evaluation is there.
fn report_of(plan: &Plan, store: &Store, out: &Path) -> Result<String> {
    let evaluations = plan.cells.iter().flat_map(|cell| &cell.evaluations);
    if evaluations.into_iter().any(|evaluation| store.has(&evaluation.job)) {
        report::write(plan, store, out)
    } else {
        Ok(String::new())
    }
}

/// The process that does one job.
fn worker(program: &Path, store: &Path, start: &Start<'_>) -> Command {
    let mut command = Command::new(program);
    command.args(["exec", "--attached", "--job", start.id.as_str(), "--device", start.device]);
    command.args(["--halvings", &start.halvings.to_string()]);
    command.arg("--store").arg(store).args(["--threads", &start.threads.to_string()]);
    // libtorch reads these before it can be told otherwise.
    command.env("OMP_NUM_THREADS", start.threads.to_string());
    command.env("MKL_NUM_THREADS", start.threads.to_string());
    command
}

fn pool(args: &Settings, policy: Policy) -> Result<Pool> {
    if args.jobs == Some(0) {
        return Err(Error::input("--jobs 0 runs nothing: expected 1 or more"));
    }
    let support = device::load_cuda();
    let count = if let CudaSupport::Devices(count) = support { count } else { 0 };
    let devices = match args.device.as_str() {
        "auto" if count == 0 => vec!["cpu".to_owned()],
        "auto" | "cuda" if count > 0 => (0..count).map(|index| format!("cuda:{index}")).collect(),
        names => names.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    for name in &devices {
        device::choose(name)?;
    }
    Ok(Pool { devices, cores: device::cores(), workers: args.jobs, policy })
}

/// The plan beside the report, so that the report can be made again.
fn keep_plan(plan: &Plan, out: &Path) -> Result<()> {
    fs::create_dir_all(out).at(out)?;
    let (path, beside) = (out.join("plan.json"), out.join("plan.json.tmp"));
    let text = serde_json::to_string_pretty(plan).expect("plans are JSON");
    fs::write(&beside, text).at(&beside)?;
    fs::rename(&beside, &path).at(&path)
}

fn json_of(plan: &Plan, summary: &Summary, out: &Path) -> serde_json::Value {
    let mut object = serde_json::to_value(summary).expect("summaries are JSON");
    object["suite"] = json!(plan.suite);
    object["cells"] = json!(plan.cells.len());
    object["out"] = json!(out);
    object
}

fn text_of(summary: &Summary) -> String {
    let Summary { jobs, run, cached, failed, skipped, .. } = summary;
    let time = duration(summary.seconds);
    let mut text = format!(
        "{jobs} jobs: {run} run, {cached} cached, {failed} failed, {skipped} skipped in {time}"
    );
    for failure in &summary.failures {
        let (id, log) = (failure.id.short(), failure.log.display());
        let _ = write!(text, "\n  {id} {}: {}\n    log: {log}", failure.title, failure.message);
    }
    text
}

fn verdict(summary: &Summary) -> Result<()> {
    if summary.interrupted {
        return Err(Error::Interrupted);
    }
    match summary.failed {
        0 => Ok(()),
        failed => Err(Error::Jobs(format!(
            "{failed} of {} jobs failed and {} were skipped; run the same command again to retry \
             them alone",
            summary.jobs, summary.skipped
        ))),
    }
}
