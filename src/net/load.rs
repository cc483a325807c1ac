//! Networks from files and to files: published checkpoints, EDM pickles, TorchScript programs and
//! gauntlet's own safetensors.

use std::{ffi::OsStr, path::Path};

use tch::{Device, Kind, Tensor};

use super::{
    Classifier, DenoiserNet, Network, arch, architecture::Architecture, checkpoint, closest,
    identify, script::Script, spec::ClassifierSpec, tensors,
};
use crate::{
    error::{Error, Result},
    formats::{
        array::Array,
        edm,
        tree::{self, Document, Format, Tree},
    },
};

/// What a file turned out to hold.
pub enum Loaded {
    /// A classifier.
    Classifier(Box<dyn Classifier + Send>),
    /// A denoiser.
    Denoiser(Box<DenoiserNet>),
}

/// What a caller knows of a file that the file may not say.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The architecture; `None` to infer it from names and shapes.
    pub arch: Option<&'a str>,
    /// The data set, for head and normalisation, unless the file says (gauntlet's own do).
    pub dataset: &'a str,
    /// Which of several sets of weights (`unaveraged_model_state_dict`; of an EDM pickle: `net`);
    /// `None` for the averaged ones.
    pub weights: Option<&'a str>,
}

/// The network in the file at `path`, classifier or denoiser.
///
/// # Errors
/// If the file is bad or holds neither.
pub fn load_any(path: &Path, told: Told, device: Device) -> Result<Loaded> {
    let document = tree::read(path)?;
    if is_denoiser(&document) {
        let denoiser = in_file(path, denoiser(&document, told.weights, device))?;
        return Ok(Loaded::Denoiser(Box::new(denoiser.frozen())));
    }
    let edge = arch::resolution(told.dataset);
    Ok(Loaded::Classifier(classifier(path, &document, told, ((edge, edge), device))?))
}

/// The classifier in the file at `path`, ready for evaluation on `device`: a TorchScript program,
/// a checkpoint of torch (plain or nested, names with or without `module.` and the like) or a
/// safetensors file.
///
/// `arch` says what names and shapes do not (`None` to infer it); `dataset` chooses head and
/// normalisation unless the file itself says (gauntlet's own do).
///
/// # Errors
/// If the file is bad, its architecture is unclear, or its weights do not fit; the message names
/// the file and every entry concerned.
pub fn load_classifier(
    path: &Path,
    arch: Option<&str>,
    dataset: &str,
    device: Device,
) -> Result<Box<dyn Classifier + Send>> {
    let edge = arch::resolution(dataset);
    load_told(path, Told { arch, dataset, weights: None }, (edge, edge), device)
}

/// As [`load_classifier`], with all that a caller can know of a file, for images of `size` (height
/// and width), which a TorchScript program is tried with.
///
/// # Errors
/// As [`load_classifier`].
pub fn load_told(
    path: &Path,
    told: Told,
    size: (i64, i64),
    device: Device,
) -> Result<Box<dyn Classifier + Send>> {
    classifier(path, &tree::read(path)?, told, (size, device))
}

fn classifier(
    path: &Path,
    document: &Document,
    told: Told,
    (size, device): ((i64, i64), Device),
) -> Result<Box<dyn Classifier + Send>> {
    if document.format == Format::TorchScript {
        return Ok(Box::new(Script::load(path, size, device)?));
    }
    let network = network((document, path), told, device)?;
    Ok(Box::new(network.frozen()))
}

/// As [`load_classifier`], but the network itself, to be trained further or saved.
///
/// # Errors
/// As [`load_classifier`]; TorchScript programs are refused.
pub fn load_network(
    path: &Path,
    arch: Option<&str>,
    dataset: &str,
    device: Device,
) -> Result<Network> {
    let document = tree::read(path)?;
    network((&document, path), Told { arch, dataset, weights: None }, device)
}

fn network((document, path): (&Document, &Path), told: Told, device: Device) -> Result<Network> {
    let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    in_file(path, network_called((document, stem), told, device))
}

