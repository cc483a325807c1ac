//! Tables for papers: one setting a line, accuracies across, mean and spread over seeds, the best
//! of each column marked.

use std::fmt::Write as _;

use crate::{leaderboard::statistics::Spread, units::Tally};

pub use super::view::tables;

/// A pivoted table.
#[derive(Debug, Clone, PartialEq)]
pub struct Pivot {
    /// What it shows.
    pub title: String,
    /// Headings of the first columns, which name the setting.
    pub names: Vec<String>,
    /// Headings of the accuracies.
    pub header: Vec<String>,
    /// One line for each setting.
    pub lines: Vec<Line>,
    /// Whether FID is by random filters, which compare with nothing published.
    pub filters: bool,
}

/// One setting and its figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The setting.
    pub names: Vec<String>,
    /// As many as the table's header.
    pub figures: Vec<Option<Figure>>,
    /// FID of the generated images, where measured.
    pub fid: Option<f64>,
    /// The published FID as it is written.
    pub published_fid: Option<String>,
}

/// One figure of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Mean over seeds, in percent.
    pub spread: Spread,
    /// All examples of all seeds.
    pub pooled: Tally,
    /// The published figure, in percent, and the mark of its doubt.
    pub published: Option<(f64, &'static str)>,
    /// The best of its column.
    pub best: bool,
    /// Not the best, but its interval reaches the best figure.
    pub tied: bool,
}

impl Figure {
    /// `31.2 ± 0.4` over seeds, else `31.2 [28.4, 34.1]`.
    pub fn text(&self) -> String {
        match self.spread.deviation {
            Some(deviation) => format!("{:.1} ± {deviation:.1}", self.spread.mean),
            None => super::table::accuracy(self.pooled),
        }
    }
}

/// What a shown column holds: the `i`-th figure, or something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Our accuracy.
    Own(usize),
    /// What is published.
    Published(usize),
    /// Ours less the published one, in points.
    Difference(usize),
    /// Our FID.
    Fid,
    /// The published FID.
    PublishedFid,
}

impl Pivot {
    /// The columns after the names: every accuracy, followed by the published one and the
    /// difference where one is known, then FID where one is known.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for at in 0..self.header.len() {
            parts.push(Part::Own(at));
            let published =
                |line: &Line| line.figures[at].as_ref().is_some_and(|f| f.published.is_some());
            if self.lines.iter().any(published) {
                parts.extend([Part::Published(at), Part::Difference(at)]);
            }
        }
        parts.extend(self.lines.iter().any(|line| line.fid.is_some()).then_some(Part::Fid));
        let published = self.lines.iter().any(|line| line.published_fid.is_some());
        parts.extend(published.then_some(Part::PublishedFid));
        parts
    }

    /// The heading of a column.
    pub fn heading(&self, part: Part) -> &str {
        match part {
            Part::Own(at) => &self.header[at],
            Part::Published(_) => "published",
            Part::Difference(_) => "difference",
            Part::Fid => "FID",
            Part::PublishedFid => "FID, published",
        }
    }
}

impl Line {
    /// What stands in a column that is not an accuracy of ours.
    pub fn text(&self, part: Part) -> Option<String> {
        let published =
            |at: usize| Some((self.figures[at].as_ref()?, self.figures[at].as_ref()?.published?));
        match part {
            Part::Own(at) => self.figures[at].as_ref().map(Figure::text),
            Part::Published(at) => {
                published(at).map(|(_, (value, doubt))| format!("{value:.2}{doubt}"))
            }
            Part::Difference(at) => {
                published(at).map(|(own, (value, _))| signed(own.spread.mean - value))
            }
            Part::Fid => self.fid.map(|fid| format!("{fid:.2}")),
            Part::PublishedFid => self.published_fid.clone(),
        }
    }
}

/// `+0.3`, `−4.1`.
pub(super) fn signed(points: f64) -> String {
    format!("{points:+.1}").replace('-', "−")
}

/// The tables in Markdown.
pub fn markdown(tables: &[Pivot]) -> String {
    let mut text = String::new();
    for table in tables {
        let parts = table.parts();
        let mut header = table.names.clone();
        header.extend(parts.iter().map(|part| table.heading(*part).to_owned()));
        let cell = |line: &Line, part: Part| {
            let text = line.text(part).unwrap_or_else(|| "–".to_owned());
            let Part::Own(at) = part else { return text };
            match &line.figures[at] {
                Some(figure) if figure.best => format!("**{text}**"),
                Some(figure) if figure.tied => format!("{text} ≈"),
                _ => text,
            }
        };
        let body = table.lines.iter().map(|line| {
            line.names.iter().cloned().chain(parts.iter().map(|part| cell(line, *part))).collect()
        });
        let table_text = super::table::Table {
            body: body.collect(),
            words: table.names.len(),
            header,
            shared: vec![],
        };
        let _ = write!(text, "**{}**\n\n", super::table::escape(&table.title));
        text.push_str(&super::table::markdown_lines(&table_text));
        text.push('\n');
    }
    text.push_str(&note(tables));
    text.push('\n');
    text
}

