//! A figure, drawn: grid and axes, bars, lines and markers, legend.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, VPos},
};

use super::{
    canvas::{
        Area, GAP, INK, MARK, MUTED, PAPER, RULE, Spot, colour, dashed, failed, fit, fonts, line,
        marker, measure, words,
    },
    frame::{Frame, height, legend_lines},
    plot::{Bar, Figure, Key, Point, Series, brief},
};
use crate::error::Result;

pub(super) fn draw<B: DrawingBackend>(figure: &Figure, area: &Area<B>) -> Result<Vec<Spot>> {
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

pub(super) fn draw_grid<B: DrawingBackend>(
    figure: &Figure,
    frame: &Frame,
    area: &Area<B>,
) -> Result<()> {
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

pub(super) fn draw_axes<B: DrawingBackend>(
    figure: &Figure,
    frame: &Frame,
    area: &Area<B>,
) -> Result<()> {
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
            named.map_or_else(|| brief(*tick), |names| fit(&names[at], frame.left - GAP - 6));
        let place = (frame.left - GAP, y);
        area.text(text, place, words(HPos::Right, VPos::Center))?;
    }
    let middle = i32::midpoint(frame.left, frame.right);
    let (under, wide) = (frame.bottom + GAP + 62, measure(&figure.x.label));
    // What names say stands under them; where that is long, the other axis' label makes room.
    let room = |start: i32| start - 3 * GAP;
    let named = figure.names().is_some();
    let narrow = named && measure(&figure.y.label) > room(middle - wide / 2);
    let start = if narrow { frame.right - wide } else { middle - wide / 2 };
    area.text(figure.x.label.clone(), (start, under), words(HPos::Left, VPos::Top))?;
    if named {
        let style = words(HPos::Left, VPos::Top).color(&MUTED);
        area.text(fit(&figure.y.label, room(start)), (GAP, under), style)?;
    } else {
        let style = words(HPos::Center, VPos::Top).transform(FontTransform::Rotate270);
        let beside = (4, i32::midpoint(frame.top, frame.bottom));
        area.text(figure.y.label.clone(), beside, style)?;
    }
    Ok(())
}

pub(super) fn draw_bar<B: DrawingBackend>(
    bar: &Bar,
    frame: &Frame,
    area: &Area<B>,
) -> Result<Spot> {
    let (left, right) = (frame.x(bar.from), frame.x(bar.to));
    let middle = frame.y(bar.line as f64, true);
    let corners = [(left, middle - 26), ((right - 3).max(left), middle + 26)];
    area.draw(&Rectangle::new(corners, colour(bar.hue).filled())).map_err(failed)?;
    Ok(Spot { area: (left, middle - 26, (right - left).max(4), 52), tip: bar.tip.clone() })
}

pub(super) fn draw_series<B: DrawingBackend>(
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

pub(super) fn draw_legend<B: DrawingBackend>(figure: &Figure, area: &Area<B>) -> Result<()> {
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
