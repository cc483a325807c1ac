//! Suites as people use them: planned, run in part, failing in part, followed, kept, checked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

const SUITE: &str = "\
suite: tiny
data: {name: synthetic, resolution: 8, train: {count: 40}, test: {count: 16}}
threats:
  linf: {norm: linf, epsilon: 8/255}
  l2: {norm: l2, epsilon: 128/255}
denoiser: {channels: 8, channel_mult: [1], blocks: 1, attention: [], images: 40, batch: 20,
           ramp: 20, ema_half_life: 20, dropout: 0, augment: 0, flip: false}
sampler: {steps: 1}
generated: {batch: 10}
train: {arch: wrn-10-1-swish, epochs: 1, batch: 20, attack_steps: 1, validation: 8,
        validation_steps: 1}
evaluate: {attacks: [apgd-ce], steps: 2, batch: 16}
axes:
  product:
    - generated.count: [{value: 0, label: none}, 20]
    - threat: [linf, l2]
quality: {images: 0}
";
const JOBS: u64 = 10;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tiny.yaml"), SUITE).unwrap();
        Self(folder)
    }

    /// A place whose store holds the whole suite.
    fn whole() -> Self {
        static WHOLE: OnceLock<Place> = OnceLock::new();
        let whole = WHOLE.get_or_init(|| {
            let place = Self::new();
            place.good(&["run", "tiny.yaml", "--device", "cpu", "--jobs", "2"]);
            place
        });
        let place = Self::new();
        let (from, to) = (whole.path(".gauntlet"), place.path(".gauntlet"));
        assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
        command.args(arguments).current_dir(self.0.path()).env_remove("GAUNTLET_STORE");
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Standard error of a command that must fail with `code`.
    fn bad(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        errors
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(self.good(arguments).lines().last().unwrap()).unwrap()
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// The artifacts' folders.
fn artifacts(store: &Path) -> Vec<PathBuf> {
    fs::read_dir(store.join("artifacts")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn commands_without_tensors_load_no_libtorch() {
    // The loader itself says what it would load.
    let program = env!("CARGO_BIN_EXE_gauntlet");
    let loaded = Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
    let loaded = String::from_utf8_lossy(&loaded.stdout).into_owned();
    assert!(loaded.contains("libc.so") && !loaded.contains("torch"), "{loaded}");
    // Without the half that computes, they work; the others say what is missing.
    let place = Place::new();
    let lonely = place.path("gauntlet");
    fs::copy(program, &lonely).unwrap();
    let run = |arguments: &[&str]| {
        Command::new(&lonely).args(arguments).current_dir(place.0.path()).output().unwrap()
    };
    for arguments in
        [&["plan", "tiny.yaml"][..], &["schema"], &["--help"], &["status", "tiny.yaml"]]
    {
        assert!(run(arguments).status.success(), "{arguments:?}");
    }
    let refused = run(&["run", "tiny.yaml"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && message.contains("libgauntlet.so: is missing"),
        "{message}"
    );
}

#[test]
fn a_plan_is_shown_explained_and_drawn() {
    let place = Place::new();
    let text = place.good(&["plan", "tiny.yaml", "--graph", "jobs.svg"]);
    assert!(text.contains("4 cells") && text.contains("10 jobs after sharing"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let svg = fs::read_to_string(place.path("jobs.svg")).unwrap();
    assert_eq!(svg.matches("<g><title>").count() as u64, JOBS);
    assert!(svg.contains("to run") && svg.ends_with("</svg>\n"));
    let explained = place.good(&["plan", "tiny.yaml", "--explain", "threat=l2,generated.count=20"]);
    for part in ["train.epochs", "line 10", "default", "axis, line 15"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let message = place.bad(2, &["plan", "tiny.yaml", "--explain", "9"]);
    assert!(message.contains("a number from 0 to 3"), "{message}");

    let plan = place.json(&["plan", "tiny.yaml", "--json"]);
    assert_eq!((array(&plan["cells"]).len(), array(&plan["jobs"]).len() as u64), (4, JOBS));
    for job in array(&plan["jobs"]) {
        assert!(job["id"].as_str().unwrap().len() == 32 && job["stage"].is_string());
        assert!(job["cached"] == false && job["inputs"].is_array());
        assert!(job["estimate"]["device_hours"].as_f64().unwrap() > 0.0);
    }
    assert!(!place.path(".gauntlet").exists(), "a plan writes nothing");
}

#[test]
fn a_part_runs_and_the_rest_waits() {
    let place = Place::new();
    let part = ["run", "tiny.yaml", "--device", "cpu", "--only", "threat=l2,generated.count=none"];
    let part = [&part[..], &["--until", "train", "--needed", "--keep-going", "--json"]].concat();
    let summary = place.json(&part);
    assert_eq!((&summary["jobs"], &summary["run"]), (&1.into(), &1.into()), "{summary}");
    let status = place.json(&["status", "tiny.yaml", "--json"]);
    let done: Vec<_> = array(&status["jobs"]).iter().filter(|job| job["state"] == "done").collect();
    assert_eq!((done.len(), done[0]["stage"].as_str()), (1, Some("train")));
    let log = place.good(&["log", &done[0]["id"].as_str().unwrap()[..8]]);
    assert!(log.contains("exec") && log.contains("train: "), "{log}");
    assert!(place.bad(2, &["log", "zz"]).contains("knows no job `zz`"));
    assert!(place.bad(2, &["run", "tiny.yaml", "--until", "trian"]).contains("'train'"));
    assert!(place.bad(2, &["run", "tiny.yaml", "--jobs", "0"]).contains("--jobs 0"));
}

#[test]
fn a_failure_is_told_and_the_others_go_on() {
    let place = Place::new();
    fs::write(place.path("junk.pt"), "no weights").unwrap();
    let suite = &SUITE[..SUITE.find("axes:").unwrap()];
    let more = "quality: {images: 0}\nthreat: linf\ngenerated.count: 10\naxes: {product: [labels.classifier: [junk.pt, null]]}\n";
    fs::write(place.path("bad.yaml"), format!("{suite}{more}")).unwrap();
    let run = ["run", "bad.yaml", "--device", "cpu", "--jobs", "1", "--json"];
    let output = place.run(&run);
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!((count("run"), count("failed"), count("skipped")), (5, 1, 2), "{summary}");
    let failure = &summary["failures"][0];
    assert!(failure["message"].as_str().unwrap().contains("labeller"), "{failure}");
    assert!(Path::new(failure["log"].as_str().unwrap()).exists());
    let status = place.good(&["status", "bad.yaml"]);
    assert!(status.contains("failed") && status.contains("labeller"), "{status}");
    let log = place.good(&["log", &failure["id"].as_str().unwrap()[..10]]);
    assert!(log.contains("--- failed on"), "{log}");
}

#[test]
fn two_runs_share_one_store() {
    let place = Place::new();
    let start = |out| {
        let arguments =
            ["run", "tiny.yaml", "--device", "cpu", "--jobs", "1", "--json", "--out", out];
        place.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs = [start("a"), start("b")].map(|run| run.wait_with_output().unwrap());
    let mut done = 0;
    for output in &runs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |name: &str| summary[name].as_u64().unwrap();
        assert_eq!(count("run") + count("cached"), JOBS, "{summary}");
        done += count("run");
    }
    assert_eq!(done, JOBS, "no job is done twice");
    assert_eq!(artifacts(&place.path(".gauntlet")).len() as u64, JOBS);
}

#[test]
fn a_store_is_listed_verified_moved_and_cleaned() {
    let place = Place::whole();
    let listed = place.json(&["store", "ls", "--json"]);
    assert_eq!(array(&listed["artifacts"]).len() as u64, JOBS, "{listed}");
    assert!(place.good(&["store", "verify"]).contains("0 damaged"));
    place.good(&["store", "export", "all.tar", "--suite", "tiny.yaml"]);
    place.good(&["store", "import", "all.tar", "--store", "other"]);
    assert!(place.good(&["store", "verify", "--store", "other"]).contains("10 artifacts"));
    let again = ["run", "tiny.yaml", "--store", "other", "--json"];
    assert_eq!(place.json(&again)["run"], 0, "the moved store serves the suite");

    let bytes = fs::read(place.path("all.tar")).unwrap();
    fs::write(place.path("short.tar"), &bytes[..bytes.len() / 2]).unwrap();
    place.bad(2, &["store", "import", "short.tar", "--store", "third"]);
    for artifact in artifacts(&place.path("third")) {
        let id = artifact.file_name().unwrap().to_string_lossy().into_owned();
        place.good(&["store", "verify", &id, "--store", "third"]);
    }

    // One bit of one result.
    let store = place.path(".gauntlet");
    let victim = artifacts(&store).into_iter().find_map(|folder| {
        let file = folder.join("best.safetensors");
        file.exists().then_some(file)
    });
    let mut bytes = fs::read(victim.as_ref().unwrap()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(victim.unwrap(), bytes).unwrap();
    let message = place.bad(1, &["store", "verify"]);
    assert!(message.contains("damaged"), "{message}");

    fs::write(place.path("less.yaml"), SUITE.replace("threat: [linf, l2]", "threat: [linf]"))
        .unwrap();
    let dry = place.good(&["store", "gc", "--keep", "less.yaml"]);
    assert!(dry.contains("4 artifacts") && dry.contains("--yes"), "{dry}");
    assert_eq!(artifacts(&store).len() as u64, JOBS, "nothing goes unasked");
    place.good(&["store", "gc", "--keep", "less.yaml", "--yes"]);
    assert_eq!(artifacts(&store).len(), 6);
}

#[test]
fn a_fall_below_the_baseline_fails_the_check() {
    let place = Place::whole();
    fn check<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["check", "tiny.yaml", "--device", "cpu"], more].concat()
    }
    place.good(&check(&["--save", "base.json"]));
    let same = place.good(&check(&["--baseline", "base.json", "--junit", "j.xml"]));
    assert!(
        same.contains("no accuracy fell (8 compared)") && same.contains("mall scale"),
        "{same}"
    );
    assert!(fs::read_to_string(place.path("j.xml")).unwrap().contains("failures=\"0\""));

    let mut rows: Value =
        serde_json::from_str(&fs::read_to_string(place.path("base.json")).unwrap()).unwrap();
    let row = rows.as_array_mut();
    let row = match row {
        Some(rows) => &mut rows[0],
        None => panic!("a baseline is a list of rows"),
    };
    row["clean"] = serde_json::json!({"correct": 16, "total": 16});
    fs::write(place.path("better.json"), rows.to_string()).unwrap();
    let fallen = check(&["--baseline", "better.json", "--junit", "j.xml", "--markdown", "c.md"]);
    let message = place.bad(1, &fallen);
    assert!(message.contains("1 accuracies fell below the baseline better.json"), "{message}");
    let xml = fs::read_to_string(place.path("j.xml")).unwrap();
    assert!(xml.contains("failures=\"1\"") && xml.contains("watermark"), "{xml}");
    let comment = fs::read_to_string(place.path("c.md")).unwrap();
    assert!(comment.contains("❌") && comment.contains("mall scale"), "{comment}");
    place.good(&[&fallen[..], &["--threshold", "100"]].concat());
    place.bad(3, &check(&["--baseline", "nowhere.json"]));
}

#[test]
fn a_newcomer_gets_a_suite_a_schema_and_a_measured_machine() {
    let place = Place::new();
    place.good(&["new", "study.yaml"]);
    assert!(place.good(&["plan", "study.yaml"]).contains("cells"));
    assert!(place.bad(2, &["new", "study.yaml"]).contains("exists already"));
    place.good(&["schema", "--out", "s.json"]);
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(place.path("s.json")).unwrap()).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    assert!(place.good(&["plan", "tiny.yaml"]).contains("rough"));
    let measured = place.json(&["calibrate", "--device", "cpu", "--json"]);
    assert!(measured["classifier"].as_f64().unwrap() > 0.0, "{measured}");
    assert!(!place.good(&["plan", "tiny.yaml"]).contains("rough"), "the plan uses it");
}
