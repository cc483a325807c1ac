//! `gauntlet fid`: how far two sets of images are apart.

use std::path::{Path, PathBuf};

use tch::Device;

use crate::{
    data::{Dataset, find, spec::Split},
    diffusion::{
        features::Extractor,
        fid::{self, Statistics},
        neighbours,
    },
    error::{Error, Result},
};

/// Images whose features are held at once.
const CHUNK: usize = 1000;
/// Neighbours that make a ball (Naeem et al. 2020).
const NEIGHBOURS: i64 = 5;
/// Images of each set that nearest neighbours are sought among.
const COMPARED: usize = 10_000;

/// Compares two sets of images: Fréchet distance, precision, recall, density, coverage.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The real images: an .npz file, a folder of class folders, or the name of a data set.
    a: String,
    /// The generated images.
    b: String,
    /// Inception network as TorchScript (`inception-2015-12-05.pt`). Without it, features are
    /// those of fixed random filters: good for comparing sets here, not with published numbers.
    #[arg(long)]
    inception: Option<PathBuf>,
    /// Edge length at which `synthetic` is drawn.
    #[arg(long, default_value_t = 16)]
    resolution: u64,
    /// Where the data sets lie.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// The GPU's number; the CPU unless given.
    #[arg(long)]
    gpu: Option<usize>,
}

/// Runs `gauntlet fid`.
///
/// # Errors
/// If a set cannot be read, or the two do not go together.
pub fn run(args: &Args) -> Result<()> {
    let device = args.gpu.map_or(Device::Cpu, Device::Cuda);
    let (a, b) = (load(args, &args.a)?, load(args, &args.b)?);
    if a.size != b.size {
        return Err(Error::input(format!(
            "{} has images of {:?} pixels, {} of {:?}: expected one size",
            args.a, a.size, args.b, b.size
        )));
    }
    let extractor = match &args.inception {
        Some(path) => Extractor::inception(path, device)?,
        None => Extractor::filters(device),
    };
    let distance = fid::distance(&moments(&extractor, &a)?, &moments(&extractor, &b)?);
    let some = |data: &Dataset| {
        extractor.features(data, &(0..data.len().min(COMPARED)).collect::<Vec<_>>())
    };
    let seen = neighbours::coverage(&some(&a)?, &some(&b)?, NEIGHBOURS)?;
    println!("{}; {} and {} images", extractor.name(), a.len(), b.len());
    println!("fid        {distance:.4}");
    println!("precision  {:.4}", seen.precision);
    println!("recall     {:.4}", seen.recall);
    println!("density    {:.4}", seen.density);
    println!("coverage   {:.4}", seen.coverage);
    Ok(())
}

fn load(args: &Args, name: &str) -> Result<Dataset> {
    if Path::new(name).extension().is_some_and(|extension| extension == "npz") {
        return crate::data::generated::read_unnamed(Path::new(name));
    }
    let roots = find::roots(args.data_dir.as_deref());
    // The official distance is to the training images.
    let resolution = match name {
        "synthetic" => args.resolution,
        _ => 0,
    };
    find::load(name, Split::Train, resolution, &roots)
}

fn moments(extractor: &Extractor, data: &Dataset) -> Result<fid::Moments> {
    let mut statistics: Option<Statistics> = None;
    let indices: Vec<usize> = (0..data.len()).collect();
    for indices in indices.chunks(CHUNK) {
        let features = extractor.features(data, indices)?;
        statistics.get_or_insert_with(|| Statistics::new(features.size()[1])).push(&features);
    }
    statistics.unwrap_or_else(|| Statistics::new(1)).finish()
}
