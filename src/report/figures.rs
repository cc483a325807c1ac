//! Which figures a set of results makes.

use crate::{
    error::Result,
    leaderboard::{
        Row,
        frame::aggregate,
        published::{Published, matching},
        row::short_axis,
    },
    threat::ThreatModel,
    units::Tally,
};

use super::{
    epsilon::epsilons,
    input::{Curve, Input},
    plot::{Axis, Bar, Figure, Hue, Point, Scale, Series, brief},
    sweeps::{scale, sweeps},
    table::{accuracy, name, ranked, value_text, varying},
};

/// All figures of a report, in reading order.
///
/// # Errors
/// If the aggregation over seeds fails.
pub fn all(input: &Input) -> Result<Vec<Figure>> {
    let rows = &input.rows;
    let mut figures = Vec::new();
    if !rows.is_empty() {
        let groups = aggregate(rows)?;
        figures.push(intervals(rows));
        figures.extend(sweeps(rows, &groups, &input.layout.x));
        figures.extend(epsilons(&groups, rows));
        figures.extend(waterfall(rows));
        figures.extend(scatters(rows, input.small_scale));
        let fid = (Scale::Linear, "fid", "Fréchet inception distance (FID)");
        figures.extend(relation(rows, fid, |row| row.fid));
        let minutes = |row: &Row| Some(row.total_seconds() / 60.0).filter(|cost| *cost > 0.0);
        let cost = (Scale::Log, "cost", "cost: generate + train + evaluate (minutes)");
        figures.extend(relation(rows, cost, minutes));
    }
    if rows.iter().any(|row| row.fid.is_some() && !row.fid_published) {
        for figure in figures.iter_mut().filter(|figure| figure.name.contains("fid")) {
            figure.caption.push(' ');
            figure.caption.push_str(super::pivot::FILTERS);
        }
    }
    figures.extend(input.curves.iter().enumerate().map(|(at, curve)| learning(at, curve)));
    Ok(figures)
}

pub(super) fn axis(label: &str, scale: Scale) -> Axis {
    Axis { label: label.to_owned(), scale }
}

/// Rows' names in a chart and what the names consist of: (`20 · 50K · linf 8/255`,
/// `steps · generated · threat`). Short, because a column of a paper is narrow.
fn names(rows: &[&Row]) -> (Vec<String>, String) {
    let owned: Vec<Row> = rows.iter().map(|row| (*row).clone()).collect();
    let varying = varying(&owned);
    let several = |of: fn(&Row) -> String| owned.iter().any(|row| of(row) != of(&owned[0]));
    let threats = several(|row| row.threat.to_string());
    let datasets = several(|row| row.dataset.clone());
    let mut parts: Vec<&str> = varying.iter().map(|axis| short_axis(axis, &varying)).collect();
    if parts.is_empty() {
        parts.push("cell");
    }
    parts.extend(threats.then_some("threat"));
    parts.extend(datasets.then_some("data set"));
    let name = |row: &Row| {
        let value = |axis: &String| row.axis(axis).map_or_else(|| "–".to_owned(), value_text);
        let mut words: Vec<String> = varying.iter().map(value).collect();
        if words.is_empty() {
            words.push(row.cell.clone());
        }
        words.extend(threats.then(|| row.threat.to_string()));
        words.extend(datasets.then(|| row.dataset.clone()));
        words.join(" · ")
    };
    (owned.iter().map(name).collect(), parts.join(" · "))
}

/// Clean and robust accuracy of every row with intervals.
fn intervals(rows: &[Row]) -> Figure {
    let shown = ranked(rows);
    let (names, parts) = names(&shown);
    let series = |label: &str, hollow: bool, of: fn(&Row) -> Tally| Series {
        label: label.to_owned(),
        hue: Hue::Series(usize::from(!hollow)),
        joined: false,
        hollow,
        points: shown
            .iter()
            .enumerate()
            .map(|(at, row)| Point {
                x: of(row).percent(),
                y: at as f64,
                interval: Some(of(row).interval()),
                tip: format!("{}: {label} {}", names[at], counted(of(row))),
            })
            .collect(),
    };
    Figure {
        name: "accuracy-by-cell".into(),
        title: "Clean and robust accuracy".into(),
        caption: format!(
            "Every evaluated cell, best robust accuracy first within a threat model. Bars: 95% \
             Wilson intervals{}.",
            examples(rows)
        ),
        x: axis("accuracy (%)", Scale::Percent),
        y: axis(&parts, Scale::Names(names.clone())),
        series: vec![
            series("clean", true, |row| row.clean),
            series("robust", false, |row| row.robust),
        ],
        bars: vec![],
    }
}

