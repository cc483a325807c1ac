//! A figure as data: drawn by `canvas`, typeset by `pgfplots`, listed by `html`.

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// File name without ending.
    pub name: String,
    /// What it shows, in a few words.
    pub title: String,
    /// What a reader needs to know: what bars mean, how many examples.
    pub caption: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Points and lines.
    pub series: Vec<Series>,
    /// Horizontal bars, for charts with categories down.
    pub bars: Vec<Bar>,
}

/// An axis with its label (unit included).
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Text beside it, with the unit.
    pub label: String,
    /// How values lie on it.
    pub scale: Scale,
}

/// How values lie on an axis.
#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    /// Evenly; the range is taken from the data.
    Linear,
    /// Evenly; ticks stand at the values themselves while they are few.
    Settings,
    /// Evenly over the whole range from 0 to 100.
    Percent,
    /// By logarithm; a zero stands left of the smallest value, behind a gap.
    Log,
    /// One line for each name, first on top; value `i` is the `i`-th.
    Names(Vec<String>),
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub label: String,
    /// Place in the palette.
    pub hue: Hue,
    /// Whether a line joins the points.
    pub joined: bool,
    /// Hollow markers and dashed lines: clean accuracy, by our convention.
    pub hollow: bool,
    /// The points, in drawing order.
    pub points: Vec<Point>,
}

/// Colours by role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hue {
    /// The `i`-th colour (and marker) of the palette.
    Series(usize),
    /// What is only there for reference.
    Grey,
    /// The quiet ground of a bar.
    Faint,
    /// What lies over colours.
    Ink,
}

/// A point with its interval and the exact words for hovering.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Horizontal value.
    pub x: f64,
    /// Vertical value.
    pub y: f64,
    /// Interval: along x where y has names, else along y.
    pub interval: Option<(f64, f64)>,
    /// What hovering says.
    pub tip: String,
}

/// A horizontal bar on the line of a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Which name.
    pub line: usize,
    /// Left end.
    pub from: f64,
    /// Right end.
    pub to: f64,
    /// Colour.
    pub hue: Hue,
    /// Name in the legend.
    pub label: String,
    /// What hovering says.
    pub tip: String,
}

/// An entry of a legend.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Name.
    pub label: String,
    /// Colour.
    pub hue: Hue,
    /// Hollow marker, dashed line.
    pub hollow: bool,
    /// Whether a line belongs to it.
    pub joined: bool,
    /// Whether it names a bar.
    pub bar: bool,
}

/// Okabe and Ito's colours (2008), readable to the colour-blind and in grey, best contrast first;
/// their yellow is left out because it vanishes on white.
pub const PALETTE: [(u8, u8, u8); 7] = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (120, 94, 60),
];

impl Figure {
    /// The entries of the legend, each once.
    pub fn legend(&self) -> Vec<Key> {
        let series = self.series.iter().map(|s| Key {
            label: s.label.clone(),
            hue: s.hue,
            hollow: s.hollow,
            joined: s.joined,
            bar: false,
        });
        let bars = self.bars.iter().map(|b| Key {
            label: b.label.clone(),
            hue: b.hue,
            hollow: false,
            joined: false,
            bar: true,
        });
        let mut found: Vec<Key> = Vec::new();
        for entry in series.chain(bars) {
            if !entry.label.is_empty() && !found.contains(&entry) {
                found.push(entry);
            }
        }
        found
    }

    /// The names down the vertical axis, if it has names.
    pub fn names(&self) -> Option<&[String]> {
        match &self.y.scale {
            Scale::Names(names) => Some(names),
            _ => None,
        }
    }
}

/// A number as an axis says it: `0`, `20`, `50K`, `1.5M`, `0.001`.
pub fn brief(value: f64) -> String {
    let trim = |text: String| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    };
    match value.abs() {
        size if size >= 1e9 => format!("{}G", trim(format!("{:.2}", value / 1e9))),
        size if size >= 1e6 => format!("{}M", trim(format!("{:.2}", value / 1e6))),
        size if size >= 1e4 => format!("{}K", trim(format!("{:.2}", value / 1e3))),
        size if size >= 1.0 || size == 0.0 => trim(format!("{value:.2}")),
        size if size >= 1e-3 => trim(format!("{value:.4}")),
        _ => format!("{value:.0e}"),
    }
}

/// Round values that cover `low..=high` in about `count` steps.
pub fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = (high - low).max(1e-9);
    let raw = span / count.max(1) as f64;
    let magnitude = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|factor| factor * magnitude)
        .into_iter()
        .find(|step| *step >= raw * 0.999)
        .unwrap_or(10.0 * magnitude);
    let (first, last) = ((low / step).floor() as i64, (high / step - 1e-9).ceil() as i64);
    (first..=last.max(first + 1)).map(|at| at as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_axes_are_short() {
        let texts = [0.0, 5.0, 2.5, 1000.0, 50_000.0, 1.5e6, 0.001, 1e-6].map(brief);
        assert_eq!(texts, ["0", "5", "2.5", "1000", "50K", "1.5M", "0.001", "1e-6"]);
    }

    #[test]
    fn ticks_are_round_and_cover() {
        assert_eq!(ticks(0.0, 100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(31.2, 48.0, 4), [30.0, 35.0, 40.0, 45.0, 50.0]);
        let same = ticks(3.0, 3.0, 4);
        assert!(same.len() >= 2 && same[0] <= 3.0 && *same.last().unwrap() >= 3.0, "{same:?}");
    }
}
