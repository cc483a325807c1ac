//! A mutation fuzzer for each reader: well-formed files, damaged in many ways, must end in a
//! value or an error, in bounded time and memory, never in a panic.
//!
//! Every run of the tests tries a fixed number of inputs per reader and prints it.
//! `GAUNTLET_FUZZ=SECONDS cargo test --lib fuzz -- --nocapture` goes on for so long with each
//! reader; `GAUNTLET_FUZZ_SEED` (0 if not given) starts elsewhere.

use std::time::{Duration, Instant};

use crate::{
    error::Result,
    formats::{
        archive::Archive,
        array::Dtype,
        bytes::Bytes,
        edm,
        forge::{
            Forged, checkpoint, good_tensor, legacy, matlab, named, numbers, numpy, safetensors,
            tensor, zip,
        },
        mat, names, npy, npz, opcodes, safetensors as tensors, torch, tree,
    },
    rng::Stream,
};

/// Inputs for each reader in a run without a time.
const INPUTS: u64 = 4000;
/// No input of a few kilobytes may take longer, on a machine however busy.
const LONGEST: Duration = Duration::from_secs(5);

/// A reader and well-formed files for it.
struct Target {
    name: &'static str,
    read: fn(&Bytes) -> Result<()>,
    corpus: Vec<Vec<u8>>,
}

fn array() -> Vec<u8> {
    [npy::header(Dtype::F32, &[2, 2]), numbers()].concat()
}

