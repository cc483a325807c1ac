//! Artifacts as one tar file, to carry from store to store.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Write},
    path::{Component, Path},
};

use crate::{
    digest::{JobId, hash_file},
    error::{AtPath, Error, Result},
    store::{Lookup, MANIFEST, Manifest, Store, nonce},
};

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Artifacts that are new here.
    pub added: Vec<JobId>,
    /// Artifacts that were here already.
    pub known: usize,
}

impl Store {
    /// Writes the artifacts `ids` into one tar file, which appears whole or not at all.
    ///
    /// # Errors
    /// If one is missing, damaged, or the file cannot be written.
    pub fn export(&self, ids: &[JobId], path: &Path) -> Result<()> {
        let beside = path.with_extension(format!("part.{}", nonce()));
        let write = || -> Result<()> {
            let file = BufWriter::new(File::create(&beside).at(&beside)?);
            let mut tar = tar::Builder::new(file);
            for id in ids {
                self.verify(id)?;
                let artifact = self.require(id)?;
                tar.append_dir_all(id.as_str(), &artifact.folder).at(&artifact.folder)?;
            }
            let mut file = tar.into_inner().at(&beside)?;
            file.flush().at(&beside)?;
            file.get_ref().sync_all().at(&beside)?;
            fs::rename(&beside, path).at(path)
        };
        let result = write();
        if result.is_err() {
            let _ = fs::remove_file(&beside);
        }
        result
    }

    /// Takes in the artifacts of a tar file that [`Store::export`] wrote: each is checked against
    /// its manifest first, and appears whole or not at all.
    ///
    /// # Errors
    /// If the file is no such archive, or an artifact in it is damaged; what came before it stays.
    pub fn import(&self, path: &Path) -> Result<Imported> {
        let unpacked = self.root.join("tmp").join(format!("import.{}", nonce()));
        fs::create_dir_all(&unpacked).at(&unpacked)?;
        let result = self.import_through(path, &unpacked);
        let _ = fs::remove_dir_all(&unpacked);
        result
    }

    fn import_through(&self, path: &Path, unpacked: &Path) -> Result<Imported> {
        let bad = |error: std::io::Error| {
            Error::in_file(path, format!("is no archive of artifacts: {error}"))
        };
        let mut archive = tar::Archive::new(BufReader::new(File::open(path).at(path)?));
        for entry in archive.entries().map_err(bad)? {
            let mut entry = entry.map_err(bad)?;
            let kind = entry.header().entry_type();
            let name = entry.path().map_err(bad)?.into_owned();
            let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
            let first = name.components().next().map(|part| part.as_os_str().to_string_lossy());
            let named = first.is_some_and(|first| first.parse::<JobId>().is_ok());
            if !plain || !named || !(kind.is_file() || kind.is_dir()) {
                let message = format!("holds `{}`, which no artifact does", name.display());
                return Err(Error::in_file(path, message));
            }
            entry.unpack_in(unpacked).map_err(bad)?;
        }
        let mut imported = Imported::default();
        for entry in fs::read_dir(unpacked).at(unpacked)? {
            let folder = entry.at(unpacked)?.path();
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id: JobId = name.parse()?;
            check(path, &folder, &id)?;
            let Some(lock) = self.try_lock(&id)? else {
                imported.known += 1;
                continue;
            };
            match self.lookup(&id) {
                Lookup::Hit(_) => {
                    imported.known += 1;
                    continue;
                }
                Lookup::Damaged(_) => self.discard(&lock)?,
                Lookup::Miss => {}
            }
            let target = self.artifact(&id);
            fs::rename(&folder, &target).at(&target)?;
            imported.added.push(id);
        }
        imported.added.sort_unstable();
        if imported.added.is_empty() && imported.known == 0 {
            return Err(Error::in_file(path, "holds no artifact"));
        }
        Ok(imported)
    }
}

/// Everything that the manifest says, compared with what is there.
fn check(archive: &Path, folder: &Path, id: &JobId) -> Result<()> {
    let damaged = |message: String| Error::in_file(archive, format!("{id}: {message}"));
    let manifest = Manifest::read(&folder.join(MANIFEST))
        .and_then(|manifest| manifest.check_sizes(folder).map(|()| manifest))
        .map_err(|error| damaged(error.to_string()))?;
    if manifest.id != *id {
        return Err(damaged(format!("the manifest speaks of {}", manifest.id)));
    }
    for file in &manifest.files {
        if hash_file(&folder.join(&file.name))? != file.blake3 {
            return Err(damaged(format!("{} differs from its manifest", file.name)));
        }
    }
    Ok(())
}
