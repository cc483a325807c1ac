//! `gauntlet fit` and `gauntlet generate` as a user runs them, killed and resumed, for every kind of
//! denoiser.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

fn gauntlet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A checkpoint after every step: there is much to be killed in the middle of.
    command.env("GAUNTLET_CHECKPOINT_SECONDS", "0").env("OMP_NUM_THREADS", "1");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts `command` and kills it `pause` after `begun` says that there is something to lose. Says
/// whether it was alive then.
fn murder(command: &mut Command, begun: &dyn Fn() -> bool, pause: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !begun() && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_mins(2), "nothing came");
        sleep(Duration::from_millis(2));
    }
    sleep(pause);
    let alive = child.try_wait().unwrap().is_none();
    let _ = child.kill(); // SIGKILL: nobody can tidy up
    child.wait().unwrap();
    alive
}

/// Moments all over a run, the same at each test.
fn moments(seed: u64) -> impl Iterator<Item = Duration> {
    let next = |moment: &u64| Some((moment * 1_103_515_245 + 12_345) % (1 << 31));
    std::iter::successors(Some(seed), next).skip(1).map(|m| Duration::from_millis(m >> 8 & 127))
}

fn fit(arch: &str, out: &Path) -> Command {
    let mut command =
        gauntlet(&["fit", "--data", "synthetic", "--device", "cpu", "--threads", "1"]);
    command.arg("--out").arg(out).args(["--set", &format!("denoiser.arch={arch}")]);
    for setting in [
        "data.resolution=8",
        "data.train.count=40",
        "denoiser.channels=16",
        "denoiser.channel_mult=[1,2]",
        "denoiser.blocks=1",
        "denoiser.attention=[4]",
        "denoiser.images=320",
        "denoiser.batch=8",
        "denoiser.ramp=100",
        "denoiser.snapshot=160",
        "denoiser.snapshot_images=8",
        "denoiser.snapshot_steps=2",
    ] {
        command.args(["--set", setting]);
    }
    command
}

fn generate(denoiser: &Path, out: &Path) -> Command {
    let mut command = gauntlet(&["generate", "--count", "250", "--steps", "6", "--batch", "5"]);
    // Noise while sampling, and numbers of steps that differ: all of it must come again.
    command.args(["--set", "sampler.churn=20", "--set", "policy.kind=uniform"]);
    command.args(["--set", "policy.min=4", "--seed", "7"]);
    command.arg("--denoiser").arg(denoiser).arg("--out").arg(out);
    command
}

/// Parts of a set that are done.
fn parts(work: &Path) -> usize {
    let files = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let below = files(work.to_owned()).flat_map(|entry| files(entry.path()));
    below.map(|entry| files(entry.path()).count()).sum()
}

#[test]
fn killed_fits_and_generations_end_in_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: String| folder.path().join(name);
    for (seed, arch) in (11..).zip(["ddpmpp", "ncsnpp", "adm"]) {
        let (whole, hurt) = (at(format!("{arch}-whole")), at(format!("{arch}-hurt")));
        run(&mut fit(arch, &whole));
        let saved = || hurt.join("work/state.safetensors").exists();
        let alive = moments(seed).take(3).filter(|&m| murder(&mut fit(arch, &hurt), &saved, m));
        println!("{arch}: {} kills met a living fit", alive.count());
        run(&mut fit(arch, &hurt));
        for name in ["denoiser.safetensors", "last.safetensors"] {
            let same = fs::read(whole.join(name)).unwrap() == fs::read(hurt.join(name)).unwrap();
            assert!(same, "{arch}: {name} differs");
        }
        let denoiser = whole.join("denoiser.safetensors");
        let (set, other) = (at(format!("{arch}.npz")), at(format!("{arch}-hurt.npz")));
        run(&mut generate(&denoiser, &set));
        let work = at(format!("{arch}-hurt.npz.work"));
        let mut alive = 0;
        for moment in moments(seed).skip(3).take(3) {
            let before = parts(&work);
            let more = || parts(&work) > before;
            alive += u32::from(murder(&mut generate(&denoiser, &other), &more, moment));
            if !other.exists() {
                assert!(parts(&work) >= before, "{arch}: parts are lost");
            }
        }
        assert!(alive > 0, "{arch}: no kill met a living generation");
        run(&mut generate(&denoiser, &other));
        assert!(fs::read(&set).unwrap() == fs::read(&other).unwrap(), "{arch}: the sets differ");
        assert!(!work.exists(), "{arch}: a work folder is left");
    }
}
