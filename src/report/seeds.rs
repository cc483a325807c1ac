//! Settings over their seeds, for summaries and charts: a single lucky seed is no setting.

use crate::{
    error::Result,
    leaderboard::{
        Row,
        frame::{Group, aggregate},
        row::is_seed,
    },
    threat::ThreatModel,
};

use super::table::{accuracy, name, ranked, varying};

/// Lines that a chart with names down its side holds on one page.
const LINES: usize = 40;

/// A setting with all its seeds.
pub(super) struct Setting {
    /// The rows of all seeds as one: their examples together.
    pub(super) row: Row,
    /// Means and spreads over seeds.
    pub(super) group: Group,
}

/// The settings of `rows`, best first within each data set and threat model.
///
/// # Errors
/// If the aggregation fails.
pub(super) fn settings(rows: &[Row]) -> Result<Vec<Setting>> {
    let groups = aggregate(rows)?;
    let pooled: Vec<Row> = groups.iter().map(|group| pooled(rows, group)).collect();
    let at = |row: &Row| pooled.iter().position(|own| std::ptr::eq(own, row)).expect("one of them");
    let order: Vec<usize> = ranked(&pooled).into_iter().map(at).collect();
    let setting = |at: usize| Setting { row: pooled[at].clone(), group: groups[at].clone() };
    Ok(order.into_iter().map(setting).collect())
}

/// The first of each data set and threat model, as many as a chart holds, and how many are left
/// out.
pub(super) fn shown(settings: &[Setting]) -> (Vec<&Setting>, usize) {
    let key = |one: &Setting| (one.row.dataset.clone(), one.row.threat);
    let mut seen: Vec<((String, ThreatModel), usize)> = Vec::new();
    for one in settings {
        match seen.iter_mut().find(|(known, _)| *known == key(one)) {
            Some((_, count)) => *count += 1,
            None => seen.push((key(one), 1)),
        }
    }
    // As many of each as fit together.
    let fits = |most: &usize| seen.iter().map(|(_, count)| count.min(most)).sum::<usize>() <= LINES;
    let most = (1..=settings.len()).rev().find(fits).unwrap_or(1);
    let mut taken: Vec<((String, ThreatModel), usize)> = Vec::new();
    let mut kept = Vec::new();
    for one in settings {
        let at = taken.iter().position(|(known, _)| *known == key(one)).unwrap_or_else(|| {
            taken.push((key(one), 0));
            taken.len() - 1
        });
        taken[at].1 += 1;
        kept.extend((taken[at].1 <= most).then_some(one));
    }
    let left_out = settings.len() - kept.len();
    (kept, left_out)
}

/// All seeds of a group as one row: the counts of their examples together.
fn pooled(rows: &[Row], group: &Group) -> Row {
    let members: Vec<&Row> = group.members.iter().map(|at| &rows[*at]).collect();
    let mut attacks: Vec<&String> = Vec::new();
    for (attack, _) in members.iter().flat_map(|row| &row.robust_after) {
        if !attacks.contains(&attack) {
            attacks.push(attack);
        }
    }
    // Where an attack had nothing left to do, what stood at the end stood there as well.
    let left = |row: &Row, attack: &String| {
        let found = row.robust_after.iter().find(|(own, _)| own == attack);
        found.map_or(row.robust.correct, |(_, left)| *left)
    };
    let after = |attack: &&String| -> (String, u64) {
        ((*attack).clone(), members.iter().map(|row| left(row, attack)).sum())
    };
    Row {
        axes: group.axes.clone(),
        clean: group.clean_pooled,
        robust: group.robust_pooled,
        robust_after: attacks.iter().map(after).collect(),
        ..members[0].clone()
    }
}

/// The best setting under one threat model.
pub(super) struct Best {
    pub(super) setting: Setting,
    /// What tells it from others.
    pub(super) name: String,
    /// Place on the leaderboard of its best seed.
    pub(super) rank: usize,
}

/// The best setting of every data set and threat model, by its mean over seeds.
///
/// # Errors
/// If the aggregation fails.
pub(super) fn best(rows: &[Row]) -> Result<Vec<Best>> {
    let names: Vec<String> = varying(rows).into_iter().filter(|axis| !is_seed(axis)).collect();
    let mut found: Vec<Best> = Vec::new();
    for setting in settings(rows)? {
        let first = &rows[setting.group.members[0]];
        let best = ranked(rows).iter().position(|row| {
            setting.group.members.iter().any(|at| std::ptr::eq(*row, &raw const rows[*at]))
        });
        let one = Best {
            name: if names.is_empty() { first.cell.clone() } else { name(first, &names) },
            rank: best.map_or(1, |at| at + 1),
            setting,
        };
        let key = |one: &Best| (one.setting.row.dataset.clone(), one.setting.row.threat);
        match found.iter_mut().find(|known| key(known) == key(&one)) {
            // The order is by all examples, which differs from that by means where counts do.
            Some(known) if known.setting.group.robust.mean < one.setting.group.robust.mean => {
                *known = one;
            }
            Some(_) => {}
            None => found.push(one),
        }
    }
    Ok(found)
}

