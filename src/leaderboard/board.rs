//! RobustBench's leaderboard with our rows among the published ones.

use serde::{Deserialize, Serialize};

use super::{
    published::{self, Published},
    robustbench::Named,
    row::Row,
};
use crate::{error::Result, threat::ThreatModel, units::Tally};

/// The table of one data set under one threat model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// Data set.
    pub dataset: String,
    /// Threat model; `None` for common corruptions, which have no bound.
    pub threat: Option<ThreatModel>,
    /// Lines in RobustBench's order: the best known robust accuracy, descending.
    pub lines: Vec<Line>,
}

impl Board {
    /// `cifar10, linf 8/255`.
    pub fn title(&self) -> String {
        let threat = self.threat.map(|threat| threat.to_string());
        format!("{}, {}", self.dataset, threat.as_deref().unwrap_or("common corruptions"))
    }
}

/// One model; the fields are RobustBench's columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Place, from 1; `None` for results that are not comparable, which take no place.
    pub rank: Option<u64>,
    /// Whether gauntlet measured it.
    pub ours: bool,
    /// Model's key, or our cell.
    pub method: String,
    /// Title of the paper; for ours how it was attacked.
    pub title: String,
    /// Standard accuracy, in percent.
    pub clean: f64,
    /// Robust accuracy under AutoAttack, in percent; `None` for other cascades.
    pub autoattack: Option<f64>,
    /// Best known robust accuracy, or the mean one under corruptions, in percent.
    pub robust: f64,
    /// Whether AutoAttack's figure may be too high; `None` is "Unknown".
    pub unreliable: Option<bool>,
    /// Whether data beyond the training set was used.
    pub extra_data: bool,
    /// Architecture.
    pub architecture: String,
    /// Where it appeared.
    pub venue: String,
    /// Address of the source; empty for ours.
    pub source: String,
    /// Notes, among them the watermark of small-scale results.
    pub footnote: String,
    /// Our counts behind `robust`.
    pub counts: Option<Tally>,
}

/// The watermark of results that must not be compared.
pub const NOT_COMPARABLE: &str = "not comparable";

/// The board of `theirs` and `ours`, which share data set and threat model with it.
pub fn board(dataset: &str, threat: ThreatModel, theirs: &[Published], ours: &[Row]) -> Board {
    let mut lines: Vec<Line> = theirs.iter().map(published_line).collect();
    let here = ours.iter().filter(|row| row.dataset == dataset && row.threat == threat);
    lines.extend(here.map(our_line));
    placed(dataset, Some(threat), lines)
}

/// An entry of RobustBench for common corruptions as a line.
///
/// # Errors
/// If it lacks an accuracy without or with corruptions.
pub fn corrupted((key, entry): &Named) -> Result<Line> {
    let words = |name: &str| plain(entry.text(name).unwrap_or_default());
    Ok(Line {
        rank: Some(0),
        ours: false,
        method: key.clone(),
        title: words("name"),
        clean: entry.needed("clean_acc")?,
        autoattack: None,
        robust: entry.needed("corruptions_acc")?,
        unreliable: entry.unreliable(),
        extra_data: entry.extra_data(),
        architecture: words("architecture"),
        venue: words("venue"),
        source: words("link"),
        footnote: words("footnote"),
        counts: None,
    })
}

/// The board of lines made by [`corrupted`].
pub fn corruptions(dataset: &str, lines: Vec<Line>) -> Board {
    placed(dataset, None, lines)
}

fn placed(dataset: &str, threat: Option<ThreatModel>, mut lines: Vec<Line>) -> Board {
    // Stable: equals stay as they stood, as in RobustBench.
    lines.sort_by(|a, b| b.robust.total_cmp(&a.robust));
    let mut place = 0;
    for line in lines.iter_mut().filter(|line| line.rank.is_some()) {
        place += 1;
        line.rank = Some(place);
    }
    Board { dataset: dataset.to_owned(), threat, lines }
}

/// Text without RobustBench's line breaks.
fn plain(text: &str) -> String {
    text.replace("<br>", " ").replace("<br/>", " ")
}

/// One board for each data set and threat model of `ours`, beside the shipped results.
pub fn boards(ours: &[Row]) -> Vec<Board> {
    let mut seen: Vec<(&str, ThreatModel)> = Vec::new();
    for row in ours {
        if !seen.contains(&(row.dataset.as_str(), row.threat)) {
            seen.push((&row.dataset, row.threat));
        }
    }
    seen.into_iter()
        .map(|(dataset, threat)| {
            board(dataset, threat, &published::matching(dataset, threat), ours)
        })
        .collect()
}

fn published_line(one: &Published) -> Line {
    Line {
        rank: Some(0),
        ours: false,
        method: one.key.clone(),
        title: one.title.clone(),
        clean: one.clean,
        autoattack: Some(one.autoattack),
        robust: one.robust,
        unreliable: one.unreliable,
        extra_data: one.extra_data,
        architecture: plain(&one.architecture),
        venue: plain(&one.venue),
        source: one.source.clone(),
        footnote: plain(&one.footnote),
        counts: None,
    }
}

fn our_line(row: &Row) -> Line {
    let comparable = row.is_comparable();
    let standard = matches!(row.evaluation.as_str(), "standard" | "plus");
    let attacks: Vec<&str> = row.robust_after.iter().map(|(name, _)| name.as_str()).collect();
    let (low, high) = row.robust.interval();
    let mut footnote = format!(
        "{} of {} images, 95% interval {low:.2} to {high:.2}",
        row.robust.correct, row.robust.total
    );
    if !comparable {
        footnote = format!("{NOT_COMPARABLE} (small scale): {footnote}");
    }
    Line {
        rank: comparable.then_some(0),
        ours: true,
        method: format!("{}: {}", row.suite, row.cell),
        title: format!("{} ({})", row.evaluation, attacks.join(", ")),
        clean: row.clean.percent(),
        autoattack: standard.then(|| row.robust.percent()),
        robust: row.robust.percent(),
        unreliable: Some(!row.warnings.is_empty()),
        extra_data: false,
        architecture: row.architecture.clone(),
        venue: "ours".to_owned(),
        source: String::new(),
        footnote,
        counts: Some(row.robust),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaderboard::frame::tests::sample;

    #[test]
    fn our_rows_take_their_place_and_small_ones_take_none() {
        let mut large = sample(20, 0, 312);
        large.robust = Tally { correct: 6800, total: 10_000 };
        large.clean = Tally { correct: 9300, total: 10_000 };
        let small = sample(5, 0, 990);
        let boards = boards(&[large, small]);
        assert_eq!(boards.len(), 1);
        let lines = &boards[0].lines;
        assert_eq!(lines.len(), 99 + 2);
        // 99.0% of 1000 images stands on top by its figure, watermarked and without a rank.
        assert!(lines[0].ours && lines[0].rank.is_none());
        assert!(lines[0].footnote.contains(NOT_COMPARABLE), "{}", lines[0].footnote);
        assert_eq!(lines[1].rank, Some(1));
        let at = lines.iter().position(|line| line.ours && line.rank.is_some()).unwrap();
        assert!(lines[at - 1].robust >= 68.0 && lines[at + 1].robust <= 68.0);
        let ranks: Vec<u64> = lines.iter().filter_map(|line| line.rank).collect();
        assert_eq!(ranks, (1..=100).collect::<Vec<_>>());
        let fallen = lines.iter().find(|line| line.method == "Kang2021Stable").unwrap();
        assert_eq!((fallen.autoattack, fallen.robust), (Some(71.28), 64.20));
        assert_eq!(fallen.unreliable, Some(true));
    }
}
