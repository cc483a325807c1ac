//! `gauntlet evaluate`: the robust accuracy of one model under one threat model.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args as ClapArgs, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::watch::Watch;
use crate::{
    data::{
        self, Dataset,
        spec::{Source, Split},
    },
    device,
    digest::hash_file,
    error::{AtPath, Error, Result},
    evaluate::{
        self, Evaluation, Place,
        spec::{
            AttackName, AttackSpec, Checkpoint, EvalMode, EvaluateSpec, published, resolve_suite,
        },
    },
    leaderboard::records::{ExampleRecord, write_parquet},
    net::{Classifier, load::load_classifier},
    threat::{Norm, ThreatModel},
    units::Epsilon,
};

/// Measures robust accuracy by AutoAttack or a cascade of your own.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The classifier: a TorchScript program, a checkpoint, or weights of gauntlet.
    #[arg(long, value_name = "FILE")]
    pub(super) model: PathBuf,
    /// Its architecture, where the file does not say: wrn-28-10-swish, preact-resnet18, ...
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// The data set: cifar10, cifar100, svhn, synthetic, a folder of images, an .npz file.
    #[arg(long, default_value = "cifar10", value_name = "SET")]
    data: String,
    /// Where the data set's files lie.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Which half of the data set.
    #[arg(long, value_enum, default_value_t = Half::Test)]
    split: Half,
    /// How many images are passed over at the start.
    #[arg(long, default_value_t = 0, value_name = "N")]
    skip: u64,
    /// How many images are attacked; all that follow if not given.
    #[arg(long, value_name = "N")]
    examples: Option<u64>,
    /// Edge length of the images: the set's own; 32 for synthetic, where it is free.
    #[arg(long, value_name = "PIXELS")]
    resolution: Option<u64>,
    /// The norm: linf, l2 or l1.
    #[arg(long, default_value = "linf")]
    norm: Norm,
    /// The bound, for images in [0, 1]: a fraction like 8/255 or a decimal.
    #[arg(long, default_value = "8/255")]
    eps: Epsilon,
    /// The cascade: standard, plus, rand, or custom with --attacks.
    #[arg(long, default_value = "standard")]
    suite: String,
    /// For --suite custom: attacks in order, separated by commas, each name[:steps[:restarts]].
    #[arg(long, value_name = "LIST")]
    attacks: Option<String>,
    /// strict: per-example random numbers, every break verified; reference: AutoAttack's own ways.
    #[arg(long, value_enum, default_value_t = ModeName::Strict)]
    mode: ModeName,
    /// Every attack meets every example, and the worst case counts.
    #[arg(long)]
    individual: bool,
    /// Seed of the attacks.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Examples attacked at once; chosen by image size if not given.
    #[arg(long, value_name = "N")]
    batch_size: Option<u64>,
    /// libtorch's threads; all cores if not given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// cpu, cuda, cuda:N or auto.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Folder for results and for the state that an interrupted evaluation resumes from.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Keep adversarial images, for `gauntlet verify`.
    #[arg(long)]
    save_images: bool,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Half {
    Train,
    Test,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeName {
    Strict,
    Reference,
}

/// What `evaluation.json` holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Everything that fixed the result.
    pub(super) spec: EvaluateSpec,
    /// BLAKE3 of the model file.
    pub(super) model: String,
    /// Its architecture, where one was named.
    pub(super) arch: Option<String>,
    /// The result.
    pub(super) evaluation: Evaluation,
}

