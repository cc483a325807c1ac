//! Generated sets on disk, used by reference through the real program.

use std::{fs, path::Path, process::Command};

use gauntlet::formats::npz;

const SUITE: &str = "\
suite: reference
data: {name: synthetic, resolution: 16, train: {count: 40}, test: {count: 10}}
threats: {linf: {norm: linf, epsilon: 8/255}}
train: {arch: wrn-10-1-swish, epochs: 1, batch: 20, attack_steps: 1, validation: 0}
evaluate: {attacks: [{pgd: {steps: 1}}]}
axes:
  product:
    - generated.file: [all.npz, parts, [parts/part9.npz, parts/part10.npz]]
    - generated.count: [12, 30]
quality: {images: 0}
";

/// Images of 16x16 pixels, sorted by class, three to a class.
fn write(path: &Path, range: std::ops::Range<u8>) {
    let pixels: Vec<u8> = range.clone().flat_map(|value| [value * 8; 768]).collect();
    let labels: Vec<i64> = range.map(|value| i64::from(value / 3)).collect();
    npz::write_images(path, (16, 16), &pixels, &labels).unwrap();
}

fn run(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command.args(arguments).current_dir(folder).env_remove("GAUNTLET_STORE");
    let output = command.env("GAUNTLET_CACHE", folder.join("cache")).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn a_set_on_disk_is_used_where_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = |arguments: &[&str]| run(folder.path(), arguments);
    fs::write(at("suite.yaml"), SUITE).unwrap();
    fs::create_dir(at("parts")).unwrap();
    write(&at("all.npz"), 0..30);
    write(&at("parts/part9.npz"), 0..15);
    write(&at("parts/part10.npz"), 15..30);

    // One file, a folder and a list are the same images, hence the same jobs; none is copied.
    let (code, said) = run(&["run", "suite.yaml", "--store", "store"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("5 jobs: 5 run"), "{said}");
    let mut artifacts = fs::read_dir(at("store/artifacts")).unwrap().flatten();
    assert!(!artifacts.any(|artifact| artifact.path().join("images.npz").exists()));

    // Judged where it lies, too, once for all its sizes.
    let judged = ["run", "suite.yaml", "--store", "store", "--set", "quality.images=30"];
    let (code, said) = run(&judged);
    assert!(code == 0 && said.contains("6 jobs: 1 run, 5 cached"), "{said}");

    // Moved, it is still the same set; with other images it is another one.
    fs::rename(at("all.npz"), at("moved.npz")).unwrap();
    let again = ["run", "suite.yaml", "--store", "store", "--set", "generated.file=moved.npz"];
    let (code, said) = run(&again);
    assert!(code == 0 && said.contains("5 jobs: 0 run, 5 cached"), "{said}");
    write(&at("moved.npz"), 1..31);
    let (code, said) = run(&["plan", "suite.yaml", "--set", "generated.file=moved.npz"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("generated.file: has labels up to 10"), "{said}");
    let (code, said) = run(&[
        "plan",
        "suite.yaml",
        "--set",
        "generated.file=parts",
        "--set",
        "generated.count=31",
    ]);
    assert!(code == 2 && said.contains("the set holds 30 images"), "{said}");
}
