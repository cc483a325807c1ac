//! `gauntlet collect`: sets into one, as published; labels and selection by a classifier.

use std::{fs, path::PathBuf};

use crate::{
    cli::bar::Bar,
    data::generated,
    device,
    diffusion::{
        label,
        spec::{LabelBy, LabelSpec},
    },
    error::{AtPath, Result},
    net::{
        Classifier,
        load::{Told, load_told},
    },
};

/// Joins generated sets into one, sorted by class as published; keeps the best by a classifier.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  gauntlet collect part0.npz part1.npz --out set.npz
  gauntlet collect 5m.npz --classifier wrn-28-10.pt --count 1000000 --balance --out 1m.npz
  gauntlet collect unconditional.npz --classifier wrn.pt --relabel --confidence 0.8 --out set.npz

Images are mapped, not loaded: only labels and confidences are held in memory. The set also says
of each image where it stood (`index`) and how confident the classifier was (`confidence`). With
--soft it holds how probable each class is (`soft`), which `train --generated` then aims at.")]
pub struct Args {
    /// The sets (.npz), in order.
    #[arg(required = true)]
    sets: Vec<PathBuf>,
    /// How many images are kept, the most confident ones of each class [default: all].
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// A classifier that says how sure it is of each image's class.
    #[arg(long, value_name = "FILE")]
    classifier: Option<PathBuf>,
    /// Its architecture, where the file does not say (and normalisation: resnet18@MEAN/DEVIATION).
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// Which of its sets of weights, where its file holds several; `gauntlet inspect` lists them.
    #[arg(long, value_name = "NAME", requires = "classifier")]
    weights: Option<String>,
    /// The data set whose head and normalisation it has.
    #[arg(long, value_name = "NAME", default_value = "cifar10")]
    data: String,
    /// Take the classifier's label in place of the set's.
    #[arg(long, requires = "classifier")]
    relabel: bool,
    /// Take how probable the classifier finds each class in place of the set's label: adds `soft`,
    /// which training follows.
    #[arg(long, requires = "classifier", conflicts_with = "relabel")]
    soft: bool,
    /// Drop images whose label the classifier gives less than this probability.
    #[arg(long, value_name = "P", default_value_t = 0.0, requires = "classifier")]
    confidence: f64,
    /// Keep the same number of every class.
    #[arg(long)]
    balance: bool,
    /// Where to compute: auto, cpu, cuda, cuda:N.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    device: String,
    /// The .npz file to write.
    #[arg(long)]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// If a set or the classifier cannot be read, they do not go together, or there are too few images.
pub fn run(args: &Args) -> Result<()> {
    device::load_cuda();
    let device = device::choose(&args.device)?;
    let parts =
        args.sets.iter().map(|set| generated::read_unnamed(set)).collect::<Result<Vec<_>>>()?;
    let classifier = match &args.classifier {
        Some(path) => {
            let told = Told {
                arch: args.arch.as_deref(),
                dataset: &args.data,
                weights: args.weights.as_deref(),
            };
            let (height, width) = parts.first().map_or((32, 32), |part| part.size);
            let classifier = load_told(path, told, (height as i64, width as i64), device)?;
            super::say_network(&*classifier);
            Some(classifier)
        }
        None => None,
    };
    let seen = parts.iter().map(|part| part.classes.len() as i64).max().unwrap_or(0);
    let spec = LabelSpec {
        by: match (args.soft, args.relabel) {
            (true, _) => LabelBy::Soft,
            (false, true) => LabelBy::Classifier,
            (false, false) => LabelBy::Condition,
        },
        classes: classifier.as_ref().map_or(seen, |classifier| classifier.classes()),
        confidence: args.confidence,
        balance: args.balance,
        count: args.count,
        arch: args.arch.clone(),
        dataset: args.data.clone(),
    };
    let mut work = args.out.clone().into_os_string();
    work.push(".work");
    let work = PathBuf::from(work);
    // The verdicts are of one classifier on these sets.
    let mut hasher = String::new();
    for file in args.sets.iter().chain(&args.classifier) {
        hasher.push_str(&crate::digest::hash_file(file)?);
    }
    hasher.push_str(args.weights.as_deref().unwrap_or_default());
    let verdicts = work.join(&crate::digest::hash_bytes(hasher.as_bytes())[..16]);
    fs::create_dir_all(&verdicts).at(&verdicts)?;
    let judge = classifier.as_deref().map(|classifier| (classifier as &dyn Classifier, device));
    let done = label::run(&spec, &parts, judge, &verdicts, &verdicts, &Bar::new()?)?;
    fs::rename(&done.file, &args.out).at(&args.out)?;
    fs::remove_dir_all(&work).at(&work)?;
    println!("{}: {} of {} images", args.out.display(), done.count, done.drawn);
    println!("per class  {:?}", done.classes);
    if done.unsure > 0 {
        println!("{} images below the confidence asked for", done.unsure);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::npz;

    #[test]
    fn sets_are_joined_and_sorted_by_class() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        npz::write_images(&path("a.npz"), (1, 1), &[1, 1, 1, 2, 2, 2], &[1, 0]).unwrap();
        npz::write_images(&path("b.npz"), (1, 1), &[3, 3, 3, 4, 4, 4], &[0, 2]).unwrap();
        let args = Args {
            sets: vec![path("a.npz"), path("b.npz")],
            count: None,
            classifier: None,
            arch: None,
            weights: None,
            data: "cifar10".to_owned(),
            relabel: false,
            soft: false,
            confidence: 0.0,
            balance: false,
            device: "cpu".to_owned(),
            out: path("all.npz"),
        };
        run(&args).unwrap();
        let set = generated::read_unnamed(&path("all.npz")).unwrap();
        assert_eq!(set.labels, [0, 0, 1, 2]);
        assert_eq!([0, 1, 2, 3].map(|index| set.image(index)[0]), [2, 3, 1, 4]);
    }
}
