//! Combinations that cannot work, found before anything runs.

use crate::{
    plan::specs::{has_own_resolution, own_resolution},
    suite::{fields::position, problem::Problem, settings::Settings},
    train::spec::TrainSpec,
};

/// Notes a problem of `path` at the place where its value was given.
pub(super) fn blame(settings: &Settings, path: &str, message: String) -> Problem {
    Problem::new(settings.get(path).origin.mark(), path, message)
}

/// Everything wrong with one cell's settings that needs no file.
pub(super) fn combinations(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut complain = |path, message| problems.push(blame(settings, path, message));
    let name = settings.text("data.name").unwrap_or_default();
    let resolution = settings.optional_count("data.resolution").unwrap_or(own_resolution(name));
    if has_own_resolution(name) && resolution != own_resolution(name) {
        let own = own_resolution(name);
        complain(
            "data.resolution",
            format!("{resolution} does not fit: images of {name} have {own} pixels to an edge"),
        );
    }
    if settings.count("generated.count") > 0 && !settings.flag("denoiser.conditional") {
        let message = "false does not fit: images of an unconditional denoiser have no labels to \
                       train on (generated.count is above 0)";
        complain("denoiser.conditional", message.to_owned());
    }
    let levels = settings.counts("denoiser.channel_mult").len() as u32;
    let samples = settings.count("generated.count") > 0
        && settings.text("generated.file").is_none()
        && settings.text("denoiser.file").is_none();
    if samples && (levels == 0 || levels > 12 || !resolution.is_multiple_of(1 << (levels - 1))) {
        complain(
            "denoiser.channel_mult",
            format!("{levels} levels do not fit {resolution} pixels: each level halves the edge"),
        );
    }
    problems
}

/// What is wrong with the images that a cell trains on.
pub(super) fn images(settings: &Settings, train: u64) -> Option<Problem> {
    let validation = settings.count("train.validation");
    (validation >= train).then(|| {
        let message = format!(
            "{validation} does not fit: there are {train} training images, and some must be left \
             to learn from (0 switches validation off)"
        );
        blame(settings, "train.validation", message)
    })
}

/// What the stage itself refuses about a training, at the place of the value concerned.
pub(super) fn training(settings: &Settings, spec: &TrainSpec) -> Option<Problem> {
    let message = spec.check().err()?.to_string();
    // The stage names the field first: `train.cutmix: ...`.
    let (key, rest) = message.split_once(": ").unwrap_or(("train", &message));
    let key = if key == "train.threat" { "threat" } else { key };
    match position(key) {
        Some(_) => Some(blame(settings, key, rest.to_owned())),
        None => Some(Problem::new(None, key, rest)),
    }
}
