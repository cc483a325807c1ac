//! `gauntlet train` as a user runs it, killed and resumed.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

/// Training of something on one thread of the CPU.
fn bare(out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command.args(["train", "--data", "synthetic", "--device", "cpu", "--threads", "1"]);
    command.args(["--norm", "linf", "--eps", "8/255", "--out"]).arg(out);
    command
}

fn command(out: &Path) -> Command {
    let mut command = bare(out);
    command.args(["--arch", "wrn-10-1-swish"]);
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
    command.stderr(Stdio::piped()).stdout(Stdio::piped());
    // A checkpoint after every step: there is much to be killed in the middle of.
    command.env("GAUNTLET_CHECKPOINT_SECONDS", "0");
    command
}

/// Waits until a checkpoint newer than `before` is there, or the child ends; then a little more.
fn let_it_work(child: &mut Child, checkpoint: &Path, extra: Duration) {
    let begun = Instant::now();
    while !checkpoint.exists() && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_mins(2), "no checkpoint came");
        sleep(Duration::from_millis(5));
    }
    sleep(extra);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Trains to the end, `hurt` after some murders, and compares all that comes of it.
fn killed_and_unhurt(extra: &[&str], rounds: u32) {
    let folder = tempfile::tempdir().unwrap();
    let (unhurt, hurt) = (folder.path().join("unhurt"), folder.path().join("hurt"));
    let run = |out: &Path| {
        let output = command(out).args(extra).output().unwrap();
        assert!(output.status.success(), "{extra:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let said = run(&unhurt);
    assert!(said.contains("4 epochs") && said.contains("under PGD"), "{said}");
    let checkpoint = hurt.join("work/checkpoint.safetensors");
    // Moments nobody chose, few enough that the training cannot end before them.
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    for round in 0..rounds {
        let wait = u64::from(clock.rotate_left(8 * round) % 160);
        println!("{extra:?}: killed {wait} ms after a checkpoint was there");
        let mut child = command(&hurt).args(extra).spawn().unwrap();
        let_it_work(&mut child, &checkpoint, Duration::from_millis(wait));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    assert!(!hurt.join("last.safetensors").exists(), "killed before its end");
    run(&hurt);
    for name in ["best.safetensors", "last.safetensors"] {
        let same = fs::read(unhurt.join(name)).unwrap() == fs::read(hurt.join(name)).unwrap();
        assert!(same, "{extra:?}: {name} differs");
    }
    // Times differ, nothing else.
    let log = |out: &Path| {
        let lines = fs::read_to_string(out.join("log.jsonl")).unwrap();
        let lines = lines.lines().map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            for name in ["seconds", "images_per_second", "time", "outside"] {
                line[name].take();
            }
            line
        });
        lines.collect::<Vec<_>>()
    };
    assert_eq!(log(&hurt).len(), 4);
    assert_eq!(log(&unhurt), log(&hurt));
    // The table tells the same, line by line.
    let table = fs::read_to_string(hurt.join("log.csv")).unwrap();
    let names: Vec<_> = table.lines().next().unwrap().split(',').collect();
    assert!(names.starts_with(&["epoch", "step", "learning_rate", "train_loss"]), "{names:?}");
    assert_eq!(table.lines().count(), 5);
    assert!(table.lines().all(|line| line.split(',').count() == names.len()), "{table}");
}

#[test]
fn a_killed_training_ends_where_an_unhurt_one_does() {
    killed_and_unhurt(&[], 4);
}

#[test]
fn so_does_one_on_two_devices_in_sixteen_bits_with_generated_images() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set.npz");
    generated_set(&set, 40);
    let more = ["train.precision=bf16", "train.virtual_batch=8", "train.checkpointing=true"];
    let more = more.iter().flat_map(|setting| ["--set", setting]);
    let extra: Vec<_> = ["--generated", set.to_str().unwrap(), "--devices", "cpu"]
        .into_iter()
        .chain(more)
        .collect();
    killed_and_unhurt(&extra, 3);
}