/// A pickle as EDM's persistence writes it, around one tensor.
fn edm_pickle() -> Vec<u8> {
    let weight = super::hostile::legacy_in_pickle(4);
    let module = [
        &b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(U\x0aclass_nameU\x0aEDMPrecond"
            [..],
        b"U\x05state}(U\x0b_parameters}U\x06weight",
        &weight,
        b"sU\x08_modules}U\x0c_init_kwargs}U\x0eimg_resolutionK\x20suu\x85R",
    ]
    .concat();
    [&b"\x80\x02}U\x03ema"[..], &module, b"s."].concat()
}

fn targets() -> Vec<Target> {
    let pair = zip(&[Forged::stored("a.npy", &array()), Forged::deflated("b.npy", &array())]);
    let script = zip(&[
        Forged::stored("a/constants.pkl", b"\x80\x02)."),
        Forged::stored("a/data.pkl", b"\x80\x02N."),
        Forged::stored("a/code/x.py", b"pass"),
    ]);
    let header = r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let strided =
        tensor(&super::forge::storage(4, false), b"K\x01", b"K\x02K\x01\x86", b"K\x02K\x01\x86");
    vec![
        Target { name: "npy", read: |bytes| npy::parse(bytes).map(drop), corpus: vec![array()] },
        Target {
            name: "npz",
            read: |bytes| Archive::open(bytes.clone()).and_then(|zip| npz::arrays(&zip)).map(drop),
            corpus: vec![pair.clone()],
        },
        Target {
            name: "archive",
            read: |bytes| {
                let archive = Archive::open(bytes.clone())?;
                archive.entries().iter().try_for_each(|entry| archive.read(entry).map(drop))
            },
            corpus: vec![pair, script.clone()],
        },
        Target {
            name: "pickle",
            read: |bytes| tree::pickled(bytes, tree::ALL_NAMES).map(drop),
            corpus: vec![
                numpy("u1", b"K\x02\x85"),
                named(b"(K\x01G?\xf0\0\0\0\0\0\0X\x01\0\0\0at"),
            ],
        },
        Target {
            name: "opcodes",
            read: |bytes| opcodes::parse(bytes, names::BASIC).map(drop),
            corpus: vec![named(b"](K\x01K\x02e"), b"\x80\x04\x8c\x01a\x94h\0\x86.".to_vec()],
        },
        Target {
            name: "torch zip",
            read: |bytes| {
                Archive::open(bytes.clone()).and_then(|zip| torch::read_archive(&zip)).map(drop)
            },
            corpus: vec![checkpoint(&named(&good_tensor(false))), checkpoint(&named(&strided))],
        },
        Target {
            name: "torch legacy",
            read: |bytes| torch::read_legacy(bytes).map(drop),
            corpus: vec![legacy(&named(&good_tensor(true)), 4)],
        },
        Target {
            name: "safetensors",
            read: |bytes| tensors::parse(bytes).map(drop),
            corpus: vec![safetensors(header, &numbers())],
        },
        Target {
            name: "MATLAB",
            read: |bytes| mat::parse(bytes).map(drop),
            corpus: vec![matlab([1, 2])],
        },
        Target {
            name: "EDM pickle",
            read: |bytes| {
                let tree = tree::pickled(bytes, tree::ALL_NAMES)?;
                edm::network(&tree, "ema").map(drop)
            },
            corpus: vec![edm_pickle()],
        },
        Target {
            name: "any file",
            read: |bytes| {
                let document = tree::parse(bytes)?;
                tree::flatten(&document.tree);
                Ok(())
            },
            corpus: vec![script, array(), checkpoint(&named(&good_tensor(false)))],
        },
    ]
}

/// Numbers that break sums.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// A few damages to `bytes`: changed bits, bytes and numbers, stretches lost, doubled, moved from
/// another file, the end cut off.
fn damage(bytes: &mut Vec<u8>, other: &[u8], stream: &mut Stream) {
    for _ in 0..=stream.below(5) {
        if bytes.is_empty() {
            return;
        }
        let at = stream.below(bytes.len() as u64) as usize;
        let end = bytes.len().min(at + 1 + stream.below(24) as usize);
        match stream.below(8) {
            0 => bytes[at] ^= 1 << stream.below(8),
            1 => bytes[at] = stream.below(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let edge = EDGES[stream.below(EDGES.len() as u64) as usize].to_le_bytes();
                let width = (1usize << stream.below(4)).min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
            5 => {
                let from = stream.below(other.len() as u64) as usize;
                let until = other.len().min(from + 1 + stream.below(40) as usize);
                bytes.splice(at..end, other[from..until].iter().copied());
            }
            6 => bytes.truncate(at),
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
}

/// Resident memory, in bytes; 0 where the system does not say.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

#[test]
fn no_reader_panics_hangs_or_swells_on_damaged_files() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("GAUNTLET_FUZZ").map(Duration::from_secs);
    let seed = number("GAUNTLET_FUZZ_SEED").unwrap_or(0);
    let targets = targets();
    let everything: Vec<&Vec<u8>> = targets.iter().flat_map(|target| &target.corpus).collect();
    let before = resident();
    for target in &targets {
        for good in &target.corpus {
            (target.read)(&good.clone().into())
                .unwrap_or_else(|error| panic!("{}: a good file: {error}", target.name));
        }
        let (begun, mut tried, mut read) = (Instant::now(), 0u64, 0u64);
        let mut slowest = Duration::ZERO;
        while seconds.map_or(tried < INPUTS, |limit| begun.elapsed() < limit) {
            let mut stream = Stream::new(seed, target.name, tried);
            let mut pick = |count: usize| stream.below(count as u64) as usize;
            let mut bytes = target.corpus[pick(target.corpus.len())].clone();
            let other = everything[pick(everything.len())];
            damage(&mut bytes, other, &mut stream);
            let started = Instant::now();
            read += u64::from((target.read)(&bytes.into()).is_ok());
            slowest = slowest.max(started.elapsed());
            assert!(slowest < LONGEST, "{}: input {tried} took {slowest:?}", target.name);
            tried += 1;
        }
        let grown = resident().saturating_sub(before) >> 20;
        println!(
            "{:<13}{tried:>9} inputs, 0 crashes, {read} read all the same, slowest {slowest:.1?}, \
             {grown} MiB more",
            target.name
        );
        // Other tests run beside this one; a bomb would take gigabytes.
        assert!(grown < 4096, "{}: {grown} MiB", target.name);
    }
}
