//! One line of a leaderboard: a cell of a suite under one threat model.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{threat::ThreatModel, units::Tally};

/// Results on fewer examples are watermarked: their intervals are wider than what they would be
/// compared by.
const COMPARABLE_EXAMPLES: u64 = 5000;

/// One evaluated (cell, threat model): everything that tables and plots show, as plain values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The suite's name.
    pub suite: String,
    /// The cell's label for people, unique in its suite up to the threat model.
    pub cell: String,
    /// The cell's axis values, in the suite's order: (`generate.sampler.steps`, `20`).
    pub axes: Vec<(String, String)>,
    /// Which data set's images were attacked.
    pub dataset: String,
    /// The threat model of the evaluation.
    pub threat: ThreatModel,
    /// The cascade's name: `standard`, `plus`, `rand`, `custom`.
    pub evaluation: String,
    /// The classifier's architecture, as the suite writes it.
    pub architecture: String,
    /// How many generated images joined training.
    pub generated: u64,
    /// Steps of the sampler that drew them; `None` without generated images.
    pub sampler_steps: Option<u64>,
    /// The training objective: `trades`, `standard`, ...
    pub loss: String,
    /// Training epochs, where known.
    pub epochs: Option<u64>,
    /// Which weights were evaluated: `best` or `last`.
    pub checkpoint: String,
    /// Seed of training.
    pub seed: u64,
    /// Right without an attack.
    pub clean: Tally,
    /// Right under every attack.
    pub robust: Tally,
    /// How many examples were still right after each attack of the cascade, in its order.
    pub robust_after: Vec<(String, u64)>,
    /// Wall time of each attack, in seconds.
    pub attack_seconds: Vec<(String, f64)>,
    /// Wall time of training, in seconds.
    pub train_seconds: Option<f64>,
    /// Wall time of generating the training images and labelling them, in seconds.
    pub generate_seconds: Option<f64>,
    /// Fréchet inception distance of the generated images, where measured.
    pub fid: Option<f64>,
    /// Its standard error.
    pub fid_error: Option<f64>,
    /// Whether that distance is by the Inception network, as published ones are, and not by fixed
    /// random filters.
    #[serde(default)]
    pub fid_published: bool,
    /// Job that made the generated images.
    pub generate_job: Option<String>,
    /// Job that trained the classifier.
    pub train_job: Option<String>,
    /// Job that evaluated it.
    pub evaluate_job: String,
    /// What the defence checks and the stages warned of.
    pub warnings: Vec<String>,
    /// The published result for the same cell, where the suite names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

/// A published result that a suite names for one of its cells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Clean accuracy in percent.
    pub clean: Option<f64>,
    /// Robust accuracy under AutoAttack in percent.
    pub robust: Option<f64>,
    /// Fréchet inception distance of the generated images.
    pub fid: Option<f64>,
    /// Where it is published.
    pub source: String,
    /// `verified`, `secondary` or `unverified`.
    pub certainty: String,
}

impl Reference {
    /// What marks a figure that nobody checked against its source: a `?`.
    pub fn doubt(&self) -> &'static str {
        if self.certainty == "unverified" { "?" } else { "" }
    }
}

impl Row {
    /// Whether the row may stand beside published ones: the whole of a standard cascade on as many
    /// examples as make the interval narrow, of a set that others use.
    pub fn is_comparable(&self) -> bool {
        let whole = matches!(self.evaluation.as_str(), "standard" | "plus" | "rand");
        whole && self.robust.total >= COMPARABLE_EXAMPLES && self.dataset != "synthetic"
    }

    /// The value of the axis called `name`.
    pub fn axis(&self, name: &str) -> Option<&str> {
        self.axes.iter().find(|(axis, _)| axis == name).map(|(_, value)| value.as_str())
    }

    /// The axis values without the seed: what repetitions of one experiment share.
    pub fn setting(&self) -> Vec<(String, String)> {
        self.axes.iter().filter(|(axis, _)| !is_seed(axis)).cloned().collect()
    }

    /// Wall time of all attacks, in seconds.
    pub fn evaluate_seconds(&self) -> f64 {
        self.attack_seconds.iter().map(|(_, seconds)| seconds).sum()
    }

    /// Wall time of everything that led here and is known, in seconds.
    pub fn total_seconds(&self) -> f64 {
        self.evaluate_seconds()
            + self.train_seconds.unwrap_or(0.0)
            + self.generate_seconds.unwrap_or(0.0)
    }

    /// What each attack broke: (attack, examples), in the cascade's order.
    pub fn broken_by(&self) -> Vec<(String, u64)> {
        let mut standing = self.clean.correct;
        self.robust_after
            .iter()
            .map(|(attack, left)| {
                let broken = standing.saturating_sub(*left);
                standing = *left;
                (attack.clone(), broken)
            })
            .collect()
    }
}

/// Whether an axis only repeats an experiment (`seed`, `train.seed`, ...).
pub fn is_seed(axis: &str) -> bool {
    axis.rsplit('.').next() == Some("seed")
}

/// The names of all axes of `rows`, in order of first appearance.
pub fn axes(rows: &[Row]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (axis, _) in rows.iter().flat_map(|row| &row.axes) {
        if !names.contains(axis) {
            names.push(axis.clone());
        }
    }
    names
}

/// An axis name as tables show it: its last component, or the last two where that is ambiguous.
pub fn short_axis<'a>(axis: &'a str, all: &[String]) -> &'a str {
    // A count is called by what it counts.
    let axis = axis.strip_suffix(".count").unwrap_or(axis);
    let tail = |name: &'a str, parts: usize| -> &'a str {
        name.rmatch_indices('.').nth(parts - 1).map_or(name, |(at, _)| &name[at + 1..])
    };
    let last = tail(axis, 1);
    let twins = all.iter().filter(|name| name.rsplit('.').next() == Some(last)).count();
    if twins > 1 { tail(axis, 2) } else { last }
}

/// Orders axis values as people do: numbers by value, `8/255` as a fraction, the rest as text.
pub fn natural(a: &str, b: &str) -> Ordering {
    match (number(a), number(b)) {
        (Some(x), Some(y)) => x.total_cmp(&y),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// The number that an axis value says, if it says one: `1000`, `0.3`, `8/255`, `1M`; `none` is 0,
/// as suites call a count of no images.
pub fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    if text == "none" {
        return Some(0.0);
    }
    if let Some((over, under)) = text.split_once('/') {
        return Some(over.trim().parse::<f64>().ok()? / under.trim().parse::<f64>().ok()?);
    }
    let (digits, scale) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 1e3),
        'M' => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    digits.parse::<f64>().ok().filter(|x| x.is_finite()).map(|x| x * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_names_are_short_and_unambiguous() {
        let all = ["generate.steps", "train.attack.steps", "train.beta", "seed"]
            .map(str::to_owned)
            .to_vec();
        let short: Vec<_> = all.iter().map(|axis| short_axis(axis, &all)).collect();
        assert_eq!(short_axis("generated.count", &all), "generated");
        assert_eq!(short, ["generate.steps", "attack.steps", "beta", "seed"]);
    }

    #[test]
    fn axis_values_order_as_people_do() {
        let mut values = ["trades", "1M", "100K", "8/255", "0", "9", "10"];
        values.sort_by(|a, b| natural(a, b));
        assert_eq!(values, ["0", "8/255", "9", "10", "100K", "1M", "trades"]);
        assert_eq!(number("wrn-28-10"), None);
        assert_eq!((number("K"), number("none")), (None, Some(0.0)));
    }
}
