//! Labels and selection: who says what a generated image shows, and which images a set keeps.
//!
//! The published 1M sets are the best fifth of 5M images, class by class, by the confidence of a
//! classifier in the class that the denoiser was asked for.

use std::{
    cmp::Reverse,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use tch::{Device, Kind, Tensor};

use crate::{
    data::Dataset,
    diffusion::{
        set::{self, Values},
        spec::{LabelBy, LabelSpec},
    },
    digest::JobId,
    error::{AtPath, Error, Result},
    formats::write_atomically,
    net::Classifier,
    progress::Progress,
};

/// Images that a classifier sees at once; part of what fixes confidences, by their rounding.
const BATCH: usize = 200;

/// What became of a set.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Labelled {
    /// The set: sorted by class, the most confident first.
    pub file: PathBuf,
    /// Images kept.
    pub count: u64,
    /// Images that there were to choose from.
    pub drawn: u64,
    /// Images whose label was not confident enough.
    pub unsure: u64,
    /// Images kept of each class.
    pub classes: Vec<u64>,
}

/// What one image is said to be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Verdict {
    label: u16,
    confidence: f32,
}

/// Labels the images of `parts`, keeps the best of them and writes `out/images.npz`: `image` and
/// `label` as published, `index` (which image of the parts it was) and `confidence`. Only labels
/// and confidences are held in memory.
///
/// # Errors
/// If the spec asks for what is not there, a file cannot be written, or `progress` asks to stop;
/// then the verdicts stay in `work` and the next call goes on from them.
pub fn run(
    spec: &LabelSpec,
    parts: &[Dataset],
    classifier: Option<(&dyn Classifier, Device)>,
    work: &Path,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Labelled> {
    check(spec, parts, classifier.map(|(classifier, _)| classifier))?;
    let drawn: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let verdicts = verdicts(spec, parts, classifier, work, progress)?;
    let sure = |verdict: &Verdict| f64::from(verdict.confidence) >= spec.confidence;
    let unsure = verdicts.iter().filter(|verdict| !sure(verdict)).count() as u64;
    let mut by_class: Vec<Vec<u64>> = vec![Vec::new(); spec.classes as usize];
    for (index, verdict) in verdicts.iter().enumerate().filter(|(_, verdict)| sure(verdict)) {
        by_class[usize::from(verdict.label)].push(index as u64);
    }
    let available: Vec<u64> = by_class.iter().map(|indices| indices.len() as u64).collect();
    let classes = quotas(spec, &available)?;
    let mut kept = Vec::new();
    for (indices, quota) in by_class.iter_mut().zip(&classes) {
        // Confidences are probabilities: as bits they order as they do as numbers.
        indices.sort_by_key(|&i| (Reverse(verdicts[i as usize].confidence.to_bits()), i));
        kept.extend(&indices[..*quota as usize]);
    }
    fs::create_dir_all(out).at(out)?;
    let file = out.join("images.npz");
    write(&file, parts, &kept, &verdicts)?;
    Ok(Labelled { file, count: kept.len() as u64, drawn, unsure, classes })
}

fn check(spec: &LabelSpec, parts: &[Dataset], classifier: Option<&dyn Classifier>) -> Result<()> {
    let wrong = |what: String| Err(Error::input(format!("labels: {what}")));
    let Some(first) = parts.first() else { return wrong("there is no set".to_owned()) };
    if let Some(other) = parts.iter().find(|part| part.size != first.size) {
        let (a, b) = (first.size, other.size);
        return wrong(format!("images of {}x{} and of {}x{} do not join", a.0, a.1, b.0, b.1));
    }
    if spec.by == LabelBy::Classifier && classifier.is_none() {
        return wrong("by is classifier: name the classifier".to_owned());
    }
    if let Some(classifier) = classifier.filter(|own| own.classes() != spec.classes) {
        return wrong(format!(
            "the classifier knows {} classes, the set has {}",
            classifier.classes(),
            spec.classes
        ));
    }
    if spec.confidence > 0.0 && classifier.is_none() {
        return wrong(format!(
            "confidence is {}, but no classifier says how confident it is",
            spec.confidence
        ));
    }
    Ok(())
}

/// One verdict for each image, part by part; parts done before are read from `work`.
fn verdicts(
    spec: &LabelSpec,
    parts: &[Dataset],
    classifier: Option<(&dyn Classifier, Device)>,
    work: &Path,
    progress: &dyn Progress,
) -> Result<Vec<Verdict>> {
    let total: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let mut verdicts = Vec::with_capacity(total as usize);
    let Some((classifier, device)) = classifier else {
        let given = parts.iter().flat_map(|part| &part.labels);
        verdicts.extend(given.map(|&label| Verdict { label, confidence: 1.0 }));
        return Ok(verdicts);
    };
    // What is kept of the verdicts does not matter to them.
    let own = LabelSpec { count: None, balance: false, confidence: 0.0, ..spec.clone() };
    let name = JobId::of(&serde_json::to_value(own).expect("plain data"));
    let folder = work.join(format!("verdicts-{}", name.short()));
    fs::create_dir_all(&folder).at(&folder)?;
    progress.begin("label", total, "image");
    for (number, part) in parts.iter().enumerate() {
        let path = folder.join(number.to_string());
        let bytes = match fs::read(&path) {
            Ok(bytes) if bytes.len() == part.len() * 6 => bytes,
            _ => {
                let done = verdicts.len() as u64;
                let bytes = judge(spec, part, classifier, device, (done, progress))?;
                write_atomically(&path, |file| file.write_all(&bytes))?;
                bytes
            }
        };
        verdicts.extend(bytes.chunks_exact(6).map(|bytes| Verdict {
            label: u16::from_le_bytes([bytes[0], bytes[1]]),
            confidence: f32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]),
        }));
        progress.at(verdicts.len() as u64, "");
    }
    Ok(verdicts)
}

