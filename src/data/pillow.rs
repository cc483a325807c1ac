//! Pillow's operations on 8-bit RGB images, to the bit, as `ImageOps`, `ImageEnhance`,
//! `Image.rotate` and `Image.transform` (affine) do them. Images are `[3,h,w]`, changed in place.
//!
//! Source: Pillow's documentation and behaviour; the tests hold hashes of what it computes.

/// An image, channel by channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// `[3,h,w]`.
    pub pixels: Vec<u8>,
    /// Room for the result of operations that read neighbours.
    spare: Vec<u8>,
}

impl Image {
    /// An image of these `pixels` (`[3,h,w]`).
    pub fn new((height, width): (usize, usize), pixels: &[u8]) -> Self {
        assert_eq!(pixels.len(), 3 * height * width);
        Self { height, width, pixels: pixels.to_vec(), spare: vec![0; pixels.len()] }
    }

    fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Replaces each level of each channel by `table(level)`.
    fn map(&mut self, table: impl Fn(u8) -> u8) {
        let mut levels = [0u8; 256];
        for (level, out) in levels.iter_mut().enumerate() {
            *out = table(level as u8);
        }
        self.pixels.iter_mut().for_each(|level| *level = levels[usize::from(*level)]);
    }

    /// `ImageOps.invert`.
    pub fn invert(&mut self) {
        self.map(|level| 255 - level);
    }

    /// `ImageOps.posterize`: keeps the upper `bits` bits.
    pub fn posterize(&mut self, bits: u32) {
        let mask = !(((1u32 << (8 - bits.clamp(1, 8))) - 1) as u8);
        self.map(|level| level & mask);
    }

    /// `ImageOps.solarize`: inverts levels from `threshold` on.
    pub fn solarize(&mut self, threshold: f64) {
        self.map(|level| if f64::from(level) < threshold { level } else { 255 - level });
    }

    /// Adds to all levels, then solarizes at 128 (RandAugment's `SolarizeAdd`).
    pub fn solarize_add(&mut self, addition: f64) {
        // Numpy adds in real numbers, clips, and truncates.
        self.map(|level| (f64::from(level) + addition).clamp(0.0, 255.0) as u8);
        self.solarize(128.0);
    }

    fn histogram(channel: &[u8]) -> [u32; 256] {
        let mut counts = [0; 256];
        channel.iter().for_each(|&level| counts[usize::from(level)] += 1);
        counts
    }

    /// `ImageOps.autocontrast`: each channel stretched to the full range.
    pub fn autocontrast(&mut self) {
        let plane = self.plane();
        for channel in self.pixels.chunks_exact_mut(plane) {
            let low = channel.iter().copied().min().unwrap_or(0);
            let high = channel.iter().copied().max().unwrap_or(0);
            if high <= low {
                continue;
            }
            let scale = 255.0 / f64::from(high - low);
            let offset = -f64::from(low) * scale;
            let mut table = [0u8; 256];
            for (level, out) in table.iter_mut().enumerate() {
                *out = (level as f64 * scale + offset).clamp(0.0, 255.0) as u8;
            }
            channel.iter_mut().for_each(|level| *level = table[usize::from(*level)]);
        }
    }

    /// `ImageOps.equalize`: each channel's histogram made flat.
    pub fn equalize(&mut self) {
        let plane = self.plane();
        for channel in self.pixels.chunks_exact_mut(plane) {
            let counts = Self::histogram(channel);
            let mut used = counts.iter().copied().filter(|&count| count > 0);
            let last = used.next_back().unwrap_or(0);
            let step = (channel.len() as u32 - last) / 255;
            if step == 0 {
                continue;
            }
            let mut table = [0u8; 256];
            let mut below = step / 2;
            for (count, out) in counts.iter().zip(&mut table) {
                *out = (below / step).min(255) as u8;
                below += count;
            }
            channel.iter_mut().for_each(|level| *level = table[usize::from(*level)]);
        }
    }

    /// `ImageEnhance.Brightness`: a blend with black.
    pub fn brightness(&mut self, factor: f32) {
        self.map(|level| blend(0, level, factor));
    }

    /// `ImageEnhance.Contrast`: a blend with the mean grey.
    pub fn contrast(&mut self, factor: f32) {
        let plane = self.plane();
        let total: u64 = (0..plane).map(|place| u64::from(self.grey(place))).sum();
        let mean = (total as f64 / plane as f64 + 0.5) as u8;
        self.map(|level| blend(mean, level, factor));
    }

    /// `ImageEnhance.Color`: a blend with the grey image.
    pub fn color(&mut self, factor: f32) {
        let plane = self.plane();
        for place in 0..plane {
            let grey = self.grey(place);
            for channel in 0..3 {
                let level = &mut self.pixels[channel * plane + place];
                *level = blend(grey, *level, factor);
            }
        }
    }

