//! Rows as polars frames: files for other programs, aggregation over seeds.

use std::path::Path;

use polars::prelude::*;
use polars_io::{
    SerWriter,
    csv::write::CsvWriter,
    parquet::write::{ParquetCompression, ParquetWriter},
};
use serde::{Deserialize, Serialize};

use super::{
    atomic,
    row::{self, Row},
    statistics::Spread,
};
use crate::{
    error::{Error, Result},
    threat::ThreatModel,
    units::Tally,
};

/// One line per row; axes and attacks become columns (`axis.NAME`, `robust_after.ATTACK`,
/// `seconds.ATTACK`), empty where a row lacks them. Accuracies appear as counts and, for
/// convenience, as percents with their 95% Wilson interval.
///
/// # Errors
/// If polars refuses the columns, which would be our mistake.
pub fn frame(rows: &[Row]) -> Result<DataFrame> {
    let mut columns = identity(rows);
    for (name, of) in
        [("clean", (|row| row.clean) as fn(&Row) -> Tally), ("robust", |row| row.robust)]
    {
        columns.extend(tallies(name, rows, of));
    }
    for attack in names(rows, |row| row.robust_after.iter().map(|(name, _)| name)) {
        let left: Vec<Option<u64>> =
            rows.iter().map(|row| find(&row.robust_after, &attack)).collect();
        columns.push(Column::new(format!("robust_after.{attack}").into(), left));
    }
    for attack in names(rows, |row| row.attack_seconds.iter().map(|(name, _)| name)) {
        let seconds: Vec<Option<f64>> =
            rows.iter().map(|row| find(&row.attack_seconds, &attack)).collect();
        columns.push(Column::new(format!("seconds.{attack}").into(), seconds));
    }
    columns.extend(costs(rows));
    DataFrame::new(rows.len(), columns).map_err(refused)
}

fn identity(rows: &[Row]) -> Vec<Column> {
    let text = |name: &str, of: &dyn Fn(&Row) -> String| {
        Column::new(name.into(), rows.iter().map(of).collect::<Vec<String>>())
    };
    let mut columns =
        vec![text("suite", &|row| row.suite.clone()), text("cell", &|row| row.cell.clone())];
    for axis in row::axes(rows) {
        let values: Vec<Option<String>> =
            rows.iter().map(|row| row.axis(&axis).map(str::to_owned)).collect();
        columns.push(Column::new(format!("axis.{axis}").into(), values));
    }
    columns.extend([
        text("dataset", &|row| row.dataset.clone()),
        text("norm", &|row| row.threat.norm.to_string()),
        text("epsilon", &|row| row.threat.epsilon.to_string()),
        text("evaluation", &|row| row.evaluation.clone()),
        text("architecture", &|row| row.architecture.clone()),
        Column::new("generated".into(), rows.iter().map(|row| row.generated).collect::<Vec<_>>()),
        Column::new(
            "sampler_steps".into(),
            rows.iter().map(|row| row.sampler_steps).collect::<Vec<_>>(),
        ),
        text("loss", &|row| row.loss.clone()),
        Column::new("epochs".into(), rows.iter().map(|row| row.epochs).collect::<Vec<_>>()),
        text("checkpoint", &|row| row.checkpoint.clone()),
        Column::new("seed".into(), rows.iter().map(|row| row.seed).collect::<Vec<_>>()),
    ]);
    columns
}

fn tallies(name: &str, rows: &[Row], of: fn(&Row) -> Tally) -> Vec<Column> {
    let counts = |of: &dyn Fn(&Row) -> u64| rows.iter().map(of).collect::<Vec<u64>>();
    let reals = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).collect::<Vec<f64>>();
    vec![
        Column::new(format!("{name}.correct").into(), counts(&|row| of(row).correct)),
        Column::new(format!("{name}.total").into(), counts(&|row| of(row).total)),
        Column::new(format!("{name}.percent").into(), reals(&|row| of(row).percent())),
        Column::new(format!("{name}.low").into(), reals(&|row| of(row).interval().0)),
        Column::new(format!("{name}.high").into(), reals(&|row| of(row).interval().1)),
    ]
}

