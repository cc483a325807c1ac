//! EDM's augmentation pipe (Karras et al. 2022, appendix F.2): flips and an affine warp without
//! aliasing, with the labels that tell the network what was done.

use std::f64::consts::PI;

use tch::{Device, Kind, Tensor};

use crate::{device::upload, rng::Stream};

/// Length of the labels: flips, scale, rotation, anisotropic scale, translation.
pub const LABELS: i64 = 9;

/// Deviation of the binary logarithm of both scales.
const SCALE_STD: f64 = 0.2;
/// Probability that an anisotropic scale has an axis of its own.
const AXIS_CHANCE: f64 = 0.5;
/// Deviation of translations, as a share of the image.
const SHIFT_STD: f64 = 0.125;

/// The sym6 wavelet's low-pass filter (Daubechies 1992): its square is a half-band filter, so
/// that doubling and halving again is exact.
const SYM6: [f64; 12] = [
    0.015_404_109_327_027_373,
    0.003_490_712_084_217_470_2,
    -0.117_990_111_148_190_57,
    -0.048_311_742_585_633,
    0.491_055_941_926_746_6,
    0.787_641_141_030_194,
    0.337_929_421_727_621_8,
    -0.072_637_522_786_462_52,
    -0.021_060_292_512_300_564,
    0.044_724_901_770_665_78,
    0.001_767_711_864_242_803_6,
    -0.007_800_708_325_034_148,
];
/// What the filter needs beyond an image's edge.
const MARGIN: i64 = SYM6.len() as i64 / 4;

/// What happens to one image.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Change {
    mirror: bool,
    upend: bool,
    /// Takes a place of the result to a place of the image, both in pixels from the centre.
    inverse: Matrix,
    labels: [f64; LABELS as usize],
}

/// Augments images `[b,c,h,w]` in `[-1, 1]`: each change with probability `p`, except mirroring,
/// which is always tried where `flip` says so. Gives the images and their labels `[b,9]`.
pub fn apply(images: &Tensor, p: f64, flip: bool, stream: &mut Stream) -> (Tensor, Tensor) {
    let (b, _, h, w) = images.size4().expect("images are [b,c,h,w]");
    let changes: Vec<Change> =
        (0..b).map(|_| draw(p, flip, (w as f64, h as f64), stream)).collect();
    let labels: Vec<f32> =
        changes.iter().flat_map(|change| change.labels.map(|label| label as f32)).collect();
    let labels = upload(&Tensor::from_slice(&labels).view([b, LABELS]), images.device());
    let mirrored: Vec<bool> = changes.iter().map(|change| change.mirror).collect();
    let upended: Vec<bool> = changes.iter().map(|change| change.upend).collect();
    let images = flipped(images, 3, &mirrored);
    let images = flipped(&images, 2, &upended);
    let inverses: Vec<Matrix> = changes.iter().map(|change| change.inverse).collect();
    (warp(&images, &inverses), labels)
}

fn flipped(images: &Tensor, dimension: i64, chosen: &[bool]) -> Tensor {
    let chosen = upload(&Tensor::from_slice(chosen).view([-1, 1, 1, 1]), images.device());
    images.flip([dimension]).where_self(&chosen, images)
}

fn draw(p: f64, flip: bool, (w, h): (f64, f64), stream: &mut Stream) -> Change {
    let mirror = flip && stream.chance(0.5);
    let upend = stream.chance(p) && stream.chance(0.5);
    let scale = if stream.chance(p) { stream.normal() } else { 0.0 };
    let angle = if stream.chance(p) { stream.between(-PI, PI) } else { 0.0 };
    let stretch = if stream.chance(p) { stream.normal() } else { 0.0 };
    let axis = if stream.chance(AXIS_CHANCE) { stream.between(-PI, PI) } else { 0.0 };
    let (dx, dy) = if stream.chance(p) { (stream.normal(), stream.normal()) } else { (0.0, 0.0) };

    let size = (scale * SCALE_STD).exp2();
    let ratio = (stretch * SCALE_STD).exp2();
    let inverse = scaling(1.0 / size, 1.0 / size)
        .then(rotation(angle))
        .then(rotation(-axis))
        .then(scaling(1.0 / ratio, ratio))
        .then(rotation(axis))
        .then(translation(-dx * w * SHIFT_STD, -dy * h * SHIFT_STD));
    let labels = [
        f64::from(u8::from(mirror)),
        f64::from(u8::from(upend)),
        scale,
        angle.cos() - 1.0,
        angle.sin(),
        stretch * axis.cos(),
        stretch * axis.sin(),
        dx,
        dy,
    ];
    Change { mirror, upend, inverse, labels }
}

