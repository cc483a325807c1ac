//! `inspect`, `convert` and `forward` on published files.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tch::Tensor;

fn gauntlet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gauntlet"))
}

fn shared(rest: &str) -> PathBuf {
    Path::new(&std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED is set")).join(rest)
}

/// The tensor called `name` in a safetensors file.
fn tensor(path: &Path, name: &str) -> Tensor {
    let found = Tensor::read_safetensors(path).unwrap().into_iter().find(|(n, _)| n == name);
    found.expect("the tensor is there").1
}

/// `gauntlet forward file` on images (and noise levels).
fn forward(file: &Path, input: &Path, extra: &[&str]) -> assert_cmd::assert::Assert {
    let out = input.with_extension("out");
    gauntlet()
        .arg("forward")
        .arg(file)
        .arg("--input")
        .arg(input)
        .arg("--out")
        .arg(&out)
        .args(extra)
        .env("OMP_NUM_THREADS", "1")
        .assert()
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn a_checkpoint_converted_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, input) = (folder.path().join("wrn.safetensors"), folder.path().join("x"));
    let published = shared("models/wrn-10-1-swish.weights-best.pt");
    gauntlet().arg("convert").arg(&published).arg(&ours).assert().success();
    let x = gauntlet::net::formula::images(&[4, 3, 32, 32], 0.0, 1.0, tch::Device::Cpu);
    Tensor::write_safetensors(&[("x", x)], &input).unwrap();
    let golden = shared("golden/classifiers.safetensors");
    let expected = tensor(&golden, "wrn-10-1-swish.cifar10.logits");
    for (file, extra) in [(&published, &[][..]), (&ours, &["--batch", "3"][..])] {
        forward(file, &input, extra).success();
        let logits = tensor(&input.with_extension("out"), "logits");
        assert!(logits.allclose(&expected, 1e-4, 1e-5, false), "{}", file.display());
    }
    let half = folder.path().join("half.safetensors");
    gauntlet().arg("convert").arg(&published).arg(&half).arg("--half").assert().success();
    let size = |path: &Path| std::fs::metadata(path).unwrap().len() as f64;
    assert!(size(&half) / size(&ours) < 0.56, "{} of {}", size(&half), size(&ours));
    forward(&half, &input, &[]).success();
    let logits = tensor(&input.with_extension("out"), "logits");
    assert!(!logits.equal(&expected), "16 bits round");
    assert!(logits.allclose(&expected, 1e-2, 5e-3, false));
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn a_denoiser_takes_noise_levels_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("x");
    let pickle = shared("models/tiny-ddpmpp-edm.pkl");
    let sigma = Tensor::from_slice(&[0.02f32, 1.5, 40.0]);
    let x = gauntlet::net::formula::images(&[3, 3, 32, 32], -1.0, 1.0, tch::Device::Cpu)
        * (&sigma + 1.0).view([-1, 1, 1, 1]);
    let label = Tensor::eye(10, (tch::Kind::Float, tch::Device::Cpu)).narrow(0, 0, 3);
    Tensor::write_safetensors(&[("x", &x)], &input).unwrap();
    let output = forward(&pickle, &input, &[]).failure().code(2).get_output().clone();
    assert!(String::from_utf8_lossy(&output.stderr).contains("needs `sigma`"));
    Tensor::write_safetensors(
        &[("x", &x), ("sigma", &sigma), ("label", &label.contiguous())],
        &input,
    )
    .unwrap();
    forward(&pickle, &input, &["--batch", "2"]).success();
    let expected = tensor(&shared("golden/diffusion.safetensors"), "tiny-ddpmpp.edm.denoised");
    let denoised = tensor(&input.with_extension("out"), "denoised");
    assert!(denoised.allclose(&expected, 1e-4, 1e-5, false));
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn inspect_lists_every_tensor() {
    let output = gauntlet()
        .args(["inspect", "--json"])
        .arg(shared("models/resnet2b.pth"))
        .assert()
        .success()
        .get_output()
        .clone();
    let list: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list.len(), 16);
    assert_eq!(list[0]["shape"], serde_json::json!([8, 3, 3, 3]));
    let output = gauntlet().arg("inspect").arg(shared("models/tiny-ddpmpp-edm.pkl")).assert();
    let text = String::from_utf8_lossy(&output.success().get_output().stdout).into_owned();
    for part in ["EDMPrecond", "blake3", "augment_dim: 9", "model_channels: 32"] {
        assert!(text.contains(part), "{part} is missing");
    }
}

