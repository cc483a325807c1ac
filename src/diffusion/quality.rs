//! How good a generated set is: how far it is from real images as a whole, what of them it covers,
//! how its classes are balanced, and whether it repeats real images.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    data::{Dataset, Layout, Pixels},
    diffusion::{
        duplicates::{self, Duplicates},
        features::Extractor,
        fid::{self, Moments, Statistics},
        neighbours::{self, Coverage},
        spec::QualitySpec,
    },
    error::{AtPath, Error, Result},
    progress::Progress,
    rng::Stream,
};

/// Images whose features are held at once.
const CHUNK: usize = 1000;
/// Images of each set that balls are drawn around, at most.
const COMPARED: usize = 10 * CHUNK;

/// Parts of a set that are left out in turn for the standard error of its distance.
const GROUPS: usize = 10;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// What the features are.
    pub features: String,
    /// Whether they are those of published distances.
    pub published: bool,
    /// Generated images looked at.
    pub images: u64,
    /// Real images they were compared with; `None` where their statistics came from a file.
    pub real: Option<u64>,
    /// Fréchet distance of the features. Falls with the number of images: compare only equal ones.
    pub fid: f64,
    /// Its standard error, of sets of so many images; `None` for a handful.
    pub fid_error: Option<f64>,
    /// Precision, recall, density, coverage.
    pub coverage: Coverage,
    /// Generated images of each class.
    pub classes: Vec<u64>,
    /// Near duplicates: generated among training images, generated among test images, and, for
    /// comparison, test among training images.
    pub duplicates: Vec<Duplicates>,
}

impl Quality {
    /// Reads what a job of this kind wrote.
    ///
    /// # Errors
    /// If the file cannot be read or is something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).at(path)?;
        serde_json::from_str(&text).map_err(|error| Error::in_file(path, error))
    }
}

/// What is judged, and beside what.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// The set, part after part.
    pub parts: &'a [Dataset],
    /// Real images that it should look like.
    pub train: &'a Dataset,
    /// Real images that nobody has learned from.
    pub test: &'a Dataset,
    /// Statistics of all real images, where they are known.
    pub reference: Option<&'a Moments>,
}

/// Judges the first images of a set.
///
/// # Errors
/// If sizes differ, there are too few images, or `progress` asks to stop.
pub fn judge(
    spec: &QualitySpec,
    judged: &Judged<'_>,
    extractor: &Extractor,
    progress: &dyn Progress,
) -> Result<Quality> {
    let Judged { parts, train, test, reference } = *judged;
    let set = first(parts, spec.images as usize)?;
    if set.size != train.size {
        return Err(Error::input(format!(
            "the set has images of {:?} pixels, {} of {:?}: expected one size",
            set.size, train.name, train.size
        )));
    }
    // At random: sets often go through their classes in turn.
    let order = Stream::new(0, "groups of a set", 0).permutation(set.len());
    let group = |index: usize| order[index] as usize % GROUPS;
    let mut groups: Vec<Statistics> = Vec::new();
    let each = |start: usize, features: &Tensor| {
        let width = features.size()[1];
        groups.resize_with(GROUPS, || Statistics::new(width));
        for (number, statistics) in groups.iter_mut().enumerate() {
            let own = (0..features.size()[0]).filter(|row| group(start + *row as usize) == number);
            let own: Vec<i64> = own.collect();
            if !own.is_empty() {
                statistics.push(&features.index_select(0, &Tensor::from_slice(&own)));
            }
        }
    };
    let own = look_each(extractor, &set, "features of the set", progress, each)?;
    let (real, seen) = if let Some(reference) = reference {
        let some: Vec<usize> = (0..train.len().min(COMPARED)).collect();
        let first = extractor.features(train, &some)?;
        (Seen { moments: reference.clone(), first }, None)
    } else {
        let real = look(extractor, train, "features of real images", progress)?;
        (real, Some(train.len() as u64))
    };
    own.moments.like(&real.moments)?;
    let coverage = neighbours::coverage(&real.first, &own.first, spec.neighbours as i64)?;
    let mut classes = vec![0; train.classes.len()];
    for &label in &set.labels {
        classes[usize::from(label)] += 1;
    }
    let fid_error = if set.len() < 2 * GROUPS {
        None
    } else {
        Some(fid::standard_error(&groups, &real.moments)?)
    };
    let mut found = Vec::new();
    if spec.duplicates {
        found.push(duplicates::seek(("generated", &set), ("train", train), progress)?);
        found.push(duplicates::seek(("generated", &set), ("test", test), progress)?);
        let some = first(std::slice::from_ref(test), spec.images as usize)?;
        found.push(duplicates::seek(("test", &some), ("train", train), progress)?);
    }
    Ok(Quality {
        features: extractor.name().to_owned(),
        published: matches!(extractor, Extractor::Inception(..)),
        images: set.len() as u64,
        real: seen,
        fid: fid::distance(&own.moments, &real.moments),
        fid_error,
        coverage,
        classes,
        duplicates: found,
    })
}

