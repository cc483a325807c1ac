//! The layers of a classifier, from its architecture's name: what passes through it cost.

use crate::net::{
    arch::{self, Arch},
    spec::ClassifierSpec,
};

/// One convolution, or a fully connected layer, which is one on a single pixel.
#[derive(Debug, Clone, Copy)]
struct Layer {
    weights: f64,
    outputs: f64,
    pixels: f64,
}

/// The layers of a classifier for images of one size.
#[derive(Debug)]
pub(super) struct Layers(Vec<Layer>);

impl Layers {
    /// Those of `spec` for images of edge `resolution`. Normalisations and, in residual networks,
    /// shortcuts and heads are left out: they are less than a tenth.
    pub(super) fn of(spec: &ClassifierSpec, resolution: u64) -> Self {
        let mut stack = Stack { layers: Vec::new(), width: 3.0, edge: resolution as f64 };
        match Arch::parse(arch::split(&spec.arch).0) {
            Ok(Arch::Wide(wide)) => {
                stack.conv(16, 3, 1);
                let width = wide.width;
                stack.basic(&[16 * width, 32 * width, 64 * width], &[(wide.depth - 4) / 6; 3]);
            }
            Ok(Arch::Cifar(layers)) => {
                stack.conv(16, 3, 1);
                stack.basic(&[16, 32, 64], &[(layers - 2) / 6; 3]);
            }
            Ok(Arch::PreAct(spec)) => stack.imagenet(spec.layers),
            Ok(Arch::Basic(layers)) => stack.imagenet(layers),
            Ok(Arch::CnnA | Arch::Small) => {
                stack.conv(16, 4, 2);
                stack.conv(32, 4, 2);
                stack.head(spec.classes);
            }
            Ok(Arch::Verified(stages)) => {
                let channels = 8 * stages;
                stack.conv(channels, 3, 2);
                for _ in 0..stages {
                    stack.conv(2 * channels, 3, 2);
                    (0..3).for_each(|_| stack.conv(2 * channels, 3, 1));
                }
                stack.head(spec.classes);
            }
            // A network in a file without a name that is known here.
            Err(_) => stack.imagenet(18),
        }
        Self(stack.layers)
    }

    /// Multiplications of a forward pass of one image.
    pub(super) fn macs(&self) -> f64 {
        self.0.iter().map(|layer| layer.weights * layer.pixels).sum()
    }

    /// Parameters.
    pub(super) fn weights(&self) -> f64 {
        self.0.iter().map(|layer| layer.weights).sum()
    }

    /// Numbers that a forward pass of one image leaves for the backward pass: each layer's output,
    /// its normalisation and its activation.
    pub(super) fn elements(&self) -> f64 {
        3.0 * self.0.iter().map(|layer| layer.outputs * layer.pixels).sum::<f64>()
    }
}

/// Layers one after another, and what the last one gives.
struct Stack {
    layers: Vec<Layer>,
    width: f64,
    edge: f64,
}

impl Stack {
    fn conv(&mut self, outputs: i64, kernel: i64, stride: i64) {
        let outputs = outputs as f64;
        self.edge = (self.edge / stride as f64).max(1.0);
        let weights = self.width * outputs * (kernel * kernel) as f64;
        self.layers.push(Layer { weights, outputs, pixels: self.edge * self.edge });
        self.width = outputs;
    }

    /// A hundred hidden units on all pixels, then the classes.
    fn head(&mut self, classes: i64) {
        (self.width, self.edge) = (self.width * self.edge * self.edge, 1.0);
        self.conv(100, 1, 1);
        self.conv(classes, 1, 1);
    }

    /// Groups of blocks of two convolutions; groups after the first halve the edge.
    fn basic(&mut self, widths: &[i64], blocks: &[i64]) {
        for (group, (&width, &blocks)) in widths.iter().zip(blocks).enumerate() {
            for block in 0..blocks {
                self.conv(width, 3, if group > 0 && block == 0 { 2 } else { 1 });
                self.conv(width, 3, 1);
            }
        }
    }

    /// The five sizes of He et al. 2015 on a 3x3 stem.
    fn imagenet(&mut self, layers: i64) {
        let blocks = match layers {
            18 => [2, 2, 2, 2],
            101 => [3, 4, 23, 3],
            152 => [3, 8, 36, 3],
            _ => [3, 4, 6, 3],
        };
        let widths = [64, 128, 256, 512];
        self.conv(64, 3, 1);
        if layers < 50 {
            return self.basic(&widths, &blocks);
        }
        for (group, (width, blocks)) in widths.into_iter().zip(blocks).enumerate() {
            for block in 0..blocks {
                self.conv(width, 1, 1);
                self.conv(width, 3, if group > 0 && block == 0 { 2 } else { 1 });
                self.conv(4 * width, 1, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device, net::classifier::Network};

    fn layers(arch: &str) -> Layers {
        let spec = ClassifierSpec { arch: arch.into(), dataset: "cifar10".into(), classes: 10 };
        Layers::of(&spec, 32)
    }

    #[test]
    fn published_networks_have_their_published_cost() {
        for (arch, gmacs, slack) in [
            ("wrn-28-10-swish", 5.24, 0.1),
            ("wrn-70-16-swish", 38.8, 0.5),
            ("preact-resnet18", 0.56, 0.05),
            ("resnet50", 1.30, 0.15),
        ] {
            let found = layers(arch).macs() / 1e9;
            assert!((found - gmacs).abs() < slack, "{arch}: {found}");
        }
        let parameters = layers("wrn-28-10-swish").weights() / 1e6;
        assert!((parameters - 36.48).abs() < 0.5, "{parameters}");
    }

    #[test]
    fn estimated_parameters_are_those_of_the_network() {
        for arch in ["wrn-16-2", "resnet20", "resnet18", "preact-resnet50", "cnn-a", "resnet-4b"] {
            let spec = ClassifierSpec { arch: arch.into(), dataset: "cifar10".into(), classes: 10 };
            let network = Network::blank(&spec, device::choose("cpu").unwrap()).unwrap();
            let real: usize = network.parameters().iter().map(|(_, tensor)| tensor.numel()).sum();
            let share = layers(arch).weights() / real as f64;
            assert!((0.85..=1.0).contains(&share), "{arch}: {share} of {real} parameters");
        }
    }
}
