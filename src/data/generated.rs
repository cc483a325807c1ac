//! Generated sets: `.npz` files with `image` uint8 `[n,h,w,3]` and `label` int64 `[n]`, as
//! published ones have them, and maybe `soft` float32 `[n,k]`, how probable each class is; one file
//! or a folder of parts. Stored (not deflated) files are mapped
//! and never loaded whole.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    data::{
        Dataset, Layout, Parts, Pixels, Soft,
        cache::{Cache, Stamp},
        soft,
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
    let (mut rows, mut width) = (Vec::new(), None);
    let most = classes.map_or(usize::from(u16::MAX), <[String]>::len);
    for file in files {
        let Part { size: found, pixels: window, labels: own, soft } = part(file)?;
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
        let columns = soft.as_ref().map(|array| array.shape()[1]);
        if *width.get_or_insert(columns) != columns {
            let say = |width: Option<usize>| match width {
                Some(classes) => format!("soft labels over {classes} classes"),
                None => "no soft labels".to_owned(),
            };
            let (first, expected) = (files[0].display(), say(width.unwrap_or_default()));
            let found = say(columns);
            return Err(Error::in_file(file, format!("has {found}, {first} has {expected}")));
        }
        if !own.is_empty() {
            windows.push(window);
            rows.extend(soft.map(|array| array.data().clone()));
        }
    }
    let Some(size) = size.filter(|_| !windows.is_empty()) else {
        let path = files.first().map_or(Path::new(name), PathBuf::as_path);
        return Err(Error::in_file(path, "holds no images"));
    };
    let pixels = joined(windows);
    let width = width.flatten();
    if let (Some(width), Some(classes)) = (width, classes.filter(|own| Some(own.len()) != width)) {
        let message =
            format!("has soft labels over {width} classes, but `{name}` has {}", classes.len());
        return Err(Error::in_file(&files[0], message));
    }
    let numbered = || {
        let most = labels.iter().max().map_or(1, |&most| usize::from(most) + 1);
        (0..most.max(width.unwrap_or(0))).map(|class| class.to_string()).collect()
    };
    let classes = classes.map_or_else(numbered, <[String]>::to_vec);
    let soft = width.map(|width| Soft::new(width, joined(rows)));
    let (name, layout) = (name.to_owned(), Layout::Hwc);
    Ok(Dataset { name, classes, size, layout, pixels, labels, soft })
}

fn joined(windows: Vec<Bytes>) -> Pixels {
    match windows.as_slice() {
        [only] => Pixels::Mapped(only.clone()),
        _ => Pixels::Parts(Parts::new(windows)),
    }
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

/// What one file holds.
struct Part {
    size: (usize, usize),
    pixels: Bytes,
    /// `[n]`.
    labels: Array,
    /// `[n,k]` float32.
    soft: Option<Array>,
}

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
    let soft = match archive.entry("soft.npy") {
        Some(_) => Some(soft_labels(path, &archive, count)?),
        None => None,
    };
    Ok(Part { size: (height, width), pixels, labels: label, soft })
}

fn soft_labels(path: &Path, archive: &Archive, count: usize) -> Result<Array> {
    let soft = array(path, archive, "soft")?;
    let (&[rows, classes], Dtype::F32) = (soft.shape(), soft.dtype()) else {
        let (kind, shape) = (soft.dtype().name(), soft.shape());
        let message = format!("`soft` is {kind} {shape:?}, expected float32 [n, classes]");
        return Err(Error::in_file(path, message));
    };
    if rows != count || classes == 0 {
        let message = format!("`soft` is [{rows}, {classes}], expected [{count}, classes]");
        return Err(Error::in_file(path, message));
    }
    in_file(path, soft::check(soft.data(), classes))?;
    soft.data().let_go();
    Ok(soft)
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
    fn soft_labels_are_read_and_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.npz");
        let write = |soft: Option<(&[usize], &[f32])>| {
            let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let soft: Option<(Vec<u8>, Vec<u8>)> =
                soft.map(|(shape, values)| (npy::header(Dtype::F32, shape), floats(values)));
            let labels: Vec<u8> = [1i64, 0].iter().flat_map(|l| l.to_le_bytes()).collect();
            let image = (npy::header(Dtype::U8, &[2, 1, 1, 3]), vec![7u8; 6]);
            let label = (npy::header(Dtype::I64, &[2]), labels);
            let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
            let stored = zip::write::SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored);
            let entries = [("image", Some(image)), ("label", Some(label)), ("soft", soft)];
            for (name, (header, bytes)) in entries.into_iter().filter_map(|(n, e)| Some((n, e?))) {
                archive.start_file(format!("{name}.npy"), stored).unwrap();
                std::io::Write::write_all(&mut archive, &[header, bytes].concat()).unwrap();
            }
            archive.finish().unwrap();
        };
        let rows = [0.25, 0.5, 0.25, 1.0, 0.0, 0.0];
        write(None);
        let plain = read_unnamed(&path).unwrap();
        assert!(plain.soft.is_none() && plain.classes.len() == 2);
        write(Some((&[2, 3], &rows)));
        let set = read_unnamed(&path).unwrap();
        assert_eq!(set.classes.len(), 3);
        assert_ne!(set.fingerprint(), plain.fingerprint());
        assert_eq!(set.soft.unwrap().row(0).collect::<Vec<_>>(), rows[..3]);
        let names = ["a", "b"].map(str::to_owned);
        let refused = |soft: (&[usize], &[f32]), expected: &str| {
            write(Some(soft));
            let message = read(&path, "few", &names).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        refused((&[2, 3], &rows), "soft labels over 3 classes, but `few` has 2");
        refused((&[3, 2], &rows), "expected [2, classes]");
        refused((&[6], &rows), "expected float32 [n, classes]");
        refused((&[2, 2], &[0.5, 0.5, 0.5, 0.1]), "image 1 is no distribution");
        refused((&[2, 2], &[0.5, 0.5, f32::NAN, 1.0]), "image 1 is no distribution");
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
