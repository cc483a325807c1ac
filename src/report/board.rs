//! RobustBench's leaderboard for the terminal, in Markdown, LaTeX, CSV and HTML.

use std::fmt::Write as _;

use minijinja::{Environment, context};

use super::{latex, table::escape};
use crate::{
    error::{Error, Result},
    leaderboard::{
        board::{Board, Line},
        frame::safe_cell,
    },
};

/// RobustBench's headings.
const HEADER: [&str; 9] = [
    "Rank",
    "Method",
    "Standard accuracy",
    "AutoAttack robust accuracy",
    "Best known robust accuracy",
    "AA eval. potentially unreliable",
    "Extra data",
    "Architecture",
    "Venue",
];

fn cells(line: &Line) -> [String; 9] {
    let tick = |is: bool| if is { "yes" } else { "no" }.to_owned();
    [
        line.rank.map_or_else(|| "–".to_owned(), |rank| rank.to_string()),
        line.method.clone(),
        format!("{:.2}", line.clean),
        line.autoattack.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.2}")),
        format!("{:.2}", line.robust),
        line.unreliable.map_or_else(|| "Unknown".to_owned(), tick),
        tick(line.extra_data),
        line.architecture.clone(),
        line.venue.clone(),
    ]
}

/// The first `top` published lines, all of ours and, with each, its neighbours.
pub fn shown(board: &Board, top: usize) -> Vec<&Line> {
    let near = |at: usize| {
        let from = at.saturating_sub(1);
        board.lines[from..(at + 2).min(board.lines.len())].iter().any(|line| line.ours)
    };
    let lines = board.lines.iter().enumerate();
    lines.filter(|(at, _)| *at < top || near(*at)).map(|(_, line)| line).collect()
}

/// The board within 80 columns.
pub fn terminal(board: &Board, top: usize) -> String {
    let mut text = format!("{}, {}\n", board.dataset, board.threat);
    let widths = [4, 22, 5, 5, 5, 3, 3, 13, 11];
    let heads = ["rank", "method", "clean", "AA", "best", "AA?", "ext", "architecture", "venue"];
    push(&mut text, &heads.map(str::to_owned), &widths, ' ');
    text.push_str(&"─".repeat(80));
    text.push('\n');
    let lines = shown(board, top);
    let mut rank = 0;
    for line in &lines {
        if line.rank.is_some_and(|next| next > rank + 1) {
            text.push_str("   …\n");
        }
        rank = line.rank.unwrap_or(rank);
        let mut cells = cells(line);
        cells[5] = line.unreliable.map_or("?", |is| if is { "yes" } else { "no" }).to_owned();
        cells[7] = cells[7].replace("WideResNet", "WRN").replace("ResNet", "RN");
        push(&mut text, &cells, &widths, if line.ours { '▸' } else { ' ' });
    }
    let hidden = board.lines.len() - lines.len();
    if hidden > 0 {
        let _ = writeln!(text, "{hidden} more published models: --top N, or --out DIR for all");
    }
    for line in lines.iter().filter(|line| line.ours) {
        for part in wrapped(&format!("▸ {}: {}", line.method, line.footnote), 80) {
            let _ = writeln!(text, "{part}");
        }
    }
    text
}

fn push(text: &mut String, cells: &[String; 9], widths: &[usize; 9], mark: char) {
    let mut line = String::from(mark);
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let cell = if cell.chars().count() > *width {
            cell.chars().take(width - 1).chain(['…']).collect()
        } else {
            cell.clone()
        };
        let figure = at == 0 || (2..5).contains(&at);
        let _ =
            if figure { write!(line, "{cell:>width$} ") } else { write!(line, "{cell:<width$} ") };
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// `text` broken at spaces; a word longer than `width` is cut.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let word: String = word.chars().take(width).collect();
        let last = lines.last_mut().expect("never empty");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word);
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(&word);
        }
    }
    lines
}

