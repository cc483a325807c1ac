//! `ci:`: what `gauntlet check` lets pass.

use serde::{Deserialize, Serialize};

use crate::suite::{problem::suggestion, reader::Reader, reference::number, yaml::Node};

/// How far results may fall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Points of clean accuracy that may be lost beyond what chance explains.
    pub clean: f64,
    /// Points of robust accuracy that may be lost beyond what chance explains.
    pub robust: f64,
    /// Confidence of the interval that chance is judged by.
    pub confidence: f64,
    /// Percent that every cell's clean accuracy must reach, whatever the baseline.
    pub min_clean: Option<f64>,
    /// Percent that every cell's robust accuracy must reach, whatever the baseline.
    pub min_robust: Option<f64>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { clean: 0.0, robust: 0.0, confidence: 0.95, min_clean: None, min_robust: None }
    }
}

const KEYS: [&str; 5] = ["clean", "robust", "confidence", "min_clean", "min_robust"];

/// Reads the section.
pub(super) fn read(node: &Node, reader: &mut Reader) -> Thresholds {
    let mut found = Thresholds::default();
    for entry in reader.entries(node, "ci") {
        match entry.key.as_str() {
            "clean" => found.clean = number(entry, 100.0, reader).unwrap_or_default(),
            "robust" => found.robust = number(entry, 100.0, reader).unwrap_or_default(),
            "confidence" => match number(entry, 0.9999, reader) {
                Some(confidence) if confidence >= 0.5 => found.confidence = confidence,
                Some(_) => reader.problem(
                    Some(entry.value.at),
                    "ci.confidence",
                    format!("{} does not fit: expected 0.5 to 0.9999", entry.value.shown()),
                ),
                None => {}
            },
            "min_clean" => found.min_clean = number(entry, 100.0, reader),
            "min_robust" => found.min_robust = number(entry, 100.0, reader),
            other => {
                let message = format!("unknown key: {}", suggestion(other, KEYS.into_iter()));
                reader.problem(Some(entry.at), &format!("ci.{other}"), message);
            }
        }
    }
    found
}
