//! Zip archives, read where they lie: stored entries are windows of the mapped file. Nothing is
//! ever unpacked to disk.
//!
//! The directory at the end is what counts, zip64 included. Entries that overlap, that leave the
//! file, that are encrypted or have the same name are refused.
//!
//! Source: PKWARE, APPNOTE.TXT 6.3.10.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    error::{Error, Result},
    formats::bytes::Bytes,
};

/// What all deflated entries may unpack to together, besides sixteen times the archive's own size:
/// zip bombs stop here.
const FREE_INFLATION: u64 = 1 << 30;

/// An open archive.
#[derive(Debug)]
pub struct Archive {
    bytes: Bytes,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    /// How much may still be unpacked.
    budget: AtomicU64,
}

/// One file of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name, folders with slashes.
    pub name: String,
    /// Bytes when unpacked.
    pub size: u64,
    /// Whether the bytes lie in the archive as they are.
    pub stored: bool,
    packed: u64,
    header: u64,
    data: u64,
    crc: u32,
}

impl Archive {
    /// Reads the directory of the zip archive `bytes`.
    ///
    /// # Errors
    /// If there is none, or it contradicts itself or the file.
    pub fn open(bytes: Bytes) -> Result<Self> {
        let (start, count) = directory(&bytes)?;
        let mut entries = Vec::new();
        let mut at = start;
        for _ in 0..count {
            let (entry, next) = central_entry(&bytes, at)?;
            entries.push(entry);
            at = next;
        }
        refuse_overlaps(&mut entries, start)?;
        let mut by_name = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            if by_name.insert(entry.name.clone(), index).is_some() {
                return wrong(format!("two entries are called `{}`", entry.name));
            }
        }
        let budget = FREE_INFLATION + 16 * bytes.len() as u64;
        let packed = entries.iter().filter(|entry| !entry.stored);
        let claimed = packed.fold(0, |sum: u64, entry| sum.saturating_add(entry.size));
        if claimed > budget {
            return wrong(format!(
                "it unpacks to {claimed} bytes, far more than its size; refused"
            ));
        }
        let budget = AtomicU64::new(budget);
        Ok(Self { bytes, entries, by_name, budget })
    }

    /// All entries, in the order of their bytes.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry called `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|&index| &self.entries[index])
    }

    /// Writes the unpacked bytes of `entry` to `out`, piece by piece, and checks them.
    ///
    /// # Errors
    /// If they do not unpack to what the directory says, or `out` fails.
    pub fn unpack(&self, entry: &Entry, out: &mut dyn io::Write) -> io::Result<()> {
        let packed = self
            .bytes
            .window(entry.data as usize, entry.packed as usize)
            .expect("checked when opened");
        if entry.stored {
            return out.write_all(&packed);
        }
        let unpacked = flate2::read::DeflateDecoder::new(&packed[..]).take(entry.size + 1);
        let mut checked = flate2::CrcReader::new(unpacked);
        let size = io::copy(&mut checked, out)?;
        if size != entry.size || checked.crc().sum() != entry.crc {
            let message = format!("zip entry `{}` is damaged (size or checksum)", entry.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(())
    }

    /// The bytes of `entry`: a window if stored, else unpacked into memory and checked.
    ///
    /// # Errors
    /// If they do not unpack to what the directory says, or to too much.
    pub fn read(&self, entry: &Entry) -> Result<Bytes> {
        let packed = self
            .bytes
            .window(entry.data as usize, entry.packed as usize)
            .expect("checked when opened");
        if entry.stored {
            return Ok(packed);
        }
        // No deflated byte stands for more than 1032.
        if entry.size / 1032 > entry.packed + 1 {
            return wrong(format!(
                "entry `{}` claims to unpack from {} to {} bytes; refused",
                entry.name, entry.packed, entry.size
            ));
        }
        let take = |left: u64| left.checked_sub(entry.size);
        if self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return wrong("its compressed entries are read over and over; refused");
        }
        let mut unpacked = Vec::new();
        // One byte beyond what is claimed shows that there is more.
        flate2::read::DeflateDecoder::new(&packed[..])
            .take(entry.size + 1)
            .read_to_end(&mut unpacked)
            .map_err(|error| Error::input(format!("zip entry `{}`: {error}", entry.name)))?;
        let mut crc = flate2::Crc::new();
        crc.update(&unpacked);
        if unpacked.len() as u64 != entry.size || crc.sum() != entry.crc {
            return wrong(format!("entry `{}` is damaged (size or checksum)", entry.name));
        }
        Ok(unpacked.into())
    }

    /// As [`Archive::read`], the checksum of a stored entry looked at too: every byte of it is
    /// read. A checksum of zero is none (torch leaves it out where it is told to).
    ///
    /// # Errors
    /// As [`Archive::read`], and if the checksum is another.
    pub fn read_sound(&self, entry: &Entry) -> Result<Bytes> {
        let bytes = self.read(entry)?;
        if !entry.stored || entry.crc == 0 {
            return Ok(bytes);
        }
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        if crc.sum() != entry.crc {
            return wrong(format!("entry `{}` is damaged (checksum)", entry.name));
        }
        bytes.let_go();
        Ok(bytes)
    }
}

