//! Looking after a store: failures, who runs what, what may go.

use std::{collections::HashSet, fs, path::Path, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    digest::JobId,
    error::{AtPath, Error, Result},
    store::{Lock, Store, manifest::host, write_whole},
};

/// Why a job's last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The whole message.
    pub message: String,
    /// The machine.
    pub host: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// What [`Store::sweep`] removes or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sweep {
    /// Artifacts that no kept suite needs.
    pub artifacts: Vec<JobId>,
    /// Outputs of attempts that died.
    pub leftovers: usize,
    /// States of interrupted jobs that no kept suite has.
    pub work: usize,
    /// Bytes of all of it.
    pub bytes: u64,
}

impl Store {
    /// Notes why an attempt at the job failed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn blame(&self, id: &JobId, message: &str) -> Result<()> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at = since.map_or(0, |since| since.as_secs());
        let failed = Failed { message: message.to_owned(), host: host(), at };
        let text = serde_json::to_string_pretty(&failed).map_err(Error::input)?;
        let folder = self.root.join("failures");
        fs::create_dir_all(&folder).at(&folder)?;
        write_whole(&self.root.join("tmp"), &folder.join(id.as_str()), text.as_bytes())
    }

    /// Forgets why an earlier attempt failed.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn forgive(&self, id: &JobId) -> Result<()> {
        let path = self.root.join("failures").join(id.as_str());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(&path),
            _ => Ok(()),
        }
    }

    /// Why the job's last attempt failed, if it did.
    pub fn failure(&self, id: &JobId) -> Option<Failed> {
        let text = fs::read_to_string(self.root.join("failures").join(id.as_str())).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Who runs the job now, if anybody does.
    pub fn running(&self, id: &JobId) -> Option<String> {
        Lock::holder(&self.root.join("locks").join(id.as_str()))
    }

    /// The one job, done or not, whose id begins with `start`.
    ///
    /// # Errors
    /// If there is none or more than one.
    pub fn find(&self, start: &str) -> Result<JobId> {
        let mut found: HashSet<JobId> = HashSet::new();
        for folder in ["artifacts", "jobs", "logs"] {
            let Ok(entries) = fs::read_dir(self.root.join(folder)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let stem = name.split('.').next().unwrap_or_default();
                if !start.is_empty() && stem.starts_with(start) {
                    found.extend(stem.parse::<JobId>());
                }
            }
        }
        let mut found: Vec<JobId> = found.into_iter().collect();
        found.sort_unstable();
        match found.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(Error::in_file(
                &self.root,
                format!(
                    "knows no job `{start}`: `gauntlet status` and `gauntlet store ls` list ids"
                ),
            )),
            several => Err(Error::input(format!(
                "`{start}` begins the ids of {} jobs, such as {} and {}: give more digits",
                several.len(),
                several[0],
                several[1]
            ))),
        }
    }

    /// Removes (or with `rehearse` only counts) everything that jobs outside `keep` left: artifacts,
    /// states of interrupted attempts, and outputs of dead ones. Jobs that run now are left alone.
    ///
    /// # Errors
    /// If the store cannot be read or something cannot be removed.
    pub fn sweep(&self, keep: &HashSet<JobId>, rehearse: bool) -> Result<Sweep> {
        let mut sweep = Sweep::default();
        for id in self.ids()? {
            if keep.contains(&id) {
                continue;
            }
            let Some(lock) = self.try_lock(&id)? else { continue };
            sweep.bytes += bytes_below(&self.artifact(&id));
            if !rehearse {
                self.discard(&lock)?;
                let _ = fs::remove_file(self.record_path(&id));
            }
            sweep.artifacts.push(id);
        }
        sweep.leftovers = self.clear("tmp", &HashSet::new(), rehearse, &mut sweep.bytes)?;
        sweep.work = self.clear("work", keep, rehearse, &mut sweep.bytes)?;
        Ok(sweep)
    }

    /// Removes the entries of `folder` that belong to jobs outside `keep` which nobody runs.
    fn clear(
        &self,
        folder: &str,
        keep: &HashSet<JobId>,
        rehearse: bool,
        bytes: &mut u64,
    ) -> Result<usize> {
        let folder = self.root.join(folder);
        let Ok(entries) = fs::read_dir(&folder) else { return Ok(0) };
        let mut count = 0;
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let Ok(id) = name.split('.').next().unwrap_or_default().parse::<JobId>() else {
                continue;
            };
            if keep.contains(&id) {
                continue;
            }
            let Some(_lock) = self.try_lock(&id)? else { continue };
            *bytes += bytes_below(&path);
            count += 1;
            if !rehearse {
                fs::remove_dir_all(&path).at(&path)?;
            }
        }
        Ok(count)
    }
}

/// Bytes of all files below `path`.
fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return fs::metadata(path).map_or(0, |data| data.len());
    };
    entries.flatten().map(|entry| bytes_below(&entry.path())).sum()
}
