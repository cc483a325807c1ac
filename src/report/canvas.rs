//! Figures as SVG and PNG, by plotters with an embedded font.
//!
//! Both come from one drawing at 384 dots to the inch, 3.25 inches wide: a column of a paper. Text
//! is 8 points or more.

use std::sync::Once;

use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::plot::{Axis, Bar, Figure, Hue, Key, PALETTE, Point, Scale, Series, brief, ticks};
use crate::error::{Error, Result};

/// Dots across: 3.25 inches at 384 to the inch.
pub const WIDTH: u32 = 1248;
/// Text size that gives 8.25 points (plotters counts ascent and descent: 1.24 em).
const TEXT: f64 = 44.0 * 1.24;
/// Space between things.
const GAP: i32 = 18;
/// Half the size of a marker.
const MARK: i32 = 16;

/// Text and axes.
pub const INK: RGBColor = RGBColor(27, 31, 36);
/// What stands back.
pub const MUTED: RGBColor = RGBColor(139, 148, 158);
/// Lines of the grid.
pub const RULE: RGBColor = RGBColor(226, 230, 234);
/// Quiet bars.
pub const FAINT: RGBColor = RGBColor(208, 213, 219);
/// The ground.
pub const PAPER: RGBColor = RGBColor(255, 255, 255);

/// Where something can be hovered over: dots from the upper left corner, and what to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Spot {
    /// Left, top, width, height.
    pub area: (i32, i32, i32, i32),
    /// What hovering says.
    pub tip: String,
}

/// The SVG of `figure`, complete with hover texts.
///
/// # Errors
/// If plotters fails, which would be our mistake.
pub fn svg(figure: &Figure) -> Result<String> {
    let (mut text, height) = (String::new(), height(figure));
    let spots = {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        draw(figure, &Area { area, nudge: 0 })?
    };
    let hover: String = spots.iter().map(hover).collect();
    let label = escape(&format!("{}. {}", figure.title, figure.caption));
    // A size in inches, so that the file falls into a paper at the size it was made for.
    let old = format!("<svg width=\"{WIDTH}\" height=\"{height}\"");
    let new = format!(
        "<svg role=\"img\" aria-label=\"{label}\" width=\"3.25in\" height=\"{:.3}in\"",
        f64::from(height) / 384.0
    );
    let family = "font-family=\"DejaVu Sans, Verdana, sans-serif\"";
    Ok(text.replacen(&old, &new, 1).replace("font-family=\"sans-serif\"", family).replacen(
        "</svg>",
        &format!("{hover}</svg>"),
        1,
    ))
}

fn hover(spot: &Spot) -> String {
    let (x, y, width, height) = spot.area;
    format!(
        "<rect class=\"spot\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" \
         fill=\"transparent\"><title>{}</title></rect>\n",
        escape(&spot.tip)
    )
}

/// Text made safe for XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The PNG of `figure`, 384 dots to the inch.
///
/// # Errors
/// If plotters fails, which would be our mistake.
pub fn png(figure: &Figure) -> Result<Vec<u8>> {
    let height = height(figure);
    let mut pixels = vec![255; (WIDTH * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (WIDTH, height)).into_drawing_area();
        draw(figure, &Area { area, nudge: 10 })?;
    }
    super::picture::png(&pixels, WIDTH, height)
}

fn fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let plain = include_bytes!("fonts/DejaVuSans.ttf");
        let bold = include_bytes!("fonts/DejaVuSans-Bold.ttf");
        for (style, bytes) in [(FontStyle::Normal, &plain[..]), (FontStyle::Bold, &bold[..])] {
            register_font("sans-serif", style, bytes).ok().expect("the shipped font is whole");
        }
    });
}

/// Width of `text` in dots.
fn measure(text: &str) -> i32 {
    fonts();
    ("sans-serif", TEXT).into_font().box_size(text).map_or(0, |size| size.0 as i32)
}

fn height(figure: &Figure) -> u32 {
    let legend = legend_lines(figure).len() as i32 * 62;
    let body = figure.names().map_or(700, |names| 78 * names.len() as i32 + 40);
    (legend + body + 2 * 62 + 4 * GAP + 10) as u32
}

/// The plot's frame and how values map onto it.
struct Frame {
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
    x: Mapping,
    y: Mapping,
}

