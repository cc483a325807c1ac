//! Training batches: real and generated images mixed and augmented, made ahead of use.
//!
//! Every byte of batch `step` is a function of (seed, step), so batches may be made by any number
//! of threads, in any order, and training may go on at any step.

use std::{
    ops::Range,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::Scope,
};

use tch::{Device, Kind, Tensor};

use crate::{
    data::{Dataset, augment::Augmentation},
    device::upload,
    rng::Stream,
};

/// How many finished batches each thread keeps ready.
const AHEAD: usize = 2;

/// Random numbers that come with every image, for the attack that crafts from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// None.
    Off,
    /// Uniform in `[-1, 1)`.
    Uniform,
    /// Standard normal.
    Normal,
}

/// What a batch is made of.
#[derive(Debug, Clone)]
pub struct BatchSpec {
    /// Images of a batch, real and generated together.
    pub batch: usize,
    /// Share of generated images; `int(batch * fraction)` of them.
    pub fraction: f64,
    /// How many generated images count, from the first on.
    pub generated: usize,
    /// How many real images never appear: see [`Dataset::held_out`].
    pub held_out: usize,
    /// What happens to each image.
    pub augmentation: Augmentation,
    /// The noise that comes with each image.
    pub noise: Noise,
    /// How many views of each image there are, each with its own augmentation: all first views,
    /// then all second ones.
    pub views: usize,
    /// How often the batch is repeated after it is made: so much noise comes with it.
    pub repeats: usize,
    /// Seed of everything random here.
    pub seed: u64,
}

/// Where an image of a batch came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Index in the real set.
    Real(usize),
    /// Index over all generated parts.
    Generated(usize),
}

/// One batch, not yet a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its number, counted over all epochs.
    pub step: u64,
    /// Height and width.
    pub size: (usize, usize),
    /// `[n,3,h,w]`.
    pub pixels: Vec<u8>,
    /// `[n]`.
    pub labels: Vec<i64>,
    /// Where each image came from.
    pub origins: Vec<Origin>,
    /// `[n * repeats,3,h,w]`, or nothing for [`Noise::Off`].
    pub noise: Vec<f32>,
}

impl Batch {
    /// Images `[n,3,h,w]`, `Float` in `[0, 1]`. Bytes travel to `device`, floats are made there.
    pub fn images(&self, device: Device) -> Tensor {
        let shape = self.shape();
        let bytes = Tensor::from_slice(&self.pixels).view(shape);
        upload(&bytes, device).to_kind(Kind::Float) / 255.0
    }

    /// Labels `[n]`, `Int64`.
    pub fn targets(&self, device: Device) -> Tensor {
        upload(&Tensor::from_slice(&self.labels), device)
    }

    /// Noise `[n * repeats,3,h,w]`, `Float`; nothing for [`Noise::Off`].
    pub fn noise(&self, device: Device) -> Tensor {
        let [_, channels, height, width] = self.shape();
        upload(&Tensor::from_slice(&self.noise).view([-1, channels, height, width]), device)
    }

    /// 1 where the image is generated, else 0: `[n]`, `Float`.
    pub fn generated(&self, device: Device) -> Tensor {
        let marks: Vec<f32> = self
            .origins
            .iter()
            .map(|o| f32::from(u8::from(matches!(o, Origin::Generated(_)))))
            .collect();
        upload(&Tensor::from_slice(&marks), device)
    }

    fn shape(&self) -> [i64; 4] {
        [self.labels.len() as i64, 3, self.size.0 as i64, self.size.1 as i64]
    }
}

/// All batches of a training run.
#[derive(Debug)]
pub struct Batches<'a> {
    real: &'a Dataset,
    generated: &'a [&'a Dataset],
    spec: BatchSpec,
    /// Indices of the real images that are trained on.
    left: Vec<usize>,
}