fn costs(rows: &[Row]) -> Vec<Column> {
    let reals =
        |of: &dyn Fn(&Row) -> Option<f64>| rows.iter().map(of).collect::<Vec<Option<f64>>>();
    let text =
        |of: &dyn Fn(&Row) -> Option<String>| rows.iter().map(of).collect::<Vec<Option<String>>>();
    vec![
        Column::new("train_seconds".into(), reals(&|row| row.train_seconds)),
        Column::new("generate_seconds".into(), reals(&|row| row.generate_seconds)),
        Column::new("fid".into(), reals(&|row| row.fid)),
        Column::new("fid_error".into(), reals(&|row| row.fid_error)),
        Column::new("generate_job".into(), text(&|row| row.generate_job.clone())),
        Column::new("train_job".into(), text(&|row| row.train_job.clone())),
        Column::new("evaluate_job".into(), text(&|row| Some(row.evaluate_job.clone()))),
        Column::new("warnings".into(), text(&|row| Some(row.warnings.join("; ")))),
        Column::new("published.clean".into(), reals(&|row| row.reference.as_ref()?.clean)),
        Column::new("published.robust".into(), reals(&|row| row.reference.as_ref()?.robust)),
        Column::new("published.fid".into(), reals(&|row| row.reference.as_ref()?.fid)),
        Column::new(
            "published.source".into(),
            text(&|row| row.reference.as_ref().map(|one| one.source.clone())),
        ),
    ]
}

fn names<'a, I: Iterator<Item = &'a String>>(rows: &'a [Row], of: fn(&'a Row) -> I) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in rows.iter().flat_map(of) {
        if !found.contains(name) {
            found.push(name.clone());
        }
    }
    found
}

fn find<T: Copy>(pairs: &[(String, T)], name: &str) -> Option<T> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
}

/// Writes `rows` as parquet.
///
/// # Errors
/// If the file cannot be written.
pub fn write_parquet(path: &Path, rows: &[Row]) -> Result<()> {
    atomic::write(path, &parquet(&mut frame(rows)?)?)
}

/// A frame as the bytes of a parquet file, uncompressed so that every reader takes it.
pub(super) fn parquet(frame: &mut DataFrame) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Uncompressed)
        .finish(frame)
        .map_err(refused)?;
    Ok(bytes)
}

/// `rows` as CSV with a header.
///
/// # Errors
/// If polars refuses, which would be our mistake.
pub fn csv(rows: &[Row]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut unarmed(frame(rows)?)?).map_err(refused)?;
    Ok(bytes)
}

/// Text that a spreadsheet would take for a formula gets an apostrophe in front.
fn unarmed(mut frame: DataFrame) -> Result<DataFrame> {
    let texts: Vec<PlSmallStr> = frame
        .columns()
        .iter()
        .filter(|c| c.dtype() == &DataType::String)
        .map(|c| c.name().clone())
        .collect();
    for name in texts {
        let column = frame.column(&name).and_then(|column| column.str()).map_err(refused)?;
        let safe: Vec<Option<String>> = column.iter().map(|text| text.map(safe_cell)).collect();
        frame.with_column(Column::new(name, safe)).map_err(refused)?;
    }
    Ok(frame)
}

/// A cell of a CSV file that no spreadsheet takes for a formula. Numbers stay numbers.
pub fn safe_cell(text: &str) -> String {
    let formula =
        text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    if formula { format!("'{text}") } else { text.to_owned() }
}

/// Writes `rows` as CSV with a header.
///
/// # Errors
/// If the file cannot be written.
pub fn write_csv(path: &Path, rows: &[Row]) -> Result<()> {
    atomic::write(path, &csv(rows)?)
}

/// Writes `rows` as JSON: an array of [`Row`], which [`read_json`] gives back.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(path: &Path, rows: &[Row]) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(rows).map_err(Error::input)?;
    bytes.push(b'\n');
    atomic::write(path, &bytes)
}

