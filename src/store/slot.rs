//! A job's output on its way into the store.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::{
    digest::hash_file,
    error::{AtPath, Result},
    store::{
        Artifact, Lock, MANIFEST, Store,
        manifest::{FORMAT, FileEntry, Manifest, Provenance},
        nonce, write_whole,
    },
};

/// Folders of a running job. Dropped without [`Slot::commit`], the output vanishes and what the
/// job can resume from stays.
#[derive(Debug)]
pub struct Slot {
    store: Store,
    lock: Lock,
    out: PathBuf,
    work: PathBuf,
}

impl Slot {
    pub(super) fn new(store: &Store, lock: Lock) -> Result<Self> {
        let tmp = store.root.join("tmp");
        // We hold the lock, so whatever carries this job's name is a dead attempt's.
        for entry in fs::read_dir(&tmp).at(&tmp)? {
            let path = entry.at(&tmp)?.path();
            let ours = path.file_name().and_then(|name| name.to_str());
            if ours.is_some_and(|name| name.starts_with(lock.id().as_str())) {
                fs::remove_dir_all(&path).at(&path)?;
            }
        }
        let out = tmp.join(format!("{}.{}", lock.id(), nonce()));
        let work = store.root.join("work").join(lock.id().as_str());
        fs::create_dir_all(&out).at(&out)?;
        fs::create_dir_all(&work).at(&work)?;
        Ok(Self { store: store.clone(), lock, out, work })
    }

    /// Where the job writes its results.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Where the job keeps what it can resume from.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Removes what an attempt has written so far, to begin another one.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn clear(&self) -> Result<()> {
        fs::remove_dir_all(&self.out).at(&self.out)?;
        fs::create_dir_all(&self.out).at(&self.out)
    }

    /// Makes the output an artifact: every file hashed and synced, the manifest written, then one
    /// rename. The work folder is removed.
    ///
    /// # Errors
    /// If the system refuses anything; then there is no artifact.
    pub fn commit(self, stage: &str, provenance: Provenance) -> Result<Artifact> {
        let mut files = Vec::new();
        collect(&self.out, "", &mut files)?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let id = self.lock.id().clone();
        let manifest = Manifest { format: FORMAT, id, stage: stage.to_owned(), files, provenance };
        let text = serde_json::to_string_pretty(&manifest).expect("manifests are JSON");
        write_whole(&self.out, &self.out.join(MANIFEST), text.as_bytes())?;
        sync_folder(&self.out)?;
        let folder = self.store.artifact(self.lock.id());
        fs::rename(&self.out, &folder).at(&folder)?;
        sync_folder(&self.store.root.join("artifacts"))?;
        fs::remove_dir_all(&self.work).at(&self.work)?;
        Ok(Artifact { folder, manifest })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // After a commit the folder is gone already; otherwise nobody may mistake it for a result.
        let _ = fs::remove_dir_all(&self.out);
    }
}

/// Hashes and syncs every file below `folder`.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<FileEntry>) -> Result<()> {
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}/{name}") };
        if path.is_dir() {
            collect(&path, &name, files)?;
            sync_folder(&path)?;
            continue;
        }
        File::open(&path).and_then(|file| file.sync_all()).at(&path)?;
        let bytes = fs::metadata(&path).at(&path)?.len();
        files.push(FileEntry { name, bytes, blake3: hash_file(&path)? });
    }
    Ok(())
}

/// A rename is durable only once the folder's own entry is.
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).at(folder)
}
