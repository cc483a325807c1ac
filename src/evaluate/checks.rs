//! Defence checks: signs that a robust accuracy may be too high, each with its measured value and
//! what to do. They warn; the evaluation goes on.

use tch::{Kind, Tensor};

use super::{
    result::Record,
    spec::{AttackName, EvaluateSpec},
};
use crate::{attack::loss::margin, net::Classifier, rng::torch_turn, threat::Norm};

/// No reduction.
const NONE: tch::Reduction = tch::Reduction::None;

/// How many images of the first batch are passed again. The checks cost some ten passes, which on a
/// large network and a full batch would outlast a short attack.
const PASSED: i64 = 32;

/// The warnings that the first batch gives rise to; `logits` are the model's for it.
pub(crate) fn first_batch(
    spec: &EvaluateSpec,
    model: &dyn Classifier,
    (images, labels): (&Tensor, &Tensor),
    logits: &Tensor,
) -> Vec<String> {
    let _guard = tch::no_grad_guard();
    let few = images.size()[0].min(PASSED);
    let (some, theirs) = (images.narrow(0, 0, few), labels.narrow(0, 0, few));
    let mut found = Vec::new();
    found.extend(model.remarks().iter().cloned());
    match unsteady(model, &some, &theirs) {
        None => found.extend(batch_statistics(model, images, logits)),
        // What the suite is made for.
        Some(Unsteady::Random(_)) if spec.suite == "rand" => {}
        Some(Unsteady::Random(said) | Unsteady::State(said)) => found.push(said),
    }
    found.extend(probabilities(logits));
    let known = logits.narrow(0, 0, few);
    found.extend(gradients(model, &some, &theirs, &known));
    found.extend(input_range(model, &some, &theirs, &known));
    found.extend(few_classes(spec, logits.size()[1]));
    if let Some((low, high)) = outside(images) {
        found.push(format!(
            "images reach from {low} to {high}; attacks keep to [0, 1]; rescale the data"
        ));
    }
    found
}

/// Why passes of one batch disagree.
enum Unsteady {
    /// Random numbers.
    Random(String),
    /// Not even with the same random numbers do they agree: the model remembers.
    State(String),
}

/// Passes of one batch must agree.
fn unsteady(model: &dyn Classifier, images: &Tensor, labels: &Tensor) -> Option<Unsteady> {
    let passes: Vec<Tensor> = (0..5).map(|_| model.logits(images)).collect();
    let right = |logits: &Tensor| {
        logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64).int64_value(&[])
    };
    let counts: Vec<i64> = passes.iter().map(right).collect();
    let (least, most) = (*counts.iter().min()?, *counts.iter().max()?);
    let gap = disagreement(&passes);
    if gap <= 1e-4 && least == most {
        return None;
    }
    let _turn = torch_turn();
    let again = || {
        tch::manual_seed(0);
        model.logits(images)
    };
    let steady = disagreement(&[again(), again(), again()]);
    if steady > 1e-4 {
        return Some(Unsteady::State(format!(
            "the model changes from pass to pass: three passes over one batch differ by up to \
             {steady:.1e} (limit 1e-4) with the same random numbers; it adapts at test time, and \
             results depend on what it saw before; freeze it, or attack it adaptively"
        )));
    }
    Some(Unsteady::Random(format!(
        "the model seems randomised: five passes over one batch had between {least} and {most} \
         right and differ by up to {gap:.1e} (limit 1e-4); use --suite rand, or put the model \
         into evaluation mode if it is still in training mode (dropout)"
    )))
}

/// The largest distance between two passes' logits, each of length one.
fn disagreement(passes: &[Tensor]) -> f64 {
    let unit = |logits: &Tensor| {
        logits / (logits.square().sum_dim_intlist([-1i64].as_slice(), true, None).sqrt() + 1e-10)
    };
    let mut gap = 0.0f64;
    for (i, a) in passes.iter().enumerate() {
        for b in &passes[i + 1..] {
            let distance =
                (unit(a) - unit(b)).square().sum_dim_intlist([-1i64].as_slice(), false, None);
            gap = gap.max(distance.sqrt().max().double_value(&[]));
        }
    }
    gap
}