#[test]
fn an_unknown_architecture_lists_what_exists() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let x = Tensor::zeros([1], (tch::Kind::Float, tch::Device::Cpu));
    Tensor::write_safetensors(&[("weight", &x)], &path).unwrap();
    for extra in [&[][..], &["--arch", "vgg"][..]] {
        let output = gauntlet().arg("convert").arg(&path).arg("y").args(extra).assert().code(2);
        let message = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(
            message.contains("wrn-28-10-swish") && message.contains("x.safetensors"),
            "{message}"
        );
    }
}

/// Logits of the images `input` by the network in `file`, through the program.
fn logits(file: &Path, input: &Path, extra: &[&str]) -> Tensor {
    forward(file, input, extra).success();
    tensor(&input.with_extension("out"), "logits")
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn a_set_of_weights_is_chosen_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("x");
    let published = shared("models/cifar_small_8px.pth"); // a cascade of networks
    let x = gauntlet::net::formula::images(&[2, 3, 32, 32], 0.0, 1.0, tch::Device::Cpu);
    Tensor::write_safetensors(&[("x", x)], &input).unwrap();
    let told = ["--arch", "cifar-small", "--weights", "state_dict.1"];
    let first = logits(&published, &input, &[]); // the list around the weights tells whose it is
    assert!(logits(&published, &input, &told[..2]).equal(&first));
    let second = logits(&published, &input, &told);
    assert!(!second.allclose(&first, 1e-3, 1e-3, false));
    let converted = folder.path().join("second.safetensors");
    gauntlet().arg("convert").arg(&published).arg(&converted).args(told).assert().success();
    assert!(logits(&converted, &input, &[]).equal(&second));
    let output = forward(&published, &input, &["--weights", "ema"]).code(2).get_output().clone();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("no `ema`") && message.contains("`state_dict`"), "{message}");
    // Evaluation takes the same weights, and its record says which: verify loads them again.
    let clean = |model: &Path, name: &str, extra: &[&str]| {
        let out = folder.path().join(name);
        let done = gauntlet()
            .args(["evaluate", "--data", "synthetic", "--eps", "1/255", "--suite", "custom"])
            .args(["--attacks", "apgd-ce:2", "--examples", "40", "--threads", "1", "--json"])
            .args(["--device", "cpu", "--save-images", "--model"])
            .arg(model)
            .arg("--out")
            .arg(&out)
            .args(extra)
            .assert()
            .success();
        gauntlet().args(["verify", "--device", "cpu"]).arg(&out).assert().success();
        let mut summary: serde_json::Value =
            serde_json::from_slice(&done.get_output().stdout).unwrap();
        summary.as_object_mut().unwrap().remove("seconds");
        [summary["clean"].clone(), summary["robust"].clone()]
    };
    assert_eq!(clean(&published, "a", &told), clean(&converted, "b", &[]));
}

/// Every file of models is listed as JSON, or refused in one line.
#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn every_published_file_is_listed() {
    for entry in std::fs::read_dir(shared("models")).unwrap() {
        let path = entry.unwrap().path();
        let output = gauntlet().args(["inspect", "--json"]).arg(&path).output().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".md") || name.ends_with(".onnx") {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{name}");
            assert!(message.contains(&name) && message.lines().count() == 1, "{message}");
            continue;
        }
        let list: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert!(list.len() > 7, "{name}");
        for entry in &list {
            let keys: Vec<_> = entry.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["name", "shape", "kind"], "{name}");
        }
    }
}
