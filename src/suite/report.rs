//! `report:`: what a suite's report is called and how its tables and plots are laid out.

use serde::{Deserialize, Serialize};

use crate::suite::{
    axes::Axes,
    problem::suggestion,
    reader::Reader,
    table::FIELDS,
    yaml::{Content, Entry, Mark, Node},
};

/// A column of accuracies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    /// Without an attack.
    Clean,
    /// Under every attack.
    Robust,
}

/// The section, checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The report's heading; the suite's name where absent.
    pub title: Option<String>,
    /// Axes that accuracy is plotted against; empty for all.
    pub x: Vec<String>,
    /// Axes that stand down the tables, in this order, before the others.
    pub rows: Vec<String>,
    /// The axis that stands across; threat models where absent.
    pub columns: Option<String>,
    /// Which accuracies tables show; empty for the usual.
    pub values: Vec<Quantity>,
    /// Where axes are named: (key, axis, place).
    #[serde(skip)]
    pub(crate) places: Vec<(&'static str, String, Mark)>,
}

/// The keys of the section.
pub const KEYS: [&str; 5] = ["title", "x", "rows", "columns", "values"];

/// The axis that every report has, whether the suite varies it or not.
const THREAT: &str = "threat";

/// Reads the section.
pub(super) fn read(node: &Node, reader: &mut Reader) -> Layout {
    let mut found = Layout::default();
    for entry in reader.entries(node, "report") {
        match entry.key.as_str() {
            "title" => found.title = words(entry, "a heading", reader),
            "x" => found.x = found.axes("report.x", &entry.value, reader),
            "rows" => found.rows = found.axes("report.rows", &entry.value, reader),
            "columns" => {
                let mut axes = found.axes("report.columns", &entry.value, reader);
                if axes.len() > 1 {
                    let message = "does not fit: expected one axis; `rows` takes several";
                    reader.problem(Some(entry.value.at), "report.columns", message);
                }
                found.columns = axes.drain(..).next();
            }
            "values" => found.values = values(&entry.value, reader),
            other => {
                let message = format!("unknown key: {}", suggestion(other, KEYS.into_iter()));
                reader.problem(Some(entry.at), &format!("report.{other}"), message);
            }
        }
    }
    if let Some((_, axis, at)) = found
        .places
        .iter()
        .find(|(key, axis, _)| *key == "report.columns" && found.rows.contains(axis))
    {
        let message = format!("`{axis}` already stands in `rows`: expected another axis");
        reader.problem(Some(*at), "report.columns", message);
    }
    found
}

impl Layout {
    /// One axis or a list of them.
    fn axes(&mut self, key: &'static str, node: &Node, reader: &mut Reader) -> Vec<String> {
        let items = match &node.content {
            Content::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut found: Vec<String> = Vec::new();
        for item in items {
            match item.text() {
                Some(axis) if found.iter().any(|known| known == axis) => {
                    reader.problem(Some(item.at), key, format!("names `{axis}` twice"));
                }
                Some(axis) => {
                    self.places.push((key, axis.to_owned(), item.at));
                    found.push(axis.to_owned());
                }
                None => {
                    let message = format!(
                        "{} does not fit: expected an axis like `generated.count`, or a list",
                        item.shown()
                    );
                    reader.problem(Some(item.at), key, message);
                }
            }
        }
        found
    }

    /// Axes that are named must be axes. What a base names may be fixed by the suite above it,
    /// and what the command line fixes is no mistake either.
    pub(super) fn check(&self, axes: &Axes, fixed: &[usize], reader: &mut Reader) {
        let included = axes.include.iter().flat_map(|draft| &draft.given);
        let fields = axes.fields().map(|axis| axis.field).chain(included.map(|given| given.field));
        let mut known: Vec<&str> = fields.map(|field| FIELDS[field].path).collect();
        known.push(THREAT);
        for (key, axis, at) in &self.places {
            let fixed = fixed.iter().any(|field| FIELDS[*field].path == axis);
            if at.source == 0 && !fixed && !known.contains(&axis.as_str()) {
                let hint = suggestion(axis, known.iter().copied());
                reader.problem(
                    Some(*at),
                    key,
                    format!("`{axis}` is no axis of this suite: {hint}"),
                );
            }
        }
    }
}

fn words(entry: &Entry, expected: &str, reader: &mut Reader) -> Option<String> {
    let text = entry.value.text().map(str::trim).filter(|text| !text.is_empty());
    if text.is_none() {
        let message = format!("{} does not fit: expected {expected}", entry.value.shown());
        reader.problem(Some(entry.value.at), &format!("report.{}", entry.key), message);
    }
    text.map(str::to_owned)
}

fn values(node: &Node, reader: &mut Reader) -> Vec<Quantity> {
    let items = match &node.content {
        Content::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut found = Vec::new();
    for item in items {
        match item.text() {
            Some("clean") => found.push(Quantity::Clean),
            Some("robust") => found.push(Quantity::Robust),
            _ => {
                let message = format!("{} is unknown: expected clean or robust", item.shown());
                reader.problem(Some(item.at), "report.values", message);
            }
        }
    }
    found.dedup();
    found
}
