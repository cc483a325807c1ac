//! Settings of a cell as the specs of its stages. Fields that cannot matter are brought to one
//! form, so that cells which differ only in them share their jobs.

use crate::{
    data::spec::{Source, Split},
    diffusion::spec::{
        Applies, Discretization, FitSpec, GenerateSpec, LabelBy, LabelSpec, Policy, PolicyKind,
        QualitySpec, SamplerSpec, Solver, Variance,
    },
    evaluate::spec::{AttackName, AttackSpec, EvaluateSpec, published, resolve_suite},
    net::spec::{ClassifierSpec, DenoiserSpec},
    suite::{
        Suite,
        settings::{Origin, Settings},
        value::NamedAttack,
    },
    threat::ThreatModel,
    train::spec::{Craft, LiveSpec, Loss, Tracked, TrainSpec},
};

/// Edge length of a data set's images where the suite does not say it; 0 where only the files do.
pub(super) fn own_resolution(name: &str) -> u64 {
    match name {
        "synthetic" => 16,
        "tiny-imagenet" => 64,
        "cifar10" | "cifar100" | "cifar100-coarse" | "svhn" | "svhn-extra" => 32,
        _ => 0,
    }
}

/// Whether images of that set come in one size only.
pub(super) fn has_own_resolution(name: &str) -> bool {
    name != "synthetic" && own_resolution(name) > 0
}

/// The images of `split`, not yet looked at.
pub(super) fn source(settings: &Settings, split: Split) -> Source {
    let part = match split {
        Split::Train => "train",
        Split::Test => "test",
    };
    let name = settings.text("data.name").unwrap_or_default().to_owned();
    let resolution = settings.optional_count("data.resolution");
    Source {
        split,
        skip: settings.count(&format!("data.{part}.skip")),
        count: settings.optional_count(&format!("data.{part}.count")),
        resolution: resolution.unwrap_or_else(|| own_resolution(&name)),
        name,
        fingerprint: String::new(),
    }
}

/// The denoiser's training.
pub(super) fn fit(settings: &Settings, data: Source, classes: i64) -> FitSpec {
    let augment = settings.real("denoiser.augment");
    let snapshot = settings.count("denoiser.snapshot");
    let judged = |key| if snapshot > 0 { settings.count(key) } else { 0 };
    let network = DenoiserSpec {
        arch: settings.choice("denoiser.arch"),
        precond: settings.choice("denoiser.precond"),
        resolution: data.resolution as i64,
        classes: if settings.flag("denoiser.conditional") { classes } else { 0 },
        channels: settings.count("denoiser.channels") as i64,
        channel_mult: settings.counts("denoiser.channel_mult"),
        blocks: settings.count("denoiser.blocks") as i64,
        attention: settings.counts("denoiser.attention"),
        augment_dim: if augment > 0.0 { 9 } else { 0 },
    };
    FitSpec {
        data,
        network,
        images: settings.count("denoiser.images"),
        batch: settings.count("denoiser.batch"),
        learning_rate: settings.real("denoiser.learning_rate"),
        ramp: settings.count("denoiser.ramp"),
        ema_half_life: settings.count("denoiser.ema_half_life"),
        ema_ramp: settings.real("denoiser.ema_ramp"),
        dropout: settings.real("denoiser.dropout"),
        p_mean: settings.real("denoiser.p_mean"),
        p_std: settings.real("denoiser.p_std"),
        augment,
        flip: settings.flag("denoiser.flip"),
        snapshot,
        precision: settings.choice("denoiser.precision"),
        snapshot_images: judged("denoiser.snapshot_images"),
        snapshot_steps: judged("denoiser.snapshot_steps"),
        seed: settings.count("denoiser.seed"),
    }
}

