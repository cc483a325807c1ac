//! `gauntlet fid`: how far two sets of images are apart.

use std::path::{Path, PathBuf};

use tch::Tensor;

use crate::{
    cli::bar::Bar,
    data::{find, generated, spec::Split},
    device,
    diffusion::{
        features::Extractor,
        fid::{self, Moments},
        neighbours, quality,
    },
    error::{Error, Result},
};

/// Compares two sets of images: Fréchet distance, precision, recall, density, coverage.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  gauntlet fid cifar10 set.npz
  gauntlet fid cifar10-32x32.npz set.npz --inception inception-2015-12-05.pt
  gauntlet fid cifar10 --inception inception-2015-12-05.pt --save cifar10-reference.npz

Sets: an .npz file of images, an .npz file of statistics (`mu`, `sigma`, as published ones are), a
folder of class folders, or the name of a data set (its training images). The distance falls with
the number of images: compare sets of equal size; published ones have 50,000.
`gauntlet quality` says more about one set.")]
pub struct Args {
    /// The real images, or their statistics.
    a: String,
    /// The generated images.
    #[arg(required_unless_present = "save")]
    b: Option<String>,
    /// Inception network as TorchScript (`inception-2015-12-05.pt`). Without it, features are
    /// those of fixed random filters: good for comparing sets here, not with published numbers.
    #[arg(long, value_name = "FILE")]
    inception: Option<PathBuf>,
    /// Writes the statistics of A, to be given as A later.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Nearest neighbours that make a ball (Naeem et al. 2020).
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    neighbours: u8,
    /// Edge length at which `synthetic` is drawn.
    #[arg(long, default_value_t = 16)]
    resolution: u64,
    /// Where the data sets lie.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda, cuda:N.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// One side of the comparison.
struct Side {
    moments: Moments,
    /// `None` where only statistics are known.
    images: Option<Images>,
}

/// Images that a side consists of.
struct Images {
    size: (usize, usize),
    count: usize,
    /// Of the first of them, `[n,d]`.
    features: Tensor,
}

/// Runs `gauntlet fid`.
///
/// # Errors
/// If a set cannot be read, or the two do not go together.
pub fn run(args: &Args) -> Result<()> {
    device::load_cuda();
    let extractor = extractor(args.inception.as_deref(), &args.device)?;
    let bar = Bar::new()?;
    let a = side(args, &extractor, &args.a, &bar)?;
    bar.finish();
    if let Some(path) = &args.save {
        a.moments.write(path)?;
        println!("{}: statistics of {} by {}", path.display(), args.a, extractor.name());
    }
    let Some(name) = &args.b else { return Ok(()) };
    let b = side(args, &extractor, name, &bar)?;
    bar.finish();
    a.moments.like(&b.moments)?;
    let distance = fid::distance(&a.moments, &b.moments);
    let mut said = serde_json::json!({ "features": extractor.name(), "fid": distance });
    if let (Some(of_a), Some(of_b)) = (&a.images, &b.images) {
        if of_a.size != of_b.size {
            return Err(Error::input(format!(
                "{} has images of {:?} pixels, {name} of {:?}: expected one size",
                args.a, of_a.size, of_b.size
            )));
        }
        let seen =
            neighbours::coverage(&of_a.features, &of_b.features, i64::from(args.neighbours))?;
        said["images"] = serde_json::json!([of_a.count, of_b.count]);
        for (key, value) in [
            ("precision", seen.precision),
            ("recall", seen.recall),
            ("density", seen.density),
            ("coverage", seen.coverage),
        ] {
            said[key] = value.into();
        }
    }
    if args.json {
        println!("{said:#}");
        return Ok(());
    }
    let count = |side: &Side| match &side.images {
        Some(images) => format!("{} images", images.count),
        None => "statistics".to_owned(),
    };
    println!("{}; {} and {}", extractor.name(), count(&a), count(&b));
    for key in ["fid", "precision", "recall", "density", "coverage"] {
        if let Some(value) = said[key].as_f64() {
            println!("{key:<10} {value:.4}");
        }
    }
    Ok(())
}

/// The features that a command compares by.
pub(super) fn extractor(inception: Option<&Path>, device: &str) -> Result<Extractor> {
    let device = device::choose(device)?;
    match inception {
        Some(path) => Extractor::inception(path, device),
        None => Ok(Extractor::filters(device)),
    }
}

fn side(args: &Args, extractor: &Extractor, name: &str, bar: &Bar) -> Result<Side> {
    let path = Path::new(name);
    if Moments::are_in(path) {
        return Ok(Side { moments: Moments::read(path)?, images: None });
    }
    let data = if path.extension().is_some_and(|extension| extension == "npz") {
        generated::read_unnamed(path)?
    } else {
        // The official distance is to the training images.
        let resolution = if name == "synthetic" { args.resolution } else { 0 };
        find::load(name, Split::Train, resolution, &find::roots(args.data_dir.as_deref()))?
    };
    let seen = quality::look(extractor, &data, name, bar)?;
    let images = Images { size: data.size, count: data.len(), features: seen.first };
    Ok(Side { moments: seen.moments, images: Some(images) })
}
