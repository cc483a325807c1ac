//! `gauntlet verify`: re-checks an evaluation from its saved adversarial images.

use std::{fs, path::PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;

use super::verdict::Saved;
use crate::{
    data, device,
    digest::hash_file,
    error::{AtPath, Error, Result},
    evaluate::{self, journal::image_files, verify::Verification},
    leaderboard::records::read_parquet,
    net::load::{Told, load_told},
};

/// Re-checks, by forward passes alone, that each break an evaluation claims holds.
///
/// Labels and hashes come from the data, predictions, norms and counts are computed anew: nothing
/// in the records is believed.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gauntlet evaluate --model model.pt --eps 8/255 --save-images --out run
  gauntlet verify run
  gauntlet verify run --json | jq .held

Exit codes: 0 every claim holds, 1 some do not (each is named), 2 bad input, such as
another model or other images, 3 the system refused a file.")]
pub struct Args {
    /// The folder that `evaluate --save-images --out` wrote.
    #[arg(value_name = "EVALUATION")]
    evaluation: PathBuf,
    /// The model that was evaluated, if it has moved since.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Where the data set's files lie, if they have moved since.
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
    let mut saved: Saved = serde_json::from_str(&text)
        .map_err(|error| Error::in_file(&path, format!("is no evaluation: {error}")))?;
    let file = args.model.as_ref().unwrap_or(&saved.model_file);
    if hash_file(file)? != saved.model {
        return Err(Error::in_file(file, "is not the model that was evaluated"));
    }
    saved.evaluation.records = read_parquet(&args.evaluation.join("records.parquet"))?;
    let roots = data::roots(args.data_dir.as_deref().or(saved.data_dir.as_deref()));
    let (set, source) = data::resolve_oblong(&saved.spec.data, &roots)?;
    if source.fingerprint != saved.spec.data.fingerprint {
        return Err(Error::input(format!(
            "`{}`: these are other images than were attacked",
            set.name
        )));
    }
    let work = args.evaluation.join("state");
    let broken = saved.evaluation.records.iter().any(|record| record.broken_by.is_some());
    if broken && image_files(&work)?.is_empty() {
        return Err(Error::in_file(
            &work,
            "holds no adversarial images to verify; evaluate with --save-images into a new folder",
        ));
    }
    let told = Told {
        arch: saved.arch.as_deref(),
        dataset: &source.name,
        weights: saved.weights.as_deref(),
    };
    let size = (set.size.0 as i64, set.size.1 as i64);
    let model = load_told(file, told, size, device)?;
    let model = match &saved.range {
        Some(range) => range.wrap(model),
        None => model,
    };
    let asked = (&saved.spec, saved.target);
    let found = evaluate::verify(asked, &saved.evaluation, &*model, &set, (&work, device))?;
    if args.json {
        println!("{}", json!(found));
    } else {
        let Verification { claimed, held, clean, robust, .. } = &found;
        println!("{held} of {claimed} breaks hold");
        println!("clean   {} of {}, by forward passes alone", clean.correct, clean.total);
        println!("robust  at most {} of {}", robust.correct, robust.total);
        found.problems.iter().for_each(|problem| println!("  {problem}"));
    }
    match found.problems.len() {
        0 => Ok(()),
        count => Err(Error::Numerics(format!(
            "{count} claims do not hold ({} of {} breaks do)",
            found.held, found.claimed
        ))),
    }
}
