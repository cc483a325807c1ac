//! The readers on files that are cut short, damaged or made to harm: each must be refused with a
//! message that says why, in bounded time and memory.

use proptest::prelude::*;

use crate::formats::{
    bytes::Bytes,
    forge::{
        Forged, checkpoint, good_tensor, legacy, matlab, named, numbers, numpy, safetensors,
        storage, tensor, zip,
    },
    mat, npy,
    tree::{Tree, flatten, parse},
};

fn message(bytes: Vec<u8>) -> String {
    parse(&Bytes::from(bytes)).expect_err("a bad file must be refused").to_string()
}

/// Each input must be refused with a message that contains the hint.
fn assert_refused(cases: Vec<(&str, Vec<u8>)>) {
    for (hint, bytes) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let message = message(bytes);
        assert!(message.contains(hint), "expected `{hint}`, got `{message}` for {shown:?}");
    }
}

/// Every kind of file, well-formed.
fn good_files() -> Vec<Vec<u8>> {
    let array = [npy::header(crate::formats::array::Dtype::F32, &[2, 2]), numbers()].concat();
    let header = r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    vec![
        checkpoint(&named(&good_tensor(false))),
        legacy(&named(&good_tensor(true)), 4),
        numpy("u1", b"K\x02\x85"),
        array.clone(),
        zip(&[Forged::stored("a.npy", &array), Forged::deflated("b.npy", &array)]),
        safetensors(header, &numbers()),
        named(&legacy_in_pickle(4)),
    ]
}

/// A tensor over a storage inside the pickle, as EDM's networks have them.
pub(super) fn legacy_in_pickle(count: i64) -> Vec<u8> {
    let pickle = [&b"\x80\x02"[..], &storage(4, true), b"."].concat();
    let inner = legacy(&pickle, count);
    let mut outer = b"ctorch.storage\n_load_from_bytes\nB".to_vec();
    outer.extend((inner.len() as u32).to_le_bytes());
    outer.extend(inner);
    outer.extend(b"\x85R");
    tensor(&outer, b"K\0", b"K\x02K\x02\x86", b"K\x02K\x01\x86")
}

#[test]
fn good_files_read() {
    for bytes in good_files() {
        let arrays = flatten(&parse(&bytes.into()).unwrap().tree);
        assert!(!arrays.is_empty());
        for (_, array) in arrays.iter().filter(|(_, array)| array.len() == 4) {
            assert_eq!(array.to_f32(), [1.0, 2.0, 3.0, 4.0]);
        }
    }
    let arrays = mat::parse(&matlab([1, 2]).into()).unwrap();
    assert_eq!(
        (arrays[0].0.as_str(), arrays[0].1.shape(), arrays[0].1.bytes()),
        ("v", &[2, 1][..], &[7, 8][..])
    );
}

#[test]
fn files_cut_short_anywhere_are_refused() {
    for bytes in good_files() {
        for length in 0..bytes.len() {
            let message = message(bytes[..length].to_vec());
            assert!(message.len() > 10 && message.len() < 400, "{length}: {message}");
        }
    }
    let bytes = matlab([1, 2]);
    // With nothing behind the header, the file holds no variable, which is well-formed.
    for length in (0..128).chain(129..bytes.len() - 2) {
        assert!(mat::parse(&bytes[..length].to_vec().into()).is_err(), "{length}");
    }
}

#[test]
fn views_with_strides_and_offsets_read_right() {
    let read = |size: &[u8], stride: &[u8], offset: &[u8]| {
        let bytes = checkpoint(&named(&tensor(&storage(4, false), offset, size, stride)));
        flatten(&parse(&bytes.into()).unwrap().tree)[0].1.to_f32()
    };
    assert_eq!(read(b"K\x02K\x02\x86", b"K\x01K\x02\x86", b"K\0"), [1.0, 3.0, 2.0, 4.0]);
    assert_eq!(read(b"K\x02\x85", b"K\x02\x85", b"K\x01"), [2.0, 4.0]);
    assert_eq!(read(b"K\x03K\x01\x86", b"K\0K\x07\x86", b"K\x03"), [4.0, 4.0, 4.0]);
    assert_eq!(read(b")", b")", b"K\x02"), [3.0]);
    assert!(read(b"K\0\x85", b"K\x01\x85", b"K\x63").is_empty());
}

