//! What a report is made from.

use serde::{Deserialize, Serialize};

use crate::{leaderboard::Row, suite::report::Layout};

/// Everything that a report shows, as plain values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The suite's name.
    pub suite: String,
    /// What the suite is for, in its own words; may be empty.
    pub description: String,
    /// The results.
    pub rows: Vec<Row>,
    /// Sheets of sample images.
    pub grids: Vec<Grid>,
    /// Learning curves.
    pub curves: Vec<Curve>,
    /// The jobs behind the results.
    pub provenance: Vec<Provenance>,
    /// How tables and plots are laid out, as the suite says.
    pub layout: Layout,
    /// Whether the experiment is too small to compare with published results: everything is
    /// watermarked then.
    pub small_scale: bool,
    /// The command that made this, to be repeated.
    pub command: String,
    /// (what, version) of everything that could matter: gauntlet, libtorch, device.
    pub versions: Vec<(String, String)>,
}

impl Input {
    /// The report's heading: the suite's own title, else its name.
    pub fn title(&self) -> &str {
        self.layout.title.as_deref().unwrap_or(&self.suite)
    }
}

/// A sheet of small images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// What is shown.
    pub title: String,
    /// More about it; may be empty.
    pub caption: String,
    /// Images in a line.
    pub columns: usize,
    /// The images, line by line.
    pub images: Vec<GridImage>,
}

/// One image of a sheet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GridImage {
    /// A word under it (a class); may be empty.
    pub label: String,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Red, green, blue bytes, line by line: `3 * width * height`.
    pub rgb: Vec<u8>,
}

/// How one training went. Those that differ only in seed share a plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Which training.
    pub title: String,
    /// The cell that it is for, without its seed; may be empty.
    #[serde(default)]
    pub setting: String,
    /// Its seed, where it is one of several repetitions.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Horizontal axis with its unit: `epoch`, `images seen`.
    pub x_label: String,
    /// Vertical axis with its unit: `loss (nats)`, `accuracy (%)`.
    pub y_label: String,
    /// (name, points).
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Where an artifact came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The job's id.
    pub job: String,
    /// `fit`, `generate`, `train`, `evaluate`, ...
    pub stage: String,
    /// The resolved spec.
    pub spec: serde_json::Value,
    /// Jobs whose artifacts it used.
    pub inputs: Vec<String>,
    /// (what, value): seeds, device, versions, wall time, hashes of files.
    pub facts: Vec<(String, String)>,
    /// What it printed; may be empty.
    #[serde(default)]
    pub log: String,
}
