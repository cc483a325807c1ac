//! Generated sets: `.npz` files with `image` uint8 `[n,h,w,3]` and `label` int64 `[n]`, as
//! published ones have them. Stored (not deflated) files are mapped and never loaded whole.

use std::path::Path;

use crate::{
    data::{Dataset, Layout, Pixels},
    error::{Error, Result},
    formats::{array::Dtype, npz},
};

/// Reads one part of a generated set. `classes` are the names of the classes it was made for.
///
/// # Errors
/// If the file is bad, or a label is not below the number of classes.
pub fn read(path: &Path, name: &str, classes: &[String]) -> Result<Dataset> {
    let (size, pixels, labels) = parts(path)?;
    let labels = labels
        .into_iter()
        .enumerate()
        .map(|(index, label)| match u16::try_from(label) {
            Ok(label) if usize::from(label) < classes.len() => Ok(label),
            _ => Err(Error::in_file(
                path,
                format!(
                    "label {label} of image {index}, but `{name}` has {} classes",
                    classes.len()
                ),
            )),
        })
        .collect::<Result<_>>()?;
    let (name, classes) = (name.to_owned(), classes.to_vec());
    Ok(Dataset { name, classes, size, layout: Layout::Hwc, pixels, labels })
}

/// Reads an `.npz` set whose classes have no names: they are called by their numbers.
///
/// # Errors
/// If the file is bad.
pub fn read_unnamed(path: &Path) -> Result<Dataset> {
    let (_, _, labels) = parts(path)?;
    let most = labels.iter().copied().max().unwrap_or(0).clamp(0, i64::from(u16::MAX));
    let classes: Vec<String> = (0..=most).map(|class| class.to_string()).collect();
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    read(path, &name, &classes)
}

/// Size, pixels and labels.
type Parts = ((usize, usize), Pixels, Vec<i64>);

fn parts(path: &Path) -> Result<Parts> {
    let arrays = npz::read(path)?;
    let find = |name: &str| {
        arrays.iter().find(|(found, _)| found == name).map(|(_, array)| array).ok_or_else(|| {
            let names: Vec<_> = arrays.iter().map(|(name, _)| name.as_str()).collect();
            Error::in_file(path, format!("no array `{name}`; it has {names:?}"))
        })
    };
    let (image, label) = (find("image")?, find("label")?);
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
    let labels =
        label.to_i64().map_err(|error| Error::in_file(path, format!("`label`: {error}")))?;
    Ok(((height, width), Pixels::Mapped(image.data().clone()), labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{spec::Split, synthetic};

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
