//! Suites: the YAML that declares an experiment, read by the table of fields.
//!
//! `yaml` gives every value its place, `table` says what can be set, `reader` checks all of it in
//! one pass, `axes` says which cells there are, `settings` layers table, preset, suite and axis.

pub mod axes;
pub mod ci;
pub mod cluster;
pub mod embedded;
pub mod fields;
pub mod inherit;
pub mod problem;
pub mod reader;
pub mod reference;
pub mod report;
pub mod scale;
pub mod schema;
pub mod settings;
pub mod table;
pub mod value;
pub mod yaml;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{AtPath, Result},
    suite::{
        axes::{Axes, Axis, Draft},
        ci::Thresholds,
        fields::Fallback,
        problem::suggestion,
        reader::Reader,
        reference::Reference,
        report::Layout,
        scale::Scale,
        settings::{Given, Origin, Setting, Settings},
        table::FIELDS,
        value::Value,
        yaml::{Content, Mark, Node},
    },
    threat::ThreatModel,
    units::Epsilon,
};

/// A threat model under the name that a suite gives it.
#[derive(Debug, Clone)]
pub struct NamedThreat {
    /// The name.
    pub name: String,
    /// The threat model.
    pub model: ThreatModel,
    /// Settings of the cells that train under it: its step policy and sampler.
    pub given: Vec<Given>,
}

/// A suite as its file has it, checked, not yet resolved into jobs.
#[derive(Debug, Clone)]
pub struct Suite {
    /// The file as messages show it, then its bases.
    pub files: Vec<String>,
    /// The folder that relative paths of the suite start from.
    pub folder: PathBuf,
    /// The suite's name.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// The named threat models, in order.
    pub threats: Vec<NamedThreat>,
    /// What the sections give.
    pub base: Vec<Given>,
    /// Which cells there are.
    pub axes: Axes,
    /// The `report:` section, for the report alone.
    pub report: Layout,
    /// The `reference:` section: published numbers to compare with.
    pub reference: Vec<Reference>,
    /// The `ci:` section: thresholds for `gauntlet check`.
    pub ci: Thresholds,
    /// Shrinks every cell, from the command line.
    pub scale: Option<Scale>,
    /// The axis or setting of `seeds:`.
    seeds: Option<Axis>,
}

