//! What the few Python names that gauntlet knows mean: a pickle's records of calls become arrays,
//! maps and plain values. Nothing is called.
//!
//! Longer than most files because the names, the tensors and the limits on both share one walk.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    formats::{
        array::{Array, Dtype, byte_count, swap_endianness},
        bytes::Bytes,
        ndarray::{latin1, numpy_array, numpy_dtype, raw_bytes},
        pickle::{Id, Node, Object, Pickle},
        torch,
        tree::Tree,
    },
};

/// Deeper than any real checkpoint; also where a pickle that contains itself ends.
const DEEPEST: usize = 128;

/// A torch storage as a pickle refers to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StorageRef {
    pub(super) key: String,
    /// `None` for bytes without a type.
    pub(super) dtype: Option<Dtype>,
    /// Elements, or bytes without a type.
    pub(super) count: usize,
    /// Legacy files: a part of another storage (offset and length in elements).
    pub(super) view: Option<(usize, usize)>,
}

/// The bytes of a storage, and whether its numbers are big-endian.
#[derive(Clone)]
pub(super) struct Storage {
    pub(super) bytes: Bytes,
    pub(super) big_endian: bool,
}

/// Finds a storage's bytes.
pub(super) type Find<'a> = dyn Fn(&StorageRef) -> Result<Storage> + 'a;

/// The whole pickle as a tree. `file_size` bounds how much may be copied where arrays cannot be
/// windows; `find` gives the storages.
pub(super) fn resolve(pickle: &Pickle, file_size: usize, find: &Find) -> Result<Tree> {
    let copy_budget = file_size.saturating_mul(4).saturating_add(64 << 20);
    Resolver { pickle, find, budget: pickle.budget(), copy_budget }.tree(pickle.root(), 0)
}

struct Resolver<'a> {
    pickle: &'a Pickle,
    find: &'a Find<'a>,
    budget: u64,
    copy_budget: usize,
}

fn wrong<T>(what: impl std::fmt::Display) -> Result<T> {
    Err(Error::input(format!("pickle: {what}")))
}

