//! Robust accuracy against the bound of the threat model.

use std::collections::BTreeMap;

use crate::leaderboard::{Row, frame::Group, row::short_axis};

use super::{
    figures::{axis, more},
    plot::{Figure, Scale},
    sweeps::{LINES, bars, line, line_point},
    table::{value_text, varying},
};

/// Robust accuracy against ε where a cell is evaluated at several bounds of one norm.
pub(super) fn epsilons(groups: &[Group], rows: &[Row]) -> Vec<Figure> {
    let varying = varying(rows);
    let mut norms: BTreeMap<String, Vec<&Group>> = BTreeMap::new();
    for group in groups {
        norms.entry(group.threat.norm.to_string()).or_default().push(group);
    }
    let mut figures = Vec::new();
    for (norm, own) in norms {
        let mut lines: Vec<(String, Vec<(f64, &Group)>)> = Vec::new();
        for group in own {
            let words = group.axes.iter().filter(|(axis, _)| varying.contains(axis)).map(
                |(axis, value)| format!("{} {}", short_axis(axis, &varying), value_text(value)),
            );
            let label = words.collect::<Vec<_>>().join(", ");
            let label = if label.is_empty() { "robust".to_owned() } else { label };
            let x = group.threat.epsilon.value() * if norm == "linf" { 255.0 } else { 1.0 };
            match lines.iter_mut().find(|(known, _)| *known == label) {
                Some((_, points)) => points.push((x, group)),
                None => lines.push((label, vec![(x, group)])),
            }
        }
        lines.retain(|(_, points)| points.len() > 1);
        let left_out = more(lines.len().saturating_sub(LINES), "line");
        lines.truncate(LINES);
        if lines.is_empty() {
            continue;
        }
        for (_, points) in &mut lines {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        let unit = if norm == "linf" { "ε (of 255)" } else { "ε" };
        let series = lines.iter().enumerate().map(|(at, (label, points))| {
            let mut series = line(at, label, points, false);
            // Without room to move, robust accuracy is clean accuracy.
            series.points.insert(0, line_point(points[0].1, label, 0.0, true));
            series
        });
        figures.push(Figure {
            name: format!("accuracy-by-epsilon-{norm}"),
            title: format!("Robust accuracy against ε, {norm}"),
            caption: format!("{}; at 0: clean accuracy.{left_out}", bars(groups)),
            x: axis(unit, Scale::Settings),
            y: axis("robust accuracy (%)", Scale::Linear),
            series: series.collect(),
            bars: vec![],
        });
    }
    figures
}
