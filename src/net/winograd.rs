//! 3×3 convolutions by Winograd's minimal filtering F(2×2,3×3): 16 multiplications for four
//! outputs instead of 36, with the rounding of the direct sum. For fixed weights on a CPU, where
//! libtorch's direct convolutions run at the machine's peak already.
//!
//! Source: Lavin and Gray 2016, section 4.1.

use tch::{Kind, Tensor};

/// Fewer channels than this do not pay for the transforms.
const FEWEST_CHANNELS: i64 = 128;
/// Pixels of the images that are transformed at once: what is between the transforms stays in the
/// cache.
const PIXELS: i64 = 1024;

/// A convolution that keeps the size, its kernel transformed.
#[derive(Debug)]
pub(super) struct Winograd {
    /// `[16,c,k]`.
    kernel: Tensor,
    /// `[k]`.
    bias: Tensor,
}

impl Winograd {
    /// The convolution with `weight` `[k,c,3,3]` and `bias` `[k]`; `None` where it does not pay.
    pub(super) fn of(weight: &Tensor, bias: &Tensor) -> Option<Self> {
        let (k, c, height, width) = weight.size4().expect("kernels are [k,c,h,w]");
        let fits = (height, width) == (3, 3) && k.min(c) >= FEWEST_CHANNELS;
        if !fits || weight.device() != tch::Device::Cpu || weight.kind() != Kind::Float {
            return None;
        }
        let _guard = tch::no_grad_guard();
        // G w G': rows [1 0 0], [1 1 1]/2, [1 -1 1]/2, [0 0 1].
        let half = [1.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0.0, 0.0, 1.0];
        let g = Tensor::from_slice(&half).view([4, 3]); // Double
        let turned = weight.detach().to_kind(Kind::Double).permute([1, 0, 2, 3]); // [c,k,3,3]
        let kernel = g.matmul(&turned).matmul(&g.tr()); // [c,k,4,4]
        let kernel = kernel.permute([2, 3, 0, 1]).to_kind(Kind::Float).contiguous();
        Some(Self { kernel: kernel.view([16, c, k]), bias: bias.detach().copy() })
    }

    /// Whether images of this size can be computed.
    pub(super) fn takes(x: &Tensor) -> bool {
        let (_, _, h, w) = x.size4().expect("images are [b,c,h,w]");
        h % 2 == 0 && w % 2 == 0 && !x.requires_grad() && x.kind() == Kind::Float
    }