fn network_called(
    (document, stem): (&Document, &str),
    told: Told,
    device: Device,
) -> Result<Network> {
    if document.format == Format::TorchScript {
        return Err(Error::input("a TorchScript program has no architecture to train or save"));
    }
    if is_denoiser(document) {
        return Err(Error::input("holds a denoiser; expected a classifier"));
    }
    let state = checkpoint::state_dict(&document.tree, told.weights)?;
    let inferred =
        checkpoint::infer(&state.arrays).or_else(|| checkpoint::infer_numbered(&state.arrays));
    let spec = identify::spec((document, stem), &state, inferred.clone(), told)?;
    let network = Network::blank(&spec, device)?;
    network.load_arrays(&state.arrays).map_err(|error| {
        let likely = match inferred {
            Some((name, _)) if !spec.arch.starts_with(&name) => {
                Some(format!("the names and shapes are those of {name}"))
            }
            Some(_) => None,
            None => closest::describe(&state.arrays),
        };
        let hint = likely.map_or_else(String::new, |likely| format!("; {likely}"));
        Error::input(format!("as {} for {}: {error}{hint}", spec.arch, spec.dataset))
    })?;
    // Gauntlet's own files name the set that they were trained on: nothing is guessed of them.
    let guessed = match said(document, "dataset") {
        None => arch::guessed(&spec.arch, &spec.dataset),
        Some(_) => None,
    };
    Ok(network.with_remarks(guessed))
}

pub(super) fn said<'a>(document: &'a Document, key: &str) -> Option<&'a str> {
    document.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
}

fn is_denoiser(document: &Document) -> bool {
    said(document, "spec").is_some()
        || matches!(document.tree.get("ema"), Some(Tree::Object { class, .. }) if class.ends_with("Precond"))
}

/// The denoiser in the file at `path`, on `device`: a network pickle of EDM (its averaged network,
/// `ema`) or a safetensors file of gauntlet.
///
/// # Errors
/// If the file is bad, asks for another class of network, or its weights do not fit.
pub fn load_denoiser(path: &Path, device: Device) -> Result<DenoiserNet> {
    let document = tree::read(path)?;
    in_file(path, denoiser(&document, None, device)).map(DenoiserNet::frozen)
}

/// What the denoiser in the file at `path` was built from, without its weights.
///
/// # Errors
/// If the file is bad or holds no denoiser.
pub fn denoiser_architecture(path: &Path) -> Result<Architecture> {
    let document = tree::read(path)?;
    if !is_denoiser(&document) {
        return Err(Error::in_file(path, "holds no denoiser"));
    }
    in_file(path, architecture(&document, None)).map(|(architecture, _)| architecture)
}

/// The architecture in a document and its arrays by name.
fn architecture(
    document: &Document,
    which: Option<&str>,
) -> Result<(Architecture, Vec<(String, Array)>)> {
    if let Some(spec) = said(document, "spec") {
        let spec: Architecture = serde_json::from_str(spec)
            .map_err(|error| Error::input(format!("metadata: spec: {error}")))?;
        return Ok((spec, tree::flatten(&document.tree)));
    }
    let network = edm::network(&document.tree, which.unwrap_or("ema"))?;
    Ok((Architecture::from_kwargs(&network.class, &network.arguments.into())?, network.tensors))
}

fn denoiser(document: &Document, which: Option<&str>, device: Device) -> Result<DenoiserNet> {
    let (architecture, arrays) = architecture(document, which)?;
    let denoiser = DenoiserNet::blank(architecture, device)?;
    denoiser.load_arrays(&arrays.into_iter().collect())?;
    Ok(denoiser)
}

/// Writes `network` to `path` as safetensors with its spec, so that [`load_classifier`] needs
/// nothing else.
///
/// # Errors
/// If the file cannot be written; nothing half-written is left.
pub fn save_classifier(path: &Path, network: &Network) -> Result<()> {
    write_classifier(path, network, false)
}

fn write_classifier(path: &Path, network: &Network, half: bool) -> Result<()> {
    let spec = network.spec();
    let classes = spec.classes.to_string();
    let metadata = [("arch", &*spec.arch), ("dataset", &*spec.dataset), ("classes", &*classes)];
    tensors::write(path, &stored(network.state(), half), &metadata)
}

/// Writes `denoiser` to `path` as safetensors with its architecture.
///
/// # Errors
/// If the file cannot be written; nothing half-written is left.
pub fn save_denoiser(path: &Path, denoiser: &DenoiserNet) -> Result<()> {
    write_denoiser(path, denoiser, false)
}

fn write_denoiser(path: &Path, denoiser: &DenoiserNet, half: bool) -> Result<()> {
    let spec = serde_json::to_string(denoiser.architecture()).expect("an architecture is plain");
    tensors::write(path, &stored(denoiser.state(), half), &[("spec", &spec)])
}

