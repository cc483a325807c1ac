//! Any number of results set against their counterparts: for the terminal, in Markdown, as HTML.

use std::fmt::Write as _;

use minijinja::{Environment, context};
use serde::Serialize;

use super::{
    board::wrapped,
    compare::{Pair, Verdict, p_value, verdict},
    table::{accuracy, escape},
};
use crate::{
    error::{Error, Result},
    leaderboard::{compare::Comparison, proportions, statistics::paired_difference},
    units::Tally,
};

/// Columns of the terminal for names.
const NAME: usize = 26;

/// Two results that belong together.
#[derive(Debug, Clone, Serialize)]
pub struct Match {
    /// What they have in common: a cell and its threat model.
    pub what: String,
    /// What the first is called.
    pub first: String,
    /// What the second is called.
    pub second: String,
    /// The figures of the first: clean, robust.
    pub first_counts: (Tally, Tally),
    /// The figures of the second.
    pub second_counts: (Tally, Tally),
    /// Paired by example, where both have records.
    pub paired: Option<Comparison>,
}

/// Everything that `gauntlet compare` shows.
#[derive(Debug, Clone, Serialize)]
pub struct Versus {
    /// What the first is called.
    pub first: String,
    /// What the second is called.
    pub second: String,
    /// The pairs.
    pub matches: Vec<Match>,
    /// Results without a counterpart, and other remarks.
    pub notes: Vec<String>,
}

/// Robust accuracy, first minus second, of one match.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Gap {
    /// Percentage points.
    pub points: f64,
    /// Lower end of the 95% interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Two-sided p: McNemar's mid-p where paired, else Pearson's chi-squared.
    pub p: f64,
}

impl Match {
    /// The difference in robust accuracy.
    pub fn gap(&self) -> Gap {
        if let Some(pair) = &self.paired {
            let (points, low, high) = paired_difference(pair.robust, pair.first.1.total, 0.95);
            return Gap { points, low, high, p: pair.robust.mid_p };
        }
        let found = proportions::difference(self.first_counts.1, self.second_counts.1);
        Gap { points: found.points, low: found.low, high: found.high, p: found.p }
    }

    /// Who withstands more, if the examples can tell at the 5% level.
    pub fn verdict(&self) -> Verdict {
        if let Some(pair) = &self.paired {
            return verdict(pair);
        }
        let gap = self.gap();
        match gap.points {
            _ if gap.p >= 0.05 => Verdict::Neither,
            points if points > 0.0 => Verdict::First,
            _ => Verdict::Second,
        }
    }

    fn pair(&self) -> Option<Pair<'_>> {
        let comparison = self.paired.as_ref()?;
        Some(Pair { first: &self.first, second: &self.second, comparison })
    }

    /// The verdict as a sentence.
    pub fn sentence(&self) -> String {
        if let Some(pair) = self.pair() {
            return pair.sentence();
        }
        let Gap { points, low, high, p } = self.gap();
        let relation = match self.verdict() {
            Verdict::First => "is more robust than",
            Verdict::Second => "is less robust than",
            Verdict::Neither => "cannot be told apart from",
        };
        format!(
            "{} {relation} {}: {points:+.1} points of robust accuracy (95% interval {low:+.1} to \
             {high:+.1}; not paired, chi-squared p {}).",
            self.first,
            self.second,
            p_value(p)
        )
    }

    fn verdict_word(&self) -> &'static str {
        match self.verdict() {
            Verdict::First => "first",
            Verdict::Second => "second",
            Verdict::Neither => "–",
        }
    }
}

impl Versus {
    /// Whether the second is less robust than the first anywhere: what the exit code says.
    pub fn second_loses(&self) -> bool {
        self.matches.iter().any(|one| one.verdict() == Verdict::First)
    }

    fn line(one: &Match) -> [String; 6] {
        let Gap { points, low, high, p } = one.gap();
        [
            one.what.clone(),
            accuracy(one.first_counts.1),
            accuracy(one.second_counts.1),
            format!("{points:+.1} [{low:+.1}, {high:+.1}]"),
            format!("{}{}", p_value(p), if one.paired.is_some() { "" } else { " (unpaired)" }),
            one.verdict_word().to_owned(),
        ]
    }

    /// Within 80 columns.
    pub fn terminal(&self) -> String {
        let mut text = String::new();
        for part in wrapped(&format!("A: {}   B: {}", self.first, self.second), 80) {
            let _ = writeln!(text, "{part}");
        }
        let _ = writeln!(
            text,
            "\n{:<NAME$} {:>6} {:>6} {:>6} {:>15} {:>8}  better",
            "robust %", "A", "B", "A-B", "95% interval", "p"
        );
        text.push_str(&"─".repeat(80));
        text.push('\n');
        for one in &self.matches {
            let Gap { points, low, high, p } = one.gap();
            // A name that does not fit has lines of its own: cut names look alike.
            let what = if one.what.chars().count() > NAME {
                for part in wrapped(&one.what, 80) {
                    let _ = writeln!(text, "{part}");
                }
                ""
            } else {
                one.what.as_str()
            };
            let better = match one.verdict() {
                Verdict::First => "A",
                Verdict::Second => "B",
                Verdict::Neither => "–",
            };
            let interval = format!("[{low:+.1}, {high:+.1}]");
            let (a, b) = (one.first_counts.1.percent(), one.second_counts.1.percent());
            let _ = writeln!(
                text,
                "{what:<NAME$} {a:>6.2} {b:>6.2} {points:>+6.1} {interval:>15} {:>8}  {better}",
                p_value(p)
            );
        }
        if let [one] = self.matches.as_slice() {
            text.push('\n');
            wrapped(&one.sentence(), 80).iter().for_each(|part| {
                let _ = writeln!(text, "{part}");
            });
        }
        for one in &self.matches {
            for (cause, a, b) in one.pair().map(|pair| pair.losses()).unwrap_or_default() {
                let note = format!("{}: {cause} broke {a} only of A, {b} only of B", one.what);
                wrapped(&note, 80).iter().for_each(|part| {
                    let _ = writeln!(text, "{part}");
                });
            }
        }
        for note in &self.notes {
            wrapped(note, 80).iter().for_each(|part| {
                let _ = writeln!(text, "{part}");
            });
        }
        text
    }