/// Gradients must be there, and finite, at the clean images.
fn gradients(
    model: &dyn Classifier,
    images: &Tensor,
    labels: &Tensor,
    logits: &Tensor,
) -> Option<String> {
    let count = labels.size()[0];
    let leaf = images.detach().set_requires_grad(true);
    let traced = tch::with_grad(|| model.logits(&leaf));
    let pull = |of: &dyn Fn(&Tensor) -> Tensor| {
        let sum = tch::with_grad(|| of(&traced).sum(Kind::Float));
        let gradient = Tensor::f_run_backward(&[sum], &[&leaf], true, false).ok()?.remove(0);
        let steepest = gradient.abs().amax([1, 2, 3], false);
        let still = steepest.eq(0.0).sum(Kind::Int64).int64_value(&[]);
        let broken = steepest.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
        Some((still, broken))
    };
    let (still, broken) = pull(&|z| margin(z, labels))?;
    let (saturated, _) = pull(&|z| z.cross_entropy_loss::<Tensor>(labels, None, NONE, -100, 0.0))?;
    let largest = logits.abs().max().double_value(&[]);
    if broken > 0 {
        Some(format!(
            "the gradient is not finite for {broken} of {count} clean images: attacks that follow it \
             will fail; look for roots, logarithms and divisions at zero"
        ))
    } else if still > 0 {
        Some(format!(
            "the gradient of the margin is zero everywhere for {still} of {count} clean images: \
             gradient attacks are blind there; trust square more (more queries and restarts), and \
             attack a smoother surrogate"
        ))
    } else if saturated > 0 {
        Some(format!(
            "cross entropy is saturated: its gradient is zero for {saturated} of {count} clean images \
             (logits reach {largest:.1e}); apgd-ce and pgd are blind there; divide the logits by a \
             constant, and trust apgd-dlr, apgd-t, fab and square"
        ))
    } else {
        None
    }
}

/// What a model says about an image must not depend on the images beside it.
fn batch_statistics(model: &dyn Classifier, images: &Tensor, logits: &Tensor) -> Option<String> {
    let few = (images.size()[0] / 2).min(8);
    if few == 0 {
        return None;
    }
    let alone = model.logits(&images.narrow(0, 0, few));
    let together = logits.narrow(0, 0, few);
    let scale = together.abs().max().double_value(&[]).max(1e-12);
    let gap = (alone - together).abs().max().double_value(&[]) / scale;
    // A GPU takes other kernels for other batches, which round by TF32's ten bits.
    let limit = if images.device().is_cuda() { 1e-2 } else { 1e-3 };
    (gap > limit).then(|| {
        format!(
            "the first {few} images get other logits alone than among {} (by {gap:.1e} of the \
             largest, limit {limit:.0e}): the model normalises by the batch, as in training mode; save it \
             in evaluation mode (model.eval() before tracing)",
            images.size()[0]
        )
    })
}

/// Logits must not be a distribution already.
fn probabilities(logits: &Tensor) -> Option<String> {
    let (low, high) = (logits.min().double_value(&[]), logits.max().double_value(&[]));
    let sums = logits.sum_dim_intlist([-1i64].as_slice(), false, None);
    let gap = (sums - 1.0).abs().max().double_value(&[]);
    (high < 1.0 + 1e-5 && low > -1e-5 && gap < 1e-5).then(|| {
        format!(
            "the outputs are probabilities (between {low:.1e} and {high:.4}, rows sum to 1 within \
             {gap:.1e}): gradients vanish and robust accuracy comes out too high; give the model's \
             logits, before softmax"
        )
    })
}

