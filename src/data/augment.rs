//! What happens to a training image before the network sees it.

use crate::{
    data::{pillow::Image, policy},
    rng::Stream,
};

/// A random crop after padding with zeros, a mirror with probability one half, a rotation, and
/// what a published policy does besides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// Pixels of zeros on each side before the crop.
    pub pad: usize,
    /// Whether half of the images are mirrored left to right.
    pub mirror: bool,
    /// Largest rotation in degrees, either way; 0 for none.
    pub rotate: f64,
    /// The rest.
    pub policy: Policy,
}

/// What happens besides crop, mirror and rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    None,
    /// Cutout: a black box of up to 18x18 pixels somewhere (DeVries and Taylor 2017).
    Cutout,
    /// AutoAugment's policy for CIFAR-10, then Cutout.
    AutoAugment,
    /// RandAugment with 2 operations of magnitude 14, before crop and mirror.
    RandAugment,
    /// IDBH's `cifar10-weak`, after the mirror.
    Idbh,
}

/// Edge of Cutout's box.
const CUTOUT: usize = 18;

impl Augmentation {
    /// Images as they are.
    pub const NONE: Self = Self { pad: 0, mirror: false, rotate: 0.0, policy: Policy::None };

    /// What the paper does to the images of `dataset` with edge length `edge`: crop with padding 4
    /// and mirror (CIFAR-10, TinyImageNet), a rotation of up to 15° besides (CIFAR-100), nothing
    /// (SVHN, where a mirrored digit is no digit). Smaller images get padding in proportion.
    pub fn base(dataset: &str, edge: usize) -> Self {
        let cropped = Self { pad: 4.min(edge / 8), mirror: true, ..Self::NONE };
        match dataset {
            "svhn" | "svhn-extra" => Self::NONE,
            "cifar100" | "cifar100-coarse" | "cifar100-binary" => Self { rotate: 15.0, ..cropped },
            _ => cropped,
        }
    }

    /// A published policy as the paper's recipes set it up around [`Augmentation::base`].
    pub fn with_policy(dataset: &str, edge: usize, policy: Policy) -> Self {
        let base = Self { policy, ..Self::base(dataset, edge) };
        // IDBH shifts and rotates by itself.
        if policy == Policy::Idbh { Self { pad: 0, rotate: 0.0, ..base } } else { base }
    }

    /// Writes the changed `image` (`[3,h,w]`, `size` its height and width) into `out`.
    pub fn apply(&self, stream: &mut Stream, size: (usize, usize), image: &[u8], out: &mut [u8]) {
        if self.policy == Policy::RandAugment {
            let mut changed = Image::new(size, image);
            policy::rand_augment(stream, &mut changed, 2, 14.0);
            self.place(stream, size, &changed.pixels, out);
        } else {
            self.place(stream, size, image, out);
        }
        match self.policy {
            Policy::None | Policy::RandAugment => {}
            Policy::Cutout => cutout(stream, size, out),
            Policy::AutoAugment | Policy::Idbh => {
                let mut changed = Image::new(size, out);
                if self.policy == Policy::Idbh {
                    policy::idbh(stream, &mut changed);
                } else {
                    policy::auto_augment(stream, &mut changed);
                }
                out.copy_from_slice(&changed.pixels);
                if self.policy == Policy::AutoAugment {
                    cutout(stream, size, out);
                }
            }
        }
    }

    /// Crop, mirror and rotation.
    fn place(&self, stream: &mut Stream, size: (usize, usize), image: &[u8], out: &mut [u8]) {
        let places = 2 * self.pad as u64 + 1;
        let down = stream.below(places) as i64 - self.pad as i64;
        let right = stream.below(places) as i64 - self.pad as i64;
        let mirrored = self.mirror && stream.chance(0.5);
        crop(size, image, (down, right), mirrored, out);
        if self.rotate > 0.0 {
            let mut turned = Image::new(size, out);
            turned.rotate(stream.between(-self.rotate, self.rotate), 0);
            out.copy_from_slice(&turned.pixels);
        }
    }
}

