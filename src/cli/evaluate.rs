//! `gauntlet evaluate`: the robust accuracy of one model under one threat model.

use std::{
    fs,
    path::{self, Path, PathBuf},
};

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;
use tch::Device;

use super::{
    bar::Bar,
    verdict::{Saved, save, summary, table},
};
use crate::{
    data::{
        self, Dataset,
        spec::{Source, Split},
    },
    device,
    digest::hash_file,
    error::{AtPath, Error, Result},
    evaluate::{
        self, Aim, Place, Protocol, probe,
        range::Range,
        size::automatic,
        spec::{
            AttackName, AttackSpec, Checkpoint, EvalMode, EvaluateSpec, published, resolve_suite,
        },
    },
    net::{
        Classifier,
        load::{Told, load_told},
    },
    threat::{Norm, ThreatModel},
    units::Epsilon,
};

/// Measures robust accuracy by AutoAttack or a cascade of your own.
///
/// Prints how many examples stay right under every attack, with a 95% interval, and warns of what
/// makes a figure too high: random or softmax outputs, gradients that vanish, models that optimise
/// or normalise by the batch at test time, another input range, mixed-up labels.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  gauntlet evaluate --model model.pt --data cifar10 --eps 8/255 --out run
  gauntlet evaluate --model wrn.pt --arch wrn-28-10-swish --norm l2 --eps 0.5 --out run
  gauntlet evaluate --model model.pt --suite quick --examples 1000 --json --out ci
  gauntlet evaluate --model model.pt --eps 2/255,4/255,8/255 --out curve
  gauntlet evaluate --model m.pt --suite custom --attacks apgd-ce:50,square:1000:2 --out run

DIR holds records.parquet (one row for each example), evaluation.json, and what an
interrupted evaluation resumes from: the same command goes on where it stopped.

--mode reference repeats AutoAttack bit for bit on one thread, where the kernels are
the same: recordings of another CPU of the same make (Intel, AMD) need
ATEN_CPU_CAPABILITY=avx2 and ONEDNN_MAX_CPU_ISA=AVX2 in the environment of both
programs.