/// The upper two rows of an affine map of the plane.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Matrix([[f64; 3]; 2]);

impl Matrix {
    /// The product `self * right`: first `right`, then `self`.
    fn then(self, right: Self) -> Self {
        let mut product = [[0.0; 3]; 2];
        for (row, out) in self.0.iter().zip(&mut product) {
            for (column, entry) in out.iter_mut().enumerate() {
                *entry = row[0] * right.0[0][column] + row[1] * right.0[1][column];
            }
            out[2] += row[2];
        }
        Self(product)
    }

    fn at(self, x: f64, y: f64) -> (f64, f64) {
        let [a, b] = self.0;
        (a[0] * x + a[1] * y + a[2], b[0] * x + b[1] * y + b[2])
    }
}

fn scaling(x: f64, y: f64) -> Matrix {
    Matrix([[x, 0.0, 0.0], [0.0, y, 0.0]])
}

fn rotation(angle: f64) -> Matrix {
    let (sine, cosine) = angle.sin_cos();
    Matrix([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
}

fn translation(x: f64, y: f64) -> Matrix {
    Matrix([[1.0, 0.0, x], [0.0, 1.0, y]])
}

/// Warps images by bilinear interpolation at twice their resolution, mirrored at their edges.
fn warp(images: &Tensor, inverses: &[Matrix]) -> Tensor {
    let (b, c, h, w) = images.size4().expect("images are [b,c,h,w]");
    let device = images.device();
    let (left, right, top, bottom) = margins(inverses, (w, h));
    let padded = images.reflection_pad2d([left, right, top, bottom]);
    let doubled = double(&padded); // [b,c,2(h+top+bottom),2(w+left+right)], less one
    let (tall, wide) = (doubled.size()[2] as f64, doubled.size()[3] as f64);
    let (out_h, out_w) = (2 * (h + 2 * MARGIN), 2 * (w + 2 * MARGIN));
    let mut maps: Vec<f32> = Vec::with_capacity(inverses.len() * 6);
    for &inverse in inverses {
        // The centre has moved by what the margins differ; then everything in doubled pixels,
        // whose centres lie half a pixel off; then in torch's coordinates from -1 to 1.
        let shift = translation((left - right) as f64 / 2.0, (top - bottom) as f64 / 2.0);
        let map = scaling(2.0 / wide, 2.0 / tall)
            .then(translation(-0.5, -0.5))
            .then(scaling(2.0, 2.0))
            .then(shift)
            .then(inverse)
            .then(scaling(0.5, 0.5))
            .then(translation(0.5, 0.5))
            .then(scaling(out_w as f64 / 2.0, out_h as f64 / 2.0));
        maps.extend(map.0.iter().flatten().map(|&entry| entry as f32));
    }
    let maps = upload(&Tensor::from_slice(&maps).view([b, 2, 3]), device);
    let grid = Tensor::affine_grid_generator(&maps, [b, c, out_h, out_w], false);
    halve(&doubled.grid_sampler(&grid, 0, 0, false))
}

/// How far images must be continued to the left, right, top and bottom: as far as their own size
/// allows.
fn margins(inverses: &[Matrix], (w, h): (i64, i64)) -> (i64, i64, i64, i64) {
    let (cx, cy) = ((w - 1) as f64 / 2.0, (h - 1) as f64 / 2.0);
    let (mut left, mut right, mut top, mut bottom) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for inverse in inverses {
        for (x, y) in [(-cx, -cy), (cx, -cy), (cx, cy), (-cx, cy)] {
            let (x, y) = inverse.at(x, y);
            (left, right) = (left.max(-x), right.max(x));
            (top, bottom) = (top.max(-y), bottom.max(y));
        }
    }
    let whole = |reach: f64, centre: f64, side: i64| {
        ((reach + (2 * MARGIN) as f64 - centre).ceil() as i64).clamp(0, side - 1)
    };
    (whole(left, cx, w), whole(right, cx, w), whole(top, cy, h), whole(bottom, cy, h))
}

/// Doubles the resolution: zeros between the pixels, then the filter, both ways.
fn double(images: &Tensor) -> Tensor {
    let c = images.size()[1];
    let pad = (SYM6.len() as i64 + 1) / 2;
    let filter = filter(c, images.device()).flip([2]);
    let spread = |x: &Tensor, dimension: i64| {
        let zeros = x.zeros_like();
        let mut shape = x.size();
        shape[dimension as usize] *= 2;
        let length = shape[dimension as usize];
        let pairs = Tensor::stack(&[x, &zeros], dimension + 1).view(shape.as_slice());
        pairs.narrow(dimension, 0, length - 1)
    };
    let none = None::<&Tensor>;
    let wide = spread(images, 3).conv2d(&filter.unsqueeze(2), none, [1, 1], [0, pad], [1, 1], c);
    spread(&wide, 2).conv2d(&filter.unsqueeze(3), none, [1, 1], [pad, 0], [1, 1], c)
}

/// Halves the resolution and cuts the margin off.
fn halve(images: &Tensor) -> Tensor {
    let c = images.size()[1];
    let pad = (SYM6.len() as i64 - 1) / 2;
    let filter = filter(c, images.device());
    let none = None::<&Tensor>;
    let cut = |x: &Tensor, dimension: i64| {
        x.narrow(dimension, MARGIN, x.size()[dimension as usize] - 2 * MARGIN)
    };
    let narrow = images.conv2d(&filter.unsqueeze(2), none, [1, 2], [0, pad], [1, 1], c);
    let short = cut(&narrow, 3).conv2d(&filter.unsqueeze(3), none, [2, 1], [pad, 0], [1, 1], c);
    cut(&short, 2)
}

/// The filter once for each channel, `[c,1,12]`.
fn filter(channels: i64, device: Device) -> Tensor {
    let filter = upload(&Tensor::from_slice(&SYM6).to_kind(Kind::Float), device);
    filter.view([1, 1, -1]).repeat([channels, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Tensor {
        let values = Stream::new(0, "images", 0).normals(2 * 3 * 16 * 16);
        // Smooth, so that interpolation between pixels is not the issue.
        Tensor::from_slice(&values).view([2, 3, 16, 16]).avg_pool2d(
            [5, 5],
            [1, 1],
            [2, 2],
            false,
            true,
            None,
        )
    }

    /// The largest difference away from the edges.
    fn inside(a: &Tensor, b: &Tensor, edge: i64) -> f64 {
        let cut = |x: &Tensor| x.narrow(2, edge, 16 - 2 * edge).narrow(3, edge, 16 - 2 * edge);
        (cut(a) - cut(b)).abs().max().double_value(&[])
    }

    #[test]
    fn warps_that_have_an_exact_answer() {
        let images = images();
        let same = translation(0.0, 0.0);
        let shift = translation(-2.0, 1.0);
        let turn = rotation(PI / 2.0);
        assert!(inside(&warp(&images, &[same, same]), &images, 0) < 1e-5);
        // A place of the result looks two to the left and one down.
        let shifted = warp(&images, &[shift, shift]);
        assert!(inside(&shifted, &images.roll([-1, 2], [2, 3]), 3) < 1e-5);
        let turned = warp(&images, &[turn, turn]);
        // The filter is only nearly symmetric, so a turned image is only nearly the image.
        let error = |turns| inside(&turned, &images.rot90(turns, [2, 3]), 0);
        assert!(error(1).min(error(-1)) < 0.05, "{} {}", error(1), error(-1));
        assert!(error(1).max(error(-1)) > 0.3);
    }

    #[test]
    fn an_image_does_not_depend_on_the_others_margins() {
        let images = images();
        let (same, far) = (translation(0.0, 0.0), translation(5.0, -3.0));
        let alone = warp(&images.narrow(0, 0, 1), &[scaling(1.1, 1.1)]);
        let together = warp(&images, &[scaling(1.1, 1.1), far]);
        assert!(inside(&alone, &together.narrow(0, 0, 1), 0) < 1e-5);
        assert!(
            inside(&warp(&images, &[far, same]).narrow(0, 1, 1), &images.narrow(0, 1, 1), 0) < 1e-5
        );
    }

    #[test]
    fn labels_say_what_was_done() {
        let images = images();
        let (same, labels) = apply(&images, 0.0, false, &mut Stream::new(0, "test", 0));
        assert!(inside(&same, &images, 0) < 1e-5);
        assert_eq!(labels.abs().sum(Kind::Double).double_value(&[]), 0.0);
        let mut stream = Stream::new(0, "test", 1);
        let drawn: Vec<Change> =
            (0..4000).map(|_| draw(0.12, true, (16.0, 16.0), &mut stream)).collect();
        let share = |label: usize| {
            drawn.iter().filter(|change| change.labels[label] != 0.0).count() as f64 / 4000.0
        };
        assert!((share(0) - 0.5).abs() < 0.03 && (share(1) - 0.06).abs() < 0.015);
        for label in [2, 3, 4, 5, 7, 8] {
            assert!((share(label) - 0.12).abs() < 0.02, "{label}: {}", share(label));
        }
        assert!((share(6) - 0.06).abs() < 0.015);
    }
}
