//! Tests of labels and selection.

use super::*;
use crate::{
    data::{Layout, Pixels},
    progress::Silent,
};

/// Class and confidence by the first pixel's red and green.
struct Seeing;

impl Classifier for Seeing {
    fn classes(&self) -> i64 {
        3
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let corner = x.select(3, 0).select(2, 0) * 255.0;
        let class = corner.select(1, 0).round().to_kind(Kind::Int64);
        class.one_hot(3).to_kind(Kind::Float) * corner.select(1, 1).unsqueeze(1)
    }
}

/// Images of one pixel; `(red, green, label)`.
fn set(images: &[(u8, u8, u16)]) -> Dataset {
    Dataset {
        name: "pixels".to_owned(),
        classes: ["a", "b", "c"].map(str::to_owned).into(),
        size: (1, 1),
        layout: Layout::Hwc,
        pixels: Pixels::Owned(images.iter().flat_map(|i| [i.0, i.1, 7]).collect()),
        labels: images.iter().map(|i| i.2).collect(),
        soft: None,
    }
}

fn spec(by: LabelBy) -> LabelSpec {
    LabelSpec {
        by,
        classes: 3,
        confidence: 0.0,
        balance: false,
        count: None,
        arch: None,
        dataset: String::new(),
    }
}

fn kept(spec: &LabelSpec, parts: &[Dataset], seeing: bool) -> Result<(Vec<u8>, Vec<u16>)> {
    let folder = tempfile::tempdir().unwrap();
    let classifier = seeing.then_some((&Seeing as &dyn Classifier, Device::Cpu));
    let out = folder.path().join("out");
    let done = run(spec, parts, classifier, folder.path(), &out, &Silent)?;
    let set = crate::data::generated::read_unnamed(&done.file)?;
    assert_eq!(done.count, set.len() as u64);
    Ok(((0..set.len()).map(|index| set.image(index)[1]).collect(), set.labels))
}

#[test]
fn selection_keeps_the_most_confident_of_each_class() {
    let parts = [
        set(&[(0, 3, 0), (1, 9, 1), (1, 2, 1), (2, 5, 2)]),
        set(&[(0, 8, 0), (1, 4, 1), (2, 6, 2), (1, 1, 2)]),
    ];
    // By condition: the last image is asked to be class 2 and does not look it.
    let spec = LabelSpec { count: Some(4), ..spec(LabelBy::Condition) };
    let (greens, labels) = kept(&spec, &parts, true).unwrap();
    assert_eq!(labels, [0, 1, 1, 2]);
    assert_eq!(greens, [8, 9, 4, 6]);
    // Sorting alone, without a classifier.
    let all = LabelSpec { count: None, ..spec };
    let (greens, labels) = kept(&all, &parts, false).unwrap();
    assert_eq!(labels, [0, 0, 1, 1, 1, 2, 2, 2]);
    assert_eq!(greens, [3, 8, 9, 2, 4, 5, 6, 1]);
}

#[test]
fn a_classifier_can_label_reject_and_balance() {
    let parts = [set(&[(0, 9, 0), (0, 1, 0), (1, 8, 0), (1, 7, 0), (1, 6, 0), (2, 9, 0)])];
    let plain = spec(LabelBy::Classifier);
    assert_eq!(kept(&plain, &parts, true).unwrap().1, [0, 0, 1, 1, 1, 2]);
    let sure = LabelSpec { confidence: 0.9, ..plain.clone() };
    assert_eq!(kept(&sure, &parts, true).unwrap().1, [0, 1, 1, 1, 2]);
    let balanced = LabelSpec { balance: true, ..sure.clone() };
    assert_eq!(kept(&balanced, &parts, true).unwrap(), (vec![9, 8, 9], vec![0, 1, 2]));
    let many = LabelSpec { count: Some(6), ..balanced };
    let message = kept(&many, &parts, true).unwrap_err().to_string();
    assert!(message.contains("2 images of class 0 are wanted, but there are 1"), "{message}");
    for (spec, seeing, part) in [
        (plain, false, "name the classifier"),
        (spec(LabelBy::Soft), false, "by is soft"),
        (LabelSpec { classes: 4, ..sure.clone() }, true, "3 classes"),
        (LabelSpec { by: LabelBy::Condition, ..sure }, false, "how confident"),
    ] {
        let message = kept(&spec, &parts, seeing).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn soft_labels_are_stored_and_survive_joining_and_picking() {
    let parts = [set(&[(0, 1, 2), (1, 2, 2)]), set(&[(2, 3, 2), (1, 4, 2)])];
    let folder = tempfile::tempdir().unwrap();
    let (out, again) = (folder.path().join("out"), folder.path().join("again"));
    let soft = spec(LabelBy::Soft);
    let judge = Some((&Seeing as &dyn Classifier, Device::Cpu));
    let done = run(&soft, &parts, judge, folder.path(), &out, &Silent).unwrap();
    let set = crate::data::generated::read_unnamed(&done.file).unwrap();
    assert_eq!(set.labels, [0, 1, 1, 2]);
    let sure = |green: f32| green.exp() / (green.exp() + 2.0);
    let row = |set: &Dataset, index: usize| -> Vec<f32> {
        set.soft.as_ref().unwrap().row(index).collect()
    };
    // Kept by class, the most confident first: greens are 1, 4, 2, 3.
    for (index, (class, green)) in [(0, 1.0), (1, 4.0), (1, 2.0), (2, 3.0)].iter().enumerate() {
        let row = row(&set, index);
        assert!((row[*class] - sure(*green)).abs() < 1e-6, "{index}: {row:?}");
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
    // Verdicts of a run before are read again: the same bytes.
    let once = fs::read(&done.file).unwrap();
    run(&soft, &parts, judge, folder.path(), &out, &Silent).unwrap();
    assert_eq!(fs::read(&done.file).unwrap(), once);
    // Joined without a classifier, a set keeps what it says; picked from, rows follow images.
    let kept = set.spread(3);
    let (greens, rows): (Vec<u8>, Vec<_>) =
        (0..3).map(|index| (kept.image(index)[1], row(&kept, index))).unzip();
    for (green, row) in greens.iter().zip(&rows) {
        assert!(row.iter().any(|p| (p - sure(f32::from(*green))).abs() < 1e-6), "{green} {row:?}");
    }
    let plain = spec(LabelBy::Condition);
    let set = crate::data::generated::read_unnamed(&done.file).unwrap();
    let both = [set, crate::data::generated::read_unnamed(&done.file).unwrap()];
    let joined = run(&plain, &both, None, folder.path(), &again, &Silent).unwrap();
    let joined = crate::data::generated::read_unnamed(&joined.file).unwrap();
    assert_eq!(joined.labels, [0, 0, 1, 1, 1, 1, 2, 2]);
    assert_eq!(row(&joined, 7), row(&both[0], 3));
    let mixed =
        [crate::data::generated::read_unnamed(&done.file).unwrap(), self::set(&[(0, 0, 0)])];
    let message = run(&plain, &mixed, None, folder.path(), &again, &Silent).unwrap_err();
    assert!(message.to_string().contains("some sets have soft labels"), "{message}");
}

#[test]
fn shares_are_proportional() {
    assert_eq!(proportional(10, &[50, 30, 20]), [5, 3, 2]);
    assert_eq!(proportional(2, &[1, 1, 1]), [1, 1, 0]);
    assert_eq!(proportional(7, &[3, 3, 1]), [3, 3, 1]);
}
