//! YAML with the line and column of every key and value.
//!
//! serde_yaml says what a document means, saphyr-parser's events say where everything stands; the
//! two are walked together into one tree of [`Node`]s, so a complaint can name the exact place.

use std::{collections::HashMap, fmt, rc::Rc};

use saphyr_parser::{Event, Parser, Span, Tag};
use serde::Serialize;
use serde_yaml::Value;

use crate::suite::problem::Problem;

/// A place in a file, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Mark {
    /// Which file: 0 for the suite itself, then its bases in the order of their reading.
    pub source: usize,
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its first character.
    pub at: Mark,
    /// The value.
    pub content: Content,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// A number, text, flag or null: the value, and the text as written (`0.10`, `8/255`).
    Scalar(Value, String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the file's order.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: Mark,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// A node that stands nowhere in a file: a value given on the command line.
    ///
    /// # Errors
    /// If it is not YAML.
    pub fn from_argument(text: &str) -> Result<Self, Vec<Problem>> {
        parse(text)
    }

    /// The value as a person would name it in a message.
    pub fn shown(&self) -> String {
        match &self.content {
            Content::Scalar(Value::Null, text) if text.is_empty() => "nothing".to_owned(),
            Content::Scalar(_, text) => format!("`{text}`"),
            Content::List(items) => format!("a list of {}", items.len()),
            Content::Map(entries) => match entries.first() {
                Some(entry) => format!("a mapping (`{}: ...`)", entry.key),
                None => "an empty mapping".to_owned(),
            },
        }
    }

    /// The text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Value::Null, _) => None,
            Content::Scalar(_, text) => Some(text),
            _ => None,
        }
    }

    /// The tree as JSON, for parts that are handed on unread.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.content {
            Content::Scalar(value, text) => match value {
                Value::Null => serde_json::Value::Null,
                Value::Bool(flag) => (*flag).into(),
                Value::Number(number) => serde_json::to_value(number)
                    .unwrap_or_else(|_| serde_json::Value::String(text.clone())),
                _ => serde_json::Value::String(text.clone()),
            },
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => serde_json::Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
            ),
        }
    }
}

impl Node {
    /// Says that the tree stands in the file of that number.
    fn stamp(&mut self, source: usize) {
        self.at.source = source;
        match &mut self.content {
            Content::Scalar(..) => {}
            Content::List(items) => items.iter_mut().for_each(|item| item.stamp(source)),
            Content::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.at.source = source;
                entry.value.stamp(source);
            }),
        }
    }
}

/// Reads the document of the file of that number among a suite and its bases.
///
/// # Errors
/// As [`parse`].
pub fn parse_from(text: &str, source: usize) -> Result<Node, Vec<Problem>> {
    let mut node = parse(text).map_err(|mut problems| {
        for at in problems.iter_mut().filter_map(|problem| problem.at.as_mut()) {
            at.source = source;
        }
        problems
    })?;
    node.stamp(source);
    Ok(node)
}

/// More nodes than any suite has; aliases count as often as they are used.
const MOST_NODES: usize = 200_000;
/// Deeper than any suite nests.
const MOST_LEVELS: usize = 32;

/// Reads one document.
///
/// # Errors
/// Syntax errors, duplicate keys, tags, several documents, and documents that aliases blow up,
/// each with its place.
pub fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let shape = Shaper::read(text)?;
    let value: Value = serde_yaml::from_str(text).map_err(|error| {
        let at =
            error.location().map(|at| Mark { source: 0, line: at.line(), column: at.column() });
        vec![Problem::new(at, "", format!("not valid YAML: {error}"))]
    })?;
    Ok(join(&shape, value))
}

/// Where things stand, without what they mean.
struct Shape {
    at: Mark,
    kind: Kind,
    /// Nodes in it, aliases counted in full.
    size: usize,
}

enum Kind {
    Scalar(String),
    List(Vec<Rc<Shape>>),
    Map(Vec<(String, Mark, Rc<Shape>)>),
}

