//! The readers on real files: published models, EDM networks, golden numbers, data sets.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::formats::{
    array::{Array, Dtype},
    bytes::Bytes,
    edm, mat, safetensors,
    tree::{Format, Tree, flatten, parse, read},
};

fn shared() -> PathBuf {
    std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED names the folder").into()
}

fn json(path: &Path) -> serde_json::Value {
    // Python writes numbers that JSON does not have.
    let text =
        fs::read_to_string(path).unwrap().replace("NaN", "null").replace("Infinity", "1e300");
    serde_json::from_str(&text).unwrap()
}

/// The counter hash that fills weights by formula (`golden/README.md`).
fn unit(k: u64, i: u64) -> f64 {
    let mut z = ((k << 40) + i).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24)
}

/// Compares every element of `array`, entry `k` of a state dict, with the formula.
fn assert_formula(name: &str, k: u64, array: &Array) {
    if name.ends_with("num_batches_tracked") {
        assert_eq!(array.to_i64().unwrap(), [0], "{name}");
        return;
    }
    let shape = array.shape();
    let (low, high) = if shape.len() > 1 {
        let bound = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
        (-bound, bound)
    } else if name.ends_with("running_var") {
        (1.0, 1.5)
    } else if name.ends_with("weight") {
        (0.8, 1.2)
    } else {
        (-0.1, 0.1)
    };
    for (i, value) in array.to_f32().into_iter().enumerate() {
        let expected = (low + (high - low) * unit(k, i as u64)) as f32;
        assert_eq!(value.to_bits(), expected.to_bits(), "{name}[{i}]: {value} {expected}");
    }
}