impl Suite {
    /// Reads the suite at `path`, or the built-in one of that name where no such file exists, and
    /// applies `overrides` (`path=value`).
    ///
    /// # Errors
    /// If it cannot be read, or every complaint about it at once.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let built_in = path.to_str().and_then(embedded::find);
        if let (false, Some((file, text))) = (path.is_file(), built_in) {
            return Self::parse(text, file, Path::new(""), overrides);
        }
        let text = fs::read_to_string(path).at(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, &path.display().to_string(), folder, overrides)
    }

    /// Reads `text`; `file` is for messages, `folder` is where relative paths start.
    ///
    /// # Errors
    /// Every complaint at once, each with file, line, column, key, value and what was expected.
    pub fn parse(text: &str, file: &str, folder: &Path, overrides: &[String]) -> Result<Self> {
        let mut suite = Self::empty(file, folder);
        let mut reader = Reader::default();
        let layers = inherit::layers(text, folder, &mut suite.files, &mut reader);
        if layers.is_empty() {
            return Err(problem::error(&suite.files, reader.problems));
        }
        for (depth, layer) in layers.iter().enumerate() {
            reader.folder.clone_from(&layer.folder);
            suite.read(&layer.node, depth > 0, &mut reader);
        }
        suite.finish(&mut reader);
        let arguments: Vec<_> = overrides.iter().filter_map(|text| reader.argument(text)).collect();
        suite.fix_axes(&arguments);
        suite.base.extend(arguments);
        suite.check(&mut reader);
        if reader.problems.is_empty() {
            return Ok(suite);
        }
        Err(problem::error(&suite.files, reader.problems))
    }

    fn empty(file: &str, folder: &Path) -> Self {
        Self {
            files: vec![file.to_owned()],
            folder: folder.to_owned(),
            name: String::new(),
            description: String::new(),
            threats: Vec::new(),
            base: Vec::new(),
            axes: Axes::default(),
            report: Layout::default(),
            reference: Vec::new(),
            ci: Thresholds::default(),
            scale: None,
            seeds: None,
        }
    }

    /// Reads one file over what its bases gave (`inherits`): sections add to theirs, `axes`,
    /// `seeds`, `report`, `reference` and `ci` replace theirs.
    fn read(&mut self, node: &Node, inherits: bool, reader: &mut Reader) {
        self.name.clear();
        let (mut own, mut own_axes) = (Vec::new(), false);
        for entry in reader.entries(node, "suite") {
            match entry.key.as_str() {
                "suite" => self.name = name(&entry.value, reader),
                "base" => {}
                "description" => {
                    self.description = entry.value.text().unwrap_or_default().trim().to_owned();
                }
                "threats" => self.read_threats(&entry.value, reader),
                "axes" => {
                    (self.axes, own_axes) = (Axes::default(), true);
                    self.axes.read(&entry.value, reader);
                }
                "seeds" => self.seeds = axes::seeds(&entry.value, reader),
                "report" => self.report = report::read(&entry.value, reader),
                "reference" => self.reference = reference::read(&entry.value, reader),
                "ci" => self.ci = ci::read(&entry.value, reader),
                _ => reader.section(entry, "", &mut own),
            }
        }
        if inherits && !own_axes {
            self.fix_axes(&own);
        }
        let gives = |axis: &Axis| own.iter().any(|given| given.field == axis.field);
        if inherits && self.seeds.as_ref().is_some_and(gives) {
            self.seeds = None;
        }
        self.base.extend(own);
    }

    /// What only the last file decides.
    fn finish(&mut self, reader: &mut Reader) {
        if let Some(axis) = self.seeds.take() {
            self.add_seeds(axis);
        }
        if self.name.is_empty() && reader.problems.is_empty() {
            reader.problem(
                None,
                "suite",
                "is missing: expected the suite's name, like `suite: demo`",
            );
        }
    }

    /// One seed is a setting, several are an axis.
    fn add_seeds(&mut self, axis: Axis) {
        if let [point] = axis.points.as_slice() {
            let setting = Setting { value: point.value.clone(), origin: Origin::Suite(point.at) };
            self.base.push(Given { field: axis.field, setting });
        } else {
            self.axes.factors.push(vec![axis]);
        }
    }

    fn read_threats(&mut self, node: &Node, reader: &mut Reader) {
        for entry in reader.entries(node, "threats") {
            let key = format!("threats.{}", entry.key);
            let (mut norm, mut epsilon, mut given) = (None, None, Vec::new());
            for inner in reader.entries(&entry.value, &key) {
                match inner.key.as_str() {
                    "norm" => norm = inner.value.text().map(|text| (text, inner.value.at)),
                    "epsilon" => epsilon = inner.value.text().map(|text| (text, inner.value.at)),
                    "policy" | "sampler" => reader.section(inner, "", &mut given),
                    other => {
                        let known = ["norm", "epsilon", "policy", "sampler"];
                        let hint = suggestion(other, known.into_iter());
                        let message = format!("unknown key: {hint}");
                        reader.problem(Some(inner.at), &format!("{key}.{other}"), message);
                    }
                }
            }
            let (norm, epsilon) = (norm.ok_or(entry.at), epsilon.ok_or(entry.at));
            let norm = part(norm, &format!("{key}.norm"), "linf, l2 or l1", reader, |text| {
                text.parse().ok()
            });
            let wanted = "a bound above 0, like 8/255 or 0.5";
            let epsilon = part(epsilon, &format!("{key}.epsilon"), wanted, reader, |text| {
                text.parse().ok().filter(|bound: &Epsilon| bound.value() > 0.0)
            });
            if let (Some(norm), Some(epsilon)) = (norm, epsilon) {
                let model = ThreatModel { norm, epsilon };
                self.threats.retain(|threat| threat.name != entry.key);
                self.threats.push(NamedThreat { name: entry.key.clone(), model, given });
            }
        }
    }

    /// Values given over a whole suite fix the axes that vary their fields.
    fn fix_axes(&mut self, given: &[Given]) {
        for given in given {
            for axes in &mut self.axes.factors {
                axes.retain(|axis| axis.field != given.field);
            }
            self.axes.factors.retain(|axes| !axes.is_empty());
            self.axes.exclude.retain(|rule| rule.iter().all(|(field, _)| *field != given.field));
        }
    }

    fn check(&self, reader: &mut Reader) {
        self.axes.check(reader);
        let argued = self.base.iter().filter(|given| given.setting.origin == Origin::Argument);
        let argued: Vec<usize> = argued.map(|given| given.field).collect();
        self.report.check(&self.axes, &argued, reader);
        let varied = |field| self.axes.fields().any(|axis| axis.field == field);
        for (position, field) in FIELDS.iter().enumerate() {
            let given = self.base.iter().any(|given| given.field == position) || varied(position);
            let read = reader.problems.iter().any(|problem| problem.key == field.path);
            if field.fallback == Fallback::Required && !given && !read {
                let message = format!("is missing: expected {}", field.kind.expected());
                reader.problem(None, field.path, message);
            }
        }
        let points = self.axes.fields().flat_map(|axis| {
            axis.points.iter().map(move |point| (axis.field, &point.value, Some(point.at)))
        });
        let extra = self.axes.include.iter().flat_map(|draft| &draft.given);
        let extra = extra.chain(self.reference.iter().flat_map(|reference| &reference.cell));
        let given = self.base.iter().chain(extra);
        let given = given.map(|g| (g.field, &g.setting.value, g.setting.origin.mark()));
        for (field, value, at) in given.chain(points) {
            self.check_names(field, value, at, reader);
        }
    }

    /// Names of threat models must be in `threats:`.
    fn check_names(&self, field: usize, value: &Value, at: Option<Mark>, reader: &mut Reader) {
        let names: &[String] = match (FIELDS[field].kind, value) {
            (fields::Kind::Threat, Value::Text(name)) => std::slice::from_ref(name),
            (fields::Kind::Threats, Value::Texts(names)) => names,
            _ => return,
        };
        for name in names.iter().filter(|name| self.threat(name).is_none()) {
            let known = self.threats.iter().map(|threat| threat.name.as_str());
            let hint = if self.threats.is_empty() {
                "`threats:` names none".to_owned()
            } else {
                suggestion(name, known)
            };
            reader.problem(
                at,
                FIELDS[field].path,
                format!("`{name}` is no threat model here: {hint}"),
            );
        }
    }

    /// The settings of a cell: those of the suite, of its threat model, and its own; shrunk by
    /// `--scale`.
    pub fn settings(&self, cell: &[Given]) -> Settings {
        let mut settings = self.unscaled(cell);
        if let Some(scale) = self.scale {
            scale.apply(&mut settings);
        }
        settings
    }

    fn unscaled(&self, cell: &[Given]) -> Settings {
        let plain = Settings::layered(&self.base, cell);
        let named = match (plain.text("threat"), self.threats.as_slice()) {
            (Some(name), threats) => threats.iter().find(|threat| threat.name == name),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        match named.filter(|threat| !threat.given.is_empty()) {
            Some(threat) => {
                let argued = |field| {
                    let own = self.base.iter().filter(|given| given.field == field);
                    own.into_iter().any(|given| given.setting.origin == Origin::Argument)
                };
                let own = threat.given.iter().filter(|given| !argued(given.field));
                let cell: Vec<Given> = own.chain(cell).cloned().collect();
                Settings::layered(&self.base, &cell)
            }
            None => plain,
        }
    }

    /// Whether the cell that `draft` describes has all of the values that `cell` asks for. `--scale`
    /// does not count: a cell in miniature is still that cell.
    pub fn is_cell(&self, draft: &Draft, cell: &[Given]) -> bool {
        let settings = self.unscaled(&draft.given);
        cell.iter().all(|given| settings.at(given.field).value == given.setting.value)
    }

    /// The place of a mark for people: `suite.yaml:3:5`.
    pub fn place(&self, at: Mark) -> String {
        format!("{}:{at}", self.files[at.source])
    }

    /// The threat model of that name.
    pub fn threat(&self, name: &str) -> Option<ThreatModel> {
        self.threats.iter().find(|threat| threat.name == name).map(|threat| threat.model)
    }
}

/// Reads the text that was found, or complains that there is none at the given place.
fn part<T>(
    found: std::result::Result<(&str, Mark), Mark>,
    key: &str,
    wanted: &str,
    reader: &mut Reader,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    match found {
        Ok((text, at)) => {
            let value = parse(text);
            if value.is_none() {
                reader.problem(Some(at), key, format!("`{text}` does not fit: expected {wanted}"));
            }
            value
        }
        Err(at) => {
            reader.problem(Some(at), key, format!("is missing: expected {wanted}"));
            None
        }
    }
}

/// A name that can stand in file names.
fn name(node: &Node, reader: &mut Reader) -> String {
    let fits = |c: char| c.is_alphanumeric() || "-_. ".contains(c);
    match (node.text(), &node.content) {
        (Some(text), Content::Scalar(..)) if !text.is_empty() && text.chars().all(fits) => {
            text.to_owned()
        }
        _ => {
            let message = format!(
                "{} does not fit: expected a name of letters, digits, - and _",
                node.shown()
            );
            reader.problem(Some(node.at), "suite", message);
            String::new()
        }
    }
}

#[cfg(test)]
mod tests;
