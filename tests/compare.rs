//! `gauntlet compare` and `gauntlet leaderboard` by the real program.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use gauntlet::{
    evaluate::Record,
    leaderboard::{Row, records::write_parquet},
    report,
    units::Tally,
};

fn gauntlet(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command.args(arguments).current_dir(folder).env_remove("GAUNTLET_STORE");
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A report of the first two rows, changed, in `folder/name`, with the records of its examples in
/// `folder/name-store`: of 200, those in `broken` fell to an attack.
fn result(folder: &Path, name: &str, broken: std::ops::Range<u64>) {
    let mut input = report::demo::input();
    input.rows.truncate(2);
    for (at, row) in input.rows.iter_mut().enumerate() {
        *row = Row { evaluate_job: format!("{at:032x}"), ..row.clone() };
        row.clean = Tally { correct: 200, total: 200 };
        row.robust = Tally { correct: 200 - (broken.end - broken.start), total: 200 };
        let record = |index: u64| Record {
            index,
            image_hash: format!("{index:032x}"),
            label: 3,
            clean_prediction: 3,
            clean_margin: 0.5,
            broken_by: broken.contains(&index).then(|| "apgd-t".to_owned()),
            restart: None,
            target: None,
            iteration: None,
            norm: None,
            adversarial_margin: None,
            forwards: 1,
            backwards: 1,
        };
        let records: Vec<_> = (0..200).map(record).collect();
        let artifact = folder.join(format!("{name}-store/artifacts")).join(&row.evaluate_job);
        fs::create_dir_all(&artifact).unwrap();
        write_parquet(&artifact.join("records.parquet"), &records).unwrap();
    }
    report::write(&input, &folder.join(name)).unwrap();
}

#[test]
fn two_reports_are_paired_and_the_code_names_the_loser() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    result(folder, "strong", 0..80);
    result(folder, "weak", 60..170);
    let stores = ["--store", "strong-store", "--second-store", "weak-store"];
    let both = |arguments: &[&str]| gauntlet(folder, &[arguments, &stores].concat());
    let lost = both(&["compare", "strong", "weak", "--out", "diff"]);
    assert_eq!(lost.status.code(), Some(1), "{}", text(&lost));
    let said = text(&lost);
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    // 90 fell only in B, 60 only in A.
    let page = fs::read_to_string(folder.join("diff/compare.html")).unwrap();
    assert!(page.contains("apgd-t") && page.contains("McNemar"));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("diff/compare.json")).unwrap()).unwrap();
    let pair = &json["matches"][0]["paired"]["robust"];
    assert_eq!((pair["only_first"].as_u64(), pair["only_second"].as_u64()), (Some(90), Some(60)));
    assert_eq!(json["second_is_less_robust"], true);
    let same = gauntlet(folder, &["compare", "strong", "strong", "--store", "strong-store"]);
    assert_eq!(same.status.code(), Some(0));
    let won = gauntlet(
        folder,
        &["compare", "weak", "strong", "--store", "weak-store", "--second-store", "strong-store"],
    );
    assert_eq!(won.status.code(), Some(0), "{}", text(&won));

    // Against a published row: not paired, and far below it.
    let published = gauntlet(folder, &["compare", "weak", "published:Wang2023Better_WRN-28-10"]);
    assert_eq!(published.status.code(), Some(0));
    assert!(text(&published).contains("small scale"), "{}", text(&published));
    for (second, hint) in
        [("published:Wang2023Bettr_WRN-28-10", "did you mean"), ("no", "no results")]
    {
        let wrong = gauntlet(folder, &["compare", "weak", second]);
        assert_eq!(wrong.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&wrong.stderr).contains(hint));
    }
}

#[test]
fn a_leaderboard_leaves_out_what_it_cannot_read_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let entries = folder.join("cifar10/Linf");
    fs::create_dir_all(&entries).unwrap();
    for (stem, entry) in [
        ("Plain", r#"{"clean_acc":"90.1","autoattack_acc":"61.50","eps":"8/255","external":null}"#),
        (
            "Extra",
            r#"{"clean_acc":"91","autoattack_acc":62,"eps":"8/255","dataset":"cifar10","x":{}}"#,
        ),
        ("NoBound", r#"{"clean_acc":"91","autoattack_acc":"62","dataset":"cifar10"}"#),
        ("Broken", "{"),
    ] {
        fs::write(entries.join(format!("{stem}.json")), entry).unwrap();
    }
    let shown = gauntlet(folder, &["leaderboard", "--entries", "cifar10/Linf"]);
    let (said, complaints) = (text(&shown), String::from_utf8_lossy(&shown.stderr).into_owned());
    assert!(shown.status.success(), "{complaints}");
    assert!(said.find("Extra") < said.find("Plain") && !said.contains("NoBound"), "{said}");
    assert!(complaints.contains("NoBound.json: `eps`") && complaints.contains("Broken.json"));

    result(folder, "ours", 0..80);
    let written = gauntlet(folder, &["leaderboard", "ours", "--out", "board"]);
    assert!(written.status.success() && text(&written).contains("not comparable"));
    for kind in ["md", "tex", "csv", "json", "html"] {
        let path = folder.join(format!("board/leaderboard.{kind}"));
        let table = fs::read_to_string(&path).unwrap();
        assert!(table.contains("Wang2023Better") && table.contains("not comparable"), "{kind}");
    }
    let entry = fs::read_to_string(folder.join("board/robustbench/001.json")).unwrap();
    assert!(entry.contains("\"autoattack_acc\": \"60.00\""), "{entry}");
}
