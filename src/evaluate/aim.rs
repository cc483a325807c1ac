//! Targeted evaluation: can an attack make the model say *this* class?
//!
//! The question is one of two classes, so it is put to the attacks as one: the target against the
//! best of all others. Every attack then aims at the target, untargeted ones included, and breaks
//! exactly the examples that end up there.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{error::Error, net::Classifier};

/// Which class attacks aim at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// The same for all.
    Class(i64),
    /// The label plus one, the first class after the last.
    Next,
    /// The class with the smallest logit on the clean image.
    LeastLikely,
}

impl FromStr for Aim {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "next" => Ok(Self::Next),
            "least-likely" => Ok(Self::LeastLikely),
            number => {
                number.parse().ok().filter(|class| *class >= 0).map(Self::Class).ok_or_else(|| {
                    Error::input(format!(
                        "target `{text}` is unknown: expected a class number, next or least-likely"
                    ))
                })
            }
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "class {class}"),
            Self::Next => f.write_str("the next class"),
            Self::LeastLikely => f.write_str("the least likely class"),
        }
    }
}

impl Aim {
    /// The target of each row, given its label and clean logits `[b,k]`.
    pub(crate) fn of(self, labels: &Tensor, logits: &Tensor) -> Vec<i64> {
        let targets = match self {
            Self::Class(class) => labels.full_like(class),
            Self::Next => (labels + 1).remainder(logits.size()[1]),
            Self::LeastLikely => {
                logits.scatter_value(1, &labels.unsqueeze(1), f64::INFINITY).argmin(1, false)
            }
        };
        Vec::try_from(targets.to_kind(Kind::Int64)).expect("a class for each row")
    }
}

/// `model` as a classifier of two classes: 0, the best of all others; 1, the target.
pub(crate) struct Toward<'a> {
    pub(crate) model: &'a dyn Classifier,
    pub(crate) class: i64,
}

impl Classifier for Toward<'_> {
    fn classes(&self) -> i64 {
        2
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let logits = self.model.logits(x);
        let target = logits.select(1, self.class);
        let column = Tensor::full([logits.size()[0], 1], self.class, (Kind::Int64, x.device()));
        let others = logits.scatter_value(1, &column, f64::NEG_INFINITY).amax([1], false);
        Tensor::stack(&[others, target], 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::testing::Linear;

    #[test]
    fn targets_are_found_for_each_row() {
        let logits = Tensor::from_slice(&[3.0f32, -1.0, 2.0, 0.5, 0.1, -4.0]).view([2, 3]);
        let labels = Tensor::from_slice(&[0i64, 2]);
        assert_eq!(Aim::Class(1).of(&labels, &logits), [1, 1]);
        assert_eq!(Aim::Next.of(&labels, &logits), [1, 0]);
        assert_eq!(Aim::LeastLikely.of(&labels, &logits), [1, 1], "never the label itself");
        for text in ["next", "least-likely", "7"] {
            assert!(text.parse::<Aim>().is_ok());
        }
        assert!("-1".parse::<Aim>().is_err() && "cat".parse::<Aim>().is_err());
    }

    #[test]
    fn two_classes_decide_as_the_model_does() {
        let weight = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0, -1.0, -1.0]).view([3, 2]);
        let model = Linear { weight };
        let x = Tensor::from_slice(&[0.9f32, 0.4, 0.2, 0.1, 0.3, 0.8]).view([3, 2, 1, 1]);
        let said = model.logits(&x).argmax(1, false);
        for class in 0..3 {
            let toward = Toward { model: &model, class };
            let reached = toward.logits(&x).argmax(1, false).eq(1);
            assert!(reached.equal(&said.eq(class)), "{class}");
        }
    }
}
