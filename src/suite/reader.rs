//! Reads sections by the table of fields and collects every complaint on the way.

use std::path::PathBuf;

use crate::suite::{
    fields::{Fallback, Kind, children, is_section, position},
    problem::{Problem, suggestion},
    settings::{Given, Origin, Setting},
    table::FIELDS,
    value::{self, Value},
    yaml::{Content, Entry, Mark, Node},
};

/// What has been complained about so far.
#[derive(Debug, Default)]
pub struct Reader {
    /// All complaints.
    pub problems: Vec<Problem>,
    /// The folder of the base that is being read: its paths start there.
    pub folder: Option<PathBuf>,
}

/// Keys of the top level that are not sections of fields.
pub const TOP: [&str; 9] =
    ["suite", "base", "description", "threats", "axes", "seeds", "report", "reference", "ci"];

impl Reader {
    /// Notes a complaint.
    pub fn problem(&mut self, at: Option<Mark>, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(at, key, message));
    }

    /// The entries of a mapping; anything else is complained about.
    pub fn entries<'a>(&mut self, node: &'a Node, key: &str) -> &'a [Entry] {
        match &node.content {
            Content::Map(entries) => entries,
            Content::Scalar(serde_yaml::Value::Null, _) => &[],
            _ => {
                let message = format!("{} does not fit: expected `key: value` lines", node.shown());
                self.problem(Some(node.at), key, message);
                &[]
            }
        }
    }

    /// The items of a list; anything else is complained about.
    pub fn items<'a>(&mut self, node: &'a Node, key: &str) -> &'a [Node] {
        if let Content::List(items) = &node.content {
            return items;
        }
        let message = format!("{} does not fit: expected a list", node.shown());
        self.problem(Some(node.at), key, message);
        &[]
    }

    /// The position of the field `path`; an unknown path is complained about with the nearest one.
    pub fn field(&mut self, path: &str, at: Mark) -> Option<usize> {
        let found = position(path);
        if found.is_none() {
            self.unknown(path, Some(at));
        }
        found
    }

    fn unknown(&mut self, path: &str, at: Option<Mark>) {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        let message = if is_section(path) {
            format!("is a section: expected a field of it, like `{path}.{}`", first_child(path))
        } else if section.is_empty() || is_section(section) {
            let siblings = children(section);
            let hint = match section {
                "" => suggestion(name, siblings.chain(TOP)),
                _ => suggestion(name, siblings),
            };
            format!("unknown key: {hint}")
        } else {
            format!("unknown key: {}", suggestion(path, FIELDS.iter().map(|field| field.path)))
        };
        self.problem(at, path, message);
    }

    /// Reads `node` as the field at `position`. Null unsets what may be absent.
    pub fn value(&mut self, position: usize, node: &Node) -> Option<Value> {
        let field = &FIELDS[position];
        let null = matches!(&node.content, Content::Scalar(serde_yaml::Value::Null, _));
        if null && matches!(field.fallback, Fallback::Absent(_)) {
            return Some(Value::Absent);
        }
        match value::read(field.kind, node) {
            Ok(Value::Text(path)) if matches!(field.kind, Kind::Path | Kind::Paths) => {
                Some(Value::Text(self.placed(path)))
            }
            Ok(Value::Texts(paths)) if field.kind == Kind::Paths => {
                Some(Value::Texts(paths.into_iter().map(|path| self.placed(path)).collect()))
            }
            Ok(value) => Some(value),
            Err((message, at)) => {
                self.problem(Some(at.at), field.path, message);
                None
            }
        }
    }

    /// `path` as seen from the suite that includes this one.
    fn placed(&self, path: String) -> String {
        match &self.folder {
            Some(folder) => folder.join(path).to_string_lossy().into_owned(),
            None => path,
        }
    }

    /// Reads a section's fields, nested or dotted, into `given`.
    pub fn section(&mut self, entry: &Entry, prefix: &str, given: &mut Vec<Given>) {
        let path =
            if prefix.is_empty() { entry.key.clone() } else { format!("{prefix}.{}", entry.key) };
        let nested = matches!(&entry.value.content, Content::Map(_)) && is_section(&path);
        match position(&path) {
            Some(field) if !nested => {
                if let Some(value) = self.value(field, &entry.value) {
                    let setting = Setting { value, origin: Origin::Suite(entry.value.at) };
                    given.push(Given { field, setting });
                }
            }
            None if !is_section(&path) => self.unknown(&path, Some(entry.at)),
            _ => {
                for inner in self.entries(&entry.value, &path) {
                    self.section(inner, &path, given);
                }
            }
        }
    }

    /// Reads one `path=value` of the command line.
    pub fn argument(&mut self, argument: &str) -> Option<Given> {
        let Some((path, text)) = argument.split_once('=') else {
            let message =
                format!("`{argument}` does not fit: expected PATH=VALUE, like train.epochs=5");
            self.problem(None, "--set", message);
            return None;
        };
        let Some(field) = position(path.trim()) else {
            self.unknown(path.trim(), None);
            return None;
        };
        let node = match Node::from_argument(text) {
            Ok(node) => node,
            Err(problems) => {
                let text = problems.into_iter().map(|problem| problem.message).next();
                self.problem(None, path, text.unwrap_or_default());
                return None;
            }
        };
        let before = self.problems.len();
        let value = self.value(field, &node);
        // Lines of an argument mean nothing.
        for problem in &mut self.problems[before..] {
            problem.at = None;
        }
        Some(Given { field, setting: Setting { value: value?, origin: Origin::Argument } })
    }
}

fn first_child(section: &str) -> &'static str {
    children(section).next().unwrap_or_default()
}
