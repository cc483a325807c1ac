//! Event files that TensorBoard opens, written by hand: a handful of numbers for each epoch needs
//! neither TensorFlow nor a protobuf compiler.

/// One point in time of several curves.
#[derive(Debug, Clone)]
pub struct Point<'a> {
    /// Seconds since 1970.
    pub time: f64,
    /// The step.
    pub step: u64,
    /// Names of curves (`validation/robust`) and values.
    pub values: Vec<(&'a str, f64)>,
}

/// A whole event file with `points`.
///
/// Source: tensorflow `lib/io/record_writer.h` (records), `core/util/event.proto` (contents).
pub fn file(points: &[Point<'_>]) -> Vec<u8> {
    let mut file = Vec::new();
    let begun = points.first().map_or(0.0, |point| point.time);
    let mut version = double(1, begun);
    version.extend(bytes(3, b"brain.Event:2"));
    record(&version, &mut file);
    for point in points {
        let mut summary = Vec::new();
        for (name, value) in &point.values {
            let mut curve = bytes(1, name.as_bytes());
            curve.push(2 << 3 | 5); // simple_value, a 32-bit float
            curve.extend((*value as f32).to_le_bytes());
            summary.extend(bytes(1, &curve));
        }
        let mut event = double(1, point.time);
        event.push(2 << 3); // step, a varint
        event.extend(varint(point.step));
        event.extend(bytes(5, &summary));
        record(&event, &mut file);
    }
    file
}

/// Length, its checksum, content, its checksum.
fn record(content: &[u8], out: &mut Vec<u8>) {
    let length = (content.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(content);
    out.extend(masked(content).to_le_bytes());
}

fn double(field: u8, value: f64) -> Vec<u8> {
    [&[field << 3 | 1][..], &value.to_le_bytes()].concat()
}

fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// The checksum as records hold it, so that records within records do not look sound by chance.
fn masked(content: &[u8]) -> u32 {
    crc32c(content).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial, reflected.
fn crc32c(content: &[u8]) -> u32 {
    !content.iter().fold(!0, |mut crc: u32, &byte| {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_castagnoli() {
        // RFC 3720, B.4: 32 bytes of zeros; and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn files_begin_as_tensorflow_begins_them() {
        let values = vec![("loss", 1.5), ("validation/robust", 61.0)];
        let file = file(&[Point { time: 1.0e9, step: 300, values }]);
        // Every event file in the world starts so: a record of 24 bytes, its checksum, a double.
        assert_eq!(file[..13], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22, 0x09]);
        assert_eq!(&file[23..36], b"brain.Event:2");
        let second = &file[12 + 24 + 4..];
        assert_eq!(second.len() as u64, u64::from_le_bytes(second[..8].try_into().unwrap()) + 16);
        // step 300 = 0xac 0x02; the summary holds "loss" = 1.5.
        assert_eq!(second[21..24], [0x10, 0xac, 0x02]);
        let curve = [0x0a, 11, 0x0a, 4, b'l', b'o', b's', b's', 0x15, 0, 0, 0xc0, 0x3f];
        assert!(second.windows(curve.len()).any(|window| window == curve));
    }

    /// The contents of a file's records; nothing if a length or a checksum does not hold.
    fn records(mut file: &[u8]) -> Option<Vec<Vec<u8>>> {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        // As readers do it: the checksum is unmasked, then compared.
        let holds = |content: &[u8], masked: &[u8]| {
            number(masked).wrapping_sub(0xa282_ead8).rotate_left(15) == crc32c(content)
        };
        let mut contents = Vec::new();
        while !file.is_empty() {
            let (head, rest) = file.split_at_checked(12)?;
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            let (content, rest) =
                holds(&head[..8], &head[8..]).then(|| rest.split_at_checked(length))??;
            let (checksum, rest) = rest.split_at_checked(4)?;
            contents.push(holds(content, checksum).then(|| content.to_vec())?);
            file = rest;
        }
        Some(contents)
    }

    #[test]
    fn every_record_is_whole_and_damage_is_seen() {
        let curve = |step: u64| vec![("train/loss", step as f64 / 7.0), ("validation/robust", 1.0)];
        let points: Vec<_> =
            (0..40).map(|i| Point { time: 1e9, step: i, values: curve(i) }).collect();
        let mut file = file(&points);
        let found = records(&file).expect("whole");
        assert_eq!(found.len(), 41);
        assert_eq!(found[40][9..11], [0x10, 39]);
        for place in [0, 9, 13, file.len() / 2, file.len() - 1] {
            file[place] ^= 4;
            assert_eq!(records(&file), None, "byte {place}");
            file[place] ^= 4;
        }
        assert_eq!(records(&file[..file.len() - 1]), None);
    }
}
