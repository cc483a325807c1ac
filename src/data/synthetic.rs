//! The image set that gauntlet draws itself: ten plain shapes and patterns, some of them in
//! fog, so that everything can be tried without a download and small networks learn it in minutes.
//!
//! Each class also carries a faint texture of its own, weaker than the usual perturbations: to a
//! person it is nothing, to normal training it is the easiest clue, and an attack wipes it out
//! (robust and non-robust features, Tsipras et al. 2019 and Ilyas et al. 2019). So a classifier
//! must be trained for robustness to rely on the shapes.
//!
//! Image `i` of a split is a function of (split, i) alone, at any resolution the same scene. Only
//! exactly rounded arithmetic is used (no sines), so that every machine draws the same bytes.

use crate::{
    data::{Dataset, Layout, Pixels, spec::Split},
    rng::Stream,
};

/// Class names by label; image `i` has label `i mod 10`.
pub const CLASSES: [&str; 10] = [
    "disc", "ring", "square", "triangle", "cross", "rows", "columns", "diagonal", "checks",
    "crescent",
];

/// Strength of the class's texture, in steps of 1/255: an attack of 8/255 turns it into another's.
const TEXTURE: i16 = 6;
/// Edge of the tile that the texture repeats, in pixels.
const TILE: usize = 4;

/// How many images a split has unless more are asked for.
pub fn default_count(split: Split) -> u64 {
    match split {
        Split::Train => 10_000,
        Split::Test => 2_000,
    }
}

/// Draws `count` images from number `first` on, `resolution` pixels wide and high.
pub fn draw(split: Split, first: u64, count: u64, resolution: u64) -> Dataset {
    let edge = resolution as usize;
    let mut pixels = Vec::with_capacity(count as usize * 3 * edge * edge);
    for index in first..first + count {
        Scene::new(split, index).paint(edge, &mut pixels);
    }
    Dataset {
        name: "synthetic".to_owned(),
        classes: CLASSES.map(str::to_owned).to_vec(),
        size: (edge, edge),
        layout: Layout::Chw,
        pixels: Pixels::Owned(pixels),
        labels: (first..first + count).map(|index| (index % 10) as u16).collect(),
        soft: None,
    }
}

/// What one image shows; lengths in units of the image's edge.
struct Scene {
    class: u64,
    /// Middle of a shape, or phase of a pattern.
    centre: (f64, f64),
    /// Half the width of a shape, or half the period of a pattern.
    reach: f64,
    /// Colour of the shape, channels in `[0, 1]`.
    front: [f64; 3],
    /// Colours of the background at two opposite edges.
    back: [[f64; 3]; 2],
    /// Whether the background changes from left to right rather than from top to bottom.
    sideways: bool,
}

impl Scene {
    fn new(split: Split, index: u64) -> Self {
        let purpose = match split {
            Split::Train => "synthetic train",
            Split::Test => "synthetic test",
        };
        let mut stream = Stream::new(0, purpose, index);
        let class = index % 10;
        let pattern = (5..9).contains(&class);
        let (reach, shift) = if pattern { (0.19, 0.19) } else { (0.35, 0.08) };
        let centre = (0.5 + stream.between(-shift, shift), 0.5 + stream.between(-shift, shift));
        let reach = reach * stream.between(0.88, 1.12);
        let hue = stream.uniform();
        let brightness = stream.between(0.85, 1.0);
        let bright = hue_colour(hue).map(|channel| brightness * (0.35 + 0.65 * channel));
        let back_hue = stream.uniform();
        let mut dim = |hue| {
            let strength = stream.between(0.0, 0.2);
            hue_colour(hue).map(|channel| 0.12 + strength * (0.3 + 0.7 * channel))
        };
        let back = [dim(back_hue), dim(back_hue)];
        // Some scenes are foggy: their shapes are hard to see and easy to hide.
        let contrast = stream.between(0.18, 0.85);
        let front = [0, 1, 2].map(|c| back[0][c] + contrast * (bright[c] - back[0][c]));
        Self { class, centre, reach, front, back, sideways: stream.chance(0.5) }
    }

    /// Appends the image, channel by channel, each pixel the mean of 4x4 samples.
    fn paint(&self, edge: usize, out: &mut Vec<u8>) {
        let texture = texture(self.class);
        let start = out.len();
        out.resize(start + 3 * edge * edge, 0);
        for row in 0..edge {
            for column in 0..edge {
                let share = self.share(edge, row, column);
                let along = if self.sideways { column } else { row } as f64 / edge as f64;
                for channel in 0..3 {
                    let [low, high] = [self.back[0][channel], self.back[1][channel]];
                    let back = low + (high - low) * along;
                    let value = back + (self.front[channel] - back) * share;
                    let faint = texture[(channel * TILE + row % TILE) * TILE + column % TILE];
                    let byte = (value * 255.0 + 0.5) as i16 + faint;
                    out[start + (channel * edge + row) * edge + column] = byte.clamp(0, 255) as u8;
                }
            }
        }
    }

