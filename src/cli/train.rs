//! `gauntlet train`: one classifier without a suite.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use crate::{
    cli::bar::Bar,
    data::{Dataset, find, generated},
    device,
    error::{AtPath, Error, Result},
    plan::{self, Files, Work},
    suite::Suite,
    threat::Norm,
    train::{self, spec::TrainSpec, validate::Scores},
    units::Epsilon,
};

/// Trains one classifier. Resumes when called again with the same arguments.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gauntlet train --data cifar10 --data-dir data --arch wrn-28-10-swish --norm linf --eps 8/255 \\
      --generated 1m.npz --out runs/wrn-28-10
  gauntlet train --data synthetic --arch wrn-10-1-swish --norm l2 --eps 128/255 \\
      --set train.epochs=10 --set train.batch=64 --out runs/try

Writes best.safetensors, last.safetensors, log.jsonl and an event file for TensorBoard into --out,
checkpoints into --out/work every 120 seconds (or GAUNTLET_CHECKPOINT_SECONDS) and on SIGTERM,
SIGINT or SIGUSR1, after which it exits with 130; the same command goes on where it stopped.
Several devices need train.virtual_batch, the images that share batch statistics, so that the
result does not depend on their number. Memory: train.virtual_batch, train.checkpointing,
train.precision (fp32, bf16, fp16).
`--set` takes every `train.*`, `data.*` and `generated.*` field of a suite (`gauntlet schema`).")]
pub struct Args {
    /// Data set: cifar10, cifar100, svhn, tiny-imagenet, synthetic.
    #[arg(long, value_name = "NAME")]
    data: String,
    /// Folder with its files [default: as `gauntlet run` searches].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Architecture, such as wrn-28-10-swish.
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
    /// A generated set (.npz) to join the real images.
    #[arg(long, value_name = "FILE")]
    generated: Option<PathBuf>,
    /// Overrides a field of the recipe: `--set train.epochs=2`. Repeatable.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<String>,
    /// Where to compute: auto, cpu, cuda, cuda:N; several share each batch: cuda:0,cuda:1.
    #[arg(
        long,
        alias = "devices",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "auto"
    )]
    device: Vec<String>,
    /// Threads of libtorch [default: all cores].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Folder of the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with arguments, data or the machine; [`Error::Interrupted`] after SIGINT,
/// SIGTERM or SIGUSR1, once a checkpoint is written.
pub fn run(args: &Args) -> Result<()> {
    device::load_cuda();
    device::set_threads(args.threads.unwrap_or_else(device::cores));
    let devices: Vec<_> =
        args.device.iter().map(|name| device::choose(name)).collect::<Result<_>>()?;
    let roots = Files::roots(args.data_dir.as_deref());
    let fake = args.generated.as_deref().map(generated::read_unnamed).transpose()?;
    let spec = recipe(args, &roots, fake.as_ref())?;
    let (real, _) = find::resolve(&spec.data, &roots)?;
    let parts: Vec<&Dataset> = fake.iter().collect();
    let work = args.out.join("work");
    let progress = Bar::new()?;
    let summary = train::run(&spec, &real, &parts, &devices, &work, &args.out, &progress)?;
    println!("{}", said(&args.out, &summary));
    Ok(())
}

fn said(out: &Path, summary: &train::TrainSummary) -> String {
    let trained = format!(
        "{}: {} epochs in {:.0} s, {:.0} images/s",
        out.display(),
        summary.epochs,
        summary.seconds,
        summary.images_per_second
    );
    let Some(best) = summary.best else { return trained };
    let scores = |scores: &Scores| {
        let robust = scores.robust.map(|tally| format!(", {:.2}% under PGD", tally.percent()));
        format!("{:.2}% clean{}", scores.clean.percent(), robust.unwrap_or_default())
    };
    let mut said = format!(
        "{trained}\nbest epoch {}: {} on held-out images",
        summary.best_epoch,
        scores(&best)
    );
    if let (Some(last), Some(lost)) = (summary.last, summary.robust_overfitting()) {
        let last = scores(&last);
        let epoch = summary.epochs;
        said = format!("{said}\nlast epoch {epoch}: {last}; robust overfitting {lost:.2} points");
    }
    said
}

/// The resolved recipe: that of the training job of a suite with this one cell.
fn recipe(args: &Args, roots: &[PathBuf], fake: Option<&Dataset>) -> Result<TrainSpec> {
    let mut given = vec![
        format!("data.name={}", args.data),
        format!("train.preset={}", args.preset),
        format!("train.arch={}", args.arch),
        format!("threat.norm={}", args.norm),
        format!("threat.epsilon={}", args.eps),
    ];
    if let (Some(path), Some(set)) = (&args.generated, fake) {
        let path = std::path::absolute(path).at(path)?;
        given.push(format!("generated.file={}", path.display()));
        given.push(format!("generated.count={}", set.len()));
    }
    given.extend(args.overrides.iter().cloned());
    let suite = Suite::parse("suite: train\n", "arguments", Path::new(""), &given)?;
    let plan = plan::resolve(&suite, roots, &Files)?;
    let specs = plan.jobs.into_iter().filter_map(|job| match job.work {
        Work::Train(spec) => Some(spec),
        _ => None,
    });
    let specs: Vec<_> = specs.collect();
    match <[TrainSpec; 1]>::try_from(specs) {
        Ok([spec]) => Ok(spec),
        Err(many) => {
            let count = many.len();
            Err(Error::input(format!("the arguments describe {count} trainings, expected one")))
        }
    }
}
