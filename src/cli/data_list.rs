//! `gauntlet data list`: what image sets are here, in lines of 80 columns.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cli::data::{HALVES, children},
    data::{
        catalog::{ENTRIES, Entry, GENERATED},
        find, locate,
    },
    error::{AtPath, Result},
    formats::shelf::is_archive,
};

/// Prints what lies in `roots`.
///
/// # Errors
/// If a root is not there: it must not look like an empty one.
pub(super) fn list(roots: &[PathBuf]) -> Result<()> {
    for root in roots {
        fs::metadata(root).at(root)?;
    }
    let mut absent = Vec::new();
    for entry in &ENTRIES {
        let lines = found(entry, roots);
        if lines.is_empty() {
            absent.push(entry.name);
            continue;
        }
        println!("{}", entry.name);
        lines.iter().for_each(|line| println!("{line}"));
        for remote in entry.remotes {
            println!("  md5 {}  {}", remote.md5.unwrap_or("(none published)"), remote.file);
        }
    }
    generated(roots);
    let others = others(roots);
    if !others.is_empty() {
        println!("by path");
        others.iter().for_each(|name| println!("  {name}"));
    }
    println!("{}", wrapped(&format!("not here: {}", absent.join(", ")), "  "));
    println!("(`gauntlet data fetch SET` downloads, `gauntlet data verify` compares checksums)");
    Ok(())
}

/// Lines for each half of a set that is here.
fn found(entry: &Entry, roots: &[PathBuf]) -> Vec<String> {
    let mut lines = Vec::new();
    for ((split, half), whole) in HALVES.into_iter().zip(entry.images) {
        let Ok(found) = locate::locate(entry.name, split, roots) else { continue };
        match find::load(entry.name, split, 0, roots) {
            Ok(set) => {
                let count = set.len() as u64;
                let state = match count {
                    _ if count < whole => "short",
                    _ if count > whole => "more than published",
                    _ => "complete",
                };
                let form = found.form.words();
                lines.push(format!("  {half:<5} {count} of {whole} images, {state}, {form}"));
                lines.push(format!("        {}", found.path.display()));
            }
            Err(error) => {
                let text = format!("  {half:<5} cannot be read: {error}");
                lines.push(wrapped(&text, "        "));
            }
        }
    }
    lines
}

/// Published generated sets of which some file is here.
fn generated(roots: &[PathBuf]) {
    for entry in &GENERATED {
        let here = |root: &&PathBuf| entry.remotes.iter().any(|r| root.join(r.file).is_file());
        let Some(root) = roots.iter().find(here) else { continue };
        let (all, images) = (entry.remotes.len(), entry.images[0]);
        let count = entry.remotes.iter().filter(|r| root.join(r.file).is_file()).count();
        let state = if count == all { "complete" } else { "short" };
        println!("{}\n  {count} of {all} files ({images} images), {state}", entry.name);
        let first = root.join(entry.remotes[0].file);
        let place = if all == 1 { first.as_path() } else { first.parent().unwrap_or(&first) };
        println!("        {}", place.display());
    }
}

/// Archives, `.npz` files and image folders that belong to no known set.
fn others(roots: &[PathBuf]) -> Vec<String> {
    let mut names = Vec::new();
    for root in roots {
        for path in children(root) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let known = ENTRIES.iter().any(|e| e.remotes.iter().any(|r| r.file == name));
            let npz = |path: &Path| path.extension().is_some_and(|ending| ending == "npz");
            if path.is_file() && !known && (is_archive(&path) || npz(&path)) {
                names.push(name);
            } else if path.join("train").is_dir() && !path.join("wnids.txt").exists() {
                names.push(format!("{name}/ (image folder)"));
            } else if path.is_dir() {
                let parts = children(&path).into_iter().filter(|path| npz(path)).count();
                if parts > 0 {
                    names.push(format!("{name}/ ({parts} .npz)"));
                }
            }
        }
    }
    names.sort();
    names
}

/// `text` in lines of at most 80 columns where its words allow it; further lines begin with
/// `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for (position, word) in text.split(' ').enumerate() {
        let line = lines.last_mut().expect("never empty");
        let length = line.chars().count() + word.chars().count();
        if length >= 80 && !line.trim().is_empty() {
            lines.push(format!("{indent}{word}"));
        } else {
            line.push_str(if position == 0 { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_between_words() {
        let text = format!("  test  cannot be read: {}", "word ".repeat(40).trim());
        let lines = wrapped(&text, "        ");
        assert!(
            lines.lines().count() == 4 && lines.lines().all(|line| line.len() <= 80),
            "{lines}"
        );
        assert!(lines.starts_with("  test  cannot"), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 44);
    }
}
