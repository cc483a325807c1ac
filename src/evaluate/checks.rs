//! Defence checks: signs that a robust accuracy may be too high, each with its measured value and
//! what to do. They warn; the evaluation goes on.

use tch::{Kind, Tensor};

use super::spec::{AttackName, EvaluateSpec};
use crate::{net::Classifier, threat::Norm};

/// The warnings that the first batch gives rise to.
pub(crate) fn first_batch(
    spec: &EvaluateSpec,
    model: &dyn Classifier,
    images: &Tensor,
    labels: &Tensor,
) -> Vec<String> {
    let _guard = tch::no_grad_guard();
    let logits = model.logits(images);
    let mut found = Vec::new();
    if spec.suite != "rand" {
        found.extend(randomised(model, images, labels));
    }
    found.extend(probabilities(&logits));
    found.extend(input_range(model, images, labels, &logits));
    found.extend(few_classes(spec, logits.size()[1]));
    if let Some((low, high)) = outside(images) {
        found.push(format!("images reach from {low} to {high}; attacks keep to [0, 1]"));
    }
    found
}

/// Passes of one batch must agree.
fn randomised(model: &dyn Classifier, images: &Tensor, labels: &Tensor) -> Option<String> {
    let passes: Vec<Tensor> = (0..5).map(|_| model.logits(images)).collect();
    let right = |logits: &Tensor| {
        logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64).int64_value(&[])
    };
    let unit = |logits: &Tensor| {
        logits / (logits.square().sum_dim_intlist([-1i64].as_slice(), true, None).sqrt() + 1e-10)
    };
    let counts: Vec<i64> = passes.iter().map(right).collect();
    let mut gap = 0.0f64;
    for (i, a) in passes.iter().enumerate() {
        for b in &passes[i + 1..] {
            let distance =
                (unit(a) - unit(b)).square().sum_dim_intlist([-1i64].as_slice(), false, None);
            gap = gap.max(distance.sqrt().max().double_value(&[]));
        }
    }
    let (least, most) = (counts.iter().min()?, counts.iter().max()?);
    (gap > 1e-4 || least != most).then(|| {
        format!(
            "the model seems randomised: five passes over one batch had between {least} and {most} \
             right and differ by up to {gap:.1e} (limit 1e-4); use --suite rand, or put the model \
             into evaluation mode if it is still in training mode"
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

/// A model that does better on 255 times the input was made for bytes.
fn input_range(
    model: &dyn Classifier,
    images: &Tensor,
    labels: &Tensor,
    logits: &Tensor,
) -> Option<String> {
    let right = |logits: &Tensor| {
        let right = logits.argmax(1, false).eq_tensor(labels);
        right.to_kind(Kind::Double).mean(None::<Kind>).double_value(&[])
    };
    let (here, chance) = (right(logits), 1.0 / logits.size()[1] as f64);
    let candidates = [("[0, 255]", images * 255.0), ("[-1, 1]", images * 2.0 - 1.0)];
    candidates.into_iter().find_map(|(range, moved)| {
        let there = right(&model.logits(&moved));
        let better = labels.size()[0] >= 16 && there > here + 0.2 && here < 2.0 * chance.max(0.15);
        better.then(|| {
            format!(
                "clean accuracy is {:.1}% on images in [0, 1] but {:.1}% on the same images in \
                 {range}: the model expects that range; wrap it so that it takes [0, 1]",
                100.0 * here,
                100.0 * there
            )
        })
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

/// L1 outside the standard suite has no published settings.
pub(crate) fn unusual(spec: &EvaluateSpec) -> Option<String> {
    (spec.threat.norm == Norm::L1 && spec.suite == "plus").then(|| {
        "the plus suite has no published settings for l1 (attacks run unstaged); prefer standard"
            .to_owned()
    })
}
