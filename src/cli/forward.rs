//! `gauntlet forward`: what a network file computes, for checking it against another program.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use tch::{Kind, Tensor};

use crate::{
    device,
    error::{Error, Result},
    net::{
        Classifier, Denoiser,
        load::{self, Loaded, Told},
        tensors::{self, Named},
    },
};

/// Runs a network on given inputs and writes what it gives.
///
/// A classifier takes the tensor `x` (images [n,3,h,w] in [0,1]) and gives `logits`; a denoiser
/// takes `x` (pixels in [-1,1] plus noise), `sigma` ([n] or [1]) and optionally the one-hot
/// `label` [n,k], and gives `denoised`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// TorchScript program, torch checkpoint, EDM pickle or safetensors file.
    file: PathBuf,
    /// Inputs: safetensors, .npz or any other file of named arrays.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the result goes, as safetensors.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Architecture, where names and shapes in the file do not tell it (`wrn-28-10`), and the
    /// normalisation where the file holds none: `resnet18@MEAN/DEVIATION`, each one number or three.
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Data set whose head and normalisation the network has, where the file does not say.
    #[arg(long, value_name = "NAME", default_value = "cifar10")]
    dataset: String,
    /// Which of several sets of weights (`unaveraged_model_state_dict`, an EDM pickle's `net`)
    /// instead of the averaged ones; `gauntlet inspect` lists them.
    #[arg(long, value_name = "NAME")]
    weights: Option<String>,
    /// `cpu`, `cuda`, `cuda:1`, ...
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    device: String,
    /// Images in one forward pass.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    batch: i64,
}

/// Runs the command.
///
/// # Errors
/// If a file is bad, or the inputs do not suit the network.
pub fn run(args: &Args) -> Result<()> {
    if args.device != "cpu" {
        device::load_cuda();
    }
    let device = device::choose(&args.device)?;
    let (inputs, _) = tensors::read(&args.input, device)?;
    let told = Told {
        arch: args.arch.as_deref(),
        dataset: &args.dataset,
        weights: args.weights.as_deref(),
    };
    let loaded = load::load_any(&args.file, told, device)?;
    let _guard = tch::no_grad_guard();
    let (name, result) = match loaded {
        Loaded::Classifier(network) => {
            super::say_network(&*network);
            ("logits", logits(args, &inputs, &*network)?)
        }
        Loaded::Denoiser(network) => ("denoised", denoised(args, &inputs, &*network)?),
    };
    tensors::write(&args.out, &[(name.to_owned(), result)], &[])
}

fn logits(args: &Args, inputs: &Named, network: &dyn Classifier) -> Result<Tensor> {
    let x = images(inputs, &args.input)?;
    let batches: Vec<_> = x.split(args.batch, 0).iter().map(|x| network.logits(x)).collect();
    Ok(Tensor::cat(&batches, 0))
}

fn denoised(args: &Args, inputs: &Named, network: &dyn Denoiser) -> Result<Tensor> {
    let path = &args.input;
    let x = images(inputs, path)?;
    let count = x.size()[0];
    let shape = network.shape();
    if x.size()[1..] != shape {
        let found = x.size();
        return Err(wrong(path, &format!("`x` is {found:?}, but the denoiser takes {shape:?}")));
    }
    let sigma = inputs.get("sigma").ok_or_else(|| wrong(path, "a denoiser needs `sigma`"))?;
    if !matches!(sigma.numel() as i64, n if n == 1 || n == count) {
        return Err(wrong(path, &format!("`sigma` must be [1] or [{count}]")));
    }
    let label = inputs.get("label");
    if label.is_some_and(|label| label.size() != [count, network.classes()]) {
        let classes = network.classes();
        return Err(wrong(path, &format!("`label` must be one-hot, [{count}, {classes}]")));
    }
    let sigma = sigma.to_kind(Kind::Float).flatten(0, -1).expand([count], false);
    let batches: Vec<_> = (0..count)
        .step_by(args.batch as usize)
        .map(|start| {
            let part = |tensor: &Tensor| tensor.narrow(0, start, args.batch.min(count - start));
            network.denoise(&part(&x), &part(&sigma), label.map(part).as_ref())
        })
        .collect();
    Ok(Tensor::cat(&batches, 0))
}

/// The tensor `x`, `Float`.
fn images(inputs: &Named, path: &Path) -> Result<Tensor> {
    let names: Vec<_> = inputs.keys().collect();
    let x = inputs.get("x").ok_or_else(|| wrong(path, &format!("no tensor `x` in {names:?}")))?;
    match x.size()[..] {
        [count, _, _, _] if count > 0 && x.is_floating_point() => Ok(x.to_kind(Kind::Float)),
        _ => Err(wrong(path, "`x` must hold real images [n,c,h,w]")),
    }
}

fn wrong(path: &Path, message: &str) -> Error {
    Error::in_file(path, message)
}
