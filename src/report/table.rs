//! Leaderboards as text: for the terminal within its width, and in Markdown.
//!
//! An accuracy never stands alone: its 95% Wilson interval and the number of examples go with it.

use crate::{
    leaderboard::{
        Row,
        row::{Reference, axes, is_seed, natural, short_axis},
    },
    units::Tally,
};
use std::fmt::Write as _;

use super::pivot::signed;

/// `31.2 [28.4, 34.1]`: percent and 95% Wilson interval.
pub fn accuracy(tally: Tally) -> String {
    let (low, high) = tally.interval();
    format!("{:.1} [{low:.1}, {high:.1}]", tally.percent())
}

/// `31.2±2.9`: percent and half the width of its interval, where room is short.
pub fn accuracy_brief(tally: Tally) -> String {
    let (low, high) = tally.interval();
    format!("{:.1}±{:.1}", tally.percent(), (high - low) / 2.0)
}

/// Whether an axis is the threat model, which has a column of its own.
pub fn is_threat(axis: &str) -> bool {
    axis.split('.').any(|part| matches!(part, "threat" | "threats"))
}

/// The axes that differ among `rows`, threat models aside.
pub fn varying(rows: &[Row]) -> Vec<String> {
    let differs = |axis: &String| rows.iter().any(|row| row.axis(axis) != rows[0].axis(axis));
    axes(rows).into_iter().filter(|axis| !is_threat(axis) && differs(axis)).collect()
}

/// `generated 1000, steps 20`: what tells a row from the others; the cell's label where nothing
/// does.
pub fn name(row: &Row, varying: &[String]) -> String {
    let words: Vec<String> = varying
        .iter()
        .filter_map(|axis| {
            let value = row.axis(axis)?;
            Some(format!("{} {}", short_axis(axis, varying), value_text(value)))
        })
        .collect();
    if words.is_empty() { row.cell.clone() } else { words.join(", ") }
}

/// An axis value for people: long counts get K and M.
pub fn value_text(value: &str) -> String {
    match value.parse::<u64>() {
        Ok(count) if count >= 10_000 => super::plot::brief(count as f64),
        _ => value.to_owned(),
    }
}

/// Rows by data set and threat model, best robust accuracy first.
pub fn ranked(rows: &[Row]) -> Vec<&Row> {
    let mut ranked: Vec<&Row> = rows.iter().collect();
    ranked.sort_by(|a, b| {
        let threat = |row: &Row| (row.dataset.clone(), row.threat.norm as u8);
        threat(a)
            .cmp(&threat(b))
            .then(a.threat.epsilon.value().total_cmp(&b.threat.epsilon.value()))
            .then(b.robust.percent().total_cmp(&a.robust.percent()))
            .then(b.clean.percent().total_cmp(&a.clean.percent()))
            .then_with(|| natural(&a.cell, &b.cell))
    });
    ranked
}

/// A header and its lines, before any layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Column headings.
    pub header: Vec<String>,
    /// Lines, each as long as the header.
    pub body: Vec<Vec<String>>,
    /// How many of the first columns are words, to be set flush left.
    pub words: usize,
    /// What all rows share, said once.
    pub shared: Vec<String>,
}

/// A heading and how a row answers to it.
type Column<'a> = (&'a str, Box<dyn Fn(&Row) -> String + 'a>);

