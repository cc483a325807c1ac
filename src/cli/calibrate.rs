//! `gauntlet calibrate`: what this machine does in a second.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use tch::{Device, Kind, Tensor};

use crate::{
    cli::{plan::CALIBRATION, terminal::print},
    device,
    error::{AtPath, Result},
    net::{
        Denoiser, Mode,
        classifier::Network,
        denoiser::DenoiserNet,
        spec::{ClassifierSpec, DenoiserArch, DenoiserSpec, Precond},
    },
    plan::Calibration,
};

/// Measures this machine for some seconds, so that `plan` can say how long a suite takes here.
///
/// Times a classifier (forwards and backwards, one core or one GPU) and a denoiser. The result is
/// kept in the store; `plan` and `run` use it from then on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The store that keeps the result.
    #[arg(long, default_value = ".gauntlet", env = "GAUNTLET_STORE")]
    store: PathBuf,
    /// cpu, cuda, cuda:N, or auto.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Time given to each of the two measurements.
const EACH: Duration = Duration::from_millis(1500);

/// Runs the command.
///
/// # Errors
/// If the device does not answer or the store cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    device::load_cuda();
    let place = device::choose(&args.device)?;
    device::set_threads(1);
    let name = match place {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    };
    let calibration = Calibration {
        device: name,
        classifier: classifier(place)?,
        denoiser: denoiser(place)?,
        // Loading libtorch and reading images; the rest of a job is arithmetic.
        start: 1.5,
    };
    fs::create_dir_all(&args.store).at(&args.store)?;
    let path = args.store.join(CALIBRATION);
    let text = serde_json::to_string_pretty(&calibration).expect("numbers are JSON");
    fs::write(&path, &text).at(&path)?;
    if args.json {
        print(&serde_json::to_string(&calibration).expect("numbers are JSON"));
    } else {
        let Calibration { device, classifier, denoiser, .. } = &calibration;
        let unit = if device == "cpu" { "one core" } else { device };
        print(&format!(
            "{unit}: {classifier:.1} GMAC/s for classifiers, {denoiser:.1} for denoisers \
             (measured in {:.1} s; kept in {})",
            started.elapsed().as_secs_f64(),
            path.display()
        ));
    }
    Ok(())
}

/// Repeats `step` until [`EACH`] has passed; gives the mean seconds, the first two not counted.
fn seconds(mut step: impl FnMut() -> f64) -> f64 {
    for _ in 0..2 {
        step();
    }
    let (started, mut count) = (Instant::now(), 0);
    while count == 0 || started.elapsed() < EACH {
        // Reading a number back waits for a GPU.
        assert!(step().is_finite(), "a calibration step gave no number");
        count += 1;
    }
    started.elapsed().as_secs_f64() / f64::from(count)
}

fn classifier(device: Device) -> Result<f64> {
    let spec = ClassifierSpec {
        arch: "wrn-10-2-swish".to_owned(),
        dataset: "cifar10".to_owned(),
        classes: 10,
    };
    let network = Network::new(&spec, 0, device)?;
    let batch = if device.is_cuda() { 512 } else { 32 };
    let x = Tensor::rand([batch, 3, 32, 32], (Kind::Float, device));
    let time = seconds(|| {
        let loss = network.forward(&x, Mode::Train { momentum: 0.01 }).square().mean(Kind::Float);
        loss.backward();
        loss.double_value(&[])
    });
    // Forwards and backwards are three passes.
    Ok(3.0 * batch as f64 * crate::plan::classifier_gmacs(&spec, 32) / time)
}

fn denoiser(device: Device) -> Result<f64> {
    let spec = DenoiserSpec {
        arch: DenoiserArch::Ddpmpp,
        precond: Precond::Edm,
        resolution: 32,
        classes: 10,
        channels: 32,
        channel_mult: vec![1, 2],
        blocks: 1,
        attention: Vec::new(),
        augment_dim: 0,
    };
    let network = DenoiserNet::new(&spec, 0, device)?.frozen();
    let batch = if device.is_cuda() { 256 } else { 16 };
    let x = Tensor::rand([batch, 3, 32, 32], (Kind::Float, device));
    let sigma = Tensor::ones([1], (Kind::Float, device));
    let label = Tensor::zeros([batch, 10], (Kind::Float, device));
    let time = seconds(|| {
        let denoised = network.denoise(&x, &sigma, Some(&label));
        denoised.mean(Kind::Float).double_value(&[])
    });
    Ok(batch as f64 * crate::plan::denoiser_gmacs(&spec) / time)
}
