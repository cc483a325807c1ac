//! `gauntlet convert`: any file of weights as safetensors that need nothing else to load.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::{
    error::Result,
    net::load::{self, Told},
};

/// Rewrites a torch checkpoint or EDM pickle as safetensors, with its architecture inside.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Torch checkpoint, EDM pickle or safetensors file.
    file: PathBuf,
    /// Where the safetensors file goes.
    out: PathBuf,
    /// Architecture, where names and shapes in the file do not tell it (`wrn-28-10`), and the
    /// normalisation where the file holds none: `resnet18@MEAN/DEVIATION`, each one number or three.
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Data set whose head and normalisation the network has, where the file does not say.
    #[arg(long, value_name = "NAME", default_value = "cifar10")]
    dataset: String,
    /// Which of several sets of weights (`unaveraged_model_state_dict`, an EDM pickle's `net`)
    /// instead of the averaged ones; `gauntlet inspect` lists them.
    #[arg(long, value_name = "NAME")]
    weights: Option<String>,
    /// Stores matrices and kernels in 16 bits: half the bytes, each number to three digits.
    #[arg(long)]
    half: bool,
}

/// Runs the command.
///
/// # Errors
/// If the file is bad, holds no known network, or the result cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let told = Told {
        arch: args.arch.as_deref(),
        dataset: &args.dataset,
        weights: args.weights.as_deref(),
    };
    let what = load::convert(&args.file, &args.out, told, args.half)?;
    println!("{}: {what}", args.out.display());
    Ok(())
}
