//! One runner for each job, across processes and machines.
//!
//! On one machine the kernel holds the lock (`flock`), so a dead owner frees it at once. Shared
//! file systems pass such locks on at best, so the owner also rewrites its name every few seconds:
//! a lock that another machine wrote to lately is taken, whatever the kernel here says; one that
//! it has not touched for [`LEASE`] is a dead machine's.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, SystemTime},
};

use crate::{
    digest::JobId,
    error::{AtPath, Result},
    store::manifest::host,
};

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(10);
/// Silence after which another machine's lock is void.
const LEASE: Duration = Duration::from_secs(90);

/// The right to run one job; freed when dropped.
#[derive(Debug)]
pub struct Lock {
    id: JobId,
    file: File,
    /// Dropped to end the beats.
    beats: Option<Sender<()>>,
    /// Stands for the kernel's lock where the file system has none.
    token: Option<PathBuf>,
}

impl Lock {
    /// The job.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    pub(super) fn acquire(path: &Path, id: &JobId) -> Result<Option<Self>> {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = open.at(path)?;
        let token = match file.try_lock() {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(_)) => match take_token(path)? {
                Some(token) => Some(token),
                None => return Ok(None),
            },
        };
        if held_elsewhere(path)? {
            return Ok(None);
        }
        let owner = format!("process {} on {}\n", std::process::id(), host());
        file.set_len(0).at(path)?;
        file.write_all_at(owner.as_bytes(), 0).at(path)?;
        let beats = beat(file.try_clone().at(path)?, owner);
        Ok(Some(Self { id: id.clone(), file, beats: Some(beats), token }))
    }

    /// Who holds the lock, as that process wrote it: for messages.
    pub fn owner(path: &Path) -> String {
        let text = read(path);
        if text.trim().is_empty() { "another process".to_owned() } else { text.trim().to_owned() }
    }

    /// Who holds the lock now, if anybody does.
    pub(super) fn holder(path: &Path) -> Option<String> {
        let text = read(path);
        let owner = text.trim();
        if owner.is_empty() {
            return None;
        }
        let here = File::open(path).ok()?;
        // A shared lock for the blink of an eye; who tries meanwhile tries again.
        let locked = matches!(here.try_lock_shared(), Err(TryLockError::WouldBlock));
        (locked || held_elsewhere(path).unwrap_or(false)).then(|| owner.to_owned())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.beats = None;
        let _ = self.file.set_len(0);
        // The beating thread's copy of the file would keep the lock until it ends.
        let _ = self.file.unlock();
        if let Some(token) = &self.token {
            let _ = fs::remove_file(token);
        }
    }
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    let _ = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    text
}

/// Whether another machine gave a sign of life lately.
fn held_elsewhere(path: &Path) -> Result<bool> {
    let text = read(path);
    let Some((_, owner)) = text.trim().rsplit_once(" on ") else { return Ok(false) };
    if owner == host() {
        return Ok(false);
    }
    Ok(age(path)? < LEASE)
}

/// How long ago the file was written to, by the clock of the file system that holds it.
fn age(path: &Path) -> Result<Duration> {
    let probe = path.with_extension(format!("now.{}", super::nonce()));
    let mut file = File::create(&probe).at(&probe)?;
    let now = file.write_all(b".").and_then(|()| file.metadata()?.modified()).at(&probe);
    let _ = fs::remove_file(&probe);
    let written: SystemTime = fs::metadata(path).and_then(|data| data.modified()).at(path)?;
    Ok(now?.duration_since(written).unwrap_or_default())
}

/// The token beside `path`, unless somebody living has it.
fn take_token(path: &Path) -> Result<Option<PathBuf>> {
    let token = path.with_extension("token");
    if token.exists() && age(path)? >= LEASE {
        // Two who find it void at once: only one of the renames succeeds.
        let void = path.with_extension(format!("void.{}", super::nonce()));
        if fs::rename(&token, &void).is_ok() {
            let _ = fs::remove_file(&void);
        }
    }
    Ok(File::create_new(&token).is_ok().then_some(token))
}

/// Rewrites `owner` until the sender is dropped.
fn beat(file: File, owner: String) -> Sender<()> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        while receiver.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
            let _ = file.write_all_at(owner.as_bytes(), 0);
        }
    });
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_another_machine_holds_while_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let id = JobId::of(&serde_json::json!("x"));
        let path = folder.path().join(id.as_str());
        fs::write(&path, "process 7 on somewhere-else\n").unwrap();
        assert!(Lock::acquire(&path, &id).unwrap().is_none(), "it gave a sign of life just now");
        assert!(Lock::holder(&path).unwrap().contains("somewhere-else"));
        let long_ago = SystemTime::now() - 2 * LEASE;
        File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        assert!(Lock::holder(&path).is_none());
        let lock = Lock::acquire(&path, &id).unwrap().expect("its machine is dead");
        assert!(Lock::holder(&path).unwrap().contains(&host()));
        drop(lock);
        assert!(Lock::holder(&path).is_none());
    }

    #[test]
    fn tokens_stand_in_for_missing_locks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(&path, "process 7 on somewhere-else\n").unwrap();
        let token = take_token(&path).unwrap().unwrap();
        assert!(take_token(&path).unwrap().is_none());
        let long_ago = SystemTime::now() - 2 * LEASE;
        File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(take_token(&path).unwrap(), Some(token));
    }
}
