//! Tensors from images.

use tch::{Device, Kind, Tensor};

use crate::data::Dataset;

impl Dataset {
    /// The images at `indices` as `[n,3,h,w]`, `Float` in `[0, 1]` (bytes divided by 255, as
    /// torchvision's `ToTensor` does), on `device`.
    pub fn images(&self, indices: &[usize], device: Device) -> Tensor {
        let (height, width) = self.size;
        let mut bytes = vec![0u8; indices.len() * self.image_bytes()];
        for (&index, out) in indices.iter().zip(bytes.chunks_exact_mut(self.image_bytes())) {
            self.copy_chw(index, out);
        }
        Tensor::from_slice(&bytes)
            .view([indices.len() as i64, 3, height as i64, width as i64])
            .to_device(device)
            .to_kind(Kind::Float)
            / 255.0
    }

    /// The labels at `indices` as `[n]`, `Int64`, on `device`.
    pub fn targets(&self, indices: &[usize], device: Device) -> Tensor {
        let labels: Vec<i64> = indices.iter().map(|&index| i64::from(self.labels[index])).collect();
        Tensor::from_slice(&labels).to_device(device)
    }
}
