//! Picture files as RGB bytes, equal to what Pillow's `Image.open(path).convert("RGB")` gives.

use std::{io::Cursor, num::NonZero, thread};

use image::DynamicImage;

use crate::{
    data::{Dataset, Layout, Pixels},
    error::{Error, Result},
    formats::{
        in_file, jpeg,
        shelf::{Shelf, looks_like_html},
    },
};

/// Larger images than any set for this purpose has.
const WIDEST: u32 = 4096;
/// What torchvision takes for a picture: other files in a class folder are passed over.
const ENDINGS: [&str; 9] =
    [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"];
/// Of these, what is read here.
const READ: usize = 3;

/// Whether `name` ends as a picture's does.
pub fn is_picture(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Height, width and RGB bytes of a JPEG or PNG file.
///
/// # Errors
/// If it is none or is damaged.
pub fn decode(bytes: &[u8]) -> Result<((usize, usize), Vec<u8>)> {
    if bytes.starts_with(b"\xff\xd8") {
        return jpeg::decode(bytes);
    }
    if !bytes.starts_with(b"\x89PNG") {
        return Err(Error::input(match bytes {
            [] => "is empty; expected a JPEG or PNG image",
            _ if looks_like_html(bytes) => "is an HTML page; expected a JPEG or PNG image",
            _ => "is neither a JPEG nor a PNG image; convert it",
        }));
    }
    let mut reader = image::ImageReader::new(Cursor::new(bytes));
    reader.set_format(image::ImageFormat::Png);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(WIDEST);
    limits.max_image_height = Some(WIDEST);
    reader.limits(limits);
    let image = reader.decode().map_err(|error| Error::input(format!("PNG image: {error}")))?;
    let size = (image.height() as usize, image.width() as usize);
    Ok((size, rgb(image)))
}

/// Sixteen bits become eight as in Pillow: the upper half, but grey levels are cut off at 255.
fn rgb(image: DynamicImage) -> Vec<u8> {
    let upper = |level: u16| (level >> 8) as u8;
    match image {
        DynamicImage::ImageLuma16(grey) => {
            grey.into_raw().into_iter().flat_map(|level| [level.min(255) as u8; 3]).collect()
        }
        DynamicImage::ImageLumaA16(grey) => {
            grey.into_raw().as_chunks::<2>().0.iter().flat_map(|[l, _]| [upper(*l); 3]).collect()
        }
        DynamicImage::ImageRgb16(image) => image.into_raw().into_iter().map(upper).collect(),
        DynamicImage::ImageRgba16(image) => {
            let pixels = image.into_raw();
            pixels
                .as_chunks::<4>()
                .0
                .iter()
                .flat_map(|[r, g, b, _]| [*r, *g, *b].map(upper))
                .collect()
        }
        other => other.into_rgb8().into_raw(),
    }
}

/// Decodes `files` of `shelf` with their labels on all cores, in order, all of one size.
///
/// # Errors
/// The first bad file in order; the message names it.
pub fn dataset(
    shelf: &Shelf,
    name: &str,
    classes: Vec<String>,
    files: &[(String, u16)],
) -> Result<Dataset> {
    let Some((first, _)) = files.first() else {
        return Err(Error::in_file(shelf.path(), "no images; expected JPEG or PNG files"));
    };
    let (size, _) = one(shelf, first)?;
    let bytes = 3 * size.0 * size.1;
    if bytes == 0 || files.len().checked_mul(bytes).is_none() {
        return Err(Error::in_file(&shelf.place(first), "has no pixels"));
    }
    let mut pixels = vec![0u8; files.len() * bytes];
    let lanes = thread::available_parallelism().map_or(1, NonZero::get);
    let share = files.len().div_ceil(lanes);
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let lanes =
            files.chunks(share).zip(pixels.chunks_mut(share * bytes)).map(|(names, out)| {
                scope.spawn(move || {
                for ((file, _), place) in names.iter().zip(out.chunks_exact_mut(bytes)) {
                    let (found, image) = one(shelf, file)?;
                    if found != size {
                        return Err(Error::in_file(
                            &shelf.place(file),
                            format!(
                                "is {}x{} pixels, but `{first}` is {}x{}; all must be of one size",
                                found.1, found.0, size.1, size.0
                            ),
                        ));
                    }
                    place.copy_from_slice(&image);
                }
                Ok(())
            })
            });
        let lanes: Vec<_> = lanes.collect();
        lanes.into_iter().map(|lane| lane.join().expect("decoding returns errors")).collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    let labels = files.iter().map(|(_, label)| *label).collect();
    let (name, pixels) = (name.to_owned(), Pixels::Owned(pixels));
    Ok(Dataset { name, classes, size, layout: Layout::Hwc, pixels, labels, soft: None })
}

fn one(shelf: &Shelf, file: &str) -> Result<((usize, usize), Vec<u8>)> {
    let ending = file.to_ascii_lowercase();
    if ENDINGS[READ..].iter().any(|other| ending.ends_with(other)) {
        return Err(Error::in_file(&shelf.place(file), "only JPEG and PNG are read; convert it"));
    }
    in_file(&shelf.place(file), decode(&shelf.read(file)?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Hashes of `Image.open(path).convert("RGB").tobytes()` in Pillow 13.0, libjpeg-turbo 3.2.
    const PILLOW: [(&str, (usize, usize), &str); 12] = [
        ("420.jpg", (17, 23), "a0ba247e8d27e8da8001ef34849bf6b3"),
        ("422-progressive.jpg", (16, 19), "8edf892edcc9213bd555f6f1415a6cc5"),
        ("411-restarts.jpg", (9, 33), "a9e31b8b8f3ac9bd5925ec14551d76d2"),
        ("444-rgb.jpg", (8, 8), "3b6bc439f44a4b9c68594c8c31878711"),
        ("grey.jpg", (12, 7), "37d54361b8cba46ea41d564a0b3b8c70"),
        ("cmyk.jpg", (11, 14), "e0ae03c24a788fcba321b25862a7064a"),
        ("grey.png", (5, 6), "d2215c892646505cee8f8b6f14c182d5"),
        ("grey16.png", (5, 6), "1126b1a62ee00fc4a568bdd6cf26da1e"),
        ("rgba.png", (5, 6), "6dd0eb7935575d710a90cce9e6eadcd3"),
        ("palette.png", (9, 9), "53272b1438dbde32b8da1faab4972585"),
        ("bits.png", (9, 9), "9a639c6088b0f2a04fdf8dae07f8fb52"),
        ("rgb16.png", (4, 5), "b06722f2cabbf1eacb88c65e283296b6"),
    ];

    fn file(name: &str) -> Vec<u8> {
        std::fs::read(Path::new("tests/pictures").join(name)).unwrap()
    }

    #[test]
    fn every_kind_of_picture_decodes_as_in_pillow() {
        for (name, size, hash) in PILLOW {
            let (found, pixels) = decode(&file(name)).unwrap();
            assert_eq!((found, pixels.len()), (size, 3 * size.0 * size.1), "{name}");
            assert_eq!(format!("{:x}", md5::compute(pixels)), hash, "{name}");
        }
    }

    #[test]
    fn cut_and_damaged_pictures_are_refused() {
        for (name, _, hash) in PILLOW {
            let whole = file(name);
            for length in 0..whole.len() {
                // A PNG is whole without the trailer of its last chunk.
                let lacks_little = name.ends_with(".png") && length + 16 > whole.len();
                match decode(&whole[..length]) {
                    Err(error) => assert!(error.exit_code() == 2, "{name} {length}"),
                    Ok((_, pixels)) => {
                        let same = format!("{:x}", md5::compute(pixels)) == hash;
                        assert!(lacks_little && same, "{name} cut to {length} bytes");
                    }
                }
            }
        }
        let message = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        let mut bent = file("420.jpg");
        let middle = bent.len() - 60;
        bent[middle..middle + 20].fill(0xff);
        assert!(message(&bent).contains("damaged"), "{}", message(&bent));
        assert!(message(b"<!DOCTYPE html><html>").contains("HTML"));
        assert!(message(b"GIF89a").contains("neither a JPEG nor a PNG"));
        assert!(message(b"").contains("empty"));
        // A header that promises 65500 x 65500 pixels makes nothing large.
        let mut vast = file("420.jpg");
        let frame = vast.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        vast[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
        assert!(message(&vast).contains("65500x65500"), "{}", message(&vast));
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn tiny_imagenet_decodes_as_in_pillow() {
        let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED");
        let shelf = Shelf::open(&Path::new(&shared).join("data/tiny-imagenet-200.zip")).unwrap();
        let mut names = shelf.names("").unwrap();
        names.retain(|name| name.ends_with(".JPEG"));
        names.sort();
        assert_eq!(names.len(), 3000);
        // All pictures in the order of their names, 49 of them grey.
        let mut all = md5::Context::new();
        for name in &names {
            all.consume(one(&shelf, name).unwrap().1);
        }
        assert_eq!(format!("{:x}", all.finalize()), "18d4a5a2d9eae652d604034bd91ca0cf");
    }
}