/// Moves the image up by `down` and left by `right` (black comes in), then mirrors it.
fn crop(
    (height, width): (usize, usize),
    image: &[u8],
    (down, right): (i64, i64),
    mirrored: bool,
    out: &mut [u8],
) {
    // What of a row stays inside: `length` pixels from `from`, to `to`.
    let from = right.clamp(0, width as i64) as usize;
    let to = (-right).clamp(0, width as i64) as usize;
    let length = width - from.max(to);
    for channel in 0..3 {
        let plane = &image[channel * height * width..][..height * width];
        for row in 0..height {
            let target = &mut out[(channel * height + row) * width..][..width];
            let source = row as i64 + down;
            if !(0..height as i64).contains(&source) {
                target.fill(0);
                continue;
            }
            target[..to].fill(0);
            target[to + length..].fill(0);
            target[to..to + length]
                .copy_from_slice(&plane[source as usize * width + from..][..length]);
            if mirrored {
                target.reverse();
            }
        }
    }
}

/// A black box around a random place, cut off at the edges.
fn cutout(stream: &mut Stream, (height, width): (usize, usize), out: &mut [u8]) {
    let span = |stream: &mut Stream, length: usize| {
        let middle = stream.below(length as u64) as usize;
        middle.saturating_sub(CUTOUT / 2)..(middle + CUTOUT / 2).min(length)
    };
    let rows = span(stream, height);
    let columns = span(stream, width);
    for row in (0..3).flat_map(|channel| rows.clone().map(move |row| channel * height + row)) {
        out[row * width + columns.start..row * width + columns.end].fill(0);
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
        let (image, made) =
            outcomes(Augmentation { pad: 1, mirror: true, ..Augmentation::NONE }, 400);
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
    fn policies_change_images_as_they_should() {
        let image: Vec<u8> = (0..3 * 32 * 32).map(|i| (i * 7 % 250 + 1) as u8).collect();
        let draw = |policy, index| {
            let mut out = vec![255; image.len()];
            let augmentation = Augmentation::with_policy("cifar10", 32, policy);
            let mut stream = Stream::new(1, "test", index);
            augmentation.apply(&mut stream, (32, 32), &image, &mut out);
            out
        };
        let black = |out: &[u8]| out.iter().filter(|&&level| level == 0).count();
        for index in 0..200 {
            // The same crop as without a box, and between 9x9 and 18x18 black pixels more.
            let (plain, cut) = (draw(Policy::None, index), draw(Policy::Cutout, index));
            assert!(plain.iter().zip(&cut).all(|(a, b)| a == b || *b == 0), "{index}");
            assert!(black(&cut) - black(&plain) <= 3 * 18 * 18, "{index}");
            assert!(black(&cut) >= 3 * 9 * 9, "{index}");
        }
        for policy in [Policy::AutoAugment, Policy::RandAugment, Policy::Idbh] {
            let made: std::collections::HashSet<_> = (0..200).map(|i| draw(policy, i)).collect();
            assert!(made.len() > 150, "{policy:?}: {}", made.len());
            assert_eq!(draw(policy, 5), draw(policy, 5));
        }
        // IDBH erases in half of the images, so in some of them much more is black.
        let mean = (0..200).map(|i| black(&draw(Policy::Idbh, i))).sum::<usize>() / 200;
        assert!((300..1100).contains(&mean), "{mean}");
    }

    #[test]
    fn rotations_draw_both_ways() {
        let (image, made) = outcomes(Augmentation { rotate: 45.0, ..Augmentation::NONE }, 50);
        assert!(made.iter().filter(|out| **out != image).count() > 30);
        assert!(made.iter().any(|out| out[0] == 0), "a corner turned away leaves black");
    }
}
