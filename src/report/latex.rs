//! Tables for papers, with booktabs.

use super::{
    pivot::{Part, Pivot},
    table::Table,
};

/// The leaderboard, the pivoted tables and that of robust overfitting as LaTeX that a paper can
/// `\input`.
pub fn tables(
    leaderboard: &Table,
    pivots: &[Pivot],
    overfit: Option<&Table>,
    (suite, small_scale): (&str, bool),
) -> String {
    let mut text = format!(
        "% Results of suite {}. Needs \\usepackage{{booktabs}}.\n",
        escape(suite).replace('\n', " ")
    );
    for pivot in pivots {
        text.push_str(&pivot_table(pivot, small_scale));
    }
    if let Some(table) = overfit {
        let note = format!("{}. {}", super::overfit::TITLE, super::overfit::NOTE);
        text.push_str(&plain_table(table, &escape(&note), small_scale));
    }
    let shared: Vec<_> = leaderboard.shared.iter().map(|text| escape(text)).collect();
    let caption = format!("Leaderboard ({}). Brackets: 95\\% Wilson interval.", shared.join(", "));
    if !leaderboard.body.is_empty() {
        text.push_str(&plain_table(leaderboard, &caption, small_scale));
    }
    text
}

const SMALL: &str = " Small scale: not comparable with published results.";

/// Lines that a page holds.
const PAGE: usize = 48;

/// A table, or as many as its lines (the first is the header) need.
fn environments(caption: &str, columns: &str, lines: &[Vec<String>]) -> String {
    let (header, body) = (&lines[..1], &lines[1..]);
    if body.len() <= PAGE {
        return environment(caption, columns, lines);
    }
    let mut text = String::new();
    for (at, part) in body.chunks(PAGE).enumerate() {
        let caption = if at == 0 { caption } else { "Continued from the table before." };
        text.push_str(&environment(caption, columns, &[header, part].concat()));
    }
    text
}

/// Points across one column of a paper in two, and across its page.
const COLUMN: (usize, usize) = (240, 500);

/// A table in letters that fit: over one column, else over both.
fn environment(caption: &str, columns: &str, lines: &[Vec<String>]) -> String {
    let width = |at: usize| lines.iter().map(|line| letters(&line[at])).max().unwrap_or(0);
    let letters: usize = (0..columns.len()).map(width).sum();
    // Half a size to the letter, and the space between columns.
    let points = |tenths: usize, between: usize| letters * tenths / 20 + columns.len() * between;
    // Parts of one table need not agree, so each is measured alone.
    let (size, wide) = if points(90, 12) <= COLUMN.0 {
        ("\\small", false)
    } else if points(80, 7) <= COLUMN.0 {
        ("\\footnotesize\\setlength{\\tabcolsep}{3.5pt}", false)
    } else if points(80, 7) <= COLUMN.1 {
        ("\\footnotesize\\setlength{\\tabcolsep}{3.5pt}", true)
    } else {
        ("\\scriptsize\\setlength{\\tabcolsep}{2pt}", true)
    };
    let table = if wide { "table*" } else { "table" };
    let body: String = lines.iter().skip(1).map(|cells| line(cells)).collect();
    let head = line(&lines[0]);
    format!(
        "\\begin{{{table}}}[t]\n  \\centering\n  {size}\n  \\caption{{{caption}}}\n  \
         \\begin{{tabular}}{{@{{}}{columns}@{{}}}}\n    \\toprule\n{head}    \\midrule\n{body}    \
         \\bottomrule\n  \\end{{tabular}}\n\\end{{{table}}}\n\n"
    )
}

/// Letters that a cell shows, about: commands and braces show none.
fn letters(cell: &str) -> usize {
    let plain = cell.replace("\\textbf", "").replace("$^\\approx$", "~");
    plain.chars().filter(|letter| !"{}\\$".contains(*letter)).count()
}

fn line(cells: &[String]) -> String {
    // After a line's end LaTeX takes a bracket for an argument.
    let open = cells.first().is_some_and(|cell| cell.starts_with(['[', '*']));
    let guard = if open { "{}" } else { "" };
    format!("    {guard}{} \\\\\n", cells.join(" & "))
}

