//! Figures as SVG and PNG, by plotters with an embedded font, and the strokes they consist of.
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

use super::{
    draw::draw,
    frame::height,
    plot::{Figure, Hue, PALETTE},
};
use crate::error::{Error, Result};

/// Dots across: 3.25 inches at 384 to the inch.
pub const WIDTH: u32 = 1248;

/// Text size that gives 8.25 points (plotters counts ascent and descent: 1.24 em).
pub(super) const TEXT: f64 = 44.0 * 1.24;

/// Space between things.
pub(super) const GAP: i32 = 18;

/// Half the size of a marker.
pub(super) const MARK: i32 = 16;

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
    let family = "font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"44\" fill=\"none\"";
    let text = lean(&text).replacen(&old, &format!("{new} {family}"), 1);
    Ok(text.replacen("</svg>", &format!("{hover}</svg>"), 1))
}

/// The drawing without what the root says for all of it, or what is so anyway: two fifths.
fn lean(svg: &str) -> String {
    let mut text = svg.to_owned();
    for idle in [
        " opacity=\"1\"",
        " fill=\"none\"",
        " stroke=\"none\" stroke-width=\"1\"",
        " stroke=\"none\"",
        " font-family=\"sans-serif\"",
        " font-size=\"44\"",
    ] {
        text = text.replace(idle, "");
    }
    text.replace(" \"/>", "\"/>").replace("\">\n", "\">").replace("\n</text>", "</text>")
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

pub(super) fn fonts() {
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
pub(super) fn measure(text: &str) -> i32 {
    fonts();
    ("sans-serif", TEXT).into_font().box_size(text).map_or(0, |size| size.0 as i32)
}

/// What is drawn on.
pub(super) struct Area<B: DrawingBackend> {
    pub(super) area: DrawingArea<B, Shift>,
    /// How far down text must be moved: bitmaps centre the whole line height, SVG the letters.
    nudge: i32,
}

impl<B: DrawingBackend> Area<B> {
    pub(super) fn draw<E>(
        &self,
        element: &E,
    ) -> std::result::Result<(), plotters::drawing::DrawingAreaErrorKind<B::ErrorType>>
    where
        for<'a> &'a E: plotters::element::PointCollection<'a, (i32, i32)>,
        E: plotters::element::Drawable<B>,
    {
        self.area.draw(element)
    }

    pub(super) fn text(
        &self,
        text: impl Into<String>,
        (x, y): (i32, i32),
        style: TextStyle,
    ) -> Result<()> {
        let place = match style.font.get_transform() {
            FontTransform::None => (x, y + self.nudge),
            _ => (x + self.nudge, y),
        };
        self.area.draw(&Text::new(text.into(), place, style)).map_err(failed)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(super) fn failed<E: std::error::Error + Send + Sync>(
    error: plotters::drawing::DrawingAreaErrorKind<E>,
) -> Error {
    Error::input(format!("a plot cannot be drawn: {error}"))
}

pub(super) fn words(anchor: HPos, middle: VPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", TEXT).into_font()).color(&INK).pos(Pos::new(anchor, middle))
}

pub(super) fn colour(hue: Hue) -> RGBColor {
    match hue {
        Hue::Series(index) => {
            let (r, g, b) = PALETTE[index % PALETTE.len()];
            RGBColor(r, g, b)
        }
        Hue::Grey => MUTED,
        Hue::Faint => FAINT,
        Hue::Ink => INK,
    }
}

pub(super) fn line<B: DrawingBackend>(
    area: &Area<B>,
    from: (i32, i32),
    to: (i32, i32),
    style: ShapeStyle,
) -> Result<()> {
    area.draw(&PathElement::new(vec![from, to], style)).map_err(failed)
}

/// `text`, shortened in its middle to `room` dots: cells differ at both ends.
pub(super) fn fit(text: &str, room: i32) -> String {
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

pub(super) fn dashed<B: DrawingBackend>(
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
pub(super) fn marker<B: DrawingBackend>(
    area: &Area<B>,
    (x, y): (i32, i32),
    m: i32,
    (hue, hollow): (Hue, bool),
) -> Result<()> {
    let tint = colour(hue);
    let d = m * 4 / 3;
    let shape = match hue {
        Hue::Series(index) => index % 5,
        Hue::Grey | Hue::Faint | Hue::Ink => 5,
    };
    let corners: Vec<(i32, i32)> = match shape {
        1 => vec![(-m, -m), (m, -m), (m, m), (-m, m)],
        2 => vec![(0, -d), (d, m), (-d, m)],
        3 => vec![(0, -d), (d, 0), (0, d), (-d, 0)],
        4 => vec![(0, d), (d, -m), (-d, -m)],
        _ => {
            let size = if shape == 5 { m / 2 } else { m };
            let ground = if hollow { PAPER } else { tint };
            area.draw(&Circle::new((x, y), size, ground.filled())).map_err(failed)?;
            return area.draw(&Circle::new((x, y), size, tint.stroke_width(5))).map_err(failed);
        }
    };
    let fill = |percent: i32, ground: RGBColor| {
        let corners = corners.iter().map(|(a, b)| (x + a * percent / 100, y + b * percent / 100));
        area.draw(&Polygon::new(corners.collect::<Vec<_>>(), ground.filled())).map_err(failed)
    };
    if !hollow {
        return fill(100, tint);
    }
    // A smaller one on a larger one: a thick line around would lack what it passes twice.
    fill(112, tint)?;
    fill(72, PAPER)
}
