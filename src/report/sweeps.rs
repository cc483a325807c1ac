//! Accuracy against what a suite varies: numeric axes, and ε.

use crate::{
    leaderboard::{
        Row,
        frame::Group,
        row::{is_seed, number, short_axis},
    },
    units::NORMAL_95,
};

use super::{
    figures::{axis, counted, examples, file_name, more},
    plot::{Figure, Hue, Point, Scale, Series, brief},
    table::{is_threat, value_text, varying},
};

/// More lines than this in one plot cannot be told apart.
pub(super) const LINES: usize = 7;

/// Accuracy against the axes that the suite names as its `x`, or against every axis; FID beside it
/// where it is known. Numbers lie along the plot, words down its side.
pub(super) fn sweeps(rows: &[Row], groups: &[Group], wanted: &[String]) -> Vec<Figure> {
    let varying = varying(rows);
    let numeric =
        |axis: &str| rows.iter().filter_map(|row| row.axis(axis)).all(|v| number(v).is_some());
    let asked = if wanted.is_empty() { &varying } else { wanted };
    let mut figures = Vec::new();
    for axis in asked.iter().filter(|axis| !is_seed(axis) && varying.contains(axis)) {
        if numeric(axis) {
            figures.push(sweep(axis, rows, groups, &varying));
            figures.extend(distances(axis, rows, groups, &varying));
        } else {
            figures.extend(choices(axis, rows, groups, &varying));
        }
    }
    figures
}

const BARS: &str = " Bars: 95% interval for other images of the same sampler, by a jackknife over \
                    ten parts of the set.";

/// FID of the generated images against axis `name`, published values in grey.
fn distances(name: &str, rows: &[Row], groups: &[Group], varying: &[String]) -> Option<Figure> {
    let mut series: Vec<Series> = Vec::new();
    let mut add =
        |label: &str, hue: Option<Hue>, (x, y): (f64, f64), error: Option<f64>, tip: String| {
            // A logarithmic axis has no place for zero.
            let around = |error: f64| ((y - NORMAL_95 * error).max(0.1 * y), y + NORMAL_95 * error);
            let interval = error.map(around);
            let point = Point { x, y, interval, tip };
            let at = series.iter().position(|known| known.label == label).unwrap_or_else(|| {
                let hue = hue.unwrap_or(Hue::Series(series.len()));
                let label = label.to_owned();
                series.push(Series { label, hue, joined: true, hollow: false, points: vec![] });
                series.len() - 1
            });
            let points = &mut series[at].points;
            // One set serves several threat models.
            if points.iter().all(|known| (known.x, known.y) != (x, y)) {
                points.push(point);
            }
        };
    for group in groups {
        let Some(x) = place(group, name) else { continue };
        // How a classifier learns changes nothing of the images.
        let of_images: Vec<String> = varying
            .iter()
            .filter(|axis| !axis.starts_with("train.") && !axis.starts_with("evaluate."))
            .cloned()
            .collect();
        let words = settings(group, name, &of_images);
        for row in group.members.iter().map(|at| &rows[*at]) {
            if let Some(fid) = row.fid {
                let label = if words.is_empty() { "FID" } else { &words };
                let tip = format!("{label}, at {}: FID {fid:.3}", brief(x));
                add(label, None, (x, fid), row.fid_error, tip);
            }
            let published = row.reference.as_ref().and_then(|one| Some((one, one.fid?)));
            if let Some((one, fid)) = published {
                let tip = format!("published ({}), at {}: FID {fid}", one.source, brief(x));
                add("published", Some(Hue::Grey), (x, fid), None, tip);
            }
        }
    }
    for one in &mut series {
        one.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    // The FID of one set at several counts says nothing about counts.
    series.retain(|one| one.points.iter().any(|point| point.y != one.points[0].y));
    series.truncate(LINES);
    let values: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.x)).collect();
    let bars = series.iter().flat_map(|s| &s.points).any(|point| point.interval.is_some());
    let label = axis_label(name, varying);
    (!series.is_empty()).then(|| Figure {
        name: format!("fid-by-{}", file_name(&label)),
        title: format!("FID against {label}"),
        caption: format!(
            "Fréchet distance of the generated images to the training images; less is nearer.{}",
            if bars { BARS } else { "" }
        ),
        x: axis(&label, scale(&values)),
        y: axis(
            "FID",
            match scale(
                &series.iter().flat_map(|s| s.points.iter().map(|p| p.y)).collect::<Vec<_>>(),
            ) {
                Scale::Log => Scale::Log,
                _ => Scale::Linear,
            },
        ),
        series,
        bars: vec![],
    })
}

