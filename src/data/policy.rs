//! The published augmentation policies: AutoAugment's for CIFAR-10, RandAugment, and IDBH. They
//! draw what to do; [`super::pillow`] does it.

use crate::{data::pillow::Image, rng::Stream};

/// An operation of AutoAugment's policy.
#[derive(Clone, Copy)]
enum Op {
    Invert,
    Contrast,
    Rotate,
    TranslateX,
    TranslateY,
    Sharpness,
    ShearY,
    AutoContrast,
    Equalize,
    Posterize,
    Color,
    Brightness,
    Solarize,
}

use Op::{
    AutoContrast, Brightness, Color, Contrast, Equalize, Invert, Posterize, Rotate, Sharpness,
    ShearY, Solarize, TranslateX, TranslateY,
};

/// The 25 sub-policies: each of two operations with its probability in tenths and its magnitude
/// from 0 to 9.
///
/// Source: Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data", table 7.
const CIFAR10: [[(u64, Op, usize); 2]; 25] = [
    [(1, Invert, 7), (2, Contrast, 6)],
    [(7, Rotate, 2), (3, TranslateX, 9)],
    [(8, Sharpness, 1), (9, Sharpness, 3)],
    [(5, ShearY, 8), (7, TranslateY, 9)],
    [(5, AutoContrast, 8), (9, Equalize, 2)],
    [(2, ShearY, 7), (3, Posterize, 7)],
    [(4, Color, 3), (6, Brightness, 7)],
    [(3, Sharpness, 9), (7, Brightness, 9)],
    [(6, Equalize, 5), (5, Equalize, 1)],
    [(6, Contrast, 7), (6, Sharpness, 5)],
    [(7, Color, 7), (5, TranslateX, 8)],
    [(3, Equalize, 7), (4, AutoContrast, 8)],
    [(4, TranslateY, 3), (2, Sharpness, 6)],
    [(9, Brightness, 6), (2, Color, 8)],
    [(5, Solarize, 2), (0, Invert, 3)],
    [(2, Equalize, 0), (6, AutoContrast, 0)],
    [(2, Equalize, 8), (6, Equalize, 4)],
    [(9, Color, 9), (6, Equalize, 6)],
    [(8, AutoContrast, 4), (2, Solarize, 8)],
    [(1, Brightness, 3), (7, Color, 0)],
    [(4, Solarize, 5), (9, AutoContrast, 3)],
    [(9, TranslateY, 9), (7, TranslateY, 9)],
    [(9, AutoContrast, 2), (8, Solarize, 3)],
    [(8, Equalize, 8), (1, Invert, 3)],
    [(7, TranslateY, 9), (9, AutoContrast, 1)],
];

/// What AutoAugment puts where nothing comes from.
const GREY: u8 = 128;

/// AutoAugment: one of the sub-policies for CIFAR-10, as DM-Improves-AT uses it.
pub fn auto_augment(stream: &mut Stream, image: &mut Image) {
    let chosen = CIFAR10[stream.below(CIFAR10.len() as u64) as usize];
    for (tenths, op, magnitude) in chosen {
        if stream.below(10) < tenths {
            sub_policy(stream, image, op, magnitude);
        }
    }
}

fn sub_policy(stream: &mut Stream, image: &mut Image, op: Op, magnitude: usize) {
    let share = magnitude as f64 / 9.0;
    let either = |stream: &mut Stream, most: f64| {
        if stream.chance(0.5) { most * share } else { -most * share }
    };
    let (width, height) = (image.width as f64, image.height as f64);
    let farthest = 150.0 / 331.0;
    match op {
        Invert => image.invert(),
        AutoContrast => image.autocontrast(),
        Equalize => image.equalize(),
        Posterize => image.posterize([8, 8, 7, 7, 6, 6, 5, 5, 4, 4][magnitude]),
        Solarize => image.solarize(256.0 - 256.0 * share),
        Rotate => image.rotate(30.0 * share, GREY),
        ShearY => {
            let slope = either(stream, 0.3);
            image.affine_bicubic([1.0, 0.0, 0.0, slope, 1.0, 0.0], GREY);
        }
        TranslateX => {
            let way = either(stream, farthest) * width;
            image.affine([1.0, 0.0, way, 0.0, 1.0, 0.0], GREY);
        }
        TranslateY => {
            let way = either(stream, farthest) * height;
            image.affine([1.0, 0.0, 0.0, 0.0, 1.0, way], GREY);
        }
        Color => image.color((1.0 + either(stream, 0.9)) as f32),
        Contrast => image.contrast((1.0 + either(stream, 0.9)) as f32),
        Brightness => image.brightness((1.0 + either(stream, 0.9)) as f32),
        Sharpness => image.sharpness((1.0 + either(stream, 0.9)) as f32),
    }
}

