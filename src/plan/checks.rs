//! Combinations that cannot work, found before anything runs.

use crate::{
    data::reference::Reference,
    diffusion::{sampler, sampler_check::check_policy, spec::GenerateSpec},
    net::{architecture::Architecture, precond},
    plan::specs::{has_own_resolution, is_live, own_resolution},
    suite::{fields::position, problem::Problem, settings::Settings, table::FIELDS},
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
    let levels = settings.counts("denoiser.channel_mult").len() as u32;
    let samples = settings.count("generated.count") > 0
        && settings.paths("generated.file").is_none()
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
    let key = match key {
        "train.threat" => "threat",
        "train.generated_fraction" => "generated.fraction",
        own => own,
    };
    match position(key) {
        Some(_) => Some(blame(settings, key, rest.to_owned())),
        None => Some(Problem::new(None, key, rest)),
    }
}

/// What is wrong with drawing `spec` from a denoiser built from `network` for images of `source`,
/// at the place of the value concerned.
pub(super) fn generation(
    settings: &Settings,
    spec: &GenerateSpec,
    network: &Architecture,
    (resolution, classes): (u64, i64),
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let imported = settings.text("denoiser.file").is_some();
    let mut complain = |key, message: String| problems.push(blame(settings, key, message));
    let edge = network.img_resolution;
    if imported && network.img_channels != 3 {
        let channels = network.img_channels;
        complain("denoiser.file", format!("makes images of {channels} channels: expected 3"));
    }
    if imported && edge != resolution as i64 {
        let message = format!(
            "makes images of {edge}x{edge} pixels, but those of {} are {resolution}x{resolution}",
            settings.text("data.name").unwrap_or_default()
        );
        complain("denoiser.file", message);
    }
    let known = network.label_dim;
    if imported && known != 0 && known != classes {
        let message = format!(
            "is conditioned on {known} classes, but {} has {classes}",
            settings.text("data.name").unwrap_or_default()
        );
        complain("denoiser.file", message);
    }
    if known == 0 && settings.text("labels.by") == Some("condition") {
        let rest = "expected a conditional denoiser, or `labels.by: classifier`";
        match imported {
            true => complain("denoiser.file", format!("knows no classes: {rest}")),
            false => complain("denoiser.conditional", format!("false does not fit: {rest}")),
        }
    }
    let range = precond::plain_range(network);
    let policy = spec.policy.as_ref();
    let policy = policy.map_or(Ok(()), |policy| check_policy(policy, &spec.sampler));
    for result in [sampler::check(&spec.sampler, range), policy] {
        let Err(error) = result else { continue };
        let message = error.to_string();
        // The stage names the field first: `sampler.steps: ...`.
        let (key, rest) = message.split_once(": ").unwrap_or(("sampler", &message));
        let known = position(key).map_or("sampler.steps", |field| FIELDS[field].path);
        complain(known, rest.to_owned());
    }
    problems
}

/// What is wrong with taking images of a generated set on disk for those of the data set.
pub(super) fn set(
    settings: &Settings,
    set: &Reference,
    (resolution, classes): (u64, i64),
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut complain = |path, message| problems.push(blame(settings, path, message));
    let name = settings.text("data.name").unwrap_or_default();
    let held = set.images;
    if set.resolution != resolution {
        let edge = set.resolution;
        complain(
            "generated.file",
            format!(
                "holds images of {edge}x{edge} pixels, but those of {name} are \
                 {resolution}x{resolution}"
            ),
        );
    }
    if set.classes as i64 > classes {
        let most = set.classes - 1;
        complain(
            "generated.file",
            format!("has labels up to {most}, but {name} has {classes} classes"),
        );
    }
    if set.soft && mart(settings) && settings.text("labels.by") == Some("condition") {
        complain("generated.file", format!("has soft labels: {ONE_LABEL}"));
    }
    let count = settings.count("generated.count");
    if count > held {
        complain("generated.count", format!("{count} does not fit: the set holds {held} images"));
    }
    if settings.optional_count("generated.drawn").is_some() {
        let message = "does not go with `generated.file`: images are selected from the whole set";
        complain("generated.drawn", message.to_owned());
    }
    problems
}

/// Why MART refuses soft labels.
const ONE_LABEL: &str = "train.loss mart takes one label of each image";

fn mart(settings: &Settings) -> bool {
    settings.text("train.loss") == Some("mart")
}

/// What does not go with images that are drawn while training goes on.
pub(super) fn live(settings: &Settings) -> Vec<Problem> {
    if !is_live(settings) {
        return Vec::new();
    }
    let looks = "does not go with `generated.supply: live`: only a set that is there is looked at";
    let mut problems: Vec<Problem> = [
        ("labels.by", settings.text("labels.by") != Some("condition")),
        ("labels.classifier", settings.text("labels.classifier").is_some()),
        ("labels.trained", settings.flag("labels.trained")),
        ("labels.balance", settings.flag("labels.balance")),
        ("generated.drawn", settings.optional_count("generated.drawn").is_some()),
    ]
    .into_iter()
    .filter(|(_, wrong)| *wrong)
    .map(|(key, _)| blame(settings, key, looks.to_owned()))
    .collect();
    if settings.paths("generated.file").is_some() {
        let message = "does not go with `generated.supply: live`, which draws its images";
        problems.push(blame(settings, "generated.file", message.to_owned()));
    }
    if settings.optional_real("generated.fraction") == Some(0.0) {
        let message = "0 does not fit: no image that is drawn would be used";
        problems.push(blame(settings, "generated.fraction", message.to_owned()));
    }
    problems
}

/// What is wrong with labels and selection.
pub(super) fn labels(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    let file = settings.text("labels.classifier").is_some();
    let looks = file || settings.flag("labels.trained");
    let by_classifier = settings.text("labels.by") != Some("condition");
    if settings.text("labels.by") == Some("soft") && mart(settings) {
        problems.push(blame(settings, "labels.by", format!("soft does not fit: {ONE_LABEL}")));
    }
    if !looks && (by_classifier || settings.real("labels.confidence") > 0.0) {
        let why = if by_classifier { "labels.by" } else { "labels.confidence" };
        let message = format!(
            "is missing: {why} needs the weights of a classifier, or `labels.trained: true`"
        );
        let at = settings.get(why).origin.mark();
        problems.push(Problem::new(at, "labels.classifier", message));
    }
    if file && settings.flag("labels.trained") {
        let message = "true does not fit: labels.classifier gives the weights".to_owned();
        problems.push(blame(settings, "labels.trained", message));
    }
    let count = settings.count("generated.count");
    if let Some(drawn) = settings.optional_count("generated.drawn").filter(|drawn| *drawn < count) {
        let message = format!("{drawn} does not fit: {count} images are to be kept of them");
        problems.push(blame(settings, "generated.drawn", message));
    }
    problems
}
