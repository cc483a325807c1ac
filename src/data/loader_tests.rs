use tch::Device;

use super::*;
use crate::data::{Layout, Pixels};

/// `count` images of 4x4 pixels whose bytes all are their index.
fn numbered(count: u8, classes: usize) -> Dataset {
    Dataset {
        name: "numbered".into(),
        classes: (0..classes).map(|class| class.to_string()).collect(),
        size: (4, 4),
        layout: Layout::Chw,
        pixels: Pixels::Owned((0..count).flat_map(|index| [index; 48]).collect()),
        labels: (0..count).map(|index| u16::from(index) % classes as u16).collect(),
        soft: None,
    }
}

fn spec() -> BatchSpec {
    BatchSpec {
        batch: 10,
        fraction: 0.75,
        generated: 30,
        held_out: 5,
        augmentation: Augmentation::NONE,
        noise: Noise::Uniform,
        views: 1,
        repeats: 1,
        seed: 3,
    }
}

fn all(batches: &Batches<'_>, steps: Range<u64>, threads: usize) -> Vec<Batch> {
    std::thread::scope(|scope| Ahead::start(scope, batches, steps, threads).collect())
}

#[test]
fn batches_hold_the_right_share_and_never_the_held_out() {
    let (real, fake) = (numbered(50, 5), [numbered(20, 5), numbered(20, 5)]);
    let parts = [&fake[0], &fake[1]];
    let batches = Batches::new(&real, &parts, spec());
    assert_eq!(batches.steps(), 5);
    let mut seen = Vec::new();
    for batch in all(&batches, 0..5, 1) {
        let generated = batch.origins.iter().filter(|o| matches!(o, Origin::Generated(_))).count();
        assert_eq!((batch.labels.len(), generated), (10, 7));
        for (position, origin) in batch.origins.iter().enumerate() {
            let byte = match *origin {
                Origin::Real(index) => index,
                Origin::Generated(index) => index % 20,
            };
            assert_eq!(usize::from(batch.pixels[position * 48]), byte);
            assert_eq!(batch.labels[position], byte as i64 % 5);
            if let Origin::Real(index) = *origin {
                assert!(index >= 5);
                seen.push(index);
            } else if let Origin::Generated(index) = *origin {
                assert!(index < 30);
            }
        }
    }
    // Within one epoch the real images come from one permutation.
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((count, seen.len()), (15, 15));
}

#[test]
fn without_generated_images_an_epoch_is_a_permutation_with_a_short_tail() {
    let real = numbered(28, 4);
    let spec = BatchSpec { generated: 0, held_out: 3, ..spec() };
    let batches = Batches::new(&real, &[], spec);
    let sizes: Vec<_> = all(&batches, 0..3, 1).iter().map(|batch| batch.labels.len()).collect();
    assert_eq!(sizes, [10, 10, 5]);
    let order = |step| all(&batches, step..step + 1, 1)[0].origins.clone();
    assert_ne!(order(0), order(3), "each epoch has its own order");
}

#[test]
fn a_short_tail_is_filled_with_generated_images() {
    let (real, fake) = (numbered(12, 4), numbered(10, 4));
    let parts = [&fake];
    let spec = BatchSpec { generated: 10, held_out: 4, batch: 4, fraction: 0.25, ..spec() };
    // 8 real images are left, in slices of 3: the third holds 2.
    let tail = Batches::new(&real, &parts, spec);
    let last = &all(&tail, 0..3, 1)[2];
    let generated = last.origins.iter().filter(|o| matches!(o, Origin::Generated(_))).count();
    assert_eq!((last.labels.len(), generated), (4, 2));
}

#[test]
fn any_number_of_threads_and_any_start_give_the_same_batches() {
    let (real, fake) = (numbered(50, 5), numbered(40, 5));
    let parts = [&fake];
    let augmentation = Augmentation { pad: 1, mirror: true, rotate: 15.0, ..Augmentation::NONE };
    let batches = Batches::new(&real, &parts, BatchSpec { augmentation, ..spec() });
    let one = all(&batches, 0..12, 1);
    assert_eq!(one, all(&batches, 0..12, 3));
    assert_eq!(one[7..], all(&batches, 7..12, 2));
    let noise = &one[0].noise;
    assert!(noise.iter().all(|v| (-1.0..1.0).contains(v)));
    let mean = noise.iter().sum::<f32>() / noise.len() as f32;
    assert!(mean.abs() < 0.1, "{mean}");
}