/// Reads rows that [`write_json`] wrote.
///
/// # Errors
/// If the file is missing or is not such an array; the message names the line.
pub fn read_json(path: &Path) -> Result<Vec<Row>> {
    use crate::error::AtPath;
    let bytes = std::fs::read(path).at(path)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::in_file(path, format!("not a results.json of this program: {error}"))
    })
}

/// Repetitions of one experiment under one threat model, over seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Axis values without the seed.
    pub axes: Vec<(String, String)>,
    /// Data set.
    pub dataset: String,
    /// Threat model.
    pub threat: ThreatModel,
    /// Clean accuracy over seeds, in percent.
    pub clean: Spread,
    /// Robust accuracy over seeds, in percent.
    pub robust: Spread,
    /// All seeds' clean examples together.
    pub clean_pooled: Tally,
    /// All seeds' robust examples together.
    pub robust_pooled: Tally,
    /// Which of the rows belong here.
    pub members: Vec<usize>,
}

/// Rows that differ only in seed, brought together, in order of first appearance.
///
/// # Errors
/// If polars refuses the aggregation, which would be our mistake.
pub fn aggregate(rows: &[Row]) -> Result<Vec<Group>> {
    let key = |row: &Row| {
        format!(
            "{:?}|{}|{}|{}|{}",
            row.setting(),
            row.dataset,
            row.threat,
            row.architecture,
            row.checkpoint
        )
    };
    let mut frame = frame(rows)?;
    let keys: Vec<String> = rows.iter().map(key).collect();
    frame.with_column(Column::new("group".into(), &keys)).map_err(refused)?;
    let mut wanted = vec![len().cast(DataType::UInt64).alias("n")];
    for name in ["clean", "robust"] {
        wanted.push(col(format!("{name}.percent")).mean().alias(format!("{name}.mean")));
        wanted.push(col(format!("{name}.percent")).std(1).alias(format!("{name}.std")));
        wanted.push(col(format!("{name}.correct")).sum());
        wanted.push(col(format!("{name}.total")).sum());
    }
    let grouped =
        frame.lazy().group_by_stable([col("group")]).agg(wanted).collect().map_err(refused)?;
    (0..grouped.height()).map(|at| group(&grouped, at, rows, &keys)).collect()
}

