//! Tensors from images, and batches that become tensors.

use tch::{Device, Kind, Tensor};

use crate::{data::Dataset, device::upload};

impl Dataset {
    /// The images at `indices` as `[n,3,h,w]`, `Float` in `[0, 1]` (bytes divided by 255, as
    /// torchvision's `ToTensor` does), on `device`.
    pub fn images(&self, indices: &[usize], device: Device) -> Tensor {
        self.bytes(indices, device).to_kind(Kind::Float) / 255.0
    }

    /// The images at `indices` as bytes, `[n,3,h,w]`, `Uint8`, on `device`.
    pub fn bytes(&self, indices: &[usize], device: Device) -> Tensor {
        let (height, width) = self.size;
        let mut bytes = vec![0u8; indices.len() * self.image_bytes()];
        for (&index, out) in indices.iter().zip(bytes.chunks_exact_mut(self.image_bytes())) {
            self.copy_chw(index, out);
        }
        let shape = [indices.len() as i64, 3, height as i64, width as i64];
        upload(&Tensor::from_slice(&bytes).view(shape), device)
    }

    /// The labels at `indices` as `[n]`, `Int64`, on `device`.
    pub fn targets(&self, indices: &[usize], device: Device) -> Tensor {
        let labels: Vec<i64> = indices.iter().map(|&index| i64::from(self.labels[index])).collect();
        upload(&Tensor::from_slice(&labels), device)
    }
}

/// Where an image of a batch came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Index in the real set.
    Real(usize),
    /// Index over all generated parts, or in the endless set that is drawn meanwhile.
    Generated(usize),
}

/// One batch, not yet a tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Its number, counted over all epochs.
    pub step: u64,
    /// Height and width.
    pub size: (usize, usize),
    /// `[n,3,h,w]`.
    pub pixels: Vec<u8>,
    /// `[n]`.
    pub labels: Vec<i64>,
    /// Probabilities of the classes `[n,k]`; empty where no image has any.
    pub soft: Vec<f32>,
    /// Where each image came from.
    pub origins: Vec<Origin>,
    /// `[n * repeats,3,h,w]`, or nothing for [`Noise::Off`](super::loader::Noise::Off).
    pub noise: Vec<f32>,
}

impl Batch {
    /// Images `[n,3,h,w]`, `Float` in `[0, 1]`. Bytes travel to `device`, floats are made there.
    pub fn images(&self, device: Device) -> Tensor {
        let shape = self.shape();
        let bytes = Tensor::from_slice(&self.pixels).view(shape);
        upload(&bytes, device).to_kind(Kind::Float) / 255.0
    }

    /// Labels `[n]`, `Int64`.
    pub fn targets(&self, device: Device) -> Tensor {
        upload(&Tensor::from_slice(&self.labels), device)
    }

    /// Soft labels `[n,k]`, `Float`, certain of the label where an image has none; `None` where no
    /// image has any.
    pub fn soft(&self, device: Device) -> Option<Tensor> {
        let rows = self.labels.len() as i64;
        (!self.soft.is_empty())
            .then(|| upload(&Tensor::from_slice(&self.soft).view([rows, -1]), device))
    }

    /// Noise `[n * repeats,3,h,w]`, `Float`; nothing where none was wanted.
    pub fn noise(&self, device: Device) -> Tensor {
        let [_, channels, height, width] = self.shape();
        upload(&Tensor::from_slice(&self.noise).view([-1, channels, height, width]), device)
    }

    /// 1 where the image is generated, else 0: `[n]`, `Float`.
    pub fn generated(&self, device: Device) -> Tensor {
        let marks: Vec<f32> = self
            .origins
            .iter()
            .map(|o| f32::from(u8::from(matches!(o, Origin::Generated(_)))))
            .collect();
        upload(&Tensor::from_slice(&marks), device)
    }

    fn shape(&self) -> [i64; 4] {
        [self.labels.len() as i64, 3, self.size.0 as i64, self.size.1 as i64]
    }
}
