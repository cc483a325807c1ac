//! Tables for papers: one setting a line, accuracies across, mean and spread over seeds, the best
//! of each column marked.

use crate::{
    error::Result,
    leaderboard::{
        Row,
        frame::{Group, aggregate},
        row::{natural, short_axis},
        statistics::Spread,
    },
    units::Tally,
};
use std::fmt::Write as _;

use super::table::{is_threat, value_text, varying};

/// A pivoted table.
#[derive(Debug, Clone, PartialEq)]
pub struct Pivot {
    /// What it shows.
    pub title: String,
    /// Headings of the first columns, which name the setting.
    pub names: Vec<String>,
    /// Headings of the accuracies.
    pub header: Vec<String>,
    /// Lines: the setting, then the figures.
    pub lines: Vec<(Vec<String>, Vec<Option<Figure>>)>,
}

/// One figure of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Mean over seeds, in percent.
    pub spread: Spread,
    /// All examples of all seeds.
    pub pooled: Tally,
    /// The best of its column.
    pub best: bool,
    /// Not the best, but its interval reaches the best figure.
    pub tied: bool,
}

impl Figure {
    fn of(spread: Spread, pooled: Tally) -> Self {
        Self { spread, pooled, best: false, tied: false }
    }

    /// `31.2 ± 0.4` over seeds, else `31.2 [28.4, 34.1]`.
    pub fn text(&self) -> String {
        match self.spread.deviation {
            Some(deviation) => format!("{:.1} ± {deviation:.1}", self.spread.mean),
            None => super::table::accuracy(self.pooled),
        }
    }
}

/// The pivoted tables of `rows`: with `axes` (down, across) one table of robust accuracy per data
/// set and threat model, without one table with clean and robust accuracy under each.
///
/// # Errors
/// If the aggregation fails.
pub fn tables(rows: &[Row], axes: Option<&(String, String)>) -> Result<Vec<Pivot>> {
    let groups = aggregate(rows)?;
    let names = varying(rows);
    let names: Vec<String> =
        names.into_iter().filter(|name| !crate::leaderboard::row::is_seed(name)).collect();
    let mut tables = match axes {
        Some((_, across)) if names.contains(across) => crossed(&groups, &names, across),
        _ => by_threat(&groups, &names),
    };
    tables.iter_mut().for_each(mark);
    Ok(tables)
}

fn setting(group: &Group, names: &[String]) -> Vec<String> {
    names
        .iter()
        .map(|name| {
            let value = group.axes.iter().find(|(axis, _)| axis == name);
            value.map_or_else(|| "–".to_owned(), |(_, value)| value_text(value))
        })
        .collect()
}

fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

fn by_threat(groups: &[Group], names: &[String]) -> Vec<Pivot> {
    let headings: Vec<_> = names.iter().map(|name| short_axis(name, names).to_owned()).collect();
    distinct(groups.iter().map(|group| group.dataset.clone()))
        .into_iter()
        .map(|dataset| {
            let here: Vec<&Group> = groups.iter().filter(|g| g.dataset == dataset).collect();
            let threats = distinct(here.iter().map(|group| group.threat));
            let mut lines: Vec<(Vec<String>, Vec<Option<Figure>>)> = Vec::new();
            for key in distinct(here.iter().map(|group| setting(group, names))) {
                let mut figures = Vec::new();
                for threat in &threats {
                    let found =
                        here.iter().find(|g| g.threat == *threat && setting(g, names) == key);
                    figures.push(found.map(|g| Figure::of(g.clean, g.clean_pooled)));
                    figures.push(found.map(|g| Figure::of(g.robust, g.robust_pooled)));
                }
                lines.push((key, figures));
            }
            lines.sort_by(|a, b| order(&a.0, &b.0));
            let header = threats
                .iter()
                .flat_map(|threat| [format!("clean, {threat}"), format!("robust, {threat}")])
                .collect();
            Pivot { title: dataset, names: headings.clone(), header, lines }
        })
        .collect()
}

fn order(a: &[String], b: &[String]) -> std::cmp::Ordering {
    let pairs = a.iter().zip(b).map(|(x, y)| natural(x, y));
    pairs.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}

