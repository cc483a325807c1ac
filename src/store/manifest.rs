//! What an artifact holds and how it came to be.

use std::{fs, path::Path, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    digest::JobId,
    error::{AtPath, Error, Result},
};

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name, relative to the artifact.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// BLAKE3 of its content, 64 hexadecimal digits.
    pub blake3: String,
}

/// How a result was computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of gauntlet.
    pub gauntlet: String,
    /// Its commit, where it was built from a checkout.
    pub commit: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// Threads of libtorch.
    pub threads: u64,
    /// The machine.
    pub host: String,
    /// When it began, seconds since 1970.
    pub started: u64,
    /// How long the job ran, the attempts it resumed from not included.
    pub seconds: f64,
    /// Input artifacts by role.
    pub inputs: Vec<(String, JobId)>,
    /// The resolved spec, seeds included.
    pub spec: serde_json::Value,
    /// What the stage has to say about its result.
    pub summary: serde_json::Value,
}

impl Provenance {
    /// A provenance that knows this program and machine and begins now; the rest is to be filled.
    pub fn begin() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            gauntlet: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("GAUNTLET_COMMIT").to_owned(),
            libtorch: String::new(),
            device: String::new(),
            threads: 0,
            host: host(),
            started: since.map_or(0, |since| since.as_secs()),
            seconds: 0.0,
            inputs: Vec::new(),
            spec: serde_json::Value::Null,
            summary: serde_json::Value::Null,
        }
    }
}

/// The table of contents of an artifact. An artifact without one does not exist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Form of this file.
    pub format: u32,
    /// The job.
    pub id: JobId,
    /// `fit`, `generate`, `train`, `evaluate`, `import`.
    pub stage: String,
    /// Every file.
    pub files: Vec<FileEntry>,
    /// How it came to be.
    pub provenance: Provenance,
}

/// The form that this version writes.
pub(super) const FORMAT: u32 = 1;

impl Manifest {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).at(path)?;
        let manifest: Self = serde_json::from_str(&text)
            .map_err(|error| Error::in_file(path, format!("not a manifest: {error}")))?;
        if manifest.format == FORMAT {
            return Ok(manifest);
        }
        let message =
            format!("format {} of another gauntlet: this one reads {FORMAT}", manifest.format);
        Err(Error::in_file(path, message))
    }

    /// Compares the sizes of all files: cheap, and finds what crashes and full disks do.
    pub(super) fn check_sizes(&self, folder: &Path) -> Result<()> {
        for entry in &self.files {
            let path = folder.join(&entry.name);
            let bytes = fs::metadata(&path).at(&path)?.len();
            if bytes != entry.bytes {
                let message = format!("{bytes} bytes instead of the {} committed", entry.bytes);
                return Err(Error::in_file(&path, message));
            }
        }
        Ok(())
    }
}

/// The machine's name.
pub(super) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}