/// The boards in Markdown, whole.
pub fn markdown(boards: &[Board]) -> String {
    let mut text = String::new();
    for board in boards {
        let _ = write!(
            text,
            "## {}, {}\n\n| {} |\n|--:|:--|--:|--:|--:|:--|:--|:--|:--|\n",
            escape(&board.dataset),
            board.threat,
            HEADER.join(" | ")
        );
        for line in &board.lines {
            let mut cells = cells(line).map(|cell| escape(&cell));
            if line.ours {
                cells[1] = format!("**ours: {}**<br>{}", cells[1], escape(&line.footnote));
            } else if line.source.starts_with("http") {
                cells[1] = format!("[{}]({})", cells[1], line.source.replace(['(', ')', ' '], ""));
            }
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text.push('\n');
    }
    text.push_str(NOTE);
    text.push('\n');
    text
}

/// What a reader must know.
const NOTE: &str = "Order: best known robust accuracy, descending, as RobustBench ranks. Published \
figures: RobustBench's entries of March 2025 and the papers' own tables. Results of gauntlet are \
marked as ours; those on few images or with a shortened cascade take no rank: not comparable.";

/// The boards as LaTeX, whole, with booktabs and longtable.
pub fn latex(boards: &[Board]) -> String {
    let mut text = String::from("% Needs \\usepackage{booktabs,longtable}.\n");
    for board in boards {
        let head = HEADER.map(latex::escape).join(" & ");
        let _ = write!(
            text,
            "{{\\small\n\\begin{{longtable}}{{@{{}}rp{{4.2cm}}rrrllp{{2.6cm}}p{{2cm}}@{{}}}}\n  \
             \\caption{{{}, {}}}\\\\\n  \\toprule\n  {head} \\\\\n  \\midrule\n  \\endhead\n",
            latex::escape(&board.dataset),
            latex::escape(&board.threat.to_string())
        );
        for line in &board.lines {
            let mut cells = cells(line).map(|cell| latex::escape(&cell));
            if line.ours {
                let note = latex::escape(&line.footnote);
                cells[1] = format!("\\textbf{{ours: {}}} ({note})", cells[1]);
            }
            let _ = writeln!(text, "  {} \\\\", cells.join(" & "));
        }
        text.push_str("  \\bottomrule\n\\end{longtable}}\n\n");
    }
    text
}

/// The boards as CSV: data set and threat model, then RobustBench's columns, `ours` and notes.
pub fn csv(boards: &[Board]) -> String {
    let quoted = |cell: &str| format!("\"{}\"", safe_cell(cell).replace('"', "\"\""));
    let head = HEADER.map(quoted).join(",");
    let mut text = format!("\"Data set\",\"Threat model\",{head},\"Ours\",\"Footnote\"\n");
    for board in boards {
        for line in &board.lines {
            let cells = cells(line).map(|cell| quoted(&cell)).join(",");
            let _ = writeln!(
                text,
                "{},{},{cells},{},{}",
                quoted(&board.dataset),
                quoted(&board.threat.to_string()),
                line.ours,
                quoted(&line.footnote)
            );
        }
    }
    text
}

/// The boards as one HTML file that needs nothing else.
///
/// # Errors
/// If the template fails, which would be our mistake.
pub fn html(boards: &[Board]) -> Result<String> {
    let failed = |error: minijinja::Error| Error::input(format!("the template: {error:#}"));
    let tables: Vec<_> = boards
        .iter()
        .map(|board| {
            let lines: Vec<_> = board
                .lines
                .iter()
                .map(|line| {
                    let link = line.source.starts_with("http").then_some(&line.source);
                    serde_json::json!({
                        "cells": cells(line), "ours": line.ours, "title": line.title,
                        "footnote": line.footnote, "link": link,
                        "comparable": line.rank.is_some(),
                    })
                })
                .collect();
            let title = format!("{}, {}", board.dataset, board.threat);
            serde_json::json!({ "title": title, "lines": lines })
        })
        .collect();
    let page = minijinja::value::Serde(serde_json::json!({
        "tables": tables, "header": HEADER, "note": NOTE,
    }));
    let mut environment = Environment::new();
    environment.add_template("board.html", include_str!("board.html")).map_err(failed)?;
    let template = environment.get_template("board.html").map_err(failed)?;
    template.render(context! { page, style => include_str!("style.css") }).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{leaderboard::board::boards, report::write::tests::demo};

    #[test]
    fn boards_fit_the_terminal_and_escape_our_names() {
        let mut rows = demo().rows;
        rows[0].cell = "a|b_<script>alert(1)</script>".into();
        let boards = boards(&rows);
        assert_eq!(boards.len(), 2);
        for board in &boards {
            let text = terminal(board, 10);
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.contains('▸') && text.contains("not comparable"), "{text}");
        }
        let page = html(&boards).unwrap();
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
        assert!(!page.contains("src=\"http") && page.contains("default-src 'none'"));
        assert!(markdown(&boards).contains("a\\|b"));
        let tex = latex(&boards);
        assert!(
            tex.contains("b\\_") && tex.matches("\\begin").count() == tex.matches("\\end{").count()
        );
        let lines: usize = boards.iter().map(|board| board.lines.len()).sum();
        assert_eq!(csv(&boards).lines().count(), 1 + lines);
    }
}
