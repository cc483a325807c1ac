//! Every attack, in both modes and all norms, where data are unlike CIFAR: few classes, oblong and
//! tiny images, one example, none, another box, a model that goes wrong on its way.

use std::sync::atomic::{AtomicU64, Ordering};

use tch::{Kind as Element, Tensor};

use super::{
    Batch, Bounds, Kind, Mode, Outcome, Spec,
    geometry::{norm as length, row_sum},
    run,
    testing::Linear,
    trial::wrong,
};
use crate::{error::Error, net::Classifier, progress::Silent, rng::Stream, threat::Norm};

const KINDS: [Kind; 9] = [
    Kind::ApgdCe,
    Kind::ApgdDlr,
    Kind::ApgdTargeted,
    Kind::Fab,
    Kind::FabTargeted,
    Kind::Square,
    Kind::Pgd,
    Kind::Malt,
    Kind::Pma,
];

fn spec(kind: Kind, mode: Mode, norm: Norm, bounds: Bounds) -> Spec {
    let width = bounds.high - bounds.low;
    let epsilon = width
        * match norm {
            Norm::Linf => 0.1,
            Norm::L2 => 0.3,
            Norm::L1 => 1.0,
        };
    Spec {
        kind,
        steps: 12,
        restarts: 2,
        targets: 9,
        eot: 1,
        staged: norm == Norm::L1 && kind == Kind::ApgdCe,
        norm,
        epsilon,
        bounds,
        mode,
        seed: 7,
    }
}

