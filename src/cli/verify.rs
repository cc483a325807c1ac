//! `gauntlet verify`: re-checks an evaluation from its saved adversarial images.

use std::{fs, path::PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;

use super::evaluate::Saved;
use crate::{
    data, device,
    digest::hash_file,
    error::{AtPath, Error, Result},
    evaluate,
    net::load::load_classifier,
};

/// Re-checks, by forward passes alone, that each break an evaluation claims holds.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The folder that `evaluate --save-images --out` wrote.
    #[arg(value_name = "EVALUATION")]
    evaluation: PathBuf,
    /// The model that was evaluated.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Where the data set's files lie.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// cpu, cuda, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// For files that cannot be read, another model than was evaluated, and breaks that do not hold.
pub fn run(args: &Args) -> Result<()> {
    device::load_cuda();
    let device = device::choose(&args.device)?;
    let path = args.evaluation.join("evaluation.json");
    let text = fs::read_to_string(&path).at(&path)?;
    let saved: Saved = serde_json::from_str(&text)
        .map_err(|error| Error::in_file(&path, format!("is no evaluation: {error}")))?;
    if hash_file(&args.model)? != saved.model {
        return Err(Error::in_file(&args.model, "is not the model that was evaluated"));
    }
    let (set, source) = data::resolve(&saved.spec.data, &data::roots(args.data_dir.as_deref()))?;
    if source.fingerprint != saved.spec.data.fingerprint {
        return Err(Error::input(format!(
            "`{}`: these are other images than were attacked",
            set.name
        )));
    }
    let model = load_classifier(&args.model, saved.arch.as_deref(), &source.name, device)?;
    let work = args.evaluation.join("state");
    let place = (work.as_path(), device);
    let found = evaluate::verify(&saved.spec, &saved.evaluation, &*model, &set, place)?;
    if args.json {
        println!("{}", json!(found));
    } else {
        println!("{} of {} breaks hold", found.held, found.claimed);
        found.problems.iter().for_each(|problem| println!("  {problem}"));
    }
    match found.problems.len() {
        0 => Ok(()),
        count => Err(Error::Numerics(format!("{count} of {} breaks do not hold", found.claimed))),
    }
}