fn group(grouped: &DataFrame, at: usize, rows: &[Row], keys: &[String]) -> Result<Group> {
    let real = |name: &str| -> Result<Option<f64>> {
        Ok(grouped.column(name).and_then(|column| column.f64()).map_err(refused)?.get(at))
    };
    let count = |name: &str| -> Result<u64> {
        let value = grouped.column(name).and_then(|column| column.u64()).map_err(refused)?.get(at);
        Ok(value.unwrap_or(0))
    };
    let spread = |name: &str| -> Result<Spread> {
        Ok(Spread {
            mean: real(&format!("{name}.mean"))?.unwrap_or(0.0),
            deviation: real(&format!("{name}.std"))?,
            count: count("n")?,
        })
    };
    let tally = |name: &str| -> Result<Tally> {
        let correct = count(&format!("{name}.correct"))?;
        Ok(Tally { correct, total: count(&format!("{name}.total"))? })
    };
    let labels = grouped.column("group").and_then(|column| column.str()).map_err(refused)?;
    let label = labels.get(at).unwrap_or_default();
    let members: Vec<usize> = (0..rows.len()).filter(|index| keys[*index] == label).collect();
    let first = &rows[members[0]];
    Ok(Group {
        axes: first.setting(),
        dataset: first.dataset.clone(),
        threat: first.threat,
        clean: spread("clean")?,
        robust: spread("robust")?,
        clean_pooled: tally("clean")?,
        robust_pooled: tally("robust")?,
        members,
    })
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(super) fn refused(error: PolarsError) -> Error {
    Error::input(format!("polars: {error}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::threat::Norm;
    use crate::units::Epsilon;

    /// A row of a small sweep for the tests of this floor and the next.
    pub(crate) fn sample(steps: u64, seed: u64, robust: u64) -> Row {
        Row {
            suite: "sweep".into(),
            cell: format!("steps={steps} seed={seed}"),
            axes: vec![
                ("generate.sampler.steps".into(), steps.to_string()),
                ("train.seed".into(), seed.to_string()),
            ],
            dataset: "cifar10".into(),
            threat: ThreatModel { norm: Norm::Linf, epsilon: Epsilon::new(8, 255) },
            evaluation: "standard".into(),
            architecture: "wrn-10-1-swish".into(),
            generated: 1000,
            sampler_steps: Some(steps),
            loss: "trades".into(),
            epochs: Some(10),
            checkpoint: "best".into(),
            seed,
            clean: Tally { correct: 600, total: 1000 },
            robust: Tally { correct: robust, total: 1000 },
            robust_after: vec![("apgd-ce".into(), robust + 20), ("apgd-t".into(), robust)],
            attack_seconds: vec![("apgd-ce".into(), 10.0), ("apgd-t".into(), 30.5)],
            train_seconds: Some(100.0),
            generate_seconds: Some(50.0),
            fid: None,
            fid_error: None,
            fid_published: false,
            generate_job: None,
            train_job: Some("a".repeat(32)),
            evaluate_job: "b".repeat(32),
            warnings: vec![],
            reference: None,
        }
    }

    #[test]
    fn seeds_come_together_and_nothing_else_does() {
        let rows = [sample(5, 0, 300), sample(20, 0, 320), sample(5, 1, 310), sample(5, 2, 330)];
        let groups = aggregate(&rows).unwrap();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].members, [0, 2, 3]);
        assert_eq!(groups[0].robust_pooled, Tally { correct: 940, total: 3000 });
        // statistics.mean([30.0, 31.0, 33.0]), statistics.stdev([30.0, 31.0, 33.0])
        assert!((groups[0].robust.mean - 31.333_333_333).abs() < 1e-9);
        assert!((groups[0].robust.deviation.unwrap() - 1.527_525_231_65).abs() < 1e-9);
        assert_eq!(groups[1].robust.deviation, None);
        assert_eq!(groups[1].axes, [("generate.sampler.steps".to_owned(), "20".to_owned())]);
    }

    #[test]
    fn results_are_written_whole_in_every_format() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = vec![sample(5, 0, 300), sample(20, 0, 320)];
        rows[1].cell = "quoted \"cell\", with comma".into();
        rows[1].robust_after.push(("square".into(), 320));
        let path = |name: &str| folder.path().join(name);
        write_json(&path("r.json"), &rows).unwrap();
        assert_eq!(read_json(&path("r.json")).unwrap(), rows);
        write_csv(&path("r.csv"), &rows).unwrap();
        let csv = std::fs::read_to_string(path("r.csv")).unwrap();
        assert!(csv.starts_with("suite,cell,axis.generate.sampler.steps"), "{csv}");
        assert!(csv.contains("\"quoted \"\"cell\"\", with comma\""), "{csv}");
        assert_eq!(safe_cell("=HYPERLINK(1)"), "'=HYPERLINK(1)");
        assert_eq!((safe_cell("-0.5"), safe_cell("wrn")), ("-0.5".into(), "wrn".into()));
        rows[0].cell = "@SUM(A1)".into();
        assert!(String::from_utf8(super::csv(&rows).unwrap()).unwrap().contains("sweep,'@SUM(A1)"));
        write_parquet(&path("r.parquet"), &rows).unwrap();
        let bytes = std::fs::read(path("r.parquet")).unwrap();
        assert_eq!((&bytes[..4], &bytes[bytes.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..]));
        let broken = path("broken.json");
        std::fs::write(&broken, "[{\"suite\": 3}]").unwrap();
        assert!(read_json(&broken).unwrap_err().to_string().contains("broken.json"));
    }
}
