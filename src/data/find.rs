//! Finds image sets by name in the folders where people keep them.

use std::path::{Path, PathBuf};

use crate::{
    data::{
        Dataset, cifar, folder, generated, shifted,
        spec::{Source, Split},
        svhn, synthetic,
    },
    error::{Error, Result},
};

/// The sets that have names of their own; anything else is a path.
pub const NAMES: [&str; 4] = ["synthetic", "cifar10", "cifar100", "svhn"];

/// The folders to search: `data_dir` if given, else those of the environment variable
/// `GAUNTLET_DATA` (separated by `:`), else `./data`.
pub fn roots(data_dir: Option<&Path>) -> Vec<PathBuf> {
    if let Some(folder) = data_dir {
        return vec![folder.to_owned()];
    }
    match std::env::var_os("GAUNTLET_DATA") {
        Some(list) if !list.is_empty() => {
            std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect()
        }
        _ => vec![PathBuf::from("data")],
    }
}

/// All images of one half of the set called `name`: one of [`NAMES`], one of [`shifted`], an `.npz` file, or a folder
/// of class folders. `resolution` is free for `synthetic` and must be the set's own for others.
///
/// # Errors
/// If the set is not found (the message says where it was looked for), is bad, or has another
/// resolution.
pub fn load(name: &str, split: Split, resolution: u64, roots: &[PathBuf]) -> Result<Dataset> {
    let set = match name {
        "synthetic" => {
            return drawn(split, 0, synthetic::default_count(split), resolution);
        }
        "cifar10" => cifar_set(cifar::Kind::Ten, split, roots)?,
        "cifar100" => cifar_set(cifar::Kind::Hundred, split, roots)?,
        "svhn" => svhn_set(split, roots)?,
        _ => match shifted::spec(name)? {
            Some(spec) => shifted_set(name, &spec, split, roots)?,
            None => by_path(name, split, roots)?,
        },
    };
    if (resolution, resolution) != (set.size.0 as u64, set.size.1 as u64) {
        let (height, width) = set.size;
        return Err(Error::input(format!(
            "`{name}`: resolution {resolution} is asked for, but its images are {height}x{width}; \
             only `synthetic` comes in any size"
        )));
    }
    Ok(set)
}

/// The images that `source` names, and `source` with the fingerprint of exactly these. If it had
/// one already, the images must still be the same.
///
/// # Errors
/// As [`load`]; if there are too few images; if they have changed.
pub fn resolve(source: &Source, roots: &[PathBuf]) -> Result<(Dataset, Source)> {
    let Source { name, split, skip, count, resolution, .. } = source;
    let set = if name == "synthetic" {
        // Any number of images can be drawn, so the range need not fit the default count.
        let rest = synthetic::default_count(*split).saturating_sub(*skip);
        drawn(*split, *skip, count.unwrap_or(rest), *resolution)?
    } else {
        load(name, *split, *resolution, roots)?.subset(*skip, *count)?
    };
    if set.is_empty() {
        return Err(Error::input(format!("`{name}`: no images are left after the first {skip}")));
    }
    let fingerprint = set.fingerprint();
    if !source.fingerprint.is_empty() && source.fingerprint != fingerprint {
        return Err(Error::input(format!(
            "`{name}`: the images have changed since the plan was made (fingerprint {fingerprint}, \
             planned {}); plan again, or give the data folder that was planned with",
            source.fingerprint
        )));
    }
    Ok((set, Source { fingerprint, ..source.clone() }))
}

fn drawn(split: Split, first: u64, count: u64, resolution: u64) -> Result<Dataset> {
    if !(8..=256).contains(&resolution) {
        return Err(Error::input(format!(
            "`synthetic`: resolution {resolution} is outside 8 to 256"
        )));
    }
    let bytes = u128::from(count) * 3 * u128::from(resolution * resolution);
    if bytes > 1 << 36 || first.checked_add(count).is_none() {
        return Err(Error::input(format!(
            "`synthetic`: {count} images of {resolution} pixels do not fit into memory"
        )));
    }
    Ok(synthetic::draw(split, first, count, resolution))
}

/// Each root, and the folders in it where `names` put a set.
fn candidates(roots: &[PathBuf], names: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in roots {
        found.extend([root.clone(), root.join("data")]);
        for middle in ["", "data"] {
            found.extend(names.iter().map(|name| root.join(middle).join(name)));
        }
    }
    found
}

fn cifar_set(kind: cifar::Kind, split: Split, roots: &[PathBuf]) -> Result<Dataset> {
    let name = kind.name();
    let dashed = name.replace("cifar", "cifar-");
    let upper = name.to_uppercase();
    let outer = candidates(roots, &[name, &dashed, &upper]);
    let mut looked = Vec::new();
    for folder in &outer {
        let inner = kind.folders().map(|layout| folder.join(layout));
        looked.extend(inner.into_iter().chain([folder.clone()]));
    }
    match looked.iter().find(|folder| cifar::is_here(kind, folder)) {
        Some(folder) => cifar::read(kind, folder, split),
        None => Err(not_found(name, &outer, &cifar::expected(kind))),
    }
}

fn svhn_set(split: Split, roots: &[PathBuf]) -> Result<Dataset> {
    let outer = candidates(roots, &["svhn", "SVHN"]);
    let file = svhn::file(split);
    match outer.iter().map(|folder| folder.join(file)).find(|path| path.is_file()) {
        Some(path) => svhn::read(&path),
        None => Err(not_found("svhn", &outer, &format!("`{file}`"))),
    }
}

