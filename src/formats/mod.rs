//! Foreign files as inert bytes: numpy arrays, Python pickles, torch checkpoints, EDM networks,
//! safetensors, zip archives. Nothing here runs code of a file, trusts a length it states, or
//! holds a tensor; a bad file gives an error that says what is wrong and where.

pub mod archive;
pub mod array;
pub mod bytes;
pub mod edm;
pub mod jpeg;
pub mod mat;
pub mod names;
mod ndarray;
pub mod npy;
pub mod npz;
pub mod objects;
pub mod opcodes;
pub mod pickle;
mod reader;
pub mod safetensors;
pub mod shelf;
pub mod torch;
pub mod tree;

use std::{fs::File, io, path::Path};

use crate::error::{AtPath, Error, Result};

/// Prefixes an [`Error::Input`] with the file that it is about; other errors name it already.
///
/// # Errors
/// The given failure, with `path`.
pub fn in_file<T>(path: &Path, result: Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        Error::Input(message) => Error::in_file(path, message),
        other => other,
    })
}

/// Writes the file `path` through `fill` so that no reader ever sees half of it: beside, synced
/// to disk, then renamed.
///
/// # Errors
/// If anything cannot be written; `path` is then as it was.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut io::BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        // The process's umask applies, as for any file that a program creates.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .at(folder)?;
    {
        let mut writer = io::BufWriter::with_capacity(1 << 20, beside.as_file());
        fill(&mut writer).and_then(|()| writer.flush()).at(path)?;
    }
    beside.as_file().sync_all().at(path)?;
    beside.persist(path).map_err(|error| error.error).at(path)?;
    File::open(folder).and_then(|folder| folder.sync_all()).at(folder)
}

#[cfg(test)]
mod forge;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod real;
