//! MALT (Melamed, Yehudai and Shamir 2024, arXiv 2407.02240): networks are almost linear over
//! distances larger than those of a gradient and smaller than those between images, so the class to
//! aim at is the one that a linear model of the network says is nearest, not the most confident.

use tch::{Kind as Element, Tensor};

use super::{
    apgd,
    geometry::norm,
    loss::pick,
    trial::{Trial, positions},
};
use crate::{error::Result, threat::Norm};

/// How many of the most confident classes are measured.
const CANDIDATES: i64 = 100;

/// Ranks the targets of each row, then runs targeted APGD in that order.
pub(crate) fn attack(trial: &mut Trial) -> Result<()> {
    let rows = trial.standing.clone();
    if rows.is_empty() {
        return Ok(());
    }
    let nearest = rank(trial, &rows)?; // [n,k]
    let count = trial.targets() as i64;
    let all = trial.batch_size() as i64;
    let order = Tensor::zeros([all, count], (Element::Int64, nearest.device()));
    let nearest = nearest.narrow(1, 0, count.min(nearest.size()[1]));
    let order = order.index_copy(0, &positions(&rows, nearest.device()), &nearest);
    trial.order = Some(order);
    apgd::attack(trial)
}

/// The candidate classes of each row `[n,k]`, by distance of the linearised boundary, least first.
fn rank(trial: &mut Trial, rows: &[usize]) -> Result<Tensor> {
    let (x, labels) = (trial.images(rows), trial.labels(rows));
    let (leaf, logits) = trial.traced(rows, &x)?;
    let others = logits.detach().scatter_value(1, &labels.unsqueeze(1), f64::NEG_INFINITY);
    let count = (others.size()[1] - 1).clamp(1, CANDIDATES);
    let (_, candidates) = others.topk(count, 1, true, true); // [n,k], most confident first
    let dual = match trial.spec.norm {
        Norm::Linf => Norm::L1,
        Norm::L2 => Norm::L2,
        Norm::L1 => Norm::Linf,
    };
    let mut distances = Vec::with_capacity(count as usize);
    for at in 0..count {
        let class = candidates.select(1, at);
        let (gap, sum) = tch::with_grad(|| {
            let gap = pick(&logits, &labels) - pick(&logits, &class);
            let sum = gap.sum(Element::Float);
            (gap.detach(), sum)
        });
        let slope = norm(&trial.pull(rows, &sum, &leaf, at + 1 < count), dual);
        distances.push(gap / (slope + 1e-12));
    }
    // A stable sort: where distances are equal the more confident class comes first.
    let order = Tensor::stack(&distances, 1).sort_stable(true, 1, false).1;
    Ok(candidates.gather(1, &order, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attack::{self, Batch, Bounds, Kind, Mode, Spec, testing::Linear},
        net::Classifier,
        progress::Silent,
    };

    #[test]
    fn the_nearest_class_of_a_linear_model_comes_first_though_it_is_less_confident() {
        // Gaps over slopes: class 1 0.3 / 1, class 2 0.5 / 5, class 3 1 / 2.5.
        let rows = [[0.0f32, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 2.5]];
        let weight = Tensor::from_slice(&rows.concat());
        let model = Linear { weight: weight.view([4, 3]) };
        let x = Tensor::from_slice(&[0.2f32, 0.4, 0.1]).view([1, 3, 1, 1]);
        let labels = Tensor::from_slice(&[0i64]);
        let confident = model.logits(&x).sort(1, true).1;
        assert_eq!(Vec::<i64>::try_from(confident.get(0)).unwrap(), [0, 1, 2, 3]);
        let spec = Spec {
            kind: Kind::Malt,
            steps: 5,
            restarts: 1,
            targets: 1,
            eot: 1,
            staged: false,
            norm: Norm::Linf,
            epsilon: 0.15,
            bounds: Bounds::UNIT,
            mode: Mode::Strict,
            seed: 0,
        };
        let batch = Batch { images: &x, labels: &labels, examples: &[0], streams: &[0] };
        let mut trial = Trial::begin(&spec, &model, &batch, &Silent).unwrap();
        let order = rank(&mut trial, &[0]).unwrap();
        assert_eq!(Vec::<i64>::try_from(order.get(0)).unwrap(), [2, 1, 3]);
        // One target is enough when it is the right one; AutoAttack's first is the wrong one.
        let found = |kind| {
            let outcome = attack::run(&Spec { kind, ..spec.clone() }, &model, &batch, &Silent);
            outcome.unwrap().breaks[0].map(|how| how.target)
        };
        assert_eq!(found(Kind::Malt), Some(Some(2)));
    }
}