impl Resolver<'_> {
    fn tree(&mut self, id: Id, depth: usize) -> Result<Tree> {
        if depth > DEEPEST {
            return wrong(format!(
                "nested deeper than {DEEPEST} levels, or inside itself; refused"
            ));
        }
        self.spend(1)?;
        Ok(match self.pickle.node(id) {
            Node::None => Tree::Null,
            Node::Bool(value) => Tree::Bool(*value),
            Node::Int(value) => Tree::Int(*value),
            Node::Long(bytes) => Tree::Bytes(bytes.clone()),
            Node::Float(value) => Tree::Float(*value),
            Node::Str(text) => Tree::Text(Arc::clone(text)),
            Node::Bytes(bytes) => self.text_or_bytes(bytes)?,
            Node::Tuple(items) | Node::List(items) | Node::Set(items) => {
                Tree::List(self.list(items, depth)?)
            }
            Node::Dict(pairs) => Tree::Map(self.map(pairs, depth)?),
            Node::Global(name) => Tree::Text(Arc::clone(name)),
            Node::Persistent(_) => Tree::Tensor(self.whole_storage(id)?),
            Node::Object(object) => self.object(id, object, depth)?,
        })
    }

    fn spend(&mut self, cost: usize) -> Result<()> {
        match self.budget.checked_sub(cost as u64) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => wrong("shared parts would unfold to far more than the file holds; refused"),
        }
    }

    /// The strings of Python 2 are bytes; those that read as text are text.
    fn text_or_bytes(&mut self, bytes: &Bytes) -> Result<Tree> {
        let text = std::str::from_utf8(bytes).ok();
        let printable = text.filter(|text| text.len() < 4096 && !text.contains('\0'));
        let Some(text) = printable else { return Ok(Tree::Bytes(bytes.clone())) };
        self.spend(text.len() / 16)?;
        Ok(Tree::Text(text.into()))
    }

    fn list(&mut self, items: &[Id], depth: usize) -> Result<Vec<Tree>> {
        items.iter().map(|&item| self.tree(item, depth + 1)).collect()
    }

    fn map(&mut self, pairs: &[(Id, Id)], depth: usize) -> Result<Vec<(String, Tree)>> {
        pairs
            .iter()
            .map(|&(key, value)| Ok((self.key(key)?, self.tree(value, depth + 1)?)))
            .collect()
    }

    fn key(&mut self, id: Id) -> Result<String> {
        if let Some(text) = self.pickle.text(id) {
            self.spend(text.len() / 16)?;
            return Ok(text.to_owned());
        }
        match self.pickle.node(id) {
            Node::None => Ok("None".to_owned()),
            Node::Int(value) => Ok(value.to_string()),
            Node::Float(value) => Ok(value.to_string()),
            Node::Bool(value) => Ok(if *value { "True" } else { "False" }.to_owned()),
            Node::Tuple(items) => Ok(format!("a tuple of {}", items.len())),
            _ => wrong(format!("a key that is {}", self.pickle.kind(id))),
        }
    }

    fn object(&mut self, id: Id, object: &Object, depth: usize) -> Result<Tree> {
        let args = self.pickle.items(object.args).unwrap_or_default();
        let (_, name) = object.class.rsplit_once('.').unwrap_or(("", &object.class));
        match (name, args) {
            ("_rebuild_tensor" | "_rebuild_tensor_v2", [storage, offset, size, stride, ..]) => {
                self.tensor([*storage, *offset, *size, *stride], None).map(Tree::Tensor)
            }
            ("_rebuild_tensor_v3", [storage, offset, size, stride, _, _, dtype, ..]) => {
                let dtype = match self.pickle.node(*dtype) {
                    Node::Global(name) => torch::dtype_named(name),
                    _ => None,
                };
                let Some(dtype) = dtype else { return wrong("a tensor of unknown type") };
                self.tensor([*storage, *offset, *size, *stride], Some(dtype)).map(Tree::Tensor)
            }
            ("_rebuild_parameter" | "_rebuild_parameter_with_state" | "Parameter", [data, ..]) => {
                self.tree(*data, depth + 1)
            }
            ("_load_from_bytes", [_]) => self.whole_storage(id).map(Tree::Tensor),
            ("_reconstruct" | "ndarray" | "_frombuffer", _) => {
                numpy_array(self.pickle, object, &mut self.copy_budget).map(Tree::Tensor)
            }
            ("scalar", [dtype, data]) => self.numpy_scalar(*dtype, *data),
            ("dtype", [descr, ..]) => self.tree(*descr, depth + 1),
            ("Size" | "set" | "frozenset" | "list", [items]) => self.tree(*items, depth + 1),
            ("Size" | "set" | "frozenset" | "list", []) => Ok(Tree::List(Vec::new())),
            ("device", _) => Ok(Tree::Text(self.device(args).into())),
            ("encode" | "bytearray", [text, ..]) => {
                let bytes = latin1(self.pickle, *text);
                let Some(bytes) = bytes else { return wrong("encoded text that is not latin-1") };
                self.copied(bytes.len())?;
                Ok(Tree::Bytes(bytes))
            }
            ("_reconstruct_persistent_obj", [meta]) => self.persistent(*meta, depth),
            ("OrderedDict" | "dict" | "EasyDict" | "defaultdict", _) => {
                Ok(Tree::Map(self.mapping(object, args, depth)?))
            }
            _ => self.plain_object(object, args, depth),
        }
    }

    /// A dictionary: pairs given when made (as Python 2 writes ordered ones), set later, or state.
    fn mapping(
        &mut self,
        object: &Object,
        args: &[Id],
        depth: usize,
    ) -> Result<Vec<(String, Tree)>> {
        let mut fields = Vec::new();
        for &arg in args {
            match self.pickle.node(arg) {
                Node::Dict(pairs) => fields.extend(self.map(pairs, depth)?),
                Node::List(items) => {
                    for &item in items {
                        let Some(&[key, value]) = self.pickle.items(item) else {
                            return wrong("an ordered dictionary whose items are not pairs");
                        };
                        fields.extend(self.map(&[(key, value)], depth)?);
                    }
                }
                // The factory of a defaultdict.
                _ => {}
            }
        }
        fields.extend(self.map(&object.pairs, depth)?);
        Ok(fields)
    }

    fn plain_object(&mut self, object: &Object, args: &[Id], depth: usize) -> Result<Tree> {
        let mut fields = match object.state.map(|state| self.tree(state, depth + 1)).transpose()? {
            Some(Tree::Map(fields)) => fields,
            Some(other) => vec![("state".to_owned(), other)],
            None => Vec::new(),
        };
        if !args.is_empty() {
            fields.push(("args".to_owned(), Tree::List(self.list(args, depth)?)));
        }
        if !object.items.is_empty() {
            fields.push(("items".to_owned(), Tree::List(self.list(&object.items, depth)?)));
        }
        fields.extend(self.map(&object.pairs, depth)?);
        Ok(Tree::Object { class: object.class.to_string(), fields })
    }

    /// An object of EDM's `persistence` module: its class by name and its state. The source code
    /// that travels with it is not looked at.
    fn persistent(&mut self, meta: Id, depth: usize) -> Result<Tree> {
        let Tree::Map(meta) = self.tree(meta, depth + 1)? else {
            return wrong("a persistent object whose description is not a dictionary");
        };
        let (mut class, mut state) = (None, None);
        for (key, value) in meta {
            match (key.as_str(), value) {
                ("class_name", Tree::Text(name)) => class = Some(name.to_string()),
                ("state", Tree::Map(fields)) => state = Some(fields),
                _ => {}
            }
        }
        match (class, state) {
            (Some(class), Some(fields)) => Ok(Tree::Object { class, fields }),
            _ => wrong("a persistent object without class name or state"),
        }
    }

    fn device(&self, args: &[Id]) -> String {
        let parts = args.iter().filter_map(|&arg| {
            let text = self.pickle.text(arg).map(|text| text.chars().take(20).collect());
            text.or_else(|| self.pickle.int(arg).map(|index| index.to_string()))
        });
        parts.collect::<Vec<String>>().join(":")
    }

    /// A storage on its own, as a flat array.
    fn whole_storage(&mut self, id: Id) -> Result<Array> {
        let (storage, dtype) = self.storage(id)?;
        let dtype = dtype.unwrap_or(Dtype::U8);
        let count = storage.bytes.len() / dtype.size();
        self.gather(&storage, dtype, 0, &[(count, 1)])
    }

    fn storage(&mut self, id: Id) -> Result<(Storage, Option<Dtype>)> {
        if let Some((class, [bytes])) = self.pickle.call(id)
            && class == "torch.storage._load_from_bytes"
        {
            let Node::Bytes(bytes) = self.pickle.node(*bytes) else {
                return wrong("a storage whose content is not bytes");
            };
            // Each such storage is a file of its own; shared, it must not be read for ever.
            self.spend(1 + bytes.len() / 4096)?;
            return torch::read_storage(bytes);
        }
        let Node::Persistent(reference) = self.pickle.node(id) else {
            return wrong(format!("a tensor over {}, not a storage", self.pickle.kind(id)));
        };
        let reference = storage_ref(self.pickle, *reference)?;
        Ok(((self.find)(&reference)?, reference.dtype))
    }

    fn tensor(&mut self, parts: [Id; 4], dtype: Option<Dtype>) -> Result<Array> {
        let [storage, offset, size, stride] = parts;
        let (storage, stored) = self.storage(storage)?;
        let Some(dtype) = dtype.or(stored) else { return wrong("a tensor of unknown type") };
        let offset = self.pickle.int(offset).and_then(|offset| usize::try_from(offset).ok());
        let sizes = (self.pickle.sizes(size), self.pickle.sizes(stride));
        let (Some(offset), (Some(size), Some(stride))) = (offset, sizes) else {
            return wrong("a tensor whose offset, size or stride is not a plain number");
        };
        if size.len() != stride.len() {
            return wrong(format!("a tensor of size {size:?} with strides {stride:?}"));
        }
        self.spend(size.len())?;
        let axes: Vec<_> = size.into_iter().zip(stride).collect();
        self.gather(&storage, dtype, offset, &axes)
    }

    /// The array of the given (length, stride) axes over a storage: a window where its elements
    /// lie in order, else a copy.
    fn gather(
        &mut self,
        storage: &Storage,
        dtype: Dtype,
        offset: usize,
        axes: &[(usize, usize)],
    ) -> Result<Array> {
        let shape: Vec<usize> = axes.iter().map(|&(length, _)| length).collect();
        let total = byte_count(dtype, &shape)?;
        if total == 0 {
            return Array::new(dtype, shape, Vec::new().into());
        }
        let last = axes.iter().try_fold(offset, |sum, &(length, stride)| {
            sum.checked_add((length - 1).checked_mul(stride)?)
        });
        let held = storage.bytes.len() / dtype.size();
        if last.is_none_or(|last| last >= held) {
            return wrong(format!(
                "a tensor of size {shape:?} at offset {offset} leaves its storage of {held} elements"
            ));
        }
        if in_order(axes) && !(storage.big_endian && dtype.size() > 1) {
            let window = storage.bytes.window(offset * dtype.size(), total);
            return Array::new(dtype, shape, window.expect("checked against the last element"));
        }
        self.copied(total)?;
        let mut bytes = copy_elements(&storage.bytes, dtype.size(), offset, axes, total);
        if storage.big_endian {
            swap_endianness(&mut bytes, dtype.size());
        }
        Array::new(dtype, shape, bytes.into())
    }

    fn copied(&mut self, bytes: usize) -> Result<()> {
        match self.copy_budget.checked_sub(bytes) {
            Some(left) => {
                self.copy_budget = left;
                Ok(())
            }
            None => wrong("its arrays would take far more memory than the file holds; refused"),
        }
    }

    fn numpy_scalar(&mut self, dtype: Id, data: Id) -> Result<Tree> {
        let (dtype, big_endian) = numpy_dtype(self.pickle, dtype)?;
        let Some(data) = raw_bytes(self.pickle, data) else {
            return wrong("a numpy scalar without bytes");
        };
        let mut data = data.to_vec();
        if big_endian {
            swap_endianness(&mut data, dtype.size());
        }
        let array = Array::new(dtype, Vec::new(), data.into())?;
        Ok(match dtype {
            Dtype::Bool => Tree::Bool(array.bytes()[0] != 0),
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64 => Tree::Float(array.to_f64()[0]),
            _ => Tree::Int(array.to_i64()?[0]),
        })
    }
}

