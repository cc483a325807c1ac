//! The report as one HTML file that needs nothing else: no network, no files beside it.
//!
//! The template escapes whatever comes from data; only SVG drawn by us passes as it is.

use minijinja::{Environment, context};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    leaderboard::{Row, frame, row::short_axis},
    units::Tally,
};

use super::{
    beside::{PublishedTable, published},
    canvas,
    cells::{CellPage, cells, duration},
    input::Input,
    overfit, picture,
    pivot::{self, Part, Pivot},
    plot::Figure,
    seeds::{self, Best, Setting},
    table::{accuracy, leaderboard, ranked, value_text, varying},
    write::warnings,
};

/// The whole page.
///
/// # Errors
/// If an image's bytes do not fit its size, or the template fails, which would be our mistake.
pub fn page(input: &Input, figures: &[Figure], pivots: &[Pivot]) -> Result<String> {
    let mut environment = Environment::new();
    let failed =
        |error: minijinja::Error| Error::input(format!("the report's template: {error:#}"));
    // Between tags a quotation mark is harmless; specs are full of them.
    environment.add_filter("text", |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        minijinja::Value::from_safe_string(text)
    });
    environment.add_template("report.html", include_str!("template.html")).map_err(failed)?;
    let template = environment.get_template("report.html").map_err(failed)?;
    let page = Page::of(input, figures, pivots)?;
    let style = include_str!("style.css");
    template.render(context! { page => minijinja::value::Serde(page), style, script => include_str!("script.js") }).map_err(failed)
}

