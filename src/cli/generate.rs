//! `gauntlet generate`: one generated set without a suite.

use std::{fs, path::PathBuf};

use tch::Device;

use crate::{
    cli::bar::Bar,
    diffusion::{
        generate::{self, Draw},
        spec::{GenerateSpec, SamplerSpec},
    },
    error::{AtPath, Result},
    net::{Denoiser, load},
};

/// Draws images from a denoiser into an .npz set. Run again after an interruption to go on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The denoiser: an EDM network pickle or a safetensors file of gauntlet.
    #[arg(long)]
    denoiser: PathBuf,
    /// How many images.
    #[arg(long)]
    count: u64,
    /// Steps of EDM's Heun sampler; the network is evaluated 2N - 1 times.
    #[arg(long, default_value_t = 18)]
    steps: u64,
    /// Seed of the set.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Classes that take turns, by number: `0,3,5`; all of them unless given.
    #[arg(long, value_delimiter = ',')]
    classes: Vec<i64>,
    /// First image, for a part of a larger set.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Images drawn at once. Part of what fixes the bytes, by the rounding of single pixels.
    #[arg(long, default_value_t = 50)]
    batch: u64,
    /// The GPU's number; the CPU unless given.
    #[arg(long)]
    gpu: Option<usize>,
    /// The .npz file to write.
    #[arg(long)]
    out: PathBuf,
}

/// Runs `gauntlet generate`.
///
/// # Errors
/// If the denoiser cannot be read, does not fit what is asked, or the set cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let device = args.gpu.map_or(Device::Cpu, Device::Cuda);
    let denoiser = load::load_denoiser(&args.denoiser, device)?.frozen();
    let spec = spec(args, &denoiser);
    let all: Vec<i64> = (0..spec.classes).collect();
    let turns = if args.classes.is_empty() { &all } else { &args.classes };
    let draw = Draw { spec: &spec, denoiser: &denoiser, device, turns, origin: None };
    draw.check()?;
    let mut work = args.out.clone().into_os_string();
    work.push(".work");
    let work = PathBuf::from(work);
    // The parts are of one denoiser: another one starts afresh.
    let parts = work.join(&crate::digest::hash_file(&args.denoiser)?[..16]);
    let done = generate::run(&draw, &parts, &parts, &Bar::new()?)?;
    fs::rename(&done.file, &args.out).at(&args.out)?;
    fs::remove_dir_all(&work).at(&work)?;
    println!(
        "{}: {} images, {} network evaluations each, {:.1} s",
        args.out.display(),
        done.count,
        done.evaluations,
        done.seconds
    );
    Ok(())
}

/// EDM's sampler within the noise levels that the network supports.
fn spec(args: &Args, denoiser: &dyn Denoiser) -> GenerateSpec {
    GenerateSpec {
        sampler: SamplerSpec::edm(args.steps).within(denoiser.sigma_range()),
        policy: None,
        origin: None,
        seed: args.seed,
        classes: denoiser.classes(),
        start: args.start,
        count: args.count,
        batch: args.batch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::generated,
        net::{
            denoiser::DenoiserNet,
            spec::{DenoiserArch, DenoiserSpec, Precond},
        },
    };

    #[test]
    fn a_saved_denoiser_becomes_a_set() {
        let folder = tempfile::tempdir().unwrap();
        let (denoiser, out) = (folder.path().join("d.safetensors"), folder.path().join("set.npz"));
        let network = DenoiserSpec {
            arch: DenoiserArch::Ddpmpp,
            precond: Precond::Edm,
            resolution: 8,
            classes: 4,
            channels: 8,
            channel_mult: vec![1],
            blocks: 1,
            attention: vec![],
            augment_dim: 0,
        };
        let network = DenoiserNet::new(&network, 0, Device::Cpu).unwrap();
        load::save_denoiser(&denoiser, &network).unwrap();
        let args = |classes| Args {
            denoiser: denoiser.clone(),
            count: 5,
            steps: 3,
            seed: 0,
            classes,
            start: 0,
            batch: 4,
            gpu: None,
            out: out.clone(),
        };
        run(&args(vec![3, 1])).unwrap();
        let set = generated::read_unnamed(&out).unwrap();
        assert_eq!((set.size, set.labels), ((8, 8), vec![3, 1, 3, 1, 3]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no work folder is left");
        let message = run(&args(vec![4])).unwrap_err().to_string();
        assert!(message.contains("there is no class 4"), "{message}");
    }
}
