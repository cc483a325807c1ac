//! TinyImageNet-200 in its original layout, as a folder or an archive: training images in class
//! folders, validation images in one folder with their labels in `val_annotations.txt` (the test
//! images have no labels).
//!
//! Classes are numbered by their sorted WordNet ids, as torchvision's `ImageFolder` and ImageNet
//! number them; `wnids.txt` has another order. Training images come by turns of the classes, sorted
//! by name in each; validation images in the order of `val_annotations.txt`.
//!
//! Source: <http://cs231n.stanford.edu/tiny-imagenet-200.zip>.

use std::collections::HashMap;

use crate::{
    data::{Dataset, folder, picture, spec::Split},
    error::{Error, Result},
    formats::shelf::Shelf,
};

/// The folder of the original archive.
pub const FOLDER: &str = "tiny-imagenet-200";
/// The labels of the validation images.
const ANNOTATIONS: &str = "val/val_annotations.txt";

/// Where in `shelf` the set begins: at the top or in the archive's folder. `None` if it is not it.
pub fn top(shelf: &Shelf) -> Option<String> {
    let marked = |top: &&str| {
        let at = |name: &str| join(top, name);
        shelf.holds(&at("wnids.txt")) || shelf.holds(&at(ANNOTATIONS))
    };
    ["", FOLDER].iter().find(|top| marked(top)).map(|top| (*top).to_owned())
}

fn join(top: &str, name: &str) -> String {
    if top.is_empty() { name.to_owned() } else { format!("{top}/{name}") }
}

/// The classes, and one half's pictures with their labels.
///
/// # Errors
/// If a part of the layout is missing or contradicts another.
pub fn list(shelf: &Shelf, top: &str, split: Split) -> Result<folder::Listing> {
    let classes = classes(shelf, top)?;
    let train = join(top, "train");
    match split {
        Split::Train => {
            let (found, files) = folder::list(shelf, &train)?;
            if found != classes {
                let odd = found.iter().find(|class| !classes.contains(class));
                let odd = odd.or_else(|| classes.iter().find(|class| !found.contains(class)));
                return Err(Error::in_file(
                    &shelf.place(&train),
                    format!(
                        "{} class folders, but wnids.txt names {} classes (`{}` is in one of them \
                         only)",
                        found.len(),
                        classes.len(),
                        odd.map_or("", String::as_str)
                    ),
                ));
            }
            Ok((classes, files))
        }
        Split::Test => {
            let files = annotated(shelf, top, &classes)?;
            Ok((classes, files))
        }
    }
}

/// Reads one half.
///
/// # Errors
/// As [`list`]; if an image is bad.
pub fn read(shelf: &Shelf, top: &str, split: Split) -> Result<Dataset> {
    let (classes, files) = list(shelf, top, split)?;
    let files = if split == Split::Train { folder::by_turns(&files) } else { files };
    picture::dataset(shelf, "tiny-imagenet", classes, &files)
}

fn text(shelf: &Shelf, name: &str) -> Result<String> {
    let bytes = shelf.read(name)?;
    let text = std::str::from_utf8(&bytes);
    Ok(text.map_err(|_| Error::in_file(&shelf.place(name), "is no text"))?.to_owned())
}

fn classes(shelf: &Shelf, top: &str) -> Result<Vec<String>> {
    let file = join(top, "wnids.txt");
    if !shelf.holds(&file) {
        return shelf.folders(&join(top, "train"));
    }
    let text = text(shelf, &file)?;
    let mut wnids: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    wnids.sort();
    if let Some([twin, ..]) = wnids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::in_file(&shelf.place(&file), format!("names `{twin}` twice")));
    }
    if wnids.is_empty() || wnids.len() > usize::from(u16::MAX) {
        return Err(Error::in_file(&shelf.place(&file), "names no classes, or too many"));
    }
    Ok(wnids)
}

