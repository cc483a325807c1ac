//! `gauntlet run`: a suite from end to end.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{
    cli::{
        plan::Which,
        report,
        terminal::{Screen, duration, print},
    },
    device::{self, CudaSupport},
    error::{AtPath, Error, Result},
    plan::Plan,
    run::{
        Summary,
        local::{self, Pool, Start},
        signals,
    },
    store::Store,
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
  gauntlet run suite.yaml --json > summary.json

Exit codes: 0 done, 1 a job failed, 2 bad suite or data, 3 the system refused, 130 stopped and saved.")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Folder of the report [default: out/SUITE].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Jobs at once; as many as there are cores or GPUs if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// cpu, cuda (all GPUs), cuda:N (several with commas), or auto (GPUs where there are).
    #[arg(long, default_value = "auto")]
    device: String,
    /// Ends with one JSON object on standard output that counts the jobs.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If the suite is bad, a job failed, or a signal stopped the run.
pub fn run(args: &Args) -> Result<()> {
    let stops = signals::count()?;
    let plan = args.which.plan()?;
    let store = Store::open(&args.which.store)?;
    let pool = pool(args)?;
    let program = std::env::current_exe().at(Path::new("this program"))?;
    let root = store.root().to_owned();
    let launch = move |start: &Start<'_>| worker(&program, &root, start);
    let screen = Screen::new();
    let summary = local::run(&plan.jobs, &store, (&pool, &launch), &screen, &stops)?;
    let out = report::folder(args.out.as_deref(), &plan);
    keep_plan(&plan, &out)?;
    let shown = report_of(&plan, &store, &out)?;
    if args.json {
        print(&json_of(&plan, &summary, &out).to_string());
    } else {
        print(&shown);
        print(&text_of(&summary));
    }
    verdict(&summary)
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
    command.arg("--store").arg(store).args(["--threads", &start.threads.to_string()]);
    // libtorch reads these before it can be told otherwise.
    command.env("OMP_NUM_THREADS", start.threads.to_string());
    command.env("MKL_NUM_THREADS", start.threads.to_string());
    command
}

fn pool(args: &Args) -> Result<Pool> {
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
    Ok(Pool { devices, cores: device::cores(), workers: args.jobs })
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
