//! Soft labels: how probable each class is, in place of one class.

use crate::{
    data::{Pixels, order::Order, pixels::Picked},
    error::{Error, Result},
    formats::bytes::Bytes,
};

/// Bytes of one probability.
const SIZE: usize = 4;

/// Probabilities of the classes for each image of a set, wherever their bytes lie.
#[derive(Debug)]
pub struct Soft {
    classes: usize,
    /// `[n,classes]` float32, little-endian, row after row.
    rows: Pixels,
}

impl Soft {
    /// `rows` hold `classes` numbers for each image.
    pub fn new(classes: usize, rows: Pixels) -> Self {
        Self { classes, rows }
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The row of image `index` as bytes.
    pub fn bytes(&self, index: usize) -> &[u8] {
        self.rows.range(index * self.width(), self.width())
    }

    /// The probabilities of image `index`.
    pub fn row(&self, index: usize) -> impl Iterator<Item = f32> {
        numbers(self.bytes(index))
    }

    fn width(&self) -> usize {
        self.classes * SIZE
    }

    /// `count` rows after the first `skip`.
    pub(super) fn narrow(self, skip: usize, count: usize) -> Self {
        let width = self.width();
        Self { rows: self.rows.narrow(width, skip, count), ..self }
    }

    /// `count` rows in `order`.
    pub(super) fn picked(self, order: Order, count: usize) -> Self {
        let width = self.width();
        let rows = Pixels::Picked(Picked::new(self.rows, width, order, count));
        Self { rows, ..self }
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<SIZE>().0.iter().map(|word| f32::from_le_bytes(*word))
}

/// Looks at the `classes` probabilities of every image of one file: each a number from 0 to 1, a
/// row's sum nearly 1.
///
/// # Errors
/// At the first row that is none.
pub(super) fn check(rows: &Bytes, classes: usize) -> Result<()> {
    for (index, row) in rows.chunks_exact((classes * SIZE).max(1)).enumerate() {
        let sane = numbers(row).all(|share| (0.0..=1.0).contains(&share));
        let sum: f32 = numbers(row).sum();
        // Sixteen bits of a network, and sums of many classes, are this far from 1.
        if !sane || (sum - 1.0).abs() > 0.01 {
            return Err(Error::input(format!(
                "`soft` of image {index} is no distribution over classes: numbers from 0 to 1 that \
                 add up to 1 are expected, the sum is {sum}"
            )));
        }
    }
    Ok(())
}
