//! Generated sets: part after part into a work folder, then one `.npz` file.
//!
//! Image `i` is drawn in the batch that holds it when all images from 0 on are cut into batches of
//! `spec.batch`, whole, even where only a part of the batch is wanted. So on one kind of device its
//! bytes depend on (denoiser, sampler, policy, seed, `i`, batch) and on nothing else: not on
//! `start`, `count`, who draws it or where a run was interrupted. Another batch size or another
//! kind of device may round a pixel differently.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    time::Instant,
};

use tch::{Device, Kind, Tensor};

use crate::{
    data::Dataset,
    diffusion::{
        policy::{self, Choice},
        sampler::{self, Origin, Walk},
        sampler_check::check_policy,
        set::{self, Column, Part, Values},
        spec::{Applies, GenerateSpec, SamplerSpec},
    },
    error::{AtPath, Error, Result},
    net::Denoiser,
    progress::Progress,
    rng::Stream,
};

/// What a generation did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Generated {
    /// The set: `image` `[n,h,w,3]` bytes and `label` `[n]` int64; under a policy also what it
    /// chose for each image, `policy` (the number), `mirrored` and `evaluations`.
    pub file: PathBuf,
    /// Images in the set.
    pub count: u64,
    /// Images drawn by this call; the others were found in the work folder.
    pub drawn: u64,
    /// Network evaluations of all images together.
    pub evaluations: u64,
    /// Seconds that drawing took in this call.
    pub seconds: f64,
}

/// What a set is drawn from.
#[derive(Clone, Copy)]
pub struct Draw<'a> {
    /// Sampler, policy, seed and range.
    pub spec: &'a GenerateSpec,
    /// The network.
    pub denoiser: &'a dyn Denoiser,
    /// Where it computes.
    pub device: Device,
    /// Image `i` has class `turns[i mod turns.len()]`; empty when unconditional.
    pub turns: &'a [i64],
    /// Real images that trajectories start from, where the policy says so: image `i` from
    /// `i mod n`, whose label it keeps.
    pub origin: Option<&'a Dataset>,
}

/// Draws the images `spec.start..spec.start + spec.count` into `out/images.npz`. The images of an
/// unconditional denoiser (no turns) all have label 0 until a classifier labels them.
///
/// # Errors
/// If the spec does not fit the denoiser, a file cannot be written, images are not finite, or
/// `progress` asks to stop; then what is done stays in `work` and the next call goes on from it.
pub fn run(draw: &Draw<'_>, work: &Path, out: &Path, progress: &dyn Progress) -> Result<Generated> {
    draw.check()?;
    let spec = draw.spec;
    let parts = draw.parts(work)?;
    if draw.denoiser.classes() == 0 {
        progress.warn("the denoiser knows no classes: every label is 0 until a classifier says");
    }
    progress.begin("generate", spec.count, "image");
    let (started, mut drawn, mut done) = (Instant::now(), 0, 0);
    for part in &parts {
        if part.path.exists() {
            done += part.count;
            continue;
        }
        if progress.stopping() {
            return Err(Error::Interrupted);
        }
        if drawn == 0 {
            // What an earlier call drew took no time of this one.
            progress.at(done, "");
        }
        let first = part.start / spec.batch * spec.batch;
        let wanted = part.start..part.start + part.count;
        set::write_part(part, &draw.block(first, wanted)?)?;
        drawn += part.count;
        done += part.count;
        let seconds = started.elapsed().as_secs_f64();
        progress.at(done, format!("{:.1} images/s", drawn as f64 / seconds.max(1e-9)));
    }
    let seconds = started.elapsed().as_secs_f64();
    let (columns, evaluations) = draw.columns();
    let [_, h, w] = draw.denoiser.shape();
    fs::create_dir_all(out).at(out)?;
    let file = out.join("images.npz");
    set::join(&file, &parts, (h as usize, w as usize), &columns)?;
    // Everything is in the set now.
    for part in &parts {
        let _ = fs::remove_file(&part.path);
    }
    Ok(Generated { file, count: spec.count, drawn, evaluations, seconds })
}

