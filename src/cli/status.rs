//! `gauntlet status` and `gauntlet log`: how a run stands, from any terminal.

use std::{
    fmt::Write,
    fs,
    io::{Read, Seek},
    path::PathBuf,
    time::Duration,
};

use serde_json::json;

use crate::{
    cli::{plan::Which, terminal::print},
    error::{AtPath, Error, Result},
    plan::{Job, Plan, Stage},
    run::local,
    store::Store,
};

/// Shows how far a suite is: jobs done, running (where), failed (why), waiting.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet status suite.yaml
  gauntlet status suite.yaml --json | jq '.jobs[] | select(.state == \"failed\")'")]
pub struct StatusArgs {
    #[command(flatten)]
    which: Which,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// Prints what a job wrote while it ran.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet log 0d5c2f7ab1
  gauntlet log 0d5c2f7ab1 --follow")]
pub struct LogArgs {
    /// The job's id, or its first digits.
    job: String,
    /// The store that knows the job.
    #[arg(long, default_value = ".gauntlet", env = "GAUNTLET_STORE")]
    store: PathBuf,
    /// Waits for more until the job ends.
    #[arg(long)]
    follow: bool,
}

/// What a job is doing, and a word on it.
fn state(store: &Store, job: &Job, needed: bool) -> (&'static str, String) {
    if store.has(&job.id) {
        return ("done", String::new());
    }
    if let Some(owner) = store.running(&job.id) {
        return ("running", owner);
    }
    if let Some(failed) = store.failure(&job.id) {
        return ("failed", failed.message);
    }
    (if needed { "waiting" } else { "not needed" }, String::new())
}

/// Runs `gauntlet status`.
///
/// # Errors
/// Everything that is wrong with the suite.
pub fn run(args: &StatusArgs) -> Result<()> {
    let plan = args.which.plan()?;
    let store = Store::at(&args.which.store);
    let needed = local::missing(&plan.jobs, &store);
    let states: Vec<_> = plan
        .jobs
        .iter()
        .map(|job| state(&store, job, needed.iter().any(|other| other.id == job.id)))
        .collect();
    if args.json {
        let jobs: Vec<_> = plan
            .jobs
            .iter()
            .zip(&states)
            .map(|(job, (state, note))| {
                json!({ "id": job.id, "stage": job.stage, "title": job.work.title(),
                        "state": state, "note": note })
            })
            .collect();
        print(&json!({ "suite": plan.suite, "jobs": jobs }).to_string());
    } else {
        print(&text(&plan, &states));
    }
    Ok(())
}

const STATES: [&str; 5] = ["done", "running", "failed", "waiting", "not needed"];

fn text(plan: &Plan, states: &[(&str, String)]) -> String {
    let mut text = format!("{}\n\n  {:10}", plan.suite, "stage");
    for state in STATES {
        let _ = write!(text, " {state:>10}");
    }
    text.push('\n');
    for stage in Stage::ALL {
        let own: Vec<_> =
            plan.jobs.iter().zip(states).filter(|(job, _)| job.stage == stage).collect();
        if own.is_empty() {
            continue;
        }
        let _ = write!(text, "  {:10}", stage.name());
        for wanted in STATES {
            let count = own.iter().filter(|(_, (state, _))| *state == wanted).count();
            let _ = write!(text, " {count:>10}");
        }
        text.push('\n');
    }
    for (job, (state, note)) in plan.jobs.iter().zip(states) {
        if matches!(*state, "running" | "failed") {
            let first = note.lines().next().unwrap_or_default();
            let _ = write!(
                text,
                "\n{state:8} {} {}\n         {first}",
                job.id.short(),
                job.work.title()
            );
        }
    }
    text
}

/// Runs `gauntlet log`.
///
/// # Errors
/// If there is no such job, or nothing is logged of it.
pub fn log(args: &LogArgs) -> Result<()> {
    let store = Store::at(&args.store);
    let id = store.find(&args.job)?;
    let path = store.log(&id);
    if !path.exists() {
        return Err(Error::in_file(&path, "nothing is logged: the job never ran here"));
    }
    let mut file = fs::File::open(&path).at(&path)?;
    let mut position = 0;
    loop {
        let going = store.running(&id).is_some();
        file.seek(std::io::SeekFrom::Start(position)).at(&path)?;
        let mut bytes = Vec::new();
        position += file.read_to_end(&mut bytes).at(&path)? as u64;
        if !bytes.is_empty() {
            print(&String::from_utf8_lossy(&bytes));
        }
        if !args.follow || !going {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    if let Some(failed) = store.failure(&id) {
        print(&format!("--- failed on {}: {}", failed.host, failed.message));
    }
    Ok(())
}
