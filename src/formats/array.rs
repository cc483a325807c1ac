//! Plain arrays: an element type, a shape and contiguous bytes.

use half::{bf16, f16};

use crate::{
    error::{Error, Result},
    formats::bytes::Bytes,
};

/// The type of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Dtype {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The name that people read: `float32`, `int64`, ...
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::U64 => "uint64",
            Self::I64 => "int64",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }
}

/// An array, row-major, contiguous, little-endian, in memory or in a mapped file. Clones share
/// the bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Bytes,
}

impl Array {
    /// An array over `data`, which must hold exactly the elements of `shape`.
    ///
    /// # Errors
    /// If the number of bytes is another, or the shape is beyond any memory.
    pub fn new(dtype: Dtype, shape: Vec<usize>, data: Bytes) -> Result<Self> {
        let expected = byte_count(dtype, &shape)?;
        if expected != data.len() {
            return Err(Error::input(format!(
                "an array of {} {shape:?} takes {expected} bytes, but there are {}",
                dtype.name(),
                data.len()
            )));
        }
        Ok(Self { dtype, shape, data })
    }

    /// A `float32` array in memory.
    ///
    /// # Errors
    /// If `values` does not hold exactly the elements of `shape`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Result<Self> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(Dtype::F32, shape.to_vec(), bytes.into())
    }

    /// An `int64` array in memory.
    ///
    /// # Errors
    /// If `values` does not hold exactly the elements of `shape`.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Result<Self> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(Dtype::I64, shape.to_vec(), bytes.into())
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The length of every axis; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// All elements, row-major, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// The same as a window that can be kept.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements as `f64`; integers beyond 2^53 are rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        let bytes = self.bytes();
        match self.dtype {
            Dtype::Bool => bytes.iter().map(|&b| f64::from(b != 0)).collect(),
            Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            Dtype::I8 => each(bytes, |b| f64::from(i8::from_le_bytes(b))),
            Dtype::U16 => each(bytes, |b| f64::from(u16::from_le_bytes(b))),
            Dtype::I16 => each(bytes, |b| f64::from(i16::from_le_bytes(b))),
            Dtype::U32 => each(bytes, |b| f64::from(u32::from_le_bytes(b))),
            Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
            Dtype::U64 => each(bytes, |b| u64::from_le_bytes(b) as f64),
            Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
            Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f64()),
            Dtype::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f64()),
            Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::F64 => each(bytes, f64::from_le_bytes),
        }
    }

    /// The elements as `f32`, rounded where they are wider.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => each(self.bytes(), f32::from_le_bytes),
            // Every other type either fits into f32 by way of f64 or is rounded once.
            _ => self.to_f64().into_iter().map(|value| value as f32).collect(),
        }
    }

    /// The elements as `i64`.
    ///
    /// # Errors
    /// If the elements are reals, or an unsigned one is beyond `i64`.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        let bytes = self.bytes();
        Ok(match self.dtype {
            Dtype::Bool => bytes.iter().map(|&b| i64::from(b != 0)).collect(),
            Dtype::U8 => bytes.iter().map(|&b| i64::from(b)).collect(),
            Dtype::I8 => each(bytes, |b| i64::from(i8::from_le_bytes(b))),
            Dtype::U16 => each(bytes, |b| i64::from(u16::from_le_bytes(b))),
            Dtype::I16 => each(bytes, |b| i64::from(i16::from_le_bytes(b))),
            Dtype::U32 => each(bytes, |b| i64::from(u32::from_le_bytes(b))),
            Dtype::I32 => each(bytes, |b| i64::from(i32::from_le_bytes(b))),
            Dtype::I64 => each(bytes, i64::from_le_bytes),
            Dtype::U64 => each(bytes, |b| i64::try_from(u64::from_le_bytes(b)))
                .into_iter()
                .collect::<std::result::Result<_, _>>()
                .map_err(|_| Error::input("a uint64 element is beyond int64"))?,
            real => {
                return Err(Error::input(format!("expected integers, found {}", real.name())));
            }
        })
    }
}

/// Bytes that an array takes, or an error where that is beyond any memory.
pub(crate) fn byte_count(dtype: Dtype, shape: &[usize]) -> Result<usize> {
    // Zero-length axes make the product zero, but the other axes must still be sane.
    let sane = shape
        .iter()
        .filter(|&&axis| axis > 0)
        .try_fold(dtype.size(), |product, &axis| product.checked_mul(axis))
        .is_some_and(|bytes| isize::try_from(bytes).is_ok());
    if !sane || shape.len() > 64 {
        return Err(Error::input(format!("the shape {shape:?} is beyond any memory")));
    }
    Ok(shape.iter().product::<usize>() * dtype.size())
}

/// Decodes elements of `N` bytes.
fn each<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| decode(*chunk)).collect()
}

/// Reverses the bytes of every element: big-endian to little-endian and back.
pub(crate) fn swap_endianness(bytes: &mut [u8], element: usize) {
    if element > 1 {
        bytes.chunks_exact_mut(element).for_each(<[u8]>::reverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked() {
        assert!(Array::new(Dtype::F32, vec![2, 3], vec![0; 24].into()).is_ok());
        assert!(Array::new(Dtype::F32, vec![], vec![0; 4].into()).is_ok());
        for (shape, bytes) in [(vec![2, 3], 23), (vec![usize::MAX, 2], 0), (vec![1 << 62], 8)] {
            assert!(Array::new(Dtype::F32, shape, vec![0; bytes].into()).is_err());
        }
        // A zero must not hide an overflowing product.
        assert!(Array::new(Dtype::F64, vec![0, usize::MAX, 8], vec![].into()).is_err());
    }

    #[test]
    fn elements_convert() {
        let half = Array::new(Dtype::F16, vec![2], vec![0x00, 0x3c, 0x00, 0xc0].into()).unwrap();
        assert_eq!(half.to_f32(), [1.0, -2.0]);
        let brain = Array::new(Dtype::Bf16, vec![1], vec![0x80, 0x3f].into()).unwrap();
        assert_eq!(brain.to_f64(), [1.0]);
        assert_eq!(Array::from_i64(&[2], &[-1, 7]).unwrap().to_i64().unwrap(), [-1, 7]);
        assert!(half.to_i64().is_err());
        let huge = Array::new(Dtype::U64, vec![1], vec![0xff; 8].into()).unwrap();
        assert!(huge.to_i64().is_err());
    }
}
