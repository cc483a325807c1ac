//! Where things lie in a plot: room for words, and how values map onto dots.

use super::{
    canvas::{GAP, WIDTH, measure},
    plot::{Axis, Figure, Key, Point, Scale, brief, ticks},
};

pub(super) fn height(figure: &Figure) -> u32 {
    let legend = legend_lines(figure).len() as i32 * 62;
    let body = figure.names().map_or(700, |names| 78 * names.len() as i32 + 40);
    (legend + body + 2 * 62 + 4 * GAP + 10) as u32
}

/// The plot's frame and how values map onto it.
pub(super) struct Frame {
    pub(super) left: i32,
    pub(super) right: i32,
    pub(super) top: i32,
    pub(super) bottom: i32,
    pub(super) x: Mapping,
    pub(super) y: Mapping,
}

pub(super) struct Mapping {
    low: f64,
    high: f64,
    zero: Option<f64>,
    log: bool,
    pub(super) ticks: Vec<f64>,
}

impl Mapping {
    fn share(&self, value: f64) -> f64 {
        (self.inner(value) - self.low) / (self.high - self.low)
    }

    fn inner(&self, value: f64) -> f64 {
        match (self.log, self.zero) {
            (true, Some(zero)) if value <= 0.0 => zero,
            (true, _) => value.max(1e-300).log10(),
            _ => value,
        }
    }

    fn of(axis: &Axis, values: &[f64], room: usize) -> Self {
        match &axis.scale {
            Scale::Names(names) => {
                let ticks = (0..names.len()).map(|i| i as f64).collect();
                let high = names.len() as f64 - 0.5;
                Self { low: -0.5, high, zero: None, log: false, ticks }
            }
            Scale::Percent => {
                let ticks = ticks(0.0, 100.0, room);
                Self { low: 0.0, high: 100.0, zero: None, log: false, ticks }
            }
            Scale::Linear => Self::linear(values, room),
            Scale::Settings => Self::settings(values, room),
            Scale::Log => Self::log(values, room),
        }
    }

    fn linear(values: &[f64], room: usize) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = match high - low {
            _ if !low.is_finite() => (0.0, 1.0),
            // All the same: a tenth around it.
            span if span < 1e-9 * high.abs().max(1e-9) => {
                let around = (0.1 * high.abs()).max(1e-6);
                (low - around, high + around)
            }
            _ => (low, high),
        };
        let ticks = ticks(low, high, room);
        Self { low: ticks[0], high: ticks[ticks.len() - 1], zero: None, log: false, ticks }
    }

    /// Ticks stand at the values while they are few, and at whole numbers where they are whole;
    /// nothing lies on the frame.
    fn settings(values: &[f64], room: usize) -> Self {
        let mut own: Vec<f64> = values.to_vec();
        own.sort_by(f64::total_cmp);
        own.dedup();
        let [low, .., high] = own[..] else { return Self::linear(values, room) };
        let edge = 0.04 * (high - low);
        let (low, high) = (low - edge, high + edge);
        let whole = own.iter().all(|value| value.fract() == 0.0);
        let mut marks = if own.len() <= room + 1 { own } else { ticks(low, high, room) };
        marks.retain(|tick| (low..=high).contains(tick) && (!whole || tick.fract() == 0.0));
        Self { low, high, zero: None, log: false, ticks: marks }
    }

    /// Ticks stand at the measured values while they are few, else at powers of ten.
    fn log(values: &[f64], room: usize) -> Self {
        let mut positive: Vec<f64> = values.iter().copied().filter(|v| *v > 0.0).collect();
        positive.sort_by(f64::total_cmp);
        positive.dedup();
        let first = positive.first().map_or(0.0, |v| v.log10());
        let last = positive.last().map_or(1.0, |v| v.log10());
        let span = (last - first).max(0.3);
        let zero = values.iter().any(|v| *v <= 0.0).then_some(first - 0.25 * span);
        let mut ticks = if positive.len() <= room { positive } else { ladder(first, last) };
        if zero.is_some() {
            ticks.insert(0, 0.0);
        }
        let low = zero.unwrap_or(first) - 0.07 * span;
        Self { low, high: last + 0.07 * span, zero, log: true, ticks }
    }
}

