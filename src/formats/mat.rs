//! MATLAB files of level 5 (`save -v6` and `-v7`): the plain numeric arrays in them.
//!
//! MATLAB is column-major; arrays come with their axes reversed, which is the same bytes in our
//! order. Source: MathWorks, MAT-File Level 5 File Format.

use std::{io::Read as _, path::Path};

use crate::{
    error::{Error, Result},
    formats::{
        array::{Array, Dtype, byte_count, swap_endianness},
        bytes::Bytes,
        in_file,
    },
};

/// A compressed variable may unpack to this, or to what its packed size allows, whichever is less.
const MOST_UNPACKED: u64 = 8 << 30;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// All numeric arrays of the file at `path` with their names; other variables are passed over.
///
/// # Errors
/// If it is not a MATLAB file of level 5, or bad.
pub fn read(path: &Path) -> Result<Vec<(String, Array)>> {
    let bytes = Bytes::map(path)?;
    in_file(path, parse(&bytes))
}

fn wrong<T>(what: impl std::fmt::Display) -> Result<T> {
    Err(Error::input(format!("MATLAB file: {what}")))
}

/// [`read`] for bytes at hand.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &Bytes) -> Result<Vec<(String, Array)>> {
    let order = match bytes.get(124..128) {
        Some([_, _, b'I', b'M']) => Order::Little,
        Some([_, _, b'M', b'I']) => Order::Big,
        _ if bytes.starts_with(b"\x89HDF") => {
            return wrong("version 7.3 (HDF5) is not supported; save it with -v7");
        }
        _ => return wrong("no level 5 header; is it a MATLAB file?"),
    };
    let mut found = Vec::new();
    let mut at = 128;
    while at < bytes.len() {
        let element = Element::at(bytes, at, order)?;
        // Compressed variables are the only elements without padding.
        at = if element.kind == COMPRESSED { element.end } else { element.padded_end() };
        let matrix = match element.kind {
            COMPRESSED => {
                let inner = unpack(&element.body(bytes))?;
                let element = Element::at(&inner, 0, order)?;
                if element.kind != MATRIX {
                    return wrong("a compressed element that is not a variable");
                }
                element.body(&inner)
            }
            MATRIX => element.body(bytes),
            _ => continue,
        };
        found.extend(variable(&matrix, order)?);
    }
    Ok(found)
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

/// A tagged run of bytes.
struct Element {
    kind: u32,
    start: usize,
    end: usize,
    small: bool,
}

impl Element {
    fn at(bytes: &[u8], at: usize, order: Order) -> Result<Self> {
        let word = |at: usize| match bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) {
            Some(word) => Ok(order.u32(*word)),
            None => wrong(format!("a tag at byte {at} is not complete; is the file cut short?")),
        };
        let first = word(at)?;
        // Up to four bytes are packed into the tag itself, their count in its upper half.
        let (kind, start, length, small) = if first >> 16 != 0 {
            (first & 0xffff, at + 4, (first >> 16) as usize, true)
        } else {
            (first, at + 8, word(at + 4)? as usize, false)
        };
        let left = bytes.len().saturating_sub(start);
        if length > left || (small && length > 4) {
            return wrong(format!(
                "the element at byte {at} has {length} bytes, {left} are left; is the file cut \
                 short?"
            ));
        }
        Ok(Self { kind, start, end: start + length, small })
    }

    fn body(&self, bytes: &Bytes) -> Bytes {
        bytes.window(self.start, self.end - self.start).expect("checked when found")
    }

    /// Where the next element begins: at a multiple of eight bytes from this one.
    fn padded_end(&self) -> usize {
        if self.small {
            self.start + 4
        } else {
            self.start + (self.end - self.start).next_multiple_of(8)
        }
    }
}

fn unpack(packed: &[u8]) -> Result<Bytes> {
    let most = MOST_UNPACKED.min((1 << 20) + 1040 * packed.len() as u64);
    let mut unpacked = Vec::new();
    let result = flate2::read::ZlibDecoder::new(packed).take(most + 1).read_to_end(&mut unpacked);
    if let Err(error) = result {
        return wrong(format!("a compressed variable is damaged or cut short: {error}"));
    }
    if unpacked.len() as u64 > most {
        return wrong(format!("a variable unpacks to more than {most} bytes; refused"));
    }
    Ok(unpacked.into())
}

/// One variable: flags, dimensions, name, numbers. `None` if it is not a real numeric array.
fn variable(body: &Bytes, order: Order) -> Result<Option<(String, Array)>> {
    let mut at = 0;
    let mut next = || -> Result<(u32, Bytes)> {
        let element = Element::at(body, at, order)?;
        at = element.padded_end();
        Ok((element.kind, element.body(body)))
    };
    let (_, flags) = next()?;
    let Some(flags) = flags.first_chunk::<4>().map(|word| order.u32(*word)) else {
        return wrong("a variable without flags");
    };
    let class = flags & 0xff;
    let complex = flags & 0x800 != 0;
    // Classes 6 to 15 are numbers.
    if complex || !(6..=15).contains(&class) {
        return Ok(None);
    }
    let (_, dimensions) = next()?;
    let (_, name) = next()?;
    let (stored, numbers) = next()?;
    let mut shape = Vec::new();
    for word in dimensions.as_chunks::<4>().0.iter().rev() {
        // Stored as i32; what is negative becomes too large to pass the check of the length.
        shape.push(order.u32(*word) as usize);
    }
    let Some(stored) = stored_type(stored) else {
        return wrong(format!("numbers of the unknown type {stored}"));
    };
    if byte_count(stored, &shape)? != numbers.len() {
        let (axes, bytes) = (shape, numbers.len());
        return wrong(format!("{axes:?} {} in {bytes} bytes", stored.name()));
    }
    let numbers = if order == Order::Big && stored.size() > 1 {
        let mut bytes = numbers.to_vec();
        swap_endianness(&mut bytes, stored.size());
        bytes.into()
    } else {
        numbers
    };
    // MATLAB saves whole numbers in the narrowest type that holds them; that type is kept, for the
    // variable's class could only say how they were computed.
    let name = String::from_utf8_lossy(&name).into_owned();
    Ok(Some((name, Array::new(stored, shape, numbers)?)))
}

/// The type in which numbers are stored.
fn stored_type(kind: u32) -> Option<Dtype> {
    Some(match kind {
        1 => Dtype::I8,
        2 => Dtype::U8,
        3 => Dtype::I16,
        4 => Dtype::U16,
        5 => Dtype::I32,
        6 => Dtype::U32,
        7 => Dtype::F32,
        9 => Dtype::F64,
        12 => Dtype::I64,
        13 => Dtype::U64,
        _ => return None,
    })
}