/// The leaderboard of `rows`, best first, with accuracies in the words of `figure`.
pub fn leaderboard(rows: &[Row], figure: fn(Tally) -> String) -> Table {
    let mut table = Table { header: vec![], body: vec![], words: 0, shared: vec![] };
    if rows.is_empty() {
        return table;
    }
    let shown = ranked(rows);
    let varying = varying(rows);
    let optional: Vec<Column> = vec![
        ("dataset", Box::new(|row: &Row| row.dataset.clone())),
        ("threat", Box::new(|row: &Row| row.threat.to_string())),
        ("network", Box::new(|row: &Row| row.architecture.clone())),
        ("loss", Box::new(|row: &Row| row.loss.clone())),
        ("checkpoint", Box::new(|row: &Row| row.checkpoint.clone())),
        ("attacks", Box::new(|row: &Row| row.evaluation.clone())),
    ];
    let mut columns: Vec<Column> = Vec::new();
    if varying.is_empty() {
        columns.push(("cell", Box::new(|row: &Row| row.cell.clone())));
    }
    for axis in &varying {
        let heading = short_axis(axis, &varying);
        columns.push((
            heading,
            Box::new(move |row: &Row| row.axis(axis).map_or("–".into(), value_text)),
        ));
    }
    for (heading, text) in optional {
        if rows.iter().any(|row| text(row) != text(&rows[0])) {
            let spoken = columns.iter().any(|(axis, _)| axis.ends_with(heading));
            if !spoken {
                columns.push((heading, text));
            }
        } else {
            table.shared.push(format!("{heading} {}", text(&rows[0])));
        }
    }
    table.words = columns.len();
    table.header = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    table.header.extend(["clean %", "robust %", "n"].map(str::to_owned));
    let more = more(rows);
    table.header.extend(more.iter().map(|(heading, _)| (*heading).to_owned()));
    for row in shown {
        let mut line: Vec<String> = columns.iter().map(|(_, text)| text(row)).collect();
        line.extend([figure(row.clean), figure(row.robust), row.robust.total.to_string()]);
        line.extend(more.iter().map(|(_, text)| text(row)));
        table.body.push(line);
    }
    table
}

/// Columns that only some suites have: FID, the published figure and the difference from it.
fn more(rows: &[Row]) -> Vec<Column<'_>> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    let mut columns: Vec<Column> = Vec::new();
    if rows.iter().any(|row| row.fid.is_some()) {
        let fid = move |row: &Row| or_dash(row.fid.map(|fid| format!("{fid:.2}")));
        columns.push(("FID", Box::new(fid)));
    }
    if rows.iter().any(|row| published(row).is_some()) {
        let theirs = move |row: &Row| {
            or_dash(published(row).map(|(one, value)| format!("{value:.2}{}", one.doubt())))
        };
        let gap = move |row: &Row| {
            or_dash(published(row).map(|(_, value)| signed(row.robust.percent() - value)))
        };
        columns.push((PUBLISHED, Box::new(theirs)));
        columns.push(("diff.", Box::new(gap)));
    }
    columns
}

fn published(row: &Row) -> Option<(&Reference, f64)> {
    let reference = row.reference.as_ref()?;
    Some((reference, reference.robust?))
}

/// The heading of published robust accuracies.
const PUBLISHED: &str = "published %";

/// The leaderboard for a terminal of `width` columns (80 where unknown). Intervals shrink to `±`
/// and words are cut before a line is longer than that.
pub fn terminal(rows: &[Row], width: usize) -> String {
    if rows.is_empty() {
        return "no results yet\n".to_owned();
    }
    let mut table = leaderboard(rows, accuracy);
    let too_wide = |table: &Table| {
        let least = widths(table).into_iter().enumerate();
        let least = least.map(|(at, w)| if at < table.words { w.min(8) } else { w });
        least.map(|w| w + 2).sum::<usize>() > width + 2
    };
    if widths(&table).iter().map(|w| w + 2).sum::<usize>() > width + 2 {
        table = leaderboard(rows, accuracy_brief);
    }
    // What no longer fits stands in the report's files.
    for heading in ["n", PUBLISHED, "FID", "diff."] {
        if too_wide(&table) {
            drop_column(&mut table, heading);
        }
    }
    let widths = squeezed(&table, width);
    let mut text = String::new();
    for shared in wrapped(&table.shared, width) {
        text.push_str(&shared);
        text.push('\n');
    }
    text.push('\n');
    push_line(&mut text, &table.header, &widths, table.words);
    text.push_str(&"─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
    text.push('\n');
    for line in &table.body {
        push_line(&mut text, line, &widths, table.words);
    }
    text.push_str("Brackets and ±: 95% Wilson interval.");
    text.push_str(doubtful(&table));
    text.push('\n');
    text
}

/// What a `?` in the table means, if one is there.
fn doubtful(table: &Table) -> &'static str {
    let any = table.body.iter().flatten().any(|cell| cell.ends_with('?'));
    if any { " ?: not checked against its source." } else { "" }
}

fn drop_column(table: &mut Table, heading: &str) {
    let found = (table.words..table.header.len()).find(|at| table.header[*at] == heading);
    if let Some(at) = found {
        table.header.remove(at);
        table.body.iter_mut().for_each(|line| drop(line.remove(at)));
    }
}

