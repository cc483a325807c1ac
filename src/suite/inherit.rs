//! `base:`: a suite over another one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::suite::{
    embedded,
    problem::Problem,
    reader::Reader,
    yaml::{Content, Node, parse_from},
};

/// One file of a chain of bases.
pub(super) struct Layer {
    pub(super) node: Node,
    /// Where its paths start; `None` for the suite itself, whose folder the plan knows.
    pub(super) folder: Option<PathBuf>,
}

/// A longer chain is a mistake.
const MOST_BASES: usize = 8;

/// The files of a suite, the last base first and the suite itself last; the names of bases are
/// added to `files`. Empty if one of them cannot be read: the reader knows why.
pub(super) fn layers(
    text: &str,
    folder: &Path,
    files: &mut Vec<String>,
    reader: &mut Reader,
) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    let (mut text, mut folder) = (text.to_owned(), folder.to_owned());
    loop {
        let source = layers.len();
        let node = match parse_from(&text, source) {
            Ok(node) => node,
            Err(problems) => {
                reader.problems.extend(problems);
                return Vec::new();
            }
        };
        let base = base_of(&node);
        let start = std::path::absolute(&folder).unwrap_or_else(|_| folder.clone());
        layers.push(Layer { node, folder: (source > 0).then_some(start) });
        let Some(base) = base else { break };
        match open(&base, &folder, files) {
            Ok((name, content, at)) if layers.len() <= MOST_BASES => {
                files.push(name);
                (text, folder) = (content, at);
            }
            Ok(_) => return refuse(reader, &base, format!("more than {MOST_BASES} bases")),
            Err(message) => return refuse(reader, &base, message),
        }
    }
    layers.reverse();
    layers
}

fn refuse(reader: &mut Reader, base: &Node, message: String) -> Vec<Layer> {
    reader.problems.push(Problem::new(Some(base.at), "base", message));
    Vec::new()
}

fn base_of(node: &Node) -> Option<Node> {
    let Content::Map(entries) = &node.content else { return None };
    entries.iter().find(|entry| entry.key == "base").map(|entry| entry.value.clone())
}

/// The name, text and folder of a base.
fn open(base: &Node, folder: &Path, files: &[String]) -> Result<(String, String, PathBuf), String> {
    let Some(written) = base.text() else {
        return Err(format!("{} does not fit: expected the path of a suite", base.shown()));
    };
    let path = folder.join(written);
    if let (false, Some((file, text))) = (path.is_file(), embedded::find(written)) {
        return Ok((file.to_owned(), text.to_owned(), PathBuf::new()));
    }
    let name = path.display().to_string();
    let same = |file: &String| match (fs::canonicalize(file), fs::canonicalize(&path)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    if files.iter().any(same) {
        return Err(format!("`{written}` leads back to itself"));
    }
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("`{written}` does not open ({name}): {error}"))?;
    Ok((name, text, path.parent().unwrap_or(Path::new("")).to_owned()))
}
