//! The data sets of this machine, as planning sees them.

use std::path::{Path, PathBuf};

use crate::{
    data::{
        cache::{Cache, Stamp},
        find,
        reference::Reference,
        spec::{Source, Split},
    },
    digest::hash_file,
    error::{Error, Result},
    plan::{Survey, Surveyor},
};

/// Looks at real files.
#[derive(Debug, Clone, Copy)]
pub struct Files;

impl Files {
    /// The folders to search, absolute: `data` if given, else the usual places.
    pub fn roots(data: Option<&Path>) -> Vec<PathBuf> {
        let roots = find::roots(data);
        roots.into_iter().map(|root| std::path::absolute(&root).unwrap_or(root)).collect()
    }
}

/// The published data sets at their published sizes, whether or not they are here: for the cost of
/// a suite on a machine that has no data. Jobs of such a plan cannot run.
#[derive(Debug, Clone, Copy)]
pub struct Published;

impl Surveyor for Published {
    fn survey(&self, source: &Source, roots: &[PathBuf]) -> Result<Survey> {
        let (train, test, classes) = match source.name.as_str() {
            "cifar10" => (50_000, 10_000, 10),
            "cifar100" => (50_000, 10_000, 100),
            "svhn" => (73_257, 26_032, 10),
            "tiny-imagenet" => (100_000, 10_000, 200),
            _ => return Files.survey(source, roots),
        };
        let all: u64 = if source.split == Split::Train { train } else { test };
        let rest = all.saturating_sub(source.skip);
        let images = source.count.unwrap_or(rest);
        if images == 0 || images > rest {
            let message = format!(
                "`{}`: {images} images after the first {} are asked for, but it has {all}",
                source.name, source.skip
            );
            return Err(Error::input(message));
        }
        let resolution = if source.name == "tiny-imagenet" { 64 } else { 32 };
        Ok(Survey { fingerprint: "as published".to_owned(), classes, images, resolution })
    }

    fn set(&self, paths: &[PathBuf]) -> Result<Reference> {
        if paths.iter().all(|path| path.exists()) {
            return Reference::of(paths);
        }
        let message = "is not here: a plan as published needs the files of the suite itself";
        Err(Error::in_file(&paths[0], message))
    }

    fn hash(&self, path: &Path) -> Result<String> {
        if path.is_file() { crate::digest::hash_file(path) } else { Ok("not here".to_owned()) }
    }
}

impl Surveyor for Files {
    fn survey(&self, source: &Source, roots: &[PathBuf]) -> Result<Survey> {
        let facts = find::survey(source, roots)?;
        Ok(Survey {
            fingerprint: facts.fingerprint,
            classes: facts.classes as i64,
            images: facts.images,
            resolution: facts.resolution,
        })
    }

    /// Large files (generated sets) are hashed once, not with every plan.
    fn hash(&self, path: &Path) -> Result<String> {
        let Some(cache) = Cache::usual() else { return hash_file(path) };
        let stamp = Stamp::of("blake3", &[path.to_owned()])?;
        if let Some(hash) = cache.noted(&stamp, HASH) {
            return Ok(hash);
        }
        let hash = hash_file(path)?;
        // Without the note the next plan only takes longer.
        let _ = cache.note(&stamp, HASH, &hash);
        Ok(hash)
    }
}

/// How the notes of hashes end.
const HASH: &str = "blake3.json";
