//! Strict mode on a CPU works on plain slices, image by image, by the loops of [`pixels`]: beside a
//! small network a dozen passes of tensor operations over the batch cost as much as the network.

#![allow(unsafe_code, reason = "libtorch hands out memory as a pointer")]

use pixels::{
    Walls,
    plane::{self, Walk},
    step::{self, Image, Step},
};
use tch::{Device, Kind, Tensor};

use super::{Bounds, trial::Trial};
use crate::threat::Norm;

/// Whether `tensor` can be read and written as a slice.
pub(crate) fn plain(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous()
}

/// The numbers of a [`plain`] tensor, row after row.
pub(crate) fn read(tensor: &Tensor) -> &[f32] {
    assert!(plain(tensor), "floats in the CPU's memory, without gaps");
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: so many floats lie there as long as the tensor lives, which the borrow outlasts not;
    // no one writes to a tensor that is borrowed here.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// As [`read`], to be written. The tensor's memory must be its owner's alone.
pub(crate) fn write(tensor: &mut Tensor) -> &mut [f32] {
    assert!(plain(tensor), "floats in the CPU's memory, without gaps");
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as above; the caller owns the memory alone, so that no other slice of it exists.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// Entries of one row.
pub(crate) fn stride(tensor: &Tensor) -> usize {
    tensor.numel() / (tensor.size()[0].max(1) as usize)
}

/// A small vector of any device as floats.
pub(crate) fn values(vector: &Tensor) -> Vec<f32> {
    Vec::try_from(vector.to_device(Device::Cpu)).expect("floats")
}

impl Bounds {
    pub(crate) fn walls(self) -> Walls {
        Walls { low: self.low as f32, high: self.high as f32 }
    }
}

/// What an Auto-PGD step needs beside its images.
pub(crate) struct Stride<'a> {
    /// Step of each row.
    pub(crate) sizes: &'a [f32],
    pub(crate) inertia: f64,
    pub(crate) epsilon: f64,
}

/// The best points so far, and the rows that are now better: copied on the way, while they are in
/// the cache.
pub(crate) struct Keep<'a> {
    pub(crate) rows: &'a [bool],
    pub(crate) best: &'a mut Tensor,
    pub(crate) gradient: &'a mut Tensor,
}

/// One step of Auto-PGD for each row: `previous` becomes the next point. Gives the first row whose
/// gradient is not finite, and stops there.
pub(crate) fn climb(
    trial: &Trial,
    (x, at, gradient): (&Tensor, &Tensor, &Tensor),
    (previous, keep): (&mut Tensor, Keep),
    stride_of: &Stride,
) -> Option<usize> {
    let (each, walls) = (stride(x), trial.spec.bounds.walls());
    let (x, at, gradient) = (read(x), read(at), read(gradient));
    let (best, best_gradient) = (write(keep.best), write(keep.gradient));
    let mut scratch = Vec::new();
    for (row, previous) in write(previous).chunks_exact_mut(each).enumerate() {
        let place = row * each..(row + 1) * each;
        if keep.rows.get(row) == Some(&true) {
            best[place.clone()].copy_from_slice(&at[place.clone()]);
            best_gradient[place.clone()].copy_from_slice(&gradient[place.clone()]);
        }
        if !pixels::finite(&gradient[place.clone()]) {
            return Some(row);
        }
        let (x, at, gradient) = (&x[place.clone()], &at[place.clone()], &gradient[place]);
        let image = Image { x, at, previous, gradient };
        let step = Step {
            size: stride_of.sizes[row],
            inertia: stride_of.inertia as f32,
            epsilon: stride_of.epsilon as f32,
            walls,
        };
        match trial.spec.norm {
            Norm::Linf => step::linf(image, &step),
            Norm::L2 => step::l2(image, &step, &mut scratch),
            Norm::L1 => unreachable!("L1 steps by tensors"),
        }
    }
    None
}

/// One step of FAB for each row of `at`. `warm` holds what the rows' last steps found. Gives the
/// first row whose normal is not finite, and stops there.
pub(crate) fn walk(
    norm: Norm,
    at: &mut Tensor,
    (x, normals, differences): (&Tensor, &Tensor, &[f32]),
    warm: &mut [[f32; 2]],
    walk: &Walk,
) -> Option<usize> {
    let each = stride(x);
    let rows = read(x).chunks_exact(each).zip(read(normals).chunks_exact(each));
    let mut scratch = plane::Scratch::default();
    for (row, (at, (x, normal))) in write(at).chunks_exact_mut(each).zip(rows).enumerate() {
        if !pixels::finite(normal) {
            return Some(row);
        }
        let plane = (x, normal, differences[row]);
        match norm {
            Norm::Linf => plane::linf(at, plane, &mut warm[row], walk, &mut scratch),
            Norm::L2 => plane::l2(at, plane, &mut warm[row], walk, &mut scratch),
            Norm::L1 => plane::l1(at, plane, walk, &mut scratch),
        }
    }
    None
}

/// In how many entries the rows of `a` and `b` differ, `[n]`.
pub(crate) fn support(a: &Tensor, b: &Tensor) -> Tensor {
    let each = stride(a);
    let rows = read(a).chunks_exact(each).zip(read(b).chunks_exact(each));
    Tensor::from_slice(&rows.map(|(a, b)| pixels::support(a, b)).collect::<Vec<f32>>())
}

/// The first row with an entry that is no finite number.
pub(crate) fn first_infinite(gradient: &Tensor) -> Option<usize> {
    read(gradient).chunks_exact(stride(gradient)).position(|row| !pixels::finite(row))
}

/// Which of the rows of `at` that `asked` names are within `epsilon` of `x`.
pub(crate) fn within(
    at: &Tensor,
    x: &Tensor,
    (norm, epsilon): (Norm, f64),
    asked: &[bool],
) -> Vec<bool> {
    let each = stride(x);
    let rows = read(at).chunks_exact(each).zip(read(x).chunks_exact(each)).zip(asked);
    let near = |((at, x), asked): ((&[f32], &[f32]), &bool)| {
        *asked
            && f64::from(match norm {
                Norm::Linf => pixels::furthest(at, x),
                Norm::L2 => pixels::squared_distance(at, x).sqrt(),
                Norm::L1 => pixels::mass_between(at, x),
            }) <= epsilon
    };
    rows.map(near).collect()
}

/// Moves the rows of `at` for which `mask` holds to `x + (at - x)·share`.
pub(crate) fn between(at: &mut Tensor, x: &Tensor, mask: &[bool], share: f32) {
    let each = stride(x);
    let rows = write(at).chunks_exact_mut(each).zip(read(x).chunks_exact(each));
    for ((at, x), _) in rows.zip(mask).filter(|(_, mask)| **mask) {
        pixels::between(at, x, share);
    }
}

/// Overwrites the rows of `kept` for which `mask` holds by those of `from`.
pub(crate) fn copy_rows(kept: &mut Tensor, mask: &[bool], from: &Tensor) {
    if !mask.contains(&true) {
        return;
    }
    let each = stride(from);
    let rows = write(kept).chunks_exact_mut(each).zip(read(from).chunks_exact(each));
    for ((kept, from), _) in rows.zip(mask).filter(|(_, mask)| **mask) {
        kept.copy_from_slice(from);
    }
}
