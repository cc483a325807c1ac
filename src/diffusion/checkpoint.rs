//! What an interrupted training goes on from: a safetensors file and a log.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{
    diffusion::{adam::Adam, spec::FitSpec},
    digest::JobId,
    error::{AtPath, Error, Result},
    formats::{array::Dtype, safetensors},
};

/// The place and identity of a training's saved state.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    identity: String,
}

impl Checkpoint {
    pub(super) fn new(work: &Path, spec: &FitSpec) -> Self {
        let spec = serde_json::to_value(spec).expect("a spec is plain data");
        let identity = JobId::of(&spec).as_str().to_owned();
        Self { path: work.join("state.safetensors"), identity }
    }

    /// Writes weights, average and moments after `step` steps.
    pub(super) fn save(&self, adam: &Adam, step: u64) -> Result<()> {
        let named: Vec<_> =
            parts(adam).map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).into();
        let step = step.to_string();
        write_tensors(&self.path, &named, &[("identity", &self.identity), ("step", &step)])
    }

    /// Reads the state into `adam` and gives the steps made; 0 where nothing is saved.
    pub(super) fn load(&self, adam: &mut Adam) -> Result<u64> {
        if !self.path.exists() {
            return Ok(0);
        }
        let wrong = |what: &str| Error::in_file(&self.path, what);
        let file = safetensors::read(&self.path)?;
        let find =
            |key: &str| file.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        if find("identity") != Some(&self.identity) {
            return Err(wrong("belongs to another training"));
        }
        let step = find("step").and_then(|step| step.parse().ok());
        let step = step.ok_or_else(|| wrong("does not say its step"))?;
        let arrays: Vec<_> = parts(adam)
            .iter()
            .filter_map(|(name, tensor)| {
                let (_, array) = file.tensors.iter().find(|(other, _)| other == name)?;
                (array.dtype() == Dtype::F32 && array.len() == tensor.numel()).then_some(array)
            })
            .collect();
        if arrays.len() != parts(adam).len() {
            return Err(wrong("lacks tensors of this network"));
        }
        let _guard = tch::no_grad_guard();
        for ((_, tensor), array) in parts(adam).into_iter().zip(arrays) {
            let values = Tensor::from_data_size(array.bytes(), &tensor.size(), Kind::Float);
            tensor.shallow_clone().copy_(&values); // alias: copied into the optimiser's own
        }
        adam.round();
        Ok(step)
    }
}

fn parts(adam: &Adam) -> [(&'static str, &Tensor); 4] {
    [
        ("weights", &adam.weights),
        ("average", &adam.average),
        ("first", &adam.first),
        ("second", &adam.second),
    ]
}

/// Writes `Float` tensors as safetensors, whole or not at all.
fn write_tensors(path: &Path, named: &[(String, Tensor)], metadata: &[(&str, &str)]) -> Result<()> {
    let plain: Vec<(Vec<usize>, Vec<u8>)> = named.iter().map(|(_, tensor)| plain(tensor)).collect();
    let tensors: Vec<_> = named
        .iter()
        .zip(&plain)
        .map(|((name, _), (shape, bytes))| safetensors::Tensor {
            name,
            dtype: Dtype::F32,
            shape,
            bytes,
        })
        .collect();
    safetensors::write(path, &tensors, metadata)
}

/// Shape and little-endian bytes.
fn plain(tensor: &Tensor) -> (Vec<usize>, Vec<u8>) {
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let shape = tensor.size().iter().map(|&side| side as usize).collect();
    let mut bytes = vec![0; tensor.numel() * 4];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    (shape, bytes)
}

/// `log.jsonl`: one line for each report.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

#[derive(Serialize, Deserialize)]
struct Line {
    /// Images seen.
    images: u64,
    /// Mean loss per pixel since the line before.
    loss: f64,
    images_per_second: f64,
}

impl Log {
    /// Opens the log in `work`, without what was written after `images` were seen: the training
    /// goes on from there.
    pub(super) fn open(work: &Path, images: u64) -> Result<Self> {
        let path = work.join("log.jsonl");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut kept = String::new();
        for line in text.lines() {
            if serde_json::from_str::<Line>(line).is_ok_and(|line| line.images <= images) {
                writeln!(kept, "{line}").expect("a string takes everything");
            }
        }
        fs::write(&path, kept).at(&path)?;
        let file = OpenOptions::new().append(true).open(&path).at(&path)?;
        Ok(Self { path, file })
    }

    pub(super) fn write(&mut self, images: u64, loss: f64, images_per_second: f64) -> Result<()> {
        let line = serde_json::to_string(&Line { images, loss, images_per_second });
        writeln!(self.file, "{}", line.expect("three numbers")).at(&self.path)
    }

    pub(super) fn copy_to(self, target: &Path) -> Result<()> {
        fs::copy(&self.path, target).at(target).map(|_| ())
    }
}
