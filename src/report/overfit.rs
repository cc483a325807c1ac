//! Robust overfitting (Rice et al. 2020): the last weights of a training against its best ones,
//! where both were evaluated.

use crate::leaderboard::{Row, statistics::difference};

use super::{
    pivot::signed,
    table::{Table, accuracy, name, ranked, varying},
};

/// The axis that the two rows of a pair differ in.
const AXIS: &str = "checkpoint";

/// The best and the last weights of one training under one threat model.
struct Twins<'a> {
    best: &'a Row,
    last: &'a Row,
}

fn twins(rows: &[Row]) -> Vec<Twins<'_>> {
    let others = |row: &Row| -> Vec<(String, String)> {
        let is_own = |axis: &str| axis.rsplit('.').next() == Some(AXIS);
        row.axes.iter().filter(|(axis, _)| !is_own(axis)).cloned().collect()
    };
    let of = |kind: &'static str| move |row: &&Row| row.checkpoint == kind;
    let ranked = ranked(rows);
    let mut found = Vec::new();
    for best in ranked.iter().copied().filter(of("best")) {
        let same = |last: &&Row| {
            last.dataset == best.dataset
                && last.threat == best.threat
                && last.seed == best.seed
                && last.train_job == best.train_job
                && others(last) == others(best)
        };
        if let Some(last) = ranked.iter().copied().filter(of("last")).find(same) {
            found.push(Twins { best, last });
        }
    }
    found
}

/// One line for each training whose best and last weights were both evaluated; `None` without any.
pub(super) fn table(rows: &[Row]) -> Option<Table> {
    let varying: Vec<String> =
        varying(rows).into_iter().filter(|axis| axis.rsplit('.').next() != Some(AXIS)).collect();
    let body: Vec<Vec<String>> = twins(rows)
        .into_iter()
        .map(|Twins { best, last }| {
            let (points, low, high) = difference(last.robust, best.robust, 0.95);
            vec![
                if varying.is_empty() { best.architecture.clone() } else { name(best, &varying) },
                best.threat.to_string(),
                accuracy(best.robust),
                accuracy(last.robust),
                format!("{} [{}, {}]", signed(points), signed(low), signed(high)),
                signed(last.clean.percent() - best.clean.percent()),
            ]
        })
        .collect();
    let header = ["training", "threat", "best, robust %", "last, robust %", "last − best", "clean"];
    (!body.is_empty()).then(|| Table {
        header: header.map(str::to_owned).to_vec(),
        body,
        words: 2,
        shared: vec![],
    })
}

/// What the table is about.
pub(super) const TITLE: &str = "Robust overfitting: best against last weights";

/// What its figures mean.
pub(super) const NOTE: &str = "Best: the epoch with the highest held-out robust accuracy; last: \
the final epoch. Differences in points; brackets: 95% interval of two independent shares \
(Newcombe). Clean: how clean accuracy changed.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::write::tests::demo;

    #[test]
    fn trainings_that_lost_robustness_are_listed() {
        let mut rows = demo().rows;
        assert_eq!(table(&rows), None);
        let mut last = rows[3].clone();
        last.checkpoint = "last".into();
        last.axes.push(("evaluate.checkpoint".into(), "last".into()));
        last.robust.correct -= 100;
        rows[3].axes.push(("evaluate.checkpoint".into(), "best".into()));
        rows.push(last);
        let table = table(&rows).unwrap();
        assert_eq!(table.body.len(), 1);
        assert!(table.body[0][0].contains("steps") && !table.body[0][0].contains("checkpoint"));
        assert!(table.body[0][4].starts_with("−5.0 [−"), "{:?}", table.body[0]);
    }
}