#[test]
fn big_endian_files_read_right() {
    let mut swapped = numbers();
    swapped.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    let bytes = zip(&[
        Forged::stored("a/data.pkl", &named(&good_tensor(false))),
        Forged::stored("a/byteorder", b"big"),
        Forged::stored("a/data/0", &swapped),
    ]);
    assert_eq!(flatten(&parse(&bytes.into()).unwrap().tree)[0].1.to_f32(), [1.0, 2.0, 3.0, 4.0]);
}

/// From protocol 4 on every pickle of a legacy stream may stand in a frame.
#[test]
fn framed_legacy_files_read_right() {
    let plain = legacy(&named(&good_tensor(true)), 4);
    let framed = [&b"\x80\x04\x95\x0d\0\0\0\0\0\0\0"[..], &plain[2..]].concat();
    let document = parse(&framed.into()).unwrap();
    assert_eq!(document.format.name(), "torch checkpoint (legacy format)");
    assert_eq!(flatten(&document.tree)[0].1.to_f32(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn checksums_of_stored_entries_count_unless_left_out() {
    let with = |crc: u32, name: &str| {
        let pickle = Forged { crc, ..Forged::stored(name, &named(&good_tensor(false))) };
        let byte_order = Forged::stored("a/byteorder", b"little");
        let bytes = zip(&[pickle, byte_order, Forged::stored("a/data/0", &numbers())]);
        parse(&bytes.into())
    };
    assert!(with(0, "a/data.pkl").is_ok());
    let message = with(7, "a/data.pkl").unwrap_err().to_string();
    assert!(message.contains("entry `a/data.pkl` is damaged (checksum)"), "{message}");
}

#[test]
fn pickles_that_ask_for_code_are_refused_by_name() {
    assert_refused(vec![
        (
            "asks for `os.system`, which gauntlet does not know; refused",
            b"\x80\x02cos\nsystem\n(U\x04echotR.".to_vec(),
        ),
        ("`posix.system`", b"\x80\x04\x8c\x05posix\x8c\x06system\x93.".to_vec()),
        ("`os.system`", b"\x80\x02(U\x04echoios\nsystem\n.".to_vec()),
        ("`builtins.eval`", b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.".to_vec()),
        // A known name must not open the way to what hangs on it.
        (
            "`collections.OrderedDict.__init__`",
            b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.".to_vec(),
        ),
        ("`torch.hub.load`", checkpoint(b"\x80\x02ctorch.hub\nload\n)R.")),
        ("`torch.serialization.load`", legacy(b"\x80\x02ctorch.serialization\nload\n)R.", 4)),
        // What networks of EDM may ask for, checkpoints may not.
        ("`torch.storage._load_from_bytes`", checkpoint(&named(&legacy_in_pickle(4)))),
        ("not a known name", b"\x80\x02K\x01)R.".to_vec()),
        ("not a known name", b"\x80\x02(K\x01o.".to_vec()),
        ("arguments are not a tuple", b"\x80\x02ccollections\nOrderedDict\n]R.".to_vec()),
        ("keyword arguments", b"\x80\x04ccollections\nOrderedDict\n)}K\x01K\x01s\x92.".to_vec()),
        ("extension code", b"\x80\x02\x82\x01.".to_vec()),
    ]);
}

#[test]
fn malformed_pickles_are_refused_with_their_place() {
    let cases: &[(&str, &[u8])] = &[
        ("byte 2: protocol 9", b"N.\x80\x09."),
        ("more bytes are needed", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffab."),
        ("more bytes are needed", b"X\xff\xff\xff\xffab."),
        ("more bytes are needed", b"\x8b\xff\xff\xff\x7fab."),
        ("negative length", b"\x8b\xff\xff\xff\xffab."),
        ("memo 7 was never stored", b"h\x07."),
        ("memo `x`", b"gx\n."),
        ("stack is empty", b"."),
        ("stack is empty", b"R."),
        ("stack is empty", b"K\x01(a."),
        ("none was set", b"t."),
        ("not a list", b"K\x01K\x02a."),
        ("not a dictionary", b"]K\x01K\x02s."),
        ("a key but no value", b"}(K\x01u."),
        ("not an object", b")}b."),
        ("set twice", b"ccollections\nOrderedDict\n)R}b}b."),
        ("not UTF-8", b"X\x02\0\0\0\xff\xfe."),
        ("not a number", b"I12x\n."),
        ("without its quotes", b"Sabc\n."),
        ("a buffer outside", b"\x97."),
        ("opcode 0xff does not exist", b"\xff."),
        ("not a torch storage", b"K\x01Q."),
        ("not text", b"K\x01K\x02\x93."),
        ("a key that is a list", b"}]Ns."),
    ];
    let pickled = |bytes: &[u8]| match bytes.strip_prefix(b"N.") {
        Some(rest) => rest.to_vec(),
        None => [b"\x80\x02", bytes].concat(),
    };
    for (hint, bytes) in cases {
        let hint = hint.trim_start_matches("byte 2: ");
        assert_refused(vec![(hint, pickled(bytes))]);
    }
    let outside = [&b"\x80\x02"[..], &storage(4, false), b"."].concat();
    assert_refused(vec![("a storage outside it; there is none", outside)]);
    assert!(message(b"\x80\x02]h\x07.".to_vec()).contains("pickle, byte 3:"));
}

#[test]
fn pickles_that_unfold_without_end_are_refused() {
    // A list inside itself; a list of itself twice; forty doublings; a hundred thousand levels.
    let doublings =
        [b"]q\0".to_vec(), (0..40).flat_map(|n| [b'h', n, b'h', n, 0x86, b'q', n + 1]).collect()];
    let shared = [&b"\x80\x02"[..], &doublings.concat(), b"."].concat();
    let deep = [&b"\x80\x02"[..], &vec![b']'; 100_000], &vec![b'a'; 99_999], b"."].concat();
    // One long text, named a thousand times.
    let mut long = b"\x80\x02](X\0\0\x10\0".to_vec();
    long.extend(vec![b'x'; 1 << 20]);
    long.extend(b"q\0");
    long.extend([b'h', 0].repeat(1000));
    long.extend(b"e.");
    assert_refused(vec![
        ("inside itself", b"\x80\x02]q\0h\0a.".to_vec()),
        ("refused", b"\x80\x02]q\0(h\0h\0e.".to_vec()),
        ("unfold to far more", shared),
        ("nested deeper", deep),
    ]);
    // Texts are shared, not copied, so this one is harmless.
    let Tree::List(items) = parse(&long.into()).unwrap().tree else { panic!("a list") };
    assert_eq!(items.len(), 1001);
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let with = |storage: &[u8], offset: &[u8], size: &[u8], stride: &[u8]| {
        checkpoint(&named(&tensor(storage, offset, size, stride)))
    };
    let four = storage(4, false);
    let huge = b"\x8a\x06\xff\xff\xff\xff\xff\x7f";
    let two = [&huge[..], huge, b"\x86"].concat();
    let one = [&huge[..], b"\x85"].concat();
    let other = |text: &[u8]| {
        let at = four.windows(3).position(|part| part == b"U\x010").unwrap();
        [&four[..at], b"U", &[text.len() as u8], text, &four[at + 3..]].concat()
    };
    let no_storage =
        String::from_utf8_lossy(&four).replace("\nFloatStorage\n", "\nfloat32\n").into_bytes();
    assert_refused(vec![
        ("leaves its storage", with(&four, b"K\x01", b"K\x02K\x02\x86", b"K\x02K\x01\x86")),
        ("leaves its storage", with(&four, b"K\0", b"K\x02\x85", &one)),
        ("beyond any memory", with(&four, b"K\0", &two, &two)),
        ("leaves its storage", with(&four, huge, b"K\x02\x85", b"K\x01\x85")),
        ("not a plain number", with(&four, b"J\xff\xff\xff\xff", b"K\x01\x85", b"K\x01\x85")),
        ("not a plain number", with(&four, b"K\0", b"J\xff\xff\xff\xff\x85", b"K\x01\x85")),
        ("with strides", with(&four, b"K\0", b"K\x02K\x02\x86", b"K\x01\x85")),
        // Stride zero: a terabyte out of one number.
        ("far more memory", with(&four, b"K\0", &one, b"K\0\x85")),
        ("should hold 9 elements", with(&storage(9, false), b"K\0", b"K\x01\x85", b"K\x01\x85")),
        ("no entry `a/data/7`", with(&other(b"7"), b"K\0", b"K\x01\x85", b"K\x01\x85")),
        (
            "no entry `a/data/../../etc/passwd`",
            with(&other(b"../../etc/passwd"), b"K\0", b")", b")"),
        ),
        ("not a storage", with(b"K\x01", b"K\0", b")", b")")),
        ("a storage of class `torch.float32`", with(&no_storage, b"K\0", b")", b")")),
    ]);
}

#[test]
fn numpy_arrays_that_lie_are_refused() {
    assert_refused(vec![
        ("type `O8` are not supported", numpy("O8", b"K\x02\x85")),
        ("takes 3 bytes, but there are 2", numpy("u1", b"K\x03\x85")),
        ("takes 16 bytes", numpy("f8", b"K\x02\x85")),
        ("without a shape", numpy("u1", b"J\xff\xff\xff\xff\x85")),
        ("beyond any memory", numpy("u1", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x02\x86")),
    ]);
}

#[test]
fn archives_that_lie_are_refused() {
    let one = Forged::stored("a.npy", &numbers());
    let named = |name: &str| zip(&[Forged { name: name.to_owned(), ..one.clone() }]);
    let lie = |entry: Forged| zip(&[entry]);
    let bomb = Forged { size: 0x3000_0000, ..Forged::deflated("a.npy", &vec![0; 4_000_000]) };
    let short = Forged { size: 100, ..Forged::deflated("a.npy", &[0; 2000]) };
    let full = 0xffff_ffffu32;
    let zip64 = vec![1, 0, 0, 0];
    let mut many = zip(std::slice::from_ref(&one));
    let end = many.len() - 22;
    many[end + 8..end + 12].copy_from_slice(&[0xfe, 0xff, 0xfe, 0xff]);
    let mut outside = zip(std::slice::from_ref(&one));
    outside[end + 16..end + 20].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    let first = Forged::stored("b.npy", &numbers());
    // Each of these may unpack alone, all together may not.
    let array =
        [npy::header(crate::formats::array::Dtype::U8, &[1 << 24]), vec![0; 1 << 24]].concat();
    let large = Forged::deflated("", &array);
    let bombs: Vec<_> =
        (0..80).map(|n| Forged { name: format!("{n}.npy"), ..large.clone() }).collect();
    assert_refused(vec![
        ("no directory at the end", b"PK\x03\x04 and then nothing".to_vec()),
        ("do not fit into a directory", many),
        ("do not fit into a directory", outside),
        ("overlaps what follows", zip(&[one.clone(), Forged { header: Some(0), ..first.clone() }])),
        ("does not begin at byte 9", lie(Forged { header: Some(9), ..one.clone() })),
        ("cut short", lie(Forged { header: Some(0x7fff_0000), ..one.clone() })),
        ("two entries are called `a.npy`", zip(&[one.clone(), one.clone()])),
        ("is encrypted", lie(Forged { flags: 1, ..one.clone() })),
        ("packed by method 12", lie(Forged { method: 12, ..one.clone() })),
        ("stored, but in 16 bytes for 17", lie(Forged { size: 17, ..one.clone() })),
        ("leads outside", named("../a.npy")),
        ("leads outside", named("/etc/passwd")),
        ("leads outside", named("a/..\\..\\b.npy")),
        ("leads outside", named("a\0b.npy")),
        ("leads outside", named("")),
        ("to unpack from", lie(bomb)),
        ("far more than its size", zip(&bombs)),
        ("is damaged", lie(short)),
        ("is damaged", lie(Forged { crc: 1, ..Forged::deflated("a.npy", b"abc") })),
        ("zip entry `a.npy`", lie(Forged { method: 8, ..one.clone() })),
        ("too short", lie(Forged { size: full, extra: zip64, header: Some(full), ..one.clone() })),
        ("neither a numpy array nor", named("a.txt")),
        ("no numpy array begins here", lie(one)),
        (
            "no entry `a/data/0`",
            zip(&[Forged::stored("a/data.pkl", &self::named(&good_tensor(false)))]),
        ),
        (
            "expected `little` or `big`",
            zip(&[Forged::stored("a/data.pkl", b"N."), Forged::stored("a/byteorder", b"middle")]),
        ),
    ]);
}

#[test]
fn legacy_and_edm_files_that_lie_are_refused() {
    let good = named(&good_tensor(true));
    let mut protocol = legacy(&good, 4);
    protocol[18] = 0xe8;
    let persistent = |text: &[u8]| {
        let call = b"\x80\x02ctorch_utils.persistence\n_reconstruct_persistent_obj\n";
        [&call[..], text, b"\x85R."].concat()
    };
    assert_refused(vec![
        ("expected protocol 1001", protocol),
        ("is not complete", legacy(&good, 5)),
        ("is not complete", legacy(&good, -1)),
        ("is not complete", legacy(&good, i64::MAX)),
        ("should hold 4 elements", legacy(&good, 3)),
        ("nothing refers to storage 0", legacy(b"\x80\x02N.", 4)),
        ("without class name or state", persistent(b"}")),
        ("not a dictionary", persistent(b"N")),
        (
            "not in torch's legacy format",
            named(&tensor(b"ctorch.storage\n_load_from_bytes\nU\x03abc\x85R", b"K\0", b")", b")")),
        ),
        ("is not complete", named(&legacy_in_pickle(9))),
    ]);
}

#[test]
fn other_files_that_lie_are_refused() {
    let header = r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let with = |from: &str, to: &str| safetensors(&header.replace(from, to), &numbers());
    let mut long = safetensors(header, &numbers());
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_refused(vec![
        ("safetensors", with("[2,2]", "[2,3]")),
        ("safetensors", with("[0,16]", "[0,99]")),
        ("safetensors", with("[0,16]", "[16,0]")),
        ("safetensors", with("[2,2]", "[9223372036854775807,9223372036854775807]")),
        (
            "unsupported type",
            safetensors(&header.replace("F32", "C64").replace("[2,2]", "[2]"), &numbers()),
        ),
        ("safetensors", with("F32", "F33")),
        ("safetensors", with("}}", "}")),
        ("safetensors", long),
        ("version 9", b"\x93NUMPY\x09\0\x10\0".to_vec()),
        ("a header of", b"\x93NUMPY\x02\0\xff\xff\xff\x7f".to_vec()),
        ("the file is empty", Vec::new()),
        ("not a format that gauntlet knows", b"just some text".to_vec()),
        ("gzip: unpack it first", b"\x1f\x8b\x08\0".to_vec()),
        ("HDF5", b"\x89HDF\r\n\x1a\n".to_vec()),
    ]);
    let refused = |bytes: Vec<u8>, hint: &str| {
        let message = mat::parse(&bytes.into()).unwrap_err().to_string();
        assert!(message.contains(hint), "expected `{hint}`, got `{message}`");
    };
    refused(matlab([1, 3]), "in 2 bytes");
    refused(matlab([u32::MAX, u32::MAX]), "beyond any memory");
    refused(vec![0; 200], "no level 5 header");
    let mut packed = matlab([1, 2])[..128].to_vec();
    packed.extend(b"\x0f\0\0\0\x04\0\0\0abcd");
    refused(packed, "damaged or cut short");
}

/// Applies small damages: a changed byte, a byte taken out, a stretch repeated.
fn damage(bytes: &mut Vec<u8>, damages: &[(u8, prop::sample::Index, u8)]) {
    for (kind, place, value) in damages {
        if bytes.is_empty() {
            return;
        }
        let at = place.index(bytes.len());
        match kind {
            0 => drop(bytes.remove(at)),
            1 => {
                let piece = bytes[at..bytes.len().min(at + usize::from(*value))].to_vec();
                bytes.splice(at..at, piece);
            }
            2 => bytes[at] = if *value < 128 { 0xff } else { 0 },
            _ => bytes[at] = *value,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

    /// Whatever happens to a file, reading ends with a tree or an error, never a panic.
    #[test]
    fn damaged_files_never_panic(
        which in 0usize..8,
        damages in prop::collection::vec((0u8..8, any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut files = good_files();
        files.push(matlab([1, 2]));
        let mut bytes = files.swap_remove(which);
        damage(&mut bytes, &damages);
        let bytes = Bytes::from(bytes);
        if let Ok(document) = parse(&bytes) {
            flatten(&document.tree);
        }
        let _ = mat::parse(&bytes);
    }

    /// Neither does any sequence of bytes that claims to be a pickle.
    #[test]
    fn random_opcodes_never_panic(
        opcodes in prop::collection::vec(prop::sample::select(
            &b"(.012FGIJKLMNPQRSTUVX]abc}desutloqrhgjp)\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8f\x90\x93\x94\n\0\x01\x02"[..]
        ), 0..60),
    ) {
        let _ = parse(&Bytes::from([b"\x80\x04", &opcodes[..], b"."].concat()));
    }
}
