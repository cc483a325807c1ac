//! What feeding a training costs: decoding, augmentation, and random batches of a set that is
//! mapped, beside plain random reads of the same pages.
//!
//! `cargo bench --profile dev --bench data -- "random batches"` runs the last part alone; the profile
//! avoids building libtorch's bindings anew. The mapped set is a stand-in of `GAUNTLET_BENCH_IMAGES` images (default 400,000: 1.2 GB), made once in
//! `target/bench-data`; take more than the machine's memory holds to measure the disk.

use std::{
    fs::{self, File},
    hint::black_box,
    io::{BufWriter, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::LazyLock,
    thread,
    time::Instant,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gauntlet::{
    data::{
        Dataset,
        augment::{Augmentation, Policy},
        generated,
        loader::{Ahead, Batch, BatchSpec, Batches, Noise, Origin},
        picture,
        spec::Split,
        synthetic,
    },
    rng::Stream,
    train::cutmix,
};
use tch::Device;

fn decode(criterion: &mut Criterion) {
    let bytes = fs::read("tests/pictures/420.jpg").expect("a picture of the repository");
    criterion.bench_function("decode a small JPEG", |bencher| {
        bencher.iter(|| picture::decode(black_box(&bytes)).expect("a whole picture"));
    });
}

fn augment(criterion: &mut Criterion) {
    let set = synthetic::draw(Split::Train, 0, 64, 32);
    let mut group = criterion.benchmark_group("augment 32x32");
    group.throughput(Throughput::Elements(1));
    let policy = |policy| Augmentation::with_policy("cifar10", 32, policy);
    for (name, augmentation) in [
        ("none", Augmentation::NONE),
        ("crop and flip", Augmentation::base("cifar10", 32)),
        ("crop, flip, rotate", Augmentation::base("cifar100", 32)),
        ("cutout", policy(Policy::Cutout)),
        ("autoaugment", policy(Policy::AutoAugment)),
        ("randaugment", policy(Policy::RandAugment)),
        ("idbh", policy(Policy::Idbh)),
    ] {
        let (mut out, mut index) = (vec![0; set.image_bytes()], 0);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut stream = Stream::new(0, "augment", index);
                augmentation.apply(&mut stream, set.size, set.image(index as usize % 64), &mut out);
                index += 1;
            });
        });
    }
}

/// CutMix works on a batch of tensors: of 128 images it makes 512.
fn cut_and_mix(criterion: &mut Criterion) {
    tch::set_num_threads(1);
    let set = synthetic::draw(Split::Train, 0, 128, 32);
    let indices: Vec<usize> = (0..128).collect();
    let images = set.images(&indices, Device::Cpu);
    let targets = set.targets(&indices, Device::Cpu).onehot(10);
    let mut group = criterion.benchmark_group("augment 32x32");
    group.throughput(Throughput::Elements(512));
    let mut step = 0;
    group.bench_function("cutmix", |bencher| {
        bencher.iter(|| {
            step += 1;
            black_box(cutmix::mix(&mut Stream::new(0, "cutmix", step), &images, &targets))
        });
    });
}

/// A zip64 archive with stored `image` and `label`, as `numpy.savez` writes it.
fn stand_in(images: usize) -> PathBuf {
    let path = Path::new("target/bench-data").join(format!("{images}.npz"));
    if path.exists() {
        return path;
    }
    fs::create_dir_all("target/bench-data").expect("a folder");
    let beside = path.with_extension("part");
    let mut archive = zip::ZipWriter::new(BufWriter::new(File::create(&beside).expect("a file")));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .large_file(true);
    let header = |dtype: &str, shape: &str| {
        let text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
        let text = format!("{text:<117}\n");
        [b"\x93NUMPY\x01\x00".to_vec(), (text.len() as u16).to_le_bytes().to_vec(), text.into()]
            .concat()
    };
    archive.start_file("image.npy", options).expect("an entry");
    archive.write_all(&header("|u1", &format!("({images}, 32, 32, 3)"))).expect("written");
    let block: Vec<u8> = (0..3072 * 100).map(|i: u32| (i * 7 % 251) as u8).collect();
    for _ in 0..images / 100 {
        archive.write_all(&block).expect("written");
    }
    archive.start_file("label.npy", options).expect("an entry");
    archive.write_all(&header("<i8", &format!("({images},)"))).expect("written");
    for index in 0..images {
        archive.write_all(&(index as i64 % 10).to_le_bytes()).expect("written");
    }
    archive.finish().expect("an archive");
    fs::rename(beside, &path).expect("in place");
    path
}

/// Resident memory of this process in MB, mapped files not counted.
fn own_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a recent kernel");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Rounds of both sides in turn, so that what else the machine does meets both.
const ROUNDS: usize = 7;
const BATCH: usize = 512;
const STEPS: u64 = 40;

