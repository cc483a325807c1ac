//! CIFAR-10 and CIFAR-100 as their author publishes them: the Python layout and the binary one.
//! Shorter batches than the published ones are fine; a missing batch is not.
//!
//! Source: <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::path::Path;

use crate::{
    data::{Dataset, Layout, Pixels, spec::Split},
    error::{Error, Result},
    formats::{
        array::Dtype,
        in_file, names,
        shelf::Shelf,
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
    /// A hundred fine classes.
    Hundred,
    /// The same images with their twenty coarse classes.
    Coarse,
}

impl Kind {
    /// `cifar10`, `cifar100` or `cifar100-coarse`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ten => "cifar10",
            Self::Hundred => "cifar100",
            Self::Coarse => "cifar100-coarse",
        }
    }

    fn classes(self) -> u16 {
        match self {
            Self::Ten => 10,
            Self::Hundred => 100,
            Self::Coarse => 20,
        }
    }

    /// The published archives: Python's, then the binary one.
    pub fn archives(self) -> [&'static str; 2] {
        match self {
            Self::Ten => ["cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"],
            Self::Hundred | Self::Coarse => ["cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"],
        }
    }

    /// The folder names of the published archives: Python's, then the binary one.
    pub fn folders(self) -> [&'static str; 2] {
        match self {
            Self::Ten => ["cifar-10-batches-py", "cifar-10-batches-bin"],
            Self::Hundred | Self::Coarse => ["cifar-100-python", "cifar-100-binary"],
        }
    }

    /// The files of one half, named as in Python's layout; the binary ones end in `.bin` besides.
    pub fn files(self, split: Split) -> Vec<String> {
        match (self, split) {
            (Self::Ten, Split::Train) => (1..=5).map(|n| format!("data_batch_{n}")).collect(),
            (Self::Ten, Split::Test) => vec!["test_batch".to_owned()],
            (_, Split::Train) => vec!["train".to_owned()],
            (_, Split::Test) => vec!["test".to_owned()],
        }
    }
}

/// The folder of `shelf` that holds the set, with whether in the binary layout; Python's comes first.
pub fn top(kind: Kind, shelf: &Shelf) -> Option<(String, bool)> {
    tops(kind, shelf).into_iter().next()
}

/// The folder of `shelf` that holds the set in the binary layout.
pub fn binary_top(kind: Kind, shelf: &Shelf) -> Option<(String, bool)> {
    tops(kind, shelf).into_iter().find(|(_, binary)| *binary)
}

