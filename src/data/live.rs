//! Generated images that are drawn while training goes on, in place of a set that is there.

use std::{fmt, ops::Range};

/// A ring buffer of images that a sampler refills. Image `i` lies in slot `i mod capacity` until
/// image `i + capacity` takes its place, so that the buffer holds the last images drawn; which these
/// are is a function of the step alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ring {
    /// How many images it holds.
    pub capacity: u64,
    /// Images drawn for each step of training.
    pub rate: f64,
}

impl Ring {
    /// The images that the buffer holds at `step`, by their indices in the endless set.
    pub fn window(&self, step: u64) -> Range<u64> {
        let replaced = (step as f64 * self.rate).floor() as u64;
        replaced..replaced.saturating_add(self.capacity)
    }
}

/// Whoever draws the images of a [`Ring`]. What an image is depends on its index alone, never on
/// who asks for it when.
pub trait Live: Sync + fmt::Debug {
    /// Writes image `index` channel by channel into `out` and says its label; waits until it is
    /// drawn. `None` where no image will come any more.
    fn take(&self, index: u64, out: &mut [u8]) -> Option<u16>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_moves_at_the_stated_rate() {
        let windows = |rate| [0, 1, 2, 3, 100].map(|step| Ring { capacity: 10, rate }.window(step));
        assert_eq!(windows(0.0), [0..10, 0..10, 0..10, 0..10, 0..10]);
        assert_eq!(windows(0.5), [0..10, 0..10, 1..11, 1..11, 50..60]);
        assert_eq!(windows(3.0), [0..10, 3..13, 6..16, 9..19, 300..310]);
    }
}
