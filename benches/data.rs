//! What feeding a training costs: decoding, augmentation, and random batches of a set that is
//! mapped, beside plain random reads of the same pages.
//!
//! `cargo bench --profile dev --bench data` avoids building libtorch's bindings anew. The mapped
//! set is a stand-in of `GAUNTLET_BENCH_IMAGES` images (default 400,000: 1.2 GB), made once in
//! `target/bench-data`; take more than the machine's memory holds to measure the disk.

use std::{
    fs::{self, File},
    hint::black_box,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gauntlet::{
    data::{
        Dataset,
        augment::{Augmentation, Policy},
        generated,
        loader::{BatchSpec, Batches, Noise},
        picture,
        spec::Split,
        synthetic,
    },
    rng::Stream,
};

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

fn random_batches(criterion: &mut Criterion) {
    const BATCH: usize = 512;
    let images = std::env::var("GAUNTLET_BENCH_IMAGES").ok().and_then(|text| text.parse().ok());
    let images = images.unwrap_or(400_000) / 100 * 100;
    let path = stand_in(images);
    let real = synthetic::draw(Split::Train, 0, 64, 32);
    let set = generated::read(&path, "stand-in", &real.classes).expect("a generated set");
    let parts: [&Dataset; 1] = [&set];
    let spec = BatchSpec {
        batch: BATCH,
        fraction: 1.0 - 1e-9,
        generated: images,
        held_out: 0,
        augmentation: Augmentation::base("cifar10", 32),
        noise: Noise::Off,
        views: 1,
        repeats: 1,
        seed: 0,
    };
    let batches = Batches::new(&real, &parts, spec);
    let mut group = criterion.benchmark_group(format!("batches of 512 from {images} images"));
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(20);
    group.measurement_time(Duration::from_secs(5));
    let file = File::open(&path).expect("the stand-in");
    let mut stream = Stream::new(1, "plain", 0);
    let mut out = vec![0; 3072];
    group.bench_function("plain random reads", |bencher| {
        bencher.iter(|| {
            for _ in 0..BATCH {
                let at = 192 + stream.below(images as u64 - 1) * 3072;
                file.read_exact_at(&mut out, at).expect("inside");
                black_box(&out);
            }
        });
    });
    let before = own_memory();
    let mut step = 0;
    group.bench_function("augmented batches", |bencher| {
        bencher.iter(|| {
            step += 1;
            black_box(batches.at(step))
        });
    });
    eprintln!("own memory before {before} MB, after {} MB", own_memory());
}

criterion_group!(benches, decode, augment, random_batches);
criterion_main!(benches);
