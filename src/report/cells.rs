//! What the page says about each cell: facts, cascade, the jobs behind it.

use serde::Serialize;

use crate::{
    leaderboard::{Row, statistics::clopper_pearson},
    units::Tally,
};

use super::{
    input::{Input, Provenance},
    table::{accuracy, name, ranked, varying},
    write::attacks,
};

#[derive(Serialize)]
pub(super) struct CellPage {
    pub(super) rank: usize,
    pub(super) name: String,
    pub(super) threat: String,
    pub(super) robust: String,
    pub(super) facts: Vec<(String, String)>,
    pub(super) attacks: Vec<Attack>,
    pub(super) warnings: Vec<String>,
    pub(super) jobs: Vec<Job>,
}

#[derive(Serialize)]
pub(super) struct Attack {
    pub(super) name: String,
    pub(super) broke: u64,
    pub(super) left: u64,
    pub(super) time: String,
}

#[derive(Serialize)]
pub(super) struct Job {
    pub(super) stage: String,
    pub(super) id: String,
    pub(super) facts: Vec<(String, String)>,
    pub(super) spec: String,
    /// The end of its log.
    pub(super) log: String,
    /// Lines of the whole log, if these are more.
    pub(super) lines: Option<usize>,
}

/// What of a job's log the page quotes: lines from its end, and their length at most.
const LOG: (usize, usize) = (12, 400);

/// The file of a log that is too long to be quoted whole.
pub(super) fn log_file(one: &Provenance) -> Option<String> {
    let long = one.log.lines().nth(LOG.0).is_some() || one.log.lines().any(|l| l.len() > LOG.1);
    long.then(|| format!("logs/{}.log", one.job))
}

fn tail(log: &str) -> String {
    let lines: Vec<String> = log.lines().map(|line| line.chars().take(LOG.1).collect()).collect();
    lines[lines.len().saturating_sub(LOG.0)..].join("\n")
}

/// `41 s`, `12 min`, `3.2 h`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{s:.2} s"),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

pub(super) fn cells(input: &Input) -> Vec<CellPage> {
    let varying = varying(&input.rows);
    let page = |(at, row): (usize, &Row)| CellPage {
        rank: at + 1,
        name: name(row, &varying),
        threat: row.threat.to_string(),
        robust: accuracy(row.robust),
        facts: facts(row),
        attacks: cascade(row),
        warnings: row.warnings.clone(),
        jobs: jobs(row, &input.provenance),
    };
    ranked(&input.rows).into_iter().enumerate().map(page).collect()
}

pub(super) fn facts(row: &Row) -> Vec<(String, String)> {
    let counts = |tally: Tally| {
        let (low, high) = clopper_pearson(tally, 0.95);
        format!(
            "{}% – {} of {} (Clopper-Pearson {low:.1} to {high:.1})",
            accuracy(tally),
            tally.correct,
            tally.total
        )
    };
    let mut facts: Vec<(String, String)> = row.axes.clone();
    let mut push = |what: &str, value: String| facts.push((what.to_owned(), value));
    push("clean accuracy", counts(row.clean));
    push("robust accuracy", counts(row.robust));
    push("data set", row.dataset.clone());
    push("architecture", row.architecture.clone());
    push("objective", row.loss.clone());
    push("generated images", row.generated.to_string());
    if let Some(steps) = row.sampler_steps {
        push("sampler steps", steps.to_string());
    }
    if let Some(epochs) = row.epochs {
        push("epochs", epochs.to_string());
    }
    push("checkpoint", row.checkpoint.clone());
    push("seed", row.seed.to_string());
    push("attacks", format!("{} ({})", row.evaluation, attacks(row)));
    if let Some(fid) = row.fid {
        push("FID", format!("{fid:.2}"));
    }
    if let Some(one) = &row.reference {
        let percent = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.2}%"));
        let (clean, robust) = (percent(one.clean), percent(one.robust));
        let text = format!("clean {clean}, robust {robust} ({}; {})", one.source, one.certainty);
        push("published", text);
    }
    if let Some(seconds) = row.generate_seconds {
        push("generating took", duration(seconds));
    }
    if let Some(seconds) = row.train_seconds {
        push("training took", duration(seconds));
    }
    push("evaluation took", duration(row.evaluate_seconds()));
    facts
}

pub(super) fn cascade(row: &Row) -> Vec<Attack> {
    let broken = row.broken_by();
    let time = |name: &str| row.attack_seconds.iter().find(|(attack, _)| attack == name);
    let attack = |((name, broke), (_, left)): ((String, u64), &(String, u64))| Attack {
        time: time(&name).map_or_else(String::new, |(_, seconds)| duration(*seconds)),
        name,
        broke,
        left: *left,
    };
    broken.into_iter().zip(&row.robust_after).map(attack).collect()
}

/// The jobs behind a row, from the evaluation back to whatever it came from.
pub(super) fn jobs(row: &Row, provenance: &[Provenance]) -> Vec<Job> {
    let mut wanted = vec![row.evaluate_job.clone()];
    wanted.extend(row.train_job.clone());
    wanted.extend(row.generate_job.clone());
    let mut found: Vec<Job> = Vec::new();
    let mut at = 0;
    while at < wanted.len() {
        if let Some(one) = provenance.iter().find(|one| one.job == wanted[at]) {
            for input in &one.inputs {
                if !wanted.contains(input) {
                    wanted.push(input.clone());
                }
            }
            let mut facts = one.facts.clone();
            if !one.inputs.is_empty() {
                facts.insert(0, ("inputs".to_owned(), one.inputs.join(", ")));
            }
            found.push(Job {
                stage: one.stage.clone(),
                id: one.job.clone(),
                facts,
                spec: serde_json::to_string_pretty(&one.spec).unwrap_or_default(),
                log: tail(&one.log),
                lines: log_file(one).map(|_| one.log.lines().count()),
            });
        }
        at += 1;
    }
    found
}