/// Whether the axes walk through memory without a gap.
fn in_order(axes: &[(usize, usize)]) -> bool {
    let mut expected = 1;
    axes.iter().rev().filter(|&&(length, _)| length != 1).all(|&(length, stride)| {
        let fits = stride == expected;
        expected *= length;
        fits
    })
}

/// Copies the elements of `axes` in row-major order.
fn copy_elements(
    bytes: &[u8],
    element: usize,
    offset: usize,
    axes: &[(usize, usize)],
    total: usize,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(total);
    let mut index = vec![0; axes.len()];
    let mut position = offset;
    while out.len() < total {
        out.extend_from_slice(&bytes[position * element..][..element]);
        for (axis, &(length, stride)) in axes.iter().enumerate().rev() {
            index[axis] += 1;
            position += stride;
            if index[axis] < length {
                break;
            }
            position -= length * stride;
            index[axis] = 0;
        }
    }
    out
}

/// A torch persistent id: `('storage', class, key, device, count[, view])`.
pub(super) fn storage_ref(pickle: &Pickle, id: Id) -> Result<StorageRef> {
    let items = pickle.items(id).unwrap_or_default();
    let [kind, class, key, _, count, rest @ ..] = items else {
        return wrong("an outside reference that is not a torch storage");
    };
    if pickle.text(*kind) != Some("storage") {
        return wrong("an outside reference to something that is not a storage; refused");
    }
    let Node::Global(class) = pickle.node(*class) else {
        return wrong("a storage without a class");
    };
    let Some(dtype) = torch::storage_dtype(class) else {
        return wrong(format!("a storage of class `{class}`"));
    };
    let key = pickle.text(*key).map(str::to_owned).or_else(|| Some(pickle.int(*key)?.to_string()));
    let size = |id: Id| pickle.int(id).and_then(|count| usize::try_from(count).ok());
    let (Some(key), Some(count)) = (key, size(*count)) else {
        return wrong("a storage without a key or a size");
    };
    let view = match rest.first().and_then(|&view| pickle.items(view)) {
        Some([_, offset, length]) => match (size(*offset), size(*length)) {
            (Some(offset), Some(length)) => Some((offset, length)),
            _ => return wrong("a part of a storage without offset or length"),
        },
        _ => None,
    };
    Ok(StorageRef { key, dtype, count, view })
}
