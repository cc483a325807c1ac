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
    data::{Dataset, Soft},
    diffusion::{
        set::{self, Table, Values},
        spec::{LabelBy, LabelSpec},
    },
    digest::JobId,
    error::{AtPath, Error, Result},
    formats::{bytes::Bytes, write_atomically},
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

/// What all images are said to be.
struct Verdicts {
    /// One for each image, counted through all parts.
    all: Vec<Verdict>,
    /// How probable each class is: a mapped file for each part, of rows as [`judge`] writes them.
    soft: Vec<Bytes>,
}

/// Bytes of a label and a confidence.
const PLAIN: usize = 6;

impl LabelSpec {
    /// Bytes of one verdict.
    fn verdict_bytes(&self) -> usize {
        if self.by == LabelBy::Soft { PLAIN + 4 * self.classes as usize } else { PLAIN }
    }
}

/// Labels the images of `parts`, keeps the best of them and writes `out/images.npz`: `image` and
/// `label` as published, `index` (which image of the parts it was), `confidence` and, where labels
/// are soft, `soft` `[n,k]`. Only labels and confidences are held in memory.
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
    let all = &verdicts.all;
    let sure = |verdict: &Verdict| f64::from(verdict.confidence) >= spec.confidence;
    let unsure = all.iter().filter(|verdict| !sure(verdict)).count() as u64;
    let mut by_class: Vec<Vec<u64>> = vec![Vec::new(); spec.classes as usize];
    for (index, verdict) in all.iter().enumerate().filter(|(_, verdict)| sure(verdict)) {
        by_class[usize::from(verdict.label)].push(index as u64);
    }
    let available: Vec<u64> = by_class.iter().map(|indices| indices.len() as u64).collect();
    let classes = quotas(spec, &available)?;
    let mut kept = Vec::new();
    for (indices, quota) in by_class.iter_mut().zip(&classes) {
        // Confidences are probabilities: as bits they order as they do as numbers.
        indices.sort_by_key(|&i| (Reverse(all[i as usize].confidence.to_bits()), i));
        kept.extend(&indices[..*quota as usize]);
    }
    fs::create_dir_all(out).at(out)?;
    let file = out.join("images.npz");
    write(&file, (parts, spec), &kept, &verdicts)?;
    Ok(Labelled { file, count: kept.len() as u64, drawn, unsure, classes })
}

fn check(spec: &LabelSpec, parts: &[Dataset], classifier: Option<&dyn Classifier>) -> Result<()> {
    let wrong = |what: String| Err(Error::input(format!("labels: {what}")));
    let Some(first) = parts.first() else { return wrong("there is no set".to_owned()) };
    if let Some(other) = parts.iter().find(|part| part.size != first.size) {
        let (a, b) = (first.size, other.size);
        return wrong(format!("images of {}x{} and of {}x{} do not join", a.0, a.1, b.0, b.1));
    }
    if spec.by != LabelBy::Condition && classifier.is_none() {
        let by = if spec.by == LabelBy::Soft { "soft" } else { "classifier" };
        return wrong(format!("by is {by}: name the classifier"));
    }
    let width = |part: &Dataset| part.soft.as_ref().map(Soft::classes);
    if spec.by == LabelBy::Condition && parts.iter().any(|part| width(part) != width(first)) {
        return wrong("some sets have soft labels, others not, or of other classes".to_owned());
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
) -> Result<Verdicts> {
    let total: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let mut all = Vec::with_capacity(total as usize);
    let Some((classifier, device)) = classifier else {
        let given = parts.iter().flat_map(|part| &part.labels);
        all.extend(given.map(|&label| Verdict { label, confidence: 1.0 }));
        return Ok(Verdicts { all, soft: Vec::new() });
    };
    // What is kept of the verdicts does not matter to them.
    let own = LabelSpec { count: None, balance: false, confidence: 0.0, ..spec.clone() };
    let name = JobId::of(&serde_json::to_value(own).expect("plain data"));
    let folder = work.join(format!("verdicts-{}", name.short()));
    fs::create_dir_all(&folder).at(&folder)?;
    progress.begin("label", total, "image");
    let (bytes, mut soft) = (spec.verdict_bytes(), Vec::new());
    for (number, part) in parts.iter().enumerate() {
        let path = folder.join(number.to_string());
        if path.metadata().map_or(0, |file| file.len()) != (part.len() * bytes) as u64 {
            let done = all.len() as u64;
            let judged = judge(spec, part, classifier, device, (done, progress))?;
            write_atomically(&path, |file| file.write_all(&judged))?;
        }
        let rows = Bytes::map(&path)?;
        all.extend(rows.chunks_exact(bytes).map(|bytes| Verdict {
            label: u16::from_le_bytes([bytes[0], bytes[1]]),
            confidence: f32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]),
        }));
        if spec.by == LabelBy::Soft {
            soft.push(rows);
        }
        progress.at(all.len() as u64, "");
    }
    Ok(Verdicts { all, soft })
}

