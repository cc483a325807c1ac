//! The whole line by the real program: a tiny suite from YAML to report, interrupted and resumed.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

const SUITE: &str = "\
suite: tiny
data: {name: synthetic, resolution: 16, train: {count: 60}, test: {count: 20}}
threats:
  linf: {norm: linf, epsilon: 8/255}
  l2: {norm: l2, epsilon: 128/255}
denoiser: {channels: 8, channel_mult: [1, 2], blocks: 1, attention: [], images: 400, batch: 20,
           ramp: 100, ema_half_life: 100, dropout: 0, augment: 0, flip: false}
generated: {batch: 10}
train: {arch: wrn-10-1-swish, epochs: 2, batch: 20, attack_steps: 2, validation: 10,
        validation_steps: 2}
evaluate: {attacks: [apgd-ce], steps: 3, batch: 20}
axes:
  product:
    - generated.count: [0, 20]
    - threat: [linf, l2]
  include:
    - {label: normal training, threat: linf, train.loss: standard, generated.count: 0}
sampler: {steps: 2}
reference:
  - {cell: {generated.count: 20, threat: linf}, robust: 50, source: nowhere}
report: {title: Tiny, rows: generated.count}
";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(suite: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tiny.yaml"), suite).unwrap();
        Self { folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("GAUNTLET_STORE");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| {
        panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr))
    })
}

/// Every file of the artifacts that results rest on, without times and hosts.
fn results(store: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for artifact in fs::read_dir(store.join("artifacts")).unwrap() {
        let artifact = artifact.unwrap().path();
        for name in ["denoiser.safetensors", "images.npz", "best.safetensors", "records.parquet"] {
            if let Ok(bytes) = fs::read(artifact.join(name)) {
                let id = artifact.file_name().unwrap().to_string_lossy().into_owned();
                found.push((format!("{id}/{name}"), bytes));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_suite_runs_once_and_then_from_the_store() {
    let place = Place::new(SUITE);
    let first = place.run(&["run", "tiny.yaml", "--device", "cpu", "--jobs", "2", "--json"]);
    let summary = json(&first);
    assert!(first.status.success(), "{summary}");
    assert_eq!((summary["failed"].as_u64(), summary["cached"].as_u64()), (Some(0), Some(0)));
    for file in ["report.html", "report.md", "results.csv", "results.parquet"] {
        assert!(place.path("out/tiny").join(file).exists(), "{file}");
    }
    // The report is as the suite wants it, with what only the store knows.
    let report = fs::read_to_string(place.path("out/tiny/report.md")).unwrap();
    for part in ["# Tiny", "| 50.00? |", " FID |", "![Attacked images, linf 8/255]"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    let second = json(&place.run(&["run", "tiny.yaml", "--device", "cpu", "--json"]));
    assert_eq!(second["run"], 0, "{second}");
    let plan = json(&place.run(&["plan", "tiny.yaml", "--json"]));
    assert!(plan["jobs"].as_array().unwrap().iter().all(|job| job["cached"] == true), "{plan}");
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let whole = Place::new(SUITE);
    let arguments = ["run", "tiny.yaml", "--device", "cpu", "--jobs", "1", "--json"];
    assert!(whole.run(&arguments).status.success());

    let broken = Place::new(SUITE);
    for milliseconds in [900, 1700, 2600, 4000] {
        let mut child =
            broken.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        let _ = child.kill(); // SIGKILL: nobody can tidy up
        let _ = child.wait();
    }
    let output = broken.run(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (expected, found) = (results(&whole.path(".gauntlet")), results(&broken.path(".gauntlet")));
    let names =
        |all: &[(String, Vec<u8>)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&found));
    for ((name, a), (_, b)) in expected.iter().zip(&found) {
        assert!(a == b, "{name} differs after kill -9");
    }
}

#[test]
fn every_mistake_of_a_suite_is_named_at_its_place() {
    let wrong = SUITE
        .replace("epochs: 2", "epocs: 2")
        .replace("epsilon: 8/255", "epsilon: 9000/255x")
        .replace("threat: [linf, l2]", "threat: [linf, l3]")
        .replace("rows: generated.count", "rows: generated.cuont");
    let place = Place::new(&wrong);
    let output = place.run(&["plan", "tiny.yaml"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for part in
        ["tiny.yaml:4:", "9000/255x", "epocs", "epochs", "l3", "tiny.yaml:15:", "`generated.cuont`"]
    {
        assert!(message.contains(part), "{part} is missing in:\n{message}");
    }
    assert!(!place.path(".gauntlet").exists(), "a plan writes nothing");
}

#[test]
fn missing_data_says_where_it_was_looked_for() {
    let place = Place::new(&SUITE.replace("synthetic, resolution: 16", "cifar10"));
    let output = place.run(&["plan", "tiny.yaml", "--data", "nowhere"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(message.contains("nowhere") && message.contains("cifar-10-batches-py"), "{message}");
}
