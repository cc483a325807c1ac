//! Sharing, identity, and the table of fields against the stages' specs.

use std::collections::BTreeSet;

use super::*;
use crate::{
    diffusion::spec::{Applies, LabelBy, PolicyKind},
    error::Error,
    suite::{Suite, settings::Settings, table::FIELDS},
    train::spec::Loss,
};

/// Data sets of any size that never touch a disk.
struct Imagined;

impl Surveyor for Imagined {
    fn survey(&self, source: &Source, _: &[PathBuf]) -> Result<Survey> {
        if source.name == "svhn" {
            return Err(Error::input("no svhn here"));
        }
        let images = source.count.unwrap_or(50_000);
        let fingerprint = format!("{} {:?} {} {images}", source.name, source.split, source.skip);
        let classes = if source.name == "cifar100" { 100 } else { 10 };
        Ok(Survey { fingerprint, classes, images, resolution: source.resolution })
    }

    fn denoiser(&self, path: &Path) -> Result<Option<Architecture>> {
        let classes = if path.ends_with("uncond.pkl") { 0 } else { 10 };
        let resolution = if path.ends_with("edm64.pkl") { 64 } else { 32 };
        let arguments = serde_json::json!({
            "img_resolution": resolution, "img_channels": 3, "label_dim": classes,
            "sigma_max": 80.0,
        });
        Architecture::from_kwargs("EDMPrecond", &arguments).map(Some)
    }

    fn set(&self, paths: &[PathBuf]) -> Result<Reference> {
        let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap()).collect();
        let fingerprint = format!("set {names:?}");
        let (images, resolution, classes) = (1_000_000, 32, 10);
        Ok(Reference {
            paths: paths.to_vec(),
            fingerprint,
            images,
            resolution,
            classes,
            soft: false,
        })
    }

    fn hash(&self, path: &Path) -> Result<String> {
        Ok(format!("hash of {}", path.file_name().unwrap().display()))
    }
}

fn plan_with(text: &str, overrides: &[&str]) -> Result<Plan> {
    let overrides: Vec<_> = overrides.iter().map(|&text| text.to_owned()).collect();
    resolve(&Suite::parse(text, "s.yaml", Path::new(""), &overrides)?, &[], &Imagined)
}

fn plan(text: &str) -> Plan {
    plan_with(text, &[]).unwrap()
}

fn stages(plan: &Plan, stage: Stage) -> Vec<&Job> {
    plan.jobs.iter().filter(|job| job.stage == stage).collect()
}

const HEAD: &str = "\
suite: t
data: {name: cifar10, test: {count: 100}}
threats: {linf: {norm: linf, epsilon: 8/255}, l2: {norm: l2, epsilon: 128/255}}
";

#[test]
fn cells_share_what_they_have_in_common() {
    let plan = plan(&format!(
        "{HEAD}axes:\n  product:\n    - sampler.steps: [5, 10]\n    - generated.count: [0, 25K, 40K]\n    - threat: [linf, l2]\n"
    ));
    assert_eq!(plan.cells.len(), 12);
    assert_eq!(stages(&plan, Stage::Fit).len(), 1);
    // Two samplers, four shards each: 25K uses three of those that 40K has.
    assert_eq!(stages(&plan, Stage::Generate).len(), 8);
    // Without generated images the sampler cannot matter: one training for each threat model.
    assert_eq!(stages(&plan, Stage::Train).len(), 2 + 2 * 2 * 2);
    assert_eq!(stages(&plan, Stage::Evaluate).len(), 10);
    let mut seen = BTreeSet::new();
    for job in &plan.jobs {
        assert!(job.inputs.iter().all(|input| seen.contains(&input.id)), "inputs come first");
        assert!(seen.insert(job.id.clone()), "no job twice");
    }
    let first = stages(&plan, Stage::Generate)[0];
    let Work::Generate(spec) = &first.work else { panic!() };
    assert_eq!((spec.start, spec.count), (0, 10_000));
    assert_eq!(plan.cells[2].generated.len(), 3);
    assert_eq!(plan.cells[2].title(), "sampler.steps=5 generated.count=25K threat=linf");
    assert_eq!(first.cells, [2, 3, 4, 5]);
}

