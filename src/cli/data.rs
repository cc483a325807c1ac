//! `gauntlet data`: what image sets are here, whether they are whole, how they look, and fetching
//! them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    cli::{bar::Bar, contact, data_list, data_verify, terminal},
    data::{
        catalog::{self, ENTRIES, Entry, GENERATED},
        fetch::{self, Patience},
        find,
        spec::Split,
    },
    error::{AtPath, Error, Result},
    formats::{
        archive::Archive,
        bytes::Bytes,
        in_file,
        shelf::{Shelf, is_archive},
    },
};

/// Lists, checks, shows and fetches image sets.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gauntlet data list --data-dir ~/data       what is there, whole or short, known checksums
  gauntlet data verify cifar10               MD5 sums of the files against the published ones
  gauntlet data show cifar10-jpeg.tar.xz     contact-sheet.png and the images of each class
  gauntlet data fetch cifar10 svhn           download from the official addresses
  gauntlet data fetch cifar10-edm-1m         generated images of the paper (3 GB)
  gauntlet data fetch cifar10 --from http://mirror.example/cifar/

Sets: cifar10, cifar100, cifar100-coarse, svhn, svhn-extra, tiny-imagenet, cifar10.1,
cifar10-c/NAME/SEVERITY, cifar100-c/NAME/SEVERITY, synthetic, or the path of a folder of class
folders (JPEG, PNG), of an archive of one (.zip, .tar, .tar.gz, .tar.xz), or of an .npz file.

Image folders, and .npz files sorted by class, are taken by turns of their classes, so that any
first N images hold all classes alike; other sets keep their published order.

Generated sets to fetch: cifar10-edm-1m (5m, 10m, 20m, 50m), cifar100-edm-1m (50m), svhn-edm-1m
(50m), tiny-imagenet-edm-1m, cifar10-ddpm, cifar100-ddpm, svhn-ddpm. Name their file or folder in
`generated.file` or `train --generated`: they are used where they lie.

Sets that take long to decode are kept decoded in GAUNTLET_CACHE (~/.cache/gauntlet).")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Says what is there, whole or short, and the known checksums.
    List {
        #[command(flatten)]
        place: Where,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Reads the sets and compares checksums with the published ones.
    Verify {
        /// Only these sets.
        sets: Vec<String>,
        #[command(flatten)]
        place: Where,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Writes a contact sheet and counts the images of each class.
    Show {
        /// The set.
        set: String,
        /// Which half.
        #[arg(long, value_enum, default_value = "train")]
        split: Half,
        /// The picture.
        #[arg(long, default_value = "contact-sheet.png", value_name = "PNG")]
        out: PathBuf,
        #[command(flatten)]
        place: Where,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Downloads sets from their official addresses; interrupted downloads go on where they were.
    Fetch {
        /// The sets.
        #[arg(required = true)]
        sets: Vec<String>,
        /// Another address: of the file, or of the folder (ending in /) that holds the set's files.
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        #[command(flatten)]
        place: Where,
    },
}

#[derive(Debug, clap::Args)]
struct Where {
    /// Folder with the image sets; else GAUNTLET_DATA, else ./data.
    #[arg(long, visible_alias = "data", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Half {
    Train,
    Test,
}

/// Runs the command.
///
/// # Errors
/// Whatever is wrong with arguments, files or the network. `verify` fails if anything differs.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::List { place, json } => data_list::list(&roots(place)?, *json),
        Command::Verify { sets, place, json } => data_verify::verify(sets, &roots(place)?, *json),
        Command::Show { set, split, out, place, json } => {
            let split = match split {
                Half::Train => Split::Train,
                Half::Test => Split::Test,
            };
            let roots = find::roots(place.data_dir.as_deref());
            show(set, split, out, &roots, *json)
        }
        Command::Fetch { sets, from, place } => {
            fetch_sets(sets, from.as_deref(), &find::roots(place.data_dir.as_deref()))
        }
    }
}