/// The validation images: lines of file name, WordNet id and a box, separated by tabs. Some people
/// sort the images into class folders; then they are listed as the training images are.
fn annotated(shelf: &Shelf, top: &str, classes: &[String]) -> Result<Vec<(String, u16)>> {
    let file = join(top, ANNOTATIONS);
    let text = text(shelf, &file)?;
    let labels: HashMap<&str, u16> =
        classes.iter().enumerate().map(|(label, wnid)| (wnid.as_str(), label as u16)).collect();
    let images = join(top, "val/images");
    let mut files = Vec::new();
    for (line, content) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: String| {
            let place = shelf.place(&file);
            Err(Error::input(format!("{}:{}: {what}", place.display(), line + 1)))
        };
        let mut fields = content.split('\t');
        let (Some(name), Some(wnid)) = (fields.next(), fields.next()) else {
            return wrong("expected an image's name, a tab and its class".to_owned());
        };
        let Some(&label) = labels.get(wnid.trim()) else {
            return wrong(format!("class `{}` is not in wnids.txt", wnid.trim()));
        };
        let Some(path) = [
            join(&images, name),
            format!("{}/{wnid}/{name}", join(top, "val")),
            format!("{}/{wnid}/images/{name}", join(top, "val")),
        ]
        .into_iter()
        .find(|path| shelf.holds(path)) else {
            return wrong(format!("there is no image `{images}/{name}`"));
        };
        files.push((path, label));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn the_archive_reads_as_published() {
        let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED");
        let shelf = Shelf::open(&Path::new(&shared).join("data/tiny-imagenet-200.zip")).unwrap();
        let top = top(&shelf).unwrap();
        let (train, val) =
            (read(&shelf, &top, Split::Train).unwrap(), read(&shelf, &top, Split::Test).unwrap());
        assert_eq!((train.len(), val.len(), train.size), (2000, 1000, (64, 64)));
        assert_eq!((train.classes.len(), train.classes[0].as_str()), (200, "n01443537"));
        assert!(train.classes.is_sorted());
        // Classes take turns: any 200 images in a row hold each class once.
        assert!((0..2000).all(|index| usize::from(train.labels[index]) == index % 200));
        // val_0.JPEG is an n03444034.
        assert_eq!(val.classes[usize::from(val.labels[0])], "n03444034");
        let count = |label| val.labels.iter().filter(|&&found| found == label).count();
        assert!((0..200).all(|label| count(label) == 5));
        // Grey pictures have three equal channels.
        let grey = (0..train.len()).filter(|&index| {
            train.image(index).as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b)
        });
        assert!(grey.count() > 20);
    }

    #[test]
    fn contradictions_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(FOLDER).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let picture = fs::read("tests/pictures/grey.jpg").unwrap();
        put("wnids.txt", b"n2\nn1\n");
        put("train/n1/images/n1_0.JPEG", &picture);
        put("train/n1/n1_boxes.txt", b"n1_0.JPEG\t0\t0\t62\t62\n");
        let shelf = Shelf::open(folder.path()).unwrap();
        let top = top(&shelf).unwrap();
        let message = |split| read(&shelf, &top, split).unwrap_err().to_string();
        assert!(message(Split::Train).contains("`n2` is in one"), "{}", message(Split::Train));
        put("train/n2/images/n2_0.JPEG", &picture);
        assert_eq!(read(&shelf, &top, Split::Train).unwrap().labels, [0, 1]);
        put("val/val_annotations.txt", b"val_0.JPEG\tn2\t0\t0\t1\t1\nval_1.JPEG\tn3\t0\n");
        assert!(message(Split::Test).contains("val_annotations.txt:1: there is no image"));
        put("val/images/val_0.JPEG", &picture);
        assert!(message(Split::Test).contains("val_annotations.txt:2: class `n3`"));
        put("val/val_annotations.txt", b"val_0.JPEG\tn2\t0\t0\t1\t1\n");
        assert_eq!(read(&shelf, &top, Split::Test).unwrap().labels, [1]);
    }
}