/// A list or mapping whose end has not come yet.
struct Open {
    at: Mark,
    anchor: usize,
    map: bool,
    items: Vec<Rc<Shape>>,
}

#[derive(Default)]
struct Shaper {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Shape>>,
    root: Option<Rc<Shape>>,
    documents: usize,
    problems: Vec<Problem>,
}

impl Shaper {
    fn read(text: &str) -> Result<Rc<Shape>, Vec<Problem>> {
        let mut shaper = Self::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let at = mark_of(error.marker().line(), error.marker().col());
                vec![Problem::new(Some(at), "", format!("not valid YAML: {}", error.info()))]
            })?;
            if let Err(problem) = shaper.take(event, span) {
                shaper.problems.push(problem);
                return Err(shaper.problems);
            }
        }
        if !shaper.problems.is_empty() {
            return Err(shaper.problems);
        }
        let empty =
            || vec![Problem::new(None, "", "the file is empty: a suite begins with `suite: name`")];
        shaper.root.ok_or_else(empty)
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = mark_of(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Problem::new(
                        Some(at),
                        "",
                        "a second document: one file holds one suite",
                    ));
                }
            }
            Event::Scalar(text, _, anchor, tag) => {
                self.refuse(tag.as_deref(), at);
                let shape = Shape { at, kind: Kind::Scalar(text.into_owned()), size: 1 };
                self.put(Rc::new(shape), anchor);
            }
            Event::Alias(anchor) => {
                let unfinished = "an alias of something that contains it, or of nothing";
                let shape = self.anchors.get(&anchor).cloned();
                self.put(shape.ok_or_else(|| Problem::new(Some(at), "", unfinished))?, 0);
            }
            Event::SequenceStart(anchor, tag) => self.enter(at, anchor, false, tag.as_deref())?,
            Event::MappingStart(anchor, tag) => self.enter(at, anchor, true, tag.as_deref())?,
            Event::SequenceEnd | Event::MappingEnd => self.leave()?,
            _ => {}
        }
        Ok(())
    }

    fn refuse(&mut self, tag: Option<&Tag>, at: Mark) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            let shown =
                format!("the tag `{}{}` means nothing here: remove it", tag.handle, tag.suffix);
            self.problems.push(Problem::new(Some(at), "", shown));
        }
    }

    fn enter(
        &mut self,
        at: Mark,
        anchor: usize,
        map: bool,
        tag: Option<&Tag>,
    ) -> Result<(), Problem> {
        self.refuse(tag, at);
        if self.open.len() == MOST_LEVELS {
            let deep = format!("nested deeper than {MOST_LEVELS} levels");
            return Err(Problem::new(Some(at), "", deep));
        }
        self.open.push(Open { at, anchor, map, items: Vec::new() });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Problem> {
        let open = self.open.pop().expect("events nest");
        let size = open.items.iter().fold(1usize, |sum, item| sum.saturating_add(item.size));
        if size > MOST_NODES {
            let many =
                format!("holds more than {MOST_NODES} values once its aliases are written out");
            return Err(Problem::new(Some(open.at), "", many));
        }
        let kind = if open.map { self.pairs(&open.items) } else { Kind::List(open.items) };
        self.put(Rc::new(Shape { at: open.at, kind, size }), open.anchor);
        Ok(())
    }

    fn pairs(&mut self, items: &[Rc<Shape>]) -> Kind {
        let mut first: HashMap<String, Mark> = HashMap::new();
        let mut entries = Vec::new();
        for pair in items.chunks_exact(2) {
            let Kind::Scalar(key) = &pair[0].kind else {
                self.problems.push(Problem::new(Some(pair[0].at), "", "a key must be plain text"));
                continue;
            };
            let at = pair[0].at;
            if let Some(before) = first.insert(key.clone(), at) {
                let twice = format!("given twice: already on line {}", before.line);
                self.problems.push(Problem::new(Some(at), key, twice));
            }
            entries.push((key.clone(), at, pair[1].clone()));
        }
        Kind::Map(entries)
    }

    fn put(&mut self, shape: Rc<Shape>, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, shape.clone());
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(shape),
            None => self.root = Some(shape),
        }
    }
}

