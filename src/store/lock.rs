//! One runner for each job, across processes. The kernel holds the lock, so a dead owner frees it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use crate::{
    digest::JobId,
    error::{AtPath, Result},
};

/// The right to run one job; freed when dropped.
#[derive(Debug)]
pub struct Lock {
    id: JobId,
    _file: File,
}

impl Lock {
    /// The job.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    pub(super) fn acquire(path: &Path, id: &JobId) -> Result<Option<Self>> {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.at(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).at(path),
        }
        // For people who look into the file; nothing depends on it.
        let owner = format!("process {} on {}\n", std::process::id(), super::manifest::host());
        file.set_len(0).at(path)?;
        file.rewind().at(path)?;
        file.write_all(owner.as_bytes()).at(path)?;
        Ok(Some(Self { id: id.clone(), _file: file }))
    }

    /// Who holds the lock, as that process wrote it: for messages.
    pub fn owner(path: &Path) -> String {
        let mut text = String::new();
        let _ = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
        if text.trim().is_empty() { "another process".to_owned() } else { text.trim().to_owned() }
    }
}
