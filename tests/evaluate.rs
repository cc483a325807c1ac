//! `gauntlet evaluate` and `verify` by the real program, on a published model.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

fn shared() -> PathBuf {
    PathBuf::from(std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED is set"))
}

/// `gauntlet evaluate` of CNN-A on the first images of CIFAR-10, results into `out`.
fn command(out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command
        .args(["evaluate", "--data", "cifar10", "--json", "--save-images", "--device", "cpu"])
        .arg("--model")
        .arg(shared().join("models/cnn_a_adv.torchscript.pt"))
        .arg("--data-dir")
        .arg(shared().join("data/cifar10"))
        .arg("--out")
        .arg(out)
        .args(more);
    command
}

fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn verify(out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gauntlet"))
        .args(["verify", "--json", "--device", "cpu"])
        .arg(out)
        .output()
        .unwrap()
}

const BRIEFLY: [&str; 12] = [
    "--examples",
    "96",
    "--eps",
    "4/255",
    "--suite",
    "custom",
    "--attacks",
    "apgd-ce:20,fab-t:5,square:150",
    "--batch-size",
    "16",
    "--threads",
    "2",
];

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn killed_at_twenty_moments_the_records_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let begun = Instant::now();
    json(&command(&whole, &BRIEFLY).output().unwrap());
    let length = begun.elapsed().as_millis() as u64;
    let records = |out: &Path| fs::read(out.join("records.parquet")).unwrap();
    let broken = folder.path().join("broken");
    let (mut killed, mut moment) = (0, 7u64);
    let mut tries = 0;
    while killed < 20 {
        tries += 1;
        assert!(tries < 80, "only {killed} of {tries} kills met a living process");
        let mut run = command(&broken, &BRIEFLY);
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // A linear congruence: moments all over a run, the same at each test.
        moment = (moment * 1_103_515_245 + 12_345) % (1 << 31);
        thread::sleep(Duration::from_millis(length / 8 + moment % (length / 2)));
        killed += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill(); // SIGKILL: nobody can tidy up
        let _ = child.wait();
        if broken.join("evaluation.json").exists() {
            // It got to the end: the next kills hit a new run.
            assert_eq!(records(&broken), records(&whole));
            fs::remove_dir_all(&broken).unwrap();
        }
    }
    json(&command(&broken, &BRIEFLY).output().unwrap());
    assert_eq!(records(&broken), records(&whole));
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn verify_needs_only_the_folder_and_finds_what_was_tampered_with() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let found = json(&command(&out, &BRIEFLY).output().unwrap());
    let count = |key: &str| found[key].as_u64().unwrap();
    let checked = json(&verify(&out));
    assert_eq!(checked["held"], checked["claimed"]);
    assert_eq!(checked["robust"]["correct"], count("robust"));
    assert_eq!(checked["clean"]["correct"], count("clean"));
    assert_eq!(checked["claimed"].as_u64().unwrap(), count("clean") - count("robust"));
    for key in ["interval", "robust_after", "seconds"] {
        assert!(!found[key].is_null(), "{key}");
    }
    let images = out.join("state/adversarial");
    let first = fs::read_dir(&images).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(first).unwrap();
    let output = verify(&out);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no adversarial image is saved"));
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn workers_do_not_change_records_and_a_curve_is_nested() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let mut one = BRIEFLY;
    one[11] = "1";
    json(&command(&out("two"), &BRIEFLY).output().unwrap());
    json(&command(&out("one"), &one).output().unwrap());
    let records = |name: &str| fs::read(out(name).join("records.parquet")).unwrap();
    assert_eq!(records("one"), records("two"));
    let mut several = BRIEFLY;
    several[3] = "4/255,1/255,2/255";
    let curve = json(&command(&out("curve"), &several).output().unwrap());
    let robust: Vec<u64> = curve["curve"]
        .as_array()
        .unwrap()
        .iter()
        .map(|level| level["robust"].as_u64().unwrap())
        .collect();
    assert!(robust.len() == 3 && robust.is_sorted_by(|a, b| a >= b), "{robust:?}");
    assert_eq!(curve["robust"].as_u64().unwrap(), robust[2]);
    assert!(out("curve").join("curve.parquet").exists());
    assert_eq!(json(&verify(&out("curve")))["problems"], serde_json::json!([]));
}