/// What a file holds of a network: with `half`, matrices and kernels in 16 bits; vectors (biases,
/// statistics) are few and stay whole.
fn stored(mut state: Vec<(String, Tensor)>, half: bool) -> Vec<(String, Tensor)> {
    for (_, tensor) in &mut state {
        if half && tensor.dim() > 1 && tensor.kind() == Kind::Float {
            *tensor = tensor.to_kind(Kind::Half);
        }
    }
    state
}

/// Rewrites the network at `from` as gauntlet's safetensors at `to`, with `half` in about half the
/// bytes (matrices and kernels in 16 bits). Returns what it is, for people.
///
/// # Errors
/// If `from` is bad or holds no known network, or `to` cannot be written.
pub fn convert(from: &Path, to: &Path, told: Told, half: bool) -> Result<String> {
    let document = tree::read(from)?;
    if is_denoiser(&document) {
        let denoiser = in_file(from, denoiser(&document, told.weights, Device::Cpu))?;
        write_denoiser(to, &denoiser, half)?;
        let arch = denoiser.architecture();
        let edge = arch.img_resolution;
        return Ok(format!("{:?} ({:?}), {edge}x{edge}", arch.model, arch.precond));
    }
    let network = network((&document, from), told, Device::Cpu)?;
    write_classifier(to, &network, half)?;
    let spec = network.spec();
    let plain = spec.arch.starts_with("preact-resnet") && !spec.arch.contains("swish");
    let doubt = if told.arch.is_none() && plain && !spec.arch.contains(arch::RAW) {
        "\n(names do not tell whether shortcuts take a block's input before or after its \
         activation: this is after; --arch with -raw appended is before)"
    } else {
        ""
    };
    let remarks: String =
        network.remarks().iter().map(|remark| format!("\nwarning: {remark}")).collect();
    let ClassifierSpec { arch, dataset, classes } = spec;
    Ok(format!("{arch} for {dataset}, {classes} classes{doubt}{remarks}"))
}

