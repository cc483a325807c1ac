//! Tests of [`super`].

use super::*;
use crate::net::formula;

fn golden_folder() -> std::path::PathBuf {
    let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED is set");
    std::path::Path::new(&shared).join("golden")
}

fn spec_of(arch: &str, dataset: &str) -> ClassifierSpec {
    let classes = match dataset {
        "cifar100" => 100,
        "tiny-imagenet" => 200,
        _ => 10,
    };
    ClassifierSpec { arch: arch.into(), dataset: dataset.into(), classes }
}

/// Logits by formula against the golden file, for the tags that `wanted` picks.
fn check_goldens(wanted: impl Fn(&str) -> bool) {
    let folder = golden_folder();
    let json = std::fs::read(folder.join("classifiers.json")).unwrap();
    let cases: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json).unwrap();
    let tensors = Tensor::read_safetensors(folder.join("classifiers.safetensors")).unwrap();
    let tensors: BTreeMap<_, _> = tensors.into_iter().collect();
    let mut seen = 0;
    for (tag, case) in cases.iter().filter(|(tag, _)| wanted(tag)) {
        let text = |key: &str| case[key].as_str().unwrap();
        let number = |key: &str| case[key].as_i64().unwrap();
        let network = Network::blank(&spec_of(text("arch"), text("dataset")), Device::Cpu);
        let network = network.unwrap();
        let count: usize = network.parameters().iter().map(|(_, t)| t.numel()).sum();
        assert_eq!(count as i64, number("params"), "{tag}");
        check_names(tag, case, &network.state());
        formula::fill(&network.state());
        let edge = number("resolution");
        let x = formula::images(&[number("batch"), 3, edge, edge], 0.0, 1.0, Device::Cpu);
        let _guard = tch::no_grad_guard();
        let (got, expected) = (network.logits(&x), &tensors[&format!("{tag}.logits")]);
        let scale = expected.abs().max().double_value(&[]);
        let error = (got - expected).abs().max().double_value(&[]) / scale;
        println!("{tag}: relative error {error:.1e}");
        assert!(error < 1e-4, "{tag}: {error}");
        seen += 1;
    }
    assert!(seen > 0, "some tag is checked");
}

