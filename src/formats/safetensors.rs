//! Safetensors files: read mapped, written atomically and always in the same bytes.

use std::{collections::BTreeMap, io::Write as _, path::Path};

use safetensors::{Dtype as Kind, SafeTensors};

use crate::{
    error::{Error, Result},
    formats::{
        array::{Array, Dtype},
        bytes::Bytes,
        in_file, write_atomically,
    },
};

/// A safetensors file.
#[derive(Debug, Clone)]
pub struct File {
    /// Arrays by name, sorted.
    pub tensors: Vec<(String, Array)>,
    /// The strings beside them, sorted by key.
    pub metadata: Vec<(String, String)>,
}

/// Reads the file at `path`; the arrays stay mapped.
///
/// # Errors
/// If it is not a well-formed safetensors file, or holds an unsupported type.
pub fn read(path: &Path) -> Result<File> {
    let bytes = Bytes::map(path)?;
    in_file(path, parse(&bytes))
}

/// [`read`] for bytes at hand.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &Bytes) -> Result<File> {
    let wrong = |error| Error::input(format!("safetensors: {error}; is the file cut short?"));
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let Some(dtype) = dtype_of(info.dtype) else {
            return Err(Error::input(format!(
                "safetensors: tensor `{name}` is of unsupported type {:?}",
                info.dtype
            )));
        };
        let (start, end) = info.data_offsets;
        let window = bytes.window(8 + header + start, end - start).expect("the crate has checked");
        tensors.push((name, Array::new(dtype, info.shape.clone(), window)?));
    }
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let strings: BTreeMap<_, _> =
        metadata.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(File { tensors, metadata: strings.into_iter().collect() })
}

/// One tensor to be written.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Length of every axis.
    pub shape: &'a [usize],
    /// The elements, row-major, little-endian.
    pub bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// `array` under `name`.
    pub fn new(name: &'a str, array: &'a Array) -> Self {
        Self { name, dtype: array.dtype(), shape: array.shape(), bytes: array.bytes() }
    }
}

/// Writes `tensors` and `metadata` to `path`, atomically. Names and keys are sorted, so that equal
/// content has equal bytes.
///
/// # Errors
/// If two tensors have the same name, bytes and shape disagree, or the file cannot be written.
pub fn write(path: &Path, tensors: &[Tensor], metadata: &[(&str, &str)]) -> Result<()> {
    let mut order: Vec<&Tensor> = tensors.iter().collect();
    // Wide elements first: every tensor is then aligned to its elements.
    order.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.name.cmp(b.name)));
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let sorted: BTreeMap<_, _> = metadata.iter().copied().collect();
        header.insert("__metadata__".to_owned(), serde_json::json!(sorted));
    }
    let mut offset = 0;
    for tensor in &order {
        if crate::formats::array::byte_count(tensor.dtype, tensor.shape)? != tensor.bytes.len() {
            return Err(Error::in_file(
                path,
                format!("tensor `{}`: bytes and shape disagree", tensor.name),
            ));
        }
        let end = offset + tensor.bytes.len();
        let entry = serde_json::json!({
            "dtype": kind_of(tensor.dtype).to_string(),
            "shape": tensor.shape,
            "data_offsets": [offset, end],
        });
        if header.insert(tensor.name.to_owned(), entry).is_some() {
            return Err(Error::in_file(path, format!("two tensors are called `{}`", tensor.name)));
        }
        offset = end;
    }
    let mut text = serde_json::Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    write_atomically(path, |file| {
        file.write_all(&(text.len() as u64).to_le_bytes())?;
        file.write_all(&text)?;
        order.iter().try_for_each(|tensor| file.write_all(tensor.bytes))
    })
}

const KINDS: [(Dtype, Kind); 13] = [
    (Dtype::Bool, Kind::BOOL),
    (Dtype::U8, Kind::U8),
    (Dtype::I8, Kind::I8),
    (Dtype::U16, Kind::U16),
    (Dtype::I16, Kind::I16),
    (Dtype::U32, Kind::U32),
    (Dtype::I32, Kind::I32),
    (Dtype::U64, Kind::U64),
    (Dtype::I64, Kind::I64),
    (Dtype::F16, Kind::F16),
    (Dtype::Bf16, Kind::BF16),
    (Dtype::F32, Kind::F32),
    (Dtype::F64, Kind::F64),
];

fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.iter().find(|(_, other)| *other == kind).map(|(dtype, _)| *dtype)
}

fn kind_of(dtype: Dtype) -> Kind {
    KINDS.iter().find(|(other, _)| *other == dtype).expect("every type is listed").1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_files_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let reals = Array::from_f32(&[2, 1], &[1.5, -2.0]).unwrap();
        let flags = Array::new(Dtype::Bool, vec![3], vec![1, 0, 1].into()).unwrap();
        let tensors = [Tensor::new("z", &flags), Tensor::new("a.b", &reals)];
        write(&path, &tensors, &[("kind", "test"), ("a", "b")]).unwrap();
        let file = read(&path).unwrap();
        assert_eq!(file.tensors, [("a.b".to_owned(), reals), ("z".to_owned(), flags.clone())]);
        assert_eq!(file.metadata[1], ("kind".to_owned(), "test".to_owned()));
        let twice = [Tensor::new("z", &flags), Tensor::new("z", &flags)];
        assert!(write(&path, &twice, &[]).unwrap_err().to_string().contains("two tensors"));
    }
}
