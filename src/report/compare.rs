//! Two evaluations side by side, paired by example: in words and in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::leaderboard::{
    compare::Comparison,
    statistics::{McNemar, paired_difference},
};

use super::table::{accuracy, escape};

/// Two evaluations with names for people.
#[derive(Debug, Clone)]
pub struct Pair<'a> {
    /// What the first is called.
    pub first: &'a str,
    /// What the second is called.
    pub second: &'a str,
    /// The paired counts.
    pub comparison: &'a Comparison,
}

/// What a difference amounts to at the 5% level, by the mid-p McNemar test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first withstands more.
    First,
    /// The second withstands more.
    Second,
    /// The examples do not tell them apart.
    Neither,
}

/// Which of the two is more robust, if the examples can tell.
pub fn verdict(comparison: &Comparison) -> Verdict {
    let McNemar { only_first, only_second, mid_p, .. } = comparison.robust;
    match only_first.cmp(&only_second) {
        _ if mid_p >= 0.05 => Verdict::Neither,
        std::cmp::Ordering::Greater => Verdict::First,
        _ => Verdict::Second,
    }
}

#[derive(Serialize)]
struct Line {
    what: &'static str,
    first: String,
    second: String,
    difference: String,
    only_first: u64,
    only_second: u64,
    exact: String,
    mid_p: String,
}

impl Pair<'_> {
    /// The verdict as a sentence with its figures.
    pub fn sentence(&self) -> String {
        let found = self.comparison;
        let test = found.robust;
        let (difference, low, high) = paired_difference(test, found.first.1.total, 0.95);
        let p = p_value(test.mid_p);
        let figures = format!(
            "{difference:+.1} points of robust accuracy (95% interval {low:+.1} to {high:+.1}; {} \
             examples only the first withstands, {} only the second; McNemar's mid-p {p})",
            test.only_first, test.only_second
        );
        match verdict(found) {
            Verdict::First => {
                format!("{} is more robust than {}: {figures}.", self.first, self.second)
            }
            Verdict::Second => {
                format!("{} is less robust than {}: {figures}.", self.first, self.second)
            }
            Verdict::Neither => format!(
                "{} and {} cannot be told apart on these examples: {figures}.",
                self.first, self.second
            ),
        }
    }

    fn lines(&self) -> [Line; 2] {
        let found = self.comparison;
        let line = |what, first, second, test: McNemar| {
            let (difference, low, high) = paired_difference(test, found.first.0.total, 0.95);
            Line {
                what,
                first: accuracy(first),
                second: accuracy(second),
                difference: format!("{difference:+.1} [{low:+.1}, {high:+.1}]"),
                only_first: test.only_first,
                only_second: test.only_second,
                exact: p_value(test.exact),
                mid_p: p_value(test.mid_p),
            }
        };
        [
            line("clean", found.first.0, found.second.0, found.clean),
            line("robust", found.first.1, found.second.1, found.robust),
        ]
    }

    /// What broke the loser of each flipped example: (attack, lost by the first, by the second).
    pub(super) fn losses(&self) -> Vec<(String, u64, u64)> {
        let mut losses: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for flip in &self.comparison.flips {
            let cause = flip.broken_by.clone().unwrap_or_else(|| "wrong without attack".into());
            let count = losses.entry(cause).or_default();
            if flip.first_robust { count.1 += 1 } else { count.0 += 1 }
        }
        losses.into_iter().map(|(cause, (first, second))| (cause, first, second)).collect()
    }

    /// The comparison in Markdown.
    pub fn markdown(&self) -> String {
        let (first, second) = (escape(self.first), escape(self.second));
        let mut text = format!(
            "# {first} against {second}\n\n{}\n\n| | {first} % | {second} % | difference | only \
             {first} | only {second} | exact p | mid-p |\n|:--|--:|--:|--:|--:|--:|--:|--:|\n",
            escape(&self.sentence())
        );
        for line in self.lines() {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                line.what,
                line.first,
                line.second,
                line.difference,
                line.only_first,
                line.only_second,
                line.exact,
                line.mid_p
            );
        }
        let _ = write!(
            text,
            "\n| what broke the loser | lost by {first} | lost by {second} |\n|:--|--:|--:|\n"
        );
        for (cause, by_first, by_second) in self.losses() {
            let _ = writeln!(text, "| {} | {by_first} | {by_second} |", escape(&cause));
        }
        let _ = writeln!(text, "\n{}", self.note());
        text
    }

    fn note(&self) -> String {
        format!(
            "Paired by example, n = {}; {} examples stand in only one of the two and are left out. \
             Difference: first minus second, in points, with Agresti and Min's interval. p: \
             McNemar's test, two-sided.",
            self.comparison.first.0.total, self.comparison.unpaired
        )
    }

    /// What the HTML page shows of it.
    pub(super) fn page(&self) -> serde_json::Value {
        let flips = self.comparison.flips.iter().map(|flip| {
            serde_json::json!({
                "index": flip.index,
                "label": flip.label,
                "winner": if flip.first_robust { self.first } else { self.second },
                "cause": flip.broken_by.as_deref().unwrap_or("wrong without attack"),
            })
        });
        serde_json::json!({
            "first": self.first,
            "second": self.second,
            "lines": self.lines(),
            "losses": self.losses(),
            "flips": flips.collect::<Vec<_>>(),
            "note": self.note(),
        })
    }
}

/// `0.027`, `< 0.0001`.
pub(super) fn p_value(p: f64) -> String {
    match p {
        p if p < 1e-4 => "< 0.0001".to_owned(),
        p if p < 0.01 => format!("{p:.4}"),
        p => format!("{p:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaderboard::{compare::compare, records::tests::sample};

    #[test]
    fn the_verdict_follows_the_examples() {
        let all = |broken: std::ops::Range<u64>| -> Vec<_> {
            (0..200).map(|at| sample(at, true, broken.contains(&at).then_some("apgd-t"))).collect()
        };
        let (strong, weak) = (all(0..80), all(60..170));
        let found = compare(&strong, &weak).unwrap();
        assert_eq!(verdict(&found), Verdict::First);
        let pair = Pair { first: "a|b", second: "<b>", comparison: &found };
        assert!(
            pair.sentence().contains("more robust") && pair.sentence().contains("+15.0 points")
        );
        let markdown = pair.markdown();
        assert!(
            markdown.contains("a\\|b") && markdown.contains("| apgd-t | 60 | 90 |"),
            "{markdown}"
        );
        let same = compare(&strong, &strong).unwrap();
        assert_eq!(verdict(&same), Verdict::Neither);
        let other = compare(&weak, &strong).unwrap();
        assert_eq!(verdict(&other), Verdict::Second);
    }

    #[test]
    fn small_p_values_are_bounds() {
        assert_eq!(
            [0.5, 0.026_6, 0.005_16, 1e-9].map(p_value),
            ["0.500", "0.027", "0.0052", "< 0.0001"]
        );
    }
}
