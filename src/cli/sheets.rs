//! Sheets of images for a report: real and generated samples, and what attacks did to images.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
};

use tch::{Kind, Tensor};

use crate::{
    data::{self, Dataset, spec::Source},
    diffusion::quality::Quality,
    digest::JobId,
    error::{Error, Result},
    leaderboard::Row,
    plan::{Job, Plan, Role, Work},
    report::{Grid, GridImage, table::ranked},
    store::{Lookup, Store},
    threat::Norm,
};

/// Rows of samples in a grid; one column for each class.
const SAMPLES_PER_CLASS: usize = 2;
/// Classes shown in a grid: a hundred columns would be dots.
const CLASSES_SHOWN: usize = 10;
/// The file of an evaluation that holds a few attacked images.
const EXAMPLES: &str = "examples.safetensors";

/// One grid of real images, then one for each generated set that is in the store; and the names of
/// the classes.
///
/// # Errors
/// If images cannot be read.
pub(super) fn samples(plan: &Plan, store: &Store) -> Result<(Vec<Grid>, Vec<String>)> {
    let mut grids = Vec::new();
    let mut names = Vec::new();
    let mut real = Real::default();
    let first_training = plan.jobs.iter().find_map(|job| match &job.work {
        Work::Train(spec) => Some((&spec.data, &job.roots)),
        _ => None,
    });
    if let Some((source, roots)) = first_training {
        let real = real.get(source, roots)?;
        names.clone_from(&real.classes);
        let caption = "What the denoiser learned from, for comparison.".to_owned();
        grids.push(grid(real, format!("Real training images of {}", source.name), caption));
    }
    for job in &plan.jobs {
        let (Work::Generate(spec), Lookup::Hit(artifact)) = (&job.work, store.lookup(&job.id))
        else {
            continue;
        };
        if spec.start > 0 {
            continue;
        }
        // A suite may vary its data set: the classes are those that the set's own cells learn.
        let own = match job.cells.first().and_then(|&cell| plan.job(&plan.cells[cell].train)) {
            Some(Job { work: Work::Train(spec), roots, .. }) => {
                &real.get(&spec.data, roots)?.classes
            }
            _ => &names,
        };
        let set = data::generated::read(&artifact.file("images.npz"), "generated", own)?;
        let steps = spec.sampler.steps;
        let title = format!("Generated with {steps} sampler steps");
        let caption = format!(
            "The first images of the set of job {}, one class to a column; nothing was selected.",
            job.id.short()
        );
        grids.push(grid(&set, title, caption));
    }
    for job in &plan.jobs {
        grids.extend(twins(job, store, &mut real)?);
    }
    Ok((grids, names))
}

/// Training images by their fingerprints: each set is read once for all sheets.
#[derive(Default)]
struct Real(HashMap<String, Dataset>);

impl Real {
    fn get(&mut self, source: &Source, roots: &[PathBuf]) -> Result<&Dataset> {
        match self.0.entry(source.fingerprint.clone()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let mut searched = roots.to_vec();
                searched.extend(data::roots(None));
                let set = data::load(&source.name, source.split, source.resolution, &searched)?;
                Ok(place.insert(set.subset(source.skip, source.count)?))
            }
        }
    }
}

/// The generated images that are most like a training image, each beside it.
fn twins(job: &Job, store: &Store, real: &mut Real) -> Result<Option<Grid>> {
    let (Work::Quality(spec), Lookup::Hit(artifact)) = (&job.work, store.lookup(&job.id)) else {
        return Ok(None);
    };
    let found = Quality::read(&artifact.file("quality.json"))?;
    let [copies, _, usual] = &found.duplicates[..] else { return Ok(None) };
    let real = real.get(&spec.train, &job.roots)?;
    let mut parts = Vec::new();
    if let Some(set) = &job.set {
        parts.push(set.open(&real.classes, spec.images)?);
    } else {
        for input in job.inputs.iter().filter(|input| input.role == Role::Generated) {
            let Lookup::Hit(artifact) = store.lookup(&input.id) else { return Ok(None) };
            let path = artifact.file("images.npz");
            parts.push(data::generated::read(&path, "generated", &real.classes)?);
        }
    }
    let mut images = Vec::new();
    for twin in &copies.closest {
        let mut own = twin.image;
        let part = parts.iter().find(|part| {
            let here = own < part.len();
            own -= if here { 0 } else { part.len() };
            here
        });
        let Some(part) = part else { return Ok(None) };
        let turned = if twin.mirrored { ", mirrored" } else { "" };
        let generated = GridImage { label: format!("image {}", twin.image), ..image(part, own) };
        let nearest = format!("training {}{turned}", twin.nearest);
        images.extend([generated, GridImage { label: nearest, ..image(real, twin.nearest) }]);
    }
    let share = |suspects: u64, images: u64| 100.0 * suspects as f64 / images.max(1) as f64;
    Ok(Some(Grid {
        title: "Generated images nearest to a training image".to_owned(),
        caption: format!(
            "Near duplicates (less than half as far as the fifty nearest are on average, Carlini \
             et al. 2023): {} of {} generated images among the training images, {:.2}%; of the \
             test images {:.2}%. Job {}.",
            copies.suspects,
            copies.images,
            share(copies.suspects, copies.images),
            share(usual.suspects, usual.images),
            job.id.short()
        ),
        columns: 6,
        images,
    }))
}