fn shifted_set(
    name: &str,
    spec: &shifted::Spec,
    split: Split,
    roots: &[PathBuf],
) -> Result<Dataset> {
    if split == Split::Train {
        return Err(Error::input(format!("`{name}` has test images only")));
    }
    let folders = candidates(roots, &[]);
    if let Some(folder) = shifted::locate(spec, &folders) {
        return shifted::read(name, spec, &folder);
    }
    let expected = format!("`{}/{}`", spec.folder, spec.images);
    Err(not_found(name, &folders, &expected))
}

/// An `.npz` file or a folder of class folders, as given or under a root. A folder may have
/// `train` and `test` (or `val`) inside.
fn by_path(name: &str, split: Split, roots: &[PathBuf]) -> Result<Dataset> {
    let mut looked = vec![PathBuf::from(name)];
    looked.extend(roots.iter().map(|root| root.join(name)));
    let halves: &[&str] = match split {
        Split::Train => &["train"],
        Split::Test => &["test", "val"],
    };
    for path in &looked {
        if path.is_file() {
            return generated::read_unnamed(path);
        }
        if let Some(half) = halves.iter().map(|half| path.join(half)).find(|half| half.is_dir()) {
            return Ok(Dataset { name: name.to_owned(), ..folder::read(&half)? });
        }
        if path.is_dir() && folder::is_here(path) {
            return folder::read(path);
        }
    }
    let close = NAMES.iter().min_by_key(|known| strsim::levenshtein(known, name));
    let hint = close
        .filter(|known| strsim::levenshtein(known, name) <= 2)
        .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
    let known = NAMES.join("`, `");
    Err(not_found(
        name,
        &looked,
        &format!("one of `{known}`, an .npz file or a folder of class folders{hint}"),
    ))
}

fn not_found(name: &str, looked: &[PathBuf], expected: &str) -> Error {
    let mut folders: Vec<_> = looked.iter().map(|path| path.display().to_string()).collect();
    folders.dedup();
    Error::input(format!(
        "the image set `{name}` was not found; looked in {}; expected {expected}. Give its folder \
         with --data or the environment variable GAUNTLET_DATA",
        folders.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, skip: u64, count: Option<u64>, resolution: u64) -> Source {
        let (name, fingerprint) = (name.to_owned(), String::new());
        Source { name, split: Split::Test, skip, count, resolution, fingerprint }
    }

    #[test]
    fn resolved_sources_carry_their_fingerprint() {
        let (set, resolved) = resolve(&source("synthetic", 5, Some(7), 16), &[]).unwrap();
        assert_eq!((set.len(), set.labels[0]), (7, 5));
        assert_eq!(resolved.fingerprint, set.fingerprint());
        resolve(&resolved, &[]).unwrap();
        let other = Source { skip: 6, ..resolved };
        assert!(resolve(&other, &[]).unwrap_err().to_string().contains("have changed"));
        // More than the default number can be drawn, but not of any size.
        assert_eq!(resolve(&source("synthetic", 2000, Some(3), 8), &[]).unwrap().0.len(), 3);
        for bad in [source("synthetic", 2000, None, 8), source("synthetic", 0, None, 4)] {
            assert!(resolve(&bad, &[]).is_err());
        }
    }

    #[test]
    fn missing_sets_say_where_they_were_looked_for() {
        let roots = [PathBuf::from("/nowhere/at-all")];
        let message = load("cifar10", Split::Test, 32, &roots).unwrap_err().to_string();
        for part in ["/nowhere/at-all", "cifar-10-batches-py/test_batch", "GAUNTLET_DATA"] {
            assert!(message.contains(part), "{message}");
        }
        let message = load("cifar01", Split::Test, 32, &roots).unwrap_err().to_string();
        assert!(message.contains("did you mean `cifar10`?"), "{message}");
    }

    #[test]
    fn subsets_stay_inside() {
        let set = || load("synthetic", Split::Test, 8, &[]).unwrap();
        let part = set().subset(10, Some(2)).unwrap();
        assert_eq!((part.len(), part.image(1)), (2, set().image(11)));
        let message = set().subset(1999, Some(2)).unwrap_err().to_string();
        assert!(message.contains("2000 in all"), "{message}");
        assert!(set().subset(u64::MAX, Some(2)).is_err());
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn real_sets_are_found_wherever_people_point() {
        let shared = PathBuf::from(std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED"));
        for root in ["", "data", "data/cifar10", "data/cifar10/cifar-10-batches-py"] {
            let set = load("cifar10", Split::Test, 32, &[shared.join(root)]).unwrap();
            assert_eq!(set.len(), 1017, "{root}");
        }
        let data = [shared.join("data")];
        assert_eq!(load("cifar100", Split::Train, 32, &data).unwrap().len(), 1117);
        assert_eq!(load("svhn", Split::Test, 32, &data).unwrap().len(), 283);
        assert_eq!(load("npz/500.npz", Split::Train, 32, &data).unwrap().len(), 500);
        let message = load("cifar10", Split::Test, 16, &data).unwrap_err().to_string();
        assert!(message.contains("32x32"), "{message}");
    }
}
