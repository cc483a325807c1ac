//! Camera-ready figures: a CSV of the points and a pgfplots picture that reads it, in the paper's
//! own fonts.

use std::fmt::Write;

use super::{
    latex::escape,
    plot::{Figure, Hue, PALETTE, Scale, brief},
};

/// The points of `figure` as CSV: `series,x,y,low,high`, one line each.
pub fn csv(figure: &Figure) -> String {
    let mut text = String::from("series,x,y,low,high\n");
    for series in &figure.series {
        for point in &series.points {
            let own = if figure.names().is_some() { point.x } else { point.y };
            let (low, high) = point.interval.unwrap_or((own, own));
            let label = series.label.replace('"', "\"\"");
            let _ = writeln!(text, "\"{label}\",{},{},{low},{high}", point.x, point.y);
        }
    }
    for bar in &figure.bars {
        let label = bar.label.replace('"', "\"\"");
        let _ = writeln!(
            text,
            "\"{label}\",{},{},{},{}",
            bar.to - bar.from,
            bar.line,
            bar.from,
            bar.to
        );
    }
    text
}

/// The figure as a `tikzpicture`. Points stand in it, so that it compiles alone beside its paper.
pub fn tex(figure: &Figure) -> String {
    let mut text = String::from(
        "% Needs \\usepackage{pgfplots} and \\pgfplotsset{compat=1.18}; the points also stand in\n\
         % the CSV beside this file.\n",
    );
    for (at, (r, g, b)) in PALETTE.iter().enumerate() {
        let _ = writeln!(text, "\\definecolor{{gauntlet{at}}}{{RGB}}{{{r},{g},{b}}}");
    }
    text.push_str("\\definecolor{gauntletgrey}{RGB}{139,148,158}\n\\begin{tikzpicture}\n");
    let _ = writeln!(text, "\\begin{{axis}}[\n{}]", options(figure).join(",\n"));
    let horizontal = figure.names().is_some();
    for series in &figure.series {
        let _ = writeln!(text, "\\addplot+[{}] coordinates {{", style(figure, series));
        for point in &series.points {
            let own = if horizontal { point.x } else { point.y };
            let (low, high) = point.interval.unwrap_or((own, own));
            let (minus, plus) = (own - low, high - own);
            let (x, y) = (shown(figure, point.x), point.y);
            let _ = if horizontal {
                writeln!(text, "  ({x},{y}) += ({plus:.4},0) -= ({minus:.4},0)")
            } else {
                writeln!(text, "  ({x},{y}) += (0,{plus:.4}) -= (0,{minus:.4})")
            };
        }
        let _ = writeln!(text, "}};\n\\addlegendentry{{{}}}", escape(&series.label));
    }
    for bar in &figure.bars {
        let _ = writeln!(
            text,
            "\\fill[{}] (axis cs:{:.4},{:.1}) rectangle (axis cs:{:.4},{:.1});",
            colour(bar.hue),
            bar.from,
            bar.line as f64 - 0.3,
            bar.to,
            bar.line as f64 + 0.3
        );
    }
    text.push_str("\\end{axis}\n\\end{tikzpicture}\n");
    text
}

fn options(figure: &Figure) -> Vec<String> {
    let mut options = vec![
        "  width=3.25in".to_owned(),
        format!("  xlabel={{{}}}", escape(&figure.x.label)),
        format!("  ylabel={{{}}}", escape(&figure.y.label)),
        "  grid=major, grid style={gray!20}".to_owned(),
        "  legend style={font=\\footnotesize, draw=none, at={(0.5,1.03)}, anchor=south}".to_owned(),
        "  legend columns=2".to_owned(),
    ];
    if let Scale::Names(names) = &figure.y.scale {
        let ticks: Vec<_> = (0..names.len()).map(|at| at.to_string()).collect();
        let labels: Vec<_> = names.iter().map(|name| format!("{{{}}}", escape(name))).collect();
        options.push(format!("  ytick={{{}}}", ticks.join(",")));
        options.push(format!("  yticklabels={{{}}}", labels.join(",")));
        options.push("  y dir=reverse".to_owned());
        options.push(format!("  ymin=-0.7, ymax={}", names.len() as f64 - 0.3));
        options.push(format!("  height={:.2}in", 0.9 + 0.22 * names.len() as f64));
    }
    if figure.x.scale == Scale::Percent {
        options.push("  xmin=0, xmax=100".to_owned());
    }
    if figure.x.scale == Scale::Log {
        let mut values: Vec<f64> =
            figure.series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        options.push("  xmode=log".to_owned());
        let ticks: Vec<_> = values.iter().map(|value| shown(figure, *value).to_string()).collect();
        let labels: Vec<_> = values.iter().map(|value| brief(*value)).collect();
        options.push(format!("  xtick={{{}}}", ticks.join(",")));
        options.push(format!("  xticklabels={{{}}}", labels.join(",")));
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
    }
}

fn style(figure: &Figure, series: &super::plot::Series) -> String {
    let marks = ["*", "square*", "triangle*", "diamond*", "pentagon*"];
    let (mark, colour) = match series.hue {
        Hue::Series(index) => (marks[index % marks.len()], colour(series.hue)),
        _ => ("*", colour(series.hue)),
    };
    let lines = match (series.joined, series.hollow) {
        (false, _) => "only marks",
        (true, true) => "dashed",
        (true, false) => "solid",
    };
    let fill = if series.hollow { "white" } else { &colour };
    let direction = if figure.names().is_some() { "x" } else { "y" };
    format!(
        "{lines}, color={colour}, mark={mark}, mark options={{solid, fill={fill}}}, error \
         bars/.cd, {direction} dir=both, {direction} explicit"
    )
}
