//! `gauntlet fit`: one denoiser without a suite.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::{
    cli::{bar::Bar, single::Single},
    data::{find, spec::Split},
    device,
    diffusion::{
        features::Extractor,
        fit::{self, Fit, FitSummary},
        spec::FitSpec,
    },
    error::{Error, Result},
    plan::{Files, Survey, Surveyor, Work},
};

/// Trains a denoiser by EDM's recipe. Resumes when called again with the same arguments.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gauntlet fit --data cifar10 --data-dir data --out runs/edm      # EDM's own recipe
  gauntlet fit --data pictures/ --set denoiser.channels=32 \\
      --set denoiser.channel_mult=[1,2,2] --set denoiser.images=1M \\
      --set denoiser.batch=64 --set denoiser.snapshot=100K --out runs/small

Writes denoiser.safetensors and log.jsonl into --out, a checkpoint into --out/work at least every
30 seconds of a fast training (or every GAUNTLET_CHECKPOINT_SECONDS). With `denoiser.snapshot` the snapshot with the best FID is kept
(and last.safetensors, snapshots.jsonl). `gauntlet generate --denoiser` draws from the result.
`--set` takes every `denoiser.*` and `data.*` field of a suite; defaults are EDM's. On a GPU
`--set denoiser.precision=bf16` is the faster way.")]
pub struct Args {
    #[command(flatten)]
    single: Single,
    /// Inception network as TorchScript, in whose features snapshots are judged. Without it:
    /// fixed random filters.
    #[arg(long, value_name = "FILE")]
    inception: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda, cuda:N.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,
}

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with arguments, data or the machine; [`Error::Interrupted`] after SIGINT or
/// SIGTERM, once a checkpoint is written.
pub fn run(args: &Args) -> Result<()> {
    let Single { out, .. } = &args.single;
    args.single.prepare();
    let device = device::choose(&args.device)?;
    let spec = recipe(&args.single)?;
    let (data, _) = find::resolve(&spec.data, &args.single.roots())?;
    let judge = match &args.inception {
        Some(path) => Extractor::inception(path, device)?,
        None => Extractor::filters(device),
    };
    let fit = Fit { spec: &spec, data: &data, device, judge: &judge };
    let summary = fit::run_judged(&fit, &out.join("work"), out, &Bar::new()?)?;
    println!("{}", said(&summary, &judge));
    Ok(())
}

fn said(summary: &FitSummary, judge: &Extractor) -> String {
    let trained = format!(
        "{}: {} images seen in {} steps, loss {:.4}, {:.0} images/s",
        summary.file.display(),
        summary.images,
        summary.steps,
        summary.loss,
        summary.images_per_second
    );
    match &summary.best {
        Some(best) => {
            let (images, fid) = (best.images, best.fid);
            format!(
                "{trained}\nbest snapshot: after {images} images, fid {fid:.3} in {}",
                judge.name()
            )
        }
        None => trained,
    }
}

/// The resolved recipe: that of the denoiser's job of a suite with this one cell.
fn recipe(single: &Single) -> Result<FitSpec> {
    // Some cell must want generated images under some threat model, know their labels even where no
    // class was asked for, and train without holding any back; none of it touches the denoiser.
    let given = [
        "generated.count=1".to_owned(),
        "threat.norm=linf".to_owned(),
        "threat.epsilon=8/255".to_owned(),
        "train.validation=0".to_owned(),
        "labels.by=classifier".to_owned(),
        "labels.trained=true".to_owned(),
    ];
    let jobs = single.jobs("fit", &given, &Training)?;
    let spec = jobs.into_iter().find_map(|job| match job.work {
        Work::Fit(spec) => Some(spec),
        _ => None,
    });
    spec.ok_or_else(|| Error::input("the arguments name a denoiser's file: nothing to train"))
}

/// Looks at training images only: those of a test split need not be there.
struct Training;

impl Surveyor for Training {
    fn survey(&self, source: &crate::data::spec::Source, roots: &[PathBuf]) -> Result<Survey> {
        if source.split == Split::Test {
            return Ok(Survey {
                fingerprint: String::new(),
                classes: 1,
                images: 1,
                resolution: source.resolution,
            });
        }
        Files.survey(source, roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denoiser_is_trained_from_arguments_alone() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let set = |text: &str| format!("denoiser.{text}");
        let mut overrides: Vec<String> =
            ["channels=8", "channel_mult=[1]", "blocks=1", "attention=[]", "images=64", "batch=16"]
                .map(set)
                .into();
        overrides.extend(["snapshot=32", "snapshot_images=4", "conditional=false"].map(set));
        overrides.push("denoiser.snapshot_steps=2".to_owned());
        overrides.extend(["data.resolution=8", "data.train.count=40"].map(str::to_owned));
        let single = Single {
            data: "synthetic".to_owned(),
            data_dir: None,
            overrides,
            threads: Some(1),
            out: out.clone(),
        };
        let args = Args { single, inception: None, device: "cpu".to_owned() };
        run(&args).unwrap();
        for name in ["denoiser.safetensors", "last.safetensors", "snapshots.jsonl", "log.jsonl"] {
            assert!(out.join(name).exists(), "{name}");
        }
    }
}