/// Label and confidence of each image of `part`, six bytes each; where labels are soft, then four
/// bytes for each class.
fn judge(
    spec: &LabelSpec,
    part: &Dataset,
    classifier: &dyn Classifier,
    device: Device,
    (done, progress): (u64, &dyn Progress),
) -> Result<Vec<u8>> {
    let _guard = tch::no_grad_guard();
    let each = spec.verdict_bytes();
    let mut bytes = Vec::with_capacity(part.len() * each);
    let all: Vec<usize> = (0..part.len()).collect();
    for indices in all.chunks(BATCH) {
        if progress.stopping() {
            return Err(Error::Interrupted);
        }
        let shares = classifier.logits(&part.images(indices, device)).softmax(1, Kind::Float); // [b,k]
        let labels = match spec.by {
            LabelBy::Classifier | LabelBy::Soft => shares.argmax(1, false),
            LabelBy::Condition => part.targets(indices, device),
        };
        let own = shares.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1);
        if own.isfinite().all().int64_value(&[]) != 1 {
            return Err(Error::Numerics("labels: the classifier's logits are not finite".into()));
        }
        let values = |tensor: &Tensor| tensor.to_device(Device::Cpu);
        let labels: Vec<i64> = values(&labels).try_into().expect("[b]");
        let own: Vec<f32> = values(&own).try_into().expect("[b]");
        let soft = (spec.by == LabelBy::Soft).then(|| values(&shares).view([-1]));
        let soft: Vec<f32> = soft.map_or(Ok(Vec::new()), Vec::try_from).expect("[b,k]");
        for (row, (label, confidence)) in labels.iter().zip(own).enumerate() {
            bytes.extend((*label as u16).to_le_bytes());
            bytes.extend(confidence.to_le_bytes());
            let classes = (each - PLAIN) / 4;
            bytes.extend(soft[row * classes..][..classes].iter().flat_map(|p| p.to_le_bytes()));
        }
        progress.at(done + (bytes.len() / each) as u64, "");
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
fn write(
    path: &Path,
    (parts, spec): (&[Dataset], &LabelSpec),
    kept: &[u64],
    verdicts: &Verdicts,
) -> Result<()> {
    let (all, size) = (&verdicts.all, spec.verdict_bytes());
    let starts: Vec<u64> = parts
        .iter()
        .scan(0, |start, part| {
            let own = *start;
            *start += part.len() as u64;
            Some(own)
        })
        .collect();
    let columns = [
        ("label", Values::Whole(kept.iter().map(|&i| all[i as usize].label.into()).collect())),
        ("index", Values::Whole(kept.iter().map(|&i| i as i64).collect())),
        ("confidence", Values::Real(kept.iter().map(|&i| all[i as usize].confidence).collect())),
    ];
    let place = |index: u64| {
        let part = starts.partition_point(|start| *start <= index) - 1;
        (part, (index - starts[part]) as usize)
    };
    // How probable each class is by the classifier, or by the sets themselves.
    let given = parts[0].soft.as_ref().filter(|_| spec.by == LabelBy::Condition);
    let row = |position: usize| {
        let (part, own) = place(kept[position]);
        match verdicts.soft.get(part) {
            Some(rows) => &rows[own * size..][PLAIN..size],
            None => parts[part].soft.as_ref().map_or(&[][..], |soft| soft.bytes(own)),
        }
    };
    let known = if verdicts.soft.is_empty() { 0 } else { spec.classes as usize };
    let width = given.map_or(known, Soft::classes);
    let table = Table { name: "soft", width, row: &row };
    let (height, edge) = parts[0].size;
    let shape = (kept.len(), height, edge);
    set::write_npz(path, shape, &columns, (width > 0).then_some(table), &mut |archive| {
        for &index in kept {
            let (part, own) = place(index);
            archive.write_all(&parts[part].rgb(own))?;
        }
        Ok(())
    })
}

#[cfg(test)]
#[path = "label_tests.rs"]
mod tests;
