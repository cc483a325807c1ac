//! RobustBench's model_info entries: read, ranked, written.
//!
//! An entry keeps every field as it stands in the file (figures are strings there, some are
//! `null` or `""`); the accessors interpret. So whatever is read can be written back unchanged.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{atomic, published::Published, row::Row};
use crate::{
    error::{AtPath, Error, Result},
    threat::Norm,
};

/// One entry of RobustBench's leaderboard, field by field as in its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The fields, in the file's order.
    pub fields: Map<String, Value>,
}

impl Entry {
    /// Reads one model_info file.
    ///
    /// # Errors
    /// If it is not a JSON object with an accuracy to rank by; the message names the key. Whatever
    /// else is missing only matters to a leaderboard (see [`Entry::published`]).
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).at(path)?;
        let fields = match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(Error::in_file(path, "expected a JSON object")),
            Err(error) => return Err(Error::in_file(path, format!("not JSON: {error}"))),
        };
        let entry = Self { fields };
        if entry.ranking().is_none() && entry.percent("robust_acc").is_none() {
            let message =
                "expected a percentage in `external`, `autoattack_acc` or `corruptions_acc`";
            return Err(Error::in_file(path, message));
        }
        Ok(entry)
    }

    /// Writes the entry as RobustBench's files are: indented by two.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(&self.fields).map_err(Error::input)?;
        text.push('\n');
        atomic::write(path, text.as_bytes())
    }

    /// A field that is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key).and_then(Value::as_str)
    }

    /// A field that is a percentage: a string in most files, a number in some writers' output.
    pub fn percent(&self, key: &str) -> Option<f64> {
        match self.fields.get(key)? {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        }
        .filter(|value: &f64| (0.0..=100.0).contains(value))
    }

    /// A percentage that the entry must have.
    ///
    /// # Errors
    /// If it lacks one; the message names the key.
    pub fn needed(&self, key: &str) -> Result<f64> {
        self.percent(key)
            .ok_or_else(|| Error::input(format!("`{key}`: expected a percentage, like \"92.44\"")))
    }

    /// Clean accuracy, in percent.
    pub fn clean(&self) -> Option<f64> {
        self.percent("clean_acc")
    }

    /// What RobustBench ranks by: the best known robust accuracy (`external`), else AutoAttack's;
    /// for corruptions their mean accuracy.
    pub fn ranking(&self) -> Option<f64> {
        self.percent("external")
            .or_else(|| self.percent("autoattack_acc"))
            .or_else(|| self.percent("corruptions_acc"))
    }

    /// The entry as a line of a leaderboard, `key` naming it.
    ///
    /// # Errors
    /// If it lacks a bound (as those for corruptions do), a clean accuracy or one under attack.
    pub fn published(&self, key: &str, norm: Norm) -> Result<Published> {
        let words = |name: &str| self.text(name).unwrap_or_default().to_owned();
        let epsilon = match self.fields.get("eps") {
            Some(Value::String(text))
                if super::row::number(text).is_some_and(|eps| eps.is_finite() && eps > 0.0) =>
            {
                text.clone()
            }
            Some(Value::Number(number)) if number.as_f64().is_some_and(|eps| eps > 0.0) => {
                number.to_string()
            }
            _ => return Err(Error::input("`eps`: expected a bound, like \"8/255\"")),
        };
        // Ranked by AutoAttack's figure it would stand where a better attack has put it lower.
        let external = self.text("external").is_some_and(|text| !text.trim().is_empty());
        if external {
            self.needed("external")?;
        }
        let autoattack = self.needed("autoattack_acc")?;
        Ok(Published {
            key: key.to_owned(),
            title: words("name"),
            dataset: words("dataset"),
            norm,
            epsilon,
            architecture: words("architecture"),
            venue: words("venue"),
            clean: self.needed("clean_acc")?,
            robust: self.ranking().unwrap_or(autoattack),
            autoattack,
            extra_data: self.extra_data(),
            source: words("link"),
            unreliable: self.unreliable(),
            footnote: words("footnote"),
        })
    }

    /// Whether data beyond the training set was used.
    pub fn extra_data(&self) -> bool {
        self.fields.get("additional_data").and_then(Value::as_bool) == Some(true)
    }

    /// Whether AutoAttack's figure may be too high; `None` where the entry does not say.
    pub fn unreliable(&self) -> Option<bool> {
        self.fields.get("unreliable").and_then(Value::as_bool)
    }

    /// Our result as an entry. AutoAttack's column is filled only by AutoAttack's own cascade;
    /// other results stand under `robust_acc`, which RobustBench does not rank.
    pub fn of(row: &Row, footnote: &str) -> Self {
        let figure = |percent: f64| Value::String(format!("{percent:.2}"));
        let standard = matches!(row.evaluation.as_str(), "standard" | "plus");
        let robust = if standard { "autoattack_acc" } else { "robust_acc" };
        let mut fields = Map::new();
        fields.insert("link".into(), json!(""));
        fields.insert("name".into(), json!(format!("{}: {}", row.suite, row.cell)));
        fields.insert("authors".into(), json!(""));
        // Ours are data made from the training set alone; a suite that brings more says so itself.
        fields.insert("additional_data".into(), json!(false));
        fields.insert("number_forward_passes".into(), json!(1));
        fields.insert("dataset".into(), json!(row.dataset));
        fields.insert("venue".into(), json!("Unpublished"));
        fields.insert("architecture".into(), json!(row.architecture));
        fields.insert("eps".into(), json!(row.threat.epsilon.to_string()));
        fields.insert("clean_acc".into(), figure(row.clean.percent()));
        fields.insert("reported".into(), figure(row.robust.percent()));
        fields.insert(robust.into(), figure(row.robust.percent()));
        fields.insert("footnote".into(), json!(footnote));
        fields.insert("unreliable".into(), json!(!row.warnings.is_empty()));
        Self { fields }
    }
}

