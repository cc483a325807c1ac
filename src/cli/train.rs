//! `gauntlet train`: one classifier without a suite.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::{
    cli::{bar::Bar, explain, single::Single, terminal},
    data::{Dataset, find, reference::Reference},
    device,
    error::{AtPath, Error, Result},
    net::load,
    plan::{Files, Job, Work},
    progress::duration,
    threat::Norm,
    train::{self, Supply, memory, resume, spec::TrainSpec, validate::Scores},
    units::Epsilon,
};

/// Trains one classifier. Resumes when called again with the same arguments.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gauntlet train --data cifar10 --data-dir data --arch wrn-28-10-swish --norm linf --eps 8/255 \\
      --generated 1m.npz --out runs/wrn-28-10
  gauntlet train --data synthetic --arch wrn-10-1-swish --norm l2 --eps 128/255 \\
      --set train.epochs=10 --set train.batch=64 --out runs/try
  gauntlet train --data cifar10 --denoiser edm.pkl --set generated.count=50000 \\
      --set generated.rate=64 --set sampler.steps=10 --out runs/live

Writes best.safetensors, last.safetensors, log.jsonl, log.csv and an event file for TensorBoard
into --out, checkpoints into --out/work every 120 seconds (or GAUNTLET_CHECKPOINT_SECONDS) and on
SIGTERM, SIGINT or SIGUSR1, after which it exits with 130; the same command goes on where it
stopped. Another recipe (more epochs, say: every rate of the schedule would differ) needs another
--out. Several devices need train.virtual_batch, the images that share batch statistics, so that
the result does not depend on their number. Memory: train.virtual_batch, train.checkpointing,
train.precision (fp32, bf16, fp16); --memory counts it and trains nothing.
`--set` takes every `train.*`, `data.*` and `generated.*` field of a suite (`gauntlet schema`), with
--denoiser those of `sampler.*` and `policy.*`.")]
pub struct Args {
    #[command(flatten)]
    single: Single,
    /// Architecture, such as wrn-28-10-swish. It normalises as published for the data set, a folder
    /// or file by mean and deviation 0.5, if nothing else is said: wrn-28-10-swish@MEAN/DEVIATION.
    #[arg(long, value_name = "NAME", default_value = "wrn-28-10-swish")]
    arch: String,
    /// Published recipe: dmat or deepmind.
    #[arg(long, value_name = "NAME", default_value = "dmat")]
    preset: String,
    /// Norm of the threat model: linf or l2.
    #[arg(long, default_value = "linf")]
    norm: Norm,
    /// Its bound, such as 8/255.
    #[arg(long, value_name = "BOUND", default_value = "8/255")]
    eps: Epsilon,
    /// A generated set to join the real images: an .npz file, a folder of parts, or several of
    /// these. It is mapped where it lies. `--set generated.count=N` takes N images of it.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    generated: Vec<PathBuf>,
    /// A denoiser that draws generated images while training goes on, in place of a set:
    /// `generated.count` of them (10000) are there at a time, `generated.rate` (16) are drawn anew
    /// for each step, by the `sampler.*` and `policy.*` fields.
    #[arg(long, value_name = "FILE", conflicts_with = "generated")]
    denoiser: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda, cuda:N; several share each batch: cuda:0,cuda:1.
    #[arg(
        long,
        alias = "devices",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "auto"
    )]
    device: Vec<String>,
    /// Counts the memory that this training takes on its device, and ends.
    #[arg(long)]
    memory: bool,
}

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with arguments, data or the machine; [`Error::Interrupted`] after SIGINT,
/// SIGTERM or SIGUSR1, once a checkpoint is written.
pub fn run(args: &Args) -> Result<()> {
    let Single { out, .. } = &args.single;
    args.single.prepare();
    let devices: Vec<_> =
        args.device.iter().map(|name| device::choose(name)).collect::<Result<_>>()?;
    let (job, spec) = recipe(args)?;
    if args.memory {
        return told(&spec);
    }
    let (real, _) = find::resolve(&spec.data, &args.single.roots())?;
    let open = |set: &Reference| set.open(&real.classes, spec.generated);
    let fake = job.set.as_ref().map(open).transpose()?;
    let parts: Vec<&Dataset> = fake.iter().collect();
    let work = out.join("work");
    resume::same(&work, &job.id, &spec)?;
    let bar = Bar::new()?;
    let supply = match args.denoiser.as_ref().filter(|_| spec.live.is_some()) {
        Some(file) => Supply::Live {
            denoiser: Box::new(load::load_denoiser(file, devices[0])?.frozen()),
            identity: &job.id,
        },
        None => Supply::Set(&parts),
    };
    let summary = train::run(&spec, &real, supply, &devices, &work, out, &bar)?;
    bar.finish();
    println!("{}", said(out, &summary));
    Ok(())
}

