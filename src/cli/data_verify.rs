//! `gauntlet data verify`: files against the published checksums, and every set read once.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{
    cli::{
        data::{HALVES, children},
        terminal,
    },
    data::{
        catalog::{self, ENTRIES, Entry, GENERATED},
        fetch, generated, locate, shifted,
        spec::Split,
    },
    error::{Error, Result},
};

/// What was found of a file or of one half of a set.
#[derive(Serialize, Default)]
struct Row {
    verdict: &'static str,
    /// The file, or the set and its half.
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    md5: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

const PUBLISHED: &str = "as published";
const DIFFERS: &str = "DIFFERS";
const READABLE: &str = "readable";
const UNREADABLE: &str = "UNREADABLE";

impl Row {
    fn unreadable(subject: String, error: &Error) -> Self {
        Self { verdict: UNREADABLE, subject, error: Some(error.to_string()), ..Self::default() }
    }

    fn is_bad(&self) -> bool {
        matches!(self.verdict, DIFFERS | UNREADABLE)
    }

    fn line(&self) -> String {
        let Self { verdict, subject, md5, fingerprint, images, error } = self;
        let digest = md5.iter().chain(fingerprint).map(|digest| format!(" {digest} "));
        let digest: String = digest.collect();
        let more = match (images, error) {
            (_, Some(error)) => format!(": {error}"),
            (Some(images), None) => format!(": {images} images"),
            (None, None) => String::new(),
        };
        format!("{verdict:<13}{digest} {subject}{more}")
    }
}

/// The rows so far; shown at once, as files may be large.
struct Rows {
    json: bool,
    all: Vec<Row>,
}

impl Rows {
    fn add(&mut self, row: Row) {
        if !self.json {
            terminal::print(&row.line());
        }
        self.all.push(row);
    }
}

/// Compares what lies in `roots` of the sets called `sets` (all, if none is named).
///
/// # Errors
/// If a named set is not there, nothing is, or anything is not as published.
pub(super) fn verify(sets: &[String], roots: &[PathBuf], json: bool) -> Result<()> {
    let mut files = Vec::new();
    roots.iter().for_each(|root| below(root, 3, &mut files));
    let chosen: Vec<&str> = match sets {
        [] => ENTRIES.iter().chain(&GENERATED).map(|entry| entry.name).collect(),
        some => some.iter().map(String::as_str).collect(),
    };
    let mut rows = Rows { json, all: Vec::new() };
    for name in chosen {
        let sums = catalog::entry(name).map(sums).unwrap_or_default();
        for (ending, expected) in sums {
            files.iter().filter(|path| path.ends_with(ending)).for_each(|path| {
                rows.add(file(path, expected));
            });
        }
        if let Some(entry) = GENERATED.iter().find(|entry| entry.name == name) {
            parts(entry, sets.is_empty(), roots, &mut rows)?;
        } else if let Some((_, held)) = shifted::corruptions(name, &locate::shifted_folders(roots))
        {
            corrupted(name, held, roots, &mut rows);
        } else {
            halves(name, sets.is_empty(), roots, &mut rows)?;
        }
    }
    if json {
        terminal::print(&serde_json::to_string(&rows.all).map_err(Error::input)?);
    }
    let (seen, bad) = (rows.all.len(), rows.all.iter().filter(|row| row.is_bad()).count());
    match (seen, bad) {
        (0, _) => Err(Error::input("no known file or set was found; see `gauntlet data list`")),
        (_, 0) => Ok(()),
        _ => Err(Error::input(format!(
            "{bad} of {seen} files and sets are not as published (shortened, changed or damaged)"
        ))),
    }
}

fn file(path: &Path, expected: &str) -> Row {
    let subject = path.display().to_string();
    match fetch::md5_of(path) {
        Ok(found) => {
            let verdict = if found == expected { PUBLISHED } else { DIFFERS };
            Row { verdict, subject, md5: Some(found), ..Row::default() }
        }
        Err(error) => Row::unreadable(subject, &error),
    }
}

/// Both halves of a set, where they are. If it was named, its test half must be.
fn halves(name: &str, any: bool, roots: &[PathBuf], rows: &mut Rows) -> Result<()> {
    for (split, half) in HALVES {
        let found = match locate::locate(name, split, roots) {
            Ok(found) => found,
            Err(error) if !any && split == Split::Test => return Err(error),
            Err(_) => continue,
        };
        let subject = format!("{name} {half}");
        rows.add(match found.read() {
            Ok(set) => Row {
                verdict: READABLE,
                subject,
                fingerprint: Some(set.fingerprint()),
                images: Some(set.len()),
                ..Row::default()
            },
            Err(error) => Row::unreadable(subject, &error),
        });
    }
    Ok(())
}

/// The files of a generated set, for which nobody published checksums: those that are here are
/// opened, their labels read. If it was named, all must be here.
fn parts(entry: &Entry, any: bool, roots: &[PathBuf], rows: &mut Rows) -> Result<()> {
    for remote in entry.remotes {
        let path = roots.iter().map(|root| root.join(remote.file)).find(|path| path.is_file());
        let Some(path) = path else {
            if any {
                continue;
            }
            let (name, file) = (entry.name, remote.file);
            return Err(Error::input(format!(
                "`{name}`: no {file} in {}; `gauntlet data fetch {name}` brings it",
                roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
            )));
        };
        let subject = path.display().to_string();
        rows.add(match generated::read_unnamed(&path) {
            Ok(set) => {
                Row { verdict: READABLE, subject, images: Some(set.len()), ..Row::default() }
            }
            Err(error) => Row::unreadable(subject, &error),
        });
    }
    Ok(())
}

/// Every corruption of a set, all severities.
fn corrupted(name: &str, held: Result<Vec<&str>>, roots: &[PathBuf], rows: &mut Rows) {
    let held = match held {
        Ok(held) => held,
        Err(error) => return rows.add(Row::unreadable(name.to_owned(), &error)),
    };
    for corruption in held {
        let read = |severity| {
            let name = format!("{name}/{corruption}/{severity}");
            locate::locate(&name, Split::Test, roots)?.read().map(|set| set.len())
        };
        let subject = format!("{name}/{corruption}");
        rows.add(match (1..=5).map(read).sum::<Result<usize>>() {
            Ok(images) => {
                Row { verdict: READABLE, subject, images: Some(images), ..Row::default() }
            }
            Err(error) => Row::unreadable(subject, &error),
        });
    }
}

/// The known checksums of a set's archives and files.
fn sums(entry: &'static Entry) -> Vec<(&'static str, &'static str)> {
    let archives = entry.remotes.iter().filter_map(|remote| Some((remote.file, remote.md5?)));
    archives.chain(entry.files.iter().copied()).collect()
}

/// The files in `folder` and `depth` levels of folders in it.
fn below(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for path in children(folder) {
        if path.is_file() {
            files.push(path);
        } else if depth > 0 && path.is_dir() {
            below(&path, depth - 1, files);
        }
    }
}
