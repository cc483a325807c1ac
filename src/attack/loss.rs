//! What gradient attacks maximise. Operation order follows AutoAttack to the last bit.

use tch::{Kind, Reduction, Tensor};

/// A loss over logits `[b,k]`, one value for each row; larger is closer to a break.
#[derive(Debug)]
pub enum Loss {
    /// Cross entropy.
    CrossEntropy,
    /// Difference of logits ratio (Croce and Hein 2020, section 4.1).
    Dlr,
    /// Its targeted form, towards the class given for each row, `[b]`.
    DlrTargeted(Tensor),
    /// `other` times the largest probability but the label's plus `own` times the label's: what PMA
    /// climbs (Xie et al. 2024), whose margin is `1, -1`.
    Probability {
        /// Weight of the largest probability but the label's.
        other: f64,
        /// Weight of the label's probability.
        own: f64,
    },
}

impl Loss {
    /// The loss of each row, `[b]`, differentiable.
    pub fn of(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        match self {
            Self::CrossEntropy => {
                logits.cross_entropy_loss::<Tensor>(labels, None, Reduction::None, -100, 0.0)
            }
            Self::Dlr => dlr(logits, labels),
            Self::DlrTargeted(targets) => dlr_targeted(logits, labels, targets),
            Self::Probability { other, own } => probability(logits, labels, *other, *own),
        }
    }

    /// The loss for a part of the rows, given by their positions `[m]`.
    pub(crate) fn rows(&self, positions: &Tensor) -> Self {
        match self {
            Self::CrossEntropy => Self::CrossEntropy,
            Self::Dlr => Self::Dlr,
            Self::DlrTargeted(targets) => Self::DlrTargeted(targets.index_select(0, positions)),
            Self::Probability { other, own } => Self::Probability { other: *other, own: *own },
        }
    }
}

/// The logit of class `classes[i]` in row i.
pub(crate) fn pick(logits: &Tensor, classes: &Tensor) -> Tensor {
    logits.gather(1, &classes.unsqueeze(1), false).squeeze_dim(1)
}

fn dlr(logits: &Tensor, labels: &Tensor) -> Tensor {
    let classes = logits.size()[1];
    let (sorted, order) = logits.sort(1, false);
    let top = |k: i64| sorted.select(1, classes - k);
    let right = order.select(1, classes - 1).eq_tensor(labels).to_kind(Kind::Float);
    let margin = pick(logits, labels) - top(2) * &right - top(1) * (-right + 1.0);
    if classes < 3 {
        return -margin; // no third logit to scale by
    }
    -margin / (top(1) - top(3) + 1e-12)
}

fn dlr_targeted(logits: &Tensor, labels: &Tensor, targets: &Tensor) -> Tensor {
    let classes = logits.size()[1];
    let (sorted, _) = logits.sort(1, false);
    let top = |k: i64| sorted.select(1, classes - k);
    let margin = pick(logits, labels) - pick(logits, targets);
    match classes {
        ..3 => -margin,
        3 => -margin / (top(1) - top(3) + 1e-12),
        _ => -margin / (top(1) - (top(3) + top(4)) * 0.5 + 1e-12),
    }
}

fn probability(logits: &Tensor, labels: &Tensor, other: f64, own: f64) -> Tensor {
    let probabilities = logits.softmax(1, Kind::Float);
    let rivals = probabilities.scatter_value(1, &labels.unsqueeze(1), -1.0).amax([1], false);
    rivals * other + pick(&probabilities, labels) * own
}

/// The margin of each row: logit of the label less the largest other one, `[b]`.
pub fn margin(logits: &Tensor, labels: &Tensor) -> Tensor {
    let others = logits.scatter_value(1, &labels.unsqueeze(1), f64::NEG_INFINITY);
    pick(logits, labels) - others.amax([-1], false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_match_their_definitions() {
        let logits = Tensor::from_slice(&[3.0f32, 1.0, 0.5, -2.0, 0.0, 4.0, 1.0, 2.0]).view([2, 4]);
        let labels = Tensor::from_slice(&[0i64, 2]);
        let values = |t: Tensor| Vec::<f32>::try_from(t).unwrap();
        let near = |got: Vec<f32>, want: [f64; 2]| {
            assert!(got.iter().zip(want).all(|(g, w)| (f64::from(*g) - w).abs() < 1e-5), "{got:?}");
        };
        // Right row: -(3-1)/(3-0.5); wrong row: -(1-4)/(4-1).
        near(values(Loss::Dlr.of(&logits, &labels)), [-0.8, 1.0]);
        let targeted = Loss::DlrTargeted(Tensor::from_slice(&[1i64, 3]));
        near(values(targeted.of(&logits, &labels)), [-2.0 / (3.0 + 0.75), 1.0 / (4.0 - 0.5)]);
        near(values(margin(&logits, &labels)), [2.0, -3.0]);
        let parts = |row: [f64; 4]| row.map(|z| z.exp() / row.map(f64::exp).iter().sum::<f64>());
        let (a, b) = (parts([3.0, 1.0, 0.5, -2.0]), parts([0.0, 4.0, 1.0, 2.0]));
        let margin = Loss::Probability { other: 1.0, own: -1.0 };
        near(values(margin.of(&logits, &labels)), [a[1] - a[0], b[1] - b[2]]);
        near(
            values(Loss::CrossEntropy.of(&logits, &labels)),
            [
                ((0.0f64).exp() + (-2.0f64).exp() + (-2.5f64).exp() + (-5.0f64).exp()).ln(),
                3.0 + ((-4.0f64).exp() + 1.0 + (-3.0f64).exp() + (-2.0f64).exp()).ln(),
            ],
        );
    }

    #[test]
    fn two_and_three_classes_have_losses_too() {
        for classes in [2i64, 3] {
            let logits = Tensor::arange(2 * classes, (Kind::Float, tch::Device::Cpu));
            let logits = logits.view([2, classes]);
            let labels = Tensor::from_slice(&[0i64, 1]);
            let targets = Tensor::from_slice(&[1i64, 0]);
            for loss in [Loss::Dlr, Loss::DlrTargeted(targets)] {
                let value = loss.of(&logits, &labels);
                assert_eq!(value.isfinite().all().int64_value(&[]), 1, "{classes} {loss:?}");
            }
        }
    }
}