    /// In Markdown: the table, then every paired match in detail.
    pub fn markdown(&self) -> String {
        let (first, second) = (escape(&self.first), escape(&self.second));
        let mut text = format!(
            "# {first} against {second}\n\n| robust accuracy | {first} % | {second} % | \
             difference | p | more robust |\n|:--|--:|--:|--:|--:|:--|\n"
        );
        for one in &self.matches {
            let cells = Self::line(one).map(|cell| escape(&cell));
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        let _ = writeln!(text, "\n{NOTE}\n");
        self.notes.iter().for_each(|note| {
            let _ = writeln!(text, "- {}", escape(note));
        });
        for one in &self.matches {
            if let Some(pair) = one.pair() {
                let _ = write!(text, "\n#{}", pair.markdown());
            }
        }
        text
    }

    /// For scripts.
    pub fn json(&self) -> serde_json::Value {
        let matches = self.matches.iter().map(|one| {
            serde_json::json!({
                "what": one.what, "first": one.first, "second": one.second,
                "first_counts": {"clean": one.first_counts.0, "robust": one.first_counts.1},
                "second_counts": {"clean": one.second_counts.0, "robust": one.second_counts.1},
                "difference": one.gap(), "more_robust": one.verdict_word(),
                "paired": one.paired,
            })
        });
        serde_json::json!({
            "first": self.first, "second": self.second,
            "matches": matches.collect::<Vec<_>>(), "notes": self.notes,
            "second_is_less_robust": self.second_loses(),
        })
    }

    /// As one HTML file that needs nothing else.
    ///
    /// # Errors
    /// If the template fails, which would be our mistake.
    pub fn html(&self) -> Result<String> {
        let failed = |error: minijinja::Error| Error::input(format!("the template: {error:#}"));
        let pairs = self.matches.iter().map(|one| {
            serde_json::json!({
                "what": one.what, "cells": Self::line(one), "sentence": one.sentence(),
                "detail": one.pair().map(|pair| pair.page()),
            })
        });
        let page = minijinja::value::Serde(serde_json::json!({
            "first": self.first, "second": self.second, "note": NOTE, "notes": self.notes,
            "matches": pairs.collect::<Vec<_>>(),
        }));
        let mut environment = Environment::new();
        environment.add_template("compare.html", include_str!("compare.html")).map_err(failed)?;
        let template = environment.get_template("compare.html").map_err(failed)?;
        template.render(context! { page, style => include_str!("style.css") }).map_err(failed)
    }
}

const NOTE: &str = "Difference: first minus second, in points, with its 95% interval (paired: \
Agresti and Min; not paired: Newcombe). p: McNemar's mid-p where both have records of the same \
examples, else Pearson's chi-squared test of two independent shares. The level is 5%, each line by \
itself.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaderboard::{compare::compare, records::tests::sample};

    #[test]
    fn pairs_and_strangers_share_a_table_and_the_loser_is_named() {
        let all = |broken: std::ops::Range<u64>| -> Vec<_> {
            (0..200).map(|at| sample(at, true, broken.contains(&at).then_some("apgd-t"))).collect()
        };
        let paired = compare(&all(0..80), &all(60..170)).unwrap();
        let tally = |correct, total| Tally { correct, total };
        let with = |paired: Option<Comparison>, robust: Tally| Match {
            what: "steps <b>20</b>, linf 8/255 and a very long name indeed".into(),
            first: "<i>A</i>".into(),
            second: "B".into(),
            first_counts: (tally(200, 200), tally(120, 200)),
            second_counts: (tally(200, 200), robust),
            paired,
        };
        let published = with(None, tally(6731, 10_000));
        assert_eq!(published.verdict(), Verdict::Second);
        assert!(
            published.sentence().contains("less robust")
                && published.sentence().contains("not paired")
        );
        let mut all = Versus {
            first: "<i>A</i>".into(),
            second: "B".into(),
            matches: vec![published],
            notes: vec!["cell x stands only in A".into()],
        };
        assert!(!all.second_loses());
        all.matches.push(with(Some(paired), tally(90, 200)));
        assert!(all.second_loses());
        let text = all.terminal();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(
            text.replace('\n', " ").contains("apgd-t broke 60 only of A, 90 only of B"),
            "{text}"
        );
        let page = all.html().unwrap();
        assert!(!page.contains("<i>") && !page.contains("<b>20") && page.contains("&lt;i&gt;"));
        assert!(all.markdown().contains("\\<i\\>"));
        assert_eq!(all.json()["matches"][1]["more_robust"], "first");
    }
}
