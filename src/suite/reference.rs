//! `reference:`: published numbers to stand beside a suite's own, and how sure they are.

use serde::{Deserialize, Serialize};

use crate::suite::{
    problem::suggestion,
    reader::Reader,
    settings::{Given, Origin, Setting},
    yaml::{Content, Entry, Mark, Node},
};

/// How well a published number is established.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Read in a primary source: the paper's repository, RobustBench.
    Verified,
    /// Read in somebody else's work that cites it.
    Secondary,
    /// Not checked against any source.
    Unverified,
}

impl Certainty {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Secondary => "secondary",
            Self::Unverified => "unverified",
        }
    }
}

/// The numbers of one published result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Clean accuracy in percent.
    pub clean: Option<f64>,
    /// Robust accuracy under AutoAttack in percent.
    pub robust: Option<f64>,
    /// Robust accuracy under PGD-40 in percent.
    pub pgd: Option<f64>,
    /// Fréchet inception distance of the generated images.
    pub fid: Option<f64>,
    /// Where it is published.
    pub source: String,
    /// How sure it is.
    pub certainty: Certainty,
}

impl Numbers {
    /// Each number that it gives, with what it measures.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("clean %", self.clean),
            ("robust %", self.robust),
            ("PGD-40 %", self.pgd),
            ("FID", self.fid),
        ];
        all.into_iter().filter_map(|(measure, number)| Some((measure, number?)))
    }
}

/// One published result.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Which cells it speaks of: those with all of these values.
    pub cell: Vec<Given>,
    /// What it says of them.
    pub numbers: Numbers,
    /// Where it stands in the suite.
    pub at: Mark,
}

const KEYS: [&str; 7] = ["cell", "clean", "robust", "pgd", "fid", "source", "certainty"];

/// Reads the section: one reference, or a list of them.
pub(super) fn read(node: &Node, reader: &mut Reader) -> Vec<Reference> {
    match &node.content {
        Content::List(items) => items.iter().map(|item| one(item, reader)).collect(),
        _ => vec![one(node, reader)],
    }
}

fn one(node: &Node, reader: &mut Reader) -> Reference {
    let mut cell = Vec::new();
    let mut found = Numbers {
        clean: None,
        robust: None,
        pgd: None,
        fid: None,
        source: String::new(),
        certainty: Certainty::Unverified,
    };
    let before = reader.problems.len();
    for entry in reader.entries(node, "reference") {
        match entry.key.as_str() {
            "cell" => cell = cell_of(&entry.value, reader),
            "clean" => found.clean = number(entry, 100.0, reader),
            "robust" => found.robust = number(entry, 100.0, reader),
            "pgd" => found.pgd = number(entry, 100.0, reader),
            "fid" => found.fid = number(entry, 10_000.0, reader),
            "source" => found.source = entry.value.text().unwrap_or_default().to_owned(),
            "certainty" => {
                found.certainty = certainty(entry, reader).unwrap_or(found.certainty);
            }
            other => {
                let message = format!("unknown key: {}", suggestion(other, KEYS.into_iter()));
                reader.problem(Some(entry.at), &format!("reference.{other}"), message);
            }
        }
    }
    if found.each().next().is_none() && reader.problems.len() == before {
        let message = "says no number: expected clean, robust, pgd or fid";
        reader.problem(Some(node.at), "reference", message);
    }
    Reference { cell, numbers: found, at: node.at }
}

fn cell_of(node: &Node, reader: &mut Reader) -> Vec<Given> {
    let mut given = Vec::new();
    for entry in reader.entries(node, "reference.cell") {
        let Some(field) = reader.field(&entry.key, entry.at) else { continue };
        if let Some(value) = reader.value(field, &entry.value) {
            let setting = Setting { value, origin: Origin::Suite(entry.value.at) };
            given.push(Given { field, setting });
        }
    }
    given
}

/// A number from 0 to `high`.
pub(super) fn number(entry: &Entry, high: f64, reader: &mut Reader) -> Option<f64> {
    let number = entry.value.text().and_then(|text| text.parse().ok());
    let number = number.filter(|number| (0.0..=high).contains(number));
    if number.is_none() {
        let message =
            format!("{} does not fit: expected a number from 0 to {high}", entry.value.shown());
        reader.problem(Some(entry.value.at), &entry.key, message);
    }
    number
}

fn certainty(entry: &Entry, reader: &mut Reader) -> Option<Certainty> {
    const ALL: [Certainty; 3] = [Certainty::Verified, Certainty::Secondary, Certainty::Unverified];
    let text = entry.value.text().unwrap_or_default();
    let found = ALL.into_iter().find(|certainty| certainty.name() == text);
    if found.is_none() {
        let hint = suggestion(text, ALL.iter().map(|certainty| certainty.name()));
        let message = format!("{} is unknown: {hint}", entry.value.shown());
        reader.problem(Some(entry.value.at), "reference.certainty", message);
    }
    found
}
