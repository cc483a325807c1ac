//! The state that a killed evaluation resumes from: one line for each finished piece of work,
//! written through to the disk. A torn last line is the piece that was under way; it is dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::error::{AtPath, Error, Result};

/// What became of one example in one attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) index: u64,
    pub(crate) broken: Option<Broken>,
    pub(crate) forwards: u64,
    pub(crate) backwards: u64,
}

/// How an example was broken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Broken {
    pub(crate) restart: u64,
    pub(crate) target: Option<i64>,
    pub(crate) iteration: u64,
    // serde_json may read a float64 back one unit off.
    #[serde(with = "bits")]
    pub(crate) norm: f64,
    #[serde(with = "bits")]
    pub(crate) margin: f64,
}

/// A float64 as its bits.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.to_bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

/// One finished batch of one attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Position of the bound, the largest first.
    pub(crate) level: usize,
    /// Position of the attack in the cascade.
    pub(crate) attack: usize,
    pub(crate) entries: Vec<Entry>,
    pub(crate) seconds: f64,
    /// Starting points without a gradient.
    pub(crate) still: u64,
}

/// An open journal.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    images: PathBuf,
    /// Pieces of earlier runs, in order.
    pub(crate) done: Vec<Piece>,
}

impl Journal {
    /// Opens the journal in `work`, begun for the evaluation that `identity` describes. One of
    /// another evaluation is refused.
    pub(crate) fn open(work: &Path, identity: &Value) -> Result<Self> {
        let images = work.join("adversarial");
        fs::create_dir_all(&images).at(&images)?;
        let path = work.join("journal.jsonl");
        let header = json!({ "identity": identity }).to_string();
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(Error::Io { path, source }),
        };
        let mut kept = String::new();
        let mut done = Vec::new();
        // A line counts only with its end: without, the write was cut short.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            if kept.is_empty() {
                if line.trim_end() != header {
                    return Err(Error::in_file(&path, stranger(line, identity)));
                }
            } else {
                match serde_json::from_str(line) {
                    Ok(piece) => done.push(piece),
                    Err(_) => break,
                }
            }
            kept.push_str(line);
        }
        if kept.is_empty() {
            kept = header + "\n";
        }
        // Rewritten beside and renamed, so that a torn end does not stay in the middle.
        let fresh = work.join("journal.jsonl.new");
        let mut file = File::create(&fresh).at(&fresh)?;
        file.write_all(kept.as_bytes()).at(&fresh)?;
        file.sync_all().at(&fresh)?;
        fs::rename(&fresh, &path).at(&path)?;
        let file = OpenOptions::new().append(true).open(&path).at(&path)?;
        Ok(Self { path, file, images, done })
    }

    /// Makes `piece` last.
    pub(crate) fn append(&mut self, piece: &Piece) -> Result<()> {
        let line = serde_json::to_string(piece).expect("plain data") + "\n";
        self.file.write_all(line.as_bytes()).at(&self.path)?;
        self.file.sync_data().at(&self.path)
    }

    /// Keeps adversarial images `[n,3,h,w]` under their indices, before the piece that names them.
    pub(crate) fn save_images(
        &self,
        (level, attack): (usize, usize),
        indices: &[u64],
        images: &Tensor,
    ) -> Result<()> {
        let Some(first) = indices.first() else { return Ok(()) };
        let name = format!("{level:02}-{attack:02}-{first:08}.safetensors");
        let path = self.images.join(name);
        let fresh = path.with_extension("new");
        let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        let images = images.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let tensors = [("index", Tensor::from_slice(&indices)), ("adversarial", images)];
        Tensor::write_safetensors(&tensors, &fresh)
            .map_err(|error| Error::in_file(&fresh, format!("cannot be written: {error}")))?;
        File::open(&fresh).and_then(|file| file.sync_all()).at(&fresh)?;
        fs::rename(&fresh, &path).at(&path)
    }
}

