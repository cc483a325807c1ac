//! `gauntlet train` as a user runs it, killed and resumed.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
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
    // Moments nobody chose, few enough that the training cannot end before them.
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    for round in 0..4u32 {
        let extra = u64::from(clock.rotate_left(8 * round) % 160);
        println!("killed {extra} ms after a checkpoint was there");
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
    for signal in ["-TERM", "-USR1"] {
        // Anew each time: with its first checkpoint it certainly listens.
        let out = folder.path().join(signal);
        let checkpoint = out.join("work/checkpoint.safetensors");
        let mut child = command(&out).spawn().unwrap();
        let_it_work(&mut child, &checkpoint, Duration::ZERO);
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{signal}: {said}");
        assert!(said.contains("interrupted; what is done is saved"), "{said}");
    }
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
    refused(&["--devices", "cpu"], &["train.virtual_batch", "train.virtual_batch=8"]);
    refused(&["--set", "train.loss=mart", "--set", "threat.norm=l2"], &["train.loss", "mart"]);
    refused(&["--generated", "nowhere.npz"], &["nowhere.npz"]);
}