/// The sampler of the cell.
pub(super) fn sampler(settings: &Settings) -> SamplerSpec {
    let solver: Solver = settings.choice("sampler.solver");
    let discretization: Discretization = settings.choice("sampler.discretization");
    let (sigma_min, sigma_max) = discretization.range();
    let churn = if solver.is_discrete() { 0.0 } else { settings.real("sampler.churn") };
    // Without churn no noise is added, whatever its bounds.
    let churns = churn > 0.0;
    let plain = SamplerSpec::edm(settings.count("sampler.steps"));
    if solver.is_discrete() {
        let ddim = solver == Solver::Ddim;
        return SamplerSpec {
            solver,
            eta: if ddim { settings.real("sampler.eta") } else { 0.0 },
            variance: if ddim { Variance::Small } else { settings.choice("sampler.variance") },
            clip: settings.flag("sampler.clip"),
            ..plain
        };
    }
    SamplerSpec {
        solver,
        discretization,
        schedule: settings.choice("sampler.schedule"),
        scaling: settings.choice("sampler.scaling"),
        alpha: if solver == Solver::Heun { settings.real("sampler.alpha") } else { 1.0 },
        sigma_min: settings.optional_real("sampler.sigma_min").unwrap_or(sigma_min),
        sigma_max: settings.optional_real("sampler.sigma_max").unwrap_or(sigma_max),
        rho: settings.real("sampler.rho"),
        churn,
        churn_min: if churns { settings.real("sampler.churn_min") } else { 0.0 },
        churn_max: settings.optional_real("sampler.churn_max").filter(|_| churns),
        churn_noise: if churns { settings.real("sampler.churn_noise") } else { 1.0 },
        ..plain
    }
}

/// Sampler and policy of a suite without axes, for a network that supports noise levels `range`.
pub fn sampling(suite: &Suite, range: (f64, f64)) -> (SamplerSpec, Option<Policy>) {
    let settings = suite.settings(&[]);
    (within(&settings, sampler(&settings), range), policy(&settings))
}

/// The sampler with the noise levels that nobody gave brought into a network's range.
pub(super) fn within(settings: &Settings, spec: SamplerSpec, range: (f64, f64)) -> SamplerSpec {
    let clamped = spec.clone().within(range);
    let given = |key| settings.optional_real(key).is_some();
    SamplerSpec {
        sigma_min: if given("sampler.sigma_min") { spec.sigma_min } else { clamped.sigma_min },
        sigma_max: if given("sampler.sigma_max") { spec.sigma_max } else { clamped.sigma_max },
        ..spec
    }
}

/// What of the sampler differs from image to image.
fn policy(settings: &Settings) -> Option<Policy> {
    let kind = match settings.text("policy.kind") {
        None | Some("fixed") => return None,
        Some(_) => settings.choice("policy.kind"),
    };
    let mirrored = kind == PolicyKind::Mirrored;
    Some(Policy {
        kind,
        min: settings.count("policy.min"),
        max: settings.optional_count("policy.max").unwrap_or(settings.count("sampler.steps")),
        mirror: if mirrored { settings.real("policy.mirror") } else { 0.0 },
        applies: settings.choice("policy.applies"),
        per: settings.choice("policy.per"),
    })
}

/// How the set is labelled and selected; `None` where it stays what was drawn.
pub(super) fn label(settings: &Settings, dataset: &str, classes: i64) -> Option<LabelSpec> {
    let by: LabelBy = settings.choice("labels.by");
    let (count, balance) = (settings.count("generated.count"), settings.flag("labels.balance"));
    let drawn = settings.optional_count("generated.drawn").unwrap_or(count);
    let file = settings.text("labels.classifier").is_some();
    let looks = file || trains_labeller(settings);
    let wanted = by != LabelBy::Condition || looks || balance || drawn != count;
    wanted.then(|| LabelSpec {
        by,
        classes,
        confidence: settings.real("labels.confidence"),
        balance,
        count: Some(count),
        arch: settings.text("labels.arch").filter(|_| file).map(str::to_owned),
        dataset: if looks { dataset.to_owned() } else { String::new() },
    })
}

/// Whether the classifier that labels is trained by the suite itself, and needed.
pub(super) fn trains_labeller(settings: &Settings) -> bool {
    let count = settings.count("generated.count");
    let drawn = settings.optional_count("generated.drawn").unwrap_or(count);
    settings.flag("labels.trained")
        && (settings.text("labels.by") != Some("condition")
            || settings.real("labels.confidence") > 0.0
            || drawn != count)
}

/// The training of the classifier that labels: plain, on the real images, the same for all seeds.
pub(super) fn labeller(settings: &Settings, data: Source, classes: i64) -> TrainSpec {
    let spec = training(settings, data, classes, None, (Loss::Standard, 0));
    TrainSpec { seed: 0, ..spec }
}

