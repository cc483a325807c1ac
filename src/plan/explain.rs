//! Where each resolved number of a cell comes from.

use std::path::PathBuf;

use serde_json::Value as Json;

use crate::{
    error::Result,
    plan::{Surveyor, graph},
    suite::{
        Suite,
        fields::{Fallback, Field},
        settings::{Setting, Settings},
        value::Value,
    },
    train::{
        memory::{self, Part},
        spec::TrainSpec,
    },
};

/// One resolved value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    /// The field's dotted path.
    pub path: &'static str,
    /// What holds.
    pub value: String,
    /// Why: `default`, `preset dmat`, `line 7`, `--set`, a rule, or that nothing uses it.
    pub origin: String,
}

/// What holds in one cell.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Every field that matters to it.
    pub lines: Vec<Line>,
    /// Memory of its training on one device, where it can be counted.
    pub memory: Vec<Part>,
}

/// An explanation for each cell of `suite`, in the order of the plan's.
///
/// # Errors
/// As [`super::resolve`].
pub fn explain(
    suite: &Suite,
    roots: &[PathBuf],
    surveyor: &dyn Surveyor,
) -> Result<Vec<Explanation>> {
    let settled = graph::settle(suite, roots, surveyor)?;
    Ok(settled.iter().map(|(settings, spec)| explanation(settings, spec)).collect())
}

fn explanation(settings: &Settings, spec: &TrainSpec) -> Explanation {
    let json = serde_json::to_value(spec).expect("a spec is plain data");
    let samples = spec.generated > 0 && settings.paths("generated.file").is_none();
    let fits = samples && settings.text("denoiser.file").is_none();
    let matters = |field: &Field| match field.path.split('.').next() {
        Some("denoiser") => fits || field.path == "denoiser.file",
        Some("sampler") => samples,
        Some("generated") => spec.generated > 0 || field.path == "generated.count",
        _ => true,
    };
    let lines = settings
        .iter()
        .filter(|(field, _)| matters(field))
        .map(|(field, setting)| line(field, setting, spec, &json))
        .collect();
    Explanation { lines, memory: memory::parts(spec).unwrap_or_default() }
}

fn line(field: &Field, setting: &Setting, spec: &TrainSpec, json: &Json) -> Line {
    let stated = setting.value != Value::Absent;
    let rule = match field.fallback {
        Fallback::Absent(text) => format!("rule: {text}"),
        Fallback::Is(_) | Fallback::Required => setting.origin.to_string(),
    };
    let origin = if stated { setting.origin.to_string() } else { rule };
    let line = |value: String, origin: String| Line { path: field.path, value, origin };
    if let Some(value) = by_rule(field.path, spec) {
        // TRADES under L2 moves by its own rule whatever it is told.
        let obeyed = !stated || setting.value == Value::Real(value);
        let origin = if obeyed { origin } else { format!("rule (given: {})", setting.value) };
        return line(short(value), origin);
    }
    if let (false, Some(threat)) = (stated, spec.threat) {
        match field.path {
            "threat.norm" => return line(threat.norm.to_string(), origin),
            "threat.epsilon" => return line(threat.epsilon.to_string(), origin),
            _ => {}
        }
    }
    let own = field.path.strip_prefix("train.").and_then(|name| json.get(name));
    match own {
        Some(resolved) if stated && !agrees(resolved, &setting.value) => {
            line(shown(resolved), format!("not used here ({})", setting.origin))
        }
        _ => line(setting.value.to_string(), origin),
    }
}

/// Numbers that a rule fixes where nobody states them.
fn by_rule(path: &str, spec: &TrainSpec) -> Option<f64> {
    match path {
        "generated.fraction" => Some(spec.generated_fraction),
        "train.attack_step_size" => spec.threat.map(|threat| spec.crafting_step(threat)),
        "train.validation_step_size" if spec.validation > 0 => {
            spec.threat.map(|threat| spec.validation_step(threat))
        }
        _ => None,
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn agrees(resolved: &Json, given: &Value) -> bool {
    let given = serde_json::to_value(given).unwrap_or_default();
    match (resolved.as_f64(), given.as_f64()) {
        (Some(resolved), Some(given)) => (resolved - given).abs() <= f64::EPSILON * given.abs(),
        _ => *resolved == given,
    }
}

fn shown(value: &Json) -> String {
    match value {
        Json::Null => "none".to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
