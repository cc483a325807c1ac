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

/// The columns of a board's table: the place among RobustBench's, and the heading. Where nothing
/// attacks there is neither AutoAttack's figure nor a doubt about it.
fn columns(board: &Board) -> Vec<(usize, &'static str)> {
    let all = HEADER.iter().copied().enumerate();
    if board.threat.is_some() {
        return all.collect();
    }
    let word = |(at, word)| (at, if at == 4 { "Accuracy under corruptions" } else { word });
    all.filter(|(at, _)| ![3, 5].contains(at)).map(word).collect()
}

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
    let mut text = format!("{}\n", board.title());
    let attacked = board.threat.is_some();
    // Columns of width 0 are left out.
    let widths =
        if attacked { [4, 22, 5, 5, 5, 3, 3, 13, 11] } else { [4, 32, 5, 0, 5, 0, 3, 13, 11] };
    let best = if attacked { "best" } else { "corr." };
    let heads = ["rank", "method", "clean", "AA", best, "AA?", "ext", "architecture", "venue"];
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
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate().filter(|one| *one.1.1 > 0) {
        // What comes from files must not steer the terminal.
        let cell = cell.replace(char::is_control, " ");
        let cell = if cell.chars().count() > *width {
            cell.chars().take(width - 1).chain(['…']).collect()
        } else {
            cell
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
        let word: String = word.chars().filter(|c| !c.is_control()).take(width).collect();
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
        let columns = columns(board);
        let heads: Vec<_> = columns.iter().map(|(_, head)| *head).collect();
        let rules: String =
            columns.iter().map(|(at, _)| ["|:--", "|--:"][is_figure(*at)]).collect();
        let title = escape(&board.title());
        let _ = write!(text, "## {title}\n\n| {} |\n{rules}|\n", heads.join(" | "));
        for line in &board.lines {
            let all = cells(line);
            let mut cells: Vec<_> = columns.iter().map(|(at, _)| escape(&all[*at])).collect();
            if line.ours {
                cells[1] = format!("**ours: {}**<br>{}", cells[1], escape(&line.footnote));
            } else if line.source.starts_with("http") {
                cells[1] = format!("[{}]({})", cells[1], line.source.replace(['(', ')', ' '], ""));
            }
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text.push('\n');
    }
    text.push_str(note(boards));
    text.push('\n');
    text
}

/// What a reader must know.
const NOTE: &str = "Order: best known robust accuracy, descending, as RobustBench ranks. Published \
figures: RobustBench's entries of March 2025 and the papers' own tables. Results of gauntlet are \
marked as ours; those on few images or with a shortened cascade take no rank: not comparable.";

/// What a reader of common corruptions must know.
const CORRUPTED: &str = "Order: mean accuracy under common corruptions, descending. Published \
figures: RobustBench's entries, read from their files.";

fn note(boards: &[Board]) -> &'static str {
    if boards.iter().all(|board| board.threat.is_none()) { CORRUPTED } else { NOTE }
}

/// Whether a column holds figures, which stand to the right.
fn is_figure(at: usize) -> usize {
    usize::from(at == 0 || (2..5).contains(&at))
}

/// Headings for paper, where nine columns must fit a page, and what they stand for.
const BRIEF: [(&str, &str); 9] = [
    ("Rank", ""),
    ("Method", ""),
    ("Clean", "standard accuracy"),
    ("AA", "AutoAttack robust accuracy"),
    ("Best", "best known robust accuracy"),
    ("AA?", "whether AutoAttack's figure may be too high"),
    ("Extra", "whether data beyond the training set were used"),
    ("Architecture", ""),
    ("Venue", ""),
];

