//! Named numpy arrays in a zip archive (`.npz`): the form of published generated sets.

use std::{fs::File, io, io::Write as _, path::Path};

use crate::{
    error::{Error, Result},
    formats::{
        archive::Archive,
        array::{Array, Dtype, byte_count},
        bytes::Bytes,
        in_file, npy, write_atomically,
    },
};

/// All arrays of the file at `path` with their names (without `.npy`). Stored ones stay mapped.
///
/// # Errors
/// If it is not a zip archive of numpy arrays.
pub fn read(path: &Path) -> Result<Vec<(String, Array)>> {
    let bytes = Bytes::map(path)?;
    in_file(path, Archive::open(bytes).and_then(|archive| arrays(&archive)))
}

/// All arrays of an open archive.
///
/// # Errors
/// If an entry is not a numpy array.
pub fn arrays(archive: &Archive) -> Result<Vec<(String, Array)>> {
    let read = |entry| {
        let entry: &crate::formats::archive::Entry = entry;
        let Some(name) = entry.name.strip_suffix(".npy") else {
            return Err(Error::input(format!(
                "zip entry `{}` is neither a numpy array nor part of a torch checkpoint",
                entry.name
            )));
        };
        let array = npy::parse(&archive.read(entry)?)
            .map_err(|error| Error::input(format!("entry `{}`: {error}", entry.name)))?;
        Ok((name.to_owned(), array))
    };
    archive.entries().iter().map(read).collect()
}

/// Writes images and labels as published generated sets have them: `image` uint8 `[n,h,w,3]`,
/// `label` int64 `[n]`, stored, so that readers can map them. Atomic.
///
/// # Errors
/// If `pixels` and `labels` do not agree, or the file cannot be written.
pub fn write_images(
    path: &Path,
    (height, width): (usize, usize),
    pixels: &[u8],
    labels: &[i64],
) -> Result<()> {
    let shape = [labels.len(), height, width, 3];
    if byte_count(Dtype::U8, &shape)? != pixels.len() {
        return Err(Error::in_file(
            path,
            format!("{} bytes are not {} images of {shape:?}", pixels.len(), labels.len()),
        ));
    }
    let label_bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    let entries = [
        ("image.npy", npy::header(Dtype::U8, &shape), pixels),
        ("label.npy", npy::header(Dtype::I64, &shape[..1]), &label_bytes),
    ];
    write_atomically(path, |file| write_stored(file, &entries))
}

/// Writes arrays of float64 by name and shape. Atomic.
///
/// # Errors
/// If shapes and values do not agree, or the file cannot be written.
pub fn write_reals(path: &Path, arrays: &[(&str, &[usize], &[f64])]) -> Result<()> {
    let mut entries = Vec::new();
    for (name, shape, values) in arrays {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if byte_count(Dtype::F64, shape)? != bytes.len() {
            let message = format!("{name}: {} numbers do not fill {shape:?}", values.len());
            return Err(Error::in_file(path, message));
        }
        entries.push((format!("{name}.npy"), npy::header(Dtype::F64, shape), bytes));
    }
    let entries: Vec<(&str, Vec<u8>, &[u8])> = entries
        .iter()
        .map(|(name, header, bytes)| (name.as_str(), header.clone(), bytes.as_slice()))
        .collect();
    write_atomically(path, |file| write_stored(file, &entries))
}

/// A zip archive of stored entries: each a name and its bytes in two parts.
fn write_stored(
    file: &mut io::BufWriter<&File>,
    entries: &[(&str, Vec<u8>, &[u8])],
) -> io::Result<()> {
    let mut archive = zip::ZipWriter::new(file);
    for (name, header, body) in entries {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            // A fixed date, so that equal content has equal bytes.
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(0o644)
            // numpy aligns nothing, but arrays that begin at a multiple of 64 map well.
            .with_alignment(64)
            .large_file(header.len() as u64 + body.len() as u64 > 0xf000_0000);
        archive.start_file(*name, options).map_err(io::Error::other)?;
        archive.write_all(header)?;
        archive.write_all(body)?;
    }
    archive.finish().map_err(io::Error::other)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_sets_come_back_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        let pixels: Vec<u8> = (0..2 * 4 * 4 * 3).map(|i| i as u8).collect();
        write_images(&path, (4, 4), &pixels, &[7, 2]).unwrap();
        let arrays = read(&path).unwrap();
        assert_eq!(arrays[0].0, "image");
        assert_eq!((arrays[0].1.shape(), arrays[0].1.bytes()), (&[2, 4, 4, 3][..], &pixels[..]));
        assert_eq!(arrays[0].1.bytes().as_ptr() as usize % 64, 0);
        assert!(arrays[0].1.data().is_mapped());
        assert_eq!(arrays[1].1.to_i64().unwrap(), [7, 2]);
        // Equal content, equal bytes; nothing else left in the folder.
        let first = std::fs::read(&path).unwrap();
        write_images(&path, (4, 4), &pixels, &[7, 2]).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_images(&path, (4, 4), &pixels, &[7]).is_err());
    }
}
