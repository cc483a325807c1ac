//! A window of bytes that are in memory or in a mapped file, cheap to clone and to narrow.

use std::{
    fmt, fs, fs::File, io::IoSliceMut, ops::Deref, os::unix::fs::FileExt as _, path::Path,
    sync::Arc,
};

use memmap2::{Advice, Mmap, UncheckedAdvice};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::error::{AtPath, Error, Result};

/// Shared read-only bytes. Clones and windows share the memory or the map.
#[derive(Clone)]
pub struct Bytes {
    source: Arc<Source>,
    start: usize,
    length: usize,
}

enum Source {
    Memory(Vec<u8>),
    /// A large file is kept open besides: see [`Bytes::copy_into`].
    Map(Mmap, Option<File>),
}

/// Larger files are kept open.
const LARGE: usize = 64 << 20;

impl Bytes {
    /// The whole file at `path`, mapped: nothing is read until it is looked at.
    ///
    /// # Errors
    /// If `path` is not a regular file or cannot be opened.
    #[allow(unsafe_code)] // mapping is unsafe: see the note inside
    pub fn map(path: &Path) -> Result<Self> {
        // Looked at before opening: opening a pipe would wait for ever.
        let found = fs::metadata(path).at(path)?;
        if !found.is_file() {
            let kind = if found.is_dir() { "a folder" } else { "neither a file nor a folder" };
            return Err(Error::in_file(path, format!("is {kind}; expected a file")));
        }
        if found.len() == 0 {
            return Ok(Self::from(Vec::new()));
        }
        let file = File::open(path).at(path)?;
        // SAFETY: the map is private and read-only. A file cut short by somebody else while we
        // read ends the process with SIGBUS, as with every program that maps files; ours are
        // written beside and renamed, never changed in place.
        let map = unsafe { Mmap::map(&file) }.at(path)?;
        let length = map.len();
        let file = (length > LARGE).then_some(file);
        Ok(Self { source: Arc::new(Source::Map(map, file)), start: 0, length })
    }

    /// `length` bytes from `start`, or `None` where that leaves this window.
    pub fn window(&self, start: usize, length: usize) -> Option<Self> {
        let end = start.checked_add(length)?;
        (end <= self.length).then(|| Self {
            source: Arc::clone(&self.source),
            start: self.start + start,
            length,
        })
    }

    /// Copies what begins at `start` into `out`. From a large file by a plain read: for a single
    /// image this costs a third of the two page faults that a look into the map costs.
    ///
    /// # Panics
    /// If `out` is longer than what is left.
    pub fn copy_into(&self, start: usize, out: &mut [u8]) {
        assert!(start + out.len() <= self.length, "a read outside of the window");
        let done = match &*self.source {
            Source::Map(_, Some(file)) => {
                file.read_exact_at(out, (self.start + start) as u64).is_ok()
            }
            Source::Map(_, None) | Source::Memory(_) => false,
        };
        if !done {
            out.copy_from_slice(&self[start..start + out.len()]);
        }
    }

    /// As [`Bytes::copy_into`], but only if no disk has to be waited for: says whether that was so.
    /// If not, what is in `out` means nothing.
    ///
    /// # Panics
    /// If `out` is longer than what is left.
    pub fn copy_at_hand(&self, start: usize, out: &mut [u8]) -> bool {
        assert!(start + out.len() <= self.length, "a read outside of the window");
        if let Source::Map(_, Some(file)) = &*self.source {
            let (length, at) = (out.len(), (self.start + start) as u64);
            let into = &mut [IoSliceMut::new(out)];
            // A file system that cannot tell says so: then all is taken to be far.
            return preadv2(file, into, at, ReadWriteFlags::NOWAIT) == Ok(length);
        }
        out.copy_from_slice(&self[start..start + out.len()]);
        true
    }

    /// Lets the system take back the memory behind a mapped file: the next look reads it again.
    #[allow(unsafe_code)] // advice on a map is unsafe: see the note inside
    pub fn let_go(&self) {
        if let Source::Map(map, _) = &*self.source
            && self.length > 1 << 16
        {
            // SAFETY: the map is read-only, so that nothing in these pages can be lost.
            let _ = unsafe {
                map.unchecked_advise_range(UncheckedAdvice::DontNeed, self.start, self.length)
            }; // it is only advice
        }
    }

    /// Tells the system that single places will be read in no order: it then reads no more than
    /// these from the disk. Nothing happens for bytes in memory.
    pub fn expect_random(&self) {
        if let Source::Map(map, _) = &*self.source {
            // Advice that is refused changes speed alone.
            let _ = map.advise_range(Advice::Random, self.start, self.length);
        }
    }

    /// Tells the system that all will be read from first to last: it then reads far ahead.
    pub fn expect_in_order(&self) {
        if let Source::Map(map, _) = &*self.source {
            let _ = map.advise_range(Advice::Sequential, self.start, self.length);
        }
    }

    /// Asks the system to begin reading `length` bytes from `start` while we do other things.
    pub fn will_need(&self, start: usize, length: usize) {
        if let Source::Map(map, _) = &*self.source {
            let _ = map.advise_range(Advice::WillNeed, self.start + start, length);
        }
    }

    /// Whether the bytes lie in a mapped file rather than in memory.
    pub fn is_mapped(&self) -> bool {
        matches!(*self.source, Source::Map(..))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        Self { source: Arc::new(Source::Memory(bytes)), start: 0, length }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &*self.source {
            Source::Memory(bytes) => bytes,
            Source::Map(map, _) => map,
        };
        &all[self.start..self.start + self.length]
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stay_inside() {
        let bytes = Bytes::from((0..10).collect::<Vec<u8>>());
        let middle = bytes.window(3, 4).unwrap();
        assert_eq!(*middle, [3, 4, 5, 6]);
        assert_eq!(*middle.window(3, 1).unwrap(), [6]);
        assert!(middle.window(3, 2).is_none());
        assert!(middle.window(usize::MAX, 2).is_none());
    }

    #[test]
    fn only_files_are_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let message = Bytes::map(folder.path()).unwrap_err().to_string();
        assert!(message.contains("is a folder"), "{message}");
        assert!(Bytes::map(Path::new("/dev/zero")).is_err());
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(Bytes::map(&path).unwrap().is_empty());
        fs::write(&path, "abc").unwrap();
        let map = Bytes::map(&path).unwrap();
        assert!(map.is_mapped() && *map == *b"abc");
        let mut part = [0; 2];
        map.window(1, 2).unwrap().copy_into(0, &mut part);
        assert_eq!(part, *b"bc");
    }

    #[test]
    fn large_files_are_read_as_they_are_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"near", 5).unwrap();
        file.write_all_at(b"far", LARGE as u64 + 7).unwrap();
        let map = Bytes::map(&path).unwrap();
        let (window, mut part) = (map.window(3, map.len() - 3).unwrap(), [0; 4]);
        window.copy_into(2, &mut part);
        assert_eq!(part, *b"near");
        window.copy_into(LARGE + 3, &mut part);
        assert_eq!(part, *b"\0far");
        assert_eq!(part, window[LARGE + 3..LARGE + 7]);
        // What was just read is at hand, unless the file system cannot tell.
        if window.copy_at_hand(2, &mut part) {
            assert_eq!(part, *b"near");
        }
        assert!(Bytes::from(b"abc".to_vec()).copy_at_hand(1, &mut part[..2]));
        assert_eq!(part[..2], *b"bc");
    }
}
