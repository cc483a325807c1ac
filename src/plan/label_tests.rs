//! Who labels generated images, and which are kept.

use super::*;

#[test]
fn a_set_can_be_labelled_and_selected() {
    let sets = ["threat=linf", "generated.count=1M", "generated.drawn=5M", "generated.shard=1M"];
    let chosen = [&sets[..], &["labels.classifier=wrn.pt", "denoiser.file=edm.pkl"]].concat();
    let plan = plan_with(HEAD, &chosen).unwrap();
    assert_eq!(stages(&plan, Stage::Generate).len(), 5);
    let [label] = stages(&plan, Stage::Label)[..] else { panic!("one selection") };
    let roles: Vec<Role> = label.inputs.iter().map(|input| input.role).collect();
    assert_eq!(roles[..5], [Role::Generated; 5]);
    assert_eq!(roles[5..], [Role::Labeller]);
    assert_eq!(plan.cells[0].generated, std::slice::from_ref(&label.id));
    let makers = plan.makers(&plan.cells[0]);
    let stages: Vec<Stage> = makers.iter().map(|job| job.stage).collect();
    assert_eq!(stages[..5], [Stage::Generate; 5]);
    assert_eq!(stages[5..], [Stage::Label]);
    let Work::Label(spec) = &label.work else { panic!() };
    assert_eq!((spec.by, spec.count), (LabelBy::Condition, Some(1_000_000)));
    let train = plan.job(&plan.cells[0].train).unwrap();
    assert_eq!(train.inputs.len(), 1);
    // The plain first million is another set.
    let plain = plan_with(HEAD, &["threat=linf", "generated.count=1M", "denoiser.file=edm.pkl"]);
    assert_ne!(plain.unwrap().cells[0].train, plan.cells[0].train);
}

#[test]
fn a_suite_can_train_the_classifier_that_labels() {
    let sets = ["threat=linf", "generated.count=100", "labels.trained=true"];
    let by = [&sets[..], &["labels.by=classifier", "denoiser.conditional=false"]].concat();
    let plan = plan_with(HEAD, &by).unwrap();
    let [label] = stages(&plan, Stage::Label)[..] else { panic!("one labelling") };
    let labeller = label.inputs.iter().find(|input| input.role == Role::Labeller).unwrap();
    let Work::Train(spec) = &plan.job(&labeller.id).unwrap().work else { panic!() };
    assert_eq!((spec.loss, spec.generated, spec.threat), (Loss::Standard, 0, None));
    assert!(spec.seed == 0 && plan.job(&labeller.id).unwrap().inputs.is_empty());
    // A cell of plain training has the same classifier.
    let plain = plan_with(HEAD, &["train.loss=standard", "threat=linf"]).unwrap();
    assert_eq!(plain.cells[0].train, labeller.id);
    // Where nobody asks it, it is not trained.
    let unasked = plan_with(HEAD, &sets).unwrap();
    assert_eq!(
        (stages(&unasked, Stage::Label).len(), stages(&unasked, Stage::Train).len()),
        (0, 1)
    );
    let both = [&by[..], &["labels.classifier=wrn.pt"]].concat();
    let error = plan_with(HEAD, &both).unwrap_err().to_string();
    assert!(error.contains("labels.trained: true does not fit"), "{error}");
}

#[test]
fn soft_labels_are_a_classifier_s_and_not_for_mart() {
    let sets = ["threat=linf", "generated.count=100", "labels.by=soft", "labels.trained=true"];
    let plan = plan_with(HEAD, &sets).unwrap();
    let [label] = stages(&plan, Stage::Label)[..] else { panic!("one labelling") };
    let Work::Label(spec) = &label.work else { panic!() };
    assert_eq!(spec.by, LabelBy::Soft);
    let mart = [&sets[..], &["train.loss=mart"]].concat();
    let error = plan_with(HEAD, &mart).unwrap_err().to_string();
    assert!(error.contains("labels.by: soft does not fit: train.loss mart"), "{error}");
    let error = plan_with(HEAD, &sets[..3]).unwrap_err().to_string();
    assert!(error.contains("labels.classifier: is missing"), "{error}");
}