fn images(shape: [i64; 4], bounds: Bounds) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let mut stream = Stream::new(3, "edge images", 0);
    let values: Vec<f32> =
        (0..count).map(|_| stream.between(bounds.low, bounds.high) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Every kind, mode and norm on a linear model; labels are what it predicts but for one example.
/// Whatever breaks must be a break, in strict mode within norm and box.
fn attacks(classes: i64, shape: [i64; 4], bounds: Bounds, see: impl Fn(&Spec, &Outcome)) {
    let x = images(shape, bounds);
    let inputs = shape[1..].iter().product::<i64>();
    let weight = Stream::new(5, "weight", 0).normals((classes * inputs) as usize);
    // Logits of one size in any box: cross entropy has no gradient where a model is too sure.
    let weight = Tensor::from_slice(&weight).view([classes, inputs]) / (bounds.high - bounds.low);
    let mean = weight.mean_dim([1].as_slice(), true, None);
    let weight = if inputs > 3 { weight - mean } else { weight };
    let model = Linear { weight };
    let labels = model.logits(&x).argmax(1, false);
    let examples: Vec<u64> = (0..shape[0] as u64).collect();
    let batch = Batch { images: &x, labels: &labels, examples: &examples, streams: &examples };
    for kind in KINDS {
        for mode in [Mode::Strict, Mode::Reference] {
            for norm in [Norm::Linf, Norm::L2, Norm::L1] {
                let spec = spec(kind, mode, norm, bounds);
                let what = format!("{kind:?} {mode:?} {norm}, {classes} classes, {shape:?}");
                let outcome = run(&spec, &model, &batch, &Silent).unwrap_or_else(|e| {
                    panic!("{what}: {e}");
                });
                let mistaken = wrong(&model.logits(&outcome.adversarial), &labels);
                for (row, how) in outcome.breaks.iter().enumerate() {
                    assert!(how.is_none() || mistaken[row], "{what}");
                }
                if mode == Mode::Strict {
                    let wide = |t: &Tensor| t.to_kind(Element::Double);
                    let delta = wide(&outcome.adversarial) - wide(&x);
                    let most = length(&delta, norm).max().double_value(&[]);
                    assert!(most <= spec.epsilon, "{what}: {most}");
                    let (low, high) = (outcome.adversarial.min(), outcome.adversarial.max());
                    assert!(low.double_value(&[]) >= bounds.low - 1e-12, "{what}");
                    assert!(high.double_value(&[]) <= bounds.high + 1e-12, "{what}");
                }
                see(&spec, &outcome);
            }
        }
    }
}

#[test]
fn few_classes_are_enough() {
    for classes in [2, 3, 4] {
        attacks(classes, [5, 3, 6, 6], Bounds::UNIT, |spec, outcome| {
            let broken = outcome.breaks.iter().flatten().count();
            let weak = spec.kind == Kind::Square || spec.norm == Norm::L1;
            assert!(weak || broken > 0, "{:?} {}: {classes} classes", spec.kind, spec.norm);
            let aims = outcome.breaks.iter().flatten().filter_map(|how| how.target);
            assert!(aims.into_iter().all(|class| (0..classes).contains(&class)));
        });
    }
}

#[test]
fn oblong_and_tiny_images_fit() {
    for shape in [[3, 3, 9, 4], [3, 1, 2, 7], [2, 3, 1, 1], [2, 3, 3, 3]] {
        attacks(5, shape, Bounds::UNIT, |_, _| ());
    }
}

#[test]
fn one_example_is_a_batch() {
    attacks(10, [1, 3, 8, 8], Bounds::UNIT, |_, outcome| assert_eq!(outcome.breaks.len(), 1));
}

#[test]
fn boxes_other_than_the_unit_are_kept() {
    for bounds in [Bounds { low: -1.0, high: 1.0 }, Bounds { low: 0.0, high: 255.0 }] {
        attacks(4, [4, 3, 6, 5], bounds, |spec, outcome| {
            let broken = outcome.breaks.iter().flatten().count();
            let weak = spec.kind == Kind::Square || spec.norm == Norm::L1;
            assert!(weak || broken > 0, "{:?} {} in {bounds:?}", spec.kind, spec.norm);
        });
    }
}

#[test]
fn nobody_to_attack_costs_a_clean_pass() {
    let model = Linear { weight: Tensor::from_slice(&[1.0f32, -1.0, 0.5]).view([3, 1]) };
    let x = Tensor::from_slice(&[0.9f32, 0.8]).view([2, 1, 1, 1]);
    let mistaken = Tensor::from_slice(&[1i64, 2]);
    let nobody = (x.narrow(0, 0, 0), mistaken.narrow(0, 0, 0));
    for kind in KINDS {
        for mode in [Mode::Strict, Mode::Reference] {
            let spec = spec(kind, mode, Norm::Linf, Bounds::UNIT);
            let batch =
                Batch { images: &x, labels: &mistaken, examples: &[0, 1], streams: &[0, 1] };
            let outcome = run(&spec, &model, &batch, &Silent).unwrap();
            assert!(outcome.forward.iter().all(|&spent| spent <= 2), "{kind:?} {mode:?}");
            assert_eq!(outcome.backward, [0, 0], "{kind:?} {mode:?}");
            let batch = Batch { images: &nobody.0, labels: &nobody.1, examples: &[], streams: &[] };
            assert!(run(&spec, &model, &batch, &Silent).unwrap().breaks.is_empty(), "{kind:?}");
        }
    }
}

/// A linear model that after so many passes gives what is no number, or a gradient that is none.
struct Failing {
    linear: Linear,
    passes: AtomicU64,
    after: u64,
    gradient_only: bool,
}

impl Classifier for Failing {
    fn classes(&self) -> i64 {
        self.linear.classes()
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let logits = self.linear.logits(x);
        if self.passes.fetch_add(1, Ordering::Relaxed) < self.after {
            return logits;
        }
        if self.gradient_only {
            // The root of zero: its value is zero and its slope infinite, times zero.
            return logits + (row_sum(&x.flatten(1, -1)) * 0.0).abs().sqrt() * 0.0;
        }
        logits * f64::NAN
    }
}

#[test]
fn what_is_not_finite_is_named_with_attack_and_step() {
    let x = images([2, 3, 4, 4], Bounds::UNIT);
    let weight = Stream::new(5, "weight", 0).normals(3 * 48);
    for kind in KINDS {
        for mode in [Mode::Strict, Mode::Reference] {
            for gradient_only in [false, true] {
                // AutoAttack itself takes a gradient that is no number for none.
                if gradient_only && (kind == Kind::Square || mode == Mode::Reference) {
                    continue;
                }
                let linear = Linear { weight: Tensor::from_slice(&weight).view([3, 48]) };
                let labels = linear.logits(&x).argmax(1, false);
                let model = Failing { linear, passes: AtomicU64::new(0), after: 5, gradient_only };
                let batch =
                    Batch { images: &x, labels: &labels, examples: &[40, 41], streams: &[40, 41] };
                let spec = Spec { epsilon: 1e-4, ..spec(kind, mode, Norm::Linf, Bounds::UNIT) };
                let what = format!("{kind:?} {mode:?} gradient only: {gradient_only}");
                let Err(Error::Numerics(text)) = run(&spec, &model, &batch, &Silent) else {
                    panic!("{what}: no error");
                };
                let named = format!("under {kind}, iteration ");
                assert!(text.contains("example 40 ") && text.contains(&named), "{what}: {text}");
            }
        }
    }
}
