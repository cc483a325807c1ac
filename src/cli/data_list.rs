//! `gauntlet data list`: what image sets are here, in lines of 80 columns or as JSON.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    cli::{
        data::{HALVES, children},
        terminal,
    },
    data::{
        catalog::{ENTRIES, Entry, GENERATED, Remote},
        find, locate, shifted,
    },
    error::{Error, Result},
    formats::shelf::is_archive,
};

/// What lies in the folders that are searched.
#[derive(Serialize)]
struct Listing {
    sets: Vec<Set>,
    generated: Vec<Generated>,
    /// Archives, `.npz` files and image folders of no known name.
    by_path: Vec<Other>,
    absent: Vec<&'static str>,
}

#[derive(Serialize)]
struct Set {
    name: &'static str,
    halves: Vec<Half>,
    /// Downloads that stopped midway.
    partial: Vec<Partial>,
    archives: Vec<Sum>,
}

/// One half of a set, or why it cannot be used.
#[derive(Serialize)]
struct Half {
    split: &'static str,
    path: String,
    form: &'static str,
    state: &'static str,
    images: u64,
    published: u64,
    /// Of a corrupted set: those that are here. `images` and `published` then count them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    corruptions: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Partial {
    path: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Sum {
    file: &'static str,
    md5: Option<&'static str>,
}

#[derive(Serialize)]
struct Generated {
    name: &'static str,
    path: String,
    state: &'static str,
    files: usize,
    published_files: usize,
    published_images: u64,
}

#[derive(Serialize)]
struct Other {
    name: String,
    kind: &'static str,
}

/// Prints what lies in `roots`.
///
/// # Errors
/// None but of printing: what cannot be read is listed as such.
pub(super) fn list(roots: &[PathBuf], json: bool) -> Result<()> {
    let mut listing = Listing {
        sets: Vec::new(),
        generated: generated(roots),
        by_path: others(roots),
        absent: Vec::new(),
    };
    for entry in &ENTRIES {
        let (halves, partial) = (found(entry, roots), partial(entry, roots));
        if halves.is_empty() && partial.is_empty() {
            listing.absent.push(entry.name);
            continue;
        }
        let sum = |remote: &Remote| Sum { file: remote.file, md5: remote.md5 };
        let archives = entry.remotes.iter().map(sum).collect();
        listing.sets.push(Set { name: entry.name, halves, partial, archives });
    }
    if json {
        terminal::print(&serde_json::to_string(&listing).map_err(Error::input)?);
    } else {
        terminal::print(&text(&listing));
    }
    Ok(())
}

/// The two halves of a set, as far as they are here.
fn found(entry: &Entry, roots: &[PathBuf]) -> Vec<Half> {
    if let Some(held) = shifted::corruptions(entry.name, &locate::shifted_folders(roots)) {
        return vec![corrupted(held)];
    }
    let mut halves = Vec::new();
    for ((split, word), published) in HALVES.into_iter().zip(entry.images) {
        let Ok(found) = locate::locate(entry.name, split, roots) else { continue };
        let mut half = Half {
            split: word,
            path: found.path.display().to_string(),
            form: found.form.words(),
            state: "unreadable",
            images: 0,
            published,
            corruptions: Vec::new(),
            error: None,
        };
        match find::load(entry.name, split, 0, roots) {
            Ok(set) => {
                half.images = set.len() as u64;
                half.state = state(half.images, published);
            }
            Err(error) => half.error = Some(error.to_string()),
        }
        halves.push(half);
    }
    halves
}

fn corrupted((path, held): (PathBuf, Result<Vec<&'static str>>)) -> Half {
    let published = shifted::CORRUPTIONS.len() as u64;
    let (corruptions, error) = match held {
        Ok(corruptions) => (corruptions, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let images = corruptions.len() as u64;
    let state = if error.is_some() { "unreadable" } else { state(images, published) };
    let path = path.display().to_string();
    Half { split: "test", path, form: "npy", state, images, published, corruptions, error }
}

fn state(count: u64, published: u64) -> &'static str {
    match count {
        _ if count < published => "short",
        _ if count > published => "more than published",
        _ => "complete",
    }
}

/// What has arrived of downloads that stopped.
fn partial(entry: &Entry, roots: &[PathBuf]) -> Vec<Partial> {
    let parts = roots.iter().flat_map(|root| {
        entry.remotes.iter().map(move |remote| root.join(format!("{}.part", remote.file)))
    });
    let size = |path: PathBuf| {
        let bytes = fs::metadata(&path).ok()?.len();
        Some(Partial { path: path.display().to_string(), bytes })
    };
    parts.filter_map(size).collect()
}

/// Published generated sets of which some file is here.
fn generated(roots: &[PathBuf]) -> Vec<Generated> {
    let found = |entry: &'static Entry| {
        let here = |root: &PathBuf| {
            entry.remotes.iter().filter(|remote| root.join(remote.file).is_file()).count()
        };
        let (root, files) =
            roots.iter().map(|root| (root, here(root))).find(|(_, files)| *files > 0)?;
        let all = entry.remotes.len();
        let first = root.join(entry.remotes[0].file);
        let place = if all == 1 { first.as_path() } else { first.parent().unwrap_or(&first) };
        Some(Generated {
            name: entry.name,
            path: place.display().to_string(),
            state: if files == all { "complete" } else { "short" },
            files,
            published_files: all,
            published_images: entry.images[0],
        })
    };
    GENERATED.iter().filter_map(found).collect()
}

/// Archives, `.npz` files and image folders that belong to no known set.
fn others(roots: &[PathBuf]) -> Vec<Other> {
    let mut others = Vec::new();
    let npz = |path: &Path| path.extension().is_some_and(|ending| ending == "npz");
    for path in roots.iter().flat_map(|root| children(root)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = ENTRIES.iter().any(|e| e.remotes.iter().any(|r| r.file == name));
        let kind = match () {
            () if path.is_file() && npz(&path) => "npz",
            () if path.is_file() && !known && is_archive(&path) => "archive",
            () if path.join("train").is_dir() && !path.join("wnids.txt").exists() => "image folder",
            () if path.is_dir() && children(&path).iter().any(|path| npz(path)) => "folder of npz",
            () => continue,
        };
        others.push(Other { name, kind });
    }
    others.sort_by(|a, b| a.name.cmp(&b.name));
    others
}

/// The listing for people.
fn text(listing: &Listing) -> String {
    let mut lines = Vec::new();
    for set in &listing.sets {
        lines.push(set.name.to_owned());
        set.halves.iter().for_each(|half| lines.extend(half_lines(half)));
        for Partial { path, bytes } in &set.partial {
            let (size, name) = (terminal::size(*bytes), set.name);
            lines.push(format!("  fetched in part: {size}; `gauntlet data fetch {name}` goes on"));
            lines.push(format!("        {path}"));
        }
        for Sum { file, md5 } in &set.archives {
            lines.push(format!("  md5 {}  {file}", md5.unwrap_or("(none published)")));
        }
    }
    for set in &listing.generated {
        let Generated { name, path, state, files, published_files, published_images } = set;
        lines.push((*name).to_owned());
        lines.push(format!(
            "  {files} of {published_files} files ({published_images} images), {state}"
        ));
        lines.push(format!("        {path}"));
    }
    if !listing.by_path.is_empty() {
        lines.push("by path".to_owned());
        lines.extend(listing.by_path.iter().map(|other| match other.kind {
            "npz" | "archive" => format!("  {}", other.name),
            kind => format!("  {}/ ({kind})", other.name),
        }));
    }
    if !listing.absent.is_empty() {
        lines.push(wrapped(&format!("not here: {}", listing.absent.join(", ")), "  "));
    }
    lines.push(
        "(`gauntlet data fetch SET` downloads, `gauntlet data verify` compares checksums)".into(),
    );
    lines.join("\n")
}

fn half_lines(half: &Half) -> Vec<String> {
    let Half { split, images, published, state, form, path, .. } = half;
    if let Some(error) = &half.error {
        let text = format!("  {split:<5} cannot be read: {error}");
        return vec![wrapped(&text, "        ")];
    }
    if half.corruptions.is_empty() {
        let first = format!("  {split:<5} {images} of {published} images, {state}, {form}");
        return vec![first, format!("        {path}")];
    }
    let first = format!("  {split:<5} {images} of {published} corruptions, {state}, {form}");
    let names = wrapped(&format!("        {}", half.corruptions.join(", ")), "        ");
    vec![first, format!("        {path}"), names]
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