/// How a set of `count` images is judged; `None` where it is not.
pub(super) fn quality(
    settings: &Settings,
    (train, test): (Source, Source),
    count: u64,
    [inception, reference]: [Option<String>; 2],
) -> Option<QualitySpec> {
    let images = settings.count("quality.images").min(count);
    // Fewer have no neighbours to speak of.
    let neighbours = settings.count("quality.neighbours");
    let duplicates = settings.flag("quality.duplicates");
    (images > neighbours).then_some(QualitySpec {
        train,
        test,
        inception,
        reference,
        images,
        neighbours,
        duplicates,
    })
}

/// The whole generated set from image 0; shards are cut from it later. `real` are the images that
/// trajectories can start from.
pub(super) fn generate(settings: &Settings, classes: i64, real: &Source) -> GenerateSpec {
    let policy = policy(settings);
    let starts = policy.as_ref().is_some_and(|policy| policy.applies == Applies::Start);
    GenerateSpec {
        sampler: sampler(settings),
        policy,
        origin: starts.then(|| real.clone()),
        seed: settings.count("generated.seed"),
        classes,
        start: 0,
        count: settings.count("generated.count"),
        batch: settings.count("generated.batch"),
    }
}

/// The supply of generated images by a sampler beside the training, drawn as `draw` says.
pub(super) fn live(settings: &Settings, draw: &GenerateSpec) -> Option<LiveSpec> {
    is_live(settings)
        .then(|| LiveSpec { rate: settings.real("generated.rate"), draw: draw.clone() })
}

/// Whether generated images are drawn while training goes on.
pub(super) fn is_live(settings: &Settings) -> bool {
    settings.text("generated.supply") == Some("live")
}

/// The share of generated images in a batch: the paper's rule, unless the suite says otherwise.
fn generated_fraction(settings: &Settings, count: u64) -> f64 {
    let rule = if count > 1_000_000 { 0.8 } else { 0.7 };
    match count {
        0 => 0.0,
        _ => settings.optional_real("generated.fraction").unwrap_or(rule),
    }
}

/// PGD-AT and MART never smooth, nor does CutMix; plain training does where somebody says so, since
/// the papers' plain training does not.
fn label_smoothing(settings: &Settings, loss: Loss) -> f64 {
    let setting = settings.get("train.label_smoothing");
    let stated = !matches!(setting.origin, Origin::Default | Origin::Preset(_));
    match loss {
        Loss::PgdAt | Loss::Mart => 0.0,
        Loss::Standard if !stated => 0.0,
        _ if settings.flag("train.cutmix") => 0.0,
        _ => settings.real("train.label_smoothing"),
    }
}

/// The classifier's training.
pub(super) fn train(
    settings: &Settings,
    data: Source,
    classes: i64,
    threat: Option<ThreatModel>,
) -> TrainSpec {
    let what = (settings.choice("train.loss"), settings.count("generated.count"));
    training(settings, data, classes, threat, what)
}

