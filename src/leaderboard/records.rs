//! Per-example records: what happened to each image, as parquet.

use std::{fs::File, path::Path};

use polars::prelude::*;
use polars_io::{
    SerReader,
    parquet::{
        read::ParquetReader,
        write::{ParquetCompression, ParquetWriter},
    },
};

use super::{
    atomic,
    frame::{parquet, refused},
};
use crate::{
    error::{AtPath, Error, Result},
    evaluate::Record,
};

fn frame(records: &[Record]) -> Result<DataFrame> {
    macro_rules! column {
        ($name:literal, $field:ident) => {
            Column::new($name.into(), records.iter().map(|r| r.$field.clone()).collect::<Vec<_>>())
        };
    }
    let columns = vec![
        column!("index", index),
        column!("image_hash", image_hash),
        column!("label", label),
        column!("clean_prediction", clean_prediction),
        column!("clean_margin", clean_margin),
        column!("broken_by", broken_by),
        column!("restart", restart),
        column!("target", target),
        column!("iteration", iteration),
        column!("norm", norm),
        column!("adversarial_margin", adversarial_margin),
        column!("forwards", forwards),
        column!("backwards", backwards),
    ];
    DataFrame::new(records.len(), columns).map_err(refused)
}

/// Writes `records` to `path`, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_parquet(path: &Path, records: &[Record]) -> Result<()> {
    atomic::write(path, &parquet(&mut frame(records)?)?)
}

/// Writes `records` to `path` part by part, so that they are never held all at once.
///
/// # Errors
/// If the file cannot be written.
pub fn write_parts(path: &Path, records: impl Iterator<Item = Vec<Record>>) -> Result<()> {
    let fresh = path.with_extension("new");
    let file = File::create(&fresh).at(&fresh)?;
    let schema = frame(&[])?;
    let mut writer = ParquetWriter::new(file)
        .with_compression(ParquetCompression::Uncompressed)
        .batched(schema.schema())
        .map_err(refused)?;
    for part in records {
        writer.write_batch(&frame(&part)?).map_err(refused)?;
    }
    writer.finish().map_err(refused)?;
    std::fs::rename(&fresh, path).at(path)
}

/// Reads what [`write_parquet`] wrote.
///
/// # Errors
/// If the file is missing, is not parquet, or lacks a column; the message names which.
pub fn read_parquet(path: &Path) -> Result<Vec<Record>> {
    let frame = read(path)?;
    let wrong =
        |error: PolarsError| Error::in_file(path, format!("not per-example records: {error}"));
    macro_rules! column {
        ($name:literal, $kind:ident) => {
            frame.column($name).and_then(|column| column.$kind()).map_err(wrong)?
        };
    }
    let (index, image_hash) = (column!("index", u64), column!("image_hash", str));
    let (label, prediction) = (column!("label", i64), column!("clean_prediction", i64));
    let (clean_margin, broken_by) = (column!("clean_margin", f64), column!("broken_by", str));
    let (restart, target) = (column!("restart", u64), column!("target", i64));
    let (iteration, norm) = (column!("iteration", u64), column!("norm", f64));
    let adversarial_margin = column!("adversarial_margin", f64);
    let (forwards, backwards) = (column!("forwards", u64), column!("backwards", u64));
    let hole = |at: usize| Error::in_file(path, format!("record {at} lacks a value that it needs"));
    (0..frame.height())
        .map(|at| {
            Ok(Record {
                index: index.get(at).ok_or_else(|| hole(at))?,
                image_hash: image_hash.get(at).ok_or_else(|| hole(at))?.to_owned(),
                label: label.get(at).ok_or_else(|| hole(at))?,
                clean_prediction: prediction.get(at).ok_or_else(|| hole(at))?,
                clean_margin: clean_margin.get(at).ok_or_else(|| hole(at))?,
                broken_by: broken_by.get(at).map(str::to_owned),
                restart: restart.get(at),
                target: target.get(at),
                iteration: iteration.get(at),
                norm: norm.get(at),
                adversarial_margin: adversarial_margin.get(at),
                forwards: forwards.get(at).ok_or_else(|| hole(at))?,
                backwards: backwards.get(at).ok_or_else(|| hole(at))?,
            })
        })
        .collect()
}

fn read(path: &Path) -> Result<DataFrame> {
    let file = File::open(path).at(path)?;
    ParquetReader::new(file)
        .finish()
        .map_err(|error| Error::in_file(path, format!("cannot be read as parquet: {error}")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{leaderboard::aggregate::summarise, units::Tally};

    /// Record `index` with the given fate.
    pub(crate) fn sample(index: u64, clean: bool, broken_by: Option<&str>) -> Record {
        Record {
            index,
            image_hash: format!("{index:032x}"),
            label: 3,
            clean_prediction: if clean { 3 } else { 5 },
            clean_margin: if clean { 0.25 } else { -0.5 },
            broken_by: broken_by.map(str::to_owned),
            restart: broken_by.map(|_| 0),
            target: broken_by.filter(|name| name.ends_with("-t")).map(|_| 7),
            iteration: broken_by.map(|_| 11),
            norm: broken_by.map(|_| 8.0 / 255.0),
            adversarial_margin: broken_by.map(|_| -0.125),
            forwards: 100 + index,
            backwards: 100,
        }
    }

    #[test]
    fn records_survive_and_aggregate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.parquet");
        let records = vec![
            sample(0, true, None),
            sample(1, true, Some("apgd-ce")),
            sample(2, true, Some("apgd-t")),
            sample(3, false, None),
            sample(4, true, Some("apgd-ce")),
        ];
        write_parquet(&path, &records).unwrap();
        assert_eq!(read_parquet(&path).unwrap(), records);
        let summary = summarise(&path).unwrap();
        assert_eq!(summary.clean, Tally { correct: 4, total: 5 });
        assert_eq!(summary.robust, Tally { correct: 1, total: 5 });
        assert_eq!(summary.broken_by, [("apgd-ce".to_owned(), 2), ("apgd-t".to_owned(), 1)]);
        assert_eq!((summary.forwards, summary.backwards), (510, 500));
        // Part by part it is the same, and the parts are summed.
        write_parts(&path, records.chunks(2).map(<[_]>::to_vec)).unwrap();
        assert_eq!(read_parquet(&path).unwrap(), records);
        assert_eq!(summarise(&path).unwrap(), summary);
        write_parquet(&path, &[]).unwrap();
        assert_eq!(read_parquet(&path).unwrap(), []);
        assert_eq!(summarise(&path).unwrap().clean, Tally { correct: 0, total: 0 });
    }

    #[test]
    fn bad_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.parquet");
        assert!(read_parquet(&path).unwrap_err().to_string().contains("records.parquet"));
        std::fs::write(&path, b"PAR1 not at all PAR1").unwrap();
        assert!(read_parquet(&path).unwrap_err().to_string().contains("parquet"));
        let other = folder.path().join("rows.parquet");
        crate::leaderboard::frame::write_parquet(&other, &[]).unwrap();
        assert!(read_parquet(&other).unwrap_err().to_string().contains("index"));
        assert!(summarise(&other).is_err());
        // A file cut short.
        write_parquet(&path, &[sample(0, true, None)]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read_parquet(&path).is_err());
    }
}