/// The first images of each of the first classes, a class to a column.
fn grid(set: &Dataset, title: String, caption: String) -> Grid {
    let classes = set.classes.len().min(CLASSES_SHOWN);
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (index, &label) in set.labels.iter().enumerate() {
        match columns.get_mut(usize::from(label)) {
            Some(column) if column.len() < SAMPLES_PER_CLASS => column.push(index),
            _ => {}
        }
        if columns.iter().all(|column| column.len() == SAMPLES_PER_CLASS) {
            break;
        }
    }
    columns.retain(|column| !column.is_empty());
    let depth = columns.iter().map(Vec::len).min().unwrap_or(0);
    let images = (0..depth)
        .flat_map(|line| columns.iter().map(move |column| column[line]))
        .map(|index| image(set, index))
        .collect();
    Grid { title, caption, columns: columns.len(), images }
}

fn image(set: &Dataset, index: usize) -> GridImage {
    let (height, width) = set.size;
    let label = set.classes[usize::from(set.labels[index])].clone();
    GridImage { label, width: width as u32, height: height as u32, rgb: set.rgb(index) }
}

/// For the best cell under each threat model: clean images, perturbations, adversarial images.
///
/// # Errors
/// If the file of an evaluation is damaged.
pub(super) fn attacks(rows: &[Row], store: &Store, classes: &[String]) -> Result<Vec<Grid>> {
    let mut seen = Vec::new();
    let mut grids = Vec::new();
    for row in ranked(rows) {
        let key = (&row.dataset, row.threat);
        let Ok(job) = row.evaluate_job.parse::<JobId>() else { continue };
        let Lookup::Hit(artifact) = store.lookup(&job) else { continue };
        let path = artifact.file(EXAMPLES);
        if !seen.contains(&key) && path.is_file() {
            seen.push(key);
            grids.extend(attacked(row, &path, classes)?);
        }
    }
    Ok(grids)
}

fn attacked(row: &Row, path: &Path, classes: &[String]) -> Result<Option<Grid>> {
    let bad = |what: &str| Error::in_file(path, format!("holds no attacked images: {what}"));
    let tensors = Tensor::read_safetensors(path).map_err(|error| bad(&error.to_string()))?;
    let get = |name: &str| {
        let found = tensors.iter().find(|(key, _)| key == name).map(|(_, tensor)| tensor);
        found.ok_or_else(|| bad(&format!("no `{name}`")))
    };
    let (clean, adversarial) = (get("clean")?, get("adversarial")?); // [n,3,h,w]
    if clean.size() != adversarial.size() || clean.dim() != 4 || clean.size()[1] != 3 {
        return Err(bad("`clean` and `adversarial` differ in shape"));
    }
    let count = clean.size()[0];
    if count == 0 {
        return Ok(None);
    }
    let perturbation = adversarial - clean;
    let reach = match row.threat.norm {
        Norm::Linf => row.threat.epsilon.value(),
        _ => perturbation.abs().max().double_value(&[]),
    };
    let shown = &perturbation / (2.0 * reach.max(1e-6)) + 0.5;
    let words = |name: &str| -> Result<Vec<i64>> {
        Vec::<i64>::try_from(get(name)?).map_err(|error| bad(&error.to_string()))
    };
    let (index, label, prediction) = (words("index")?, words("label")?, words("prediction")?);
    let class = |at: i64| {
        let name = usize::try_from(at).ok().and_then(|at| classes.get(at)).cloned();
        name.unwrap_or_else(|| format!("class {at}"))
    };
    let mut images = Vec::new();
    for (stack, line) in [(clean, 0), (&shown, 1), (adversarial, 2)] {
        for at in 0..count {
            let label = match line {
                0 => format!("{} (#{})", class(label[at as usize]), index[at as usize]),
                1 => String::new(),
                _ => class(prediction[at as usize]),
            };
            images.push(grid_image(&stack.get(at), label)?);
        }
    }
    Ok(Some(Grid {
        title: format!("Attacked images, {}", row.threat),
        caption: format!(
            "Above: clean images of {} with their classes and places in the test set, all classified \
             rightly by the best cell under this threat model ({}). Middle: the perturbation, grey \
             where nothing changed, {:.1} times enlarged. Below: their sum and the class seen in it.",
            row.dataset,
            row.cell,
            0.5 / reach.max(1e-6)
        ),
        columns: count as usize,
        images,
    }))
}

/// `[3,h,w]` in [0, 1] as bytes.
fn grid_image(image: &Tensor, label: String) -> Result<GridImage> {
    let (_, h, w) = image.size3().map_err(Error::input)?;
    let bytes = (image.clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8);
    let bytes = bytes.permute([1, 2, 0]).contiguous().view([-1]);
    let rgb = Vec::<u8>::try_from(bytes).map_err(Error::input)?;
    Ok(GridImage { label, width: w as u32, height: h as u32, rgb })
}
