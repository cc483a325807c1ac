//! Whole suites: what they mean and what is said about bad ones.

use super::*;
use crate::suite::settings::Settings;

const GOOD: &str = "\
suite: small
data: {name: synthetic, train: {count: 100}}
threats:
  linf: {norm: linf, epsilon: 8/255}
  l2: {norm: l2, epsilon: 0.5}
train:
  epochs: 2
axes:
  product:
    - sampler.steps: [5, 10]
    - threat: [linf, {value: l2, label: Euclidean}]
  zip:
    - train.batch: [32, 64, 128]
    - train.learning_rate: [0.1, 0.2, 0.4]
  exclude:
    - {sampler.steps: 10, threat: l2}
  include:
    - {label: plain, train.loss: standard, generated.count: 0}
seeds: [0]
";

fn parse(text: &str, overrides: &[&str]) -> Result<Suite> {
    let overrides: Vec<_> = overrides.iter().map(|&text| text.to_owned()).collect();
    Suite::parse(text, "s.yaml", Path::new(""), &overrides)
}

fn complaints(text: &str) -> Vec<String> {
    parse(text, &[]).unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[test]
fn cells_are_product_zip_exclude_include() {
    let suite = parse(GOOD, &[]).unwrap();
    let cells = suite.axes.cells();
    assert_eq!(cells.len(), 2 * 2 * 3 - 3 + 1);
    let last = Settings::layered(&suite.base, &cells[2].given);
    assert_eq!((last.count("sampler.steps"), last.count("train.batch")), (5, 128));
    assert_eq!(last.real("train.learning_rate").to_bits(), 0.4f64.to_bits());
    assert_eq!(cells[3].labels[1].1, "Euclidean");
    assert_eq!(cells.last().unwrap().label.as_deref(), Some("plain"));
    assert_eq!(suite.threat("l2").unwrap().to_string(), "l2 0.5");
}

#[test]
fn arguments_win_and_fix_axes() {
    let suite = parse(GOOD, &["sampler.steps=7", "train.epochs=9"]).unwrap();
    let cells = suite.axes.cells();
    assert_eq!(cells.len(), 2 * 3 + 1);
    let settings = Settings::layered(&suite.base, &cells[0].given);
    assert_eq!((settings.count("sampler.steps"), settings.count("train.epochs")), (7, 9));
    assert_eq!(settings.get("train.epochs").origin, Origin::Argument);
    let error = parse(GOOD, &["train.epoch=9", "train.batch=x", "y"]).unwrap_err().to_string();
    assert!(error.contains("s.yaml: train.epoch: unknown key: did you mean `epochs`?"), "{error}");
    assert!(error.contains("s.yaml: train.batch: `x` does not fit"), "{error}");
    assert!(error.contains("expected PATH=VALUE"), "{error}");
}

#[test]
fn all_complaints_come_in_one_pass_each_at_its_place() {
    let text = "\
suite: bad
data: {name: cifar11}
threats:
  linf: {norm: linv, epsilon: 0}
train:
  epoch: 3
  batch: many
  loss: trade
  tau: 1.5
trian: {x: 1}
axes:
  product:
    - sampler.steps: [5, ten,
        -3]
    - threat: [l3]
    - sampler.stops: [1]
";
    let found = complaints(text);
    let expected = [
        "s.yaml:2:14: data.name: `cifar11` is unknown: did you mean `cifar10`?",
        "s.yaml:4:16: threats.linf.norm: `linv` does not fit: expected linf, l2 or l1",
        "s.yaml:4:31: threats.linf.epsilon: `0` does not fit: expected a bound above 0, like 8/255 or 0.5",
        "s.yaml:6:3: train.epoch: unknown key: did you mean `epochs`?",
        "s.yaml:7:10: train.batch: `many` does not fit: expected a whole number from 1 to 1048576",
        "s.yaml:8:9: train.loss: `trade` is unknown: did you mean `trades`?",
        "s.yaml:9:8: train.tau: `1.5` does not fit: expected a number from 0 to 0.999999",
        "s.yaml:10:1: trian: unknown key: did you mean `train`?",
        "s.yaml:13:26: sampler.steps: `ten` does not fit: expected a whole number from 1 to 100000",
        "s.yaml:14:9: sampler.steps: `-3` does not fit: expected a whole number from 1 to 100000",
        "s.yaml:15:16: threat: `l3` is no threat model here: `threats:` names none",
        "s.yaml:16:7: sampler.stops: unknown key: did you mean `steps`?",
    ];
    assert_eq!(found, expected, "{found:#?}");
}

#[test]
fn what_is_missing_is_named() {
    let found = complaints("train: {epochs: 1}\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|line| line.contains("data.name: is missing")));
    assert!(found.iter().any(|line| line.contains("suite: is missing")));
}

#[test]
fn zips_must_be_even_and_axes_single() {
    let base = "suite: x\ndata: {name: synthetic}\naxes:\n";
    let uneven = format!("{base}  zip:\n    - train.batch: [1, 2]\n    - train.epochs: [1]\n");
    assert!(complaints(&uneven)[0].starts_with("s.yaml:6:7: train.epochs: has 1 values"));
    let twice = format!("{base}  product:\n    - train.batch: [1]\n    - train.batch: [2]\n");
    assert!(complaints(&twice)[0].contains("two axes"));
    let same = format!("{base}  product:\n    - train.batch: [1, 1]\n");
    assert!(complaints(&same)[0].contains("stands twice"));
}

#[test]
fn built_in_suites_are_whole() {
    let suite = Suite::load(Path::new("demo"), &[]).unwrap();
    assert_eq!(suite.name, "demo");
    let again = Suite::load(Path::new("suites/demo.yaml"), &[]).unwrap();
    assert_eq!(suite.axes.cells().len(), again.axes.cells().len());
    assert!(Suite::load(Path::new("no/such.yaml"), &[]).is_err());
    Suite::load(Path::new("suites/ci/cifar10.yaml"), &[]).unwrap();
}

fn parse_in(folder: &Path, text: &str) -> Result<Suite> {
    Suite::parse(text, &folder.join("own.yaml").display().to_string(), folder, &[])
}

#[test]
fn a_suite_says_only_what_differs_from_its_base() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("base.yaml"), GOOD).unwrap();
    let text =
        "suite: own\nbase: base.yaml\nsampler: {steps: 3}\ntrain: {epochs: 9}\nseeds: [4, 5]\n";
    let suite = parse_in(folder.path(), text).unwrap();
    assert_eq!(suite.name, "own");
    // The section fixes the inherited axis of steps; two seeds double the rest.
    assert_eq!(suite.axes.cells().len(), (2 * 3) * 2 + 1);
    let settings = suite.settings(&suite.axes.cells()[0].given);
    assert_eq!((settings.count("sampler.steps"), settings.count("train.epochs")), (3, 9));
    assert_eq!(settings.count("train.seed"), 4);
    assert!(suite.threat("l2").is_some());

    let bad = GOOD.replace("epochs: 2", "epocs: 2");
    fs::write(folder.path().join("base.yaml"), bad).unwrap();
    let error = parse_in(folder.path(), text).unwrap_err().to_string();
    assert!(error.contains("base.yaml:7:3: train.epocs"), "{error}");
    fs::write(folder.path().join("base.yaml"), "suite: b\nbase: base.yaml\n").unwrap();
    let error = parse_in(folder.path(), text).unwrap_err().to_string();
    assert!(error.contains("leads back to itself"), "{error}");
    let error = parse_in(folder.path(), "suite: x\nbase: no.yaml\n").unwrap_err().to_string();
    assert!(error.contains("own.yaml:2:7: base: `no.yaml` does not open"), "{error}");
}

