//! `gauntlet report`: the report of a suite from what the store holds.

use std::path::{Path, PathBuf};

use crate::{
    cli::{gather, plan::Which, terminal},
    error::Result,
    plan::Plan,
    report::{self, table},
    store::Store,
};

/// Writes the report of a suite again, from what the store holds.
///
/// It computes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet report suites/demo.yaml                     into out/demo
  gauntlet report my.yaml --store /data/store --out paper

Cells whose evaluation is not in the store are left out; `gauntlet plan` says which.")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Folder of the report [default: out/SUITE].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// If the suite is wrong, or the store holds none of its evaluations.
pub fn run(args: &Args) -> Result<()> {
    let plan = args.which.plan()?;
    let store = Store::at(&args.which.store);
    let page = write(&plan, &store, &folder(args.out.as_deref(), &plan))?;
    terminal::print(&page);
    Ok(())
}

/// The report's folder: the one given, else one of the suite's name under `out`.
pub fn folder(given: Option<&Path>, plan: &Plan) -> PathBuf {
    given.map_or_else(|| Path::new("out").join(&plan.suite), Path::to_owned)
}

/// Writes the report of `plan` into `folder` and gives what the terminal shows of it: the table
/// and the path of the HTML page.
///
/// # Errors
/// As [`gather::input`]; if a file cannot be written.
pub fn write(plan: &Plan, store: &Store, folder: &Path) -> Result<String> {
    let command: Vec<_> = std::env::args().skip(1).collect();
    let input = gather::input(plan, store, format!("gauntlet {}", command.join(" ")))?;
    let written = report::write(&input, folder)?;
    let table = table::terminal(&input.rows, 80);
    Ok(format!("\n{table}\nreport: {}", written.html.display()))
}
