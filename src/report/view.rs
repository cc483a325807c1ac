//! How rows become pivoted tables: what stands down, what across, which figure is the best.

use crate::{
    error::Result,
    leaderboard::{
        Row,
        frame::{Group, aggregate},
        row::{Reference, is_seed, natural, short_axis},
    },
    suite::report::{Layout, Quantity},
    threat::ThreatModel,
};

use super::{
    pivot::{Figure, Line, Pivot},
    table::{value_text, varying},
};

/// The pivoted tables of `rows` as `layout` has them: with `columns` one table for each data set,
/// threat model and accuracy, without one table with all accuracies under each threat model.
///
/// # Errors
/// If the aggregation fails.
pub fn tables(rows: &[Row], layout: &Layout) -> Result<Vec<Pivot>> {
    let groups = aggregate(rows)?;
    let varying = varying(rows);
    let mut names: Vec<String> =
        layout.rows.iter().filter(|name| varying.contains(name)).cloned().collect();
    let others = varying.into_iter().filter(|name| !is_seed(name) && !layout.rows.contains(name));
    names.extend(others);
    let filters = rows.iter().any(|row| row.fid.is_some() && !row.fid_published);
    let view = View { rows, names, values: &layout.values, filters };
    let mut tables = match &layout.columns {
        Some(across) if view.names.contains(across) => view.crossed(&groups, across),
        _ => view.by_threat(&groups),
    };
    tables.iter_mut().for_each(mark);
    Ok(tables)
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

/// How groups are looked at.
struct View<'a> {
    rows: &'a [Row],
    /// The axes that name a setting.
    names: Vec<String>,
    values: &'a [Quantity],
    /// Whether FID is by random filters.
    filters: bool,
}

impl View<'_> {
    fn headings(&self, names: &[String]) -> Vec<String> {
        names.iter().map(|name| short_axis(name, &self.names).to_owned()).collect()
    }

    fn figure(&self, group: &Group, quantity: Quantity) -> Figure {
        let reference = group.members.iter().find_map(|at| self.rows[*at].reference.as_ref());
        let (spread, pooled, published) = match quantity {
            Quantity::Clean => (group.clean, group.clean_pooled, reference.and_then(|r| r.clean)),
            Quantity::Robust => {
                (group.robust, group.robust_pooled, reference.and_then(|r| r.robust))
            }
        };
        let published = published.zip(reference.map(Reference::doubt));
        Figure { spread, pooled, published, best: false, tied: false }
    }

    fn line(&self, names: Vec<String>, figures: Vec<Option<Figure>>, here: &[&Group]) -> Line {
        let members = || here.iter().flat_map(|group| &group.members).map(|at| &self.rows[*at]);
        let published = |row: &Row| {
            let reference = row.reference.as_ref()?;
            Some(format!("{}{}", reference.fid?, reference.doubt()))
        };
        let fid = members().find_map(|row| row.fid);
        Line { names, figures, fid, published_fid: members().find_map(published) }
    }

    fn by_threat(&self, groups: &[Group]) -> Vec<Pivot> {
        let both = [Quantity::Clean, Quantity::Robust];
        let values = if self.values.is_empty() { &both } else { self.values };
        distinct(groups.iter().map(|group| group.dataset.clone()))
            .into_iter()
            .map(|dataset| {
                let here: Vec<&Group> = groups.iter().filter(|g| g.dataset == dataset).collect();
                let threats = distinct(here.iter().map(|group| group.threat));
                let columns: Vec<_> = threats
                    .iter()
                    .flat_map(|threat| values.iter().map(|value| (*threat, *value)))
                    .collect();
                let mut lines: Vec<Line> = Vec::new();
                for key in distinct(here.iter().map(|group| setting(group, &self.names))) {
                    let own: Vec<&Group> =
                        here.iter().copied().filter(|g| setting(g, &self.names) == key).collect();
                    let figures = columns.iter().map(|(threat, value)| {
                        own.iter().find(|g| g.threat == *threat).map(|g| self.figure(g, *value))
                    });
                    lines.push(self.line(key, figures.collect(), &own));
                }
                lines.sort_by(|a, b| order(&a.names, &b.names));
                let header =
                    columns.iter().map(|(threat, value)| format!("{}, {threat}", word(*value)));
                let header = header.collect();
                let header = once(&columns, header, &mut lines);
                Pivot {
                    title: dataset,
                    names: self.headings(&self.names),
                    header,
                    lines,
                    filters: self.filters,
                }
            })
            .collect()
    }

    fn crossed(&self, groups: &[Group], across: &str) -> Vec<Pivot> {
        let value = |group: &Group| {
            group.axes.iter().find(|(axis, _)| axis == across).map(|(_, value)| value.clone())
        };
        let down: Vec<String> = self.names.iter().filter(|name| *name != across).cloned().collect();
        let robust = [Quantity::Robust];
        let values = if self.values.is_empty() { &robust } else { self.values };
        let mut tables = Vec::new();
        for (dataset, threat) in distinct(groups.iter().map(|g| (g.dataset.clone(), g.threat))) {
            let here: Vec<&Group> =
                groups.iter().filter(|g| g.dataset == dataset && g.threat == threat).collect();
            let mut columns = distinct(here.iter().filter_map(|group| value(group)));
            columns.sort_by(|a, b| natural(a, b));
            for quantity in values {
                let line = |key: Vec<String>| {
                    let own: Vec<&Group> =
                        here.iter().copied().filter(|g| setting(g, &down) == key).collect();
                    let found =
                        |column: &String| own.iter().find(|g| value(g).as_ref() == Some(column));
                    let figures = columns
                        .iter()
                        .map(|c| found(c).map(|g| self.figure(g, *quantity)))
                        .collect();
                    // FID of one of several columns would say nothing of the line.
                    let alone = if own.len() == 1 { own.as_slice() } else { &[] };
                    self.line(key, figures, alone)
                };
                let keys = distinct(here.iter().map(|group| setting(group, &down)));
                let mut lines: Vec<Line> = keys.into_iter().map(line).collect();
                lines.sort_by(|a, b| order(&a.names, &b.names));
                let short = short_axis(across, &self.names);
                tables.push(Pivot {
                    title: format!("{dataset}, {} accuracy, {threat}", word(*quantity)),
                    names: self.headings(&down),
                    header: columns.iter().map(|c| format!("{short} {}", value_text(c))).collect(),
                    lines,
                    filters: self.filters,
                });
            }
        }
        tables
    }
}

