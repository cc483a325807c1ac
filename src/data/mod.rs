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
pub mod live;
pub mod loader;
pub mod locate;
pub mod order;
pub mod picture;
pub mod pillow;
pub mod pixels;
pub mod policy;
pub mod reference;
pub mod shifted;
pub mod soft;
pub mod spec;
pub mod svhn;
pub mod synthetic;
pub mod tiny;

pub use find::{load, resolve, resolve_oblong, roots};
pub use pixels::{Parts, Pixels};
pub use soft::Soft;

use crate::{
    data::{
        order::{Order, Shuffle},
        pixels::Picked,
    },
    digest::hash_bytes,
    error::{Error, Result},
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
    /// Probabilities of the classes for each image, where somebody said more than a label.
    pub soft: Option<Soft>,
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
        let size = self.image_bytes();
        let pixels = self.pixels.narrow(size, skip, count);
        let soft = self.soft.map(|soft| soft.narrow(skip, count));
        Ok(Self { pixels, labels: self.labels[skip..skip + count].to_vec(), soft, ..self })
    }

    /// `count` images picked from all over this set, always the same ones in the same order; fewer
    /// are the first of more. Published sets are sorted by class: their first images will not do.
    ///
    /// # Panics
    /// If there are not that many.
    #[must_use]
    pub fn spread(self, count: usize) -> Self {
        assert!(count <= self.len(), "the caller compares");
        if count == self.len() {
            return self;
        }
        let shuffle = Shuffle::of(self.len());
        self.picked(Order::Shuffled(shuffle), count)
    }

    /// A set sorted by class taken by turns, as [`order::turns`] says; any other set as it is.
    #[must_use]
    pub fn by_turns(self) -> Self {
        if !self.labels.is_sorted() || self.labels.first() == self.labels.last() {
            return self;
        }
        let (turns, count) = (order::turns(&self.labels), self.len());
        self.picked(Order::Listed(turns), count)
    }

    fn picked(self, order: Order, count: usize) -> Self {
        let labels = (0..count).map(|index| self.labels[order.at(index)]).collect();
        let soft = self.soft.map(|soft| soft.picked(order.clone(), count));
        let picked = Picked::new(self.pixels, 3 * self.size.0 * self.size.1, order, count);
        Self { pixels: Pixels::Picked(picked), labels, soft, ..self }
    }

    /// A digest of pixels (channel by channel), labels (soft ones too) and size: what a job's id holds of its data.
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
            self.soft.iter().for_each(|soft| {
                hasher.update(soft.bytes(index));
            });
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Writes image `index` into `out`, channel by channel.
    pub fn copy_chw(&self, index: usize, out: &mut [u8]) {
        self.turn(self.image(index), out);
    }

    /// Image `index` pixel by pixel: red, green, blue bytes, as picture files and generated sets have
    /// them.
    pub fn rgb(&self, index: usize) -> Vec<u8> {
        let image = self.image(index);
        match self.layout {
            Layout::Hwc => image.to_vec(),
            Layout::Chw => {
                let plane = self.size.0 * self.size.1;
                (0..image.len()).map(|at| image[at % 3 * plane + at / 3]).collect()
            }
        }
    }

    /// As [`Dataset::copy_chw`], by way of `raw`, which holds one image: single images of a vast set
    /// are read, not looked at in the map.
    pub fn read_chw(&self, index: usize, raw: &mut [u8], out: &mut [u8]) {
        if self.pixels.is_vast() {
            self.pixels.copy_into(index * self.image_bytes(), raw);
            self.turn(raw, out);
        } else {
            self.copy_chw(index, out);
        }
    }

    /// As [`Dataset::read_chw`], but only if no disk has to be waited for: says whether that was so.
    pub fn take_chw(&self, index: usize, raw: &mut [u8], out: &mut [u8]) -> bool {
        if !self.pixels.is_vast() {
            self.copy_chw(index, out);
            return true;
        }
        let at_hand = self.pixels.copy_at_hand(index * self.image_bytes(), raw);
        if at_hand {
            self.turn(raw, out);
        }
        at_hand
    }

    /// Writes `image`, of this set's layout, channel by channel.
    fn turn(&self, image: &[u8], out: &mut [u8]) {
        match self.layout {
            Layout::Chw => out.copy_from_slice(image),
            Layout::Hwc => ::pixels::layout::split_channels(image, out),
        }
    }

    /// A short hash of one image's bytes (channel by channel), for per-example records.
    pub fn image_hash(&self, index: usize) -> String {
        let mut chw = vec![0; self.image_bytes()];
        self.copy_chw(index, &mut chw);
        hash_bytes(&chw)[..16].to_owned()
    }
}
