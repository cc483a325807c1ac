//! Axes: which cells a suite has.

use crate::suite::{
    fields::position,
    problem::suggestion,
    reader::Reader,
    settings::{Given, Origin, Setting},
    table::FIELDS,
    value::Value,
    yaml::{Content, Entry, Mark, Node},
};

/// One value of an axis.
#[derive(Debug, Clone)]
pub struct Point {
    /// The value.
    pub value: Value,
    /// What tables and plots call it.
    pub label: String,
    /// Where it stands.
    pub at: Mark,
}

/// One field that varies.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Position in the table of fields.
    pub field: usize,
    /// The values in order.
    pub points: Vec<Point>,
}

/// A cell before its settings are resolved: what it says beyond the suite's sections.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The name of an extra cell.
    pub label: Option<String>,
    /// Its values.
    pub given: Vec<Given>,
    /// Labels of axis values, beside their fields.
    pub labels: Vec<(usize, String)>,
}

/// All axes of a suite.
#[derive(Debug, Clone, Default)]
pub struct Axes {
    /// Factors of the product; the axes inside one move together (`zip`).
    pub factors: Vec<Vec<Axis>>,
    /// Extra cells.
    pub include: Vec<Draft>,
    /// Cells to drop: each entry is a conjunction of (field, any of these values).
    pub exclude: Vec<Vec<(usize, Vec<Value>)>>,
}

/// More cells than anybody can mean.
const MOST_CELLS: usize = 1_000_000;

impl Axes {
    /// The fields that vary, in order.
    pub fn fields(&self) -> impl Iterator<Item = &Axis> {
        self.factors.iter().flatten()
    }

    /// Reads the `axes:` section.
    pub fn read(&mut self, node: &Node, reader: &mut Reader) {
        const KEYS: [&str; 4] = ["product", "zip", "include", "exclude"];
        for entry in reader.entries(node, "axes") {
            match entry.key.as_str() {
                "product" => self.factors.extend(pairs(&entry.value).filter_map(|pair| {
                    let axis = axis(pair, reader)?;
                    once(std::slice::from_ref(&axis), &pair.key, reader);
                    Some(vec![axis])
                })),
                "zip" => self.read_zip(entry, reader),
                "include" => {
                    let items = reader.items(&entry.value, "axes.include");
                    self.include.extend(items.iter().filter_map(|item| include(item, reader)));
                }
                "exclude" => {
                    for item in reader.items(&entry.value, "axes.exclude") {
                        let entries = reader.entries(item, "axes.exclude");
                        let matches = entries.iter().filter_map(|entry| excluded(entry, reader));
                        let matches = matches.collect();
                        self.exclude.push(matches);
                    }
                }
                other => {
                    let hint = suggestion(other, KEYS.into_iter());
                    let message = format!("unknown key: {hint}");
                    reader.problem(Some(entry.at), &format!("axes.{other}"), message);
                }
            }
        }
    }

    /// One-key items move together all of them; an item with several keys is a group of its own.
    fn read_zip(&mut self, entry: &Entry, reader: &mut Reader) {
        let items = reader.items(&entry.value, "axes.zip");
        let several =
            items.iter().any(|item| matches!(&item.content, Content::Map(keys) if keys.len() > 1));
        let groups: Vec<Vec<&Entry>> = if several {
            items.iter().map(|item| pairs(item).collect()).collect()
        } else {
            vec![pairs(&entry.value).collect()]
        };
        for group in groups {
            let axes: Vec<Axis> = group.iter().filter_map(|pair| axis(pair, reader)).collect();
            let uneven = axes.iter().position(|axis| axis.points.len() != axes[0].points.len());
            if let Some(position) = uneven {
                let (first, other) = (&axes[0], &axes[position]);
                let message = format!(
                    "has {} values but {} has {}: axes of a zip move together and need equally many",
                    other.points.len(),
                    FIELDS[first.field].path,
                    first.points.len()
                );
                reader.problem(Some(group[position].at), FIELDS[other.field].path, message);
            } else if !axes.is_empty() {
                once(&axes, "axes.zip", reader);
                self.factors.push(axes);
            }
        }
    }

    /// Checks what only the whole section shows: axes given twice, exclusions of what is no axis.
    pub fn check(&self, reader: &mut Reader) {
        let mut seen: Vec<usize> = Vec::new();
        for axis in self.fields() {
            if seen.contains(&axis.field) {
                let path = FIELDS[axis.field].path;
                reader.problem(Some(axis.points[0].at), path, "varies along two axes: keep one");
            }
            seen.push(axis.field);
        }
        for (field, _) in self.exclude.iter().flatten().filter(|(field, _)| !seen.contains(field)) {
            let names: Vec<_> = seen.iter().map(|&axis| FIELDS[axis].path).collect();
            let message =
                format!("excluded by, but it is no axis (the axes are {})", names.join(", "));
            reader.problem(None, FIELDS[*field].path, message);
        }
        let cells =
            self.factors.iter().fold(1usize, |n, axes| n.saturating_mul(axes[0].points.len()));
        if cells > MOST_CELLS {
            reader.problem(
                None,
                "axes",
                format!("{cells} cells: at most {MOST_CELLS} are planned"),
            );
        }
    }