#[test]
fn extra_cells_have_the_columns_of_all() {
    let axes = "axes:\n  product:\n    - threat: [linf, l2]\n  include:\n    - {label: plain, train.loss: standard, evaluate.threats: [l2]}\n";
    let plan = plan(&format!("{HEAD}{axes}"));
    let columns = |cell: &Cell| cell.values.iter().map(|v| v.path.clone()).collect::<Vec<_>>();
    assert!(plan.cells.iter().all(|cell| columns(cell) == ["threat", "train.loss"]));
    let losses: Vec<_> = plan.cells.iter().map(|cell| cell.values[1].label.as_str()).collect();
    assert_eq!(losses, ["trades", "trades", "standard"]);
    assert_eq!(plan.cells[2].title(), "plain");
}

#[test]
fn a_larger_count_keeps_what_was_trained() {
    let axis = |counts: &str| {
        format!("{HEAD}threat: linf\naxes: {{product: [generated.count: [{counts}]]}}\n")
    };
    let (small, large) = (plan(&axis("12K")), plan(&axis("12K, 30K")));
    assert_eq!(small.cells[0].train, large.cells[0].train, "identity is (set, count)");
    assert_eq!(small.cells[0].generated[0], large.cells[0].generated[0], "whole shards nest");
    assert_ne!(
        small.cells[0].generated[1], large.cells[0].generated[1],
        "the last one was partial"
    );
    assert_ne!(large.cells[0].train, large.cells[1].train);
}

#[test]
fn irrelevant_settings_do_not_change_ids() {
    let base = format!("{HEAD}threat: linf\ngenerated: {{count: 100}}\n");
    let id = |sets: &[&str]| plan_with(&base, sets).unwrap().cells[0].clone();
    let same: [&[&str]; 3] =
        [&["evaluate.batch=9"], &["sampler.churn_min=3"], &["data.train.count=50000"]];
    for sets in same {
        let (a, b) = (id(&[]), id(sets));
        assert_eq!((a.train, a.evaluations), (b.train, b.evaluations), "{sets:?}");
    }
    for sets in [
        "sampler.churn=1",
        "denoiser.seed=3",
        "train.beta=4",
        "generated.fraction=0.5",
        "generated.batch=7",
    ] {
        assert_ne!(id(&[]).train, id(&[sets]).train, "{sets}");
    }
    let plain = ["train.loss=standard", "evaluate.threats=[linf, l2]"];
    let with = |more| id(&[plain[0], plain[1], more]).train;
    assert_eq!(with("threat=linf"), with("threat=l2"));
    assert_eq!(with("train.beta=1"), with("train.beta=2"));
    assert_eq!(id(&plain).evaluations.len(), 2);
    assert_ne!(id(&[]).evaluations[0].job, id(&["evaluate.seed=1"]).evaluations[0].job);
}

#[test]
fn files_can_stand_in_for_jobs() {
    let plan =
        plan_with(HEAD, &["threat=l2", "generated.count=10", "denoiser.file=a/edm.pkl"]).unwrap();
    let Work::Import(spec) = &plan.jobs[0].work else { panic!() };
    assert_eq!((spec.name.as_str(), spec.blake3.as_str()), ("denoiser.pkl", "hash of edm.pkl"));
    assert!(spec.path.is_absolute() && stages(&plan, Stage::Fit).is_empty());
    let moved = plan_with(HEAD, &["threat=l2", "generated.count=10", "denoiser.file=b/edm.pkl"]);
    assert_eq!(moved.unwrap().cells[0].train, plan.cells[0].train, "where it lies does not matter");
    let set =
        plan_with(HEAD, &["threat=l2", "generated.count=10", "generated.file=1m.npz"]).unwrap();
    assert_eq!(
        set.jobs.iter().map(|job| job.stage).collect::<Vec<_>>()[..3],
        [Stage::Import, Stage::Quality, Stage::Train]
    );
    // The set stays where it lies, and the training knows where; the id does not.
    let train = |sets: &[&str]| {
        let sets = [&["threat=l2", "generated.count=10"], sets].concat();
        let plan = plan_with(HEAD, &sets).unwrap();
        plan.job(&plan.cells[0].train).unwrap().clone()
    };
    let (here, there) =
        (train(&["generated.file=1m.npz"]), train(&["generated.file=other/1m.npz"]));
    assert_eq!(here.id, there.id);
    assert!(there.set.unwrap().paths[0].ends_with("other/1m.npz"));
    let many = train(&["generated.file=[a.npz, b.npz]"]);
    assert_eq!(many.set.unwrap().paths.len(), 2);
    // A selection is made from all of it; the training then finds its images in the store.
    let chosen = train(&["generated.file=1m.npz", "labels.classifier=wrn.pt"]);
    assert_eq!(chosen.set, None);
    for (set, part) in [
        ("generated.count=2M", "holds 1000000 images"),
        ("generated.drawn=20", "the whole set"),
        ("data.name=tiny-imagenet", "32x32"),
    ] {
        let sets = ["threat=l2", "generated.count=10", "generated.file=1m.npz", set];
        let message = plan_with(HEAD, &sets).unwrap_err().to_string();
        assert!(message.contains("generated.") && message.contains(part), "{message}");
    }
}