impl Draw<'_> {
    /// Refuses what cannot be drawn, before anything is.
    ///
    /// # Errors
    /// If sampler, policy, classes, channels or counts do not fit the denoiser.
    pub fn check(&self) -> Result<()> {
        let (spec, classes) = (self.spec, self.denoiser.classes());
        let wrong = |what: String| Err(Error::input(format!("generate: {what}")));
        sampler::check(&spec.sampler, self.denoiser.sigma_range())?;
        if let Some(policy) = &spec.policy {
            check_policy(policy, &spec.sampler)?;
        }
        if spec.classes != classes {
            return wrong(format!(
                "classes is {}, but the denoiser is conditioned on {classes}",
                spec.classes
            ));
        }
        if let Some(class) = self.turns.iter().find(|class| !(0..classes).contains(*class)) {
            return wrong(format!(
                "there is no class {class}: the denoiser has {classes}, counted from 0"
            ));
        }
        if classes > 0 && self.turns.is_empty() {
            return wrong("no class is named".to_owned());
        }
        let [channels, height, width] = self.denoiser.shape();
        if channels != 3 {
            return wrong(format!("the denoiser makes images of {channels} channels: sets have 3"));
        }
        let starts = spec.policy.as_ref().is_some_and(|policy| policy.applies == Applies::Start);
        match self.origin {
            None if starts => return wrong("the policy starts from real images: name them".into()),
            Some(origin) if [origin.size.0 as i64, origin.size.1 as i64] != [height, width] => {
                return wrong(format!(
                    "images of {} are {}x{}, the denoiser's {height}x{width}",
                    origin.name, origin.size.0, origin.size.1
                ));
            }
            Some(origin) if classes > 0 && origin.classes.len() as i64 > classes => {
                let given = origin.classes.len();
                return wrong(format!(
                    "{} has {given} classes, but the denoiser is conditioned on {classes}",
                    origin.name
                ));
            }
            _ => {}
        }
        let end = spec.start.checked_add(spec.count).and_then(|end| i64::try_from(end).ok());
        if spec.count == 0 || spec.batch == 0 || end.is_none() {
            return wrong(format!(
                "start {}, count {}, batch {}: expected at least one image at a time",
                spec.start, spec.count, spec.batch
            ));
        }
        Ok(())
    }

    /// The files into which the range falls, one for each batch. They lie in a folder named after
    /// everything they depend on, so that parts of another set are never taken for this one's.
    fn parts(&self, work: &Path) -> Result<Vec<Part>> {
        let spec = self.spec;
        let identity = serde_json::json!({
            "spec": GenerateSpec { start: 0, count: 0, ..spec.clone() },
            "turns": self.turns, "shape": self.denoiser.shape(),
            "origin": self.origin.map(Dataset::fingerprint),
        });
        let folder = work.join(format!("parts-{}", crate::digest::JobId::of(&identity).short()));
        fs::create_dir_all(&folder).at(&folder)?;
        let (mut parts, mut start) = (Vec::new(), spec.start);
        let end = spec.start + spec.count;
        while start < end {
            let stop = ((start / spec.batch + 1).saturating_mul(spec.batch)).min(end);
            let path = folder.join(format!("{start}-{stop}"));
            parts.push(Part { path, start, count: stop - start });
            start = stop;
        }
        Ok(parts)
    }

    fn class(&self, index: u64) -> i64 {
        match self.origin {
            Some(origin) => i64::from(origin.labels[index as usize % origin.len()]),
            None if self.turns.is_empty() => 0,
            None => self.turns[index as usize % self.turns.len()],
        }
    }

    /// Classes of the images in turn: image `i` has that at `i` modulo their number.
    pub(super) fn labels(&self) -> Vec<u16> {
        let turns = self.origin.map_or(self.turns.len(), Dataset::len).max(1) as u64;
        (0..turns).map(|index| self.class(index) as u16).collect()
    }

    /// Everything about each image but its pixels, and all network evaluations.
    fn columns(&self) -> (Vec<Column>, u64) {
        let spec = self.spec;
        let range = spec.start..spec.start + spec.count;
        let label = range.clone().map(|index| self.class(index)).collect();
        let mut columns = vec![("label", Values::Whole(label))];
        let choices: Vec<Choice> = range.map(|index| policy::choose(spec, index)).collect();
        let cost = |choice: &Choice| {
            let route = policy::route(spec.policy.as_ref(), &spec.sampler, *choice);
            let sampler = SamplerSpec { steps: route.steps, ..spec.sampler.clone() };
            sampler::evaluations(&sampler, route.start, route.exit) as i64
        };
        if spec.policy.is_none() {
            let each = choices.first().map_or(0, cost) as u64;
            return (columns, each * spec.count);
        }
        let costs: Vec<i64> = choices.iter().map(cost).collect();
        let total = costs.iter().sum::<i64>() as u64;
        let mut push = |name, values| columns.push((name, Values::Whole(values)));
        push("policy", choices.iter().map(|choice| choice.number as i64).collect());
        push("mirrored", choices.iter().map(|choice| i64::from(choice.mirrored)).collect());
        push("evaluations", costs);
        (columns, total)
    }

    /// The bytes of the images `wanted`, pixel by pixel, all of one batch: `first` is its first
    /// image, and the whole batch is drawn.
    ///
    /// # Errors
    /// If images are not finite.
    pub(super) fn block(&self, first: u64, wanted: Range<u64>) -> Result<Vec<u8>> {
        let batch = self.spec.batch;
        let indices: Vec<u64> = (first..first + batch).collect();
        let images = self.images(&indices);
        if !images.isfinite().all().int64_value(&[]).eq(&1) {
            return Err(Error::Numerics(format!(
                "generate: images {first} to {} are not finite: is the denoiser trained?",
                first + batch - 1
            )));
        }
        let count = (wanted.end - wanted.start) as i64;
        let wanted = images.narrow(0, (wanted.start - first) as i64, count);
        let bytes = sampler::to_bytes(&wanted.permute([0, 2, 3, 1])).contiguous();
        Ok(bytes.view([-1]).try_into().expect("bytes on the CPU"))
    }

    /// The images `indices`, `[b,c,h,w]`, `Double`, pixels around `[-1, 1]`. Those whose policy
    /// chose alike are drawn together.
    pub fn images(&self, indices: &[u64]) -> Tensor {
        let mut alike: BTreeMap<Choice, Vec<u64>> = BTreeMap::new();
        for &index in indices {
            let choice = policy::choose(self.spec, index);
            alike.entry(Choice { mirrored: false, ..choice }).or_default().push(index);
        }
        if alike.len() == 1 {
            let choice = *alike.keys().next().expect("one");
            return self.along(choice, indices);
        }
        let drawn: Vec<Tensor> =
            alike.iter().map(|(choice, indices)| self.along(*choice, indices)).collect();
        let order: Vec<u64> = alike.into_values().flatten().collect();
        let position = |index| order.iter().position(|other| other == index).expect("drawn") as i64;
        let positions: Vec<i64> = indices.iter().map(position).collect();
        let positions = Tensor::from_slice(&positions).to_device(self.device);
        Tensor::cat(&drawn, 0).index_select(0, &positions)
    }

    /// The images `indices`, which share a way.
    fn along(&self, choice: Choice, indices: &[u64]) -> Tensor {
        let _guard = tch::no_grad_guard();
        let (spec, shape) = (self.spec, self.denoiser.shape());
        let route = policy::route(spec.policy.as_ref(), &spec.sampler, choice);
        let sampler = SamplerSpec { steps: route.steps, ..spec.sampler.clone() };
        let latents = sampler::latents(spec.seed, indices, shape, self.device);
        let label = self.label(indices);
        // One stream for each image, drawn from step by step: churn, too, knows no neighbours.
        let mut streams: Vec<Stream> =
            indices.iter().map(|&index| Stream::new(spec.seed, "churn", index)).collect();
        let pixels = shape.iter().product::<i64>() as usize;
        let mut noise = |_| {
            let drawn: Vec<f32> = streams.iter_mut().flat_map(|s| s.normals(pixels)).collect();
            Tensor::from_slice(&drawn).view_as(&latents).to_device(self.device)
        };
        let images = self.origin.map(|origin| {
            let own: Vec<usize> =
                indices.iter().map(|&index| index as usize % origin.len()).collect();
            origin.images(&own, self.device) * 2.0 - 1.0
        });
        let walk = Walk {
            spec: &sampler,
            denoiser: self.denoiser,
            label: label.as_ref(),
            start: route.start,
            exit: route.exit,
        };
        let origin = Origin { latents: &latents, images: images.as_ref() };
        sampler::sample(&walk, origin, &mut noise)
    }

    /// One-hot classes `[b,k]` of the images `indices`; `None` when unconditional.
    fn label(&self, indices: &[u64]) -> Option<Tensor> {
        if self.denoiser.classes() == 0 {
            return None;
        }
        let classes: Vec<i64> = indices.iter().map(|&index| self.class(index)).collect();
        let one_hot = Tensor::from_slice(&classes).one_hot(self.denoiser.classes());
        Some(one_hot.to_kind(Kind::Float).to_device(self.device))
    }
}
