//! Beyond one bound on one thread: curves, targets, workers; defences that must be found; records.

use tch::{Device, Kind, Tensor};

use super::{
    Aim, Evaluation, Place, Protocol, Record, run, run_in,
    spec::{AttackName, EvaluateSpec},
    tests::{PLAIN, evaluate, labelled, linear, place, short, spec},
    verify,
};
use crate::{
    attack::testing::Linear,
    data::{Dataset, Pixels, spec::Source},
    error::Error,
    net::Classifier,
    progress::Silent,
    threat::Norm,
    units::Epsilon,
};

fn under(protocol: &Protocol, spec: &EvaluateSpec, place: &Place) -> Evaluation {
    let model = linear(4);
    run_in(spec, protocol, &model, &labelled(&model), place).unwrap()
}

#[test]
fn a_curve_agrees_with_its_bounds_alone_and_costs_no_more() {
    let model = linear(4);
    let data = labelled(&model);
    let attacks = vec![short(AttackName::ApgdCe, 20), short(AttackName::FabT, 20)];
    for (norm, bounds) in
        [(Norm::Linf, ["1/255", "2/255", "4/255"]), (Norm::L2, ["0.05", "0.1", "0.2"])]
    {
        let bounds: Vec<Epsilon> = bounds.iter().map(|text| text.parse().unwrap()).collect();
        let spec = spec(norm, bounds[2], attacks.clone());
        let folder = tempfile::tempdir().unwrap();
        let protocol = Protocol { curve: bounds[..2].to_vec(), ..PLAIN };
        let found = under(&protocol, &spec, &place(folder.path(), &Silent));
        let robust: Vec<u64> = found.curve.iter().map(|level| level.robust.correct).collect();
        let mut passes = 0;
        for (level, epsilon) in found.curve.iter().zip(&bounds) {
            assert_eq!(level.epsilon, *epsilon);
            let alone = super::tests::spec(norm, *epsilon, attacks.clone());
            let alone = evaluate(&alone, &model, &data);
            assert_eq!(level.robust, alone.robust, "{norm} {epsilon}");
            passes += alone.records.iter().map(|r| r.forwards + r.backwards).sum::<u64>();
        }
        assert!(robust[0] > robust[2] && robust.is_sorted_by(|a, b| a >= b), "{robust:?}");
        assert_eq!(found.robust.correct, robust[2], "the largest bound's is the whole's");
        let spent: u64 = found.records.iter().map(|r| r.forwards + r.backwards).sum();
        // Bisection and the margin of what it found are all that comes on top, and who withstands the
        // largest bound is attacked once.
        let broken = found.curve.iter().map(|level| {
            let counts = level.attacks.iter().map(|cost| cost.forwards);
            u64::from(counts.sum::<u64>() > 0) * found.total
        });
        let extra = 11 * broken.sum::<u64>();
        assert!(spent < passes + extra, "{norm}: {spent} of {passes} passes");
        let work = (folder.path(), Device::Cpu);
        let checked = verify((&spec, None), &found, &model, &data, work).unwrap();
        assert_eq!((checked.held, checked.problems), (checked.claimed, vec![]));
    }
}

#[test]
fn targeted_attacks_reach_the_target_and_nothing_less() {
    let model = linear(4);
    let data = labelled(&model);
    for aim in [Aim::Class(2), Aim::Next, Aim::LeastLikely] {
        for name in ["apgd-ce", "apgd-t", "fab", "fab-t", "square", "pgd", "malt", "pma"] {
            let attack = short(name.parse().unwrap(), 30);
            let spec = spec(Norm::Linf, "6/255".parse().unwrap(), vec![attack]);
            let folder = tempfile::tempdir().unwrap();
            let protocol = Protocol { aim: Some(aim), ..PLAIN };
            let found = under(&protocol, &spec, &place(folder.path(), &Silent));
            let work = (folder.path(), Device::Cpu);
            let checked = verify((&spec, Some(aim)), &found, &model, &data, work).unwrap();
            assert_eq!((checked.held, checked.problems), (checked.claimed, vec![]), "{aim} {name}");
            assert!(checked.claimed > 0, "{aim} {name} broke nothing");
            for record in found.records.iter().filter(|record| record.broken_by.is_some()) {
                let target = record.target.unwrap();
                assert!(target != record.label && record.adversarial_margin.unwrap() < 0.0);
                match aim {
                    Aim::Class(class) => assert_eq!(target, class),
                    Aim::Next => assert_eq!(target, (record.label + 1) % 4),
                    Aim::LeastLikely => {}
                }
            }
        }
    }
}

