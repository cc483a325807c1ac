//! Robust overfitting (Rice et al. 2020): the last weights of a training against its best ones,
//! where both were evaluated.

use crate::leaderboard::{
    Row,
    row::is_seed,
    statistics::{Spread, difference, spread},
};

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

/// The lines of [`table`]: trainings that differ in nothing but their seed are one.
fn settings<'a>(rows: &'a [Row], varying: &[String]) -> Vec<(String, Vec<Twins<'a>>)> {
    let mut settings: Vec<(String, Vec<Twins>)> = Vec::new();
    for twins in twins(rows) {
        let named = |row: &Row| name(row, varying);
        let setting =
            if varying.is_empty() { twins.best.architecture.clone() } else { named(twins.best) };
        let known = settings.iter_mut().find(|(name, others)| {
            let other = others[0].best;
            *name == setting
                && other.threat == twins.best.threat
                && other.dataset == twins.best.dataset
        });
        match known {
            Some((_, others)) => others.push(twins),
            None => settings.push((setting, vec![twins])),
        }
    }
    settings
}

/// One line for each setting whose best and last weights were both evaluated; `None` without any.
pub(super) fn table(rows: &[Row]) -> Option<Table> {
    let own = |axis: &String| axis.rsplit('.').next() == Some(AXIS) || is_seed(axis);
    let varying: Vec<String> = varying(rows).into_iter().filter(|axis| !own(axis)).collect();
    let body: Vec<Vec<String>> = settings(rows, &varying)
        .into_iter()
        .map(|(setting, seeds)| {
            let over = |value: &dyn Fn(&Twins) -> f64, points: fn(f64) -> String| {
                let all: Vec<f64> = seeds.iter().map(value).collect();
                spread(&all).map_or_else(String::new, |Spread { mean, deviation, .. }| {
                    let deviation =
                        deviation.map_or_else(String::new, |one| format!(" ± {one:.1}"));
                    points(mean) + &deviation
                })
            };
            let plain = |value: f64| format!("{value:.1}");
            let [best, last, lost] = if let [Twins { best, last }] = seeds[..] {
                let (points, low, high) = difference(last.robust, best.robust, 0.95);
                let lost = format!("{} [{}, {}]", signed(points), signed(low), signed(high));
                [accuracy(best.robust), accuracy(last.robust), lost]
            } else {
                [
                    over(&|one| one.best.robust.percent(), plain),
                    over(&|one| one.last.robust.percent(), plain),
                    over(&|one| one.last.robust.percent() - one.best.robust.percent(), signed),
                ]
            };
            let clean = over(&|one| one.last.clean.percent() - one.best.clean.percent(), signed);
            vec![setting, seeds[0].best.threat.to_string(), best, last, lost, clean]
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
(Newcombe); ±: sample standard deviation over seeds, of each seed's own difference. Clean: how \
clean accuracy changed.";

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

    #[test]
    fn seeds_of_a_setting_are_one_line() {
        let mut rows = vec![demo().rows[3].clone()];
        rows[0].axes.push(("evaluate.checkpoint".into(), "best".into()));
        rows[0].axes.push(("train.seed".into(), "0".into()));
        let mut again = rows[0].clone();
        again.seed = 1;
        again.train_job = Some("another".into());
        again.axes.last_mut().unwrap().1 = "1".into();
        rows.push(again);
        for (at, lost) in [(0, 100), (1, 140)] {
            let mut last = rows[at].clone();
            let at = last.axes.len() - 2;
            last.checkpoint = "last".into();
            last.axes[at].1 = "last".into();
            last.robust.correct -= lost;
            rows.push(last);
        }
        let total = rows[0].robust.total as f64;
        let [first, second] = [100.0, 140.0].map(|lost| lost / total * 100.0);
        let table = table(&rows).unwrap();
        assert_eq!(table.body.len(), 1);
        let (mean, deviation) = (f64::midpoint(first, second), (second - first) / 2f64.sqrt());
        assert_eq!(table.body[0][4], format!("−{mean:.1} ± {deviation:.1}"));
        assert!(table.body[0][2].ends_with(" ± 0.0"), "{:?}", table.body[0]);
    }
}
