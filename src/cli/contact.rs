//! Contact sheets: many images of a set on one picture.

use std::{
    io::{Cursor, Write as _},
    path::Path,
};

use image::{ImageFormat, Rgb, RgbImage, imageops};

use crate::{
    data::Dataset,
    error::{Error, Result},
    formats::write_atomically,
};

/// Images of one class on a sheet, and classes on it: a line for each class.
const COLUMNS: usize = 16;
pub(super) const LINES: usize = 40;
/// Pixels between images.
const GAP: usize = 2;

/// A white sheet.
pub(super) fn blank(width: usize, height: usize) -> RgbImage {
    RgbImage::from_pixel(width as u32, height as u32, Rgb([255; 3]))
}

/// Puts an image of `set` onto `sheet`.
pub(super) fn put(sheet: &mut RgbImage, set: &Dataset, index: usize, (left, top): (usize, usize)) {
    let (height, width) = set.size;
    let image = RgbImage::from_raw(width as u32, height as u32, set.rgb(index)).expect("its bytes");
    imageops::replace(sheet, &image, left as i64, top as i64);
}

/// The first images of the first classes, a class to a line.
pub(super) fn by_class(set: &Dataset) -> RgbImage {
    let (height, width) = set.size;
    let lines = set.classes.len().clamp(1, LINES);
    let mut sheet = blank(COLUMNS * (width + GAP), lines * (height + GAP));
    let mut drawn = vec![0; lines];
    for (index, &label) in set.labels.iter().enumerate() {
        let line = usize::from(label);
        if line >= lines || drawn[line] == COLUMNS {
            continue;
        }
        put(&mut sheet, set, index, (drawn[line] * (width + GAP), line * (height + GAP)));
        drawn[line] += 1;
        if drawn.iter().all(|count| *count == COLUMNS) {
            break;
        }
    }
    sheet
}

/// Writes a sheet as a PNG, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(sheet: &RgbImage, path: &Path) -> Result<()> {
    let mut png = Cursor::new(Vec::new());
    sheet.write_to(&mut png, ImageFormat::Png).map_err(|error| Error::in_file(path, error))?;
    write_atomically(path, |file| file.write_all(png.get_ref()))
}