fn wrong<T>(what: impl std::fmt::Display) -> Result<T> {
    Err(Error::input(format!("zip archive: {what}")))
}

/// `N` bytes at `at`, for a little-endian number.
fn fixed<const N: usize>(bytes: &[u8], at: u64) -> Result<[u8; N]> {
    usize::try_from(at)
        .ok()
        .and_then(|at| bytes.get(at..)?.first_chunk::<N>().copied())
        .map_or_else(|| wrong(format!("cut short at byte {at}")), Ok)
}

fn u16_at(bytes: &[u8], at: u64) -> Result<u64> {
    Ok(u64::from(u16::from_le_bytes(fixed(bytes, at)?)))
}

fn u32_at(bytes: &[u8], at: u64) -> Result<u64> {
    Ok(u64::from(u32::from_le_bytes(fixed(bytes, at)?)))
}

fn u64_at(bytes: &[u8], at: u64) -> Result<u64> {
    Ok(u64::from_le_bytes(fixed(bytes, at)?))
}

/// Where the central directory starts and how many entries it has.
fn directory(bytes: &[u8]) -> Result<(u64, u64)> {
    let first = bytes.len().saturating_sub(22 + 0xffff);
    // The record must end exactly where the file ends, or its own comment could imitate one.
    let end = (first..(bytes.len() + 1).saturating_sub(22)).rev().find(|&at| {
        bytes[at..].starts_with(b"PK\x05\x06")
            && u16_at(bytes, at as u64 + 20).ok() == Some((bytes.len() - at - 22) as u64)
    });
    let Some(end) = end.map(|at| at as u64) else {
        return wrong("no directory at the end; is the file cut short?");
    };
    let (mut count, mut size) = (u16_at(bytes, end + 10)?, u32_at(bytes, end + 12)?);
    let mut start = u32_at(bytes, end + 16)?;
    let mut directory_end = end;
    if count == 0xffff || size == 0xffff_ffff || start == 0xffff_ffff {
        let locator = end.wrapping_sub(20);
        if end >= 20 && fixed(bytes, locator)? == *b"PK\x06\x07" {
            let record = u64_at(bytes, locator + 8)?;
            if record >= locator || fixed(bytes, record)? != *b"PK\x06\x06" {
                return wrong("the zip64 directory is not where it should be");
            }
            count = u64_at(bytes, record + 32)?;
            size = u64_at(bytes, record + 40)?;
            start = u64_at(bytes, record + 48)?;
            directory_end = record;
        }
    }
    if start.checked_add(size).is_none_or(|stop| stop > directory_end) || size / 46 < count {
        return wrong(format!("{count} entries do not fit into a directory of {size} bytes"));
    }
    Ok((start, count))
}