/// The line that scripts rely on, with every flag, in both modes.
#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn every_flag_of_the_contract_is_taken_and_every_key_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, suite) in [("strict", "custom"), ("reference", "custom"), ("strict", "rand")] {
        let out = folder.path().join(format!("{mode}-{suite}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
        command.arg("evaluate").arg("--model").arg(shared().join("models/cifar_cnn_a_adv.model"));
        command.args(["--arch", "cnn-a", "--data", "cifar10", "--data-dir"]);
        command.arg(shared().join("data/cifar10"));
        command.args(["--split", "test", "--skip", "3", "--examples", "5", "--norm", "linf"]);
        command.args(["--eps", "8/255", "--suite", suite, "--mode", mode, "--seed", "1"]);
        command.args(["--batch-size", "3", "--threads", "1", "--json", "--out"]).arg(&out);
        if suite == "custom" {
            command.args(["--attacks", "apgd-ce:3,fab-t:2,square:5"]);
        }
        let found = json(&command.output().unwrap());
        assert_eq!(found["total"], 5, "{found}");
        let count = |key: &str| found[key].as_u64().unwrap();
        assert!(count("robust") <= count("clean") && count("clean") <= 5);
        assert!(found["interval"][0].as_f64() < found["interval"][1].as_f64());
        let last = if suite == "custom" { "square" } else { "apgd-dlr" };
        assert_eq!(found["robust_after"][last], found["robust"], "{found}");
        assert!(found["seconds"][last].is_number());
        assert!(out.join("records.parquet").exists());
    }
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn interrupted_it_prints_the_bound_so_far_and_goes_on_to_the_same_records() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    let mut long = BRIEFLY;
    long[7] = "apgd-ce:60,square:800";
    let records = |out: &Path| fs::read(out.join("records.parquet")).unwrap();
    let run = |out: &Path| {
        let mut run = command(out, &long);
        run.stdout(Stdio::piped()).stderr(Stdio::piped());
        run.spawn().unwrap()
    };
    let child = run(&stopped);
    let journal = stopped.join("state/journal.jsonl");
    // Its first line says what the evaluation is; the others are finished batches.
    let begun = || fs::read_to_string(&journal).is_ok_and(|text| text.lines().count() > 1);
    let patience = Instant::now();
    while !begun() {
        assert!(patience.elapsed() < Duration::from_mins(2), "no batch ends");
        thread::sleep(Duration::from_millis(5));
    }
    let asked = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("so far: robust at most") && said.contains("/96"), "{said}");
    assert!(!stopped.join("evaluation.json").exists() && output.stdout.is_empty());
    json(&run(&stopped).wait_with_output().unwrap());
    json(&run(&whole).wait_with_output().unwrap());
    assert_eq!(records(&stopped), records(&whole));
}

/// Two classes, oblong images, a program with a second output: nothing of CIFAR's shape.
#[test]
fn oblong_images_of_two_classes_are_evaluated_and_verified() {
    use tch::{CModule, Device, Kind, Tensor};
    let folder = tempfile::tempdir().unwrap();
    let (data, model) = (folder.path().join("oblong.npz"), folder.path().join("model.pt"));
    let count = 40;
    // Class 1 is where red is brighter than blue; by how much differs from image to image.
    let pixels = |image: usize| (0..6 * 10).flat_map(move |_| [81 + 2 * image as u8, 100, 120]);
    let bytes: Vec<u8> = (0..count).flat_map(pixels).collect();
    let labels: Vec<i64> = (0..count).map(|image| i64::from(image >= 20)).collect();
    gauntlet::formats::npz::write_images(&data, (6, 10), &bytes, &labels).unwrap();
    let image = Tensor::zeros([1, 3, 6, 10], (Kind::Float, Device::Cpu));
    let mut run = |inputs: &[Tensor]| {
        let means = inputs[0].mean_dim([2i64, 3].as_slice(), false, Kind::Float);
        vec![Tensor::stack(&[means.select(1, 2), means.select(1, 0)], 1)]
    };
    let program = CModule::create_by_tracing("Oblong", "forward", &[image], &mut run).unwrap();
    program.save(&model).unwrap();
    let out = folder.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command.arg("evaluate").arg("--model").arg(&model).arg("--data").arg(&data);
    command.args(["--eps", "4/255", "--suite", "custom", "--attacks", "apgd-ce:20,apgd-t:20"]);
    command.args(["--device", "cpu", "--save-images", "--json", "--out"]).arg(&out);
    let found = json(&command.output().unwrap());
    // Red less blue is an odd number of grey levels; both together move by 8.
    assert_eq!((&found["clean"], &found["robust"]), (&40.into(), &32.into()), "{found}");
    assert_eq!(json(&verify(&out))["problems"], serde_json::json!([]));
}
