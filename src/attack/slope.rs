//! Losses and their gradients with respect to the logits in closed form, so that a backward pass
//! begins at the logits and a loss costs no tensor operations.

use super::loss::Loss;

/// The loss of each row and its gradient with respect to that row's logits, `[n,k]`.
pub(crate) struct Differential {
    pub(crate) value: Vec<f32>,
    pub(crate) by_logit: Vec<f32>,
}

impl Loss {
    /// As [`Loss::of`] with its gradient, for `logits` `[n,k]` of `classes` and one label each.
    pub(crate) fn differential(
        &self,
        logits: &[f32],
        classes: usize,
        labels: &[i64],
    ) -> Differential {
        let targets: Vec<i64> = match self {
            Self::DlrTargeted(targets) => Vec::try_from(targets).expect("a class for each row"),
            _ => Vec::new(),
        };
        let mut value = Vec::with_capacity(labels.len());
        let mut by_logit = vec![0.0; logits.len()];
        let rows = logits.chunks_exact(classes).zip(by_logit.chunks_exact_mut(classes));
        for (row, (z, slope)) in rows.enumerate() {
            let z: Vec<f64> = z.iter().map(|&z| f64::from(z)).collect();
            let label = labels[row] as usize;
            let mut rise = vec![0.0; classes];
            let loss = match self {
                Self::CrossEntropy => cross_entropy(&z, label, &mut rise),
                Self::Dlr => dlr(&z, label, &mut rise),
                Self::DlrTargeted(_) => dlr_targeted(&z, (label, targets[row] as usize), &mut rise),
                Self::Probability { other, own } => {
                    probability(&z, label, (*other, *own), &mut rise)
                }
            };
            value.push(loss as f32);
            slope.iter_mut().zip(rise).for_each(|(slope, rise)| *slope = rise as f32);
        }
        Differential { value, by_logit }
    }
}

fn softmax(z: &[f64]) -> (Vec<f64>, f64) {
    let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut parts: Vec<f64> = z.iter().map(|z| (z - top).exp()).collect();
    let sum: f64 = parts.iter().sum();
    parts.iter_mut().for_each(|part| *part /= sum);
    (parts, top + sum.ln())
}

fn cross_entropy(z: &[f64], label: usize, rise: &mut [f64]) -> f64 {
    let (parts, whole) = softmax(z);
    rise.copy_from_slice(&parts);
    // Not p - 1, which is rounded to nothing where the model is sure.
    rise[label] =
        -parts.iter().enumerate().filter(|(i, _)| *i != label).map(|(_, p)| p).sum::<f64>();
    whole - z[label]
}

/// Classes by falling logit.
fn order(z: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..z.len()).collect();
    order.sort_by(|a, b| z[*b].total_cmp(&z[*a]));
    order
}

fn dlr(z: &[f64], label: usize, rise: &mut [f64]) -> f64 {
    let order = order(z);
    let rival = if order[0] == label { order[1] } else { order[0] };
    let gap = z[rival] - z[label];
    if z.len() < 3 {
        rise[rival] += 1.0;
        rise[label] -= 1.0;
        return gap;
    }
    let scale = z[order[0]] - z[order[2]] + 1e-12;
    let value = gap / scale;
    rise[rival] += 1.0 / scale;
    rise[label] -= 1.0 / scale;
    rise[order[0]] -= value / scale;
    rise[order[2]] += value / scale;
    value
}

fn dlr_targeted(z: &[f64], (label, target): (usize, usize), rise: &mut [f64]) -> f64 {
    let order = order(z);
    let gap = z[target] - z[label];
    let lower: &[usize] = match z.len() {
        ..3 => &[],
        3 => &order[2..3],
        _ => &order[2..4],
    };
    let share = 1.0 / lower.len().max(1) as f64;
    let scale = match lower {
        [] => 1.0,
        _ => z[order[0]] - lower.iter().map(|&i| z[i]).sum::<f64>() * share + 1e-12,
    };
    let value = gap / scale;
    rise[target] += 1.0 / scale;
    rise[label] -= 1.0 / scale;
    if !lower.is_empty() {
        rise[order[0]] -= value / scale;
        lower.iter().for_each(|&i| rise[i] += value / scale * share);
    }
    value
}

fn probability(z: &[f64], label: usize, (other, own): (f64, f64), rise: &mut [f64]) -> f64 {
    let (parts, _) = softmax(z);
    let rival = order(z).into_iter().find(|i| *i != label).expect("two classes or more");
    let value = other * parts[rival] + own * parts[label];
    for (i, rise) in rise.iter_mut().enumerate() {
        *rise = -value * parts[i];
    }
    rise[rival] += other * parts[rival];
    rise[label] += own * parts[label];
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;
    use tch::{Kind, Tensor};

    #[test]
    fn closed_forms_are_what_autograd_finds() {
        for classes in [2usize, 3, 4, 10] {
            let values = Stream::new(0, "logits", classes as u64).normals(12 * classes);
            let logits = Tensor::from_slice(&values).view([12, classes as i64]) * 3.0;
            let labels: Vec<i64> = (0..12).map(|i| i % classes as i64).collect();
            let targets: Vec<i64> = labels.iter().map(|y| (y + 1) % classes as i64).collect();
            let losses = [
                Loss::CrossEntropy,
                Loss::Dlr,
                Loss::DlrTargeted(Tensor::from_slice(&targets)),
                Loss::Probability { other: 1.0, own: -1.0 },
                Loss::Probability { other: 0.0, own: -1.0 },
            ];
            for loss in losses {
                let leaf = logits.detach().copy().set_requires_grad(true);
                let value = loss.of(&leaf, &Tensor::from_slice(&labels));
                let slope = Tensor::run_backward(&[value.sum(Kind::Float)], &[&leaf], false, false)
                    .remove(0);
                let flat: Vec<f32> = Vec::try_from(logits.flatten(0, -1)).unwrap();
                let found = loss.differential(&flat, classes, &labels);
                let near = |found: &[f32], wanted: &Tensor| {
                    let gap = (Tensor::from_slice(found) - wanted.detach().flatten(0, -1)).abs();
                    let gap = (gap / (wanted.detach().abs().max() + 1.0)).max().double_value(&[]);
                    assert!(gap < 1e-5, "{loss:?}, {classes} classes: {gap}");
                };
                near(&found.value, &value);
                near(&found.by_logit, &slope);
            }
        }
    }
}