#[test]
fn targets_are_harder_to_reach_than_errors() {
    let attacks = vec![short(AttackName::ApgdT, 30)];
    let spec = spec(Norm::Linf, "3/255".parse().unwrap(), attacks);
    let robust = |aim| {
        let folder = tempfile::tempdir().unwrap();
        under(&Protocol { aim, ..PLAIN }, &spec, &place(folder.path(), &Silent)).robust.correct
    };
    assert!(robust(Some(Aim::LeastLikely)) > robust(None));
}

#[test]
fn results_do_not_depend_on_how_many_workers_share_the_batches() {
    let attacks = vec![
        short(AttackName::ApgdCe, 10),
        short(AttackName::Malt, 10),
        short(AttackName::Square, 30),
    ];
    let spec = spec(Norm::Linf, "3/255".parse().unwrap(), attacks);
    let spec = EvaluateSpec { batch: 3, ..spec };
    let with = |helpers: usize| {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path(), &Silent);
        let another = || Box::new(linear(4)) as Box<dyn Classifier + Send>;
        *place.helpers.lock().unwrap() = (0..helpers).map(|_| another()).collect();
        under(&PLAIN, &spec, &place)
    };
    let one = with(0);
    for helpers in [1, 3] {
        let several = with(helpers);
        assert_eq!(several.records, one.records);
        let robust = |of: &Evaluation| of.robust_after();
        assert_eq!(robust(&several), robust(&one));
    }
}

/// Does to the logits of a linear model what defences do.
struct Altered(Linear, fn(&Tensor) -> Tensor);

impl Classifier for Altered {
    fn classes(&self) -> i64 {
        self.0.classes()
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        (self.1)(&self.0.logits(x))
    }
}

#[test]
fn defences_are_found_and_named() {
    let data = labelled(&linear(4));
    let spec = spec(Norm::Linf, "1/255".parse().unwrap(), vec![short(AttackName::ApgdDlr, 2)]);
    let warned = |alter: fn(&Tensor) -> Tensor, word: &str| {
        let found = evaluate(&spec, &Altered(linear(4), alter), &data);
        assert!(found.warnings.iter().any(|w| w.contains(word)), "{word}: {:?}", found.warnings);
    };
    warned(|z| z.softmax(1, Kind::Float), "probabilities");
    warned(|z| z + z.rand_like() * 0.1, "randomised");
    warned(tch::Tensor::round, "gradient of zero");
    warned(|z| z - z.mean_dim([0i64].as_slice(), true, Kind::Float), "normalises by the batch");
    warned(|z| z.roll([1i64].as_slice(), [1i64].as_slice()), "another order");
    warned(|z| z * 1e6, "cross entropy is saturated");
    // As in a program that fails in the middle of an attack.
    let thrown = Altered(linear(4), |z| match z.size()[0] {
        ..8 => z.copy(),
        _ => std::panic::resume_unwind(Box::new(Error::input("the program says: eight"))),
    });
    let folder = tempfile::tempdir().unwrap();
    let eight = EvaluateSpec { batch: 8, ..spec.clone() };
    let error =
        crate::error::caught(|| run(&eight, &thrown, &data, Device::Cpu, folder.path(), &Silent));
    assert!(error.unwrap_err().to_string().contains("eight"));
    let detached = Altered(linear(4), tch::Tensor::detach);
    let error = run(&spec, &detached, &data, Device::Cpu, folder.path(), &Silent).unwrap_err();
    assert!(error.to_string().contains("no gradient"), "{error}");
    let broken = Altered(linear(4), |z| z / 0.0);
    let folder = tempfile::tempdir().unwrap();
    let error = run(&spec, &broken, &data, Device::Cpu, folder.path(), &Silent).unwrap_err();
    assert!(matches!(&error, Error::Numerics(text) if text.contains("example 0")), "{error}");
    let few = run(&spec, &linear(2), &data, Device::Cpu, folder.path(), &Silent).unwrap_err();
    assert!(few.to_string().contains("labels up to"), "{few}");
}

