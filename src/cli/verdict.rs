//! What `gauntlet evaluate` says and writes: files, one JSON object, or a table.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    error::{AtPath, Result},
    evaluate::{Aim, AttackCost, Evaluation, range::Range, spec::EvaluateSpec},
    leaderboard::{curve, records::write_parquet},
    units::Tally,
};

/// What `evaluation.json` holds; the records stand in `records.parquet`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Everything that fixed the result.
    pub(super) spec: EvaluateSpec,
    /// BLAKE3 of the model file.
    pub(super) model: String,
    /// Where it lay.
    pub(super) model_file: PathBuf,
    /// Its architecture, where one was named.
    pub(super) arch: Option<String>,
    /// Which of its sets of weights, where one was named.
    #[serde(default)]
    pub(super) weights: Option<String>,
    /// What it takes, where not images in [0, 1].
    pub(super) range: Option<Range>,
    /// Where the data lay, if that was said.
    pub(super) data_dir: Option<PathBuf>,
    /// Whether every attack met every example.
    pub(super) individual: bool,
    /// The class that attacks aimed at.
    pub(super) target: Option<Aim>,
    /// The result.
    pub(super) evaluation: Evaluation,
}

/// Writes `records.parquet`, for a curve `curve.parquet`, and last `evaluation.json`, each beside
/// and then renamed.
pub(super) fn save(out: &Path, saved: &mut Saved) -> Result<()> {
    write_parquet(&out.join("records.parquet"), &saved.evaluation.records)?;
    if !saved.evaluation.curve.is_empty() {
        curve::write_parquet(&out.join("curve.parquet"), &saved.evaluation.curve)?;
    }
    saved.evaluation.records.clear();
    let path = out.join("evaluation.json");
    let fresh = out.join("evaluation.json.new");
    fs::write(&fresh, serde_json::to_string_pretty(saved).expect("plain data")).at(&fresh)?;
    fs::rename(&fresh, &path).at(&path)
}

/// One value for each attack, by name; a name's later uses are numbered.
fn by_attack(attacks: &[AttackCost], value: impl Fn(&AttackCost) -> Value) -> Value {
    let mut found = Map::new();
    for cost in attacks {
        let mut name = cost.attack.clone();
        let uses = (2..).map(|use_| format!("{}#{use_}", cost.attack));
        for next in uses {
            if !found.contains_key(&name) {
                break;
            }
            name = next;
        }
        found.insert(name, value(cost));
    }
    Value::Object(found)
}

fn interval(tally: Tally) -> Value {
    let (low, high) = tally.interval();
    json!([low, high])
}

/// The object that `--json` prints.
pub(super) fn summary(saved: &Saved) -> Value {
    let Saved { spec, evaluation, .. } = saved;
    let costs = |attacks: &[AttackCost]| {
        json!({
            "robust_after": by_attack(attacks, |cost| json!(cost.robust)),
            "seconds": by_attack(attacks, |cost| json!(cost.seconds)),
            "forwards": by_attack(attacks, |cost| json!(cost.forwards)),
            "backwards": by_attack(attacks, |cost| json!(cost.backwards)),
        })
    };
    let mut object = json!({
        "total": evaluation.total,
        "clean": evaluation.clean.correct,
        "robust": evaluation.robust.correct,
        "interval": interval(evaluation.robust),
        "clean_interval": interval(evaluation.clean),
        "threat": spec.threat,
        "suite": spec.suite,
        "mode": spec.mode,
        "batch": spec.batch,
        "individual": saved.individual,
        "target": saved.target,
        "upper_bound_only": spec.suite == "quick",
        "warnings": evaluation.warnings,
    });
    merge(&mut object, costs(&evaluation.attacks));
    if saved.individual {
        let worst = by_attack(&evaluation.attacks, |cost| json!(cost.worst));
        merge(&mut object, json!({ "worst_after": worst }));
    }
    if !evaluation.curve.is_empty() {
        let level = |level: &crate::evaluate::Level| {
            let mut row = json!({
                "epsilon": level.epsilon,
                "total": level.robust.total,
                "robust": level.robust.correct,
                "interval": interval(level.robust),
            });
            merge(&mut row, costs(&level.attacks));
            row
        };
        let curve: Vec<Value> = evaluation.curve.iter().map(level).collect();
        merge(&mut object, json!({ "curve": curve }));
    }
    object
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// What people read: at most 80 columns.
pub(super) fn table(saved: &Saved) -> String {
    let Saved { spec, evaluation, .. } = saved;
    let (clean, robust) = (evaluation.clean, evaluation.robust);
    let mut text = String::new();
    let mut line = |content: String| writeln!(text, "{content}").expect("strings take any text");
    line(format!("{} on {}, {} suite", spec.threat, spec.data.name, spec.suite));
    if let Some(aim) = saved.target {
        line(format!("targeted: broken is who is taken for {aim}"));
    }
    line(counted("clean", clean));
    let word = if spec.suite == "quick" { "at most" } else { "robust" };
    line(counted(word, robust));
    line(String::new());
    let last = if saved.individual { "worst" } else { "seconds" };
    line(format!(
        "{:<10}{:>8}{:>10}{:>12}{:>12}{last:>10}",
        "attack", "broke", "robust", "forwards", "backwards"
    ));
    let mut before = clean.correct;
    for cost in &evaluation.attacks {
        let from = if saved.individual { clean.correct } else { before };
        let last =
            if saved.individual { cost.worst.to_string() } else { format!("{:.1}", cost.seconds) };
        line(format!(
            "{:<10}{:>8}{:>10}{:>12}{:>12}{last:>10}",
            cost.attack,
            from.saturating_sub(cost.robust),
            cost.robust,
            cost.forwards,
            cost.backwards,
        ));
        before = cost.robust;
    }
    if !evaluation.curve.is_empty() {
        line(String::new());
        for level in &evaluation.curve {
            line(counted(&level.epsilon.to_string(), level.robust));
        }
    }
    for warning in &evaluation.warnings {
        line(String::new());
        line(wrapped(&format!("warning: {warning}"), 80));
    }
    text
}

/// A count, never a bare percent.
fn counted(what: &str, tally: Tally) -> String {
    let (low, high) = tally.interval();
    format!(
        "{what:<9}{:6.2}%  ({} of {}; 95% interval {low:.2}% to {high:.2}%)",
        tally.percent(),
        tally.correct,
        tally.total
    )
}

/// `text` broken at spaces so that no line is longer than `width`.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("never empty");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_warnings_are_wrapped() {
        let text = wrapped(&"word ".repeat(60), 80);
        assert!(text.lines().all(|line| line.len() <= 80) && text.lines().count() == 4);
    }

    #[test]
    fn attacks_of_one_name_are_told_apart() {
        let cost = |attack: &str, robust| AttackCost {
            attack: attack.to_owned(),
            robust,
            worst: robust,
            seconds: 0.0,
            forwards: 0,
            backwards: 0,
        };
        let costs = [cost("pgd", 3), cost("fab", 2), cost("pgd", 1)];
        let found = by_attack(&costs, |cost| json!(cost.robust));
        assert_eq!(found, json!({ "pgd": 3, "fab": 2, "pgd#2": 1 }));
    }
}
