//! One numpy array in a file (`.npy`, versions 1 to 3).
//!
//! Source: numpy/lib/format.py, NEP 1.

use crate::{
    error::{Error, Result},
    formats::{
        array::{Array, Dtype, byte_count, swap_endianness},
        bytes::Bytes,
    },
};

/// What every `.npy` file begins with.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// How the elements of a numpy array lie in memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub(super) dtype: Dtype,
    pub(super) big_endian: bool,
    /// Column-major: the first index moves fastest.
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

impl Layout {
    /// Whether the elements lie as [`Array`] has them.
    pub(super) fn is_plain(&self) -> bool {
        let axes = self.shape.iter().filter(|&&length| length != 1).count();
        !(self.big_endian && self.dtype.size() > 1) && (!self.fortran || axes < 2)
    }

    /// The array over `data`: a window if plain, else a copy in our order.
    pub(super) fn array(self, data: Bytes) -> Result<Array> {
        if self.is_plain() {
            return Array::new(self.dtype, self.shape, data);
        }
        let expected = byte_count(self.dtype, &self.shape)?;
        if expected != data.len() {
            // Says what is wrong, in the same words as for plain arrays.
            return Array::new(self.dtype, self.shape, data);
        }
        let mut bytes = if self.fortran { self.row_major(&data) } else { data.to_vec() };
        if self.big_endian {
            swap_endianness(&mut bytes, self.dtype.size());
        }
        Array::new(self.dtype, self.shape, bytes.into())
    }

    fn row_major(&self, data: &[u8]) -> Vec<u8> {
        let element = self.dtype.size();
        let mut out = Vec::with_capacity(data.len());
        let mut index = vec![0; self.shape.len()];
        while out.len() < data.len() {
            let position = index.iter().zip(&self.shape).rev().fold(0, |sum, (i, n)| sum * n + i);
            out.extend_from_slice(&data[position * element..][..element]);
            for (digit, length) in index.iter_mut().zip(&self.shape).rev() {
                *digit += 1;
                if *digit < *length {
                    break;
                }
                *digit = 0;
            }
        }
        out
    }
}

/// The array in `bytes`, a whole `.npy` file.
///
/// # Errors
/// If the header or the number of bytes is wrong, or the elements are of an unsupported type.
pub fn parse(bytes: &Bytes) -> Result<Array> {
    let cut = || Error::input(".npy: the header is not complete; is the file cut short?");
    let Some([major, _]) = bytes.get(6..8).filter(|_| bytes.starts_with(MAGIC)) else {
        return Err(Error::input(".npy: no numpy array begins here"));
    };
    let (start, length) = match major {
        1 => {
            let length = bytes.get(8..).and_then(<[u8]>::first_chunk).ok_or_else(cut)?;
            (10, usize::from(u16::from_le_bytes(*length)))
        }
        2 | 3 => {
            let length = bytes.get(8..).and_then(<[u8]>::first_chunk).ok_or_else(cut)?;
            (12, u32::from_le_bytes(*length) as usize)
        }
        other => return Err(Error::input(format!(".npy: version {other}; known are 1 to 3"))),
    };
    // numpy itself stops at 10,000 bytes.
    if length > 1 << 16 {
        return Err(Error::input(format!(".npy: a header of {length} bytes; refused")));
    }
    let header = bytes.get(start..start + length).ok_or_else(cut)?;
    let layout = header_layout(&String::from_utf8_lossy(header))?;
    let left = bytes.len() - start - length;
    let expected = byte_count(layout.dtype, &layout.shape)?;
    if left < expected {
        return Err(Error::input(format!(
            ".npy: {expected} bytes of {} {:?} are announced, {left} are there; is the file cut \
             short?",
            layout.dtype.name(),
            layout.shape
        )));
    }
    layout.array(bytes.window(start + length, expected).expect("just compared"))
}