/// An entry with its file's stem.
pub type Named = (String, Entry);

/// Reads every entry of a folder such as `model_info/cifar10/Linf`, with its file's stem.
///
/// # Errors
/// If the folder cannot be listed or a file is no entry.
pub fn read_folder(folder: &Path) -> Result<Vec<(String, Entry)>> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(folder).at(folder)? {
        let path = item.at(folder)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.push((stem, Entry::read(&path)?));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// As [`read_folder`], but a file that is no entry is only complained about.
///
/// # Errors
/// If the folder cannot be listed.
pub fn read_what_fits(folder: &Path) -> Result<(Vec<Named>, Vec<String>)> {
    let (mut found, mut complaints) = (Vec::new(), Vec::new());
    for item in std::fs::read_dir(folder).at(folder)? {
        let path = item.at(folder)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            match Entry::read(&path) {
                Ok(entry) => found.push((stem, entry)),
                Err(error) => complaints.push(error.to_string()),
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    complaints.sort();
    Ok((found, complaints))
}

/// Puts entries into RobustBench's order: the ranking figure descending, equals as they stood.
pub fn rank(entries: &mut [(String, Entry)]) {
    entries.sort_by(|a, b| b.1.ranking().unwrap_or(0.0).total_cmp(&a.1.ranking().unwrap_or(0.0)));
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::leaderboard::frame::tests::sample;

    #[test]
    fn our_rows_become_entries_that_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ours.json");
        let mut row = sample(20, 0, 312);
        let entry = Entry::of(&row, "1000 examples.");
        entry.write(&path).unwrap();
        let back = Entry::read(&path).unwrap();
        assert_eq!(back, entry);
        assert_eq!((back.clean(), back.ranking()), (Some(60.0), Some(31.2)));
        assert_eq!((back.text("eps"), back.unreliable()), (Some("8/255"), Some(false)));
        // A shorter cascade must not pass for AutoAttack.
        row.evaluation = "custom".into();
        assert_eq!(Entry::of(&row, "").ranking(), None);
    }

    #[test]
    fn bad_entries_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        for (text, named) in [
            ("[1]", "object"),
            ("{", "JSON"),
            (r#"{"name": "a", "autoattack_acc": "many"}"#, "autoattack_acc"),
            (
                r#"{"name":"a","dataset":"c","architecture":"w","clean_acc":"9.5"}"#,
                "autoattack_acc",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Entry::read(&path).unwrap_err().to_string();
            assert!(message.contains("x.json") && message.contains(named), "{message}");
        }
    }

    #[test]
    fn odd_entries_stand_or_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let odd = [
            ("a", r#"{"clean_acc":"90.1","autoattack_acc":61.5,"eps":0.031,"x":[1],"venue":null}"#),
            ("b", r#"{"clean_acc":null,"autoattack_acc":"60","eps":"8/255"}"#),
            ("c", r#"{"clean_acc":"90","autoattack_acc":"60","eps":null}"#),
            ("d", "[]"),
            ("e", r#"{"clean_acc":"90","autoattack_acc":"60","eps":"8/0"}"#),
            ("f", r#"{"clean_acc":"90","autoattack_acc":"60","external":"low","eps":"8/255"}"#),
        ];
        for (stem, text) in odd {
            std::fs::write(folder.path().join(format!("{stem}.json")), text).unwrap();
        }
        let (found, complaints) = read_what_fits(folder.path()).unwrap();
        assert_eq!((found.len(), complaints.len()), (5, 1));
        assert!(complaints[0].contains("d.json"), "{complaints:?}");
        let line = |at: usize| found[at].1.published(&found[at].0, Norm::Linf);
        assert_eq!((line(0).unwrap().robust, line(0).unwrap().epsilon.as_str()), (61.5, "0.031"));
        assert!(line(1).unwrap_err().to_string().contains("clean_acc"));
        assert!(line(2).unwrap_err().to_string().contains("eps"));
        assert!(line(3).unwrap_err().to_string().contains("eps"));
        assert!(line(4).unwrap_err().to_string().contains("external"));
    }

    const PARTS: [&str; 7] = [
        "cifar10/Linf",
        "cifar10/L2",
        "cifar10/corruptions",
        "cifar100/Linf",
        "cifar100/corruptions",
        "imagenet/Linf",
        "imagenet/corruptions",
    ];

    fn model_info() -> PathBuf {
        let shared = std::env::var("GAUNTLET_SHARED").expect("GAUNTLET_SHARED names the folder");
        Path::new(&shared).join("data/robustbench/model_info")
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn all_published_entries_survive_a_round_trip() {
        let out = tempfile::tempdir().unwrap();
        let mut count = 0;
        for part in PARTS {
            let folder = model_info().join(part);
            for (stem, entry) in read_folder(&folder).unwrap() {
                let path = out.path().join("entry.json");
                entry.write(&path).unwrap();
                let parse = |path: &Path| -> Value {
                    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
                };
                let original = parse(&folder.join(format!("{stem}.json")));
                assert_eq!(parse(&path), original, "{part}/{stem}");
                // Equal values and the same order of fields.
                assert_eq!(parse(&path).to_string(), original.to_string(), "{part}/{stem}");
                count += 1;
            }
        }
        assert_eq!(count, 236);
    }

    /// RobustBench's own key, from its leaderboard's source: the first of these that the file has.
    fn key(entry: &Value, corruptions: bool) -> f64 {
        let names: &[&str] =
            if corruptions { &["corruptions_acc"] } else { &["external", "autoattack_acc"] };
        let value = names.iter().find_map(|name| entry.get(name)).unwrap();
        value.as_str().unwrap().parse().unwrap()
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn every_folder_ranks_in_robustbench_s_order() {
        let mut count = 0;
        for part in PARTS {
            let mut entries = read_folder(&model_info().join(part)).unwrap();
            // A stable sort by the official key, of the files in the order in which they are read.
            let mut official: Vec<(f64, String)> = entries
                .iter()
                .map(|(stem, entry)| {
                    let fields = Value::Object(entry.fields.clone());
                    (key(&fields, part.ends_with("corruptions")), stem.clone())
                })
                .collect();
            official.sort_by(|a, b| b.0.total_cmp(&a.0));
            rank(&mut entries);
            let stems = |name: &(String, Entry)| name.0.clone();
            let found: Vec<String> = entries.iter().map(stems).collect();
            let expected: Vec<String> = official.into_iter().map(|(_, stem)| stem).collect();
            assert_eq!(found, expected, "{part}");
            count += found.len();
        }
        assert_eq!(count, 236);
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn the_order_is_robustbench_s() {
        let mut entries = read_folder(&model_info().join("cifar10/Linf")).unwrap();
        rank(&mut entries);
        // Not by AutoAttack's figure where a stronger attack is known: Kang2021Stable falls from
        // 71.28 to 64.20.
        let place = |stem: &str| entries.iter().position(|(name, _)| name == stem).unwrap();
        assert!(place("Wang2023Better_WRN-70-16") < place("Wang2023Better_WRN-28-10"));
        assert!(place("Wang2023Better_WRN-28-10") < place("Kang2021Stable"));
        assert_eq!(entries[place("Kang2021Stable")].1.ranking(), Some(64.20));
        assert_eq!(entries.last().unwrap().0, "Standard");
        let figures: Vec<f64> = entries.iter().map(|(_, entry)| entry.ranking().unwrap()).collect();
        assert!(figures.windows(2).all(|pair| pair[0] >= pair[1]));
    }
}