/// What the marks of `tables` mean.
pub fn note(tables: &[Pivot]) -> String {
    let mut text = NOTE.to_owned();
    let parts = || tables.iter().flat_map(Pivot::parts);
    if parts().any(|part| matches!(part, Part::Published(_) | Part::PublishedFid)) {
        text.push_str(PUBLISHED);
    }
    if parts().any(|part| matches!(part, Part::Fid | Part::PublishedFid)) {
        text.push_str(" FID: Fréchet distance of the generated images to the training images.");
        if tables.iter().any(|table| table.filters) {
            text.push(' ');
            text.push_str(FILTERS);
        }
    }
    text
}

/// What FID by random filters is good for.
pub(super) const FILTERS: &str = "It is by random filters: it orders these sets and is not \
comparable with published FID.";
const NOTE: &str = "Accuracies in percent. Bold: best of its column; ≈: not the best, but its \
95% interval reaches the best. Brackets: 95% Wilson interval of one model; ±: sample standard \
deviation over seeds.";
const PUBLISHED: &str = " Published: what the suite's `reference:` says; `?` marks figures not \
checked against their source. Difference: ours less the published one, in points.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        leaderboard::{Row, row::Reference},
        report::write::tests::demo,
        suite::report::{Layout, Quantity},
    };

    #[test]
    fn every_column_has_one_best_and_seeds_are_averaged() {
        let mut rows = demo().rows;
        let tables = tables(&rows, &Layout::default()).unwrap();
        assert_eq!(tables.len(), 1);
        let table = &tables[0];
        assert_eq!(table.header.len(), 4);
        for column in 0..4 {
            let figures = || table.lines.iter().filter_map(|line| line.figures[column].as_ref());
            assert_eq!(figures().filter(|figure| figure.best).count(), 1);
            assert!(figures().all(|figure| figure.spread.count == 1));
        }
        // A second seed of everything.
        let twins: Vec<Row> = rows
            .iter()
            .map(|row| {
                let mut twin = row.clone();
                twin.axes.push(("train.seed".into(), "1".into()));
                twin.robust.correct += 10;
                twin
            })
            .collect();
        rows.iter_mut().for_each(|row| row.axes.push(("train.seed".into(), "0".into())));
        rows.extend(twins);
        let again = super::tables(&rows, &Layout::default()).unwrap();
        assert_eq!(again[0].lines.len(), table.lines.len());
        let (before, after) =
            (table.lines[0].figures[1].as_ref(), again[0].lines[0].figures[1].as_ref());
        let shift = after.unwrap().spread.mean - before.unwrap().spread.mean;
        assert!((shift - 0.25).abs() < 1e-9, "{shift}");
        assert!(after.unwrap().text().contains('±'));
    }

    #[test]
    fn an_axis_can_go_across() {
        let rows = demo().rows;
        let columns = Some("generate.sampler.steps".to_owned());
        let both = vec![Quantity::Clean, Quantity::Robust];
        let layout = Layout { columns, ..Layout::default() };
        assert_eq!(tables(&rows, &Layout { values: both, ..layout.clone() }).unwrap().len(), 4);
        let tables = tables(&rows, &layout).unwrap();
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].names, ["generated"]);
        assert_eq!(tables[0].header, ["steps 5", "steps 10", "steps 20"]);
        assert!(markdown(&tables).contains("**"));
    }

    #[test]
    fn published_figures_stand_beside_ours_with_the_difference() {
        let mut rows = demo().rows;
        rows.iter_mut().for_each(|row| row.fid = None);
        let plain = tables(&rows, &Layout::default()).unwrap();
        assert_eq!(plain[0].parts().len(), 4);
        rows[0].robust = Tally { correct: 800, total: 2000 };
        rows[0].reference = Some(Reference {
            clean: None,
            robust: Some(41.25),
            fid: Some(1.824),
            source: "a|b".into(),
            certainty: "unverified".into(),
        });
        rows[0].fid = Some(2.5);
        let layout = Layout { rows: vec!["train.generated".into()], ..Layout::default() };
        let tables = tables(&rows, &layout).unwrap();
        let table = &tables[0];
        assert_eq!(table.names, ["generated", "steps"]);
        let shown: Vec<_> = table.parts().into_iter().map(|part| table.heading(part)).collect();
        let expected = ["clean, linf 8/255", "robust, linf 8/255", "published", "difference"];
        assert_eq!(shown[..4], expected);
        assert_eq!(shown[6..], ["FID", "FID, published"]);
        let text = markdown(&tables);
        assert!(text.contains("| 41.25? | −1.2 |"), "{text}");
        assert!(text.contains("| 2.50 | 1.824? |") && text.contains("not checked"), "{text}");
    }
}