/// Round values between two powers of ten: the powers themselves, or 1, 2 and 5 times them while
/// those are few.
fn ladder(first: f64, last: f64) -> Vec<f64> {
    let steps = |factors: &[f64]| -> Vec<f64> {
        let powers = first.floor() as i32..=last.ceil() as i32;
        let values = powers.flat_map(|power| factors.iter().map(move |f| f * 10f64.powi(power)));
        values.filter(|value| (first..=last).contains(&value.log10())).collect()
    };
    let powers = steps(&[1.0]);
    if powers.len() < 3 { steps(&[1.0, 2.0, 5.0]) } else { powers }
}

impl Frame {
    pub(super) fn of(figure: &Figure, height: u32) -> Self {
        let named = figure.names().is_some();
        let along = |point: &Point, own: f64, interval: bool| match point.interval {
            Some((low, high)) if interval => vec![own, low, high],
            _ => vec![own],
        };
        let points = || figure.series.iter().flat_map(|series| &series.points);
        let mut xs: Vec<f64> = points().flat_map(|p| along(p, p.x, named)).collect();
        xs.extend(figure.bars.iter().flat_map(|bar| [bar.from, bar.to]));
        let ys: Vec<f64> = points().flat_map(|p| along(p, p.y, !named)).collect();
        let x = Mapping::of(&figure.x, &xs, if named { 4 } else { 5 });
        // A logarithmic axis of measured values has round ticks, one of settings has the settings.
        let y = Mapping::of(&figure.y, &ys, if figure.y.scale == Scale::Log { 0 } else { 5 });
        let labels = match figure.names() {
            Some(names) => names.iter().map(|name| measure(name)).max().unwrap_or(0),
            None => 62 + y.ticks.iter().map(|tick| measure(&brief(*tick))).max().unwrap_or(0),
        };
        let left = labels.min(WIDTH as i32 * 57 / 100) + 2 * GAP;
        let last = x.ticks.last().map_or(0, |tick| measure(&brief(*tick)));
        let top = 2 * GAP + legend_lines(figure).len() as i32 * 62;
        let bottom = height as i32 - 2 * 62 - GAP;
        Self { left, right: WIDTH as i32 - GAP - last / 2, top, bottom, x, y }
    }

    pub(super) fn x(&self, value: f64) -> i32 {
        self.left + (self.x.share(value) * f64::from(self.right - self.left)).round() as i32
    }

    /// Names run downwards, numbers upwards.
    pub(super) fn y(&self, value: f64, named: bool) -> i32 {
        let down = self.y.share(value) * f64::from(self.bottom - self.top);
        if named { self.top + down.round() as i32 } else { self.bottom - down.round() as i32 }
    }
}

/// The legend's entries, broken into lines that fit the width.
pub(super) fn legend_lines(figure: &Figure) -> Vec<Vec<Key>> {
    let entries = figure.legend();
    if entries.len() < 2 {
        return Vec::new();
    }
    let mut lines: Vec<Vec<_>> = vec![Vec::new()];
    let mut used = 0;
    for entry in entries {
        let width = 70 + measure(&entry.label) + 2 * GAP;
        if used > 0 && used + width > WIDTH as i32 {
            lines.push(Vec::new());
            used = 0;
        }
        used += width;
        lines.last_mut().expect("one line at least").push(entry);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_of_settings_have_the_settings_as_ticks() {
        let epochs = Mapping::settings(&[1.0, 2.0, 3.0, 2.0], 5);
        assert_eq!(epochs.ticks, [1.0, 2.0, 3.0]);
        assert!(epochs.share(1.0) > 0.0 && epochs.share(3.0) < 1.0);
        let many: Vec<f64> = (1..=40).map(f64::from).collect();
        assert_eq!(Mapping::settings(&many, 5).ticks, [0.0, 10.0, 20.0, 30.0, 40.0]);
        let few: Vec<f64> = (1..=8).map(f64::from).collect();
        assert_eq!(Mapping::settings(&few, 5).ticks, [2.0, 4.0, 6.0, 8.0]);
        let same = Mapping::linear(&[22.17, 22.17], 5);
        assert!(same.low < 22.0 && same.high > 22.3, "{:?}", same.ticks);
    }

    #[test]
    fn logarithmic_axes_have_round_ticks_enough() {
        assert_eq!(ladder(0.7f64.log10(), 25f64.log10()), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(ladder(3.0, 6.0), [1e3, 1e4, 1e5, 1e6]);
    }
}
