//! Finds image sets by name in the folders where people keep them, and reads them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    data::{
        Dataset,
        cache::{Cache, Stamp},
        locate::{Found, locate},
        spec::{Source, Split},
        synthetic,
    },
    error::{Error, Result},
};

/// The sets that have names of their own; anything else is a path, or one of [`super::shifted`].
pub const NAMES: [&str; 7] =
    ["synthetic", "cifar10", "cifar100", "cifar100-coarse", "svhn", "svhn-extra", "tiny-imagenet"];

/// What planning wants to know of a source's images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// [`Dataset::fingerprint`].
    pub fingerprint: String,
    /// How many classes there are.
    pub classes: u64,
    /// How many images.
    pub images: u64,
    /// Their edge length.
    pub resolution: u64,
}

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

/// All images of one half of the set called `name`: one of [`NAMES`], one of [`super::shifted`], or
/// the path of an `.npz` file, a folder of class folders or an archive. `resolution` is free for
/// `synthetic`; for others it is the set's own, or 0 for whatever that is.
///
/// # Errors
/// If the set is not found (the message says where it was looked for), is bad, or has another
/// resolution.
pub fn load(name: &str, split: Split, resolution: u64, roots: &[PathBuf]) -> Result<Dataset> {
    if name == "synthetic" {
        return drawn(split, 0, synthetic::default_count(split), resolution);
    }
    let found = locate(name, split, roots)?;
    let stamp = stamp(&found, name, split)?;
    let set = read(&found, &stamp)?;
    check_resolution(name, resolution, set.size)?;
    Ok(set)
}

fn stamp(found: &Found, name: &str, split: Split) -> Result<Stamp> {
    Stamp::of(&format!("{name} {split:?} {}", found.form.words()), &found.files()?)
}

fn read(found: &Found, stamp: &Stamp) -> Result<Dataset> {
    match Cache::usual().filter(|_| found.is_slow()) {
        Some(cache) => cache.dataset(stamp, || found.read()),
        None => found.read(),
    }
}

fn check_resolution(name: &str, asked: u64, (height, width): (usize, usize)) -> Result<()> {
    if asked == 0 && height == width || (asked, asked) == (height as u64, width as u64) {
        return Ok(());
    }
    Err(Error::input(if height == width {
        format!(
            "`{name}`: resolution {asked} is asked for, but its images are {width}x{height}; only \
             `synthetic` comes in any size"
        )
    } else {
        format!("`{name}`: its images are {width}x{height}; expected as high as wide")
    }))
}

/// The images that `source` names, and `source` with the fingerprint of exactly these. If it had
/// one already, the images must still be the same. A resolution of 0 becomes the set's own.
///
/// # Errors
/// As [`load`]; if there are too few images; if they have changed.
pub fn resolve(source: &Source, roots: &[PathBuf]) -> Result<(Dataset, Source)> {
    settle(source, roots, false)
}

/// As [`resolve`], but the images may be higher than wide or wider than high; their resolution then
/// stays 0.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_oblong(source: &Source, roots: &[PathBuf]) -> Result<(Dataset, Source)> {
    settle(source, roots, true)
}

fn settle(source: &Source, roots: &[PathBuf], oblong: bool) -> Result<(Dataset, Source)> {
    let Source { name, split, skip, count, resolution, .. } = source;
    let (set, fingerprint) = if name == "synthetic" {
        // Any number of images can be drawn, so the range need not fit the default count.
        let rest = synthetic::default_count(*split).saturating_sub(*skip);
        let set = drawn(*split, *skip, count.unwrap_or(rest), *resolution)?;
        let fingerprint = set.fingerprint();
        (set, fingerprint)
    } else {
        let found = locate(name, *split, roots)?;
        let stamp = stamp(&found, name, *split)?;
        let set = read(&found, &stamp)?;
        if !oblong || *resolution > 0 {
            check_resolution(name, *resolution, set.size)?;
        }
        let set = set.subset(*skip, *count)?;
        let fingerprint = fingerprint(&set, &part(&stamp, source));
        (set, fingerprint)
    };
    if set.is_empty() {
        return Err(Error::input(format!("`{name}`: no images are left after the first {skip}")));
    }
    if !source.fingerprint.is_empty() && source.fingerprint != fingerprint {
        return Err(Error::input(format!(
            "`{name}`: the images have changed since the plan was made (fingerprint {fingerprint}, \
             planned {}); plan again, or give the data folder that was planned with",
            source.fingerprint
        )));
    }
    let resolution = if set.size.0 == set.size.1 { set.size.0 as u64 } else { 0 };
    Ok((set, Source { fingerprint, resolution, ..source.clone() }))
}

