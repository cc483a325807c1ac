//! The samplers and the Fréchet distance against the official implementation's numbers.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::{
    diffusion::{
        ablation, fid,
        sampler::{self, Origin, Walk},
        spec::{Discretization, SamplerSpec, Scaling, Schedule, Solver},
    },
    net::{architecture::Architecture, denoiser::DenoiserNet, formula},
};

struct Golden {
    tensors: BTreeMap<String, Tensor>,
    network: DenoiserNet,
    latents: Tensor,
    label: Tensor,
}

/// The tiny conditional DDPM++ with formula weights, and what it was sampled from.
fn golden() -> Golden {
    let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED is set");
    let folder = std::path::Path::new(&shared).join("golden");
    let text = std::fs::read_to_string(folder.join("diffusion.json")).unwrap();
    // Python writes infinity bare.
    let json: serde_json::Value = serde_json::from_str(&text.replace("Infinity", "null")).unwrap();
    // The same U-Net as `tiny-ddpmpp.edm`, but without a label for augmentation.
    let arguments = &json["tiny-ddpmpp.vp"]["args"];
    let architecture = Architecture::from_kwargs("EDMPrecond", arguments).unwrap();
    let network = DenoiserNet::blank(architecture, Device::Cpu).unwrap();
    formula::fill(&network.state());
    let tensors = Tensor::read_safetensors(folder.join("diffusion.safetensors")).unwrap();
    Golden {
        tensors: tensors.into_iter().collect(),
        network,
        latents: noise(2 << 20),
        label: Tensor::eye(10, (Kind::Float, Device::Cpu)).narrow(0, 0, 2),
    }
}

fn noise(k: u64) -> Tensor {
    let bound = 3f64.sqrt();
    formula::tensor(k, &[2, 3, 32, 32], -bound, bound)
}

fn close(golden: &Golden, tag: &str, drawn: &Tensor) {
    let expected = &golden.tensors[tag];
    let error = (drawn - expected).abs().max() / expected.abs().max();
    let error = error.double_value(&[]);
    println!("{tag}: relative error {error:.1e}");
    assert!(error < 1e-4, "{tag}: {error}");
}

fn edm(steps: u64) -> SamplerSpec {
    sampler::tests::edm(Solver::Heun, steps)
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn edm_samplers_match_the_official_one() {
    let golden = golden();
    let draw = |spec: &SamplerSpec| {
        let mut noise = |step| noise((3 << 20) + step);
        let walk = Walk::whole(spec, &golden.network, Some(&golden.label));
        sampler::sample(&walk, Origin { latents: &golden.latents, images: None }, &mut noise)
    };
    for steps in [2, 5, 18] {
        close(&golden, &format!("sampler.heun{steps}"), &draw(&edm(steps)));
    }
    let churn = SamplerSpec {
        churn: 40.0,
        churn_min: 0.05,
        churn_max: Some(50.0),
        churn_noise: 1.003,
        ..edm(18)
    };
    close(&golden, "sampler.churn18", &draw(&churn));
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn generalised_samplers_match_the_official_one() {
    let golden = golden();
    let processes = [
        ("edm.linear.none", (Discretization::Edm, Schedule::Linear, Scaling::None)),
        ("iddpm.linear.none", (Discretization::Iddpm, Schedule::Linear, Scaling::None)),
        ("ve.ve.none", (Discretization::Ve, Schedule::Ve, Scaling::None)),
        ("vp.vp.vp", (Discretization::Vp, Schedule::Vp, Scaling::Vp)),
    ];
    for (name, process) in processes {
        for (suffix, solver) in [("heun", Solver::Heun), ("euler", Solver::Euler)] {
            let spec = SamplerSpec { solver, ..ablation::tests::spec(process, 8) };
            let walk = Walk::whole(&spec, &golden.network, Some(&golden.label));
            let origin = Origin { latents: &golden.latents, images: None };
            let mut never = |_| unreachable!("a deterministic sampler asks for no noise");
            let drawn = ablation::sample(&walk, origin, &mut never);
            close(&golden, &format!("ablation.{name}.{suffix}"), &drawn);
        }
    }
}

#[test]
fn distance_is_the_published_one() {
    // golden/fid.json: the official fid.py on features by formula.
    let a = formula::tensor(5 << 20, &[600, 64], 0.0, 1.0);
    let b = formula::tensor(6 << 20, &[500, 64], 0.0, 1.0).square();
    let (a, b) = (fid::Moments::of(&a).unwrap(), fid::Moments::of(&b).unwrap());
    let distance = fid::distance(&a, &b);
    assert!((distance - 2.073_684_237_908_738).abs() < 1e-9, "{distance}");
}