/// RandAugment: `count` of 16 operations, each at `magnitude` of 30, as the package that
/// DM-Improves-AT uses has it (pixels count for 32x32 images as they do for larger ones).
///
/// Source: Cubuk et al. 2020; ildoonet/pytorch-randaugment.
pub fn rand_augment(stream: &mut Stream, image: &mut Image, count: usize, magnitude: f64) {
    let share = magnitude / 30.0;
    for _ in 0..count {
        let op = stream.below(16);
        let sign = if stream.chance(0.5) { -1.0 } else { 1.0 };
        let enhance = (0.1 + 1.8 * share) as f32;
        match op {
            0 => image.autocontrast(),
            1 => image.equalize(),
            2 => image.invert(),
            3 => image.rotate(sign * 30.0 * share, 0),
            4 => image.posterize((4.0 * share).max(1.0) as u32),
            5 => image.solarize(256.0 * share),
            6 => image.solarize_add(110.0 * share),
            7 => image.color(enhance),
            8 => image.contrast(enhance),
            9 => image.brightness(enhance),
            10 => image.sharpness(enhance),
            11 => image.affine([1.0, sign * 0.3 * share, 0.0, 0.0, 1.0, 0.0], 0),
            12 => image.affine([1.0, 0.0, 0.0, sign * 0.3 * share, 1.0, 0.0], 0),
            13 => grey_box(stream, image, 40.0 * share),
            14 => image.affine([1.0, 0.0, sign * 100.0 * share, 0.0, 1.0, 0.0], 0),
            _ => image.affine([1.0, 0.0, 0.0, 0.0, 1.0, sign * 100.0 * share], 0),
        }
    }
}

/// A box of about `edge` pixels somewhere, its last row and column included as `ImageDraw` does.
fn grey_box(stream: &mut Stream, image: &mut Image, edge: f64) {
    let span = |stream: &mut Stream, length: usize| {
        let start = (stream.uniform() * length as f64 - edge / 2.0).max(0.0) as usize;
        let end = (start as f64 + edge).min(length as f64) as usize + 1;
        start..end.min(length)
    };
    let columns = span(stream, image.width);
    let rows = span(stream, image.height);
    image.fill(rows, columns, [125, 123, 114]);
}

/// IDBH's `cifar10-weak` after the mirror: crop and shift, one colour or shape operation, and a
/// random box erased with probability one half.
///
/// Source: Li and Spratling 2023, "Data Augmentation Alone Can Improve Adversarial Training".
pub fn idbh(stream: &mut Stream, image: &mut Image) {
    crop_shift(stream, image);
    colour_or_shape(stream, image);
    if stream.chance(0.5) {
        erase(stream, image, 0.02, 0.33);
    }
}

/// Crops up to 10 rows and columns together, and puts what is left somewhere on black.
fn crop_shift(stream: &mut Stream, image: &mut Image) {
    let strength = stream.below(11);
    let across = stream.below(strength + 1);
    let down = strength - across;
    let mut offset = |most: u64| stream.below(most + 1) as f64;
    let (from_x, from_y) = (offset(across), offset(down));
    let (to_x, to_y) = (offset(across), offset(down));
    let (across, down) = (across as usize, down as usize);
    // The padded image has black margins as wide as what was cropped.
    let (shift_x, shift_y) = (to_x - across as f64 + from_x, to_y - down as f64 + from_y);
    let (left, top) = (from_x as usize, from_y as usize);
    let (right, bottom) = (image.width - across + left, image.height - down + top);
    image.fill(0..top, 0..image.width, [0; 3]);
    image.fill(bottom..image.height, 0..image.width, [0; 3]);
    image.fill(0..image.height, 0..left, [0; 3]);
    image.fill(0..image.height, right..image.width, [0; 3]);
    image.affine([1.0, 0.0, shift_x, 0.0, 1.0, shift_y], 0);
}

fn colour_or_shape(stream: &mut Stream, image: &mut Image) {
    let op = stream.below(8);
    let sign = if stream.chance(0.5) { -1.0 } else { 1.0 };
    match op {
        0 => image.color(stream.between(0.1, 1.9) as f32),
        1 => image.brightness(stream.between(0.5, 1.9) as f32),
        2 => image.contrast(stream.between(0.5, 1.9) as f32),
        3 => image.sharpness(stream.between(0.1, 1.9) as f32),
        4 => image.autocontrast(),
        5 => image.equalize(),
        6 => {
            let slope = (sign * stream.between(0.05, 0.15)).tan();
            let along_x = stream.chance(0.5);
            image.shear_centred(
                if along_x { slope } else { 0.0 },
                if along_x { 0.0 } else { slope },
            );
        }
        _ => image.rotate(sign * (1 + stream.below(10)) as f64, 0),
    }
}

/// torchvision's `RandomErasing` with black: a box of that share of the area, somewhere.
fn erase(stream: &mut Stream, image: &mut Image, least: f64, most: f64) {
    let (height, width) = (image.height, image.width);
    for _ in 0..10 {
        let area = (height * width) as f64 * stream.between(least, most);
        let aspect = stream.between(0.3f64.ln(), 3.3f64.ln()).exp();
        let rows = (area * aspect).sqrt().round_ties_even() as usize;
        let columns = (area / aspect).sqrt().round_ties_even() as usize;
        if rows < height && columns < width {
            let top = stream.below((height - rows + 1) as u64) as usize;
            let left = stream.below((width - columns + 1) as u64) as usize;
            image.fill(top..top + rows, left..left + columns, [0; 3]);
            return;
        }
    }
}