/// What [`resolve`] would find, without reading images that were looked at before and have not
/// changed since.
///
/// # Errors
/// As [`resolve`].
pub fn survey(source: &Source, roots: &[PathBuf]) -> Result<Facts> {
    let Source { name, split, resolution, .. } = source;
    if name != "synthetic"
        && let Some(cache) = Cache::usual()
    {
        let stamp = stamp(&locate(name, *split, roots)?, name, *split)?;
        if let Some(facts) = cache.noted::<Facts>(&part(&stamp, source), FACTS) {
            let edge = facts.resolution as usize;
            check_resolution(name, *resolution, (edge, edge))?;
            return Ok(facts);
        }
    }
    let (set, source) = resolve(source, roots)?;
    Ok(facts(&set, source.fingerprint))
}

/// How the notes of [`Facts`] end. A change of what a fingerprint is changes the number.
const FACTS: &str = "facts-1.json";

fn part(stamp: &Stamp, source: &Source) -> Stamp {
    stamp.with(&format!("{} {:?}", source.skip, source.count))
}

fn facts(set: &Dataset, fingerprint: String) -> Facts {
    let (classes, images) = (set.classes.len() as u64, set.len() as u64);
    Facts { fingerprint, classes, images, resolution: set.size.0 as u64 }
}

fn fingerprint(set: &Dataset, stamp: &Stamp) -> String {
    let cache = Cache::usual();
    let noted = cache.as_ref().and_then(|cache| cache.noted::<Facts>(stamp, FACTS));
    if let Some(noted) = noted.filter(|facts| facts.images == set.len() as u64) {
        return noted.fingerprint;
    }
    let fingerprint = set.fingerprint();
    if let Some(cache) = cache {
        // Without the note the next plan only takes longer.
        let _ = cache.note(stamp, FACTS, &facts(set, fingerprint.clone()));
    }
    fingerprint
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
    fn oblong_images_are_for_those_who_ask() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("oblong.npz");
        crate::formats::npz::write_images(&path, (4, 6), &[7; 2 * 4 * 6 * 3], &[0, 1]).unwrap();
        let asked = source(path.to_str().unwrap(), 0, None, 0);
        assert!(resolve(&asked, &[]).unwrap_err().to_string().contains("as high as wide"));
        let (set, resolved) = resolve_oblong(&asked, &[]).unwrap();
        assert_eq!((set.size, resolved.resolution), ((4, 6), 0));
        resolve_oblong(&resolved, &[]).unwrap();
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
        let tiny = load("tiny-imagenet", Split::Test, 0, &data).unwrap();
        assert_eq!((tiny.len(), tiny.size), (1000, (64, 64)));
        let coarse = load("cifar100-coarse", Split::Test, 32, &data).unwrap();
        assert_eq!((coarse.len(), coarse.classes.len()), (916, 20));
        let pictures = load("cifar10-jpeg.tar.xz", Split::Test, 0, &data).unwrap();
        assert_eq!((pictures.len(), pictures.classes.len(), pictures.size), (10_000, 10, (32, 32)));
        // Every twentieth by class and name, hashed as `Image.open(path).convert("RGB")` gives it.
        let mut hash = md5::Context::new();
        let by_class = |index: usize| index % 1000 * 10 + index / 1000;
        let chosen = (0..pictures.len()).step_by(20);
        chosen.for_each(|index| hash.consume(pictures.image(by_class(index))));
        assert!((0..40).all(|index| usize::from(pictures.labels[index]) == index % 10));
        assert_eq!(format!("{:x}", hash.finalize()), "7a83c9bb67fdf1e51ed1134d00ee8708");
        let message = load("cifar10", Split::Test, 16, &data).unwrap_err().to_string();
        assert!(message.contains("32x32"), "{message}");
    }
}