#[test]
fn the_papers_rules_hold() {
    let spec = |sets: &[&str]| {
        let plan = plan_with(HEAD, &[&["threat=linf"], sets].concat()).unwrap();
        let job = plan.job(&plan.cells[0].train).unwrap().clone();
        let Work::Train(spec) = job.work else { panic!() };
        let job = plan.job(&plan.cells[0].evaluations[0].job).unwrap().clone();
        let Work::Evaluate(evaluation) = job.work else { panic!() };
        (spec, evaluation)
    };
    let fraction = |count: &str| {
        spec(&[&format!("generated.count={count}"), "generated.shard=10M"]).0.generated_fraction
    };
    let fractions = [fraction("0"), fraction("1M"), fraction("5M")];
    assert_eq!(fractions.map(f64::to_bits), [0.0, 0.7, 0.8].map(f64::to_bits));
    let standard = spec(&[]).1;
    assert_eq!((standard.suite.as_str(), standard.attacks.len()), ("standard", 4));
    assert_eq!((standard.attacks[1].targets, standard.attacks[3].steps), (9, 5000));
    let custom = spec(&["evaluate.steps=10"]).1;
    assert_eq!(
        (custom.suite.as_str(), custom.attacks[0].steps, custom.attacks[3].steps),
        ("custom", 10, 5000)
    );
    assert_eq!(spec(&["evaluate.suite=rand"]).1.attacks[0].eot, 20);
    assert_eq!(spec(&["train.preset=deepmind"]).0.batch, 1024);
    let named = spec(&["evaluate.attacks=[{apgd-t: {targets: 3}}]"]).1;
    assert_eq!((named.attacks[0].targets, named.attacks[0].steps), (3, 100));
    let inline = spec(&["threat.epsilon=4/255"]).0;
    assert_eq!(inline.threat.unwrap().to_string(), "linf 4/255");
}

#[test]
fn impossible_combinations_are_found_at_their_place() {
    let text = "\
suite: t
data: {name: cifar10, resolution: 48, train: {count: 500}}
threats: {linf: {norm: linf, epsilon: 8/255}}
axes:
  product:
    - train.validation: [100,
        500]
    - data.name: [cifar10, svhn]
";
    let error = plan_with(text, &[]).unwrap_err().to_string();
    assert!(
        error.contains("s.yaml:2:35: data.resolution: 48 does not fit: images of cifar10 have 32"),
        "{error}"
    );
    let error = plan_with(text, &["data.resolution=32"]).unwrap_err().to_string();
    assert!(error.contains("s.yaml:7:9: train.validation: 500 does not fit"), "{error}");
    assert!(error.contains("s.yaml:8:28: data.name: no svhn here"), "{error}");
    let error = plan_with(HEAD, &[]).unwrap_err().to_string();
    assert!(error.contains("threat: which threat model? expected one of linf, l2"), "{error}");
}