    /// How much of a pixel the shape covers: the share of 4x4 samples. Where those at the corners
    /// agree the others are taken to agree with them, which makes drawing three times as fast.
    fn share(&self, edge: usize, row: usize, column: usize) -> f64 {
        const SAMPLES: usize = 4;
        const LAST: usize = SAMPLES - 1;
        let scale = 1.0 / (edge * SAMPLES) as f64;
        let sample = |across: usize, down: usize| {
            let x = ((column * SAMPLES + across) as f64 + 0.5) * scale;
            let y = ((row * SAMPLES + down) as f64 + 0.5) * scale;
            self.covers(x, y)
        };
        let corners = [(0, 0), (LAST, 0), (0, LAST), (LAST, LAST)];
        match corners.iter().filter(|(across, down)| sample(*across, *down)).count() {
            0 => 0.0,
            4 => 1.0,
            _ => {
                let all = (0..SAMPLES * SAMPLES).filter(|n| sample(n % SAMPLES, n / SAMPLES));
                all.count() as f64 / (SAMPLES * SAMPLES) as f64
            }
        }
    }

    /// Whether the shape covers the point.
    fn covers(&self, x: f64, y: f64) -> bool {
        let (x, y) = (x - self.centre.0, y - self.centre.1);
        let reach = self.reach;
        let within = |x: f64, y: f64, radius: f64| x * x + y * y < radius * radius;
        // Which half of its period a stripe pattern is in.
        let odd = |along: f64| (along / reach).floor() as i64 % 2 != 0;
        match self.class {
            0 => within(x, y, reach),
            1 => within(x, y, reach) && !within(x, y, 0.55 * reach),
            2 => x.abs().max(y.abs()) < 0.88 * reach,
            3 => y.abs() < 0.95 * reach && 2.0 * x.abs() < y + 0.95 * reach,
            4 => x.abs().min(y.abs()) < 0.3 * reach && x.abs().max(y.abs()) < reach,
            5 => odd(y),
            6 => odd(x),
            // The period across the stripes is that of rows and columns: x + y grows by the
            // square root of 2 for each unit across.
            7 => odd((x + y) * std::f64::consts::FRAC_1_SQRT_2),
            8 => odd(x) != odd(y),
            _ => within(x, y, reach) && !within(x - 0.42 * reach, y, 0.78 * reach),
        }
    }
}

/// The tile of a class, channel by channel: as much lighter as darker.
fn texture(class: u64) -> [i16; 3 * TILE * TILE] {
    let mut stream = Stream::new(0, "synthetic texture", class);
    let mut tile = [TEXTURE; 3 * TILE * TILE];
    for &place in &stream.permutation(tile.len())[..tile.len() / 2] {
        tile[place as usize] = -TEXTURE;
    }
    tile
}

/// The pure colour of a hue in `[0, 1)`: the edge of the colour cube, piecewise linear.
fn hue_colour(hue: f64) -> [f64; 3] {
    [0.0, 4.0, 2.0].map(|offset| {
        let position = (hue * 6.0 + offset) % 6.0;
        ((position - 3.0).abs() - 1.0).clamp(0.0, 1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_depend_on_split_and_index_alone() {
        let many = draw(Split::Train, 0, 30, 16);
        let late = draw(Split::Train, 20, 10, 16);
        assert_eq!(many.image(25), late.image(5));
        assert_eq!(many.labels[25], late.labels[5]);
        assert_ne!(many.image(0), draw(Split::Test, 0, 1, 16).image(0));
        assert_ne!(many.image(0), many.image(10));
        assert_eq!(many.len(), 30);
        // Drawn alike on every machine and in every version: jobs depend on it.
        assert_eq!(many.fingerprint(), "1fc8913ad5b6a69781907f4f9396df9b");
    }

    #[test]
    fn shapes_stand_out_from_the_background() {
        let set = draw(Split::Test, 0, 100, 16);
        for index in 0..set.len() {
            let (mut low, mut high) = ([255u8; 3], [0u8; 3]);
            for (channel, plane) in set.image(index).chunks_exact(256).enumerate() {
                low[channel] = *plane.iter().min().unwrap();
                high[channel] = *plane.iter().max().unwrap();
            }
            let contrast = (0..3).map(|c| high[c] - low[c]).max().unwrap();
            assert!(contrast > 20, "image {index}: {contrast}");
        }
    }

    /// A nearest-mean classifier on coverage shows that classes differ far beyond 8/255.
    #[test]
    fn classes_are_far_apart() {
        let coverage = |index: u64| {
            let scene = Scene::new(Split::Train, index);
            let mut mask = Vec::new();
            for row in 0..16 {
                for column in 0..16 {
                    let at = |n: i32| (f64::from(n) + 0.5) / 16.0;
                    mask.push(scene.covers(at(column), at(row)));
                }
            }
            mask
        };
        for a in 0..10 {
            for b in a + 1..10 {
                for repeat in 0..20 {
                    let (first, second) = (coverage(10 * repeat + a), coverage(10 * repeat + b));
                    let differing = first.iter().zip(&second).filter(|(a, b)| a != b).count();
                    assert!(
                        differing >= 8,
                        "{} {}: {differing}",
                        CLASSES[a as usize],
                        CLASSES[b as usize]
                    );
                }
            }
        }
    }
}
