//! The loops over pixels against float64 oracles and against the tensor forms.

use pixels::{
    Walls, ball,
    plane::{self, Walk},
    select,
    square::{Shift, Size, Window, shift_l1, shift_l2},
};
use tch::{Kind, Tensor};

use super::{Bounds, geometry::flat, hyperplane_linear::Planes, oracle};
use crate::{rng::Stream, threat::Norm};

const WALLS: Walls = Walls { low: 0.0, high: 1.0 };

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn normals(name: &str, count: usize, scale: f32) -> Vec<f32> {
    Stream::new(0, name, 0).normals(count).into_iter().map(|v| v * scale).collect()
}

/// Pixels, a seventh of them on either wall.
fn image(count: usize) -> Vec<f32> {
    let mut stream = Stream::new(0, "pixels", 0);
    let pixel = |i: usize, free: f32| match i % 7 {
        0 => 0.0,
        1 => 1.0,
        _ => free,
    };
    (0..count).map(|i| pixel(i, stream.uniform() as f32)).collect()
}

#[test]
fn the_l1_ball_agrees_with_a_float64_oracle() {
    for count in [1, 15, 300, 3072] {
        let x = image(count);
        for (scale, epsilon) in [(0.01, 5.0), (0.3, 2.0), (3.0, 1.0), (1.0, 12.0), (0.5, 40.0)] {
            let delta = normals("delta", count, scale);
            let lambda = ball::shrinkage(&x, &delta, epsilon, WALLS);
            let mut found = vec![0.0; count];
            ball::shrink(&x, &delta, lambda, WALLS, &mut found);
            let epsilon = f64::from(epsilon);
            let wanted = oracle::l1_ball(&wide(&x), &wide(&delta), epsilon, Bounds::UNIT);
            let moved = wide(&found).into_iter().zip(wide(&x)).map(|(a, b)| a - b);
            let worst = moved.zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 4e-6, "{count} pixels, scale {scale}, radius {epsilon}: {worst}");
        }
    }
}

#[test]
fn thresholds_are_those_of_a_sort() {
    for (count, zeros) in [(1, 0), (7, 3), (3072, 100), (3072, 3000)] {
        let mut values = normals("gradient", count, 1e-3);
        values.iter_mut().enumerate().for_each(|(i, v)| *v = v.powi(3) * (i % 5) as f32);
        values[..zeros].fill(0.0);
        let mut sorted: Vec<f32> = values.iter().map(|v| v.abs()).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for rank in [1, 2, count / 3, count] {
            let rank = rank.clamp(1, count);
            let found = select::threshold(&values, rank, &mut Vec::new());
            assert_eq!(found.to_bits(), sorted[rank - 1].to_bits(), "{rank} of {count}");
        }
    }
}

/// FAB's step over slices and over tensors, from the same point, twice: the second starts warm.
#[test]
fn fab_steps_as_the_tensor_form() {
    let (count, walk) = (300, Walk { alpha: 0.1, overshoot: 1.05, walls: WALLS });
    let x = image(count);
    let tensor = |v: &[f32]| Tensor::from_slice(v).view([1, count as i64]);
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        for difference in [0.3f32, -4.0, 20.0, 500.0] {
            let mut at: Vec<f32> = x.iter().map(|v| (v * 0.9).clamp(0.0, 1.0)).collect();
            let mut warm = [0.0; 2];
            let mut scratch = plane::Scratch::default();
            for round in 0..2 {
                let name = format!("normal {round}");
                let mut normal = normals(&name, count, 1.0);
                normal.iter_mut().filter(|w| w.abs() < 0.02).for_each(|w| *w = 0.0);
                let (a, w) = (tensor(&at), tensor(&normal));
                let planes = Planes::new(&w, norm, Bounds::UNIT);
                let excess = Tensor::from_slice(&[difference]).view([1, 1]);
                let apart = ((&a - tensor(&x)) * &w).sum_dim_intlist([1].as_slice(), true, None);
                let (near, a1) = planes.toward(&a, &excess);
                let (far, a2) = planes.toward(&tensor(&x), &(excess - apart));
                let (a1, a2) = (a1.clamp_min(1e-8), a2.clamp_min(1e-8));
                let alpha = (&a1 / (&a1 + a2)).clamp(0.0, 0.1);
                let (near, far) = (&a - near * 1.05, tensor(&x) - far * 1.05);
                let wanted = (&near + (far - &near) * alpha).clamp(0.0, 1.0);
                let of = (&x[..], &normal[..], difference);
                match norm {
                    Norm::Linf => plane::linf(&mut at, of, &mut warm, &walk, &mut scratch),
                    Norm::L2 => plane::l2(&mut at, of, &mut warm, &walk, &mut scratch),
                    Norm::L1 => plane::l1(&mut at, of, &walk, &mut scratch),
                }
                let gap = (tensor(&at) - wanted).abs().max().double_value(&[]);
                // A unit of L1's last pixel takes all the rounding of a sum of 300 products.
                let allowed = if norm == Norm::L1 { 8e-5 } else { 1e-5 };
                assert!(gap < allowed, "{norm}, {difference}, round {round}: {gap}");
            }
        }
    }
}

