//! What ten million per-example records cost to aggregate: seconds, and the memory at its highest.
//!
//! `cargo bench --profile dev --bench records`; `GAUNTLET_BENCH_RECORDS` sets another count. The
//! file is made once in `target/bench-records`, from a few thousand records repeated. Aggregation
//! and comparison run in processes of their own, so that each has its own peak.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use gauntlet::{
    evaluate::Record,
    leaderboard::{aggregate::summarise, records::write_parts},
};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--aggregate") {
        return aggregate(Path::new(&arguments[at + 1]));
    }
    let count: u64 = std::env::var("GAUNTLET_BENCH_RECORDS")
        .map_or(10_000_000, |text| text.parse().expect("GAUNTLET_BENCH_RECORDS is a count"));
    let file = made(count);
    let size = fs::metadata(&file).expect("the file is there").len();
    println!("{count} records, {:.2} GB of parquet", size as f64 / 1e9);
    for _ in 0..3 {
        let status = Command::new(std::env::current_exe().expect("this program has a path"))
            .arg("--aggregate")
            .arg(&file)
            .status()
            .expect("this program runs");
        assert!(status.success());
    }
}

fn aggregate(file: &Path) {
    let begun = Instant::now();
    let found = summarise(file).expect("the file is whole");
    let seconds = begun.elapsed().as_secs_f64();
    let [user, peak] = [cpu_seconds(), peak_gigabytes()];
    println!(
        "aggregate: {seconds:.2} s ({user:.2} s of CPU), peak {peak:.3} GB; clean {}, robust {} of {}",
        found.clean.correct, found.robust.correct, found.robust.total
    );
    let broken: u64 = found.broken_by.iter().map(|(_, count)| count).sum();
    assert_eq!(found.clean.correct, found.robust.correct + broken);
}

/// The file of `count` records.
fn made(count: u64) -> PathBuf {
    let folder = Path::new("target/bench-records");
    fs::create_dir_all(folder).expect("target can be written");
    let path = folder.join(format!("{count}.parquet"));
    if !path.exists() {
        let parts = (0..count).step_by(100_000);
        let part = |first: u64| (first..count.min(first + 100_000)).map(record).collect();
        write_parts(&path, parts.map(part)).expect("the file can be written");
    }
    path
}

fn record(index: u64) -> Record {
    // A fixed hash spreads the fates.
    let draw = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let attack = match draw % 100 {
        0..40 => Some("apgd-ce"),
        40..44 => Some("apgd-t"),
        44 => Some("square"),
        _ => None,
    };
    let clean = draw % 97 > 6;
    let attack = attack.filter(|_| clean);
    Record {
        index,
        image_hash: format!("{:032x}", u128::from(draw) * 0x1234_5678_9abc_def1),
        label: (index % 10) as i64,
        clean_prediction: (index % 10) as i64 + i64::from(!clean),
        clean_margin: 0.25,
        broken_by: attack.map(str::to_owned),
        restart: attack.map(|_| 0),
        target: attack.filter(|name| name.ends_with("-t")).map(|_| 3),
        iteration: attack.map(|_| draw % 100),
        norm: attack.map(|_| 8.0 / 255.0),
        adversarial_margin: attack.map(|_| -0.01),
        forwards: 100 + draw % 900,
        backwards: 100 + draw % 800,
    }
}

fn peak_gigabytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    let kilobytes = line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1e6
}

fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    // utime and stime, in hundredths of a second on Linux.
    (ticks(11) + ticks(12)) / 100.0
}