#[test]
fn soft_labels_come_with_their_images() {
    let (real, mut fake) = (numbered(50, 5), numbered(40, 5));
    // Image i is of class i mod 5 by (i + 1) percent, else of the class after.
    let row = |index: u8| {
        let (sure, mut row) = (f32::from(index + 1) / 100.0, [0f32; 5]);
        (row[usize::from(index) % 5], row[usize::from(index + 1) % 5]) = (sure, 1.0 - sure);
        row
    };
    let bytes = (0..40).flat_map(row).flat_map(f32::to_le_bytes).collect();
    fake.soft = Some(Soft::new(5, Pixels::Owned(bytes)));
    let parts = [&fake];
    let batches = Batches::new(&real, &parts, BatchSpec { views: 2, ..spec() });
    let batch = batches.at(3).unwrap();
    assert_eq!(batch.soft.len(), 2 * 10 * 5);
    let targets = batch.soft(Device::Cpu).unwrap();
    assert_eq!(targets.size(), [20, 5]);
    for (position, origin) in batch.origins.iter().enumerate() {
        let expected = match *origin {
            Origin::Generated(index) => row(index as u8),
            Origin::Real(index) => {
                std::array::from_fn(|class| if class == index % 5 { 1.0 } else { 0.0 })
            }
        };
        assert_eq!(batch.soft[position * 5..][..5], expected, "{origin:?}");
    }
    assert!(
        Batches::new(&real, &[], BatchSpec { generated: 0, ..spec() })
            .at(0)
            .unwrap()
            .soft
            .is_empty()
    );
}

/// Images whose bytes all are their index modulo 251; none from `end` on.
#[derive(Debug)]
struct Endless {
    end: u64,
}

impl Live for Endless {
    fn take(&self, index: u64, out: &mut [u8]) -> Option<u16> {
        out.fill((index % 251) as u8);
        (index < self.end).then_some((index % 5) as u16)
    }
}

#[test]
fn images_drawn_meanwhile_come_from_the_window_of_their_step() {
    let (real, source) = (numbered(50, 5), Endless { end: u64::MAX });
    let spec = BatchSpec { augmentation: Augmentation::NONE, ..spec() };
    let batches = Batches::live(&real, &source, 2.5, spec.clone());
    let one = all(&batches, 0..40, 1);
    assert_eq!(one, all(&batches, 0..40, 3));
    for batch in &one {
        let window = Ring { capacity: 30, rate: 2.5 }.window(batch.step);
        let mut seen = 0;
        for (position, origin) in batch.origins.iter().enumerate() {
            let Origin::Generated(index) = *origin else { continue };
            assert!(window.contains(&(index as u64)), "step {}: {index}", batch.step);
            assert_eq!(batch.pixels[position * 48], (index % 251) as u8);
            assert_eq!(batch.labels[position], index as i64 % 5);
            seen += 1;
        }
        assert_eq!(seen, 7);
    }
    // Where no more come, batches end and nobody waits.
    let short = Endless { end: 60 };
    let batches = Batches::live(&real, &short, 2.5, spec);
    let some = all(&batches, 0..40, 2);
    assert!((5..40).contains(&some.len()), "{}", some.len());
    assert_eq!(some[..], one[..some.len()]);
}

/// Nothing of a batch shows in the one that is made in its memory.
#[test]
fn batches_in_the_memory_of_others_are_the_same() {
    let (real, fake) = (numbered(28, 5), numbered(40, 5));
    let parts = [&fake];
    // The last of an epoch is shorter than the others.
    for spec in [spec(), BatchSpec { generated: 0, held_out: 3, ..spec() }] {
        let batches = Batches::new(&real, &parts, spec);
        let fresh: Vec<Batch> = (0..6).map(|step| batches.at(step).unwrap()).collect();
        for (step, expected) in fresh.iter().enumerate() {
            let batch = batches.at(step as u64).unwrap();
            assert_eq!(batch, *expected);
            batches.take_back(batch);
        }
    }
}