impl<'a> Batches<'a> {
    /// Batches of `real` and the parts of `generated`, counted through in order.
    ///
    /// # Panics
    /// If image sizes differ, no real image is left, or the parts hold fewer images than `spec`
    /// counts: the caller checks what a user can get wrong.
    pub fn new(real: &'a Dataset, generated: &'a [&'a Dataset], spec: BatchSpec) -> Self {
        let available: usize = generated.iter().map(|part| part.len()).sum();
        assert!(spec.generated <= available && spec.held_out < real.len() && spec.batch > 0);
        assert!(generated.iter().all(|part| part.size == real.size));
        let (_, left) = real.held_out(spec.held_out);
        Self { real, generated, spec, left }
    }

    /// Steps of one epoch: ⌈N / batch⌉, N all real images, those held out too (as the paper).
    pub fn steps(&self) -> u64 {
        self.real.len().div_ceil(self.spec.batch) as u64
    }

    /// Batch `step` alone.
    pub fn at(&self, step: u64) -> Batch {
        let origins = self.origins(step, &mut Order::default());
        self.ask(&origins);
        self.make(step, &origins)
    }

    /// All reads of a batch wait for the disk together instead of one after the other.
    fn ask(&self, origins: &[Origin]) {
        let bytes = self.real.image_bytes();
        for &origin in origins {
            let (set, index) = self.find(origin);
            if set.pixels.is_vast() {
                set.pixels.will_need(index * bytes, bytes);
            }
        }
    }

    /// Batch `step` of the images of `origins`.
    fn make(&self, step: u64, origins: &[Origin]) -> Batch {
        let origins = origins.repeat(self.spec.views);
        let bytes = self.real.image_bytes();
        let mut batch = Batch {
            step,
            size: self.real.size,
            pixels: vec![0; origins.len() * bytes],
            labels: Vec::with_capacity(origins.len()),
            origins,
            noise: Vec::new(),
        };
        let (mut raw, mut image) = (vec![0; bytes], vec![0; bytes]);
        let places = batch.pixels.chunks_exact_mut(bytes).zip(&batch.origins);
        for (position, (place, &origin)) in places.enumerate() {
            let (set, index) = self.find(origin);
            set.read_chw(index, &mut raw, &mut image);
            batch.labels.push(i64::from(set.labels[index]));
            let mut stream = self.stream("augment", step, position);
            self.spec.augmentation.apply(&mut stream, self.real.size, &image, place);
        }
        for position in 0..batch.labels.len() * self.spec.repeats {
            let stream = self.stream("craft", step, position);
            draw(self.spec.noise, stream, bytes, &mut batch.noise);
        }
        batch
    }

    /// Which images batch `step` holds, in random order.
    fn origins(&self, step: u64, order: &mut Order) -> Vec<Origin> {
        let pool = self.spec.generated as u64;
        let drawn =
            if pool == 0 { 0 } else { (self.spec.batch as f64 * self.spec.fraction) as usize };
        let wanted = self.spec.batch - drawn;
        let mut origins = Vec::with_capacity(self.spec.batch);
        if wanted > 0 {
            let (epoch, inner) = (step / self.steps(), (step % self.steps()) as usize);
            let left = self.left.len();
            // A permutation may run out within an epoch: then a new round begins.
            let slices = left.div_ceil(wanted);
            let permutation = order.of(self.spec.seed, epoch, (inner / slices) as u64, left);
            let slice = inner % slices * wanted..left.min((inner % slices + 1) * wanted);
            let real = permutation[slice].iter().map(|&i| Origin::Real(self.left[i as usize]));
            origins.extend(real);
        }
        let mut stream = Stream::new(self.spec.seed, "mix", step);
        while drawn > 0 && origins.len() < self.spec.batch {
            origins.push(Origin::Generated(stream.below(pool) as usize));
        }
        for last in (1..origins.len()).rev() {
            origins.swap(last, stream.below(last as u64 + 1) as usize);
        }
        origins
    }

    fn find(&self, origin: Origin) -> (&Dataset, usize) {
        match origin {
            Origin::Real(index) => (self.real, index),
            Origin::Generated(mut index) => {
                for part in self.generated {
                    if index < part.len() {
                        return (part, index);
                    }
                    index -= part.len();
                }
                unreachable!("indices stay below the number of generated images")
            }
        }
    }

    /// The random stream of one place in all of training.
    fn stream(&self, name: &str, step: u64, position: usize) -> Stream {
        let places = self.spec.batch * self.spec.views * self.spec.repeats;
        Stream::new(self.spec.seed, name, step * places as u64 + position as u64)
    }

    fn lane(&self, steps: impl Iterator<Item = u64>, sender: &SyncSender<Batch>) {
        let mut order = Order::default();
        let mut plan = |step| {
            let origins = self.origins(step, &mut order);
            self.ask(&origins);
            origins
        };
        let mut steps = steps.peekable();
        let mut planned = steps.peek().map(|&first| plan(first));
        while let (Some(step), Some(origins)) = (steps.next(), planned) {
            // The disk reads for the next batch while this one is made.
            planned = steps.peek().map(|&next| plan(next));
            // The receiver is gone when training ends early: nothing is left to do.
            if sender.send(self.make(step, &origins)).is_err() {
                return;
            }
        }
    }
}

/// The last permutation made.
#[derive(Debug, Default)]
struct Order {
    key: Option<(u64, u64)>,
    permutation: Vec<u32>,
}

impl Order {
    fn of(&mut self, seed: u64, epoch: u64, round: u64, count: usize) -> &[u32] {
        if self.key != Some((epoch, round)) {
            self.permutation = Stream::new(seed, "order", epoch << 32 | round).permutation(count);
            self.key = Some((epoch, round));
        }
        &self.permutation
    }
}

fn draw(noise: Noise, mut stream: Stream, count: usize, out: &mut Vec<f32>) {
    match noise {
        Noise::Off => {}
        Noise::Normal => out.extend(stream.normals(count)),
        // 24 bits are all a float holds, so one draw gives two.
        Noise::Uniform => {
            let end = out.len() + count;
            while out.len() < end {
                let bits = stream.bits();
                for half in [bits >> 40, bits >> 8 & 0xff_ffff] {
                    out.push(half as f32 / (1 << 23) as f32 - 1.0);
                }
            }
            out.truncate(end);
        }
    }
}

/// Batches in order, made by threads ahead of use.
#[derive(Debug)]
pub struct Ahead {
    lanes: Vec<Receiver<Batch>>,
    steps: Range<u64>,
    start: u64,
}

impl Ahead {
    /// Starts `threads` threads that make the batches of `steps`. They end with the last batch, or
    /// soon after this value is dropped.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        batches: &'scope Batches<'_>,
        steps: Range<u64>,
        threads: usize,
    ) -> Self {
        let lanes = (0..threads.max(1)).map(|lane| {
            let (sender, receiver) = sync_channel(AHEAD);
            let mine = steps.clone().skip(lane).step_by(threads.max(1));
            scope.spawn(move || batches.lane(mine, &sender));
            receiver
        });
        Self { lanes: lanes.collect(), start: steps.start, steps }
    }
}

impl Iterator for Ahead {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let step = self.steps.next()?;
        let lane = ((step - self.start) % self.lanes.len() as u64) as usize;
        Some(self.lanes[lane].recv().expect("a thread that makes batches lives as long as they do"))
    }
}

#[cfg(test)]
mod tests {
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
            let generated =
                batch.origins.iter().filter(|o| matches!(o, Origin::Generated(_))).count();
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
        let augmentation =
            Augmentation { pad: 1, mirror: true, rotate: 15.0, ..Augmentation::NONE };
        let batches = Batches::new(&real, &parts, BatchSpec { augmentation, ..spec() });
        let one = all(&batches, 0..12, 1);
        assert_eq!(one, all(&batches, 0..12, 3));
        assert_eq!(one[7..], all(&batches, 7..12, 2));
        let noise = &one[0].noise;
        assert!(noise.iter().all(|v| (-1.0..1.0).contains(v)));
        let mean = noise.iter().sum::<f32>() / noise.len() as f32;
        assert!(mean.abs() < 0.1, "{mean}");
    }
}
