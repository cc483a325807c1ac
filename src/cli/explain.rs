//! `gauntlet plan --explain`: every resolved number with where it comes from.

use std::fmt::Write;

use crate::{
    plan::{Explanation, Line, Plan},
    train::memory::Part,
};

/// Columns of a terminal that everybody has.
const WIDTH: usize = 80;

/// The first cell in full, of the others what differs from it.
pub(super) fn text(plan: &Plan, explanations: &[Explanation]) -> String {
    let mut text = String::new();
    let Some(first) = explanations.first() else { return text };
    for (index, explanation) in explanations.iter().enumerate() {
        let title = plan.cells.get(index).map(crate::plan::Cell::title).unwrap_or_default();
        let title = if title.is_empty() { "the only cell".to_owned() } else { title };
        let rest = if index > 0 { ", where it differs from cell 1" } else { "" };
        let _ = writeln!(text, "\ncell {}: {title}{rest}", index + 1);
        let new = |line: &&Line| index == 0 || !first.lines.contains(line);
        for line in explanation.lines.iter().filter(new) {
            write_line(&mut text, line);
        }
        if index == 0 || explanation.memory != first.memory {
            text += &memory(&explanation.memory);
        }
    }
    text
}

/// One cell in full.
pub(super) fn one(plan: &Plan, index: usize, explanation: &Explanation) -> String {
    let mut text = format!("cell {index}: {}\n", plan.cells[index].title());
    for line in &explanation.lines {
        write_line(&mut text, line);
    }
    text += &memory(&explanation.memory);
    text
}

fn write_line(text: &mut String, line: &Line) {
    let start = format!("  {:30} {:>12}  ", line.path, line.value);
    if start.chars().count() + line.origin.chars().count() <= WIDTH {
        let _ = writeln!(text, "{start}{}", line.origin);
    } else {
        let _ = writeln!(text, "{}\n      {}", start.trim_end(), line.origin);
    }
}

/// The memory of a training, part by part; nothing where it cannot be counted.
pub(super) fn memory(parts: &[Part]) -> String {
    let mut text = String::new();
    if parts.is_empty() {
        return text;
    }
    let gigabytes = |bytes: f64| format!("{:>8.2} GB", bytes / 1e9);
    let _ = writeln!(text, "  memory of the training on its device");
    for part in parts {
        let _ = writeln!(text, "  {}\n      {}", gigabytes(part.bytes), part.what);
    }
    let sum = parts.iter().map(|part| part.bytes).sum();
    let _ = writeln!(text, "  {} in all", gigabytes(sum));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_the_terminal() {
        let mut text = String::new();
        let long = "rule: epsilon / 4 for linf, 2 epsilon / steps for l2 and more".to_owned();
        for origin in ["preset dmat".to_owned(), long] {
            let value = "0.007843".to_owned();
            write_line(&mut text, &Line { path: "train.attack_step_size", value, origin });
        }
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= WIDTH));
    }
}
