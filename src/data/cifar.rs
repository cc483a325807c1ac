//! CIFAR-10 and CIFAR-100 as their author publishes them: the Python layout and the binary one.
//! Shorter batches than the published ones are fine; a missing batch is not.
//!
//! Source: <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::path::{Path, PathBuf};

use crate::{
    data::{Dataset, Layout, Pixels, spec::Split},
    error::{AtPath, Error, Result},
    formats::{
        array::Dtype,
        bytes::Bytes,
        in_file, names,
        tree::{self, Tree},
    },
};

/// Bytes of one image: 3 channels of 32x32.
const IMAGE: usize = 3 * 32 * 32;

/// Which of the two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ten classes.
    Ten,
    /// A hundred fine classes (their twenty coarse ones are not used).
    Hundred,
}

impl Kind {
    /// `cifar10` or `cifar100`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ten => "cifar10",
            Self::Hundred => "cifar100",
        }
    }

    /// The folder names of the published archives: Python's, then the binary one.
    pub fn folders(self) -> [&'static str; 2] {
        match self {
            Self::Ten => ["cifar-10-batches-py", "cifar-10-batches-bin"],
            Self::Hundred => ["cifar-100-python", "cifar-100-binary"],
        }
    }

    fn files(self, split: Split) -> Vec<String> {
        match (self, split) {
            (Self::Ten, Split::Train) => (1..=5).map(|n| format!("data_batch_{n}")).collect(),
            (Self::Ten, Split::Test) => vec!["test_batch".to_owned()],
            (Self::Hundred, Split::Train) => vec!["train".to_owned()],
            (Self::Hundred, Split::Test) => vec!["test".to_owned()],
        }
    }
}

/// Whether `folder` holds the set in either layout.
pub fn is_here(kind: Kind, folder: &Path) -> bool {
    let test = &kind.files(Split::Test)[0];
    folder.join(test).is_file() || folder.join(format!("{test}.bin")).is_file()
}

/// Reads one half of the set in `folder`, in file order.
///
/// # Errors
/// If a file is missing or bad; the message names it.
pub fn read(kind: Kind, folder: &Path, split: Split) -> Result<Dataset> {
    let binary = !folder.join(&kind.files(Split::Test)[0]).is_file();
    let classes = if binary { binary_classes(kind, folder) } else { python_classes(kind, folder) }?;
    let mut parts = Vec::new();
    for name in kind.files(split) {
        parts.push(if binary {
            binary_batch(kind, &folder.join(format!("{name}.bin")))?
        } else {
            python_batch(kind, &folder.join(name))?
        });
    }
    let labels: Vec<u16> = parts.iter().flat_map(|(_, labels)| labels.iter().copied()).collect();
    let pixels = match parts.as_slice() {
        [(Pixels::Mapped(bytes), _)] => Pixels::Mapped(bytes.clone()),
        _ => Pixels::Owned(parts.iter().flat_map(|(pixels, _)| pixels.bytes()).copied().collect()),
    };
    let name = kind.name().to_owned();
    Ok(Dataset { name, classes, size: (32, 32), layout: Layout::Chw, pixels, labels })
}

/// The pickle at `path`, which may hold numpy arrays and nothing else of note.
fn pickle(path: &Path) -> Result<Tree> {
    let bytes = Bytes::map(path)?;
    in_file(path, tree::pickled(&bytes, &[names::NUMPY]))
}

fn python_classes(kind: Kind, folder: &Path) -> Result<Vec<String>> {
    let (file, key) = match kind {
        Kind::Ten => ("batches.meta", "label_names"),
        Kind::Hundred => ("meta", "fine_label_names"),
    };
    let path = folder.join(file);
    let tree = pickle(&path)?;
    let names = match tree.get(key) {
        Some(Tree::List(names)) => {
            names.iter().map(|name| name.text().map(str::to_owned)).collect::<Option<Vec<_>>>()
        }
        _ => None,
    };
    names.filter(|names| !names.is_empty()).ok_or_else(|| {
        Error::in_file(&path, format!("expected the class names as a list called `{key}`"))
    })
}

fn python_batch(kind: Kind, path: &Path) -> Result<(Pixels, Vec<u16>)> {
    let key = match kind {
        Kind::Ten => "labels",
        Kind::Hundred => "fine_labels",
    };
    let tree = pickle(path)?;
    let Some(Tree::Tensor(data)) = tree.get("data") else {
        return Err(Error::in_file(path, "expected pixels as an array called `data`"));
    };
    let &[count, IMAGE] = data.shape() else {
        let shape = data.shape();
        return Err(Error::in_file(path, format!("`data` is {shape:?}, expected [n, {IMAGE}]")));
    };
    if data.dtype() != Dtype::U8 {
        let found = data.dtype().name();
        return Err(Error::in_file(path, format!("`data` is {found}, expected uint8")));
    }
    let labels: Option<Vec<i64>> = match tree.get(key) {
        Some(Tree::List(items)) => items
            .iter()
            .map(|item| match item {
                Tree::Int(label) => Some(*label),
                _ => None,
            })
            .collect(),
        Some(Tree::Tensor(array)) => array.to_i64().ok(),
        _ => None,
    };
    let Some(labels) = labels else {
        return Err(Error::in_file(path, format!("expected labels as integers called `{key}`")));
    };
    if labels.len() != count {
        let found = labels.len();
        return Err(Error::in_file(path, format!("{count} images but {found} labels")));
    }
    Ok((Pixels::Mapped(data.data().clone()), checked_labels(kind, path, labels)?))
}