/// `31.2 [28.4, 34.1]% (312 of 1000)`.
pub(super) fn counted(tally: Tally) -> String {
    format!("{}% ({} of {})", accuracy(tally), tally.correct, tally.total)
}

pub(super) fn examples(rows: &[Row]) -> String {
    let counts = || rows.iter().map(|row| row.robust.total);
    let (low, high) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    if low == high { format!(", n = {low}") } else { format!(", n = {low} to {high}") }
}

pub(super) fn file_name(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    text.chars().map(safe).collect()
}

/// What became of every example: wrong by itself, broken by which attack, robust.
fn waterfall(rows: &[Row]) -> Option<Figure> {
    let shown: Vec<&Row> =
        ranked(rows).into_iter().filter(|r| !r.robust_after.is_empty()).collect();
    if shown.is_empty() {
        return None;
    }
    let (names, parts) = names(&shown);
    let mut attacks: Vec<String> = Vec::new();
    let mut bars = Vec::new();
    for (line, row) in shown.iter().enumerate() {
        let total = row.clean.total.max(1) as f64;
        let mut from = 0.0;
        let mut push = |count: u64, hue: Hue, label: &str| {
            if count == 0 {
                return;
            }
            let to = from + 100.0 * count as f64 / total;
            let share = Tally { correct: count, total: row.clean.total };
            let tip = format!(
                "{}: {label}, {} of {} ({}%)",
                names[line],
                count,
                row.clean.total,
                accuracy(share)
            );
            bars.push(Bar { line, from, to, hue, label: label.to_owned(), tip });
            from = to;
        };
        push(row.robust.correct, Hue::Series(0), "withstood all");
        for (attack, count) in row.broken_by().into_iter().rev() {
            let at = attacks.iter().position(|known| *known == attack).unwrap_or_else(|| {
                attacks.push(attack.clone());
                attacks.len() - 1
            });
            push(count, Hue::Series(at + 1), &format!("broken by {attack}"));
        }
        push(row.clean.total.saturating_sub(row.clean.correct), Hue::Faint, "wrong without attack");
    }
    Some(Figure {
        name: "attacks".into(),
        title: "Which attack broke how many".into(),
        caption: "Each example counts for the first attack of the cascade that broke it.".into(),
        x: axis("examples (%)", Scale::Percent),
        y: axis(&parts, Scale::Names(names)),
        series: vec![],
        bars,
    })
}

/// Clean against robust accuracy beside published results, per data set and threat model.
fn scatters(rows: &[Row], small_scale: bool) -> Vec<Figure> {
    let mut seen: Vec<(String, ThreatModel)> = Vec::new();
    let mut figures = Vec::new();
    for row in rows {
        let key = (row.dataset.clone(), row.threat);
        if seen.contains(&key) {
            continue;
        }
        let published = matching(&row.dataset, row.threat);
        if !published.is_empty() {
            figures.push(scatter(rows, &key, &published, small_scale));
        }
        seen.push(key);
    }
    figures
}

