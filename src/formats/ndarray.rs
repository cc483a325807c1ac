//! numpy arrays, scalars and types inside pickles.

use crate::{
    error::{Error, Result},
    formats::{
        array::{Array, Dtype},
        bytes::Bytes,
        npy,
        pickle::{Id, Node, Object, Pickle},
    },
};

fn wrong<T>(what: impl std::fmt::Display) -> Result<T> {
    Err(Error::input(format!("pickle: {what}")))
}

/// A pickled numpy array: `_reconstruct` with its state, or `_frombuffer`.
pub(super) fn numpy_array(
    pickle: &Pickle,
    object: &Object,
    copy_budget: &mut usize,
) -> Result<Array> {
    let args = pickle.items(object.args).unwrap_or_default();
    let state = object.state.and_then(|state| pickle.items(state));
    let (shape, dtype, fortran, data) = match (state, args) {
        (Some(&[_, shape, dtype, fortran, data]), _) => {
            (shape, dtype, pickle.int(fortran).unwrap_or(0) != 0, data)
        }
        // numpy.core.numeric._frombuffer(data, dtype, shape, order), protocol 5.
        (None, &[data, dtype, shape, order]) => {
            (shape, dtype, pickle.text(order) == Some("F"), data)
        }
        _ => return wrong("a numpy array without its state"),
    };
    let (dtype, big_endian) = numpy_dtype(pickle, dtype)?;
    let Some(shape) = pickle.sizes(shape) else { return wrong("a numpy array without a shape") };
    let Some(data) = raw_bytes(pickle, data) else {
        return wrong("a numpy array whose elements are not bytes; refused");
    };
    let layout = npy::Layout { dtype, big_endian, fortran, shape };
    if layout.is_plain() {
        return layout.array(data);
    }
    match copy_budget.checked_sub(data.len()) {
        Some(left) => *copy_budget = left,
        None => return wrong("its arrays would take far more memory than the file holds; refused"),
    }
    layout.array(data)
}

/// Bytes as such, or as protocol 2 disguises them: latin-1 text to be encoded.
pub(super) fn raw_bytes(pickle: &Pickle, id: Id) -> Option<Bytes> {
    match (pickle.node(id), pickle.call(id)) {
        (Node::Bytes(bytes), _) => Some(bytes.clone()),
        (_, Some(("_codecs.encode" | "builtins.bytearray" | "__builtin__.bytearray", args))) => {
            latin1(pickle, *args.first()?)
        }
        _ => None,
    }
}

/// Text of which every character stands for one byte.
pub(super) fn latin1(pickle: &Pickle, id: Id) -> Option<Bytes> {
    match pickle.node(id) {
        Node::Bytes(bytes) => Some(bytes.clone()),
        Node::Str(text) => {
            let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
            Some(bytes?.into())
        }
        _ => None,
    }
}

/// A pickled `numpy.dtype`: the type and whether it is big-endian.
pub(super) fn numpy_dtype(pickle: &Pickle, id: Id) -> Result<(Dtype, bool)> {
    let Node::Object(object) = pickle.node(id) else {
        return wrong(format!("{} where a numpy type belongs", pickle.kind(id)));
    };
    let name = pickle.items(object.args).and_then(|args| pickle.text(*args.first()?));
    let Some(dtype) = name.and_then(npy::dtype_of) else {
        return wrong(format!("numpy arrays of type `{}` are not supported", name.unwrap_or("?")));
    };
    let state = object.state.and_then(|state| pickle.items(state)).unwrap_or_default();
    let order = state.get(1).and_then(|&order| pickle.text(order));
    Ok((dtype, order == Some(">")))
}
