//! Torch checkpoints: the zip archives written since 1.6, and the legacy stream of pickles and
//! storages before. Tensors are windows of the file wherever their elements lie in order.
//!
//! Source: torch/serialization.py (`_save`, `_legacy_save`), torch/_utils.py.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    path::Path,
};

use crate::{
    error::{Error, Result},
    formats::{
        archive::Archive,
        array::Dtype,
        bytes::Bytes,
        in_file, names,
        objects::{self, Storage, StorageRef},
        opcodes,
        pickle::{Node, Pickle},
        tree::Tree,
    },
};

/// `0x1950a86a20f9469cfc6c`, little-endian, as a pickled long of ten bytes.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Reads the checkpoint at `path`, of either format.
///
/// # Errors
/// If it is neither, or bad, or asks for names that gauntlet does not know.
pub fn read(path: &Path) -> Result<Tree> {
    let bytes = Bytes::map(path)?;
    let tree = if is_legacy(&bytes) {
        read_legacy(&bytes)
    } else {
        Archive::open(bytes).and_then(|archive| read_archive(&archive))
    };
    in_file(path, tree)
}

/// Whether `bytes` begin as legacy checkpoints do.
pub fn is_legacy(bytes: &[u8]) -> bool {
    let rest = match bytes {
        // From protocol 4 on a frame's length stands before.
        [0x80, _protocol, 0x95, rest @ ..] => rest.get(8..).unwrap_or_default(),
        [0x80, _protocol, rest @ ..] => rest,
        _ => return false,
    };
    rest.starts_with(&[0x8a, 10]) && rest[2..].starts_with(&LEGACY_MAGIC)
}

/// The object in a zip checkpoint.
///
/// # Errors
/// As [`read`].
pub fn read_archive(archive: &Archive) -> Result<Tree> {
    read_archive_of(archive, &known_names())
}

/// The module of a TorchScript program as its state. Its code is not looked at.
///
/// # Errors
/// As [`read`].
pub fn read_script(archive: &Archive) -> Result<Tree> {
    read_archive_of(archive, &[known_names().as_slice(), names::SCRIPT].concat())
}

fn read_archive_of(archive: &Archive, known: &[&str]) -> Result<Tree> {
    let file = |name: &str| Error::input(format!("the checkpoint has no entry `{name}`"));
    let data = archive.entries().iter().find(|entry| {
        entry.name == "data.pkl"
            || entry.name.strip_suffix("/data.pkl").is_some_and(|folder| !folder.contains('/'))
    });
    let Some(data) = data else { return Err(file("data.pkl")) };
    let folder = data.name.strip_suffix("data.pkl").expect("found by this end");
    let big_endian = match archive.entry(&format!("{folder}byteorder")) {
        None => false,
        Some(entry) => match &*archive.read_sound(entry)? {
            b"little" => false,
            b"big" => true,
            _ => return Err(Error::input("entry `byteorder`: expected `little` or `big`")),
        },
    };
    let bytes = archive.read_sound(data)?;
    let (pickle, _) = opcodes::parse(&bytes, known)?;
    let sizes = archive.entries().iter().filter(|entry| entry.stored).map(|entry| entry.size);
    let file_size = sizes.sum::<u64>() as usize;
    // Many tensors may share one storage, whose checksum is looked at once.
    let sound = RefCell::new(HashSet::new());
    objects::resolve(&pickle, file_size, &|reference| {
        let name = format!("{folder}data/{}", reference.key);
        let entry = archive.entry(&name).ok_or_else(|| file(&name))?;
        let bytes = if sound.borrow_mut().insert(name) {
            archive.read_sound(entry)?
        } else {
            archive.read(entry)?
        };
        expect_size(reference, bytes.len())?;
        Ok(Storage { bytes, big_endian })
    })
}

/// The object in a legacy checkpoint.
///
/// # Errors
/// As [`read`].
pub fn read_legacy(bytes: &Bytes) -> Result<Tree> {
    let (pickle, storages) = legacy_parts(bytes)?;
    objects::resolve(&pickle, bytes.len(), &|reference| find_legacy(&storages, reference))
}

/// The one storage of a legacy stream, as `torch.storage._load_from_bytes` gets it.
pub(super) fn read_storage(bytes: &Bytes) -> Result<(Storage, Option<Dtype>)> {
    if !is_legacy(bytes) {
        return Err(Error::input("a storage inside the pickle is not in torch's legacy format"));
    }
    let (pickle, storages) = legacy_parts(bytes)?;
    let Node::Persistent(reference) = pickle.node(pickle.root()) else {
        return Err(Error::input("a storage inside the pickle is something else"));
    };
    let reference = objects::storage_ref(&pickle, *reference)?;
    Ok((find_legacy(&storages, &reference)?, reference.dtype))
}

fn known_names() -> Vec<&'static str> {
    [names::BASIC, names::NUMPY, names::TORCH].concat()
}