/// One record of the central directory, and where the next one starts.
fn central_entry(bytes: &[u8], at: u64) -> Result<(Entry, u64)> {
    if fixed(bytes, at)? != *b"PK\x01\x02" {
        return wrong(format!("no directory record at byte {at}"));
    }
    let (flags, method) = (u16_at(bytes, at + 8)?, u16_at(bytes, at + 10)?);
    let crc = u32::from_le_bytes(fixed(bytes, at + 16)?);
    let (mut packed, mut size) = (u32_at(bytes, at + 20)?, u32_at(bytes, at + 24)?);
    let name_length = u16_at(bytes, at + 28)?;
    let extra_length = u16_at(bytes, at + 30)?;
    let mut header = u32_at(bytes, at + 42)?;
    let extra_start = at + 46 + name_length;
    let next = extra_start + extra_length + u16_at(bytes, at + 32)?;
    let Some(name) = bytes.get((at + 46) as usize..extra_start as usize) else {
        return wrong(format!("cut short at byte {at}"));
    };
    let name = name_of(name)?;
    let Some(extra) = bytes.get(extra_start as usize..(extra_start + extra_length) as usize) else {
        return wrong(format!("cut short at byte {extra_start}"));
    };
    widen(extra, [&mut size, &mut packed, &mut header])?;
    if flags & 1 != 0 {
        return wrong(format!("entry `{name}` is encrypted; refused"));
    }
    if method != 0 && method != 8 {
        return wrong(format!("entry `{name}` is packed by method {method}; known: 0 and 8"));
    }
    if method == 0 && packed != size {
        return wrong(format!("entry `{name}` is stored, but in {packed} bytes for {size}"));
    }
    if fixed(bytes, header)? != *b"PK\x03\x04" {
        return wrong(format!("entry `{name}` does not begin at byte {header} as stated"));
    }
    let data = header + 30 + u16_at(bytes, header + 26)? + u16_at(bytes, header + 28)?;
    if data.checked_add(packed).is_none_or(|stop| stop > bytes.len() as u64) {
        return wrong(format!("entry `{name}` reaches beyond the end; is the file cut short?"));
    }
    Ok((Entry { name, size, stored: method == 0, packed, header, data, crc }, next))
}

/// Takes sizes and offset from the zip64 field, in this order, each only where the short field
/// is full.
fn widen(mut extra: &[u8], fields: [&mut u64; 3]) -> Result<()> {
    while let Some(([tag_low, tag_high, low, high], rest)) = extra.split_first_chunk::<4>() {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let Some((body, after)) = rest.split_at_checked(length) else {
            // Padding need not be well-formed; what we need from it is asked for below.
            break;
        };
        if u16::from_le_bytes([*tag_low, *tag_high]) == 1 {
            let mut wide = body.as_chunks::<8>().0.iter();
            for field in fields {
                if *field == 0xffff_ffff {
                    match wide.next() {
                        Some(bytes) => *field = u64::from_le_bytes(*bytes),
                        None => return wrong("a zip64 field is too short"),
                    }
                }
            }
            return Ok(());
        }
        extra = after;
    }
    Ok(())
}

/// The name, refused where it could mean something else on disk.
fn name_of(bytes: &[u8]) -> Result<String> {
    let Ok(name) = std::str::from_utf8(bytes) else {
        return wrong("an entry's name is not UTF-8");
    };
    let climbs = name.split(['/', '\\']).any(|part| part == "..");
    if name.is_empty() || name.starts_with('/') || name.contains('\0') || climbs {
        return wrong(format!("the entry name `{}` leads outside; refused", name.escape_debug()));
    }
    Ok(name.to_owned())
}

/// Sorts by position and refuses entries that share bytes with each other or the directory.
fn refuse_overlaps(entries: &mut [Entry], directory: u64) -> Result<()> {
    entries.sort_by_key(|entry| entry.header);
    for (index, entry) in entries.iter().enumerate() {
        let limit = entries.get(index + 1).map_or(directory, |next| next.header);
        if entry.data + entry.packed > limit {
            return wrong(format!("entry `{}` overlaps what follows it; refused", entry.name));
        }
    }
    Ok(())
}
