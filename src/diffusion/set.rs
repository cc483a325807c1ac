//! The published layout of generated sets: a stored `.npz` of `image` and `label` (and what more
//! there is to say about each image), written without holding a set in memory.

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

/// One number for each image.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    /// Stored as int64.
    Whole(Vec<i64>),
    /// Stored as float32.
    Real(Vec<f32>),
}

/// An array's name and its numbers.
pub(super) type Column = (&'static str, Values);

/// An array `[count,width]` of float32.
pub(super) struct Table<'a> {
    pub(super) name: &'static str,
    pub(super) width: usize,
    /// The little-endian bytes of one row.
    pub(super) row: &'a dyn Fn(usize) -> &'a [u8],
}

/// Writes `image` `[count,h,w,3]` bytes, as `fill` gives them, beside `columns` (`label` among
/// them) and maybe a table into the `.npz` at `path`.
pub(super) fn write_npz(
    path: &Path,
    (count, height, width): (usize, usize, usize),
    columns: &[Column],
    table: Option<Table<'_>>,
    fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    write_atomically(path, |file| {
        let mut archive = ZipWriter::new(file);
        let shape = [count, height, width, 3];
        start(&mut archive, "image", shape.iter().product(), &npy::header(Dtype::U8, &shape))?;
        fill(&mut archive)?;
        for (name, values) in columns {
            let whole = matches!(values, Values::Whole(_));
            let dtype = if whole { Dtype::I64 } else { Dtype::F32 };
            let size = count * dtype.size();
            start(&mut archive, name, size, &npy::header(dtype, &shape[..1]))?;
            match values {
                Values::Whole(values) => {
                    values.iter().try_for_each(|value| archive.write_all(&value.to_le_bytes()))?;
                }
                Values::Real(values) => {
                    values.iter().try_for_each(|value| archive.write_all(&value.to_le_bytes()))?;
                }
            }
        }
        if let Some(Table { name, width, row }) = table {
            let shape = [count, width];
            let size = count * width * Dtype::F32.size();
            start(&mut archive, name, size, &npy::header(Dtype::F32, &shape))?;
            (0..count).try_for_each(|index| archive.write_all(row(index)))?;
        }
        archive.finish().map_err(io::Error::other).map(|_| ())
    })
}

fn start(
    archive: &mut ZipWriter<&mut BufWriter<&File>>,
    name: &str,
    size: usize,
    header: &[u8],
) -> io::Result<()> {
    // A fixed date and no compression: equal sets have equal bytes and can be mapped.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644)
        .with_alignment(64)
        .large_file(size > 0xf000_0000);
    archive.start_file::<_, ()>(format!("{name}.npy"), options).map_err(io::Error::other)?;
    archive.write_all(header)
}

/// The bytes of `parts`, one after the other; their lengths are compared first.
pub(super) fn join(
    path: &Path,
    parts: &[Part],
    (height, width): (usize, usize),
    columns: &[Column],
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
    let count: u64 = parts.iter().map(|part| part.count).sum();
    write_npz(path, (count as usize, height, width), columns, None, &mut |archive| {
        for part in parts {
            io::copy(&mut File::open(&part.path)?.take(bytes(part)), archive)?;
        }
        Ok(())
    })
}
