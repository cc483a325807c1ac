//! Which training images are held out to choose the best checkpoint.

use crate::data::Dataset;

impl Dataset {
    /// Indices of `count` images that are held out, and of those that are left: the first ones, as
    /// in the paper; spread evenly where images lie class by class (TinyImageNet, image folders),
    /// since there the first ones are all that there is of some classes.
    ///
    /// # Panics
    /// If no image is left.
    pub fn held_out(&self, count: usize) -> (Vec<usize>, Vec<usize>) {
        assert!(count < self.len(), "some image must be left");
        let spread = |i: usize| i * self.len() / count;
        let held: Vec<usize> = match self.labels.is_sorted() {
            true => (0..count).map(spread).collect(),
            false => (0..count).collect(),
        };
        let mut next = held.iter().peekable();
        let left = (0..self.len()).filter(|index| next.next_if_eq(&index).is_none()).collect();
        (held, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Layout, Pixels};

    fn labelled(labels: Vec<u16>) -> Dataset {
        Dataset {
            name: "labelled".into(),
            classes: (0..4).map(|class| class.to_string()).collect(),
            size: (1, 1),
            layout: Layout::Chw,
            pixels: Pixels::Owned(vec![0; 3 * labels.len()]),
            labels,
            soft: None,
        }
    }

    #[test]
    fn the_first_images_unless_a_class_would_be_lost() {
        let mixed = labelled((0..80).map(|i| i % 4).collect());
        let (held, left) = mixed.held_out(10);
        assert_eq!(held, (0..10).collect::<Vec<_>>());
        assert_eq!(left, (10..80).collect::<Vec<_>>());
        // Class by class, 20 each: the first 18 would be nearly all of class 0.
        let sorted = labelled((0..80).map(|i| i / 20).collect());
        let (held, left) = sorted.held_out(18);
        let of = |indices: &[usize], class: u16| {
            indices.iter().filter(|&&i| sorted.labels[i] == class).count()
        };
        assert_eq!((held.len(), left.len()), (18, 62));
        assert!((0..4).all(|class| (4..=5).contains(&of(&held, class))), "{held:?}");
        assert!(held.iter().all(|index| !left.contains(index)));
        assert_eq!(sorted.held_out(0), (Vec::new(), (0..80).collect()));
    }
}