#[test]
fn ten_thousand_cells_plan_in_about_a_second() {
    let list = |n: u64| (1..=n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!(
        "{HEAD}threat: linf\nseeds: [{}]\naxes:\n  product:\n    - sampler.steps: [{}]\n    - generated.count: [{}]\n    - train.beta: [{}]\n",
        list(10),
        list(10),
        list(10),
        list(10)
    );
    let started = processor_seconds();
    let plan = plan(&text);
    let seconds = processor_seconds() - started;
    assert_eq!((plan.cells.len(), stages(&plan, Stage::Train).len()), (10_000, 10_000));
    // A core shared with another thread takes twice as long; planning pair by pair took minutes.
    assert!(seconds < 4.0, "{seconds} s");
    println!("10,000 cells in {seconds:.3} s");
}

/// Time this thread had a processor: other tests and programs share the cores.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The table and the stages' specs name the same fields; what differs is listed here with its why.
#[test]
fn the_table_and_the_specs_name_the_same_fields() {
    let sets = "threat=linf generated.count=10 policy.kind=uniform labels.balance=true \
                denoiser.precision=bf16";
    let sets: Vec<&str> = sets.split(' ').collect();
    let plan = plan_with(HEAD, &sets).unwrap();
    let mut specs = BTreeSet::new();
    let mut note = |section: &str, object: &serde_json::Value| {
        specs.extend(object.as_object().unwrap().keys().map(|key| format!("{section}.{key}")));
    };
    for job in &plan.jobs {
        match &job.work {
            Work::Fit(spec) => {
                note("denoiser", &serde_json::to_value(spec).unwrap());
                note("denoiser", &serde_json::to_value(&spec.network).unwrap());
            }
            Work::Generate(spec) => {
                note("generated", &serde_json::to_value(spec).unwrap());
                note("sampler", &serde_json::to_value(&spec.sampler).unwrap());
                note("policy", &serde_json::to_value(&spec.policy).unwrap());
            }
            Work::Label(spec) => note("labels", &serde_json::to_value(spec).unwrap()),
            Work::Quality(spec) => note("quality", &serde_json::to_value(spec).unwrap()),
            Work::Train(spec) => {
                note("train", &serde_json::to_value(spec).unwrap());
                note("train", &serde_json::to_value(&spec.network).unwrap());
            }
            Work::Evaluate(spec) => note("evaluate", &serde_json::to_value(spec).unwrap()),
            Work::Import(_) | Work::Reference(_) => {}
        }
    }
    // Of other sections, or nested, or worked out.
    let derived = [
        "denoiser.data",
        "denoiser.network",
        "denoiser.resolution",
        "denoiser.classes",
        "denoiser.augment_dim",
        "generated.sampler",
        "generated.origin",
        "generated.policy",
        "generated.classes",
        "generated.start",
        "labels.classes",
        "labels.count",
        "labels.dataset",
        "quality.train",
        "quality.test",
        "train.data",
        "train.network",
        "train.dataset",
        "train.classes",
        "train.threat",
        "train.generated",
        "train.generated_fraction",
        "evaluate.data",
    ];
    // Steer resolution without standing in a spec.
    let steering = [
        "denoiser.file",
        "denoiser.conditional",
        "generated.file",
        "generated.fraction",
        "generated.shard",
        "generated.supply",
        "generated.rate",
        "generated.drawn",
        "labels.classifier",
        "labels.trained",
        "train.preset",
        "evaluate.steps",
        "evaluate.queries",
        "evaluate.restarts",
        "evaluate.targets",
        "evaluate.threats",
    ];
    let own = |path: &&str| ["data", "threat"].iter().all(|s| path.split('.').next() != Some(s));
    let table: BTreeSet<String> = FIELDS
        .iter()
        .map(|field| field.path)
        .filter(own)
        .filter(|path| !steering.contains(path))
        .map(str::to_owned)
        .collect();
    for path in derived {
        assert!(specs.remove(path), "{path} is no longer in a spec");
    }
    assert_eq!(table, specs);
    let settings = Settings::layered(&[], &[]);
    assert_eq!(settings.iter().count(), FIELDS.len());
}

#[test]
fn a_threat_model_has_its_own_policy() {
    let text = "\
suite: t
data: {name: cifar10}
threats:
  linf: {norm: linf, epsilon: 8/255, policy: {kind: uniform, min: 3, max: 8}}
  l2: {norm: l2, epsilon: 128/255, policy: {kind: mirrored, applies: exit}}
generated: {count: 100}
axes: {product: [{threat: [linf, l2]}]}
";
    let plan = plan_with(text, &[]).unwrap();
    let policies: Vec<_> = stages(&plan, Stage::Generate)
        .iter()
        .map(|job| {
            let Work::Generate(spec) = &job.work else { panic!() };
            spec.policy.clone().unwrap()
        })
        .collect();
    assert_eq!((policies[0].kind, policies[0].min, policies[0].max), (PolicyKind::Uniform, 3, 8));
    assert_eq!((policies[1].applies, policies[1].max), (Applies::Exit, 18));
    let wrong = text.replace("max: 8", "max: 0");
    let error = plan_with(&wrong, &[]).unwrap_err().to_string();
    assert!(error.contains("s.yaml:4:75: policy.max: `0` does not fit"), "{error}");
}

#[test]
fn misfits_of_denoiser_and_data_are_found_at_their_place() {
    let error = |sets: &[&str]| {
        let sets = [&["threat=linf", "generated.count=10"], sets].concat();
        plan_with(HEAD, &sets).unwrap_err().to_string()
    };
    for (sets, expected) in [
        (&["denoiser.file=edm64.pkl"][..], "denoiser.file: makes images of 64x64 pixels"),
        (&["denoiser.file=uncond.pkl"], "denoiser.file: knows no classes"),
        (&["denoiser.conditional=false"], "denoiser.conditional: false does not fit"),
        (&["denoiser.file=edm.pkl", "data.name=cifar100"], "denoiser.file: is conditioned on 10"),
        (&["denoiser.file=edm.pkl", "sampler.sigma_max=100"], "sampler.sigma_max: is 100"),
        (&["sampler.sigma_min=3", "sampler.sigma_max=2"], "sampler.sigma_max: is 2"),
        (&["sampler.solver=ddim", "sampler.steps=2000"], "sampler.steps: is 2000"),
        (&["policy.kind=uniform", "policy.max=30"], "policy.max: is 30"),
        (&["policy.kind=uniform", "policy.min=9", "policy.max=8"], "policy.min: is 9"),
        (&["denoiser.channels=100"], "denoiser.channels"),
        (&["labels.by=classifier"], "labels.classifier: is missing"),
        (&["labels.confidence=0.5"], "labels.classifier: is missing"),
        (&["generated.drawn=5"], "generated.drawn: 5 does not fit"),
    ] {
        let message = error(sets);
        assert!(message.contains(expected), "{sets:?}: {message}");
    }
    // An unconditional denoiser serves where a classifier labels.
    let labelled = ["labels.by=classifier", "labels.classifier=wrn.pt"];
    for more in ["denoiser.conditional=false", "denoiser.file=uncond.pkl"] {
        let sets = [&["threat=linf", "generated.count=10", more][..], &labelled].concat();
        let plan = plan_with(HEAD, &sets).unwrap();
        let Work::Generate(spec) = &stages(&plan, Stage::Generate)[0].work else { panic!() };
        assert_eq!(spec.classes, 0);
    }
}

#[test]
fn the_table_knows_every_suite_and_attack_of_evaluation() {
    use crate::{
        evaluate::spec::{AttackName, SUITES},
        suite::table::ATTACKS,
    };
    for name in SUITES {
        let plan =
            plan_with(&format!("{HEAD}threat: linf\n"), &[&format!("evaluate.suite={name}")]);
        let jobs = plan.unwrap().jobs;
        let spec = jobs.iter().find_map(|job| match &job.work {
            Work::Evaluate(spec) => Some(spec),
            _ => None,
        });
        assert_eq!(spec.unwrap().suite, name);
    }
    assert_eq!(AttackName::ALL.map(AttackName::as_str), *ATTACKS);
}

#[path = "label_tests.rs"]
mod label_tests;

#[path = "live_tests.rs"]
mod live_tests;
