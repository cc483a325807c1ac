//! `gauntlet generate`: one generated set without a suite.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use tch::Device;

use crate::{
    cli::bar::Bar,
    device,
    diffusion::{
        generate::{self, Draw},
        spec::GenerateSpec,
    },
    error::{AtPath, Error, Result},
    net::{Denoiser, load},
    plan,
    suite::Suite,
};

/// Draws images from a denoiser into an .npz set. Run again after an interruption to go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  gauntlet generate --denoiser edm.pkl --count 1000 --steps 18 --seed 0 --out set.npz
  gauntlet generate --denoiser edm.pkl --count 1000 --steps 40 --set sampler.churn=40 \\
      --set sampler.churn_min=0.05 --set sampler.churn_max=50 --out churned.npz
  gauntlet generate --denoiser edm.pkl --count 1000 --set policy.kind=uniform \\
      --set policy.applies=exit --set policy.min=6 --out early.npz

Image i depends on denoiser, sampler, seed, classes, i and --batch alone, so the first images of a
larger set are the smaller set, byte for byte on one kind of device, wherever a run was cut off.
Beside set.npz stands set.json: the hash of the weights and every number that the set follows from.
`--set` takes every `sampler.*` and `policy.*` field of a suite.")]
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
    /// Images drawn at once. Part of what fixes the bytes, by the rounding of single pixels
    /// [default: 16 on the CPU, 256 on a GPU].
    #[arg(long)]
    batch: Option<u64>,
    /// Overrides a number of the sampler or its policy: `--set sampler.solver=ddim`. Repeatable.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<String>,
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
    device::load_cuda();
    let device = args.gpu.map_or(Device::Cpu, Device::Cuda);
    let denoiser = load::load_denoiser(&args.denoiser, device)?.frozen();
    let spec = spec(args, &denoiser)?;
    let all: Vec<i64> = (0..spec.classes).collect();
    let turns = if args.classes.is_empty() { &all } else { &args.classes };
    let draw = Draw { spec: &spec, denoiser: &denoiser, device, turns, origin: None };
    draw.check()?;
    let mut work = args.out.clone().into_os_string();
    work.push(".work");
    let work = PathBuf::from(work);
    // The parts are of one denoiser: another one starts afresh.
    let weights = crate::digest::hash_file(&args.denoiser)?;
    let parts = work.join(&weights[..16]);
    let done = generate::run(&draw, &parts, &parts, &Bar::new()?)?;
    let said = serde_json::json!({
        "gauntlet": env!("CARGO_PKG_VERSION"),
        "libtorch": device::LIBTORCH_VERSION,
        "device": if args.gpu.is_some() { "cuda" } else { "cpu" },
        "denoiser": { "file": args.denoiser, "blake3": weights },
        "classes": turns,
        "spec": spec,
        "evaluations": done.evaluations,
        "blake3": crate::digest::hash_file(&done.file)?,
    });
    let beside = args.out.with_extension("json");
    crate::formats::write_atomically(&beside, |file| writeln!(file, "{said:#}"))?;
    fs::rename(&done.file, &args.out).at(&args.out)?;
    fs::remove_dir_all(&work).at(&work)?;
    println!(
        "{}: {} images, {} network evaluations, {:.1} s",
        args.out.display(),
        done.count,
        done.evaluations,
        done.seconds
    );
    Ok(())
}

/// The sampler that the arguments describe, within the noise levels that the network supports.
fn spec(args: &Args, denoiser: &dyn Denoiser) -> Result<GenerateSpec> {
    let mut given = vec![format!("data.name={}", "synthetic")];
    given.push(format!("sampler.steps={}", args.steps));
    for text in &args.overrides {
        let key = text.split('=').next().unwrap_or_default();
        if !key.starts_with("sampler.") && !key.starts_with("policy.") {
            let message = format!("--set {text}: expected a field of `sampler` or `policy`");
            return Err(Error::input(message));
        }
        given.push(text.clone());
    }
    let suite = Suite::parse("suite: generate\n", "arguments", Path::new(""), &given)?;
    let (sampler, policy) = plan::sampling(&suite, denoiser.sigma_range());
    let batch = if args.gpu.is_some() { 256 } else { 16 };
    Ok(GenerateSpec {
        sampler,
        policy,
        origin: None,
        seed: args.seed,
        classes: denoiser.classes(),
        start: args.start,
        count: args.count,
        batch: args.batch.unwrap_or(batch),
    })
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
            batch: Some(4),
            overrides: vec![],
            gpu: None,
            out: out.clone(),
        };
        run(&args(vec![3, 1])).unwrap();
        let set = generated::read_unnamed(&out).unwrap();
        assert_eq!((set.size, set.labels), ((8, 8), vec![3, 1, 3, 1, 3]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "no work folder is left");
        let beside = fs::read_to_string(out.with_extension("json")).unwrap();
        let beside: serde_json::Value = serde_json::from_str(&beside).unwrap();
        assert_eq!(beside["blake3"], crate::digest::hash_file(&out).unwrap());
        let message = run(&args(vec![4])).unwrap_err().to_string();
        assert!(message.contains("there is no class 4"), "{message}");
    }
}
