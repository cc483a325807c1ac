//! Learning curves: one plot for each training, over its seeds.

use super::{
    figures::{axis, file_name},
    input::Curve,
    plot::{Figure, Hue, Point, Scale, Series, brief},
};
use crate::leaderboard::statistics::{Spread, spread};

/// One figure for each training; seeds of the same setting are averaged.
pub(super) fn learning(curves: &[Curve]) -> Vec<Figure> {
    let mut trainings: Vec<Vec<&Curve>> = Vec::new();
    for curve in curves {
        let same = |other: &Curve| {
            let key = |one: &Curve| (one.title.clone(), one.setting.clone(), one.x_label.clone());
            curve.seed.is_some() && key(curve) == key(other) && other.seed != curve.seed
        };
        match trainings.iter_mut().find(|known| known.iter().all(|other| same(other))) {
            Some(known) => known.push(curve),
            None => trainings.push(vec![curve]),
        }
    }
    trainings.iter().enumerate().map(|(at, seeds)| figure(at, seeds)).collect()
}

fn figure(at: usize, seeds: &[&Curve]) -> Figure {
    let first = seeds[0];
    let title = match (seeds, first.seed) {
        ([_], Some(seed)) => format!("{}, seed {seed}", first.title),
        ([_], None) => first.title.clone(),
        _ => format!("{}, {} seeds", first.title, seeds.len()),
    };
    let mut notes = Vec::new();
    if !first.setting.is_empty() {
        notes.push(format!("Cell: {}.", first.setting));
    }
    if seeds.len() > 1 {
        notes.push("Means over seeds; bars: sample standard deviation.".to_owned());
    }
    let mut labels: Vec<&String> = Vec::new();
    for (label, _) in seeds.iter().flat_map(|curve| &curve.lines) {
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    let series = labels.iter().enumerate().map(|(hue, label)| Series {
        label: (*label).clone(),
        hue: Hue::Series(hue),
        joined: true,
        hollow: false,
        points: points(seeds, label),
    });
    Figure {
        name: format!("curve-{:02}-{}", at + 1, file_name(&title)),
        series: series.collect(),
        title,
        caption: notes.join(" "),
        x: axis(&first.x_label, Scale::Settings),
        y: axis(&first.y_label, Scale::Linear),
        bars: vec![],
    }
}

fn points(seeds: &[&Curve], label: &str) -> Vec<Point> {
    let lines = seeds.iter().flat_map(|curve| &curve.lines).filter(|(own, _)| own == label);
    let mut all: Vec<(f64, f64)> = lines.flat_map(|(_, points)| points.iter().copied()).collect();
    all.retain(|(x, y)| x.is_finite() && y.is_finite());
    // Stable, so that seeds stay in order at every place.
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let places: Vec<&[(f64, f64)]> = all.chunk_by(|a, b| a.0 == b.0).collect();
    thinned(&places).map(|place| point(place, label, &seeds[0].x_label)).collect()
}

fn point(place: &[(f64, f64)], label: &str, along: &str) -> Point {
    let x = place[0].0;
    let values: Vec<f64> = place.iter().map(|(_, y)| *y).collect();
    let Spread { mean, deviation, count } = spread(&values).expect("a place has points");
    let seeds = match deviation {
        Some(deviation) => format!(" ± {deviation:.4} over {count} seeds"),
        None => String::new(),
    };
    Point {
        x,
        y: mean,
        interval: deviation.map(|deviation| (mean - deviation, mean + deviation)),
        tip: format!("{label}, {along} {}: {mean:.4}{seeds}", brief(x)),
    }
}

/// Points of a learning curve: more than this, and a column of a paper has fewer dots.
const CURVE: usize = 200;

/// Every `k`-th place and the last, so that a column holds them.
fn thinned<T>(places: &[T]) -> impl Iterator<Item = &T> {
    let step = places.len().div_ceil(CURVE).max(1);
    let kept = move |at: &usize| at.is_multiple_of(step) || at + 1 == places.len();
    (0..places.len()).filter(kept).map(|at| &places[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_one_setting_share_a_plot_and_others_do_not() {
        let curve = |setting: &str, seed: u64, y: f64| Curve {
            title: "train".into(),
            setting: setting.into(),
            seed: Some(seed),
            x_label: "epoch".into(),
            y_label: "accuracy (%)".into(),
            lines: vec![("clean".into(), vec![(1.0, y), (2.0, y + 10.0)])],
        };
        let curves = [
            curve("a", 0, 40.0),
            curve("a", 1, 44.0),
            curve("b", 0, 50.0),
            // The same training twice is not a repetition.
            curve("b", 0, 60.0),
        ];
        let figures = learning(&curves);
        assert_eq!(figures.len(), 3);
        assert!(figures[0].title.ends_with("2 seeds"), "{}", figures[0].title);
        let point = &figures[0].series[0].points[1];
        assert_eq!((point.x, point.y), (2.0, 52.0));
        let (low, high) = point.interval.unwrap();
        assert!((high - low - 2.0 * 8f64.sqrt()).abs() < 1e-9, "{low} {high}");
        assert_eq!(figures[1].series[0].points[0].interval, None);
        assert!(figures[1].caption.contains("Cell: b"));
    }

    #[test]
    fn long_curves_are_thinned_to_their_end() {
        let places: Vec<usize> = (0..1003).collect();
        let kept: Vec<_> = thinned(&places).collect();
        assert!(kept.len() <= CURVE + 1 && kept.first() == Some(&&0), "{}", kept.len());
        assert_eq!(kept.last(), Some(&&1002));
    }
}
