//! FID of a suite's generated sets, measured once where its `report:` asks for it and kept beside
//! the artifacts, in `fid/` of the store.

use std::{fs, path::PathBuf};

use serde_json::json;
use tch::Device;

use crate::{
    data::{self, Dataset, find},
    diffusion::{
        features::Extractor,
        fid::{self, Moments, Statistics},
    },
    digest::{JobId, hash_file},
    error::{AtPath, Error, Result},
    leaderboard::atomic,
    plan::{Cell, Plan, Work},
    store::{Lookup, Store},
    train::spec::TrainSpec,
};

/// Images whose features are held at once.
const CHUNK: usize = 1000;
/// What the suite says for features of fixed random filters.
const FILTERS: &str = "filters";

/// The distances of one plan.
pub(super) struct Distances<'a> {
    plan: &'a Plan,
    store: &'a Store,
    /// What names the features: `filters`, or the hash of the network's file.
    features: Option<String>,
}

impl<'a> Distances<'a> {
    /// Those that `store` holds of `plan`.
    ///
    /// # Errors
    /// If the network that the suite names cannot be read.
    pub(super) fn of(plan: &'a Plan, store: &'a Store) -> Result<Self> {
        let features = match plan.report.fid.as_deref() {
            None => None,
            Some(FILTERS) => Some(FILTERS.to_owned()),
            Some(path) => Some(hash_file(path.as_ref())?),
        };
        Ok(Self { plan, store, features })
    }

    /// The distance of a cell's generated images to its training images, where it is known.
    pub(super) fn known(&self, cell: &Cell) -> Option<f64> {
        let text = fs::read_to_string(self.place(cell)?).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()?["fid"].as_f64()
    }

    /// Measures what is not known yet, as far as the store holds the images; `say` hears of each.
    ///
    /// # Errors
    /// If images, the network or the store cannot be read or written.
    pub(super) fn measure(&self, say: &dyn Fn(&str)) -> Result<()> {
        let mut tools: Option<(Extractor, String, Moments)> = None;
        for cell in &self.plan.cells {
            let Some(place) = self.place(cell).filter(|place| !place.exists()) else { continue };
            let Some((train, parts)) = self.images(cell)? else { continue };
            let real = &train.data.fingerprint;
            if tools.as_ref().is_none_or(|(_, known, _)| known != real) {
                let extractor = self.extractor()?;
                let set = find::resolve(&train.data, &self.roots(cell))?.0;
                let moments = moments(&extractor, &[set], usize::MAX)?;
                tools = Some((extractor, real.clone(), moments));
            }
            let Some((extractor, _, real)) = &tools else { continue };
            let count = usize::try_from(train.generated).map_err(Error::input)?;
            say(&format!("FID of {} generated images of {}", train.generated, cell.title()));
            let distance = fid::distance(real, &moments(extractor, &parts, count)?);
            let found = json!({
                "fid": distance, "features": extractor.name(), "images": train.generated,
                "generated": cell.generated, "real": train.data,
            });
            let folder = place.parent().unwrap_or(&place);
            fs::create_dir_all(folder).at(folder)?;
            atomic::write(&place, format!("{found:#}\n").as_bytes())?;
        }
        Ok(())
    }

    fn extractor(&self) -> Result<Extractor> {
        match self.plan.report.fid.as_deref() {
            Some(path) if path != FILTERS => Extractor::inception(path.as_ref(), Device::Cpu),
            _ => Ok(Extractor::filters(Device::Cpu)),
        }
    }

    fn train(&self, cell: &Cell) -> Option<&'a TrainSpec> {
        match &self.plan.job(&cell.train)?.work {
            Work::Train(spec) if spec.generated > 1 => Some(spec),
            _ => None,
        }
    }

    fn roots(&self, cell: &Cell) -> Vec<PathBuf> {
        let mut roots = self.plan.job(&cell.train).map(|job| job.roots.clone()).unwrap_or_default();
        roots.extend(data::roots(None));
        roots
    }

    fn place(&self, cell: &Cell) -> Option<PathBuf> {
        let (features, train) = (self.features.as_ref()?, self.train(cell)?);
        let id = JobId::of(&json!({
            "features": features, "generated": cell.generated, "count": train.generated,
            "real": train.data.fingerprint, "revision": 1,
        }));
        Some(self.store.root().join("fid").join(format!("{id}.json")))
    }

    /// The parts of a cell's generated set, if the store has them all.
    fn images(&self, cell: &Cell) -> Result<Option<(&'a TrainSpec, Vec<Dataset>)>> {
        let Some(train) = self.train(cell) else { return Ok(None) };
        let mut parts = Vec::new();
        for job in &cell.generated {
            let Lookup::Hit(artifact) = self.store.lookup(job) else { return Ok(None) };
            parts.push(data::generated::read_unnamed(&artifact.file("images.npz"))?);
        }
        Ok(Some((train, parts)).filter(|(_, parts)| !parts.is_empty()))
    }
}

/// Moments of the first `count` images of `parts`.
fn moments(extractor: &Extractor, parts: &[Dataset], count: usize) -> Result<Moments> {
    let mut statistics: Option<Statistics> = None;
    let mut left = count;
    for part in parts {
        let indices: Vec<usize> = (0..part.len().min(left)).collect();
        left -= indices.len();
        for indices in indices.chunks(CHUNK) {
            let features = extractor.features(part, indices)?;
            let width = features.size()[1];
            statistics.get_or_insert_with(|| Statistics::new(width)).push(&features);
        }
    }
    statistics.unwrap_or_else(|| Statistics::new(1)).finish()
}
