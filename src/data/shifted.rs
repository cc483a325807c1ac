//! Further test images for CIFAR-10 classifiers, as their authors publish them in `.npy` files:
//! CIFAR-10.1 (new photographs) and CIFAR-10-C, CIFAR-100-C (corrupted test images).
//!
//! Source: Recht et al. 2018 (`cifar10.1_v6_data.npy`), Hendrycks and Dietterich 2019
//! (`CIFAR-10-C/fog.npy`: five severities, one after the other).

use std::path::{Path, PathBuf};

use crate::{
    data::{Dataset, Layout, Pixels},
    error::{Error, Result},
    formats::{array::Array, array::Dtype, in_file, npy, shelf::Shelf},
};

/// The classes of CIFAR-10, whose names these files do not carry.
const CIFAR10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Which files, and which part of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The folder that the archive unpacks to; the files may also lie beside each other.
    pub folder: &'static str,
    /// The images.
    pub images: String,
    /// Their labels.
    pub labels: &'static str,
    /// Which of the five severities, from 1; `None` is the whole file.
    pub severity: Option<usize>,
    /// How many classes there are.
    pub classes: usize,
}

/// What `cifar10.1`, `cifar10-c/fog/3` and `cifar100-c/fog/3` stand for; `None` for other names.
///
/// # Errors
/// If a corruption is named, but not as `cifar10-c/NAME/SEVERITY`.
pub fn spec(name: &str) -> Result<Option<Spec>> {
    if name == "cifar10.1" {
        return Ok(Some(Spec {
            folder: "cifar10.1",
            images: "cifar10.1_v6_data.npy".to_owned(),
            labels: "cifar10.1_v6_labels.npy",
            severity: None,
            classes: 10,
        }));
    }
    let (set, rest) = name.split_once('/').unwrap_or((name, ""));
    let Some((folder, classes)) = corrupted(set) else { return Ok(None) };
    let plain = |word: &str| word.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    match rest.split_once('/').map(|(word, level)| (word, level.parse())) {
        Some((word, Ok(severity @ 1..=5))) if plain(word) && !word.is_empty() => Ok(Some(Spec {
            folder,
            images: format!("{word}.npy"),
            labels: "labels.npy",
            severity: Some(severity),
            classes,
        })),
        _ => Err(Error::input(format!(
            "`{name}`: expected a corruption and a severity from 1 to 5, like `{set}/fog/3`"
        ))),
    }
}

/// The folder of the set of corrupted images called `name`, and how many classes it has.
fn corrupted(name: &str) -> Option<(&'static str, usize)> {
    match name {
        "cifar10-c" => Some(("CIFAR-10-C", 10)),
        "cifar100-c" => Some(("CIFAR-100-C", 100)),
        _ => None,
    }
}

/// The corruptions of a whole set.
pub const CORRUPTIONS: [&str; 19] = [
    "brightness",
    "contrast",
    "defocus_blur",
    "elastic_transform",
    "fog",
    "frost",
    "gaussian_blur",
    "gaussian_noise",
    "glass_blur",
    "impulse_noise",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "saturate",
    "shot_noise",
    "snow",
    "spatter",
    "speckle_noise",
    "zoom_blur",
];

/// Where in `folders` the set of corrupted images called `name` lies, and which of
/// [`CORRUPTIONS`] it has there (or why that cannot be said); `None` for other sets, and if it is
/// not here.
pub fn corruptions(
    name: &str,
    folders: &[PathBuf],
) -> Option<(PathBuf, Result<Vec<&'static str>>)> {
    let (folder, classes) = corrupted(name)?;
    let any = |corruption: &&str| {
        let spec = spec(&format!("{name}/{corruption}/1")).ok().flatten()?;
        // Under no name of its own a folder may be the other set's.
        locate(&spec, folders).filter(|place| {
            let named = |path: &Path| path.file_name().is_some_and(|name| name == folder);
            place.is_file() || named(place) || has_classes(place, classes)
        })
    };
    let place = CORRUPTIONS.iter().find_map(any)?;
    let held = Shelf::open(&place).and_then(|shelf| {
        let holds = |stem: &str| {
            let file = format!("{stem}.npy");
            shelf.holds(&file) || shelf.holds(&format!("{folder}/{file}"))
        };
        if !holds("labels") {
            return Err(Error::in_file(&place, "holds no labels.npy"));
        }
        Ok(CORRUPTIONS.into_iter().filter(|corruption| holds(corruption)).collect())
    });
    Some((place, held))
}

/// Whether the labels in `folder` are those of a set with `classes` classes: 10 or 100.
fn has_classes(folder: &Path, classes: usize) -> bool {
    let labels = Shelf::open(folder).and_then(|shelf| array(&shelf, "labels.npy")?.to_i64());
    labels.is_ok_and(|labels| labels.iter().any(|&label| label >= 10) == (classes > 10))
}