/// Accuracy for every value of an axis of words: values down, one marker for each setting.
fn choices(name: &str, rows: &[Row], groups: &[Group], varying: &[String]) -> Option<Figure> {
    let value = |group: &Group| {
        group.axes.iter().find(|(axis, _)| axis == name).map(|(_, value)| value_text(value))
    };
    let mut names: Vec<String> = groups.iter().filter_map(value).collect();
    names.sort();
    names.dedup();
    let mut series: Vec<Series> = Vec::new();
    for group in groups {
        let Some(line) = value(group).and_then(|own| names.iter().position(|name| *name == own))
        else {
            continue;
        };
        let label = others(group, name, rows, varying);
        let mut point = line_point(group, &label, line as f64, false);
        (point.x, point.y) = (point.y, line as f64);
        point.tip = format!("{}, {}", names[line], point.tip);
        match series.iter_mut().find(|series| series.label == label) {
            Some(series) => series.points.push(point),
            None => series.push(Series {
                label,
                hue: Hue::Series(series.len()),
                joined: false,
                hollow: false,
                points: vec![point],
            }),
        }
    }
    series.truncate(LINES);
    let label = axis_label(name, varying);
    (names.len() > 1).then(|| Figure {
        name: format!("accuracy-by-{}", file_name(&label)),
        title: format!("Robust accuracy by {label}"),
        caption: format!("{}{}.", bars(groups), examples(rows)),
        x: axis("robust accuracy (%)", Scale::Linear),
        y: axis(&label, Scale::Names(names)),
        series,
        bars: vec![],
    })
}

/// The axes beside `name` that a group says nothing about.
fn lacks<'a>(group: &Group, name: &str, varying: &'a [String]) -> Vec<&'a String> {
    let known = |axis: &String| group.axes.iter().any(|(own, _)| own == axis);
    varying.iter().filter(|axis| *axis != name && !is_seed(axis) && !known(axis)).collect()
}

/// Whether two groups differ in nothing but axis `name` and what the first says nothing about.
fn agrees(a: &Group, b: &Group, name: &str, varying: &[String]) -> bool {
    let value = |group: &Group, axis: &String| {
        group.axes.iter().find(|(own, _)| own == axis).map(|(_, value)| value.clone())
    };
    let same = |axis: &String| value(a, axis).is_none_or(|own| Some(own) == value(b, axis));
    (a.threat == b.threat && a.dataset == b.dataset)
        && varying.iter().filter(|axis| *axis != name && !is_seed(axis)).all(same)
}

/// Where a group stands on a numeric axis.
fn place(group: &Group, name: &str) -> Option<f64> {
    group.axes.iter().find(|(axis, _)| axis == name).and_then(|(_, value)| number(value))
}

/// Everything but axis `name` and the threat model that tells a group from others.
fn settings(group: &Group, name: &str, varying: &[String]) -> String {
    let words = group.axes.iter().filter(|(axis, _)| axis != name && varying.contains(axis));
    let words =
        words.map(|(axis, value)| format!("{} {}", short_axis(axis, varying), value_text(value)));
    words.collect::<Vec<_>>().join(", ")
}

/// How an axis of a suite is written beside a plot.
pub(super) fn axis_label(name: &str, varying: &[String]) -> String {
    let short = short_axis(name, varying);
    if name.contains("sampler") && name.ends_with("steps") {
        "sampler steps".to_owned()
    } else if name.ends_with("generated") || name == "generated.count" {
        "generated training images".to_owned()
    } else if name.ends_with("epochs") {
        "training epochs".to_owned()
    } else {
        short.replace('_', " ")
    }
}

