//! The data sets of this machine, as planning sees them.

use std::path::{Path, PathBuf};

use crate::{
    data::{find, spec::Source},
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
}