fn crossed(groups: &[Group], names: &[String], across: &str) -> Vec<Pivot> {
    let down: Vec<String> =
        names.iter().filter(|name| *name != across && !is_threat(name)).cloned().collect();
    let value = |group: &Group| {
        group.axes.iter().find(|(axis, _)| axis == across).map(|(_, value)| value.clone())
    };
    distinct(groups.iter().map(|group| (group.dataset.clone(), group.threat)))
        .into_iter()
        .map(|(dataset, threat)| {
            let here: Vec<&Group> =
                groups.iter().filter(|g| g.dataset == dataset && g.threat == threat).collect();
            let mut columns = distinct(here.iter().filter_map(|group| value(group)));
            columns.sort_by(|a, b| natural(a, b));
            let mut lines: Vec<_> = distinct(here.iter().map(|group| setting(group, &down)))
                .into_iter()
                .map(|key| {
                    let figures = columns.iter().map(|column| {
                        let found = here.iter().find(|g| {
                            value(g).as_ref() == Some(column) && setting(g, &down) == key
                        });
                        found.map(|g| Figure::of(g.robust, g.robust_pooled))
                    });
                    let figures: Vec<_> = figures.collect();
                    (key, figures)
                })
                .collect();
            lines.sort_by(|a, b| order(&a.0, &b.0));
            let short = short_axis(across, names);
            Pivot {
                title: format!("{dataset}, robust accuracy, {threat}"),
                names: down.iter().map(|name| short_axis(name, names).to_owned()).collect(),
                header: columns.iter().map(|c| format!("{short} {}", value_text(c))).collect(),
                lines,
            }
        })
        .collect()
}

/// Marks the best figure of each column (of the whole table where columns are one quantity is the
/// reader's business) and those whose interval reaches it.
fn mark(table: &mut Pivot) {
    for column in 0..table.header.len() {
        let means = table.lines.iter().filter_map(|(_, figures)| figures[column].as_ref());
        let best = means.map(|figure| figure.spread.mean).fold(f64::NEG_INFINITY, f64::max);
        for figure in table.lines.iter_mut().filter_map(|(_, figures)| figures[column].as_mut()) {
            figure.best = figure.spread.mean >= best;
            figure.tied = !figure.best && figure.pooled.interval().1 >= best;
        }
    }
}

/// The tables in Markdown.
pub fn markdown(tables: &[Pivot]) -> String {
    let mut text = String::new();
    for table in tables {
        let mut header = table.names.clone();
        header.extend(table.header.clone());
        let body = table.lines.iter().map(|(names, figures)| {
            let mut line = names.clone();
            line.extend(figures.iter().map(|figure| match figure {
                None => "–".to_owned(),
                Some(figure) if figure.best => format!("**{}**", figure.text()),
                Some(figure) if figure.tied => format!("{} ≈", figure.text()),
                Some(figure) => figure.text(),
            }));
            line
        });
        let table_text = super::table::Table {
            body: body.collect(),
            words: table.names.len(),
            header,
            shared: vec![],
        };
        let _ = write!(text, "**{}**\n\n", super::table::escape(&table.title));
        text.push_str(&super::table::markdown_lines(&table_text));
        text.push('\n');
    }
    text.push_str(NOTE);
    text.push('\n');
    text
}

/// What the marks mean.
pub const NOTE: &str = "Accuracies in percent. Bold: best of its column; ≈: not the best, but its \
95% interval reaches the best. Brackets: 95% Wilson interval of one model; ±: sample standard \
deviation over seeds.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::write::tests::demo;

    #[test]
    fn every_column_has_one_best_and_seeds_are_averaged() {
        let mut rows = demo().rows;
        let tables = tables(&rows, None).unwrap();
        assert_eq!(tables.len(), 1);
        let table = &tables[0];
        assert_eq!(table.header.len(), 4);
        for column in 0..4 {
            let figures = || table.lines.iter().filter_map(|(_, figures)| figures[column].as_ref());
            assert_eq!(figures().filter(|figure| figure.best).count(), 1);
            assert!(figures().all(|figure| figure.spread.count == 1));
        }
        // A second seed of everything.
        let twins: Vec<Row> = rows
            .iter()
            .map(|row| {
                let mut twin = row.clone();
                twin.axes.push(("train.seed".into(), "1".into()));
                twin.robust.correct += 10;
                twin
            })
            .collect();
        rows.iter_mut().for_each(|row| row.axes.push(("train.seed".into(), "0".into())));
        rows.extend(twins);
        let again = super::tables(&rows, None).unwrap();
        assert_eq!(again[0].lines.len(), table.lines.len());
        let (before, after) = (table.lines[0].1[1].as_ref(), again[0].lines[0].1[1].as_ref());
        let shift = after.unwrap().spread.mean - before.unwrap().spread.mean;
        assert!((shift - 0.25).abs() < 1e-9, "{shift}");
        assert!(after.unwrap().text().contains('±'));
    }

    #[test]
    fn an_axis_can_go_across() {
        let rows = demo().rows;
        let axes = ("train.generated".to_owned(), "generate.sampler.steps".to_owned());
        let tables = tables(&rows, Some(&axes)).unwrap();
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].names, ["generated"]);
        assert_eq!(tables[0].header, ["steps 5", "steps 10", "steps 20"]);
        assert!(markdown(&tables).contains("**"));
    }
}