impl Best {
    /// The result in one sentence.
    pub(super) fn verdict(&self) -> String {
        let Setting { row, group } = &self.setting;
        let place = format!("Under {} on {}, the best", row.threat, row.dataset);
        let (counts, clean) = (row.robust, row.clean);
        let Some((deviation, clean_deviation)) = group.robust.deviation.zip(group.clean.deviation)
        else {
            let (low, high) = counts.interval();
            return format!(
                "{place} cell is {}: {} of {} images withstood every attack, {:.1}% (95% interval \
                 {low:.1} to {high:.1}); without an attack {} of {} were right, {}%.",
                self.name,
                counts.correct,
                counts.total,
                counts.percent(),
                clean.correct,
                clean.total,
                accuracy(clean),
            );
        };
        format!(
            "{place} setting is {}: {:.1} ± {deviation:.1}% of the images withstood every attack \
             (mean and sample standard deviation over {} seeds; {} of {} together); without an \
             attack {:.1} ± {clean_deviation:.1}% were right.",
            self.name,
            group.robust.mean,
            group.robust.count,
            counts.correct,
            counts.total,
            group.clean.mean,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::write::tests::demo, units::Tally};

    fn seeds() -> Vec<Row> {
        let mut rows = Vec::new();
        for (at, robust) in [[400, 480, 440], [430, 470, 470], [900, 0, 30]].iter().enumerate() {
            for (seed, robust) in robust.iter().enumerate() {
                let mut row = demo().rows[0].clone();
                row.axes =
                    vec![("x".into(), at.to_string()), ("train.seed".into(), seed.to_string())];
                row.seed = seed as u64;
                row.clean = Tally { correct: 950, total: 1000 };
                row.robust = Tally { correct: *robust, total: 1000 };
                row.robust_after = vec![("apgd-ce".into(), robust + 10)];
                if seed == 1 {
                    row.robust_after.push(("square".into(), *robust));
                }
                rows.push(row);
            }
        }
        rows
    }

    #[test]
    fn the_best_setting_is_the_best_on_average_not_by_one_seed() {
        let rows = seeds();
        let best = best(&rows).unwrap();
        assert_eq!(best.len(), 1);
        let text = best[0].verdict();
        assert!(text.contains("x 1: 45.7 ± 2.3%") && text.contains("over 3 seeds"), "{text}");
        // Its own best seed is third on the leaderboard: 90.0, 48.0, then 47.0.
        assert_eq!(best[0].rank, 3);
        assert!(text.contains("1370 of 3000 together"), "{text}");
    }

    #[test]
    fn one_seed_is_told_by_its_interval() {
        let rows: Vec<Row> = seeds().into_iter().filter(|row| row.seed == 0).collect();
        let text = best(&rows).unwrap()[0].verdict();
        assert!(text.contains("900 of 1000 images") && text.contains("95% interval"), "{text}");
    }

    #[test]
    fn examples_of_seeds_are_counted_together() {
        let rows = seeds();
        let all = settings(&rows).unwrap();
        let one = all.iter().find(|one| one.row.axis("x") == Some("0")).unwrap();
        assert_eq!(one.row.robust, Tally { correct: 1320, total: 3000 });
        let after: Vec<_> = one.row.robust_after.iter().map(|(_, left)| *left).collect();
        assert_eq!(after, [1350, 1320]);
        assert_eq!(one.row.axis("train.seed"), None);
        let (kept, left_out) = shown(&all);
        assert_eq!((kept.len(), left_out), (3, 0));
    }

    #[test]
    fn a_chart_holds_the_best_of_each_threat_model() {
        let mut rows = Vec::new();
        for at in 0..60u64 {
            let mut row = demo().rows[0].clone();
            row.axes = vec![("x".into(), at.to_string())];
            row.robust = Tally { correct: 10 * at, total: 1000 };
            if at % 4 == 0 {
                row.threat.epsilon = "1/255".parse().unwrap();
            }
            rows.push(row);
        }
        let all = settings(&rows).unwrap();
        let (kept, left_out) = shown(&all);
        assert_eq!((kept.len(), left_out), (40, 20));
        // All 15 of the rare threat model, the best 25 of the other.
        assert_eq!(kept.iter().filter(|one| one.row.axis("x") == Some("59")).count(), 1);
        let rare = |one: &&&Setting| one.row.threat.epsilon == "1/255".parse().unwrap();
        assert_eq!(kept.iter().filter(rare).count(), 15);
    }
}
