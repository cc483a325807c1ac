//! `gauntlet fid`: how far two sets of images are apart.

use std::path::{Path, PathBuf};

use crate::{
    cli::bar::Bar,
    data::{Dataset, find, spec::Split},
    device,
    diffusion::{
        features::Extractor,
        fid::{self, Moments},
        neighbours, quality,
    },
    error::{Error, Result},
};

/// Images of each set that nearest neighbours are sought among.
const COMPARED: usize = 10_000;

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
enum Side {
    Images(Dataset),
    Statistics(Moments),
}

/// Runs `gauntlet fid`.
///
/// # Errors
/// If a set cannot be read, or the two do not go together.
pub fn run(args: &Args) -> Result<()> {
    device::load_cuda();
    let extractor = extractor(args.inception.as_deref(), &args.device)?;
    let bar = Bar::new()?;
    let moments = |name: &str, side: &Side| match side {
        Side::Statistics(moments) => Ok(moments.clone()),
        Side::Images(data) => quality::moments(&extractor, data, name, &bar),
    };
    let a = side(args, &args.a)?;
    let of_a = moments(&args.a, &a)?;
    if let Some(path) = &args.save {
        of_a.write(path)?;
        println!("{}: statistics of {} by {}", path.display(), args.a, extractor.name());
    }
    let Some(name) = &args.b else { return Ok(()) };
    let b = side(args, name)?;
    let of_b = moments(name, &b)?;
    of_a.like(&of_b)?;
    let distance = fid::distance(&of_a, &of_b);
    let mut said = serde_json::json!({ "features": extractor.name(), "fid": distance });
    if let (Side::Images(a), Side::Images(b)) = (&a, &b) {
        if a.size != b.size {
            return Err(Error::input(format!(
                "{} has images of {:?} pixels, {name} of {:?}: expected one size",
                args.a, a.size, b.size
            )));
        }
        let some = |data: &Dataset| {
            extractor.features(data, &(0..data.len().min(COMPARED)).collect::<Vec<_>>())
        };
        let seen = neighbours::coverage(&some(a)?, &some(b)?, i64::from(args.neighbours))?;
        said["images"] = serde_json::json!([a.len(), b.len()]);
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
    let count = |side: &Side| match side {
        Side::Images(data) => format!("{} images", data.len()),
        Side::Statistics(_) => "statistics".to_owned(),
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

fn side(args: &Args, name: &str) -> Result<Side> {
    let path = Path::new(name);
    if Moments::are_in(path) {
        return Ok(Side::Statistics(Moments::read(path)?));
    }
    if path.extension().is_some_and(|extension| extension == "npz") {
        return Ok(Side::Images(crate::data::generated::read_unnamed(path)?));
    }
    let roots = find::roots(args.data_dir.as_deref());
    // The official distance is to the training images.
    let resolution = match name {
        "synthetic" => args.resolution,
        _ => 0,
    };
    Ok(Side::Images(find::load(name, Split::Train, resolution, &roots)?))
}
