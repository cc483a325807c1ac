//! The shapes that Square paints: how large, where, and with what profile.

use tch::{Device, Kind, Tensor};

use crate::{device::upload, threat::Norm};

/// Share of the image's pixels that a square covers at 0-based iteration `iteration` (Andriushchenko
/// et al. 2020, with AutoAttack's constants, not rescaled to the number of queries).
pub fn share(iteration: u64) -> f64 {
    let halvings = match iteration {
        0..=10 => 0,
        11..=50 => 1,
        51..=200 => 2,
        201..=500 => 3,
        501..=1000 => 4,
        1001..=2000 => 5,
        2001..=4000 => 6,
        4001..=6000 => 7,
        6001..=8000 => 8,
        _ => 9,
    };
    0.8 / f64::from(1 << halvings)
}

/// Edge of the square at `iteration` on images of `height` by `width`.
pub fn edge(iteration: u64, (height, width): (i64, i64), norm: Norm) -> i64 {
    // Ties round to even, as in Python.
    let side = (share(iteration) * (height * width) as f64).sqrt().round_ties_even() as i64;
    let side = match norm {
        Norm::Linf => side.max(1),
        Norm::L2 | Norm::L1 => {
            let side = side.max(3);
            side + i64::from(side % 2 == 0)
        }
    };
    side.min(height).min(width)
}

/// Two opposite pyramids, `[edge,edge]`, of norm 1.
pub fn profile(edge: i64, norm: Norm) -> Tensor {
    let half = edge / 2;
    let whole = Tensor::cat(&[pyramid(half, edge, norm), -pyramid(edge - half, edge, norm)], 0);
    unit(&whole, norm)
}

/// Centred boxes of growing width, each adding less: `[height,width]`, of norm 1.
fn pyramid(height: i64, width: i64, norm: Norm) -> Tensor {
    let (rows, columns) = (height as usize, width as usize);
    let mut values = vec![0.0f32; rows * columns];
    let centre = (height / 2, width / 2);
    for k in 0..=centre.0.max(centre.1) {
        let power = if norm == Norm::L1 { 4 } else { 2 };
        let gain = 1.0 / ((k + 1) as f32).powi(power);
        for row in (centre.0 - k).max(0)..(centre.0 + k + 1).min(height) {
            for column in (centre.1 - k).max(0)..(centre.1 + k + 1).min(width) {
                values[row as usize * columns + column as usize] += gain;
            }
        }
    }
    unit(&Tensor::from_slice(&values).view([height, width]), norm)
}

fn unit(shape: &Tensor, norm: Norm) -> Tensor {
    match norm {
        Norm::L1 => shape / shape.abs().sum_dim_intlist([0i64, 1].as_slice(), true, None),
        _ => shape / shape.square().sum_dim_intlist([0i64, 1].as_slice(), true, None).sqrt(),
    }
}

/// Square windows of one size, one for each row of a batch or one for all.
#[derive(Debug)]
pub(crate) struct Windows {
    edge: i64,
    /// Flat pixel positions inside the image, `[m,1,edge*edge]`, m = rows or 1.
    flat: Tensor,
    /// The images' height and width.
    size: (i64, i64),
}

impl Windows {
    /// Windows with their upper left corners at `(rows[i], columns[i])`.
    pub(crate) fn new(
        edge: i64,
        (rows, columns): (&[i64], &[i64]),
        size: (i64, i64),
        device: Device,
    ) -> Self {
        let count = rows.len() as i64;
        let first: Vec<i64> = rows.iter().zip(columns).map(|(r, c)| r * size.1 + c).collect();
        let steps = Tensor::arange(edge, (Kind::Int64, device));
        let inside = steps.unsqueeze(1) * size.1 + steps.unsqueeze(0); // [edge,edge]
        let first = upload(&Tensor::from_slice(&first), device).view([count, 1, 1]);
        Self { edge, flat: first + inside.view([1, 1, -1]), size }
    }

    fn index(&self, images: &Tensor) -> Tensor {
        let (count, channels) = (images.size()[0], images.size()[1]);
        self.flat.expand([count, channels, self.edge * self.edge], true)
    }

    /// The pixels of `images` `[n,c,h,w]` under the windows, `[n,c,edge,edge]`.
    pub(crate) fn cut(&self, images: &Tensor) -> Tensor {
        let (count, channels) = (images.size()[0], images.size()[1]);
        images
            .view([count, channels, self.size.0 * self.size.1])
            .gather(2, &self.index(images), false)
            .view([count, channels, self.edge, self.edge])
    }

    /// Overwrites the pixels of `images` under the windows by `content` `[n,c,edge,edge]`.
    pub(crate) fn paste(&self, images: &Tensor, content: &Tensor) {
        let (count, channels) = (images.size()[0], images.size()[1]);
        let source = content.expand([count, channels, self.edge, self.edge], true);
        let source = source.reshape([count, channels, self.edge * self.edge]);
        let mut pixels = images.view([count, channels, self.size.0 * self.size.1]);
        let _ = pixels.scatter_(2, &self.index(images), &source);
    }

    /// Whether a pixel is under a window, as 0 and 1, `[n,c,h,w]`.
    pub(crate) fn mask(&self, images: &Tensor) -> Tensor {
        let mask = images.zeros_like();
        self.paste(&mask, &Tensor::ones([1, 1, 1, 1], (Kind::Float, images.device())));
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_follow_the_published_schedule() {
        let at = |iteration| edge(iteration, (32, 32), Norm::Linf);
        assert_eq!(
            [0, 10, 11, 51, 201, 501, 1001, 2001, 4001].map(at),
            [29, 29, 20, 14, 10, 7, 5, 4, 3]
        );
        assert_eq!(edge(4999, (4, 3), Norm::Linf), 1);
        assert_eq!(edge(0, (32, 20), Norm::L2), 20);
    }

    #[test]
    fn profiles_are_antisymmetric_and_of_norm_one() {
        for norm in [Norm::L2, Norm::L1] {
            for edge in [1, 3, 6, 29] {
                let shape = profile(edge, norm);
                let size = match norm {
                    Norm::L1 => shape.abs().sum(Kind::Float),
                    _ => shape.square().sum(Kind::Float).sqrt(),
                };
                assert!((size.double_value(&[]) - 1.0).abs() < 1e-6, "{norm} {edge}");
                assert!(shape.double_value(&[edge - 1, edge / 2]) < 0.0);
            }
        }
    }

    #[test]
    fn windows_cut_and_paste_their_own_pixels() {
        let images = Tensor::arange(2 * 3 * 4 * 5, (Kind::Float, Device::Cpu)).view([2, 3, 4, 5]);
        let windows = Windows::new(2, (&[0, 2], &[3, 1]), (4, 5), Device::Cpu);
        let cut = windows.cut(&images);
        assert_eq!(cut.get(0).get(0), images.get(0).get(0).narrow(0, 0, 2).narrow(1, 3, 2));
        assert_eq!(cut.get(1).get(2), images.get(1).get(2).narrow(0, 2, 2).narrow(1, 1, 2));
        let pasted = images.copy();
        windows.paste(&pasted, &(&cut * 0.0 - 1.0));
        assert_eq!(pasted.lt(0.0).sum(Kind::Int64).int64_value(&[]), 2 * 3 * 4);
        assert_eq!(windows.mask(&images), pasted.lt(0.0).to_kind(Kind::Float));
    }
}