/// The boards as LaTeX, whole, with booktabs and longtable.
pub fn latex(boards: &[Board]) -> String {
    let mut text = String::from("% Needs \\usepackage{array,booktabs,longtable}.\n");
    let ragged = |width: &str| format!(">{{\\raggedright\\arraybackslash}}p{{{width}}}");
    for board in boards {
        let columns = columns(board);
        let brief = |at: usize| match (at, board.threat) {
            (4, None) => ("Corrupted", "mean accuracy under common corruptions"),
            _ => BRIEF[at],
        };
        let (mut heads, mut notes, mut kinds) = (Vec::new(), Vec::new(), String::new());
        for (at, _) in &columns {
            let (head, meaning) = brief(*at);
            heads.push(latex::escape(head));
            notes.extend((!meaning.is_empty()).then(|| format!("{head}: {meaning}")));
            match at {
                1 => kinds.push_str(&ragged("4.6cm")),
                7 => kinds.push_str(&ragged("2.8cm")),
                8 => kinds.push_str(&ragged("2.2cm")),
                _ => kinds.push(if is_figure(*at) == 1 { 'r' } else { 'l' }),
            }
        }
        let caption = format!("{}. {}.", board.title(), notes.join("; "));
        let _ = write!(
            text,
            "{{\\footnotesize\\setlength{{\\tabcolsep}}{{3pt}}\n\\begin{{longtable}}\
             {{@{{}}{kinds}@{{}}}}\n  \\caption{{{}}}\\\\\n  \\toprule\n  {} \\\\\n  \
             \\midrule\n  \\endhead\n",
            latex::escape(&caption),
            heads.join(" & ")
        );
        for line in &board.lines {
            let all = cells(line);
            // Long names may break where they are joined.
            let broken = |cell: String| cell.replace("\\_", "\\_\\allowbreak{}");
            let mut cells: Vec<_> =
                columns.iter().map(|(at, _)| broken(latex::escape(&all[*at]))).collect();
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
                quoted(&board.threat.map_or_else(|| "corruptions".into(), |one| one.to_string())),
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
            let columns = columns(board);
            let heads: Vec<_> =
                columns.iter().map(|(at, head)| (head, is_figure(*at) == 1)).collect();
            let lines: Vec<_> = board
                .lines
                .iter()
                .map(|line| {
                    let all = cells(line);
                    let cells: Vec<_> =
                        columns.iter().map(|(at, _)| (&all[*at], is_figure(*at) == 1)).collect();
                    let link = line.source.starts_with("http").then_some(&line.source);
                    serde_json::json!({
                        "cells": cells, "ours": line.ours, "title": line.title,
                        "footnote": line.footnote, "link": link,
                        "comparable": line.rank.is_some(),
                    })
                })
                .collect();
            serde_json::json!({ "title": board.title(), "heads": heads, "lines": lines })
        })
        .collect();
    let page = minijinja::value::Serde(serde_json::json!({
        "tables": tables, "note": note(boards),
        "title": if boards.iter().any(|board| board.lines.iter().any(|line| line.ours)) {
            "Ours beside published results"
        } else {
            "Published results"
        },
    }));
    let mut environment = Environment::new();
    environment.add_template("board.html", include_str!("board.html")).map_err(failed)?;
    let template = environment.get_template("board.html").map_err(failed)?;
    template.render(context! { page, style => include_str!("style.css") }).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        leaderboard::board::{self, boards},
        report::write::tests::demo,
    };

    #[test]
    fn corruptions_have_their_own_columns() {
        let entry = |corrupted: &str| crate::leaderboard::robustbench::Entry {
            fields: serde_json::json!({ "clean_acc": "95.1", "corruptions_acc": corrupted })
                .as_object()
                .unwrap()
                .clone(),
        };
        let line = |key: &str, corrupted| board::corrupted(&(key.to_owned(), entry(corrupted)));
        assert!(line("c", "many").unwrap_err().to_string().contains("corruptions_acc"));
        let lines = vec![line("a_1", "80.5").unwrap(), line("b", "90").unwrap()];
        let boards = [board::corruptions("cifar10", lines)];
        let text = terminal(&boards[0], 10);
        assert!(text.contains("corr.") && !text.contains("AA"), "{text}");
        let table = markdown(&boards);
        let table: Vec<_> = table.lines().filter(|line| line.starts_with('|')).collect();
        assert!(table.iter().all(|line| line.matches('|').count() == 8), "{table:?}");
        assert!(table[2].starts_with("| 1 | b | 95.10 | 90.00 |"), "{}", table[2]);
        let tex = latex(&boards);
        assert!(tex.contains("Corrupted: mean") && tex.contains("a\\_\\allowbreak{}1"));
        let page = html(&boards).unwrap();
        assert!(page.contains("Accuracy under corruptions") && !page.contains("AutoAttack"));
        assert!(csv(&boards).contains("\"corruptions\""));
    }

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
