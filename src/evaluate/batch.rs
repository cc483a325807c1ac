//! One batch of one attack, from clean images to what the journal keeps.

use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::{
    aim::Toward,
    journal::{Broken, Entry, Piece},
    place::Bench,
    spec::{AttackName, AttackSpec, EvalMode},
    workers::Handle,
};
use crate::{
    attack::{self, Batch, Bounds, geometry, loss::margin},
    error::Result,
    net::Classifier,
    progress::Progress,
    rng::{Stream, torch_turn},
};

/// What one worker does at a time.
pub(crate) struct Task<'a> {
    /// Position of the bound among those of the curve, the largest first.
    pub(crate) level: usize,
    /// Position of the attack in the cascade.
    pub(crate) number: usize,
    pub(crate) attack: &'a AttackSpec,
    pub(crate) epsilon: f64,
    pub(crate) rows: Vec<usize>,
    /// The class that all of `rows` are driven to.
    pub(crate) aim: Option<i64>,
    /// Whether breaks are pulled towards the clean image as far as they stay breaks.
    pub(crate) tighten: bool,
}

/// What came of it.
pub(crate) struct Found {
    pub(crate) piece: Piece,
    /// Broken examples' indices and images `[n,3,h,w]`.
    pub(crate) images: (Vec<u64>, Tensor),
}

/// Attacks the batch `task`.
pub(crate) fn attack(
    bench: &Bench,
    handle: &Handle,
    task: &Task,
    progress: &dyn Progress,
) -> Result<Found> {
    let begun = Instant::now();
    let device = bench.place.device;
    let (images, labels) =
        (bench.data.images(&task.rows, device), bench.data.targets(&task.rows, device));
    let examples: Vec<u64> = task.rows.iter().map(|&row| bench.index(row)).collect();
    let model = handle.model;
    let fast = handle.fast.as_deref().unwrap_or(model);
    let (toward, toward_fast) = (
        task.aim.map(|class| Toward { model, class }),
        task.aim.map(|class| Toward { model: fast, class }),
    );
    let exact: &dyn Classifier = toward.as_ref().map_or(model, |toward| toward);
    let victim: &dyn Classifier = toward_fast.as_ref().map_or(fast, |toward| toward);
    // For a victim of two classes everyone starts in class 0.
    let goals = if toward.is_some() { labels.zeros_like() } else { labels.copy() };
    let digest = |row: &usize| u64::from_str_radix(&bench.data.image_hash(*row), 16);
    let streams: Vec<u64> = task.rows.iter().map(|row| digest(row).expect("16 digits")).collect();
    let batch = Batch { images: &images, labels: &goals, examples: &examples, streams: &streams };
    seed_model(bench, (task.level, task.number), examples[0]);
    let spec = plain(bench, task);
    let outcome = match handle.fast {
        Some(_) => attack::confirm::run_on_fast(&spec, (victim, exact), &batch, progress)?,
        None => attack::run(&spec, victim, &batch, progress)?,
    };
    let _guard = tch::no_grad_guard();
    let broken: Vec<i64> =
        (0..examples.len()).filter(|&i| outcome.breaks[i].is_some()).map(|i| i as i64).collect();
    let at = Tensor::from_slice(&broken).to_device(device);
    let pick = |tensor: &Tensor| tensor.index_select(0, &at);
    let mut adversarial = pick(&outcome.adversarial);
    let mut extra = 0;
    if !broken.is_empty() {
        if task.tighten {
            adversarial = tighten(exact, &pick(&images), &pick(&goals), &adversarial);
            extra += ROUNDS;
        }
        extra += 1; // the margin's
    }
    let (norms, margins) = measured(bench, model, (&pick(&images), &pick(&labels)), &adversarial);
    let mut entries: Vec<Entry> = (0..examples.len())
        .map(|i| Entry {
            index: examples[i],
            broken: None,
            forwards: outcome.forward[i],
            backwards: outcome.backward[i],
        })
        .collect();
    for (place, &i) in broken.iter().enumerate() {
        let how = outcome.breaks[i as usize].expect("just filtered");
        let entry = &mut entries[i as usize];
        entry.forwards += extra;
        entry.broken = Some(Broken {
            restart: how.restart,
            target: task.aim.or(how.target),
            iteration: how.iteration,
            norm: norms[place],
            margin: margins[place],
        });
    }
    let indices = broken.iter().map(|&i| examples[i as usize]).collect();
    let piece = Piece {
        level: task.level,
        attack: task.number,
        entries,
        seconds: begun.elapsed().as_secs_f64(),
        still: outcome.zero_gradients,
    };
    Ok(Found { piece, images: (indices, adversarial) })
}

