//! Named tensors in files: plain arrays to tensors and back, safetensors written atomically.

use std::{collections::BTreeMap, path::Path};

use tch::{Device, Kind, Tensor};

use crate::{
    error::{Error, Result},
    formats::{
        array::{Array, Dtype},
        safetensors, tree,
    },
};

/// Tensors by name.
pub type Named = BTreeMap<String, Tensor>;

/// Arrays of a file by name: not yet copied out of it.
pub type Arrays = BTreeMap<String, Array>;

/// `array` as a tensor of the same kind on `device` (unsigned integers that torch lacks: `Int64`).
///
/// # Errors
/// If an unsigned integer is beyond `Int64`.
pub fn from_array(array: &Array, device: Device) -> Result<Tensor> {
    let shape: Vec<i64> = array.shape().iter().map(|&axis| axis as i64).collect();
    let Some(kind) = kind_of(array.dtype()) else {
        return Ok(Tensor::from_slice(&array.to_i64()?).view(shape.as_slice()).to_device(device));
    };
    let tensor = Tensor::f_from_data_size(array.bytes(), &shape, kind);
    let tensor = tensor.map_err(|error| Error::input(format!("a tensor of {shape:?}: {error}")))?;
    Ok(tensor.to_device(device))
}

/// Copies `array` over `target`, which has its shape, converting where kinds differ. The pages
/// of a mapped file are let go afterwards: a network and its file never fill the memory together.
///
/// # Errors
/// As [`from_array`].
#[allow(unsafe_code)] // a view of bytes that libtorch copies from: see the note inside
pub(super) fn overwrite(target: &Tensor, array: &Array) -> Result<()> {
    let bytes = array.bytes();
    let aligned = bytes.as_ptr().align_offset(array.dtype().size()) == 0;
    match kind_of(array.dtype()) {
        Some(kind) if aligned && !bytes.is_empty() => {
            let shape: Vec<i64> = array.shape().iter().map(|&axis| axis as i64).collect();
            let strides: Vec<i64> =
                (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
            // SAFETY: `bytes` hold exactly the elements of this shape, outlive the view, which
            // ends in this function, and are only read.
            let view =
                unsafe { Tensor::from_blob(bytes.as_ptr(), &shape, &strides, kind, Device::Cpu) };
            target.detach().copy_(&view);
        }
        _ => target.detach().copy_(&from_array(array, Device::Cpu)?),
    }
    array.data().let_go();
    Ok(())
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::Bool => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::U16 | Dtype::U32 | Dtype::U64 => return None,
    })
}

/// `tensor`, wherever it is, as a plain array.
///
/// # Errors
/// If its kind has no counterpart in files (complex and quantised kinds).
pub fn to_array(tensor: &Tensor) -> Result<Array> {
    let kinds = [
        Dtype::Bool,
        Dtype::U8,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::F32,
        Dtype::F64,
    ];
    let kind = tensor.kind();
    let dtype = kinds.into_iter().find(|&dtype| kind_of(dtype) == Some(kind));
    let dtype = dtype.ok_or_else(|| Error::input(format!("{kind:?} cannot be saved")))?;
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; tensor.numel() * dtype.size()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    let shape = tensor.size().iter().map(|&axis| axis as usize).collect();
    Array::new(dtype, shape, bytes.into())
}

/// All tensors of the safetensors (or any other known) file at `path`, on `device`, and the
/// strings kept beside them.
///
/// # Errors
/// If the file is bad or missing; the message names it.
pub fn read(path: &Path, device: Device) -> Result<(Named, BTreeMap<String, String>)> {
    let document = tree::read(path)?;
    let named = tree::flatten(&document.tree)
        .into_iter()
        .map(|(name, array)| Ok((name, from_array(&array, device)?)))
        .collect::<Result<_>>();
    let named = named.map_err(|error| Error::in_file(path, error))?;
    Ok((named, document.metadata.into_iter().collect()))
}

/// Writes `named` and `metadata` to `path` as safetensors, beside and then renamed.
///
/// # Errors
/// If two tensors have one name, a kind cannot be saved or the file cannot be written.
pub fn write(path: &Path, named: &[(String, Tensor)], metadata: &[(&str, &str)]) -> Result<()> {
    let arrays = named
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), to_array(tensor)?)))
        .collect::<Result<Vec<_>>>()
        .map_err(|error| Error::in_file(path, error))?;
    let tensors: Vec<_> =
        arrays.iter().map(|(name, array)| safetensors::Tensor::new(name, array)).collect();
    safetensors::write(path, &tensors, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_survive_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let named = vec![
            ("scalar".to_owned(), Tensor::from(7i64)),
            ("turned".to_owned(), Tensor::from_slice(&[1f32, 2., 3., 4.]).view([2, 2]).tr()),
            ("half".to_owned(), Tensor::from_slice(&[0.5f64]).to_kind(Kind::Half)),
            ("empty".to_owned(), Tensor::zeros([0, 3], (Kind::Double, Device::Cpu))),
        ];
        write(&path, &named, &[("kind", "test")]).unwrap();
        let (back, metadata) = read(&path, Device::Cpu).unwrap();
        assert_eq!(metadata["kind"], "test");
        for (name, tensor) in &named {
            assert_eq!(back[name].kind(), tensor.kind());
            assert_eq!(back[name].size(), tensor.size());
            assert!(back[name].equal(tensor), "{name}");
        }
    }
}
