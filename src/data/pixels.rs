//! The bytes of many images, wherever they lie.

use std::ops::Range;

use crate::{data::order::Order, formats::bytes::Bytes};

/// The bytes of all images: in memory, or in mapped files that are never loaded whole.
#[derive(Debug)]
pub enum Pixels {
    /// In memory.
    Owned(Vec<u8>),
    /// A window of a file, mapped where the file allows it.
    Mapped(Bytes),
    /// Windows of several files, one after the other; each holds whole images, at least one.
    Parts(Parts),
    /// Images of other pixels, in another order.
    Picked(Picked),
}

/// Images picked from a set; where they lie does not change.
#[derive(Debug)]
pub struct Picked {
    from: Box<Pixels>,
    /// Bytes of one image.
    image: usize,
    order: Order,
    /// Which part of the order.
    part: Range<usize>,
}

impl Picked {
    /// The first `count` images of `from` in `order`.
    pub fn new(from: Pixels, image: usize, order: Order, count: usize) -> Self {
        Self { from: Box::new(from), image, order, part: 0..count }
    }

    /// `count` images after the first `skip`.
    fn narrow(self, skip: usize, count: usize) -> Self {
        let start = self.part.start + skip;
        Self { part: start..start + count, ..self }
    }

    /// Where the byte at `start` lies in the pixels picked from.
    fn place(&self, start: usize) -> usize {
        let index = self.order.at(self.part.start + start / self.image);
        index * self.image + start % self.image
    }
}

/// The parts of a set of many files.
#[derive(Debug)]
pub struct Parts {
    /// The offset of each part's first byte.
    starts: Vec<usize>,
    windows: Vec<Bytes>,
}

impl Parts {
    /// Joins `windows`, of which none is empty.
    pub fn new(windows: Vec<Bytes>) -> Self {
        let starts = windows.iter().scan(0, |next, window| {
            let start = *next;
            *next += window.len();
            Some(start)
        });
        Self { starts: starts.collect(), windows }
    }

    /// The windows with what lies before `start` and after `length` more bytes cut off.
    fn narrow(&self, start: usize, length: usize) -> Self {
        let end = start + length;
        let cut = self.starts.iter().zip(&self.windows).filter_map(|(&at, window)| {
            let (from, to) = (start.max(at), end.min(at + window.len()));
            (from < to).then(|| window.window(from - at, to - from).expect("inside"))
        });
        Self::new(cut.collect())
    }
}

impl Pixels {
    /// `count` records of `size` bytes each (images, say) after the first `skip`.
    pub(super) fn narrow(self, size: usize, skip: usize, count: usize) -> Self {
        let (start, length) = (skip * size, count * size);
        match self {
            Self::Mapped(bytes) => {
                Self::Mapped(bytes.window(start, length).expect("the caller compares"))
            }
            Self::Parts(parts) => Self::Parts(parts.narrow(start, length)),
            Self::Picked(picked) => Self::Picked(picked.narrow(skip, count)),
            Self::Owned(mut bytes) => {
                bytes.truncate(start + length);
                bytes.drain(..start);
                Self::Owned(bytes)
            }
        }
    }

    /// The `length` bytes from `start`, which lie in one part.
    pub fn range(&self, start: usize, length: usize) -> &[u8] {
        match self {
            Self::Owned(bytes) => &bytes[start..start + length],
            Self::Mapped(bytes) => &bytes[start..start + length],
            Self::Parts(parts) => {
                let part = parts.starts.partition_point(|&at| at <= start) - 1;
                &parts.windows[part][start - parts.starts[part]..][..length]
            }
            Self::Picked(picked) => picked.from.range(picked.place(start), length),
        }
    }

