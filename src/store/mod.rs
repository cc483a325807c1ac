//! The store: a folder of committed artifacts, addressed by job id.
//!
//! ```text
//! artifacts/<id>/   files and manifest.json; appears by one rename, whole or not at all
//! jobs/<id>.json    what a job is, so that `exec` needs no suite
//! work/<id>/        what an interrupted job resumes from; gone once it is committed
//! tmp/              outputs being written; worthless after a crash
//! locks/<id>        held by whoever runs the job; the system frees it when the owner dies
//! logs/<id>.log     what the job printed
//! failures/<id>     why its last attempt failed
//! ```

mod archive;
mod lock;
mod manifest;
mod shelf;
mod slot;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    archive::Imported,
    lock::Lock,
    manifest::{FileEntry, Manifest, Provenance},
    shelf::{Failed, Sweep},
    slot::Slot,
};
use crate::{
    digest::{JobId, hash_file},
    error::{AtPath, Error, Result},
};

/// Name of the manifest inside an artifact.
const MANIFEST: &str = "manifest.json";

/// A folder of artifacts. Any number of processes may use it at once.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A committed result.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its folder.
    pub folder: PathBuf,
    /// What it holds and how it came to be.
    pub manifest: Manifest,
}

impl Artifact {
    /// The path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// What the store knows of a job.
#[derive(Debug)]
pub enum Lookup {
    /// Done.
    Hit(Box<Artifact>),
    /// Not done.
    Miss,
    /// An artifact is there but is not what was committed; the text says why.
    Damaged(String),
}

impl Store {
    /// The store in `root`, which need not exist: for looking only.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The store in `root`, created if need be.
    ///
    /// # Errors
    /// If a folder cannot be created.
    pub fn open(root: &Path) -> Result<Self> {
        for part in ["artifacts", "jobs", "work", "tmp", "locks", "logs"] {
            let folder = root.join(part);
            fs::create_dir_all(&folder).at(&folder)?;
        }
        Ok(Self::at(&root.canonicalize().at(root)?))
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn artifact(&self, id: &JobId) -> PathBuf {
        self.root.join("artifacts").join(id.as_str())
    }

    /// Where the job's output is logged.
    pub fn log(&self, id: &JobId) -> PathBuf {
        self.root.join("logs").join(format!("{id}.log"))
    }

    /// Whether the job is done, judged by its manifest and the sizes of its files.
    pub fn lookup(&self, id: &JobId) -> Lookup {
        let folder = self.artifact(id);
        if !folder.exists() {
            return Lookup::Miss;
        }
        match Manifest::read(&folder.join(MANIFEST)).and_then(|manifest| {
            manifest.check_sizes(&folder)?;
            Ok(manifest)
        }) {
            Ok(manifest) => Lookup::Hit(Box::new(Artifact { folder, manifest })),
            Err(error) => Lookup::Damaged(error.to_string()),
        }
    }

    /// Whether the job is done.
    pub fn has(&self, id: &JobId) -> bool {
        matches!(self.lookup(id), Lookup::Hit(_))
    }

    /// The artifact of a job that must be done.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn require(&self, id: &JobId) -> Result<Artifact> {
        match self.lookup(id) {
            Lookup::Hit(artifact) => Ok(*artifact),
            Lookup::Miss => Err(Error::in_file(
                &self.artifact(id),
                "this input is not in the store: run its job first (`gauntlet run` does)",
            )),
            Lookup::Damaged(why) => Err(Error::in_file(
                &self.artifact(id),
                format!("this input is damaged ({why}): `gauntlet run` computes it anew"),
            )),
        }
    }

