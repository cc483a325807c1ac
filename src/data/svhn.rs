//! SVHN, cropped digits, as its authors publish it: `train_32x32.mat`, `test_32x32.mat` and
//! `extra_32x32.mat`, or the same arrays in `.npz` files.
//!
//! Source: <http://ufldl.stanford.edu/housenumbers/>. Digit 0 is stored as label 10.

use std::path::Path;

use crate::{
    data::{Dataset, Layout, Pixels, generated, spec::Split},
    error::{Error, Result},
    formats::{array::Dtype, mat, npz},
};

/// The files of one half, without their endings. `extra` means the further training images.
pub fn stems(split: Split, extra: bool) -> [&'static str; 2] {
    match split {
        Split::Train if extra => ["extra_32x32", "extra"],
        Split::Train => ["train_32x32", "train"],
        Split::Test => ["test_32x32", "test"],
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// If it does not hold `X` uint8 `[32,32,3,n]` and `y` `[n,1]` of 1 to 10; an `.npz` file may hold
/// `image` `[n,32,32,3]` and `label` `[n]` of 0 to 9 instead.
pub fn read(path: &Path) -> Result<Dataset> {
    let is_mat = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("mat"));
    let arrays = if is_mat { mat::read(path)? } else { npz::read(path)? };
    if !is_mat && arrays.iter().any(|(name, _)| name == "image") {
        let set = generated::read(path, "svhn", &classes())?;
        return Ok(Dataset { name: "svhn".to_owned(), ..set });
    }
    let find = |name: &str| {
        let found = arrays.iter().find(|(found, _)| found == name).map(|(_, array)| array);
        found.ok_or_else(|| {
            let held: Vec<_> = arrays.iter().map(|(name, _)| name.as_str()).collect();
            Error::in_file(path, format!("no array `{name}`; it has {held:?}"))
        })
    };
    let (images, digits) = (find("X")?, find("y")?);
    // MATLAB's axes come reversed; numpy's keep MATLAB's order or count images first.
    let order = match (is_mat, images.shape(), images.dtype()) {
        (true, &[_, 3, 32, 32], Dtype::U8) => Order::Reversed,
        (false, &[32, 32, 3, _], Dtype::U8) => Order::Last,
        (false, &[_, 32, 32, 3], Dtype::U8) => Order::First,
        (_, shape, dtype) => {
            let shown: Vec<_> =
                if is_mat { shape.iter().rev().collect() } else { shape.iter().collect() };
            return Err(Error::in_file(
                path,
                format!("`X` is {} {shown:?}, expected uint8 [32, 32, 3, n]", dtype.name()),
            ));
        }
    };
    let count = images.len() / IMAGE;
    if digits.len() != count || count == 0 {
        let found = digits.len();
        return Err(Error::in_file(path, format!("{count} images but {found} labels")));
    }
    Ok(Dataset {
        name: "svhn".to_owned(),
        classes: classes(),
        size: (32, 32),
        layout: Layout::Chw,
        pixels: Pixels::Owned(channels_first(images.bytes(), count, order)),
        labels: labels(path, &digits.to_f64())?,
        soft: None,
    })
}

const IMAGE: usize = 3 * 32 * 32;

fn classes() -> Vec<String> {
    (0..10).map(|digit| digit.to_string()).collect()
}

fn labels(path: &Path, digits: &[f64]) -> Result<Vec<u16>> {
    let check = |(index, &digit): (usize, &f64)| {
        if (1.0..=10.0).contains(&digit) && digit.fract() == 0.0 {
            Ok(digit as u16 % 10)
        } else {
            Err(Error::in_file(path, format!("label {digit} of image {index}; expected 1 to 10")))
        }
    };
    digits.iter().enumerate().map(check).collect()
}

/// How the bytes of `X` follow each other, outermost axis first.
#[derive(Clone, Copy)]
enum Order {
    /// Image, channel, column, row.
    Reversed,
    /// Row, column, channel, image.
    Last,
    /// Image, row, column, channel.
    First,
}

fn channels_first(bytes: &[u8], count: usize, order: Order) -> Vec<u8> {
    const EDGE: usize = 32;
    let mut pixels = Vec::with_capacity(bytes.len());
    for image in 0..count {
        for (channel, row) in (0..3).flat_map(|channel| (0..EDGE).map(move |row| (channel, row))) {
            pixels.extend((0..EDGE).map(|column| {
                bytes[match order {
                    Order::Reversed => ((image * 3 + channel) * EDGE + column) * EDGE + row,
                    Order::Last => ((row * EDGE + column) * 3 + channel) * count + image,
                    Order::First => ((image * EDGE + row) * EDGE + column) * 3 + channel,
                }]
            }));
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn both_halves_read() {
        let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED");
        let folder = Path::new(&shared).join("data");
        let train = read(&folder.join("svhn/train_32x32.mat")).unwrap();
        let test = read(&folder.join("svhn/test_32x32.mat")).unwrap();
        assert_eq!((train.len(), test.len(), train.size), (800, 283, (32, 32)));
        // Neighbouring pixels of photographs are alike, and digits change more from left to right
        // than from top to bottom: a wrong or transposed order of axes would show.
        let change = |step: usize| {
            let bytes = train.pixels.runs()[0];
            let pairs = bytes.iter().zip(&bytes[step..]);
            let total: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            total as f64 / bytes.len() as f64
        };
        let (across, down) = (change(1), change(32));
        assert!(down < across && across < 15.0, "{across} {down}");
        let cut = read(&folder.join("broken/train_32x32.truncated.mat")).unwrap_err().to_string();
        assert!(cut.contains("cut short") && cut.contains("truncated.mat"), "{cut}");
    }
}
