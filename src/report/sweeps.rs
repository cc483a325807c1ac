//! Accuracy against what a suite varies: numeric axes, and ε.

use std::collections::BTreeMap;

use crate::leaderboard::{
    Row,
    frame::Group,
    row::{is_seed, number, short_axis},
};

use super::{
    figures::{axis, counted, examples, file_name},
    plot::{Figure, Hue, Point, Scale, Series, brief},
    table::{is_threat, value_text, varying},
};

/// More lines than this in one plot cannot be told apart.
const LINES: usize = 7;

/// Accuracy against every numeric axis of the suite.
pub(super) fn sweeps(rows: &[Row], groups: &[Group]) -> Vec<Figure> {
    let varying = varying(rows);
    let numeric = |axis: &&String| {
        !is_seed(axis) && rows.iter().filter_map(|row| row.axis(axis)).all(|v| number(v).is_some())
    };
    let axes: Vec<&String> = varying.iter().filter(numeric).collect();
    axes.into_iter().map(|axis| sweep(axis, rows, groups, &varying)).collect()
}

/// How an axis of a suite is written beside a plot.
pub(super) fn axis_label(name: &str, varying: &[String]) -> String {
    let short = short_axis(name, varying);
    if name.contains("sampler") && name.ends_with("steps") {
        "sampler steps".to_owned()
    } else if name.ends_with("generated") {
        "generated training images".to_owned()
    } else if name.ends_with("epochs") {
        "training epochs".to_owned()
    } else {
        short.replace('_', " ")
    }
}

pub(super) fn sweep(name: &str, rows: &[Row], groups: &[Group], varying: &[String]) -> Figure {
    let mut lines: Vec<(String, Vec<(f64, &Group)>)> = Vec::new();
    for group in groups {
        let Some(x) = group.axes.iter().find(|(axis, _)| axis == name).and_then(|(_, v)| number(v))
        else {
            continue;
        };
        let label = others(group, name, rows, varying);
        match lines.iter_mut().find(|(known, _)| *known == label) {
            Some((_, points)) => points.push((x, group)),
            None => lines.push((label, vec![(x, group)])),
        }
    }
    let total = lines.len();
    let best = |line: &(String, Vec<(f64, &Group)>)| {
        line.1.iter().map(|(_, group)| group.robust.mean).fold(0.0, f64::max)
    };
    if total > LINES {
        lines.sort_by(|a, b| best(b).total_cmp(&best(a)));
        lines.truncate(LINES);
    }
    for (_, points) in &mut lines {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let values: Vec<f64> =
        lines.iter().flat_map(|(_, points)| points.iter().map(|p| p.0)).collect();
    let mut series = Vec::new();
    for (at, (label, points)) in lines.iter().enumerate() {
        series.push(line(at, label, points, false));
        // Clean accuracy as well while the plot stays readable.
        if total <= 3 {
            series.push(line(at, label, points, true));
        }
    }
    let label = axis_label(name, varying);
    let left_out = match total.saturating_sub(LINES) {
        0 => String::new(),
        more => format!(" {more} more lines are left out; the table has them all."),
    };
    let clean = if total <= 3 { "Clean (dashed) and robust accuracy" } else { "Robust accuracy" };
    Figure {
        name: format!("accuracy-by-{}", file_name(&label)),
        title: format!("{clean} against {label}"),
        caption: format!("{}{}.{left_out}", bars(groups), examples(rows)),
        x: axis(&label, scale(&values)),
        y: axis(if total <= 3 { "accuracy (%)" } else { "robust accuracy (%)" }, Scale::Linear),
        series,
        bars: vec![],
    }
}

/// What error bars mean here.
pub(super) fn bars(groups: &[Group]) -> &'static str {
    if groups.iter().any(|group| group.robust.deviation.is_some()) {
        "Bars: sample standard deviation over seeds (95% Wilson interval for a single seed)"
    } else {
        "Bars: 95% Wilson intervals"
    }
}

/// Everything but axis `name` that tells a group from others.
pub(super) fn others(group: &Group, name: &str, rows: &[Row], varying: &[String]) -> String {
    let mut words: Vec<String> = group
        .axes
        .iter()
        .filter(|(axis, _)| axis != name && varying.contains(axis) && !is_threat(axis))
        .map(|(axis, value)| format!("{} {}", short_axis(axis, varying), value_text(value)))
        .collect();
    if rows.iter().any(|row| row.threat != rows[0].threat) {
        words.push(group.threat.to_string());
    }
    if rows.iter().any(|row| row.dataset != rows[0].dataset) {
        words.push(group.dataset.clone());
    }
    if words.is_empty() { "robust".to_owned() } else { words.join(", ") }
}

pub(super) fn line(at: usize, label: &str, points: &[(f64, &Group)], clean: bool) -> Series {
    let kind = if clean { "clean" } else { "robust" };
    let points = points.iter().map(|(x, group)| {
        let (spread, pooled) = if clean {
            (group.clean, group.clean_pooled)
        } else {
            (group.robust, group.robust_pooled)
        };
        let interval = match spread.deviation {
            Some(deviation) => (spread.mean - deviation, spread.mean + deviation),
            None => pooled.interval(),
        };
        let seeds = match spread.deviation {
            Some(deviation) => {
                format!("{:.2} ± {deviation:.2}% over {} seeds", spread.mean, spread.count)
            }
            None => counted(pooled),
        };
        let tip = format!("{label}, at {}: {kind} {seeds}", brief(*x));
        Point { x: *x, y: spread.mean, interval: Some(interval), tip }
    });
    // The dashed twin needs no entry of its own; the title explains it.
    let alone = label == "robust";
    let label = match (clean, alone) {
        (true, true) => "clean".to_owned(),
        (true, false) => String::new(),
        _ => label.to_owned(),
    };
    Series { label, hue: Hue::Series(at), joined: true, hollow: clean, points: points.collect() }
}

/// Logarithmic where values span more than a decade.
pub(super) fn scale(values: &[f64]) -> Scale {
    let positive = || values.iter().copied().filter(|value| *value > 0.0);
    let low = positive().fold(f64::INFINITY, f64::min);
    let high = positive().fold(0.0, f64::max);
    let even = values.iter().any(|value| *value < 0.0) || high < 3.0 * low;
    if even && !(values.contains(&0.0) && high > 50.0) { Scale::Linear } else { Scale::Log }
}

/// Robust accuracy against ε where a cell is evaluated at several bounds of one norm.
pub(super) fn epsilons(groups: &[Group], rows: &[Row]) -> Vec<Figure> {
    let varying = varying(rows);
    let mut norms: BTreeMap<String, Vec<&Group>> = BTreeMap::new();
    for group in groups {
        norms.entry(group.threat.norm.to_string()).or_default().push(group);
    }
    let mut figures = Vec::new();
    for (norm, groups) in norms {
        let mut lines: Vec<(String, Vec<(f64, &Group)>)> = Vec::new();
        for group in groups {
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
        lines.truncate(LINES);
        if lines.is_empty() {
            continue;
        }
        for (_, points) in &mut lines {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        let unit = if norm == "linf" { "ε (of 255)" } else { "ε" };
        let series =
            lines.iter().enumerate().map(|(at, (label, points))| line(at, label, points, false));
        figures.push(Figure {
            name: format!("accuracy-by-epsilon-{norm}"),
            title: format!("Robust accuracy against ε, {norm}"),
            caption: "Bars: 95% Wilson intervals.".into(),
            x: axis(unit, Scale::Linear),
            y: axis("robust accuracy (%)", Scale::Linear),
            series: series.collect(),
            bars: vec![],
        });
    }
    figures
}
