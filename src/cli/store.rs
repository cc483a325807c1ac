//! `gauntlet store`: what a store holds, whether it is whole, what may go, and moving it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    cli::terminal::{print, size},
    digest::JobId,
    error::{Error, Result},
    plan::{self, Files},
    store::{Lookup, Store},
    suite::Suite,
};

/// Looks after a store: lists, verifies, cleans, exports, imports.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet store ls
  gauntlet store verify                            reads every byte
  gauntlet store gc --keep suites/demo.yaml        says what would go; --yes removes it
  gauntlet store export results.tar --suite suites/demo.yaml
  gauntlet store import results.tar --store /data/store")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// The store.
    #[arg(long, default_value = ".gauntlet", env = "GAUNTLET_STORE", global = true)]
    store: PathBuf,
    /// Folder with the data sets, to read the suites that are named.
    #[arg(long, global = true)]
    data: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists every artifact: id, stage, size, what it is.
    Ls {
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Compares every byte with the manifests; exits 1 if anything is damaged.
    Verify {
        /// Ids, or their first digits; all if not given.
        jobs: Vec<String>,
    },
    /// Removes what the named suites do not need, and what dead attempts left.
    Gc {
        /// A suite whose results are kept; several if repeated.
        #[arg(long, value_name = "SUITE")]
        keep: Vec<PathBuf>,
        /// Removes; without it, only says what would go.
        #[arg(long)]
        yes: bool,
    },
    /// Writes artifacts into one tar file.
    Export {
        /// The file.
        file: PathBuf,
        /// Only what this suite uses; several if repeated.
        #[arg(long, value_name = "SUITE")]
        suite: Vec<PathBuf>,
        /// Only these jobs (ids or their first digits).
        #[arg(long, value_name = "ID")]
        job: Vec<String>,
    },
    /// Takes in what `export` wrote, checked against its manifests.
    Import {
        /// The file.
        file: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// If the store cannot be read or written, or something in it is damaged.
pub fn run(args: &Args) -> Result<()> {
    let store = Store::at(&args.store);
    match &args.action {
        Action::Ls { json } => list(&store, *json),
        Action::Verify { jobs } => verify(&store, jobs),
        Action::Gc { keep, yes } => gc(&args.store, &suites(keep, args.data.as_deref())?, *yes),
        Action::Export { file, suite, job } => {
            let mut ids: Vec<JobId> = if suite.is_empty() && job.is_empty() {
                store.ids()?
            } else {
                let wanted = suites(suite, args.data.as_deref())?;
                store.ids()?.into_iter().filter(|id| wanted.contains(id)).collect()
            };
            for start in job {
                ids.push(store.find(start)?);
            }
            ids.sort_unstable();
            ids.dedup();
            store.export(&ids, file)?;
            print(&format!("{} artifacts in {}", ids.len(), file.display()));
            Ok(())
        }
        Action::Import { file } => {
            let imported = Store::open(&args.store)?.import(file)?;
            let (added, known) = (imported.added.len(), imported.known);
            print(&format!("{added} artifacts added, {known} were here already"));
            Ok(())
        }
    }
}

/// The jobs of the suites in `paths`.
fn suites(paths: &[PathBuf], data: Option<&Path>) -> Result<HashSet<JobId>> {
    let mut ids = HashSet::new();
    for path in paths {
        let suite = Suite::load(path, &[])?;
        let plan = plan::resolve(&suite, &Files::roots(data), &Files)?;
        ids.extend(plan.jobs.into_iter().map(|job| job.id));
    }
    Ok(ids)
}

fn list(store: &Store, as_json: bool) -> Result<()> {
    let mut lines = Vec::new();
    let mut objects = Vec::new();
    let mut total = 0;
    for id in store.ids()? {
        match store.lookup(&id) {
            Lookup::Hit(artifact) => {
                let manifest = &artifact.manifest;
                let bytes = manifest.files.iter().map(|file| file.bytes).sum::<u64>();
                total += bytes;
                let title = serde_json::from_value::<plan::Work>(manifest.provenance.spec.clone());
                let title = title.map_or_else(|_| String::new(), |work| work.title());
                let stage = &manifest.stage;
                let title: String = title.chars().take(46).collect();
                lines.push(format!("{:12} {stage:9} {:>8}  {title}", id.short(), size(bytes)));
                objects.push(json!({ "id": id, "stage": stage, "bytes": bytes, "title": title,
                                     "seconds": manifest.provenance.seconds, "damaged": null }));
            }
            Lookup::Damaged(why) => {
                lines.push(format!("{:12} DAMAGED: {why}", id.short()));
                objects.push(json!({ "id": id, "damaged": why }));
            }
            Lookup::Miss => {}
        }
    }
    if as_json {
        print(&json!({ "artifacts": objects, "bytes": total }).to_string());
    } else {
        lines.push(format!("{} artifacts, {}", objects.len(), size(total)));
        print(&lines.join("\n"));
    }
    Ok(())
}

fn verify(store: &Store, jobs: &[String]) -> Result<()> {
    let ids = if jobs.is_empty() {
        store.ids()?
    } else {
        jobs.iter().map(|start| store.find(start)).collect::<Result<Vec<_>>>()?
    };
    let mut damaged = 0;
    for id in &ids {
        if let Err(error) = store.verify(id) {
            damaged += 1;
            print(&format!("damaged  {id}: {error}"));
        }
    }
    print(&format!("{} artifacts read, {damaged} damaged", ids.len()));
    if damaged > 0 {
        return Err(Error::Jobs(format!(
            "{damaged} of {} artifacts are damaged: remove them and run their suites again",
            ids.len()
        )));
    }
    Ok(())
}

fn gc(root: &Path, keep: &HashSet<JobId>, yes: bool) -> Result<()> {
    if !root.exists() {
        return Err(Error::in_file(root, "is no store"));
    }
    let sweep = Store::open(root)?.sweep(keep, !yes)?;
    for id in &sweep.artifacts {
        print(&format!("{}  {id}", if yes { "removed" } else { "would go" }));
    }
    print(&format!(
        "{} artifacts, {} outputs of dead attempts, {} interrupted states, {}{}",
        sweep.artifacts.len(),
        sweep.leftovers,
        sweep.work,
        size(sweep.bytes),
        if yes { " removed" } else { " would go: --yes removes them" }
    ));
    Ok(())
}
