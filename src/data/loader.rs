//! Training batches: real and generated images mixed and augmented, made ahead of use.
//!
//! Every byte of batch `step` is a function of (seed, step), so batches may be made by any number
//! of threads, in any order, and training may go on at any step.

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::Scope,
};

pub use super::batch::{Batch, Origin};
use crate::{
    data::{
        Dataset, Soft,
        augment::Augmentation,
        live::{Live, Ring},
    },
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
    /// How many generated images count, from the first on, or at a time.
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

/// All batches of a training run.
#[derive(Debug)]
pub struct Batches<'a> {
    real: &'a Dataset,
    generated: &'a [&'a Dataset],
    /// Where generated images come from instead, and which there are at a step.
    live: Option<(&'a dyn Live, Ring)>,
    /// How many classes soft labels name, where some set has them.
    soft: Option<usize>,
    spec: BatchSpec,
    /// Indices of the real images that are trained on.
    left: Vec<usize>,
    /// Batches that are used up, whose memory serves again: fresh memory costs a page fault every
    /// 4096 bytes, a quarter of the time that it takes to read the images.
    spent: Mutex<Vec<Batch>>,
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
        Self::with(real, generated, None, spec)
    }

    /// Batches of `real` and of what `source` draws meanwhile: at each step of the last
    /// `spec.generated` images, `rate` more of them with each step.
    ///
    /// # Panics
    /// If no real image is left.
    pub fn live(real: &'a Dataset, source: &'a dyn Live, rate: f64, spec: BatchSpec) -> Self {
        assert!(spec.held_out < real.len() && spec.batch > 0);
        let ring = Ring { capacity: spec.generated as u64, rate };
        Self::with(real, &[], Some((source, ring)), spec)
    }

    fn with(
        real: &'a Dataset,
        generated: &'a [&'a Dataset],
        live: Option<(&'a dyn Live, Ring)>,
        spec: BatchSpec,
    ) -> Self {
        let (_, left) = real.held_out(spec.held_out);
        let sets = generated.iter().copied().chain([real]);
        let soft = sets.filter_map(|set| set.soft.as_ref()).map(Soft::classes).max();
        Self { real, generated, live, soft, spec, left, spent: Mutex::default() }
    }

    /// Steps of one epoch: ⌈N / batch⌉, N all real images, those held out too (as the paper).
    pub fn steps(&self) -> u64 {
        self.real.len().div_ceil(self.spec.batch) as u64
    }

    /// Batch `step` alone; `None` where images are drawn meanwhile and no more come.
    pub fn at(&self, step: u64) -> Option<Batch> {
        Some(self.finish(self.begin(step, &mut Order::default())?))
    }

    /// Which images batch `step` holds, one view of each.
    pub fn origins_at(&self, step: u64) -> Vec<Origin> {
        self.origins(step, &mut Order::default())
    }

    /// Takes back a batch that nobody looks at any more: one to come is made in its memory.
    pub fn take_back(&self, batch: Batch) {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
    }

    /// Batch `step` of what `origins` says, its pixels not yet written.
    fn blank(&self, step: u64, origins: Vec<Origin>) -> Batch {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut batch = Batch { step, size: self.real.size, origins, ..spent.unwrap_or_default() };
        batch.pixels.resize(batch.origins.len() * self.real.image_bytes(), 0);
        batch.labels.clear();
        batch.soft.clear();
        batch.noise.clear();
        batch
    }

    /// Batch `step` with the images that are in memory. The disk is asked for all others together;
    /// those that are still being drawn are waited for, `None` if they never come.
    fn begin(&self, step: u64, order: &mut Order) -> Option<Draft> {
        let origins = self.origins(step, order).repeat(self.spec.views);
        let bytes = self.real.image_bytes();
        let mut batch = self.blank(step, origins);
        let (mut far, mut room) = (Vec::new(), Room::of(bytes));
        let places = batch.pixels.chunks_exact_mut(bytes).zip(&batch.origins);
        for (position, (place, &origin)) in places.enumerate() {
            if let (Origin::Generated(index), Some((live, _))) = (origin, self.live) {
                let mut label = None;
                let take = |_: &mut [u8], out: &mut [u8]| {
                    label = live.take(index as u64, out);
                    label.is_some()
                };
                self.fill(step, position, place, &mut room, take);
                self.say(&mut batch.labels, &mut batch.soft, label?, None);
                continue;
            }
            let (set, index) = self.find(origin);
            let soft = set.soft.as_ref().map(|soft| (soft, index));
            self.say(&mut batch.labels, &mut batch.soft, set.labels[index], soft);
            let take = |raw: &mut [u8], out: &mut [u8]| set.take_chw(index, raw, out);
            if !self.fill(step, position, place, &mut room, take) {
                set.pixels.will_need(index * bytes, bytes);
                far.push(position);
            }
        }
        Some(Draft { batch, far })
    }

    /// Appends an image's label and, where any set has soft ones, how probable each class is.
    fn say(
        &self,
        labels: &mut Vec<i64>,
        rows: &mut Vec<f32>,
        label: u16,
        soft: Option<(&Soft, usize)>,
    ) {
        labels.push(i64::from(label));
        match (soft, self.soft) {
            (Some((soft, index)), _) => rows.extend(soft.row(index)),
            (None, Some(classes)) => {
                rows.extend(
                    (0..classes).map(|class| f32::from(u8::from(class == usize::from(label)))),
                );
            }
            (None, None) => {}
        }
    }

    /// Waits for the images that `draft` lacks, and adds the noise.
    fn finish(&self, Draft { mut batch, far }: Draft) -> Batch {
        let (bytes, mut room) = (self.real.image_bytes(), Room::of(self.real.image_bytes()));
        for position in far {
            let (set, index) = self.find(batch.origins[position]);
            let place = &mut batch.pixels[position * bytes..][..bytes];
            self.fill(batch.step, position, place, &mut room, |raw, out| {
                set.read_chw(index, raw, out);
                true
            });
        }
        for position in 0..batch.labels.len() * self.spec.repeats {
            let stream = self.stream("craft", batch.step, position);
            draw(self.spec.noise, stream, bytes, &mut batch.noise);
        }
        batch
    }

    /// Puts the image that `take` gives at its `place` in batch `step`, if it gives one.
    fn fill(
        &self,
        step: u64,
        position: usize,
        place: &mut [u8],
        Room { raw, image }: &mut Room,
        take: impl FnOnce(&mut [u8], &mut [u8]) -> bool,
    ) -> bool {
        if self.spec.augmentation == Augmentation::NONE {
            return take(raw, place);
        }
        let taken = take(raw, image);
        if taken {
            let mut stream = self.stream("augment", step, position);
            self.spec.augmentation.apply(&mut stream, self.real.size, image, place);
        }
        taken
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
        let first = self.live.map_or(0, |(_, ring)| ring.window(step).start);
        while drawn > 0 && origins.len() < self.spec.batch {
            origins.push(Origin::Generated((first + stream.below(pool)) as usize));
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
        let mut steps = steps.peekable();
        let mut begun = steps.peek().and_then(|&first| self.begin(first, &mut order));
        while let (Some(_), Some(draft)) = (steps.next(), begun) {
            // The disk reads for the next batch while this one is finished and used.
            begun = steps.peek().and_then(|&next| self.begin(next, &mut order));
            // The receiver is gone when training ends early: nothing is left to do.
            if sender.send(self.finish(draft)).is_err() {
                return;
            }
        }
    }
}

/// A batch of which some images still lie on the disk.
struct Draft {
    batch: Batch,
    /// Their positions.
    far: Vec<usize>,
}

/// Room for one image as it lies in its set, and channel by channel.
struct Room {
    raw: Vec<u8>,
    image: Vec<u8>,
}

impl Room {
    fn of(bytes: usize) -> Self {
        Self { raw: vec![0; bytes], image: vec![0; bytes] }
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

/// Batches in order, made by threads ahead of use. They end early where images are drawn meanwhile
/// and no more come.
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
        self.lanes[lane].recv().ok()
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
