//! Whether what lies in a folder was begun by the same recipe.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    digest::JobId,
    error::{AtPath, Error, Result},
    formats::write_atomically,
    train::spec::TrainSpec,
};

/// The file of everything that is needed to go on.
pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";

/// What a folder of checkpoints belongs to.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    /// Digest of recipe and inputs, generated images included.
    id: JobId,
    /// The recipe.
    recipe: BTreeMap<String, Value>,
}

/// Claims the folder `work` for the training `id` by `spec`, or finds that it is that training's
/// already.
///
/// # Errors
/// If it is another one's: the message says in which values they differ.
pub fn same(work: &Path, id: &JobId, spec: &TrainSpec) -> Result<()> {
    let path = work.join("recipe.json");
    let ours = Owner { id: id.clone(), recipe: plain(spec) };
    let begun = work.join(CHECKPOINT).exists();
    let Some(text) = fs::read_to_string(&path).ok().filter(|_| begun) else {
        fs::create_dir_all(work).at(work)?;
        let text = serde_json::to_string_pretty(&ours).expect("plain data");
        return write_atomically(&path, |file| std::io::Write::write_all(file, text.as_bytes()));
    };
    let theirs: Owner = serde_json::from_str(&text).map_err(|error| {
        Error::in_file(&path, format!("{error}; delete the folder to begin anew"))
    })?;
    if theirs.id == ours.id {
        return Ok(());
    }
    let differing = difference(&theirs.recipe, &ours.recipe);
    let words = match differing.as_slice() {
        [] => "the generated images differ".to_owned(),
        lines => lines.join("; "),
    };
    Err(Error::in_file(
        &path,
        format!(
            "a training by another recipe is here: {words}. Its schedule and averages are made for \
             that one, so it cannot go on by another: give another --out, or delete {}",
            work.display()
        ),
    ))
}

fn plain(spec: &TrainSpec) -> BTreeMap<String, Value> {
    let value = serde_json::to_value(spec).expect("a spec is plain data");
    serde_json::from_value(value).expect("a spec is an object")
}

/// `epochs: was 2, is now 4` for each value that differs.
fn difference(theirs: &BTreeMap<String, Value>, ours: &BTreeMap<String, Value>) -> Vec<String> {
    let differing = ours.iter().filter(|(key, value)| theirs.get(*key) != Some(value));
    let was = |key: &str| theirs.get(key).map_or("absent".to_owned(), Value::to_string);
    differing.map(|(key, value)| format!("{key} was {}, is now {value}", was(key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::golden;
    use serde_json::json;

    #[test]
    fn another_recipe_is_refused_with_what_differs() {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("work");
        let (one, other) = (JobId::of(&json!(1)), JobId::of(&json!(2)));
        // Without a checkpoint nothing was begun.
        same(&work, &other, &golden::spec()).unwrap();
        same(&work, &one, &golden::spec()).unwrap();
        fs::write(work.join(CHECKPOINT), "").unwrap();
        same(&work, &one, &golden::spec()).unwrap();
        let longer = TrainSpec { epochs: 800, ..golden::spec() };
        let message = same(&work, &other, &longer).unwrap_err().to_string();
        assert!(message.contains("epochs was 400, is now 800. Its"), "{message}");
        let message = same(&work, &other, &golden::spec()).unwrap_err().to_string();
        assert!(message.contains("the generated images differ"), "{message}");
    }
}
