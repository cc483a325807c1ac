//! What happens to a training image before the network sees it.

use crate::rng::Stream;

/// A random crop after padding with zeros, a mirror with probability one half, a rotation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// Pixels of zeros on each side before the crop.
    pub pad: usize,
    /// Whether half of the images are mirrored left to right.
    pub mirror: bool,
    /// Largest rotation in degrees, either way; 0 for none.
    pub rotate: f64,
}

impl Augmentation {
    /// Images as they are.
    pub const NONE: Self = Self { pad: 0, mirror: false, rotate: 0.0 };

    /// What the paper does to the images of `dataset` with edge length `edge`: crop with padding 4
    /// and mirror (CIFAR-10, TinyImageNet), a rotation of up to 15° besides (CIFAR-100), nothing
    /// (SVHN, where a mirrored digit is no digit). Smaller images get padding in proportion.
    pub fn base(dataset: &str, edge: usize) -> Self {
        match dataset {
            "svhn" => Self::NONE,
            "cifar100" => Self { pad: 4.min(edge / 8), mirror: true, rotate: 15.0 },
            _ => Self { pad: 4.min(edge / 8), mirror: true, rotate: 0.0 },
        }
    }

    /// Writes the changed `image` (`[3,h,w]`, `size` its height and width) into `out`.
    pub fn apply(&self, stream: &mut Stream, size: (usize, usize), image: &[u8], out: &mut [u8]) {
        let places = 2 * self.pad as u64 + 1;
        let change = Change {
            down: stream.below(places) as i64 - self.pad as i64,
            right: stream.below(places) as i64 - self.pad as i64,
            mirrored: self.mirror && stream.chance(0.5),
            degrees: if self.rotate > 0.0 {
                stream.between(-self.rotate, self.rotate)
            } else {
                0.0
            },
        };
        change.apply(size, image, out);
    }
}

/// One outcome of the draws.
struct Change {
    down: i64,
    right: i64,
    mirrored: bool,
    degrees: f64,
}

impl Change {
    fn apply(&self, size: (usize, usize), image: &[u8], out: &mut [u8]) {
        let plane = size.0 * size.1;
        for place in 0..plane {
            let source = self.source(size, place);
            for channel in 0..3 {
                // Black wherever the source lies outside.
                out[channel * plane + place] =
                    source.map_or(0, |from| image[channel * plane + from]);
            }
        }
    }

    /// The pixel that comes to `place`: crop, then mirror, then rotation, followed backwards.
    fn source(&self, (height, width): (usize, usize), place: usize) -> Option<usize> {
        let inside =
            |y: i64, x: i64| (0..height as i64).contains(&y) && (0..width as i64).contains(&x);
        let (mut y, mut x) = ((place / width) as i64, (place % width) as i64);
        if self.degrees != 0.0 {
            // Nearest neighbour about the centre, pixel centres at one half, as Pillow has it.
            let (sine, cosine) = self.degrees.to_radians().sin_cos();
            let (middle_y, middle_x) = (height as f64 / 2.0, width as f64 / 2.0);
            let (dy, dx) = (y as f64 + 0.5 - middle_y, x as f64 + 0.5 - middle_x);
            y = (sine * dx + cosine * dy + middle_y).floor() as i64;
            x = (cosine * dx - sine * dy + middle_x).floor() as i64;
            if !inside(y, x) {
                return None;
            }
        }
        x = if self.mirrored { width as i64 - 1 - x } else { x };
        (y, x) = (y + self.down, x + self.right);
        inside(y, x).then(|| (y * width as i64 + x) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies `augmentation` to an 8x8 image of distinct nonzero bytes, `count` times.
    fn outcomes(augmentation: Augmentation, count: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
        let image: Vec<u8> = (1..=192).collect();
        let made = (0..count).map(|index| {
            let mut out = vec![255; 192];
            augmentation.apply(&mut Stream::new(0, "test", index), (8, 8), &image, &mut out);
            out
        });
        (image.clone(), made.collect())
    }

    #[test]
    fn nothing_changes_without_augmentation() {
        let (image, made) = outcomes(Augmentation::NONE, 3);
        assert!(made.iter().all(|out| *out == image));
    }

    #[test]
    fn crops_and_mirrors_reach_every_place_and_nothing_else() {
        let (image, made) = outcomes(Augmentation { pad: 1, mirror: true, rotate: 0.0 }, 400);
        let at = |y: i64, x: i64, c: usize| {
            let inside = (0..8).contains(&y) && (0..8).contains(&x);
            if inside { image[c * 64 + (y * 8 + x) as usize] } else { 0 }
        };
        let mut expected = Vec::new();
        for (down, right, mirrored) in
            (-1..=1).flat_map(|d| (-1..=1).flat_map(move |r| [(d, r, false), (d, r, true)]))
        {
            let mut out = Vec::new();
            for (c, y, x) in
                (0..3).flat_map(|c| (0..8).flat_map(move |y| (0..8).map(move |x| (c, y, x))))
            {
                let x = if mirrored { 7 - x } else { x };
                out.push(at(y + down, x + right, c));
            }
            expected.push(out);
        }
        assert!(made.iter().all(|out| expected.contains(out)));
        assert!(expected.iter().all(|out| made.contains(out)), "18 outcomes, 400 draws");
    }

    #[test]
    fn a_quarter_turn_is_a_quarter_turn() {
        let image: Vec<u8> = (1..=192).collect();
        let turn = Change { down: 0, right: 0, mirrored: false, degrees: 90.0 };
        let mut out = vec![255; 192];
        turn.apply((8, 8), &image, &mut out);
        for place in 0..192 {
            let (c, y, x) = (place / 64, place / 8 % 8, place % 8);
            assert_eq!(out[place], image[c * 64 + x * 8 + 7 - y], "{c} {y} {x}");
        }
    }

    #[test]
    fn rotations_draw_both_ways() {
        let (image, made) = outcomes(Augmentation { pad: 0, mirror: false, rotate: 45.0 }, 50);
        assert!(made.iter().filter(|out| **out != image).count() > 30);
        assert!(made.iter().any(|out| out[0] == 0), "a corner turned away leaves black");
    }
}