/// Runs the command.
///
/// # Errors
/// As [`evaluate::run`], and for files that cannot be read or written.
pub fn run(args: &Args) -> Result<()> {
    device::load_cuda();
    let device = device::choose(&args.device)?;
    if let Some(threads) = args.threads {
        device::set_threads(threads.max(1));
    }
    let (data, source) = data::resolve(&args.source(), &data::roots(args.data_dir.as_deref()))?;
    let model = load_classifier(&args.model, args.arch.as_deref(), &args.data, device)?;
    let spec = args.spec(source, &data, &*model)?;
    fs::create_dir_all(&args.out).at(&args.out)?;
    let watch = Watch::begin(args.json)?;
    let place = Place {
        device,
        work: &args.out.join("state"),
        progress: &watch,
        model_identity: &hash_file(&args.model)?,
        save_images: args.save_images,
    };
    let evaluation = if args.individual {
        evaluate::individual(&spec, &*model, &data, &place)
    } else {
        evaluate::run_in(&spec, &*model, &data, &place)
    };
    let evaluation = evaluation.inspect_err(|error| {
        if matches!(error, Error::Interrupted) {
            watch.last_word();
        }
    })?;
    watch.finish();
    let saved =
        Saved { spec, model: place.model_identity.to_owned(), arch: args.arch.clone(), evaluation };
    save(&args.out, &saved)?;
    if args.json {
        println!("{}", summary(&saved))
    } else {
        print!("{}", table(&saved))
    }
    Ok(())
}

impl Args {
    fn source(&self) -> Source {
        Source {
            name: self.data.clone(),
            split: match self.split {
                Half::Train => Split::Train,
                Half::Test => Split::Test,
            },
            skip: self.skip,
            count: self.examples,
            resolution: self.resolution.unwrap_or(if self.data == "synthetic" { 32 } else { 0 }),
            fingerprint: String::new(),
        }
    }

    fn spec(&self, data: Source, set: &Dataset, model: &dyn Classifier) -> Result<EvaluateSpec> {
        let attacks = match (self.suite.as_str(), &self.attacks) {
            ("custom", Some(list)) => custom(list, model.classes())?,
            ("custom", None) => {
                return Err(Error::input(
                    "--suite custom needs --attacks, such as apgd-ce,square:1000",
                ));
            }
            (suite, None) => resolve_suite(suite, self.norm, model.classes())?,
            (suite, Some(_)) => {
                return Err(Error::input(format!(
                    "--attacks goes with --suite custom; suite {suite} has its own attacks"
                )));
            }
        };
        // As many pixels as 128 images of CIFAR's size: large enough for full speed on a CPU.
        let automatic = (128 * 3 * 32 * 32 / set.image_bytes() as u64).max(1);
        Ok(EvaluateSpec {
            data,
            threat: ThreatModel { norm: self.norm, epsilon: self.eps },
            suite: self.suite.clone(),
            attacks,
            mode: match self.mode {
                ModeName::Strict => EvalMode::Strict,
                ModeName::Reference => EvalMode::Reference,
            },
            checkpoint: Checkpoint::Best,
            batch: self.batch_size.unwrap_or(automatic),
            seed: self.seed,
        })
    }
}

/// `apgd-ce,fab-t:50,square:1000:2`.
fn custom(list: &str, classes: i64) -> Result<Vec<AttackSpec>> {
    list.split(',')
        .map(|item| {
            let mut parts = item.trim().split(':');
            let name: AttackName = parts.next().unwrap_or_default().parse()?;
            let mut attack = published(name, classes);
            let mut number = |what: &str, value: &mut u64| -> Result<()> {
                let Some(text) = parts.next() else { return Ok(()) };
                *value = text.parse().ok().filter(|&number| number > 0).ok_or_else(|| {
                    Error::input(format!(
                        "--attacks: `{item}`: {what} `{text}` is no positive number"
                    ))
                })?;
                Ok(())
            };
            number("steps", &mut attack.steps)?;
            number("restarts", &mut attack.restarts)?;
            match parts.next() {
                None => Ok(attack),
                Some(_) => Err(Error::input(format!(
                    "--attacks: `{item}`: expected name[:steps[:restarts]]"
                ))),
            }
        })
        .collect()
}

