//! Any file of arrays as one nested tree: what `gauntlet inspect` prints and networks load from.

use std::{path::Path, sync::Arc};

use crate::{
    error::{Error, Result},
    formats::{
        archive::Archive, array::Array, bytes::Bytes, in_file, names, npy, npz, objects, opcodes,
        safetensors, torch,
    },
};

/// A value of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A real number.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Bytes that are not text.
    Bytes(Bytes),
    /// A list, a tuple or a set.
    List(Vec<Tree>),
    /// Values by name, in file order.
    Map(Vec<(String, Tree)>),
    /// An object of a Python class, as its state.
    Object {
        /// The class, by its full name where the file gives one.
        class: String,
        /// The fields of its state.
        fields: Vec<(String, Tree)>,
    },
    /// An array.
    Tensor(Array),
}

impl Tree {
    /// The value called `name` in a map or an object; of equal names the last one counts.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) | Self::Object { fields, .. } => {
                fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The array, if it is one.
    pub fn tensor(&self) -> Option<&Array> {
        match self {
            Self::Tensor(array) => Some(array),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a real number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Object { .. } => "an object",
            Self::Tensor(_) => "an array",
        }
    }
}

/// What kind of file a tree came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A checkpoint as torch has written it since 1.6: a zip archive.
    TorchZip,
    /// A checkpoint as torch wrote it before.
    TorchLegacy,
    /// A TorchScript program. Its code is not looked at; the tree is its module's state.
    TorchScript,
    /// A bare pickle: CIFAR batches, EDM networks.
    Pickle,
    /// One numpy array.
    Npy,
    /// Named numpy arrays.
    Npz,
    /// A safetensors file.
    Safetensors,
}

impl Format {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TorchZip => "torch checkpoint",
            Self::TorchLegacy => "torch checkpoint (legacy format)",
            Self::TorchScript => "TorchScript program",
            Self::Pickle => "Python pickle",
            Self::Npy => "numpy array",
            Self::Npz => "numpy archive",
            Self::Safetensors => "safetensors",
        }
    }
}

/// A file that was read.
#[derive(Debug, Clone)]
pub struct Document {
    /// What kind of file it is.
    pub format: Format,
    /// What it holds.
    pub tree: Tree,
    /// Strings kept beside the content (safetensors), sorted by key.
    pub metadata: Vec<(String, String)>,
}

/// Reads the file at `path`, whatever known format its content shows.
///
/// # Errors
/// If it cannot be read, is of no known format, or is bad; the message names the file.
pub fn read(path: &Path) -> Result<Document> {
    let bytes = Bytes::map(path)?;
    in_file(path, parse(&bytes))
}

/// [`read`] for bytes at hand.
///
/// # Errors
/// If they are of no known format, or bad.
pub fn parse(bytes: &Bytes) -> Result<Document> {
    let plain = |format, tree| Document { format, tree, metadata: Vec::new() };
    if bytes.is_empty() {
        return Err(Error::input("the file is empty"));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        let archive = Archive::open(bytes.clone())?;
        let holds = |end: &str| archive.entries().iter().any(|entry| entry.name.ends_with(end));
        if holds("/constants.pkl") {
            for entry in archive.entries().iter().filter(|entry| entry.stored) {
                archive.read_sound(entry)?;
            }
            // libtorch loads it anyway: what we cannot list is no reason to refuse it.
            let tree = torch::read_script(&archive).unwrap_or_else(|_| listing(&archive));
            return Ok(plain(Format::TorchScript, tree));
        }
        if holds("data.pkl") {
            return Ok(plain(Format::TorchZip, torch::read_archive(&archive)?));
        }
        for entry in archive.entries().iter().filter(|entry| entry.stored) {
            archive.read_sound(entry)?;
        }
        let arrays = npz::arrays(&archive)?;
        let fields = arrays.into_iter().map(|(name, array)| (name, Tree::Tensor(array)));
        return Ok(plain(Format::Npz, Tree::Map(fields.collect())));
    }
    if bytes.starts_with(npy::MAGIC) {
        return Ok(plain(Format::Npy, Tree::Tensor(npy::parse(bytes)?)));
    }
    // Before the pickles: a header's length, too, may begin with a pickle's first byte.
    if is_safetensors(bytes) {
        let file = safetensors::parse(bytes)?;
        let fields = file.tensors.into_iter().map(|(name, array)| (name, Tree::Tensor(array)));
        let tree = Tree::Map(fields.collect());
        return Ok(Document { format: Format::Safetensors, tree, metadata: file.metadata });
    }
    if torch::is_legacy(bytes) {
        return Ok(plain(Format::TorchLegacy, torch::read_legacy(bytes)?));
    }
    if bytes.first() == Some(&0x80) {
        return Ok(plain(Format::Pickle, pickled(bytes, ALL_NAMES)?));
    }
    if bytes.get(8) == Some(&b'{') {
        // Cut short, most likely: its own reader says by how much.
        safetensors::parse(bytes)?;
    }
    Err(unknown(bytes))
}