/// Without an attack the threat model does not matter: where the clean figures of every line agree
/// they stand once. Gives the headings that remain.
fn once(
    columns: &[(ThreatModel, Quantity)],
    header: Vec<String>,
    lines: &mut [Line],
) -> Vec<String> {
    let clean: Vec<usize> =
        (0..columns.len()).filter(|at| columns[*at].1 == Quantity::Clean).collect();
    let agree = |line: &Line| {
        let mut known = clean.iter().filter_map(|at| line.figures[*at].as_ref());
        let first = known.next();
        known.all(|one| first.is_some_and(|f| (f.spread, f.pooled) == (one.spread, one.pooled)))
    };
    if clean.len() < 2 || !lines.iter().all(agree) {
        return header;
    }
    let stays = |at: &usize| *at == clean[0] || !clean.contains(at);
    for line in lines {
        let found = || clean.iter().filter_map(|at| line.figures[*at].as_ref());
        let published = found().find_map(|one| one.published);
        let shared = found().next().map(|one| Figure { published, ..one.clone() });
        let all = std::mem::take(&mut line.figures).into_iter().enumerate();
        line.figures = all.filter(|(at, _)| stays(at)).map(|(_, figure)| figure).collect();
        // Those before it are of robust accuracy.
        line.figures[clean[0]] = shared;
    }
    let all = header.into_iter().enumerate().filter(|(at, _)| stays(at));
    all.map(|(at, name)| if at == clean[0] { "clean".to_owned() } else { name }).collect()
}

fn word(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Clean => "clean",
        Quantity::Robust => "robust",
    }
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

fn order(a: &[String], b: &[String]) -> std::cmp::Ordering {
    let pairs = a.iter().zip(b).map(|(x, y)| natural(x, y));
    pairs.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}

/// Marks the best figure of each column and those whose interval reaches it.
fn mark(table: &mut Pivot) {
    for column in 0..table.header.len() {
        let means = table.lines.iter().filter_map(|line| line.figures[column].as_ref());
        let best = means.map(|figure| figure.spread.mean).fold(f64::NEG_INFINITY, f64::max);
        for figure in table.lines.iter_mut().filter_map(|line| line.figures[column].as_mut()) {
            figure.best = figure.spread.mean >= best;
            figure.tied = !figure.best && figure.pooled.interval().1 >= best;
        }
    }
}
