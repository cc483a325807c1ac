//! Image folders: one folder for each class (names sorted), PNG files inside (names sorted), all of
//! one size.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    data::{Dataset, Layout, Pixels},
    error::{AtPath, Error, Result},
};

/// Larger images than any set for this purpose has.
const WIDEST: u32 = 1024;

/// Whether `folder` has a folder for each class.
pub fn is_here(folder: &Path) -> bool {
    sorted(folder).is_ok_and(|paths| paths.iter().any(|path| path.is_dir()))
}

/// Reads all images under `folder`.
///
/// # Errors
/// If there is none, one cannot be read, or their sizes differ.
pub fn read(folder: &Path) -> Result<Dataset> {
    let class_folders: Vec<_> = sorted(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    let (mut pixels, mut labels, mut classes) = (Vec::new(), Vec::new(), Vec::new());
    let mut size = None;
    for class_folder in &class_folders {
        let label = u16::try_from(classes.len())
            .map_err(|_| Error::in_file(folder, "more than 65536 class folders"))?;
        classes.push(name_of(class_folder));
        for path in sorted(class_folder)? {
            let (found, bytes) = image_at(&path)?;
            if *size.get_or_insert(found) != found {
                let first = size.expect("just set");
                return Err(Error::in_file(
                    &path,
                    format!("is {found:?} pixels (height, width), the images before are {first:?}"),
                ));
            }
            pixels.extend(bytes);
            labels.push(label);
        }
    }
    let Some(size) = size else {
        return Err(Error::in_file(
            folder,
            "no images; expected a folder of PNG files for each class",
        ));
    };
    let (name, pixels) = (name_of(folder), Pixels::Owned(pixels));
    Ok(Dataset { name, classes, size, layout: Layout::Hwc, pixels, labels })
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The visible entries of `folder` by name.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        if !name_of(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// One image as height, width and RGB bytes.
fn image_at(path: &Path) -> Result<((usize, usize), Vec<u8>)> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    if extension != "png" {
        return Err(Error::in_file(
            path,
            "only PNG files can be read (JPEG decoders differ in their pixels); convert it",
        ));
    }
    let mut reader = image::ImageReader::open(path).at(path)?;
    reader.set_format(image::ImageFormat::Png);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(WIDEST);
    limits.max_image_height = Some(WIDEST);
    reader.limits(limits);
    let image = reader.decode().map_err(|error| Error::in_file(path, error))?.into_rgb8();
    Ok(((image.height() as usize, image.width() as usize), image.into_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_files_come_in_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for (class, file, value) in [("b", "1.png", 3), ("a", "2.png", 2), ("a", "1.png", 1)] {
            fs::create_dir_all(folder.path().join(class)).unwrap();
            let image = image::RgbImage::from_pixel(2, 3, image::Rgb([value, 0, 9]));
            image.save(folder.path().join(class).join(file)).unwrap();
        }
        let set = read(folder.path()).unwrap();
        assert_eq!((set.len(), set.size), (3, (3, 2)));
        assert_eq!(
            (set.classes.as_slice(), set.labels.as_slice()),
            (&["a".to_owned(), "b".into()][..], &[0, 0, 1][..])
        );
        assert_eq!([0, 1, 2].map(|index| set.image(index)[0]), [1, 2, 3]);
        fs::write(folder.path().join("b/2.png"), "no picture").unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("2.png"));
        fs::write(folder.path().join("b/2.jpg"), "").unwrap();
        assert!(read(&folder.path().join("a")).unwrap_err().to_string().contains("no images"));
    }
}
