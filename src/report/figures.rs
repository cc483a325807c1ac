//! Which figures a set of results makes.

use crate::{
    error::Result,
    leaderboard::{
        Row,
        frame::{Group, aggregate},
        published::{Published, matching},
        row::short_axis,
        statistics::spread,
    },
    threat::ThreatModel,
    units::Tally,
};

use super::{
    curves::learning,
    epsilon::epsilons,
    input::Input,
    plot::{Axis, Bar, Figure, Hue, Point, Scale, Series, brief},
    seeds::{self, Setting, settings},
    sweeps::{bars, group_point, scale, sweeps},
    table::{accuracy, name, value_text, varying},
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
        let settings = settings(rows)?;
        figures.push(intervals(&settings, rows));
        figures.extend(sweeps(rows, &groups, &input.layout.x));
        figures.extend(epsilons(&groups, rows));
        figures.extend(waterfall(&settings));
        figures.extend(scatters(rows, input.small_scale));
        let fid = (Scale::Linear, "fid", "Fréchet inception distance (FID)");
        figures.extend(relation(rows, &settings, fid, |row| row.fid));
        let minutes = |row: &Row| Some(row.total_seconds() / 60.0).filter(|cost| *cost > 0.0);
        let cost = (Scale::Log, "cost", "cost: generate + train + evaluate (minutes)");
        figures.extend(relation(rows, &settings, cost, minutes));
    }
    if rows.iter().any(|row| row.fid.is_some() && !row.fid_published) {
        for figure in figures.iter_mut().filter(|figure| figure.name.contains("fid")) {
            figure.caption.push(' ');
            figure.caption.push_str(super::pivot::FILTERS);
        }
    }
    figures.extend(learning(&input.curves));
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

/// Clean and robust accuracy of every setting with intervals.
fn intervals(settings: &[Setting], rows: &[Row]) -> Figure {
    let (shown, left_out) = seeds::shown(settings);
    let (names, parts) = names(&shown.iter().map(|one| &one.row).collect::<Vec<_>>());
    let series = |label: &str, clean: bool| Series {
        label: label.to_owned(),
        hue: Hue::Series(usize::from(!clean)),
        joined: false,
        hollow: clean,
        points: shown
            .iter()
            .enumerate()
            .map(|(at, one)| {
                let point = group_point(&one.group, &names[at], clean);
                Point { x: point.y, y: at as f64, ..point }
            })
            .collect(),
    };
    let groups: Vec<Group> = shown.iter().map(|one| one.group.clone()).collect();
    Figure {
        name: "accuracy-by-cell".into(),
        title: "Clean and robust accuracy".into(),
        caption: format!(
            "Every evaluated setting, best robust accuracy first within a threat model. \
             {}{}.{}",
            bars(&groups),
            examples(rows),
            more(left_out, "setting")
        ),
        x: axis("accuracy (%)", Scale::Percent),
        y: axis(&parts, Scale::Names(names.clone())),
        series: vec![series("clean", true), series("robust", false)],
        bars: vec![],
    }
}

/// ` 3 more lines are left out; the table has them all.`, or nothing.
pub(super) fn more(left_out: usize, what: &str) -> String {
    match left_out {
        0 => String::new(),
        1 => format!(" 1 more {what} is left out; the table has them all."),
        count => format!(" {count} more {what}s are left out; the table has them all."),
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
fn waterfall(settings: &[Setting]) -> Option<Figure> {
    let (all, left_out) = seeds::shown(settings);
    let told: Vec<&Setting> =
        all.into_iter().filter(|one| !one.row.robust_after.is_empty()).collect();
    let shown: Vec<&Row> = told.iter().map(|one| &one.row).collect();
    if shown.is_empty() {
        return None;
    }
    let groups: Vec<Group> = told.iter().map(|one| one.group.clone()).collect();
    let whiskers = bars(&groups).replacen("Bars", "Whiskers on what withstood all", 1);
    let seeds = settings.iter().any(|one| one.group.members.len() > 1);
    let seeds = if seeds { " Seeds of a setting together." } else { "" };
    let (names, parts) = names(&shown);
    let points = groups
        .iter()
        .enumerate()
        .map(|(at, group)| {
            let point = group_point(group, &names[at], false);
            Point { x: point.y, y: at as f64, ..point }
        })
        .collect();
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
        caption: format!(
            "Each example counts for the first attack of the cascade that broke it.{seeds} \
             {whiskers}.{}",
            more(left_out, "setting")
        ),
        x: axis("examples (%)", Scale::Percent),
        series: vec![Series {
            label: "interval".into(),
            hue: Hue::Ink,
            joined: false,
            hollow: false,
            points,
        }],
        y: axis(&parts, Scale::Names(names)),
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

/// Robust accuracy against something else that rows know, on average over seeds.
fn relation(
    rows: &[Row],
    settings: &[Setting],
    (wide, file, label): (Scale, &str, &str),
    of: impl Fn(&Row) -> Option<f64>,
) -> Option<Figure> {
    let varying = varying(&settings.iter().map(|one| one.row.clone()).collect::<Vec<_>>());
    let mut series: Vec<Series> = Vec::new();
    for one in settings {
        let known: Vec<f64> = one.group.members.iter().filter_map(|at| of(&rows[*at])).collect();
        let Some(x) = spread(&known).map(|known| known.mean) else { continue };
        let threat = one.row.threat.to_string();
        let words = format!("{}, {threat}: {}", name(&one.row, &varying), brief(x));
        let point = Point { x, ..group_point(&one.group, &words, false) };
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
    let differ = values.iter().any(|value| (value - values[0]).abs() > 1e-9);
    let groups: Vec<Group> = settings.iter().map(|one| one.group.clone()).collect();
    differ.then(|| Figure {
        name: format!("accuracy-by-{file}"),
        title: format!(
            "Robust accuracy against {}",
            label.split([':', '(']).next().unwrap_or(label).trim_end()
        ),
        caption: format!("{}.", bars(&groups)),
        // Where they span much, as `wide` says.
        x: axis(label, if scale(&values) == Scale::Log { wide } else { Scale::Linear }),
        y: axis("robust accuracy (%)", Scale::Linear),
        series,
        bars: vec![],
    })
}
