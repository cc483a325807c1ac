//! The published layout of generated sets: a stored `.npz` of `image` and `label`, written from
//! part files without holding a set in memory.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    error::{AtPath, Error, Result},
    formats::{array::Dtype, npy, write_atomically},
};

/// A file of images that are done.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Raw bytes `[count,h,w,3]`.
    pub(super) path: PathBuf,
    /// Index of the first image.
    pub(super) start: u64,
    /// How many images.
    pub(super) count: u64,
}

/// Writes a part, whole or not at all.
pub(super) fn write_part(part: &Part, bytes: &[u8]) -> Result<()> {
    write_atomically(&part.path, |file| file.write_all(bytes))
}

/// Joins `parts` to `image` `[n,h,w,3]` bytes, beside `label` `[n]` int64, in the `.npz` at `path`.
pub(super) fn write_npz(
    path: &Path,
    parts: &[Part],
    labels: &[i64],
    (height, width): (usize, usize),
) -> Result<()> {
    let bytes = |part: &Part| part.count * (height * width * 3) as u64;
    for part in parts {
        if part.path.metadata().at(&part.path)?.len() != bytes(part) {
            return Err(Error::in_file(
                &part.path,
                format!("is not {} bytes long: delete it and run again", bytes(part)),
            ));
        }
    }
    write_atomically(path, |file| {
        let mut archive = ZipWriter::new(file);
        let start = |archive: &mut ZipWriter<&mut BufWriter<&File>>, name, size: u64| {
            // A fixed date and no compression: equal sets have equal bytes and can be mapped.
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .last_modified_time(zip::DateTime::default())
                .unix_permissions(0o644)
                .with_alignment(64)
                .large_file(size > 0xf000_0000);
            archive.start_file::<&str, ()>(name, options).map_err(io::Error::other)
        };
        let shape = [labels.len(), height, width, 3];
        start(&mut archive, "image.npy", parts.iter().map(bytes).sum())?;
        archive.write_all(&npy::header(Dtype::U8, &shape))?;
        for part in parts {
            io::copy(&mut File::open(&part.path)?.take(bytes(part)), &mut archive)?;
        }
        start(&mut archive, "label.npy", labels.len() as u64 * 8)?;
        archive.write_all(&npy::header(Dtype::I64, &shape[..1]))?;
        for label in labels {
            archive.write_all(&label.to_le_bytes())?;
        }
        archive.finish().map_err(io::Error::other).map(|_| ())
    })
}
