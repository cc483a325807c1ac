//! `gauntlet quality`: everything about one generated set.

use std::{fs, path::PathBuf};

use crate::{
    cli::{bar::Bar, contact, fid::extractor},
    data::{Dataset, find, generated, spec::Split},
    device,
    diffusion::{
        duplicates::Twin,
        fid::Moments,
        quality::{self, Judged, Quality},
        spec::QualitySpec,
    },
    error::{AtPath, Error, Result},
    formats::write_atomically,
};

/// Judges a generated set: FID, precision and recall, density and coverage, class balance, near
/// duplicates of training and test images; with `--out` also sample grids.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  gauntlet quality set.npz --data cifar10 --data-dir ~/data --out quality/
  gauntlet quality set.npz --data cifar10 --inception inception-2015-12-05.pt \\
      --reference cifar10-32x32.npz --images 50000

`--out` gets quality.json, samples.png (a class to a line) and duplicates.png (each generated image
beside the training image that is nearest to it, the most suspicious first). An image is suspicious
when its distance to the nearest real one is below half of the mean to the fifty nearest (Carlini et
al. 2023); that share among test images says what is usual.")]
pub struct Args {
    /// The set: an .npz file or a folder of parts.
    set: PathBuf,
    /// The data set it is made for.
    #[arg(long, value_name = "NAME", default_value = "cifar10")]
    data: String,
    /// Where the data sets lie.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// How many images are looked at, from the first.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    images: u64,
    /// Inception network as TorchScript (`inception-2015-12-05.pt`). Without it, features are
    /// those of fixed random filters: good for comparing sets here, not with published numbers.
    #[arg(long, value_name = "FILE")]
    inception: Option<PathBuf>,
    /// Statistics of the real images (.npz with `mu` and `sigma`) [default: computed].
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Nearest neighbours that make a ball (Naeem et al. 2020).
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    neighbours: u8,
    /// Do not seek near duplicates.
    #[arg(long)]
    no_duplicates: bool,
    /// Where to compute features: auto, cpu, cuda, cuda:N.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,
    /// A folder for the numbers and the pictures.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Prints the numbers as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If a set or a network cannot be read, or they do not go together.
pub fn run(args: &Args) -> Result<()> {
    device::load_cuda();
    let roots = find::roots(args.data_dir.as_deref());
    let blank = generated::read_unnamed(&args.set)?;
    let resolution = if args.data == "synthetic" { blank.size.0 as u64 } else { 0 };
    let load = |split| find::load(&args.data, split, resolution, &roots);
    let (train, test) = (load(Split::Train)?, load(Split::Test)?);
    let set = generated::read(&args.set, "generated", &train.classes)?;
    let extractor = extractor(args.inception.as_deref(), &args.device)?;
    let reference = args.reference.as_deref().map(Moments::read).transpose()?;
    let source = |split| crate::data::spec::Source {
        name: args.data.clone(),
        split,
        skip: 0,
        count: None,
        resolution,
        fingerprint: String::new(),
    };
    let spec = QualitySpec {
        train: source(Split::Train),
        test: source(Split::Test),
        inception: args.inception.as_deref().map(crate::digest::hash_file).transpose()?,
        reference: args.reference.as_deref().map(crate::digest::hash_file).transpose()?,
        images: args.images,
        neighbours: u64::from(args.neighbours),
        duplicates: !args.no_duplicates,
    };
    let parts = [set];
    let judged =
        Judged { parts: &parts, train: &train, test: &test, reference: reference.as_ref() };
    let found = quality::judge(&spec, &judged, &extractor, &Bar::new()?)?;
    if let Some(folder) = &args.out {
        fs::create_dir_all(folder).at(folder)?;
        let text = serde_json::to_string_pretty(&found).map_err(Error::input)?;
        write_atomically(&folder.join("quality.json"), |file| {
            std::io::Write::write_all(file, text.as_bytes())
        })?;
        contact::write(&contact::by_class(&parts[0]), &folder.join("samples.png"))?;
        if let Some(copies) = found.duplicates.first() {
            let pairs = pairs(&parts[0], &train, &copies.closest);
            contact::write(&pairs, &folder.join("duplicates.png"))?;
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found).map_err(Error::input)?);
    } else {
        say(&found, &train);
        if let Some(folder) = &args.out {
            println!("written to {}", folder.display());
        }
    }
    Ok(())
}

fn say(found: &Quality, train: &Dataset) {
    println!("{} images; {}", found.images, found.features);
    let error = found.fid_error.map(|error| format!(", standard error {error:.4}"));
    println!("fid        {:.4}{}", found.fid, error.unwrap_or_default());
    println!("precision  {:.4}", found.coverage.precision);
    println!("recall     {:.4}", found.coverage.recall);
    println!("density    {:.4}", found.coverage.density);
    println!("coverage   {:.4}", found.coverage.coverage);
    let counts = found.classes.iter();
    let (least, most) = (counts.clone().min().copied(), counts.max().copied());
    println!(
        "classes    {} of {} to {} images each",
        train.classes.len(),
        least.unwrap_or(0),
        most.unwrap_or(0)
    );
    for one in &found.duplicates {
        println!(
            "near duplicates: {} of {} {} images in {}",
            one.suspects, one.images, one.of, one.among
        );
    }
    if let Some(twin) = found.duplicates.first().and_then(|one| one.closest.first()) {
        println!(
            "closest    image {} and training image {}{}: pixels differ by {:.4}, ratio {:.2}",
            twin.image,
            twin.nearest,
            if twin.mirrored { " mirrored" } else { "" },
            twin.distance,
            twin.ratio
        );
    }
}

/// Pairs side by side, each generated image left of its real one, three pairs to a line.
fn pairs(set: &Dataset, real: &Dataset, twins: &[Twin]) -> image::RgbImage {
    const LINE: usize = 3;
    let (height, width) = set.size;
    let (cell, gap) = (2 * width + 12, 4);
    let lines = twins.len().div_ceil(LINE).max(1);
    let mut sheet = contact::blank(LINE * cell, lines * (height + gap));
    for (at, twin) in twins.iter().enumerate() {
        let (left, top) = (at % LINE * cell, at / LINE * (height + gap));
        contact::put(&mut sheet, set, twin.image, (left, top));
        contact::put(&mut sheet, real, twin.nearest, (left + width + 2, top));
    }
    sheet
}