    /// `ImageEnhance.Sharpness`: a blend with the smoothed image, whose edge pixels are kept.
    pub fn sharpness(&mut self, factor: f32) {
        let (height, width) = (self.height, self.width);
        let Self { pixels, spare, .. } = self;
        spare.copy_from_slice(pixels);
        for channel in 0..3 {
            for row in 1..height.saturating_sub(1) {
                let start = (channel * height + row) * width;
                for place in start + 1..start + width.saturating_sub(1) {
                    let line = |at: usize| {
                        u32::from(pixels[at - 1])
                            + u32::from(pixels[at])
                            + u32::from(pixels[at + 1])
                    };
                    let around = line(place - width) + line(place) + line(place + width);
                    let sum = around + 4 * u32::from(pixels[place]);
                    // A thirteenth, rounded; no sum lies half-way.
                    spare[place] = ((2 * sum + 13) / 26) as u8;
                }
            }
        }
        for (level, smooth) in pixels.iter_mut().zip(spare) {
            *level = blend(*smooth, *level, factor);
        }
    }

    /// `convert("L")` at one place.
    fn grey(&self, place: usize) -> u8 {
        let plane = self.plane();
        let level = |channel: usize| u32::from(self.pixels[channel * plane + place]);
        ((level(0) * 19595 + level(1) * 38470 + level(2) * 7471 + 0x8000) >> 16) as u8
    }

    /// `Image.rotate` by `degrees` counter-clockwise about the centre, nearest neighbour.
    pub fn rotate(&mut self, degrees: f64, fill: u8) {
        let angle = -(degrees.rem_euclid(360.0)).to_radians();
        let (sine, cosine) = (round15(angle.sin()), round15(angle.cos()));
        let (x, y) = (self.width as f64 / 2.0, self.height as f64 / 2.0);
        let shift_x = cosine * -x + sine * -y + 0.0 + x;
        let shift_y = -sine * -x + cosine * -y + 0.0 + y;
        if degrees.rem_euclid(360.0) != 0.0 {
            self.affine([cosine, sine, shift_x, -sine, cosine, shift_y], fill);
        }
    }

    /// torchvision's `affine` with a shear alone, by slopes along x and y, about the centre.
    pub fn shear_centred(&mut self, along_x: f64, along_y: f64) {
        let (x, y) = (self.width as f64 * 0.5, self.height as f64 * 0.5);
        let (a, b, c, d) = (1.0 + along_x * along_y, along_x, along_y, 1.0);
        let shift_x = a * -x + b * -y + x;
        let shift_y = c * -x + d * -y + y;
        self.affine([a, b, shift_x, c, d, shift_y], 0);
    }

    /// `Image.transform(size, AFFINE, matrix)`, nearest neighbour; `fill` where nothing comes from.
    pub fn affine(&mut self, [a, b, c, d, e, f]: [f64; 6], fill: u8) {
        let (height, width, plane) = (self.height, self.width, self.plane());
        self.spare.fill(fill);
        let mut put = |row: usize, column: usize, y: i64, x: i64| {
            if (0..width as i64).contains(&x) && (0..height as i64).contains(&y) {
                let (to, from) = (row * width + column, y as usize * width + x as usize);
                for channel in 0..3 {
                    self.spare[channel * plane + to] = self.pixels[channel * plane + from];
                }
            }
        };
        if b == 0.0 && d == 0.0 {
            // Scaling alone goes in real numbers, added up pixel by pixel.
            let mut y = f + e * 0.5;
            for row in 0..height {
                let mut x = c + a * 0.5;
                for column in 0..width {
                    put(row, column, coordinate(y), coordinate(x));
                    x += a;
                }
                y += e;
            }
        } else {
            // Else in fixed point with 16 bits after the point.
            let fixed = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
            let (step_x, step_y) = ([fixed(a), fixed(b)], [fixed(d), fixed(e)]);
            let mut from_x = fixed(c + a * 0.5 + b * 0.5);
            let mut from_y = fixed(f + d * 0.5 + e * 0.5);
            for row in 0..height {
                let (mut x, mut y) = (from_x, from_y);
                for column in 0..width {
                    put(row, column, y >> 16, x >> 16);
                    (x, y) = (x + step_x[0], y + step_y[0]);
                }
                (from_x, from_y) = (from_x + step_x[1], from_y + step_y[1]);
            }
        }
        std::mem::swap(&mut self.pixels, &mut self.spare);
    }

    /// `Image.transform(size, AFFINE, matrix, BICUBIC)`.
    pub fn affine_bicubic(&mut self, [a, b, c, d, e, f]: [f64; 6], fill: u8) {
        let (height, width, plane) = (self.height, self.width, self.plane());
        self.spare.fill(fill);
        for row in 0..height {
            for column in 0..width {
                let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
                let (from_x, from_y) = (a * x + b * y + c, d * x + e * y + f);
                let inside =
                    (0.0..width as f64).contains(&from_x) && (0.0..height as f64).contains(&from_y);
                if inside {
                    for channel in 0..3 {
                        let source = &self.pixels[channel * plane..][..plane];
                        self.spare[channel * plane + row * width + column] =
                            bicubic(source, (height, width), from_y - 0.5, from_x - 0.5);
                    }
                }
            }
        }
        std::mem::swap(&mut self.pixels, &mut self.spare);
    }

