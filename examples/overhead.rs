//! What each attack costs beyond its network passes, in this process, on one thread:
//!
//! ```text
//! cargo run --example overhead -- MODEL [--arch NAME] [--examples 64] [--norm linf] [--eps 2/255]
//!     [--attacks apgd-ce,apgd-t,fab-t,square] [--steps 20] [--queries 200] [--repeat 3]
//! ```
//!
//! An attack runs on a model that notes every pass; then the same passes run bare, at the same
//! batch shapes, forward and backward. Both in CPU seconds, interleaved; the median repetition
//! is printed. `--data-dir` and `--mode` are as in `evaluate`.

use std::{collections::BTreeMap, fs, process::ExitCode, sync::Mutex};

use gauntlet::{
    attack::{self, Batch, Bounds, Kind, Mode, Spec},
    data::{
        self,
        spec::{Source, Split},
    },
    error::{Error, Result},
    net::{Classifier, load_classifier},
    progress::Silent,
    threat::Norm,
    units::Epsilon,
};
use tch::{Device, Tensor};

/// A model that notes the rows of each pass and whether it was traced for a gradient.
struct Noting {
    model: Box<dyn Classifier>,
    passes: Mutex<Vec<(i64, bool)>>,
}

impl Classifier for Noting {
    fn classes(&self) -> i64 {
        self.model.classes()
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        self.passes.lock().expect("one thread").push((x.size()[0], x.requires_grad()));
        self.model.logits(x)
    }
}

/// On-CPU seconds of the main thread, which does all the work.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/schedstat").expect("Linux with schedstat");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begun = cpu_seconds();
    let value = work();
    (cpu_seconds() - begun, value)
}

/// The noted passes again: every forward, and backwards for as many rows as the attack pulled.
fn bare(model: &dyn Classifier, images: &Tensor, passes: &[(i64, bool)], pulled: u64) {
    let traced: i64 = passes.iter().filter(|pass| pass.1).map(|pass| pass.0).sum();
    let share = pulled as f64 / traced.max(1) as f64;
    let mut owed = 0.0;
    for &(rows, traced) in passes {
        let x = images.narrow(0, 0, rows);
        if !traced {
            let _guard = tch::no_grad_guard();
            let _ = model.logits(&x);
            continue;
        }
        let leaf = x.detach().set_requires_grad(true);
        let value = tch::with_grad(|| model.logits(&leaf).sum(tch::Kind::Float));
        owed += share;
        while owed > 0.5 {
            owed -= 1.0;
            let _ = Tensor::run_backward(&[&value], &[&leaf], owed > 0.5, false);
        }
    }
}

fn spec(name: &str, norm: Norm, epsilon: f64, given: &BTreeMap<String, String>) -> Result<Spec> {
    let number = |key: &str, fallback: u64| {
        given.get(key).map_or(Ok(fallback), |text| {
            text.parse().map_err(|_| Error::input(format!("--{key} {text}: expected a number")))
        })
    };
    let kind = match name {
        "apgd-ce" => Kind::ApgdCe,
        "apgd-dlr" => Kind::ApgdDlr,
        "apgd-t" => Kind::ApgdTargeted,
        "fab" => Kind::Fab,
        "fab-t" => Kind::FabTargeted,
        "square" => Kind::Square,
        "pgd" => Kind::Pgd,
        _ => return Err(Error::input(format!("attack `{name}` is unknown"))),
    };
    let steps = if kind == Kind::Square { number("queries", 200) } else { number("steps", 20) }?;
    Ok(Spec {
        kind,
        steps,
        restarts: 1,
        targets: number("targets", 2)?,
        eot: 1,
        staged: false,
        norm,
        epsilon,
        bounds: Bounds::UNIT,
        mode: if given.get("mode").is_some_and(|mode| mode == "reference") {
            Mode::Reference
        } else {
            Mode::Strict
        },
        seed: 0,
    })
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let path = words.next().ok_or_else(|| Error::input("name a model file"))?;
    let mut given = BTreeMap::new();
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        given.insert(key.trim_start_matches('-').to_owned(), value);
    }
    let word =
        |key: &str, fallback: &str| given.get(key).map_or(fallback, String::as_str).to_owned();
    let norm: Norm = word("norm", "linf").parse()?;
    let epsilon: Epsilon = word("eps", "2/255").parse()?;
    let count: u64 = word("examples", "64").parse().map_err(|_| Error::input("--examples N"))?;
    let repeat: usize = word("repeat", "3").parse().map_err(|_| Error::input("--repeat N"))?;
    gauntlet::device::set_threads(word("threads", "1").parse().unwrap_or(1));
    let source = Source {
        name: word("data", "cifar10"),
        split: Split::Test,
        skip: 0,
        count: Some(count),
        resolution: 32,
        fingerprint: String::new(),
    };
    let folder = given.get("data-dir").map(std::path::PathBuf::from);
    let (set, _) = data::resolve(&source, &data::roots(folder.as_deref()))?;
    let model = load_classifier(
        path.as_ref(),
        given.get("arch").map(String::as_str),
        &source.name,
        Device::Cpu,
    )?;
    let noting = Noting { model, passes: Mutex::default() };
    let all: Vec<usize> = (0..set.len()).collect();
    let (images, labels) = (set.images(&all, Device::Cpu), set.targets(&all, Device::Cpu));
    let examples: Vec<u64> = (0..count).collect();
    let batch = Batch { images: &images, labels: &labels, examples: &examples, streams: &examples };
    println!(
        "{:<9} {:>9} {:>9} {:>9} {:>9} {:>6}  standing",
        "attack", "forwards", "backwards", "attack s", "passes s", "ratio"
    );
    for name in word("attacks", "apgd-ce,apgd-t,fab-t,square").split(',') {
        let spec = spec(name, norm, epsilon.value(), &given)?;
        let mut rows = Vec::new();
        let mut last = String::new();
        for _ in 0..repeat {
            let (spent, outcome) = timed(|| attack::run(&spec, &noting, &batch, &Silent));
            let outcome = outcome?;
            let passes = std::mem::take(&mut *noting.passes.lock().expect("one thread"));
            let pulled = outcome.backward.iter().sum();
            let (needed, ()) = timed(|| bare(&*noting.model, &images, &passes, pulled));
            rows.push((spent / needed, spent, needed));
            let standing = outcome.breaks.iter().filter(|how| how.is_none()).count();
            let forwards: u64 = outcome.forward.iter().sum();
            last = format!("{forwards:>9} {pulled:>9}|{standing}/{count}");
        }
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, spent, needed) = rows[rows.len() / 2];
        let (passes, standing) = last.split_once('|').expect("joined above");
        println!("{name:<9} {passes} {spent:>9.3} {needed:>9.3} {ratio:>6.3}  {standing}");
    }
    Ok(())
}