/// Answers otherwise from pass to pass, without any random number.
struct Adapting(Linear, std::cell::Cell<f64>, Vec<String>);

impl Classifier for Adapting {
    fn classes(&self) -> i64 {
        self.0.classes()
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        self.1.set(self.1.get() + 0.1);
        self.0.logits(x) + Tensor::arange(4, (Kind::Float, Device::Cpu)) * self.1.get()
    }

    fn remarks(&self) -> &[String] {
        &self.2
    }
}

#[test]
fn models_that_change_between_passes_are_told_from_random_ones() {
    let spec = spec(Norm::Linf, "1/255".parse().unwrap(), vec![short(AttackName::ApgdCe, 2)]);
    let remark = "it optimises at test time".to_owned();
    let model = Adapting(linear(4), 0.0.into(), vec![remark.clone()]);
    let warnings = evaluate(&spec, &model, &labelled(&linear(4))).warnings;
    assert!(warnings.iter().any(|w| w.contains("changes from pass to pass")), "{warnings:?}");
    assert!(warnings.iter().all(|w| !w.contains("randomised")), "{warnings:?}");
    assert!(warnings.contains(&remark), "{warnings:?}");
}

#[test]
fn results_do_not_depend_on_the_order_of_the_examples() {
    let model = linear(4);
    let data = labelled(&model);
    let order: Vec<usize> = (0..data.len()).map(|at| (7 * at + 3) % data.len()).collect();
    let bytes = 3 * data.size.0 * data.size.1;
    let Pixels::Owned(pixels) = &data.pixels else { unreachable!("made so") };
    let image = |row: &usize| pixels[row * bytes..][..bytes].to_vec();
    let shuffled = Dataset {
        pixels: Pixels::Owned(order.iter().flat_map(image).collect()),
        labels: order.iter().map(|&row| data.labels[row]).collect(),
        ..labelled(&model)
    };
    let attacks =
        ["apgd-ce", "square", "pgd", "pma"].map(|name| short(name.parse().unwrap(), 15)).to_vec();
    let spec = EvaluateSpec {
        batch: 1, // with more, neighbours change who shares a batch, and so its rounding
        ..spec(Norm::Linf, "3/255".parse().unwrap(), attacks)
    };
    let (plain, moved) = (evaluate(&spec, &model, &data), evaluate(&spec, &model, &shuffled));
    assert!(plain.robust.correct > 0 && plain.robust.correct < plain.clean.correct);
    for (record, &row) in moved.records.iter().zip(&order) {
        let index = record.index;
        assert_eq!(*record, Record { index, ..plain.records[row].clone() });
    }
}

#[test]
fn records_name_what_broke_them() {
    let model = linear(4);
    let data = labelled(&model);
    let spec = spec(Norm::Linf, "4/255".parse().unwrap(), vec![short(AttackName::ApgdT, 20)]);
    let found = evaluate(
        &EvaluateSpec { data: Source { skip: 100, ..spec.data.clone() }, ..spec },
        &model,
        &data,
    );
    let broken: Vec<&Record> = found.records.iter().filter(|r| r.broken_by.is_some()).collect();
    assert!(!broken.is_empty());
    for record in broken {
        assert_eq!(record.broken_by.as_deref(), Some("apgd-t"));
        assert!(record.index >= 100 && record.target.unwrap() != record.label);
        assert!(record.forwards > 1 && record.backwards > 0 && record.image_hash.len() == 16);
    }
}
