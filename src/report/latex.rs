//! Tables for papers, with booktabs.

use super::{pivot::Pivot, table::Table};

/// The leaderboard and the pivoted tables as LaTeX that a paper can `\input`.
pub fn tables(leaderboard: &Table, pivots: &[Pivot], suite: &str, small_scale: bool) -> String {
    let mut text = format!(
        "% Results of suite {}. Needs \\usepackage{{booktabs}}.\n",
        escape(suite).replace('\n', " ")
    );
    for pivot in pivots {
        text.push_str(&pivot_table(pivot, small_scale));
    }
    text.push_str(&leaderboard_table(leaderboard, small_scale));
    text
}

const SMALL: &str = " Small scale: not comparable with published results.";

fn environment(caption: &str, columns: &str, body: &str) -> String {
    format!(
        "\\begin{{table}}[t]\n  \\centering\n  \\small\n  \\caption{{{caption}}}\n  \
         \\begin{{tabular}}{{@{{}}{columns}@{{}}}}\n    \\toprule\n{body}    \\bottomrule\n  \
         \\end{{tabular}}\n\\end{{table}}\n\n"
    )
}

fn line(cells: &[String]) -> String {
    format!("    {} \\\\\n", cells.join(" & "))
}

fn pivot_table(pivot: &Pivot, small_scale: bool) -> String {
    let mut header: Vec<String> = pivot.names.iter().map(|name| escape(name)).collect();
    header.extend(pivot.header.iter().map(|name| escape(name)));
    let mut body = line(&header);
    body.push_str("    \\midrule\n");
    for (names, figures) in &pivot.lines {
        let mut cells: Vec<String> = names.iter().map(|name| escape(name)).collect();
        cells.extend(figures.iter().map(|figure| match figure {
            None => "--".to_owned(),
            Some(figure) => {
                let text = escape(&figure.text());
                match (figure.best, figure.tied) {
                    (true, _) => format!("\\textbf{{{text}}}"),
                    (_, true) => format!("{text}$^\\approx$"),
                    _ => text,
                }
            }
        }));
        body.push_str(&line(&cells));
    }
    let caption = format!(
        "{}. Accuracies in percent; brackets: 95\\% Wilson interval, $\\pm$: standard deviation \
         over seeds; bold: best of its column, $\\approx$: its interval reaches the best.{}",
        escape(&pivot.title),
        if small_scale { SMALL } else { "" }
    );
    let columns = format!("{}{}", "l".repeat(pivot.names.len()), "r".repeat(pivot.header.len()));
    environment(&caption, &columns, &body)
}

fn leaderboard_table(table: &Table, small_scale: bool) -> String {
    let escaped = |cells: &[String]| cells.iter().map(|cell| escape(cell)).collect::<Vec<_>>();
    let mut body = line(&escaped(&table.header));
    body.push_str("    \\midrule\n");
    table.body.iter().for_each(|cells| body.push_str(&line(&escaped(cells))));
    let shared: Vec<_> = table.shared.iter().map(|text| escape(text)).collect();
    let caption = format!(
        "Leaderboard ({}). Brackets: 95\\% Wilson interval.{}",
        shared.join(", "),
        if small_scale { SMALL } else { "" }
    );
    let figures = table.header.len() - table.words;
    environment(&caption, &format!("{}{}", "l".repeat(table.words), "r".repeat(figures)), &body)
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
            &pivot::tables(&rows, None).unwrap(),
            "a_suite",
            true,
        );
        assert_eq!(
            text.matches("\\begin{tabular}").count(),
            text.matches("\\end{tabular}").count()
        );
        assert!(text.contains("50\\%\\_of\\_\\{a\\}") && text.contains("\\textbf{"));
        assert!(text.contains("not comparable"));
        // Every line of a table has as many cells as its column specification.
        for table in text.split("\\begin{tabular}{@{}").skip(1) {
            let columns = table.split('@').next().unwrap().len();
            for line in table.lines().filter(|line| line.ends_with("\\\\")) {
                assert_eq!(line.replace("\\&", "").matches('&').count() + 1, columns, "{line}");
            }
        }
    }
}
