//! What tests of attacks and evaluations share: published models as TorchScript, the first CIFAR-10
//! test images, golden runs, and a linear classifier whose robustness is known.

use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

use crate::net::{Classifier, load::load_classifier};

pub(crate) fn shared() -> PathBuf {
    PathBuf::from(std::env::var("GAUNTLET_SHARED").expect("GAUNTLET_SHARED names the data"))
}

/// A published model, as a TorchScript program.
pub(crate) fn script(name: &str) -> Box<dyn Classifier> {
    let path = shared().join(format!("models/{name}.torchscript.pt"));
    load_classifier(&path, None, "cifar10", Device::Cpu).unwrap()
}

/// `logits = W x`, two or more classes.
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
}

impl Classifier for Linear {
    fn classes(&self) -> i64 {
        self.weight.size()[0]
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        (x.flatten(1, -1) - 0.5).matmul(&self.weight.tr())
    }
}

/// The first `count` CIFAR-10 test images `[n,3,32,32]` in `[0, 1]` and their labels `[n]`.
pub(crate) fn cifar(count: usize) -> (Tensor, Tensor) {
    let path = shared().join("data/cifar10/cifar-10-batches-bin/test_batch.bin");
    let bytes = std::fs::read(path).unwrap();
    let records = bytes.chunks_exact(3073).take(count);
    let labels: Vec<i64> = records.clone().map(|r| i64::from(r[0])).collect();
    let pixels: Vec<u8> = records.flat_map(|r| r[1..].to_vec()).collect();
    let images = Tensor::from_slice(&pixels).view([labels.len() as i64, 3, 32, 32]);
    (images.to_kind(Kind::Float) / 255.0, Tensor::from_slice(&labels))
}

/// A golden run: its sidecar and tensors.
pub(crate) struct Golden {
    pub(crate) sidecar: serde_json::Value,
    tensors: Vec<(String, Tensor)>,
}

impl Golden {
    pub(crate) fn load(name: &str) -> Self {
        let base = shared().join("golden/attacks");
        let text = std::fs::read_to_string(base.join(format!("{name}.json"))).unwrap();
        let tensors = Tensor::read_safetensors(base.join(format!("{name}.safetensors"))).unwrap();
        Self { sidecar: serde_json::from_str(&text).unwrap(), tensors }
    }

    pub(crate) fn tensor(&self, name: &str) -> &Tensor {
        let found = self.tensors.iter().find(|(key, _)| key == name);
        &found.unwrap_or_else(|| panic!("no golden tensor {name}")).1
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        Vec::try_from(self.tensor(name).to_kind(Kind::Int64).to_device(Device::Cpu)).unwrap()
    }

    pub(crate) fn number(&self, name: &str) -> f64 {
        self.sidecar[name].as_f64().unwrap()
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.sidecar[name].as_str().unwrap()
    }

    pub(crate) fn attacks(&self) -> Vec<String> {
        match &self.sidecar["attacks"] {
            serde_json::Value::Array(names) => {
                names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
            }
            _ => self.sidecar["broken"].as_object().unwrap().keys().cloned().collect(),
        }
    }
}
