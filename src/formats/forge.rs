//! Small files for tests: good ones, and ones that lie.

/// A zip archive that may lie about anything.
#[derive(Clone)]
pub(super) struct Forged {
    pub(super) name: String,
    pub(super) data: Vec<u8>,
    pub(super) method: u16,
    pub(super) flags: u16,
    /// Claimed size when unpacked.
    pub(super) size: u32,
    pub(super) crc: u32,
    /// Claimed position of the local header, if not the true one.
    pub(super) header: Option<u32>,
    pub(super) extra: Vec<u8>,
}

impl Forged {
    pub(super) fn stored(name: &str, data: &[u8]) -> Self {
        let size = data.len() as u32;
        let (name, data) = (name.to_owned(), data.to_vec());
        Self { name, data, method: 0, flags: 0, size, crc: 0, header: None, extra: Vec::new() }
    }

    pub(super) fn deflated(name: &str, data: &[u8]) -> Self {
        use std::io::Read as _;
        let mut packed = Vec::new();
        let level = flate2::Compression::best();
        flate2::read::DeflateEncoder::new(data, level).read_to_end(&mut packed).unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let size = data.len() as u32;
        Self { method: 8, size, crc: crc.sum(), ..Self::stored(name, &packed) }
    }
}

pub(super) fn zip(entries: &[Forged]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let start = file.len() as u32;
        let mut common = Vec::new();
        for half in [20, entry.flags, entry.method, 0, 33] {
            common.extend(half.to_le_bytes());
        }
        for word in [entry.crc, entry.data.len() as u32, entry.size] {
            common.extend(word.to_le_bytes());
        }
        common.extend((entry.name.len() as u16).to_le_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend([0, 0]);
        file.extend(entry.name.as_bytes());
        file.extend(&entry.data);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend((entry.extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(entry.header.unwrap_or(start).to_le_bytes());
        directory.extend(entry.name.as_bytes());
        directory.extend(&entry.extra);
    }
    let (start, count) = (file.len() as u32, (entries.len() as u16).to_le_bytes());
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count);
    file.extend(count);
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// `('storage', torch.FloatStorage, '0', 'cpu', count[, None])` as a persistent id.
pub(super) fn storage(count: u8, legacy: bool) -> Vec<u8> {
    let mut bytes = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK".to_vec();
    bytes.push(count);
    bytes.extend(if legacy { &b"NtQ"[..] } else { b"tQ" });
    bytes
}

/// Calls `_rebuild_tensor_v2` over `storage` with opcodes for offset, size and strides.
pub(super) fn tensor(storage: &[u8], offset: &[u8], size: &[u8], stride: &[u8]) -> Vec<u8> {
    let start = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    let end = b"\x89ccollections\nOrderedDict\n)RtR";
    [start, storage, offset, size, stride, end].concat()
}

/// A pickle of `{"w": value}`.
pub(super) fn named(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}X\x01\0\0\0w", value, b"s."].concat()
}

const NUMBERS: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

pub(super) fn numbers() -> Vec<u8> {
    NUMBERS.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The 2x2 tensor 1 2 3 4.
pub(super) fn good_tensor(legacy: bool) -> Vec<u8> {
    tensor(&storage(4, legacy), b"K\0", b"K\x02K\x02\x86", b"K\x02K\x01\x86")
}

/// A zip checkpoint whose `data.pkl` is `pickle`, with one storage of four numbers.
pub(super) fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    zip(&[
        Forged::stored("a/data.pkl", pickle),
        Forged::stored("a/byteorder", b"little"),
        Forged::stored("a/data/0", &numbers()),
    ])
}

/// A legacy checkpoint of `pickle` with one storage that claims `count` numbers.
pub(super) fn legacy(pickle: &[u8], count: i64) -> Vec<u8> {
    [
        &b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03."[..],
        b"\x80\x02}U\x0dlittle_endian\x88s.",
        pickle,
        b"\x80\x02]U\x010a.",
        &count.to_le_bytes(),
        &numbers(),
    ]
    .concat()
}

/// A numpy array of two bytes as Python 2 pickles it: type code and shape as opcodes.
pub(super) fn numpy(code: &str, shape: &[u8]) -> Vec<u8> {
    let mut bytes =
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\x01btR\
        (K\x01"
            .to_vec();
    bytes.extend(shape);
    bytes.extend(b"cnumpy\ndtype\n(U");
    bytes.push(code.len() as u8);
    bytes.extend(code.as_bytes());
    bytes.extend(b"K\0K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89U\x02abtb.");
    bytes
}

/// A level 5 MATLAB file with one 1x2 variable of bytes; `claimed` are its dimensions.
pub(super) fn matlab(claimed: [u32; 2]) -> Vec<u8> {
    let mut body: Vec<u8> = [6, 8, 9, 0, 5, 8].into_iter().flat_map(u32::to_le_bytes).collect();
    body.extend(claimed.into_iter().flat_map(u32::to_le_bytes));
    body.extend(b"\x01\0\x01\0v\0\0\0\x02\0\x02\0\x07\x08\0\0");
    let mut file = vec![b' '; 124];
    file.extend(b"\0\x01IM\x0e\0\0\0");
    file.extend((body.len() as u32).to_le_bytes());
    file.extend(body);
    file
}

pub(super) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}
