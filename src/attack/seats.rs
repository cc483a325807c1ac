//! Batches of few sizes, for GPUs.
//!
//! In strict mode examples leave a batch as they fall, one or two at a time, and cuDNN plans every
//! convolution anew for each size that it has not met: milliseconds a layer, far more than a small
//! network's passes. Empty seats cost less.

use tch::Tensor;

use crate::net::Classifier;

/// A classifier that sees batches of few sizes, whatever it is asked. Each image's logits are its
/// own; what fills up the batch is seen by nobody.
pub(crate) struct Seated<'a>(pub(crate) &'a dyn Classifier);

impl Classifier for Seated<'_> {
    fn classes(&self) -> i64 {
        self.0.classes()
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let mut shape = x.size();
        let count = shape[0];
        shape[0] = seats(count) - count;
        if shape[0] == 0 {
            return self.0.logits(x);
        }
        let empty = Tensor::zeros(shape.as_slice(), (x.kind(), x.device()));
        self.0.logits(&Tensor::cat(&[x, &empty], 0)).narrow(0, 0, count)
    }
}

/// `count` or a little more: 16 at least, then eight sizes from each power of two to the next.
fn seats(count: i64) -> i64 {
    if count == 0 {
        return 0;
    }
    let count = count.max(16);
    let step = count.ilog2() - 3;
    let unit = 1i64 << step;
    (count + unit - 1) / unit * unit
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::net::{Network, spec::ClassifierSpec};

    #[test]
    fn sizes_are_few_and_close() {
        let all: Vec<i64> = (0..=1000).map(seats).collect();
        let close = |count: i64| count..=count.max(16) + count / 8;
        assert!((0..=1000).zip(&all).all(|(count, seats)| close(count).contains(seats)));
        let mut distinct = all.clone();
        distinct.dedup();
        assert!(distinct.len() < 60, "{distinct:?}");
        assert_eq!((seats(0), seats(5), seats(17), seats(1000)), (0, 16, 18, 1024));
    }

    #[test]
    fn images_get_their_own_logits_and_gradients() {
        let spec = ClassifierSpec {
            arch: "wrn-10-1-swish".to_owned(),
            dataset: "cifar10".to_owned(),
            classes: 10,
        };
        let network = Network::new(&spec, 0, Device::Cpu).unwrap();
        let x = Tensor::rand([17, 3, 16, 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let pass = |model: &dyn Classifier| {
            let logits = model.logits(&x);
            let sum = logits.logsumexp([1i64].as_slice(), false).sum(Kind::Float);
            (logits.detach(), Tensor::run_backward(&[sum], &[&x], false, false).remove(0))
        };
        let ((logits, slope), (seated, seated_slope)) = (pass(&network), pass(&Seated(&network)));
        assert_eq!(seated.size(), [17, 10]);
        assert!(seated.allclose(&logits, 1e-5, 1e-6, false));
        assert!(seated_slope.allclose(&slope, 1e-4, 1e-6, false));
    }
}