/// Label and confidence of each image of `part`, six bytes each.
fn judge(
    spec: &LabelSpec,
    part: &Dataset,
    classifier: &dyn Classifier,
    device: Device,
    (done, progress): (u64, &dyn Progress),
) -> Result<Vec<u8>> {
    let _guard = tch::no_grad_guard();
    let mut bytes = Vec::with_capacity(part.len() * 6);
    let all: Vec<usize> = (0..part.len()).collect();
    for indices in all.chunks(BATCH) {
        if progress.stopping() {
            return Err(Error::Interrupted);
        }
        let shares = classifier.logits(&part.images(indices, device)).softmax(1, Kind::Float); // [b,k]
        let labels = match spec.by {
            LabelBy::Classifier => shares.argmax(1, false),
            LabelBy::Condition => part.targets(indices, device),
        };
        let own = shares.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1);
        if own.isfinite().all().int64_value(&[]) != 1 {
            return Err(Error::Numerics("labels: the classifier's logits are not finite".into()));
        }
        let values = |tensor: &Tensor| tensor.to_device(Device::Cpu);
        let labels: Vec<i64> = values(&labels).try_into().expect("[b]");
        let own: Vec<f32> = values(&own).try_into().expect("[b]");
        for (label, confidence) in labels.iter().zip(own) {
            bytes.extend((*label as u16).to_le_bytes());
            bytes.extend(confidence.to_le_bytes());
        }
        progress.at(done + (bytes.len() / 6) as u64, "");
    }
    Ok(bytes)
}

/// How many images of each class are kept, given how many there are.
fn quotas(spec: &LabelSpec, available: &[u64]) -> Result<Vec<u64>> {
    let all: u64 = available.iter().sum();
    let classes = available.len() as u64;
    let least = available.iter().copied().min().unwrap_or(0);
    let count = match (spec.count, spec.balance) {
        (Some(count), _) => count,
        (None, true) => least * classes,
        (None, false) => all,
    };
    let quotas: Vec<u64> = if spec.balance {
        (0..classes).map(|class| count / classes + u64::from(class < count % classes)).collect()
    } else {
        proportional(count, available)
    };
    let short = quotas.iter().zip(available).position(|(quota, there)| quota > there);
    if let Some(class) = short {
        return Err(Error::input(format!(
            "labels: {} images of class {class} are wanted, but there are {} of {all} that are \
             confident enough: draw more images or ask for fewer",
            quotas[class], available[class]
        )));
    }
    Ok(quotas)
}

/// `count` parted as `available` is, by largest remainders (of equals the first).
fn proportional(count: u64, available: &[u64]) -> Vec<u64> {
    let all: u128 = available.iter().map(|&n| u128::from(n)).sum::<u128>().max(1);
    let share = |n: u64| u128::from(count) * u128::from(n);
    let mut quotas: Vec<u64> = available.iter().map(|&n| (share(n) / all) as u64).collect();
    let left = count.saturating_sub(quotas.iter().sum());
    let mut order: Vec<usize> = (0..available.len()).collect();
    order.sort_by_key(|&class| (Reverse(share(available[class]) % all), class));
    for &class in order.iter().cycle().take(left as usize) {
        quotas[class] += 1;
    }
    quotas
}