/// Random batches beside plain random reads of the very same images, on one thread each.
///
/// Cold: before every turn the file's pages are dropped (`POSIX_FADV_DONTNEED`), and the plain side
/// reads without read-ahead (`POSIX_FADV_RANDOM`), as the mapped one does. Warm: all is in memory, and
/// the processor's time of the one thread counts: there is nothing to wait for.
fn random_batches(_: &mut Criterion) {
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let rows = [
        ("random batches, warm, as they are", false, Augmentation::NONE),
        ("random batches, warm, crop and flip", false, Augmentation::base("cifar10", 32)),
        ("random batches, cold, as they are", true, Augmentation::NONE),
        ("random batches, cold, crop and flip", true, Augmentation::base("cifar10", 32)),
    ];
    let rows: Vec<_> = rows.into_iter().filter(|(name, ..)| name.contains(&filter)).collect();
    if rows.is_empty() {
        return;
    }
    let images = std::env::var("GAUNTLET_BENCH_IMAGES").ok().and_then(|text| text.parse().ok());
    let images = images.unwrap_or(400_000) / 100 * 100;
    let path = stand_in(images);
    let real = synthetic::draw(Split::Train, 0, 64, 32);
    let set = generated::read(&path, "stand-in", &real.classes).expect("a generated set");
    let parts: [&Dataset; 1] = [&set];
    let file = File::open(&path).expect("the stand-in");
    let advise = |advice| rustix::fs::fadvise(&file, 0, None, advice).expect("advice");
    advise(rustix::fs::Advice::Random);
    let drop_pages = || {
        set.pixels.let_go(0, set.len() * set.image_bytes());
        file.sync_all().expect("synced");
        advise(rustix::fs::Advice::DontNeed);
    };
    println!("batches of {BATCH} from {images} images, thousand images/s, one thread");
    println!("{:<36} {:>8} {:>9} {:>8}", "", "plain", "batches", "share");
    for (name, cold, augmentation) in rows {
        let spec = BatchSpec {
            batch: BATCH,
            fraction: 1.0 - 1e-9,
            generated: images,
            held_out: 0,
            augmentation,
            noise: Noise::Off,
            views: 1,
            repeats: 1,
            seed: 0,
        };
        let batches = Batches::new(&real, &parts, spec);
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS as u64 {
            let steps = round * STEPS..(round + 1) * STEPS;
            let places: Vec<u64> = steps
                .clone()
                .flat_map(|step| places(&batches.at(step).expect("sets lie there")))
                .collect();
            if cold {
                drop_pages();
                plain.push(rate(wall, || read_plainly(&file, &places)));
                drop_pages();
                ours.push(rate(wall, || read_ahead(&batches, steps.clone())));
            } else {
                plain.push(rate(own, || read_plainly(&file, &places)));
                ours.push(rate(own, || {
                    steps
                        .map(|step| used(&batches, batches.at(step).expect("sets lie there")))
                        .sum()
                }));
            }
        }
        let (plain, ours) = (median(plain), median(ours));
        let share = 100.0 * ours / plain;
        println!("{name:<36} {:>8.1} {:>9.1} {share:>7.0}%", plain / 1e3, ours / 1e3);
    }
    println!("own memory (RssAnon) {} MB", own_memory());
}

/// Gives the memory of a batch back, as training does, and says how many images it held.
fn used(batches: &Batches<'_>, batch: Batch) -> usize {
    let count = black_box(&batch).labels.len();
    batches.take_back(batch);
    count
}

fn places(batch: &Batch) -> Vec<u64> {
    let generated = batch.origins.iter().filter_map(|origin| match origin {
        Origin::Generated(index) => Some(192 + *index as u64 * 3072),
        Origin::Real(_) => None,
    });
    generated.collect()
}

/// Each image into its place in a batch, as the loader must put it.
fn read_plainly(file: &File, places: &[u64]) -> usize {
    let mut batch = vec![0; BATCH * 3072];
    for chosen in places.chunks(BATCH) {
        for (&at, image) in chosen.iter().zip(batch.chunks_exact_mut(3072)) {
            file.read_exact_at(image, at).expect("inside");
        }
        black_box(&batch);
    }
    places.len()
}

/// One thread of the loader, as training runs it.
fn read_ahead(batches: &Batches<'_>, steps: Range<u64>) -> usize {
    thread::scope(|scope| {
        let mut ahead = Ahead::start(scope, batches, steps.clone(), 1);
        let mut count = 0;
        for _ in steps {
            count += used(batches, ahead.next().expect("a batch"));
        }
        count
    })
}

fn rate(clock: fn() -> f64, run: impl FnOnce() -> usize) -> f64 {
    let started = clock();
    let count = run();
    count as f64 / (clock() - started)
}

/// Seconds since some moment.
fn wall() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

/// Seconds that this thread has run on a processor.
fn own() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    nanoseconds.expect("a number") / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

criterion_group!(benches, decode, augment, cut_and_mix, random_batches);
criterion_main!(benches);
