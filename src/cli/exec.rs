//! `gauntlet exec`: one job of a store.

use std::path::PathBuf;

use crate::{
    device,
    digest::JobId,
    error::{Error, Result},
    run::{exec, signals, stages::Real, wire::Pipe},
    store::Store,
};

/// Runs one job that a suite has put into a store; what every engine calls.
///
/// A job that is done ends at once, a job that another process runs is waited for, and an
/// interrupted job goes on where it was: retries are always harmless. Progress goes to standard
/// output as one JSON object on each line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet plan suite.yaml --json | jq -r '.jobs[] | select(.cached | not) | .id'
  gauntlet exec --job 0d5c2f7ab1904c1ce6b4a1d0aa7b2c3d --store .gauntlet --device cuda:0")]
pub struct Args {
    /// The job's id, 32 digits.
    #[arg(long)]
    job: JobId,
    /// The store that knows the job.
    #[arg(long, default_value = ".gauntlet", env = "GAUNTLET_STORE")]
    store: PathBuf,
    /// cpu, cuda, cuda:N, or auto.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of libtorch; all cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Save and stop when standard input ends: a parent process holds it.
    #[arg(long, hide = true)]
    attached: bool,
    /// Halves the batch so many times from the start, where that changes no result.
    #[arg(long, default_value_t = 0)]
    halvings: u32,
}

/// Runs the command.
///
/// # Errors
/// Whatever keeps the job from its result.
pub fn run(args: &Args) -> Result<()> {
    let stops = signals::count()?;
    if args.attached {
        signals::count_end_of_input(stops.clone());
    }
    device::load_cuda();
    let threads = args.threads.unwrap_or_else(device::cores);
    device::set_threads(threads);
    let place = device::choose(&args.device)?;
    let name = match place {
        tch::Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    };
    let machine = exec::Machine { device: place, name, threads, halvings: args.halvings };
    let pipe = Pipe::new(stops);
    let store = Store::open(&args.store)?;
    match exec::run(&store, &args.job, &machine, &Real, &pipe) {
        Ok(ran) => {
            store.forgive(&args.job)?;
            pipe.done(ran);
            Ok(())
        }
        Err(error) => {
            if !matches!(error, Error::Interrupted) {
                // Engines that only see the store learn from it why the job failed.
                store.blame(&args.job, &error.to_string())?;
            }
            Err(error)
        }
    }
}