struct Mapping {
    low: f64,
    high: f64,
    zero: Option<f64>,
    log: bool,
    ticks: Vec<f64>,
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
                Self { low: 0.0, high: 100.0, zero: None, log: false, ticks: ticks(0.0, 100.0, 5) }
            }
            Scale::Linear => Self::linear(values, room),
            Scale::Log => Self::log(values, room),
        }
    }

    fn linear(values: &[f64], room: usize) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low.is_finite() { (low, high) } else { (0.0, 1.0) };
        let ticks = ticks(low, high, room);
        Self { low: ticks[0], high: ticks[ticks.len() - 1], zero: None, log: false, ticks }
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
        let mut ticks = if positive.len() <= room {
            positive
        } else {
            (first.ceil() as i32..=last.floor() as i32).map(|power| 10f64.powi(power)).collect()
        };
        if zero.is_some() {
            ticks.insert(0, 0.0);
        }
        let low = zero.unwrap_or(first) - 0.07 * span;
        Self { low, high: last + 0.07 * span, zero, log: true, ticks }
    }
}

impl Frame {
    fn of(figure: &Figure, height: u32) -> Self {
        let named = figure.names().is_some();
        let along = |point: &Point, own: f64, interval: bool| match point.interval {
            Some((low, high)) if interval => vec![own, low, high],
            _ => vec![own],
        };
        let points = || figure.series.iter().flat_map(|series| &series.points);
        let mut xs: Vec<f64> = points().flat_map(|p| along(p, p.x, named)).collect();
        xs.extend(figure.bars.iter().flat_map(|bar| [bar.from, bar.to]));
        let ys: Vec<f64> = points().flat_map(|p| along(p, p.y, !named)).collect();
        let x = Mapping::of(&figure.x, &xs, 5);
        let y = Mapping::of(&figure.y, &ys, 5);
        let labels = match figure.names() {
            Some(names) => names.iter().map(|name| measure(name)).max().unwrap_or(0),
            None => 62 + y.ticks.iter().map(|tick| measure(&brief(*tick))).max().unwrap_or(0),
        };
        let left = labels.min(WIDTH as i32 * 48 / 100) + 2 * GAP;
        let last = x.ticks.last().map_or(0, |tick| measure(&brief(*tick)));
        let top = 2 * GAP + legend_lines(figure).len() as i32 * 62;
        let bottom = height as i32 - 2 * 62 - GAP;
        Self { left, right: WIDTH as i32 - GAP - last / 2, top, bottom, x, y }
    }

    fn x(&self, value: f64) -> i32 {
        self.left + (self.x.share(value) * f64::from(self.right - self.left)).round() as i32
    }

    /// Names run downwards, numbers upwards.
    fn y(&self, value: f64, named: bool) -> i32 {
        let down = self.y.share(value) * f64::from(self.bottom - self.top);
        if named { self.top + down.round() as i32 } else { self.bottom - down.round() as i32 }
    }
}

/// What is drawn on.
struct Area<B: DrawingBackend> {
    area: DrawingArea<B, Shift>,
    /// How far down text must be moved: bitmaps centre the whole line height, SVG the letters.
    nudge: i32,
}

impl<B: DrawingBackend> Area<B> {
    fn draw<E>(
        &self,
        element: &E,
    ) -> std::result::Result<(), plotters::drawing::DrawingAreaErrorKind<B::ErrorType>>
    where
        for<'a> &'a E: plotters::element::PointCollection<'a, (i32, i32)>,
        E: plotters::element::Drawable<B>,
    {
        self.area.draw(element)
    }

    fn text(&self, text: impl Into<String>, (x, y): (i32, i32), style: TextStyle) -> Result<()> {
        let place = match style.font.get_transform() {
            FontTransform::None => (x, y + self.nudge),
            _ => (x + self.nudge, y),
        };
        self.area.draw(&Text::new(text.into(), place, style)).map_err(failed)
    }
}

fn failed<E: std::error::Error + Send + Sync>(
    error: plotters::drawing::DrawingAreaErrorKind<E>,
) -> Error {
    Error::input(format!("a plot cannot be drawn: {error}"))
}

fn words(anchor: HPos, middle: VPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", TEXT).into_font()).color(&INK).pos(Pos::new(anchor, middle))
}

fn colour(hue: Hue) -> RGBColor {
    match hue {
        Hue::Series(index) => {
            let (r, g, b) = PALETTE[index % PALETTE.len()];
            RGBColor(r, g, b)
        }
        Hue::Grey => MUTED,
        Hue::Faint => FAINT,
    }
}

fn draw<B: DrawingBackend>(figure: &Figure, area: &Area<B>) -> Result<Vec<Spot>> {
    fonts();
    let frame = Frame::of(figure, height(figure));
    area.area.fill(&PAPER).map_err(failed)?;
    let mut spots = Vec::new();
    draw_grid(figure, &frame, area)?;
    for bar in &figure.bars {
        spots.push(draw_bar(bar, &frame, area)?);
    }
    draw_axes(figure, &frame, area)?;
    let named = figure.names().is_some();
    for series in &figure.series {
        draw_series(series, &frame, named, area)?;
    }
    for point in figure.series.iter().flat_map(|series| &series.points) {
        let (x, y) = (frame.x(point.x), frame.y(point.y, named));
        let area = (x - 2 * MARK, y - 2 * MARK, 4 * MARK, 4 * MARK);
        spots.push(Spot { area, tip: point.tip.clone() });
    }
    draw_legend(figure, area)?;
    area.area.present().map_err(failed)?;
    Ok(spots)
}