    /// Reads every byte of an artifact and compares it with the manifest.
    ///
    /// # Errors
    /// If it is missing, or a file is missing, of another size, or of other content.
    pub fn verify(&self, id: &JobId) -> Result<()> {
        let artifact = self.require(id)?;
        for entry in &artifact.manifest.files {
            let path = artifact.file(&entry.name);
            let hash = hash_file(&path)?;
            if hash != entry.blake3 {
                let message = format!(
                    "content differs from the manifest (BLAKE3 {hash}, committed {}): remove {} \
                     and run again",
                    entry.blake3,
                    artifact.folder.display()
                );
                return Err(Error::in_file(&path, message));
            }
        }
        Ok(())
    }

    /// Ids of everything committed, sorted.
    ///
    /// # Errors
    /// If the folder cannot be read; a store that does not exist yet is empty.
    pub fn ids(&self) -> Result<Vec<JobId>> {
        let folder = self.root.join("artifacts");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut ids = Vec::new();
        for entry in fs::read_dir(&folder).at(&folder)? {
            let name = entry.at(&folder)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Moves a damaged artifact out of the way, so that the job can run again.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn discard(&self, lock: &Lock) -> Result<()> {
        let folder = self.artifact(lock.id());
        let aside = self.root.join("tmp").join(format!("{}.damaged.{}", lock.id(), nonce()));
        fs::rename(&folder, &aside).at(&folder)?;
        fs::remove_dir_all(&aside).at(&aside)
    }

    /// Takes the job's lock, or says at once that somebody else has it.
    ///
    /// # Errors
    /// If the lock file cannot be opened or locked for another reason.
    pub fn try_lock(&self, id: &JobId) -> Result<Option<Lock>> {
        Lock::acquire(&self.root.join("locks").join(id.as_str()), id)
    }

    /// Who holds the job's lock, for messages.
    pub fn lock_owner(&self, id: &JobId) -> String {
        Lock::owner(&self.root.join("locks").join(id.as_str()))
    }

    /// Folders for running the job whose lock is held: a new one for its output, and the one that
    /// it resumes from. Leftovers of crashed attempts at the output are removed.
    ///
    /// # Errors
    /// If a folder cannot be created.
    pub fn begin(&self, lock: Lock) -> Result<Slot> {
        Slot::new(self, lock)
    }

    /// Writes the record of a job, unless the same one is there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put_record(&self, id: &JobId, record: &impl Serialize) -> Result<()> {
        let path = self.record_path(id);
        let text = serde_json::to_string_pretty(record).map_err(Error::input)?;
        if fs::read_to_string(&path).is_ok_and(|before| before == text) {
            return Ok(());
        }
        write_whole(&self.root.join("tmp"), &path, text.as_bytes())
    }

    /// Reads the record of a job.
    ///
    /// # Errors
    /// If there is none, or it is not what this version writes.
    pub fn record<T: DeserializeOwned>(&self, id: &JobId) -> Result<T> {
        let path = self.record_path(id);
        if !path.exists() {
            let message = "no such job: `gauntlet plan SUITE --json` lists the ids of a suite's \
                           jobs, `gauntlet run` records them here";
            return Err(Error::in_file(&path, message));
        }
        let text = fs::read_to_string(&path).at(&path)?;
        serde_json::from_str(&text).map_err(|error| {
            Error::in_file(
                &path,
                format!("not a job record of this version ({error}): run the suite again"),
            )
        })
    }

    fn record_path(&self, id: &JobId) -> PathBuf {
        self.root.join("jobs").join(format!("{id}.json"))
    }
}

/// Writes a file beside its place, syncs and renames, so that readers see all of it or nothing.
fn write_whole(beside: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = beside.join(format!("file.{}", nonce()));
    let mut file = fs::File::create(&temporary).at(&temporary)?;
    file.write_all(bytes).at(&temporary)?;
    file.sync_all().at(&temporary)?;
    fs::rename(&temporary, path).at(path)
}

/// A name nobody else uses now: process, time and a counter.
fn nonce() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let time = time.map_or(0, |time| time.as_nanos());
    format!("{}.{time:x}.{count}", std::process::id())
}

#[cfg(test)]
mod tests;