/// The first of `folders` that has the files, itself or in the archive's own folder; else the
/// archive.
pub fn locate(spec: &Spec, folders: &[PathBuf]) -> Option<PathBuf> {
    let unpacked = folders
        .iter()
        .flat_map(|folder| {
            let own = [folder.join(spec.folder), folder.clone()];
            // A clone of CIFAR-10.1's repository keeps them deeper.
            own.into_iter().chain(
                (spec.classes == 10 && spec.severity.is_none())
                    .then(|| folder.join("CIFAR-10.1/datasets")),
            )
        })
        .find(|folder| folder.join(&spec.images).is_file());
    let archive = || {
        let mut paths = folders.iter().map(|folder| folder.join(format!("{}.tar", spec.folder)));
        paths.find(|path| path.is_file())
    };
    unpacked.or_else(archive)
}

/// Reads the images from the folder or archive at `place`, mapped.
///
/// # Errors
/// If a file is missing or bad, or the labels do not fit.
pub fn read(name: &str, spec: &Spec, place: &Path) -> Result<Dataset> {
    let shelf = Shelf::open(place)?;
    let inside = format!("{}/{}", spec.folder, spec.images);
    let top = if shelf.holds(&inside) { format!("{}/", spec.folder) } else { String::new() };
    let (image_path, label_path) = (
        shelf.place(&format!("{top}{}", spec.images)),
        shelf.place(&format!("{top}{}", spec.labels)),
    );
    let images = array(&shelf, &format!("{top}{}", spec.images))?;
    let (&[all, height, width, 3], Dtype::U8) = (images.shape(), images.dtype()) else {
        let (dtype, shape) = (images.dtype().name(), images.shape());
        return Err(Error::in_file(
            &image_path,
            format!("is {dtype} {shape:?}, expected uint8 [n, height, width, 3]"),
        ));
    };
    let labels = in_file(&label_path, array(&shelf, &format!("{top}{}", spec.labels))?.to_i64())?;
    // CIFAR-10-C repeats the labels for every severity; some copies have them once.
    let count = if spec.severity.is_some() { all / 5 } else { all };
    let skip = spec.severity.map_or(0, |severity| (severity - 1) * count);
    let labels =
        if labels.len() == all { labels.get(skip..skip + count) } else { Some(&labels[..]) };
    let labels: Option<Vec<u16>> = labels
        .filter(|labels| labels.len() == count)
        .and_then(|labels| labels.iter().map(|&label| u16::try_from(label).ok()).collect());
    let fits = |labels: &Vec<u16>| labels.iter().all(|&label| usize::from(label) < spec.classes);
    let Some(labels) = labels.filter(fits) else {
        return Err(Error::in_file(
            &label_path,
            format!("expected {all} labels below {} for {}", spec.classes, spec.images),
        ));
    };
    let image = 3 * height * width;
    let window = images.data().window(skip * image, count * image).expect("a part of the whole");
    let classes = match spec.classes {
        10 => CIFAR10.map(str::to_owned).to_vec(),
        many => (0..many).map(|class| class.to_string()).collect(),
    };
    let (name, pixels) = (name.to_owned(), Pixels::Mapped(window));
    Ok(Dataset {
        name,
        classes,
        size: (height, width),
        layout: Layout::Hwc,
        pixels,
        labels,
        soft: None,
    })
}

fn array(shelf: &Shelf, name: &str) -> Result<Array> {
    let bytes = shelf.read(name)?;
    in_file(&shelf.place(name), npy::parse(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_severity_is_a_fifth_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let pixels: Vec<u8> = (0..10u8).flat_map(|image| vec![image; 12]).collect();
        let images = [npy::header(Dtype::U8, &[10, 2, 2, 3]), pixels].concat();
        let labels = |count: i64| {
            let bytes = (0..count).flat_map(|label| (label % 10).to_le_bytes()).collect();
            [npy::header(Dtype::I64, &[count as usize]), bytes].concat()
        };
        std::fs::write(folder.path().join("fog.npy"), images).unwrap();
        std::fs::write(folder.path().join("labels.npy"), labels(10)).unwrap();
        let wanted = spec("cifar10-c/fog/3").unwrap().unwrap();
        let place = locate(&wanted, &[folder.path().to_owned()]).unwrap();
        let set = read("cifar10-c/fog/3", &wanted, &place).unwrap();
        assert_eq!((set.image(0)[0], set.image(1)[0], set.len()), (4, 5, 2));
        assert_eq!((set.labels.as_slice(), set.classes[4].as_str()), (&[4, 5][..], "deer"));
        std::fs::write(folder.path().join("labels.npy"), labels(2)).unwrap();
        assert_eq!(read("", &wanted, &place).unwrap().labels, [0, 1]);
        std::fs::write(folder.path().join("labels.npy"), labels(3)).unwrap();
        assert!(read("", &wanted, &place).unwrap_err().to_string().contains("expected 10 labels"));
        for bad in
            ["cifar10-c", "cifar10-c/fog", "cifar10-c/fog/6", "cifar10-c/../3", "cifar10-c//3"]
        {
            assert!(spec(bad).is_err(), "{bad}");
        }
        assert_eq!(spec("cifar10").unwrap(), None);
    }
}
