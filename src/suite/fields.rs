//! Fields: what kinds of value a suite's settings have and how to find them in the table.

use std::{collections::HashMap, sync::LazyLock};

use crate::suite::table::{DATA_SETS, FIELDS};

/// What a field's value must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A whole number in a closed range; `1M`, `50K` and `1_000` are understood.
    Count(u64, u64),
    /// A real number in a closed range.
    Real(f64, f64),
    /// A bound on perturbations, exact: `8/255`, `0.5`.
    Epsilon,
    /// `true` or `false`.
    Flag,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// A data set's name, or the path of a folder of class folders or an `.npz` file.
    DataSet,
    /// Any text.
    Text,
    /// A file or folder, relative to the suite's own folder.
    Path,
    /// One such path, or a list of them.
    Paths,
    /// A list of positive whole numbers.
    Counts,
    /// The name of a threat model of the suite's `threats:`.
    Threat,
    /// A list of such names.
    Threats,
    /// A list of attacks: names, or `name: {steps: ..., restarts: ..., targets: ..., eot: ...}`.
    Attacks,
}

/// What holds when neither suite nor preset says anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fallback {
    /// This value, as YAML.
    Is(&'static str),
    /// Nothing; the text says what follows from that.
    Absent(&'static str),
    /// The suite must say it.
    Required,
}

/// One settable field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its dotted path: `train.epochs`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds when it is not given.
    pub fallback: Fallback,
    /// One line for people.
    pub doc: &'static str,
}

impl Kind {
    /// What was expected, in words, for messages.
    pub fn expected(self) -> String {
        match self {
            Self::Count(low, u64::MAX) => format!("a whole number of at least {low}"),
            Self::Count(low, high) => format!("a whole number from {low} to {high}"),
            // The least positive bound stands for "above zero".
            Self::Real(low, high) if low > 0.0 => format!("a number above 0, at most {high}"),
            Self::Real(low, high) => format!("a number from {low} to {high}"),
            Self::Epsilon => "a bound above 0, like 8/255 or 0.5".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Choice(names) => format!("one of {}", names.join(", ")),
            Self::DataSet => format!("one of {}, or a path", DATA_SETS.join(", ")),
            Self::Text => "a text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Paths => "a path or a list of paths".to_owned(),
            Self::Counts => "a list of whole numbers, like [1, 2, 2]".to_owned(),
            Self::Threat => "the name of a threat model from `threats:`".to_owned(),
            Self::Threats => "a list of names from `threats:`".to_owned(),
            Self::Attacks => {
                "a list of attacks, like [apgd-ce, apgd-t] or [{apgd-ce: {steps: 50}}]".to_owned()
            }
        }
    }
}

static BY_PATH: LazyLock<HashMap<&'static str, usize>> =
    LazyLock::new(|| FIELDS.iter().enumerate().map(|(index, field)| (field.path, index)).collect());

/// The position of `path` in [`FIELDS`].
pub fn position(path: &str) -> Option<usize> {
    BY_PATH.get(path).copied()
}

/// Whether some field's path begins with `path.`.
pub fn is_section(path: &str) -> bool {
    FIELDS
        .iter()
        .any(|field| field.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The names that may follow `section` (the empty section is the top).
pub fn children(section: &str) -> impl Iterator<Item = &'static str> {
    let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
    FIELDS.iter().filter_map(move |field| {
        let rest = field.path.strip_prefix(prefix.as_str())?;
        Some(rest.split('.').next().unwrap_or(rest))
    })
}