/// Which settings differ from those that the journal's first `line` was begun with.
fn stranger(line: &str, identity: &Value) -> String {
    let flat = |value: &Value| {
        let mut found = BTreeMap::new();
        flatten("", value, &mut found);
        found
    };
    let begun: Value = serde_json::from_str(line).unwrap_or_default();
    let (before, now) = (flat(&begun["identity"]), flat(identity));
    let differ: Vec<String> = before
        .keys()
        .chain(now.keys())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|key| before.get(*key) != now.get(*key))
        .map(|key| {
            let value = |of: &BTreeMap<String, String>| {
                of.get(key).cloned().unwrap_or_else(|| "none".to_owned())
            };
            format!("{key} was {}, is {}", value(&before), value(&now))
        })
        .collect();
    format!(
        "is the journal of another evaluation ({}); choose another --out or delete this folder",
        differ.join("; ")
    )
}

fn flatten(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            let dot = if path.is_empty() { "" } else { "." };
            flatten(&format!("{path}{dot}{key}"), value, found);
        }),
        other => {
            found.insert(path.to_owned(), other.to_string());
        }
    }
}

/// The files of adversarial images in `work`, those that hold the last word on an example first:
/// the smallest bound's, then the first attack's.
///
/// # Errors
/// If the folder cannot be read.
pub fn image_files(work: &Path) -> Result<Vec<PathBuf>> {
    let folder = work.join("adversarial");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .at(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .at(&folder)?;
    files.retain(|path| path.extension().is_some_and(|end| end == "safetensors"));
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let level = |path: &PathBuf| name(path).and_then(|name| name.get(..2).map(str::to_owned));
    files.sort_by(|a, b| level(b).cmp(&level(a)).then_with(|| name(a).cmp(&name(b))));
    Ok(files)
}

/// The adversarial images in one file: indices, and images `[n,3,h,w]`.
///
/// # Errors
/// If it is no such file.
pub fn read_images(path: &Path) -> Result<(Vec<u64>, Tensor)> {
    let bad =
        |what: &str| Error::in_file(path, format!("is no file of adversarial images: {what}"));
    let tensors = Tensor::read_safetensors(path).map_err(|error| bad(&error.to_string()))?;
    let get = |name: &str| tensors.iter().find(|(key, _)| key == name).map(|(_, tensor)| tensor);
    let index = get("index").ok_or_else(|| bad("no `index`"))?;
    let images = get("adversarial").ok_or_else(|| bad("no `adversarial`"))?;
    let index = Vec::<i64>::try_from(index).map_err(|error| bad(&error.to_string()))?;
    if images.dim() != 4 || images.size()[0] != index.len() as i64 {
        return Err(bad("`index` and `adversarial` differ in length"));
    }
    let images = images.to_kind(Kind::Float);
    Ok((index.into_iter().map(|at| at as u64).collect(), images))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(attack: usize) -> Piece {
        let broken =
            Broken { restart: 0, target: Some(3), iteration: 7, norm: 0.031, margin: -0.1 };
        let entry = Entry { index: 5, broken: Some(broken), forwards: 9, backwards: 8 };
        Piece { level: 1, attack, entries: vec![entry], seconds: 0.25, still: 2 }
    }

    #[test]
    fn whatever_byte_it_is_cut_at_a_journal_resumes() {
        let folder = tempfile::tempdir().unwrap();
        let identity = json!({"model": "m"});
        let mut journal = Journal::open(folder.path(), &identity).unwrap();
        journal.append(&piece(0)).unwrap();
        journal.append(&piece(1)).unwrap();
        let whole = fs::read(folder.path().join("journal.jsonl")).unwrap();
        for cut in (0..whole.len()).step_by(7) {
            fs::write(folder.path().join("journal.jsonl"), &whole[..cut]).unwrap();
            let mut journal = Journal::open(folder.path(), &identity).unwrap();
            let found = journal.done.len();
            assert!(journal.done.iter().enumerate().all(|(i, done)| *done == piece(i)));
            journal.append(&piece(found)).unwrap();
            assert_eq!(Journal::open(folder.path(), &identity).unwrap().done.len(), found + 1);
        }
    }

    #[test]
    fn another_evaluations_journal_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Journal::open(folder.path(), &json!({"model": "a"})).unwrap();
        let error = Journal::open(folder.path(), &json!({"model": "b"})).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("another evaluation"), "{text}");
        assert!(text.contains(r#"model was "a", is "b""#), "{text}");
    }
}
