//! Snapshots of a training: from time to time the averaged weights draw images, and those whose
//! images are nearest to the data (Fréchet distance) become the result.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tch::Device;

use crate::{
    data::{Dataset, Layout, Pixels},
    diffusion::{
        features::Extractor,
        fid::{self, Moments, Statistics},
        generate::Draw,
        spec::{FitSpec, GenerateSpec, SamplerSpec},
    },
    error::{AtPath, Error, Result},
    formats::write_atomically,
    net::{Denoiser, DenoiserNet, load},
    progress::Progress,
};

/// Real images that snapshots are compared with, spread over the data.
const COMPARED: usize = 10_000;
/// Images drawn at once.
const BATCH: u64 = 32;
/// What became of every snapshot, one line each.
const RECORDS: &str = "snapshots.jsonl";

/// One snapshot and what it came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Images seen in training.
    pub images: u64,
    /// Fréchet distance of its images to the data.
    pub fid: f64,
    /// In which features.
    pub features: String,
}

/// The snapshots of one training.
pub(super) struct Snapshots<'a> {
    spec: &'a FitSpec,
    data: &'a Dataset,
    extractor: &'a Extractor,
    device: Device,
    work: &'a Path,
    taken: Vec<Snapshot>,
    reference: Option<Moments>,
}

impl<'a> Snapshots<'a> {
    /// Those taken when `images` were seen; later ones will be taken again.
    pub(super) fn open(
        spec: &'a FitSpec,
        data: &'a Dataset,
        extractor: &'a Extractor,
        device: Device,
        work: &'a Path,
        images: u64,
    ) -> Self {
        let text = fs::read_to_string(work.join(RECORDS)).unwrap_or_default();
        let mut taken: Vec<Snapshot> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        taken.retain(|snapshot| snapshot.images <= images && snapshot.features == extractor.name());
        Self { spec, data, extractor, device, work, taken, reference: None }
    }

    /// Whether a snapshot is to be taken after `step` steps.
    pub(super) fn due(&self, step: u64) -> bool {
        let (every, seen) = (self.spec.snapshot, step * self.spec.batch);
        let last = step == self.spec.images.div_ceil(self.spec.batch);
        every > 0
            && step > 0
            && (last || seen / every > (seen - self.spec.batch) / every)
            && self.taken.iter().all(|snapshot| snapshot.images != seen)
    }

    /// The best so far: of equals the earlier.
    pub(super) fn best(&self) -> Option<&Snapshot> {
        self.taken.iter().min_by(|a, b| a.fid.total_cmp(&b.fid))
    }

    /// Judges `network`, the averaged weights after `images` images, and keeps them if no earlier
    /// ones were better.
    pub(super) fn take(
        &mut self,
        network: &DenoiserNet,
        images: u64,
        progress: &dyn Progress,
    ) -> Result<()> {
        let drawn = self.moments(network, progress)?;
        let reference = match self.reference.take() {
            Some(reference) => reference,
            None => self.real()?,
        };
        let fid = fid::distance(&reference, &drawn);
        self.reference = Some(reference);
        let features = self.extractor.name().to_owned();
        let better = self.best().is_none_or(|best| fid < best.fid);
        if better || !self.best_file().exists() {
            load::save_denoiser(&self.best_file(), network)?;
        }
        self.taken.push(Snapshot { images, fid, features });
        progress.at(images.min(self.spec.images), format!("snapshot: fid {fid:.3}"));
        let lines: Vec<String> =
            self.taken.iter().map(|s| serde_json::to_string(s).expect("plain data")).collect();
        write_atomically(&self.work.join(RECORDS), |file| {
            std::io::Write::write_all(file, (lines.join("\n") + "\n").as_bytes())
        })
    }

    /// Puts the best weights and the records where the training's results go.
    pub(super) fn finish(&self, denoiser: &Path, out: &Path) -> Result<()> {
        let best = self.best_file();
        fs::copy(&best, denoiser).at(&best)?;
        let records = self.work.join(RECORDS);
        fs::copy(&records, out.join(RECORDS)).at(&records).map(|_| ())
    }

    fn best_file(&self) -> PathBuf {
        self.work.join("best.safetensors")
    }

    /// Of the data.
    fn real(&self) -> Result<Moments> {
        let stride = self.data.len().div_ceil(COMPARED).max(1);
        let indices: Vec<usize> = (0..self.data.len()).step_by(stride).collect();
        let mut statistics: Option<Statistics> = None;
        for indices in indices.chunks(1000) {
            let features = self.extractor.features(self.data, indices)?;
            statistics.get_or_insert_with(|| Statistics::new(features.size()[1])).push(&features);
        }
        statistics.unwrap_or_else(|| Statistics::new(1)).finish()
    }

    /// Of what `network` draws: the same images for the same weights, whenever it is asked.
    fn moments(&self, network: &DenoiserNet, progress: &dyn Progress) -> Result<Moments> {
        let classes = network.classes();
        let turns: Vec<i64> = (0..classes).collect();
        let count = self.spec.snapshot_images;
        let spec = GenerateSpec {
            sampler: SamplerSpec::edm(self.spec.snapshot_steps).within(network.sigma_range()),
            policy: None,
            origin: None,
            seed: self.spec.seed,
            classes,
            start: 0,
            count,
            batch: BATCH,
        };
        let (device, turns) = (self.device, turns.as_slice());
        let draw = Draw { spec: &spec, denoiser: network, device, turns, origin: None };
        let mut statistics: Option<Statistics> = None;
        for first in (0..count).step_by(BATCH as usize) {
            if progress.stopping() {
                return Err(Error::Interrupted);
            }
            let size = (network.shape()[1] as usize, network.shape()[2] as usize);
            let wanted = BATCH.min(count - first);
            let drawn = Dataset {
                name: "snapshot".to_owned(),
                classes: vec!["any".to_owned()],
                size,
                layout: Layout::Hwc,
                pixels: Pixels::Owned(draw.block(first, first..first + wanted)?),
                labels: vec![0; wanted as usize],
                soft: None,
            };
            let indices: Vec<usize> = (0..drawn.len()).collect();
            let features = self.extractor.features(&drawn, &indices)?;
            statistics.get_or_insert_with(|| Statistics::new(features.size()[1])).push(&features);
        }
        statistics.unwrap_or_else(|| Statistics::new(1)).finish()
    }
}
