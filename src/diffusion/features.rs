//! Features of images, in which sets are compared: those of an Inception network that the user
//! provides, else those of fixed random filters, which compare sets with each other and with
//! nothing published.

use std::path::Path;

use tch::{CModule, Device, IValue, Kind, Tensor};

use crate::{
    data::Dataset,
    error::{Error, Result},
    net::script::keep_plain,
    rng::Stream,
};

/// Images that pass through a network at once.
const BATCH: usize = 100;
/// Channels of the two layers of random filters.
const WIDTHS: [i64; 2] = [48, 96];

/// What turns images into features.
#[derive(Debug)]
pub enum Extractor {
    /// A TorchScript twin of the Inception network of FID (`inception-2015-12-05.pt`).
    Inception(CModule, Device),
    /// Two layers of random filters, the same everywhere.
    Filters([Tensor; 2]),
}

impl Extractor {
    /// The Inception network in the TorchScript file at `path`.
    ///
    /// # Errors
    /// If it is no TorchScript program.
    pub fn inception(path: &Path, device: Device) -> Result<Self> {
        keep_plain();
        let module = CModule::load_on_device(path, device)
            .map_err(|error| Error::in_file(path, format!("is no TorchScript program: {error}")))?;
        Ok(Self::Inception(module, device))
    }

    /// The fixed random filters.
    pub fn filters(device: Device) -> Self {
        let layer = |index: usize, from: i64| {
            let shape = [WIDTHS[index], from, 3, 3];
            let count = shape.iter().product::<i64>();
            let values = Stream::new(0, "feature filters", index as u64).normals(count as usize);
            let scale = (2.0 / (from * 9) as f64).sqrt();
            (Tensor::from_slice(&values) * scale).view(shape).to_device(device)
        };
        Self::Filters([layer(0, 3), layer(1, WIDTHS[0])])
    }

    /// What a report should call these features.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inception(..) => "Inception features",
            Self::Filters(_) => "random-filter features (not comparable with published FID)",
        }
    }

    /// Features `[n,d]`, `Double` on the CPU, of the images `indices` of `data`.
    ///
    /// # Errors
    /// If the network does not take such images or gives anything but `[n,d]`.
    pub fn features(&self, data: &Dataset, indices: &[usize]) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let mut rows = Vec::new();
        for indices in indices.chunks(BATCH) {
            let features = match self {
                Self::Inception(module, device) => inception(module, data, indices, *device)?,
                Self::Filters(layers) => {
                    filtered(layers, &data.images(indices, layers[0].device()))
                }
            };
            rows.push(features.to_device(Device::Cpu).to_kind(Kind::Double));
        }
        Ok(Tensor::cat(&rows, 0))
    }
}

fn inception(
    module: &CModule,
    data: &Dataset,
    indices: &[usize],
    device: Device,
) -> Result<Tensor> {
    // The program scales bytes itself.
    let bytes = (data.images(indices, device) * 255.0).round().to_kind(Kind::Uint8);
    let wrong = |what: String| Error::input(format!("Inception network: {what}"));
    let output = module
        .forward_is(&[IValue::Tensor(bytes), IValue::Bool(true)])
        .map_err(|error| wrong(error.to_string()))?;
    match output {
        IValue::Tensor(features) if features.dim() == 2 => Ok(features),
        _ => Err(wrong("expected one tensor of features [n,d]".to_owned())),
    }
}

/// Mean and deviation of every filter's answer over the image, and the image at 4 by 4 pixels.
fn filtered(layers: &[Tensor; 2], images: &Tensor) -> Tensor {
    let mut x = images * 2.0 - 1.0;
    let b = x.size()[0];
    let mut features = vec![x.adaptive_avg_pool2d([4, 4]).view([b, -1])];
    for layer in layers {
        let none = None::<&Tensor>;
        x = x.conv2d(layer, none, [1, 1], [1, 1], [1, 1], 1).leaky_relu();
        features.push(x.mean_dim([2, 3].as_slice(), false, Kind::Float));
        features.push(x.std_dim([2, 3].as_slice(), false, false));
        x = x.avg_pool2d([2, 2], [2, 2], [0, 0], true, true, None);
    }
    Tensor::cat(&features, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{spec::Split, synthetic},
        diffusion::fid::{Moments, distance},
    };

    #[test]
    fn unlike_images_are_further_apart_than_like_ones() {
        let extractor = Extractor::filters(Device::Cpu);
        let moments = |data: &Dataset, indices: std::ops::Range<usize>| {
            let indices: Vec<usize> = indices.collect();
            Moments::of(&extractor.features(data, &indices).unwrap()).unwrap()
        };
        let data = synthetic::draw(Split::Train, 0, 800, 16);
        let (a, b) = (moments(&data, 0..400), moments(&data, 400..800));
        // Every tenth image: one class only.
        let one: Vec<usize> = (0..80).map(|i| i * 10).collect();
        let one = Moments::of(&extractor.features(&data, &one).unwrap()).unwrap();
        assert!(distance(&a, &b) < 0.5 * distance(&a, &one), "a class is not the whole set");
    }
}
