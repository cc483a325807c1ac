//! How much memory a training takes on its device, counted from the shapes of its tensors.

use crate::{
    net::spec::Precision,
    train::spec::{Loss, TrainSpec},
};

/// One part of the memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What it is, with its arithmetic.
    pub what: String,
    /// Bytes.
    pub bytes: f64,
}

/// The parts of the memory that training by `spec` takes on a device at its peak, for wide
/// residual networks; nothing for others. libtorch's own 1 to 2 GB come on top.
///
/// Measured on a CPU, where nothing but tensors grows with the batch: WRN-10-4 takes 864 MB more for
/// 256 images than for 128 (870 counted), with checkpointing 386 MB (400 counted). Where tensors
/// are smaller than 32 MB, the allocator keeps up to half as much again. A test holds us to it.
pub fn parts(spec: &TrainSpec) -> Option<Vec<Part>> {
    let shapes = Shapes::of(&spec.network.arch, spec.data.resolution, spec.network.classes)?;
    let (size, views) = (kind_bytes(spec.precision), if spec.consistency > 0.0 { 2 } else { 1 });
    let whole = spec.batch * views;
    let rows = spec.virtual_batch.map_or(whole, |size| size.min(whole)) as f64;
    let copies = if spec.precision == Precision::Fp16 { 8.0 } else { 6.0 };
    let passes = match spec.loss {
        Loss::Standard => 1.0,
        Loss::PgdAt => {
            if spec.keep_clean {
                2.0
            } else {
                1.0
            }
        }
        // The clean pass lives while the other one is crafted, then both do.
        Loss::Trades | Loss::Mart | Loss::Score => 2.0,
    };
    let pixels = 3.0 * (spec.data.resolution * spec.data.resolution) as f64;
    let mut parts = vec![
        Part {
            what: format!(
                "{:.1}M weights x {copies} (weights, velocity, average, gradient, update) x 4 B",
                shapes.parameters / 1e6
            ),
            bytes: shapes.parameters * copies * 4.0,
        },
        Part {
            what: format!("{whole} images x 8 (clean, start, crafted, bounds, ...) x 4 B"),
            bytes: whole as f64 * pixels * 8.0 * 4.0,
        },
    ];
    let mut kept = |what: &str, elements: f64, times: f64| {
        parts.push(Part {
            what: format!("{rows} images x {:.2}M {what} x {times} x {size} B", elements / 1e6),
            bytes: rows * elements * times * size,
        });
    };
    if spec.checkpointing {
        kept("values between blocks", shapes.between, passes);
        kept("values inside the largest block", shapes.largest, 1.0);
    } else {
        kept("values that the way back needs", shapes.all, passes);
    }
    kept("values on the way back", shapes.tensor, 3.0);
    Some(parts)
}

/// Bytes of a number in which the network computes.
fn kind_bytes(precision: Precision) -> f64 {
    if precision == Precision::Fp32 { 4.0 } else { 2.0 }
}

/// Numbers of values, for one image where that matters.
#[derive(Debug)]
struct Shapes {
    parameters: f64,
    /// Inputs of all segments.
    between: f64,
    /// Everything that backward passes read: both normalisations' inputs, their outputs and the
    /// activations of each block.
    all: f64,
    /// The same for the block that has most.
    largest: f64,
    /// The largest single tensor.
    tensor: f64,
}

impl Shapes {
    fn of(arch: &str, resolution: u64, classes: i64) -> Option<Self> {
        let mut numbers = arch.strip_prefix("wrn-")?.split('-');
        let mut number = || numbers.next()?.parse::<u64>().ok();
        let (depth, width) = (number()?, number()? as f64);
        let blocks = depth.checked_sub(4)? / 6;
        let mut edge = resolution as f64;
        let (mut from, mut at) = (16.0, 16.0 * edge * edge);
        let mut shapes = Self {
            parameters: 9.0 * 3.0 * 16.0,
            between: 3.0 * edge * edge,
            all: 0.0,
            largest: 0.0,
            tensor: at,
        };
        for (group, base) in [16.0, 32.0, 64.0].into_iter().enumerate() {
            let to = base * width;
            edge = if group > 0 { (edge / 2.0).ceil() } else { edge };
            for _ in 0..blocks {
                let next = to * edge * edge;
                // Input, normalised, activated; then the same between the two convolutions.
                let inside = 3.0 * at + 3.0 * next;
                shapes.parameters += 9.0 * (from * to + to * to) + 2.0 * (from + to);
                shapes.parameters += if from < to { from * to } else { 0.0 };
                shapes.between += at;
                shapes.all += inside;
                shapes.largest = shapes.largest.max(inside);
                shapes.tensor = shapes.tensor.max(next);
                (from, at) = (to, next);
            }
        }
        shapes.parameters += 2.0 * from + (from + 1.0) * classes as f64;
        shapes.between += at;
        shapes.all += 3.0 * at;
        Some(shapes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::golden;

    fn gigabytes(spec: &TrainSpec) -> f64 {
        parts(spec).unwrap().iter().map(|part| part.bytes).sum::<f64>() / 1e9
    }

    fn spec(arch: &str, batch: u64) -> TrainSpec {
        let mut spec = TrainSpec { batch, ..golden::spec() };
        spec.network.arch = arch.into();
        spec
    }

    #[test]
    fn parameters_are_the_published_ones() {
        let count = |arch, classes| Shapes::of(arch, 32, classes).unwrap().parameters;
        assert_eq!(count("wrn-28-10-swish", 10) as u64, 36_479_194);
        assert_eq!(count("wrn-28-10-swish", 100) as u64, 36_536_884);
        assert_eq!(count("wrn-70-16-swish", 10) as u64, 266_796_506);
        assert!(parts(&spec("preact-resnet18", 512)).is_none());
    }

    #[test]
    fn the_largest_network_fits_one_card_in_two_ways() {
        let large = spec("wrn-70-16-swish", 1024);
        let plain = gigabytes(&large);
        assert!((250.0..300.0).contains(&plain), "{plain}");
        let half = TrainSpec { precision: Precision::Bf16, ..large.clone() };
        assert!(gigabytes(&half) > 80.0, "{}", gigabytes(&half));
        // Twice the way forward.
        let saving = gigabytes(&TrainSpec { checkpointing: true, ..half.clone() });
        assert!(saving < 45.0, "{saving}");
        assert!(gigabytes(&TrainSpec { checkpointing: true, ..large }) < 75.0);
        // A quarter of the batch at a time, as on four GPUs.
        let quarter = gigabytes(&TrainSpec { virtual_batch: Some(256), ..half });
        assert!(quarter < 45.0, "{quarter}");
        assert!(gigabytes(&spec("wrn-28-10-swish", 512)) < 80.0);
    }
}
