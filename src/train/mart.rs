//! MART (Wang et al. 2020): TRADES' divergence weighted by how badly the clean image is predicted.

use tch::{Reduction, Tensor};

use crate::{
    net::Mode,
    train::{
        craft::Attack,
        loss::{Examples, Outcome},
        passes::Passes,
    },
};

/// Boosted cross entropy on adversarial images + β·mean of KL(clean ‖ adversarial)·(1 − p(label)).
/// Crafting raises the cross entropy in evaluation mode.
pub fn outcome(
    beta: f64,
    attack: &Attack,
    passes: &Passes,
    batch: &Examples,
    mode: Mode,
) -> Outcome {
    let cost = |logits: &Tensor| {
        logits.cross_entropy_loss::<Tensor>(&batch.y, None, Reduction::Mean, -100, 0.0)
    };
    // The official code leaves the start where it is, in the box or not.
    let adversarial =
        attack.by_sign(&batch.x, &batch.x + &batch.start, &|x| passes.slope(x, Mode::Eval, &cost));
    let clean_logits = passes.logits(&batch.x, mode);
    let robust_logits = passes.logits(&adversarial, mode);
    let (clean, robust) = (clean_logits.softmax(1, None), robust_logits.softmax(1, None));
    let boosted = cost(&robust_logits) + boost(&robust, &batch.y);
    // [b,k]: kl_div takes the logarithm of the second distribution.
    let divergences = (robust + 1e-12).log().kl_div(&clean, Reduction::None, false);
    let unsure = -clean.gather(1, &batch.y.unsqueeze(1), false).squeeze_dim(1) + 1.000_000_1;
    let weighted = divergences.sum_dim_intlist([1].as_slice(), false, None) * unsure; // [b]
    let loss = boosted + weighted.mean(None) * beta;
    Outcome { loss, clean: Some(clean_logits.detach()), robust: Some(robust_logits.detach()) }
}

/// −log(1.0001 − p) at the strongest wrong class, averaged: `[]`.
fn boost(robust: &Tensor, y: &Tensor) -> Tensor {
    let strongest = robust.detach().topk(2, 1, true, true).1; // [b,2]
    let (first, second) = (strongest.select(1, 0), strongest.select(1, 1));
    let wrong = second.where_self(&first.eq_tensor(y), &first); // [b]
    let remaining = (-robust + 1.0001 + 1e-12).log();
    -remaining.gather(1, &wrong.unsqueeze(1), false).mean(None)
}
