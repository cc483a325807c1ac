//! Labelled images: the published sets as people have them on disk, a synthetic one drawn by us,
//! generated sets, and the batches made of them. Bytes and labels; no tensor library below `batch`.

pub mod augment;
pub mod batch;
pub mod cache;
pub mod catalog;
pub mod cifar;
pub mod fetch;
pub mod find;
pub mod folder;
pub mod generated;
mod held_out;
pub mod loader;
pub mod locate;
pub mod picture;
pub mod pillow;
pub mod policy;
pub mod shifted;
pub mod spec;
pub mod svhn;
pub mod synthetic;
pub mod tiny;

pub use find::{load, resolve, roots};

use crate::{
    digest::hash_bytes,
    error::{Error, Result},
    formats::bytes::Bytes,
};

/// How the bytes of one image are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Channel by channel, as CIFAR's files and tensors have it.
    Chw,
    /// Pixel by pixel, as image files and generated `.npz` sets have it.
    Hwc,
}

/// Images of one size with one label each, in a fixed order.
#[derive(Debug)]
pub struct Dataset {
    /// The set's name: `cifar10`, `synthetic`, a folder's name.
    pub name: String,
    /// Class names by label.
    pub classes: Vec<String>,
    /// Height and width in pixels; all images have three channels.
    pub size: (usize, usize),
    /// Order of the bytes in each image of `pixels`.
    pub layout: Layout,
    /// `len * 3 * height * width` bytes, image after image.
    pub pixels: Pixels,
    /// One label for each image, below `classes.len()`.
    pub labels: Vec<u16>,
}

/// The bytes of all images: in memory, or in mapped files that are never loaded whole.
#[derive(Debug)]
pub enum Pixels {
    /// In memory.
    Owned(Vec<u8>),
    /// A window of a file, mapped where the file allows it.
    Mapped(Bytes),
    /// Windows of several files, one after the other; each holds whole images, at least one.
    Parts(Parts),
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
    /// The `length` bytes from `start`, which lie in one part.
    pub fn range(&self, start: usize, length: usize) -> &[u8] {
        match self {
            Self::Owned(bytes) => &bytes[start..start + length],
            Self::Mapped(bytes) => &bytes[start..start + length],
            Self::Parts(parts) => {
                let part = parts.starts.partition_point(|&at| at <= start) - 1;
                &parts.windows[part][start - parts.starts[part]..][..length]
            }
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
        }
    }

    /// The runs of bytes, in order.
    pub fn runs(&self) -> Vec<&[u8]> {
        match self {
            Self::Owned(bytes) => vec![bytes],
            Self::Mapped(bytes) => vec![bytes],
            Self::Parts(parts) => parts.windows.iter().map(|window| &**window).collect(),
        }
    }
}

/// Images that are asked for together where a whole set is read.
const BLOCK: usize = 1024;

impl Dataset {
    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one image.
    pub fn image_bytes(&self) -> usize {
        3 * self.size.0 * self.size.1
    }

    /// The bytes of image `index` in this set's [`Layout`].
    pub fn image(&self, index: usize) -> &[u8] {
        self.pixels.range(index * self.image_bytes(), self.image_bytes())
    }

    /// The `count` images after the first `skip`, or all that follow.
    ///
    /// # Errors
    /// If there are not that many.
    pub fn subset(self, skip: u64, count: Option<u64>) -> Result<Self> {
        let held = self.len() as u64;
        let count = count.unwrap_or_else(|| held.saturating_sub(skip));
        if skip.checked_add(count).is_none_or(|end| end > held) {
            return Err(Error::input(format!(
                "`{}`: {count} images after the first {skip} are wanted, but there are {held} in all",
                self.name
            )));
        }
        let (skip, count) = (skip as usize, count as usize);
        let (start, length) = (skip * self.image_bytes(), count * self.image_bytes());
        let pixels = match self.pixels {
            Pixels::Mapped(bytes) => {
                Pixels::Mapped(bytes.window(start, length).expect("just compared"))
            }
            Pixels::Parts(parts) => Pixels::Parts(parts.narrow(start, length)),
            Pixels::Owned(mut bytes) => {
                bytes.truncate(start + length);
                bytes.drain(..start);
                Pixels::Owned(bytes)
            }
        };
        Ok(Self { pixels, labels: self.labels[skip..skip + count].to_vec(), ..self })
    }

    /// A digest of pixels (channel by channel), labels and size: what a job's id holds of its data.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.size.0 as u64).to_le_bytes());
        hasher.update(&(self.size.1 as u64).to_le_bytes());
        hasher.update(&(self.classes.len() as u64).to_le_bytes());
        let mut chw = vec![0; self.image_bytes()];
        for (index, label) in self.labels.iter().enumerate() {
            // Whoever expects single images must be told of a read from first to last.
            if index % BLOCK == 0 {
                let images = BLOCK.min(self.len().saturating_sub(index + BLOCK));
                self.pixels.will_need((index + BLOCK) * chw.len(), images * chw.len());
            }
            self.copy_chw(index, &mut chw);
            hasher.update(&chw);
            hasher.update(&label.to_le_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Writes image `index` into `out`, channel by channel.
    pub fn copy_chw(&self, index: usize, out: &mut [u8]) {
        let image = self.image(index);
        match self.layout {
            Layout::Chw => out.copy_from_slice(image),
            Layout::Hwc => {
                let plane = self.size.0 * self.size.1;
                for (position, pixel) in image.chunks_exact(3).enumerate() {
                    for channel in 0..3 {
                        out[channel * plane + position] = pixel[channel];
                    }
                }
            }
        }
    }

    /// A short hash of one image's bytes (channel by channel), for per-example records.
    pub fn image_hash(&self, index: usize) -> String {
        let mut chw = vec![0; self.image_bytes()];
        self.copy_chw(index, &mut chw);
        hash_bytes(&chw)[..16].to_owned()
    }
}
