//! CutMix (Yun et al. 2019) as the paper's code has it: a batch four times over, one box for each.

use tch::{Kind, Tensor};

use crate::{device::upload, rng::Stream};

/// Four copies of images `x` `[b,3,h,w]` with targets `[b,k]`, each with one box from a shuffled
/// copy: `[4b,3,h,w]` and `[4b,k]`.
pub fn mix(stream: &mut Stream, x: &Tensor, target: &Tensor) -> (Tensor, Tensor) {
    let (b, _, h, w) = x.size4().expect("images are [b,3,h,w]");
    let (mut images, mut targets) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let order: Vec<i64> = stream.permutation(b as usize).into_iter().map(i64::from).collect();
        let order = upload(&Tensor::from_slice(&order), x.device());
        let (rows, columns) = area(stream, h, w);
        let mut mixed = x.copy();
        let window =
            |images: &Tensor| images.narrow(2, rows.0, rows.1).narrow(3, columns.0, columns.1);
        window(&mixed).copy_(&window(&x.index_select(0, &order)));
        let kept = 1.0 - (rows.1 * columns.1) as f64 / (h * w) as f64;
        targets.push(target * kept + target.index_select(0, &order) * (1.0 - kept));
        mixed = mixed.to_kind(Kind::Float);
        images.push(mixed);
    }
    (Tensor::cat(&images, 0), Tensor::cat(&targets, 0))
}

/// A box as (start, length) of rows and columns. Its area is uniform: Beta(1, 1) is.
fn area(stream: &mut Stream, h: i64, w: i64) -> ((i64, i64), (i64, i64)) {
    let edge = stream.uniform().sqrt();
    let mut side = |whole: i64| {
        let length = (whole as f64 * edge) as i64;
        let middle = stream.below(whole as u64) as i64;
        let start = (middle - length / 2).max(0);
        (start, (middle + length / 2).min(whole) - start)
    };
    (side(h), side(w))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn labels_are_mixed_as_pixels_are() {
        // Image i is all i, its target one-hot i: the mean pixel must be the target's mean.
        let x = Tensor::arange(5, (Kind::Float, Device::Cpu))
            .view([5, 1, 1, 1])
            .expand([5, 3, 8, 8], false);
        let target = Tensor::eye(5, (Kind::Float, Device::Cpu));
        let (images, targets) = mix(&mut Stream::new(1, "cutmix", 0), &x.contiguous(), &target);
        assert_eq!((images.size(), targets.size()), (vec![20, 3, 8, 8], vec![20, 5]));
        let pixels = images.mean_dim([1i64, 2, 3].as_slice(), false, None);
        let expected = targets.matmul(&Tensor::arange(5, (Kind::Float, Device::Cpu)));
        assert!((pixels - expected).abs().max().double_value(&[]) < 1e-5);
        let changed = images.narrow(0, 0, 5).not_equal_tensor(&x).any().int64_value(&[]);
        assert_eq!(changed, 1);
    }
}