fn binary_classes(kind: Kind, folder: &Path) -> Result<Vec<String>> {
    let path = folder.join(match kind {
        Kind::Ten => "batches.meta.txt",
        Kind::Hundred => "fine_label_names.txt",
    });
    let text = std::fs::read_to_string(&path).at(&path)?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Records of one label byte (CIFAR-100: the coarse one, then the fine one) and the pixels.
fn binary_batch(kind: Kind, path: &Path) -> Result<(Pixels, Vec<u16>)> {
    let bytes = Bytes::map(path)?;
    let label_bytes = if kind == Kind::Ten { 1 } else { 2 };
    let record = label_bytes + IMAGE;
    if bytes.len() % record != 0 {
        return Err(Error::in_file(
            path,
            format!("{} bytes are no multiple of {record}; is the file cut short?", bytes.len()),
        ));
    }
    let mut pixels = Vec::with_capacity(bytes.len());
    let mut labels = Vec::with_capacity(bytes.len() / record);
    for record in bytes.chunks_exact(record) {
        labels.push(i64::from(record[label_bytes - 1]));
        pixels.extend_from_slice(&record[label_bytes..]);
    }
    Ok((Pixels::Owned(pixels), checked_labels(kind, path, labels)?))
}

fn checked_labels(kind: Kind, path: &Path, labels: Vec<i64>) -> Result<Vec<u16>> {
    let classes = if kind == Kind::Ten { 10 } else { 100 };
    let check = |(index, label): (usize, i64)| match u16::try_from(label) {
        Ok(label) if label < classes => Ok(label),
        _ => Err(Error::in_file(
            path,
            format!("label {label} of image {index}; expected 0 to {}", classes - 1),
        )),
    };
    labels.into_iter().enumerate().map(check).collect()
}

/// Where [`read`] looks for one half, for messages.
pub fn expected(kind: Kind) -> String {
    let [python, binary] = kind.folders();
    let files = kind.files(Split::Test);
    let first: PathBuf = [python, &files[0]].iter().collect();
    let second: PathBuf = [binary, &format!("{}.bin", files[0])].iter().collect();
    format!("`{}` or `{}`", first.display(), second.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> PathBuf {
        PathBuf::from(std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED")).join("data")
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn python_and_binary_layouts_hold_the_same_images() {
        let folder = shared().join("cifar10");
        let python = read(Kind::Ten, &folder.join("cifar-10-batches-py"), Split::Test).unwrap();
        let binary = read(Kind::Ten, &folder.join("cifar-10-batches-bin"), Split::Test).unwrap();
        assert_eq!(python.len(), 1017);
        assert_eq!(python.classes[3], "cat");
        assert_eq!(python.classes, binary.classes);
        assert_eq!(python.fingerprint(), binary.fingerprint());
        // The first test image of CIFAR-10 is a cat; its first bytes are known.
        assert_eq!(python.labels[..4], [3, 8, 8, 0]);
        assert_eq!(python.image(0)[..4], [158, 159, 165, 166]);
        let missing = read(Kind::Ten, &folder.join("cifar-10-batches-bin"), Split::Train);
        assert!(missing.unwrap_err().to_string().contains("data_batch_2.bin"));
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn training_batches_follow_each_other() {
        let python = shared().join("cifar10/cifar-10-batches-py");
        let train = read(Kind::Ten, &python, Split::Train).unwrap();
        assert_eq!(train.len(), 1102 + 1017 + 1017 + 1285 + 1017);
        let binary = shared().join("cifar10/cifar-10-batches-bin/data_batch_1.bin");
        let (pixels, labels) = binary_batch(Kind::Ten, &binary).unwrap();
        assert_eq!(&train.labels[..labels.len()], labels);
        assert_eq!(train.image(1101), &pixels.bytes()[1101 * IMAGE..]);
        let hundred = shared().join("cifar100/cifar-100-python");
        let train = read(Kind::Hundred, &hundred, Split::Train).unwrap();
        let test = read(Kind::Hundred, &hundred, Split::Test).unwrap();
        assert_eq!((train.len(), test.len(), train.classes.len()), (1117, 916, 100));
        // The first training image of CIFAR-100 is cattle.
        assert_eq!(train.classes[usize::from(train.labels[0])], "cattle");
    }

    #[test]
    fn bad_binary_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test_batch.bin");
        std::fs::write(&path, vec![0; IMAGE]).unwrap();
        assert!(binary_batch(Kind::Ten, &path).unwrap_err().to_string().contains("cut short"));
        std::fs::write(&path, vec![10; IMAGE + 1]).unwrap();
        let message = binary_batch(Kind::Ten, &path).unwrap_err().to_string();
        assert!(message.contains("label 10 of image 0"), "{message}");
    }
}
