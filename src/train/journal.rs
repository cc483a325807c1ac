//! The log of a training run: one line of JSON for each epoch.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    error::{AtPath, Result},
    train::validate::Scores,
};

/// One epoch.
#[derive(Debug, Clone, Serialize)]
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
    /// Training images per second, attack included, validation not.
    pub images_per_second: f64,
    /// Seconds since training began, those before an interruption included.
    pub seconds: f64,
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
}