fn line<B: DrawingBackend>(
    area: &Area<B>,
    from: (i32, i32),
    to: (i32, i32),
    style: ShapeStyle,
) -> Result<()> {
    area.draw(&PathElement::new(vec![from, to], style)).map_err(failed)
}

fn draw_grid<B: DrawingBackend>(figure: &Figure, frame: &Frame, area: &Area<B>) -> Result<()> {
    let rule = RULE.stroke_width(3);
    for tick in &frame.x.ticks {
        let x = frame.x(*tick);
        line(area, (x, frame.top), (x, frame.bottom), rule)?;
    }
    if figure.names().is_none() {
        for tick in &frame.y.ticks {
            let y = frame.y(*tick, false);
            line(area, (frame.left, y), (frame.right, y), rule)?;
        }
    }
    Ok(())
}

fn draw_axes<B: DrawingBackend>(figure: &Figure, frame: &Frame, area: &Area<B>) -> Result<()> {
    let ink = INK.stroke_width(4);
    line(area, (frame.left, frame.bottom), (frame.right, frame.bottom), ink)?;
    line(area, (frame.left, frame.top), (frame.left, frame.bottom), ink)?;
    let mut free = i32::MIN;
    for tick in &frame.x.ticks {
        let (x, text) = (frame.x(*tick), brief(*tick));
        let half = measure(&text) / 2;
        line(area, (x, frame.bottom), (x, frame.bottom + 10), ink)?;
        // A label that would touch its neighbour is left out; its tick stays.
        if x - half > free {
            let style = words(HPos::Center, VPos::Top);
            area.text(text, (x, frame.bottom + GAP), style)?;
            free = x + half + GAP;
        }
    }
    for (at, tick) in frame.y.ticks.iter().enumerate() {
        let named = figure.names();
        let y = frame.y(*tick, named.is_some());
        let text =
            named.map_or_else(|| brief(*tick), |names| fit(&names[at], frame.left - 2 * GAP));
        let place = (frame.left - GAP, y);
        area.text(text, place, words(HPos::Right, VPos::Center))?;
    }
    let middle = i32::midpoint(frame.left, frame.right);
    let under = (middle, frame.bottom + GAP + 62);
    let style = words(HPos::Center, VPos::Top);
    area.text(figure.x.label.clone(), under, style)?;
    if figure.names().is_some() {
        // What the names say, under them.
        let room = middle - measure(&figure.x.label) / 2 - 3 * GAP;
        let style = words(HPos::Left, VPos::Top).color(&MUTED);
        area.text(fit(&figure.y.label, room), (GAP, under.1), style)?;
    } else {
        let style = words(HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
        let beside = (4, i32::midpoint(frame.top, frame.bottom));
        area.text(figure.y.label.clone(), beside, style)?;
    }
    Ok(())
}

/// `text`, shortened in its middle to `room` dots: cells differ at both ends.
fn fit(text: &str, room: i32) -> String {
    let letters: Vec<char> = text.chars().collect();
    for keep in (4..=letters.len()).rev() {
        let short = if keep == letters.len() {
            text.to_owned()
        } else {
            let (head, tail) = (keep.div_ceil(2), keep / 2);
            let ends = [&letters[..head], &['…'], &letters[letters.len() - tail..]];
            ends.concat().into_iter().collect()
        };
        if measure(&short) <= room {
            return short;
        }
    }
    letters.into_iter().take(4).collect()
}

fn draw_bar<B: DrawingBackend>(bar: &Bar, frame: &Frame, area: &Area<B>) -> Result<Spot> {
    let (left, right) = (frame.x(bar.from), frame.x(bar.to));
    let middle = frame.y(bar.line as f64, true);
    let corners = [(left, middle - 26), ((right - 3).max(left), middle + 26)];
    area.draw(&Rectangle::new(corners, colour(bar.hue).filled())).map_err(failed)?;
    Ok(Spot { area: (left, middle - 26, (right - left).max(4), 52), tip: bar.tip.clone() })
}

fn draw_series<B: DrawingBackend>(
    series: &Series,
    frame: &Frame,
    named: bool,
    area: &Area<B>,
) -> Result<()> {
    let tint = colour(series.hue);
    let place = |point: &Point| (frame.x(point.x), frame.y(point.y, named));
    if series.joined {
        for pair in series.points.windows(2) {
            let (from, to) = (place(&pair[0]), place(&pair[1]));
            if series.hollow {
                dashed(area, from, to, tint.stroke_width(5))?;
            } else {
                line(area, from, to, tint.stroke_width(6))?;
            }
        }
    }
    for point in &series.points {
        let (x, y) = place(point);
        if let Some((low, high)) = point.interval {
            let ends = if named {
                [(frame.x(low), y), (frame.x(high), y)]
            } else {
                [(x, frame.y(low, false)), (x, frame.y(high, false))]
            };
            line(area, ends[0], ends[1], tint.stroke_width(5))?;
            for (x, y) in ends {
                let cap = if named { [(x, y - 9), (x, y + 9)] } else { [(x - 9, y), (x + 9, y)] };
                line(area, cap[0], cap[1], tint.stroke_width(5))?;
            }
        }
        // Long curves are lines; markers would hide them.
        if !series.joined || series.points.len() <= 24 {
            // Small where the interval lies beside the marker and must not hide behind it.
            let size = if named { MARK * 5 / 8 } else { MARK };
            marker(area, (x, y), size, (series.hue, series.hollow))?;
        }
    }
    Ok(())
}

fn dashed<B: DrawingBackend>(
    area: &Area<B>,
    from: (i32, i32),
    to: (i32, i32),
    style: ShapeStyle,
) -> Result<()> {
    let (dx, dy) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
    let length = dx.hypot(dy);
    let at = |along: f64| {
        let share = (along / length.max(1.0)).min(1.0);
        (from.0 + (dx * share).round() as i32, from.1 + (dy * share).round() as i32)
    };
    let mut along = 0.0;
    while along < length {
        line(area, at(along), at(along + 22.0), style)?;
        along += 38.0;
    }
    Ok(())
}

/// The marker of a series: colour and shape say the same, for print in grey.
fn marker<B: DrawingBackend>(
    area: &Area<B>,
    (x, y): (i32, i32),
    m: i32,
    (hue, hollow): (Hue, bool),
) -> Result<()> {
    let tint = colour(hue);
    let d = m * 4 / 3;
    let shape = match hue {
        Hue::Series(index) => index % 5,
        Hue::Grey | Hue::Faint => 5,
    };
    let corners = match shape {
        1 => vec![(x - m, y - m), (x + m, y - m), (x + m, y + m), (x - m, y + m)],
        2 => vec![(x, y - d), (x + d, y + m), (x - d, y + m)],
        3 => vec![(x, y - d), (x + d, y), (x, y + d), (x - d, y)],
        4 => vec![(x, y + d), (x + d, y - m), (x - d, y - m)],
        _ => {
            let size = if shape == 5 { m / 2 } else { m };
            let ground = if hollow { PAPER } else { tint };
            area.draw(&Circle::new((x, y), size, ground.filled())).map_err(failed)?;
            return area.draw(&Circle::new((x, y), size, tint.stroke_width(5))).map_err(failed);
        }
    };
    if !hollow {
        return area.draw(&Polygon::new(corners, tint.filled())).map_err(failed);
    }
    area.draw(&Polygon::new(corners.clone(), PAPER.filled())).map_err(failed)?;
    // Once more along the first edge, so that the last corner is closed.
    let around: Vec<_> = corners.iter().chain(&corners[..2]).copied().collect();
    area.draw(&PathElement::new(around, tint.stroke_width(5))).map_err(failed)
}

/// The legend's entries, broken into lines that fit the width.
fn legend_lines(figure: &Figure) -> Vec<Vec<Key>> {
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

fn draw_legend<B: DrawingBackend>(figure: &Figure, area: &Area<B>) -> Result<()> {
    for (at, entries) in legend_lines(figure).into_iter().enumerate() {
        let y = 31 + at as i32 * 62;
        let mut x = GAP;
        for Key { label, hue, hollow, joined, bar } in entries {
            if bar {
                let corners = [(x, y - 18), (x + 44, y + 18)];
                area.draw(&Rectangle::new(corners, colour(hue).filled())).map_err(failed)?;
            } else {
                let tint = colour(hue).stroke_width(5);
                if joined && hollow {
                    dashed(area, (x, y), (x + 60, y), tint)?;
                } else if joined {
                    line(area, (x, y), (x + 60, y), tint)?;
                }
                marker(area, (x + 30, y), MARK, (hue, hollow))?;
            }
            let width = measure(&label);
            let style = words(HPos::Left, VPos::Center);
            area.text(label, (x + 74, y), style)?;
            x += 74 + width + 2 * GAP;
        }
    }
    Ok(())
}