fn pivot_table(pivot: &Pivot, small_scale: bool) -> String {
    let parts = pivot.parts();
    let mut header: Vec<String> = pivot.names.iter().map(|name| escape(name)).collect();
    header.extend(parts.iter().map(|part| escape(pivot.heading(*part))));
    let mut lines = vec![header];
    for one in &pivot.lines {
        let mut cells: Vec<String> = one.names.iter().map(|name| escape(name)).collect();
        cells.extend(parts.iter().map(|part| {
            let text = one.text(*part).map_or_else(|| "--".to_owned(), |text| escape(&text));
            let Part::Own(at) = *part else { return text };
            match &one.figures[at] {
                Some(figure) if figure.best => format!("\\textbf{{{text}}}"),
                Some(figure) if figure.tied => format!("{text}$^\\approx$"),
                _ => text,
            }
        }));
        lines.push(cells);
    }
    let caption = format!(
        "{}. {}{}",
        escape(&pivot.title),
        escape(&super::pivot::note(std::slice::from_ref(pivot))),
        if small_scale { SMALL } else { "" }
    );
    let columns = format!("{}{}", "l".repeat(pivot.names.len()), "r".repeat(parts.len()));
    environments(&caption, &columns, &lines)
}

fn plain_table(table: &Table, caption: &str, small_scale: bool) -> String {
    let escaped = |cells: &[String]| cells.iter().map(|cell| escape(cell)).collect::<Vec<_>>();
    let all = std::iter::once(&table.header).chain(&table.body);
    let lines: Vec<_> = all.map(|cells| escaped(cells)).collect();
    let caption = format!("{caption}{}", if small_scale { SMALL } else { "" });
    let figures = table.header.len() - table.words;
    let columns = format!("{}{}", "l".repeat(table.words), "r".repeat(figures));
    environments(&caption, &columns, &lines)
}

/// Text from data, made safe for LaTeX.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                safe.push('\\');
                safe.push(letter);
            }
            '\\' => safe.push_str("\\textbackslash{}"),
            '~' => safe.push_str("\\textasciitilde{}"),
            '^' => safe.push_str("\\textasciicircum{}"),
            '±' => safe.push_str("$\\pm$"),
            '≈' => safe.push_str("$\\approx$"),
            'ε' => safe.push_str("$\\epsilon$"),
            '∞' => safe.push_str("$\\infty$"),
            '–' => safe.push_str("--"),
            '…' => safe.push_str("\\ldots{}"),
            '−' => safe.push_str("$-$"),
            '·' => safe.push_str("$\\cdot$"),
            '\n' | '\r' => safe.push(' '),
            '<' => safe.push_str("\\textless{}"),
            '>' => safe.push_str("\\textgreater{}"),
            '|' => safe.push_str("\\textbar{}"),
            '"' => safe.push_str("''"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{pivot, table, write::tests::demo};

    #[test]
    fn tables_are_balanced_and_escaped() {
        let mut rows = demo().rows;
        rows[0].axes[0].1 = "50%_of_{a}".into();
        let text = tables(
            &table::leaderboard(&rows, table::accuracy),
            &pivot::tables(&rows, &crate::suite::report::Layout::default()).unwrap(),
            super::super::overfit::table(&rows).as_ref(),
            ("a_suite", true),
        );
        assert_eq!(
            text.matches("\\begin{tabular}").count(),
            text.matches("\\end{tabular}").count()
        );
        assert!(text.contains("50\\%\\_of\\_\\{a\\}") && text.contains("\\textbf{"));
        assert!(text.contains("not comparable"));
        assert!(text.contains("\\begin{table*}") || text.contains("\\begin{table}"));
        // Every line of a table has as many cells as its column specification.
        for table in text.split("\\begin{tabular}{@{}").skip(1) {
            let columns = table.split('@').next().unwrap().len();
            for line in table.lines().filter(|line| line.ends_with("\\\\")) {
                assert_eq!(line.replace("\\&", "").matches('&').count() + 1, columns, "{line}");
            }
        }
    }

    #[test]
    fn long_tables_are_parted_and_wide_ones_take_both_columns() {
        let table = |lines: usize, width: usize| Table {
            header: vec!["name".into(), "figure".into()],
            body: vec![vec!["[x]".repeat(width), "1".into()]; lines],
            words: 1,
            shared: vec![],
        };
        let small = plain_table(&table(3, 1), "c", false);
        assert!(
            small.contains("\\begin{table}[t]") && small.contains("\n    {}[x] & 1 "),
            "{small}"
        );
        let wide = plain_table(&table(100, 40), "c", false);
        assert_eq!(wide.matches("\\begin{table*}[t]").count(), 3);
        assert_eq!(wide.matches("Continued").count(), 2);
        assert_eq!(wide.matches("name & figure").count(), 3);
        assert_eq!(wide.matches("& 1 ").count(), 100);
    }
}
