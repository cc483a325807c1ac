//! Camera-ready figures: a CSV of the points and a pgfplots picture that reads it, in the paper's
//! own fonts.

use std::fmt::Write;

use super::{
    frame::{Frame, height},
    latex::escape,
    plot::{Figure, Hue, PALETTE, Scale, brief},
};

/// The points of `figure` as CSV, one line each: the number of the series, where the point stands
/// (a zero on a logarithmic axis is moved to where it is drawn), its own value, how far its
/// interval reaches down and up, and the name of the series. Bars have `from` and `to` in place of
/// an interval. LaTeX and spreadsheets read it as it is.
pub fn csv(figure: &Figure) -> String {
    let mut text = String::from("line,at,x,y,minus,plus,series\n");
    for (line, series) in figure.series.iter().enumerate() {
        for point in &series.points {
            let own = if figure.names().is_some() { point.x } else { point.y };
            let (low, high) = point.interval.unwrap_or((own, own));
            let _ = writeln!(
                text,
                "{line},{},{},{},{},{},{}",
                shown(figure, point.x),
                point.x,
                point.y,
                own - low,
                high - own,
                plain(&series.label)
            );
        }
    }
    let first = figure.series.len();
    for (line, label) in bar_labels(figure).into_iter().enumerate() {
        for bar in figure.bars.iter().filter(|bar| bar.label == label) {
            let _ = writeln!(
                text,
                "{},{},{},{},0,{},{}",
                first + line,
                bar.from,
                bar.from,
                bar.line,
                bar.to - bar.from,
                plain(&label)
            );
        }
    }
    text
}

/// The names of bars, each once.
fn bar_labels(figure: &Figure) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for bar in &figure.bars {
        if !found.contains(&bar.label) {
            found.push(bar.label.clone());
        }
    }
    found
}

/// A label as neither a table of LaTeX nor a spreadsheet misreads it: no separators, no quotes, no
/// characters that TeX acts on, no formula.
fn plain(label: &str) -> String {
    let safe = |letter: char| match letter {
        ',' => ';',
        letter if letter.is_alphanumeric() || " .;:/=+-_()·–".contains(letter) => letter,
        _ => ' ',
    };
    let text: String = label.chars().map(safe).collect();
    text.trim_start_matches(['=', '+', '-', ' ']).to_owned()
}

/// The figure as a `tikzpicture` that reads its points from `NAME.csv` in the folder `\gauntletdata`
/// (its own folder unless a paper defines another).
pub fn tex(figure: &Figure) -> String {
    let mut text = String::from(
        "% Needs \\usepackage{pgfplots} and \\pgfplotsset{compat=1.17}. Reads the CSV beside this file;\n\
         % elsewhere: \\newcommand{\\gauntletdata}{path/to/plots} before \\input.\n\
         \\providecommand{\\gauntletdata}{.}\n",
    );
    for (at, (r, g, b)) in PALETTE.iter().enumerate() {
        let _ = writeln!(text, "\\definecolor{{gauntlet{at}}}{{RGB}}{{{r},{g},{b}}}");
    }
    text.push_str("\\definecolor{gauntletgrey}{RGB}{139,148,158}\n\\begin{tikzpicture}\n");
    let _ = writeln!(text, "\\begin{{axis}}[\n{}]", options(figure).join(",\n"));
    let (file, named) = (&figure.name, figure.names().is_some());
    let axis = if named { "x" } else { "y" };
    // `forget plot`: without a name there is no entry in the legend.
    let entry = |label: &str| match label {
        "" => String::new(),
        label => format!("\\addlegendentry{{{}}}\n", escape(label)),
    };
    let first = figure.series.len();
    for (at, label) in bar_labels(figure).iter().enumerate() {
        let hue =
            figure.bars.iter().find(|bar| bar.label == *label).map_or(Hue::Grey, |bar| bar.hue);
        let line = first + at;
        // A thick line from `from` to `to`: the error bar of an invisible mark.
        let _ = write!(
            text,
            "\\addplot[restrict expr to domain={{\\thisrow{{line}}}}{{{line}:{line}}}, forget plot, \
             draw=none, mark=none, error bars/.cd, x dir=plus, x explicit, error mark=none, error \
             bar style={{draw={colour}, line width=7pt}}] table \
             [col sep=comma, x=at, y=y, x error plus=plus] {{\\gauntletdata/{file}.csv}};\n\
             \\addlegendimage{{area legend, fill={colour}, draw=none}}\n{}",
            entry(label),
            colour = colour(hue),
        );
    }
    // After the bars, over which they lie.
    for (line, series) in figure.series.iter().enumerate() {
        let forget = if series.label.is_empty() { ", forget plot" } else { "" };
        let _ = write!(
            text,
            "\\addplot+[restrict expr to domain={{\\thisrow{{line}}}}{{{line}:{line}}}{forget}, {}] table \
             [col sep=comma, x=at, y=y, {axis} error minus=minus, {axis} error plus=plus] \
             {{\\gauntletdata/{file}.csv}};\n{}",
            style(figure, series),
            entry(&series.label)
        );
    }
    text.push_str("\\end{axis}\n\\end{tikzpicture}\n");
    text
}

