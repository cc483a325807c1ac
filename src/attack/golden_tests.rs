//! Reference mode against recorded runs of the official code, to the last bit.
//!
//! Convolutions and products of matrices round differently from one kind of CPU to another. The
//! recordings were made on an AMD CPU with AVX2 on one thread, so each test runs itself anew in a
//! process that is told to compute so ([`RECORDING`], [`MAKE`]).
//!
//! `small-*` recordings are compared whole, of the large ones the first attack. All of these too,
//! an hour's work, with `GAUNTLET_THOROUGH=1`.

use super::{
    Batch, Bounds, Kind, Mode, Spec, run,
    testing::{Golden, cifar, script},
    trial::wrong,
};
use crate::{progress::Silent, threat::Norm};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tch::{Device, Tensor};

/// The settings that AutoAttack's `version` gives the attack `name`.
fn settings(golden: &Golden, name: &str, version: &str) -> Spec {
    let norm: Norm = golden.text("norm").parse().unwrap();
    let l1 = norm == Norm::L1 && version == "standard";
    let kind = match name {
        "apgd-ce" => Kind::ApgdCe,
        "apgd-dlr" => Kind::ApgdDlr,
        "apgd-t" => Kind::ApgdTargeted,
        "fab" => Kind::Fab,
        "fab-t" => Kind::FabTargeted,
        _ => Kind::Square,
    };
    let restarts = match (kind, version) {
        (Kind::ApgdCe | Kind::ApgdDlr, _) if l1 => 5,
        (Kind::ApgdCe | Kind::ApgdDlr | Kind::Fab, "plus") => 5,
        _ => 1,
    };
    Spec {
        kind,
        steps: if kind == Kind::Square { 5000 } else { 100 },
        restarts,
        targets: if l1 && kind == Kind::ApgdTargeted { 5 } else { 9 },
        eot: if version == "rand" { 20 } else { 1 },
        staged: l1,
        norm,
        epsilon: golden.number("eps"),
        bounds: Bounds::UNIT,
        mode: Mode::Reference,
        seed: golden.number("seed") as u64,
    }
}

/// What makes libtorch and oneDNN round as where the recordings were made.
const RECORDING: [(&str, &str); 3] =
    [("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2"), ("OMP_NUM_THREADS", "1")];

/// MKL takes other kernels, which round otherwise, on Intel's CPUs than on AMD's, and has no setting
/// that makes one round as the other (`MKL_CBWR=COMPATIBLE` does not). It asks these functions of
/// its own what it stands on; loaded before it, they say: Zen.
const MAKE: &str = "int mkl_serv_intel_cpu(void) { return 0; }
int mkl_serv_intel_cpu_true(void) { return 0; }
int mkl_serv_cpuiszen(void) { return 1; }
";

/// How far images may lie from the recording's where roots round otherwise ([`same_roots`]).
const NEAR: f64 = 1e-3;

/// Whether square roots round as recorded: MKL starts them from the processor's own approximation
/// of 1/√x, which differs between makes. Every length under L2 is such a root.
/// `GAUNTLET_GOLDEN_BITS=1` says yes: of recordings made on this processor.
fn same_roots() -> bool {
    std::env::var_os("GAUNTLET_GOLDEN_BITS").is_some()
        || std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("AuthenticAMD"))
}

/// [`MAKE`] as a shared library in `folder`, for `LD_PRELOAD`.
fn make(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("make.c"), folder.join("libmake.so"));
    std::fs::write(&source, MAKE).unwrap();
    let mut compiler = Command::new("c++");
    compiler.args(["-xc", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().unwrap().success(), "the compiler builds {MAKE}");
    library
}