/// The header of an array as `.npy` files of version 1 have it, padded to 64 bytes.
pub fn header(dtype: Dtype, shape: &[usize]) -> Vec<u8> {
    let axes = shape.iter().map(|length| format!("{length},")).collect::<Vec<_>>().join(" ");
    let axes = if shape.len() > 1 { axes.trim_end_matches(',') } else { &axes };
    let code = match dtype {
        Dtype::Bool => "|b1",
        Dtype::U8 => "|u1",
        Dtype::I8 => "|i1",
        Dtype::U16 => "<u2",
        Dtype::I16 => "<i2",
        Dtype::U32 => "<u4",
        Dtype::I32 => "<i4",
        Dtype::U64 => "<u8",
        Dtype::I64 => "<i8",
        Dtype::F16 => "<f2",
        // numpy has no such type; its bits are kept, as ml_dtypes does.
        Dtype::Bf16 => "<V2",
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
    };
    let mut text = format!("{{'descr': '{code}', 'fortran_order': False, 'shape': ({axes}), }}");
    text.push_str(&" ".repeat(63 - (10 + text.len()) % 64));
    text.push('\n');
    let length = u16::try_from(text.len()).expect("shapes have few axes");
    [MAGIC, &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat()
}

/// The element type of a numpy code without byte order: `f4`, `u1`.
pub(super) fn dtype_of(code: &str) -> Option<Dtype> {
    Some(match code {
        "b1" | "?" => Dtype::Bool,
        "u1" => Dtype::U8,
        "i1" => Dtype::I8,
        "u2" => Dtype::U16,
        "i2" => Dtype::I16,
        "u4" => Dtype::U32,
        "i4" => Dtype::I32,
        "u8" => Dtype::U64,
        "i8" => Dtype::I64,
        "f2" => Dtype::F16,
        "f4" => Dtype::F32,
        "f8" => Dtype::F64,
        _ => return None,
    })
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn header_layout(text: &str) -> Result<Layout> {
    let wrong = |what: &str| {
        let shown: String = text.trim().chars().take(120).collect();
        Error::input(format!(".npy: {what} in the header `{shown}`"))
    };
    let value = |key: &str| {
        let after = text.split_once(&format!("'{key}':"))?.1.trim_start();
        Some(after)
    };
    let descr = value("descr").ok_or_else(|| wrong("no `descr`"))?;
    let code = descr
        .strip_prefix('\'')
        .and_then(|rest| rest.split_once('\''))
        .ok_or_else(|| wrong("records, which are not supported,"))?
        .0;
    let (big_endian, code) = match code.split_at_checked(1) {
        Some(("<" | "|" | "=", rest)) => (false, rest),
        Some((">", rest)) => (true, rest),
        _ => (false, code),
    };
    let dtype =
        dtype_of(code).ok_or_else(|| wrong(&format!("elements of unsupported type `{code}`")))?;
    let fortran = match value("fortran_order") {
        Some(rest) if rest.starts_with("False") => false,
        Some(rest) if rest.starts_with("True") => true,
        _ => return Err(wrong("no `fortran_order`")),
    };
    let shape = value("shape")
        .and_then(|rest| rest.strip_prefix('(')?.split_once(')'))
        .ok_or_else(|| wrong("no `shape`"))?
        .0
        .split(',')
        .map(str::trim)
        .filter(|axis| !axis.is_empty())
        // Python 2 wrote long integers as 10L.
        .map(|axis| axis.trim_end_matches('L').parse::<usize>().ok())
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| wrong("a bad `shape`"))?;
    Ok(Layout { dtype, big_endian, fortran, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Bytes {
        let mut bytes = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes()].concat();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes.into()
    }

    #[test]
    fn orders_of_axes_and_bytes_are_undone() {
        let text = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        // Columns (1,4), (2,5), (3,6), most significant byte first.
        let array = parse(&file(text, &[0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6])).unwrap();
        assert_eq!(array.shape(), [2, 3]);
        assert_eq!(array.to_i64().unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn headers_come_back() {
        for shape in [vec![], vec![3], vec![2, 3, 4]] {
            let count = shape.iter().product::<usize>();
            let mut bytes = header(Dtype::F32, &shape);
            assert_eq!(bytes.len() % 64, 0);
            bytes.extend(vec![0; 4 * count]);
            let array = parse(&bytes.into()).unwrap();
            assert_eq!((array.dtype(), array.shape()), (Dtype::F32, &shape[..]));
        }
    }

    #[test]
    fn bad_headers_say_what_is_wrong() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
        for (header, hint) in [
            (good.replace("<f4", "|O"), "unsupported type `O`"),
            (good.replace("'<f4'", "[('a', '<f4')]"), "records"),
            (good.replace("(2,)", "(-2,)"), "a bad `shape`"),
            (good.replace("(2,)", "(3,)"), "12 bytes"),
            (good.replace("(2,)", "(9999999999999, 9999999999999)"), "beyond any memory"),
            (good.replace("False", "Maybe"), "no `fortran_order`"),
            (String::new(), "no `descr`"),
        ] {
            let message = parse(&file(&header, &[0; 8])).unwrap_err().to_string();
            assert!(message.contains(hint), "{header}: {message}");
        }
        assert!(parse(&file(good, &[0; 8])).is_ok());
    }
}
