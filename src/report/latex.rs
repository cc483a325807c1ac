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
    text.push_str(&plain_table(leaderboard, &caption, small_scale));
    text
}

const SMALL: &str = " Small scale: not comparable with published results.";

fn environment(caption: &str, columns: &str, body: &str) -> String {
    // Many columns stand closer, in smaller letters.
    let size =
        if columns.len() > 6 { "\\footnotesize\\setlength{\\tabcolsep}{3.5pt}" } else { "\\small" };
    format!(
        "\\begin{{table}}[t]\n  \\centering\n  {size}\n  \\caption{{{caption}}}\n  \
         \\begin{{tabular}}{{@{{}}{columns}@{{}}}}\n    \\toprule\n{body}    \\bottomrule\n  \
         \\end{{tabular}}\n\\end{{table}}\n\n"
    )
}

fn line(cells: &[String]) -> String {
    format!("    {} \\\\\n", cells.join(" & "))
}

fn pivot_table(pivot: &Pivot, small_scale: bool) -> String {
    let parts = pivot.parts();
    let mut header: Vec<String> = pivot.names.iter().map(|name| escape(name)).collect();
    header.extend(parts.iter().map(|part| escape(pivot.heading(*part))));
    let mut body = line(&header);
    body.push_str("    \\midrule\n");
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
        body.push_str(&line(&cells));
    }
    let caption = format!(
        "{}. {}{}",
        escape(&pivot.title),
        escape(&super::pivot::note(std::slice::from_ref(pivot))),
        if small_scale { SMALL } else { "" }
    );
    let columns = format!("{}{}", "l".repeat(pivot.names.len()), "r".repeat(parts.len()));
    environment(&caption, &columns, &body)
}

fn plain_table(table: &Table, caption: &str, small_scale: bool) -> String {
    let escaped = |cells: &[String]| cells.iter().map(|cell| escape(cell)).collect::<Vec<_>>();
    let mut body = line(&escaped(&table.header));
    body.push_str("    \\midrule\n");
    table.body.iter().for_each(|cells| body.push_str(&line(&escaped(cells))));
    let caption = format!("{caption}{}", if small_scale { SMALL } else { "" });
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
        // Every line of a table has as many cells as its column specification.
        for table in text.split("\\begin{tabular}{@{}").skip(1) {
            let columns = table.split('@').next().unwrap().len();
            for line in table.lines().filter(|line| line.ends_with("\\\\")) {
                assert_eq!(line.replace("\\&", "").matches('&').count() + 1, columns, "{line}");
            }
        }
    }
}