/// Runs `check` in a process of its own that rounds as the recordings do: this test again. Says
/// whether images count; without AVX2 only who broke what does.
fn as_recorded(test: &str, check: impl Fn(bool)) {
    if std::env::var_os("GAUNTLET_AS_RECORDED").is_some() {
        return check(true);
    }
    if !is_x86_feature_detected!("avx2") {
        return check(false);
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--include-ignored", "--exact", "--nocapture"])
        .arg(format!("attack::golden_tests::{test}"))
        .envs(RECORDING)
        .env("LD_PRELOAD", make(folder.path()))
        .env("GAUNTLET_AS_RECORDED", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{failed}");
}

/// How many attacks of a large recording are compared.
fn attacks_of_large() -> usize {
    if std::env::var_os("GAUNTLET_THOROUGH").is_some() { usize::MAX } else { 1 }
}

/// Each attack alone on all clean-correct images.
fn individual(name: &str, only: &[&str], first: usize, pictures: bool) {
    let golden = Golden::load(name);
    let model = script(golden.text("model"));
    let count = golden.sidecar["images"][1].as_u64().unwrap() as usize;
    let (images, labels) = cifar(count);
    for attack in golden.attacks().into_iter().take(first) {
        if !only.is_empty() && !only.contains(&attack.as_str()) {
            continue;
        }
        let mistaken = wrong(&model.logits(&images), &labels);
        let rows: Vec<i64> = (0..count).filter(|&i| !mistaken[i]).map(|row| row as i64).collect();
        let index = Tensor::from_slice(&rows);
        let (x, y) = (images.index_select(0, &index), labels.index_select(0, &index));
        let examples: Vec<u64> = rows.iter().map(|&row| row as u64).collect();
        let batch = Batch { images: &x, labels: &y, examples: &examples, streams: &examples };
        let spec = settings(&golden, &attack, "standard");
        let outcome = run(&spec, &*model, &batch, &Silent).unwrap();
        let found: Vec<i64> =
            (0..rows.len()).filter(|&i| outcome.breaks[i].is_some()).map(|i| rows[i]).collect();
        assert_eq!(
            found,
            golden.integers(&format!("{attack}.adversarial_index")),
            "{name} {attack}"
        );
        let at: Vec<i64> =
            (0..rows.len()).filter(|&i| outcome.breaks[i].is_some()).map(|i| i as i64).collect();
        let adversarial = outcome.adversarial.index_select(0, &Tensor::from_slice(&at));
        let recorded = golden.tensor(&format!("{attack}.adversarial"));
        same(&adversarial, &golden, recorded, &format!("{name} {attack}"), pictures);
    }
}

fn same(found: &Tensor, golden: &Golden, wanted: &Tensor, what: &str, pictures: bool) {
    assert_eq!(found.size(), wanted.size(), "{what}");
    if !pictures {
        return;
    }
    let exact = golden.text("norm") != "L2" || same_roots();
    let gap = (found - wanted.to_device(Device::Cpu)).abs().max().double_value(&[]);
    assert!(found == wanted || !exact && gap < NEAR, "{what}: images differ by up to {gap}");
}

macro_rules! individual {
    ($($test:ident: $file:literal, $attack:literal;)*) => {$(
        #[test]
        #[ignore = "needs GAUNTLET_SHARED"]
        fn $test() {
            as_recorded(stringify!($test), |pictures| individual($file, &[$attack], usize::MAX, pictures));
        }
    )*};
}

individual! {
    linf_apgd_ce_alone: "small-individual-linf", "apgd-ce";
    linf_apgd_dlr_alone: "small-individual-linf", "apgd-dlr";
    linf_apgd_t_alone: "small-individual-linf", "apgd-t";
    linf_fab_alone: "small-individual-linf", "fab";
    linf_fab_t_alone: "small-individual-linf", "fab-t";
    linf_square_alone: "small-individual-linf", "square";
    l2_apgd_ce_alone: "small-individual-l2", "apgd-ce";
    l2_apgd_dlr_alone: "small-individual-l2", "apgd-dlr";
    l2_apgd_t_alone: "small-individual-l2", "apgd-t";
    l2_fab_alone: "small-individual-l2", "fab";
    l2_fab_t_alone: "small-individual-l2", "fab-t";
    l2_square_alone: "small-individual-l2", "square";
    l1_apgd_ce_alone: "small-individual-l1", "apgd-ce";
    l1_apgd_dlr_alone: "small-individual-l1", "apgd-dlr";
    l1_apgd_t_alone: "small-individual-l1", "apgd-t";
    l1_fab_alone: "small-individual-l1", "fab";
    l1_fab_t_alone: "small-individual-l1", "fab-t";
    l1_square_alone: "small-individual-l1", "square";
}

/// The whole cascade, as `evaluate` runs it: each attack on what the ones before left.
fn cascade(name: &str, first: usize, pictures: bool) {
    let golden = Golden::load(name);
    let model = script(golden.text("model"));
    let count = golden.sidecar["images"][1].as_u64().unwrap() as usize;
    let (images, labels) = cifar(count);
    let by = golden.integers("broken_by");
    let number = |by: i64| usize::try_from(by).unwrap_or(0);
    let wanted: Vec<i64> = by.iter().map(|&by| if number(by) < first { by } else { -1 }).collect();
    let size = golden.number("batch_size") as usize;
    let mut broken: Vec<i64> = wanted.iter().map(|&by| if by == -2 { -2 } else { -1 }).collect();
    let adversarial = images.copy();
    for (number, attack) in golden.attacks().iter().enumerate().take(first) {
        let spec = settings(&golden, attack, golden.text("version"));
        let left: Vec<usize> = (0..count).filter(|&i| broken[i] == -1).collect();
        for chunk in left.chunks(size) {
            let rows: Vec<i64> = chunk.iter().map(|&row| row as i64).collect();
            let index = Tensor::from_slice(&rows);
            let (x, y) = (images.index_select(0, &index), labels.index_select(0, &index));
            let examples: Vec<u64> = chunk.iter().map(|&row| row as u64).collect();
            let batch = Batch { images: &x, labels: &y, examples: &examples, streams: &examples };
            let outcome = run(&spec, &*model, &batch, &Silent).unwrap();
            for (i, &row) in chunk.iter().enumerate().filter(|(i, _)| outcome.breaks[*i].is_some())
            {
                broken[row] = number as i64;
                adversarial.get(row as i64).copy_(&outcome.adversarial.get(i as i64));
            }
        }
    }
    assert_eq!(broken, wanted, "{name}");
    let index = golden.integers("adversarial_index");
    let places: Vec<i64> = (0..index.len())
        .filter(|&place| number(by[index[place] as usize]) < first)
        .map(|place| place as i64)
        .collect();
    let rows: Vec<i64> = places.iter().map(|&place| index[place as usize]).collect();
    assert!(!rows.is_empty(), "{name} has images to compare");
    let recorded = golden.tensor("adversarial").index_select(0, &Tensor::from_slice(&places));
    let found = adversarial.index_select(0, &Tensor::from_slice(&rows));
    same(&found, &golden, &recorded, name, pictures);
}

macro_rules! cascades {
    ($($test:ident: $file:literal, $first:expr;)*) => {$(
        #[test]
        #[ignore = "needs GAUNTLET_SHARED"]
        fn $test() {
            as_recorded(stringify!($test), |pictures| cascade($file, $first, pictures));
        }
    )*};
}

cascades! {
    plus_linf_cascade: "small-plus-linf", usize::MAX;
    rand_linf_cascade: "small-rand-linf", usize::MAX;
    rand_l2_cascade: "small-rand-l2", usize::MAX;
    standard_linf_cascade: "small-standard-linf", usize::MAX;
    standard_l2_cascade: "small-standard-l2", usize::MAX;
    standard_l1_cascade: "small-standard-l1", usize::MAX;
    large_linf_cascade: "resnet2b-linf", attacks_of_large();
    large_l2_cascade: "resnet2b-l2", attacks_of_large();
    large_l1_cascade: "resnet2b-l1", attacks_of_large();
    large_plus_cascade: "resnet2b-linf-plus", attacks_of_large();
    large_cnn_cascade: "cnn_a_adv4-linf8", attacks_of_large();
}

macro_rules! large_individual {
    ($($test:ident: $file:literal;)*) => {$(
        #[test]
        #[ignore = "needs GAUNTLET_SHARED"]
        fn $test() {
            as_recorded(stringify!($test), |pictures| individual($file, &[], attacks_of_large(), pictures));
        }
    )*};
}

large_individual! {
    large_linf_alone: "individual-resnet2b-linf";
    large_l2_alone: "individual-resnet2b-l2";
    large_l1_alone: "individual-resnet2b-l1";
}
