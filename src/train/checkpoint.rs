//! Tensors with words about them in one file, written whole or not at all.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::Path,
};

use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::error::{AtPath, Error, Result};

/// Writes `tensors` and `words` to `path` as safetensors: beside it first, then renamed, so that
/// whoever is killed at any moment leaves the old file or the new one.
///
/// # Errors
/// If the file cannot be written.
///
/// # Panics
/// If a tensor is neither `Float`, `Double` nor `Int64`.
pub fn write(path: &Path, tensors: &[(String, Tensor)], words: &[(&str, String)]) -> Result<()> {
    let parts: Vec<_> = tensors.iter().map(|(_, tensor)| bytes(tensor)).collect();
    let header = header(tensors, &parts, words);
    let beside = path.with_extension("partial");
    let mut file = File::create(&beside).at(&beside)?;
    file.write_all(&(header.len() as u64).to_le_bytes()).at(&beside)?;
    file.write_all(header.as_bytes()).at(&beside)?;
    for (_, bytes) in &parts {
        file.write_all(bytes).at(&beside)?;
    }
    file.sync_all().at(&beside)?;
    fs::rename(&beside, path).at(path)
}

/// The JSON header, written by hand because the crate keeps words in random order: equal content
/// shall have equal bytes. Padded so that the data begin at a multiple of 8.
fn header(
    tensors: &[(String, Tensor)],
    parts: &[(Dtype, Vec<u8>)],
    words: &[(&str, String)],
) -> String {
    let words: serde_json::Map<_, _> =
        words.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let mut entries = serde_json::Map::from_iter([("__metadata__".to_owned(), words.into())]);
    let mut start = 0;
    for ((name, tensor), (kind, bytes)) in tensors.iter().zip(parts) {
        let end = start + bytes.len();
        let kind = format!("{kind:?}");
        let entry = json!({"dtype": kind, "shape": tensor.size(), "data_offsets": [start, end]});
        entries.insert(name.clone(), entry);
        start = end;
    }
    let text = serde_json::Value::from(entries).to_string();
    let padding = text.len().next_multiple_of(8) - text.len();
    text + &" ".repeat(padding)
}

/// Reads what [`write`] wrote: tensors on the CPU, and the words.
///
/// # Errors
/// If the file cannot be read or is not whole.
pub fn read(path: &Path) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, String>)> {
    let content = fs::read(path).at(path)?;
    let wrong = |error| {
        Error::in_file(
            path,
            format!("is no whole safetensors file ({error}); delete it to begin anew"),
        )
    };
    let (_, header) = SafeTensors::read_metadata(&content).map_err(wrong)?;
    let words = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let file = SafeTensors::deserialize(&content).map_err(wrong)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            other => {
                return Err(Error::in_file(
                    path,
                    format!("`{name}` is {other:?}; expected F32, F64 or I64"),
                ));
            }
        };
        let shape: Vec<i64> = view.shape().iter().map(|&edge| edge as i64).collect();
        tensors.insert(name, Tensor::from_data_size(view.data(), &shape, kind));
    }
    Ok((tensors, words))
}

fn bytes(tensor: &Tensor) -> (Dtype, Vec<u8>) {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let (kind, size) = match tensor.kind() {
        Kind::Float => (Dtype::F32, 4),
        Kind::Double => (Dtype::F64, 8),
        Kind::Int64 => (Dtype::I64, 8),
        other => panic!("{other:?} is never part of a checkpoint"),
    };
    let mut bytes = vec![0u8; tensor.numel() * size];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    (kind, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensors = [
            ("flat".to_owned(), Tensor::from_slice(&[1.5f32, -2.0])),
            ("sums".to_owned(), Tensor::from_slice(&[[0.1f64; 2]; 2].concat()).view([2, 2])),
            ("count".to_owned(), Tensor::from(7i64)),
        ];
        write(&path, &tensors, &[("step", "17".into())]).unwrap();
        let (read_back, words) = read(&path).unwrap();
        assert_eq!(words["step"], "17");
        for (name, tensor) in &tensors {
            assert_eq!(&read_back[name], tensor, "{name}");
        }
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("a.safetensors") && message.contains("begin anew"), "{message}");
    }
}
