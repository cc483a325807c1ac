//! `gauntlet train` as a user runs it, killed and resumed.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

fn command(out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command.args(["train", "--data", "synthetic", "--arch", "wrn-10-1-swish", "--device", "cpu"]);
    command.args(["--norm", "linf", "--eps", "8/255", "--threads", "1"]);
    for setting in [
        "data.train.count=120",
        "data.resolution=16",
        "train.batch=16",
        "train.epochs=4",
        "train.validation=16",
        "train.validation_steps=2",
        "train.attack_steps=2",
    ] {
        command.args(["--set", setting]);
    }
    command.arg("--out").arg(out).stderr(Stdio::piped()).stdout(Stdio::piped());
    // A checkpoint after every step: there is much to be killed in the middle of.
    command.env("GAUNTLET_CHECKPOINT_SECONDS", "0");
    command
}

/// Waits until a checkpoint newer than `before` is there, or the child ends; then a little more.
fn let_it_work(child: &mut Child, checkpoint: &Path, extra: Duration) {
    let begun = Instant::now();
    while !checkpoint.exists() && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint came");
        sleep(Duration::from_millis(5));
    }
    sleep(extra);
}

#[test]
fn a_killed_training_ends_where_an_unhurt_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let (unhurt, hurt) = (folder.path().join("unhurt"), folder.path().join("hurt"));
    let output = command(&unhurt).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("4 epochs") && said.contains("under PGD"), "{said}");
    let checkpoint = hurt.join("work/checkpoint.safetensors");
    for extra in [0, 37, 90, 151] {
        let mut child = command(&hurt).spawn().unwrap();
        let_it_work(&mut child, &checkpoint, Duration::from_millis(extra));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    assert!(!hurt.join("last.safetensors").exists(), "killed before its end");
    let output = command(&hurt).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["best.safetensors", "last.safetensors"] {
        let same = fs::read(unhurt.join(name)).unwrap() == fs::read(hurt.join(name)).unwrap();
        assert!(same, "{name} differs");
    }
    let lines = fs::read_to_string(hurt.join("log.jsonl")).unwrap().lines().count();
    assert_eq!(lines, 4);
}

#[test]
fn a_signal_saves_and_the_exit_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut child = command(&out).spawn().unwrap();
    let_it_work(&mut child, &out.join("work/checkpoint.safetensors"), Duration::ZERO);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted; what is done is saved"));
}

#[test]
fn mistakes_are_named() {
    let refused = |extra: &[&str], words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let output = command(&folder.path().join("out")).args(extra).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // 2 for what is wrong in itself, 3 for a file that the system refuses.
        assert!(matches!(output.status.code(), Some(2 | 3)), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    refused(&["--set", "train.epoch=2"], &["train.epoch", "did you mean `epochs`?"]);
    refused(&["--set", "train.epochs=none"], &["train.epochs", "none"]);
    refused(&["--set", "train.validation=120"], &["validation"]);
    refused(&["--generated", "nowhere.npz"], &["nowhere.npz"]);
}