/// Prints the arithmetic of memory.
fn told(spec: &TrainSpec) -> Result<()> {
    let parts = memory::parts(spec).ok_or_else(|| {
        let arch = &spec.network.arch;
        Error::input(format!("--memory: only wrn-DEPTH-WIDTH networks are counted, not `{arch}`"))
    })?;
    terminal::print(&explain::memory(&parts));
    Ok(())
}

fn said(out: &Path, summary: &train::TrainSummary) -> String {
    let outside = summary
        .overhead
        .map(|share| format!(", {:.1}% of it outside passes and update", 100.0 * share));
    let mut said = format!(
        "{}: {} epochs in {}\n{:.0} images/s{}",
        out.display(),
        summary.epochs,
        duration(summary.seconds),
        summary.images_per_second,
        outside.unwrap_or_default()
    );
    if let Some(bytes) = device::peak_memory() {
        said = format!("{said}, peak memory {}", terminal::size(bytes));
    }
    let Some(best) = summary.best else { return said };
    let scores = |scores: &Scores| {
        let robust = scores.robust.map(|tally| format!(", {:.2}% under PGD", tally.percent()));
        format!("{:.2}% clean{}", scores.clean.percent(), robust.unwrap_or_default())
    };
    let (epoch, found) = (summary.best_epoch, scores(&best));
    said = format!("{said}\nbest epoch {epoch}: {found} on held-out images");
    if let Some(last) = summary.last {
        said = format!("{said}\nlast epoch {}: {}", summary.epochs, scores(&last));
    }
    if let Some(lost) = summary.robust_overfitting {
        said = format!("{said}; robust overfitting {lost:.2} points");
    }
    said
}

/// The training job of a suite with this one cell, and its recipe.
fn recipe(args: &Args) -> Result<(Job, TrainSpec)> {
    let mut given = vec![
        format!("train.preset={}", args.preset),
        format!("train.arch={}", args.arch),
        format!("threat.norm={}", args.norm),
        format!("threat.epsilon={}", args.eps),
    ];
    if !args.generated.is_empty() {
        let absolute = |path: &PathBuf| std::path::absolute(path).at(path);
        let paths = args.generated.iter().map(absolute).collect::<Result<Vec<_>>>()?;
        given.push(format!("generated.count={}", Reference::of(&paths)?.images));
        // JSON is YAML, whatever stands in the names.
        let paths = serde_json::to_string(&paths).map_err(Error::input)?;
        given.push(format!("generated.file={paths}"));
    }
    if let Some(file) = &args.denoiser {
        let file = std::path::absolute(file).at(file)?;
        let file = serde_json::to_string(&file).map_err(Error::input)?;
        given.push(format!("denoiser.file={file}"));
        given.extend(["generated.supply=live", "generated.count=10000"].map(str::to_owned));
    }
    let jobs = args.single.jobs("train", &given, &Files)?;
    let trainings = jobs.into_iter().filter_map(|job| match job.work.clone() {
        Work::Train(spec) => Some((job, spec)),
        _ => None,
    });
    let trainings: Vec<_> = trainings.collect();
    match <[_; 1]>::try_from(trainings) {
        Ok([training]) => Ok(training),
        Err(many) => {
            let count = many.len();
            Err(Error::input(format!("the arguments describe {count} trainings, expected one")))
        }
    }
}