/// The features of a set.
#[derive(Debug)]
pub struct Seen {
    /// Mean and covariance of all of them.
    pub moments: Moments,
    /// Those of the first images, `[n,d]`, `Double`: as many as balls are drawn around.
    pub first: Tensor,
}

/// Looks once at every image of a set, whose features are never held all.
///
/// # Errors
/// If there are fewer than two images, features are not finite, or `progress` asks to stop.
pub fn look(
    extractor: &Extractor,
    data: &Dataset,
    task: &str,
    progress: &dyn Progress,
) -> Result<Seen> {
    look_each(extractor, data, task, progress, |_, _| {})
}

/// As [`look`], and `each` sees the features of every piece and the index of its first image.
fn look_each(
    extractor: &Extractor,
    data: &Dataset,
    task: &str,
    progress: &dyn Progress,
    mut each: impl FnMut(usize, &Tensor),
) -> Result<Seen> {
    let mut statistics: Option<Statistics> = None;
    let mut first = Vec::new();
    progress.begin(task, data.len() as u64, "image");
    for start in (0..data.len()).step_by(CHUNK) {
        if progress.stopping() {
            return Err(Error::Interrupted);
        }
        let indices: Vec<usize> = (start..(start + CHUNK).min(data.len())).collect();
        let features = extractor.features(data, &indices)?;
        statistics.get_or_insert_with(|| Statistics::new(features.size()[1])).push(&features);
        each(start, &features);
        if start < COMPARED {
            first.push(features);
        }
        progress.at((start + indices.len()) as u64, "");
    }
    let moments = statistics.unwrap_or_else(|| Statistics::new(1)).finish()?;
    Ok(Seen { moments, first: Tensor::cat(&first, 0) })
}

/// The first `count` images of `parts`, in memory.
fn first(parts: &[Dataset], count: usize) -> Result<Dataset> {
    let Some(head) = parts.first() else {
        return Err(Error::input("there is no set to judge".to_owned()));
    };
    let images = parts.iter().flat_map(|part| (0..part.len()).map(move |index| (part, index)));
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (part, index) in images.take(count) {
        if part.size != head.size {
            let (a, b) = (head.size, part.size);
            return Err(Error::input(format!("images of {a:?} and of {b:?} pixels do not join")));
        }
        let start = pixels.len();
        pixels.resize(start + part.image_bytes(), 0);
        part.copy_chw(index, &mut pixels[start..]);
        labels.push(part.labels[index]);
    }
    let (name, classes) = (head.name.clone(), head.classes.clone());
    let pixels = Pixels::Owned(pixels);
    Ok(Dataset { name, classes, size: head.size, layout: Layout::Chw, pixels, labels, soft: None })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::{
        data::{
            spec::{Source, Split},
            synthetic,
        },
        progress::Silent,
    };

    fn spec(images: u64) -> QualitySpec {
        let source = |split| Source {
            name: "synthetic".to_owned(),
            split,
            skip: 0,
            count: None,
            resolution: 16,
            fingerprint: String::new(),
        };
        QualitySpec {
            train: source(Split::Train),
            test: source(Split::Test),
            inception: None,
            reference: None,
            images,
            neighbours: 5,
            duplicates: true,
        }
    }

    #[test]
    fn real_images_are_good_and_copies_are_noticed() {
        let train = synthetic::draw(Split::Train, 0, 400, 16);
        let test = synthetic::draw(Split::Test, 0, 100, 16);
        let extractor = Extractor::filters(Device::Cpu);
        // Two parts, the second of which is training images again.
        let parts =
            [synthetic::draw(Split::Train, 400, 100, 16), synthetic::draw(Split::Train, 0, 50, 16)];
        let judged = Judged { parts: &parts, train: &train, test: &test, reference: None };
        let whole = judge(&spec(1000), &judged, &extractor, &Silent).unwrap();
        assert_eq!((whole.images, whole.real), (150, Some(400)));
        assert_eq!(whole.classes, [15; 10]);
        let [train_twins, _, usual] = &whole.duplicates[..] else { panic!("three comparisons") };
        assert!(train_twins.suspects >= 50, "{train_twins:?}");
        assert_eq!(train_twins.closest[0].distance, 0.0);
        assert!(usual.suspects < 10, "{usual:?}");
        assert!(whole.coverage.precision > 0.8, "{:?}", whole.coverage);
        let few = judge(&spec(60), &judged, &extractor, &Silent).unwrap();
        assert_eq!(few.images, 60);
        assert!(few.duplicates[0].suspects < 6, "{few:?}");
        // Known statistics spare the real images.
        let reference = look(&extractor, &train, "", &Silent).unwrap().moments;
        let judged = Judged { reference: Some(&reference), ..judged };
        let known = judge(&spec(1000), &judged, &extractor, &Silent).unwrap();
        assert_eq!((known.fid, known.real), (whole.fid, None));
        let (some, all) = (few.fid_error.unwrap(), whole.fid_error.unwrap());
        assert!(0.0 < all && all < some && some < few.fid, "{some} of 60 images, {all} of 150");
        let handful = judge(&spec(19), &judged, &extractor, &Silent).unwrap();
        assert_eq!(handful.fid_error, None);
    }
}