/// A set in the published layout: 16x16 pixels, ten classes.
fn generated_set(path: &Path, count: usize) {
    let array = |kind: &str, shape: &str, bytes: Vec<u8>| {
        let mut header =
            format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
        header += &" ".repeat(117 - header.len());
        let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        file.extend(header.bytes().chain(*b"\n").chain(bytes));
        file
    };
    let pixels = (0..count * 16 * 16 * 3).map(|i| (i * 37 % 251) as u8).collect();
    let labels = (0..count).flat_map(|i| (i as i64 * 10 / count as i64).to_le_bytes()).collect();
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [
        ("image.npy", array("|u1", &format!("({count}, 16, 16, 3)"), pixels)),
        ("label.npy", array("<i8", &format!("({count},)"), labels)),
    ] {
        archive.start_file(name, stored).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn another_recipe_does_not_go_on_and_numbers_that_go_wrong_leave_a_sound_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // Weight decay this strong turns every weight over, a hundred times as large, in each step.
    let wild = ["train.learning_rate=100", "train.weight_decay=1", "train.schedule=constant"];
    let wild: Vec<_> = wild.iter().flat_map(|setting| ["--set", setting]).collect();
    let output = command(&out).args(&wild).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["at step ", "the batch begins with Real(", "The last checkpoint, ", "is sound"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let step = |word: &str| -> u64 {
        let digits = said.split(word).nth(1).unwrap();
        digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    assert!(step("(step ") > 0 && step("(step ") < step("at step "), "{said}");
    let file = fs::read(out.join("work/checkpoint.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    let weights = file.tensor("weights").unwrap();
    let finite = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap()).is_finite();
    assert!(weights.data().chunks(4).all(finite));
    // The same folder with another recipe: refused, and told why.
    let output = command(&out).args(["--set", "train.epochs=5"]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in ["epochs was 4, is now 5", "learning_rate was 100.0", "give another --out"] {
        assert!(said.contains(part), "{part}: {said}");
    }
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
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set.npz");
    generated_set(&set, 40);
    let set = set.to_str().unwrap();
    for (setting, words) in [
        ("generated.count=41", ["41", "holds 40"]),
        ("generated.fraction=-0.5", ["generated.fraction", "-0.5"]),
        ("generated.fraction=0.01", ["generated.fraction", "less than one image"]),
        ("train.batch=0", ["train.batch", "0"]),
        ("train.virtual_batch=1", ["train.virtual_batch", "2 images or more"]),
    ] {
        refused(&["--generated", set, "--set", setting], &words);
    }
    for (settings, words) in [
        (["train.schedule=step", "train.momentum=0"], ["train.nesterov", "momentum"]),
        (["train.consistency=1", "train.virtual_batch=7"], ["train.virtual_batch", "even"]),
        (["train.cutmix=true", "train.batch=18"], ["train.cutmix", "18"]),
        (["train.loss=pgd-at", "train.cutmix=true"], ["train.cutmix", "trades"]),
        (["train.preset=deepmind", "train.epochs=10"], ["train.warmup_epochs", "10"]),
    ] {
        refused(&["--set", settings[0], "--set", settings[1]], &words);
    }
}

/// Peak memory of a training of WRN-10-4 on one batch, in bytes, and what `--memory` counts.
fn peak(batch: u64, extra: &[&str]) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let arguments = |command: &mut Command| {
        command.args(["--arch", "wrn-10-4-swish", "--set", "train.attack_steps=1"]);
        for (name, value) in [("data.resolution", 32), ("train.epochs", 1), ("train.validation", 0)]
        {
            command.arg("--set").arg(format!("{name}={value}"));
        }
        for name in ["data.train.count", "train.batch"] {
            command.arg("--set").arg(format!("{name}={batch}"));
        }
        command.args(extra);
    };
    let mut counting = bare(folder.path());
    arguments(&mut counting);
    let said = text(&counting.arg("--memory").output().unwrap().stdout);
    let words: Vec<_> = said.split_whitespace().collect();
    let counted = words.windows(3).rfind(|words| words[1..] == ["GB", "in"]).expect(&said)[0];
    let mut training = bare(folder.path());
    arguments(&mut training);
    // Every tensor is mapped and given back: memory is what lives, not what a heap's gaps hold.
    training.env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=65536");
    let mut child = training.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0.0f64;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = peak.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
        most = most.max(kibibytes.unwrap_or(0.0) * 1024.0);
        sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
    (most, counted.parse::<f64>().unwrap() * 1e9)
}

#[test]
fn memory_grows_with_the_batch_as_it_is_counted() {
    for extra in [&[][..], &["--set", "train.checkpointing=true"]] {
        let ((small, counted_small), (large, counted_large)) = (peak(96, extra), peak(224, extra));
        let (grown, counted) = (large - small, counted_large - counted_small);
        println!("{extra:?}: {:.0} MB for {:.0} MB counted", grown / 1e6, counted / 1e6);
        assert!((0.75..1.3).contains(&(grown / counted)), "{extra:?}: {grown} for {counted}");
        assert!(large > counted_large, "what is counted is there");
    }
}