fn check_names(tag: &str, case: &serde_json::Value, state: &[(String, Tensor)]) {
    let mut own: Vec<_> = state.iter().map(|(name, t)| (name.clone(), t.size())).collect();
    own.sort();
    match case["state_dict"].as_array() {
        Some(_) => {
            let named: Vec<(String, Vec<i64>)> =
                serde_json::from_value(case["state_dict"].clone()).unwrap();
            assert_eq!(own, named, "{tag}");
        }
        None => assert_eq!(own.len() as u64, case["state_dict"].as_u64().unwrap(), "{tag}"),
    }
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn logits_match_the_official_networks() {
    check_goldens(|tag| !tag.starts_with("wrn-70"));
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn logits_match_the_official_wrn_70_16() {
    check_goldens(|tag| tag.starts_with("wrn-70"));
}

#[test]
fn evaluation_reaches_the_input_and_not_the_parameters() {
    let network = Network::new(&spec_of("wrn-10-1-swish", "cifar10"), 1, Device::Cpu).unwrap();
    let x = formula::images(&[2, 3, 32, 32], 0.0, 1.0, Device::Cpu).set_requires_grad(true);
    let value = network.logits(&x).square().sum(Kind::Float);
    let gradient = Tensor::run_backward(&[value], &[&x], false, false).remove(0);
    assert!(gradient.is_contiguous(), "attacks view gradients as vectors");
    network.logits(&x).square().sum(Kind::Float).backward();
    assert!(x.grad().abs().max().double_value(&[]) > 0.0);
    assert!(network.parameters().iter().all(|(_, tensor)| !tensor.grad().defined()));
    network.forward(&x, Mode::Frozen).square().sum(Kind::Float).backward();
    assert!(network.parameters().iter().all(|(_, tensor)| tensor.grad().defined()));
}

#[test]
fn training_moves_what_evaluation_sees() {
    let network = Network::new(&spec_of("wrn-10-1", "svhn"), 1, Device::Cpu).unwrap();
    let x = formula::images(&[2, 3, 32, 32], 0.0, 1.0, Device::Cpu);
    let before = network.logits(&x);
    let trained = network.forward(&x, Mode::Train { momentum: 1.0 });
    let frozen = network.forward_still(&x, Mode::Frozen);
    assert!(trained.allclose(&frozen, 1e-6, 1e-6, false));
    assert!(!network.logits(&x).allclose(&before, 1e-4, 1e-4, false));
    let copy = Network::blank(network.spec(), Device::Cpu).unwrap();
    copy.load(&network.state().into_iter().collect()).unwrap();
    assert_eq!(copy.logits(&x), network.logits(&x));
}

#[test]
fn fused_networks_agree_up_to_rounding() {
    let archs = [
        "wrn-10-1-swish",
        "wrn-10-2-normalized",
        "wrn-10-1-classic",
        "preact-resnet18",
        "preact-resnet18-swish",
        "preact-resnet18-bare-raw",
        "preact-resnet50",
        "resnet20",
        "resnet18",
        "resnet50",
        "wrn-10-8-swish",
    ];
    let x = formula::images(&[2, 3, 32, 32], 0.0, 1.0, Device::Cpu);
    for arch in archs {
        let network = Network::blank(&spec_of(arch, "cifar10"), Device::Cpu).unwrap();
        formula::fill(&network.state());
        let fused = network.fused().expect("it has batch normalisation");
        let run = |network: &dyn Classifier| {
            let x = x.copy().set_requires_grad(true);
            let logits = network.logits(&x);
            let value = logits.logsumexp(1, false).sum(Kind::Float);
            let gradient = Tensor::run_backward(&[value], &[&x], false, false).remove(0);
            (logits.detach(), gradient)
        };
        let ((logits, gradient), (other, slope)) = (run(&network), run(&*fused));
        // Rounding may take a unit across the kink of a ReLU, which moves the gradient by a jump.
        let kinks = if arch.contains("swish") { 1e-5 } else { 1e-2 };
        for (a, b, limit) in [(logits, other, 1e-5), (gradient, slope, kinks)] {
            let error = ((&a - b).abs().max() / a.abs().max()).double_value(&[]);
            println!("{arch}: {error:.1e}");
            assert!(error < limit, "{arch}: {error}");
        }
        let _guard = tch::no_grad_guard();
        let (a, b) = (fused.logits(&x), network.logits(&x));
        assert!(a.allclose(&b, 1e-5, 1e-5, false), "{arch}: without gradients");
    }
    let plain = Network::blank(&spec_of("cnn-a", "cifar10"), Device::Cpu).unwrap();
    assert!(plain.fused().is_none());
}

#[test]
fn every_architecture_runs_on_its_images() {
    let archs = [
        "wrn-10-1-classic",
        "resnet18",
        "preact-resnet18-swish",
        "preact-resnet34",
        "preact-resnet50",
        "resnet50",
        "resnet20",
        "resnet56",
        "cnn-a",
        "cifar-small",
        "resnet-2b",
        "resnet-4b",
    ];
    for arch in archs {
        for (dataset, edge) in [("synthetic", 32), ("tiny-imagenet", 64)] {
            let network = Network::new(&spec_of(arch, dataset), 0, Device::Cpu).unwrap();
            let x = formula::images(&[1, 3, edge, edge], 0.0, 1.0, Device::Cpu);
            let logits = network.logits(&x);
            assert_eq!(logits.size(), [1, network.classes()], "{arch} {dataset}");
            assert!(logits.isfinite().all().int64_value(&[]) == 1);
        }
    }
}