fn training(
    settings: &Settings,
    data: Source,
    classes: i64,
    threat: Option<ThreatModel>,
    (loss, generated): (Loss, u64),
) -> TrainSpec {
    let crafts = loss != Loss::Standard;
    let weighs = crafts && loss != Loss::PgdAt;
    // MART knows one way to craft and one way to pass.
    let chooses = weighs && loss != Loss::Mart;
    let consistency = settings.real("train.consistency");
    let validation = settings.count("train.validation");
    let attacked = crafts && validation > 0;
    let network = ClassifierSpec {
        arch: settings.text("train.arch").unwrap_or_default().to_owned(),
        dataset: data.name.clone(),
        classes,
    };
    TrainSpec {
        data,
        network,
        threat: threat.filter(|_| crafts),
        generated,
        // What is drawn is known once the denoiser is.
        live: None,
        generated_fraction: generated_fraction(settings, generated),
        loss,
        beta: if weighs { settings.real("train.beta") } else { 0.0 },
        label_smoothing: label_smoothing(settings, loss),
        smooth: settings.choice("train.smooth"),
        cutmix: settings.flag("train.cutmix"),
        consistency,
        consistency_temperature: if consistency > 0.0 {
            settings.real("train.consistency_temperature")
        } else {
            0.0
        },
        score_clip: if loss == Loss::Score { settings.real("train.score_clip") } else { 0.0 },
        keep_clean: loss == Loss::PgdAt && settings.flag("train.keep_clean"),
        craft: if chooses { settings.choice("train.craft") } else { Craft::Steps },
        attack_steps: if crafts { settings.count("train.attack_steps") } else { 0 },
        attack_step_size: settings.optional_real("train.attack_step_size").filter(|_| crafts),
        epochs: settings.count("train.epochs"),
        batch: settings.count("train.batch"),
        learning_rate: settings.real("train.learning_rate"),
        schedule: settings.choice("train.schedule"),
        warmup_epochs: settings.count("train.warmup_epochs"),
        weight_decay: settings.real("train.weight_decay"),
        momentum: settings.real("train.momentum"),
        nesterov: settings.flag("train.nesterov"),
        clip: settings.optional_real("train.clip"),
        tau: settings.real("train.tau"),
        average_warmup: settings.real("train.average_warmup"),
        batch_norm_momentum: settings.real("train.batch_norm_momentum"),
        tracked: if chooses { settings.choice("train.tracked") } else { Tracked::Both },
        virtual_batch: settings.optional_count("train.virtual_batch"),
        precision: settings.choice("train.precision"),
        checkpointing: settings.flag("train.checkpointing"),
        augment: settings.choice("train.augment"),
        validation,
        validate_every: if validation > 0 { settings.count("train.validate_every") } else { 1 },
        validation_steps: if attacked { settings.count("train.validation_steps") } else { 0 },
        validation_step_size: settings
            .optional_real("train.validation_step_size")
            .filter(|_| attacked),
        seed: settings.count("train.seed"),
    }
}

/// The classifier's evaluation under `threat`.
pub(super) fn evaluate(
    settings: &Settings,
    data: Source,
    classes: i64,
    threat: ThreatModel,
) -> EvaluateSpec {
    let named = settings.text("evaluate.suite").unwrap_or("standard");
    let standard = resolve_suite(named, threat.norm, classes).expect("the table's suites exist");
    let attacks: Vec<AttackSpec> = match settings.attacks("evaluate.attacks") {
        Some(attacks) => {
            attacks.iter().map(|attack| own_attack(settings, attack, classes)).collect()
        }
        None => standard.iter().map(|attack| adjusted(settings, attack.clone())).collect(),
    };
    let suite = if attacks == standard { named } else { "custom" };
    EvaluateSpec {
        data,
        threat,
        suite: suite.to_owned(),
        attacks,
        mode: settings.choice("evaluate.mode"),
        checkpoint: settings.choice("evaluate.checkpoint"),
        batch: settings.count("evaluate.batch"),
        seed: settings.count("evaluate.seed"),
    }
}

/// `attack` with the numbers that the suite gives for all attacks.
fn adjusted(settings: &Settings, mut attack: AttackSpec) -> AttackSpec {
    let steps =
        if attack.name == AttackName::Square { "evaluate.queries" } else { "evaluate.steps" };
    if let Some(steps) = settings.optional_count(steps) {
        attack.steps = steps;
    }
    if let Some(restarts) = settings.optional_count("evaluate.restarts") {
        attack.restarts = restarts;
    }
    if let (1.., Some(targets)) = (attack.targets, settings.optional_count("evaluate.targets")) {
        attack.targets = targets;
    }
    attack
}

/// An attack of `evaluate.attacks`: its own numbers win over those for all attacks.
fn own_attack(settings: &Settings, named: &NamedAttack, classes: i64) -> AttackSpec {
    let name = serde_json::from_value(named.name.clone().into()).expect("the table's names");
    let attack = adjusted(settings, published(name, classes));
    AttackSpec {
        name,
        steps: named.steps.unwrap_or(attack.steps),
        restarts: named.restarts.unwrap_or(attack.restarts),
        targets: named.targets.filter(|_| attack.targets > 0).unwrap_or(attack.targets),
        eot: named.eot.unwrap_or(attack.eot),
    }
}