Exit codes: 0 done, 1 the model gave no finite numbers, 2 bad input, 3 the system
refused a file, 130 interrupted (the bound so far is printed, the state is saved).")]
pub struct Args {
    /// The classifier: a TorchScript program, a checkpoint, or weights of gauntlet.
    #[arg(long, value_name = "FILE")]
    pub(super) model: PathBuf,
    /// Its architecture, where the file does not say: wrn-28-10-swish, preact-resnet18, ...; with
    /// the normalisation that the file does not hold appended: resnet18@MEAN/DEVIATION, each one
    /// number or three (0.4914,0.4822,0.4465/0.2471,0.2435,0.2616 is CIFAR-10's).
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Which of several sets of weights (`unaveraged_model_state_dict`) instead of the averaged
    /// ones; `gauntlet inspect` lists them.
    #[arg(long, value_name = "NAME")]
    weights: Option<String>,
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
    /// The bound, for images in [0, 1]: a fraction like 8/255 or a decimal. Several, as in
    /// 2/255,4/255,8/255, give a curve: what breaks within a smaller bound breaks within a larger.
    #[arg(long, default_value = "8/255", value_delimiter = ',', allow_hyphen_values = true)]
    eps: Vec<Epsilon>,
    /// The cascade: standard, plus, rand; malt, pma, pma+ (strong and cheaper); quick (for CI, an
    /// upper bound); or custom with --attacks.
    #[arg(long, default_value = "standard")]
    suite: String,
    /// For --suite custom: attacks in order, separated by commas, each
    /// name[:steps[:restarts[:targets]]]; names are apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square,
    /// pgd, malt, pma.
    #[arg(long, value_name = "LIST")]
    attacks: Option<String>,
    /// strict: per-example random numbers, every break verified; reference: AutoAttack's own ways.
    #[arg(long, value_enum, default_value_t = ModeName::Strict)]
    mode: ModeName,
    /// Every attack meets every example; the worst case stands beside.
    #[arg(long)]
    individual: bool,
    /// Aim every attack at one class: its number, next (label + 1) or least-likely. Broken is only
    /// who is then taken for that class.
    #[arg(long, value_name = "CLASS")]
    target: Option<Aim>,
    /// What the model takes instead of [0, 1], as LOW,HIGH. Bounds keep meaning shares of [0, 1]:
    /// 8/255 is eight grey levels for a model of --bounds 0,255 too.
    #[arg(long, value_name = "LOW,HIGH", value_delimiter = ',', allow_hyphen_values = true)]
    bounds: Option<Vec<f64>>,
    /// Subtracted from each channel before the model sees it.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f64>>,
    /// What each channel is divided by, after --mean.
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    std: Option<Vec<f64>>,
    /// Seed of the attacks.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Examples attacked at once; by the model's speed and memory if not given (reference mode:
    /// 250, as AutoAttack does).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batch_size: Option<u64>,
    /// Threads in all; all cores if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    threads: Option<u64>,
    /// How many of the threads attack batches of their own; the others help within a batch. All of
    /// them if not given (one in reference mode and on a GPU).
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
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

/// Runs the command.
///
/// # Errors
/// As [`evaluate::run_in`], and for files that cannot be read or written.
pub fn run(args: &Args) -> Result<()> {
    device::load_cuda();
    let device = device::choose(&args.device)?;
    let range = Range::of(args.bounds.as_deref(), args.mean.as_deref(), args.std.as_deref())?;
    let (data, source) =
        data::resolve_oblong(&args.source(), &data::roots(args.data_dir.as_deref()))?;
    let load = || {
        let told = Told {
            arch: args.arch.as_deref(),
            dataset: &args.data,
            weights: args.weights.as_deref(),
        };
        let size = (data.size.0 as i64, data.size.1 as i64);
        let model = load_told(&args.model, told, size, device)?;
        Ok(match &range {
            Some(range) => range.wrap(model),
            None => model,
        })
    };
    let threads = args.threads.map_or_else(device::cores, |threads| threads as usize);
    device::set_threads(threads);
    let model = load()?;
    super::say_network(&*model);
    let mut spec = args.spec(source, &*model)?;
    probe::probe(&*model, &data, device, args.batch_size)?;
    let workers = args.workers(threads, device, (&spec, data.len()))?;
    device::set_threads(threads / workers);
    let helpers = (1..workers).map(|_| load()).collect::<Result<Vec<_>>>()?;
    fs::create_dir_all(&args.out).at(&args.out)?;
    let work = args.out.join("state");
    spec.batch = args.batch(&*model, &data, (device, workers), &work)?;
    let bar = Bar::of_attacks(args.json)?;
    let place = Place {
        device,
        work: &work,
        progress: &bar,
        model_identity: &args.identity(range.as_ref())?,
        save_images: args.save_images,
        samples: 0,
        helpers: helpers.into(),
    };
    let protocol =
        Protocol { individual: args.individual, aim: args.target, curve: args.eps.clone() };
    let evaluation = evaluate::run_in(&spec, &protocol, &*model, &data, &place);
    let evaluation = evaluation.inspect_err(|error| {
        if matches!(error, Error::Interrupted) {
            bar.last_word();
        }
    })?;
    bar.finish();
    let mut saved = Saved {
        spec,
        model: hash_file(&args.model)?,
        model_file: path::absolute(&args.model).at(&args.model)?,
        arch: args.arch.clone(),
        weights: args.weights.clone(),
        range,
        data_dir: args.data_dir.clone().map(|dir| path::absolute(&dir).at(&dir)).transpose()?,
        individual: args.individual,
        target: args.target,
        evaluation,
    };
    save(&args.out, &mut saved)?;
    if args.json {
        println!("{}", summary(&saved));
    } else {
        print!("{}", table(&saved));
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

    /// What names the model and what is put before it.
    fn identity(&self, range: Option<&Range>) -> Result<String> {
        let mut model = hash_file(&self.model)?;
        for (what, told) in [("arch", &self.arch), ("weights", &self.weights)] {
            if let Some(told) = told {
                model = format!("{model} with {what} {told}");
            }
        }
        Ok(match range {
            None => model,
            Some(range) => format!("{model} of {}", json!(range)),
        })
    }

    /// How many threads attack batches of their own.
    fn workers(
        &self,
        threads: usize,
        device: Device,
        (spec, examples): (&EvaluateSpec, usize),
    ) -> Result<usize> {
        match (self.workers, self.mode) {
            (Some(0), _) => Err(Error::input("--workers 0: expected at least 1")),
            (Some(2..), ModeName::Reference) => Err(Error::input(
                "--workers goes with strict mode: AutoAttack's own ways share one random generator",
            )),
            (Some(workers), _) => Ok(workers.min(threads)),
            (None, _) => Ok(evaluate::how_many(spec, examples, threads, device)),
        }
    }

    /// The batch size: as said, as an interrupted run had it, or by measurement.
    fn batch(
        &self,
        model: &dyn Classifier,
        data: &Dataset,
        (device, workers): (Device, usize),
        work: &Path,
    ) -> Result<u64> {
        if let Some(batch) = self.batch_size {
            return Ok(batch);
        }
        if matches!(self.mode, ModeName::Reference) {
            return Ok(AUTOATTACK); // its random numbers depend on it
        }
        let path = work.join("batch");
        let known = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        if let Some(batch) = known {
            return Ok(batch);
        }
        let batch = automatic(model, data.size, device, workers);
        fs::create_dir_all(work).at(work)?;
        let fresh = work.join("batch.new");
        fs::write(&fresh, batch.to_string()).at(&fresh)?;
        fs::rename(&fresh, &path).at(&path)?;
        Ok(batch)
    }

    /// The evaluation, but for its batch.
    fn spec(&self, data: Source, model: &dyn Classifier) -> Result<EvaluateSpec> {
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
        let largest = self.eps.iter().max_by(|a, b| a.value().total_cmp(&b.value()));
        let epsilon = *largest.ok_or_else(|| Error::input("--eps needs a bound"))?;
        if let Some(bad) = self.eps.iter().find(|epsilon| epsilon.value() <= 0.0) {
            return Err(Error::input(format!("--eps {bad}: expected a bound above 0")));
        }
        Ok(EvaluateSpec {
            data,
            threat: ThreatModel { norm: self.norm, epsilon },
            suite: self.suite.clone(),
            attacks,
            mode: match self.mode {
                ModeName::Strict => EvalMode::Strict,
                ModeName::Reference => EvalMode::Reference,
            },
            checkpoint: Checkpoint::Best,
            batch: 0,
            seed: self.seed,
        })
    }
}

/// AutoAttack's own batch.
const AUTOATTACK: u64 = 250;

/// `apgd-ce,fab-t:50,square:1000:2,malt:50:1:4`.
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
            number("targets", &mut attack.targets)?;
            if !name.targeted() {
                attack.targets = 0;
            }
            match parts.next() {
                None => Ok(attack),
                Some(_) => Err(Error::input(format!(
                    "--attacks: `{item}`: expected name[:steps[:restarts[:targets]]]"
                ))),
            }
        })
        .collect()
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
        for bad in ["", "apgd", "fab-t:0", "square:1:2:3:4", "pgd:x"] {
            assert!(custom(bad, 10).is_err(), "{bad}");
        }
    }
}
