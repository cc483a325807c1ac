//! The one table of everything a suite can set. It drives validation, axes, `--set`, defaults and
//! their origins, and the JSON schema for editors. A test in `plan` holds it to the stages' specs.

use crate::suite::fields::{
    Fallback::{Absent, Is, Required},
    Field,
    Kind::{
        Attacks, Choice, Count, Counts, DataSet, Epsilon, Flag, Path, Paths, Real, Text, Threat,
        Threats,
    },
};

const MANY: u64 = u64::MAX;
const POSITIVE: f64 = 1e-12;

/// Data sets with names of their own.
pub const DATA_SETS: &[&str] =
    &["cifar10", "cifar100", "cifar100-coarse", "svhn", "svhn-extra", "tiny-imagenet", "synthetic"];

/// Names of the attacks of an evaluation.
pub const ATTACKS: &[&str] =
    &["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square", "pgd", "malt", "pma"];

macro_rules! fields {
    ($($path:literal $kind:expr, $fallback:expr, $doc:literal;)*) => {
        /// Every field, section by section.
        pub const FIELDS: &[Field] =
            &[$(Field { path: $path, kind: $kind, fallback: $fallback, doc: $doc }),*];
    };
}

fields! {
    "data.name" DataSet, Required, "the data set, or the path of an image folder, an archive or an .npz file";
    "data.dir" Path, Absent("searched in --data and the usual places"), "folder with the data set's files";
    "data.resolution" Count(8, 256), Absent("the set's own; 16 for synthetic"), "edge length of the images, free for synthetic only";
    "data.train.skip" Count(0, MANY), Is("0"), "training images passed over at the start";
    "data.train.count" Count(1, MANY), Absent("all"), "how many training images are used";
    "data.test.skip" Count(0, MANY), Is("0"), "test images passed over at the start";
    "data.test.count" Count(1, MANY), Absent("all"), "how many test images are evaluated";

    "threat" Threat, Absent("the only one of `threats:`"), "threat model of training and evaluation, by its name in `threats:`";
    "threat.norm" Choice(&["linf", "l2", "l1"]), Absent("that of the named threat model"), "norm of the threat model";
    "threat.epsilon" Epsilon, Absent("that of the named threat model"), "bound of the threat model";

    "denoiser.file" Path, Absent("a denoiser is trained"), "weights to import instead of training a denoiser";
    "denoiser.arch" Choice(&["ddpmpp", "ncsnpp", "adm"]), Is("ddpmpp"), "the U-Net";
    "denoiser.precond" Choice(&["edm", "vp", "ve", "iddpm"]), Is("edm"), "preconditioning";
    "denoiser.conditional" Flag, Is("true"), "whether classes condition it";
    "denoiser.channels" Count(8, 4096), Is("128"), "channels at the highest resolution";
    "denoiser.channel_mult" Counts, Is("[2, 2, 2]"), "channel multiplier of each resolution";
    "denoiser.blocks" Count(1, 64), Is("4"), "residual blocks at each resolution";
    "denoiser.attention" Counts, Is("[16]"), "resolutions with self-attention";
    "denoiser.images" Count(1, MANY), Is("200M"), "training length, in images seen";
    "denoiser.batch" Count(1, 1 << 20), Is("512"), "batch size";
    "denoiser.learning_rate" Real(POSITIVE, 10.0), Is("0.001"), "Adam's learning rate";
    "denoiser.ramp" Count(0, MANY), Is("10M"), "images over which the learning rate rises from 0";
    "denoiser.ema_half_life" Count(0, MANY), Is("500K"), "half-life of the weights' moving average, in images";
    "denoiser.ema_ramp" Real(0.0, 1.0), Is("0.05"), "the half-life is at most this share of the images seen; 0 switches off";
    "denoiser.dropout" Real(0.0, 0.95), Is("0.13"), "dropout probability";
    "denoiser.p_mean" Real(-20.0, 20.0), Is("-1.2"), "mean of ln sigma";
    "denoiser.p_std" Real(POSITIVE, 20.0), Is("1.2"), "deviation of ln sigma";
    "denoiser.augment" Real(0.0, 1.0), Is("0.12"), "probability of each geometric augmentation";
    "denoiser.flip" Flag, Is("true"), "whether images are mirrored at random";
    "denoiser.precision" Choice(&["fp32", "bf16"]), Is("fp32"), "numbers in which the network trains (weights stay fp32)";
    "denoiser.snapshot" Count(0, MANY), Is("0"), "images between snapshots, of which the one with the best FID is kept; 0 keeps the last weights";
    "denoiser.snapshot_images" Count(2, 1_000_000), Is("2000"), "images that a snapshot draws to be judged by";
    "denoiser.snapshot_steps" Count(1, 1000), Is("18"), "sampler steps of those images";
    "denoiser.seed" Count(0, MANY), Is("0"), "seed of weights, order and noise";

    "sampler.solver" Choice(&["heun", "euler", "ddpm", "ddim"]), Is("heun"), "numerical solver; ddpm and ddim walk Ho's process of 1000 steps";
    "sampler.steps" Count(1, 100_000), Is("18"), "number of steps; Heun evaluates the network 2N - 1 times";
    "sampler.discretization" Choice(&["edm", "vp", "ve", "iddpm"]), Is("edm"), "how the steps are laid out";
    "sampler.schedule" Choice(&["linear", "vp", "ve"]), Is("linear"), "noise level over time";
    "sampler.scaling" Choice(&["none", "vp"]), Is("none"), "scale of the signal over time";
    "sampler.alpha" Real(POSITIVE, 1.0), Is("1"), "where heun takes its second slope, as a share of the step";
    "sampler.sigma_min" Real(POSITIVE, 1e6), Absent("that of the discretization: edm's is 0.002"), "lowest noise level";
    "sampler.sigma_max" Real(POSITIVE, 1e6), Absent("that of the discretization: edm's is 80"), "highest noise level";
    "sampler.rho" Real(POSITIVE, 1000.0), Is("7"), "exponent of edm's discretization";
    "sampler.churn" Real(0.0, 1e6), Is("0"), "S_churn; 0 is deterministic";
    "sampler.churn_min" Real(0.0, 1e6), Is("0"), "S_min";
    "sampler.churn_max" Real(0.0, 1e6), Absent("infinity"), "S_max";
    "sampler.churn_noise" Real(0.0, 100.0), Is("1"), "S_noise";
    "sampler.eta" Real(0.0, 1.0), Is("0"), "ddim: how much noise a step adds; 1 is ddpm's";
    "sampler.variance" Choice(&["small", "large"]), Is("small"), "ddpm: variance of a step";
    "sampler.clip" Flag, Is("true"), "ddpm, ddim: whether denoised images are clipped to [-1, 1]";

    "policy.kind" Choice(&["fixed", "uniform", "mirrored"]), Is("fixed"), "what `applies` is drawn from for every image: nothing, [min, max], or mirrored about the schedule";
    "policy.min" Count(1, 100_000), Is("1"), "smallest number";
    "policy.max" Count(1, 100_000), Absent("sampler.steps"), "largest number";
    "policy.mirror" Real(0.0, 1.0), Is("0.5"), "mirrored: probability that number n becomes sampler.steps + 1 - n";
    "policy.applies" Choice(&["steps", "exit", "start"]), Is("steps"), "the number of steps, the step whose denoised image is taken, or the step at which a noised real image enters";
    "policy.per" Choice(&["image", "batch"]), Is("image"), "what shares one number";

    "generated.count" Count(0, MANY), Is("0"), "generated images that join training; 0 for none";
    "generated.fraction" Real(0.0, 1.0), Absent("0.7 up to 1M generated images, 0.8 above"), "share of generated images in a batch";
    "generated.file" Paths, Absent("images are sampled"), "a generated set to use where it lies instead of sampling one: an .npz file, a folder of parts, or a list of these";
    "generated.supply" Choice(&["set", "live"]), Is("set"), "a set drawn before training; or live: drawn while training goes on, into a ring buffer of `generated.count` images (not judged)";
    "generated.rate" Real(0.0, 1e6), Is("16"), "live: images drawn for each step of training, each in place of the oldest one";
    "generated.seed" Count(0, MANY), Is("0"), "seed of latents and labels";
    "generated.shard" Count(1, 10_000_000), Is("10000"), "images in one file of the set; each file is a job of its own";
    "generated.batch" Count(1, 1 << 20), Is("64"), "images sampled at once";
    "generated.drawn" Count(1, MANY), Absent("generated.count"), "images sampled, of which the best `generated.count` are kept, class by class";

    "labels.by" Choice(&["condition", "classifier", "soft"]), Is("condition"), "who labels generated images: the class asked for, a classifier's most probable class, or its probabilities of all classes";
    "labels.classifier" Path, Absent("no classifier looks at the images"), "weights of a classifier that labels images or says how confident it is";
    "labels.trained" Flag, Is("false"), "whether that classifier is trained here where one is needed: `train.arch` by plain training on the real images";
    "labels.arch" Text, Absent("worked out from the file"), "architecture of that classifier";
    "labels.confidence" Real(0.0, 1.0), Is("0"), "least probability that the classifier gives the label; other images are dropped";
    "labels.balance" Flag, Is("false"), "whether every class keeps the same number of images";

    "quality.images" Count(0, 1_000_000), Is("10000"), "generated images, from the first, that are judged: Frechet distance, precision, recall, density, coverage, class balance, near duplicates; 0 for no judgement";
    "quality.inception" Path, Absent("fixed random filters: distances compare sets here, not with published ones"), "the Inception network of published FIDs as TorchScript (inception-2015-12-05.pt)";
    "quality.reference" Path, Absent("computed from the training images"), "statistics of real images (.npz with mu and sigma), as published for FID";
    "quality.neighbours" Count(1, 100), Is("5"), "nearest neighbours that make a ball, of precision, recall, density and coverage";
    "quality.duplicates" Flag, Is("true"), "whether near duplicates of training and test images are sought";

    "train.preset" Choice(&["dmat", "deepmind"]), Absent("dmat's numbers"), "a published recipe whose numbers hold where `train:` says nothing";
    "train.arch" Text, Is("wrn-28-10-swish"), "the classifier: wrn-DEPTH-WIDTH-swish, preact-resnet18, ...";
    "train.loss" Choice(&["standard", "pgd-at", "trades", "mart", "score"]), Is("trades"), "training objective";
    "train.beta" Real(0.0, 1000.0), Is("5"), "weight of the robust term";
    "train.label_smoothing" Real(0.0, 0.99), Is("0.1"), "label smoothing";
    "train.smooth" Choice(&["all", "generated"]), Is("all"), "whose labels are smoothed";
    "train.cutmix" Flag, Is("false"), "whether batches are mixed by CutMix";
    "train.consistency" Real(0.0, 1000.0), Is("0"), "weight of the consistency between two views of each image";
    "train.consistency_temperature" Real(POSITIVE, 1000.0), Is("0.5"), "temperature of the predictions that are to be consistent";
    "train.score_clip" Real(0.0, 2.0), Is("0"), "SCORE: robust distances below this do not count";
    "train.keep_clean" Flag, Is("false"), "PGD-AT: whether clean images join the adversarial ones";
    "train.craft" Choice(&["steps", "adam"]), Is("steps"), "how the crafting attack follows the gradient";
    "train.attack_steps" Count(1, 10_000), Is("10"), "steps of the crafting attack";
    "train.attack_step_size" Real(POSITIVE, 1000.0), Absent("epsilon / 4 for linf, 2 epsilon / steps for l2 (pgd-at: 15 epsilon / 128)"), "step size of the crafting attack";
    "train.epochs" Count(1, 1_000_000), Is("400"), "epochs over the real images";
    "train.batch" Count(1, 1 << 20), Is("512"), "batch size, real and generated together";
    "train.learning_rate" Real(POSITIVE, 100.0), Is("0.2"), "peak learning rate";
    "train.schedule" Choice(&["cosinew", "cyclic", "step", "cosine", "warmcosine", "constant"]), Is("cosinew"), "how the learning rate moves";
    "train.warmup_epochs" Count(0, 1_000_000), Is("0"), "epochs of linear warm-up (schedule: warmcosine)";
    "train.weight_decay" Real(0.0, 1.0), Is("0.0005"), "weight decay (batch-norm parameters are exempt)";
    "train.momentum" Real(0.0, 0.9999), Is("0.9"), "momentum";
    "train.nesterov" Flag, Is("true"), "Nesterov's form of momentum";
    "train.clip" Real(POSITIVE, 1e9), Absent("no clipping"), "largest gradient norm";
    "train.tau" Real(0.0, 0.999_999), Is("0.995"), "decay of the weights' moving average; 0 for none";
    "train.average_warmup" Real(0.0, 1.0), Is("0.025"), "share of training before the weights' average begins";
    "train.batch_norm_momentum" Real(POSITIVE, 1.0), Is("0.01"), "momentum of batch norm's running statistics";
    "train.tracked" Choice(&["both", "adversarial"]), Is("both"), "which forward passes of TRADES move running statistics";
    "train.virtual_batch" Count(1, 1 << 20), Absent("the whole batch"), "images that share batch statistics, as on one of several GPUs, and are in memory at once";
    "train.precision" Choice(&["fp32", "bf16", "fp16"]), Is("fp32"), "numbers in which the network computes (weights stay fp32)";
    "train.checkpointing" Flag, Is("false"), "whether forward passes are computed twice to save memory";
    "train.augment" Choice(&["none", "base", "cutout", "autoaugment", "randaugment", "idbh"]), Is("base"), "augmentation of training images";
    "train.validation" Count(0, MANY), Is("1024"), "first training images held out to choose the best checkpoint (spread, where they lie class by class)";
    "train.validate_every" Count(1, 1_000_000), Is("1"), "validate after every so many epochs";
    "train.validation_steps" Count(1, 10_000), Is("40"), "PGD steps of the validation attack";
    "train.validation_step_size" Real(POSITIVE, 1000.0), Absent("epsilon / 4 for linf, 15 epsilon / 128 for l2"), "step size of the validation attack";
    "train.seed" Count(0, MANY), Is("0"), "seed of weights, order and noise";

    "evaluate.suite" Choice(&["standard", "plus", "rand", "malt", "pma", "pma+", "quick"]), Is("standard"), "the cascade: AutoAttack's, or a cheaper one; any number changed below makes it `custom`";
    "evaluate.attacks" Attacks, Absent("the cascade of `suite`"), "the cascade, attack by attack";
    "evaluate.steps" Count(1, 1_000_000), Absent("100; 5000 queries for square"), "iterations of each gradient attack";
    "evaluate.queries" Count(1, 10_000_000), Absent("5000"), "queries of square";
    "evaluate.restarts" Count(1, 1000), Absent("AutoAttack's"), "random restarts of each attack";
    "evaluate.targets" Count(1, 1000), Absent("9"), "target classes of targeted attacks";
    "evaluate.threat" Threat, Absent("that of training"), "threat model of the evaluation";
    "evaluate.threats" Threats, Absent("one: `evaluate.threat`"), "several threat models under which the one classifier is evaluated";
    "evaluate.mode" Choice(&["strict", "reference"]), Is("strict"), "strict: independent of batch, order and device; reference: AutoAttack bit for bit";
    "evaluate.checkpoint" Choice(&["best", "last"]), Is("best"), "which weights of the training run";
    "evaluate.batch" Count(1, 1 << 20), Is("128"), "examples attacked at once";
    "evaluate.seed" Count(0, MANY), Is("0"), "seed of the attacks";
}