    /// Sets the rectangle of `rows` and `columns` to one colour.
    pub fn fill(
        &mut self,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        colour: [u8; 3],
    ) {
        let plane = self.plane();
        for (channel, level) in colour.into_iter().enumerate() {
            for row in rows.clone() {
                let start = channel * plane + row * self.width;
                self.pixels[start + columns.start..start + columns.end].fill(level);
            }
        }
    }
}

/// `Image.blend`: from `low` (factor 0) to `high` (factor 1) and beyond.
fn blend(low: u8, high: u8, factor: f32) -> u8 {
    let value = f32::from(low) + factor * (f32::from(high) - f32::from(low));
    // Conversion cuts off at 0 and 255 and drops the fraction, as Pillow does.
    value as u8
}

fn round15(value: f64) -> f64 {
    // Python's `round(value, 15)`, by way of the decimal text as Python does it.
    format!("{value:.15}").parse().expect("a number just printed")
}

fn coordinate(value: f64) -> i64 {
    if value < 0.0 { -1 } else { value as i64 }
}

/// One channel at a real place, whose centre of pixel 0 is 0.
fn bicubic(source: &[u8], (height, width): (usize, usize), y: f64, x: f64) -> u8 {
    let cubic = |v: [f64; 4], t: f64| {
        let second = -v[0] + v[2];
        let third = 2.0 * (v[0] - v[1]) + v[2] - v[3];
        let fourth = -v[0] + v[1] - v[2] + v[3];
        v[1] + t * (second + t * (third + t * fourth))
    };
    let (left, top) = (x.floor(), y.floor());
    let clipped = |place: i64, length: usize| place.clamp(0, length as i64 - 1) as usize;
    let columns = [-1, 0, 1, 2].map(|offset| clipped(left as i64 + offset, width));
    let mut lines = [0.0; 4];
    for (offset, line) in (-1i64..).zip(&mut lines) {
        let row = clipped(top as i64 + offset, height) * width;
        *line = cubic(columns.map(|column| f64::from(source[row + column])), x - left);
    }
    cubic(lines, y - top) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of what Pillow 13.0 makes of the image below (`[3,h,w]`), by operation and argument.
    const PILLOW: &str = include_str!("../../tests/pictures/pillow.txt");

    fn image() -> Image {
        let mut pixels = Vec::new();
        for c in 0..3 {
            for (y, x) in (0..32).flat_map(|y| (0..32).map(move |x| (y, x))) {
                let level = (x * 7 + y * 13 + c * 29) * (x + 3 * y + 1) / (1 + y % 3) + 40 * c;
                pixels.push((level % if c > 0 { 251 } else { 97 }) as u8);
            }
        }
        Image::new((32, 32), &pixels)
    }

    fn apply(image: &mut Image, name: &str, value: f64) {
        match name {
            "plain" => {}
            "invert" => image.invert(),
            "posterize" => image.posterize(value as u32),
            "solarize" => image.solarize(value),
            "solarize_add" => image.solarize_add(value),
            "autocontrast" => image.autocontrast(),
            "equalize" => image.equalize(),
            "brightness" => image.brightness(value as f32),
            "contrast" => image.contrast(value as f32),
            "color" => image.color(value as f32),
            "sharpness" => image.sharpness(value as f32),
            "rotate" => image.rotate(value, 0),
            "shear_x" => image.affine([1.0, value, 0.0, 0.0, 1.0, 0.0], 0),
            "shear_y" => image.affine([1.0, 0.0, 0.0, value, 1.0, 0.0], 0),
            "centred_x" => image.shear_centred(value.tan(), 0.0),
            "centred_y" => image.shear_centred(0.0, value.tan()),
            "bicubic_x" => image.affine_bicubic([1.0, value, 0.0, 0.0, 1.0, 0.0], 128),
            "bicubic_y" => image.affine_bicubic([1.0, 0.0, 0.0, value, 1.0, 0.0], 128),
            "translate_x" => image.affine([1.0, 0.0, value, 0.0, 1.0, 0.0], 0),
            "translate_y" => image.affine([1.0, 0.0, 0.0, 0.0, 1.0, value], 128),
            "cutout" => {
                let (x, y) = (value as usize % 100, value as usize / 100);
                let end = |start: usize| (start as f64 + 14.0 / 30.0 * 40.0).min(31.0) as usize + 1;
                image.fill(y..end(y), x..end(x), [125, 123, 114]);
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_operation_equals_pillows() {
        let mut wrong = Vec::new();
        for line in PILLOW.lines() {
            let mut words = line.split([' ', '"', '(', ')', ',']).filter(|word| !word.is_empty());
            let (name, second) = (words.next().unwrap(), words.next().unwrap());
            let (value, hash) =
                words.next().map_or((0.0, second), |hash| (second.parse().unwrap(), hash));
            let mut image = image();
            apply(&mut image, name, value);
            if format!("{:x}", md5::compute(&image.pixels)) != hash {
                wrong.push(format!("{name} {value}"));
            }
        }
        assert!(wrong.is_empty() && PILLOW.lines().count() > 90, "{wrong:?}");
    }
}