/// Input ranges that models expect, and what turns images in `[0, 1]` into them.
fn other_ranges(images: &Tensor) -> [(&'static str, &'static str, Tensor); 4] {
    let normalised = |mean: [f64; 3], deviation: [f64; 3]| {
        let channels =
            |values: [f64; 3]| Tensor::from_slice(&values).to_kind(Kind::Float).view([1, 3, 1, 1]);
        let device = images.device();
        (images - channels(mean).to_device(device)) / channels(deviation).to_device(device)
    };
    [
        ("[0, 255]", "--bounds 0,255", images * 255.0),
        ("[-1, 1]", "--bounds=-1,1", images * 2.0 - 1.0),
        (
            "CIFAR-10's normalisation",
            "--mean 0.4914,0.4822,0.4465 --std 0.2471,0.2435,0.2616",
            normalised([0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]),
        ),
        (
            "ImageNet's normalisation",
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
            normalised([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ),
    ]
}

/// A model that does much better on images in another range was made for that range.
fn input_range(
    model: &dyn Classifier,
    images: &Tensor,
    labels: &Tensor,
    logits: &Tensor,
) -> Option<String> {
    let count = labels.size()[0] as f64;
    if count < 16.0 || images.size()[1] != 3 {
        return None;
    }
    let right = |logits: &Tensor| {
        logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64).int64_value(&[]) as f64
    };
    let here = right(logits);
    // Three deviations of a count, and a tenth of all: chance alone does not warn.
    let limit = (1.5 * count.sqrt()).max(0.1 * count);
    if count - here <= limit {
        return None;
    }
    let (range, flags, there) = other_ranges(images)
        .into_iter()
        .map(|(range, flags, moved)| (range, flags, right(&model.logits(&moved))))
        .max_by(|a, b| a.2.total_cmp(&b.2))?;
    (there - here > limit).then(|| {
        format!(
            "of the first {count} images {here} are right in [0, 1] but {there} in {range}: the \
             model expects that range; pass {flags}"
        )
    })
}

/// Labels that a permutation of the classes explains much better than the classes themselves.
pub(crate) fn labels(records: &[Record], classes: i64) -> Option<String> {
    let classes = usize::try_from(classes).ok()?;
    let mut counts = vec![vec![0u64; classes]; classes];
    for record in records {
        let (label, said) = (record.label as usize, record.clean_prediction as usize);
        *counts.get_mut(label)?.get_mut(said)? += 1;
    }
    let right: u64 = (0..classes).map(|class| counts[class][class]).sum();
    let renumbered = assign(&counts);
    let mapped: u64 = renumbered.iter().map(|&(label, said)| counts[label][said]).sum();
    let total = records.len() as u64;
    let chance = total as f64 / classes.max(1) as f64;
    if total >= 20 && renumbered.len() > 1 && 5 * mapped > 2 * total && 2 * right < mapped {
        let moved = renumbered.iter().filter(|(label, said)| label != said);
        let examples: Vec<String> =
            moved.take(3).map(|(label, said)| format!("{label} is mostly called {said}")).collect();
        return Some(format!(
            "{right} of {total} clean images are right, but {mapped} would be if classes were \
             renumbered ({}): the labels seem to be in another order than the model's classes; \
             check the data",
            examples.join(", ")
        ));
    }
    // Two deviations above guessing.
    (total >= 20 && right as f64 <= chance + 2.0 * chance.sqrt()).then(|| {
        format!(
            "{right} of {total} clean images are right, and guessing gets about {chance:.1}: are these the \
             model's weights, its data set, its input range?"
        )
    })
}

/// Each label with the class that it is called most, no class twice; the clearest first.
fn assign(counts: &[Vec<u64>]) -> Vec<(usize, usize)> {
    let cells = counts.iter().enumerate().flat_map(|(label, row)| {
        row.iter().enumerate().map(move |(said, &count)| (count, label, said))
    });
    let mut cells: Vec<_> = cells.filter(|(count, ..)| *count > 0).collect();
    cells.sort_by_key(|&(count, label, said)| (std::cmp::Reverse(count), label, said));
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (_, label, said) in cells {
        if found.iter().all(|&(l, s)| l != label && s != said) {
            found.push((label, said));
        }
    }
    found.sort_unstable();
    found
}

/// Examples that already are what a targeted attack would make of them.
pub(crate) fn own_class(records: &[Record], aims: &[i64]) -> Option<String> {
    let own = records.iter().zip(aims).filter(|(record, aim)| record.label == **aim).count();
    (own > 0).then(|| {
        format!(
            "{own} examples belong to the target class: they are not attacked and count as robust"
        )
    })
}

fn few_classes(spec: &EvaluateSpec, classes: i64) -> Option<String> {
    let has = |name| spec.attacks.iter().any(|attack| attack.name == name);
    let dlr = has(AttackName::ApgdDlr) || has(AttackName::ApgdT);
    let wanted = spec.attacks.iter().map(|attack| attack.targets).max().unwrap_or(0);
    let others = classes.max(1) as u64 - 1;
    match classes {
        ..=2 if dlr => Some(format!(
            "with {classes} classes the DLR loss has no third logit to scale by; the plain margin \
             is maximised instead"
        )),
        3 if has(AttackName::ApgdT) => Some(
            "with 3 classes the targeted DLR loss has no fourth logit; it is scaled by the first and \
             third instead"
                .to_owned(),
        ),
        _ if wanted > others => {
            Some(format!("{wanted} target classes were asked for, {others} exist: {others} are tried"))
        }
        _ => None,
    }
}

fn outside(images: &Tensor) -> Option<(f64, f64)> {
    let (low, high) = (images.min().double_value(&[]), images.max().double_value(&[]));
    (low < 0.0 || high > 1.0).then_some((low, high))
}

/// Square, which sees no gradient, should add little to what gradients found.
pub(crate) fn square_gain(
    spec: &EvaluateSpec,
    robust_after: &[(String, u64)],
    total: u64,
) -> Option<String> {
    let square = robust_after.iter().position(|(name, _)| name == "square")?;
    let before = robust_after[..square].iter().map(|(_, robust)| *robust).min()?;
    let gain = before.saturating_sub(robust_after[square].1);
    let points = 100.0 * gain as f64 / total.max(1) as f64;
    (spec.attacks.len() > 1 && points > 0.2).then(|| {
        format!(
            "square broke {gain} of {total} examples ({points:.2} points, limit 0.2) that gradient \
             attacks left: gradients may be masked; give square more queries and restarts, or \
             attack adaptively"
        )
    })
}

/// Zero gradients at the start of a DLR attack.
pub(crate) fn zero_gradients(attack: &str, count: u64) -> Option<String> {
    (count > 0).then(|| {
        format!(
            "{attack}: {count} starting points had a gradient of zero everywhere; gradient attacks \
             are blind there, so trust square more, and attack a smoother surrogate"
        )
    })
}

/// Suites whose figure is not AutoAttack's.
pub(crate) fn unusual(spec: &EvaluateSpec) -> Option<String> {
    match spec.suite.as_str() {
        "plus" if spec.threat.norm == Norm::L1 => Some(
            "the plus suite has no published settings for l1 (attacks run unstaged); prefer standard"
                .to_owned(),
        ),
        "quick" => Some(
            "the quick suite gives an upper bound, for continuous integration: its few short \
             attacks may miss breaks; report figures of --suite standard"
                .to_owned(),
        ),
        _ => None,
    }
}
