//! Generated sets: `.npz` files with `image` uint8 `[n,h,w,3]` and `label` int64 `[n]`, as
//! published ones have them; one file or a folder of parts. Stored (not deflated) files are mapped
//! and never loaded whole.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    data::{
        Dataset, Layout, Parts, Pixels,
        cache::{Cache, Stamp},
    },
    error::{AtPath, Error, Result},
    formats::{
        archive::Archive,
        array::{Array, Dtype},
        bytes::Bytes,
        in_file, npy,
    },
};

/// Smaller sets are soon in memory whole, whichever way they are read.
const READ_AHEAD: usize = 64 << 20;
/// Compressed arrays up to this size are unpacked into memory.
const IN_MEMORY: u64 = 256 << 20;

/// Reads a generated set: one file, or a folder of parts, which follow each other in the order of
/// their names (numbers in them count as numbers). `classes` are the names of the classes it was
/// made for.
///
/// # Errors
/// If a file is bad, parts do not fit each other, or a label is not below the number of classes.
pub fn read(path: &Path, name: &str, classes: &[String]) -> Result<Dataset> {
    read_files(&files(&[path.to_owned()])?, name, Some(classes))
}

/// Reads a set whose classes have no names: they are called by their numbers.
///
/// # Errors
/// If a file is bad.
pub fn read_unnamed(path: &Path) -> Result<Dataset> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    read_files(&files(&[path.to_owned()])?, &name, None)
}

/// Reads a set that lies in `files`, one after the other. Without names, classes are called by
/// their numbers.
///
/// # Errors
/// As [`read`].
pub fn read_files(files: &[PathBuf], name: &str, classes: Option<&[String]>) -> Result<Dataset> {
    let (mut windows, mut labels, mut size) = (Vec::new(), Vec::new(), None);
    let most = classes.map_or(usize::from(u16::MAX), <[String]>::len);
    for file in files {
        let (found, window, own) = part(file)?;
        if *size.get_or_insert(found) != found {
            let (first, expected) = (files[0].display(), size.unwrap_or_default());
            return Err(Error::in_file(
                file,
                format!(
                    "its images are {found:?} pixels (height, width), those of {first} {expected:?}"
                ),
            ));
        }
        checked(file, name, most, &own, &mut labels)?;
        own.data().let_go();
        if !own.is_empty() {
            windows.push(window);
        }
    }
    let Some(size) = size.filter(|_| !windows.is_empty()) else {
        let path = files.first().map_or(Path::new(name), PathBuf::as_path);
        return Err(Error::in_file(path, "holds no images"));
    };
    let pixels = match windows.as_slice() {
        [only] => Pixels::Mapped(only.clone()),
        _ => Pixels::Parts(Parts::new(windows)),
    };
    let numbered = || {
        let most = labels.iter().max().copied().unwrap_or(0);
        (0..=most).map(|class| class.to_string()).collect()
    };
    let classes = classes.map_or_else(numbered, <[String]>::to_vec);
    Ok(Dataset { name: name.to_owned(), classes, size, layout: Layout::Hwc, pixels, labels })
}

/// The files of a set: of `paths`, folders stand for the `.npz` files in them.
///
/// # Errors
/// As [`part_files`].
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(part_files(path)?);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Appends the labels of one part.
fn checked(
    path: &Path,
    name: &str,
    classes: usize,
    found: &Array,
    labels: &mut Vec<u16>,
) -> Result<()> {
    labels.reserve(found.len());
    each(found, &mut |index, label| match u16::try_from(label) {
        Ok(label) if usize::from(label) < classes => {
            labels.push(label);
            Ok(())
        }
        _ if classes == usize::from(u16::MAX) => Err(Error::input(format!(
            "label {label} of image {index}; expected a class's number from 0"
        ))),
        _ => Err(Error::input(format!(
            "label {label} of image {index}, but `{name}` has {classes} classes"
        ))),
    })
    .or_else(|error| in_file(path, Err(error)))
}

/// Hands out the labels one by one: 50 million take no room beside the file.
fn each(labels: &Array, take: &mut dyn FnMut(usize, i64) -> Result<()>) -> Result<()> {
    if labels.dtype() == Dtype::I64 {
        let words = labels.bytes().as_chunks::<8>().0.iter();
        return words
            .enumerate()
            .try_for_each(|(index, word)| take(index, i64::from_le_bytes(*word)));
    }
    let labels = labels.to_i64()?;
    labels.into_iter().enumerate().try_for_each(|(index, label)| take(index, label))
}

