//! Raster images: PNG bytes, and data addresses that carry them inside HTML.

use std::io::Cursor;

use image::{
    ExtendedColorType, ImageEncoder,
    codecs::png::{CompressionType, FilterType, PngEncoder},
};

use super::input::{Grid, GridImage};
use crate::error::{Error, Result};

/// `rgb` (line by line) as the bytes of a PNG file.
///
/// # Errors
/// If the sizes do not agree.
pub fn png(rgb: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    if rgb.len() as u64 != 3 * u64::from(width) * u64::from(height) || rgb.is_empty() {
        return Err(Error::input(format!(
            "an image of {width} x {height} pixels needs {} bytes, found {}",
            3 * u64::from(width) * u64::from(height),
            rgb.len()
        )));
    }
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive)
        .write_image(rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| Error::input(format!("PNG: {error}")))?;
    Ok(bytes.into_inner())
}

/// An image of a sheet as a `data:` address. Pixels stay as they are; the page enlarges them.
///
/// # Errors
/// If the image's sizes do not agree.
pub fn data_address(image: &GridImage) -> Result<String> {
    let bytes = png(&image.rgb, image.width, image.height)?;
    Ok(address("image/png", &bytes))
}

/// `bytes` as a `data:` address of the given media type.
pub fn address(media: &str, bytes: &[u8]) -> String {
    format!("data:{media};base64,{}", base64(bytes))
}

/// A whole sheet as one PNG, each pixel enlarged, for the Markdown report.
///
/// # Errors
/// If an image's sizes do not agree with those of the first.
pub fn sheet(grid: &Grid) -> Result<Vec<u8>> {
    let Some(first) = grid.images.first() else {
        return Err(Error::input(format!("the sheet `{}` has no image", grid.title)));
    };
    let (w, h) = (first.width as usize, first.height as usize);
    let columns = grid.columns.clamp(1, grid.images.len());
    let lines = grid.images.len().div_ceil(columns);
    let (scale, gap) = ((96 / w.max(1)).max(1), 4);
    let (cell_w, cell_h) = (w * scale + gap, h * scale + gap);
    let (width, height) = (columns * cell_w + gap, lines * cell_h + gap);
    let mut pixels = vec![255u8; 3 * width * height];
    for (at, image) in grid.images.iter().enumerate() {
        if image.rgb.len() != 3 * w * h {
            return Err(Error::input(format!("image {at} of `{}` has another size", grid.title)));
        }
        let (left, top) = (gap + at % columns * cell_w, gap + at / columns * cell_h);
        for y in 0..h * scale {
            for x in 0..w * scale {
                let from = 3 * (y / scale * w + x / scale);
                let to = 3 * ((top + y) * width + left + x);
                pixels[to..to + 3].copy_from_slice(&image.rgb[from..from + 3]);
            }
        }
    }
    png(&pixels, width as u32, height as u32)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at) & 63) as usize] as char;
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_rfc_4648() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn sheets_keep_their_pixels() {
        let image = |value: u8| GridImage {
            label: String::new(),
            width: 2,
            height: 2,
            rgb: vec![value; 12],
        };
        let grid = Grid {
            title: "t".into(),
            caption: String::new(),
            columns: 2,
            images: vec![image(10), image(200), image(90)],
        };
        let bytes = sheet(&grid).unwrap();
        let read = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(read.dimensions(), (204, 204));
        assert_eq!(read.get_pixel(5, 5).0, [10; 3]);
        assert_eq!(read.get_pixel(150, 5).0, [200; 3]);
        assert_eq!(read.get_pixel(5, 150).0, [90; 3]);
        assert_eq!(read.get_pixel(150, 150).0, [255; 3]);
        assert!(png(&[0; 5], 2, 2).is_err());
    }
}
