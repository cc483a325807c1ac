//! Small coloured shapes for tests: disc, ring, bar and cross.

use crate::{
    data::{Dataset, Layout, Pixels},
    rng::Stream,
};

/// `count` images of 16x16 pixels, four classes in turn.
pub(crate) fn shapes(count: u64, seed: u64) -> Dataset {
    let mut pixels = Vec::new();
    for index in 0..count {
        let mut stream = Stream::new(seed, "toy", index);
        let mut colour = || [0; 3].map(|_| stream.between(40.0, 215.0));
        let (ink, paper) = (colour(), colour());
        let (cy, cx) = (stream.between(6.0, 9.0), stream.between(6.0, 9.0));
        for (channel, place) in (0..3).flat_map(|c| (0..256).map(move |p| (c, p))) {
            let (y, x) = (f64::from(place / 16) - cy, f64::from(place % 16) - cx);
            let far = y.hypot(x);
            let inside = match index % 4 {
                0 => far < 4.5,
                1 => (3.0..5.5).contains(&far),
                2 => y.abs() < 1.5,
                _ => far < 7.0 && (y.abs() < 1.5 || x.abs() < 1.5),
            };
            let value = if inside { ink[channel] } else { paper[channel] };
            pixels.push((value + stream.between(-8.0, 8.0)) as u8);
        }
    }
    Dataset {
        name: "toy".into(),
        classes: ["disc", "ring", "bar", "cross"].map(String::from).to_vec(),
        size: (16, 16),
        layout: Layout::Chw,
        pixels: Pixels::Owned(pixels),
        labels: (0..count).map(|index| (index % 4) as u16).collect(),
        soft: None,
    }
}