/// The object's pickle and the storages behind it. Layout: pickles of the magic number, the
/// protocol, facts on the machine, the object and the list of keys; then for each key an `i64`
/// count and the elements.
fn legacy_parts(bytes: &Bytes) -> Result<(Pickle, HashMap<String, Storage>)> {
    let mut at = 0;
    let mut next = |names: &[&str]| -> Result<Pickle> {
        let rest = bytes.window(at, bytes.len() - at).expect("inside");
        let (pickle, length) = opcodes::parse(&rest, names).map_err(|error| {
            Error::input(format!("the pickle that begins at byte {at}: {error}"))
        })?;
        at += length;
        Ok(pickle)
    };
    next(&[])?; // the magic number, seen by `is_legacy`
    let protocol = next(&[])?;
    if protocol.int(protocol.root()) != Some(1001) {
        return Err(Error::input("legacy checkpoint: expected protocol 1001"));
    }
    let machine = next(&[])?;
    let big_endian = is_big_endian(&machine);
    let object = next(&known_names())?;
    let keys = next(&[])?;
    let storages = legacy_storages(bytes, at, (&object, &keys), big_endian)?;
    Ok((object, storages))
}

fn is_big_endian(machine: &Pickle) -> bool {
    let Node::Dict(pairs) = machine.node(machine.root()) else { return false };
    pairs.iter().any(|&(key, value)| {
        machine.text(key) == Some("little_endian") && *machine.node(value) == Node::Bool(false)
    })
}

fn legacy_storages(
    bytes: &Bytes,
    mut at: usize,
    (object, keys): (&Pickle, &Pickle),
    big_endian: bool,
) -> Result<HashMap<String, Storage>> {
    let mut sizes = HashMap::new();
    for node in object.nodes() {
        if let Node::Persistent(id) = node {
            let reference = objects::storage_ref(object, *id)?;
            sizes.insert(reference.key, reference.dtype.map_or(1, Dtype::size));
        }
    }
    let mut storages = HashMap::new();
    for &id in keys.items(keys.root()).unwrap_or_default() {
        let key = keys.text(id).map(str::to_owned);
        let Some(key) = key.or_else(|| Some(keys.int(id)?.to_string())) else {
            return Err(Error::input("legacy checkpoint: a storage key that is not text"));
        };
        let Some(&element) = sizes.get(&key) else {
            return Err(Error::input(format!(
                "legacy checkpoint: nothing refers to storage {key}"
            )));
        };
        let cut = || {
            Error::input(format!(
                "legacy checkpoint: storage {key} at byte {at} is not complete; is the file cut \
                 short?"
            ))
        };
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let count = usize::try_from(i64::from_le_bytes(*count)).map_err(|_| cut())?;
        let length = count.checked_mul(element).ok_or_else(cut)?;
        let window = bytes.window(at + 8, length).ok_or_else(cut)?;
        at += 8 + length;
        storages.insert(key, Storage { bytes: window, big_endian });
    }
    Ok(storages)
}

fn find_legacy(storages: &HashMap<String, Storage>, reference: &StorageRef) -> Result<Storage> {
    let Some(storage) = storages.get(&reference.key) else {
        return Err(Error::input(format!("the checkpoint has no storage {}", reference.key)));
    };
    expect_size(reference, storage.bytes.len())?;
    let Some((offset, length)) = reference.view else { return Ok(storage.clone()) };
    let element = reference.dtype.map_or(1, Dtype::size);
    let window = offset
        .checked_mul(element)
        .zip(length.checked_mul(element))
        .and_then(|(start, length)| storage.bytes.window(start, length));
    match window {
        Some(bytes) => Ok(Storage { bytes, big_endian: storage.big_endian }),
        None => Err(Error::input(format!("a part of storage {} lies outside it", reference.key))),
    }
}

fn expect_size(reference: &StorageRef, found: usize) -> Result<()> {
    let expected = reference.count.checked_mul(reference.dtype.map_or(1, Dtype::size));
    if expected == Some(found) {
        return Ok(());
    }
    Err(Error::input(format!(
        "storage {} should hold {} elements, but it has {found} bytes",
        reference.key, reference.count
    )))
}

/// The element type of a storage class; `Some(None)` is a class without one, `None` no storage.
#[allow(clippy::option_option)] // three answers: a type, no type, not a storage
pub(super) fn storage_dtype(class: &str) -> Option<Option<Dtype>> {
    let name = class.strip_prefix("torch.")?;
    let name = name.strip_prefix("cuda.").or(name.strip_prefix("storage.")).unwrap_or(name);
    Some(Some(match name {
        "FloatStorage" => Dtype::F32,
        "DoubleStorage" => Dtype::F64,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::Bf16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        "UntypedStorage" => return Some(None),
        _ => return None,
    }))
}

/// The element type called `torch.float32` and so on.
pub(super) fn dtype_named(name: &str) -> Option<Dtype> {
    use Dtype::{Bf16, Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
    let name = name.strip_prefix("torch.")?;
    [Bool, U8, I8, U16, I16, U32, I32, U64, I64, F16, Bf16, F32, F64]
        .into_iter()
        .find(|dtype| dtype.name() == name)
}