pub(super) fn sweep(name: &str, rows: &[Row], groups: &[Group], varying: &[String]) -> Figure {
    let (whole, partial): (Vec<&Group>, Vec<&Group>) = groups
        .iter()
        .filter(|group| place(group, name).is_some())
        .partition(|group| lacks(group, name, varying).is_empty());
    let mut lines: Vec<(String, Vec<(f64, &Group)>)> = Vec::new();
    for (group, joins) in
        whole.into_iter().map(|g| (g, false)).chain(partial.into_iter().map(|g| (g, true)))
    {
        let Some(x) = place(group, name) else { continue };
        // A cell that lacks an axis (no sampler ran without generated images) begins every line
        // that it agrees with.
        let mut joined = false;
        for (_, points) in lines
            .iter_mut()
            .filter(|(_, points)| joins && agrees(group, points[0].1, name, varying))
        {
            points.push((x, group));
            joined = true;
        }
        if joined {
            continue;
        }
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
    let mut series: Vec<Series> = published(name, rows, groups).into_iter().collect();
    for (at, (label, points)) in lines.iter().enumerate() {
        series.push(line(at, label, points, false));
        // Clean accuracy as well while the plot stays readable.
        if total <= 3 {
            series.push(line(at, label, points, true));
        }
    }
    let label = axis_label(name, varying);
    let left_out = more(total.saturating_sub(LINES), "line");
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
    let points = points.iter().map(|(x, group)| line_point(group, label, *x, clean));
    // The dashed twin needs no entry of its own; the title explains it.
    let alone = label == "robust";
    let label = match (clean, alone) {
        (true, true) => "clean".to_owned(),
        (true, false) => String::new(),
        _ => label.to_owned(),
    };
    Series { label, hue: Hue::Series(at), joined: true, hollow: clean, points: points.collect() }
}

/// The published robust accuracies along axis `name`, in grey.
fn published(name: &str, rows: &[Row], groups: &[Group]) -> Option<Series> {
    let mut points: Vec<Point> = Vec::new();
    for group in groups {
        let one = group.members.iter().find_map(|at| rows[*at].reference.as_ref());
        let Some((x, one)) = place(group, name).zip(one) else { continue };
        let Some(y) = one.robust else { continue };
        let tip = format!(
            "published, at {}: robust {y:.2}% ({}; {})",
            brief(x),
            one.source,
            one.certainty
        );
        points.push(Point { x, y, interval: None, tip });
    }
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    let label = "published".to_owned();
    (!points.is_empty()).then_some(Series {
        label,
        hue: Hue::Grey,
        joined: false,
        hollow: false,
        points,
    })
}

pub(super) fn line_point(group: &Group, label: &str, x: f64, clean: bool) -> Point {
    Point { x, ..group_point(group, &format!("{label}, at {}", brief(x)), clean) }
}

/// An accuracy of a group up the side: spread over seeds, else the interval of the one.
pub(super) fn group_point(group: &Group, label: &str, clean: bool) -> Point {
    let kind = if clean { "clean" } else { "robust" };
    let (spread, pooled) =
        if clean { (group.clean, group.clean_pooled) } else { (group.robust, group.robust_pooled) };
    // A share is never below none or above all, whatever the deviation.
    let interval = match spread.deviation {
        Some(deviation) => {
            ((spread.mean - deviation).max(0.0), (spread.mean + deviation).min(100.0))
        }
        None => pooled.interval(),
    };
    let seeds = match spread.deviation {
        Some(deviation) => {
            format!("{:.2} ± {deviation:.2}% over {} seeds", spread.mean, spread.count)
        }
        None => counted(pooled),
    };
    Point {
        x: 0.0,
        y: spread.mean,
        interval: Some(interval),
        tip: format!("{label}: {kind} {seeds}"),
    }
}

/// Logarithmic where values span more than a decade.
pub(super) fn scale(values: &[f64]) -> Scale {
    let positive = || values.iter().copied().filter(|value| *value > 0.0);
    let low = positive().fold(f64::INFINITY, f64::min);
    let high = positive().fold(0.0, f64::max);
    let even = values.iter().any(|value| *value < 0.0) || high < 3.0 * low;
    if even && !(values.contains(&0.0) && high > 50.0) { Scale::Settings } else { Scale::Log }
}