/// Writes `evaluation.json` and `records.parquet`, each beside and then renamed.
fn save(out: &Path, saved: &Saved) -> Result<()> {
    let records: Vec<ExampleRecord> = saved.evaluation.records.iter().map(Into::into).collect();
    write_parquet(&out.join("records.parquet"), &records)?;
    let path = out.join("evaluation.json");
    let fresh = out.join("evaluation.json.new");
    fs::write(&fresh, serde_json::to_string_pretty(saved).expect("plain data")).at(&fresh)?;
    fs::rename(&fresh, &path).at(&path)
}

/// The object that `--json` prints.
fn summary(saved: &Saved) -> Value {
    let Saved { spec, evaluation, .. } = saved;
    let by_attack = |value: &dyn Fn(&evaluate::AttackCost) -> Value| -> Value {
        let pairs = evaluation.attacks.iter().map(|cost| (cost.attack.clone(), value(cost)));
        Value::Object(pairs.collect::<Map<_, _>>())
    };
    let (low, high) = evaluation.robust.interval();
    json!({
        "total": evaluation.total,
        "clean": evaluation.clean.correct,
        "robust": evaluation.robust.correct,
        "interval": [low, high],
        "threat": spec.threat,
        "suite": spec.suite,
        "mode": spec.mode,
        "robust_after": by_attack(&|cost| json!(cost.robust)),
        "seconds": by_attack(&|cost| json!(cost.seconds)),
        "forwards": by_attack(&|cost| json!(cost.forwards)),
        "backwards": by_attack(&|cost| json!(cost.backwards)),
        "warnings": evaluation.warnings,
    })
}

/// What people read: at most 80 columns.
fn table(saved: &Saved) -> String {
    use std::fmt::Write;
    let Saved { spec, evaluation, .. } = saved;
    let (clean, robust) = (evaluation.clean, evaluation.robust);
    let (low, high) = robust.interval();
    let mut text = String::new();
    let mut line = |content: String| writeln!(text, "{content}").expect("strings take any text");
    line(format!("{} on {}, {} suite", spec.threat, spec.data.name, spec.suite));
    line(format!("clean   {:6.2}%  ({} of {})", clean.percent(), clean.correct, clean.total));
    line(format!(
        "robust  {:6.2}%  ({} of {}; 95% interval {low:.2}% to {high:.2}%)",
        robust.percent(),
        robust.correct,
        robust.total
    ));
    line(String::new());
    line(format!(
        "{:<10}{:>8}{:>10}{:>12}{:>12}{:>10}",
        "attack", "broke", "robust", "forwards", "backwards", "seconds"
    ));
    let mut before = clean.correct;
    for cost in &evaluation.attacks {
        line(format!(
            "{:<10}{:>8}{:>10}{:>12}{:>12}{:>10.1}",
            cost.attack,
            before.saturating_sub(cost.robust),
            cost.robust,
            cost.forwards,
            cost.backwards,
            cost.seconds
        ));
        before = cost.robust;
    }
    for warning in &evaluation.warnings {
        line(String::new());
        line(wrapped(&format!("warning: {warning}"), 80));
    }
    text
}

/// `text` broken at spaces so that no line is longer than `width`.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("never empty");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_lists_name_attacks_steps_and_restarts() {
        let attacks = custom("apgd-ce, fab-t:50,square:1000:2", 10).unwrap();
        assert_eq!(attacks[0], published(AttackName::ApgdCe, 10));
        assert_eq!((attacks[1].steps, attacks[1].targets), (50, 9));
        assert_eq!((attacks[2].steps, attacks[2].restarts), (1000, 2));
        for bad in ["", "apgd", "fab-t:0", "square:1:2:3", "pgd:x"] {
            assert!(custom(bad, 10).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_warnings_are_wrapped() {
        let text = wrapped(&"word ".repeat(60), 80);
        assert!(text.lines().all(|line| line.len() <= 80) && text.lines().count() == 4);
    }
}