    /// Copies bytes from `start` on, which lie in one part, into `out`: the way to single images of
    /// a vast set.
    pub fn copy_into(&self, start: usize, out: &mut [u8]) {
        match self {
            Self::Owned(bytes) => out.copy_from_slice(&bytes[start..start + out.len()]),
            Self::Mapped(bytes) => bytes.copy_into(start, out),
            Self::Parts(parts) => {
                let part = parts.starts.partition_point(|&at| at <= start) - 1;
                parts.windows[part].copy_into(start - parts.starts[part], out);
            }
            Self::Picked(picked) => picked.from.copy_into(picked.place(start), out),
        }
    }

    /// As [`Pixels::copy_into`], but only if no disk has to be waited for: says whether that was so.
    pub fn copy_at_hand(&self, start: usize, out: &mut [u8]) -> bool {
        match self {
            Self::Owned(_) => {
                self.copy_into(start, out);
                true
            }
            Self::Mapped(bytes) => bytes.copy_at_hand(start, out),
            Self::Parts(parts) => {
                let part = parts.starts.partition_point(|&at| at <= start) - 1;
                parts.windows[part].copy_at_hand(start - parts.starts[part], out)
            }
            Self::Picked(picked) => picked.from.copy_at_hand(picked.place(start), out),
        }
    }

    /// Asks the system to begin reading `length` bytes from `start`, as far as they lie in one part.
    pub fn will_need(&self, start: usize, length: usize) {
        if length == 0 {
            return;
        }
        match self {
            Self::Owned(_) => {}
            Self::Mapped(bytes) => bytes.will_need(start, length),
            Self::Parts(parts) => {
                let part = parts.starts.partition_point(|&at| at <= start) - 1;
                let (inner, window) = (start - parts.starts[part], &parts.windows[part]);
                window.will_need(inner, length.min(window.len().saturating_sub(inner)));
            }
            Self::Picked(picked) => {
                for at in (start..start + length).step_by(picked.image) {
                    picked.from.will_need(picked.place(at), picked.image);
                }
            }
        }
    }

    /// Tells the system that all will be read from first to last.
    pub fn expect_in_order(&self) {
        match self {
            Self::Owned(_) => {}
            Self::Mapped(bytes) => bytes.expect_in_order(),
            Self::Parts(parts) => parts.windows.iter().for_each(Bytes::expect_in_order),
            Self::Picked(picked) => picked.from.expect_in_order(),
        }
    }

    /// Lets the system take back the memory behind `length` bytes from `start` of a mapped file, as
    /// far as they lie in one part.
    pub fn let_go(&self, start: usize, length: usize) {
        match self {
            Self::Owned(_) | Self::Picked(_) => {}
            Self::Mapped(bytes) => bytes.window(start, length).iter().for_each(Bytes::let_go),
            Self::Parts(parts) => {
                let part = parts.starts.partition_point(|&at| at <= start) - 1;
                let (inner, window) = (start - parts.starts[part], &parts.windows[part]);
                let length = length.min(window.len().saturating_sub(inner));
                window.window(inner, length).iter().for_each(Bytes::let_go);
            }
        }
    }

    /// Whether reading single images may have to wait for a disk each time.
    pub fn is_vast(&self) -> bool {
        const VAST: usize = 1 << 30;
        match self {
            Self::Owned(_) => false,
            Self::Mapped(bytes) => bytes.len() > VAST,
            Self::Parts(parts) => {
                parts.windows.iter().map(|window| window.len()).sum::<usize>() > VAST
            }
            Self::Picked(picked) => picked.from.is_vast(),
        }
    }

    /// The runs of bytes, in order.
    pub fn runs(&self) -> Vec<&[u8]> {
        match self {
            Self::Owned(bytes) => vec![bytes],
            Self::Mapped(bytes) => vec![bytes],
            Self::Parts(parts) => parts.windows.iter().map(|window| &**window).collect(),
            Self::Picked(picked) => {
                let count = picked.part.len();
                let image = picked.image;
                (0..count).map(|index| self.range(index * image, image)).collect()
            }
        }
    }
}
