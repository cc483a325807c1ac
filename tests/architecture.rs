//! The structure holds: modules import only from lower floors (the blank-line groups of
//! `src/lib.rs`), some crates stay in their modules, files stay small.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn module(line: &str) -> Option<&str> {
    line.strip_prefix("pub mod ")?.strip_suffix(';')
}

/// Every source file of a top-level module, with its text.
fn sources(name: &str) -> Vec<(PathBuf, String)> {
    let single = PathBuf::from(format!("src/{name}.rs"));
    if single.exists() {
        return vec![(single.clone(), fs::read_to_string(single).unwrap())];
    }
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(format!("src/{name}"))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

fn floors() -> Vec<Vec<String>> {
    let lib = fs::read_to_string("src/lib.rs").unwrap();
    let floors: Vec<Vec<String>> = lib
        .split("\n\n")
        .map(|group| group.lines().filter_map(module).map(str::to_owned).collect::<Vec<_>>())
        .filter(|group| !group.is_empty())
        .collect();
    assert!(floors.len() > 5, "lib.rs lists its modules in blank-line groups");
    floors
}

/// The names after `crate::`, those inside braces included: `crate::{data::x, net}` gives both.
fn imports(source: &str) -> Vec<String> {
    let word = |text: &str| {
        text.trim_start()
            .chars()
            .take_while(|c| *c == '_' || c.is_alphanumeric())
            .collect::<String>()
    };
    let mut found = Vec::new();
    for rest in source.split("crate::").skip(1) {
        let Some(braced) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (position, character) in braced.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    found.push(word(&braced[start..position]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.push(word(&braced[start..position]));
                    start = position + 1;
                }
                _ => {}
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_point_down() {
    let floors = floors();
    let floor = |name: &str| floors.iter().position(|group| group.iter().any(|m| m == name));
    for name in floors.iter().flatten() {
        for (path, source) in sources(name) {
            for import in imports(&source) {
                let below = floor(&import).is_some_and(|f| Some(f) < floor(name));
                assert!(
                    import == *name || below,
                    "{}: `crate::{import}` is not on a lower floor than `{name}`",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn braced_imports_are_seen() {
    let source = "use crate::{data::{self, Dataset}, net, units::Tally};\nuse crate::cli::x;";
    assert_eq!(imports(source), ["data", "net", "units", "cli"]);
}

#[test]
fn crates_stay_in_their_modules() {
    let confined: [(&str, &[&str]); 7] = [
        ("clap", &["cli"]),
        ("indicatif", &["cli"]),
        ("serde_yaml", &["suite", "plan"]),
        ("polars", &["leaderboard"]),
        ("polars_io", &["leaderboard"]),
        ("plotters", &["report"]),
        (
            "tch",
            &["device", "data", "net", "attack", "diffusion", "evaluate", "train", "run", "cli"],
        ),
    ];
    for name in floors().iter().flatten() {
        for (path, source) in sources(name) {
            for (library, homes) in confined {
                let used = source.lines().any(|line| {
                    !line.trim_start().starts_with("//")
                        && (line.contains(&format!("use {library}::"))
                            || line.contains(&format!(" {library}::"))
                            || line.contains(&format!("({library}::"))
                            || line.contains(&format!("<{library}::")))
                });
                let home = homes.contains(&name.as_str());
                assert!(!used || home, "{}: {library} is confined to {homes:?}", path.display());
            }
        }
    }
}

#[test]
fn files_stay_small_and_flat() {
    for name in floors().iter().flatten() {
        for (path, source) in sources(name) {
            let lines = source.lines().count();
            assert!(lines <= 450, "{} has {lines} lines: split it", path.display());
            assert!(path.components().count() <= 4, "{} lies too deep", path.display());
        }
    }
    assert!(Path::new("README.md").exists());
}