/// The folders to search, all of which must be there and readable: they must not look empty.
fn roots(place: &Where) -> Result<Vec<PathBuf>> {
    let roots = find::roots(place.data_dir.as_deref());
    for root in &roots {
        if fs::metadata(root).at(root)?.is_dir() {
            fs::read_dir(root).at(root)?;
        }
    }
    Ok(roots)
}

pub(super) const HALVES: [(Split, &str); 2] = [(Split::Train, "train"), (Split::Test, "test")];

/// What lies in a folder, in the order of names.
pub(super) fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn show(name: &str, split: Split, out: &Path, roots: &[PathBuf], json: bool) -> Result<()> {
    let set = find::load(name, split, if name == "synthetic" { 32 } else { 0 }, roots)?;
    let mut counts = vec![0usize; set.classes.len()];
    set.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    contact::write(&contact::by_class(&set), out)?;
    let (height, width) = set.size;
    let classes = || set.classes.iter().zip(&counts).enumerate();
    if json {
        let class =
            |(label, (name, images))| json!({"label": label, "name": name, "images": images});
        let classes: Vec<_> = classes().map(class).collect();
        let shown = json!({
            "set": name, "split": split, "images": set.len(), "width": width, "height": height,
            "classes": classes, "fingerprint": set.fingerprint(), "sheet": out.display().to_string(),
        });
        terminal::print(&shown.to_string());
        return Ok(());
    }
    let mut lines = vec![format!(
        "{name}: {} images of {width}x{height} pixels, {} classes",
        set.len(),
        counts.len()
    )];
    lines.extend(
        classes().map(|(label, (class, count))| format!("{label:>5}  {class:<32} {count:>9}")),
    );
    lines.push(format!("fingerprint {}", set.fingerprint()));
    let drawn = counts.len().min(contact::LINES);
    lines.push(format!(
        "{}: the first images of the first {drawn} classes, a class to a line",
        out.display()
    ));
    terminal::print(&lines.join("\n"));
    Ok(())
}

fn fetch_sets(sets: &[String], from: Option<&str>, roots: &[PathBuf]) -> Result<()> {
    let folder = roots.first().map_or(Path::new("data"), PathBuf::as_path);
    let chosen: Vec<&Entry> = sets.iter().map(|name| known(name)).collect::<Result<_>>()?;
    let bar = Bar::new()?;
    for entry in chosen {
        for remote in entry.remotes {
            let url = match from {
                Some(base) if base.ends_with('/') => format!("{base}{}", remote.name()),
                Some(_) if entry.remotes.len() > 1 => {
                    return Err(Error::input(format!(
                        "--from: `{}` has {} files; give the address of their folder, ending in /",
                        entry.name,
                        entry.remotes.len()
                    )));
                }
                Some(address) => address.to_owned(),
                None => remote.url.to_owned(),
            };
            let (path, there) = fetch::fetch(remote, &url, folder, Patience::USUAL, &bar)?;
            bar.finish();
            let state = if there { "is there already" } else { "fetched" };
            let checked =
                if remote.md5.is_some() { "MD5 as published" } else { "no published MD5" };
            println!("{}: {state}, {checked}", path.display());
            if is_archive(&path) {
                Shelf::open(&path)?;
            } else if path.extension().is_some_and(|ending| ending == "npz") {
                in_file(&path, Bytes::map(&path).and_then(Archive::open))?;
            }
        }
    }
    Ok(())
}

fn known(name: &str) -> Result<&'static Entry> {
    // One corruption comes with all the others.
    let base = name.split('/').next().unwrap_or(name);
    catalog::entry(base).ok_or_else(|| {
        let names: Vec<_> = ENTRIES.iter().chain(&GENERATED).map(|entry| entry.name).collect();
        Error::input(format!("no address is known for `{name}`; known: {}", names.join(", ")))
    })
}