    /// The cells: the product with the first axis slowest, exclusions dropped, then the extra ones.
    pub fn cells(&self) -> Vec<Draft> {
        let mut cells = vec![Draft { label: None, given: Vec::new(), labels: Vec::new() }];
        for axes in &self.factors {
            let longer = |draft: &Draft, position: usize| {
                let mut draft = draft.clone();
                for axis in axes {
                    let point = &axis.points[position];
                    let origin = Origin::Axis(point.at);
                    let setting = Setting { value: point.value.clone(), origin };
                    draft.given.push(Given { field: axis.field, setting });
                    draft.labels.push((axis.field, point.label.clone()));
                }
                draft
            };
            let positions = 0..axes[0].points.len();
            cells = cells
                .iter()
                .flat_map(|draft| positions.clone().map(move |position| longer(draft, position)))
                .collect();
        }
        cells.retain(|draft| !self.exclude.iter().any(|rule| matches(rule, draft)));
        // A suite of extra cells alone has no product.
        if self.factors.is_empty() && !self.include.is_empty() {
            cells.clear();
        }
        cells.extend(self.include.iter().cloned());
        cells
    }
}

fn matches(rule: &[(usize, Vec<Value>)], draft: &Draft) -> bool {
    rule.iter().all(|(field, values)| {
        draft
            .given
            .iter()
            .any(|given| given.field == *field && values.contains(&given.setting.value))
    })
}

/// One condition of an exclusion: a field, and the values that it excludes.
fn excluded(entry: &Entry, reader: &mut Reader) -> Option<(usize, Vec<Value>)> {
    let field = reader.field(&entry.key, entry.at)?;
    let values: Vec<Value> = match &entry.value.content {
        Content::List(items) => items.iter().filter_map(|item| reader.value(field, item)).collect(),
        _ => reader.value(field, &entry.value).into_iter().collect(),
    };
    Some((field, values))
}

/// The keys of a mapping, or of all mappings of a list.
fn pairs(node: &Node) -> impl Iterator<Item = &Entry> {
    let maps = match &node.content {
        Content::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    maps.into_iter().flat_map(|map| match &map.content {
        Content::Map(entries) => entries.iter(),
        _ => [].iter(),
    })
}

fn axis(entry: &Entry, reader: &mut Reader) -> Option<Axis> {
    let field = reader.field(&entry.key, entry.at)?;
    let Content::List(items) = &entry.value.content else {
        let message = format!("{} is no axis: expected a list of values", entry.value.shown());
        reader.problem(Some(entry.value.at), &entry.key, message);
        return None;
    };
    if items.is_empty() {
        reader.problem(Some(entry.value.at), &entry.key, "an axis needs at least one value");
        return None;
    }
    // Every bad value is reported, so all are read before giving up.
    let points: Vec<Option<Point>> = items.iter().map(|item| point(field, item, reader)).collect();
    let points = points.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Axis { field, points })
}

/// Complains of values, or in a zip of combinations, that stand twice.
fn once(axes: &[Axis], key: &str, reader: &mut Reader) {
    for position in 0..axes[0].points.len() {
        let same =
            |axis: &Axis, other: usize| axis.points[other].value == axis.points[position].value;
        if (0..position).any(|other| axes.iter().all(|axis| same(axis, other))) {
            let values: Vec<_> =
                axes.iter().map(|axis| axis.points[position].value.to_string()).collect();
            let what = if axes.len() == 1 { "on this axis" } else { "in this zip" };
            let message = format!("`{}` stands twice {what}", values.join(", "));
            reader.problem(Some(axes[0].points[position].at), key, message);
        }
    }
}

/// A value, or `{value: ..., label: ...}`.
fn point(field: usize, node: &Node, reader: &mut Reader) -> Option<Point> {
    let mut label = None;
    let mut inner = node;
    if let Content::Map(entries) = &node.content
        && let Some(value) = entries.iter().find(|entry| entry.key == "value")
    {
        inner = &value.value;
        label = entries.iter().find(|entry| entry.key == "label").and_then(|e| e.value.text());
    }
    let value = reader.value(field, inner)?;
    let label = label.map_or_else(|| value.to_string(), str::to_owned);
    Some(Point { value, label, at: inner.at })
}

fn include(node: &Node, reader: &mut Reader) -> Option<Draft> {
    let mut draft = Draft { label: None, given: Vec::new(), labels: Vec::new() };
    for entry in reader.entries(node, "axes.include") {
        if entry.key == "label" {
            draft.label = entry.value.text().map(str::to_owned);
            continue;
        }
        let field = reader.field(&entry.key, entry.at)?;
        let value = reader.value(field, &entry.value)?;
        let setting = Setting { value, origin: Origin::Include(entry.value.at) };
        draft.given.push(Given { field, setting });
    }
    Some(draft)
}

/// An axis of several values from `seeds:`, or the one value for the suite's sections.
pub fn seeds(node: &Node, reader: &mut Reader) -> Option<Axis> {
    let field = position("train.seed").expect("a field");
    let Content::List(items) = &node.content else {
        let message = format!("{} does not fit: expected a list like [0, 1, 2]", node.shown());
        reader.problem(Some(node.at), "seeds", message);
        return None;
    };
    let points: Vec<Point> = items.iter().filter_map(|item| point(field, item, reader)).collect();
    (!points.is_empty()).then_some(Axis { field, points })
}