/// Prefixes a complaint about content with the file that it is about.
fn in_file<T>(path: &Path, result: Result<T>) -> Result<T> {
    crate::formats::in_file(path, result)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tch::{Kind, Tensor};

    use super::*;
    use crate::net::{Denoiser, formula};

    fn shared(rest: &str) -> PathBuf {
        let shared = std::env::var_os("GAUNTLET_SHARED").expect("GAUNTLET_SHARED is set");
        Path::new(&shared).join(rest)
    }

    /// The first `count` CIFAR-10 test images in `[0, 1]` with their labels.
    fn cifar(count: usize) -> (Tensor, Tensor) {
        let bytes = std::fs::read(shared("data/cifar10/cifar-10-batches-bin/test_batch.bin"));
        let all = Tensor::from_slice(&bytes.unwrap()[..count * 3073]).view([-1, 3073]);
        let images = all.narrow(1, 1, 3072).to_kind(Kind::Float) / 255.0;
        (images.reshape([-1, 3, 32, 32]), all.select(1, 0).to_kind(Kind::Int64))
    }

    fn percent_correct(network: &dyn Classifier, x: &Tensor, y: &Tensor) -> f64 {
        let _guard = tch::no_grad_guard();
        let right = network.logits(x).argmax(1, false).eq_tensor(y);
        right.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]) * 100.0
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn published_checkpoints_agree_with_their_torchscript_twins() {
        let (x, y) = cifar(1017);
        let twins = [
            ("resnet2b.pth", None, "resnet2b.torchscript.pt", 70.40),
            ("cifar_cnn_a_adv.model", None, "cnn_a_adv.torchscript.pt", 70.60),
            ("cifar_cnn_a_adv4.model", None, "cnn_a_adv4.torchscript.pt", 60.47),
            ("cifar_small_8px.pth", Some("cifar-small"), "small_8px.torchscript.pt", 31.17),
        ];
        for (weights, arch, script, clean) in twins {
            let load = |file: &str, arch| {
                let path = shared("models").join(file);
                load_classifier(&path, arch, "cifar10", Device::Cpu).unwrap()
            };
            let (ours, twin) = (load(weights, arch), load(script, None));
            assert_eq!((ours.classes(), twin.classes()), (10, 10));
            let (a, b) = (ours.logits(&x), twin.logits(&x));
            assert!(!a.requires_grad() && !b.requires_grad(), "{weights}");
            let error = (a - b).abs().max().double_value(&[]);
            assert!(error < 1e-5, "{weights}: {error}");
            let found = percent_correct(&*ours, &x, &y);
            assert!((found - clean).abs() < 0.006, "{weights}: {found}, published {clean}");
        }
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn published_resnet20_is_as_accurate_as_published() {
        let (x, y) = cifar(1017);
        let path = shared("models/resnet20-12fca82f.th");
        let network = load_classifier(&path, None, "cifar10", Device::Cpu).unwrap();
        let found = percent_correct(&*network, &x, &y);
        // 91.73 on 10000 images; three deviations of 1017 images are 2.6 points.
        assert!((found - 91.73).abs() < 2.6, "{found}");
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn the_papers_checkpoint_gives_the_golden_logits() {
        let path = shared("models/wrn-10-1-swish.weights-best.pt");
        let network = load_network(&path, None, "cifar10", Device::Cpu).unwrap();
        assert_eq!(network.spec().arch, "wrn-10-1-swish");
        let goldens = Tensor::read_safetensors(shared("golden/classifiers.safetensors")).unwrap();
        let golden = goldens.iter().find(|(name, _)| name == "wrn-10-1-swish.cifar10.logits");
        let x = formula::images(&[4, 3, 32, 32], 0.0, 1.0, Device::Cpu);
        assert!(network.logits(&x).allclose(&golden.unwrap().1, 1e-4, 1e-5, false));
    }

    #[test]
    #[ignore = "needs GAUNTLET_SHARED"]
    fn an_edm_pickle_gives_the_golden_image_and_survives_saving() {
        let denoiser = load_denoiser(&shared("models/tiny-ddpmpp-edm.pkl"), Device::Cpu).unwrap();
        let goldens = Tensor::read_safetensors(shared("golden/diffusion.safetensors")).unwrap();
        let golden = goldens.iter().find(|(name, _)| name == "tiny-ddpmpp.edm.denoised");
        let sigma = Tensor::from_slice(&[0.02f32, 1.5, 40.0]);
        let x = formula::images(&[3, 3, 32, 32], -1.0, 1.0, Device::Cpu)
            * (&sigma + 1.0).view([-1, 1, 1, 1]);
        let label = Tensor::eye(10, (Kind::Float, Device::Cpu)).narrow(0, 0, 3);
        let image = denoiser.denoise(&x, &sigma, Some(&label));
        assert!(image.allclose(&golden.unwrap().1, 1e-4, 1e-5, false));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("denoiser.safetensors");
        save_denoiser(&path, &denoiser).unwrap();
        let again = load_denoiser(&path, Device::Cpu).unwrap();
        assert!(again.denoise(&x, &sigma, Some(&label)).equal(&image));
        let error = load_classifier(&path, None, "cifar10", Device::Cpu).err().unwrap();
        assert!(error.to_string().contains("holds a denoiser"), "{error}");
    }

    #[test]
    fn saved_classifiers_need_nothing_else_to_load() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("classifier.safetensors");
        let (arch, dataset) = ("wrn-10-1".to_owned(), "cifar100".to_owned());
        let spec = ClassifierSpec { arch, dataset, classes: 100 };
        let network = Network::new(&spec, 4, Device::Cpu).unwrap();
        save_classifier(&path, &network).unwrap();
        let again = load_network(&path, None, "cifar10", Device::Cpu).unwrap();
        assert_eq!(again.spec(), &spec);
        let x = formula::images(&[2, 3, 32, 32], 0.0, 1.0, Device::Cpu);
        assert!(again.logits(&x).equal(&network.logits(&x)));
        let wrong = load_network(&path, Some("resnet20"), "cifar10", Device::Cpu).unwrap_err();
        let wrong = wrong.to_string();
        for part in ["classifier.safetensors", "as resnet20", "missing", "unexpected"] {
            assert!(wrong.contains(part), "{wrong}");
        }
    }

    #[test]
    fn files_that_are_no_networks_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pt");
        for bytes in [&b""[..], b"not a network", b"PK\x03\x04 cut short"] {
            std::fs::write(&path, bytes).unwrap();
            let error = load_classifier(&path, None, "cifar10", Device::Cpu).err().unwrap();
            assert!(error.to_string().contains("x.pt"), "{error}");
        }
        let missing = folder.path().join("missing.pt");
        let error = load_denoiser(&missing, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("missing.pt"), "{error}");
    }
}
