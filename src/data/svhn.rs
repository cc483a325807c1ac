//! SVHN, cropped digits, as its authors publish it: `train_32x32.mat`, `test_32x32.mat`.
//!
//! Source: <http://ufldl.stanford.edu/housenumbers/>. Digit 0 is stored as label 10.

use std::path::Path;

use crate::{
    data::{Dataset, Layout, Pixels, spec::Split},
    error::{Error, Result},
    formats::{array::Dtype, mat},
};

/// The file of one half.
pub fn file(split: Split) -> &'static str {
    match split {
        Split::Train => "train_32x32.mat",
        Split::Test => "test_32x32.mat",
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// If it is not a MATLAB file with `X` uint8 `[32,32,3,n]` and `y` `[n,1]` of 1 to 10.
pub fn read(path: &Path) -> Result<Dataset> {
    let arrays = mat::read(path)?;
    let find = |name: &str| {
        let found = arrays.iter().find(|(found, _)| found == name).map(|(_, array)| array);
        found.ok_or_else(|| Error::in_file(path, format!("no array `{name}`")))
    };
    let (images, digits) = (find("X")?, find("y")?);
    // Axes come reversed: [n, 3, column, row].
    let (&[count, 3, width, height], Dtype::U8) = (images.shape(), images.dtype()) else {
        let (dtype, shape) = (images.dtype().name(), images.shape());
        return Err(Error::in_file(
            path,
            format!("`X` is {dtype} {shape:?} (axes reversed), expected uint8 [n, 3, 32, 32]"),
        ));
    };
    if digits.len() != count {
        let found = digits.len();
        return Err(Error::in_file(path, format!("{count} images but {found} labels")));
    }
    let labels = digits.to_f64().into_iter().enumerate().map(|(index, digit)| {
        if (1.0..=10.0).contains(&digit) && digit.fract() == 0.0 {
            Ok(digit as u16 % 10)
        } else {
            Err(Error::in_file(path, format!("label {digit} of image {index}; expected 1 to 10")))
        }
    });
    let labels = labels.collect::<Result<Vec<u16>>>()?;
    let mut pixels = Vec::with_capacity(images.len());
    for plane in images.bytes().chunks_exact((width * height).max(1)) {
        for row in 0..height {
            pixels.extend((0..width).map(|column| plane[column * height + row]));
        }
    }
    Ok(Dataset {
        name: "svhn".to_owned(),
        classes: (0..10).map(|digit| digit.to_string()).collect(),
        size: (height, width),
        layout: Layout::Chw,
        pixels: Pixels::Owned(pixels),
        labels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn both_halves_read() {
        let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED");
        let folder = Path::new(&shared).join("data");
        let train = read(&folder.join("svhn").join(file(Split::Train))).unwrap();
        let test = read(&folder.join("svhn").join(file(Split::Test))).unwrap();
        assert_eq!((train.len(), test.len(), train.size), (800, 283, (32, 32)));
        // Neighbouring pixels of photographs are alike, and digits change more from left to right
        // than from top to bottom: a wrong or transposed order of axes would show.
        let change = |step: usize| {
            let pairs = train.pixels.bytes().iter().zip(&train.pixels.bytes()[step..]);
            let total: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            total as f64 / train.pixels.bytes().len() as f64
        };
        let (across, down) = (change(1), change(32));
        assert!(down < across && across < 15.0, "{across} {down}");
        let cut = read(&folder.join("broken/train_32x32.truncated.mat")).unwrap_err().to_string();
        assert!(cut.contains("cut short") && cut.contains("truncated.mat"), "{cut}");
    }
}