/// The `.npz` files of `folder` in the order of their names.
///
/// # Errors
/// If the folder cannot be read or holds none.
pub fn part_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        if path.extension().is_some_and(|ending| ending == "npz") && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::in_file(folder, "holds no .npz files"));
    }
    files.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
    Ok(files)
}

/// Words and numbers of a name, so that `part-10` comes after `part-9`.
fn natural(name: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let words = rest[digits..].bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        let number = rest[..digits].parse().unwrap_or(if digits == 0 { 0 } else { u64::MAX });
        parts.push((number, rest[digits..digits + words].to_owned()));
        rest = &rest[digits + words..];
    }
    parts
}

/// Size, pixels and labels.
type Part = ((usize, usize), Bytes, Array);

fn part(path: &Path) -> Result<Part> {
    let archive = in_file(path, Bytes::map(path).and_then(Archive::open))?;
    let image = array(path, &archive, "image")?;
    let label = array(path, &archive, "label")?;
    let (&[count, height, width, 3], Dtype::U8) = (image.shape(), image.dtype()) else {
        return Err(Error::in_file(
            path,
            format!(
                "`image` is {} {:?}, expected uint8 [n, height, width, 3]",
                image.dtype().name(),
                image.shape()
            ),
        ));
    };
    if label.shape() != [count] {
        let shape = label.shape();
        return Err(Error::in_file(path, format!("`label` is {shape:?}, expected [{count}]")));
    }
    let pixels = image.data().clone();
    if pixels.len() > READ_AHEAD {
        pixels.expect_random();
    }
    Ok(((height, width), pixels, label))
}

/// The array called `name`: mapped if it is stored, in memory if it is deflated and small, else
/// unpacked once into the cache and mapped there.
fn array(path: &Path, archive: &Archive, name: &str) -> Result<Array> {
    let Some(entry) = archive.entry(&format!("{name}.npy")) else {
        let names: Vec<_> = archive.entries().iter().map(|entry| entry.name.as_str()).collect();
        return Err(Error::in_file(path, format!("no array `{name}`; it has {names:?}")));
    };
    let bytes = if entry.stored || entry.size <= IN_MEMORY {
        in_file(path, archive.read(entry))?
    } else {
        let Some(cache) = Cache::usual() else {
            return Err(Error::in_file(
                path,
                format!(
                    "`{name}` is compressed and unpacks to {} bytes, for which there is no place: \
                     set GAUNTLET_CACHE to a folder, or save the set with numpy.savez",
                    entry.size
                ),
            ));
        };
        let stamp = Stamp::of(&format!("npz {name}"), &[path.to_owned()])?;
        cache.unpacked(&stamp, entry.size, |file| archive.unpack(entry, file))?
    };
    let array = npy::parse(&bytes);
    in_file(path, array.map_err(|error| Error::input(format!("`{name}`: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{spec::Split, synthetic},
        formats::npz,
    };

    #[test]
    fn written_sets_read_as_the_same_images() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.npz");
        let drawn = synthetic::draw(Split::Train, 0, 20, 16);
        let mut pixels = Vec::new();
        for index in 0..drawn.len() {
            for position in 0..256 {
                pixels.extend([0, 1, 2].map(|c| drawn.image(index)[c * 256 + position]));
            }
        }
        let labels: Vec<i64> = drawn.labels.iter().map(|&label| i64::from(label)).collect();
        npz::write_images(&path, (16, 16), &pixels, &labels).unwrap();
        let read_back = read(&path, "synthetic", &drawn.classes).unwrap();
        assert_eq!(read_back.fingerprint(), drawn.fingerprint());
        let few = read(&path, "few", &drawn.classes[..5]).unwrap_err().to_string();
        assert!(few.contains("label 5 of image 5") && few.contains("5 classes"), "{few}");
        assert_eq!(read_unnamed(&path).unwrap().classes.len(), 10);
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn published_layout_reads_stored_and_deflated() {
        let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED");
        let folder = Path::new(&shared).join("data/npz");
        let stored = read_unnamed(&folder.join("500.npz")).unwrap();
        let deflated = read_unnamed(&folder.join("500-compressed.npz")).unwrap();
        assert_eq!((stored.len(), stored.size, stored.classes.len()), (500, (32, 32), 10));
        assert!(stored.labels.is_sorted());
        assert_eq!(stored.fingerprint(), deflated.fingerprint());
    }
}
