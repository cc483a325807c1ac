//! The published layout of generated sets: a stored `.npz` of `image` and `label`, written from
//! part files without holding a set in memory.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::error::{AtPath, Error, Result};

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

/// Writes a part beside its place, then moves it there.
pub(super) fn write_part(part: &Part, bytes: &[u8]) -> Result<()> {
    let beside = part.path.with_extension("writing");
    fs::write(&beside, bytes).at(&beside)?;
    fs::rename(&beside, &part.path).at(&part.path)
}

/// Joins `parts` to `image` `[n,h,w,3]` bytes, beside `label` `[n]` int64, in the `.npz` at `path`.
pub(super) fn write_npz(
    path: &Path,
    parts: &[Part],
    labels: &[i64],
    (height, width): (u64, u64),
) -> Result<()> {
    let beside = path.with_extension("writing");
    let file = BufWriter::new(File::create(&beside).at(&beside)?);
    let mut archive = ZipWriter::new(file);
    // A fixed time and no compression: equal sets have equal bytes and can be mapped.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .large_file(true);
    let zipped = |error: zip::result::ZipError| Error::in_file(path, error);

    archive.start_file("image.npy", options).map_err(zipped)?;
    let shape = format!("{}, {height}, {width}, 3", labels.len());
    archive.write_all(&npy_header("|u1", &shape)).at(path)?;
    for part in parts {
        let expected = part.count * height * width * 3;
        let source = File::open(&part.path).at(&part.path)?;
        if source.metadata().at(&part.path)?.len() != expected {
            return Err(Error::in_file(
                &part.path,
                format!("is not {expected} bytes long: delete it and run again"),
            ));
        }
        io::copy(&mut source.take(expected), &mut archive).at(path)?;
    }
    archive.start_file("label.npy", options).map_err(zipped)?;
    archive.write_all(&npy_header("<i8", &format!("{},", labels.len()))).at(path)?;
    for label in labels {
        archive.write_all(&label.to_le_bytes()).at(path)?;
    }
    let mut file = archive.finish().map_err(zipped)?;
    file.flush().at(&beside)?;
    file.get_ref().sync_all().at(&beside)?;
    fs::rename(&beside, path).at(path)
}

/// The header of a `.npy` file, version 1.0, padded to 64 bytes.
fn npy_header(kind: &str, shape: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let padded = (10 + text.len() + 1).next_multiple_of(64);
    text.push_str(&" ".repeat(padded - 10 - text.len() - 1));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(u16::try_from(text.len()).expect("a short header").to_le_bytes());
    header.extend(text.bytes());
    header
}