fn widths(table: &Table) -> Vec<usize> {
    (0..table.header.len())
        .map(|at| {
            let lines = std::iter::once(&table.header).chain(&table.body);
            lines.map(|line| line[at].chars().count()).max().unwrap_or(0)
        })
        .collect()
}

/// Column widths that fit: the widest words give way first, figures never.
fn squeezed(table: &Table, width: usize) -> Vec<usize> {
    let mut widths = widths(table);
    while widths.iter().sum::<usize>() + 2 * (widths.len() - 1) > width {
        let Some(widest) = (0..table.words).max_by_key(|at| widths[*at]) else { break };
        if widths[widest] <= 4 {
            break;
        }
        widths[widest] -= 1;
    }
    widths
}

fn push_line(text: &mut String, line: &[String], widths: &[usize], words: usize) {
    let cells: Vec<String> = line
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(at, (cell, width))| {
            let count = cell.chars().count();
            let cell = if count > *width {
                cell.chars().take(width - 1).chain(['…']).collect()
            } else {
                cell.clone()
            };
            if at < words { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        })
        .collect();
    text.push_str(cells.join("  ").trim_end());
    text.push('\n');
}

/// `parts` joined by commas into lines of at most `width`.
fn wrapped(parts: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + part.chars().count() + 2 <= width => {
                line.push_str(", ");
                line.push_str(part);
            }
            _ => lines.push(part.clone()),
        }
    }
    lines
}

/// The leaderboard in Markdown.
pub fn markdown(rows: &[Row]) -> String {
    let table = leaderboard(rows, accuracy);
    if table.body.is_empty() {
        return "No results yet.\n".to_owned();
    }
    let mut text = String::new();
    if !table.shared.is_empty() {
        let _ = write!(text, "All rows: {}.\n\n", table.shared.join(", "));
    }
    text.push_str(&markdown_lines(&table));
    let _ = writeln!(
        text,
        "\nBrackets: 95% Wilson interval; n: evaluated examples.{}",
        doubtful(&table)
    );
    text
}

/// Header, rule and body of a Markdown table.
pub fn markdown_lines(table: &Table) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| escape(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<_> =
        (0..table.header.len()).map(|at| if at < table.words { ":--" } else { "--:" }).collect();
    let mut text = line(&table.header);
    let _ = writeln!(text, "|{}|", rule.join("|"));
    table.body.iter().for_each(|cells| text.push_str(&line(cells)));
    text
}

/// Text from data, made safe for a Markdown table.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '|' | '`' | '<' | '>' | '\\' => {
                safe.push('\\');
                safe.push(letter);
            }
            '\n' | '\r' => safe.push(' '),
            other => safe.push(other),
        }
    }
    safe
}

/// Whether `rows` hold repetitions: rows that differ in nothing but a seed.
pub fn repeated(rows: &[Row]) -> bool {
    varying(rows).iter().any(|axis| is_seed(axis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::write::tests::demo;

    #[test]
    fn terminal_tables_fit_and_never_show_a_bare_percent() {
        let mut rows = demo().rows;
        for width in [80, 100, 60] {
            let text = terminal(&rows, width);
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        rows[0].axes[0].1 = "a-very-long-value-that-nobody-would-choose-but-somebody-will".into();
        let text = terminal(&rows, 80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains('…'));
        for row in &rows {
            assert!(
                text.contains(&accuracy(row.robust)) || text.contains(&accuracy_brief(row.robust))
            );
        }
        assert_eq!(terminal(&[], 80), "no results yet\n");
    }

    #[test]
    fn best_comes_first_within_each_threat() {
        let rows = demo().rows;
        let shown = ranked(&rows);
        for pair in shown.windows(2).filter(|pair| pair[0].threat == pair[1].threat) {
            assert!(pair[0].robust.percent() >= pair[1].robust.percent());
        }
    }

    #[test]
    fn markdown_escapes_what_comes_from_data() {
        let mut rows = demo().rows;
        rows[0].axes[0].1 = "a|b<script>`x`".into();
        let text = markdown(&rows);
        assert!(text.contains("a\\|b\\<script\\>\\`x\\`"), "{text}");
        assert!(text.contains('[') && !text.contains("<script>"));
    }
}