/// A published recipe: values that stand in for the table's defaults.
pub struct Preset {
    /// Its name in `train.preset`.
    pub name: &'static str,
    /// Dotted paths and values, as YAML.
    pub values: &'static [(&'static str, &'static str)],
}

/// The recipes. `dmat`: Wang et al. 2023 as their code runs it; `deepmind`: Gowal et al. 2021 and
/// Rebuffi et al. 2021 (learning rate 0.1 for each 256 of the batch, cosine to zero).
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "dmat",
        values: &[
            ("train.loss", "trades"),
            ("train.beta", "5"),
            ("train.label_smoothing", "0.1"),
            ("train.smooth", "all"),
            ("train.cutmix", "false"),
            ("train.consistency", "0"),
            ("train.consistency_temperature", "0.5"),
            ("train.score_clip", "0"),
            ("train.keep_clean", "false"),
            ("train.craft", "steps"),
            ("train.attack_steps", "10"),
            ("train.epochs", "400"),
            ("train.batch", "512"),
            ("train.learning_rate", "0.2"),
            ("train.schedule", "cosinew"),
            ("train.warmup_epochs", "0"),
            ("train.weight_decay", "0.0005"),
            ("train.momentum", "0.9"),
            ("train.nesterov", "true"),
            ("train.tau", "0.995"),
            ("train.average_warmup", "0.025"),
            ("train.batch_norm_momentum", "0.01"),
            ("train.tracked", "both"),
            ("train.precision", "fp32"),
            ("train.checkpointing", "false"),
            ("train.augment", "base"),
            ("train.validation", "1024"),
            ("train.validate_every", "1"),
            ("train.validation_steps", "40"),
        ],
    },
    Preset {
        name: "deepmind",
        values: &[
            ("generated.fraction", "0.7"),
            ("train.loss", "trades"),
            ("train.beta", "6"),
            ("train.label_smoothing", "0.1"),
            ("train.smooth", "generated"),
            ("train.cutmix", "false"),
            ("train.consistency", "0"),
            ("train.consistency_temperature", "0.5"),
            ("train.score_clip", "0"),
            ("train.keep_clean", "false"),
            ("train.craft", "adam"),
            ("train.attack_steps", "10"),
            ("train.epochs", "400"),
            ("train.batch", "1024"),
            ("train.learning_rate", "0.4"),
            ("train.schedule", "warmcosine"),
            ("train.warmup_epochs", "10"),
            ("train.weight_decay", "0.0005"),
            ("train.momentum", "0.9"),
            ("train.nesterov", "true"),
            ("train.tau", "0.995"),
            ("train.average_warmup", "0"),
            ("train.batch_norm_momentum", "0.01"),
            ("train.tracked", "adversarial"),
            ("train.precision", "fp32"),
            ("train.checkpointing", "false"),
            ("train.augment", "base"),
            ("train.validation", "1024"),
            ("train.validate_every", "1"),
            ("train.validation_steps", "40"),
        ],
    },
];
