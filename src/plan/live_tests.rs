//! Images drawn while training goes on.

use super::*;

const LIVE: [&str; 3] = ["threat=linf", "generated.count=5000", "generated.supply=live"];

fn training(plan: &Plan) -> (&Job, TrainSpec) {
    let job = plan.job(&plan.cells[0].train).unwrap();
    let Work::Train(spec) = &job.work else { panic!() };
    (job, spec.clone())
}

#[test]
fn a_training_draws_its_own_images() {
    let given = [&LIVE[..], &["denoiser.file=edm.pkl", "generated.rate=8", "sampler.steps=5"]];
    let plan = plan_with(HEAD, &given.concat()).unwrap();
    assert!(stages(&plan, Stage::Generate).is_empty() && stages(&plan, Stage::Quality).is_empty());
    let (job, spec) = training(&plan);
    let roles: Vec<Role> = job.inputs.iter().map(|input| input.role).collect();
    assert_eq!(roles, [Role::Denoiser]);
    assert_eq!(plan.cells[0].denoiser.as_ref(), Some(&job.inputs[0].id));
    let live = spec.live.unwrap();
    assert_eq!((spec.generated, live.draw.count, live.rate), (5000, 5000, 8.0));
    assert_eq!((live.draw.sampler.steps, live.draw.classes), (5, 10));
    // 98 steps in each of 400 epochs, 9 evaluations of the network in the file for each image.
    let set = plan_with(HEAD, &[&given.concat()[..], &["generated.supply=set"]].concat()).unwrap();
    let (other, set) = training(&set);
    let network = Imagined.denoiser(Path::new("edm.pkl")).unwrap().unwrap();
    let drawn = (5000.0 + 98.0 * 400.0 * 8.0) * 9.0 * cost::imported_macs(&network) / 1e9;
    let more = job.estimate.gmacs - other.estimate.gmacs;
    assert!((more / drawn - 1.0).abs() < 1e-6, "{more} {drawn}");
    assert!(job.estimate.memory > other.estimate.memory);
    assert!(set.live.is_none() && other.id != job.id);
    // Another rate, sampler or denoiser is another training; a rate without it none.
    let id = |more: &[&str]| {
        let plan = plan_with(HEAD, &[&given.concat()[..], more].concat()).unwrap();
        training(&plan).0.id.clone()
    };
    let other = ["generated.rate=9", "sampler.steps=6", "denoiser.file=other.pkl"];
    assert!(other.iter().all(|change| id(&[change]) != job.id));
    let still = |rate: &str| id(&["generated.supply=set", rate]);
    assert_eq!(still("generated.rate=8"), still("generated.rate=9"));
    assert_eq!(id(&["quality.images=0", "generated.shard=7"]), job.id);
}

#[test]
fn what_only_a_set_allows_is_refused() {
    for (more, expected) in [
        ("labels.by=classifier", "labels.by: does not go with `generated.supply: live`"),
        ("labels.trained=true", "labels.trained: does not go with"),
        ("labels.balance=true", "labels.balance: does not go with"),
        ("generated.drawn=6000", "generated.drawn: does not go with"),
        ("generated.file=1m.npz", "generated.file: does not go with"),
        ("generated.fraction=0", "generated.fraction: 0 does not fit"),
        ("generated.rate=-1", "generated.rate: "),
    ] {
        let error = plan_with(HEAD, &[&LIVE[..], &[more]].concat()).unwrap_err().to_string();
        assert!(error.contains(expected), "{more}: {error}");
    }
    // Cells without generated images are cells like others.
    let none = plan_with(HEAD, &["threat=linf", "generated.supply=live"]).unwrap();
    assert!(training(&none).1.live.is_none());
}
