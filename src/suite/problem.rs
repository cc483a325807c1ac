//! What is wrong with a suite, collected in one pass.

use crate::{error::Error, suite::yaml::Mark};

/// One complaint with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Where; `None` for the file as a whole and for command-line arguments.
    pub at: Option<Mark>,
    /// The dotted path concerned; may be empty.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl Problem {
    /// A complaint about `key` at `at`.
    pub fn new(at: Option<Mark>, key: &str, message: impl Into<String>) -> Self {
        Self { at, key: key.to_owned(), message: message.into() }
    }

    /// `file:line:column: key: message`.
    pub fn shown(&self, file: &str) -> String {
        let at = self.at.map(|at| format!(":{at}")).unwrap_or_default();
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        format!("{file}{at}: {key}{}", self.message)
    }
}

/// All complaints about a suite (the first of `files`) and its bases as one error, in the order of
/// lines.
pub fn error(files: &[String], mut problems: Vec<Problem>) -> Error {
    problems.sort_by_key(|problem| problem.at);
    let mut lines: Vec<String> = Vec::new();
    for problem in &problems {
        let line = problem.shown(&files[problem.at.map_or(0, |at| at.source)]);
        // Every cell complains of what all share.
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Error::Input(lines.join("\n"))
}

/// ``, did you mean `x`?`` for the candidate nearest to `word`, or a list of what there is.
pub fn suggestion<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = candidates.collect();
    names.sort_unstable();
    names.dedup();
    let score = |name: &str| strsim::jaro_winkler(&word.to_lowercase(), name);
    let best = names.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
    match best {
        Some(best) if score(best) > 0.8 => format!("did you mean `{best}`?"),
        _ => format!("expected one of {}", names.join(", ")),
    }
}
