//! Image folders, as torchvision's `ImageFolder` reads them: one folder for each class (names
//! sorted), JPEG or PNG files inside (sorted by folder and name), all of one size. The folder may
//! lie in an archive.
//!
//! Classes take turns: the first image of each class comes first, then the second of each. One class
//! after the other, as `ImageFolder` has them, would make the first images held out for validation,
//! or the first N of an evaluation, images of one class.

use crate::{
    data::{Dataset, order, picture, spec::Split},
    error::{Error, Result},
    formats::shelf::Shelf,
};

/// The folder of one half's class folders within `shelf`: `train`, or `test` or `val`, at the top
/// or in the only folder there; the top itself where neither half has a folder of its own.
///
/// # Errors
/// If the shelf cannot be read.
pub fn half(shelf: &Shelf, split: Split) -> Result<Option<String>> {
    let (halves, others): (&[&str], &[&str]) = match split {
        Split::Train => (&["train"], &["test", "val"]),
        Split::Test => (&["test", "val"], &["train"]),
    };
    let mut top = String::new();
    // Archives often hold one folder with everything in it.
    for _ in 0..2 {
        let folders = shelf.folders(&top)?;
        let at =
            |name: &str| if top.is_empty() { name.to_owned() } else { format!("{top}/{name}") };
        let has = |name: &&&str| folders.iter().any(|folder| folder == **name);
        if let Some(name) = halves.iter().find(has) {
            return Ok(Some(at(name)));
        }
        if others.iter().any(|name| has(&name)) {
            return Ok(None);
        }
        match folders.as_slice() {
            [only] => top = at(only),
            [] => return Ok(None),
            _ => return Ok(Some(top)),
        }
    }
    Ok(None)
}

/// Class names, and files with their labels.
pub type Listing = (Vec<String>, Vec<(String, u16)>);

/// The classes under `top`, and the pictures with their labels.
///
/// # Errors
/// If a class has none, or a folder cannot be read.
pub fn list(shelf: &Shelf, top: &str) -> Result<Listing> {
    let classes = shelf.folders(top)?;
    if classes.len() > usize::from(u16::MAX) {
        return Err(Error::in_file(&shelf.place(top), "more than 65535 class folders"));
    }
    let mut files = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let folder = if top.is_empty() { class.clone() } else { format!("{top}/{class}") };
        let before = files.len();
        let names = shelf.names(&folder)?.into_iter().filter(|name| picture::is_picture(name));
        files.extend(names.map(|name| (name, label as u16)));
        if files.len() == before {
            return Err(Error::in_file(
                &shelf.place(&folder),
                "no images; expected a folder of JPEG or PNG files for each class",
            ));
        }
    }
    if classes.is_empty() {
        return Err(Error::in_file(
            &shelf.place(top),
            "no class folders; expected a folder of JPEG or PNG files for each class",
        ));
    }
    Ok((classes, files))
}

/// The files of all classes by turns.
pub fn by_turns(files: &[(String, u16)]) -> Vec<(String, u16)> {
    let labels: Vec<u16> = files.iter().map(|(_, label)| *label).collect();
    order::turns(&labels).into_iter().map(|index| files[index as usize].clone()).collect()
}

/// Reads all images under `top`.
///
/// # Errors
/// If there is none, one cannot be read, or their sizes differ.
pub fn read(shelf: &Shelf, name: &str, top: &str) -> Result<Dataset> {
    let (classes, files) = list(shelf, top)?;
    picture::dataset(shelf, name, classes, &by_turns(&files))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn picture(value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::RgbImage::from_pixel(2, 3, image::Rgb([value, 0, 9]));
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    /// Five pictures of two classes in two halves, in a tar archive as people make them.
    fn tar(top: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, value) in [
            ("train/b/1.png", 4),
            ("train/a/10.png", 2),
            ("train/a/9.PNG", 3),
            ("train/a/deep/0.png", 5),
            ("test/a/1.png", 6),
            ("test/b/1.png", 7),
        ] {
            let bytes = picture(value);
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("{top}{name}"), &bytes[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn first_bytes(set: &Dataset) -> Vec<u8> {
        (0..set.len()).map(|index| set.image(index)[0]).collect()
    }

    #[test]
    fn classes_and_files_come_in_order_wherever_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("set.tar"), tar("")).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        std::io::Write::write_all(&mut xz, &tar("top/")).unwrap();
        fs::write(at("set.tar.xz"), xz.finish().unwrap()).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gz, &tar("./")).unwrap();
        fs::write(at("set.tgz"), gz.finish().unwrap()).unwrap();
        let mut zip = zip::ZipWriter::new(fs::File::create(at("set.zip")).unwrap());
        let mut unpacked = tar::Archive::new(fs::File::open(at("set.tar")).unwrap());
        unpacked.unpack(at("set")).unwrap();
        fs::write(at("set/train/a/notes.txt"), "not a picture").unwrap();
        fs::write(at("set/train/a/.hidden.png"), "not seen").unwrap();
        for name in Shelf::open(&at("set")).unwrap().names("").unwrap() {
            zip.start_file(&name, zip::write::SimpleFileOptions::default()).unwrap();
            std::io::Write::write_all(&mut zip, &fs::read(at("set").join(name)).unwrap()).unwrap();
        }
        zip.finish().unwrap();
        for name in ["set", "set.tar", "set.tar.xz", "set.tgz", "set.zip"] {
            let shelf = Shelf::open(&at(name)).unwrap();
            let top = half(&shelf, Split::Train).unwrap().unwrap();
            let set = read(&shelf, "set", &top).unwrap();
            assert_eq!((set.len(), set.size, set.classes.join(" ")), (4, (3, 2), "a b".into()));
            // By name, as Python sorts them, one class and the other by turns.
            assert_eq!((first_bytes(&set), &set.labels[..]), (vec![2, 4, 3, 5], &[0, 1, 0, 0][..]));
            let top = half(&shelf, Split::Test).unwrap().unwrap();
            assert_eq!(first_bytes(&read(&shelf, "set", &top).unwrap()), [6, 7]);
        }
    }

    #[test]
    fn bad_folders_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let message =
            || read(&Shelf::open(folder.path()).unwrap(), "set", "").unwrap_err().to_string();
        assert!(message().contains("no class folders"), "{}", message());
        fs::create_dir_all(at("a")).unwrap();
        assert!(message().contains("/a: no images"), "{}", message());
        for (name, bytes, part) in [
            ("a/1.png", picture(1), ""),
            ("a/2.png", b"no picture".to_vec(), "a/2.png: is neither"),
            ("a/2.png", picture(1)[..40].to_vec(), "a/2.png: PNG image"),
            ("a/2.webp", vec![], "a/2.webp: only JPEG and PNG"),
        ] {
            fs::write(at(name), bytes).unwrap();
            assert!(part.is_empty() || message().contains(part), "{}", message());
            if !part.is_empty() {
                fs::remove_file(at(name)).unwrap();
            }
        }
        let mut wide = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(3, 3).write_to(&mut wide, image::ImageFormat::Png).unwrap();
        fs::write(at("a/2.png"), wide.into_inner()).unwrap();
        assert!(
            message().contains("a/2.png: is 3x3 pixels, but `a/1.png` is 2x3"),
            "{}",
            message()
        );
        fs::remove_file(at("a/2.png")).unwrap();
        std::os::unix::fs::symlink("..", at("a/up")).unwrap();
        assert!(message().contains("circle"), "{}", message());
    }
}