/// Gives a randomised model the same random numbers whenever it meets the same batch.
pub(crate) fn seed_model(bench: &Bench, (level, number): (usize, usize), first: u64) {
    if bench.spec.suite == "rand" && bench.spec.mode == EvalMode::Strict {
        let work = first << 16 | (level as u64) << 8 | number as u64;
        let seed = Stream::new(bench.spec.seed, "model", work).below(1 << 62) as i64;
        let _turn = torch_turn();
        tch::manual_seed(seed);
    }
}

/// Norm of each perturbation, and margin of each image.
fn measured(
    bench: &Bench,
    model: &dyn Classifier,
    (images, labels): (&Tensor, &Tensor),
    adversarial: &Tensor,
) -> (Vec<f64>, Vec<f64>) {
    if adversarial.size()[0] == 0 {
        return (Vec::new(), Vec::new());
    }
    let delta = adversarial.to_kind(Kind::Double) - images.to_kind(Kind::Double);
    let margins = margin(&model.logits(adversarial), labels);
    (floats(&geometry::norm(&delta, bench.spec.threat.norm)), floats(&margins))
}

/// Halvings of the way to the clean image: the norm is found to a thousandth.
const ROUNDS: u64 = 10;

/// On the segment from each clean image to its adversarial one, a point as near to the clean image
/// as bisection finds that is still a break.
fn tighten(
    victim: &dyn Classifier,
    clean: &Tensor,
    labels: &Tensor,
    adversarial: &Tensor,
) -> Tensor {
    let delta = adversarial - clean;
    let mut best = adversarial.copy();
    let count = clean.size()[0];
    let mut low = Tensor::zeros([count], (Kind::Float, clean.device()));
    let mut high = low.ones_like();
    for _ in 0..ROUNDS {
        let middle = (&low + &high) * 0.5;
        let each = geometry::per_row(&middle);
        let bounds = Bounds::UNIT;
        let candidate = (clean + &delta * each).clamp(bounds.low, bounds.high);
        let wrong = victim.logits(&candidate).argmax(1, false).ne_tensor(labels);
        best = candidate.where_self(&geometry::per_row(&wrong), &best);
        high = middle.where_self(&wrong, &high);
        low = low.where_self(&wrong, &middle);
    }
    best
}

fn plain(bench: &Bench, task: &Task) -> attack::Spec {
    let Task { attack, .. } = task;
    attack::Spec {
        kind: kind(attack.name),
        steps: attack.steps,
        restarts: attack.restarts,
        targets: attack.targets,
        eot: attack.eot,
        staged: bench.spec.staged(),
        norm: bench.spec.threat.norm,
        epsilon: task.epsilon,
        bounds: Bounds::UNIT,
        mode: match bench.spec.mode {
            EvalMode::Strict => attack::Mode::Strict,
            EvalMode::Reference => attack::Mode::Reference,
        },
        seed: bench.spec.seed,
    }
}

fn kind(name: AttackName) -> attack::Kind {
    match name {
        AttackName::ApgdCe => attack::Kind::ApgdCe,
        AttackName::ApgdDlr => attack::Kind::ApgdDlr,
        AttackName::ApgdT => attack::Kind::ApgdTargeted,
        AttackName::Fab => attack::Kind::Fab,
        AttackName::FabT => attack::Kind::FabTargeted,
        AttackName::Square => attack::Kind::Square,
        AttackName::Pgd => attack::Kind::Pgd,
        AttackName::Malt => attack::Kind::Malt,
        AttackName::Pma => attack::Kind::Pma,
    }
}

/// `[n]` on the host.
pub(crate) fn floats(values: &Tensor) -> Vec<f64> {
    Vec::try_from(values.to_device(Device::Cpu).to_kind(Kind::Double)).expect("one a row")
}
