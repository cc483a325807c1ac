//! Reference mode against recorded runs of the official code.
//!
//! Who broke what must agree on every machine. Images agree to the last bit on the kind of CPU that
//! made the recording, since convolutions round differently elsewhere: `GAUNTLET_GOLDEN_BITS`
//! demands it, and `tools/golden_attacks.py` makes a recording on the machine at hand.

use super::{
    Batch, Bounds, Kind, Mode, Spec, run,
    testing::{Golden, cifar, script},
    trial::wrong,
};
use crate::{progress::Silent, threat::Norm};
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

/// Each attack alone on all clean-correct images.
fn individual(name: &str, only: &[&str]) {
    let golden = Golden::load(name);
    let model = script(golden.text("model"));
    let count = golden.sidecar["images"][1].as_u64().unwrap() as usize;
    let (images, labels) = cifar(count);
    for attack in golden.attacks() {
        if !only.is_empty() && !only.contains(&attack.as_str()) {
            continue;
        }
        let mistaken = wrong(&model.logits(&images), &labels);
        let rows: Vec<i64> = (0..count).filter(|&i| !mistaken[i]).map(|row| row as i64).collect();
        let index = Tensor::from_slice(&rows);
        let (x, y) = (images.index_select(0, &index), labels.index_select(0, &index));
        let examples: Vec<u64> = rows.iter().map(|&row| row as u64).collect();
        let batch = Batch { images: &x, labels: &y, examples: &examples };
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
        same(
            &adversarial,
            golden.tensor(&format!("{attack}.adversarial")),
            &format!("{name} {attack}"),
        );
    }
}

fn same(found: &Tensor, wanted: &Tensor, what: &str) {
    assert_eq!(found.size(), wanted.size(), "{what}");
    if std::env::var_os("GAUNTLET_GOLDEN_BITS").is_some() {
        let gap = (found - wanted.to_device(Device::Cpu)).abs().max().double_value(&[]);
        assert!(found == wanted, "{what}: images differ by up to {gap}");
    }
}

macro_rules! individual {
    ($($test:ident: $file:literal, $attack:literal;)*) => {$(
        #[test]
        #[ignore = "needs GAUNTLET_SHARED"]
        fn $test() {
            individual($file, &[$attack]);
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
fn cascade(name: &str) {
    let golden = Golden::load(name);
    let model = script(golden.text("model"));
    let count = golden.sidecar["images"][1].as_u64().unwrap() as usize;
    let (images, labels) = cifar(count);
    let wanted = golden.integers("broken_by");
    let size = golden.number("batch_size") as usize;
    let mut broken: Vec<i64> = wanted.iter().map(|&by| if by == -2 { -2 } else { -1 }).collect();
    let adversarial = images.copy();
    for (number, attack) in golden.attacks().iter().enumerate() {
        let spec = settings(&golden, attack, golden.text("version"));
        let left: Vec<usize> = (0..count).filter(|&i| broken[i] == -1).collect();
        for chunk in left.chunks(size) {
            let rows: Vec<i64> = chunk.iter().map(|&row| row as i64).collect();
            let index = Tensor::from_slice(&rows);
            let (x, y) = (images.index_select(0, &index), labels.index_select(0, &index));
            let examples: Vec<u64> = chunk.iter().map(|&row| row as u64).collect();
            let batch = Batch { images: &x, labels: &y, examples: &examples };
            let outcome = run(&spec, &*model, &batch, &Silent).unwrap();
            for (i, &row) in chunk.iter().enumerate().filter(|(i, _)| outcome.breaks[*i].is_some())
            {
                broken[row] = number as i64;
                adversarial.get(row as i64).copy_(&outcome.adversarial.get(i as i64));
            }
        }
    }
    assert_eq!(broken, wanted, "{name}");
    let index = golden.tensor("adversarial_index").to_kind(tch::Kind::Int64);
    same(&adversarial.index_select(0, &index), golden.tensor("adversarial"), name);
}

macro_rules! cascades {
    ($($test:ident: $file:literal;)*) => {$(
        #[test]
        #[ignore = "needs GAUNTLET_SHARED"]
        fn $test() {
            cascade($file);
        }
    )*};
}

cascades! {
    plus_linf_cascade: "small-plus-linf";
    rand_linf_cascade: "small-rand-linf";
    rand_l2_cascade: "small-rand-l2";
    standard_linf_cascade: "small-standard-linf";
    standard_l2_cascade: "small-standard-l2";
    standard_l1_cascade: "small-standard-l1";
}