#[test]
fn the_formula_is_the_documented_one() {
    assert!((unit(0, 0) - 0.883_310_8).abs() < 1e-6 && (unit(0, 1) - 0.431_528_5).abs() < 1e-6);
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn checkpoint_of_the_paper_has_every_weight() {
    let document = read(&shared().join("models/wrn-10-1-swish.weights-best.pt")).unwrap();
    assert_eq!(document.format, Format::TorchZip);
    for part in ["model_state_dict", "unaveraged_model_state_dict"] {
        let mut tensors = flatten(document.tree.get(part).unwrap());
        assert!(tensors.iter().all(|(_, array)| array.data().is_mapped()));
        for (name, _) in &mut tensors {
            *name = name.strip_prefix("module.0.").unwrap().to_owned();
        }
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        let golden = json(&shared().join("golden/classifiers.json"));
        let entries = golden["wrn-10-1-swish.cifar10"]["state_dict"].as_array().unwrap().clone();
        assert_eq!(entries.len(), tensors.len());
        for (k, ((name, array), entry)) in tensors.iter().zip(&entries).enumerate() {
            assert_eq!(*name, entry[0]);
            assert_eq!(serde_json::json!(array.shape()), entry[1]);
            assert_formula(name, k as u64, array);
        }
    }
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn edm_network_has_its_architecture_and_every_weight() {
    let mut network = edm::read(&shared().join("models/tiny-ddpmpp-edm.pkl"), "ema").unwrap();
    let golden = json(&shared().join("golden/diffusion.json"));
    let golden = &golden["tiny-ddpmpp.edm"];
    assert_eq!(network.class, "EDMPrecond");
    for (name, value) in golden["args"].as_object().unwrap() {
        assert_eq!(network.arguments.get(name), Some(value), "{name}");
    }
    assert_eq!(network.modules[0].fields["sigma_data"], 0.5);
    assert_eq!(network.modules[1].class, "SongUNet");
    let block = network.modules.iter().find(|m| m.name == "model.enc.32x32_block0").unwrap();
    assert_eq!(block.class, "UNetBlock");
    network.tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    // The formula counts all names but the buffers, which the pickle has as well.
    network.tensors.retain(|(name, _)| !name.ends_with("resample_filter"));
    let entries = golden["state_dict"].as_array().unwrap();
    assert_eq!(entries.len(), network.tensors.len());
    for (k, ((name, array), entry)) in network.tensors.iter().zip(entries).enumerate() {
        assert_eq!(*name, entry[0]);
        assert_eq!(serde_json::json!(array.shape()), entry[1]);
        assert_formula(name, k as u64, array);
    }
    let missing = edm::read(&shared().join("models/tiny-ddpmpp-edm.pkl"), "net").unwrap_err();
    assert!(missing.to_string().contains("no network `net`"), "{missing}");
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn published_models_read_and_agree_with_each_other() {
    let models = shared().join("models");
    let find = |name: &str| read(&models.join(name)).unwrap();
    let resnet20 = find("resnet20-12fca82f.th");
    assert_eq!(resnet20.format, Format::TorchLegacy);
    let tensors = flatten(&resnet20.tree);
    let first = &tensors[0];
    assert_eq!(
        (first.0.as_str(), first.1.shape()),
        ("state_dict.module.conv1.weight", &[16, 3, 3, 3][..])
    );
    let Some(Tree::Float(best)) = resnet20.tree.get("best_prec1") else { panic!("best_prec1") };
    assert!((best - 91.73).abs() < 0.1, "{best}");
    for (_, array) in &tensors {
        assert!(array.to_f32().iter().all(|value| value.is_finite() && value.abs() < 1e4));
    }
    let cascade = find("cifar_small_8px.pth");
    assert_eq!(cascade.format, Format::TorchLegacy);
    assert!(flatten(&cascade.tree).len() > 8);
    for (name, parameters) in [("cifar_cnn_a_adv.model", 8), ("cifar_cnn_a_adv4.model", 8)] {
        assert_eq!(flatten(&find(name).tree).len(), parameters, "{name}");
    }
    let resnet = find("resnet2b.pth");
    assert!(matches!(resnet.tree.get("state_dict"), Some(Tree::Map(_))));
    let script = find("resnet2b.torchscript.pt");
    assert_eq!(script.format, Format::TorchScript);
    let weights = flatten(resnet.tree.get("state_dict").unwrap());
    let inside = flatten(&script.tree);
    for (name, array) in &weights {
        let twin = inside.iter().find(|(other, _)| other.ends_with(name.as_str()));
        assert_eq!(twin.map(|(_, twin)| twin), Some(array), "{name}");
    }
    let onnx = read(&models.join("resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx")).unwrap_err();
    assert!(onnx.to_string().contains("not a format that gauntlet knows"), "{onnx}");
}

#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn golden_numbers_and_data_read() {
    let mut seen = 0;
    for folder in ["golden", "golden/attacks"] {
        for entry in fs::read_dir(shared().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "safetensors") {
                let file = safetensors::read(&path).unwrap();
                assert!(!file.tensors.is_empty(), "{}", path.display());
                assert_eq!(read(&path).unwrap().format, Format::Safetensors);
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "{seen}");
    let data = shared().join("data");
    let stored = read(&data.join("npz/500.npz")).unwrap();
    let deflated = read(&data.join("npz/500-compressed.npz")).unwrap();
    assert_eq!(stored.tree, deflated.tree);
    assert!(stored.tree.get("image").unwrap().tensor().unwrap().data().is_mapped());
    let batch = read(&data.join("cifar10/cifar-10-batches-py/test_batch")).unwrap();
    let pixels = batch.tree.get("data").unwrap().tensor().unwrap();
    assert_eq!((pixels.dtype(), pixels.shape()), (Dtype::U8, &[1017, 3072][..]));
    assert!(pixels.data().is_mapped());
    let cut = read(&data.join("broken/test_batch.truncated")).unwrap_err().to_string();
    assert!(cut.contains("cut short") && cut.contains("test_batch.truncated"), "{cut}");
}

/// Damages to real files end with a tree or an error, never a panic.
#[test]
#[ignore = "needs GAUNTLET_SHARED"]
fn damaged_real_files_never_panic() {
    let folder = shared();
    let mut stream = crate::rng::Stream::new(0, "damage", 0);
    for name in [
        "models/wrn-10-1-swish.weights-best.pt",
        "models/resnet2b.pth",
        "models/resnet20-12fca82f.th",
        "models/tiny-ddpmpp-edm.pkl",
        "models/resnet2b.torchscript.pt",
        "data/cifar10/cifar-10-batches-py/batches.meta",
        "data/cifar100/cifar-100-python/meta",
        "data/npz/500-compressed.npz",
        "data/svhn/test_32x32.mat",
    ] {
        let whole = std::fs::read(folder.join(name)).unwrap();
        for _ in 0..30 {
            let mut bytes = whole.clone();
            for _ in 0..=stream.below(4) {
                // Half of the damages where the structure is: at the start and at the end.
                let near = stream.below(bytes.len().min(3000) as u64) as usize;
                let at = match stream.below(4) {
                    0 => near,
                    1 => bytes.len() - 1 - near,
                    _ => stream.below(bytes.len() as u64) as usize,
                };
                bytes[at] = stream.below(256) as u8;
            }
            if stream.chance(0.3) {
                bytes.truncate(stream.below(bytes.len() as u64) as usize);
            }
            let bytes = Bytes::from(bytes);
            if let Ok(document) = parse(&bytes) {
                flatten(&document.tree);
            }
            let _ = mat::parse(&bytes);
        }
    }
}
