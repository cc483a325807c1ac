//! The data sets of this machine, as planning sees them.

use std::path::{Path, PathBuf};

use crate::{
    data::{
        cache::{Cache, Stamp},
        find,
        spec::Source,
    },
    digest::hash_file,
    error::Result,
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
