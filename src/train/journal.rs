//! The log of a training run: one line of JSON for each epoch.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{AtPath, Error, Result},
    train::{
        tensorboard::{self, Point},
        validate::Scores,
    },
    units::Tally,
};

/// The log for TensorBoard.
const EVENTS: &str = "events.out.tfevents.gauntlet";
/// The log for spreadsheets.
const TABLE: &str = "log.csv";

/// One epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// Counted from 1.
    pub epoch: u64,
    /// Steps done at its end.
    pub step: u64,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Mean loss.
    pub loss: f64,
    /// Mean accuracy on clean batches, percent, where the objective looks at them.
    pub clean: Option<f64>,
    /// Mean accuracy on adversarial batches, percent, where the objective looks at them.
    pub robust: Option<f64>,
    /// Accuracies of the averaged weights on held-out images, in epochs that validate.
    pub validation: Option<Scores>,
    /// By how many percent points robust accuracy on held-out images is below the best so far.
    #[serde(default)]
    pub robust_overfitting: Option<f64>,
    /// Training images per second, attack included, validation not.
    pub images_per_second: f64,
    /// Percent of the time of training proper that was neither passes of the network nor update; of
    /// that, waiting for batches, and writing checkpoints. Known on one CPU alone.
    #[serde(default)]
    pub outside: Option<[f64; 3]>,
    /// Seconds since training began, those before an interruption included.
    pub seconds: f64,
    /// When that was, in seconds since 1970.
    pub time: f64,
}

impl Line {
    fn curves(&self) -> [(&'static str, Option<f64>); 9] {
        let validation = self.validation;
        [
            ("learning_rate", Some(self.learning_rate)),
            ("train/loss", Some(self.loss)),
            ("train/clean", self.clean),
            ("train/robust", self.robust),
            ("validation/clean", validation.map(|scores| scores.clean.percent())),
            ("validation/robust", validation.and_then(|s| s.robust).map(Tally::percent)),
            ("validation/robust_overfitting", self.robust_overfitting),
            ("images_per_second", Some(self.images_per_second)),
            ("outside_percent", self.outside.map(|[all, ..]| all)),
        ]
    }

    fn point(&self) -> Point<'static> {
        let known = self.curves().into_iter().filter_map(|(name, value)| Some((name, value?)));
        Point { time: self.time, step: self.step, values: known.collect() }
    }

    /// A line of the table; nothing stands where nothing was measured.
    fn row(&self) -> String {
        let values = self.curves().map(|(_, value)| value.map_or(String::new(), |v| v.to_string()));
        format!("{},{},{},{}\n", self.epoch, self.step, values.join(","), self.seconds)
    }
}

/// The first line of the table; `validation/robust` is `validation_robust` here.
fn header(line: &Line) -> String {
    let names = line.curves().map(|(name, _)| name.replace('/', "_"));
    format!("epoch,step,{},seconds\n", names.join(","))
}

/// The log's file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Its length in bytes, as far as it is true.
    pub length: u64,
}

impl Journal {
    /// The log at `path`, of which the first `length` bytes are true: what a killed run wrote after
    /// its last checkpoint comes again.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, length: u64) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(path).at(path)?;
        file.set_len(length).at(path)?;
        Ok(Self { path: path.to_owned(), length })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line).expect("numbers and names");
        text.push('\n');
        let mut file = OpenOptions::new().append(true).open(&self.path).at(&self.path)?;
        file.write_all(text.as_bytes()).at(&self.path)?;
        file.sync_data().at(&self.path)?;
        self.length += text.len() as u64;
        Ok(())
    }

    /// Copies the log to `path`.
    ///
    /// # Errors
    /// If either file refuses.
    pub fn copy(&self, path: &Path) -> Result<()> {
        fs::copy(&self.path, path).at(path).map(drop)
    }

    /// Writes the whole log once more into `folder`: for TensorBoard, and as a table (`log.csv`).
    ///
    /// # Errors
    /// If a file refuses, or a line of the log is none.
    pub fn draw(&self, folder: &Path) -> Result<()> {
        let text = fs::read_to_string(&self.path).at(&self.path)?;
        let lines = text.lines().map(serde_json::from_str);
        let lines: Vec<Line> = lines
            .collect::<serde_json::Result<_>>()
            .map_err(|error| Error::in_file(&self.path, error))?;
        let points: Vec<_> = lines.iter().map(Line::point).collect();
        let rows = lines.first().map(header).into_iter().chain(lines.iter().map(Line::row));
        let table: String = rows.collect();
        for (name, bytes) in [(EVENTS, tensorboard::file(&points)), (TABLE, table.into_bytes())] {
            let path = folder.join(name);
            fs::write(&path, bytes).at(&path)?;
        }
        Ok(())
    }
}