fn mark_of(line: usize, column: usize) -> Mark {
    Mark { source: 0, line, column: column + 1 }
}

/// One tree of both: places from `shape`, meanings from `value`. Merge keys (`<<`) are applied.
fn join(shape: &Shape, value: Value) -> Node {
    let content =
        match (&shape.kind, value) {
            (Kind::List(shapes), Value::Sequence(values)) => Content::List(
                shapes.iter().zip(values).map(|(shape, value)| join(shape, value)).collect(),
            ),
            (Kind::Map(shapes), Value::Mapping(values)) => {
                let entries = shapes.iter().zip(values).map(|((key, at, shape), (_, value))| {
                    Entry { key: key.clone(), at: *at, value: join(shape, value) }
                });
                Content::Map(merge(entries.collect()))
            }
            (Kind::Scalar(text), value) => Content::Scalar(value, text.clone()),
            // The two parsers never disagree about structure; if they did, the value would be shown.
            (_, value) => Content::Scalar(value, String::new()),
        };
    Node { at: shape.at, content }
}

fn merge(entries: Vec<Entry>) -> Vec<Entry> {
    let (merged, mut own): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.key == "<<");
    for entry in merged {
        let sources = match entry.value.content {
            Content::List(items) => items,
            _ => vec![entry.value],
        };
        for source in sources {
            let Content::Map(inherited) = source.content else { continue };
            for entry in inherited {
                if own.iter().all(|have| have.key != entry.key) {
                    own.push(entry);
                }
            }
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        let problems = parse(text).unwrap_err();
        problems.iter().map(|problem| problem.shown("f")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_value_has_its_place() {
        let node = parse("a: 1\nb:\n  - {c: 8/255}\n  - \"7\"\n").unwrap();
        let Content::Map(top) = &node.content else { panic!() };
        assert_eq!(
            (top[1].at, top[1].value.at),
            (Mark { source: 0, line: 2, column: 1 }, Mark { source: 0, line: 3, column: 3 })
        );
        let Content::List(items) = &top[1].value.content else { panic!() };
        let Content::Map(inner) = &items[0].content else { panic!() };
        assert_eq!(inner[0].value.at, Mark { source: 0, line: 3, column: 9 });
        assert_eq!(inner[0].value.text(), Some("8/255"));
        let Content::Scalar(value, _) = &items[1].content else { panic!() };
        assert_eq!(value, &Value::String("7".into()), "quoted numbers stay text");
    }

    #[test]
    fn syntax_errors_and_duplicates_have_their_place() {
        assert!(
            complaint("a: [1, 2\nb: 3\n").starts_with("f:2:"),
            "{}",
            complaint("a: [1, 2\nb: 3\n")
        );
        assert_eq!(complaint("a: 1\nb: 2\n  \na: 3"), "f:4:1: a: given twice: already on line 1");
        assert!(complaint("").contains("empty"));
        assert!(complaint("a: 1\n---\nb: 2\n").contains("second document"));
        assert!(complaint("a: !x 1").contains("tag"));
    }

    #[test]
    fn aliases_work_and_cannot_explode() {
        let node = parse("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n").unwrap();
        assert_eq!(node.to_json()["use"], serde_json::json!({"y": 3, "x": 1}));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let item = format!("*a{}", level - 1);
            let line = format!("a{level}: &a{level} [{}]\n", vec![item; 10].join(", "));
            bomb.push_str(&line);
        }
        let started = std::time::Instant::now();
        assert!(complaint(&bomb).contains("aliases"));
        assert!(started.elapsed().as_secs() < 5);
        assert!(complaint("a: &a [*a]").contains("alias"));
        assert!(complaint(&"[".repeat(60)).contains("deeper"));
    }
}