#[test]
fn references_and_thresholds_are_checked() {
    let with = |more: &str| parse(&format!("{GOOD}{more}"), &[]);
    let suite = with("reference: {clean: 90, cell: {threat: l2}}\nci: {robust: 2}\n").unwrap();
    assert_eq!((suite.reference.len(), suite.ci.robust.to_bits()), (1, 2f64.to_bits()));
    let bad = "reference:\n  - {clean: 900, certainty: sure, cell: {train.epoch: 1}}\n  - {source: x}\nci: {robst: 1}\n";
    let error = with(bad).unwrap_err().to_string();
    for part in ["clean: `900`", "certainty: `sure`", "`epochs`", "says no number", "`robust`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn the_report_names_axes_that_exist() {
    let with = |more: &str, overrides: &[&str]| parse(&format!("{GOOD}{more}"), overrides);
    let good = "report: {title: A, x: [sampler.steps, train.batch], rows: train.loss, columns: threat, values: [clean, robust]}\n";
    let layout = with(good, &[]).unwrap().report;
    assert_eq!((layout.title.as_deref(), layout.columns.as_deref()), (Some("A"), Some("threat")));
    assert_eq!((layout.x.len(), layout.rows.as_slice()), (2, &["train.loss".to_owned()][..]));
    // What the command line fixes is no mistake of the suite.
    assert!(with("report: {x: sampler.steps}\n", &["sampler.steps=5"]).is_ok());
    let bad = "report:\n  titel: A\n  x: [sampler.step, train.beta]\n  rows: threat\n  columns: threat\n  values: robst\n";
    let error = with(bad, &[]).unwrap_err().to_string();
    for part in [
        "s.yaml:21:3: report.titel: unknown key: did you mean `title`?",
        "s.yaml:22:7: report.x: `sampler.step` is no axis of this suite: did you mean `sampler.steps`?",
        "s.yaml:22:21: report.x: `train.beta` is no axis",
        "s.yaml:24:12: report.columns: `threat` already stands in `rows`",
        "report.values: `robst` is unknown",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_zip_may_repeat_values_but_not_combinations() {
    let with = |steps: &str, counts: &str| {
        parse(
            &format!(
                "suite: z\ndata: {{name: synthetic}}\nthreats: {{l: {{norm: linf, epsilon: 8/255}}}}\naxes:\n  zip:\n    - sampler.steps: {steps}\n    - generated.count: {counts}\n"
            ),
            &[],
        )
    };
    assert_eq!(with("[5, 5, 6]", "[1, 2, 2]").unwrap().axes.cells().len(), 3);
    let error = with("[5, 5]", "[1, 1]").unwrap_err().to_string();
    assert!(error.contains("`5, 1` stands twice in this zip"), "{error}");
}

/// Every suite of the repository is whole, names its schema, and the schema is this version's.
#[test]
fn shipped_suites_are_whole() {
    let schema = serde_json::to_string_pretty(&schema::schema()).unwrap() + "\n";
    let shipped = fs::read_to_string("suites/schema.json").unwrap();
    assert!(shipped == schema, "run `gauntlet schema --out suites/schema.json`");
    for (folder, modeline) in [
        ("suites", "schema.json"),
        ("suites/ci", "../schema.json"),
        ("suites/paper", "../schema.json"),
    ] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = fs::read_to_string(&path).unwrap();
                let first = format!("# yaml-language-server: $schema={modeline}\n");
                assert!(text.starts_with(&first), "{}", path.display());
                Suite::load(&path, &[]).unwrap();
            }
        }
    }
    let template = include_str!("template.yaml").replace("NAME", "x");
    assert!(parse(&template, &[]).unwrap().axes.cells().len() == 5);
}
