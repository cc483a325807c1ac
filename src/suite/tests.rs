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
