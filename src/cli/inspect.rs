//! `gauntlet inspect`: what a file of weights or arrays holds. Runs nothing of it.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args as ClapArgs;
use serde_json::json;

use crate::{
    digest,
    error::{AtPath, Result},
    formats::tree::{self, Document, Tree},
};

/// Lists what a checkpoint, EDM pickle, safetensors or numpy file holds, without running any of it.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The file.
    file: PathBuf,
    /// Prints a JSON list of the tensors (`name`, `shape`, `kind`) instead of the tree.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If the file cannot be read or is of no known format.
pub fn run(args: &Args) -> Result<()> {
    let document = tree::read(&args.file)?;
    let text = if args.json {
        listing(&document.tree)
    } else {
        let hash = digest::hash_file(&args.file)?;
        let size = std::fs::metadata(&args.file).at(&args.file)?.len();
        format!(
            "{}: {}, {}, blake3 {hash}\n{}",
            args.file.display(),
            document.format.name(),
            bytes(size),
            outline(&document)
        )
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read us has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.at("standard output".as_ref()),
    }
}

fn listing(tree: &Tree) -> String {
    let list: Vec<_> = tree::flatten(tree)
        .iter()
        .map(|(name, array)| {
            json!({"name": name, "shape": array.shape(), "kind": array.dtype().name()})
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&list).expect("plain values");
    text.push('\n');
    text
}

fn outline(document: &Document) -> String {
    let mut text = String::new();
    for (key, value) in &document.metadata {
        let _ = writeln!(text, "  [{key}] {value}");
    }
    describe(&document.tree, "", 1, &mut text);
    let tensors = tree::flatten(&document.tree);
    if !tensors.is_empty() {
        let numbers: usize = tensors.iter().map(|(_, array)| array.len()).sum();
        let size: usize = tensors.iter().map(|(_, array)| array.bytes().len()).sum();
        let size = bytes(size as u64);
        let _ = writeln!(text, "{} tensors, {numbers} numbers, {size}", tensors.len());
    }
    text
}

/// Items of a list that are shown before the rest is only counted.
const SHOWN: usize = 8;

fn describe(tree: &Tree, name: &str, depth: usize, text: &mut String) {
    let line = match tree {
        Tree::Null => "null".to_owned(),
        Tree::Bool(value) => value.to_string(),
        Tree::Int(value) => value.to_string(),
        Tree::Float(value) => value.to_string(),
        Tree::Text(value) => format!("{:?}", shortened(value)),
        Tree::Bytes(value) => bytes(value.len() as u64),
        Tree::List(items) => format!("list of {}", items.len()),
        Tree::Map(fields) => format!("map of {}", fields.len()),
        Tree::Object { class, .. } => class.clone(),
        Tree::Tensor(array) => {
            let size = bytes(array.bytes().len() as u64);
            format!("{} {:?}  {size}", array.dtype().name(), array.shape())
        }
    };
    let indent = "  ".repeat(depth);
    let colon = if name.is_empty() { "" } else { ": " };
    let _ = writeln!(text, "{indent}{name}{colon}{line}");
    match tree {
        Tree::List(items) => {
            for (index, item) in items.iter().take(SHOWN).enumerate() {
                describe(item, &index.to_string(), depth + 1, text);
            }
            if items.len() > SHOWN {
                let _ = writeln!(text, "{indent}  ... and {} more", items.len() - SHOWN);
            }
        }
        Tree::Map(fields) | Tree::Object { fields, .. } => {
            for (name, value) in fields.iter().filter(|(name, _)| !is_bookkeeping(name)) {
                describe(value, name, depth + 1, text);
            }
        }
        _ => {}
    }
}

/// What every pickled torch module drags along and nobody looks for.
fn is_bookkeeping(name: &str) -> bool {
    name.starts_with('_') && (name.contains("_hook") || name == "_non_persistent_buffers_set")
}

/// The first sixty characters.
fn shortened(text: &str) -> String {
    let mut start: String = text.chars().take(60).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    start
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", count as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{array::Array, tree::Format};

    #[test]
    fn outlines_name_every_tensor_with_shape_and_size() {
        let array = Array::from_f32(&[2, 300], &[0.0; 600]).unwrap();
        let inner = Tree::Map(vec![("a.weight".into(), Tree::Tensor(array))]);
        let numbers = Tree::List((0..10).map(Tree::Int).collect());
        let tree = Tree::Map(vec![("state".into(), inner), ("loss".into(), numbers)]);
        let metadata = vec![("arch".into(), "cnn-a".into())];
        let text = outline(&Document { format: Format::TorchZip, tree: tree.clone(), metadata });
        for part in [
            "[arch] cnn-a",
            "    a.weight: float32 [2, 300]  2.3 KiB",
            "... and 2 more",
            "1 tensors, 600 numbers",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let listed: serde_json::Value = serde_json::from_str(&listing(&tree)).unwrap();
        let expected = json!([{"name": "state.a.weight", "shape": [2, 300], "kind": "float32"}]);
        assert_eq!(listed, expected);
    }
}