#[derive(Serialize)]
struct Page {
    title: String,
    suite: String,
    file: String,
    description: String,
    small_scale: bool,
    best: Vec<Card>,
    verdicts: Vec<String>,
    warnings: Vec<Warning>,
    shared: String,
    columns: Vec<Column>,
    lines: Vec<Vec<Cell>>,
    csv: String,
    json: String,
    pivots: Vec<PivotTable>,
    pivot_note: String,
    overfit: Option<Overfit>,
    published: Vec<PublishedTable>,
    figures: Vec<Plot>,
    grids: Vec<Sheet>,
    cells: Vec<CellPage>,
    command: String,
    versions: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Card {
    rank: usize,
    name: String,
    threat: String,
    dataset: String,
    percent: String,
    exact: String,
    whisker: String,
}

#[derive(Serialize)]
struct Warning {
    text: String,
    places: Vec<String>,
}

#[derive(Serialize)]
struct Column {
    key: String,
    name: String,
    class: &'static str,
}

#[derive(Serialize, Default)]
struct Cell {
    text: String,
    extra: String,
    html: String,
    link: String,
    value: String,
    class: &'static str,
}

#[derive(Serialize)]
struct Overfit {
    title: &'static str,
    note: &'static str,
    words: usize,
    header: Vec<String>,
    lines: Vec<Vec<String>>,
}

#[derive(Serialize)]
struct PivotTable {
    title: String,
    names: Vec<String>,
    header: Vec<String>,
    lines: Vec<PivotLine>,
}

#[derive(Serialize)]
struct PivotLine {
    names: Vec<String>,
    figures: Vec<Cell>,
}

#[derive(Serialize)]
struct Plot {
    name: String,
    title: String,
    caption: String,
    svg: String,
    tips: Vec<String>,
}

#[derive(Serialize)]
struct Sheet {
    title: String,
    caption: String,
    columns: usize,
    /// On a phone: lines stay whole or break in their middle.
    narrow: usize,
    images: Vec<Image>,
}

#[derive(Serialize)]
struct Image {
    source: String,
    label: String,
    width: u32,
    height: u32,
}

impl Page {
    fn of(input: &Input, figures: &[Figure], pivots: &[Pivot]) -> Result<Self> {
        let rows = &input.rows;
        let warnings = warnings(rows).into_iter().map(|(text, places)| Warning { text, places });
        let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let best = if rows.is_empty() { vec![] } else { seeds::best(rows)? };
        let json = serde_json::to_vec(rows).map_err(Error::input)?;
        Ok(Self {
            title: input.title().to_owned(),
            suite: input.suite.clone(),
            file: input.suite.chars().map(safe).collect(),
            description: input.description.clone(),
            small_scale: input.small_scale,
            verdicts: best.iter().map(Best::verdict).collect(),
            best: best.iter().map(card).collect(),
            warnings: warnings.collect(),
            shared: leaderboard(rows, accuracy).shared.join(", "),
            columns: columns(rows),
            lines: ranked(rows)
                .iter()
                .enumerate()
                .map(|(at, row)| line(at + 1, row, rows))
                .collect(),
            csv: picture::address("text/csv", &frame::csv(rows)?),
            json: picture::address("application/json", &json),
            pivots: pivots.iter().map(pivot_table).collect(),
            pivot_note: pivot::note(pivots),
            overfit: overfit::table(rows).map(|table| Overfit {
                title: overfit::TITLE,
                note: overfit::NOTE,
                words: table.words,
                header: table.header,
                lines: table.body,
            }),
            published: published(input),
            figures: figures.iter().map(plot).collect::<Result<_>>()?,
            grids: grids(input)?,
            cells: cells(input),
            command: input.command.clone(),
            versions: input.versions.clone(),
        })
    }
}

/// A line from 0 to 100% with both accuracies and their intervals.
fn whisker(row: &Row, width: f64) -> String {
    let x = |percent: f64| 6.0 + percent / 100.0 * (width - 12.0);
    let mark = |tally: Tally, class: &str| {
        let (low, high) = tally.interval();
        format!(
            "<line class=\"{class}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"9\" y2=\"9\"/><circle \
             class=\"{class}\" cx=\"{:.1}\" cy=\"9\" r=\"3\"/>",
            x(low),
            x(high),
            x(tally.percent())
        )
    };
    format!(
        "<svg class=\"whisker\" viewBox=\"0 0 {width} 18\" preserveAspectRatio=\"xMidYMid meet\" \
         aria-hidden=\"true\"><line class=\"rail\" x1=\"6\" x2=\"{}\" y1=\"9\" y2=\"9\"/>{}{}</svg>",
        width - 6.0,
        mark(row.clean, "clean"),
        mark(row.robust, "robust")
    )
}

fn card(best: &Best) -> Card {
    let Setting { row, group } = &best.setting;
    let Tally { correct, total } = row.robust;
    let exact = match group.robust.deviation {
        Some(deviation) => format!(
            "mean of {} seeds ± {deviation:.1} · {correct} of {total} together",
            group.robust.count
        ),
        None => {
            let (low, high) = row.robust.interval();
            format!("95% interval {low:.1} to {high:.1} · {correct} of {total} images")
        }
    };
    Card {
        rank: best.rank,
        name: best.name.clone(),
        threat: row.threat.to_string(),
        dataset: row.dataset.clone(),
        percent: format!("{:.1}", group.robust.mean),
        exact,
        whisker: whisker(row, 300.0),
    }
}

fn columns(rows: &[Row]) -> Vec<Column> {
    let varying = varying(rows);
    let column =
        |key: &str, name: &str, class| Column { key: key.into(), name: name.into(), class };
    let mut columns = vec![column("rank", "#", "rank")];
    if varying.is_empty() {
        columns.push(column("cell", "cell", ""));
    }
    columns.extend(varying.iter().map(|axis| column(axis, short_axis(axis, &varying), "")));
    if rows.iter().any(|row| row.dataset != rows[0].dataset) {
        columns.push(column("dataset", "dataset", ""));
    }
    columns.push(column("threat", "threat", ""));
    columns.push(column("clean", "clean %", "num"));
    columns.push(column("robust", "robust %", "num"));
    columns.push(column("interval", "0 to 100%", "num"));
    columns.push(column("n", "n", "num"));
    columns.push(column("time", "time", "num"));
    let (fid, published) = more(rows);
    columns.extend(fid.then(|| column("fid", "FID", "num")));
    if published {
        columns.push(column("published", "published %", "num"));
        columns.push(column("difference", "difference", "num"));
    }
    columns
}

/// Whether FID and published figures are known.
fn more(rows: &[Row]) -> (bool, bool) {
    let published = |row: &Row| row.reference.as_ref().is_some_and(|one| one.robust.is_some());
    (rows.iter().any(|row| row.fid.is_some()), rows.iter().any(published))
}

/// What stands in the columns of [`more`].
fn extras(row: &Row, (fid, published): (bool, bool)) -> Vec<Cell> {
    let number = |value: Option<f64>, text: Option<String>| Cell {
        value: value.map(|value| format!("{value:.6}")).unwrap_or_default(),
        text: text.unwrap_or_else(|| "–".to_owned()),
        class: "num",
        ..Cell::default()
    };
    let mut cells = Vec::new();
    if fid {
        cells.push(number(row.fid, row.fid.map(|fid| format!("{fid:.2}"))));
    }
    if published {
        let theirs = row.reference.as_ref().and_then(|one| Some((one, one.robust?)));
        let text = theirs.map(|(one, value)| format!("{value:.2}{}", one.doubt()));
        cells.push(number(theirs.map(|(_, value)| value), text));
        let gap = theirs.map(|(_, value)| row.robust.percent() - value);
        cells.push(number(gap, gap.map(pivot::signed)));
    }
    cells
}

fn line(rank: usize, row: &Row, rows: &[Row]) -> Vec<Cell> {
    let varying = varying(rows);
    let plain = |text: String| Cell { value: text.clone(), text, ..Cell::default() };
    let figure = |tally: Tally, class| {
        let (low, high) = tally.interval();
        Cell {
            text: format!("{:.1}", tally.percent()),
            extra: format!("[{low:.1}, {high:.1}]"),
            value: format!("{:.6}", tally.percent()),
            class,
            ..Cell::default()
        }
    };
    let link = format!("#cell-{rank}");
    let mut cells = vec![Cell { link: link.clone(), class: "rank", ..plain(rank.to_string()) }];
    if varying.is_empty() {
        cells.push(Cell { link, ..plain(row.cell.clone()) });
    }
    for axis in &varying {
        let value = row.axis(axis).unwrap_or("–");
        cells.push(Cell { value: value.to_owned(), ..plain(value_text(value)) });
    }
    if rows.iter().any(|other| other.dataset != rows[0].dataset) {
        cells.push(plain(row.dataset.clone()));
    }
    cells.push(plain(row.threat.to_string()));
    cells.push(figure(row.clean, "num"));
    cells.push(figure(row.robust, "num robust"));
    let value = format!("{:.6}", row.robust.percent());
    cells.push(Cell { html: whisker(row, 150.0), value, ..Cell::default() });
    cells.push(Cell { class: "num", ..plain(row.robust.total.to_string()) });
    let seconds = row.total_seconds();
    cells.push(Cell { value: format!("{seconds}"), class: "num", ..plain(duration(seconds)) });
    cells.extend(extras(row, more(rows)));
    cells
}

fn pivot_table(table: &Pivot) -> PivotTable {
    let parts = table.parts();
    let cell = |line: &pivot::Line, part: Part| {
        let dash = || Cell { text: "–".into(), ..Cell::default() };
        let Part::Own(at) = part else {
            return line.text(part).map_or_else(dash, |text| Cell { text, ..Cell::default() });
        };
        let Some(figure) = &line.figures[at] else { return dash() };
        let (low, high) = figure.pooled.interval();
        let extra = figure.spread.deviation.map_or_else(
            || format!("[{low:.1}, {high:.1}]"),
            |deviation| format!("± {deviation:.1} ({})", figure.spread.count),
        );
        let class = match (figure.best, figure.tied) {
            (true, _) => "best",
            (_, true) => "tied",
            _ => "",
        };
        Cell { text: format!("{:.1}", figure.spread.mean), extra, class, ..Cell::default() }
    };
    let lines = table.lines.iter().map(|line| PivotLine {
        names: line.names.clone(),
        figures: parts.iter().map(|part| cell(line, *part)).collect(),
    });
    PivotTable {
        title: table.title.clone(),
        names: table.names.clone(),
        header: parts.iter().map(|part| table.heading(*part).to_owned()).collect(),
        lines: lines.collect(),
    }
}

fn plot(figure: &Figure) -> Result<Plot> {
    let mut svg = canvas::svg(figure)?;
    // The page's own colours, so that figures follow it into the dark.
    for (colour, name) in [
        (canvas::INK, "ink"),
        (canvas::MUTED, "grey"),
        (canvas::RULE, "rule"),
        (canvas::FAINT, "faint"),
        (canvas::PAPER, "card"),
    ] {
        let hex = format!("\"#{:02X}{:02X}{:02X}\"", colour.0, colour.1, colour.2);
        svg = svg.replace(&hex, &format!("\"var(--{name})\""));
    }
    let points = figure.series.iter().flat_map(|series| series.points.iter().map(|p| &p.tip));
    let tips = points.chain(figure.bars.iter().map(|bar| &bar.tip)).cloned();
    Ok(Plot {
        name: figure.name.clone(),
        title: figure.title.clone(),
        caption: figure.caption.clone(),
        svg,
        tips: tips.collect(),
    })
}

fn grids(input: &Input) -> Result<Vec<Sheet>> {
    let sheet = |grid: &super::input::Grid| -> Result<Sheet> {
        let images = grid.images.iter().map(|image| {
            let source = picture::data_address(image)?;
            Ok(Image {
                source,
                label: image.label.clone(),
                width: image.width,
                height: image.height,
            })
        });
        Ok(Sheet {
            title: grid.title.clone(),
            caption: grid.caption.clone(),
            columns: grid.columns.max(1),
            narrow: match grid.columns.max(1) {
                many if many > 6 => many.div_ceil(2),
                few => few,
            },
            images: images.collect::<Result<_>>()?,
        })
    };
    input.grids.iter().map(sheet).collect()
}