/// The published move, with masks over the whole image.
fn shifted(x: &Tensor, best: &Tensor, shift: &Shift, norm: Norm) -> Tensor {
    let size = x.size();
    let window = |w: Window| {
        let mask = Tensor::zeros([1, size[1], size[2]], (Kind::Float, x.device()));
        let edge = w.edge as i64;
        let _ = mask.narrow(1, w.top as i64, edge).narrow(2, w.left as i64, edge).fill_(1.0);
        mask
    };
    let l1 = norm == Norm::L1;
    let part = |v: &Tensor| {
        let v = if l1 { v.abs() } else { v.square() };
        let sum = v.sum_dim_intlist([1i64, 2].as_slice(), true, None);
        if l1 { sum } else { sum.sqrt() }
    };
    let whole = |v: &Tensor| {
        if l1 { v.abs().sum(Kind::Float) } else { v.square().sum(Kind::Float).sqrt() }
    };
    let (into, from) = (window(shift.into), window(shift.from));
    let delta = best - x;
    let both = into.maximum(&from);
    let available = part(&(&delta * &both));
    let edge = shift.into.edge as i64;
    let signs = Tensor::from_slice(shift.signs).view([-1, 1, 1]);
    let profile = Tensor::zeros_like(x);
    let () = profile
        .narrow(1, shift.into.top as i64, edge)
        .narrow(2, shift.into.left as i64, edge)
        .copy_(&(Tensor::from_slice(shift.profile).view([1, edge, edge]) * signs));
    let old = &delta * &into;
    let pattern = &profile + &old / (part(&old) + 1e-12);
    let pattern = &pattern / (part(&pattern) + 1e-12);
    let (channels, epsilon) = (shift.signs.len() as f64, f64::from(shift.epsilon));
    let content = if l1 {
        pattern * ((-whole(&delta) + epsilon).clamp_min(0.0) / channels + available) * channels
    } else {
        let unused = (-whole(&delta).square() + epsilon * epsilon).clamp_min(0.0);
        pattern * (unused / channels + available.square()).sqrt()
    };
    let delta = &delta * (-both + 1.0) + content;
    if l1 {
        return delta;
    }
    (x + &delta / (whole(&delta) + 1e-12) * epsilon).clamp(0.0, 1.0)
}

#[test]
fn squares_move_as_published() {
    let (height, width) = (9usize, 8usize);
    let x = image(3 * height * width);
    let tensor = |v: &[f32]| Tensor::from_slice(v).view([3, height as i64, width as i64]);
    let moved = normals("perturbation", x.len(), 0.05);
    let best: Vec<f32> = x.iter().zip(&moved).map(|(x, d)| (x + d).clamp(0.0, 1.0)).collect();
    let window = |top, left| Window { top, left, edge: 3 };
    let shift = |from, epsilon| Shift {
        into: window(1, 2),
        from,
        size: Size { height, width },
        profile: &[0.1, 0.2, 0.1, 0.0, 0.0, 0.0, -0.1, -0.2, -0.1],
        signs: &[1.0, -1.0, 1.0],
        epsilon,
        walls: WALLS,
    };
    for from in [window(5, 4), window(2, 3), window(1, 2)] {
        let mut candidate = vec![0.0; x.len()];
        let l2 = shift(from, 0.6);
        let size = pixels::squared_distance(&best, &x);
        let length = shift_l2(&best, &x, &l2, size, &mut candidate);
        let wanted = shifted(&tensor(&x), &tensor(&best), &l2, Norm::L2);
        let gap = (tensor(&candidate) - wanted).abs().max().double_value(&[]);
        assert!(gap < 1e-6, "{from:?}: {gap}");
        assert!((length - pixels::squared_distance(&candidate, &x)).abs() < 1e-9);

        let l1 = shift(from, 9.0);
        let (size, mut delta) = (pixels::mass_between(&best, &x), vec![0.0; x.len()]);
        shift_l1(&best, &x, &l1, (size, 9.0), (&mut delta, &mut candidate));
        let wanted = shifted(&tensor(&x), &tensor(&best), &l1, Norm::L1);
        let gap = (tensor(&delta) - &wanted).abs().max().double_value(&[]);
        assert!(gap < 1e-5, "{from:?}: {gap}");
        let wanted: Vec<f32> = Vec::try_from(flat(&wanted).flatten(0, -1)).unwrap();
        let inside = oracle::l1_ball(&wide(&x), &wide(&wanted), 9.0, Bounds::UNIT);
        let found = wide(&candidate).into_iter().zip(wide(&x)).map(|(a, b)| a - b);
        let worst = found.zip(inside).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 2e-5, "{from:?}: {worst}");
    }
}
