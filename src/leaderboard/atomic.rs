//! Files that are whole or absent: written beside, flushed, renamed.

use std::{io::Write, path::Path};

use tempfile::NamedTempFile;

use crate::error::{AtPath, Error, Result};

/// Writes `bytes` to `path`, replacing what was there in one step.
///
/// # Errors
/// If the folder is missing or cannot be written to.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder).at(folder)?;
    file.write_all(bytes).at(path)?;
    file.as_file().sync_all().at(path)?;
    readable(file.as_file(), path)?;
    file.persist(path).map_err(|error| Error::Io { path: path.to_owned(), source: error.error })?;
    Ok(())
}

/// Temporary files are private to their owner; a report is for everybody who may see its folder.
#[cfg(unix)]
fn readable(file: &std::fs::File, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).at(path)
}

#[cfg(not(unix))]
fn readable(_: &std::fs::File, _: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write(&path, b"one, longer").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = folder.path().join("none/a.txt");
        assert!(write(&missing, b"x").unwrap_err().to_string().contains("none"));
    }
}
