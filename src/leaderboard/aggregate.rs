//! Counts from per-example records: slice by slice, so that ten million need little memory.

use std::{collections::BTreeMap, fs::File, path::Path};

use polars::prelude::*;
use polars_io::{
    SerReader,
    parquet::read::{ParallelStrategy, ParquetReader},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{AtPath, Error, Result},
    units::Tally,
};

/// Records that are in memory at once.
const SLICE: usize = 1 << 19;

/// The counts behind a table row, from records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Right without an attack.
    pub clean: Tally,
    /// Right under every attack.
    pub robust: Tally,
    /// How many each attack broke first, most first.
    pub broken_by: Vec<(String, u64)>,
    /// Forward passes of all examples.
    pub forwards: u64,
    /// Backward passes of all examples.
    pub backwards: u64,
}

#[derive(Default)]
struct Counts {
    total: u64,
    clean: u64,
    robust: u64,
    broken_by: BTreeMap<String, u64>,
    forwards: u64,
    backwards: u64,
}

/// Aggregates a file of records without building a struct per example.
///
/// # Errors
/// If the file is missing, is not parquet, or lacks a column.
pub fn summarise(path: &Path) -> Result<Summary> {
    let file = File::open(path).at(path)?;
    let unreadable =
        |error: PolarsError| Error::in_file(path, format!("cannot be read as parquet: {error}"));
    let mut whole = ParquetReader::new(file);
    let rows = whole.num_rows().map_err(unreadable)?;
    let metadata = whole.get_metadata().map_err(unreadable)?.clone();
    let mut counts = Counts::default();
    // An empty file shows its columns all the same.
    for first in (0..rows.max(1)).step_by(SLICE) {
        let columns = ["label", "clean_prediction", "broken_by", "forwards", "backwards"];
        let mut reader = ParquetReader::new(File::open(path).at(path)?)
            .with_columns(Some(columns.map(str::to_owned).to_vec()))
            .with_slice(Some((first, SLICE)))
            .read_parallel(ParallelStrategy::Columns)
            .set_low_memory(true);
        reader.set_metadata(metadata.clone());
        let frame = reader.finish().map_err(unreadable)?;
        let wrong =
            |error: PolarsError| Error::in_file(path, format!("not per-example records: {error}"));
        count(&grouped(frame).map_err(wrong)?, &mut counts).map_err(wrong)?;
    }
    let tally = |correct| Tally { correct, total: counts.total };
    let mut broken_by: Vec<(String, u64)> = counts.broken_by.into_iter().collect();
    broken_by.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(Summary {
        clean: tally(counts.clean),
        robust: tally(counts.robust),
        broken_by,
        forwards: counts.forwards,
        backwards: counts.backwards,
    })
}

/// One line for each fate: right when clean or not, broken by which attack.
fn grouped(frame: DataFrame) -> PolarsResult<DataFrame> {
    frame
        .lazy()
        .with_column(col("label").eq(col("clean_prediction")).alias("clean"))
        .group_by([col("clean"), col("broken_by")])
        .agg([
            len().cast(DataType::UInt64).alias("n"),
            col("forwards").sum(),
            col("backwards").sum(),
        ])
        .collect()
}

fn count(grouped: &DataFrame, counts: &mut Counts) -> PolarsResult<()> {
    let (clean, broken) = (grouped.column("clean")?.bool()?, grouped.column("broken_by")?.str()?);
    let examples = grouped.column("n")?.u64()?;
    counts.total += examples.sum().unwrap_or(0);
    counts.forwards += grouped.column("forwards")?.u64()?.sum().unwrap_or(0);
    counts.backwards += grouped.column("backwards")?.u64()?.sum().unwrap_or(0);
    for at in 0..grouped.height() {
        let n = examples.get(at).unwrap_or(0);
        if clean.get(at) != Some(true) {
            continue;
        }
        counts.clean += n;
        match broken.get(at) {
            Some(attack) => *counts.broken_by.entry(attack.to_owned()).or_default() += n,
            None => counts.robust += n,
        }
    }
    Ok(())
}