/// Writes the images `kept`, counted through all parts, in that order.
fn write(path: &Path, parts: &[Dataset], kept: &[u64], verdicts: &[Verdict]) -> Result<()> {
    let starts: Vec<u64> = parts
        .iter()
        .scan(0, |start, part| {
            let own = *start;
            *start += part.len() as u64;
            Some(own)
        })
        .collect();
    let columns = [
        ("label", Values::Whole(kept.iter().map(|&i| verdicts[i as usize].label.into()).collect())),
        ("index", Values::Whole(kept.iter().map(|&i| i as i64).collect())),
        (
            "confidence",
            Values::Real(kept.iter().map(|&i| verdicts[i as usize].confidence).collect()),
        ),
    ];
    let (height, width) = parts[0].size;
    set::write_npz(path, (kept.len(), height, width), &columns, &mut |archive| {
        for &index in kept {
            let part = starts.partition_point(|start| *start <= index) - 1;
            let own = (index - starts[part]) as usize;
            archive.write_all(&parts[part].rgb(own))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{Layout, Pixels},
        progress::Silent,
    };

    /// Class and confidence by the first pixel's red and green.
    struct Seeing;

    impl Classifier for Seeing {
        fn classes(&self) -> i64 {
            3
        }

        fn logits(&self, x: &Tensor) -> Tensor {
            let corner = x.select(3, 0).select(2, 0) * 255.0;
            let class = corner.select(1, 0).round().to_kind(Kind::Int64);
            class.one_hot(3).to_kind(Kind::Float) * corner.select(1, 1).unsqueeze(1)
        }
    }

    /// Images of one pixel; `(red, green, label)`.
    fn set(images: &[(u8, u8, u16)]) -> Dataset {
        Dataset {
            name: "pixels".to_owned(),
            classes: ["a", "b", "c"].map(str::to_owned).into(),
            size: (1, 1),
            layout: Layout::Hwc,
            pixels: Pixels::Owned(images.iter().flat_map(|i| [i.0, i.1, 7]).collect()),
            labels: images.iter().map(|i| i.2).collect(),
        }
    }

    fn spec(by: LabelBy) -> LabelSpec {
        LabelSpec {
            by,
            classes: 3,
            confidence: 0.0,
            balance: false,
            count: None,
            arch: None,
            dataset: String::new(),
        }
    }

    fn kept(spec: &LabelSpec, parts: &[Dataset], seeing: bool) -> Result<(Vec<u8>, Vec<u16>)> {
        let folder = tempfile::tempdir().unwrap();
        let classifier = seeing.then_some((&Seeing as &dyn Classifier, Device::Cpu));
        let out = folder.path().join("out");
        let done = run(spec, parts, classifier, folder.path(), &out, &Silent)?;
        let set = crate::data::generated::read_unnamed(&done.file)?;
        assert_eq!(done.count, set.len() as u64);
        Ok(((0..set.len()).map(|index| set.image(index)[1]).collect(), set.labels))
    }

    #[test]
    fn selection_keeps_the_most_confident_of_each_class() {
        let parts = [
            set(&[(0, 3, 0), (1, 9, 1), (1, 2, 1), (2, 5, 2)]),
            set(&[(0, 8, 0), (1, 4, 1), (2, 6, 2), (1, 1, 2)]),
        ];
        // By condition: the last image is asked to be class 2 and does not look it.
        let spec = LabelSpec { count: Some(4), ..spec(LabelBy::Condition) };
        let (greens, labels) = kept(&spec, &parts, true).unwrap();
        assert_eq!(labels, [0, 1, 1, 2]);
        assert_eq!(greens, [8, 9, 4, 6]);
        // Sorting alone, without a classifier.
        let all = LabelSpec { count: None, ..spec };
        let (greens, labels) = kept(&all, &parts, false).unwrap();
        assert_eq!(labels, [0, 0, 1, 1, 1, 2, 2, 2]);
        assert_eq!(greens, [3, 8, 9, 2, 4, 5, 6, 1]);
    }

    #[test]
    fn a_classifier_can_label_reject_and_balance() {
        let parts = [set(&[(0, 9, 0), (0, 1, 0), (1, 8, 0), (1, 7, 0), (1, 6, 0), (2, 9, 0)])];
        let plain = spec(LabelBy::Classifier);
        assert_eq!(kept(&plain, &parts, true).unwrap().1, [0, 0, 1, 1, 1, 2]);
        let sure = LabelSpec { confidence: 0.9, ..plain.clone() };
        assert_eq!(kept(&sure, &parts, true).unwrap().1, [0, 1, 1, 1, 2]);
        let balanced = LabelSpec { balance: true, ..sure.clone() };
        assert_eq!(kept(&balanced, &parts, true).unwrap(), (vec![9, 8, 9], vec![0, 1, 2]));
        let many = LabelSpec { count: Some(6), ..balanced };
        let message = kept(&many, &parts, true).unwrap_err().to_string();
        assert!(message.contains("2 images of class 0 are wanted, but there are 1"), "{message}");
        for (spec, seeing, part) in [
            (plain, false, "name the classifier"),
            (LabelSpec { classes: 4, ..sure.clone() }, true, "3 classes"),
            (LabelSpec { by: LabelBy::Condition, ..sure }, false, "how confident"),
        ] {
            let message = kept(&spec, &parts, seeing).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn shares_are_proportional() {
        assert_eq!(proportional(10, &[50, 30, 20]), [5, 3, 2]);
        assert_eq!(proportional(2, &[1, 1, 1]), [1, 1, 0]);
        assert_eq!(proportional(7, &[3, 3, 1]), [3, 3, 1]);
    }
}