fn options(figure: &Figure) -> Vec<String> {
    let longest = figure.legend().iter().map(|key| key.label.chars().count()).max().unwrap_or(0);
    let columns = if longest > 18 { 1 } else { 2 };
    let mut options = vec![
        "  unbounded coords=discard".to_owned(),
        format!("  xlabel={{{}}}", escape(&figure.x.label)),
        format!("  ylabel={{{}}}", escape(&figure.y.label)),
        "  grid=major, grid style={gray!20}".to_owned(),
        "  legend style={font=\\footnotesize, draw=none, at={(0.5,1.03)}, anchor=south}".to_owned(),
        format!("  legend cell align=left, legend columns={columns}"),
    ];
    if let Scale::Names(names) = &figure.y.scale {
        let ticks: Vec<_> = (0..names.len()).map(|at| at.to_string()).collect();
        let labels: Vec<_> = names.iter().map(|name| format!("{{{}}}", escape(name))).collect();
        options.push(format!("  ytick={{{}}}", ticks.join(",")));
        options.push(format!("  yticklabels={{{}}}", labels.join(",")));
        // The names take half of a column.
        options.push("  y dir=reverse, scale only axis, width=1.3in".to_owned());
        options.push(
            "  tick label style={font=\\scriptsize}, ylabel style={font=\\scriptsize}".to_owned(),
        );
        options.push(format!("  ymin=-0.7, ymax={}", names.len() as f64 - 0.3));
        options.push(format!("  height={:.2}in", 0.2 + 0.2 * names.len() as f64));
    }
    if figure.names().is_none() {
        options.push("  width=3.25in".to_owned());
    }
    if figure.x.scale == Scale::Percent {
        options.push("  xmin=0, xmax=100".to_owned());
    }
    let frame = Frame::of(figure, height(figure));
    // The ticks of the drawing, where pgfplots would choose powers of ten and fractions.
    let ticks = |ticks: &[f64], place: &dyn Fn(f64) -> f64, axis: &str| {
        let places: Vec<_> = ticks.iter().map(|tick| place(*tick).to_string()).collect();
        let labels: Vec<_> = ticks.iter().map(|tick| brief(*tick)).collect();
        let (places, labels) = (places.join(","), labels.join(","));
        [format!("  {axis}tick={{{places}}}"), format!("  {axis}ticklabels={{{labels}}}")]
    };
    if figure.x.scale == Scale::Log {
        options.push("  xmode=log".to_owned());
    }
    if matches!(figure.x.scale, Scale::Log | Scale::Settings) {
        options.extend(ticks(&frame.x.ticks, &|x| shown(figure, x), "x"));
    }
    if figure.y.scale == Scale::Log {
        options.push("  ymode=log".to_owned());
        options.extend(ticks(&frame.y.ticks, &|y| y, "y"));
    }
    options
}

/// Where `x` stands: a logarithm has no zero, so a zero stands at a third of the smallest value.
fn shown(figure: &Figure, x: f64) -> f64 {
    if figure.x.scale != Scale::Log || x > 0.0 {
        return x;
    }
    let points = figure.series.iter().flat_map(|series| &series.points);
    let smallest = points.map(|point| point.x).filter(|x| *x > 0.0).fold(f64::INFINITY, f64::min);
    if smallest.is_finite() { smallest / 3.0 } else { 1.0 }
}

fn colour(hue: Hue) -> String {
    match hue {
        Hue::Series(index) => format!("gauntlet{}", index % PALETTE.len()),
        Hue::Grey => "gauntletgrey".to_owned(),
        Hue::Faint => "gauntletgrey!40".to_owned(),
        Hue::Ink => "black".to_owned(),
    }
}

fn style(figure: &Figure, series: &super::plot::Series) -> String {
    let marks = ["*", "square*", "triangle*", "diamond*", "pentagon*"];
    let (mark, colour) = match series.hue {
        Hue::Series(index) => (marks[index % marks.len()], colour(series.hue)),
        _ => ("*", colour(series.hue)),
    };
    let lines = match (series.joined, series.hollow) {
        (false, _) => "only marks, mark size=1.6pt",
        (true, true) => "dashed",
        (true, false) => "solid",
    };
    // Long curves are lines; markers would hide them.
    let mark = if series.joined && series.points.len() > 24 { "none" } else { mark };
    let fill = if series.hollow { "white" } else { &colour };
    let direction = if figure.names().is_some() { "x" } else { "y" };
    format!(
        "{lines}, color={colour}, mark={mark}, mark options={{solid, fill={fill}}}, error \
         bars/.cd, {direction} dir=both, {direction} explicit"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{figures, write::tests::demo};

    #[test]
    fn pictures_read_the_table_beside_them_and_labels_break_neither() {
        let mut input = demo();
        input.rows[0].axes[0].1 = "=1+1,\"#%_&".into();
        for figure in figures::all(&input).unwrap() {
            let (tex, csv) = (tex(&figure), csv(&figure));
            assert!(!tex.contains("coordinates"), "{tex}");
            let series: Vec<&str> = tex.matches("table [col sep=comma").collect();
            let drawn = figure.series.len() + bar_labels(&figure).len();
            assert_eq!(series.len(), drawn, "{tex}");
            assert!(tex.contains(&format!("/{}.csv}}", figure.name)));
            for line in csv.lines().skip(1) {
                let cells: Vec<&str> = line.split(',').collect();
                assert_eq!(cells.len(), 7, "{line}");
                assert!(cells[..6].iter().all(|cell| cell.parse::<f64>().unwrap().is_finite()));
                assert!(
                    !cells[6].starts_with(['=', '+', '-', '@'])
                        && !cells[6].contains(['"', '%', '#'])
                );
                assert!(cells[0].parse::<usize>().unwrap() < drawn);
            }
            let points: usize = figure.series.iter().map(|series| series.points.len()).sum();
            assert_eq!(csv.lines().count(), 1 + points + figure.bars.len());
        }
    }
}
