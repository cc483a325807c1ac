//! Robust accuracy over the bound, as parquet: one row for each bound.

use std::path::Path;

use polars::prelude::*;

use super::{
    atomic,
    frame::{parquet, refused},
};
use crate::{
    error::Result,
    evaluate::{AttackCost, Level},
};

/// Writes `curve` to `path`, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_parquet(path: &Path, curve: &[Level]) -> Result<()> {
    let spent = |level: &Level, of: fn(&AttackCost) -> u64| level.attacks.iter().map(of).sum();
    let counts = |of: &dyn Fn(&Level) -> u64| curve.iter().map(of).collect::<Vec<_>>();
    let reals = |of: &dyn Fn(&Level) -> f64| curve.iter().map(of).collect::<Vec<_>>();
    let bounds: Vec<String> = curve.iter().map(|level| level.epsilon.to_string()).collect();
    let columns = vec![
        Column::new("epsilon".into(), bounds),
        Column::new("epsilon_value".into(), reals(&|level| level.epsilon.value())),
        Column::new("robust".into(), counts(&|level| level.robust.correct)),
        Column::new("total".into(), counts(&|level| level.robust.total)),
        Column::new("low".into(), reals(&|level| level.robust.interval().0)),
        Column::new("high".into(), reals(&|level| level.robust.interval().1)),
        Column::new("forwards".into(), counts(&|level| spent(level, |cost| cost.forwards))),
        Column::new("backwards".into(), counts(&|level| spent(level, |cost| cost.backwards))),
    ];
    let mut frame = DataFrame::new(curve.len(), columns).map_err(refused)?;
    atomic::write(path, &parquet(&mut frame)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use polars_io::{SerReader, parquet::read::ParquetReader};

    use super::*;
    use crate::units::Tally;

    #[test]
    fn curves_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.parquet");
        let level = |epsilon: &str, correct| Level {
            epsilon: epsilon.parse().unwrap(),
            robust: Tally { correct, total: 10 },
            attacks: Vec::new(),
        };
        write_parquet(&path, &[level("2/255", 7), level("4/255", 3)]).unwrap();
        let frame = ParquetReader::new(File::open(&path).unwrap()).finish().unwrap();
        let robust = frame.column("robust").unwrap().u64().unwrap();
        assert_eq!(robust.iter().map(Option::unwrap).collect::<Vec<_>>(), [7, 3]);
        assert_eq!(frame.column("epsilon").unwrap().str().unwrap().get(1), Some("4/255"));
    }
}