    /// `[b,c,h,w]` to `[b,k,h,w]`, stored channels last.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let (b, c, h, w) = x.size4().expect("images are [b,c,h,w]");
        let k = self.kernel.size()[2];
        let options = (Kind::Float, x.device());
        let chunk = (PIXELS / (h * w)).clamp(1, b);
        let room = Room {
            padded: Tensor::zeros([chunk, h + 2, w + 2, c], options),
            rows: Tensor::empty([4, chunk, h / 2, w + 2, c], options),
            tiles: Tensor::empty([4, 4, chunk, h / 2, w / 2, c], options),
            products: Tensor::empty([4, 4, chunk, h / 2, w / 2, k], options),
        };
        let out = Tensor::empty([b, h / 2, 2, w / 2, 2, k], options);
        let last = x.permute([0, 2, 3, 1]); // [b,h,w,c]
        let mut start = 0;
        while start < b {
            let n = chunk.min(b - start);
            if n < chunk {
                let room = room.of(n);
                self.convolve(&last.narrow(0, start, n), &room, &out.narrow(0, start, n));
            } else {
                self.convolve(&last.narrow(0, start, n), &room, &out.narrow(0, start, n));
            }
            start += n;
        }
        out.view([b, h, w, k]).permute([0, 3, 1, 2])
    }

    /// Images `x` `[n,h,w,c]` to `out` `[n,h/2,2,w/2,2,k]`.
    fn convolve(&self, x: &Tensor, room: &Room, out: &Tensor) {
        let (n, h, w, c) = x.size4().expect("[n,h,w,c]");
        room.padded.narrow(1, 1, h).narrow(2, 1, w).copy_(x);
        // B' d B, first along rows, then along columns.
        let every = |x: &Tensor, dim, edge| -> [Tensor; 4] {
            [0, 1, 2, 3].map(|first| x.slice(dim, first, first + edge - 1, 2))
        };
        let differ = |[a, b, c, d]: [Tensor; 4], out: [Tensor; 4]| {
            let _ = a.sub_out(&out[0], &c);
            let _ = b.add_out(&out[1], &c);
            let _ = c.sub_out(&out[2], &b);
            let _ = b.sub_out(&out[3], &d);
        };
        differ(every(&room.padded, 1, h), [0, 1, 2, 3].map(|i| room.rows.get(i)));
        differ(every(&room.rows, 3, w), [0, 1, 2, 3].map(|i| room.tiles.select(1, i)));
        let k = self.kernel.size()[2];
        let flat = |tensor: &Tensor, width| tensor.view([16, n * h * w / 4, width]);
        let _ = flat(&room.tiles, c).bmm_out(&flat(&room.products, k), &self.kernel);
        // A' m A.
        let m = [0, 1, 2, 3].map(|i| room.products.get(i)); // [4,n,h/2,w/2,k]
        let (mut upper, mut lower) = (&m[1] + &m[2], &m[1] - &m[2]);
        upper += &m[0];
        lower -= &m[3];
        for (row, part) in [upper, lower].iter().enumerate() {
            let m = [0, 1, 2, 3].map(|i| part.get(i)); // [n,h/2,w/2,k]
            let (mut left, mut right) = (&m[1] + &m[2], &m[1] - &m[2]);
            left += &m[0];
            right -= &m[3];
            let place = |column| out.select(4, column).select(2, row as i64);
            let _ = left.add_out(&place(0), &self.bias);
            let _ = right.add_out(&place(1), &self.bias);
        }
    }
}

/// What lies between the transforms.
struct Room {
    /// `[n,h+2,w+2,c]`, zeros around the images.
    padded: Tensor,
    /// `[4,n,h/2,w+2,c]`.
    rows: Tensor,
    /// `[4,4,n,h/2,w/2,c]`.
    tiles: Tensor,
    /// `[4,4,n,h/2,w/2,k]`.
    products: Tensor,
}

impl Room {
    /// Room for fewer images, where a batch does not part evenly.
    fn of(&self, n: i64) -> Self {
        let fewer = |tensor: &Tensor, dim: usize| {
            let mut shape = tensor.size();
            shape[dim] = n;
            Tensor::zeros(&shape, (tensor.kind(), tensor.device()))
        };
        Self {
            padded: fewer(&self.padded, 0),
            rows: fewer(&self.rows, 1),
            tiles: fewer(&self.tiles, 2),
            products: fewer(&self.products, 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::formula;

    #[test]
    fn it_is_the_direct_convolution() {
        for (b, c, k, h, w) in [(2, 128, 160, 8, 6), (5, 130, 128, 22, 20), (3, 128, 128, 16, 32)] {
            let weight = formula::tensor(1, &[k, c, 3, 3], -0.05, 0.05);
            let bias = formula::tensor(2, &[k], -1.0, 1.0);
            let x = formula::tensor(3, &[b, c, h, w], -2.0, 2.0);
            let direct = x.conv2d(&weight, Some(&bias), 1, 1, 1, 1);
            let quick = Winograd::of(&weight, &bias).unwrap();
            assert!(Winograd::takes(&x));
            let error = (quick.forward(&x) - &direct).abs().max() / direct.abs().max();
            let error = error.double_value(&[]);
            assert!(error < 2e-6, "{b} {c} {k} {h} {w}: {error}");
        }
    }

    #[test]
    fn small_ones_stay_direct() {
        let weight = formula::tensor(1, &[128, 64, 3, 3], -0.05, 0.05);
        assert!(Winograd::of(&weight, &formula::tensor(2, &[128], -1.0, 1.0)).is_none());
    }
}