fn scatter(
    rows: &[Row],
    key: &(String, ThreatModel),
    published: &[Published],
    small_scale: bool,
) -> Figure {
    let (dataset, threat) = key;
    let point = |one: &Published| Point {
        x: one.clean,
        y: one.robust,
        interval: None,
        tip: format!("{} ({}): clean {}%, robust {}%", one.key, one.venue, one.clean, one.robust),
    };
    let theirs = |label: &str, hue: Hue, model: bool| Series {
        label: label.to_owned(),
        hue,
        joined: false,
        hollow: false,
        points: published.iter().filter(|p| p.is_ours_to_match() == model).map(point).collect(),
    };
    let here = rows.iter().filter(|row| row.dataset == *dataset && row.threat == *threat);
    let varying = varying(rows);
    let ours = here.map(|row| Point {
        x: row.clean.percent(),
        y: row.robust.percent(),
        interval: Some(row.robust.interval()),
        tip: format!(
            "{}: clean {}, robust {}",
            name(row, &varying),
            counted(row.clean),
            counted(row.robust)
        ),
    });
    let ours = Series {
        label: "this suite".into(),
        hue: Hue::Series(1),
        joined: false,
        hollow: false,
        points: ours.collect(),
    };
    let warning = if small_scale { " This suite is small: not comparable." } else { "" };
    let mut series = vec![
        theirs("published", Hue::Grey, false),
        theirs("Wang et al. 2023", Hue::Series(3), true),
        ours,
    ];
    series.retain(|series| !series.points.is_empty());
    Figure {
        name: format!("published-{}-{}", file_name(dataset), file_name(&threat.to_string())),
        title: format!("Beside published models: {dataset}, {threat}"),
        caption: format!(
            "Published: RobustBench's entries (March 2025) and the papers, best known robust \
             accuracy. Bars: 95% Wilson intervals.{warning}"
        ),
        x: axis("clean accuracy (%)", Scale::Linear),
        y: axis("robust accuracy (%)", Scale::Linear),
        series,
        bars: vec![],
    }
}

/// Robust accuracy against something else that rows know.
fn relation(
    rows: &[Row],
    (wide, file, label): (Scale, &str, &str),
    of: impl Fn(&Row) -> Option<f64>,
) -> Option<Figure> {
    let varying = varying(rows);
    let mut series: Vec<Series> = Vec::new();
    for row in rows {
        let Some(x) = of(row) else { continue };
        let threat = row.threat.to_string();
        let point = Point {
            x,
            y: row.robust.percent(),
            interval: Some(row.robust.interval()),
            tip: format!(
                "{}, {threat}: {}, robust {}",
                name(row, &varying),
                brief(x),
                counted(row.robust)
            ),
        };
        match series.iter_mut().find(|series| series.label == threat) {
            Some(series) => series.points.push(point),
            None => series.push(Series {
                label: threat,
                hue: Hue::Series(series.len()),
                joined: false,
                hollow: false,
                points: vec![point],
            }),
        }
    }
    let values: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.x)).collect();
    let spread = values.iter().any(|value| (value - values[0]).abs() > 1e-9);
    spread.then(|| Figure {
        name: format!("accuracy-by-{file}"),
        title: format!(
            "Robust accuracy against {}",
            label.split([':', '(']).next().unwrap_or(label).trim_end()
        ),
        caption: "Bars: 95% Wilson intervals.".into(),
        // Where they span much, as `wide` says.
        x: axis(label, if scale(&values) == Scale::Log { wide } else { Scale::Linear }),
        y: axis("robust accuracy (%)", Scale::Linear),
        series,
        bars: vec![],
    })
}

/// Every `k`-th point and the last, so that a column holds them.
fn thinned(points: &[(f64, f64)]) -> impl Iterator<Item = &(f64, f64)> {
    let step = points.len().div_ceil(CURVE).max(1);
    let kept = move |at: &usize| at.is_multiple_of(step) || at + 1 == points.len();
    (0..points.len()).filter(kept).map(|at| &points[at])
}

/// Points of a learning curve: more than this, and a column of a paper has fewer dots.
const CURVE: usize = 200;

fn learning(at: usize, curve: &Curve) -> Figure {
    let lines = curve.lines.iter().enumerate().map(|(hue, (label, points))| Series {
        label: label.clone(),
        hue: Hue::Series(hue),
        joined: true,
        hollow: false,
        points: thinned(points)
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .map(|(x, y)| Point {
                x: *x,
                y: *y,
                interval: None,
                tip: format!("{label}, {} {}: {y:.4}", curve.x_label, brief(*x)),
            })
            .collect(),
    });
    Figure {
        name: format!("curve-{:02}-{}", at + 1, file_name(&curve.title)),
        title: curve.title.clone(),
        caption: String::new(),
        x: axis(&curve.x_label, Scale::Linear),
        y: axis(&curve.y_label, Scale::Linear),
        series: lines.collect(),
        bars: vec![],
    }
}