fn tops(kind: Kind, shelf: &Shelf) -> Vec<(String, bool)> {
    let test = &kind.files(Split::Test)[0];
    let [python, binary] = kind.folders();
    let places = [(python, false), ("", false), (binary, true), ("", true)];
    let here = |(folder, binary): &(&str, bool)| {
        let name = if *binary { format!("{test}.bin") } else { test.clone() };
        shelf.holds(&join(folder, &name))
            // CIFAR-100's files are called `train` and `test`: a folder of that kind has this too.
            && (*binary || kind == Kind::Ten || shelf.holds(&join(folder, "meta")))
    };
    let found = places.into_iter().filter(here);
    found.map(|(folder, binary)| (folder.to_owned(), binary)).collect()
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Reads one half of the set from the folder `top` of `shelf`, in file order.
///
/// # Errors
/// If a file is missing or bad; the message names it.
pub fn read(
    kind: Kind,
    shelf: &Shelf,
    (top, binary): &(String, bool),
    split: Split,
) -> Result<Dataset> {
    let classes =
        if *binary { binary_classes(kind, shelf, top) } else { python_classes(kind, shelf, top) }?;
    let mut parts = Vec::new();
    for name in kind.files(split) {
        let name = join(top, &name);
        parts.push(if *binary {
            binary_batch(kind, shelf, &format!("{name}.bin"))?
        } else {
            python_batch(kind, shelf, &name)?
        });
    }
    let labels: Vec<u16> = parts.iter().flat_map(|(_, labels)| labels.iter().copied()).collect();
    let pixels = match parts.as_slice() {
        [(Pixels::Mapped(bytes), _)] => Pixels::Mapped(bytes.clone()),
        _ => Pixels::Owned(parts.iter().flat_map(|(pixels, _)| pixels.runs().concat()).collect()),
    };
    if labels.is_empty() {
        let first = kind.files(split).swap_remove(0);
        return Err(Error::in_file(&shelf.place(&join(top, &first)), "holds no images"));
    }
    let name = kind.name().to_owned();
    Ok(Dataset { name, classes, size: (32, 32), layout: Layout::Chw, pixels, labels, soft: None })
}

/// The pickle called `name`, which may hold numpy arrays and nothing else of note.
fn pickle(shelf: &Shelf, name: &str) -> Result<Tree> {
    let bytes = shelf.read(name)?;
    in_file(&shelf.place(name), tree::pickled(&bytes, &[names::NUMPY]))
}

fn python_classes(kind: Kind, shelf: &Shelf, top: &str) -> Result<Vec<String>> {
    let (file, key) = match kind {
        Kind::Ten => ("batches.meta", "label_names"),
        Kind::Hundred => ("meta", "fine_label_names"),
        Kind::Coarse => ("meta", "coarse_label_names"),
    };
    let name = join(top, file);
    let tree = pickle(shelf, &name)?;
    let names = match tree.get(key) {
        Some(Tree::List(names)) => {
            names.iter().map(|name| name.text().map(str::to_owned)).collect::<Option<Vec<_>>>()
        }
        _ => None,
    };
    let count = usize::from(kind.classes());
    names.filter(|names| names.len() == count).ok_or_else(|| {
        let message = format!("expected the {count} class names as a list called `{key}`");
        Error::in_file(&shelf.place(&name), message)
    })
}

fn python_batch(kind: Kind, shelf: &Shelf, name: &str) -> Result<(Pixels, Vec<u16>)> {
    let key = match kind {
        Kind::Ten => "labels",
        Kind::Hundred => "fine_labels",
        Kind::Coarse => "coarse_labels",
    };
    let (path, tree) = (&shelf.place(name), pickle(shelf, name)?);
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

fn binary_classes(kind: Kind, shelf: &Shelf, top: &str) -> Result<Vec<String>> {
    let file = match kind {
        Kind::Ten => "batches.meta.txt",
        Kind::Hundred => "fine_label_names.txt",
        Kind::Coarse => "coarse_label_names.txt",
    };
    let name = join(top, file);
    let bytes = shelf.read(&name)?;
    let text = String::from_utf8_lossy(&bytes);
    let names: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.len() != usize::from(kind.classes()) {
        let message = format!("names {} classes; expected {}", names.len(), kind.classes());
        return Err(Error::in_file(&shelf.place(&name), message));
    }
    Ok(names)
}

/// Records of one label byte (CIFAR-100: the coarse one, then the fine one) and the pixels.
fn binary_batch(kind: Kind, shelf: &Shelf, name: &str) -> Result<(Pixels, Vec<u16>)> {
    let (path, bytes) = (&shelf.place(name), shelf.read(name)?);
    let label_bytes = if kind == Kind::Ten { 1 } else { 2 };
    let label_at = usize::from(kind == Kind::Hundred);
    let record = label_bytes + IMAGE;
    if bytes.len() % record != 0 {
        let whole = bytes.len() / record;
        return Err(Error::in_file(
            path,
            format!(
                "{} bytes are no multiple of {record}: it ends within image {whole}, at byte {}; is \
                 the file cut short?",
                bytes.len(),
                whole * record
            ),
        ));
    }
    let mut pixels = Vec::with_capacity(bytes.len());
    let mut labels = Vec::with_capacity(bytes.len() / record);
    for record in bytes.chunks_exact(record) {
        labels.push(i64::from(record[label_at]));
        pixels.extend_from_slice(&record[label_bytes..]);
    }
    Ok((Pixels::Owned(pixels), checked_labels(kind, path, labels)?))
}

fn checked_labels(kind: Kind, path: &Path, labels: Vec<i64>) -> Result<Vec<u16>> {
    let classes = kind.classes();
    let check = |(index, label): (usize, i64)| match u16::try_from(label) {
        Ok(label) if label < classes => Ok(label),
        _ => Err(Error::in_file(
            path,
            format!("label {label} of image {index}; expected 0 to {}", classes - 1),
        )),
    };
    labels.into_iter().enumerate().map(check).collect()
}

/// Where the set is looked for, for messages.
pub fn expected(kind: Kind) -> String {
    let ([python, binary], [archive, _]) = (kind.folders(), kind.archives());
    let file = &kind.files(Split::Test)[0];
    format!("`{archive}`, `{python}/{file}` or `{binary}`")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn half(kind: Kind, folder: &Path, split: Split) -> Result<Dataset> {
        let shelf = Shelf::open(folder)?;
        read(kind, &shelf, &top(kind, &shelf).expect("the set"), split)
    }

    fn shared() -> PathBuf {
        PathBuf::from(std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED")).join("data")
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn python_and_binary_layouts_hold_the_same_images() {
        let folder = shared().join("cifar10");
        let python = half(Kind::Ten, &folder.join("cifar-10-batches-py"), Split::Test).unwrap();
        let binary = half(Kind::Ten, &folder.join("cifar-10-batches-bin"), Split::Test).unwrap();
        assert_eq!(python.len(), 1017);
        assert_eq!(python.classes[3], "cat");
        assert_eq!(python.classes, binary.classes);
        assert_eq!(python.fingerprint(), binary.fingerprint());
        // The first test image of CIFAR-10 is a cat; its first bytes are known.
        assert_eq!(python.labels[..4], [3, 8, 8, 0]);
        assert_eq!(python.image(0)[..4], [158, 159, 165, 166]);
        let missing = half(Kind::Ten, &folder.join("cifar-10-batches-bin"), Split::Train);
        assert!(missing.unwrap_err().to_string().contains("data_batch_2.bin"));
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn training_batches_follow_each_other() {
        let python = shared().join("cifar10/cifar-10-batches-py");
        let train = half(Kind::Ten, &python, Split::Train).unwrap();
        assert_eq!(train.len(), 1102 + 1017 + 1017 + 1285 + 1017);
        let binary = Shelf::open(&shared().join("cifar10/cifar-10-batches-bin")).unwrap();
        let (pixels, labels) = binary_batch(Kind::Ten, &binary, "data_batch_1.bin").unwrap();
        assert_eq!(&train.labels[..labels.len()], labels);
        assert_eq!(train.image(1101), pixels.range(1101 * IMAGE, IMAGE));
        let hundred = shared().join("cifar100/cifar-100-python");
        let train = half(Kind::Hundred, &hundred, Split::Train).unwrap();
        let test = half(Kind::Hundred, &hundred, Split::Test).unwrap();
        assert_eq!((train.len(), test.len(), train.classes.len()), (1117, 916, 100));
        // The first training image of CIFAR-100 is cattle, one of the large herbivores.
        assert_eq!(train.classes[usize::from(train.labels[0])], "cattle");
        let coarse = half(Kind::Coarse, &hundred, Split::Train).unwrap();
        let first = &coarse.classes[usize::from(coarse.labels[0])];
        assert_eq!(first, "large_omnivores_and_herbivores");
        assert_eq!((coarse.classes.len(), coarse.image(1116)), (20, train.image(1116)));
    }

    #[test]
    fn bad_binary_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, shelf) = (folder.path().join("x.bin"), Shelf::open(folder.path()).unwrap());
        let bad = |bytes: Vec<u8>| {
            std::fs::write(&path, bytes).unwrap();
            binary_batch(Kind::Ten, &shelf, "x.bin").unwrap_err().to_string()
        };
        let message = bad(vec![0; 2 * IMAGE + 1]);
        assert!(message.contains("within image 1, at byte 3073"), "{message}");
        let message = bad(vec![10; IMAGE + 1]);
        assert!(message.contains("x.bin") && message.contains("label 10 of image 0"), "{message}");
    }
}