/// Whether the first eight bytes are the length of a JSON header that fits into the file.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some(length) = bytes.first_chunk::<8>().map(|head| u64::from_le_bytes(*head)) else {
        return false;
    };
    bytes.get(8) == Some(&b'{') && length <= bytes.len() as u64 - 8
}

/// The bare pickle `bytes`, which may ask for the names of `lists` only
/// ([`names::NUMPY`] and the like).
///
/// # Errors
/// If it is bad or asks for another name.
pub fn pickled(bytes: &Bytes, lists: &[&[&str]]) -> Result<Tree> {
    let (pickle, _) = opcodes::parse(bytes, &lists.concat())?;
    objects::resolve(&pickle, bytes.len(), &|_| {
        Err(Error::input("the pickle refers to a storage outside it; there is none"))
    })
}

/// Every name that gauntlet knows: what a bare pickle of unknown origin may ask for.
pub(super) const ALL_NAMES: &[&[&str]] = &[names::BASIC, names::NUMPY, names::TORCH, names::EDM];

fn listing(archive: &Archive) -> Tree {
    let size = |size: u64| Tree::Int(i64::try_from(size).unwrap_or(i64::MAX));
    let entries = archive.entries().iter();
    Tree::Map(entries.map(|entry| (entry.name.clone(), size(entry.size))).collect())
}

fn unknown(bytes: &[u8]) -> Error {
    let guess = if bytes.get(257..262) == Some(b"ustar") {
        " (a tar archive: torch before 0.2 wrote these; load and save it with a newer torch)"
    } else if bytes.starts_with(b"\x1f\x8b") {
        " (gzip: unpack it first)"
    } else if bytes.starts_with(b"\xfd7zXZ") {
        " (xz: unpack it first)"
    } else if bytes.starts_with(b"\x89HDF") || bytes.starts_with(b"MATLAB 7.3") {
        " (HDF5)"
    } else if bytes.starts_with(b"MATLAB 5.0") {
        " (a MATLAB file: `gauntlet data` reads SVHN's)"
    } else {
        ""
    };
    Error::input(format!(
        "not a format that gauntlet knows{guess}; expected a torch checkpoint, an EDM pickle, \
         safetensors, .npy or .npz"
    ))
}

/// All arrays with their dotted names, in file order. The bookkeeping of torch modules
/// (`_modules`, `_parameters`, `_buffers`) leaves no trace in the names, so that a pickled module
/// gives the names of its `state_dict()`.
pub fn flatten(tree: &Tree) -> Vec<(String, Array)> {
    let mut found = Vec::new();
    collect(tree, "", &mut found);
    found
}

fn collect(tree: &Tree, prefix: &str, found: &mut Vec<(String, Array)>) {
    let joined = |name: &str| match (prefix, name) {
        (prefix, "_modules" | "_parameters" | "_buffers") => prefix.to_owned(),
        ("", name) => name.to_owned(),
        (prefix, name) => format!("{prefix}.{name}"),
    };
    match tree {
        Tree::Tensor(array) => found.push((prefix.to_owned(), array.clone())),
        Tree::List(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &joined(&index.to_string()), found);
            }
        }
        Tree::Map(fields) | Tree::Object { fields, .. } => {
            for (name, value) in fields {
                collect(value, &joined(name), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::array::Dtype;

    #[test]
    fn a_pickled_module_gives_the_names_of_its_state_dict() {
        let map = |name: &str, value| Tree::Map(vec![(name.to_owned(), value)]);
        let object = |class: &str, name: &str, value| Tree::Object {
            class: class.to_owned(),
            fields: vec![(name.to_owned(), value)],
        };
        let weight = Tree::Tensor(Array::from_f32(&[1], &[2.0]).unwrap());
        let layer = object("Linear", "_parameters", map("weight", weight));
        let module = object("Sequential", "_modules", map("0", layer));
        assert_eq!(flatten(&module)[0].0, "0.weight");
        assert_eq!(flatten(&map("ema", module))[0].0, "ema.0.weight");
    }

    /// A header of 640 bytes begins as a pickle of protocol 2 does: 0x80 0x02.
    #[test]
    fn headers_that_begin_like_pickles_are_safetensors_still() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        for padding in 0..1500 {
            let text = "x".repeat(padding);
            let tensor =
                safetensors::Tensor { name: "a", dtype: Dtype::U8, shape: &[1], bytes: &[7] };
            safetensors::write(&path, &[tensor], &[("padding", text.as_str())]).unwrap();
            assert_eq!(read(&path).unwrap().format, Format::Safetensors, "{padding}");
        }
    }
}
